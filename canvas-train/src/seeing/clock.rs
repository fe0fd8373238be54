//! Where the time of a run goes.

use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::time::Instant;

/// What a run does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Making batches.
    Data,
    /// The network and its losses.
    Forward,
    /// Gradients.
    Backward,
    /// Clipping, the update and the averages.
    Optimizer,
    /// Evaluations, samples among them.
    Evaluation,
    /// Writing checkpoints.
    Checkpoint,
    /// All else: logs, norms of layers, the loop itself.
    Other,
}

const PHASES: usize = 7;

/// Seconds by phase.
type Sums = [f64; PHASES];

/// Keeps account of a run's time: every moment belongs to one phase, the innermost that is [going on](Clock::within).
///
/// A device that queues work (a GPU) is asked and goes on later, so the time of a phase would be that of asking. Such a clock
/// waits for the device where a step begins and at the end of each phase, but only in the steps that are
/// [measured](Clock::measure), because waiting makes steps slower; the phases of a step are then measured there, and taken to be
/// the same in the steps between. [`Split::seconds`] is always the time that passed; its parts add up to no more than that where
/// nothing is scaled: on the CPU, or if every step is measured.
///
/// # Example
/// ```
/// use canvas_train::seeing::{Clock, Phase};
///
/// let clock = Clock::start(None);
/// clock.within(Phase::Forward, || clock.within(Phase::Data, || std::hint::black_box(1 + 1)));
/// let split = clock.take();
/// assert!(split.forward.unwrap() >= 0.0 && split.seconds >= split.forward.unwrap());
/// assert_eq!(split.evaluation, 0.0);
/// ```
pub struct Clock {
    wait: Option<Box<dyn Fn()>>,
    measured: Cell<bool>,
    steps: Cell<[u64; 2]>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    /// Of steps that are not measured, and of those that are.
    sums: RefCell<[Sums; 2]>,
}

/// What a [`Clock`] counted: seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// All of it.
    pub seconds: f64,
    /// Making batches. This and the next three are none if the device queues work and no step was measured.
    pub data: Option<f64>,
    /// The network and its losses; with recomputation, each time.
    pub forward: Option<f64>,
    /// Gradients.
    pub backward: Option<f64>,
    /// Clipping, update, averages.
    pub optimizer: Option<f64>,
    /// Evaluations and samples.
    pub evaluation: f64,
    /// Checkpoints.
    pub checkpoint: f64,
    /// Steps that were taken.
    pub steps: u64,
    /// Those among them whose phases were measured: all of them where the device does not queue.
    pub measured: u64,
}

impl Split {
    /// Seconds of training: all but evaluations and checkpoints.
    pub fn training(&self) -> f64 {
        self.seconds - self.evaluation - self.checkpoint
    }
}

impl Clock {
    /// Starts; `wait` is how to wait for a device that queues work (`Device::sync`), none for the CPU.
    pub fn start(wait: Option<Box<dyn Fn()>>) -> Self {
        let measured = Cell::new(wait.is_none());
        Self {
            wait,
            measured,
            steps: Cell::new([0; 2]),
            phase: Cell::new(Phase::Other),
            since: Cell::new(Instant::now()),
            sums: RefCell::default(),
        }
    }

    /// A step begins; `measured`: its phases are waited for if the device queues work, and first what is left of the step before.
    pub fn measure(&self, measured: bool) {
        if let Some(wait) = self.wait.as_ref().filter(|_| measured) {
            wait();
        }
        self.turn_to(self.phase.get());
        self.measured.set(measured || self.wait.is_none());
        let mut steps = self.steps.get();
        steps[usize::from(self.measured.get())] += 1;
        self.steps.set(steps);
    }

    /// Runs something that belongs to a phase.
    pub fn within<T>(&self, phase: Phase, run: impl FnOnce() -> T) -> T {
        let before = self.turn_to(phase);
        let answer = run();
        if let Some(wait) = self.wait.as_ref().filter(|_| self.measured.get()) {
            wait();
        }
        self.turn_to(before);
        answer
    }

    /// Everything since the start or the last call.
    pub fn take(&self) -> Split {
        self.turn_to(self.phase.get());
        let [rest, measured] = self.sums.take();
        let [between, seen] = self.steps.take();
        let scale = match (between, seen) {
            (0, _) => Some(1.0),
            (_, 0) => None,
            _ => Some((between + seen) as f64 / seen as f64),
        };
        let step = |phase: Phase| scale.map(|scale| scale * measured[phase as usize]);
        let all = |phase: Phase| rest[phase as usize] + measured[phase as usize];
        Split {
            seconds: rest.iter().chain(&measured).sum(),
            data: step(Phase::Data),
            forward: step(Phase::Forward),
            backward: step(Phase::Backward),
            optimizer: step(Phase::Optimizer),
            evaluation: all(Phase::Evaluation),
            checkpoint: all(Phase::Checkpoint),
            steps: between + seen,
            measured: seen,
        }
    }

    /// Counts the time until now, and says what it was.
    fn turn_to(&self, phase: Phase) -> Phase {
        let (before, now) = (self.phase.replace(phase), Instant::now());
        let passed = now.saturating_duration_since(self.since.replace(now));
        self.sums.borrow_mut()[usize::from(self.measured.get())][before as usize] += passed.as_secs_f64();
        before
    }
}
