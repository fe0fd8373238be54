//! Guidance against diffusers' guiders (fixture by `tools/fixtures_guidance.py`), in f64 and in every space.

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Class, Condition, Denoiser, Estimate, Evaluation, Level, per_sample, trace};
use canvas_sched::{
    Apg, Autoguidance, Cfg, CfgZeroStar, Clip, Composed, DynamicThreshold, Pag, Rescale, Slg, Space, Tcfg,
};
use serde_json::Value;

const SPACES: [(&str, Space); 4] =
    [("x0", Space::X0), ("eps", Space::Eps), ("velocity", Space::Velocity), ("flow", Space::Flow)];
const AT: [Level; 2] =
    [Level { time: 0.4, alpha: 0.8, sigma: 0.5 }, Level { time: 0.8, alpha: 0.3, sigma: 0.9 }];
const NULL: usize = 0;
const COND: usize = 1;
const WORSE: usize = 2;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/guidance.json")).unwrap()
}

fn tensor(values: Vec<f64>) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values, [2, 3, 2, 4]), (&Device::flex(), DType::F64))
}

fn pattern(seed: f64) -> Tensor<4> {
    tensor((0..48).map(|i| (0.37 * f64::from(i) + seed).sin()).collect())
}

fn x() -> Tensor<4> {
    pattern(1.0)
}

fn class(label: usize) -> Class {
    Class::new(&[label], &Device::flex())
}

/// What the script's network says of each label. An attention map and a block stand between it and "worse".
#[derive(Clone, Copy)]
struct Table {
    /// Which of the script's steps this is.
    step: f64,
}

const TABLE: Table = Table { step: 0.0 };

impl Denoiser<4> for Table {
    type Cond = Class;
    fn denoise(&self, x: Tensor<4>, _at: &[Level], cond: &Class) -> Estimate<4> {
        let rows = [
            pattern(2.9) * (1.0 - 0.3 * self.step),
            pattern(2.0) * (1.5 + 0.3 * self.step),
            pattern(3.4) * 0.7,
        ];
        let row = |(i, label): (usize, i64)| rows[label as usize].clone().narrow(0, i % 2, 1);
        let labels = cond.spread(x.dims()[0]).labels.to_data();
        let plain = Tensor::cat(labels.iter::<i64>().enumerate().map(row).collect(), 0);
        let worse = rows[WORSE].clone().repeat_dim(0, x.dims()[0] / 2);
        let map = Tensor::full([1, 1, 2, 2], 0.5, (&x.device(), DType::F64));
        let map = trace::tap(|| "attention.map".into(), map);
        let seen = map.slice([0..1, 0..1, 0..1, 1..2]) * 2.0; // 0 where tokens see themselves alone
        let mixed = worse.clone() + (plain - worse.clone()) * seen;
        trace::block(|| "block".into(), worse, |_| mixed).into()
    }
}

/// Largest difference, relative to the largest expected value.
fn off(found: Tensor<4>, expected: &Value) -> f64 {
    let expected: Vec<f64> =
        expected.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let found: Vec<f64> = found.into_data().iter::<f64>().collect();
    assert_eq!(found.len(), expected.len());
    let largest = if largest == 0.0 { 1.0 } else { largest };
    found.iter().zip(&expected).fold(0.0, |most: f64, (a, b)| most.max((a - b).abs())) / largest
}

#[track_caller]
fn same(name: &str, found: Tensor<4>, expected: &Value) {
    let off = off(found, expected);
    println!("{name}: {off:.1e}");
    assert!(off < 1e-12, "{name}: relative error {off:.2e}");
}

/// Holds a denoiser in each space against the case of this name.
#[track_caller]
fn compare<N: Denoiser<4, Cond = Class>>(case: &str, make: impl Fn(Space) -> N) {
    let fixture = fixture();
    for (name, space) in SPACES {
        let found = make(space).denoise(x(), &AT, &class(COND)).x0;
        same(&format!("{case} in {name}"), found, &fixture["cases"][case][name]);
    }
}

fn cfg(scale: f64) -> Cfg<Table, Class> {
    Cfg::new(TABLE, class(NULL), scale)
}

#[test]
fn affine_methods_are_the_same_in_every_space() {
    compare("cfg", |_| cfg(3.0));
    compare("cfg", |_| cfg(3.0).one_by_one());
    compare("cfg", |_| Composed::new(TABLE, class(NULL), 3.0));
    compare("cfg", |_| Composed::new(TABLE, class(NULL), 1.0).and(class(COND), 2.0));
    compare("auto", |_| Autoguidance::new(TABLE, Always(WORSE), 2.0));
    compare("pag_cfg", |_| Pag::new(cfg(3.0), &["attention.map"], 2.0));
    compare("slg_cfg", |_| Slg::new(cfg(3.0), &["block"], 2.0));
}

/// The table's answer to one label, whatever is asked.
struct Always(usize);

impl Denoiser<4> for Always {
    type Cond = Class;
    fn denoise(&self, x: Tensor<4>, at: &[Level], _cond: &Class) -> Estimate<4> {
        TABLE.denoise(x, at, &Class::new(&[self.0; 2], &Device::flex()))
    }
}

/// diffusers' default without CFG starts at the perturbed estimate: its scale is larger by 1.
#[test]
fn pag_without_cfg_is_the_original_formulation_of_diffusers() {
    compare("pag_original", |_| Pag::new(cfg(1.0), &["attention.map"], 2.0));
    compare("pag_default", |_| Pag::new(cfg(1.0), &["attention.map"], 1.0));
}

#[test]
fn rescaling_depends_on_the_space_and_equals_diffusers_in_each() {
    compare("rescale", |space| cfg(3.0).rescaled(Rescale { phi: 0.7, space }));
    let both = |space| cfg(3.0).rescaled(Rescale { phi: 0.7, space });
    compare("pag_cfg_rescale", |space| Pag::new(both(space), &["attention.map"], 2.0));
    let cases = &fixture()["cases"]["rescale"];
    let found = |space| both(space).denoise(x(), &AT, &class(COND)).x0;
    for (name, space) in SPACES {
        for (other, _) in SPACES.iter().filter(|(other, _)| *other != name) {
            let off = off(found(space), &cases[*other]);
            assert!(off > 1e-3, "{name} and {other}: {off:.1e}");
        }
    }
    let default = cfg(3.0).rescaled(Rescale::new(0.7)).denoise(x(), &AT, &class(COND)).x0;
    same("by default velocity", default, &cases["velocity"]);
}

fn apg(scale: f64, space: Space, step: f64) -> Apg<Table, Class> {
    Apg { eta: 0.3, threshold: 1.5, space, ..Apg::new(Table { step }, class(NULL), scale) }
}

#[test]
fn apg_is_the_papers_and_its_difference_from_diffusers_default_is_known() {
    compare("apg_original_4", |space| apg(5.0, space, 0.0));
    // diffusers: u + scale update. The paper: c + (scale - 1) update. They differ by (c - u) - update.
    for (name, space) in SPACES {
        let [said, null] =
            [COND, NULL].map(|label| TABLE.denoise(x(), &AT, &Class::new(&[label; 2], &Device::flex())).x0);
        let ours = apg(5.0, space, 0.0).denoise(x(), &AT, &class(COND)).x0;
        let update = (ours.clone() - said.clone()) / 4.0;
        let theirs = ours.clone() - (said - null - update);
        let expected = &fixture()["cases"]["apg_default_5"][name];
        same(&format!("apg default in {name}"), theirs, expected);
        assert!(off(ours, expected) > 1e-2);
    }
}

/// Three steps, twice: a new run remembers nothing of the last.
#[test]
fn apg_momentum_is_that_of_one_run() {
    for _run in 0..2 {
        for (name, space) in SPACES {
            let table = std::cell::Cell::new(TABLE);
            let apg = Apg { eta: 0.3, threshold: 1.5, space, ..Apg::new(Steps(&table), class(NULL), 5.0) };
            let run = apg.run::<4>(-0.5);
            for step in 0..3 {
                table.set(Table { step: step as f64 });
                let found = run.denoise(x(), &AT, &class(COND)).x0;
                let expected = &fixture()["cases"]["apg_original_4_momentum"][name][step];
                same(&format!("apg momentum in {name}, step {step}"), found, expected);
            }
        }
    }
}

/// A table that changes from step to step.
struct Steps<'a>(&'a std::cell::Cell<Table>);

impl Denoiser<4> for Steps<'_> {
    type Cond = Class;
    fn denoise(&self, x: Tensor<4>, at: &[Level], cond: &Class) -> Estimate<4> {
        self.0.get().denoise(x, at, cond)
    }
}

#[test]
fn cfg_zero_star_equals_diffusers_in_its_first_step_and_after() {
    let grid = [Level { time: 1.0, alpha: 0.0, sigma: 1.0 }, AT[1], AT[0]];
    let star = |space| CfgZeroStar { space, ..CfgZeroStar::new(TABLE, class(NULL), 4.0) };
    compare("zero_star_second", star);
    compare("zero_star_second", |space| star(space).zero_init(&grid, 1)); // one step: beyond the first level
    compare("zero_star_first", |space| star(space).zero_init(&grid, 3));
    // Two steps: the noisier sample stands still, the other does not.
    let fixture = fixture();
    for (name, space) in SPACES {
        let found = star(space).zero_init(&grid, 2).denoise(x(), &AT, &class(COND)).x0;
        let row = |case: &str, row: usize| {
            let values = fixture["cases"][case][name].as_array().unwrap();
            values[row * 24..][..24].to_vec()
        };
        let expected = [row("zero_star_second", 0), row("zero_star_first", 1)].concat();
        same(&format!("zero star by sample in {name}"), found, &Value::Array(expected));
    }
}

#[test]
fn tangential_damping_needs_no_svd() {
    compare("tcfg", |space| Tcfg { space, ..Tcfg::new(TABLE, class(NULL), 4.0) });
}

/// The script's wide estimate: the first sample twice, the second 0.8 times.
struct Wide;

impl Denoiser<4> for Wide {
    type Cond = Class;
    fn denoise(&self, x: Tensor<4>, at: &[Level], cond: &Class) -> Estimate<4> {
        let factor =
            per_sample::<4>(&AT, (&x.device(), DType::F64), |level| if level == AT[0] { 2.0 } else { 0.8 });
        let said = TABLE.denoise(x, at, cond).x0;
        (said * factor).into()
    }
}

#[test]
fn dynamic_thresholds_are_torchs_quantiles() {
    let fixture = fixture();
    let limited = DynamicThreshold { max: 1.5, ..DynamicThreshold::new(Wide, 0.9) };
    same("threshold", limited.denoise(x(), &AT, &class(COND)).x0, &fixture["threshold"]);
    for case in fixture["quantiles"].as_array().unwrap() {
        let quantile = case[0].as_f64().unwrap();
        let wide = Wide.denoise(x(), &AT, &class(COND)).x0;
        let found = DynamicThreshold::new(Wide, quantile).denoise(x(), &AT, &class(COND)).x0;
        for row in 0..2 {
            let limit = case[1][row].as_f64().unwrap().max(1.0);
            let expected = wide.clone().narrow(0, row, 1).clamp(-limit, limit) / limit;
            let error = (found.clone().narrow(0, row, 1) - expected).abs().max().into_scalar::<f64>();
            assert!(error < 1e-12, "quantile {quantile} of sample {row}: off by {error:e}");
        }
    }
}

#[test]
fn clipping_keeps_the_noise_or_lets_it_follow_as_ddim_does() {
    let fixture = &fixture()["ddim"];
    let level = |i: usize| {
        let signal = fixture["alphas_cumprod"][i].as_f64().unwrap();
        Level { time: 0.5, alpha: signal.sqrt(), sigma: (1.0 - signal).sqrt() }
    };
    let clip = Clip::new(Wide, 1.0);
    for (name, clip) in [("follows", clip), ("keeps", Clip::new(Wide, 1.0).keep_noise())] {
        let estimate = clip.denoise(x(), &[level(0)], &class(COND));
        let eval = Evaluation { level: level(0), x: x(), estimate };
        same(name, eval.carry(level(1)), &fixture[name]);
    }
}
