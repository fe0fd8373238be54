//! More of diffusers' own numbers (notes/models.md 2.4), for the dummy network `x t / (t + 1)`. Tolerances are
//! those of diffusers' tests.

use crate::close;
use crate::golden::{run, run_on, sample, scaled_back, sum, unscaled};
use canvas_core::{Level, Prediction, Sampler};
use canvas_sched::predict::{Epsilon, Velocity};
use canvas_sched::schedule::Vp;
use canvas_sched::{Deis, Dpm2, DpmSingle, Extrapolated, Finish, Lms, Pndm, Timesteps, UniPc, WarmUp};

/// Rounded steps from 999 to the first level's own noise, as DPM-Solver, UniPC and DEIS in diffusers.
fn to_sigma_min(vp: &Vp) -> Vec<Level> {
    let step = |i: usize| vp.training_step((999.0 * (10 - i) as f64 / 10.0).round_ties_even() as usize);
    (0..10).map(step).chain([vp.training_step(0)]).collect()
}

fn mean(sampler: &dyn Sampler<4>, prediction: &dyn Prediction, levels: &[Level]) -> f64 {
    sum(&run(sampler, prediction, levels, 1000.0, sample())) / 768.0
}

#[test]
fn unipc() {
    let vp = Vp::linear(1000);
    let levels = to_sigma_min(&vp);
    close(mean(&UniPc::default(), &Epsilon, &levels), 0.2464, 1e-3);
    close(mean(&UniPc::default(), &Velocity, &levels), 0.1014, 1e-3);
}

#[test]
fn deis() {
    let vp = Vp::linear(1000);
    let deis = Deis { order: 2, finish: Finish::SHORT_RUNS };
    close(mean(&deis, &Epsilon, &to_sigma_min(&vp)), 0.23916, 1e-3);
    close(mean(&deis, &Velocity, &to_sigma_min(&vp)), 0.091, 1e-3);
}

#[test]
fn singlestep() {
    let vp = Vp::linear(1000);
    let two_s = DpmSingle::two_s();
    let levels = to_sigma_min(&vp);
    close(mean(&two_s, &Epsilon, &levels), 0.2791, 1e-3);
    close(mean(&two_s, &Velocity, &levels), 0.1453, 1e-3);
}

#[test]
fn pndm() {
    let vp = Vp::linear(1000);
    let mut levels = Timesteps::leading(1000, 0).levels(&vp, 10).unwrap();
    levels[10] = vp.training_step(0); // set_alpha_to_one = False
    let total = |pndm: Pndm, prediction: &dyn Prediction| {
        sum(&run_on(&vp, &pndm, prediction, &levels, 1000.0, sample()))
    };
    let prk = Pndm { warm_up: WarmUp::RungeKutta, of: Extrapolated::Noise };
    close(total(prk, &Epsilon), 198.1318, 1e-2);
    close(total(Pndm { of: Extrapolated::Velocity, ..prk }, &Velocity), 67.3986, 1e-2);
    // Not in diffusers' tests: a re-implementation in f64.
    close(total(Pndm::default(), &Epsilon), 197.71543, 1e-2);
}

#[test]
fn lms_and_kdpm2() {
    let vp = Vp::linear(1100);
    let levels = unscaled(&Timesteps::linspace(1100).levels(&vp, 10).unwrap());
    close(scaled_back(&Lms::default(), &levels), 1006.388, 2e-2);
    close(scaled_back(&Dpm2, &levels), 20.4125, 1e-2);
}
