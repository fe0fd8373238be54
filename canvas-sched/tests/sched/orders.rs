//! How fast the error falls with the number of steps, against the closed-form solution for Gaussian data.

use crate::oracle::{DATA, Silent};
use burn::prelude::*;
use canvas_core::{Level, NoiseSchedule, Run, Sampler};
use canvas_sched::schedule::{Edm, Flow, Vp};
use canvas_sched::{Churned, Ddim, Ddpm, DpmPp, Euler, Heun, Variance};

/// `steps + 1` levels evenly from time `first` to `last`, without a clean end.
pub fn even(schedule: &dyn NoiseSchedule, first: f64, last: f64, steps: usize) -> Vec<Level> {
    let time = |i: usize| first + (last - first) * i as f64 / steps as f64;
    (0..=steps).map(|i| schedule.level(time(i))).collect()
}

/// Largest distance from the exact trajectory's end, over starts within two standard deviations.
fn trajectory_error(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level]) -> f64 {
    let starts = [-2.0, -0.5, 0.0, 1.0, 2.0];
    let at = |level: Level| starts.map(|z| DATA.exact(z, level) as f32);
    let x = Tensor::<1>::from_data(at(levels[0]), &Device::flex());
    let mut noise = Silent;
    let run = Run::new(sampler, schedule, levels, &mut noise).unwrap();
    let end = run.sample(|x, level| DATA.denoise(x, level), x);
    let wanted = Tensor::<1>::from_data(at(*levels.last().unwrap()), &Device::flex());
    f64::from((end - wanted).abs().max().into_scalar::<f32>())
}

/// Mean and standard deviation at the end, exactly, for a sampler that is affine in `x` and without memory:
/// two points give the slope of the rest of the run, and each step's noise is spread by the slope after it.
fn moments(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level]) -> (f64, f64) {
    let (mean, std) = DATA.marginal(levels[0]);
    let x = Tensor::<1>::from_data([mean as f32, (mean + std) as f32], &Device::flex());
    let spread = |x: &Tensor<1>| {
        let values: Vec<f32> = x.to_data().iter::<f32>().collect();
        (f64::from(values[0]), f64::from(values[1]) - f64::from(values[0]))
    };
    let (mut slopes, mut stds) = (vec![std], Vec::new());
    let mut noise = Silent;
    let run = Run::new(sampler, schedule, levels, &mut noise).unwrap();
    let end = run.watch(|x, level| DATA.denoise(x, level), x, &mut |progress| {
        slopes.push(spread(progress.x).1);
        stds.push(progress.step.std.same());
    });
    let (mean, last) = spread(&end);
    let noise: f64 = stds.iter().zip(&slopes[1..]).map(|(std, slope)| (std * last / slope).powi(2)).sum();
    (mean, (last * last + noise).sqrt())
}

/// Slope of `log error` over `log steps`, by least squares.
pub fn order(steps: &[usize], error: impl Fn(usize) -> f64) -> (f64, Vec<f64>) {
    let errors: Vec<f64> = steps.iter().map(|&n| error(n)).collect();
    let points: Vec<(f64, f64)> =
        steps.iter().zip(&errors).map(|(&n, e)| ((n as f64).ln(), e.ln())).collect();
    let count = points.len() as f64;
    let (x, y) =
        (points.iter().map(|p| p.0).sum::<f64>() / count, points.iter().map(|p| p.1).sum::<f64>() / count);
    let rise: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    (-rise / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>(), errors)
}

#[track_caller]
fn check(what: &str, claimed: f64, steps: &[usize], error: impl Fn(usize) -> f64) {
    let (measured, errors) = order(steps, error);
    println!("order of {what}: {measured:.2} (errors {errors:?})");
    assert!(
        (measured - claimed).abs() < 0.3,
        "{what}: order {measured:.2}, claimed {claimed} (errors {errors:?})"
    );
}

/// Schedules with the times between which orders are measured.
pub fn paths() -> Vec<(&'static str, Box<dyn NoiseSchedule>, f64, f64)> {
    vec![
        ("edm", Box::new(Edm::default()), 1.0, 0.02),
        ("vp linear", Box::new(Vp::linear(1000)), 0.98, 0.02),
        ("vp cosine", Box::new(Vp::cosine(1000)), 0.98, 0.02),
        ("flow", Box::new(Flow::default()), 0.98, 0.02),
    ]
}

#[test]
fn deterministic_samplers_have_their_order() {
    let samplers: [(&str, f64, Box<dyn Sampler<1>>); 4] = [
        ("euler", 1.0, Box::new(Euler)),
        ("ddim", 1.0, Box::new(Ddim { eta: 0.0 })),
        ("heun", 2.0, Box::new(Heun)),
        ("dpmpp-2m", 2.0, Box::new(DpmPp::two_m())),
    ];
    for (path, schedule, first, last) in paths() {
        for (name, claimed, sampler) in &samplers {
            let error = |n| trajectory_error(sampler, &schedule, &even(&schedule, first, last, n));
            check(&format!("{name} on {path}"), *claimed, &[32, 64, 128], error);
        }
    }
}

/// Exactly `alpha = 0` needs no fudge, and costs Euler and Heun nothing.
#[test]
fn orders_hold_from_pure_noise() {
    for (name, claimed, sampler) in [("euler", 1.0, &Euler as &dyn Sampler<1>), ("heun", 2.0, &Heun)] {
        let error = |n| trajectory_error(sampler, &Flow::default(), &even(&Flow::default(), 1.0, 0.02, n));
        check(&format!("{name} on flow from alpha = 0"), claimed, &[32, 64, 128], error);
    }
    let two_m =
        |n| trajectory_error(&DpmPp::two_m(), &Flow::default(), &even(&Flow::default(), 1.0, 0.02, n));
    let (measured, errors) = order(&[32, 64, 128], two_m);
    println!("order of dpmpp-2m on flow from alpha = 0: {measured:.2} (errors {errors:?})");
    assert!(measured > 1.3, "{measured:.2} {errors:?}");
}

#[test]
fn ancestral_samplers_have_first_order_moments() {
    let samplers: [(&str, Box<dyn Sampler<1>>); 4] = [
        ("ddpm fixed_small", Box::new(Ddpm::default())),
        ("ddpm fixed_large", Box::new(Ddpm { variance: Variance::FixedLarge })),
        ("ddim eta 0.5", Box::new(Ddim { eta: 0.5 })),
        ("ddim eta 1", Box::new(Ddim { eta: 1.0 })),
    ];
    for (path, schedule, first, last) in paths() {
        for (name, sampler) in &samplers {
            let error = |n| {
                let levels = even(&schedule, first, last, n);
                let (mean, std) = moments(sampler, &schedule, &levels);
                let (true_mean, true_std) = DATA.marginal(levels[n]);
                (mean - true_mean).abs() + (std - true_std).abs()
            };
            check(&format!("{name} on {path}"), 1.0, &[64, 128, 256], error);
        }
    }
}

#[test]
fn a_wrapped_sampler_without_churn_is_the_sampler() {
    let (schedule, flow) = (Edm::default(), Flow::default());
    let both: [&dyn NoiseSchedule; 2] = [&schedule, &flow];
    for schedule in both {
        let levels = even(schedule, 1.0, 0.0, 12);
        let range = (0.0, f64::INFINITY);
        let idle = Churned { inner: Heun, amount: 0.0, range, noise: 1.0 };
        assert_eq!(trajectory_error(&idle, schedule, &levels), trajectory_error(&Heun, schedule, &levels));
        let never = Churned { amount: 40.0, range: (1e9, 1e10), ..idle };
        assert_eq!(trajectory_error(&never, schedule, &levels), trajectory_error(&Heun, schedule, &levels));
    }
}
