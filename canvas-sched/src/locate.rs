//! From a level back to where it lies on its schedule.

use canvas_core::{Level, NoiseSchedule};

fn bisect(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0f64, 1.0f64);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if below(middle) { low = middle } else { high = middle }
    }
    // Both ends are times that are asked for often, and must be met exactly.
    if low == 0.0 { 0.0 } else { high }
}

/// The schedule's time in `[0, 1]` at this level's `sigma / alpha`; the level's own `time` may be another
/// number (what the network is told). Ratios beyond the ends give the ends.
pub(crate) fn time_of(schedule: &dyn NoiseSchedule, level: Level) -> f64 {
    // Crosswise, so that neither alpha = 0 nor sigma = 0 divides.
    bisect(|t| {
        let there = schedule.level(t);
        there.sigma * level.alpha < level.sigma * there.alpha
    })
}

/// The schedule's level whose told time is `time`, or an end of the schedule.
pub(crate) fn level_told(schedule: &dyn NoiseSchedule, time: f64) -> Level {
    schedule.level(bisect(|t| schedule.level(t).time < time))
}
