use super::{Pair, Space, dot, ratio};
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// Tangential damping: the unconditional value is projected on what it shares with the conditional one.
///
/// With `c` and `u` the two values in [`space`](Self::space) and `v` the first right singular vector of the
/// matrix of rows `c` and `u`: `u' = <u, v> v`, and `u' + scale (c - u')`. Two vectors need no numeric
/// decomposition: with `d = (|c|^2 - |u|^2) / 2`, `m = <c, u>` and `r = hypot(d, m)`,
/// `u' = m/(2r) c + (1 - d/r)/2 u`. Where `r = 0` every direction is as good, and `u` is kept.
///
/// It acts on the noise, the score up to a factor, as in the paper; directions differ between spaces.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Estimate, Level};
/// use canvas_sched::Tcfg;
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
/// let guided = Tcfg::new(Label, null, 5.0).denoise(x, &at, &cond);
/// let x0 = guided.x0.into_scalar::<f32>();
/// assert!((x0 - 11.0).abs() < 1e-4); // in one dimension nothing is damped: 1 + 5 (3 - 1)
/// ```
///
/// # Reference
/// Kwon et al., "TCFG: Tangential Damping Classifier-free Guidance", 2025,
/// <https://arxiv.org/abs/2503.18137>.
///
/// # Differs from diffusers
/// Only in the space: it acts on the raw output, whatever it means.
#[derive(Clone, Debug)]
pub struct Tcfg<N, C> {
    /// What is guided, away from what, and where.
    pub pair: Pair<N, C>,
    /// Strength: 1 is off.
    pub scale: f64,
    /// Where it acts.
    pub space: Space,
}

impl<N, C> Tcfg<N, C> {
    /// Guidance of the noise at every level.
    pub fn new(denoiser: N, null: C, scale: f64) -> Self {
        Self { pair: Pair::new(denoiser, null), scale, space: Space::Eps }
    }
}

super::pair::pair_settings!(Tcfg);

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Tcfg<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If there are neither one level nor one per sample, or the same of null conditions.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let rule = |cond: &Estimate<D>, null: &Estimate<D>| {
            let [cond, null] = [cond, null].map(|half| self.space.read(&x, half.x0.clone(), at));
            let (shared, gap) = (dot(&cond, &null), (dot(&cond, &cond) - dot(&null, &null)) * 0.5);
            let size = shared.clone().hypot(gap.clone());
            let of_cond = ratio(shared, size.clone(), 0.0) * 0.5;
            let of_null = ratio(gap, size, -1.0) * -0.5 + 0.5;
            let null = cond.clone() * of_cond + null * of_null;
            self.space.write(&x, null.clone() + (cond - null) * self.scale, at).into()
        };
        self.pair.guide(&x, at, cond, (self.scale != 1.0).then_some(rule))
    }
}
