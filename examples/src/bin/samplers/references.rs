//! How far samplers are from the numbers of other codes, by running the comparisons of canvas-sched's tests.

use crate::facts::Judge;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

// The test files themselves, so that the page says what the tests compare.
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../../../canvas-sched/tests/sched/diffusers.rs"]
mod diffusers;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../../../canvas-sched/tests/sched/k_diffusion.rs"]
mod k_diffusion;

/// As in the tests: asserts that two numbers differ by at most a tolerance.
#[track_caller]
fn close(found: f64, expected: f64, tolerance: f64) {
    let off = (found - expected).abs();
    assert!(off <= tolerance, "found {found}, expected {expected} +- {tolerance} (off by {off:e})");
}

/// Runs compared and the largest deviation, for each class of diffusers and each function of k-diffusion.
pub struct References(BTreeMap<String, (usize, f64)>);

impl References {
    /// Runs all comparisons.
    ///
    /// # Panics
    /// If one is off by more than the tests allow.
    pub fn compare() -> Self {
        let mut all = k_diffusion::compare_all();
        let classes = diffusers::compare_all().into_iter();
        all.extend(classes.map(|(class, tally)| (class, (tally.compared, tally.states))));
        Self(all)
    }

    /// Who a sampler is compared with, in how many runs, and how far off it is at most.
    pub fn cell(&self, judge: Judge) -> Result<(String, String, String)> {
        let (code, name) = match judge {
            Judge::Diffusers(class) => ("diffusers", class),
            Judge::KDiffusion(function) => ("k-diffusion", function),
            Judge::Test(code, allowed, file) => {
                let link = format!("[test](tests/sched/{file})");
                return Ok((code.to_owned(), link, format!("< {allowed}")));
            }
        };
        let &(runs, off) =
            self.0.get(name).with_context(|| format!("{name}: nothing is compared with it"))?;
        Ok((format!("{code} `{name}`"), runs.to_string(), at_most(off)))
    }

    /// Runs compared, in all.
    pub fn runs(&self) -> usize {
        self.0.values().map(|tally| tally.0).sum()
    }
}

/// A power of ten above a deviation; the last bits of a sine are the machine's own, so not below 1e-12.
fn at_most(off: f64) -> String {
    let power = off.log10().floor() as i32 + 1;
    format!("< 1e{}", power.max(-12))
}
