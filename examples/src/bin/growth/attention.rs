//! Attention over tokens.

use crate::cost::{Cost, Series, section as table};
use anyhow::Result;
use burn::prelude::*;
use burn::tensor::Distribution;
use canvas_core::nn::attention::attend;
use canvas_core::ops::{kernels_are_on, use_kernels};
use std::path::Path;

const TOKENS: [usize; 7] = [256, 512, 1024, 2048, 4096, 8192, 16384];
/// A map of 8 heads and so many tokens has half a gigabyte, of which its gradient needs several.
const WITH_MAP: usize = 4096;

/// Forward and backward, in tiles and as Burn does it.
pub fn section(device: &Device, folder: &Path) -> Result<String> {
    let all = [
        Series::measure("forward", &TOKENS, |tokens| cost(tokens, device, false)),
        Series::measure("with gradients", &TOKENS, |tokens| cost(tokens, device, true)),
    ];
    let on = kernels_are_on();
    use_kernels(false);
    let few = &TOKENS[..TOKENS.partition_point(|&tokens| tokens <= WITH_MAP)];
    let alone = [
        Series::measure("forward, kernels off", few, |tokens| cost(tokens, device, false)),
        Series::measure("with gradients, kernels off", few, |tokens| cost(tokens, device, true)),
    ];
    use_kernels(on);
    let all: Vec<Series> = all.into_iter().chain(alone).collect();
    Ok(INTRODUCTION.to_owned() + &table(folder, "attention.png", "tokens", &all)?)
}

fn cost(tokens: usize, device: &Device, learns: bool) -> Cost {
    let device = if learns { device.clone().autodiff() } else { device.clone() };
    let random = || Tensor::<4>::random([1, 8, tokens, 64], Distribution::Normal(0.0, 1.0), &device);
    let [query, key, value] =
        [random(), random(), random()].map(|x| if learns { x.require_grad() } else { x });
    Cost::of(|| {
        let read = attend(query.clone(), key.clone(), value.clone(), None);
        if learns { drop(read.sum().backward()) } else { drop(read) }
    })
}

const INTRODUCTION: &str = "
## Attention over tokens

8 heads of 64, one sequence, keys as many as queries. In tiles, as [ops](../../canvas-core/src/ops/mod.rs) does it: the map of
scores is never there, so memory grows with the tokens, and time with their square. With kernels off, a gradient needs the map.
";
