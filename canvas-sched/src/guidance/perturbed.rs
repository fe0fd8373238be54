use super::pair::of_two;
use super::{Cfg, choose, inside};
use burn::prelude::*;
use canvas_core::trace::{self, IdentityMaps, Perturbation, SkippedBlocks};
use canvas_core::{Condition, Denoiser, Estimate, Level};
use std::rc::Rc;

/// How to make a network worse, by the names of its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worse {
    /// These self-attention maps become the identity.
    IdentityMaps(Vec<String>),
    /// These blocks are left out.
    SkippedBlocks(Vec<String>),
}

impl Worse {
    /// Asks a denoiser while its network is made worse.
    ///
    /// # Panics
    /// If the network has no layer of one of the names.
    fn ask<const D: usize, N: Denoiser<D>>(
        &self,
        denoiser: &N,
        x: &Tensor<D>,
        at: &[Level],
        cond: &N::Cond,
    ) -> Estimate<D> {
        let run = || denoiser.denoise(x.clone(), at, cond);
        fn hooked<T>(hook: impl Perturbation + 'static, run: impl FnOnce() -> T) -> T {
            let hook = Rc::new(hook);
            let said = trace::with_hook(hook.clone(), run);
            hook.verify();
            said
        }
        match self {
            Self::IdentityMaps(names) => hooked(IdentityMaps::new(names), run),
            Self::SkippedBlocks(names) => hooked(SkippedBlocks::new(names), run),
        }
    }
}

/// A denoiser whose network is made worse on purpose: what [`Pag`](super::Pag) and [`Slg`](super::Slg) move away
/// from, and a weak side for [`Autoguidance`](super::Autoguidance).
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Denoiser, Estimate, Level, Unconditional, trace};
/// use canvas_sched::{Perturbed, Worse};
///
/// /// One block that doubles.
/// struct Network;
/// impl Denoiser<1> for Network {
///     type Cond = Unconditional;
///     fn denoise(&self, x: Tensor<1>, _at: &[Level], _cond: &Unconditional) -> Estimate<1> {
///         trace::block(|| "blocks.0".into(), x, |x| x * 2.0).into()
///     }
/// }
///
/// let worse = Perturbed { denoiser: Network, how: Worse::SkippedBlocks(vec!["blocks.0".into()]) };
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 0.5 }];
/// let said = worse.denoise(Tensor::ones([1], &Device::flex()), &at, &Unconditional(1));
/// assert_eq!(said.x0.into_scalar::<f32>(), 1.0);
/// ```
#[derive(Clone, Debug)]
pub struct Perturbed<N> {
    /// The denoiser.
    pub denoiser: N,
    /// What is done to its network.
    pub how: Worse,
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for Perturbed<N> {
    type Cond = N::Cond;

    /// # Panics
    /// If the network has no layer of one of the names.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        self.how.ask(&self.denoiser, &x, at, cond)
    }
}

/// CFG plus `scale (c - p)` within a range, rescaled as CFG is.
pub(super) fn shifted<const D: usize, N: Denoiser<D, Cond = C>, C: Condition>(
    cfg: &Cfg<N, C>,
    worse: &Worse,
    (scale, range): (f64, (f64, f64)),
    x: &Tensor<D>,
    at: &[Level],
    cond: &C,
) -> Estimate<D> {
    let shifts = |level| inside(range, level);
    if scale == 0.0 || !at.iter().any(|&level| shifts(level)) {
        return cfg.denoise(x.clone(), at, cond);
    }
    let cond = &cond.spread(x.dims()[0]);
    let (plain, guided) = cfg.pair.parts(x, at, (cond, &[&cfg.pair.null]), cfg.rule().map(of_two));
    let p = worse.ask(&cfg.pair.denoiser, x, at, cond).x0;
    let x0 = guided.x0.clone() + (plain.x0.clone() - p) * scale;
    let both = choose(x, at, shifts, Estimate { x0, eps: None, variance: guided.variance.clone() }, guided);
    let guides = |level| shifts(level) || (cfg.scale != 1.0 && cfg.pair.guides(level));
    cfg.pair.rescaled(x, at, guides, (plain, both))
}
