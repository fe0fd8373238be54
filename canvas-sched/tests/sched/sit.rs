//! SiT by composition: two interpolants, three predictions, solvers of the ODE and of the SDE. And JiT's prediction.

use crate::close;
use crate::reach::errors;
use canvas_core::{Level, NoiseSchedule, Prediction, Sampler};
use canvas_sched::predict::{Epsilon, Flow, JustImage, PathVelocity, Raw, Sample, Score, Velocity};
use canvas_sched::schedule::{self, Gvp};
use canvas_sched::{Diffusion, Dopri5, Euler, Heun, LastStep, SitEuler, SitHeun, SitSde, Spacing, Timesteps};
use std::f64::consts::FRAC_PI_2;

const LINE: schedule::Flow = schedule::Flow { shift: 1.0 };

/// The interpolants, each with what a network may predict of it.
fn processes() -> Vec<(&'static dyn NoiseSchedule, Box<dyn Prediction>)> {
    vec![
        (&LINE, Box::new(PathVelocity(LINE))),
        (&LINE, Box::new(Raw(Epsilon))),
        (&LINE, Box::new(Score)),
        (&Gvp, Box::new(PathVelocity(Gvp))),
        (&Gvp, Box::new(Raw(Epsilon))),
        (&Gvp, Box::new(Score)),
    ]
}

#[test]
fn coefficients_undo_the_target_and_the_input_is_the_state() {
    for (schedule, prediction) in processes() {
        for i in 1..100 {
            let level = schedule.level(f64::from(i) / 100.0);
            let (c, (signal, noise)) = (prediction.coefficients(level), prediction.target(level));
            close(c.skip * level.alpha + c.out * signal, 1.0, 1e-12);
            close(c.skip * level.sigma + c.out * noise, 0.0, 1e-12);
            assert_eq!((c.input, c.time), (1.0, level.time));
        }
    }
}

#[test]
fn velocities_are_those_of_the_paths() {
    for i in 0..=100 {
        let t = f64::from(i) / 100.0;
        let (line, circle) = (LINE.level(t), Gvp.level(t));
        let (found, flow) = (PathVelocity(LINE).coefficients(line), Flow.coefficients(line));
        close(found.skip, flow.skip, 1e-12);
        close(found.out, flow.out, 1e-12);
        assert_eq!(PathVelocity(LINE).target(line), (-1.0, 1.0));
        // Ours is measured in the schedule's time, in which a quarter circle takes 1 and not pi / 2.
        let (found, v) = (PathVelocity(Gvp).coefficients(circle), Velocity.coefficients(circle));
        close(found.skip, v.skip, 1e-12);
        close(found.out * FRAC_PI_2, v.out, 1e-12);
        let (signal, noise) = PathVelocity(Gvp).target(circle);
        close(signal, -FRAC_PI_2 * circle.sigma, 1e-12);
        close(noise, FRAC_PI_2 * circle.alpha, 1e-12);
    }
    let shifted = schedule::Flow { shift: 3.0 };
    let slope = shifted.slope(0.4);
    let found = PathVelocity(shifted).target(shifted.level(0.4));
    close(found.0, slope.0, 1e-9);
    close(found.1, slope.1, 1e-9);
}

/// What each tells of the score: `-eps / sigma`, and so `(a x0 - x) / s^2`.
#[test]
fn a_score_is_the_gradient_of_the_log_density() {
    let level = Level { time: 0.4, alpha: 0.6, sigma: 0.8 };
    let c = Score.coefficients(level);
    let (x, x0) = (0.3, -1.2);
    let score = (level.alpha * x0 - x) / level.sigma.powi(2);
    close(c.skip * x + c.out * score, x0, 1e-12);
    assert_eq!(Score.target(level), (0.0, -1.25));
    let pure = Score.coefficients(Level { time: 1.0, alpha: 0.0, sigma: 1.0 });
    assert_eq!((pure.skip, pure.out), (0.0, 0.0));
}

/// Every process of the paper, through a perfect network, by its solvers of the ODE and of the SDE.
#[test]
fn every_process_of_sit_reaches_the_data() {
    let sde = |diffusion, last| SitSde { diffusion, norm: 1.0, last };
    let linear = || sde(Diffusion::Linear, LastStep::Mean);
    let sigma = || sde(Diffusion::Sigma, LastStep::Tweedie);
    let solvers: Vec<(&str, Box<dyn Sampler<2>>, f64)> = vec![
        ("euler", Box::new(Euler), 0.015),
        ("heun", Box::new(Heun), 0.005),
        ("dopri5", Box::new(Dopri5::default()), 0.005),
        ("SDE, Euler, SBDM", Box::new(SitEuler::default()), 0.035),
        ("SDE, Heun, sigma", Box::new(SitHeun(sigma())), 0.035),
        ("SDE, Heun, linear", Box::new(SitHeun(linear())), 0.035),
    ];
    for (schedule, prediction) in processes() {
        for (name, solver, allowed) in &solvers {
            // The score and the noise say nothing at alpha = 0: the paper starts at 0.999 for them.
            let grid = Timesteps::new(Spacing::Linspace { first: 0.999, last: 0.005 });
            let levels = grid.levels(schedule, 150).unwrap();
            let (mean, std) = errors(&**solver, schedule, &*prediction, &levels);
            println!("{prediction:?}, {name}: mean off by {mean:.4}, std by {std:.4}");
            assert!(mean.abs().max(std.abs()) < *allowed, "{prediction:?}, {name}: {mean:.4}, {std:.4}");
        }
    }
}

#[test]
fn a_just_image_is_a_sample_but_close_to_the_data() {
    let (found, least) = (JustImage::default(), 0.05);
    for sigma in [0.05, 0.3, 0.8, 1.0] {
        let level = Level { time: sigma, alpha: 1.0 - sigma, sigma };
        let (here, sample) = (found.coefficients(level), Sample.coefficients(level));
        assert_eq!((here.skip, here.out), (sample.skip, sample.out));
        assert_eq!((here.input, here.time), (1.0, sigma));
        assert_eq!(found.target(level), (1.0, 0.0));
    }
    for sigma in [0.0, 0.01, 0.03] {
        let level = Level { time: sigma, alpha: 1.0 - sigma, sigma };
        let (c, x, answer) = (found.coefficients(level), 0.7, 0.2);
        // A sampler's velocity is (x - estimate) / sigma.
        let estimate = c.skip * x + c.out * answer;
        close(x - estimate, sigma * (x - answer) / least, 1e-12);
    }
}
