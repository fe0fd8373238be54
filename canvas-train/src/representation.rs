//! What is asked of a network's middle, beside its answer: to resemble the features of another network ([REPA](Projector)),
//! or to differ from image to image ([`dispersive`]).
//!
//! # Example
//! A DiT whose second block is to resemble features:
//! ```
//! use burn::prelude::*;
//! use canvas_core::{Backbone, Class};
//! use canvas_dit::DitConfig;
//! use canvas_train::representation::{Features, Projector, dispersive, watch};
//!
//! /// In truth a frozen DINOv2: as many tokens as the network has.
//! struct Means;
//! impl Features for Means {
//!     fn features(&self, images: Tensor<4>) -> Tensor<3> {
//!         let [batch, channels, height, width] = images.dims();
//!         let patches = images.reshape([batch, channels, height / 4, 4, width / 4, 4]);
//!         let means: Tensor<4> = patches.mean_dim(5).mean_dim(3).reshape([batch, channels, height / 4, width / 4]);
//!         means.flatten::<3>(2, 3).swap_dims(1, 2)
//!     }
//! }
//!
//! let device = Device::flex();
//! let dit = DitConfig::new([4, 4], 16, 2, 2).with_channels(3).with_classes(10).init(&device);
//! let projector = Projector::new(16, 32, 3, &device); // trained with the network, left behind afterwards
//!
//! let images = Tensor::<4>::ones([2, 3, 8, 8], &device);
//! let (x, time, class) = (Tensor::ones([2, 3, 4, 4], &device), Tensor::ones([2], &device), Class::new(&[3, 7], &device));
//! let (answer, tokens) = watch("blocks.1", || dit.forward(x, time, &class));
//! assert_eq!((answer.dims(), tokens.dims()), ([2, 3, 4, 4], [2, 4, 16]));
//! let alignment = projector.alignment(tokens.clone(), Means.features(images)); // times 0.5, beside the objective
//! assert_eq!(alignment.dims(), [2]);
//! assert_eq!(dispersive(tokens, 0.5).dims(), [1]);
//! ```

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, dense};
use canvas_core::trace::{self, Hook, Tapped};
use std::cell::RefCell;
use std::rc::Rc;

/// A network that says what is in a picture, patch by patch: frozen, and of any architecture.
pub trait Features {
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[-1, 1]`; output: `[B, N, E]`
    fn features(&self, images: Tensor<4>) -> Tensor<3>;
}

/// Runs a network, and keeps what one of its parts gives, by its [name](canvas_core::trace), with gradients.
///
/// # Panics
/// If there is no part of this name, or its activation is no row of tokens `[B, N, W]`: names those that there are.
pub fn watch<T>(part: &str, network: impl FnOnce() -> T) -> (T, Tensor<3>) {
    let keep = Rc::new(Keep { part: part.to_owned(), found: RefCell::default(), names: RefCell::default() });
    let answer = trace::with_hook(keep.clone(), network);
    let found = keep.found.take();
    let found = found.unwrap_or_else(|| {
        let names = keep.names.take().join(", ");
        panic!("no part named {part} gives [B, N, W]; there are {names}")
    });
    (answer, found)
}

struct Keep {
    part: String,
    found: RefCell<Option<Tensor<3>>>,
    names: RefCell<Vec<String>>,
}

impl Hook for Keep {
    fn tap(&self, tapped: &mut Tapped<'_>) {
        if tapped.name() == self.part {
            *self.found.borrow_mut() = tapped.get::<3>();
        }
        if tapped.dims().len() == 3 {
            self.names.borrow_mut().push(tapped.name().to_owned());
        }
    }
    fn wants(&self, name: &str) -> bool {
        name == self.part
    }
}

/// REPA: tokens from a network's middle, through three layers, to the features of another network.
///
/// # Reference
/// Yu et al., "Representation Alignment for Generation", 2024, <https://arxiv.org/abs/2410.06940>: behind block 8, times 0.5.
#[derive(Module, Debug)]
pub struct Projector {
    first: Linear,
    second: Linear,
    third: Linear,
}

impl Projector {
    /// From tokens of `width` to features of `features`; `hidden` is 2048 in the paper.
    pub fn new(width: usize, hidden: usize, features: usize, device: &Device) -> Self {
        let layer = |from, to| LinearConfig::new(from, to).init(device);
        Self { first: layer(width, hidden), second: layer(hidden, hidden), third: layer(hidden, features) }
    }

    /// # Shapes
    /// `[B, N, W]` to `[B, N, E]`
    pub fn forward(&self, tokens: Tensor<3>) -> Tensor<3> {
        let h = Activation::Silu.forward(dense(&self.first, tokens));
        let h = Activation::Silu.forward(dense(&self.second, h));
        dense(&self.third, h)
    }

    /// What is minimised, of each image: less the mean cosine of tokens and features.
    ///
    /// # Shapes
    /// - `tokens`: `[B, N, W]`; `features`: `[B, N, E]`, which get no gradient; output: `[B]`, from -1 to 1
    ///
    /// # Panics
    /// If there are not as many tokens as features.
    pub fn alignment(&self, tokens: Tensor<3>, features: Tensor<3>) -> Tensor<1> {
        let ours = self.forward(tokens);
        assert_eq!(ours.dims(), features.dims(), "tokens and features");
        let unit = |x: Tensor<3>| x.clone() / x.square().sum_dim(2).sqrt().clamp_min(1e-8);
        let cosines = (unit(ours) * unit(features.detach())).sum_dim(2); // [B, N, 1]
        let batch = cosines.dims()[0];
        -cosines.mean_dim(1).reshape([batch])
    }
}

/// Dispersive loss: `ln(mean over pairs of exp(-|z_i - z_j|^2 / (D temperature)))` of whole images' tokens, `D` numbers each. Less
/// where images of a batch differ more; needs no other network.
///
/// It is one number for a batch, and not the mean of its images': a batch in parts is another loss.
///
/// # Shapes
/// - `tokens`: `[B, N, W]`; output: `[1]`
///
/// # Reference
/// Wang and He, "Diffuse and Disperse", 2025, equation 6, <https://arxiv.org/abs/2506.09027>: times 0.5; its code divides
/// by the count of numbers, and counts each image with itself.
pub fn dispersive(tokens: Tensor<3>, temperature: f64) -> Tensor<1> {
    let [batch, length, width] = tokens.dims();
    let rows: Tensor<2> = tokens.reshape([batch, length * width]);
    let squares = rows.clone().square().sum_dim(1); // [B, 1]
    let products = rows.clone().matmul(rows.transpose());
    let apart = (squares.clone() + squares.transpose() - products * 2.0).clamp_min(0.0);
    let near = (apart / (-temperature * (length * width) as f64)).exp();
    near.mean().log().reshape([1])
}
