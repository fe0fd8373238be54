//! Consistency models of Gaussian data: exact where they are exact, and trained to it.

use crate::close;
use crate::distill::{DATA, Endpoint, Gaussian, Mean, OPTIONS, Posterior, draw, host, quantiles, schedules};
use burn::prelude::*;
use canvas_core::{Denoiser, Level, Noise, NoiseSchedule, Run, Seeded, Unconditional};
use canvas_sched::{ConsistencyModel, Final, Timesteps, predict, schedule};
use canvas_train::distill::{Chord, ChordWeight, Consistency, Ladder, PseudoHuber, Solver};
use canvas_train::{Distance, LevelDistribution, Noised};

const SQUARED: Consistency<Distance> =
    Consistency { metric: Distance::Squared, weight: ChordWeight::Uniform };

fn ladder(schedule: &dyn NoiseSchedule, least: f64, count: usize) -> Ladder {
    let level = |i: usize| schedule.level(0.98 + (least - 0.98) * i as f64 / count as f64);
    Ladder::new((0..=count).map(level).collect()).unwrap()
}

/// Both points of a true trajectory.
fn true_chord(data: Gaussian, z: &[f64], [from, to]: [&[Level]; 2], device: &Device) -> Chord<2> {
    Chord {
        x: data.points(z, from, device),
        from: from.to_vec(),
        y: data.points(z, to, &device.clone().inner()),
        to: to.to_vec(),
    }
}

/// Nothing on any schedule at the true function; else, of a mean `a`, `((a - m)(k' alpha' - k alpha))^2`, and by `a`, with the
/// target held, `2 (a - m)(k' alpha' - k alpha)(1 - k alpha)`.
#[test]
fn losses_and_gradients_are_the_closed_form() {
    let device = Device::flex().autodiff();
    for (schedule, least) in schedules() {
        let ladder = ladder(&*schedule, least, 6);
        let end = *ladder.levels().last().unwrap();
        let z = [-1.4, -0.2, 0.5, 1.1, 0.9, -0.7];
        let paths: Vec<_> = ladder.levels().windows(2).collect();
        let [from, to] = [0, 1].map(|i| paths.iter().map(|path| path[i]).collect::<Vec<_>>());
        let chord = true_chord(DATA, &z, [&from, &to], &device);
        for off in [0.0, 0.3] {
            let mean = Mean::new(DATA.mean + off, &device);
            let student = Endpoint(&mean, end);
            let losses = SQUARED.losses((&student, &student), &chord, &Unconditional(6));
            let values = host(&losses);
            let grads = losses.sum().backward();
            let (mut expected, found) = (0.0, host(&mean.value.grad(&grads).unwrap())[0]);
            for i in 0..6 {
                let part = |level: Level| student.slope(level) * level.alpha;
                let apart = off * (part(to[i]) - part(from[i]));
                close(values[i], apart * apart, 1e-6);
                expected += 2.0 * apart * (1.0 - part(from[i]));
            }
            close(found, expected, 2e-5);
        }
    }
}

/// A teacher's chord is off the true one by its solver's error alone, and the loss with it: a path in more hops has less.
#[test]
fn chords_of_a_teacher_approach_the_true_ones() {
    let (device, schedule) = (Device::flex(), schedule::Flow::default());
    let mean = Mean::new(DATA.mean, &device);
    let student = Endpoint(&mean, schedule.level(0.01));
    let from = [schedule.level(0.8); 2];
    let x = DATA.points(&[1.2, -0.6], &from, &device);
    let loss = |hops: usize, solver: Solver| {
        let ladder: Vec<Level> =
            (0..=hops).map(|i| schedule.level(0.8 - 0.4 * i as f64 / hops as f64)).collect();
        let chord =
            Chord::of_teacher((&Posterior(&mean), solver), x.clone(), &[&ladder, &ladder], &Unconditional(2));
        host(&SQUARED.losses((&student, &student), &chord, &Unconditional(2)))[0]
    };
    let [one, eight, heun] = [loss(1, Solver::Euler), loss(8, Solver::Euler), loss(8, Solver::Heun)];
    assert!(one > 1e-4 && eight < one / 40.0 && heun < eight / 100.0, "{one:e}, {eight:e}, {heun:e}");
}

/// From a mean that is 0.5 off, by teacher and by data, to the true one; and what the student then draws in one step.
#[test]
fn training_and_distillation_reach_the_true_function() {
    let schedule = schedule::Edm { sigma_min: 0.02, sigma_max: 5.0, rho: 7.0 };
    let grid = Timesteps::edm().ending(Final::Nothing).levels(&schedule, 21).unwrap();
    let ladder = Ladder::new(grid.clone())
        .unwrap()
        .drawn_as(&LevelDistribution::LogNormal { mean: -0.5, std: 1.5 }, &schedule);
    let end = grid[20];
    let device = Device::flex().autodiff();
    let truth = Mean::new(DATA.mean, &Device::flex());
    let (z, w) = (quantiles(96), quantiles(128));
    for distilled in [true, false] {
        let mut state = Mean::state(DATA.mean - 0.5);
        for k in 0..300 {
            let paths: Vec<_> = (0..64).map(|i| ladder.path(draw(k, i, 1), 1)).collect();
            let points: Vec<f64> = (0..64).map(|i| z[(7 * i + 5 * k) % 96]).collect();
            let x0 = DATA.points(&points, &[Level { time: 0.0, alpha: 1.0, sigma: 0.0 }; 64], &device);
            // Other noise for each point in each step.
            let eps: Vec<f32> = (0..64).map(|i| w[(5 * i + 7 * k) % 128] as f32).collect();
            let eps = crate::tensor(eps, [64, 1], &device);
            let noised = Noised::new(x0, eps, paths.iter().map(|path| path[0]).collect());
            let chord = if distilled {
                Chord::of_teacher((&Posterior(&truth), Solver::Heun), noised.x, &paths, &Unconditional(64))
            } else {
                Chord::of_data(&noised, paths.iter().map(|path| path[1]).collect())
            };
            let consistency = Consistency { metric: PseudoHuber { c: 0.05 }, weight: ChordWeight::Length };
            let [student, target] = [&state.model, &state.average].map(|mean| Endpoint(mean, end));
            let losses = consistency.losses((&student, &target), &chord, &Unconditional(64));
            state.step(losses, &OPTIONS).unwrap();
        }
        // Of data chance remains, which the metric's bend makes a little one-sided.
        close(state.average.get(), DATA.mean, if distilled { 2e-3 } else { 0.05 });
    }
    // One step of the sampler is the function itself.
    let levels = [grid[0], Level { time: 0.0, alpha: 1.0, sigma: 0.0 }];
    let mut noise = Seeded::new(0, [0, 1]);
    let x: Tensor<2> = noise.normal_like(&Tensor::zeros([2, 1], &Device::flex())) * 5.0;
    let sampler = ConsistencyModel::default();
    let run = Run::new(&sampler, &schedule, &levels, &mut noise).unwrap();
    let student = Endpoint(&truth, end);
    let drawn = run.sample(|x, level| student.denoise(x, &[level], &Unconditional(2)), x.clone());
    let ask = student.denoise(x, &levels[..1], &Unconditional(2)).x0;
    assert_eq!(drawn.into_data(), ask.into_data());
}

/// The prediction's boundary: whatever the network says, a student keeps what is at the cleanest level.
#[test]
fn students_keep_the_cleanest_level() {
    use canvas_core::{Preconditioned, Prediction};
    let net = crate::Net::new(8, &Device::flex());
    let prediction = predict::Consistency { sigma_data: 0.5, least: 0.02 };
    for alpha in [1.0, 0.6] {
        let at = [Level { time: 0.1, alpha, sigma: 0.02 * alpha }];
        let x = crate::tensor::<2>(crate::wave(4, 0.4, 1.0), [2, 2], &Device::flex());
        let student = Preconditioned { backbone: &net, prediction: &prediction };
        let kept = host(&student.denoise(x.clone(), &at, &Unconditional(2)).x0);
        kept.iter().zip(host(&x)).for_each(|(found, x)| close(*found, x / alpha, 1e-6));
    }
    assert!(prediction.coefficients(Level { time: 1.0, alpha: 1.0, sigma: 1.0 }).out > 0.4);
}
