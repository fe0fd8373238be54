//! Consistency models: the same answer along a whole trajectory.

use super::{Chord, Metric};
use burn::prelude::*;
use canvas_core::{Denoiser, Level};

/// A student that says of every point of a trajectory where it ends: `weight d(f(x, t), sg f'(y, s))` for two points of a
/// [`Chord`].
///
/// `f` is a denoiser whose prediction has the boundary condition, `f(x, s) = x / alpha` at the cleanest level
/// (`canvas_sched::predict::{Consistency, Boundary}`; where that is clean, `Flow` and `Velocity` too), on any schedule: where
/// `alpha` is 1 it is the papers'. The target `f'` is an average of the student, or the student itself without gradients. The
/// chord decides whether this trains ([`Chord::of_data`]) or distils ([`Chord::of_teacher`]).
///
/// # Reference
/// Song et al., "Consistency Models", 2023, equations 7 and 10, <https://arxiv.org/abs/2303.01469>; Luo et al., "Latent Consistency
/// Models", 2023, equation 13, <https://arxiv.org/abs/2310.04378>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Consistency<M> {
    /// How far apart two answers are.
    pub metric: M,
    /// How much a chord counts.
    pub weight: ChordWeight,
}

/// How much a chord counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChordWeight {
    /// All alike: consistency distillation's.
    #[default]
    Uniform,
    /// One over its length in `sigma / alpha`, so that short ones, of little noise, count more. A chord from pure noise counts
    /// nothing on a schedule that reaches it.
    ///
    /// Song and Dhariwal, "Improved Techniques for Training Consistency Models", 2023, section 3.1,
    /// <https://arxiv.org/abs/2310.14189>.
    Length,
}

impl ChordWeight {
    /// The factor.
    pub fn at(self, from: Level, to: Level) -> f64 {
        match self {
            Self::Uniform => 1.0,
            Self::Length => 1.0 / (from.sigma / from.alpha - to.sigma / to.alpha),
        }
    }
}

impl<M> Consistency<M> {
    /// Losses `[B]`. The target has no gradient, whatever its device.
    pub fn losses<const D: usize, S: Denoiser<D>, T: Denoiser<D, Cond = S::Cond>>(
        &self,
        (student, target): (&S, &T),
        chord: &Chord<D>,
        cond: &S::Cond,
    ) -> Tensor<1>
    where
        M: Metric<D>,
    {
        let answer = student.denoise(chord.x.clone(), &chord.from, cond).x0;
        let wanted = target.denoise(chord.y.clone().inner(), &chord.to, cond).x0.inner();
        let weights: Vec<f64> =
            chord.from.iter().zip(&chord.to).map(|(&from, &to)| self.weight.at(from, to)).collect();
        let weights = TensorData::new(weights, [chord.from.len()]);
        let on = (&chord.y.device(), chord.y.dtype());
        self.metric.between(answer, wanted) * Tensor::from_data(weights, on)
    }
}
