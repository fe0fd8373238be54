use super::Pair;
use burn::prelude::*;
use canvas_core::{Condition, Denoiser, Estimate, Level};

/// Classifier-free guidance: `null + scale (conditional - null)`, by default both halves in one call.
///
/// It acts on clean estimates. At a fixed state and level every [`Prediction`](canvas_core::Prediction) is
/// affine in its network's output and the weights sum to 1, so this equals guiding noise or velocity. With
/// [`rescaled`](Self::rescaled) it does not: see [`Rescale`](super::Rescale).
///
/// A noise estimate of the inner denoiser's own is dropped where this guides: clip outside, not inside.
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
    /// What is guided, away from what, and where.
    pub pair: Pair<N, C>,
    /// Strength: 1 is off, and then the denoiser is called once as if this wrapper were not there.
    pub scale: f64,
}

impl<N, C> Cfg<N, C> {
    /// Guidance at every level.
    pub fn new(denoiser: N, null: C, scale: f64) -> Self {
        Self { pair: Pair::new(denoiser, null), scale }
    }
}

super::pair::pair_settings!(Cfg);

impl<N, C: Condition> Cfg<N, C> {
    /// How two halves become one, unless guidance is off.
    pub(super) fn rule<const D: usize>(&self) -> Option<impl Fn(&Estimate<D>, &Estimate<D>) -> Estimate<D>> {
        let scale = self.scale;
        let rule = move |cond: &Estimate<D>, null: &Estimate<D>| {
            (null.x0.clone() + (cond.x0.clone() - null.x0.clone()) * scale).into()
        };
        (scale != 1.0).then_some(rule)
    }
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Cfg<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If there are neither one level nor one per sample, or the same of null conditions.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        self.pair.guide(&x, at, cond, self.rule())
    }
}
