//! Runs inside a step, for samplers around samplers.

use burn::prelude::*;
use canvas_core::{Hop, Level, Sampler, Std, Step};

/// The state a step leads to, its noise fresh.
pub(crate) fn drawn<const D: usize>(step: Step<D>, hop: &mut Hop<'_, D>) -> Tensor<D> {
    match step.std {
        Std::Same(0.0) => step.mean,
        Std::Same(std) => hop.fresh_noise(&step.mean) * std + step.mean,
        Std::Each(std) => hop.fresh_noise(&step.mean) * std + step.mean,
    }
}

/// Runs a sampler along levels without a past of its own; the last step is not drawn.
///
/// # Panics
/// If there are fewer than two levels.
pub(crate) fn run<const D: usize>(
    sampler: &impl Sampler<D>,
    levels: &[Level],
    mut x: Tensor<D>,
    hop: &mut Hop<'_, D>,
) -> Step<D> {
    let (mut past, count) = (Vec::new(), levels.len() - 1);
    for (index, pair) in levels.windows(2).enumerate() {
        let step = sampler.step(x, &mut hop.between(pair[0], pair[1]).after(&past, index, count));
        if index + 1 == count {
            return step;
        }
        past.push(step.eval.clone());
        x = drawn(step, hop);
    }
    unreachable!("{} levels are no run", levels.len())
}
