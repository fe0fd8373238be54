//! Grids and schedules of the classes with an axis of their own: EDM, consistency models, SCM, IPNDM.

use super::sigmas::Transform;
use super::steps::falling;
use super::{Ask, AskError, Rule};
use canvas_core::{Level, NoiseSchedule};
use std::f64::consts::FRAC_PI_2;

/// A level with noise added to data that keeps its scale.
fn exploding(sigma: f64) -> Level {
    Level { time: 0.25 * sigma.ln(), alpha: 1.0, sigma }
}

/// EDM's sigmas from `high` to `low`.
pub(super) struct EdmGrid {
    pub(super) class: &'static str,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) rho: f64,
    pub(super) transform: Transform,
    pub(super) end: EdmEnd,
}

/// Where an EDM run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EdmEnd {
    Clean,
    /// The last sigma once more, which is the least one only from two steps on.
    Repeat,
    Least,
}

/// EDM's schedule that churn may raise beyond its end, as in the paper's Algorithm 2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open(pub(super) crate::schedule::Edm);

impl NoiseSchedule for Open {
    fn level(&self, t: f64) -> Level {
        self.0.level(t)
    }
    fn level_at_ratio(&self, ratio: f64) -> Level {
        exploding(ratio)
    }
    fn slope(&self, t: f64) -> (f64, f64) {
        self.0.slope(t)
    }
}

impl Rule for EdmGrid {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        ask.only_lists(self.class, false, false)?;
        if ask.steps == 0 {
            return Err(AskError::NoSteps);
        }
        let sigmas = match self.transform {
            Transform::Karras => {
                let (high, low) = (self.high.powf(1.0 / self.rho), self.low.powf(1.0 / self.rho));
                let part = |i: usize| i as f64 / (ask.steps - 1).max(1) as f64;
                (0..ask.steps).map(|i| (high + part(i) * (low - high)).powf(self.rho)).collect()
            }
            other => other.ratios(self.high, self.low, ask.steps).expect("exponential moves them"),
        };
        let mut levels: Vec<Level> = sigmas.into_iter().map(exploding).collect();
        let last = levels[ask.steps - 1];
        levels.push(match self.end {
            EdmEnd::Clean => Level { time: 0.0, alpha: 1.0, sigma: 0.0 },
            EdmEnd::Repeat => last,
            EdmEnd::Least => exploding(self.low),
        });
        Ok(levels)
    }
}

/// A consistency model's sigmas: some of the steps it was trained on.
pub(super) struct ConsistencyGrid {
    pub(super) train: usize,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) rho: f64,
}

impl Rule for ConsistencyGrid {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        let (class, most, steps) = ("CMStochasticIterativeScheduler", self.train, ask.steps);
        ask.only_timesteps(class, true)?;
        let steps: Vec<f64> = match ask.timesteps {
            Some(timesteps) => {
                falling("timesteps", timesteps)?;
                timesteps.iter().rev().copied().collect()
            }
            None if steps == 0 => return Err(AskError::NoSteps),
            None if steps > most => {
                let why = ", as many as it was trained with";
                return Err(AskError::TooManySteps { class, steps, most, why });
            }
            None => (0..steps).map(|i| (i * (most / steps)) as f64).collect(),
        };
        let (high, low) = (self.high.powf(1.0 / self.rho), self.low.powf(1.0 / self.rho));
        let sigma = |step: f64| (high + step / (most - 1).max(1) as f64 * (low - high)).powf(self.rho);
        Ok(steps.into_iter().map(sigma).chain([self.low]).map(exploding).collect())
    }
}

/// `x = cos(t) x0 + sin(t) d eps`; the level's time is the angle `t`, and the schedule's runs from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circle {
    /// `d`, standard deviation of the data.
    pub(super) sigma_data: f64,
}

impl Circle {
    fn at(&self, angle: f64) -> Level {
        Level { time: angle, alpha: angle.cos(), sigma: angle.sin() * self.sigma_data }
    }
}

impl NoiseSchedule for Circle {
    fn level(&self, t: f64) -> Level {
        self.at(t * FRAC_PI_2)
    }
}

impl Rule for Circle {
    /// diffusers' defaults: the angles 1.5708 and 1.3 for two steps, evenly else. Its 1.5708 lies 4e-6 above
    /// pi/2, where `alpha` is negative; here an angle is at most pi/2.
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        const MOST: f64 = 1.57080;
        ask.only_timesteps("SCMScheduler", true)?;
        let angles: Vec<f64> = match (ask.timesteps, ask.steps) {
            (Some(timesteps), _) => {
                falling("timesteps", timesteps)?;
                timesteps.to_vec()
            }
            (None, 0) => return Err(AskError::NoSteps),
            (None, 2) => vec![MOST, 1.3, 0.0],
            (None, steps) => (0..=steps).map(|i| MOST * (1.0 - i as f64 / steps as f64)).collect(),
        };
        Ok(angles.into_iter().map(|angle| self.at(angle.min(FRAC_PI_2))).collect())
    }
}

/// IPNDM's schedule: `sigma = sin^2(pi t / 2)`, `alpha^2 + sigma^2 = 1`, told `2/pi atan2(sigma, alpha)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Squared;

impl NoiseSchedule for Squared {
    fn level(&self, t: f64) -> Level {
        let sigma = (t * FRAC_PI_2).sin().powi(2);
        let alpha = (1.0 - sigma * sigma).sqrt();
        Level { time: sigma.atan2(alpha) / FRAC_PI_2, alpha, sigma }
    }
}

impl Rule for Squared {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError> {
        ask.only_lists("IPNDMScheduler", false, false)?;
        if ask.steps == 0 {
            return Err(AskError::NoSteps);
        }
        Ok((0..=ask.steps).map(|i| self.level(1.0 - i as f64 / ask.steps as f64)).collect())
    }
}
