//! Adapters: small changes of a network's layers that are trained while the network stays as it is.
//!
//! [`Adapters`] is a module of its own, so that everything that trains a module trains it: optimizers, averages, checkpoints.
//! [`Adapters::apply`] makes the changed network, which is the same type as the network: any architecture can be adapted, and
//! none knows of it.
//!
//! # Example
//! LoRA on the attention of a DiT, a step of training, and a file that diffusers' readers know:
//! ```
//! use burn::prelude::*;
//! use canvas_core::weights::{Lora, Part, Rules};
//! use canvas_core::{Backbone, Class, params};
//! use canvas_dit::DitConfig;
//! use canvas_train::adapters::{AdapterConfig, Adapters, Kind};
//! use canvas_train::{AdamW, Ema, StepOptions, TrainState};
//!
//! let device = Device::flex().autodiff();
//! let config = DitConfig::new([4, 4], 16, 2, 2).with_channels(3).with_classes(10);
//! let base = params::realise(config.init(&device)).no_grad();
//! let lora = AdapterConfig { kind: Kind::Lora, rank: 4, alpha: 4.0 };
//! let adapters = Adapters::new(&base, lora, |layer| layer.contains(".attention."), &device)?;
//! assert_eq!(adapters.layers().count(), 8);
//!
//! let mut state = TrainState::new(adapters, AdamW::default());
//! let (x, time) = (Tensor::ones([2, 3, 4, 4], &device), Tensor::ones([2], &device));
//! let answer = state.model.apply(&base).forward(x, time, &Class::new(&[3, 7], &device));
//! let losses = answer.square().mean_dim(3).mean_dim(2).mean_dim(1).reshape([2]);
//! state.step(losses, &StepOptions { rate: 1e-3, clip: 1.0, ema: Ema::WarmUp { limit: 0.999 } })?;
//!
//! let drawing = state.average.apply(&base.valid()); // a network like any other
//! # let path = std::env::temp_dir().join(format!("canvas-adapters-{}.safetensors", std::process::id()));
//! state.average.save(&path, Part::Unet, &Rules::new())?; // by diffusers' names: `UnetConfig::published`
//! assert_eq!(Lora::open(&path)?.parts().len(), 1);
//! # drop(drawing);
//! # std::fs::remove_file(&path)?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod factors;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use canvas_core::ConfigError;
use canvas_core::weights::{Part, Rules, Walk, WeightsError, write_tensors};
use factors::Factors;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// How a layer's matrix `W`, `[out, in]` (of a kernel `[out, in k k]`), is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `W + scale up down`.
    ///
    /// Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, <https://arxiv.org/abs/2106.09685>.
    Lora,
    /// `m (W + scale up down) / |W + scale up down|`, a trained length `m` for the weights of each output. The norm gets no gradient.
    ///
    /// Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, equations 5 and 11, <https://arxiv.org/abs/2402.09353>.
    Dora,
    /// `W + scale (a b) * (c d)`, element by element: a rank up to the square of the factors'.
    ///
    /// Yeh et al., "Navigating Text-To-Image Customization", 2023, section 3, <https://arxiv.org/abs/2309.14859>.
    Loha,
    /// `W + scale (a kron (b c))`.
    ///
    /// Yeh et al., 2023, section 3.
    Lokr {
        /// Largest side of `a`, whose sides are the largest divisors of `out` and `in` up to it; 8 is usual.
        factor: usize,
    },
}

/// What adapters are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// How layers are changed.
    pub kind: Kind,
    /// Columns of the factors, at least 1.
    pub rank: usize,
    /// `scale` is `alpha / rank`.
    pub alpha: f64,
}

/// Adapters of some of a network's layers.
#[derive(Module, Debug)]
pub struct Adapters {
    adapters: Vec<Adapter>,
}

/// The change of one layer.
#[derive(Module, Debug)]
struct Adapter {
    factors: Factors,
    #[module(skip)]
    layer: Layer,
}

/// Which layer, and how it lies.
#[derive(Clone, Debug)]
struct Layer {
    /// Path of its weight in the module.
    path: String,
    /// The path as PyTorch would have it.
    name: String,
    /// `[out, in, ..]`
    shape: Vec<usize>,
    /// `alpha / rank`
    scale: f64,
}

impl Adapters {
    /// Adapters that change nothing yet, of the linear layers and convolutions whose paths `select` takes.
    ///
    /// # Errors
    /// If it takes none (names some that there are), or the rank is 0.
    pub fn new<M: Module>(
        model: &M,
        config: AdapterConfig,
        select: impl Fn(&str) -> bool,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        if config.rank == 0 {
            return Err(ConfigError::new("rank must be at least 1, found 0"));
        }
        let mut find = Find { walk: Walk::default(), found: Vec::new() };
        model.visit(&mut find);
        let known: Vec<String> =
            find.found.iter().take(5).map(|(layer, _)| layer.layer().to_owned()).collect();
        let chosen = find.found.into_iter().filter(|(layer, _)| select(layer.layer()));
        let adapters: Vec<Adapter> = chosen
            .map(|(layer, lengths)| {
                let factors = Factors::new(config, &layer.shape, lengths, device);
                Adapter { factors, layer: Layer { scale: config.alpha / config.rank as f64, ..layer } }
            })
            .collect();
        if adapters.is_empty() {
            let message = format!("no layer was selected; there are {}, ...", known.join(", "));
            return Err(ConfigError::new(message));
        }
        Ok(Self { adapters })
    }

    /// The paths of the layers that are changed.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.adapters.iter().map(|adapter| adapter.layer.layer())
    }

    /// The network with its changes. Gradients reach the adapters, and no parameter of the network that they change.
    ///
    /// Both are on one device: with the adapters of [`TrainState::average`](crate::TrainState) goes `model.valid()`.
    ///
    /// # Panics
    /// If the network is another one.
    pub fn apply<M: Module>(&self, model: &M) -> M {
        let by_path = self.adapters.iter().map(|adapter| (adapter.layer.path.as_str(), adapter)).collect();
        let mut apply = Apply { walk: Walk::default(), by_path };
        let changed = model.clone().map(&mut apply);
        if let Some(path) = apply.by_path.keys().next() {
            panic!("the network has no {path}: these are adapters of another");
        }
        changed
    }

    /// Writes a file as diffusers and peft do (of LoHa and LoKr: LyCORIS), which [`Lora`](canvas_core::weights::Lora) reads, too.
    /// `names` are those of the network's published weights. The scale is in the second factor, so that no reader has to know alpha.
    ///
    /// # Errors
    /// Names the file; [`WeightsError::Rules`] where a layer is only a part of a published one.
    pub fn save(&self, path: &Path, part: Part, names: &Rules) -> Result<(), WeightsError> {
        let mut tensors = Vec::new();
        for Adapter { factors, layer } in &self.adapters {
            let key = names.published(&layer.name);
            let back = names.parts(&key);
            let Some(published) = key.strip_suffix(".weight").filter(|_| back == [layer.name.clone()]) else {
                let (path, name, back) = (path.to_owned(), layer.name.clone(), back.join(" and "));
                return Err(WeightsError::Rules { path, name, key, back });
            };
            for (role, data) in factors.published(&layer.shape, layer.scale) {
                tensors.push((format!("{}.{published}.{role}", part.name()), data));
            }
        }
        write_tensors(path, &tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))
    }
}

impl Adapter {
    fn changed<const D: usize>(&self, old: Tensor<D>, transposed: bool) -> Tensor<D> {
        let published = |x: Tensor<D>| if transposed { x.swap_dims(0, 1) } else { x };
        let base = published(old.detach());
        let dims = base.dims();
        assert_eq!(dims[..], self.layer.shape[..], "{}: adapters of another network", self.layer.path);
        let base: Tensor<2> = base.reshape([dims[0], dims[1..].iter().product()]);
        published(self.factors.changed(base, self.layer.scale).reshape(dims))
    }
}

impl Layer {
    fn layer(&self) -> &str {
        self.path.trim_end_matches(".weight")
    }
}

struct Find {
    walk: Walk,
    /// Layers, and the lengths of their outputs' weights.
    found: Vec<(Layer, Vec<f32>)>,
}

impl ModuleVisitor for Find {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let transposed = self.walk.is_transposed();
        if !transposed && !self.walk.is_weight_of("Conv2d") {
            return;
        }
        let value = param.val().detach();
        let value = if transposed { value.swap_dims(0, 1) } else { value };
        let dims = value.dims();
        let rows: Tensor<2> = value.reshape([dims[0], dims[1..].iter().product()]);
        let lengths = rows.square().sum_dim(1).sqrt().into_data().iter::<f32>().collect();
        let layer =
            Layer { path: self.walk.path(), name: self.walk.name(), shape: dims.to_vec(), scale: 0.0 };
        self.found.push((layer, lengths));
    }
}

struct Apply<'a> {
    walk: Walk,
    /// Those that have not met their layer.
    by_path: HashMap<&'a str, &'a Adapter>,
}

impl ModuleMapper for Apply<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(adapter) = self.by_path.remove(self.walk.path().as_str()) else { return param };
        let transposed = self.walk.is_transposed();
        param.map(|old| adapter.changed(old, transposed))
    }
}
