//! canvas' side of `benches/compare/compare.py`: what [`worker`] answers with.

mod worker;

use burn::module::{Module, Param};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{Initializer, PaddingConfig2d};
use burn::optim::GradientsParams;
use burn::prelude::*;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use burn::tensor::DeviceType;
use burn::tensor::FloatDType;
use canvas_core::memory::keep_pages;
use canvas_core::nn::{Activation, attend, conv2d, modulate};
use canvas_core::weights::{Rules, Source, load_published, read_tensors, write_tensors};
use canvas_core::{Autoencoder, Backbone, Class, Text, TextEncoder, Tokens, ops, params};
use canvas_dit::{DitConfig, Sd3Config};
use canvas_text::{ClipTextConfig, T5Config};
use canvas_train::{AdamW, ModuleOptimizer};
use canvas_unet::UnetConfig;
use canvas_vae::AutoencoderKlConfig;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use worker::{Output, Result, Work};

const RATE: f64 = 1e-4;

fn main() -> Result<()> {
    keep_pages(); // as the examples do
    let (device, dtype) =
        (device(&setting("COMPARE_DEVICE", "cpu"))?, dtype(&setting("COMPARE_DTYPE", "f32"))?);
    worker::serve(
        |case, folder| Case::open(case, folder, &device, dtype)?.work().map(Some),
        |answer, tensors| {
            let tensors = tensors.map(|(name, values)| (name.to_owned(), TensorData::from(values)));
            Ok(write_tensors(answer, &tensors, &BTreeMap::new())?)
        },
        |clean| {
            device.sync()?;
            if clean {
                device.memory_cleanup();
            }
            Ok(device.memory_pool_usage().map(|usage| usage.bytes_reserved))
        },
    )
}

/// What compare.py hands on of its options.
fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.into())
}

fn device(name: &str) -> Result<Device> {
    let found = match name {
        "cpu" => Some(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(DeviceType::Cuda).into_iter().next(),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::enumerate(DeviceType::Wgpu).into_iter().next(),
        _ => return Err(format!("this program was built without {name}: `--features {name}`").into()),
    };
    Ok(found.ok_or_else(|| format!("no {name} device was found"))?)
}

fn dtype(name: &str) -> Result<FloatDType> {
    match name {
        "f32" => Ok(FloatDType::F32),
        "bf16" => Ok(FloatDType::BF16),
        _ => Err(format!("no precision is called {name:?}: there are f32 and bf16").into()),
    }
}

/// A case that leaves nothing behind.
struct Once<F: FnMut() -> Result<Output>>(F);

impl<F: FnMut() -> Result<Output>> Work for Once<F> {
    fn run(&mut self) -> Result<Output> {
        (self.0)()
    }
}

fn once<const D: usize>(run: impl Fn() -> Tensor<D> + 'static) -> Result<Box<dyn Work>> {
    Ok(Box::new(Once(move || finished(run()))))
}

/// Waits for what has only been asked for, which is part of a run's time; it is read later, which is not.
fn finished<const D: usize>(x: Tensor<D>) -> Result<Output> {
    x.device().sync()?;
    Ok(Box::new(move || Ok(x.into_data().iter().collect())))
}

/// A step of training a run.
struct Training<M, L> {
    model: Option<M>,
    loss: L,
    optimizer: ModuleOptimizer<AdamW>,
    start: Vec<params::Named>,
}

impl<M: Module, L: Fn(&M) -> Tensor<1>> Work for Training<M, L> {
    fn run(&mut self) -> Result<Output> {
        let model = self.model.take().expect("put back after every step");
        let loss = (self.loss)(&model);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(RATE, model, gradients));
        finished(loss)
    }

    fn still(&mut self) -> Result<usize> {
        let start = std::mem::take(&mut self.start); // memory counts
        // SD3's table of positions is a parameter that is never trained.
        let now = self.model.iter().flat_map(params::named);
        Ok(now.zip(&start).filter(|(now, then)| now.data == then.data && now.name != "position").count())
    }
}

fn adamw() -> ModuleOptimizer<AdamW> {
    ModuleOptimizer::new(AdamW::default())
}

/// Matrices for the optimizer alone.
#[derive(Module, Debug)]
struct Matrices {
    weights: Vec<Param<Tensor<2>>>,
}

/// A case as compare.py has written it.
struct Case {
    name: String,
    folder: PathBuf,
    inputs: BTreeMap<String, TensorData>,
    device: Device,
    dtype: FloatDType,
}

impl Case {
    fn open(name: &str, folder: &Path, device: &Device, dtype: FloatDType) -> Result<Self> {
        let learns = name.contains("train") || name.ends_with("-grad") || name == "adamw";
        let device = if learns { device.clone().autodiff() } else { device.clone() };
        let inputs = read_tensors(&folder.join("inputs.safetensors"))?;
        Ok(Self { name: name.to_owned(), folder: folder.to_owned(), inputs, device, dtype })
    }

    fn input(&self, name: &str) -> Result<TensorData> {
        Ok(self.inputs.get(name).cloned().ok_or_else(|| format!("inputs.safetensors has no {name}"))?)
    }

    fn get<const D: usize>(&self, name: &str) -> Result<Tensor<D>> {
        let data = self.input(name)?;
        let axes = data.shape().to_vec().len();
        let dtype = if name == "time" { FloatDType::F32 } else { self.dtype }; // of which networks are told in 32 bits
        let fits = (axes == D).then(|| Tensor::<D>::from_data(data, &self.device).cast(dtype));
        Ok(fits.ok_or_else(|| format!("{name} of inputs.safetensors has {axes} axes, not {D}"))?)
    }

    fn ids(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.input(name)?.iter::<f32>().map(|id| id as usize).collect())
    }

    fn loaded<M: Module>(&self, module: M, rules: &Rules) -> Result<M> {
        let source = Source::open(&self.folder.join("weights.safetensors"), None)?;
        let module = load_published(module, &source, rules)?.0;
        Ok(match self.dtype {
            FloatDType::F32 => module,
            // Cast where nothing is tracked: else parameters would be what was computed of others.
            dtype if self.device.is_autodiff() => params::cast(module.valid(), dtype).train(),
            dtype => params::cast(module, dtype),
        })
    }

    fn work(&self) -> Result<Box<dyn Work>> {
        let device = &self.device;
        let (clip, t5) =
            (ClipTextConfig::clip_l(), T5Config::new(2048, 64, 32, 5120, 1).with_vocabulary(1000));
        match self.name.as_str() {
            name if name.starts_with("dit-") => {
                let config = match name.split('-').nth(1) {
                    Some("s2") => DitConfig::small(32),
                    Some("b2") => DitConfig::base(32),
                    _ => DitConfig::xl(32),
                };
                let class = Class::new(&self.ids("labels")?, device);
                let (latents, time) = (self.get("x")?, self.get("time")?);
                // Parameters have our own names there, in PyTorch's layouts.
                self.network(config.init(device), &Rules::new(), move |net| {
                    net.forward_with_variance(latents.clone(), time.clone(), &class)
                })
            }
            name if name.starts_with("unet-") => {
                let widths = vec![128, 256, 512, 512];
                let small = UnetConfig::new(4, 768, widths, vec![1, 1, 1, 0], vec![8; 4]);
                let config = if name.starts_with("unet-sd15") { UnetConfig::sd1() } else { small };
                self.prompted(config.init(device), &config.published())
            }
            "mmdit-block" | "mmdit-block-train" => {
                let config = Sd3Config::new(2, 24).with_table(96).with_base(32);
                self.prompted(config.init(device), &config.published())
            }
            "vae-decode" | "vae-decode-32" => {
                let (config, latents) = (AutoencoderKlConfig::sd(), self.get("x")?);
                let net = self.loaded(config.init(device), &config.published())?;
                once(move || net.decode(latents.clone()))
            }
            "clip-l" => self.encoder(clip.init(device), &clip.published()),
            "t5-block" => self.encoder(t5.init(device), &t5.published()),
            "adamw" => self.update(),
            _ => self.operation(),
        }
    }

    /// A network with its weights, to answer or to train towards the case's target.
    fn network<M: Module + 'static>(
        &self,
        net: M,
        rules: &Rules,
        forward: impl Fn(&M) -> Tensor<4> + 'static,
    ) -> Result<Box<dyn Work>> {
        let net = self.loaded(net, rules)?;
        if !self.name.contains("train") {
            return once(move || forward(&net));
        }
        let target: Tensor<4> = self.get("target")?;
        let loss = move |net: &M| (forward(net) - target.clone()).square().mean();
        let start = params::named(&net);
        Ok(Box::new(Training { model: Some(net), loss, optimizer: adamw(), start }))
    }

    /// A network that is told text, all of it real tokens. Stable Diffusion 1 has no vector for a whole prompt.
    fn prompted<N: Module + Backbone<4, Cond = Text> + 'static>(
        &self,
        net: N,
        rules: &Rules,
    ) -> Result<Box<dyn Work>> {
        let (latents, time, tokens): (_, _, Tensor<3>) =
            (self.get("x")?, self.get("time")?, self.get("text")?);
        let [batch, length, _] = tokens.dims();
        let mask = Tensor::<2, Int>::ones([batch, length], &self.device).bool();
        let pooled = self.get("pooled").unwrap_or_else(|_| Tensor::zeros([batch, 0], &self.device));
        let text = Text { tokens, mask, pooled };
        let forward = move |net: &N| net.forward(latents.clone(), time.clone(), &text);
        self.network(net, rules, forward)
    }

    /// A text encoder that reads one prompt without padding.
    fn encoder<N: Module + TextEncoder + 'static>(&self, net: N, rules: &Rules) -> Result<Box<dyn Work>> {
        let (net, ids) = (self.loaded(net, rules)?, self.ids("ids")?);
        let (mask, length) = (vec![true; ids.len()], ids.len());
        let tokens = Tokens { ids: ids.iter().map(|&id| id as u32).collect(), mask, length };
        once(move || net.encode(&tokens).tokens)
    }

    /// AdamW with gradients that are always the same.
    fn update(&self) -> Result<Box<dyn Work>> {
        let gradients = (0..32).map(|i| Ok(self.get::<2>(&format!("gradient{i}"))?.inner()));
        let gradients = gradients.collect::<Result<Vec<_>>>()?;
        let empty = |_| Initializer::Zeros.init([1024, 1024], &self.device);
        let matrices = Matrices { weights: (0..32).map(empty).collect() };
        let matrices = self.loaded(matrices, &Rules::new())?;
        let start = matrices.weights[0].val().inner();
        let (mut matrices, mut optimizer) = (Some(matrices), adamw());
        Ok(Box::new(Once(move || {
            let model = matrices.take().expect("put back after every step");
            let mut given = GradientsParams::new();
            for (weight, gradient) in model.weights.iter().zip(&gradients) {
                given.register(weight.id, gradient.clone());
            }
            let model = matrices.insert(optimizer.step(RATE, model, given));
            let (now, start) = (finished(model.weights[0].val().inner())?, start.clone());
            Ok(Box::new(move || {
                let start = start.into_data();
                let moved = now()?
                    .into_iter()
                    .zip(start.iter::<f32>())
                    .map(|(now, start)| (now - start) / RATE as f32);
                Ok(moved.collect())
            }) as Output)
        })))
    }

    /// A single operation, as the networks of this workspace call it.
    fn operation(&self) -> Result<Box<dyn Work>> {
        match self.name.as_str() {
            "silu" => self.pointwise(Activation::Silu),
            "gelu" => self.pointwise(Activation::Gelu),
            "gelu-tanh" => self.pointwise(Activation::GeluTanh),
            "groupnorm-silu" => {
                let (x, weight, bias) = (self.get::<4>("x")?, self.get("w")?, self.get("b")?);
                let norm = ops::GroupNorm { groups: 32, epsilon: 1e-5, activation: Some(Activation::Silu) };
                once(move || ops::group_norm(norm, x.clone(), weight.clone(), bias.clone()))
            }
            "layernorm-modulate" => {
                let [x, shift, scale] = [self.get("x")?, self.get("shift")?, self.get("scale")?];
                once(move || modulate::normed(x.clone(), shift.clone(), scale.clone()))
            }
            "matmul" => {
                let [left, right] = [self.get::<2>("input")?, self.get("other")?];
                once(move || left.clone().matmul(right.clone()))
            }
            "conv" => {
                let (x, padding) = (self.get("x")?, PaddingConfig2d::Explicit(1, 1, 1, 1));
                let mut layer =
                    Conv2dConfig::new([320, 320], [3, 3]).with_padding(padding).init(&self.device);
                layer.weight = Param::from_tensor(self.get("w")?);
                layer.bias = Some(Param::from_tensor(self.get("b")?));
                once(move || conv2d(&layer, x.clone()))
            }
            name if name.starts_with("attention-") => {
                let ([q, k, v], towards) =
                    ([self.get("q")?, self.get("k")?, self.get("v")?], self.get("towards")?);
                if name.ends_with("-grad") {
                    return Ok(Box::new(Once(move || attention_gradients([&q, &k, &v], &towards))));
                }
                once(move || attend(q.clone(), k.clone(), v.clone(), None))
            }
            name => Err(format!("canvas.rs knows no case {name:?}").into()),
        }
    }

    fn pointwise(&self, activation: Activation) -> Result<Box<dyn Work>> {
        let input: Tensor<4> = self.get("input")?;
        once(move || activation.forward(input.clone()))
    }
}

fn attention_gradients(inputs: [&Tensor<4>; 3], towards: &Tensor<4>) -> Result<Output> {
    let [q, k, v] = inputs.map(|x| x.clone().detach().require_grad());
    let loss = (attend(q.clone(), k.clone(), v.clone(), None) * towards.clone()).sum();
    let gradients = loss.backward();
    let parts = [q, k, v].map(|x| finished(x.grad(&gradients).expect("it asks for its gradient")));
    let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Box::new(move || Ok(parts.into_iter().map(|part| part()).collect::<Result<Vec<_>>>()?.concat())))
}
