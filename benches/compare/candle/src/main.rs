//! candle's side of `benches/compare/compare.py`: what [`worker`] answers with.

mod dit;
#[path = "../../worker.rs"]
mod worker;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{AdamW, GroupNorm, Optimizer, ParamsAdamW, VarBuilder, ops};
use candle_transformers::models::stable_diffusion::clip::{ClipTextTransformer, Config as ClipConfig};
use candle_transformers::models::stable_diffusion::unet_2d::{
    BlockConfig, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use candle_transformers::models::stable_diffusion::vae::{AutoEncoderKL, AutoEncoderKLConfig};
use candle_transformers::models::t5::{Config as T5Config, T5EncoderModel};
use dit::Dit;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use worker::{Output, Result, Work};

/// Reads what a run computed.
type Later = Box<dyn FnOnce() -> candle_core::Result<Tensor>>;

/// What is timed.
type Run = Box<dyn FnMut() -> candle_core::Result<Later>>;

const RATE: f64 = 1e-4;

fn main() -> Result<()> {
    worker::serve(
        |case, folder| Case::open(case, folder)?.work(),
        |answer, tensors| {
            let tensors = tensors.map(|(name, values)| Ok((name, Tensor::new(values, &Device::Cpu)?)));
            let tensors = tensors.into_iter().collect::<Result<HashMap<_, _>>>()?;
            Ok(candle_core::safetensors::save(&tensors, answer)?)
        },
        |_| Ok(None), // all on the CPU
    )
}

/// A case with the parameters that it trains, and these as they were.
struct Ready {
    run: Run,
    vars: Vec<Var>,
    start: Vec<Tensor>,
}

impl Ready {
    fn boxed(run: Run, vars: Vec<Var>) -> Result<Option<Box<dyn Work>>> {
        let start = vars.iter().map(|var| var.as_tensor().copy()).collect::<candle_core::Result<_>>()?;
        Ok(Some(Box::new(Self { run, vars, start })))
    }
}

impl Work for Ready {
    fn run(&mut self) -> Result<Output> {
        let later = (self.run)()?;
        Ok(Box::new(move || Ok(later()?.flatten_all()?.to_vec1()?)))
    }

    fn still(&mut self) -> Result<usize> {
        let start = std::mem::take(&mut self.start); // memory counts
        let moved = |(var, start): (&Var, &Tensor)| -> candle_core::Result<bool> {
            Ok((var.as_tensor() - start)?.abs()?.sum_all()?.to_scalar::<f32>()? != 0.0)
        };
        let moved = self.vars.iter().zip(&start).map(moved).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(moved.into_iter().filter(|moved| !moved).count())
    }
}

/// A case as compare.py has written it.
struct Case {
    name: String,
    folder: PathBuf,
    inputs: HashMap<String, Tensor>,
}

impl Case {
    fn open(name: &str, folder: &Path) -> Result<Self> {
        let inputs = candle_core::safetensors::load(folder.join("inputs.safetensors"), &Device::Cpu)?;
        Ok(Self { name: name.to_owned(), folder: folder.to_owned(), inputs })
    }

    fn trains(&self) -> bool {
        self.name.contains("train")
    }

    fn get(&self, name: &str) -> Result<Tensor> {
        Ok(self.inputs.get(name).cloned().ok_or_else(|| format!("inputs.safetensors has no {name}"))?)
    }

    fn ids(&self, name: &str) -> Result<Tensor> {
        Ok(self.get(name)?.to_dtype(DType::U32)?)
    }

    fn weights(&self) -> Result<HashMap<String, Tensor>> {
        Ok(candle_core::safetensors::load(self.folder.join("weights.safetensors"), &Device::Cpu)?)
    }

    fn builder(&self) -> Result<VarBuilder<'static>> {
        Ok(VarBuilder::from_tensors(self.weights()?, DType::F32, &Device::Cpu))
    }

    /// `None` where candle has no such network.
    fn work(&self) -> Result<Option<Box<dyn Work>>> {
        let run: Run = match self.name.as_str() {
            name if name.starts_with("dit-") => return self.dit(),
            name if name.starts_with("unet-") => self.unet()?,
            name if name.starts_with("mmdit-") => return Ok(None), // its MMDiT is 64 wide for each block, and reads other names
            "vae-decode" | "vae-decode-32" => {
                let config = AutoEncoderKLConfig {
                    block_out_channels: vec![128, 256, 512, 512],
                    layers_per_block: 2,
                    latent_channels: 4,
                    norm_num_groups: 32,
                    use_quant_conv: true,
                    use_post_quant_conv: true,
                };
                let (net, x) = (AutoEncoderKL::new(self.builder()?, 3, 3, config)?, self.get("x")?);
                once(move || net.decode(&x))
            }
            "clip-l" => {
                let net = ClipTextTransformer::new(self.builder()?, &ClipConfig::v1_5())?;
                let ids = self.ids("ids")?;
                once(move || net.forward(&ids))
            }
            "t5-block" => self.t5()?,
            "adamw" => self.update()?,
            _ => self.operation()?,
        };
        Ready::boxed(run, Vec::new())
    }

    fn unet(&self) -> Result<Run> {
        let widths = if self.name == "unet-sd15" { [320, 640, 1280, 1280] } else { [128, 256, 512, 512] };
        let depths = [Some(1), Some(1), Some(1), None];
        let block = |(out_channels, use_cross_attn)| BlockConfig {
            out_channels,
            use_cross_attn,
            attention_head_dim: 8, // the number of heads, in truth
        };
        let config = UNet2DConditionModelConfig {
            blocks: widths.into_iter().zip(depths).map(block).collect(),
            cross_attention_dim: 768,
            ..UNet2DConditionModelConfig::default()
        };
        let net = UNet2DConditionModel::new(self.builder()?, 4, 4, false, config)?;
        let (x, text) = (self.get("x")?, self.get("text")?);
        let time = 1000.0 * f64::from(self.get("time")?.to_vec1::<f32>()?[0]);
        Ok(once(move || net.forward(&x, time, &text)))
    }

    fn t5(&self) -> Result<Run> {
        let config: T5Config = serde_json::from_value(serde_json::json!({
            "vocab_size": 1000, "d_model": 2048, "d_kv": 64, "d_ff": 5120, "num_layers": 1, "num_heads": 32,
            "relative_attention_num_buckets": 32, "dropout_rate": 0.0, "layer_norm_epsilon": 1e-6,
            "initializer_factor": 1.0, "feed_forward_proj": "gated-gelu", "is_encoder_decoder": false,
            "use_cache": false, "pad_token_id": 0, "eos_token_id": 1,
        }))?;
        let (mut net, ids) = (T5EncoderModel::load(self.builder()?, &config)?, self.ids("ids")?);
        Ok(once(move || net.forward(&ids)))
    }

    /// Forward, or steps of training. candle's fused layer norm and softmax have no gradients, so training does without.
    fn dit(&self) -> Result<Option<Box<dyn Work>>> {
        let (width, heads) = if self.name.contains("-s2-") { (384, 6) } else { (768, 12) };
        let weights = dit::fused(self.weights()?)?;
        let (x, time, labels) = (self.get("x")?, self.get("time")?, self.ids("labels")?);
        if !self.trains() {
            let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
            let net = Dit::new(width, 12, heads, false, weights)?;
            return Ready::boxed(once(move || net.forward(&x, &time, &labels)), Vec::new());
        }
        let mut vars = Vec::new();
        let mut tracked = HashMap::new();
        for (name, weight) in weights {
            let var = Var::from_tensor(&weight)?;
            tracked.insert(name, var.as_tensor().clone());
            vars.push(var);
        }
        let net =
            Dit::new(width, 12, heads, true, VarBuilder::from_tensors(tracked, DType::F32, &Device::Cpu))?;
        let (target, mut optimizer) = (self.get("target")?, AdamW::new(vars.clone(), adamw())?);
        let step = move || {
            let loss = candle_nn::loss::mse(&net.forward(&x, &time, &labels)?, &target)?;
            optimizer.backward_step(&loss)?;
            Ok(later(loss))
        };
        Ready::boxed(Box::new(step), vars)
    }

    /// AdamW with gradients that are always the same.
    fn update(&self) -> Result<Run> {
        let weights = self.weights()?;
        let mut vars = Vec::new();
        let mut loss = Tensor::new(0f32, &Device::Cpu)?;
        for i in 0..32 {
            let name = format!("weights.{i}");
            let weight = weights.get(&name).ok_or_else(|| format!("weights.safetensors has no {name}"))?;
            let var = Var::from_tensor(weight)?;
            loss = (loss + (var.as_tensor() * self.get(&format!("gradient{i}"))?)?.sum_all()?)?;
            vars.push(var);
        }
        // There is no other way to a store of gradients.
        let gradients: GradStore = loss.backward()?;
        let (first, start) = (vars[0].clone(), vars[0].as_tensor().copy()?);
        let mut optimizer = AdamW::new(vars, adamw())?;
        Ok(Box::new(move || {
            optimizer.step(&gradients)?;
            let (first, start) = (first.clone(), start.clone());
            Ok(Box::new(move || (first.as_tensor() - start)? / RATE))
        }))
    }

    fn operation(&self) -> Result<Run> {
        let x = self.get("x").or_else(|_| self.get("input")).or_else(|_| self.get("q"))?;
        Ok(match self.name.as_str() {
            "silu" => once(move || x.silu()),
            "gelu" => once(move || x.gelu_erf()),
            "gelu-tanh" => once(move || x.gelu()),
            "groupnorm-silu" => {
                let norm = GroupNorm::new(self.get("w")?, self.get("b")?, 320, 32, 1e-5)?;
                once(move || norm.forward(&x)?.silu())
            }
            "layernorm-modulate" => {
                let (shift, scale, norm) =
                    (self.get("shift")?, self.get("scale")?, dit::Norm::new(1152, false)?);
                once(move || dit::modulate(&norm.forward(&x)?, &shift, &scale))
            }
            "matmul" => {
                let other = self.get("other")?;
                once(move || x.matmul(&other))
            }
            "conv" => {
                let (weight, bias) = (self.get("w")?, self.get("b")?.reshape((1, 320, 1, 1))?);
                once(move || x.conv2d(&weight, 1, 1, 1, 1)?.broadcast_add(&bias))
            }
            name if name.starts_with("attention-") => self.attention(name.ends_with("-grad"))?,
            name => return Err(format!("candle's side knows no case {name:?}").into()),
        })
    }

    fn attention(&self, gradients: bool) -> Result<Run> {
        let [q, k, v] = [self.get("q")?, self.get("k")?, self.get("v")?];
        if !gradients {
            return Ok(once(move || dit::attend(&q, &k, &v, ops::softmax_last_dim)));
        }
        let (towards, vars) = (self.get("towards")?, [q, k, v].map(|x| Var::from_tensor(&x)));
        let [q, k, v] = vars;
        let [q, k, v] = [q?, k?, v?];
        Ok(Box::new(move || {
            let loss = (dit::attend(&q, &k, &v, |x| ops::softmax(x, 3))? * &towards)?.sum_all()?;
            let store = loss.backward()?;
            let missing = || candle_core::Error::Msg("attention left no gradient".to_owned());
            let parts = [&q, &k, &v].map(|x| store.get(x).cloned().ok_or_else(missing));
            let parts = parts.into_iter().collect::<candle_core::Result<Vec<_>>>()?;
            Ok(Box::new(move || Tensor::cat(&parts, 0)))
        }))
    }
}

fn once(mut run: impl FnMut() -> candle_core::Result<Tensor> + 'static) -> Run {
    Box::new(move || run().map(later))
}

fn later(output: Tensor) -> Later {
    Box::new(move || Ok(output))
}

fn adamw() -> ParamsAdamW {
    ParamsAdamW { lr: RATE, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
}
