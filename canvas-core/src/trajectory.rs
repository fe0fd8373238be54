//! Recorded runs, and evaluating their steps again with another network.

use crate::{Estimate, Evaluation, GridError, Hop, Level, Noise, NoiseSchedule, Run, Sampler, Std, Step};
use burn::prelude::*;
use std::cell::RefCell;

/// One step of a recorded run.
#[derive(Clone, Debug)]
pub struct Transition<const D: usize> {
    /// Which hop of the run, from 0.
    pub index: usize,
    /// Where it started.
    pub from: Level,
    /// Where it ended.
    pub to: Level,
    /// The state at the start, before any noise of the step.
    pub x: Tensor<D>,
    /// The state at the end.
    pub next: Tensor<D>,
    /// What the sampler proposed: mean, spread, and the evaluation that later steps remember.
    pub step: Step<D>,
    /// Noise drawn within the step before its evaluations (churn, Heun's noise of SiT, the first noise of
    /// DPM++ SDE), in order. The step's own last draw is not here: it is what led to `next`.
    pub draws: Vec<Tensor<D>>,
}

impl<const D: usize> Transition<D> {
    /// Log-density of the recorded next state, `[B]`, or `None` where the step was deterministic.
    ///
    /// It is the density given the noise that was drawn within the step. That noise does not depend on the
    /// network, so ratios of these are ratios of the joint densities of noise and state.
    pub fn log_prob(&self) -> Option<Tensor<1>> {
        (!self.step.std.is_zero()).then(|| self.step.log_prob(self.next.clone()))
    }
}

/// A recorded run: all that is needed to evaluate each of its steps again.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::*;
/// # struct Line;
/// # impl NoiseSchedule for Line {
/// #     fn level(&self, t: f64) -> Level {
/// #         Level { time: t, alpha: 1.0 - t, sigma: t }
/// #     }
/// # }
/// /// Jumps to the estimate and adds noise.
/// struct Jump;
/// impl<const D: usize> Sampler<D> for Jump {
///     fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
///         let here = hop.start(x);
///         Step::random(here.x0() * hop.to.alpha, hop.to.sigma, here)
///     }
/// }
///
/// let levels = [0.9, 0.5, 0.0].map(|t| Line.level(t));
/// let mut noise = Seeded::new(0, [0, 1]);
/// let old = |x: Tensor<2>, _: Level| x * 0.5;
/// let start = noise.normal_like(&Tensor::zeros([2, 3], &Device::flex()));
/// let run = Trajectory::record(&Jump, &Line, &levels, &mut noise, old, start)?;
///
/// let new = |x: Tensor<2>, _: Level| x * 0.6;
/// let step = run.replay(0, &Jump, &Line, new);
/// let recorded = &run.transitions[0];
/// let ratio = (step.log_prob(recorded.next.clone()) - recorded.log_prob().unwrap()).exp();
/// assert_eq!(ratio.dims(), [2]);
/// # Ok::<(), GridError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Trajectory<const D: usize> {
    /// The steps, first to last.
    pub transitions: Vec<Transition<D>>,
}

/// Passes noise on and keeps what was drawn.
struct Tape<'a, const D: usize> {
    source: &'a mut dyn Noise<D>,
    drawn: &'a RefCell<Vec<Tensor<D>>>,
}

impl<const D: usize> Noise<D> for Tape<'_, D> {
    fn normal_like(&mut self, x: &Tensor<D>) -> Tensor<D> {
        let z = self.source.normal_like(x);
        self.drawn.borrow_mut().push(z.clone());
        z
    }
}

/// Gives recorded noise again.
struct Playback<'a, const D: usize>(std::slice::Iter<'a, Tensor<D>>);

impl<const D: usize> Noise<D> for Playback<'_, D> {
    fn normal_like(&mut self, _x: &Tensor<D>) -> Tensor<D> {
        let next = self.0.next();
        next.cloned()
            .expect("this step asks for more noise than the recorded one drew: is it the same sampler?")
    }
}

impl<const D: usize> Trajectory<D> {
    /// Runs a sampler and keeps every step.
    ///
    /// Record on a device without autodiff, or every state keeps its graph; [`to_device`](Self::to_device) takes
    /// the run to where it is trained on.
    ///
    /// # Errors
    /// As [`Run::new`].
    pub fn record<E: Into<Estimate<D>>>(
        sampler: &dyn Sampler<D>,
        schedule: &dyn NoiseSchedule,
        levels: &[Level],
        noise: &mut dyn Noise<D>,
        denoise: impl Fn(Tensor<D>, Level) -> E,
        mut x: Tensor<D>,
    ) -> Result<Self, GridError> {
        let drawn = RefCell::new(Vec::new());
        let mut tape = Tape { source: noise, drawn: &drawn };
        let run = Run::new(sampler, schedule, levels, &mut tape)?;
        let mut transitions = Vec::new();
        run.watch(denoise, x.clone(), &mut |progress| {
            let index = progress.done - 1;
            let mut draws = drawn.take();
            if !progress.step.std.is_zero() {
                draws.pop(); // the step's own
            }
            let (next, step) = (progress.x.clone(), progress.step.clone());
            let before = std::mem::replace(&mut x, next.clone());
            let (from, to) = (levels[index], levels[index + 1]);
            transitions.push(Transition { index, from, to, x: before, next, step, draws });
        });
        Ok(Self { transitions })
    }

    /// The state at the end of the run.
    ///
    /// # Panics
    /// If there are no transitions.
    pub fn end(&self) -> Tensor<D> {
        self.transitions.last().expect("a recorded run has steps").next.clone()
    }

    /// Log-density of the whole run given its first state, `[B]`: the sum over its stochastic steps. `None` if
    /// no step was stochastic.
    pub fn log_prob(&self) -> Option<Tensor<1>> {
        self.transitions.iter().filter_map(Transition::log_prob).reduce(|sum, term| sum + term)
    }

    /// Proposes step `index` again with another denoiser, from the recorded state and noise.
    ///
    /// A multistep sampler remembers the *recorded* evaluations of earlier steps: they are taken as part of the
    /// state, and no gradient reaches them. [`replay_all`](Self::replay_all) evaluates them again as well. With
    /// the recording denoiser both give the recorded step bit for bit.
    ///
    /// # Panics
    /// If there is no such step, or the sampler asks for other noise than the recording one did.
    pub fn replay<E: Into<Estimate<D>>>(
        &self,
        index: usize,
        sampler: &dyn Sampler<D>,
        schedule: &dyn NoiseSchedule,
        denoise: impl Fn(Tensor<D>, Level) -> E,
    ) -> Step<D> {
        let past: Vec<Evaluation<D>> =
            self.transitions[..index].iter().map(|t| t.step.eval.clone()).collect();
        self.again(index, sampler, schedule, &|x, level| denoise(x, level).into(), &past)
    }

    /// Proposes every step again with another denoiser, from the recorded states and noise; a multistep sampler
    /// remembers this denoiser's own evaluations. So the sum of log-densities is the run's under this denoiser.
    ///
    /// # Panics
    /// If the sampler asks for other noise than the recording one did.
    pub fn replay_all<E: Into<Estimate<D>>>(
        &self,
        sampler: &dyn Sampler<D>,
        schedule: &dyn NoiseSchedule,
        denoise: impl Fn(Tensor<D>, Level) -> E,
    ) -> Vec<Step<D>> {
        let denoise = |x, level| denoise(x, level).into();
        let (mut past, mut steps) = (Vec::new(), Vec::new());
        for index in 0..self.transitions.len() {
            let step = self.again(index, sampler, schedule, &denoise, &past);
            past.push(step.eval.clone());
            steps.push(step);
        }
        steps
    }

    fn again(
        &self,
        index: usize,
        sampler: &dyn Sampler<D>,
        schedule: &dyn NoiseSchedule,
        denoise: &dyn Fn(Tensor<D>, Level) -> Estimate<D>,
        past: &[Evaluation<D>],
    ) -> Step<D> {
        let recorded = &self.transitions[index];
        let mut noise = Playback(recorded.draws.iter());
        let mut hop = Hop::single((recorded.from, recorded.to), schedule, denoise, &mut noise).after(
            past,
            index,
            self.transitions.len(),
        );
        sampler.step(recorded.x.clone(), &mut hop)
    }

    /// The same run on another device, without any graph: from where it was sampled to where it is trained on.
    pub fn to_device(&self, device: &Device) -> Self {
        let moved = |x: &Tensor<D>| Tensor::from_data(x.clone().into_data(), (device, x.dtype()));
        let estimate = |estimate: &Estimate<D>| Estimate {
            x0: moved(&estimate.x0),
            eps: estimate.eps.as_ref().map(moved),
            variance: estimate.variance.as_ref().map(moved),
        };
        let step = |step: &Step<D>| Step {
            mean: moved(&step.mean),
            std: match &step.std {
                Std::Same(std) => Std::Same(*std),
                Std::Each(std) => Std::Each(moved(std)),
            },
            eval: Evaluation {
                level: step.eval.level,
                x: moved(&step.eval.x),
                estimate: estimate(&step.eval.estimate),
            },
        };
        let transition = |t: &Transition<D>| Transition {
            x: moved(&t.x),
            next: moved(&t.next),
            step: step(&t.step),
            draws: t.draws.iter().map(moved).collect(),
            ..*t
        };
        Self { transitions: self.transitions.iter().map(transition).collect() }
    }
}

/// A log-density, or a difference of two, per element of the state: the mean that DDPO, Flow-GRPO and DanceGRPO
/// use where a density is a sum.
///
/// # Shapes
/// `log_prob`, output: `[B]`; `x`: `[B, ..]`, the state it is of.
pub fn per_element<const D: usize>(log_prob: Tensor<1>, x: &Tensor<D>) -> Tensor<1> {
    let count = x.shape().num_elements() / x.dims()[0];
    log_prob / count as f64
}
