//! Two clouds of the plane, both ends of the toys' flows: how their points are paired, and how far two clouds of points are from each other.

use anyhow::Result;
use canvas_core::{generator, seed_for};
use clap::ValueEnum;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt;

/// A point of the plane.
pub type Point = [f64; 2];

/// Which point of the noise goes to which point of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Pairs {
    /// Whichever: flow matching.
    Random,
    /// So that all ways of a group together are shortest: minibatch optimal transport.
    Shortest,
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "flow matching",
            Self::Shortest => "with optimal transport",
        })
    }
}

/// Eight normal distributions on a circle of radius 5.
///
/// Their variance is the root of 0.1, as in the published code, whose matrix of standard deviations is taken for one of variances.
pub fn eight_gaussians(seed: u64, group: u64, count: usize) -> Vec<Point> {
    const CENTRES: [Point; 8] = [
        [1.0, 0.0],
        [-1.0, 0.0],
        [0.0, 1.0],
        [0.0, -1.0],
        [FRAC_1_SQRT_2, FRAC_1_SQRT_2],
        [FRAC_1_SQRT_2, -FRAC_1_SQRT_2],
        [-FRAC_1_SQRT_2, FRAC_1_SQRT_2],
        [-FRAC_1_SQRT_2, -FRAC_1_SQRT_2],
    ];
    let mut generator = generator(seed_for(seed, "gaussians"), group, 0);
    let std = 0.1f64.sqrt().sqrt();
    let mut point = || {
        let centre = CENTRES[generator.random_range(0..8)];
        centre.map(|x| 5.0 * x + std * normal(&mut generator))
    };
    (0..count).map(|_| point()).collect()
}

fn normal(generator: &mut impl Rng) -> f64 {
    StandardNormal.sample(generator)
}

/// Two half circles of radius 3 in each other, points evenly along them and moved up and right by up to 0.6: `generate_moons` of
/// torchdyn, three times as large.
pub fn moons(seed: u64, group: u64, count: usize) -> Vec<Point> {
    let mut generator = generator(seed_for(seed, "moons"), group, 0);
    let outer = count / 2;
    let angle = |i: usize, of: usize| PI * i as f64 / (of.max(2) - 1) as f64;
    let place = |i: usize| {
        if i < outer {
            let (sin, cos) = angle(i, outer).sin_cos();
            [cos, sin]
        } else {
            let (sin, cos) = angle(i - outer, count - outer).sin_cos();
            [1.0 - cos, 0.5 - sin]
        }
    };
    let mut points: Vec<Point> = (0..count)
        .map(|i| {
            let moved = 0.2 * generator.random::<f64>();
            place(i).map(|x| 3.0 * (x + moved) - 1.0)
        })
        .collect();
    // In no order: a group is cut into batches.
    rand::seq::SliceRandom::shuffle(&mut points[..], &mut generator);
    points
}

/// Of each point of `from`, the place of its partner in `to`, such that the squares of all distances together are least; and their
/// mean, the squared 2-Wasserstein distance of the two clouds.
///
/// Shortest augmenting paths: a point after the other gets a partner, by the path of changes that costs least. The crate `lapjv` has
/// the same, and takes eight seconds for 2,000 points where this takes three.
///
/// Crouse, "On Implementing 2D Rectangular Assignment Algorithms", 2016, algorithm of section II.
///
/// # Errors
/// If a coordinate is not finite.
///
/// # Panics
/// If there are not as many points in both.
pub fn shortest(from: &[Point], to: &[Point]) -> Result<(Vec<usize>, f64)> {
    assert_eq!(from.len(), to.len(), "points of two clouds");
    anyhow::ensure!(from.iter().chain(to).flatten().all(|x| x.is_finite()), "points that are not finite");
    const NONE: usize = usize::MAX;
    let count = from.len();
    let square = |i: usize, j: usize| (from[i][0] - to[j][0]).powi(2) + (from[i][1] - to[j][1]).powi(2);
    // What each point pays of the costs of its pairs.
    let (mut rows, mut columns) = (vec![0.0; count], vec![0.0; count]);
    let (mut of_row, mut of_column) = (vec![NONE; count], vec![NONE; count]);
    let (mut cost, mut way) = (vec![0.0; count], vec![NONE; count]);
    for start in 0..count {
        cost.fill(f64::INFINITY);
        let (mut left, mut seen) = (Vec::from_iter(0..count), Vec::new());
        let (mut row, mut least) = (start, 0.0);
        let end = loop {
            let mut nearest = 0;
            for (place, &column) in left.iter().enumerate() {
                let through = least + square(row, column) - rows[row] - columns[column];
                if through < cost[column] {
                    (cost[column], way[column]) = (through, row);
                }
                let best = cost[left[nearest]];
                // Of equals one that ends the path.
                if cost[column] < best || cost[column] == best && of_column[column] == NONE {
                    nearest = place;
                }
            }
            let column = left.swap_remove(nearest);
            least = cost[column];
            match of_column[column] {
                NONE => break column,
                other => {
                    seen.push((column, other));
                    row = other;
                }
            }
        };
        rows[start] += least;
        for (column, other) in seen {
            rows[other] += least - cost[column];
            columns[column] -= least - cost[column];
        }
        // Every pair along the path is changed.
        let mut column = end;
        loop {
            let row = way[column];
            of_column[column] = row;
            std::mem::swap(&mut of_row[row], &mut column);
            if row == start {
                break;
            }
        }
    }
    let total: f64 = of_row.iter().enumerate().map(|(i, &j)| square(i, j)).sum();
    Ok((of_row, total / count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Equal clouds are at no distance, moved ones at that of the move, whatever the order.
    #[test]
    fn distances_of_known_clouds() {
        let cloud = moons(0, 0, 64);
        let mut other: Vec<Point> = cloud.iter().map(|[x, y]| [x + 3.0, y - 4.0]).collect();
        other.reverse();
        assert!(shortest(&cloud, &cloud).unwrap().1 < 1e-12);
        let (partners, distance) = shortest(&cloud, &other).unwrap();
        assert!((distance - 25.0).abs() < 1e-9, "{distance}");
        assert!(partners.iter().enumerate().all(|(i, &partner)| partner == 63 - i));
        assert!(shortest(&[[f64::NAN, 0.0]], &[[0.0, 0.0]]).is_err());
    }

    /// By all 720 ways of pairing six points.
    #[test]
    fn pairs_are_the_best_of_all() {
        let (from, to) = (eight_gaussians(1, 0, 6), moons(1, 0, 6));
        let square = |i: usize, j: usize| (0..2).map(|k| (from[i][k] - to[j][k]).powi(2)).sum::<f64>();
        fn best(row: usize, used: &mut Vec<usize>, square: &dyn Fn(usize, usize) -> f64) -> f64 {
            if row == 6 {
                return 0.0;
            }
            let mut least = f64::INFINITY;
            for column in 0..6 {
                if !used.contains(&column) {
                    used.push(column);
                    least = least.min(square(row, column) + best(row + 1, used, square));
                    used.pop();
                }
            }
            least
        }
        let least = best(0, &mut Vec::new(), &square) / 6.0;
        assert!((shortest(&from, &to).unwrap().1 - least).abs() < 1e-9);
    }
}
