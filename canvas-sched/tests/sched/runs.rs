//! Any sampler x schedule x grid x steps x guidance: refused with a reason, or finite to
//! the end.

use crate::oracle::DATA;
use crate::properties::config;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Class, Denoiser, Estimate, Level, Run, Seeded};
use canvas_sched::by_name::{self, GRIDS, SAMPLERS, SCHEDULES, TRANSFORMS};
use canvas_sched::{Apg, Autoguidance, Cfg, CfgPp, CfgZeroStar, Clip, Composed, DynamicThreshold, Tcfg};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use std::cell::Cell;

/// Mostly short runs, some of up to 2000 steps.
fn steps() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..=30usize, 2 => 31..=300usize, 1 => 301..=2000usize]
}

fn grids() -> impl Strategy<Value = String> {
    let transform = prop_oneof![Just(String::new()), select(TRANSFORMS).prop_map(|name| format!(" {name}"))];
    (select(GRIDS), transform).prop_map(|(spacing, transform)| format!("{spacing}{transform}"))
}

/// The oracle's estimate, moved by the label.
struct Labelled;

impl Denoiser<2> for Labelled {
    type Cond = Class;
    fn denoise(&self, x: Tensor<2>, at: &[Level], cond: &Class) -> Estimate<2> {
        let labels = cond.labels.clone().float().cast(x.dtype()).reshape([-1, 1]);
        // Not quite linear, so that a fast-growing state would show.
        (DATA.denoise(x.clone(), at[0]) + x.sin() * 0.01 + labels * 0.1).into()
    }
}

const GUIDANCE: [&str; 10] =
    ["none", "cfg", "cfg++", "apg", "cfg-zero*", "tcfg", "autoguidance", "composed", "clip", "threshold"];

/// A denoiser of a name in [`GUIDANCE`], bound to its condition.
fn guided(name: &str) -> Box<dyn Fn(Tensor<2>, Level) -> Estimate<2>> {
    let device = Device::flex();
    let (null, cond) = (Class::new(&[0], &device), Class::new(&[1, 2], &device));
    fn bound(
        denoiser: impl Denoiser<2, Cond = Class> + 'static,
        cond: Class,
    ) -> Box<dyn Fn(Tensor<2>, Level) -> Estimate<2>> {
        Box::new(move |x, level| denoiser.denoise(x, &[level], &cond))
    }
    match name {
        "none" => bound(Labelled, cond),
        "cfg" => bound(Cfg::new(Labelled, null, 3.0).within(0.1, 10.0), cond),
        "cfg++" => bound(CfgPp::new(Labelled, null, 0.6), cond),
        "apg" => bound(Apg::new(Labelled, null, 3.0), cond),
        "cfg-zero*" => bound(CfgZeroStar::new(Labelled, null, 3.0), cond),
        "tcfg" => bound(Tcfg::new(Labelled, null, 3.0), cond),
        "autoguidance" => bound(Autoguidance::new(Labelled, Labelled, 2.0), cond),
        "composed" => bound(Composed::new(Labelled, null, 2.0).and(Class::new(&[3], &device), -0.5), cond),
        "clip" => bound(Clip::new(Labelled, 1.0).keep_noise(), cond),
        _ => bound(DynamicThreshold::new(Labelled, 0.9), cond),
    }
}

#[test]
fn every_run_is_refused_or_finite() {
    let (cases, ran) = (1000, Cell::new(0));
    let mut runner = TestRunner::new(config(cases));
    let what = (select(SAMPLERS), select(SCHEDULES), grids(), steps(), select(&GUIDANCE), any::<u64>());
    let outcome = runner.run(&what, |(sampler, schedule, grid, steps, guidance, seed)| {
        let schedule = by_name::schedule(schedule).unwrap();
        let Ok(grid) = by_name::grid(&grid) else { return Ok(()) }; // a spacing that takes no transform
        let Ok(levels) = grid.levels(&schedule, steps) else { return Ok(()) };
        let sampler = by_name::sampler::<2>(sampler).unwrap();
        let mut noise = Seeded::new(seed, [0, 1]);
        let Ok(run) = Run::new(&sampler, &schedule, &levels, &mut noise) else { return Ok(()) };
        ran.set(ran.get() + 1);
        let (mean, std) = DATA.marginal(levels[0]);
        let unit = TensorData::new(vec![-1.5f64, 0.1, 0.7, 2.0], [2, 2]);
        let x = Tensor::<2>::from_data(unit, (&Device::flex(), DType::F64)) * std + mean;
        let broken = Cell::new(None);
        run.watch(guided(guidance), x, &mut |progress| {
            let finite = progress.x.to_data().iter::<f64>().all(f64::is_finite);
            if !finite && broken.get().is_none() {
                broken.set(Some(progress.done));
            }
        });
        prop_assert_eq!(broken.get(), None, "the step after which the state is not finite");
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    println!("{} of {cases} ran, the rest was refused", ran.get());
    assert!(ran.get() > cases / 3, "only {} of {cases} ran", ran.get());
}
