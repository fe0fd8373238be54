use crate::{assert_near, host, host64, tensor, waves};
use burn::prelude::*;
use canvas_core::{
    Estimate, Evaluation, GridError, Hop, Level, Noise, NoiseSchedule, Run, Sampler, Seeded, Std, Step,
};
use std::f64::consts::PI;
use std::sync::Mutex;

fn level(alpha: f64, sigma: f64) -> Level {
    Level { time: sigma, alpha, sigma }
}

/// Pairs of levels without a pattern.
fn pairs() -> impl Iterator<Item = (Level, Level)> {
    let number = |i: f64| 0.05 + (i * 12.9898).sin().abs();
    (0..20)
        .map(move |i| f64::from(i) * 4.0)
        .map(move |i| (level(number(i), number(i + 1.0)), level(number(i + 2.0), number(i + 3.0))))
}

/// Noise added to data that keeps its scale.
struct Exploding;

impl NoiseSchedule for Exploding {
    fn level(&self, t: f64) -> Level {
        level(1.0, t)
    }
}

fn evaluation(x: &Tensor<2>, x0: &Tensor<2>, level: Level) -> Evaluation<2> {
    Evaluation { level, x: x.clone(), estimate: x0.clone().into() }
}

/// Noise that counts its draws: all ones, then all twos.
#[derive(Default)]
struct Counting(usize);

impl Noise<2> for Counting {
    fn normal_like(&mut self, x: &Tensor<2>) -> Tensor<2> {
        self.0 += 1;
        x.full_like(self.0 as f64)
    }
}

#[test]
fn carry_is_ddim_and_euler_in_edms_and_in_flow_matchings_variables() {
    let (x, x0) = (waves([2, 3], 0.0), waves([2, 3], 0.7));
    let (a, b) = (host64(&x), host64(&x0));
    let carried = |from, to| evaluation(&x, &x0, from).carry(to);
    let by_hand =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(&b).map(|(&x, &x0)| f(x, x0)).collect::<Vec<_>>();
    for (from, to) in pairs() {
        let ddim = |x: f64, x0: f64| to.alpha * x0 + to.sigma * (x - from.alpha * x0) / from.sigma;
        assert_near(&carried(from, to), &by_hand(&ddim), 1e-4);
        let (s, next) = (from.sigma, to.sigma);
        let edm = |x: f64, x0: f64| x + (next - s) * (x - x0) / s;
        assert_near(&carried(level(1.0, s), level(1.0, next)), &by_hand(&edm), 1e-4);
        let flow = |x: f64, x0: f64| x + (next - s) * ((x - (1.0 - s) * x0) / s - x0);
        assert_near(&carried(level(1.0 - s, s), level(1.0 - next, next)), &by_hand(&flow), 1e-4);
    }
}

#[test]
fn carry_eps_is_ddim_too() {
    let (x, eps) = (waves([2, 3], 0.0), waves([2, 3], 0.7));
    for (from, to) in pairs() {
        let ddim = |(x, eps): (f64, f64)| to.alpha * (x - from.sigma * eps) / from.alpha + to.sigma * eps;
        let expected: Vec<f64> = host64(&x).into_iter().zip(host64(&eps)).map(ddim).collect();
        // A noise estimate, one given with the clean estimate, and one implied by it, all agree.
        let x0 = (x.clone() - eps.clone() * from.sigma) / from.alpha;
        let implied = evaluation(&x, &x0, from);
        assert_near(&implied.carry_eps(eps.clone(), to), &expected, 1e-4);
        assert_near(&implied.carry(to), &expected, 1e-3);
        let given = Estimate { eps: Some(eps.clone()), ..x0.into() };
        let given = Evaluation { estimate: given, ..implied };
        assert_near(&given.carry(to), &expected, 1e-3);
        assert_eq!(host(&given.eps()), host(&eps));
    }
}

#[test]
fn carry_starts_at_pure_noise_and_ends_at_the_estimate() {
    let (x, x0) = (waves([1, 4], 0.0), waves([1, 4], 0.7));
    let first = evaluation(&x, &x0, level(0.0, 1.0)).carry(level(0.1, 0.9));
    let expected: Vec<f64> = host64(&x).iter().zip(host64(&x0)).map(|(x, x0)| 0.9 * x + 0.1 * x0).collect();
    assert_near(&first, &expected, 1e-6);
    let last = evaluation(&x, &x0, level(0.1, 0.9)).carry(level(1.0, 0.0));
    assert_eq!(host(&last), host(&x0));
}

#[test]
fn log_prob_is_the_gaussians() {
    let (mean, eval) =
        (waves([2, 3], 0.0), evaluation(&waves([2, 3], 0.0), &waves([2, 3], 0.0), level(1.0, 1.0)));
    let step = Step::random(mean.clone(), 0.4, eval.clone());
    let next = waves([2, 3], 0.3);
    let density = |(x, mean): (f64, f64)| {
        let z: f64 = (x - mean) / 0.4;
        ((-0.5 * z * z).exp() / (0.4 * (2.0 * PI).sqrt())).ln()
    };
    let each: Vec<f64> = host64(&next).into_iter().zip(host64(&step.mean)).map(density).collect();
    let expected = [each[..3].iter().sum(), each[3..].iter().sum()];
    assert_near(&step.log_prob(next.clone()), &expected, 1e-5);
    let each = Step { mean: mean.clone(), std: Std::Each(mean.full_like(0.4)), eval };
    assert_near(&each.log_prob(next), &expected, 1e-5);
}

#[test]
#[should_panic(expected = "deterministic step")]
fn a_deterministic_step_has_no_log_prob() {
    let x = waves([1, 2], 0.0);
    Step::exact(x.clone(), evaluation(&x, &x, level(1.0, 1.0))).log_prob(x);
}

/// Checks what each hop is given; moves by one, with this spread.
struct Watcher {
    std: f64,
    hops: Mutex<Vec<(usize, usize, usize)>>,
}

impl Sampler<2> for Watcher {
    fn step(&self, x: Tensor<2>, hop: &mut Hop<'_, 2>) -> Step<2> {
        self.hops.lock().unwrap().push((hop.index, hop.count, hop.past.len()));
        if let Some(last) = hop.past.last() {
            assert_eq!(last.level.sigma, hop.from.sigma + 1.0, "the last step started one level before");
            assert_eq!(host(&last.x0()), host(&(last.x.clone() * 10.0)), "its own estimate is remembered");
        }
        let here = hop.start(x);
        Step::random(here.x.clone() + 1.0, self.std, here)
    }

    fn memory(&self) -> usize {
        2
    }
}

/// Runs a watcher over four levels; the final state, draws, and hops seen.
fn watch(std: f64) -> (Vec<f32>, usize, Vec<(usize, usize, usize)>) {
    let levels = [3.0, 2.0, 1.0, 0.0].map(|sigma| level(1.0, sigma));
    let (sampler, mut noise) = (Watcher { std, hops: Mutex::default() }, Counting::default());
    let run = Run::new(&sampler, &Exploding, &levels, &mut noise).unwrap();
    let mut seen = Vec::new();
    let end = run.watch(|x, _| x * 10.0, tensor(&[0.5], [1, 1]), &mut |progress| {
        assert_eq!((progress.count, progress.step.std.same()), (3, std));
        seen.push((progress.done, host(progress.x)[0]));
    });
    assert_eq!(seen.iter().map(|(done, _)| *done).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(seen[2].1, host(&end)[0], "the last state shown is the result");
    let hops = sampler.hops.lock().unwrap().clone();
    (host(&end), noise.0, hops)
}

#[test]
fn a_run_passes_history_and_counts() {
    let (end, _, hops) = watch(0.0);
    assert_eq!(hops, [(0, 3, 0), (1, 3, 1), (2, 3, 2)]);
    assert_eq!(end, [3.5]);
}

/// A run keeps what its sampler looks back at, and no more.
#[test]
fn a_run_forgets_what_is_not_asked_for() {
    let levels: Vec<Level> = (0..6).rev().map(|sigma| level(1.0, f64::from(sigma))).collect();
    let (sampler, mut noise) = (Watcher { std: 0.0, hops: Mutex::default() }, Counting::default());
    let run = Run::new(&sampler, &Exploding, &levels, &mut noise).unwrap();
    run.sample(|x, _| x * 10.0, tensor(&[0.5], [1, 1]));
    let kept: Vec<usize> = sampler.hops.lock().unwrap().iter().map(|hop| hop.2).collect();
    assert_eq!(kept, [0, 1, 2, 2, 2]);
}

#[test]
fn noise_is_drawn_once_a_step_and_only_with_spread() {
    assert_eq!(watch(0.0).1, 0);
    let (end, draws, _) = watch(0.25);
    assert_eq!(draws, 3);
    assert_eq!(end, [0.5 + 3.0 + 0.25 * (1.0 + 2.0 + 3.0)]);
}

/// A sampler around a sampler: adds one step's worth of noise of its own first.
struct Churned<S>(S);

impl<S: Sampler<2>> Sampler<2> for Churned<S> {
    fn step(&self, x: Tensor<2>, hop: &mut Hop<'_, 2>) -> Step<2> {
        let higher = Level { sigma: hop.from.sigma * 2.0, ..hop.from };
        let x = x.clone() + hop.fresh_noise(&x);
        let to = hop.to;
        let mut hop = hop.between(higher, to);
        assert_eq!((hop.from, hop.count, hop.past.len()), (higher, 3, 0));
        self.0.step(x, &mut hop)
    }
}

/// Follows the clean estimate.
struct Euler;

impl Sampler<2> for Euler {
    fn step(&self, x: Tensor<2>, hop: &mut Hop<'_, 2>) -> Step<2> {
        let here = hop.start(x);
        Step::exact(here.carry(hop.to), here)
    }
}

#[test]
fn a_wrapping_sampler_sees_its_own_level_and_draws_its_own_noise() {
    let levels = [3.0, 2.0, 1.0, 0.0].map(|sigma| level(1.0, sigma));
    let mut noise = Counting::default();
    let wrapped: Box<dyn Sampler<2>> = Box::new(Churned(Euler));
    let run = Run::new(&wrapped, &Exploding, &levels, &mut noise).unwrap();
    // The estimate is always 0, so each hop is x * to / (2 from).
    let end = run.sample(|x, _| x.zeros_like(), tensor(&[6.0], [1, 1]));
    assert_eq!((host(&end), noise.0), (vec![0.0], 3));
}

#[test]
fn a_stochastic_run_repeats_with_its_seed_and_does_not_depend_on_the_batch() {
    let levels = [3.0, 2.0, 1.0, 0.0].map(|sigma| level(1.0, sigma));
    let run = |images: Vec<u64>| {
        let start = tensor(&vec![0.5; images.len() * 2], [images.len(), 2]);
        let (sampler, mut noise) = (Watcher { std: 0.3, hops: Mutex::default() }, Seeded::new(1, images));
        let run = Run::new(&sampler, &Exploding, &levels, &mut noise).unwrap();
        host(&run.sample(|x, _| x * 10.0, start))
    };
    assert_eq!(run(vec![4, 9]), run(vec![4, 9]));
    assert_eq!(run(vec![4, 9])[2..], run(vec![9]));
    assert_ne!(run(vec![4]), run(vec![9]));
}

#[test]
fn a_grid_that_cannot_be_run_says_why() {
    let refused = |levels: &[Level]| {
        let mut noise = Counting::default();
        Run::new(&Euler, &Exploding, levels, &mut noise).err().unwrap()
    };
    assert_eq!(refused(&[level(1.0, 1.0)]), GridError::TooFew(1));
    let error = refused(&[level(1.0, 1.0), level(1.0, 0.5), level(1.0, 0.6)]).to_string();
    assert_eq!(
        error,
        "the grid goes the wrong way: level 2 has sigma/alpha = 0.6 after 0.5, and this sampler runs from \
         noise to data"
    );
    let error = refused(&[level(1.0, 1.0), level(1.0, f64::NAN)]).to_string();
    assert!(error.contains("level 1 has sigma/alpha = NaN"), "{error}");
}
