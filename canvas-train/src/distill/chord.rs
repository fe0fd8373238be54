//! Two points of a trajectory: what most ways of distilling regress on.

use super::ode::{Solver, carry, column};
use crate::Noised;
use burn::prelude::*;
use canvas_core::{Denoiser, Level, mix};

/// Two points of one trajectory of the probability-flow ODE, the noisier one first.
///
/// A consistency model is asked to say the same of both; a student of progressive distillation, or within a window of PeRFlow,
/// to go from one to the other in one hop. Where the second point comes from is another matter: of data, or of a teacher,
/// guided or not.
#[derive(Clone, Debug)]
pub struct Chord<const D: usize> {
    /// The state with more noise, `[B, C, ..]`: what the student sees.
    pub x: Tensor<D>,
    /// Its levels, one a sample.
    pub from: Vec<Level>,
    /// The state with less noise, `[B, C, ..]`, without gradients.
    pub y: Tensor<D>,
    /// Its levels, one a sample.
    pub to: Vec<Level>,
}

impl<const D: usize> Chord<D> {
    /// The same data with the same noise, less of it: needs no teacher. On average over what a state can have been made of this is
    /// a step of Euler's along the trajectory.
    ///
    /// # Panics
    /// If there are not as many levels as samples.
    ///
    /// # Reference
    /// Song et al., "Consistency Models", 2023, equation 9 and theorem 2, <https://arxiv.org/abs/2303.01469>.
    pub fn of_data(noised: &Noised<D>, to: Vec<Level>) -> Self {
        assert_eq!(to.len(), noised.at.len(), "levels of a batch");
        let y = mix(noised.x0.clone().inner(), noised.eps.clone().inner(), &to);
        Self { x: noised.x.clone(), from: noised.at.clone(), y, to }
    }

    /// From a state along a teacher's trajectory: each sample on a path of its own, which begins at its level. A step of the
    /// solver from each level of a path to the next.
    ///
    /// # Shapes
    /// - `x`: `[B, C, ..]`, at the first levels of `paths`: `B`, all equally long
    ///
    /// # Panics
    /// If there are not as many paths as samples, or they are not equally long, or shorter than two levels.
    pub fn of_teacher<N: Denoiser<D>>(
        (teacher, solver): (&N, Solver),
        x: Tensor<D>,
        paths: &[&[Level]],
        cond: &N::Cond,
    ) -> Self {
        let length = paths.first().map_or(0, |path| path.len());
        assert_eq!(paths.len(), x.dims()[0], "paths of a batch");
        let lengths: Vec<usize> = paths.iter().map(|path| path.len()).collect();
        let alike = length > 1 && lengths.iter().all(|&other| other == length);
        assert!(alike, "paths of {lengths:?} levels: two or more, and all alike");
        let at = |i: usize| -> Vec<Level> { paths.iter().map(|path| path[i]).collect() };
        let solve = |y, i| solver.step(teacher, y, (&at(i), &at(i + 1)), cond);
        let y = (0..length - 1).fold(x.clone().inner(), solve);
        Self { x, from: at(0), y, to: at(length - 1) }
    }

    /// What the clean estimate at [`x`](Self::x) must be for one hop of DDIM to lead to [`y`](Self::y):
    /// `(y - (s'/s) x) / (a' - a s'/s)`, and at its end, clean data, `y` itself.
    ///
    /// In f32 the difference loses what `x` and `y` share: of a hop of a thousandth of the noise three digits.
    ///
    /// # Panics
    /// If the two levels of a sample have the same `sigma / alpha`.
    ///
    /// # Reference
    /// Salimans and Ho, "Progressive Distillation", 2022, algorithm 2 and appendix G, <https://arxiv.org/abs/2202.00512>.
    pub fn clean(&self) -> Tensor<D> {
        let ratio = |from: Level, to: Level| to.sigma / from.sigma;
        let part = |from: Level, to: Level| to.alpha - from.alpha * ratio(from, to);
        let flat = self.from.iter().zip(&self.to).find(|&(&from, &to)| part(from, to) <= 0.0);
        if let Some((from, to)) = flat {
            panic!("a chord from {from:?} to {to:?}, which is no less noisy, has no direction");
        }
        let each = |f: &dyn Fn(Level, Level) -> f64| column(&self.y, (&self.from, &self.to), f);
        (self.y.clone() - self.x.clone().inner() * each(&ratio)) / each(&part)
    }

    /// The student's batch: it sees [`x`](Self::x), and is to say what leads to [`y`](Self::y) in one hop. Any objective, of any
    /// prediction and weighting, takes it: progressive distillation.
    ///
    /// # Panics
    /// As [`clean`](Self::clean).
    pub fn noised(&self) -> Noised<D> {
        Noised::of_state(self.x.clone(), self.clean(), self.from.clone())
    }

    /// The same from a point between: the chord's straight line (straight in rectified flow's variables) at levels within
    /// it, one a sample. A flow that is straight in each of a few windows: PeRFlow, with chords from the
    /// [blocks](super::Ladder::block) of a ladder.
    ///
    /// # Panics
    /// As [`clean`](Self::clean), or if there are not as many levels as samples.
    ///
    /// # Reference
    /// Yan et al., "PeRFlow: Piecewise Rectified Flow", 2024, equation 5, <https://arxiv.org/abs/2405.07510>.
    pub fn within(&self, at: Vec<Level>) -> Noised<D> {
        let clean = self.clean();
        let x = carry(&clean.clone().into(), &self.x, (&self.from, &at));
        Noised::of_state(x, clean, at)
    }
}
