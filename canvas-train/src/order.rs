//! Which image comes when: a function of the seed and the image's number in the run.

use canvas_core::{generator, seed_for};
use rand::seq::SliceRandom;

/// An endless shuffled order over a data set: every epoch a new permutation.
///
/// It holds no state a resumed run would have to restore: position `n` of the order is a function of the
/// seed and `n`.
///
/// # Example
/// ```
/// use canvas_train::Order;
/// let order = Order::new(7, 10);
/// let mut first: Vec<usize> = order.batch(0, 10);
/// assert_eq!(order.batch(3, 4), first[3..7]);
/// first.sort();
/// assert_eq!(first, (0..10).collect::<Vec<_>>());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Order {
    seed: u64,
    length: usize,
}

impl Order {
    /// An order over `length` images.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(seed: u64, length: usize) -> Self {
        assert!(length > 0, "an order needs at least one image");
        Self { seed: seed_for(seed, "order"), length }
    }

    /// The images at positions `start..start + count`.
    pub fn batch(&self, start: u64, count: usize) -> Vec<usize> {
        let length = self.length as u64;
        let (mut epoch, mut permutation) = (u64::MAX, Vec::new());
        let mut images = Vec::with_capacity(count);
        for position in start..start + count as u64 {
            if position / length != epoch {
                epoch = position / length;
                permutation = self.epoch(epoch);
            }
            images.push(permutation[(position % length) as usize]);
        }
        images
    }

    fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut permutation: Vec<usize> = (0..self.length).collect();
        permutation.shuffle(&mut generator(self.seed, epoch, 0));
        permutation
    }
}
