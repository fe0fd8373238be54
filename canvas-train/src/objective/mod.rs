//! What is minimised, of parts that go together in any way: at which noise levels ([`LevelDistribution`], [`Draws`]), of what
//! noise ([`Noised`]), how errors are measured ([`Distance`]) and how much each counts ([`Weighting`]). What the network
//! predicts is its [`Prediction`]'s business, as it is in sampling.

mod bound;
mod distance;
mod levels;
mod noise;
mod weighting;

pub use bound::{ChainStep, variational_bound};
pub use distance::Distance;
pub use levels::{Draws, LevelDistribution};
pub use noise::{multi_resolution, offset};
pub use weighting::Weighting;

use burn::prelude::*;
use canvas_core::{Backbone, Level, NoiseSchedule, Preconditioned, Prediction, mix, per_sample};
use serde::{Deserialize, Serialize};

/// A batch as the network sees it, and what it was made of.
#[derive(Clone, Debug)]
pub struct Noised<const D: usize> {
    /// Clean data, `[B, C, ..]`.
    pub x0: Tensor<D>,
    /// The noise that the network is to tell apart from it.
    pub eps: Tensor<D>,
    /// What the network sees: `alpha x0 + sigma eps`, unless it is [perturbed](Self::perturbed).
    pub x: Tensor<D>,
    /// How much of each, one level a sample.
    pub at: Vec<Level>,
    /// What counts, if not everything.
    mask: Option<Tensor<D>>,
}

impl<const D: usize> Noised<D> {
    /// Noises a batch.
    ///
    /// # Shapes
    /// - `x0`, `eps`: `[B, C, ..]`; `at`: `B` levels
    ///
    /// # Panics
    /// If there are not as many levels as samples.
    pub fn new(x0: Tensor<D>, eps: Tensor<D>, at: Vec<Level>) -> Self {
        assert_eq!(at.len(), x0.dims()[0], "levels of a batch");
        let x = mix(x0.clone(), eps.clone(), &at);
        Self { x0, eps, x, at, mask: None }
    }

    /// A state, and what the network is to say of it: the noise is what is left, `(x - alpha x0) / sigma`. So does a teacher's
    /// answer become a target.
    ///
    /// # Shapes
    /// - `x`, `x0`: `[B, C, ..]`; `at`: `B` levels
    ///
    /// # Panics
    /// If there are not as many levels as samples, or one without noise.
    pub fn of_state(x: Tensor<D>, x0: Tensor<D>, at: Vec<Level>) -> Self {
        assert_eq!(at.len(), x.dims()[0], "levels of a batch");
        if let Some(row) = at.iter().position(|level| level.sigma == 0.0) {
            panic!(
                "sample {row} is at a level without noise ({:?}), of which nothing is left to say",
                at[row]
            );
        }
        let on = (&x.device(), x.dtype());
        let signal = x0.clone() * per_sample::<D>(&at, on, |level| level.alpha);
        let eps = (x.clone() - signal) / per_sample::<D>(&at, on, |level| level.sigma);
        Self { x0, eps, x, at, mask: None }
    }

    /// The same on a device.
    #[must_use]
    pub fn to_device(self, device: &Device) -> Self {
        let Self { x0, eps, x, at, mask } = self;
        let mask = mask.map(|mask| mask.to_device(device));
        Self { x0: x0.to_device(device), eps: eps.to_device(device), x: x.to_device(device), at, mask }
    }

    /// Input perturbation: the network sees `strength` times other noise beside its own, as it will see its own mistakes when
    /// it draws.
    ///
    /// Ning et al., "Input Perturbation Reduces Exposure Bias in Diffusion Models", 2023, algorithm 1,
    /// <https://arxiv.org/abs/2301.11706>; 0.1 there.
    #[must_use]
    pub fn perturbed(mut self, other: Tensor<D>, strength: f64) -> Self {
        self.x = mix(self.x0.clone(), self.eps.clone() + other * strength, &self.at);
        self
    }

    /// Errors count as the mask says, and the loss is their mean over what counts; of a sample in which nothing counts it is 0.
    ///
    /// # Shapes
    /// - `mask`: `[B, 1, ..]` or `[B, C, ..]`, from 0 to 1
    #[must_use]
    pub fn masked(mut self, mask: Tensor<D>) -> Self {
        self.mask = Some(mask);
        self
    }
}

/// A regression objective: which levels, what an error is, and how much each counts.
///
/// # Example
/// Stable Diffusion 3's levels, min-SNR's weights, on any schedule, for any prediction:
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Noise, Process, Seeded, Unconditional};
/// use canvas_sched::{predict, schedule};
/// use canvas_train::{Draws, LevelDistribution, Noised, Objective, Weighting};
///
/// struct Network;
/// impl Backbone<4> for Network {
///     type Cond = Unconditional;
///     fn forward(&self, x: Tensor<4>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
///         x
///     }
/// }
/// let process = Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
/// let objective = Objective {
///     levels: LevelDistribution::LogitNormal { mean: 0.0, std: 1.0 },
///     weighting: Weighting::MinSnr { gamma: 5.0 },
///     shift: 3.0,
///     ..Objective::default()
/// };
///
/// // Images number 64 to 67 of a run: what is drawn for them is a function of that alone.
/// let images: Vec<u64> = (64..68).collect();
/// let x0 = Tensor::<4>::ones([4, 3, 8, 8], &Device::flex());
/// let level = |&image: &u64| objective.level(&*process.schedule, Draws::Stratified.at(0, image));
/// let at = images.iter().map(level).collect();
/// let eps = Seeded::new(1, images).normal_like(&x0);
/// let losses = objective.losses(process.denoiser(&Network), &Noised::new(x0, eps, at), &Unconditional(4));
/// assert_eq!(losses.dims(), [4]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// How often each level is drawn.
    pub levels: LevelDistribution,
    /// Factor of the noise-to-signal ratio of each drawn level, above 0. An image of more pixels needs more noise to be hidden as
    /// much: the root of how many times as many it has. On a flow that is `t = shift u / (1 + (shift - 1) u)`.
    ///
    /// Esser et al., 2024, equation 23; Hoogeboom et al., "simple diffusion", 2023, section 3.1, <https://arxiv.org/abs/2301.11093>.
    pub shift: f64,
    /// What an error costs.
    pub distance: Distance,
    /// How much each counts.
    pub weighting: Weighting,
}

impl Default for Objective {
    /// All times alike, squared errors in the prediction's space.
    fn default() -> Self {
        Self {
            levels: LevelDistribution::Uniform,
            shift: 1.0,
            distance: Distance::Squared,
            weighting: Weighting::Uniform,
        }
    }
}

impl Objective {
    /// The level of a draw from `[0, 1)`.
    pub fn level(&self, schedule: &dyn NoiseSchedule, draw: f64) -> Level {
        let level = self.levels.level(schedule, draw);
        // A shift of 1 leaves the level's time as it is, to the last digit.
        if self.shift == 1.0 || level.alpha == 0.0 {
            return level;
        }
        schedule.level_at_ratio(self.shift * level.sigma / level.alpha)
    }

    /// Per-sample losses `[B]` of a network on a noised batch.
    pub fn losses<const D: usize, B: Backbone<D>, P: Prediction + ?Sized>(
        &self,
        network: Preconditioned<'_, B, P>,
        noised: &Noised<D>,
        cond: &B::Cond,
    ) -> Tensor<1> {
        let raw = network.raw(noised.x.clone(), &noised.at, cond);
        self.of_answer(raw, noised, &network.prediction)
    }

    /// The losses `[B]` of an answer that is there already, so that several objectives can share it:
    /// `weight * mean(distance(raw, target))`, with the target of the prediction.
    ///
    /// # Shapes
    /// - `raw`: `[B, C, ..]`; what a network says beside that (variances, `[B, 2 C, ..]`) is left to
    ///   [`variational_bound`]
    pub fn of_answer<const D: usize>(
        &self,
        raw: Tensor<D>,
        noised: &Noised<D>,
        prediction: &dyn Prediction,
    ) -> Tensor<1> {
        let Noised { x0, eps, at, mask, .. } = noised;
        let (device, dtype, channels) = (x0.device(), x0.dtype(), x0.dims()[1]);
        let of_x0 = per_sample::<D>(at, (&device, dtype), |level| prediction.target(level).0);
        let of_eps = per_sample::<D>(at, (&device, dtype), |level| prediction.target(level).1);
        let target = x0.clone() * of_x0 + eps.clone() * of_eps;
        let raw = if raw.dims()[1] == 2 * channels { raw.narrow(1, 0, channels) } else { raw };

        let each = self.distance.each(raw, target);
        let losses = match mask {
            None => mean_of_each(each),
            Some(mask) => {
                let mask = mask.clone().expand(each.dims());
                mean_of_each(each * mask.clone()) / mean_of_each(mask).clamp_min(1e-12)
            }
        };
        losses * per_sample::<1>(at, (&device, dtype), |level| self.weighting.at(prediction, level))
    }
}

/// The mean of every sample: `[B, ..]` to `[B]`.
pub(crate) fn mean_of_each<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let batch = x.dims()[0];
    let count = x.shape().num_elements() / batch;
    x.reshape([batch, count]).mean_dim(1).reshape([batch])
}
