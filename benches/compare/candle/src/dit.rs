//! DiT (Peebles and Xie, 2022) on candle-nn: candle has none. The same network as `Dit` of `torch_side.py`.

use candle_core::{D, Device, Module, Result, Tensor};
use candle_nn::{Embedding, Linear, VarBuilder, embedding, linear, ops};
use std::collections::HashMap;

/// Layer norm without learned parameters.
pub struct Norm {
    one: Tensor,
    zero: Tensor,
    /// Composed of operations that have gradients, which the fused one has not.
    slow: bool,
}

impl Norm {
    pub fn new(width: usize, slow: bool) -> Result<Self> {
        let one = Tensor::ones(width, candle_core::DType::F32, &Device::Cpu)?;
        Ok(Self { zero: one.zeros_like()?, one, slow })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let norm = if self.slow { ops::layer_norm_slow } else { ops::layer_norm };
        norm(x, &self.one, &self.zero, 1e-6)
    }
}

pub fn modulate(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift)
}

pub fn attend(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    softmax: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let scale = 1.0 / (query.dim(D::Minus1)? as f64).sqrt();
    softmax(&(query * scale)?.matmul(&key.t()?)?)?.matmul(value)
}

/// Queries, keys and values as one layer, and the first layer as a matrix: what candle is fastest with.
pub fn fused(mut weights: HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
    let queries: Vec<String> = weights.keys().filter(|name| name.contains(".query.")).cloned().collect();
    for query in queries {
        let names = ["query", "key", "value"].map(|part| query.replace("query", part));
        let parts = names.iter().filter_map(|name| weights.remove(name)).collect::<Vec<_>>();
        weights.insert(query.replace("query", "qkv"), Tensor::cat(&parts, 0)?);
    }
    if let Some(kernel) = weights.get_mut("embed.weight") {
        *kernel = kernel.flatten_from(1)?;
    }
    Ok(weights)
}

pub struct Dit {
    embed: Linear,
    table: Tensor,
    frequencies: Tensor,
    time: [Linear; 2],
    cond: Embedding,
    blocks: Vec<Block>,
    norm: Norm,
    final_modulation: Linear,
    unembed: Linear,
}

struct Block {
    modulation: Linear,
    qkv: Linear,
    output: Linear,
    up: Linear,
    down: Linear,
    norm: Norm,
    heads: usize,
}

impl Dit {
    /// For latents of 32x32x4. `trained` is slower, and has gradients.
    pub fn new(width: usize, depth: usize, heads: usize, trained: bool, vb: VarBuilder) -> Result<Self> {
        let blocks = (0..depth).map(|i| Block::new(width, heads, trained, &vb.pp(format!("blocks.{i}"))));
        let frequencies: Vec<f32> =
            (0..128).map(|i| (-10000f64.ln() * f64::from(i) / 128.0).exp() as f32).collect();
        Ok(Self {
            embed: linear(16, width, vb.pp("embed"))?,
            table: table(16, width)?,
            frequencies: Tensor::from_vec(frequencies, (1, 128), &Device::Cpu)?,
            time: [linear(256, width, vb.pp("time.input"))?, linear(width, width, vb.pp("time.output"))?],
            cond: embedding(1001, width, vb.pp("cond"))?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: Norm::new(width, trained)?,
            final_modulation: linear(width, 2 * width, vb.pp("final_modulation"))?,
            unembed: linear(width, 32, vb.pp("unembed"))?,
        })
    }

    pub fn forward(&self, x: &Tensor, time: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let batch = x.dim(0)?;
        let angles = (time * 1000.0)?.unsqueeze(1)?.broadcast_mul(&self.frequencies)?;
        let features = Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?;
        let time = self.time[1].forward(&self.time[0].forward(&features)?.silu()?)?;
        let c = (time + self.cond.forward(labels)?)?.silu()?; // [B, W]
        let patches = x.reshape((batch, 4, 16, 2, 16, 2))?.permute([0, 2, 4, 1, 3, 5])?;
        let patches = patches.reshape((batch, 256, 16))?;
        let mut h = self.embed.forward(&patches)?.broadcast_add(&self.table)?; // [B, N, W]
        for block in &self.blocks {
            h = block.forward(&h, &c)?;
        }
        let m = self.final_modulation.forward(&c)?.unsqueeze(1)?.chunk(2, 2)?;
        let h = self.unembed.forward(&modulate(&self.norm.forward(&h)?, &m[0], &m[1])?)?;
        let h = h.reshape((batch, 16, 16, 2, 2, 8))?.permute([0, 5, 1, 3, 2, 4])?;
        h.reshape((batch, 8, 32, 32))
    }
}

impl Block {
    fn new(width: usize, heads: usize, trained: bool, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            modulation: linear(width, 6 * width, vb.pp("modulation"))?,
            qkv: linear(width, 3 * width, vb.pp("attention.qkv"))?,
            output: linear(width, width, vb.pp("attention.output"))?,
            up: linear(width, 4 * width, vb.pp("mlp.up"))?,
            down: linear(4 * width, width, vb.pp("mlp.down"))?,
            norm: Norm::new(width, trained)?,
            heads,
        })
    }

    fn forward(&self, h: &Tensor, c: &Tensor) -> Result<Tensor> {
        let (batch, count, width) = h.dims3()?;
        let m = self.modulation.forward(c)?.unsqueeze(1)?.chunk(6, 2)?;
        let qkv = self.qkv.forward(&modulate(&self.norm.forward(h)?, &m[0], &m[1])?)?;
        let qkv = qkv.reshape((batch, count, 3, self.heads, width / self.heads))?.permute([2, 0, 3, 1, 4])?;
        let [query, key, value] = [0, 1, 2].map(|i| qkv.get(i).and_then(|part| part.contiguous()));
        let softmax =
            |x: &Tensor| if self.norm.slow { ops::softmax(x, D::Minus1) } else { ops::softmax_last_dim(x) };
        let read =
            attend(&query?, &key?, &value?, softmax)?.transpose(1, 2)?.reshape((batch, count, width))?;
        let h = (h + self.output.forward(&read)?.broadcast_mul(&m[2])?)?;
        let fed = self.up.forward(&modulate(&self.norm.forward(&h)?, &m[3], &m[4])?)?.gelu()?;
        h + self.down.forward(&fed)?.broadcast_mul(&m[5])?
    }
}

/// Sines and cosines of column, then of row: `[1, N, W]`.
fn table(side: usize, width: usize) -> Result<Tensor> {
    let quarter = width / 4;
    let half = |place: usize| {
        let angle = move |i: usize| place as f64 / 10000f64.powf(i as f64 / quarter as f64);
        (0..quarter).map(move |i| angle(i).sin()).chain((0..quarter).map(move |i| angle(i).cos()))
    };
    let places = (0..side).flat_map(|row| (0..side).map(move |column| [column, row])).flatten();
    let values: Vec<f32> = places.flat_map(half).map(|value| value as f32).collect();
    Tensor::from_vec(values, (1, side * side, width), &Device::Cpu)
}
