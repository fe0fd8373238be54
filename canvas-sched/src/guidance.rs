//! Guidance: denoisers around denoisers.

use burn::prelude::*;
use canvas_core::{Condition, Denoiser, Estimate, Level, per_sample};

/// Classifier-free guidance: `null + scale (conditional - null)`, both halves in one call of the network.
///
/// It acts on clean estimates. At a fixed state and level every [`Prediction`](canvas_core::Prediction) is
/// affine in its network's output and the weights sum to 1, so this equals guiding noise or velocity.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Estimate, Level};
/// use canvas_sched::Cfg;
///
/// /// Estimates its own label.
/// struct Label;
/// impl Denoiser<2> for Label {
///     type Cond = Class;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], cond: &Class) -> Estimate<2> {
///         cond.labels.clone().float().reshape([x.dims()[0], 1]).into()
///     }
/// }
///
/// let device = Device::flex();
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let guided = Cfg::new(Label, Class::new(&[1], &device), 3.0);
/// let guided = guided.denoise(Tensor::zeros([2, 1], &device), &at, &Class::new(&[2, 5], &device));
/// assert_eq!(guided.x0.into_data(), TensorData::from([[4.0f32], [13.0]]));
/// ```
///
/// # Reference
/// Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022, equation 6, <https://arxiv.org/abs/2207.12598>,
/// whose `w` is `scale - 1`; the range: Kynkäänniemi et al., "Applying Guidance in a Limited Interval", 2024,
/// <https://arxiv.org/abs/2404.07724>.
#[derive(Clone, Debug)]
pub struct Cfg<N, C> {
    /// What is guided.
    pub denoiser: N,
    /// The condition to move away from: "no class", the empty or a negative prompt. One row, or one per
    /// sample.
    pub null: C,
    /// Strength: 1 is off, and then the denoiser is called once as if this wrapper were not there.
    pub scale: f64,
    /// Guide only while `sigma / alpha` lies in this range, ends included.
    pub range: (f64, f64),
}

impl<N, C> Cfg<N, C> {
    /// Guidance at every level.
    pub fn new(denoiser: N, null: C, scale: f64) -> Self {
        Self { denoiser, null, scale, range: (0.0, f64::INFINITY) }
    }

    /// The same, only while `sigma / alpha` lies within `[low, high]`.
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { range: (low, high), ..self }
    }

    /// The strength at a level.
    fn scale_at(&self, level: Level) -> f64 {
        let ratio = level.sigma / level.alpha;
        if self.range.0 <= ratio && ratio <= self.range.1 { self.scale } else { 1.0 }
    }
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Cfg<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If there are neither one level nor one per sample, or the same of null conditions.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        if at.iter().all(|&level| self.scale_at(level) == 1.0) {
            return self.denoiser.denoise(x, at, cond);
        }
        let (like, batch) = ((&x.device(), x.dtype()), x.dims()[0]);
        assert!(at.len() == 1 || at.len() == batch, "{} levels for a batch of {batch}", at.len());
        let both = N::Cond::cat(&[cond.spread(batch), self.null.spread(batch)]);
        let twice = if at.len() == 1 { at.to_vec() } else { [at, at].concat() };
        let said = self.denoiser.denoise(Tensor::cat(vec![x.clone(), x], 0), &twice, &both); // [2 B, ..]
        let null = said.x0.clone().narrow(0, batch, batch);
        let scale = per_sample::<D>(at, like, |level| self.scale_at(level));
        Estimate {
            x0: null.clone() + (said.x0.narrow(0, 0, batch) - null) * scale,
            eps: None,
            variance: said.variance.map(|variance| variance.narrow(0, 0, batch)),
        }
    }
}
