//! Progressive distillation, rectified flow and PeRFlow of Gaussian data.

use crate::distill::{DATA, Mean, OPTIONS, Posterior, draw, host, quantiles, schedules};
use crate::{close, panic_text};
use burn::module::{Module, Param};
use burn::prelude::*;
use canvas_core::{
    Denoiser, DeviceNoise, Estimate, Level, NoiseSchedule, Prediction, Run, Unconditional, mix, per_sample,
};
use canvas_sched::{Heun, Timesteps, predict, schedule};
use canvas_train::distill::{Chord, Coupling, Ladder, Solver, carry};
use canvas_train::{AdamW, Noised, Objective, TrainState, Weighting};

fn clean(time: f64) -> Level {
    Level { time, alpha: 1.0, sigma: 0.0 }
}

/// One hop along the target is two hops of the teacher, on every schedule; in the last, to clean data, it is where these end.
#[test]
fn one_hop_along_the_target_is_two_of_the_teacher() {
    let mean = Mean::new(DATA.mean, &Device::flex());
    for (schedule, _) in schedules() {
        let level = |t: f64| if t == 0.0 { clean(0.0) } else { schedule.level(t) };
        let paths = [[0.9, 0.7, 0.5], [0.5, 0.25, 0.0], [0.3, 0.2, 0.1]].map(|path| path.map(level));
        let paths: Vec<&[Level]> = paths.iter().map(|path| &path[..]).collect();
        let from: Vec<Level> = paths.iter().map(|path| path[0]).collect();
        let x = DATA.points(&[0.6, -1.1, 1.7], &from, &Device::flex());
        let chord =
            Chord::of_teacher((&Posterior(&mean), Solver::Euler), x.clone(), &paths, &Unconditional(3));
        // The teacher's own two hops, on the host.
        for (i, path) in paths.iter().enumerate() {
            let mut state = host(&x)[i];
            for pair in path.windows(2) {
                let (from, to) = (pair[0], pair[1]);
                let slope = from.alpha * DATA.std.powi(2) / DATA.deviation(from).powi(2);
                let x0 = DATA.mean + slope * (state - from.alpha * DATA.mean);
                let ratio = to.sigma / from.sigma;
                state = ratio * state + (to.alpha - from.alpha * ratio) * x0;
            }
            close(host(&chord.y)[i], state, 2e-6 * state.abs().max(1.0));
        }
        let hop = carry(&chord.clean().into(), &chord.x, (&chord.from, &chord.to));
        host(&hop)
            .iter()
            .zip(host(&chord.y))
            .for_each(|(found, y)| close(*found, y, 2e-6 * y.abs().max(1.0)));
        close(host(&chord.clean())[1], host(&chord.y)[1], 1e-6);
    }
    let at = vec![schedule::Flow::default().level(0.5); 2];
    let x = DATA.points(&[0.0, 1.0], &at, &Device::flex());
    let still = Chord { x: x.clone(), from: at.clone(), y: x, to: at };
    assert!(panic_text(|| still.clean()).contains("no less noisy"));
}

/// The paper's weights: `max(SNR, 1)`, and `SNR + 1`, which is EDM's of data with a variance of 1 and every velocity's own.
#[test]
fn weights_are_the_papers() {
    for t in [0.1, 0.4, 0.8] {
        let level = schedule::Vp::cosine(1000).level(t);
        let snr = level.snr();
        close(Weighting::TruncatedSnr.of_x0(level), snr.max(1.0), 1e-12 * snr);
        close(Weighting::Edm { sigma_data: 1.0 }.of_x0(level), snr + 1.0, 1e-9 * (snr + 1.0));
        close(predict::Velocity.coefficients(level).out.powi(-2), snr + 1.0, 1e-9 * (snr + 1.0));
    }
}

/// A student that is a line at each of two hops: `w x + b`.
#[derive(Module, Debug)]
struct Lines {
    w: Param<Tensor<1>>,
    b: Param<Tensor<1>>,
}

impl Denoiser<2> for Lines {
    type Cond = Unconditional;
    fn denoise(&self, x: Tensor<2>, at: &[Level], _: &Unconditional) -> Estimate<2> {
        // The first hop is from 1, the second from 1/2.
        let first = per_sample::<2>(at, &x.device(), |level| f64::from(u8::from(level.sigma > 0.75)));
        let pick = |p: &Param<Tensor<1>>| {
            let [a, b] = [0, 1].map(|i| p.val().narrow(0, i, 1).reshape([1, 1]));
            a * first.clone() + b * (-first.clone() + 1.0)
        };
        (x * pick(&self.w) + pick(&self.b)).into()
    }
}

/// Trained on four hops of the teacher as two, it draws in two what the teacher does in four.
#[test]
fn a_student_of_two_hops_draws_what_four_of_the_teacher_do() {
    let schedule = schedule::Flow::default();
    let levels = Timesteps::uniform().levels(&schedule, 4).unwrap();
    let ladder = Ladder::new(levels.clone()).unwrap();
    let (device, truth, z) =
        (Device::flex().autodiff(), Mean::new(DATA.mean, &Device::flex()), quantiles(96));
    let zeros = || Param::from_tensor(Tensor::<1>::zeros([2], &device));
    let adam = AdamW { weight_decay: 0.0, ..AdamW::default() };
    let mut state = TrainState::new(Lines { w: zeros(), b: zeros() }, adam);
    for k in 0..400 {
        let paths: Vec<_> = (0..32).map(|i| ladder.block(draw(k, i, 3), 2)).collect();
        let from: Vec<Level> = paths.iter().map(|path| path[0]).collect();
        let points: Vec<f64> = (0..32).map(|i| z[(3 * i + k) % 96]).collect();
        let x = DATA.points(&points, &from, &device);
        let chord = Chord::of_teacher((&Posterior(&truth), Solver::Euler), x, &paths, &Unconditional(32));
        let noised = chord.noised();
        let said = state.model.denoise(noised.x.clone(), &noised.at, &Unconditional(32)).x0;
        let objective = Objective { weighting: Weighting::TruncatedSnr, ..Objective::default() };
        let losses = objective.of_answer(said, &noised, &predict::Sample);
        let rate = if k < 300 { 0.03 } else { 0.003 };
        state.step(losses, &canvas_train::StepOptions { rate, ..OPTIONS }).unwrap();
    }
    let draws = |denoiser: &dyn Fn(Tensor<2>, Level) -> Tensor<2>, levels: &[Level]| {
        let x = crate::tensor::<2>(vec![-1.0, 0.2, 1.5], [3, 1], &Device::flex());
        let mut unasked = DeviceNoise;
        host(&Run::new(&canvas_sched::Euler, &schedule, levels, &mut unasked).unwrap().sample(denoiser, x))
    };
    let teacher = |x: Tensor<2>, level| Posterior(&truth).denoise(x, &[level], &Unconditional(3)).x0;
    let student = state.model.valid();
    let two = |x: Tensor<2>, level| student.denoise(x, &[level], &Unconditional(3)).x0;
    let found = draws(&two, &[levels[0], levels[2], levels[4]]);
    found.iter().zip(draws(&teacher, &levels)).for_each(|(found, four)| close(*found, four, 2e-3));
}

/// The ends are the ODE's, and so is how bent ways are: in rectified flow's variables `z^2 (int d'^2 - (1 - s)^2)`. On
/// every schedule the same ends.
#[test]
fn couplings_end_where_the_ode_does_and_know_how_bent_it_is() {
    let truth = Mean::new(DATA.mean, &Device::flex());
    let z = [-1.2, 0.4, 2.0];
    let eps = || crate::tensor::<2>(z.map(|z| z as f32).to_vec(), [3, 1], &Device::flex());
    let couple = |schedule: &dyn NoiseSchedule, levels: &[Level]| {
        let mut unasked = DeviceNoise;
        let run = Run::new(&Heun, schedule, levels, &mut unasked).unwrap();
        Coupling::new(run, |x, level| Posterior(&truth).denoise(x, &[level], &Unconditional(3)), eps())
    };
    let flow = schedule::Flow::default();
    let coupling = couple(&flow, &Timesteps::uniform().levels(&flow, 100).unwrap());
    let slope = |t: f64| (t - (1.0 - t) * DATA.std.powi(2)) / ((1.0 - t) * DATA.std).hypot(t);
    let integral = (0..10_000).map(|i| slope((f64::from(i) + 0.5) / 1e4).powi(2) / 1e4).sum::<f64>();
    for (i, z) in z.iter().enumerate() {
        close(host(&coupling.x0)[i], DATA.mean + DATA.std * z, 2e-3);
        close(host(&coupling.eps)[i], *z, 1e-6);
        close(host(&coupling.bend)[i], z * z * (integral - (1.0 - DATA.std).powi(2)), 1e-3 * z * z);
    }
    assert!(host(&coupling.bend)[2] > 0.1);
    let cosine = schedule::Vp::cosine(1000);
    let levels = Timesteps::new(canvas_sched::Spacing::Linspace { first: 0.999, last: 0.001 });
    let other = couple(&cosine, &levels.levels(&cosine, 200).unwrap());
    host(&other.x0).iter().zip(host(&coupling.x0)).for_each(|(found, x0)| close(*found, x0, 0.01));
    let ways = [host(&other.bend), host(&coupling.bend)];
    ways[0].iter().zip(&ways[1]).for_each(|(found, bend)| close(*found, *bend, 0.03));
}

/// What the best flow of the pairs says: noise is known from where a point is, and ways are straight.
struct Straight;
impl Denoiser<2> for Straight {
    type Cond = Unconditional;
    fn denoise(&self, x: Tensor<2>, at: &[Level], _: &Unconditional) -> Estimate<2> {
        let on = &x.device();
        let scale = per_sample::<2>(at, on, |level| DATA.std / (level.alpha * DATA.std + level.sigma));
        let shift = per_sample::<2>(at, on, |level| level.alpha * DATA.mean);
        ((x - shift) * scale + DATA.mean).into()
    }
}

/// A flow on the pairs has no loss left, draws in one hop what the first one does in many, and is not bent.
#[test]
fn a_reflowed_flow_is_straight() {
    let (truth, flow) = (Mean::new(DATA.mean, &Device::flex()), schedule::Flow::default());
    let z: Vec<f64> = quantiles(8);
    let eps = crate::tensor::<2>(z.iter().map(|&z| z as f32).collect(), [8, 1], &Device::flex());
    let mut unasked = DeviceNoise;
    let levels = Timesteps::uniform().levels(&flow, 200).unwrap();
    let run = Run::new(&Heun, &flow, &levels, &mut unasked).unwrap();
    let pairs =
        Coupling::new(run, |x, at| Posterior(&truth).denoise(x, &[at], &Unconditional(8)), eps.clone());
    let noised = pairs.noised((0..8).map(|i| flow.level(0.1 + 0.1 * f64::from(i))).collect());
    let said = Straight.denoise(noised.x.clone(), &noised.at, &Unconditional(8)).x0;
    let left = Objective::default().of_answer(said, &noised, &predict::Sample);
    assert!(host(&left).into_iter().all(|loss| loss < 1e-6), "{left}");

    let mut unasked = DeviceNoise;
    let one = Timesteps::uniform().levels(&flow, 1).unwrap();
    let run = Run::new(&canvas_sched::Euler, &flow, &one, &mut unasked).unwrap();
    let again = Coupling::new(run, |x, at| Straight.denoise(x, &[at], &Unconditional(8)), eps);
    host(&again.x0).iter().zip(host(&pairs.x0)).for_each(|(found, x0)| close(*found, x0, 2e-3));
    let mut unasked = DeviceNoise;
    let run = Run::new(&canvas_sched::Euler, &flow, &levels, &mut unasked).unwrap();
    let again = Coupling::new(run, |x, at| Straight.denoise(x, &[at], &Unconditional(8)), again.eps);
    assert!(host(&again.bend).into_iter().all(|bend| bend < 1e-6), "{}", again.bend);
}

/// Between two points the state is on their straight line, and what is asked is the line's velocity.
#[test]
fn within_a_window_the_flow_is_the_chords_line() {
    let (truth, flow) = (Mean::new(DATA.mean, &Device::flex()), schedule::Flow::default());
    let fine = Ladder::new(Timesteps::uniform().levels(&flow, 16).unwrap()).unwrap();
    let paths = [fine.block(0.0, 4), fine.block(0.99, 4)];
    let x = DATA.points(&[0.7, -1.3], &[paths[0][0], paths[1][0]], &Device::flex());
    let chord = Chord::of_teacher((&Posterior(&truth), Solver::Heun), x, &paths, &Unconditional(2));
    let inside = chord.within(vec![flow.level(0.8), flow.level(0.05)]);
    for (i, (from, to, at)) in [(1.0, 0.75, 0.8), (0.25, 0.0, 0.05)].into_iter().enumerate() {
        let [x, y] = [&chord.x, &chord.y].map(|x| host(x)[i]);
        let velocity = (x - y) / (from - to);
        close(host(&inside.x)[i], x + (at - from) * velocity, 2e-6);
        close(host(&(inside.eps.clone() - inside.x0.clone()))[i], velocity, 2e-5);
    }
    // It is the batch that the line's two ends are mixed to.
    let mixed: Tensor<2> = mix(inside.x0.clone(), inside.eps.clone(), &inside.at);
    host(&mixed).iter().zip(host(&inside.x)).for_each(|(found, x)| close(*found, x, 1e-6));
}

/// The ends of chords of data are the data's, more and less noised.
#[test]
fn chords_of_data_share_data_and_noise() {
    let flow = schedule::Flow::default();
    let [x0, eps] =
        [0.4, 2.0].map(|seed| crate::tensor::<2>(crate::wave(4, seed, 1.0), [2, 2], &Device::flex()));
    let at: Vec<Level> = [0.9, 0.5].map(|t| flow.level(t)).to_vec();
    let noised = Noised::new(x0.clone(), eps.clone(), at.clone());
    let chord = Chord::of_data(&noised, vec![flow.level(0.2), flow.level(0.0)]);
    host(&chord.clean()).iter().zip(host(&x0)).for_each(|(found, x0)| close(*found, x0, 2e-6));
    assert_eq!(host(&chord.y)[2..], host(&x0)[2..]);
    assert!(panic_text(|| Chord::of_data(&noised, at[..1].to_vec())).contains("levels of a batch"));
    let teacher = Mean::new(0.0, &Device::flex());
    let short = panic_text(|| {
        Chord::of_teacher((&Posterior(&teacher), Solver::Euler), x0, &[&at[..1], &at[..1]], &Unconditional(2))
    });
    assert!(short.contains("paths of [1, 1] levels"), "{short}");
}
