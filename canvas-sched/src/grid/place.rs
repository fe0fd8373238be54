//! From a rule to levels: spacing, stretch, transform, told times, end.

use super::error::setting;
use super::spacing::{at, ratio};
use super::{Ends, Final, GridSpecError, Over, Timesteps, Transform};
use canvas_core::{Level, NoiseSchedule};

impl Timesteps {
    pub(super) fn place(
        &self,
        schedule: &dyn NoiseSchedule,
        steps: usize,
    ) -> Result<Vec<Level>, GridSpecError> {
        if steps == 0 {
            return Err(GridSpecError::NoSteps);
        }
        let mut levels = self.spacing.levels(schedule, steps)?;
        self.stretch(schedule, &mut levels)?;
        self.transform(schedule, &mut levels)?;
        let noisy = if self.last == Final::Nothing { steps - 1 } else { steps };
        if let Some(index) = levels[..noisy].iter().position(|level| level.sigma <= 0.0) {
            return Err(GridSpecError::NoNoise { index, count: noisy });
        }
        if let Some(told) = &self.told {
            told.tell(schedule, &mut levels)?;
        }
        let least = levels[steps - 1];
        match self.last {
            Final::Clean => levels.push(Level { alpha: 1.0, sigma: 0.0, ..schedule.level(0.0) }),
            Final::Repeat => levels.push(least),
            Final::At(time) => {
                let last = at(schedule, steps, time)?;
                levels.push(if ratio(last) > ratio(least) { least } else { last });
            }
            Final::Nothing => {}
        }
        falling(&levels)?;
        Ok(levels)
    }

    fn stretch(&self, schedule: &dyn NoiseSchedule, levels: &mut [Level]) -> Result<(), GridSpecError> {
        let Some(terminal) = self.terminal else { return Ok(()) };
        setting(terminal > 0.0 && terminal < 1.0, "the terminal", "in (0, 1)", terminal)?;
        let clean = |level: Level| level.alpha / (level.alpha + level.sigma);
        let most = clean(levels[levels.len() - 1]);
        for level in levels.iter_mut().filter(|level| level.alpha > 0.0) {
            let share = clean(*level) / most * (1.0 - terminal);
            *level = schedule.level_at_ratio((1.0 - share) / share);
        }
        Ok(())
    }

    fn transform(&self, schedule: &dyn NoiseSchedule, levels: &mut [Level]) -> Result<(), GridSpecError> {
        if self.transform == Transform::None {
            return Ok(());
        }
        let count = levels.len();
        let (first, last) = match self.ends {
            Ends::Spaced => (levels[0], levels[count - 1]),
            Ends::Times { first, last } => (at(schedule, 0, first)?, at(schedule, count - 1, last)?),
            Ends::Between { high, low } => {
                let most = if self.over == Over::Flow { 1.0 } else { f64::INFINITY };
                setting(high > 0.0 && high <= most, "the noisiest end", "a noise level above 0", high)?;
                setting(low > 0.0 && low <= high, "the cleanest end", "above 0, at most the noisiest", low)?;
                let level = |noise| schedule.level_at_ratio(self.over.ratio(noise));
                (level(high), level(low))
            }
        };
        let noise = |level| self.over.of_ratio(ratio(level));
        let (high, low) = (noise(first), noise(last));
        if low <= 0.0 {
            return Err(GridSpecError::NoNoise { index: count - 1, count });
        }
        if low > high {
            let (ratio, before) = (ratio(last), ratio(first));
            return Err(GridSpecError::WrongWay { index: count - 1, ratio, before });
        }
        self.transform.check(high)?;
        for (i, level) in levels.iter_mut().enumerate() {
            *level = match i {
                0 => first,
                i if i + 1 == count => last,
                i => {
                    let u = i as f64 / (count - 1) as f64;
                    schedule.level_at_ratio(self.over.ratio(self.transform.level(u, (high, low))))
                }
            };
        }
        Ok(())
    }
}

/// Refuses a level with more noise than the one before.
fn falling(levels: &[Level]) -> Result<(), GridSpecError> {
    for (i, pair) in levels.windows(2).enumerate() {
        let (before, ratio) = (ratio(pair[0]), ratio(pair[1]));
        // Equal levels may differ by a rounding error; NaN is never fine.
        let fine = ratio <= before * (1.0 + 1e-9);
        if !fine {
            return Err(GridSpecError::WrongWay { index: i + 1, ratio, before });
        }
    }
    Ok(())
}
