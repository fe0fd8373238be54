//! Mean flows of Gaussian data, whose average velocity is known.

use crate::distill::{Average, DATA, Mean, OPTIONS, Posterior, draw, host, quantiles};
use crate::{close, panic_text};
use burn::prelude::*;
use canvas_core::{Class, Condition, DeviceNoise, Level, NoiseSchedule, TwoTimes, Unconditional};
use canvas_sched::flow_map::{self, Walk};
use canvas_sched::schedule;
use canvas_train::distill::{Adaptive, MeanFlow, Span, two_levels};
use canvas_train::{Draws, LevelDistribution, Noised};

const SQUARED: MeanFlow<Adaptive> = MeanFlow { metric: Adaptive { power: 0.0, c: 1.0 }, step: 1.0 / 256.0 };

const TIMES: [(f64, f64); 6] = [(0.95, 0.0), (0.7, 0.2), (0.4, 0.35), (0.6, 0.6), (0.2, 0.05), (1.0, 0.5)];

/// Points of true trajectories, with the true velocity.
fn spans(z: &[f64], device: &Device) -> Span<2> {
    let flow = schedule::Flow::default();
    let at: Vec<Level> = TIMES.map(|(t, _)| flow.level(t)).to_vec();
    let to: Vec<Level> = TIMES.map(|(_, r)| flow.level(r)).to_vec();
    let x = DATA.points(z, &at, device);
    let noised = Noised::of_state(x.clone(), x, at);
    let truth = Mean::new(DATA.mean, &Device::flex());
    Span::of_teacher(&Posterior(&truth), &noised, &to, &Unconditional(z.len()))
}

const Z: [f64; 6] = [1.1, -0.4, 0.8, -1.9, 0.3, 2.2];

/// `du/dt` along the true velocity at mean `a`, in f64: `q'(z - (1 - t) a) + q (v + a)`.
fn true_change(a: f64, i: usize) -> f64 {
    let ((t, r), z) = (TIMES[i], Z[i]);
    let level = |t: f64| Level { time: t, alpha: 1.0 - t, sigma: t };
    let x = DATA.point(z, level(t));
    let slope = (t - (1.0 - t) * DATA.std.powi(2)) / DATA.deviation(level(t));
    let v = slope * z - DATA.mean;
    let rate = (Average::q(r, t + 1e-5) - Average::q(r, t - 1e-5)) / 2e-5;
    rate * (x - (1.0 - t) * a) + Average::q(r, t) * (v + a)
}

/// How far a difference is from the derivative, by its step: 0.05 at 2^-3, 9e-5 at 2^-8, 3e-5 at 2^-9, 1e-3 at 2^-13. The third
/// derivative is up to 20 here; the cubic term falls with the step's square, and rounding rises as the step falls.
#[test]
fn the_change_along_a_trajectory_is_exact_to_four_digits() {
    let (device, frozen) = (Device::flex(), Mean::new(DATA.mean, &Device::flex()));
    let span = spans(&Z, &device);
    let error = |power: i32| {
        let mean_flow = MeanFlow { step: 0.5f64.powi(power), ..SQUARED };
        let found = host(&mean_flow.change(&Average(&frozen), &span, &Unconditional(6)));
        (0..6).map(|i| (found[i] - true_change(DATA.mean, i)).abs()).fold(0.0, f64::max)
    };
    let errors: Vec<f64> = [3, 5, 8, 13, 18].map(error).to_vec();
    println!("errors of steps 2^-3, 2^-5, 2^-8, 2^-13, 2^-18: {errors:?}");
    assert!(errors[2] < 2e-4, "{errors:?}");
    // The cubic term: a quarter of the step, a sixteenth of the error.
    close((errors[0] / errors[1]).log2(), 4.0, 0.8);
    assert!(errors[3] > errors[2] && errors[4] > 8.0 * errors[3], "{errors:?}");
}

/// At the true average velocity the target is the answer; elsewhere the loss and its gradient are the closed form.
#[test]
fn losses_and_gradients_are_the_closed_form() {
    let device = Device::flex().autodiff();
    let span = spans(&Z, &device);
    for off in [0.0, 0.4] {
        let a = DATA.mean + off;
        let (mean, frozen) = (Mean::new(a, &device), Mean::new(a, &Device::flex()));
        let losses = SQUARED.losses((&Average(&mean), &Average(&frozen)), &span, &Unconditional(6));
        let (values, grads) = (host(&losses), losses.sum().backward());
        let found = host(&mean.value.grad(&grads).unwrap())[0];
        let mut expected = 0.0;
        for (i, (t, r)) in TIMES.into_iter().enumerate() {
            let (x, q) = (host(&span.z)[i], Average::q(r, t));
            let error = q * (x - (1.0 - t) * a) - a - (host(&span.v)[i] - (t - r) * true_change(a, i));
            close(values[i], error * error, 1e-7 + 2e-4 * error.abs());
            if off == 0.0 {
                // The square of what the derivative is off.
                assert!(values[i] < 4e-8, "a loss of {} at the solution", values[i]);
            }
            expected += 2.0 * error * (-1.0 - q * (1.0 - t));
        }
        close(found, expected, 1e-3);
    }
}

/// From a mean that is 0.5 off; and the sampler of mean flows draws in one step what the ODE does.
#[test]
fn training_reaches_the_true_average_velocity() {
    let flow = schedule::Flow::default();
    let (device, truth, z) =
        (Device::flex().autodiff(), Mean::new(DATA.mean, &Device::flex()), quantiles(96));
    let levels = LevelDistribution::LogitNormal { mean: -0.4, std: 1.0 };
    let mut state = Mean::state(DATA.mean - 0.5);
    for k in 0..300 {
        let pair = |i| two_levels(&levels, &flow, [1, 2, 3].map(|kind| draw(k, i, kind)), 0.25);
        let (at, to): (Vec<Level>, Vec<Level>) = (0..32).map(pair).map(|[at, to]| (at, to)).unzip();
        let points: Vec<f64> = (0..32).map(|i| z[(3 * i + k) % 96]).collect();
        let x = DATA.points(&points, &at, &device);
        let noised = Noised::of_state(x.clone(), x, at);
        let span = Span::of_teacher(&Posterior(&truth), &noised, &to, &Unconditional(32));
        let frozen = state.model.valid();
        let networks = (&Average(&state.model), &Average(&frozen));
        let losses = MeanFlow { metric: Adaptive { power: 0.5, c: 1e-3 }, ..SQUARED };
        state.step(losses.losses(networks, &span, &Unconditional(32)), &OPTIONS).unwrap();
    }
    close(state.average.get(), DATA.mean, 1e-3);
    let map = flow_map::MeanFlow(Average(&state.average));
    let ends = [flow.level(1.0), flow.level(0.0)];
    let x = DATA.points(&[1.3, -0.6], &[ends[0]; 2], &Device::flex());
    let walk = Walk { renoise: 0.0 };
    let drawn = walk.sample(&AsMap(map), (&flow, &ends), &mut DeviceNoise, x, &Unconditional(2));
    for (found, z) in host(&drawn).into_iter().zip([1.3, -0.6]) {
        close(found, DATA.point(z, ends[1]), 2e-3);
    }
}

/// The map by reference to what borrows.
struct AsMap<'a>(flow_map::MeanFlow<Average<'a>>);
impl flow_map::FlowMap<2> for AsMap<'_> {
    type Cond = Unconditional;
    fn map(&self, x: Tensor<2>, from: Level, to: Level, cond: &Unconditional) -> Tensor<2> {
        self.0.map(x, from, to, cond)
    }
}

/// The same on any schedule: spans are in rectified flow's variables.
#[test]
fn spans_are_the_same_on_every_schedule() {
    let [x0, eps] =
        [0.3, 1.4].map(|seed| crate::tensor::<2>(crate::wave(4, seed, 1.0), [2, 2], &Device::flex()));
    let (cosine, flow) = (schedule::Vp::cosine(1000), schedule::Flow::default());
    let ratios = [[1.5, 0.7], [0.4, 0.1]];
    let made = |schedule: &dyn NoiseSchedule| {
        let at = ratios.map(|[from, _]| schedule.level_at_ratio(from)).to_vec();
        let to = ratios.map(|[_, to]| schedule.level_at_ratio(to));
        Span::of_data(&Noised::new(x0.clone(), eps.clone(), at), &to)
    };
    let [one, other] = [made(&cosine), made(&flow)];
    host(&one.z).iter().zip(host(&other.z)).for_each(|(found, z)| close(*found, z, 1e-6));
    assert_eq!(host(&one.v), host(&(eps - x0)));
    for (i, [from, _]) in ratios.into_iter().enumerate() {
        close(one.t[i], from / (1.0 + from), 1e-6);
        close(one.r[i], other.r[i], 1e-6);
    }
    let backwards = Span { t: one.r, r: one.t, ..other };
    let frozen = Mean::new(0.0, &Device::flex());
    let message = panic_text(|| SQUARED.target(&Average(&frozen), &backwards, &Unconditional(2)));
    assert!(message.contains("less noise to more"), "{message}");
}

/// Says its label.
struct Label;
impl TwoTimes<2> for Label {
    type Cond = Class;
    fn forward(&self, x: Tensor<2>, _: Tensor<1>, _: Tensor<1>, cond: &Class) -> Tensor<2> {
        cond.labels.clone().float().reshape([cond.batch(), 1]) + x.zeros_like()
    }
}

/// `omega v + kappa u_c + (1 - omega - kappa) u_null`, by hand; and where u does not change, it is the target.
#[test]
fn velocities_are_guided_by_the_network_itself() {
    let device = Device::flex();
    let ones = Tensor::<2>::ones([2, 1], &device);
    let span = Span { z: ones.clone(), v: ones * 0.5, t: vec![0.8, 0.4], r: vec![0.3, 0.4] };
    let (cond, null) = (Class::new(&[2, 4], &device), Class::new(&[1], &device));
    let guided = span.guided(&Label, (0.2, 0.92), (&cond, &null));
    for (found, label) in host(&guided.v).into_iter().zip([2.0, 4.0]) {
        close(found, 0.2 * 0.5 + 0.92 * label + (1.0 - 0.2 - 0.92) * 1.0, 1e-6);
    }
    let target = SQUARED.target(&Label, &guided, &cond);
    host(&target).iter().zip(host(&guided.v)).for_each(|(found, v)| close(*found, v, 1e-6));
}

/// The noisier first, and the same as often as asked.
#[test]
fn two_levels_are_in_order() {
    let (flow, levels) = (schedule::Flow::default(), LevelDistribution::Uniform);
    let pair = |image: u64| {
        let draws = [1, 2, 3].map(|seed| Draws::Independent.at(seed, image));
        two_levels(&levels, &flow, draws, 0.75)
    };
    let pairs: Vec<[Level; 2]> = (0..4000).map(pair).collect();
    assert!(pairs.iter().all(|[at, to]| at.sigma >= to.sigma));
    let same = pairs.iter().filter(|[at, to]| at == to).count() as f64 / 4000.0;
    close(same, 0.75, 0.03);
    // The larger of two uniform draws.
    close(pairs.iter().map(|[at, _]| at.sigma).sum::<f64>() / 4000.0, 2.0 / 3.0, 0.015);
}
