//! Every row of the table in `Compat`'s docs: diffusers' number, and the paper's.

use super::close;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{
    Backbone, Denoiser, Estimate, Level, Noise, NoiseSchedule, Preconditioned, Run, Sampler, Unconditional,
};
use canvas_sched::diffusers::{Compat, Options, Scheduler};
use canvas_sched::schedule::Vp;
use canvas_sched::{DpmPp3mSde, DpmSingle, DpmSingleSde, Form, SolverType};
use serde_json::{Value, json};
use std::cell::RefCell;

fn read(config: &Value, compat: Compat, options: &Options) -> Scheduler<2> {
    Scheduler::from_json(&config.to_string(), &Options { compat, ..options.clone() }).unwrap()
}

fn both(config: &Value) -> [Scheduler<2>; 2] {
    [Compat::Diffusers, Compat::Corrected].map(|compat| read(config, compat, &Options::default()))
}

fn one(value: f64) -> Tensor<2> {
    Tensor::from_data(TensorData::new(vec![value], [1, 1]), (&Device::flex(), DType::F64))
}

fn number(x: &Tensor<2>) -> f64 {
    x.to_data().iter::<f64>().next().unwrap()
}

/// Always the same draw, and how many there were.
struct Constant(f64, usize);

impl Noise<2> for Constant {
    fn normal_like(&mut self, x: &Tensor<2>) -> Tensor<2> {
        self.1 += 1;
        x.ones_like() * self.0
    }
}

/// The state after every hop, from 1.
fn states<E: Into<Estimate<2>>>(
    scheduler: &Scheduler<2>,
    levels: &[Level],
    noise: &mut Constant,
    denoise: impl Fn(Tensor<2>, Level) -> E,
) -> Vec<f64> {
    let run = Run::new(&scheduler.sampler, &scheduler.schedule, levels, noise).unwrap();
    let mut states = Vec::new();
    run.watch(denoise, one(1.0), &mut |progress| states.push(number(progress.x)));
    states
}

/// Says the clean image is black, so that a deterministic hop scales the state by `sigma' / sigma`.
fn black(x: Tensor<2>, _level: Level) -> Tensor<2> {
    x * 0.0
}

/// A network that always says the same; the rest of its channels, too.
struct Says(Vec<f64>);

impl Backbone<2> for Says {
    type Cond = Unconditional;
    fn forward(&self, x: Tensor<2>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
        Tensor::cat(self.0.iter().map(|&value| x.ones_like() * value).collect(), 1)
    }
}

fn told(scheduler: &Scheduler<2>, says: &[f64], levels: &[Level], noise: &mut Constant) -> Vec<f64> {
    let network = Preconditioned { backbone: &Says(says.to_vec()), prediction: &*scheduler.prediction };
    states(scheduler, levels, noise, |x, level| network.denoise(x, &[level], &Unconditional(1)))
}

fn step(index: usize) -> Level {
    Vp::linear(1000).training_step(index)
}

#[test]
fn a_static_shift_acts_twice_or_once() {
    let twice = [1.0, 0.900359, 0.751121, 0.502985, 0.008929, 0.0];
    let once = [1.0, 0.90012, 0.750375, 0.500999, 0.002994, 0.0];
    for class in
        ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler"]
    {
        for (scheduler, wanted) in
            both(&json!({"_class_name": class, "shift": 3.0})).iter().zip([twice, once])
        {
            let levels = scheduler.levels(5).unwrap();
            levels.iter().zip(wanted).for_each(|(level, wanted)| close(level.sigma, wanted, 5e-7));
        }
    }
    // A shift of the caller's acts once in both.
    let dynamic = json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true});
    let ask = canvas_sched::diffusers::Ask { mu: Some(3f64.ln()), ..5.into() };
    for scheduler in both(&dynamic) {
        let levels = scheduler.levels(ask).unwrap();
        levels.iter().zip(once).for_each(|(level, wanted)| close(level.sigma, wanted, 5e-7));
    }
}

/// 1000 / 3 is not whole: the grid is 999, 666, 332, and 666 - 333 is 333.
#[test]
fn a_step_goes_by_the_stride_or_to_the_grids_next_step() {
    for class in ["DDIMScheduler", "DDIMParallelScheduler", "PNDMScheduler"] {
        let config = json!({"_class_name": class, "timestep_spacing": "trailing", "clip_sample": false,
            "skip_prk_steps": true});
        for (scheduler, wanted) in both(&config).iter().zip([333, 332]) {
            let levels = scheduler.levels(3).unwrap();
            assert_eq!([0, 1, 2].map(|i| (levels[i].time * 1000.0).round()), [999.0, 666.0, 332.0]);
            let states = states(scheduler, &levels, &mut Constant(0.0, 0), black);
            close(states[1], step(wanted).sigma / step(999).sigma, 1e-12);
        }
    }
}

#[test]
fn pndms_half_steps_are_training_steps_or_halfway() {
    let config = json!({"_class_name": "PNDMScheduler"});
    for (scheduler, middle) in both(&config).iter().zip([812.0, 812.5]) {
        let levels = scheduler.levels(8).unwrap();
        let asked = RefCell::new(Vec::new());
        states(scheduler, &levels, &mut Constant(0.0, 0), |x: Tensor<2>, level: Level| {
            asked.borrow_mut().push(level.time * 1000.0);
            x.zeros_like()
        });
        let first = [875.0, middle, middle, 750.0];
        asked.borrow()[..4].iter().zip(first).for_each(|(asked, wanted)| close(*asked, wanted, 1e-6));
    }
}

/// Four steps of stride 250, where the strides agree: the second hop mixes what the network said at the first
/// level and at the second.
#[test]
fn pndm_mixes_velocities_or_reads_each_at_its_own_level() {
    let config =
        json!({"_class_name": "PNDMScheduler", "prediction_type": "v_prediction", "skip_prk_steps": true});
    let [first, second, third] = [750, 500, 250].map(step);
    let v = 0.3;
    let eps = |x: f64, level: Level| level.sigma * x + level.alpha * v;
    let carry = |x: f64, eps: f64, from: Level, to: Level| {
        to.alpha / from.alpha * x + (to.sigma - from.sigma * to.alpha / from.alpha) * eps
    };
    // The first hop averages both ends; diffusers reads both at the first, with the first state.
    let mixed = carry(1.0, eps(1.0, first), first, second);
    let own = carry(1.0, f64::midpoint(eps(1.0, first), eps(mixed, second)), first, second);
    let (second_mixed, second_own) = (
        carry(mixed, eps(mixed, second), second, third),
        carry(own, 1.5 * eps(own, second) - 0.5 * eps(1.0, first), second, third),
    );
    for (scheduler, wanted) in both(&config).iter().zip([[mixed, second_mixed], [own, second_own]]) {
        let found = told(scheduler, &[v], &scheduler.levels(4).unwrap(), &mut Constant(0.0, 0));
        found.iter().zip(wanted).for_each(|(found, wanted)| close(*found, wanted, 1e-12));
    }
    assert!((mixed - own).abs() > 0.01 && (second_mixed - second_own).abs() > 0.01);
}

#[test]
fn an_inversion_reads_the_level_before_or_the_one_it_told() {
    let config = json!({"_class_name": "DDIMInverseScheduler", "prediction_type": "v_prediction",
        "clip_sample": false});
    let v = 0.3;
    let at = |level: Level| level.sigma + level.alpha * v; // the noise of a state of 1
    for (index, scheduler) in both(&config).iter().enumerate() {
        let levels = scheduler.levels(4).unwrap();
        let (from, to) = (levels[0], levels[1]);
        let eps = at([from, to][index]);
        let wanted = to.alpha / from.alpha + (to.sigma - from.sigma * to.alpha / from.alpha) * eps;
        let found = told(scheduler, &[v], &levels, &mut Constant(0.0, 0));
        close(found[0], wanted, 1e-12);
    }
}

#[test]
fn times_are_cut_to_whole_steps_or_exact() {
    let config = json!({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true, "flow_shift": 3.0,
        "prediction_type": "flow_prediction"});
    let [cut, exact] = both(&config).map(|scheduler| {
        let levels = scheduler.levels(4).unwrap();
        let told = |&level: &Level| scheduler.prediction.coefficients(level).time * scheduler.steps_per_time;
        (levels[..4].iter().map(told).collect::<Vec<f64>>(), levels)
    });
    // The sigmas are the same for both.
    assert_eq!(
        cut.1.iter().map(|l| l.sigma).collect::<Vec<_>>(),
        exact.1.iter().map(|l| l.sigma).collect::<Vec<_>>()
    );
    assert_eq!(cut.0, [999.0, 900.0, 750.0, 500.0]);
    for (told, level) in exact.0.iter().zip(&exact.1) {
        close(*told, 1000.0 * level.sigma, 1e-9);
    }
    assert!(exact.0[2].fract() > 0.1, "{:?}", exact.0);
}

#[test]
fn the_logarithm_of_the_large_variance_is_refused_or_the_large_variance() {
    let config =
        |kind: &str| json!({"_class_name": "DDPMScheduler", "variance_type": kind, "clip_sample": false});
    let refused = Scheduler::<2>::from_json(&config("fixed_large_log").to_string(), &Options::default());
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("field \"variance_type\"") && message.contains("fixed_large_log"), "{message}");
    let ends = ["fixed_large_log", "fixed_large"].map(|kind| {
        let scheduler = read(&config(kind), Compat::Corrected, &Options::default());
        told(&scheduler, &[0.1], &scheduler.levels(4).unwrap(), &mut Constant(1.0, 0))
    });
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_learned_variance_is_one_or_its_logarithm() {
    let config = json!({"_class_name": "DDPMScheduler", "variance_type": "learned", "clip_sample": false});
    let output = 0.25f64;
    for (scheduler, wanted) in both(&config).iter().zip([output.sqrt(), (0.5 * output).exp()]) {
        let levels = scheduler.levels(2).unwrap();
        let [none, some] =
            [0.0, 1.0].map(|draw| told(scheduler, &[0.1, output], &levels, &mut Constant(draw, 0))[0]);
        close(some - none, wanted, 1e-12);
    }
}

#[test]
fn third_order_stochastic_dpmpp_is_refused_or_that_of_the_papers() {
    let blocks = DpmSingle { form: Form::Data, order: 3, solver: SolverType::Heun, finish: true };
    let samplers: [(&str, Box<dyn Sampler<2>>); 2] = [
        ("DPMSolverMultistepScheduler", Box::new(DpmPp3mSde::default())),
        ("DPMSolverSinglestepScheduler", Box::new(DpmSingleSde(blocks))),
    ];
    for (class, sampler) in samplers {
        let config = json!({"_class_name": class, "algorithm_type": "sde-dpmsolver++", "solver_order": 3,
            "solver_type": "heun", "lower_order_final": false});
        let refused = Scheduler::<2>::from_json(&config.to_string(), &Options::default());
        let message = refused.unwrap_err().to_string();
        let parts = ["field \"solver_order\": expected 1 or 2 with sde-dpmsolver++", ", found 3"];
        parts.iter().for_each(|part| assert!(message.contains(part), "{message}"));
        let scheduler = read(&config, Compat::Corrected, &Options::default());
        let levels = scheduler.levels(8).unwrap();
        let bend = |x: Tensor<2>, level: Level| x.sin() * (1.0 - level.time);
        let found = states(&scheduler, &levels, &mut Constant(0.2, 0), bend);
        let mut noise = Constant(0.2, 0);
        let run = Run::new(&sampler, &scheduler.schedule, &levels, &mut noise).unwrap();
        close(*found.last().unwrap(), number(&run.sample(bend, one(1.0))), 1e-12);
    }
}

#[test]
fn tcd_adds_noise_from_a_whole_training_step_or_not() {
    let config = json!({"_class_name": "TCDScheduler"});
    let table = Vp::scaled_linear(1000);
    let (first, to) = (table.training_step(999), table.training_step(759));
    for (compat, index) in [(Compat::Diffusers, 493.0), (Compat::Corrected, 493.35)] {
        let scheduler = read(&config, compat, &Options { eta: Some(0.35), ..Options::default() });
        let below = table.level((index + 1.0) / 1000.0);
        // All noise: sigma / alpha of the lower level, carried to the target, and what is missing there.
        let mean = below.sigma / first.sigma * to.alpha / below.alpha;
        let std = (to.sigma.powi(2) - (to.alpha / below.alpha * below.sigma).powi(2)).sqrt();
        let levels = scheduler.levels(4).unwrap();
        for draw in [0.0, 1.0] {
            let found = states(&scheduler, &levels, &mut Constant(draw, 0), black)[0];
            close(found, mean + draw * std, 1e-9);
        }
    }
}

#[test]
fn sa_solver_draws_noise_it_does_not_add_or_not() {
    let config = json!({"_class_name": "SASolverScheduler"});
    for (compat, draws) in [(Compat::Diffusers, 10), (Compat::Corrected, 0)] {
        let scheduler = read(&config, compat, &Options { tau: Some(0.0), ..Options::default() });
        let mut noise = Constant(1.0, 0);
        let levels = scheduler.levels(10).unwrap();
        let found = states(&scheduler, &levels, &mut noise, black);
        assert_eq!(noise.1, draws);
        close(found[0], levels[1].sigma / levels[0].sigma, 1e-9); // and adds none
    }
}

#[test]
fn churn_asks_before_or_after_the_noise() {
    for class in ["EulerDiscreteScheduler", "EDMEulerScheduler"] {
        let config = json!({ "_class_name": class });
        for (compat, factor) in [(Compat::Diffusers, 1.0), (Compat::Corrected, 1.2)] {
            let scheduler = read(&config, compat, &Options { s_churn: 2.0, ..Options::default() });
            let levels = scheduler.levels(10).unwrap();
            let asked = RefCell::new(Vec::new());
            states(&scheduler, &levels, &mut Constant(0.0, 0), |x: Tensor<2>, level: Level| {
                asked.borrow_mut().push(level.sigma / level.alpha);
                x.zeros_like()
            });
            for (asked, level) in asked.borrow().iter().zip(&levels) {
                close(asked / (level.sigma / level.alpha), factor, 1e-9);
            }
        }
    }
}
