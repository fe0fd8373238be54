//! One call of the function whose losses are differentiated.

use crate::trace::{self, Flat, Undo, sealed::Sealed};
use burn::prelude::*;
use burn::tensor::{GradientCheckpointingStrategy as Strategy, Gradients};
use std::cell::RefCell;
use std::ops::Range;

thread_local! {
    /// The pass that runs on this thread.
    static PASS: RefCell<Option<Pass>> = const { RefCell::new(None) };
}

/// What a unit has given.
pub(super) struct Kept {
    name: String,
    streams: Vec<Stream>,
}

struct Stream {
    /// Without a graph.
    value: Flat,
    /// `None` if it was made on a device without gradients, where it is a constant.
    strategy: Option<Strategy>,
    /// With respect to the value; the sum of what has been found so far.
    gradient: Option<Tensor<1>>,
}

impl Stream {
    fn keep(unit: &str, flat: Flat) -> Self {
        let tracked = flat.values.is_tracked();
        assert!(!tracked, "{unit} has a graph: the losses are not those of the model that was given");
        let strategy = flat.values.gradient_checkpointing_strategy();
        Self { value: Flat { values: flat.values.inner(), dims: flat.dims }, strategy, gradient: None }
    }

    /// The value on its device, at the start of a new graph.
    fn leaf(&self) -> Flat {
        let Flat { values, dims } = self.value.clone();
        let values = match self.strategy {
            Some(strategy) => values.autodiff().with_gradient_checkpointing_strategy(strategy),
            None => values,
        };
        Flat { values, dims }
    }

    /// Largest difference of another value, relative to the largest of this.
    fn difference(&self, other: &Flat) -> f32 {
        let (old, new) = (self.value.values.clone(), other.values.clone().inner());
        let largest = old.clone().abs().max();
        ((new - old).abs().max() / largest.clamp_min(f32::MIN_POSITIVE)).into_scalar()
    }

    /// How far it may be from itself: kernels may sum in another order the second time, a mistake is of order 1.
    fn tolerance(&self) -> f32 {
        if self.value.values.dtype().size() < 4 { 5e-2 } else { 1e-3 }
    }
}

/// One call of the function.
pub(super) struct Pass {
    pub(super) kept: Vec<Kept>,
    /// The units that run; all do in the first pass, which keeps what they give.
    running: Option<Range<usize>>,
    /// The unit that the network comes to next.
    next: usize,
    /// A unit runs: those in it are parts of it.
    inside: bool,
    /// What earlier units have given, with the numbers of unit and stream.
    leaves: Vec<(usize, usize, Tensor<1>)>,
    /// `<y_j, g_j>` of the units that run.
    products: Vec<Tensor<1>>,
}

/// What is to be done at a unit.
enum Turn {
    /// It runs as a part of what runs anyway.
    Part,
    /// It runs, and [`Pass::leave`] is told what it gave.
    Run,
    /// It does not run, and gave this.
    Kept(Vec<Flat>),
}

impl Pass {
    pub(super) fn first() -> Self {
        Self::of(Vec::new(), None)
    }

    pub(super) fn again(kept: Vec<Kept>, running: Range<usize>) -> Self {
        Self::of(kept, Some(running))
    }

    fn of(kept: Vec<Kept>, running: Option<Range<usize>>) -> Self {
        Self { kept, running, next: 0, inside: false, leaves: Vec::new(), products: Vec::new() }
    }

    /// Calls the function in this pass.
    pub(super) fn through(self, run: impl FnOnce() -> Tensor<1>) -> (Tensor<1>, Self) {
        assert!(!is_on(), "losses that are to be run again cannot be computed within others");
        let _on = trace::switch_on();
        PASS.set(Some(self));
        let mut pass = None;
        let losses = {
            let _close = Undo(|| pass = PASS.take());
            run()
        };
        let pass = pass.expect("the pass that was put there");
        let (came, units) = (pass.next, pass.kept.len());
        assert!(came == units, "the network has come to {came} blocks where it had come to {units} before");
        (losses, pass)
    }

    /// The network has come to a unit.
    fn enter(&mut self, name: &str) -> Turn {
        if self.inside {
            return Turn::Part;
        }
        let number = self.next;
        self.next += 1;
        let Some(running) = &self.running else {
            self.inside = true;
            self.kept.push(Kept { name: name.to_owned(), streams: Vec::new() });
            return Turn::Run;
        };
        let before = self.kept.get(number).map_or("its end", |kept| &kept.name);
        assert!(name == before, "the network has come to {name:?} where it had come to {before:?} before");
        if running.contains(&number) {
            self.inside = true;
            return Turn::Run;
        }
        let streams = self.kept[number].streams.iter().map(Stream::leaf);
        if number >= running.end {
            return Turn::Kept(streams.collect());
        }
        let leaf = |(stream, mut flat): (usize, Flat)| {
            if flat.values.is_autodiff() {
                flat.values = flat.values.require_grad();
                self.leaves.push((number, stream, flat.values.clone()));
            }
            flat
        };
        Turn::Kept(streams.enumerate().map(leaf).collect())
    }

    /// The unit that the network came to last has given this.
    fn leave(&mut self, flat: &[Flat]) {
        self.inside = false;
        let Kept { name, streams } = &mut self.kept[self.next - 1];
        if self.running.is_none() {
            *streams = flat.iter().map(|flat| Stream::keep(name, flat.clone())).collect();
            return;
        }
        for (kept, flat) in streams.iter_mut().zip(flat) {
            let (found, most) = (kept.difference(flat), kept.tolerance());
            // Not a number where the block gave something that is not finite, which is another's concern.
            let same = found <= most || found.is_nan();
            assert!(
                same,
                "{name} gives something else when run again: {found:.1e} of its largest value away"
            );
            if let Some(gradient) = kept.gradient.take() {
                let gradient = match kept.strategy {
                    Some(strategy) => gradient.autodiff().with_gradient_checkpointing_strategy(strategy),
                    None => gradient,
                };
                self.products.push((flat.values.clone() * gradient).sum());
            }
        }
    }

    /// What the pass differentiates, if anything depends on it.
    pub(super) fn product(&mut self) -> Option<Tensor<1>> {
        self.products.drain(..).reduce(|a, b| a + b)
    }

    /// Adds up the gradients that the pass has found for what earlier units gave.
    pub(super) fn collect(&mut self, found: &mut Gradients) {
        for (unit, stream, leaf) in self.leaves.drain(..) {
            if let Some(new) = leaf.grad_remove(found) {
                let gradient = &mut self.kept[unit].streams[stream].gradient;
                *gradient = Some(match gradient.take() {
                    Some(old) => old + new,
                    None => new,
                });
            }
        }
    }
}

/// Whether a pass runs on this thread.
pub(crate) fn is_on() -> bool {
    PASS.with_borrow(Option::is_some)
}

/// Runs a part of a network that may be run again, or gives what it gave before.
pub(crate) fn unit<S: Sealed>(name: &str, run: impl FnOnce() -> S) -> S {
    let turn = PASS.with_borrow_mut(|pass| pass.as_mut().map_or(Turn::Part, |pass| pass.enter(name)));
    match turn {
        Turn::Part => run(),
        Turn::Kept(flat) => S::whole(flat),
        Turn::Run => {
            let flat = run().flat();
            PASS.with_borrow_mut(|pass| pass.as_mut().expect("the pass of the turn").leave(&flat));
            S::whole(flat)
        }
    }
}
