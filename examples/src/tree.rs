//! A tree of Gaussians in the plane, of two classes: a distribution with thin branches, whose density, score and clean estimate are
//! known exactly at every noise level.
//!
//! Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", 2024, figure 1 and appendix C,
//! <https://arxiv.org/abs/2406.02507>. The constants are those of the published experiment, and so are the random numbers of the
//! branches: NumPy's `RandomState(2)`.

use crate::points::Point;
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level, Unconditional};
use clap::ValueEnum;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use rand_mt::Mt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::f64::consts::{PI, TAU};

/// Which half of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Classes {
    /// The half that grows up and to the right.
    A,
    /// Both.
    Both,
}

/// Branches of a class: each splits in two, six times.
pub const BRANCHES: usize = (1 << DEPTH) - 1;

const DEPTH: i32 = 7;
const ORIGIN: Point = [0.0030, 0.0325];
const SCALE: Point = [1.3136, 1.3844];
/// Gaussians of a branch, and where along it they begin and end.
const ALONG: usize = 8;
const ENDS: [f64; 2] = [0.07, 0.93];

/// One Gaussian, by the axes of its covariance.
#[derive(Clone, Copy, Debug)]
struct Part {
    weight: f64,
    mean: Point,
    axis: Point,
    variances: [f64; 2],
}

/// What there is to know of a point: the logarithm of the density, its gradient, and which Gaussian most likely made it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// `ln p(x; sigma)`.
    pub log_density: f64,
    /// Its gradient.
    pub score: Point,
    /// Number of the likeliest Gaussian.
    part: usize,
}

/// A mixture of Gaussians along the branches.
#[derive(Clone, Debug)]
pub struct Tree {
    parts: Vec<Part>,
    sums: Vec<f64>,
}

impl Tree {
    /// The published tree, or half of it.
    pub fn new(classes: Classes) -> Self {
        let mut grow = Grow { numbers: Legacy { mt: Mt::new(2), spare: None }, parts: Vec::new() };
        // Both halves take their random numbers from one stream.
        for angle in [0.25 * PI, 1.25 * PI] {
            grow.branch(0, ORIGIN, angle);
        }
        let mut parts = grow.parts;
        if classes == Classes::A {
            parts.truncate(BRANCHES * ALONG);
        }
        let total: f64 = parts.iter().map(|part| part.weight).sum();
        parts.iter_mut().for_each(|part| part.weight /= total);
        let sums = parts.iter().scan(0.0, |sum, part| {
            *sum += part.weight;
            Some(*sum)
        });
        Self { sums: sums.collect(), parts }
    }

    /// The density, its slope and the likeliest Gaussian at a point to which noise of this deviation was added.
    pub fn known(&self, [x, y]: Point, sigma: f64) -> Known {
        // Beyond this many units of a logarithm a Gaussian no longer changes a sum in 64 bits.
        const NOTHING: f64 = 50.0;
        let variance = sigma * sigma;
        let (mut least, mut best, mut part) = (f64::INFINITY, 0.0, 0);
        let (mut sum, mut slope) = (0.0, [0.0; 2]);
        for (number, Part { weight, mean, axis: [c, s], variances }) in self.parts.iter().enumerate() {
            let (dx, dy) = (mean[0] - x, mean[1] - y);
            let (first, second) = (variances[0] + variance, variances[1] + variance);
            let (u, v) = (c * dx + s * dy, c * dy - s * dx);
            let (along, across) = (u / first, v / second);
            let cost = 0.5 * (u * along + v * across);
            if cost > least + NOTHING {
                continue;
            }
            if cost < least {
                // What was summed is relative to the least cost so far.
                let shrink = (cost - least).exp();
                (sum, best) = (sum * shrink, best * shrink);
                slope = slope.map(|part| part * shrink);
                least = cost;
            }
            let likely = weight / (first * second).sqrt() * (least - cost).exp();
            if likely > best {
                (best, part) = (likely, number);
            }
            sum += likely;
            slope[0] += likely * (c * along - s * across);
            slope[1] += likely * (s * along + c * across);
        }
        Known { log_density: (sum / TAU).ln() - least, score: slope.map(|part| part / sum), part }
    }

    /// All that is known of many points.
    pub fn known_of(&self, points: &[Point], sigma: f64) -> Vec<Known> {
        points.par_iter().map(|&point| self.known(point, sigma)).collect()
    }

    /// The exact `E[x_0 | x_0 + sigma eps = x]`.
    pub fn estimate(&self, x: Point, sigma: f64) -> Point {
        let score = self.known(x, sigma).score;
        [0, 1].map(|k| x[k] + sigma * sigma * score[k])
    }

    /// A point of the distribution with noise of this deviation.
    pub fn draw(&self, sigma: f64, generator: &mut impl Rng) -> Point {
        let place: f64 = generator.random();
        let part = self.parts[self.sums.partition_point(|&sum| sum <= place).min(self.parts.len() - 1)];
        let [c, s] = part.axis;
        let mut normal = |variance: f64| {
            let unit: f64 = StandardNormal.sample(generator);
            unit * (variance + sigma * sigma).sqrt()
        };
        let (u, v) = (normal(part.variances[0]), normal(part.variances[1]));
        [part.mean[0] + c * u - s * v, part.mean[1] + s * u + c * v]
    }

    /// The branch that most likely made a point without noise: a number below [`BRANCHES`], twice as many for both classes.
    pub fn branch(&self, known: &Known) -> usize {
        known.part / ALONG
    }

    /// The share of each branch.
    pub fn shares(&self) -> Vec<f64> {
        let share = |parts: &[Part]| parts.iter().map(|part| part.weight).sum();
        self.parts.chunks(ALONG).map(share).collect()
    }
}

/// The exact denoiser, computed in 64 bits.
impl Denoiser<2> for Tree {
    type Cond = Unconditional;

    /// # Panics
    /// If `at` holds neither one level nor one per point.
    fn denoise(&self, x: Tensor<2>, at: &[Level], _cond: &Unconditional) -> Estimate<2> {
        let values: Vec<f64> = x.to_data().iter::<f64>().collect();
        let points = values.as_chunks::<2>().0;
        assert!(at.len() == 1 || at.len() == points.len(), "{} levels for {} points", at.len(), points.len());
        let clean = points.par_iter().enumerate().flat_map_iter(|(row, &point)| {
            let level = at[if at.len() == 1 { 0 } else { row }];
            self.estimate(point.map(|x| x / level.alpha), level.sigma / level.alpha)
        });
        let clean: Vec<f64> = clean.collect();
        Tensor::from_data(TensorData::new(clean, x.dims()), (&x.device(), x.dtype())).into()
    }
}

/// A tree as it grows.
struct Grow {
    numbers: Legacy,
    parts: Vec<Part>,
}

impl Grow {
    fn branch(&mut self, depth: i32, from: Point, angle: f64) {
        let size = 0.8f64.powi(depth);
        let length = 0.292 * size * self.numbers.around_one();
        let (sin, cos) = angle.sin_cos();
        let at = |part: f64| [from[0] + cos * length * part, from[1] + sin * length * part];
        let across = (0.2 * size / length).powi(2);
        let side = SCALE.map(|scale| scale * length * 0.06);
        // Long along the branch, thin across, and then stretched with the whole tree.
        let covariance = [
            (cos * cos + sin * sin * across) * side[0] * side[0],
            cos * sin * (1.0 - across) * side[0] * side[1],
            (sin * sin + cos * cos * across) * side[1] * side[1],
        ];
        let weight = length * 0.5f64.powi(depth);
        for place in 0..ALONG {
            let part = ENDS[0] + (ENDS[1] - ENDS[0]) * place as f64 / (ALONG - 1) as f64;
            let [x, y] = at(part);
            self.parts.push(Part::new(weight, [x * SCALE[0], y * SCALE[1]], covariance));
        }
        for side in [1.0, -1.0] {
            let turn = side * 0.7f64.powi(depth) * self.numbers.around_one();
            if depth + 1 < DEPTH {
                self.branch(depth + 1, at(1.0), angle + turn);
            }
        }
    }
}

impl Part {
    /// From the entries xx, xy, yy of a covariance.
    fn new(weight: f64, mean: Point, [xx, xy, yy]: [f64; 3]) -> Self {
        let (sin, cos) = (0.5 * (2.0 * xy).atan2(xx - yy)).sin_cos();
        let large = 0.5 * (xx + yy) + (0.5 * (xx - yy)).hypot(xy);
        let variances = [large, (xx * yy - xy * xy) / large];
        Self { weight, mean, axis: [cos, sin], variances }
    }
}

/// Normal numbers as NumPy's `RandomState.randn` draws them: Marsaglia's polar method on a Mersenne Twister.
struct Legacy {
    mt: Mt,
    spare: Option<f64>,
}

impl Legacy {
    /// A fifth of a normal number around 1.
    fn around_one(&mut self) -> f64 {
        self.normal() * 0.2 + 1.0
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let [a, b] = [0, 1].map(|_| 2.0 * self.uniform() - 1.0);
            let square = a * a + b * b;
            if square > 0.0 && square < 1.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(factor * a);
                return factor * b;
            }
        }
    }

    /// 53 random bits.
    fn uniform(&mut self) -> f64 {
        let [high, low] = [5, 6].map(|shift| f64::from(self.mt.next_u32() >> shift));
        (high * f64::from(1 << 26) + low) / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use canvas_core::generator;

    /// The values are NumPy's: the published constants, grown by a few lines of it, with covariances inverted as matrices.
    #[test]
    fn grows_as_published() {
        let [half, whole] = [Classes::A, Classes::Both].map(Tree::new);
        assert_eq!([half.parts.len(), whole.parts.len()], [1016, 2032]);
        let last = whole.parts[2031].mean;
        assert!((last[0] + 0.493_254_795_155_796_23).abs() < 1e-13, "{last:?}");
        assert!((last[1] - 0.558_526_667_669_228_4).abs() < 1e-13, "{last:?}");
        let near = |found: Known, [log, x, y]: [f64; 3]| {
            let score = found.score;
            assert!((found.log_density - log).abs() < 1e-11, "{found:?}, {log}");
            assert!((score[0] - x).abs().max((score[1] - y).abs()) < 1e-10, "{found:?}, {x}, {y}");
        };
        let inside = [-25.618_802_253_722_972, -59.468_195_140_078_3];
        near(half.known([0.3, 0.3], 0.0), [2.069_370_529_938_407, inside[0], inside[1]]);
        near(whole.known([0.3, 0.3], 0.0), [1.329_154_925_953_006_4, inside[0], inside[1]]);
        near(
            half.known([0.9, 1.1], 0.05),
            [-3.111_658_583_204_113_7, -20.191_098_302_834_604, 3.081_256_318_135_477_3],
        );
        near(
            whole.known([-0.4, 0.2], 1.0),
            [-2.146_390_677_477_384, 0.328_812_850_110_619_6, -0.186_380_889_354_601_98],
        );
    }

    #[test]
    fn scores_are_slopes_of_densities_also_far_away() {
        let tree = Tree::new(Classes::Both);
        for (point, sigma) in [([0.3, 0.4], 0.0), ([0.1, -0.2], 0.2), ([30.0, -40.0], 0.01)] {
            let found = tree.known(point, sigma);
            for axis in 0..2 {
                let step = 1e-6;
                let at = |by: f64| {
                    let mut moved = point;
                    moved[axis] += by;
                    tree.known(moved, sigma).log_density
                };
                let slope = (at(step) - at(-step)) / (2.0 * step);
                assert!((found.score[axis] / slope - 1.0).abs() < 1e-4, "{point:?}: {found:?}, {slope}");
            }
        }
    }

    /// Of what is drawn each branch makes its share, and the density integrates to 1 by importance sampling.
    #[test]
    fn draws_are_of_the_density() {
        let tree = Tree::new(Classes::A);
        let mut generator = generator(0, 0, 0);
        let points: Vec<Point> = (0..20_000).map(|_| tree.draw(0.3, &mut generator)).collect();
        let mean = [0, 1].map(|k| points.iter().map(|point| point[k]).sum::<f64>() / 20_000.0);
        // The mixture's mean by NumPy; a deviation of the mean is 0.45 / sqrt(20000).
        assert!((mean[0] - 0.371_851).abs().max((mean[1] - 0.364_607).abs()) < 5.0 * 0.0032, "{mean:?}");
        // E_p[q / p] = 1 for a normal distribution q that is narrower than p.
        let ratio = |&[x, y]: &Point| {
            let square = ((x - 0.4).powi(2) + (y - 0.4).powi(2)) / (0.2 * 0.2);
            (-0.5 * square).exp() / (TAU * 0.2 * 0.2) / tree.known([x, y], 0.3).log_density.exp()
        };
        let total = points.iter().map(ratio).sum::<f64>() / 20_000.0;
        assert!((total - 1.0).abs() < 0.05, "{total}");
        assert!((tree.shares().iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(tree.shares().len(), BRANCHES);
    }

    #[test]
    fn the_clean_estimate_is_tweedies() {
        let tree = Tree::new(Classes::A);
        let level = Level { time: 0.5, alpha: 0.8, sigma: 0.4 };
        let x = Tensor::<2>::from_floats([[0.2, 0.3]], &Device::flex());
        let found: Vec<f64> =
            tree.denoise(x, &[level], &Unconditional(1)).x0.to_data().iter::<f64>().collect();
        let wanted = tree.estimate([0.25, 0.375], 0.5);
        assert!(
            (found[0] - wanted[0]).abs().max((found[1] - wanted[1]).abs()) < 1e-6,
            "{found:?}, {wanted:?}"
        );
    }
}
