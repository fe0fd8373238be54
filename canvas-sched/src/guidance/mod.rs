//! Guidance: denoisers around denoisers.
//!
//! Each method takes one or more clean estimates and makes another. A method that is an affine combination of
//! estimates whose weights sum to 1 gives the same whether it acts on clean data, noise or velocity, because at
//! a fixed state and level these are affine in each other. A method that takes norms, angles or standard
//! deviations does not, and has a [`Space`] to say where it acts.
//!
//! | method | evaluations | weights sum to 1 | acts in |
//! |---|---|---|---|
//! | [`Cfg`] | 2 | yes | any |
//! | [`Cfg`] with [`Rescale`] | 2 | no | velocity by default |
//! | [`CfgPp`] | 2 | yes, and a noise estimate of its own | any |
//! | [`Apg`] | 2 | no | clean data by default |
//! | [`CfgZeroStar`] | 2 | no | flow velocity by default |
//! | [`Tcfg`] | 2 | no | noise by default |
//! | [`Autoguidance`] | 2 | yes | any |
//! | [`Composed`] | 1 + prompts | yes | any |
//! | [`Pag`], [`Slg`] | 2, with CFG 3 | yes | any |
//! | [`Clip`], [`DynamicThreshold`] | 1 | no | clean data |
//!
//! All pass the learned variance of the conditional estimate on. Ranges are in `sigma / alpha`, ends included;
//! a row of the batch outside of one is the plain estimate, whatever its neighbours are.

mod apg;
mod autoguidance;
mod cfg;
mod cfg_pp;
mod cfg_zero_star;
mod clip;
mod composed;
mod dynamic_threshold;
mod pag;
mod pair;
mod perturbed;
mod slg;
mod space;
mod tcfg;

pub use apg::{Apg, ApgRun};
pub use autoguidance::Autoguidance;
pub use cfg::Cfg;
pub use cfg_pp::CfgPp;
pub use cfg_zero_star::CfgZeroStar;
pub use clip::Clip;
pub use composed::Composed;
pub use dynamic_threshold::DynamicThreshold;
pub use pag::Pag;
pub use pair::{Calls, Pair, Rescale};
pub use perturbed::{Perturbed, Worse};
pub use slg::Slg;
pub use space::Space;
pub use tcfg::Tcfg;

use burn::prelude::*;
use canvas_core::{Estimate, Level, per_sample};

/// Whether `sigma / alpha` lies in a range, ends included.
fn inside(range: (f64, f64), level: Level) -> bool {
    let ratio = level.sigma / level.alpha;
    range.0 <= ratio && ratio <= range.1
}

/// Per sample `yes` where a level is of a kind, and `no` elsewhere; whole when all levels agree.
fn where_level<const D: usize>(
    at: &[Level],
    kind: impl Fn(Level) -> bool,
    yes: Tensor<D>,
    no: Tensor<D>,
) -> Tensor<D> {
    match at.iter().filter(|&&level| kind(level)).count() {
        0 => no,
        count if count == at.len() => yes,
        _ => {
            let like = (&no.device(), no.dtype());
            let one = |level| f64::from(u8::from(kind(level)));
            let mask = per_sample::<D>(at, like, one).greater_elem(0.5).expand(no.dims());
            no.mask_where(mask, yes)
        }
    }
}

/// The noise estimate: the denoiser's own, or the one that its clean estimate implies (0 on clean data).
fn noise<const D: usize>(x: &Tensor<D>, at: &[Level], said: &Estimate<D>) -> Tensor<D> {
    said.eps.clone().unwrap_or_else(|| {
        let like = (&x.device(), x.dtype());
        let alpha = per_sample::<D>(at, like, |level| level.alpha);
        let unit =
            per_sample::<D>(at, like, |level| if level.sigma == 0.0 { 0.0 } else { 1.0 / level.sigma });
        (x.clone() - said.x0.clone() * alpha) * unit
    })
}

/// Per sample one estimate or the other. Noise estimates are filled in where only one has its own.
fn choose<const D: usize>(
    x: &Tensor<D>,
    at: &[Level],
    kind: impl Fn(Level) -> bool,
    yes: Estimate<D>,
    no: Estimate<D>,
) -> Estimate<D> {
    let count = at.iter().filter(|&&level| kind(level)).count();
    if count == at.len() {
        return yes;
    }
    if count == 0 {
        return no;
    }
    let own = yes.eps.is_some() || no.eps.is_some();
    let eps = own.then(|| where_level(at, &kind, noise(x, at, &yes), noise(x, at, &no)));
    Estimate { x0: where_level(at, &kind, yes.x0, no.x0), eps, variance: no.variance }
}

/// Sum over all but the sample axis, `[B, 1, ..]`.
fn total<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let dims: Vec<usize> = (1..D).collect();
    x.sum_dims(&dims)
}

/// Inner product of each sample with its counterpart, `[B, 1, ..]`.
fn dot<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> Tensor<D> {
    total(a.clone() * b.clone())
}

/// `top / bottom`, or `other` where `bottom` is 0.
fn ratio<const D: usize>(top: Tensor<D>, bottom: Tensor<D>, other: f64) -> Tensor<D> {
    let zero = bottom.clone().equal_elem(0.0);
    (top / bottom.mask_fill(zero.clone(), 1.0)).mask_fill(zero, other)
}
