//! Distribution matching of Gaussian data, and adversarial losses.

use crate::close;
use crate::distill::{DATA, Mean, OPTIONS, Posterior, draw, host, quantiles};
use burn::module::Module;
use burn::prelude::*;
use canvas_core::{Denoiser, Level, Noise, NoiseSchedule, Run, Seeded, Unconditional};
use canvas_sched::{Lcm, Timesteps, predict, schedule};
use canvas_train::distill::{Adversarial, Critic, matching, r1, with_gradient};
use canvas_train::{Noised, Objective};

/// A generator `a + s z`, and a fake denoiser that is the best one of mean `b`.
fn drawn(generator: &Mean, z: &[f64], device: &Device) -> Tensor<2> {
    let z: Vec<f32> = z.iter().map(|z| (DATA.std * z) as f32).collect();
    let count = z.len();
    crate::tensor::<2>(z, [count, 1], device) + generator.value.val().unsqueeze_dim::<2>(1)
}

/// `(b - m)(1 - alpha^2 s^2 / d^2)` over the distance to what the teacher says, by every drawing; 0 where the fake is the teacher.
#[test]
fn the_gradient_is_that_of_the_two_means() {
    let (device, flow) = (Device::flex().autodiff(), schedule::Flow::default());
    let at: Vec<Level> = [0.9, 0.5, 0.2, 0.02].map(|t| flow.level(t)).to_vec();
    let (z, eps) = ([0.4, -1.0, 1.6, 0.2], [1.0, 0.3, -0.8, 1.1]);
    let eps_of = |device| crate::tensor::<2>(eps.map(|e| e as f32).to_vec(), [4, 1], device);
    for off in [0.0, 0.25] {
        let a = DATA.mean + off;
        let generator = Mean::new(a, &device);
        let [real, fake] = [DATA.mean, a].map(|mean| Mean::new(mean, &Device::flex()));
        let noised = Noised::new(drawn(&generator, &z, &device), eps_of(&device), at.clone());
        let losses = matching(&noised, (&Posterior(&real), &Posterior(&fake)), &Unconditional(4));
        let values = host(&losses);
        let found = host(&generator.value.grad(&losses.mean().backward()).unwrap())[0];
        let mut expected = 0.0;
        for i in 0..4 {
            let Level { alpha, sigma, .. } = at[i];
            let slope = alpha * DATA.std.powi(2) / DATA.deviation(at[i]).powi(2);
            let x0 = a + DATA.std * z[i];
            let x = alpha * x0 + sigma * eps[i];
            let real = DATA.mean + slope * (x - alpha * DATA.mean);
            let gradient = off * (1.0 - alpha * slope) / (x0 - real).abs();
            close(values[i], 0.5 * gradient * gradient, 1e-6 + 1e-4 * gradient * gradient);
            expected += gradient / 4.0;
        }
        close(found, expected, 1e-4 * expected.abs() + 1e-7);
    }
}

/// By two time scales: the fake denoiser learns what is drawn, five steps for one of the generator.
#[test]
fn the_generator_reaches_the_data() {
    let (device, flow, z) = (Device::flex().autodiff(), schedule::Flow::default(), quantiles(96));
    let real = Mean::new(DATA.mean, &Device::flex());
    let mut generator = Mean::state(DATA.mean - 0.5);
    let mut fake = Mean::state(DATA.mean);
    let batch = |k: usize| -> (Vec<f64>, Vec<f64>) {
        (0..32).map(|i| (z[(7 * i + 5 * k) % 96], z[(5 * i + 2 * k) % 96])).unzip()
    };
    for k in 0..1200 {
        let (points, noise) = batch(k);
        let at: Vec<Level> = (0..32).map(|i| flow.level(0.02 + 0.96 * draw(k, i, 7))).collect();
        let eps = crate::tensor::<2>(noise.iter().map(|&e| e as f32).collect(), [32, 1], &device);
        if k % 6 == 5 {
            let noised = Noised::new(drawn(&generator.model, &points, &device), eps, at);
            let judge = fake.model.valid();
            let losses = matching(&noised, (&Posterior(&real), &Posterior(&judge)), &Unconditional(32));
            let rate = if k < 900 { 0.02 } else { 0.004 };
            generator.step(losses, &canvas_train::StepOptions { rate, ..OPTIONS }).unwrap();
        } else {
            let x0 = drawn(&generator.model, &points, &device).detach();
            let noised = Noised::new(x0, eps, at);
            let said = Posterior(&fake.model).denoise(noised.x.clone(), &noised.at, &Unconditional(32)).x0;
            fake.step(Objective::default().of_answer(said, &noised, &predict::Sample), &OPTIONS).unwrap();
        }
    }
    close(generator.average.get(), DATA.mean, 0.03);
}

/// The gradient that is asked for, over a sample's numbers.
#[test]
fn a_loss_can_have_any_gradient() {
    let device = Device::flex().autodiff();
    let x = crate::tensor::<2>(crate::wave(6, 0.1, 1.0), [2, 3], &device).require_grad();
    let wanted = crate::tensor::<2>(crate::wave(6, 2.1, 0.3), [2, 3], &device);
    let grads = with_gradient(x.clone(), wanted.clone()).sum().backward();
    let found = host(&x.grad(&grads).unwrap());
    found.iter().zip(host(&wanted)).for_each(|(found, wanted)| close(*found, wanted / 3.0, 1e-7));
}

/// A student of three steps, at the state it meets itself before the last: what its own run has there.
#[test]
fn states_of_the_students_own_run_are_met_again() {
    let (flow, student) = (schedule::Flow::default(), Mean::new(0.3, &Device::flex()));
    let levels = Timesteps::uniform().levels(&flow, 3).unwrap();
    let x: Tensor<2> = Seeded::new(3, [5, 6]).normal_like(&Tensor::zeros([2, 1], &Device::flex()));
    let denoise = |x: Tensor<2>, at: Level| Posterior(&student).denoise(x, &[at], &Unconditional(2));
    let states = |last: usize| {
        let mut noise = Seeded::new(4, [5, 6]);
        Run::new(&Lcm, &flow, &levels, &mut noise).unwrap().until(last).sample(denoise, x.clone())
    };
    let (mut seen, mut noise) = (vec![x.clone()], Seeded::new(4, [5, 6]));
    Run::new(&Lcm, &flow, &levels, &mut noise)
        .unwrap()
        .watch(denoise, x.clone(), &mut |progress| seen.push(progress.x.clone()));
    for (last, state) in seen.into_iter().enumerate() {
        assert_eq!(states(last).into_data(), state.into_data());
    }
    // With gradients from there on: the state is a constant, the last answer is not.
    let device = Device::flex().autodiff();
    let model = Mean::new(0.3, &device);
    let answer = Posterior(&model).denoise(states(2), &[levels[2]], &Unconditional(2)).x0;
    let found = host(&model.value.grad(&answer.mean().backward()).unwrap())[0];
    let slope = levels[2].alpha * DATA.std.powi(2) / DATA.deviation(levels[2]).powi(2);
    close(found, 1.0 - slope * levels[2].alpha, 1e-6);
}

/// `w x + c` per head.
struct Linear([f64; 2]);
impl Critic<2> for Linear {
    type Cond = ();
    fn logits(&self, x: Tensor<2>, _: &[Level], _: &()) -> Tensor<2> {
        Tensor::cat(self.0.map(|w| x.clone() * w + 0.1).to_vec(), 1)
    }
}

#[test]
fn adversarial_losses_are_by_hand() {
    let device = Device::flex().autodiff();
    let critic = Linear([2.0, -0.5]);
    let x = crate::tensor::<2>(vec![0.3, -1.2], [2, 1], &device).require_grad();
    let data = crate::tensor::<2>(vec![0.9, 0.1], [2, 1], &device);
    let at = [schedule::Flow::default().level(0.0)];
    let (softplus, hinge) = (|x: f64| x.exp().ln_1p(), |x: f64| x.max(0.0));
    let kinds = [(Adversarial::Softplus, softplus as fn(f64) -> f64), (Adversarial::Hinge, hinge)];
    for (kind, cost) in kinds {
        // A graph is gone after its backward pass.
        let (drawn, real) = (critic.logits(x.clone(), &at, &()), critic.logits(data.clone(), &at, &()));
        let margin = if kind == Adversarial::Hinge { 1.0 } else { 0.0 };
        let generator = kind.generator(drawn.clone());
        let of_critic = host(&kind.critic(drawn.clone(), real.clone()));
        for (i, (x, y)) in [(0.3, 0.9), (-1.2, 0.1)].into_iter().enumerate() {
            let heads = critic.0.map(|w| (w * x + 0.1, w * y + 0.1));
            let mean = |f: &dyn Fn(f64, f64) -> f64| heads.iter().map(|&(d, r)| f(d, r)).sum::<f64>() / 2.0;
            close(of_critic[i], mean(&|d, r| cost(margin + d) + cost(margin - r)), 1e-6);
            let expected =
                if kind == Adversarial::Hinge { mean(&|d, _| -d) } else { mean(&|d, _| softplus(-d)) };
            close(host(&generator)[i], expected, 1e-6);
        }
        // By what was drawn: towards higher logits.
        let found = host(&x.grad(&generator.sum().backward()).unwrap());
        let by = |d: f64| if kind == Adversarial::Hinge { -1.0 } else { -1.0 / (1.0 + d.exp()) };
        for (found, x) in found.iter().zip([0.3, -1.2]) {
            close(*found, critic.0.iter().map(|w| 0.5 * w * by(w * x + 0.1)).sum(), 1e-6);
        }
    }
}

/// Of a line exactly its slope's square, times what the noise's is: 1 on average.
#[test]
fn the_penalty_is_the_gradients_square() {
    let device = Device::flex();
    let x = crate::tensor::<2>(vec![0.3, -1.2], [2, 1], &device);
    let noise = crate::tensor::<2>(vec![1.0, -2.0], [2, 1], &device);
    let (critic, std) = (Linear([2.0, -0.5]), 0.125);
    let logits = |x: Tensor<2>| critic.logits(x, &[schedule::Flow::default().level(0.0)], &());
    let found = host(&r1(logits(x.clone()), logits(x + noise * std), std));
    close(found[0], 0.5 * (4.0 + 0.25), 1e-4);
    close(found[1], 4.0 * 0.5 * (4.0 + 0.25), 1e-4);
}
