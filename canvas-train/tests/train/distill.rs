//! Gaussian data, of which a student's every answer is known: what the tests of distillation share, and of what they stand on.

use crate::{close, panic_text, tensor, wave};
use burn::module::{Module, Param};
use burn::prelude::*;
use canvas_core::{Denoiser, Estimate, Level, NoiseSchedule, TwoTimes, Unconditional, per_sample};
use canvas_sched::{Timesteps, schedule};
use canvas_train::distill::{
    Adaptive, Curriculum, GuidanceScale, Guided, Ladder, Metric, PseudoHuber, Solver, carry,
};
use canvas_train::{AdamW, Distance, Draws, Ema, LevelDistribution, StepOptions, TrainState};

/// Data `N(mean, std^2)`, each number on its own.
#[derive(Clone, Copy)]
pub struct Gaussian {
    pub mean: f64,
    pub std: f64,
}

pub const DATA: Gaussian = Gaussian { mean: 0.7, std: 0.4 };
pub const OPTIONS: StepOptions =
    StepOptions { rate: 0.02, clip: f64::INFINITY, ema: Ema::Constant { decay: 0.5 } };

impl Gaussian {
    /// Of `x` at a level.
    pub fn deviation(self, level: Level) -> f64 {
        (level.alpha * self.std).hypot(level.sigma)
    }
    /// Where the trajectory of the point `z` deviations from the mean is.
    pub fn point(self, z: f64, level: Level) -> f64 {
        level.alpha * self.mean + self.deviation(level) * z
    }
    pub fn points(self, z: &[f64], at: &[Level], device: &Device) -> Tensor<2> {
        let values = z.iter().zip(at).map(|(&z, &level)| self.point(z, level) as f32).collect();
        tensor(values, [z.len(), 1], device)
    }
}

/// The one number that tests train: the mean.
#[derive(Module, Debug)]
pub struct Mean {
    pub value: Param<Tensor<1>>,
}

impl Mean {
    pub fn new(value: f64, device: &Device) -> Self {
        Self { value: Param::from_tensor(tensor(vec![value as f32], [1], device)) }
    }
    pub fn get(&self) -> f64 {
        host(&self.value.val())[0]
    }
    pub fn state(value: f64) -> TrainState<Self, AdamW> {
        let adam = AdamW { weight_decay: 0.0, ..AdamW::default() };
        TrainState::new(Self::new(value, &Device::flex().autodiff()), adam)
    }
    /// `a (1 - slope alpha) + slope x`.
    fn line<const D: usize>(&self, x: Tensor<D>, at: &[Level], slope: impl Fn(Level) -> f64) -> Estimate<D> {
        let on = (&x.device(), x.dtype());
        let rest = per_sample::<D>(at, on, |level| 1.0 - slope(level) * level.alpha);
        let mean: Tensor<D> = self.value.val().reshape([1; D]);
        (mean * rest + x * per_sample::<D>(at, on, &slope)).into()
    }
}

/// `E[x0 | x]` of data with this mean.
pub struct Posterior<'a>(pub &'a Mean);

impl<const D: usize> Denoiser<D> for Posterior<'_> {
    type Cond = Unconditional;
    fn denoise(&self, x: Tensor<D>, at: &[Level], _: &Unconditional) -> Estimate<D> {
        self.0.line(x, at, |level| level.alpha * DATA.std.powi(2) / DATA.deviation(level).powi(2))
    }
}

/// Where the trajectory of data with this mean has its cleanest level: a consistency function, with its boundary.
pub struct Endpoint<'a>(pub &'a Mean, pub Level);

impl Endpoint<'_> {
    pub fn slope(&self, level: Level) -> f64 {
        DATA.deviation(self.1) / self.1.alpha / DATA.deviation(level)
    }
}

impl<const D: usize> Denoiser<D> for Endpoint<'_> {
    type Cond = Unconditional;
    fn denoise(&self, x: Tensor<D>, at: &[Level], _: &Unconditional) -> Estimate<D> {
        self.0.line(x, at, |level| self.slope(level))
    }
}

/// The average velocity of data with this mean: `-a + q (z - (1 - t) a)`.
pub struct Average<'a>(pub &'a Mean);

impl Average<'_> {
    /// `(1 - d_r / d_t) / (t - r)` of deviations `d`, in a form that has a value at `r = t`.
    pub fn q(r: f64, t: f64) -> f64 {
        let deviation = |t: f64| ((1.0 - t) * DATA.std).hypot(t);
        (t + r - DATA.std.powi(2) * (2.0 - t - r)) / ((deviation(t) + deviation(r)) * deviation(t))
    }
}

impl TwoTimes<2> for Average<'_> {
    type Cond = Unconditional;
    fn forward(&self, z: Tensor<2>, r: Tensor<1>, t: Tensor<1>, _: &Unconditional) -> Tensor<2> {
        let column = |x: Tensor<1>| x.unsqueeze_dim::<2>(1);
        let (r, t, s2) = (column(r), column(t), DATA.std.powi(2));
        let deviation = |t: Tensor<2>| ((-t.clone() + 1.0).square() * s2 + t.square()).sqrt();
        let (d_r, d_t, sum) = (deviation(r.clone()), deviation(t.clone()), t.clone() + r);
        let q = (sum.clone() - (-sum + 2.0) * s2) / ((d_t.clone() + d_r) * d_t);
        let a = self.0.value.val().unsqueeze_dim::<2>(1);
        q * (z - (-t + 1.0) * a.clone()) - a
    }
}

pub fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Deviations from the mean, spread as normal draws are.
pub fn quantiles(count: usize) -> Vec<f64> {
    let draw = |i: usize| -> f64 {
        // Exponential and angle of evenly spread draws.
        let [u, w] = [0.618_033_988_75, 0.754_877_666_25].map(|step| ((i as f64 + 0.5) * step).fract());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * w).cos()
    };
    (0..count).map(draw).collect()
}

/// Schedules of each kind, and a cleanest level.
pub fn schedules() -> [(Box<dyn NoiseSchedule>, f64); 3] {
    [
        (Box::new(schedule::Flow::default()), 0.01),
        (Box::new(schedule::Vp::cosine(1000)), 0.01),
        (Box::new(schedule::Edm::default()), 0.0),
    ]
}

/// Of the true denoiser: Euler's error falls with the step's square, Heun's with its third power, and each sample has levels of
/// its own.
#[test]
fn solvers_have_their_order_on_each_sample() {
    let mean = Mean::new(DATA.mean, &Device::flex());
    for (schedule, _) in schedules() {
        for (solver, order) in [(Solver::Euler, 2.0), (Solver::Heun, 3.0)] {
            // Half a unit of ln(sigma / alpha), and half of that.
            let error = |part: f64| {
                let ratios = [0.5, 1.5];
                let from = ratios.map(|ratio| schedule.level_at_ratio(ratio));
                let to = ratios.map(|ratio| schedule.level_at_ratio(ratio * (-part).exp()));
                let x = DATA.points(&[1.3, -0.8], &from, &Device::flex());
                let found = host(&solver.step(&Posterior(&mean), x, (&from, &to), &Unconditional(2)));
                [(0, 1.3), (1, -0.8)].map(|(i, z)| (found[i] - DATA.point(z, to[i])).abs())
            };
            let [whole, half] = [error(0.5), error(0.25)];
            for (whole, half) in whole.into_iter().zip(half) {
                let measured = (whole / half).log2();
                assert!((measured - order).abs() < 0.45, "order {measured} of {solver:?}, {order} expected");
            }
        }
    }
}

/// In one batch a step to clean data and one that is not; both are what they are alone.
#[test]
fn heun_ends_in_clean_data_as_euler_does() {
    let (mean, schedule) = (Mean::new(DATA.mean, &Device::flex()), schedule::Flow::default());
    let level = |t: f64| schedule.level(t);
    let (from, to) = ([level(0.3), level(0.6)], [level(0.0), level(0.4)]);
    let x = tensor(vec![0.9, -0.4], [2, 1], &Device::flex());
    let step = |solver: Solver, x: Tensor<2>, from: &[Level], to: &[Level]| {
        solver.step(&Posterior(&mean), x, (from, to), &Unconditional(from.len()))
    };
    let both = host(&step(Solver::Heun, x.clone(), &from, &to));
    let [clean, other] = [0, 1].map(|i| x.clone().narrow(0, i, 1));
    assert_eq!(both[0], host(&step(Solver::Euler, clean, &from[..1], &to[..1]))[0]);
    assert_eq!(both[1], host(&step(Solver::Heun, other, &from[1..], &to[1..]))[0]);
    let message = panic_text(|| step(Solver::Euler, x, &from, &to[..1]));
    assert!(message.contains("levels of a batch"), "{message}");
}

/// A denoiser's own noise is kept: from `(x0, eps)` to `a' x0 + s' eps`, whatever `x` is.
#[test]
fn a_hop_goes_along_the_noise_that_a_denoiser_gave() {
    let level = |t: f64| schedule::Flow::default().level(t);
    let [x0, eps, x] = [2.0, 3.0, 100.0].map(|value| Tensor::<2>::full([1, 1], value, &Device::flex()));
    let estimate = Estimate { eps: Some(eps), ..Estimate::from(x0) };
    let found = carry(&estimate, &x, (&[level(0.8)], &[level(0.25)]));
    close(host(&found)[0], 0.75 * 2.0 + 0.25 * 3.0, 1e-6);
}

/// Table 1 of the paper, at 400,000 steps.
#[test]
fn curricula_are_the_published_ones() {
    let improved = Curriculum::Doubling { first: 10, last: 1280 };
    let found =
        [0, 49_999, 50_000, 100_000, 349_999, 350_000, 399_999].map(|k| improved.intervals(k, 400_000));
    assert_eq!(found, [10, 10, 20, 40, 640, 1280, 1280]);
    // Where the last is no power of two times the first, the last of the stages is one of it, too.
    let uneven = Curriculum::Doubling { first: 10, last: 100 };
    assert_eq!(
        [0, 91, 92, 184, 276, 367, 368, 399].map(|k| uneven.intervals(k, 400)),
        [10, 10, 20, 40, 80, 80, 100, 100]
    );
    let first = Curriculum::Root { first: 2, last: 150 };
    assert_eq!([0, 200_000, 800_000].map(|k| first.intervals(k, 800_000)), [1, 75, 150]);
    close(first.decay(0.9, 0, 800_000), 0.9, 1e-12);
    close(first.decay(0.9, 800_000, 800_000), (2.0 * 0.9f64.ln() / 151.0).exp(), 1e-12);
    // Fewer steps than stages.
    assert_eq!((0..4).map(|k| improved.intervals(k, 4)).collect::<Vec<_>>(), [10, 20, 40, 80]);
    let message = panic_text(|| Curriculum::Root { first: 3, last: 2 }.intervals(0, 1));
    assert!(message.contains("from 3 to 2"), "{message}");
}

/// `erf` between neighbouring sigmas, as the paper has it.
#[test]
fn intervals_are_drawn_as_a_log_normal_draws_levels() {
    let edm = schedule::Edm::default();
    let levels = Timesteps::edm().ending(canvas_sched::Final::Nothing).levels(&edm, 11).unwrap();
    let ladder = Ladder::new(levels.clone()).unwrap();
    let weighted = ladder.clone().drawn_as(&LevelDistribution::LogNormal { mean: -1.1, std: 2.0 }, &edm);
    let below = |level: Level| {
        let z = (level.sigma.ln() + 1.1) / 2.0;
        0.5 * (1.0 + statrs_erf(z / 2f64.sqrt()))
    };
    let whole = below(levels[0]) - below(levels[10]);
    let count = 20_000;
    for (i, pair) in levels.windows(2).enumerate() {
        let found = |ladder: &Ladder| {
            let hits =
                (0..count).filter(|&k| ladder.path((f64::from(k) + 0.5) / f64::from(count), 1) == pair);
            hits.count() as f64 / f64::from(count)
        };
        close(found(&ladder), 0.1, 1e-4);
        close(found(&weighted), (below(pair[0]) - below(pair[1])) / whole, 1e-4);
        assert_eq!(ladder.levels()[i], pair[0]);
    }
}

/// By its series, which is all that is needed of it.
fn statrs_erf(x: f64) -> f64 {
    let (mut sum, mut term) = (0.0, x);
    for n in 0..200 {
        sum += term / (2 * n + 1) as f64;
        term *= -x * x / (n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn paths_and_blocks_cover_a_ladder() {
    let ladder = Ladder::new(Timesteps::uniform().levels(&schedule::Flow::default(), 8).unwrap()).unwrap();
    let starts = |path: fn(&Ladder, f64) -> &[Level]| {
        let mut starts: Vec<f64> = (0..800).map(|k| path(&ladder, f64::from(k) / 800.0)[0].sigma).collect();
        starts.dedup();
        starts
    };
    assert_eq!(starts(|ladder, draw| ladder.block(draw, 4)), [1.0, 0.5]);
    assert_eq!(starts(|ladder, draw| ladder.path(draw, 5)), [1.0, 0.875, 0.75, 0.625]);
    assert_eq!(ladder.path(0.999, 5).last().unwrap().sigma, 0.0);
    assert!(panic_text(|| ladder.block(0.0, 3).len()).contains("8 in blocks of 3"));
    assert!(panic_text(|| ladder.path(0.0, 9).len()).contains("9 hops on a ladder of 8"));
    let mut rising = ladder.levels().to_vec();
    rising.reverse();
    assert!(Ladder::new(rising).unwrap_err().to_string().contains("wrong way"));
}

/// `p = 1/2` has the gradient of a pseudo-Huber, `p = 0` is the square; both by hand.
#[test]
fn metrics_are_of_whole_samples() {
    let device = Device::flex().autodiff();
    let answer = tensor::<2>(wave(6, 0.3, 1.0), [2, 3], &device).require_grad();
    let target = tensor::<2>(wave(6, 1.9, 1.0), [2, 3], &device);
    let gradient = |loss: Tensor<1>| host(&answer.grad(&loss.sum().backward()).unwrap());
    let errors: Vec<f64> = host(&(answer.clone() - target.clone()));
    let squares: Vec<f64> = errors.chunks(3).map(|row| row.iter().map(|e| e * e).sum()).collect();

    let c = 0.3;
    let huber = PseudoHuber { c }.between(answer.clone(), target.clone());
    for (found, square) in host(&huber).iter().zip(&squares) {
        close(*found, (square + c * c).sqrt() - c, 1e-6);
    }
    let of_huber = gradient(huber);
    let of_root = gradient(Adaptive { power: 0.5, c: c * c }.between(answer.clone(), target.clone()));
    for (i, error) in errors.iter().enumerate() {
        close(of_huber[i], error / (squares[i / 3] + c * c).sqrt(), 1e-6);
        close(of_root[i], 2.0 * of_huber[i], 1e-6);
    }
    let square = host(&Adaptive { power: 0.0, c }.between(answer.clone(), target.clone()));
    let mean = host(&Distance::Squared.between(answer, target));
    for i in 0..2 {
        close(square[i], squares[i], 1e-6);
        close(mean[i], squares[i] / 3.0, 1e-6);
    }
    close(PseudoHuber::of_numbers(3 * 32 * 32).c, 0.03, 1e-4); // as the paper says of CIFAR-10
}

/// Each sample by its own scale, as `Cfg` is by one for all.
#[test]
fn a_teacher_is_guided_by_each_samples_scale() {
    struct Label;
    impl Denoiser<2> for Label {
        type Cond = canvas_core::Class;
        fn denoise(&self, x: Tensor<2>, _: &[Level], cond: &canvas_core::Class) -> Estimate<2> {
            let labels = cond.labels.clone().float().reshape([x.dims()[0], 1]);
            (x.square() + labels).into()
        }
    }
    let device = Device::flex();
    let (null, at) = (canvas_core::Class::new(&[9], &device), [schedule::Flow::default().level(0.4)]);
    let guided = Guided { denoiser: Label, null: null.clone() };
    let scales = GuidanceScale::uniform([1.0, 15.0], &[0.0, 0.25, 0.5], &device);
    let classes = canvas_core::Class::new(&[3, 1, 4], &device);
    let x = tensor::<2>(wave(3, 0.2, 1.0), [3, 1], &device);
    let found = host(&guided.denoise(x.clone(), &at, &(scales.clone(), classes.clone())).x0);
    for (i, scale) in [1.0, 4.5, 8.0].into_iter().enumerate() {
        let plain = canvas_sched::Cfg::new(Label, null.clone(), scale).denoise(x.clone(), &at, &classes);
        close(found[i], host(&plain.x0)[i], 1e-5);
    }
    let picked = canvas_core::Condition::select(&scales, &[2, 2, 0]);
    let joined: GuidanceScale = canvas_core::Condition::cat(&[picked, scales.clone()]);
    assert_eq!(host(&joined.values), [8.0, 8.0, 1.0, 1.0, 4.5, 8.0]);
    let message = panic_text(|| guided.denoise(x, &at, &(joined, classes)));
    assert!(message.contains("guidance scales of a batch"), "{message}");
}

/// A state whose target is known has the noise that is left.
#[test]
fn a_batch_of_states_is_the_one_it_was_made_of() {
    let at = [0.9, 0.3].map(|t| schedule::Vp::cosine(1000).level(t)).to_vec();
    let [x0, eps] = [0.1, 1.2].map(|seed| tensor::<2>(wave(6, seed, 1.0), [2, 3], &Device::flex()));
    let noised = canvas_train::Noised::new(x0.clone(), eps.clone(), at.clone());
    let again = canvas_train::Noised::of_state(noised.x.clone(), x0, at);
    host(&again.eps).iter().zip(host(&eps)).for_each(|(found, eps)| close(*found, eps, 1e-5));
    let clean = vec![Level { time: 0.0, alpha: 1.0, sigma: 0.0 }; 2];
    let message = panic_text(|| canvas_train::Noised::of_state(noised.x.clone(), noised.x, clean));
    assert!(message.contains("without noise"), "{message}");
}

/// Evenly spread draws for sample `i` of step `k`.
pub fn draw(k: usize, i: usize, purpose: u64) -> f64 {
    Draws::Stratified.at(purpose, (64 * k + i) as u64)
}
