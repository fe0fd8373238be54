use super::perturbed::shifted;
use super::{Cfg, Worse};
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Skip-layer guidance: away from the network without some of its blocks.
///
/// With `c` the conditional estimate, `p` the same with some blocks left out, `u` the unconditional one:
/// `u + w (c - u) + scale (c - p)`. The weights sum to 1, so it is the same in clean data, noise and velocity.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Denoiser, Estimate, Level, Unconditional, trace};
/// use canvas_sched::{Cfg, Slg};
///
/// /// One block that doubles.
/// struct Network;
/// impl Denoiser<2> for Network {
///     type Cond = Unconditional;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], _cond: &Unconditional) -> Estimate<2> {
///         trace::block(|| "blocks.0".into(), x, |x| x * 2.0).into()
///     }
/// }
///
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let x = Tensor::<2>::from_floats([[1.0, 3.0]], &Device::flex());
/// let plain = Cfg::new(Network, Unconditional(1), 1.0); // no CFG beside it
/// let said = Slg::new(plain, &["blocks.0"], 2.0).denoise(x, &at, &Unconditional(1));
/// // The network says [2, 6], without its block [1, 3].
/// assert_eq!(said.x0.into_data(), TensorData::from([[4.0f32, 12.0]]));
/// ```
///
/// # Reference
/// Stability AI, Stable Diffusion 3.5, 2024, <https://github.com/Stability-AI/sd3.5>: scale 2.5, blocks 7, 8 and
/// 9, from 1% to 20% of the steps.
///
/// # Differs from diffusers
/// As [`Pag`](super::Pag): without CFG its default is `p + scale (c - p)`, and its range excludes both ends.
#[derive(Clone, Debug)]
pub struct Slg<N, C> {
    /// The denoiser, and the classifier-free guidance beside this; with scale 1 there is none.
    pub cfg: Cfg<N, C>,
    /// Full names of blocks, such as `blocks.7`.
    pub layers: Vec<String>,
    /// Strength: 0 is off.
    pub scale: f64,
    /// Perturb only while `sigma / alpha` lies in this range, ends included. The range of `cfg` is its own.
    pub range: (f64, f64),
}

impl<N, C> Slg<N, C> {
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

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Slg<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If the network has no layer of one of the names; the message lists those it has.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let worse = Worse::SkippedBlocks(self.layers.clone());
        shifted(&self.cfg, &worse, (self.scale, self.range), &x, at, cond)
    }
}
