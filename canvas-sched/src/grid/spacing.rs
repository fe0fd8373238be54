//! Where the levels of a run lie before a transform.

use super::beta::quantile;
use super::error::{positive, setting};
use super::{Ays, GridSpecError, Over};
use canvas_core::{Level, NoiseSchedule};

/// How the `N` noisy levels of a run are spaced.
///
/// Training step `i` of `T` lies at the time `(i + 1) / T`. Halves round to even, as numpy's do.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Spacing {
    /// `1 - i/N`: times from 1 to `1/N`. What flow pipelines use; good for every schedule.
    #[default]
    Uniform,
    /// Times evenly from `first` to `last`, both included (for one step, `first`). ComfyUI's `normal`.
    Linspace {
        /// The noisiest time, in `[0, 1]`.
        first: f64,
        /// The least noisy time, in `[0, first]`. The schedule must have noise there.
        last: f64,
    },
    /// Times evenly from `first` to `last`, where `last` is left out. From 1 to `1/T` ComfyUI's
    /// `sgm_uniform`, from `1 - 1/T` to 0 the flow grid of diffusers' DPM++ and UniPC.
    Open {
        /// The noisiest time, in `[0, 1]`.
        first: f64,
        /// The time that would come next, in `[0, first]`.
        last: f64,
    },
    /// Training steps by one of the rules of the reference code.
    Training {
        /// Which rule.
        rule: Rule,
        /// Training steps `T`.
        train: usize,
        /// Only the cleanest `used` of them, at most `T`: less for schedules whose noisiest steps no solver
        /// should see ([`Vp::steps_above`](crate::schedule::Vp::steps_above)).
        used: usize,
    },
    /// Quantiles of a beta distribution over training steps, `round(F^-1(1 - i/N) (T - 1))`: ComfyUI's
    /// `beta`. It drops steps that come out twice; here they stay, as hops of no length.
    ///
    /// # Reference
    /// Lee et al., "Beta Sampling is All You Need", 2024, <https://arxiv.org/abs/2407.12173>.
    Beta {
        /// First shape of the distribution, 0.6.
        alpha: f64,
        /// Second shape, 0.6.
        beta: f64,
        /// Training steps `T`.
        train: usize,
    },
    /// Times that fall linearly from 1 to `1 - threshold` over the first half of the steps, and quadratically
    /// to 0 (left out) over the second. Mochi's and LTX-Video's, threshold 0.025.
    LinearQuadratic {
        /// How far the linear half goes, in `(0, 1/3]`.
        threshold: f64,
    },
    /// Optimised noise levels of a model.
    Ays(Ays),
    /// Times of your own, noisiest first.
    Times(Vec<f64>),
    /// Training steps of your own, noisiest first; they need not be whole.
    Steps {
        /// Training steps `T`.
        train: usize,
        /// In `[0, T - 1]`.
        steps: Vec<f64>,
    },
    /// Noise levels of your own, noisiest first, and what they are.
    Sigmas {
        /// What the numbers are.
        of: Over,
        /// The numbers, without a clean end.
        sigmas: Vec<f64>,
    },
}

/// How the reference code picks training steps. `T` is [`Spacing::Training`]'s `used`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `round(linspace(0, T - 1, N))`: `linspace` of diffusers' DDIM and DDPM. A single step is the noisiest
    /// (diffusers': the cleanest).
    Linspace,
    /// `round(linspace(0, T - 1, N + 1))` without the 0: `linspace` of diffusers' DPM++, UniPC and DEIS.
    LinspaceOpen,
    /// `offset + k (T / N)`, the division rounding down: never starts at the noisiest step.
    Leading {
        /// Added to each: 1 in Stable Diffusion's published settings and in ComfyUI's `ddim_uniform`.
        offset: usize,
    },
    /// `offset + k (T / (N + 1))` without `k = 0`: `leading` of diffusers' DPM++, UniPC and DEIS.
    LeadingOpen {
        /// Added to each.
        offset: usize,
    },
    /// `round(T - i T/N) - 1`: starts at the noisiest step. For some `N` (61, 103, 121, ..) diffusers' list
    /// has one step more by a rounding error, -1, which no network knows; here it has `N`.
    Trailing,
    /// `T - 1 - floor(i T/N)`: ComfyUI's `simple`.
    Simple,
}

impl Rule {
    /// The training step of hop `i` of `steps`.
    fn step(self, i: usize, steps: usize, used: usize) -> f64 {
        let (count, top, left) = (steps as f64, used as f64, steps - 1 - i);
        // Multiplied and divided in numpy's order, so that halves fall alike.
        match self {
            Self::Linspace if i == 0 => top - 1.0,
            Self::Linspace => (left as f64 * ((top - 1.0) / (count - 1.0))).round_ties_even(),
            Self::LinspaceOpen if i == 0 => top - 1.0,
            Self::LinspaceOpen => ((left + 1) as f64 * ((top - 1.0) / count)).round_ties_even(),
            Self::Leading { offset } => (left * (used / steps) + offset) as f64,
            Self::LeadingOpen { offset } => ((left + 1) * (used / (steps + 1)) + offset) as f64,
            Self::Trailing => (top + i as f64 * ((top - top / count) - top)).round_ties_even() - 1.0,
            Self::Simple => top - 1.0 - (i as f64 * (top / count)).floor(),
        }
    }
}

/// Either times, or ratios `sigma / alpha`.
enum Places {
    Times(Vec<f64>),
    Ratios(Vec<f64>),
}

impl Spacing {
    /// The noisy levels of a run of `steps`, noisiest first.
    pub(super) fn levels(
        &self,
        schedule: &dyn NoiseSchedule,
        steps: usize,
    ) -> Result<Vec<Level>, GridSpecError> {
        match self.places(steps)? {
            Places::Times(times) => times.into_iter().enumerate().map(|(i, t)| at(schedule, i, t)).collect(),
            Places::Ratios(ratios) => {
                let (least, most) = (ratio(schedule.level(0.0)), ratio(schedule.level(1.0)));
                // Published lists are rounded: 14.615 for 14.6146. Some schedules go on beyond their ends.
                let near = |asked: f64, found: f64| found >= asked * 0.999 && found <= asked * 1.001;
                let level = |(index, asked): (usize, f64)| {
                    let level = schedule.level_at_ratio(asked);
                    match near(asked, ratio(level)) || matches!(self, Self::Ays(_)) {
                        true => Ok(level),
                        false => Err(GridSpecError::OutOfRange { index, ratio: asked, least, most }),
                    }
                };
                ratios.into_iter().enumerate().map(level).collect()
            }
        }
    }

    /// Levels a list has, if this is one.
    fn listed(&self) -> Option<usize> {
        match self {
            Self::Times(list) | Self::Steps { steps: list, .. } | Self::Sigmas { sigmas: list, .. } => {
                Some(list.len())
            }
            _ => None,
        }
    }

    fn places(&self, steps: usize) -> Result<Places, GridSpecError> {
        if let Some(listed) = self.listed().filter(|&listed| listed != steps) {
            return Err(GridSpecError::WrongLength { listed, steps });
        }
        let (count, all) = (steps as f64, 0..steps);
        Ok(Places::Times(match *self {
            Self::Uniform => all.map(|i| 1.0 - i as f64 / count).collect(),
            Self::Linspace { first, last } => line(first, last, steps, (count - 1.0).max(1.0)),
            Self::Open { first, last } => line(first, last, steps, count),
            Self::Training { rule, train, used } => {
                let most = used.min(train);
                if steps > most || matches!(rule, Rule::LeadingOpen { .. }) && steps >= most {
                    return Err(GridSpecError::TooManySteps { steps, train: most });
                }
                all.map(|i| (rule.step(i, steps, most) + 1.0) / train as f64).collect()
            }
            Self::Beta { alpha, beta, train } => {
                positive("the beta spacing's alpha", alpha)?;
                positive("the beta spacing's beta", beta)?;
                setting(train > 0, "training steps", "at least 1", 0.0)?;
                let step = |i: usize| quantile(1.0 - i as f64 / count, alpha, beta) * (train as f64 - 1.0);
                all.map(|i| (step(i).round_ties_even() + 1.0) / train as f64).collect()
            }
            Self::LinearQuadratic { threshold } => {
                let fine = threshold > 0.0 && threshold <= 1.0 / 3.0;
                setting(fine, "the linear-quadratic threshold", "in (0, 1/3]", threshold)?;
                all.map(|i| linear_quadratic(i, steps, threshold)).collect()
            }
            Self::Times(ref times) => times.clone(),
            Self::Steps { train, ref steps } => {
                setting(train > 0, "training steps", "at least 1", 0.0)?;
                steps.iter().map(|step| (step + 1.0) / train as f64).collect()
            }
            Self::Ays(model) => return Ok(Places::Ratios(model.ratios(steps))),
            Self::Sigmas { of, ref sigmas } => {
                return Ok(Places::Ratios(sigmas.iter().map(|&sigma| of.ratio(sigma)).collect()));
            }
        }))
    }
}

/// `steps` numbers from `first`, where `last` is `gaps` further.
fn line(first: f64, last: f64, steps: usize, gaps: f64) -> Vec<f64> {
    (0..steps)
        .map(|i| if i as f64 == gaps { last } else { first + (last - first) * i as f64 / gaps })
        .collect()
}

/// `1 - x`, `x` linear up to `threshold` at half of the steps, then the parabola that goes on smoothly from
/// there to 1.
fn linear_quadratic(i: usize, steps: usize, threshold: f64) -> f64 {
    let half = steps / 2;
    let slope = if half == 0 { 0.0 } else { threshold / half as f64 };
    if i <= half {
        return 1.0 - slope * i as f64;
    }
    let (past, rest) = ((i - half) as f64, (steps - half) as f64);
    let bend = (1.0 - threshold - slope * rest) / (rest * rest);
    1.0 - (threshold + slope * past + bend * past * past)
}

/// `sigma / alpha` of a level.
pub(super) fn ratio(level: Level) -> f64 {
    level.sigma / level.alpha
}

/// The level at a time that may be wrong.
pub(super) fn at(schedule: &dyn NoiseSchedule, index: usize, time: f64) -> Result<Level, GridSpecError> {
    match (0.0..=1.0).contains(&time) {
        true => Ok(schedule.level(time)),
        false => Err(GridSpecError::BadTime { index, time }),
    }
}
