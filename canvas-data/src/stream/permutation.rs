//! A shuffled order that is a function: no list is held.

use super::key::{golden, scramble};

/// A shuffled order of `0..length`, one place at a time: another one for each key.
///
/// Swap-or-not: round `i` pairs `x` with `x' = K_i - x mod n` and takes the partner if a bit of the hash of
/// `(K_i, max(x, x'))` says so. The pairing is its own inverse, so each round is a permutation of any `n` (nothing is
/// rounded up to a power of two) and so is the whole. Two keys that differ in a bit give unrelated orders.
///
/// Memory: two words. Time: `6 max(8, log2 n)` rounds, below a microsecond for `n = 10^6`.
///
/// # Example
/// ```
/// use canvas_data::Permutation;
/// let order = Permutation::new(7, 10);
/// let mut places: Vec<u64> = (0..10).map(|place| order.at(place)).collect();
/// places.sort();
/// assert_eq!(places, (0..10).collect::<Vec<_>>());
/// ```
///
/// # Reference
/// Hoang, Morris and Rogaway 2012, "An Enciphering Scheme Based on a Card Shuffle", figure 1 (arXiv:1208.1176).
///
/// # Differs from the paper
/// The round function is a 64-bit mixer instead of a block cipher: it shuffles, it keeps no secret.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    key: u64,
    length: u64,
}

impl Permutation {
    /// Of `0..length`.
    pub fn new(key: u64, length: u64) -> Self {
        Self { key, length }
    }

    /// What stands at a place.
    ///
    /// # Panics
    /// If there are not as many places.
    pub fn at(&self, place: u64) -> u64 {
        let Self { key, length } = *self;
        assert!(place < length, "place {place} of a permutation of {length}");
        let bits = u64::from(length.ilog2()) + 1;
        (0..6 * bits.max(8)).fold(place, |x, round| {
            let round = scramble(key.wrapping_add(golden(round + 1)));
            let pivot = below(round, length);
            let partner = if x <= pivot { pivot - x } else { pivot + (length - x) };
            if scramble(round ^ x.max(partner)) >> 63 == 1 { partner } else { x }
        })
    }
}

/// A number below `length`, evenly from 64 random bits.
pub(super) fn below(random: u64, length: u64) -> u64 {
    ((u128::from(random) * u128::from(length)) >> 64) as u64
}
