use super::perturbed::shifted;
use super::{Cfg, Worse};
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Perturbed-attention guidance: away from the network whose tokens do not see each other.
///
/// With `c` the conditional estimate, `p` the same with some self-attention maps replaced by the identity, `u`
/// the unconditional one: `u + w (c - u) + scale (c - p)`. The weights sum to 1, so it is the same in clean
/// data, noise and velocity. It needs no null condition: without CFG it is `c + scale (c - p)`.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Denoiser, Estimate, Level, Unconditional, trace};
/// use canvas_sched::{Cfg, Pag};
///
/// /// Attention whose map mixes two tokens evenly.
/// struct Network;
/// impl Denoiser<2> for Network {
///     type Cond = Unconditional;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], _cond: &Unconditional) -> Estimate<2> {
///         let map = Tensor::full([1, 1, 2, 2], 0.5, &x.device());
///         let map = trace::tap(|| "attention.map".into(), map);
///         map.matmul(x.reshape([1, 1, 2, 1])).reshape([1, 2]).into()
///     }
/// }
///
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let x = Tensor::<2>::from_floats([[1.0, 3.0]], &Device::flex());
/// let plain = Cfg::new(Network, Unconditional(1), 1.0); // no CFG beside it
/// let said = Pag::new(plain, &["attention.map"], 2.0).denoise(x, &at, &Unconditional(1));
/// // Attention says [2, 2], without mixing [1, 3]: 2 + 2 (2 - 1) and 2 + 2 (2 - 3).
/// assert_eq!(said.x0.into_data(), TensorData::from([[4.0f32, 0.0]]));
/// ```
///
/// # Reference
/// Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", 2024,
/// <https://arxiv.org/abs/2403.17377>.
///
/// # Differs from diffusers
/// - Without CFG its guider's default is `p + scale (c - p)`, which is this with a scale smaller by 1; with CFG,
///   and with `use_original_formulation`, it adds `scale (c - p)` as here.
/// - It perturbs after step `start` and before `stop`, both excluded, by default from 1% to 20% of the steps.
#[derive(Clone, Debug)]
pub struct Pag<N, C> {
    /// The denoiser, and the classifier-free guidance beside this; with scale 1 there is none.
    pub cfg: Cfg<N, C>,
    /// Full names of self-attention maps, such as `blocks.3.attention.map`.
    pub layers: Vec<String>,
    /// Strength: 0 is off.
    pub scale: f64,
    /// Perturb only while `sigma / alpha` lies in this range, ends included. The range of `cfg` is its own.
    pub range: (f64, f64),
}

impl<N, C> Pag<N, C> {
    /// Guidance by these layers at every level.
    pub fn new(cfg: Cfg<N, C>, layers: &[impl AsRef<str>], scale: f64) -> Self {
        let layers = layers.iter().map(|name| name.as_ref().to_owned()).collect();
        Self { cfg, layers, scale, range: (0.0, f64::INFINITY) }
    }

    /// The same, only while `sigma / alpha` lies within `[low, high]`.
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { range: (low, high), ..self }
    }
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Pag<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If the network has no layer of one of the names; the message lists those it has.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let worse = Worse::IdentityMaps(self.layers.clone());
        shifted(&self.cfg, &worse, (self.scale, self.range), &x, at, cond)
    }
}
