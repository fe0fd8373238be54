//! T5's buckets of distances between tokens.

/// The bucket of each pair of tokens: rows are those that look, columns those that are looked at.
pub(super) fn square(length: usize, buckets: usize, distance: usize) -> Vec<i64> {
    let ahead: Vec<i64> = (0..length).map(|gap| bucket(gap, buckets, distance)).collect();
    let pair = |own: usize, other: usize| {
        let gap = ahead[own.abs_diff(other)];
        if other > own { gap + (buckets / 2) as i64 } else { gap }
    };
    (0..length).flat_map(|own| (0..length).map(move |other| pair(own, other))).collect()
}

/// The bucket of a gap, of those that are for one direction, which are half of all: half of these are for small gaps,
/// each its own; the others grow geometrically up to `distance`; all beyond it are in the last.
///
/// In f32, as the models were trained: where a bucket ends at a whole gap, rounding decides.
fn bucket(gap: usize, buckets: usize, distance: usize) -> i64 {
    let own = buckets / 2;
    let exact = own / 2;
    if gap < exact {
        return gap as i64;
    }
    let span = (distance as f64 / exact as f64).ln() as f32;
    let far = (gap as f32 / exact as f32).ln() / span * (own - exact) as f32;
    (exact + far as usize).min(own - 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where buckets begin, of transformers' `_relative_position_bucket` (torch 2.15).
    #[test]
    fn buckets_begin_where_those_of_transformers_do() {
        for (buckets, distance, begins) in [
            (32, 128, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91][..]),
            (8, 128, &[0, 1, 2, 16]),
            (8, 20, &[0, 1, 2, 7]),
        ] {
            let all: Vec<i64> = (0..2000).map(|gap| bucket(gap, buckets, distance)).collect();
            let found: Vec<usize> =
                (0..buckets as i64 / 2).map(|b| all.iter().position(|&x| x == b).unwrap()).collect();
            assert_eq!(found, begins);
            assert!(all.is_sorted());
        }
    }

    #[test]
    fn tokens_ahead_have_other_buckets() {
        assert_eq!(square(3, 8, 20), [0, 5, 6, 1, 0, 5, 2, 1, 0]);
    }
}
