use crate::close;
use burn::prelude::*;
use canvas_core::{Backbone, Denoiser, Level, Preconditioned, Prediction, Unconditional, mix};
use canvas_sched::by_name::{self, PREDICTIONS};
use canvas_sched::predict::{Edm, Epsilon, Flow, Sample, Velocity};

fn all() -> Vec<Box<dyn Prediction>> {
    PREDICTIONS.iter().map(|name| by_name::prediction(name).unwrap()).collect()
}

/// Levels on and off every schedule, deterministic but irregular.
fn levels() -> Vec<Level> {
    let part = |i: u32, step: f64| (f64::from(i) * step).fract();
    (1..200)
        .map(|i| Level {
            time: part(i, 0.618),
            alpha: 1e-3 + 2.0 * part(i, 0.7548),
            sigma: 100.0 * part(i, 0.5698).powi(4) + 1e-3,
        })
        .collect()
}

#[test]
fn coefficients_undo_the_target() {
    for prediction in all() {
        for level in levels() {
            let c = prediction.coefficients(level);
            let (signal, noise) = prediction.target(level);
            // skip * (alpha x0 + sigma eps) + out * (signal x0 + noise eps) must be x0.
            let scale = 1.0 + c.out.abs() * (signal.abs() + noise.abs());
            close(c.skip * level.alpha + c.out * signal, 1.0, 1e-12 * scale);
            close(c.skip * level.sigma + c.out * noise, 0.0, 1e-12 * scale);
        }
    }
}

#[test]
fn targets_are_the_papers() {
    let level = Level { time: 0.3, alpha: 0.6, sigma: 0.8 };
    assert_eq!(Epsilon.target(level), (0.0, 1.0));
    assert_eq!(Sample.target(level), (1.0, 0.0));
    assert_eq!(Flow.target(level), (-1.0, 1.0));
    let (signal, noise) = Velocity.target(level);
    close(signal, -0.8, 1e-12);
    close(noise, 0.6, 1e-12);
    // EDM, Table 1, at sigma = 2 and sigma_data = 0.5.
    let c = Edm::default().coefficients(Level { time: 0.3, alpha: 1.0, sigma: 2.0 });
    close(c.skip, 0.25 / 4.25, 1e-12);
    close(c.out, 1.0 / 4.25f64.sqrt(), 1e-12);
    close(c.input, 1.0 / 4.25f64.sqrt(), 1e-12);
    close(c.time, 2f64.ln() / 4.0, 1e-12);
}

#[test]
fn edm_has_unit_variance_in_and_out() {
    for sigma_data in [0.5, 1.0, 3.0] {
        let prediction = Edm { sigma_data };
        for level in levels() {
            let input = prediction.coefficients(level).input;
            let (signal, noise) = prediction.target(level);
            close((input * level.alpha * sigma_data).hypot(input * level.sigma), 1.0, 1e-12);
            close((signal * sigma_data).hypot(noise), 1.0, 1e-12);
        }
    }
}

#[test]
fn both_ends_are_finite() {
    let ends = [(1.0, 0.0), (0.0, 1.0), (0.0, 80.0)];
    for prediction in all() {
        for (alpha, sigma) in ends {
            let level = Level { time: 0.5, alpha, sigma };
            let (c, (signal, noise)) = (prediction.coefficients(level), prediction.target(level));
            let all = [c.skip, c.out, c.input, c.time, signal, noise];
            assert!(all.iter().all(|value| value.is_finite()), "{prediction:?} {level:?}: {all:?}");
        }
    }
    assert_eq!(Epsilon.coefficients(Level { time: 1.0, alpha: 0.0, sigma: 1.0 }).out, 0.0);
}

/// At one signal-to-noise ratio, the scale of `x` does not matter.
#[test]
fn a_network_can_change_its_schedule() {
    let vp = Level { time: 0.5, alpha: 0.6, sigma: 0.8 };
    for factor in [0.5, 1.0 / 0.6, 4.0] {
        let scaled = Level { time: 0.5, alpha: 0.6 * factor, sigma: 0.8 * factor };
        for prediction in all() {
            let (here, there) = (prediction.coefficients(vp), prediction.coefficients(scaled));
            close(there.skip * factor, here.skip, 1e-12);
            close(there.out, here.out, 1e-12);
            close(there.input * factor, here.input, 1e-12);
            close(there.time, here.time, 1e-12);
        }
    }
}

/// Answers with a stored tensor.
struct Says(Tensor<2>);

impl Backbone<2> for Says {
    type Cond = Unconditional;
    fn forward(&self, _x: Tensor<2>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        self.0.clone()
    }
}

/// Through tensors, each sample at its own level: a network that hits its target denoises exactly.
#[test]
fn a_perfect_network_denoises_each_sample_at_its_own_level() {
    let device = Device::flex();
    let x0 = Tensor::<2>::from_data([[0.5, -1.0], [0.25, 2.0], [1.5, 0.0]], &device);
    let eps = Tensor::<2>::from_data([[1.0, 0.3], [-0.7, 0.2], [0.1, -2.0]], &device);
    let at = [(1.0, 0.5), (0.6, 0.8), (0.2, 0.8)].map(|(alpha, sigma)| Level { time: sigma, alpha, sigma });
    for prediction in all() {
        let signal = canvas_core::per_sample::<2>(&at, &device, |level| prediction.target(level).0);
        let noise = canvas_core::per_sample::<2>(&at, &device, |level| prediction.target(level).1);
        let backbone = Says(x0.clone() * signal + eps.clone() * noise);
        let network = Preconditioned { backbone: &backbone, prediction: &prediction };
        let found = network.denoise(mix(x0.clone(), eps.clone(), &at), &at, &Unconditional(3)).x0;
        let off = (found - x0.clone()).abs().max().into_scalar::<f32>();
        assert!(off < 5e-6, "{prediction:?}: off by {off}");
    }
}
