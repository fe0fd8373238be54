//! Gaussian data, for which everything is known in closed form.

use burn::prelude::*;
use canvas_core::{Backbone, Level, Noise, NoiseSchedule, Prediction, Unconditional};

/// Data `N(mean, std^2)`, each number on its own.
#[derive(Clone, Copy)]
pub struct Gaussian {
    pub mean: f64,
    pub std: f64,
}

pub const DATA: Gaussian = Gaussian { mean: 0.7, std: 0.4 };

impl Gaussian {
    /// `(p, q)` with `E[x0 | x] = p x + q`.
    fn posterior(self, Level { alpha, sigma, .. }: Level) -> (f64, f64) {
        let (signal, variance) = (alpha * self.std * self.std, self.marginal_std(alpha, sigma).powi(2));
        (signal / variance, self.mean * (1.0 - alpha * signal / variance))
    }

    fn marginal_std(self, alpha: f64, sigma: f64) -> f64 {
        (alpha * self.std).hypot(sigma)
    }

    /// Mean and standard deviation of `x_t`.
    pub fn marginal(self, level: Level) -> (f64, f64) {
        (level.alpha * self.mean, self.marginal_std(level.alpha, level.sigma))
    }

    pub fn denoise<const D: usize>(self, x: Tensor<D>, level: Level) -> Tensor<D> {
        let (p, q) = self.posterior(level);
        x * p + q
    }

    /// Where the probability-flow ODE carries the point that lies `z` standard deviations from the mean.
    pub fn exact(self, z: f64, level: Level) -> f64 {
        let (mean, std) = self.marginal(level);
        mean + std * z
    }
}

/// The best possible network: `E[target | x]`, from what a network sees: the scaled input and the time.
pub struct Best<'a> {
    pub data: Gaussian,
    pub schedule: &'a dyn NoiseSchedule,
    pub prediction: &'a dyn Prediction,
}

impl Best<'_> {
    /// The schedule's level that the prediction tells this time, by bisection.
    fn level(&self, told: f64) -> Level {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            let time = self.prediction.coefficients(self.schedule.level(middle)).time;
            if time < told { low = middle } else { high = middle }
        }
        self.schedule.level(high)
    }
}

impl Backbone<2> for Best<'_> {
    type Cond = Unconditional;

    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        let told: Vec<f32> = time.into_data().iter::<f32>().collect();
        assert!(told.iter().all(|&time| time == told[0]), "one level a batch here");
        let level = self.level(f64::from(told[0]));
        let x = x / self.prediction.coefficients(level).input;
        let (signal, noise) = self.prediction.target(level);
        let x0 = self.data.denoise(x.clone(), level);
        x0.clone() * signal + level.eps(x, x0) * noise
    }
}

/// No noise: the mean of every step.
pub struct Silent;

impl<const D: usize> Noise<D> for Silent {
    fn normal_like(&mut self, x: &Tensor<D>) -> Tensor<D> {
        x.zeros_like()
    }
}
