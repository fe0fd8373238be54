//! Noise schedules: from a time in `[0, 1]` to a [`Level`](canvas_core::Level).
//!
//! | schedule | `alpha` | `sigma` | time told |
//! |---|---|---|---|
//! | [`Flow`] | `1 - s` | `s = shift t / (1 + (shift - 1) t)` | `s` |
//! | [`Vp`] | `sqrt(alpha_bar)` | `sqrt(1 - alpha_bar)` | `t - 1/T` |
//! | [`Edm`] | `1` | the rho ramp from `sigma_min` to `sigma_max` | `t` |

mod edm;
mod flow;
mod vp;

pub use edm::Edm;
pub use flow::Flow;
pub use vp::{Vp, betas};

/// # Panics
/// If `t` lies outside `[0, 1]`.
fn check_time(t: f64) {
    assert!((0.0..=1.0).contains(&t), "a schedule's time must lie in [0, 1], found {t}");
}
