//! What times the network is told, where the reference code rounds them.

use super::GridSpecError;
use super::error::setting;
use super::spacing::ratio;
use canvas_core::{Level, NoiseSchedule};

/// Told times in units of training steps, `index = time * T`, after spacing and transform.
///
/// Only the number the network is told changes. Levels that come out of a transform lie between training
/// steps, where the reference code rounds, for one class so and for another so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Training steps `T`.
    pub train: usize,
    /// Which index a level between two training steps has.
    pub between: Between,
    /// What becomes of its fraction.
    pub round: Round,
}

/// Which index a level between two training steps has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Between {
    /// The schedule's own time.
    #[default]
    Schedule,
    /// Linear in `ln(sigma / alpha)` between the levels of training steps, and those of the first and the
    /// last beyond them: `_sigma_to_t` of diffusers and k-diffusion.
    LogRatio,
}

/// What becomes of the fraction of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Round {
    /// It stays.
    #[default]
    Keep,
    /// To the nearest, halves to even.
    Nearest,
    /// It is cut off.
    Down,
}

impl Told {
    pub(super) fn tell(
        &self,
        schedule: &dyn NoiseSchedule,
        levels: &mut [Level],
    ) -> Result<(), GridSpecError> {
        setting(self.train > 0, "training steps", "at least 1", self.train as f64)?;
        let (train, table) = (self.train as f64, self.table(schedule));
        for level in levels {
            let index = match self.between {
                Between::Schedule => level.time * train,
                Between::LogRatio => index_of(&table, ratio(*level).ln()),
            };
            level.time = match self.round {
                Round::Keep => index,
                Round::Nearest => index.round_ties_even(),
                // 333 must not become 332 by a rounding error of the time.
                Round::Down => (index + 1e-9).floor(),
            } / train;
        }
        Ok(())
    }

    /// `ln(sigma / alpha)` of every training step, where that is asked for.
    fn table(&self, schedule: &dyn NoiseSchedule) -> Vec<f64> {
        let level = |i: usize| schedule.level((i + 1) as f64 / self.train as f64);
        match self.between {
            Between::Schedule => Vec::new(),
            Between::LogRatio => (0..self.train).map(|i| ratio(level(i)).ln()).collect(),
        }
    }
}

/// Where a value lies in a rising table, as an index with a fraction.
pub(crate) fn index_of(table: &[f64], value: f64) -> f64 {
    let above = table.partition_point(|&entry| entry <= value);
    if above == 0 || above == table.len() {
        return above.saturating_sub(1) as f64;
    }
    let (low, high) = (table[above - 1], table[above]);
    (above - 1) as f64 + if high.is_finite() { (value - low) / (high - low) } else { 0.0 }
}
