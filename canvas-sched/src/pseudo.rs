//! Pseudo numerical methods: classical rules for even spacing, carried by DDIM's transfer.

use crate::multistep::{Form, Node};
use crate::numeric::{even_moments, halfway};
use burn::prelude::*;
use canvas_core::{Evaluation, Hop, Level};

/// What a pseudo numerical method extrapolates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extrapolated {
    /// The noise estimate, as in the paper.
    #[default]
    Noise,
    /// The velocity `(a eps - s x0) / n`, `n^2 = a^2 + s^2`, turned into noise where a step starts: what
    /// diffusers does with networks that predict velocity.
    Velocity,
}

impl Extrapolated {
    /// What another evaluation says the noise of `here` is.
    pub(crate) fn eps<const D: usize>(self, here: &Evaluation<D>, other: &Evaluation<D>) -> Tensor<D> {
        if self == Self::Noise {
            return other.eps();
        }
        let (from, to, size) = (other.level, here.level, |l: Level| l.alpha.hypot(l.sigma));
        let velocity = (other.eps() * from.alpha - other.x0() * from.sigma) / size(from);
        (velocity * (to.alpha * size(to)) + here.x.clone() * to.sigma) / size(to).powi(2)
    }

    /// The Adams-Bashforth rule for even spacing of up to this order, on the evaluations of the past.
    pub(crate) fn adams_bashforth<const D: usize>(
        self,
        order: usize,
        here: &Evaluation<D>,
        hop: &Hop<'_, D>,
    ) -> Tensor<D> {
        let mut past = hop.past[(hop.past.len() + 1).saturating_sub(order)..].to_vec();
        past.iter_mut().for_each(|past| past.estimate.eps = Some(self.eps(here, past)));
        let backwards = past.iter().rev().zip(1u32..);
        let nodes: Vec<Node<'_, D>> = backwards.map(|(past, back)| (-f64::from(back), past)).collect();
        Form::Noise.carry(here, hop.to, &nodes, &even_moments(1.0, nodes.len() + 1))
    }

    /// The classical Runge-Kutta rule; half steps lie halfway in the schedule's time.
    pub(crate) fn runge_kutta<const D: usize>(self, here: &Evaluation<D>, hop: &Hop<'_, D>) -> Tensor<D> {
        let (to, middle) = (hop.to, halfway(hop.schedule, hop.from, hop.to));
        let after =
            |eps: &Tensor<D>, level| self.eps(here, &hop.evaluate(here.carry_eps(eps.clone(), level), level));
        let first = here.eps();
        let second = after(&first, middle);
        let third = after(&second, middle);
        let fourth = after(&third, to);
        here.carry_eps((first + (second + third) * 2.0 + fourth) / 6.0, to)
    }
}
