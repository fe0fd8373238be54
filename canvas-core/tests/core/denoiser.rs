use crate::{assert_near, host64, waves};
use burn::prelude::*;
use canvas_core::{
    Backbone, Coefficients, Denoiser, Level, NoiseSchedule, Preconditioned, Prediction, Process,
    Unconditional, mix,
};

/// Answers `10 x + time`, to show what it was given.
struct Echo;

impl Backbone<2> for Echo {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        assert_eq!(time.dims(), [x.dims()[0]], "a time for each sample");
        x * 10.0 + time.unsqueeze_dim::<2>(1)
    }
}

/// Nothing in particular, with every coefficient different.
#[derive(Debug)]
struct Odd;

impl Prediction for Odd {
    fn coefficients(&self, level: Level) -> Coefficients {
        Coefficients {
            skip: 0.3 * level.alpha,
            out: 0.5 + level.sigma,
            input: 2.0 / (1.0 + level.sigma),
            time: 100.0 * level.time,
        }
    }
}

const LEVELS: [Level; 2] =
    [Level { time: 0.1, alpha: 0.9, sigma: 0.3 }, Level { time: 0.8, alpha: 0.2, sigma: 1.7 }];

#[test]
fn preconditioning_applies_the_four_coefficients_of_each_samples_own_level() {
    let x = waves([2, 3], 0.0);
    let both = Preconditioned { backbone: &Echo, prediction: &Odd };
    let by_hand = |level: &dyn Fn(usize) -> Level, finish: bool| -> Vec<f64> {
        let value = |(i, x): (usize, f64)| {
            let c = Odd.coefficients(level(i / 3));
            let raw = 10.0 * c.input * x + c.time;
            if finish { c.skip * x + c.out * raw } else { raw }
        };
        host64(&x).into_iter().enumerate().map(value).collect()
    };
    let cond = Unconditional(2);
    assert_near(&both.raw(x.clone(), &LEVELS, &cond), &by_hand(&|row| LEVELS[row], false), 1e-4);
    assert_near(&both.denoise(x.clone(), &LEVELS, &cond).x0, &by_hand(&|row| LEVELS[row], true), 1e-3);
    assert_near(&both.denoise(x.clone(), &LEVELS[..1], &cond).x0, &by_hand(&|_| LEVELS[0], true), 1e-4);
}

#[test]
fn a_network_that_hits_its_target_denoises_perfectly() {
    let (x0, eps) = (waves([1, 8], 0.0), waves([1, 8], 0.5));
    for level in LEVELS {
        let ((a, b), c) = (Odd.target(level), Odd.coefficients(level));
        let target = x0.clone() * a + eps.clone() * b;
        let noised = mix(x0.clone(), eps.clone(), &[level]);
        assert_near(&(noised * c.skip + target * c.out), &host64(&x0), 1e-5);
        let boxed: Box<dyn Prediction> = Box::new(Odd);
        assert_eq!(boxed.target(level), (a, b));
    }
}

#[test]
#[should_panic(expected = "2 levels for a batch of 3")]
fn refuses_levels_that_are_not_one_per_sample() {
    let both = Preconditioned { backbone: &Echo, prediction: &Odd };
    both.denoise(waves([3, 2], 0.0), &LEVELS, &Unconditional(3));
}

#[test]
fn a_process_makes_the_same_denoiser() {
    struct Flow;
    impl NoiseSchedule for Flow {
        fn level(&self, t: f64) -> Level {
            Level { time: t, alpha: 1.0 - t, sigma: t }
        }
    }
    let process = Process { schedule: Box::new(Flow), prediction: Box::new(Odd) };
    let (x, at) = (waves([1, 3], 0.0), [process.schedule.level(0.4)]);
    let direct = Preconditioned { backbone: &Echo, prediction: &Odd };
    let expected = host64(&direct.denoise(x.clone(), &at, &Unconditional(1)).x0);
    assert_near(&process.denoiser(&Echo).denoise(x, &at, &Unconditional(1)).x0, &expected, 0.0);
}
