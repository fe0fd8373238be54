//! What goes through a block.

use super::tap;
use burn::prelude::*;

/// What goes through a [`block`](super::block): a tensor, or two side by side, as pictures and text in a network that
/// keeps them apart.
///
/// The first is tapped under the block's name, the second under that name and `.1`; before the block, both with `.input`
/// behind the block's name.
pub trait Streams: sealed::Sealed {}

impl<const D: usize> Streams for Tensor<D> {}

impl<const D: usize, const E: usize> Streams for (Tensor<D>, Tensor<E>) {}

pub(crate) mod sealed {
    use super::Flat;

    /// How the tensors are reached, whatever their ranks.
    pub trait Sealed: Sized {
        /// Each [tapped](super::tap).
        fn tapped(self, name: &dyn Fn() -> String) -> Self;

        /// The tensors without their shapes.
        fn flat(self) -> Vec<Flat>;

        /// The inverse of [`flat`](Self::flat).
        fn whole(flat: Vec<Flat>) -> Self;
    }
}

/// A tensor of any rank: its elements in order, and its sizes.
#[derive(Clone)]
pub struct Flat {
    /// The elements.
    pub(crate) values: Tensor<1>,
    /// The sizes.
    pub(crate) dims: Vec<usize>,
}

impl Flat {
    fn of<const D: usize>(x: Tensor<D>) -> Self {
        let dims = x.dims().to_vec();
        Self { values: x.reshape([-1]), dims }
    }

    fn whole<const D: usize>(self) -> Tensor<D> {
        let dims: [usize; D] = self.dims.try_into().expect("the rank it was made from");
        self.values.reshape(dims)
    }
}

/// As many as there are streams.
fn all<const N: usize>(flat: Vec<Flat>) -> [Flat; N] {
    flat.try_into().unwrap_or_else(|flat: Vec<_>| panic!("{} streams where there were {N}", flat.len()))
}

impl<const D: usize> sealed::Sealed for Tensor<D> {
    fn tapped(self, name: &dyn Fn() -> String) -> Self {
        tap(name, self)
    }

    fn flat(self) -> Vec<Flat> {
        vec![Flat::of(self)]
    }

    fn whole(flat: Vec<Flat>) -> Self {
        let [x] = all(flat);
        x.whole()
    }
}

impl<const D: usize, const E: usize> sealed::Sealed for (Tensor<D>, Tensor<E>) {
    fn tapped(self, name: &dyn Fn() -> String) -> Self {
        (tap(name, self.0), tap(|| format!("{}.1", name()), self.1))
    }

    fn flat(self) -> Vec<Flat> {
        vec![Flat::of(self.0), Flat::of(self.1)]
    }

    fn whole(flat: Vec<Flat>) -> Self {
        let [x, y] = all(flat);
        (x.whole(), y.whole())
    }
}
