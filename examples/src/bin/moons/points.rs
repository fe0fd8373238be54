//! Both ends of the flow, how their points are paired, and how far two clouds of points are from each other.

use anyhow::{Context, Result};
use canvas_core::{generator, seed_for};
use clap::ValueEnum;
use lapjv::{Matrix, lapjv};
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
/// # Errors
/// If no pairs are found: a coordinate is not finite.
pub fn shortest(from: &[Point], to: &[Point]) -> Result<(Vec<usize>, f64)> {
    anyhow::ensure!(from.iter().chain(to).flatten().all(|x| x.is_finite()), "points that are not finite");
    let square = |[a, b]: Point, [c, d]: Point| (a - c).powi(2) + (b - d).powi(2);
    let costs = from.iter().flat_map(|&a| to.iter().map(move |&b| square(a, b))).collect();
    let costs = Matrix::from_shape_vec((from.len(), to.len()), costs)?;
    let (partners, _) = lapjv(&costs).context("no pairs")?;
    let total: f64 = partners.iter().enumerate().map(|(i, &partner)| costs[(i, partner)]).sum();
    Ok((partners, total / from.len() as f64))
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
