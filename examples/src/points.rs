//! Points of the plane: two clouds of them, both ends of the toys' flows, and how these are paired.

use burn::prelude::*;
use canvas_core::{generator, seed_for};
use clap::ValueEnum;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use serde::Serialize;
use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt;

/// A point of the plane.
pub type Point = [f64; 2];

/// As a network reads them: `[N, 2]`.
pub fn tensor(points: &[Point], device: &Device) -> Tensor<2> {
    let values: Vec<f32> = points.iter().flatten().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(values, [points.len(), 2]), device)
}

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
