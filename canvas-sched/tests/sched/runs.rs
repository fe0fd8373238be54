//! Any sampler x schedule x grid x steps, through a network-like denoiser: refused with a reason, or finite to
//! the end.

use crate::oracle::DATA;
use crate::properties::config;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Run, Seeded};
use canvas_sched::by_name::{self, GRIDS, SAMPLERS, SCHEDULES, TRANSFORMS};
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

#[test]
fn every_run_is_refused_or_finite() {
    let (cases, ran) = (1000, Cell::new(0));
    let mut runner = TestRunner::new(config(cases));
    let what = (select(SAMPLERS), select(SCHEDULES), grids(), steps(), any::<u64>());
    let outcome = runner.run(&what, |(sampler, schedule, grid, steps, seed)| {
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
        // Not quite linear, so that a fast-growing state would show.
        let denoise = |x: Tensor<2>, level| DATA.denoise(x.clone(), level) + x.sin() * 0.01;
        run.watch(denoise, x, &mut |progress| {
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
