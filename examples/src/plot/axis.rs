//! The axis of a plot: round marks, linear or logarithmic.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use std::ops::Range;

/// One axis: what it spans, and where it is marked with which words.
///
/// A logarithmic axis spans the logarithms to base 10; the chart itself is always linear.
pub(super) struct Axis {
    pub(super) range: Range<f64>,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// A linear axis over `range` with about `count` marks at multiples of 1, 2 or 5 times a power of ten.
    pub(super) fn linear(range: Range<f64>, count: f64) -> Self {
        let largest = range.start.abs().max(range.end.abs());
        let (unit, suffix) = match largest {
            1e15.. => (1.0, ""),
            2e6.. => (1e6, "M"),
            1e4.. => (1e3, "k"),
            _ => (1.0, ""),
        };
        let step = round_step((range.end - range.start) / count);
        let decimals = (-(step / unit).log10() - 1e-9).ceil().max(0.0) as usize;
        let label = |value: f64| match () {
            () if value == 0.0 => "0".to_owned(),
            () if largest >= 1e15 || decimals > 6 => format!("{value:.3e}"),
            () => format!("{:.decimals$}{suffix}", value / unit),
        };
        let ticks = multiples(&range, step).map(|value| (value, label(value))).collect();
        Self { range, ticks }
    }

    /// An axis over the logarithms in `range`, marked at round numbers.
    pub(super) fn logarithmic(range: Range<f64>) -> Self {
        let decades = range.end - range.start;
        if decades < 0.7 {
            let plain = Self::linear(10_f64.powf(range.start)..10_f64.powf(range.end), 6.0);
            let ticks = plain.ticks.into_iter().filter(|(value, _)| *value > 0.0);
            return Self { range, ticks: ticks.map(|(value, label)| (value.log10(), label)).collect() };
        }
        let within: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = (decades / 8.0).ceil();
        let whole = multiples(&(range.start - 1.0..range.end), every);
        let marks = whole.flat_map(|decade| within.iter().map(move |m| (decade + m.log10(), decade, m)));
        let label = |decade: f64, m: &f64| match decade {
            -4.0..=4.0 => format!("{:.*}", (-decade).max(0.0) as usize, m * 10_f64.powf(decade)),
            _ => format!("{m}e{decade}"),
        };
        let inside = marks.filter(|(at, ..)| range.contains(at));
        Self { ticks: inside.map(|(at, decade, m)| (at, label(decade, m))).collect(), range }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range.clone()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Fine lines between the marks would only distract.
        let ticks = if hint.weight().allow_light_points() { &[][..] } else { &self.ticks };
        ticks.iter().map(|tick| tick.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    /// The words at a mark; the chart asks for the marks of `key_points` only.
    fn format(value: &f64) -> String {
        format!("{value}")
    }

    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|tick| tick.0 == *value).map(|tick| tick.1.clone()).unwrap_or_default()
    }
}

/// From the smallest to the largest value; where they are (almost) one, a range of `share` of it around it.
pub(super) fn span(values: impl Iterator<Item = f64>, share: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    if high - low > 1e-9 * low.abs().max(high.abs()) {
        return low..high;
    }
    let around = if low == 0.0 || share == 0.0 { 0.5 } else { share * low.abs() };
    low - around..high + around
}

/// 1, 2 or 5 times a power of ten: the one nearest to `step` by ratio.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let apart = |round: &f64| (round / step).ln().abs();
    let rounds = [1.0, 2.0, 5.0, 10.0].map(|m| m * power);
    rounds.into_iter().min_by(|a, b| apart(a).total_cmp(&apart(b))).unwrap_or(step)
}

/// The multiples of `step` in `range`.
fn multiples(range: &Range<f64>, step: f64) -> impl Iterator<Item = f64> + use<> {
    let (first, last) = ((range.start / step - 1e-6).ceil(), (range.end / step + 1e-6).floor());
    // The sum turns -0 into 0.
    (0..=(last - first).clamp(0.0, 100.0) as u32).map(move |n| (first + f64::from(n)) * step + 0.0)
}
