//! Grids and schedules of the classes with an axis of their own: EDM, consistency models, SCM, IPNDM.

use super::ask::{Placed, Places, listed};
use super::{Ask, AskError};
use crate::schedule::Edm;
use crate::{Final, Spacing, Timesteps};
use canvas_core::{Level, NoiseSchedule};
use std::f64::consts::FRAC_PI_2;

/// A rule that takes no lists, on a schedule.
pub(super) struct Fixed<S> {
    pub(super) class: &'static str,
    pub(super) on: S,
    pub(super) timesteps: Timesteps,
}

impl<S: NoiseSchedule + Copy + 'static> Places for Fixed<S> {
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError> {
        ask.lists(self.class, false, false)?;
        Ok(Placed::new(self.class, self.on, self.timesteps.clone(), ask.steps))
    }
}

/// EDM's schedule that churn may raise beyond its end, as in the paper's Algorithm 2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open(pub(super) Edm);

impl NoiseSchedule for Open {
    fn level(&self, t: f64) -> Level {
        self.0.level(t)
    }
    fn level_at_ratio(&self, ratio: f64) -> Level {
        Level { time: self.0.level_at_ratio(ratio).time, alpha: 1.0, sigma: ratio }
    }
    fn slope(&self, t: f64) -> (f64, f64) {
        self.0.slope(t)
    }
}

/// A consistency model's sigmas: some of the steps it was trained on.
pub(super) struct ConsistencyGrid {
    pub(super) train: usize,
    pub(super) on: Edm,
}

impl Places for ConsistencyGrid {
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError> {
        let (class, most, steps) = ("CMStochasticIterativeScheduler", self.train, ask.steps);
        ask.lists(class, false, true)?;
        let steps: Vec<f64> = match ask.timesteps {
            Some(timesteps) => {
                let within = |step: f64| (0.0..=(most - 1) as f64).contains(&step);
                let steps = listed("timesteps", timesteps, ("a step of the num_train_timesteps", within))?;
                steps.into_iter().rev().collect()
            }
            None if steps > most => {
                let why = ", as many as it was trained with";
                return Err(AskError::TooManySteps { class, steps, most, why });
            }
            None => (0..steps).map(|i| (i * (most / steps)) as f64).collect(),
        };
        // Its steps count from the noisiest.
        let times = steps.iter().map(|step| 1.0 - step / (most - 1).max(1) as f64).collect();
        let timesteps = Timesteps::new(Spacing::Times(times)).ending(Final::At(0.0));
        Ok(Placed::new(class, self.on, timesteps, ask.steps))
    }
}

/// `x = cos(t) x0 + sin(t) d eps`; the level's time is the angle `t`, and the schedule's runs from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circle {
    /// `d`, standard deviation of the data.
    pub(super) sigma_data: f64,
}

impl NoiseSchedule for Circle {
    fn level(&self, t: f64) -> Level {
        let angle = t * FRAC_PI_2;
        // Exactly pure noise and exactly clean at the ends.
        let alpha = if t == 1.0 { 0.0 } else { angle.cos() };
        Level { time: angle, alpha, sigma: angle.sin() * self.sigma_data }
    }
}

impl Places for Circle {
    /// diffusers' defaults: the angles 1.5708 and 1.3 for two steps, evenly else. Its 1.5708 lies 4e-6 above
    /// pi/2, where `alpha` is negative; here an angle is at most pi/2.
    fn place(&self, ask: &Ask<'_>) -> Result<Placed, AskError> {
        #[expect(clippy::approx_constant, reason = "diffusers' own number")]
        const MOST: f64 = 1.57080;
        let class = "SCMScheduler";
        ask.lists(class, false, true)?;
        let mut angles: Vec<f64> = match (ask.timesteps, ask.steps) {
            (Some(timesteps), _) => {
                let within = |angle: f64| (0.0..=MOST).contains(&angle);
                listed("timesteps", timesteps, ("an angle, in [0, 1.5708]", within))?
            }
            (None, 0) => return Err(AskError::NoSteps),
            (None, 2) => vec![MOST, 1.3, 0.0],
            (None, steps) => (0..=steps).map(|i| MOST * (1.0 - i as f64 / steps as f64)).collect(),
        };
        let clean = angles.last() == Some(&0.0);
        angles.truncate(angles.len() - usize::from(clean));
        let times = angles.into_iter().map(|angle| (angle / FRAC_PI_2).min(1.0)).collect();
        let timesteps =
            Timesteps::new(Spacing::Times(times)).ending(if clean { Final::Clean } else { Final::Nothing });
        Ok(Placed::new(class, *self, timesteps, ask.steps))
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
