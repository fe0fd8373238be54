//! Painting within a mask, and runs that start late.

use burn::prelude::*;
use canvas_core::{Level, Noise, Run, Sampler, Seeded, mix};
use canvas_sched::by_name::{SAMPLERS, sampler};
use canvas_sched::{Ddim, Euler, Heun, Inpaint, Timesteps, schedule};

const SIZE: [usize; 4] = [2, 3, 4, 6];

fn pattern(phase: f32) -> Tensor<4> {
    let i = Tensor::<1, Int>::arange(0..144, &Device::flex()).float();
    (i.clone() * 0.7 + i.square() * 0.013 + phase).sin().reshape(SIZE)
}

/// White on the right.
fn mask() -> Tensor<4> {
    let values = (0..24).map(|i| if i % 6 > 2 { 1.0f32 } else { 0.0 }).collect::<Vec<_>>();
    Tensor::<4>::from_data(TensorData::new(values, [1, 1, 4, 6]), &Device::flex()).repeat_dim(0, 2)
}

fn off(a: &Tensor<4>, b: &Tensor<4>) -> f32 {
    (a.clone() - b.clone()).abs().max().into_scalar::<f32>()
}

/// A network that shrinks what it sees.
fn denoise(x: Tensor<4>, level: Level) -> Tensor<4> {
    (x * (0.9 / (1.0 + level.sigma))).tanh()
}

fn drawn(sampler: &dyn Sampler<4>, first: usize) -> Tensor<4> {
    let vp = schedule::Vp::scaled_linear(1000);
    let levels = Timesteps::leading(1000, 1).levels(&vp, 6).unwrap();
    let mut noise = Seeded::new(3, [0, 1]);
    let unit = noise.normal_like(&pattern(0.0));
    let x = mix(pattern(0.0), unit, &[levels[first]]);
    Run::new(sampler, &vp, &levels, &mut noise).unwrap().starting(first).sample(denoise, x)
}

fn within(inner: &dyn Sampler<4>, mask: Tensor<4>) -> Tensor<4> {
    let (clean, noise) = (pattern(0.0), Seeded::new(3, [0, 1]).normal_like(&pattern(0.0)));
    drawn(&Inpaint { inner, clean, noise, mask }, 0)
}

#[test]
fn the_picture_stays_outside_of_the_mask_with_every_sampler() {
    for name in SAMPLERS {
        let inner = sampler::<4>(name).unwrap();
        let found = within(&*inner, mask());
        let kept = |x: &Tensor<4>| x.clone().narrow(3, 0, 3);
        assert_eq!(off(&kept(&found), &kept(&pattern(0.0))), 0.0, "{name}");
        let painted = off(&found.narrow(3, 3, 3), &pattern(0.0).narrow(3, 3, 3));
        assert!(painted > 1e-2 && painted.is_finite(), "{name}: {painted}");
    }
}

#[test]
fn a_white_mask_changes_nothing() {
    for name in SAMPLERS {
        let inner = sampler::<4>(name).unwrap();
        assert_eq!(off(&within(&*inner, mask().ones_like()), &drawn(&*inner, 0)), 0.0, "{name}");
    }
}

#[test]
fn questions_within_a_step_agree_with_the_picture() {
    // Heun asks twice; a network that does what it sees elsewhere would else see the unknown picture.
    let seen = std::cell::RefCell::new(Vec::new());
    let vp = schedule::Vp::scaled_linear(1000);
    let levels = Timesteps::leading(1000, 1).levels(&vp, 4).unwrap();
    let mut noise = Seeded::new(3, [0, 1]);
    let unit = noise.normal_like(&pattern(0.0));
    let painter = Inpaint { inner: Heun, clean: pattern(0.0), noise: unit.clone(), mask: mask() };
    let asked = |x: Tensor<4>, level: Level| {
        seen.borrow_mut().push((x.clone(), level));
        denoise(x, level)
    };
    let start = mix(pattern(0.0), unit.clone(), &levels[..1]);
    Run::new(&painter, &vp, &levels, &mut noise).unwrap().sample(asked, start);
    assert_eq!(seen.borrow().len(), 7); // twice a hop, but the last to clean data
    for (x, level) in seen.take() {
        let known = mix(pattern(0.0), unit.clone(), &[level]);
        assert!(off(&x.narrow(3, 0, 3), &known.narrow(3, 0, 3)) < 1e-6, "{level:?}");
    }
}

#[test]
fn a_late_start_is_the_end_of_the_run() {
    for inner in [&Euler as &dyn Sampler<4>, &Heun, &Ddim { eta: 0.0 }] {
        let vp = schedule::Vp::scaled_linear(1000);
        let levels = Timesteps::leading(1000, 1).levels(&vp, 6).unwrap();
        let mut noise = Seeded::new(3, [0, 1]);
        let x = mix(pattern(0.0), noise.normal_like(&pattern(0.0)), &[levels[2]]);
        let part = Run::new(inner, &vp, &levels[2..], &mut noise).unwrap().sample(denoise, x);
        assert_eq!(off(&drawn(inner, 2), &part), 0.0);
    }
}

#[test]
#[should_panic(expected = "a run from level 6 of 6 hops")]
fn a_start_behind_the_end_is_refused() {
    drawn(&Euler, 6);
}
