//! A module's parameters by name: made real, listed, checked.

use crate::ConfigError;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::prelude::*;
use burn::tensor::FloatDType;
use std::collections::BTreeMap;

/// Makes every parameter real and gives each an identity that is a function of its path.
///
/// Burn draws parameters on first use, from a generator that other draws share: called right after `init`, this
/// makes the weights a function of the seed and nothing else. (In Burn 0.22.1 clones share the draw; in earlier
/// versions a clone drew other weights.) The identities are what optimizer states and averages are keyed
/// by; made from paths they are the same in the next process, so a run can be resumed.
pub fn realise<M: Module>(module: M) -> M {
    module.map(&mut Realise::default())
}

/// The same module in other numbers: half precision for a network that only answers.
pub fn cast<M: Module>(module: M, dtype: FloatDType) -> M {
    module.map(&mut Cast(dtype))
}

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.cast(self.0))
    }
}

/// `linear.weight`-like path of the elements a visitor or mapper is in.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn joined(&self) -> String {
        self.0.join(".")
    }
}

#[derive(Default)]
struct Realise {
    path: Path,
}

impl ModuleMapper for Realise {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (_, value, mapper) = param.consume();
        // The top bits only: Burn serialises identities as 64-bit integers, some readers as doubles.
        let id = ParamId::from(crate::seed_for(0, &self.path.joined()) >> 12);
        Param::from_mapped_value(id, value, mapper)
    }
}

/// One named parameter, or its gradient, on the host.
#[derive(Clone, Debug)]
pub struct Named {
    /// Path from the module's root, joined by dots.
    pub name: String,
    /// Identity in this process.
    pub id: ParamId,
    /// Shape and values.
    pub data: TensorData,
}

/// All float parameters in the module's own order.
pub fn named<M: Module>(module: &M) -> Vec<Named> {
    let mut list = List::default();
    module.visit(&mut list);
    list.found
}

#[derive(Default)]
struct List {
    path: Path,
    found: Vec<Named>,
}

impl ModuleVisitor for List {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(Named { name: self.path.joined(), id: param.id, data: param.val().into_data() });
    }
}

/// The gradients of all float parameters that have one, in the module's own order.
pub fn named_gradients<M: Module>(module: &M, gradients: &GradientsParams) -> Vec<Named> {
    let mut list = Gradients { path: Path::default(), gradients, found: Vec::new() };
    module.visit(&mut list);
    list.found
}

struct Gradients<'a> {
    path: Path,
    gradients: &'a GradientsParams,
    found: Vec<Named>,
}

impl ModuleVisitor for Gradients<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.found.push(Named { name: self.path.joined(), id: param.id, data: gradient.into_data() });
        }
    }
}

/// A network with more input channels that answers as a narrower one does, whatever the new channels hold: all parameters are the
/// narrower one's, and kernels that have more inputs have zeros there. So a trained network begins to learn from a mask and a masked
/// image ([`Concatenated`](crate::Concatenated)) without losing what it can do.
///
/// # Errors
/// If a parameter is missing in either, or differs in shape other than by more inputs of a kernel: names it.
///
/// # Example
/// ```
/// use burn::nn::conv::Conv2dConfig;
/// use burn::prelude::*;
/// use canvas_core::params;
///
/// let device = Device::flex();
/// let layer = |inputs| Conv2dConfig::new([inputs, 8], [3, 3]).init(&device);
/// let narrow = layer(4);
/// let wide = params::widened(layer(9), &narrow)?;
/// let x = Tensor::<4>::ones([1, 4, 6, 6], &device);
/// let more = Tensor::cat(vec![x.clone(), Tensor::full([1, 5, 6, 6], 7.0, &device)], 1);
/// let apart = wide.forward(more) - narrow.forward(x);
/// assert!(apart.abs().max().into_scalar::<f32>() < 1e-6);
/// # Ok::<_, canvas_core::ConfigError>(())
/// ```
pub fn widened<M: Module>(wide: M, narrow: &M) -> Result<M, ConfigError> {
    let from = named(narrow).into_iter().map(|param| (param.name, param.data)).collect();
    let mut widen = Widen { path: Path::default(), from, wrong: None };
    let wide = wide.map(&mut widen);
    let left = widen.from.keys().next().map(|name| format!("{name} is in the narrow network alone"));
    widen.wrong.or(left).map_or(Ok(wide), |message| Err(ConfigError::new(message)))
}

struct Widen {
    path: Path,
    from: BTreeMap<String, TensorData>,
    /// The first thing that does not fit.
    wrong: Option<String>,
}

impl ModuleMapper for Widen {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.joined();
        let Some(data) = self.from.remove(&name) else {
            self.wrong.get_or_insert(format!("{name} is in the wide network alone"));
            return param;
        };
        let (dims, found) = (param.val().dims(), data.shape().to_vec());
        let others = |dims: &[usize]| [&dims[..1], &dims[2.min(dims.len())..]].concat();
        let grows = D == 4 && others(&dims) == others(&found) && dims[1] > found[1];
        if dims[..] != found[..] && !grows {
            self.wrong.get_or_insert(format!("{name}: {found:?} cannot become {dims:?}"));
            return param;
        }
        param.map(|old| {
            let on = (&old.device(), old.dtype());
            let mut value = Tensor::<D>::from_data(data, on);
            if grows {
                let mut more = dims;
                more[1] -= found[1];
                value = Tensor::cat(vec![value, Tensor::zeros(more, on)], 1);
            }
            if old.is_require_grad() { value.require_grad() } else { value }
        })
    }
}

/// Name of the first parameter, in the module's order, that holds a NaN or an infinity.
pub fn first_non_finite<M: Module>(module: &M) -> Option<String> {
    let broken = |data: &TensorData| data.iter::<f32>().any(|value| !value.is_finite());
    named(module).into_iter().find(|param| broken(&param.data)).map(|param| param.name)
}

/// A closed formula for every parameter, from its name and flat index: `s sin(0.7 i + h(name))`, never zero
/// throughout, with `s` about `1/sqrt(fan_in)`; one-dimensional weights of norms lie around 1.
///
/// For parity tests: the same ten lines in another language give a reference the same weights, so that a
/// fixture holds outputs only and zero-initialised layers cannot hide a mistake.
pub fn fill_by_formula<M: Module>(module: M) -> M {
    module.map(&mut Formula::default())
}

#[derive(Default)]
struct Formula {
    path: Path,
}

impl ModuleMapper for Formula {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.joined();
        param.map(|old| {
            let (dims, device) = (old.dims(), old.device());
            let is_norm_weight = name.ends_with("gamma");
            let fan_in = if D < 2 { 16 } else { dims.iter().product::<usize>() / formula_out(&dims) };
            let data = TensorData::new(formula(&name, dims.iter().product(), fan_in, is_norm_weight), dims);
            let value = Tensor::from_data(data, &device);
            if old.is_require_grad() { value.require_grad() } else { value }
        })
    }
}

/// Output channels: the last axis of a `[in, out]` matrix, the first of a convolution kernel.
fn formula_out(dims: &[usize]) -> usize {
    if dims.len() == 2 { dims[1] } else { dims[0] }
}

/// The values of [`fill_by_formula`] for a parameter of this name, in flat order.
pub fn formula(name: &str, count: usize, fan_in: usize, around_one: bool) -> Vec<f32> {
    let phase = (name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        % 1000) as f64;
    let scale = if around_one { 0.1 } else { (fan_in as f64).sqrt().recip() };
    let centre = if around_one { 1.0 } else { 0.0 };
    (0..count).map(|i| (centre + scale * (0.7 * i as f64 + phase).sin()) as f32).collect()
}
