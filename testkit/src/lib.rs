//! What the parity tests of the workspace share: inputs and weights by formula, gradients by name, comparison with a
//! fixture. A dev-dependency only.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::Gradients;
use canvas_core::recompute::Forward;
use canvas_core::{Condition, Text, params, weights};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// `sin(0.37 i + seed)`, as `input_pattern` of `tools/formula.py`.
pub fn pattern<const D: usize>(dims: [usize; D], seed: f64, device: &Device) -> Tensor<D> {
    let values: Vec<f32> =
        (0..dims.iter().product()).map(|i: usize| (0.37 * i as f64 + seed).sin() as f32).collect();
    Tensor::from_data(TensorData::new(values, dims), device)
}

/// Two prompts of five tokens `[2, 5, 12]`, the second two tokens shorter, and vectors of whole prompts `[2, 7]`.
pub fn two_prompts(device: &Device) -> Text {
    let mask = [[true; 5], [true, true, true, false, false]];
    Text {
        tokens: pattern([2, 5, 12], 1.0, device),
        mask: Tensor::from_data(TensorData::from(mask), device),
        pooled: pattern([2, 7], 3.0, device),
    }
}

/// Checks that a network of [`two_prompts`] does not read hidden tokens, and reads the others.
///
/// # Panics
/// If it does not.
#[track_caller]
pub fn masked_tokens_are_not_read(device: &Device, forward: impl Fn(&Text) -> Tensor<4>) {
    let text = two_prompts(device);
    let expected = forward(&text);

    // Other values where the mask is false, and more padding behind.
    let hidden = text.mask.clone().bool_not().unsqueeze_dim::<3>(2).float();
    let tokens = text.tokens.clone() + hidden * 100.0;
    let gone = Tensor::<2, Int>::zeros([2, 3], device).bool();
    let padded = Text {
        tokens: Tensor::cat(vec![tokens, pattern([2, 3, 12], 5.0, device)], 1),
        mask: Tensor::cat(vec![text.mask.clone(), gone], 1),
        pooled: text.pooled.clone(),
    };
    assert!(distance(forward(&padded), expected.clone()) < 1e-5);

    // The same tokens unmasked do matter, and so do the real ones.
    let mask = Tensor::<2, Int>::ones([2, 5], device).bool();
    assert!(distance(forward(&Text { mask, ..text.clone() }), expected.clone()) > 1e-3);
    assert!(distance(forward(&text.select(&[1, 0])), expected) > 1e-3);
}

/// `centre + scale u`, u in -1 to 1 by splitmix64 of name and index: as `hashed` of `tools/fixtures_lora.py`.
pub fn hashed(name: &str, shape: &[usize], scale: f64, centre: f64) -> TensorData {
    let seed = fnv1a(name);
    let unit = |i: usize| {
        let mut x = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (centre + scale * ((x >> 11) as f64 / 2f64.powi(52) - 1.0)) as f32
    };
    TensorData::new((0..shape.iter().product()).map(unit).collect::<Vec<f32>>(), shape.to_vec())
}

fn fnv1a(name: &str) -> u64 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// Largest absolute difference.
pub fn distance<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar()
}

/// The largest difference, relative to the largest of the expected values; NaN if there is one.
///
/// # Panics
/// If they are not as many.
#[track_caller]
pub fn relative(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "number of values");
    largest(found.iter().zip(expected).map(|(a, b)| a - b)) / largest(expected.iter().copied())
}

/// The largest absolute value, or NaN if there is one.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, x| if most.is_nan() || x.is_nan() { f64::NAN } else { most.max(x.abs()) })
}

/// Every parameter by `chirp` of `tools/formula.py`: weights of full rank, where those of
/// [`fill_by_formula`](canvas_core::params::fill_by_formula) have rank 2.
pub fn chirped<M: Module>(module: M) -> M {
    module.map(&mut Chirp::default())
}

#[derive(Default)]
struct Chirp(Vec<String>);

impl ModuleMapper for Chirp {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.0.join(".");
        let phase = (fnv1a(&name) % 1000) as f64;
        param.map(|old| {
            let (dims, count) = (old.dims(), old.dims().iter().product::<usize>());
            let fan_in = if D < 2 { 16 } else { count / dims[usize::from(D == 2)] };
            let (centre, scale) =
                if name.ends_with("gamma") { (1.0, 0.1) } else { (0.0, (2.0 / fan_in as f64).sqrt()) };
            let wave = |i: usize| {
                let i = i as f64;
                (centre + scale * (0.7 * i + 0.013 * i * i + phase).sin()) as f32
            };
            let values: Vec<f32> = (0..count).map(wave).collect();
            let value = Tensor::from_data(TensorData::new(values, dims), &old.device());
            if old.is_require_grad() { value.require_grad() } else { value }
        })
    }
}

/// Every trained parameter's gradient by its path.
struct Grads<'a> {
    path: Vec<String>,
    all: &'a Gradients,
    unread: &'a [&'a str],
    found: BTreeMap<String, TensorData>,
}

impl ModuleVisitor for Grads<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.val().is_require_grad() {
            return;
        }
        let (path, value) = (self.path.join("."), param.val());
        let unread = self.unread.contains(&path.as_str());
        let grad = match value.grad(self.all) {
            Some(grad) => {
                assert!(!unread, "{path} is read");
                grad
            }
            None if unread => value.inner().zeros_like(),
            None => panic!("no gradient: {path}"),
        };
        self.found.insert(path, grad.into_data());
    }
}

/// Every trained parameter's gradient by its path.
///
/// # Panics
/// If a parameter has no gradient.
pub fn gradients_by_path<M: Module>(module: &M, all: &Gradients) -> BTreeMap<String, TensorData> {
    by_path_but(module, all, &[])
}

fn by_path_but<M: Module>(module: &M, all: &Gradients, unread: &[&str]) -> BTreeMap<String, TensorData> {
    let mut visitor = Grads { path: Vec::new(), all, unread, found: BTreeMap::new() };
    module.visit(&mut visitor);
    visitor.found
}

/// `grad.NAME` of every parameter, and `norms`: the norm of each in the order of names.
///
/// # Panics
/// If a parameter has no gradient.
pub fn gradients<M: Module>(module: &M, all: &Gradients) -> BTreeMap<String, TensorData> {
    gradients_but(module, all, &[])
}

/// As [`gradients`], with zeros for the parameters of these names, which no output depends on.
///
/// # Panics
/// If another parameter has no gradient, or one of these has.
pub fn gradients_but<M: Module>(
    module: &M,
    all: &Gradients,
    unread: &[&str],
) -> BTreeMap<String, TensorData> {
    let found = by_path_but(module, all, unread);
    let norm = |data: &TensorData| data.iter::<f64>().map(|x| x * x).sum::<f64>().sqrt() as f32;
    let norms: Vec<f32> = found.values().map(norm).collect();
    let count = norms.len();
    let mut found: BTreeMap<String, TensorData> =
        found.into_iter().map(|(name, data)| (format!("grad.{name}"), data)).collect();
    found.insert("norms".into(), TensorData::new(norms, [count]));
    found
}

/// Output and gradients: `output`, `norms`, `grad.NAME` of every parameter, for the loss
/// `sum(output * pattern(.., 2))`. The inputs' gradients are in what is returned beside.
pub fn answers<M: Module, const D: usize>(
    model: &M,
    output: Tensor<D>,
) -> (BTreeMap<String, TensorData>, Gradients) {
    answers_but(model, output, &[])
}

/// As [`answers`], of a model that has parameters of these names which no output depends on.
pub fn answers_but<M: Module, const D: usize>(
    model: &M,
    output: Tensor<D>,
    unread: &[&str],
) -> (BTreeMap<String, TensorData>, Gradients) {
    let weight = pattern(output.dims(), 2.0, &output.device());
    let all = (output.clone() * weight).sum().backward();
    let mut found = gradients_but(model, &all, unread);
    found.insert("output".into(), output.into_data());
    (found, all)
}

/// Holds every tensor of a fixture against the one found, relative to its largest value; norms each to its own.
///
/// `tolerance` is `[values, gradients]`: gradients are what is called `grad..` or `norms`.
///
/// # Panics
/// If the file cannot be read, something was not computed, or lies further off.
pub fn compare(fixture: &Path, found: &BTreeMap<String, TensorData>, tolerance: [f64; 2]) {
    let title = fixture.file_stem().unwrap_or_default().to_string_lossy();
    let mut failed = Vec::new();
    for (name, expected) in weights::read_tensors(fixture).unwrap() {
        let found = found.get(&name).unwrap_or_else(|| panic!("{title}: {name} was not computed"));
        assert_eq!(found.shape(), expected.shape(), "{title} {name}");
        let most = largest(expected.iter::<f64>());
        // Below 1e-5 of the largest norm lie sums that cancel. The bias of keys has no gradient at all (the softmax does
        // not see it): both sides hold roundings, some 1e-7 of the terms here and 1e-15 in the reference's f64.
        let scale = |x: f64| match (name == "norms", x.abs() < most * 1e-10) {
            (true, true) => most * 1e-2,
            (true, false) => x.abs().max(most * 1e-5),
            (false, _) => most,
        };
        let errors = found.iter::<f64>().zip(expected.iter::<f64>()).map(|(a, b)| (a - b) / scale(b));
        let error = largest(errors);
        println!("{title} {name}: {error:.1e}");
        let limit = tolerance[usize::from(name.starts_with("grad") || name == "norms")];
        if error.is_nan() || error >= limit {
            failed.push(format!("{name}: relative error {error:.2e}"));
        }
    }
    assert!(failed.is_empty(), "{title}: {}", failed.join(", "));
}

/// The text of a panic.
///
/// # Panics
/// If there is none.
pub fn panic_text<T>(run: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).err().expect("should panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a text")).to_owned(),
    }
}

/// Gradients with blocks run again against those of the whole network.
///
/// # Panics
/// If they differ by more than roundings.
pub fn recomputed_equals_whole<M: Module>(model: &M, output: impl Fn(&M) -> Tensor<4>) {
    let losses = |model: &M| {
        let output = output(model);
        (output.clone() * pattern(output.dims(), 2.0, &output.device())).sum()
    };
    let named = |gradients: &GradientsParams| {
        let all = params::named_gradients(model, gradients).into_iter();
        all.map(|each| (each.name, each.data.iter::<f64>().collect())).collect::<BTreeMap<_, Vec<f64>>>()
    };
    let whole = named(&GradientsParams::from_grads(losses(model).backward(), model));
    assert!(!whole.is_empty());
    // Parts of a gradient may cancel: all of them in that of a key's bias, which is rounding and nothing else.
    let least = 0.01 * largest(whole.values().flatten().copied());
    for blocks in [1, 2] {
        let found = named(&Forward::new(model, losses).gradients(blocks));
        assert!(found.keys().eq(whole.keys()));
        for (name, whole) in &whole {
            let off = largest(found[name].iter().zip(whole).map(|(a, b)| a - b));
            let error = off / largest(whole.iter().copied()).max(least);
            println!("{blocks} blocks at a time, {name}: {error:.1e}");
            assert!(error < 1e-6, "{blocks} blocks at a time, {name}: relative error {error:.1e}");
        }
    }
}
