//! The losses of training steps by noise level.

use canvas_core::Level;
use serde::{Deserialize, Serialize};

/// What a [`LossByLevel`] sorts levels by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LevelAxis {
    /// The schedule's time, usually in `[0, 1]`, 0 = data.
    Time,
    /// `ln(alpha / sigma)`, [half the log signal-to-noise ratio](Level::half_log_snr): comparable between schedules.
    HalfLogSnr,
}

impl LevelAxis {
    /// Where a level is on it.
    pub fn of(self, level: Level) -> f64 {
        match self {
            Self::Time => level.time,
            Self::HalfLogSnr => level.half_log_snr(),
        }
    }
}

/// A running table of per-sample losses by bins of their level: made of what a step has on the host already, so that a loss
/// curve by level costs no extra forward pass.
///
/// A loss averaged over all levels hides where a model learns: at high noise it falls for a day, at low noise for a month.
/// Unlike a [held-out loss](super::HeldOut) it is of images that were trained on, with new noise each time.
///
/// It is saved with a checkpoint (by serde, exactly), so that the table of a resumed run goes on.
///
/// # Example
/// ```
/// use canvas_core::Level;
/// use canvas_train::seeing::{LevelAxis, LossByLevel};
///
/// let mut table = LossByLevel::new(LevelAxis::Time, [0.0, 1.0], 4);
/// let at = |time: f64| Level { time, alpha: 1.0 - time, sigma: time };
/// table.add(&[at(0.1), at(0.2), at(0.9)], &[1.0, 3.0, 5.0]);
/// let row = table.take(3);
/// assert_eq!(row.losses, [Some(2.0), None, None, Some(5.0)]);
/// assert_eq!(row.counts, [2, 0, 0, 1]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossByLevel {
    axis: LevelAxis,
    range: [f64; 2],
    sums: Vec<f64>,
    counts: Vec<u64>,
}

/// A row of a log of losses by level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelRow {
    /// Images trained on, at the end of the interval.
    pub images: u64,
    /// What the bins are along.
    pub axis: LevelAxis,
    /// Ends of the bins, one more than there are bins. The outer ones hold what lies beyond, too.
    pub edges: Vec<f64>,
    /// Mean loss of the images in each bin since the row before; none where there were no images.
    pub losses: Vec<Option<f64>>,
    /// How many images they were.
    pub counts: Vec<u64>,
}

impl LossByLevel {
    /// Without losses, `bins` bins of one width over `range`.
    ///
    /// # Panics
    /// If there are no bins, or the range is empty or not finite.
    pub fn new(axis: LevelAxis, range: [f64; 2], bins: usize) -> Self {
        let [from, to] = range;
        assert!(bins > 0, "a table of losses has bins");
        assert!(from < to && (to - from).is_finite(), "levels from {from} to {to}");
        Self { axis, range, sums: vec![0.0; bins], counts: vec![0; bins] }
    }

    /// Adds images: their levels and losses. Levels beyond the range count in the outer bins.
    ///
    /// # Panics
    /// If there are not as many levels as losses.
    pub fn add(&mut self, levels: &[Level], losses: &[f64]) {
        assert_eq!(levels.len(), losses.len(), "levels, and losses");
        let [from, to] = self.range;
        let bins = self.sums.len();
        for (level, loss) in levels.iter().zip(losses) {
            let part = (self.axis.of(*level) - from) / (to - from);
            // `as` takes what is below 0, minus infinity included, to 0.
            let bin = ((part * bins as f64) as usize).min(bins - 1);
            self.sums[bin] += loss;
            self.counts[bin] += 1;
        }
    }

    /// The means so far, after `images` images of the run; the table is empty then.
    pub fn take(&mut self, images: u64) -> LevelRow {
        let [from, to] = self.range;
        let bins = self.sums.len();
        let empty = Self::new(self.axis, self.range, bins);
        let Self { axis, sums, counts, .. } = std::mem::replace(self, empty);
        let mean = |(sum, &count): (f64, &u64)| (count > 0).then(|| sum / count as f64);
        LevelRow {
            images,
            axis,
            edges: (0..=bins).map(|edge| from + (to - from) * edge as f64 / bins as f64).collect(),
            losses: sums.into_iter().zip(&counts).map(mean).collect(),
            counts,
        }
    }

    /// Whether it is of the same bins as another, and so goes on where that stopped.
    pub fn fits(&self, other: &Self) -> bool {
        (self.axis, self.range, self.sums.len()) == (other.axis, other.range, other.sums.len())
    }
}
