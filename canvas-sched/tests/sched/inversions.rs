//! From data to noise and back, and restarts.

use crate::bumps::{self, row};
use crate::oracle::{DATA, Silent};
use burn::prelude::*;
use canvas_core::{Estimate, GridError, Level, NoiseSchedule, Run, Sampler, Seeded};
use canvas_sched::schedule::{Edm, Flow, Vp};
use canvas_sched::*;
use std::cell::Cell;

const IMAGE: [f64; 4] = [-1.2, -0.3, 0.4, 1.1];

fn run(sampler: &dyn Sampler<1>, schedule: &dyn NoiseSchedule, levels: &[Level], x: Tensor<1>) -> Tensor<1> {
    let mut noise = Silent;
    Run::new(sampler, schedule, levels, &mut noise).unwrap().sample(bumps::denoise, x)
}

/// `steps + 1` levels from clean data up to time `last`, denser where there is little noise.
fn up(schedule: &dyn NoiseSchedule, last: f64, steps: usize) -> Vec<Level> {
    let clean = Level { alpha: 1.0, sigma: 0.0, ..schedule.level(0.0) };
    let time = |i: usize| last * (i as f64 / steps as f64).powi(2);
    let mut levels: Vec<Level> = (0..=steps).map(|i| schedule.level(time(i))).collect();
    levels[0] = clean;
    levels
}

fn schedules() -> [(&'static str, Box<dyn NoiseSchedule>); 3] {
    [
        ("vp", Box::new(Vp::linear(1000))),
        ("flow", Box::new(Flow::default())),
        ("edm", Box::new(Edm { rho: 1.0, sigma_max: 5.0, sigma_min: 1e-9 })),
    ]
}

/// Inverting and sampling returns to the image, with an error of the sampler's order.
#[test]
fn there_and_back_falls_with_the_samplers_order() {
    fn case<S: Sampler<1>>(name: &str, order: f64, upwards: impl Sampler<1>, down: S) {
        for (path, schedule) in schedules() {
            let error = |steps| {
                let levels = up(&schedule, 0.9, steps);
                let noised = run(&upwards, &schedule, &levels, row(&IMAGE));
                let back: Vec<Level> = levels.iter().rev().copied().collect();
                (run(&down, &schedule, &back, noised) - row(&IMAGE)).abs().max().into_scalar::<f64>()
            };
            let errors = [50, 100, 200].map(error);
            let slope = (errors[0] / errors[2]).log2() / 2.0;
            println!("{name} on {path}: order {slope:.2} (errors {errors:?})");
            assert!(slope > order - 0.3, "{name} on {path}: order {slope:.2}, claimed {order} ({errors:?})");
        }
    }
    case("ddim", 1.0, DdimInversion, Ddim { eta: 0.0 });
    case("euler", 1.0, Inversion { inner: Euler }, Euler);
    case("heun", 2.0, Inversion { inner: Heun }, Heun);
    case("midpoint", 2.0, Inversion { inner: Midpoint }, Midpoint);
    case("dpm2", 2.0, Inversion { inner: Dpm2 }, Dpm2);
    case("dpmpp-2m", 2.0, Inversion { inner: DpmPp::two_m() }, DpmPp::two_m());
    let unipc = UniPc { finish: Finish::FULL, ..UniPc::default() };
    case("unipc", 2.0, Inversion { inner: unipc }, unipc);
    case("lms", 2.0, Inversion { inner: Lms::default() }, Lms::default());
    case("deis", 2.0, Inversion { inner: Deis::default() }, Deis::default());
}

/// The noise an inversion finds is the exact flow's.
#[test]
fn an_inversion_finds_the_exact_noise() {
    for (path, schedule) in schedules() {
        let levels = up(&schedule, 0.9, 400);
        let (image, wanted) =
            ([-1.0, 0.5].map(|z| DATA.exact(z, levels[0])), [-1.0, 0.5].map(|z| DATA.exact(z, levels[400])));
        for (name, sampler, allowed) in [
            ("ddim", Box::new(DdimInversion) as Box<dyn Sampler<1>>, 3e-2),
            ("heun", Box::new(Inversion { inner: Heun }), 1e-4),
        ] {
            let mut noise = Silent;
            let found = Run::new(&sampler, &schedule, &levels, &mut noise)
                .unwrap()
                .sample(|x, level| DATA.denoise(x, level), row(&image));
            let spread = DATA.marginal(levels[400]).1;
            let off = (found - row(&wanted)).abs().max().into_scalar::<f64>() / spread;
            println!("{name} on {path}: {off:e} from the exact noise");
            assert!(off < allowed, "{name} on {path}: {off:e}");
        }
    }
}

/// The first hop from clean data with epsilon prediction is `(a'/a) x + (s' - s a'/a) eps(x, t')`, as in
/// diffusers' `DDIMInverseScheduler`, although only clean estimates are seen.
#[test]
fn the_noise_of_a_clean_start_is_recovered() {
    let vp = Vp::linear(1000);
    let clean = vp.level(0.0);
    let levels = [clean, vp.training_step(100), vp.training_step(200)];
    let predicted = |x: Tensor<1>, level: Level| (x * 0.3 + level.time).sin();
    let denoise = |x: Tensor<1>, l: Level| (x.clone() - predicted(x, l) * l.sigma) / l.alpha;
    let mut noise = Silent;
    let found = Run::new(&DdimInversion, &vp, &levels, &mut noise).unwrap().sample(denoise, row(&IMAGE));
    let mut x = row(&IMAGE);
    for pair in levels.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let eps = predicted(x.clone(), to);
        x = (x - eps.clone() * from.sigma) * (to.alpha / from.alpha) + eps * to.sigma;
    }
    assert!((found - x).abs().max().into_scalar::<f64>() < 1e-12);
}

#[test]
fn inversions_refuse_what_they_cannot_do() {
    let flow = Flow::default();
    let level = |t: f64| flow.level(t);
    let down = [1.0, 0.5, 0.0].map(level);
    let check = |sampler: &dyn Sampler<1>, levels: &[Level]| sampler.check(levels);
    let heun = Inversion { inner: Heun };
    assert!(matches!(check(&heun, &down), Err(GridError::WrongWay { index: 1, inversion: true, .. })));
    assert!(matches!(check(&DdimInversion, &down), Err(GridError::WrongWay { .. })));
    assert!(matches!(check(&heun, &[level(0.0)]), Err(GridError::TooFew(1))));
    assert!(matches!(check(&heun, &[0.0, 1.0].map(level)), Err(GridError::OutOfReach { index: 1, .. })));
    assert!(matches!(
        check(&DdimInversion, &[0.0, 0.5, 1.0].map(level)),
        Err(GridError::OutOfReach { index: 2, .. })
    ));
    assert_eq!(check(&heun, &[0.0, 0.5, 1.0].map(level)), Ok(()));
    // Twice the clean level is the identity there.
    let twice = [0.0, 0.0, 0.3].map(level);
    let once = run(&heun, &flow, &twice[1..], row(&IMAGE));
    assert_eq!(run(&heun, &flow, &twice, row(&IMAGE)).into_data(), once.into_data());
}

/// A run with restarts reaches the data, spends what it says, and without intervals is its sampler.
#[test]
fn restarts_reach_the_data() {
    let (rows, columns) = (16, 256);
    let interval = Interval { low: 0.3, high: 2.0, steps: 6, times: 3 };
    let moments = |x: &Tensor<2>| {
        let values: Vec<f64> = x.to_data().iter::<f64>().collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (mean, (squares / values.len() as f64).sqrt())
    };
    for (path, schedule) in [
        ("flow", Box::new(Flow::default()) as Box<dyn NoiseSchedule>),
        ("edm", Box::new(Edm::default())),
        ("vp", Box::new(Vp::linear(1000))),
    ] {
        let levels = Timesteps::linspace(1000).levels(&schedule, 80).unwrap();
        let calls = Cell::new(0);
        let sample = |sampler: &dyn Sampler<2>| {
            calls.set(0);
            let mut noise = Seeded::new(5, Vec::from_iter(0..rows as u64));
            let (mean, std) = DATA.marginal(levels[0]);
            let x = canvas_core::Noise::normal_like(
                &mut noise,
                &Tensor::<2>::zeros([rows, columns], &Device::flex()),
            );
            let denoise = |x, level| {
                calls.set(calls.get() + 1);
                Estimate::from(DATA.denoise(x, level))
            };
            Run::new(sampler, &schedule, &levels, &mut noise).unwrap().sample(denoise, x * std + mean)
        };
        for (name, sampler, extra) in [
            (
                "heun",
                Box::new(Restart { inner: Heun, intervals: vec![interval] }) as Box<dyn Sampler<2>>,
                2 * 6 * 3,
            ),
            ("dpmpp-2m", Box::new(Restart { inner: DpmPp::two_m(), intervals: vec![interval] }), 6 * 3),
        ] {
            let (mean, std) = moments(&sample(&sampler));
            println!("restart {name} on {path}: {mean:.4} {std:.4}, {} calls", calls.get());
            let (mean, std) = (mean - DATA.mean, std - DATA.std);
            assert!(mean.abs() < 0.02 && std.abs() < 0.02, "{name} on {path}: {mean} {std}");
            let plain = if name == "heun" { 159 } else { 80 };
            assert_eq!(calls.get(), plain + extra);
        }
        let idle = sample(&Restart { inner: Heun, intervals: vec![] });
        assert_eq!(idle.into_data(), sample(&Heun).into_data());
    }
}
