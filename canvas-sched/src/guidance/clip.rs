use super::noise;
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Clips the clean estimate to `[-limit, limit]`: for pixels, and latents of known range.
///
/// It acts on clean data: there the range of the data is known. Put it around guidance, not inside, since
/// guidance is what leaves the range.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Denoiser, Estimate, Level, Unconditional};
/// use canvas_sched::Clip;
///
/// /// Estimates twice what it sees.
/// struct Double;
/// impl Denoiser<2> for Double {
///     type Cond = Unconditional;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], _cond: &Unconditional) -> Estimate<2> {
///         (x * 2.0).into()
///     }
/// }
///
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let x = Tensor::<2>::from_floats([[0.25, -3.0]], &Device::flex());
/// let said = Clip::new(Double, 1.0).keep_noise().denoise(x, &at, &Unconditional(1));
/// assert_eq!(said.x0.into_data(), TensorData::from([[0.5f32, -1.0]]));
/// assert_eq!(said.eps.unwrap().into_data(), TensorData::from([[0.0f32, 0.0]])); // of the unclipped -6
/// ```
///
/// # Reference
/// Ho et al., "Denoising Diffusion Probabilistic Models", 2020, its released code,
/// <https://arxiv.org/abs/2006.11239>; Saharia et al., "Photorealistic Text-to-Image Diffusion Models", 2022,
/// section 2.3 ("static thresholding"), <https://arxiv.org/abs/2205.11487>.
///
/// # Differs from diffusers
/// By default the noise is the one that the clipped estimate implies, which is diffusers' DDIM with
/// `use_clipped_model_output`; without it (its default) DDIM keeps the network's noise, as
/// [`keep_noise`](Self::keep_noise) does.
#[derive(Clone, Copy, Debug)]
pub struct Clip<N> {
    /// What is clipped.
    pub denoiser: N,
    /// Largest absolute value; infinite is off.
    pub limit: f64,
    /// Keep the noise estimate of before.
    pub keep_noise: bool,
}

impl<N> Clip<N> {
    /// Clips to `[-limit, limit]`, and lets the noise follow.
    pub fn new(denoiser: N, limit: f64) -> Self {
        Self { denoiser, limit, keep_noise: false }
    }

    /// The same, keeping the noise estimate of before.
    pub fn keep_noise(self) -> Self {
        Self { keep_noise: true, ..self }
    }
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Clip<N> {
    type Cond = N::Cond;

    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let said = self.denoiser.denoise(x.clone(), at, cond);
        if !self.limit.is_finite() {
            return said;
        }
        let eps = self.keep_noise.then(|| noise(&x, at, &said));
        Estimate { x0: said.x0.clamp(-self.limit, self.limit), eps, variance: said.variance }
    }
}
