//! EDM2: a UNet whose layers preserve magnitudes, for images of a class.
//!
//! Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2023,
//! <https://arxiv.org/abs/2312.02696>, configuration G.
//!
//! # Differs from the original
//! - No dropout, which the paper's larger networks train with.
//! - Queries, keys and values have a weight each; the original cuts one. The map is the same.
//!
//! Shape letters: `B` batch, `C` channels, `H` and `S` height and width, `E` embedding width.

mod block;
mod uncertainty;

pub use uncertainty::Uncertainty;

use crate::blocks::Resize;
use crate::magnitude::{MpConv, MpFourier, MpLinear, mp_cat, mp_silu, mp_sum};
use block::{Block, Place, Way};
use burn::module::Param;
use burn::nn::Initializer;
use burn::prelude::*;
use canvas_core::{Backbone, Class, ConfigError, check, trace};

/// Fraction that a skip connection contributes on the way up, and the class to the embedding.
const HALF: f64 = 0.5;

/// Sizes of an [`Edm2`].
///
/// A level is a resolution: the first is the input's, each next one half of it. The lists have one entry a level.
#[derive(Config, Debug)]
pub struct Edm2Config {
    /// Channels in and out.
    pub channels: usize,
    /// Channels of each level.
    pub widths: Vec<usize>,
    /// Whether each level attends.
    pub attends: Vec<bool>,
    /// Classes; 0 for a network that reads none, whose only label is 0: "no class".
    pub classes: usize,
    /// Blocks of each level on the way down, besides the one that halves; on the way up there is one more.
    #[config(default = 3)]
    pub blocks: usize,
    /// Channels of an attention head; they must divide those of the levels that attend.
    #[config(default = 64)]
    pub head: usize,
    /// Largest absolute value that leaves a block, so that it stays within 16 bits.
    #[config(default = 256.0)]
    pub clip: f64,
}

impl Edm2Config {
    /// XS of table 2: 124,713,381 parameters.
    pub fn xs() -> Self {
        Self::imagenet512(128)
    }

    /// S of table 2: 280,213,093 parameters.
    pub fn s() -> Self {
        Self::imagenet512(192)
    }

    /// M of table 2: 497,808,165 parameters.
    pub fn m() -> Self {
        Self::imagenet512(256)
    }

    /// L of table 2: 777,498,597 parameters.
    pub fn l() -> Self {
        Self::imagenet512(320)
    }

    /// XL of table 2: 1,119,284,389 parameters.
    pub fn xl() -> Self {
        Self::imagenet512(384)
    }

    /// XXL of table 2: 1,523,165,541 parameters.
    pub fn xxl() -> Self {
        Self::imagenet512(448)
    }

    /// For latents `[4, 64, 64]` of ImageNet at 512x512; with 3 channels for ImageNet at 64x64.
    fn imagenet512(width: usize) -> Self {
        let widths = (1..=4).map(|factor| factor * width).collect();
        Self::new(4, widths, vec![false, false, true, true], 1000)
    }

    /// # Errors
    /// Names the values that disagree.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let levels = self.widths.len();
        check::positive(("levels (entries of widths)", levels))?;
        let found = self.attends.len();
        if found != levels {
            return Err(ConfigError::new(format!(
                "attends has {found} entries, but widths has {levels}: one a level"
            )));
        }
        check::positive(("channels", self.channels))?;
        check::positive(("blocks", self.blocks))?;
        if self.clip.is_nan() || self.clip <= 0.0 {
            return Err(ConfigError::new(format!("clip must be above 0, found {}", self.clip)));
        }
        for (level, &width) in self.widths.iter().enumerate() {
            let name = format!("widths of level {level}");
            check::positive((&name, width))?;
            if self.attends[level] || level + 1 == levels {
                check::divides(("head", self.head), (&name, width))?;
            }
        }
        Ok(())
    }

    /// The gain of the output starts at zero, so the first prediction is zero.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Edm2 {
        self.validate().unwrap_or_else(|error| panic!("Edm2Config: {error}"));
        let (first, embedding) = (self.widths[0], self.embedding());
        let mut skips = vec![first];
        let down: Vec<Level> =
            (0..self.widths.len()).map(|level| self.down(level, &mut skips, device)).collect();
        let last = self.widths.len() - 1;
        let middle = [true, false].map(|attends| {
            let width = self.widths[last];
            Block::new(&self.place((Way::Up, Resize::Keep), (width, width), attends), device)
        });
        let mut from = self.widths[last];
        let up = (0..=last).rev().map(|level| self.up(level, (&mut from, &mut skips), device)).collect();
        Edm2 {
            fourier: MpFourier::new(first, device),
            noise: MpLinear::new(first, embedding, device),
            classes: (self.classes > 0).then(|| MpLinear::new(self.classes, embedding, device)),
            // One channel more, of ones, stands for a bias.
            input: MpConv::new(self.channels + 1, first, 3, device),
            down,
            middle: middle.into(),
            up,
            output: MpConv::new(first, self.channels, 3, device),
            gain: Initializer::Zeros.init([1], device),
            channels: self.channels,
        }
    }

    /// Width of the embedding: that of the widest level.
    fn embedding(&self) -> usize {
        self.widths.iter().copied().max().expect("validated")
    }

    fn place(&self, (way, resize): (Way, Resize), (from, to): (usize, usize), attends: bool) -> Place {
        let head = attends.then_some(self.head);
        Place { way, resize, from, to, embedding: self.embedding(), head, clip: self.clip }
    }

    /// Adds the channels of everything it will leave behind to `skips`.
    fn down(&self, level: usize, skips: &mut Vec<usize>, device: &Device) -> Level {
        let width = self.widths[level];
        let mut block = |resize, to, attends| {
            let from = *skips.last().expect("starts with the input convolution's");
            skips.push(to);
            Block::new(&self.place((Way::Down, resize), (from, to), attends), device)
        };
        Level {
            resize: (level > 0).then(|| block(Resize::Halve, self.widths[level - 1], false)),
            blocks: (0..self.blocks).map(|_| block(Resize::Keep, width, self.attends[level])).collect(),
        }
    }

    /// Takes the channels it will read from the end of `skips`, and leaves in `from` those it puts out.
    fn up(&self, level: usize, (from, skips): (&mut usize, &mut Vec<usize>), device: &Device) -> Level {
        let width = self.widths[level];
        let doubles = level + 1 < self.widths.len();
        let resize = doubles
            .then(|| Block::new(&self.place((Way::Up, Resize::Double), (*from, *from), false), device));
        // The block that halves has left something as well, and on the first level the input.
        let blocks = (0..=self.blocks).map(|_| {
            let joined = *from + skips.pop().expect("one for each block up");
            *from = width;
            Block::new(&self.place((Way::Up, Resize::Keep), (joined, width), self.attends[level]), device)
        });
        Level { resize, blocks: blocks.collect() }
    }
}

/// The blocks of one resolution, behind the one that changes to it.
#[derive(Module, Debug)]
struct Level {
    resize: Option<Block>,
    blocks: Vec<Block>,
}

/// A UNet of blocks that preserve magnitudes, conditioned on noise and a class.
///
/// The class "none" is the number of classes. The prediction it is made for is EDM's: its time is `ln(sigma) / 4`. To
/// train it, see [`normalize_weights`](crate::magnitude::normalize_weights) and [`Uncertainty`].
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Class, params};
/// use canvas_unet::magnitude::normalize_weights;
/// use canvas_unet::{Edm2Config, Uncertainty};
///
/// let device = Device::flex();
/// let config = Edm2Config::new(3, vec![8, 16], vec![false, true], 10).with_blocks(1).with_head(8);
/// let net = params::realise(config.init(&device));
/// let uncertainty = params::realise(Uncertainty::new(128, &device));
///
/// // One step of training, but for the loss and the optimizer.
/// let net = normalize_weights(net);
/// let uncertainty = normalize_weights(uncertainty);
/// let time = Tensor::from_floats([-0.3, 0.1], &device); // ln(sigma) / 4
/// let said = net.forward(Tensor::ones([2, 3, 8, 8], &device), time.clone(), &Class::new(&[3, 10], &device));
/// let losses = (said - 1.0).square().flatten::<2>(1, 3).mean_dim(1).squeeze_dim(1);
/// assert_eq!(uncertainty.weigh(losses, time).dims(), [2]);
/// ```
///
/// # Reference
/// Karras et al., 2023, appendix B, <https://arxiv.org/abs/2312.02696>.
#[derive(Module, Debug)]
pub struct Edm2 {
    fourier: MpFourier,
    noise: MpLinear,
    classes: Option<MpLinear>,
    input: MpConv,
    down: Vec<Level>,
    middle: Vec<Block>,
    up: Vec<Level>,
    output: MpConv,
    /// Of the output: one number, 0 at first.
    gain: Param<Tensor<1>>,
    channels: usize,
}

impl Backbone<4> for Edm2 {
    type Cond = Class;

    /// # Shapes
    /// - `x`: `[B, C, H, S]`; all levels but the last halve `H` and `S`
    /// - `time`: `[B]`; `class`: `[B]`, the number of classes for none
    /// - output: `[B, C, H, S]`
    ///
    /// # Panics
    /// If channels, height or width do not fit the configuration, or the batches differ.
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, class: &Class) -> Tensor<4> {
        self.check_shapes(&x, &time, class);
        let embedding = trace::tap(|| "embedding".into(), self.embedding(time, class, &x)); // [B, E]
        let ones = x.clone().narrow(1, 0, 1).ones_like(); // [B, 1, H, S]
        let mut h = self.input.forward(Tensor::cat(vec![x, ones], 1)); // [B, W0, H, S]
        let mut skips = vec![h.clone()];
        for (i, level) in self.down.iter().enumerate() {
            if let Some(resize) = &level.resize {
                h = trace::unit(|| format!("down.{i}.resize"), || resize.forward(h, &embedding)); // [B, W(i-1), H / 2^i, S / 2^i]
                skips.push(h.clone());
            }
            for (j, block) in level.blocks.iter().enumerate() {
                h = trace::unit(|| format!("down.{i}.blocks.{j}"), || block.forward(h, &embedding)); // [B, Wi, H / 2^i, S / 2^i]
                skips.push(h.clone());
            }
        }
        for (i, block) in self.middle.iter().enumerate() {
            h = trace::block(|| format!("middle.{i}"), h, |h| block.forward(h, &embedding)); // [B, Wn, H / 2^n, S / 2^n]
        }
        for (i, level) in self.up.iter().enumerate() {
            if let Some(resize) = &level.resize {
                h = trace::unit(|| format!("up.{i}.resize"), || resize.forward(h, &embedding));
            }
            for (j, block) in level.blocks.iter().enumerate() {
                let joined = mp_cat(h, skips.pop().expect("one for each block up"), HALF);
                h = trace::unit(|| format!("up.{i}.blocks.{j}"), || block.forward(joined, &embedding));
            }
        }
        self.output.forward(h) * self.gain.val().reshape([1, 1, 1, 1]) // [B, C, H, S]
    }
}

impl Edm2 {
    /// Of noise and class, in the type of `like`: `[B, E]`.
    fn embedding(&self, time: Tensor<1>, class: &Class, like: &Tensor<4>) -> Tensor<2> {
        // Angles of many turns do not survive 16 bits.
        let noise = self.noise.forward(self.fourier.forward(time).cast(like.dtype()));
        let Some(classes) = &self.classes else { return mp_silu(noise) };
        mp_silu(mp_sum(noise, classes.of_labels(class.labels.clone()), HALF))
    }

    fn check_shapes(&self, x: &Tensor<4>, time: &Tensor<1>, class: &Class) {
        let ([batch, channels, height, width], expected) = (x.dims(), self.channels);
        assert_eq!(channels, expected, "x has {channels} channels, the UNet takes {expected}");
        let levels = self.down.len();
        let factor = 1 << (levels - 1);
        assert!(
            height.is_multiple_of(factor) && width.is_multiple_of(factor),
            "height ({height}) and width ({width}) must be multiples of {factor}: {levels} levels"
        );
        let (times, labels) = (time.dims()[0], class.labels.dims()[0]);
        assert!(
            times == batch && labels == batch,
            "{times} times and {labels} labels for a batch of {batch}"
        );
    }
}
