//! Between which levels a student is trained, and how finely these are cut as training goes on.

use crate::LevelDistribution;
use canvas_core::{GridError, Level, NoiseSchedule, falling};
use serde::{Deserialize, Serialize};

/// The levels of a discrete trajectory, noisiest first, and how often each interval is drawn.
///
/// # Example
/// A student of four hops, its teacher with eight:
/// ```
/// use canvas_sched::{Timesteps, schedule};
/// use canvas_train::distill::Ladder;
/// let levels = Timesteps::uniform().levels(&schedule::Flow::default(), 8)?;
/// let ladder = Ladder::new(levels)?;
/// let path = ladder.block(0.3, 2); // the second hop of four
/// let sigmas: Vec<f64> = path.iter().map(|level| level.sigma).collect();
/// assert_eq!(sigmas, [0.75, 0.625, 0.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Ladder {
    levels: Vec<Level>,
    /// What part of all draws lies in the intervals before each level: from 0 to 1.
    before: Vec<f64>,
}

impl Ladder {
    /// Every interval equally often.
    ///
    /// # Errors
    /// If there are fewer than two levels, or noise rises.
    pub fn new(levels: Vec<Level>) -> Result<Self, GridError> {
        falling(&levels)?;
        let intervals = (levels.len() - 1) as f64;
        let before = (0..levels.len()).map(|i| i as f64 / intervals).collect();
        Ok(Self { levels, before })
    }

    /// An interval as often as a distribution draws levels within it; what it draws beyond the ends is left out.
    ///
    /// With [`LevelDistribution::LogNormal`] this is improved consistency training's, of mean -1.1 and deviation 2.
    ///
    /// # Panics
    /// If the distribution draws nothing between the ends.
    ///
    /// # Reference
    /// Song and Dhariwal, "Improved Techniques for Training Consistency Models", 2023, section 3.5 and table 1,
    /// <https://arxiv.org/abs/2310.14189>.
    #[must_use]
    pub fn drawn_as(mut self, distribution: &LevelDistribution, schedule: &dyn NoiseSchedule) -> Self {
        let ratio = |level: Level| level.sigma / level.alpha;
        // The part of draws with less noise than a level, by bisection on the quantile function.
        let below = |level: Level| {
            let (mut low, mut high) = (0.0, 1.0);
            for _ in 0..52 {
                let middle = 0.5 * (low + high);
                let less = ratio(distribution.level(schedule, middle)) < ratio(level);
                if less { low = middle } else { high = middle }
            }
            0.5 * (low + high)
        };
        let parts: Vec<f64> = self.levels.iter().map(|&level| below(level)).collect();
        let (most, least) = (parts[0], parts[parts.len() - 1]);
        assert!(most > least, "a distribution that draws nothing within the ladder");
        self.before = parts.iter().map(|part| (most - part) / (most - least)).collect();
        self
    }

    /// The levels, noisiest first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// A path of so many hops from any level that has them, for a draw from `[0, 1)`. Consistency models' of one; latent
    /// consistency models skip `k` by the ends of one of `k`.
    ///
    /// # Panics
    /// If the ladder is shorter.
    pub fn path(&self, draw: f64, hops: usize) -> &[Level] {
        let intervals = self.levels.len() - 1;
        assert!((1..=intervals).contains(&hops), "{hops} hops on a ladder of {intervals}");
        let start = self.interval(draw, intervals - hops + 1);
        &self.levels[start..=start + hops]
    }

    /// A path of so many hops from every `hops`-th level only: those that a student takes in one.
    ///
    /// # Panics
    /// If the ladder is not cut evenly by it.
    pub fn block(&self, draw: f64, hops: usize) -> &[Level] {
        let intervals = self.levels.len() - 1;
        assert!(hops > 0 && intervals.is_multiple_of(hops), "a ladder of {intervals} in blocks of {hops}");
        let start = self.interval(draw, intervals) / hops * hops;
        &self.levels[start..=start + hops]
    }

    /// Which of the first `count` intervals a draw is in.
    fn interval(&self, draw: f64, count: usize) -> usize {
        let place = draw * self.before[count];
        let above = self.before[1..count].partition_point(|&before| before <= place);
        above.min(count - 1)
    }
}

/// How many intervals a ladder has as training of consistency models goes on: few are learned fast, many are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Curriculum {
    /// Twice as many at equal distances of time: `min(first 2^floor(k / K'), last)`, `K' = floor(K / (log2(last / first) + 1))`. 10
    /// to 1280 in the paper.
    ///
    /// Song and Dhariwal, 2023, section 3.4 and table 1, <https://arxiv.org/abs/2310.14189>.
    Doubling {
        /// Intervals at first.
        first: usize,
        /// And at last.
        last: usize,
    },
    /// The root of a line: `ceil(sqrt(k/K ((last + 1)^2 - first^2) + first^2) - 1)`. 2 to 150 in the paper.
    ///
    /// Song et al., 2023, appendix C, <https://arxiv.org/abs/2303.01469>.
    Root {
        /// One more than the intervals at first.
        first: usize,
        /// Intervals at last.
        last: usize,
    },
}

impl Curriculum {
    /// Intervals at a step of so many, the paper's `N(k) - 1`.
    ///
    /// # Panics
    /// If `first` is 0 or more than `last`.
    pub fn intervals(self, step: u64, steps: u64) -> usize {
        let (Self::Doubling { first, last } | Self::Root { first, last }) = self;
        assert!(first > 0 && first <= last, "a curriculum from {first} to {last} intervals");
        match self {
            Self::Doubling { .. } => {
                let stages = (last as f64 / first as f64).log2() + 1.0;
                let doublings = step / ((steps as f64 / stages) as u64).max(1);
                let factor = 2f64.powf(doublings as f64);
                (first as f64 * factor).min(last as f64) as usize
            }
            Self::Root { .. } => {
                let [low, high] = [first as f64, last as f64 + 1.0].map(|x| x * x);
                let root = (step as f64 / steps as f64 * (high - low) + low).sqrt();
                ((root - 1.0).ceil() as usize).max(1)
            }
        }
    }

    /// How much of the target network's average stays in a step: `exp(first ln(start) / N)`, so that it moves more slowly where
    /// intervals are finer. `start` is 0.9 in the paper; improved training has no average, its target is the student itself.
    ///
    /// Song et al., 2023, appendix C.
    pub fn decay(self, start: f64, step: u64, steps: u64) -> f64 {
        let (Self::Doubling { first, .. } | Self::Root { first, .. }) = self;
        (first as f64 * start.ln() / (self.intervals(step, steps) + 1) as f64).exp()
    }
}
