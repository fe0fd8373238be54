use super::{Pair, Space, dot, ratio, where_level};
use burn::prelude::*;
use canvas_core::{Condition, Denoiser, Estimate, Level};
use std::cell::RefCell;

/// Adaptive projected guidance: CFG without the part along the conditional estimate, which oversaturates.
///
/// With `c` and `u` the conditional and unconditional value in [`space`](Self::space), all norms and products
/// per sample: `d = c - u`; with momentum ([`run`](Self::run)) `d` becomes `m = d + beta m`; then it is shortened
/// to the length [`threshold`](Self::threshold), and split along `c`: `c + (scale - 1) (d_across + eta d_along)`.
///
/// It acts on clean data, as the paper does. Projection and length differ between spaces: the difference of two
/// estimates only changes its length (by `a/s` from data to noise), but the direction of `c` is another.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Class, Denoiser, Estimate, Level};
/// use canvas_sched::Apg;
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
/// let guided = Apg::new(Label, null, 5.0).denoise(x, &at, &cond);
/// assert_eq!(guided.x0.into_scalar::<f32>(), 3.0); // in one dimension everything is along the estimate
/// ```
///
/// # Reference
/// Sadat et al., "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models", 2024,
/// <https://arxiv.org/abs/2410.02416>.
///
/// # Differs from diffusers
/// Its default starts from `u` and adds `scale` times the update, where the paper starts from `c` and adds
/// `scale - 1` times; with projection the two are not the same: at `scale = 1` and `eta = 0` theirs is not `c`.
/// This is the paper's, and theirs with `use_original_formulation` and a scale smaller by 1. It acts on the raw
/// output: set [`space`](Self::space) to what the network predicts to repeat it.
#[derive(Clone, Debug)]
pub struct Apg<N, C> {
    /// What is guided, away from what, and where.
    pub pair: Pair<N, C>,
    /// Strength: 1 is off.
    pub scale: f64,
    /// Strength of the part along the conditional estimate: 0 in the paper, 1 is CFG.
    pub eta: f64,
    /// The most length the difference may have, `> 0`; infinite is off. The paper has 2.5 to 15.
    pub threshold: f64,
    /// Where it acts.
    pub space: Space,
}

impl<N, C> Apg<N, C> {
    /// Full projection (`eta = 0`) at every level, without a threshold.
    pub fn new(denoiser: N, null: C, scale: f64) -> Self {
        let pair = Pair::new(denoiser, null);
        Self { pair, scale, eta: 0.0, threshold: f64::INFINITY, space: Space::X0 }
    }

    /// The denoiser of one run, with momentum `beta`: -0.5 in the paper.
    pub fn run<const D: usize>(&self, beta: f64) -> ApgRun<'_, N, C, D> {
        ApgRun { apg: self, beta, sum: RefCell::new(None) }
    }
}

super::pair::pair_settings!(Apg);

impl<N, C: Condition> Apg<N, C> {
    /// `gather` turns the difference of the halves into the one with momentum.
    fn guide<const D: usize>(
        &self,
        x: &Tensor<D>,
        at: &[Level],
        cond: &C,
        gather: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Estimate<D>
    where
        N: Denoiser<D, Cond = C>,
    {
        let rule = |cond: &Estimate<D>, null: &Estimate<D>| {
            let [cond, null] = [cond, null].map(|half| self.space.read(x, half.x0.clone(), at));
            let mut update = gather(cond.clone() - null);
            if self.threshold.is_finite() {
                let length = dot(&update, &update).sqrt();
                let short = ratio(length.ones_like() * self.threshold, length, 1.0);
                update = update * short.clamp_max(1.0);
            }
            let share = ratio(dot(&update, &cond), dot(&cond, &cond), 0.0);
            let update = update - cond.clone() * share * (1.0 - self.eta);
            self.space.write(x, cond + update * (self.scale - 1.0), at).into()
        };
        self.pair.guide(x, at, cond, (self.scale != 1.0).then_some(rule))
    }
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Apg<N, N::Cond> {
    type Cond = N::Cond;

    /// Without momentum: nothing is remembered.
    ///
    /// # Panics
    /// If there are neither one level nor one per sample, or the same of null conditions.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        self.guide(&x, at, cond, |update| update)
    }
}

/// [`Apg`] with momentum, for one run: make a new one for each.
///
/// Momentum is the only thing in guidance that a step leaves for the next. It cannot be part of [`Apg`], a
/// setting that may be shared and used again, and a change of level does not tell where a run begins (churn and
/// restarts go up within one). So it is a value of its own, made by [`Apg::run`] and gone with the run.
///
/// Every guided evaluation counts, also those in the middle of a step (Heun), as in the reference.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Denoiser, Estimate, Level, Unconditional};
/// use canvas_sched::Apg;
///
/// /// Estimates zero.
/// struct Zero;
/// impl Denoiser<2> for Zero {
///     type Cond = Unconditional;
///     fn denoise(&self, x: Tensor<2>, _at: &[Level], _cond: &Unconditional) -> Estimate<2> {
///         x.zeros_like().into()
///     }
/// }
///
/// let apg = Apg { threshold: 15.0, ..Apg::new(Zero, Unconditional(1), 7.5) };
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// for _image in 0..2 {
///     let run = apg.run(-0.5); // anew for each run
///     let said = run.denoise(Tensor::ones([1, 3], &Device::flex()), &at, &Unconditional(1));
///     assert_eq!(said.x0.sum().into_scalar::<f32>(), 0.0);
/// }
/// ```
#[derive(Debug)]
pub struct ApgRun<'a, N, C, const D: usize> {
    apg: &'a Apg<N, C>,
    beta: f64,
    sum: RefCell<Option<Tensor<D>>>,
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for ApgRun<'_, N, N::Cond, D> {
    type Cond = N::Cond;

    /// Rows outside of the range remember nothing new.
    ///
    /// # Panics
    /// As [`Apg`], and if the batch has other sizes than before: that is another run.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        self.apg.guide(&x, at, cond, |update| {
            let old = self.sum.take().unwrap_or_else(|| update.zeros_like());
            let (was, is) = (old.dims(), update.dims());
            assert_eq!(was, is, "momentum is of one run: make an ApgRun for each");
            let sum = update + old.clone() * self.beta;
            let kept = where_level(at, |level| self.apg.pair.guides(level), sum.clone(), old);
            self.sum.replace(Some(kept));
            sum
        })
    }
}
