//! Self-conditioning: a network that reads its own last estimate beside its input.
//!
//! The network has twice the input channels ([`Concatenated`](canvas_core::Concatenated); a trained one becomes one by
//! [`params::widened`](canvas_core::params::widened), and at first answers as before). In training it is given its estimate of the
//! same noised image for half of the images ([`own_estimate`]), and zeros for the others; drawing, that of the step before
//! ([`SelfConditioned`]).
//!
//! # Reference
//! Chen et al., "Analog Bits: Generating Discrete Data using Diffusion Models with Self-Conditioning", 2022, algorithms 1 and 2,
//! <https://arxiv.org/abs/2208.04202>.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::{Backbone, Concatenated, Noise, NoiseSchedule, Process, Run, Seeded, Unconditional};
//! use canvas_sched::{DpmPp, predict, schedule};
//! use canvas_train::self_conditioning::{Given, SelfConditioned, is_given, own_estimate};
//! use canvas_train::{Noised, Objective};
//!
//! /// Reads three channels and its estimate of them.
//! struct Network;
//! impl Backbone<4> for Network {
//!     type Cond = Unconditional;
//!     fn forward(&self, x: Tensor<4>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
//!         x.clone().narrow(1, 0, 3) - x.narrow(1, 3, 3) * 0.5
//!     }
//! }
//! let process = Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
//! let network = Concatenated { backbone: &Network };
//! let denoiser = process.denoiser(&network);
//!
//! // A step of training, on images 64 to 67 of the run.
//! let images = [64, 65, 66, 67];
//! let x0 = Tensor::<4>::ones([4, 3, 8, 8], &Device::flex());
//! let eps = Seeded::new(1, images).normal_like(&x0);
//! let noised = Noised::new(x0, eps, [0.2, 0.4, 0.6, 0.8].map(|t| process.schedule.level(t)).to_vec());
//! let cond = Unconditional(4);
//! let own = own_estimate(denoiser, &noised, &cond, &is_given(0.5, 7, &images));
//! let losses = Objective::default().losses(denoiser, &noised, &(cond, own));
//! assert_eq!(losses.dims(), [4]);
//!
//! // Drawing; guidance would go around `Given`.
//! let drawing = SelfConditioned::new(|own| Given::new(denoiser, own));
//! let levels = [1.0, 0.6, 0.3, 0.0].map(|t| process.schedule.level(t));
//! let mut noise = Seeded::new(2, [0, 1]);
//! let start: Tensor<4> = noise.normal_like(&Tensor::zeros([2, 3, 8, 8], &Device::flex()));
//! let sampler = DpmPp::two_m();
//! let run = Run::new(&sampler, &*process.schedule, &levels, &mut noise)?;
//! let drawn = run.sample(|x, level| canvas_core::Denoiser::denoise(&drawing, x, &[level], &Unconditional(2)), start);
//! assert_eq!(drawn.dims(), [2, 3, 8, 8]);
//! # Ok::<_, canvas_core::GridError>(())
//! ```

use crate::Noised;
use burn::prelude::*;
use canvas_core::{Channels, Condition, Denoiser, Estimate, Level, generator};
use rand::RngExt as _;
use std::cell::RefCell;

/// Of each image whether the network is given its estimate: so often, by seed and image number.
pub fn is_given(probability: f64, seed: u64, images: &[u64]) -> Vec<bool> {
    images.iter().map(|&image| generator(seed, image, 0).random::<f64>() < probability).collect()
}

/// What a network that is given zeros makes of the images where `given`, without gradients, and zeros for the others. The
/// estimate costs an evaluation of those images alone.
///
/// # Panics
/// If there is not one flag an image.
pub fn own_estimate<const D: usize, N, C>(
    network: N,
    noised: &Noised<D>,
    cond: &C,
    given: &[bool],
) -> Channels<D>
where
    C: Condition,
    N: Denoiser<D, Cond = (C, Channels<D>)>,
{
    let batch = noised.at.len();
    assert_eq!(given.len(), batch, "flags for images");
    let rows: Vec<usize> = (0..batch).filter(|&row| given[row]).collect();
    let none = Channels { values: noised.x.zeros_like() };
    if rows.is_empty() {
        return none;
    }
    let x = Channels { values: noised.x.clone() }.select(&rows).values;
    let at: Vec<Level> = rows.iter().map(|&row| noised.at[row]).collect();
    let said = network.denoise(x.clone(), &at, &(cond.select(&rows), Channels { values: x.zeros_like() }));
    // Row `i` of the batch: the next estimate, or zeros behind them.
    let mut next = 0..rows.len();
    let place = |&given: &bool| if given { next.next() } else { None }.unwrap_or(rows.len());
    let places: Vec<usize> = given.iter().map(place).collect();
    Channels::cat(&[Channels { values: said.x0.detach() }, none.select(&[0])]).select(&places)
}

/// A denoiser whose channels are given already, so that guidance around it batches the rest of its condition.
#[derive(Clone, Debug)]
pub struct Given<N, const D: usize> {
    denoiser: N,
    channels: Channels<D>,
}

impl<N, const D: usize> Given<N, D> {
    /// With these channels for each sample.
    pub fn new(denoiser: N, channels: Channels<D>) -> Self {
        Self { denoiser, channels }
    }
}

impl<const D: usize, C: Condition, N: Denoiser<D, Cond = (C, Channels<D>)>> Denoiser<D> for Given<N, D> {
    type Cond = C;

    /// A batch of several copies, as guidance makes them, has the same channels in each.
    ///
    /// # Panics
    /// If the batch is not a multiple of the channels'.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &C) -> Estimate<D> {
        let (batch, own) = (x.dims()[0], self.channels.batch());
        assert!(batch.is_multiple_of(own), "channels given for {own} samples, a batch of {batch}");
        let channels = Channels::cat(&vec![self.channels.clone(); batch / own]);
        self.denoiser.denoise(x, at, &(cond.clone(), channels))
    }
}

/// A denoiser that is told its last estimate, at first zeros: one for each run.
#[derive(Debug)]
pub struct SelfConditioned<F, const D: usize> {
    make: F,
    last: RefCell<Option<Tensor<D>>>,
}

impl<const D: usize, N: Denoiser<D>, F: Fn(Channels<D>) -> N> SelfConditioned<F, D> {
    /// `make` makes the denoiser that reads these channels: a [`Given`], or guidance around one.
    pub fn new(make: F) -> Self {
        Self { make, last: RefCell::default() }
    }
}

impl<const D: usize, N: Denoiser<D>, F: Fn(Channels<D>) -> N> Denoiser<D> for SelfConditioned<F, D> {
    type Cond = N::Cond;

    /// # Panics
    /// If the last estimate is of other sizes: that was another run.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let last = self.last.take().unwrap_or_else(|| x.zeros_like());
        let (found, expected) = (last.dims(), x.dims());
        assert_eq!(found, expected, "the last estimate, of the same run, and x");
        let estimate = (self.make)(Channels { values: last }).denoise(x, at, cond);
        self.last.replace(Some(estimate.x0.clone()));
        estimate
    }
}
