//! Noise schedules: from a time in `[0, 1]` to a [`Level`](canvas_core::Level).
//!
//! | schedule | `alpha` | `sigma` | time told |
//! |---|---|---|---|
//! | [`Flow`] | `1 - s` | `s = shift t / (1 + (shift - 1) t)` | `s` |
//! | [`Vp`] | `sqrt(alpha_bar)` | `sqrt(1 - alpha_bar)` | `t - 1/T` |
//! | [`VpSde`] | `exp(-int beta / 2)` | `sqrt(1 - alpha^2)` | `t` |
//! | [`SubVp`] | as `VpSde` | `1 - alpha^2` | `t` |
//! | [`Gvp`] | `cos(pi t / 2)` | `sin(pi t / 2)` | `t` |
//! | [`Cosine`] | `cos(u) / cos(u_0)` | `sqrt(1 - alpha^2)` | `t` |
//! | [`Laplace`] | from a Laplace distribution of log SNR | `sqrt(1 - alpha^2)` | `t` |
//! | [`Edm`] | `1` | the rho ramp from `sigma_min` to `sigma_max` | `t` |
//! | [`Ve`] | `1` | `sigma_min (sigma_max / sigma_min)^t` | `t` |
//! | [`Shifted`] | another's, its log SNR moved | | the other's |
//!
//! All have closed forms for [`level_at_ratio`](canvas_core::NoiseSchedule::level_at_ratio) and
//! [`slope`](canvas_core::NoiseSchedule::slope).

pub mod betas;
mod edm;
mod flow;
mod gvp;
mod laplace;
pub mod mu;
mod sde;
mod shifted;
mod ve;
mod vp;

pub use edm::Edm;
pub use flow::Flow;
pub use gvp::{Cosine, Gvp};
pub use laplace::Laplace;
pub use sde::{SubVp, VpSde};
pub use shifted::Shifted;
pub use ve::Ve;
pub use vp::{TableError, Vp};

/// # Panics
/// If `t` lies outside `[0, 1]`.
fn check_time(t: f64) {
    assert!((0.0..=1.0).contains(&t), "a schedule's time must lie in [0, 1], found {t}");
}
