//! The family of SDEs that share the marginals of the probability-flow ODE, as SiT parametrises them.

use crate::locate::time_of;
use burn::prelude::*;
use canvas_core::{Evaluation, Level, NoiseSchedule};
use std::f64::consts::PI;

/// The diffusion coefficient `w(t) >= 0` of `dx = (v - w score) dt + sqrt(2 w) dW`, which any choice of `w` leaves
/// with the marginals of `dx = v dt`.
///
/// `t` is the schedule's own time: 0 is data and 1 is noise. SiT's runs the other way, its `t` is our `1 - t`.
///
/// # Reference
/// Ma et al., "SiT", 2024, equation 6 and section 3.4, <https://arxiv.org/abs/2401.08740>; the forms are those of its
/// published code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Diffusion {
    /// `norm`.
    Constant,
    /// `norm (s s' - s^2 a' / a)`, with derivatives in `t`: the coefficient of score-based diffusion. Infinite at
    /// `alpha = 0`.
    #[default]
    Sbdm,
    /// `norm s`.
    Sigma,
    /// `norm t`.
    Linear,
    /// `(1 - norm cos(pi t))^2 / 4`, decreasing towards the data.
    Decreasing,
    /// `norm sin^2(pi t)`.
    IncreasingDecreasing,
}

/// What SiT does in the step that ends in clean data. None adds noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastStep {
    /// The mean of one more step of the SDE. It lands on data only where the schedule is nearly a straight line in
    /// `t` from the last level on, as SiT's are.
    Mean,
    /// The clean estimate: right on every schedule.
    #[default]
    Tweedie,
    /// Euler's step of the ODE.
    Euler,
}

/// SiT's SDE: the diffusion, its scale, and how a run ends.
///
/// SiT's `last_step_size = 0.04` is a matter of the grid: `Timesteps` with `Spacing::Linspace { last: 0.04 }` has
/// the published levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SitSde {
    /// Form of the diffusion coefficient.
    pub diffusion: Diffusion,
    /// Its scale, `>= 0`.
    pub norm: f64,
    /// How the last step ends a run.
    pub last: LastStep,
}

impl Default for SitSde {
    /// SBDM with scale 1 as in SiT, but [`LastStep::Tweedie`] where SiT's default is `Mean`.
    fn default() -> Self {
        Self { diffusion: Diffusion::Sbdm, norm: 1.0, last: LastStep::Tweedie }
    }
}

impl SitSde {
    /// Whether this diffusion is infinite where there is no signal.
    pub(crate) fn needs_signal(&self) -> bool {
        self.diffusion == Diffusion::Sbdm
    }

    /// `w(t)` at a level of a schedule.
    pub fn coefficient(&self, schedule: &dyn NoiseSchedule, level: Level) -> f64 {
        let t = time_of(schedule, level);
        let norm = self.norm;
        match self.diffusion {
            Diffusion::Constant => norm,
            Diffusion::Sbdm => {
                let (of_alpha, of_sigma) = schedule.slope(t);
                norm * (level.sigma * of_sigma - level.sigma.powi(2) * of_alpha / level.alpha).max(0.0)
            }
            Diffusion::Sigma => norm * level.sigma,
            Diffusion::Linear => norm * t,
            Diffusion::Decreasing => 0.25 * (1.0 - norm * (PI * t).cos()).powi(2),
            Diffusion::IncreasingDecreasing => norm * (PI * t).sin().powi(2),
        }
    }

    /// `dx/dt` of the SDE without its noise, run from noise to data: `v - w score`, `score = -eps / s`.
    pub(crate) fn drift<const D: usize>(
        schedule: &dyn NoiseSchedule,
        at: &Evaluation<D>,
        coefficient: f64,
    ) -> Tensor<D> {
        let (of_alpha, of_sigma) = schedule.slope(time_of(schedule, at.level));
        at.x0() * of_alpha + at.eps() * (of_sigma + coefficient / at.level.sigma)
    }

    /// The end of a step that ends in clean data.
    pub(crate) fn finish<const D: usize>(
        &self,
        schedule: &dyn NoiseSchedule,
        here: &Evaluation<D>,
        to: Level,
    ) -> Tensor<D> {
        let rate = match self.last {
            LastStep::Tweedie => return here.carry(to),
            LastStep::Mean => self.coefficient(schedule, here.level),
            LastStep::Euler => 0.0,
        };
        let dt = time_of(schedule, to) - time_of(schedule, here.level);
        here.x.clone() + Self::drift(schedule, here, rate) * dt
    }
}

/// How much noise a step of [`FlowSde`](crate::FlowSde) has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FlowNoise {
    /// `c = a sqrt(f / (1 - f))`, with the target's `f` in the denominator where `f = 1`. Flow-GRPO uses 0.7.
    FlowGrpo(f64),
    /// `c` itself, the same at every level. DanceGRPO uses 0.3.
    DanceGrpo(f64),
    /// The part `sin(a pi / 2)` of the target's noise is fresh: coefficients are preserved at any step size.
    Cps(f64),
}

impl Default for FlowNoise {
    /// Flow-GRPO's 0.7.
    fn default() -> Self {
        Self::FlowGrpo(0.7)
    }
}
