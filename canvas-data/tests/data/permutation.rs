use canvas_data::Permutation;
use proptest::prelude::*;
use std::collections::HashMap;

fn all(key: u64, length: u64) -> Vec<u64> {
    let order = Permutation::new(key, length);
    (0..length).map(|place| order.at(place)).collect()
}

proptest! {
    #[test]
    fn every_place_is_taken_once(key: u64, length in 1u64..600) {
        let mut order = all(key, length);
        order.sort_unstable();
        prop_assert_eq!(order, (0..length).collect::<Vec<_>>());
    }

    #[test]
    fn huge_ones_stay_within(key: u64, length in 1u64..=1 << 62, place: u64) {
        let place = place % length;
        let order = Permutation::new(key, length);
        prop_assert!(order.at(place) < length);
        // Injective on a sample of neighbours.
        if place + 1 < length {
            prop_assert_ne!(order.at(place), order.at(place + 1));
        }
    }
}

/// Pearson's statistic of counts that should be equal.
fn chi_square(counts: &[u64]) -> f64 {
    let mean = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
    counts.iter().map(|&count| (count as f64 - mean).powi(2) / mean).sum()
}

/// All permutations of a few things are equally frequent. Statistics of `k` outcomes have mean `k - 1` and variance
/// `2 (k - 1)`: five standard deviations are allowed.
#[test]
fn all_orders_of_a_few_are_equally_frequent() {
    for (length, outcomes) in [(2u64, 2u64), (3, 6), (4, 24), (5, 120)] {
        let mut counts = HashMap::new();
        for key in 0..200 * outcomes {
            *counts.entry(all(key, length)).or_insert(0) += 1;
        }
        assert_eq!(counts.len() as u64, outcomes, "{length}");
        let freedom = (outcomes - 1) as f64;
        let found = chi_square(&counts.into_values().collect::<Vec<u64>>());
        assert!(found < freedom + 5.0 * (2.0 * freedom).sqrt(), "{length}: {found}");
    }
}

/// What stands at a place, and how far what stands next to it is away, is even over keys.
#[test]
fn neighbours_are_unrelated() {
    let (length, keys) = (64, 20_000);
    let (mut places, mut steps) = (vec![0; length as usize], vec![0; length as usize - 1]);
    for key in 0..keys {
        let order = Permutation::new(key, length);
        let (here, next) = (order.at(20), order.at(21));
        places[here as usize] += 1;
        steps[((next + length - here) % length) as usize - 1] += 1;
    }
    for counts in [places, steps] {
        let freedom = (counts.len() - 1) as f64;
        let found = chi_square(&counts);
        assert!(found < freedom + 5.0 * (2.0 * freedom).sqrt(), "{found}");
    }
}

/// A run is resumed by a later build: the order must not change with it. The numbers are those of a second implementation
/// of the formulas.
#[test]
fn an_order_is_a_constant_of_its_key() {
    assert_eq!(all(7, 10), [6, 7, 8, 9, 1, 4, 2, 5, 3, 0]);
    assert_eq!(Permutation::new(7, 1 << 40).at(12_345), 446_603_290_306);
}

#[test]
#[should_panic(expected = "place 5 of a permutation of 5")]
fn a_place_beyond_the_end_is_refused() {
    Permutation::new(1, 5).at(5);
}
