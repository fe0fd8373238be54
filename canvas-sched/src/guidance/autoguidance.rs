use super::{choose, inside};
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Autoguidance: away from a worse denoiser of the same kind, `weak + scale (strong - weak)`.
///
/// The weights sum to 1, so it is the same in clean data, noise and velocity. The weak one is a smaller or less
/// trained network, or the same one [`Perturbed`](super::Perturbed). Both see the same condition.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Estimate, Level};
/// use canvas_sched::Autoguidance;
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
/// let cond = Class::new(&[3], &device);
/// let x = Tensor::<2>::full([1, 1], 2.0, &device);
/// /// A weaker network: always 1.
/// struct Worse;
/// impl Denoiser<2> for Worse {
///     type Cond = Class;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], _cond: &Class) -> Estimate<2> {
///         x.ones_like().into()
///     }
/// }
/// let guided = Autoguidance::new(Label, Worse, 2.0).denoise(x, &at, &cond);
/// assert_eq!(guided.x0.into_scalar::<f32>(), 5.0); // 1 + 2 (3 - 1)
/// ```
///
/// # Reference
/// Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", 2024,
/// <https://arxiv.org/abs/2406.02507>.
///
/// # Differs from diffusers
/// diffusers' weak network is the strong one with dropout in some layers; here it is any denoiser.
#[derive(Clone, Debug)]
pub struct Autoguidance<S, W> {
    /// The better denoiser.
    pub strong: S,
    /// The worse one.
    pub weak: W,
    /// Strength: 1 is off, and then only the strong one is asked.
    pub scale: f64,
    /// Guide only while `sigma / alpha` lies in this range, ends included.
    pub range: (f64, f64),
}

impl<S, W> Autoguidance<S, W> {
    /// Guidance at every level.
    pub fn new(strong: S, weak: W, scale: f64) -> Self {
        Self { strong, weak, scale, range: (0.0, f64::INFINITY) }
    }

    /// The same, only while `sigma / alpha` lies within `[low, high]`.
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { range: (low, high), ..self }
    }
}

impl<const D: usize, S, W> Denoiser<D> for Autoguidance<S, W>
where
    S: Denoiser<D>,
    W: Denoiser<D, Cond = S::Cond>,
{
    type Cond = S::Cond;

    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &S::Cond) -> Estimate<D> {
        let guides = |level| inside(self.range, level);
        let strong = self.strong.denoise(x.clone(), at, cond);
        if self.scale == 1.0 || !at.iter().any(|&level| guides(level)) {
            return strong;
        }
        let weak = self.weak.denoise(x.clone(), at, cond).x0;
        let x0 = weak.clone() + (strong.x0.clone() - weak) * self.scale;
        let guided = Estimate { x0, eps: None, variance: strong.variance.clone() };
        choose(&x, at, guides, guided, strong)
    }
}
