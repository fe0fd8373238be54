//! PNDM call by call, in diffusers' whole training steps.

use super::table::Table;
use crate::pseudo::Extrapolated;
use crate::{Pndm, WarmUp};
use burn::prelude::*;
use canvas_core::{Evaluation, GridError, Hop, Level, Sampler, Step};

/// [`Pndm`] where `T / N` is rounded down: a step goes to `t - T / N` and a half step to `t - T / N / 2`,
/// whatever the grid's next level is, and the network is told times that need not be those of the state.
pub(super) struct PndmCalls {
    pub(super) inner: Pndm,
    pub(super) table: Table,
    pub(super) end: Level,
}

impl PndmCalls {
    fn timestep(&self, level: Level) -> usize {
        (level.time * self.table.train() as f64).round() as usize
    }

    /// The level this many training steps below one.
    fn below(&self, timestep: usize, by: usize) -> Level {
        timestep.checked_sub(by).map_or(self.end, |step| self.table.step(step))
    }

    /// The first hop with two evaluations: the second is told the next entry of diffusers' list of training steps, `next`,
    /// and the hop is made again from `next + T / N`. That list has the grid's second step twice, so a run that
    /// starts at hop 1 is told the same step again, and one that starts later the step that belongs there.
    fn average<const D: usize>(&self, here: Evaluation<D>, hop: &Hop<'_, D>, stride: usize) -> Step<D> {
        let of = self.inner.of;
        let from = self.timestep(hop.from);
        let next = match hop.index {
            0 => self.timestep(hop.to),
            1 => from,
            _ => from.saturating_sub(stride),
        };
        let moved = here.carry(self.below(from, stride));
        let there = hop.evaluate(moved, self.table.step(next));
        let again = Evaluation { level: self.table.step(next + stride), ..here.clone() };
        let eps = (of.eps(&again, &here) + of.eps(&again, &there)) / 2.0;
        Step::exact(again.carry_eps(eps, self.table.step(next)), here)
    }

    fn runge_kutta<const D: usize>(&self, here: Evaluation<D>, hop: &Hop<'_, D>, stride: usize) -> Step<D> {
        let (half, next) = (stride / 2, self.timestep(hop.to));
        let (to, middle) = (self.table.step(next), self.table.step(next + half));
        let at = |x: Tensor<D>, level| self.inner.of.eps(&here, &hop.evaluate(x, level));
        let first = here.eps();
        let second = at(here.carry_eps(first.clone(), self.below(self.timestep(hop.from), half)), middle);
        let third = at(here.carry_eps(second.clone(), middle), middle);
        let fourth = at(here.carry_eps(third.clone(), to), to);
        Step::exact(here.carry_eps((first + (second + third) * 2.0 + fourth) / 6.0, to), here)
    }
}

impl<const D: usize> Sampler<D> for PndmCalls {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let stride = self.table.train() / hop.count;
        let here = hop.start(x);
        match self.inner.warm_up {
            WarmUp::Average if hop.past.is_empty() && hop.count > 1 => self.average(here, hop, stride),
            WarmUp::RungeKutta if hop.index < 3 => self.runge_kutta(here, hop, stride),
            _ => {
                let (from, to) = (hop.from, self.below(self.timestep(hop.from), stride));
                let of: Extrapolated = self.inner.of;
                Step::exact(of.adams_bashforth(4, &here, &hop.between(from, to)), here)
            }
        }
    }

    fn memory(&self) -> usize {
        3
    }

    fn check(&self, levels: &[Level]) -> Result<(), GridError> {
        Sampler::<D>::check(&self.inner, levels)
    }
}
