//! Named activations: looked at, replaced or skipped by name, without a change to the network.
//!
//! Networks name their intermediate results with [`tap`], their parts with [`scope`] and [`part`], and the parts that
//! can be left out with [`block`]. All of them cost one look at a flag until a hook or a search is on. Names are paths:
//! `blocks.3.attention.map` is the attention map, after the softmax, of the self-attention of block 3, `blocks.3.input`
//! what comes into that block and `blocks.3` what it gives.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::trace::{self, Hook, Tapped};
//! use std::rc::Rc;
//!
//! fn network(mut x: Tensor<1>) -> Tensor<1> {
//!     for i in 0..2 {
//!         x = trace::block(|| format!("blocks.{i}"), x, |x| trace::tap(|| "double".into(), x * 2.0) + 1.0);
//!     }
//!     x
//! }
//!
//! /// Replaces what one block doubles by zeros.
//! struct Zero;
//! impl Hook for Zero {
//!     fn tap(&self, tapped: &mut Tapped<'_>) {
//!         if tapped.name() == "blocks.1.double"
//!             && let Some(x) = tapped.get::<1>()
//!         {
//!             tapped.set(x.zeros_like());
//!         }
//!     }
//! }
//!
//! let x = Tensor::<1>::ones([1], &Device::flex());
//! assert_eq!(network(x.clone()).into_scalar::<f32>(), 7.0);
//! assert_eq!(trace::with_hook(Rc::new(Zero), || network(x.clone())).into_scalar::<f32>(), 1.0);
//! let names = trace::names(|| drop(network(x)));
//! assert_eq!(names[..3], ["blocks.0.input", "blocks.0.double", "blocks.0"]);
//! assert_eq!(names[3..], ["blocks.1.input", "blocks.1.double", "blocks.1"]);
//! ```

mod kept;
mod perturb;
pub(crate) mod route;
mod streams;

pub use kept::Kept;
pub use perturb::{IdentityMaps, Perturbation, SkippedBlocks};
pub use route::{Route, needs_all_tokens};
pub use streams::Streams;
pub(crate) use streams::{Flat, sealed};

use crate::recompute;
use burn::prelude::*;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

thread_local! {
    /// Hooks, searches and recomputations that are on. While there are none, nothing else here is touched.
    static ON: Cell<usize> = const { Cell::new(0) };
    /// Innermost last.
    static HOOKS: RefCell<Vec<Rc<dyn Hook>>> = const { RefCell::new(Vec::new()) };
    /// The parts of the network that are running, outermost first.
    static PATH: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// `None`: no search. `Some(None)`: searching. `Some(Some(name))`: found.
    static SEARCH: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Runs its function when dropped: also when a panic passes by.
pub(crate) struct Undo<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for Undo<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Notes that a hook, a search or a [recomputation](crate::recompute) is on, until dropped.
pub(crate) fn switch_on() -> Undo<impl FnMut()> {
    ON.set(ON.get() + 1);
    Undo(|| ON.set(ON.get() - 1))
}

/// Runs `forward` with the names of its parts known, though nobody looks.
pub(crate) fn named<T>(forward: impl FnOnce() -> T) -> T {
    let _on = switch_on();
    forward()
}

/// Whether anything is on. If not, nothing else here is touched.
fn is_on() -> bool {
    ON.get() > 0
}

/// What looks at a running network, and may change it.
pub trait Hook {
    /// Called with each named activation, in the order in which they are computed.
    fn tap(&self, _tapped: &mut Tapped<'_>) {}

    /// Whether [`tap`](Self::tap) is to be called with this activation if that costs something: attention maps are the
    /// largest tensors of a network, and made block by block where no hook wants them whole.
    fn wants(&self, _name: &str) -> bool {
        true
    }

    /// Whether to leave this [`block`] out: its input is passed on as its output.
    fn skip(&self, _block: &str) -> bool {
        false
    }
}

/// A named activation in the hands of a [`Hook`].
pub struct Tapped<'a> {
    name: &'a str,
    dims: Vec<usize>,
    value: &'a mut dyn Any,
}

impl Tapped<'_> {
    /// Its full name, such as `blocks.3.attention.map`.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Its sizes.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The activation, if it has this rank.
    pub fn get<const D: usize>(&self) -> Option<Tensor<D>> {
        self.value.downcast_ref::<Tensor<D>>().cloned()
    }

    /// Puts another in its place.
    ///
    /// # Panics
    /// If it has other sizes than the activation.
    pub fn set<const D: usize>(&mut self, value: Tensor<D>) {
        let (name, found) = (self.name, value.dims());
        assert_eq!(found[..], self.dims[..], "{name} cannot be replaced by a tensor of other sizes");
        self.resize(value);
    }

    /// Puts another in its place, which may have other sizes: for what knows all that reads it.
    pub(crate) fn resize<const D: usize>(&mut self, value: Tensor<D>) {
        *self.value.downcast_mut::<Tensor<D>>().expect("the rank is that of the sizes") = value;
    }
}

/// `name` behind the names of the scopes it lies in.
pub(crate) fn path(name: String) -> String {
    PATH.with_borrow(|path| match path.is_empty() {
        true => name,
        false => format!("{}.{name}", path.join(".")),
    })
}

/// Names an activation, and passes it on: the same, or what a hook puts in its place.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::trace;
/// let found = trace::first_non_finite(|| {
///     let x = trace::tap(|| "input".into(), Tensor::<1>::zeros([3], &Device::flex()));
///     trace::tap(|| "log".into(), x.log());
/// });
/// assert_eq!(found.as_deref(), Some("log"));
/// ```
pub fn tap<const D: usize>(name: impl FnOnce() -> String, mut x: Tensor<D>) -> Tensor<D> {
    if !is_on() {
        return x;
    }
    let name = path(name());
    // A copy of the list: a hook may run something that opens another.
    for hook in HOOKS.with_borrow(Vec::clone).iter().rev() {
        let dims = x.dims().to_vec();
        hook.tap(&mut Tapped { name: &name, dims, value: &mut x });
    }
    SEARCH.with_borrow_mut(|search| {
        if let Some(found @ None) = search
            && x.clone().into_data().iter::<f32>().any(|value| !value.is_finite())
        {
            *found = Some(name);
        }
    });
    x
}

/// Whether a hook [wants](Hook::wants) the activation of this name, or a search is on. Where none does, a network may
/// compute it in another way than whole, and not tap it.
pub fn is_wanted(name: impl FnOnce() -> String) -> bool {
    if !is_on() {
        return false;
    }
    let name = path(name());
    // Every hook is asked, so that each knows all names.
    let wanting = HOOKS.with_borrow(Vec::clone).iter().filter(|hook| hook.wants(&name)).count();
    wanting > 0 || SEARCH.with_borrow(Option::is_some)
}

/// Runs a part of a network: names inside are put behind this one and a dot.
pub fn scope<T>(name: impl FnOnce() -> String, run: impl FnOnce() -> T) -> T {
    if !is_on() {
        return run();
    }
    PATH.with_borrow_mut(|path| path.push(name()));
    let _leave = Undo(|| drop(PATH.with_borrow_mut(Vec::pop)));
    run()
}

/// Runs a part of a network: a [`scope`] whose output is tapped under its name.
pub fn part<const D: usize>(name: impl Fn() -> String, run: impl FnOnce() -> Tensor<D>) -> Tensor<D> {
    let x = scope(&name, run);
    tap(name, x)
}

/// Runs a part of a network whose output is all it does: a [`part`] that may be [run again](crate::recompute).
pub fn unit<const D: usize>(name: impl Fn() -> String, run: impl FnOnce() -> Tensor<D>) -> Tensor<D> {
    if !is_on() {
        return run();
    }
    let path = path(name());
    let x = scope(&name, || recompute::unit(&path, run));
    tap(name, x)
}

/// Runs a part of a network that a hook may leave out: a [`unit()`] with an input of its output's shape.
///
/// Its input is tapped under its name and `.input`, its output under its name.
///
/// Whatever `run` leaves behind other than its output is lost where the block is left out or [run
/// again](crate::recompute): a second stream goes through the block beside the first, as a pair.
///
/// # Shapes
/// `x` and the output of `run` are alike.
pub fn block<S: Streams>(name: impl Fn() -> String, x: S, run: impl FnOnce(S) -> S) -> S {
    if !is_on() {
        return run(x);
    }
    let path = path(name());
    let x = x.tapped(&|| format!("{}.input", name()));
    let hooks = HOOKS.with_borrow(Vec::clone);
    // Every hook is asked, so that each knows all blocks.
    let mut skipped = false;
    for hook in hooks.iter().rev() {
        skipped |= hook.skip(&path);
    }
    let x = if skipped { x } else { scope(&name, || recompute::unit(&path, || run(x))) };
    x.tapped(&name)
}

/// Runs `forward` with a hook on this thread. Hooks nest: the innermost sees an activation first, and the next
/// one what it left.
///
/// Keep another `Rc` of the hook to read what it has gathered.
pub fn with_hook<T>(hook: Rc<dyn Hook>, forward: impl FnOnce() -> T) -> T {
    let _on = switch_on();
    HOOKS.with_borrow_mut(|hooks| hooks.push(hook));
    let _close = Undo(|| drop(HOOKS.with_borrow_mut(Vec::pop)));
    forward()
}

/// Runs `forward` and lists the names of all tapped activations, in the order of their computation.
pub fn names(forward: impl FnOnce()) -> Vec<String> {
    #[derive(Default)]
    struct Names(RefCell<Vec<String>>);
    impl Hook for Names {
        fn tap(&self, tapped: &mut Tapped<'_>) {
            self.0.borrow_mut().push(tapped.name.to_owned());
        }
    }
    let names = Rc::new(Names::default());
    with_hook(names.clone(), forward);
    names.0.take()
}

/// Runs `forward` and names the first tapped activation that holds a NaN or an infinity.
///
/// Inside hooks it sees what they leave.
pub fn first_non_finite(forward: impl FnOnce()) -> Option<String> {
    let _on = switch_on();
    let outer = SEARCH.replace(Some(None));
    let mut found = None;
    {
        let mut outer = Some(outer);
        let _close = Undo(|| found = SEARCH.replace(outer.take().flatten()).flatten());
        forward();
    }
    found
}
