use super::noise;
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Dynamic thresholding: clips each sample at a quantile of its absolute values and divides by it.
///
/// Per sample `s` is the [`quantile`](Self::quantile) of `|x0|`, interpolated linearly between the two values
/// around it and held within `[1, max]`; the estimate becomes `clip(x0, -s, s) / s`. It acts on clean data in
/// `[-1, 1]`; it is not for latents.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Denoiser, Estimate, Level, Unconditional};
/// use canvas_sched::DynamicThreshold;
///
/// /// Estimates what it sees.
/// struct Same;
/// impl Denoiser<2> for Same {
///     type Cond = Unconditional;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], _cond: &Unconditional) -> Estimate<2> {
///         x.into()
///     }
/// }
///
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let x = Tensor::<2>::from_floats([[1.0, -2.0, 4.0]], &Device::flex());
/// let said = DynamicThreshold::new(Same, 0.5).denoise(x, &at, &Unconditional(1));
/// assert_eq!(said.x0.into_data(), TensorData::from([[0.5f32, -1.0, 1.0]])); // s = 2, the median
/// ```
///
/// # Reference
/// Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", 2022,
/// section 2.3, <https://arxiv.org/abs/2205.11487>: quantile 0.995.
///
/// # Differs from diffusers
/// Its `sample_max_value` is 1 unless set, which makes it plain clipping; [`max`](Self::max) is infinite, as in
/// the paper.
#[derive(Clone, Copy, Debug)]
pub struct DynamicThreshold<N> {
    /// What is clipped.
    pub denoiser: N,
    /// Which quantile of the absolute values, in `[0, 1]`.
    pub quantile: f64,
    /// The largest threshold, `>= 1`.
    pub max: f64,
    /// Keep the noise estimate of before: see [`Clip`](super::Clip).
    pub keep_noise: bool,
}

impl<N> DynamicThreshold<N> {
    /// Thresholds at this quantile, and lets the noise follow.
    ///
    /// # Panics
    /// If the quantile does not lie in `[0, 1]`.
    pub fn new(denoiser: N, quantile: f64) -> Self {
        assert!((0.0..=1.0).contains(&quantile), "the quantile ({quantile}) must lie in [0, 1]");
        Self { denoiser, quantile, max: f64::INFINITY, keep_noise: false }
    }

    /// The same, keeping the noise estimate of before.
    pub fn keep_noise(self) -> Self {
        Self { keep_noise: true, ..self }
    }
}

/// The quantile of each row, interpolated linearly: `[B, N]` to `[B, 1]`.
fn quantile(x: Tensor<2>, quantile: f64) -> Tensor<2> {
    let last = x.dims()[1] - 1;
    let place = quantile.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let sorted = x.sort(1);
    let value = |at: usize| sorted.clone().narrow(1, at.min(last), 1);
    value(below) + (value(below + 1) - value(below)) * (place - below as f64)
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for DynamicThreshold<N> {
    type Cond = N::Cond;

    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let said = self.denoiser.denoise(x.clone(), at, cond);
        let eps = self.keep_noise.then(|| noise(&x, at, &said));
        let (dims, batch) = (said.x0.dims(), said.x0.dims()[0]);
        let flat = said.x0.reshape([batch as i64, -1]); // [B, N]
        let mut limit = quantile(flat.clone().abs(), self.quantile).clamp_min(1.0);
        if self.max.is_finite() {
            limit = limit.clamp_max(self.max);
        }
        let wide = limit.clone().expand(flat.dims());
        let clipped = flat.min_pair(wide.clone()).max_pair(-wide) / limit;
        Estimate { x0: clipped.reshape(dims), eps, variance: said.variance }
    }
}
