use super::{Pair, noise};
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// CFG++: interpolates the clean estimate, and renoises with the unconditional noise.
///
/// `x0 = null + lambda (conditional - null)` and `eps = (x - a null) / s`: a deterministic step to `(a', s')` is
/// `a' x0 + s' eps`. It is affine, so it is the same in clean data, noise and velocity; what sets it apart is
/// the noise estimate, which no longer is the one that `x0` implies. Samplers that read only `x0` see plain CFG
/// with a small scale. There is no strength that switches it off: `lambda = 1` still renoises unconditionally.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Estimate, Level};
/// use canvas_sched::CfgPp;
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
/// let (null, cond) = (Class::new(&[1], &device), Class::new(&[3], &device));
/// let x = Tensor::<2>::full([1, 1], 2.0, &device);
/// let said = CfgPp::new(Label, null, 0.5).denoise(x, &at, &cond);
/// assert_eq!(said.x0.into_scalar::<f32>(), 2.0); // 1 + 0.5 (3 - 1)
/// assert_eq!(said.eps.unwrap().into_scalar::<f32>(), 3.0); // (2 - 0.5 * 1) / 0.5
/// ```
///
/// # Reference
/// Chung et al., "CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models", 2024, Algorithm 2,
/// <https://arxiv.org/abs/2406.08070>.
#[derive(Clone, Debug)]
pub struct CfgPp<N, C> {
    /// What is guided, away from what, and where. Rescaling, if on, moves `x0` alone.
    pub pair: Pair<N, C>,
    /// Strength in `[0, 1]`: 0 is unconditional.
    pub lambda: f64,
}

impl<N, C> CfgPp<N, C> {
    /// Guidance at every level.
    pub fn new(denoiser: N, null: C, lambda: f64) -> Self {
        Self { pair: Pair::new(denoiser, null), lambda }
    }
}

super::pair::pair_settings!(CfgPp);

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for CfgPp<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If there are neither one level nor one per sample, or the same of null conditions.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let rule = |cond: &Estimate<D>, null: &Estimate<D>| {
            let x0 = null.x0.clone() + (cond.x0.clone() - null.x0.clone()) * self.lambda;
            Estimate { x0, eps: Some(noise(&x, at, null)), variance: None }
        };
        self.pair.guide(&x, at, cond, Some(rule))
    }
}
