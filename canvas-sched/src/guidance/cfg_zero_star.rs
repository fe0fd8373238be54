use super::{Pair, Space, choose, dot};
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level};

/// CFG-Zero*: the unconditional velocity is scaled to fit the conditional one best, and the first steps stand
/// still.
///
/// With `c` and `u` the two values in [`space`](Self::space): `s = <c, u> / (|u|^2 + 1e-8)` per sample, and
/// `s u + scale (c - s u)`. At levels as noisy as [`zero_from`](Self::zero_from) or noisier the value is 0,
/// whatever scale and range are.
///
/// It acts on flow matching's velocity, as in the paper. In another space the best `s` is another, and a zero
/// means something else: a zero velocity leaves the state in place, a zero noise is `x0 = x / a`.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Estimate, Level};
/// use canvas_sched::CfgZeroStar;
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
/// let flow = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let guided = CfgZeroStar::new(Label, null, 5.0);
/// // c = 2 (x - 3) = -2 and u = 2 (x - 1) = 2: s = -1, s u = c, and nothing is left to guide.
/// let said = guided.denoise(x.clone(), &flow, &cond).x0.into_scalar::<f32>();
/// assert!((said - 3.0).abs() < 1e-5);
/// // The first step of a grid stands still: x0 = x / (alpha + sigma).
/// let still = guided.zero_init(&flow, 1).denoise(x, &at, &cond);
/// assert_eq!(still.x0.into_scalar::<f32>(), 2.0);
/// ```
///
/// # Reference
/// Fan et al., "CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models", 2025,
/// <https://arxiv.org/abs/2503.18886>.
///
/// # Differs from the reference code
/// It counts from 0 and stands still while `i <= K`, so its `K = 0` is one step; diffusers says `i < K` with
/// `K = 1` for the same. [`zero_init`](Self::zero_init) takes the number of steps. diffusers acts on the raw
/// output, whatever it means: set [`space`](Self::space) to it to repeat its numbers.
#[derive(Clone, Debug)]
pub struct CfgZeroStar<N, C> {
    /// What is guided, away from what, and where.
    pub pair: Pair<N, C>,
    /// Strength: 1 is off.
    pub scale: f64,
    /// Where it acts.
    pub space: Space,
    /// The lowest `sigma / alpha` at which the value is zero, if any.
    pub zero_from: Option<f64>,
}

impl<N, C> CfgZeroStar<N, C> {
    /// Guidance of the velocity at every level, without standing still: for that, [`zero_init`](Self::zero_init).
    pub fn new(denoiser: N, null: C, scale: f64) -> Self {
        Self { pair: Pair::new(denoiser, null), scale, space: Space::Flow, zero_from: None }
    }

    /// The same, standing still in the first `steps` steps of a run along these levels: 1 in the paper.
    ///
    /// A sampler's further evaluations within the last of these steps are beyond it, and guided.
    ///
    /// # Panics
    /// If there are fewer levels than steps.
    pub fn zero_init(mut self, levels: &[Level], steps: usize) -> Self {
        assert!(steps <= levels.len(), "{steps} steps of a grid of {} levels", levels.len());
        self.zero_from = steps.checked_sub(1).map(|last| levels[last].sigma / levels[last].alpha);
        self
    }
}

super::pair::pair_settings!(CfgZeroStar);

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for CfgZeroStar<N, N::Cond> {
    type Cond = N::Cond;

    /// # Panics
    /// If there are neither one level nor one per sample, or the same of null conditions.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        let still = |level: Level| self.zero_from.is_some_and(|from| level.sigma / level.alpha >= from);
        let rule = |cond: &Estimate<D>, null: &Estimate<D>| {
            let [cond, null] = [cond, null].map(|half| self.space.read(&x, half.x0.clone(), at));
            let fit = dot(&cond, &null) / (dot(&null, &null) + 1e-8);
            let null = null * fit;
            self.space.write(&x, null.clone() + (cond - null) * self.scale, at).into()
        };
        let off = self.scale == 1.0 || at.iter().all(|&level| still(level));
        let said = self.pair.guide(&x, at, cond, (!off).then_some(rule));
        if self.zero_from.is_none() {
            return said;
        }
        let x0 = self.space.write(&x, x.zeros_like(), at);
        let zero = Estimate { x0, eps: None, variance: said.variance.clone() };
        choose(&x, at, still, zero, said)
    }
}
