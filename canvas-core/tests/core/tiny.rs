//! The network of the fixtures of weights (`tools/fixtures_weights.py`), which has a layer of every kind.

use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig};
use burn::nn::conv::{ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::nn::{PRelu, PReluConfig, PaddingConfig1d, PaddingConfig2d, RmsNorm, RmsNormConfig};
use burn::prelude::*;
use canvas_core::params;
use canvas_core::weights::{Report, Rules, Source, WeightsError, load_published, read_tensors};
use std::path::{Path, PathBuf};

#[derive(Module, Debug)]
struct Block {
    norm: RmsNorm,
    query: Linear,
}

/// An enum, whose variant PyTorch knows nothing of.
#[derive(Module, Debug)]
enum Norm {
    Layer(LayerNorm),
    Group(GroupNorm),
}

/// A layer of every kind.
#[derive(Module, Debug)]
pub struct Tiny {
    tokens: Embedding,
    input: Linear,
    norm: Norm,
    square: Linear,
    blocks: Vec<Block>,
    conv1: Conv1d,
    conv2: Conv2d,
    groups: GroupNorm,
    up: ConvTranspose2d,
    batch: BatchNorm,
    activation: PRelu,
    instance: InstanceNorm,
    conv3: Conv3d,
}

pub fn tiny(layout: LinearLayout) -> Tiny {
    let device = Device::flex();
    let linear = |from, to| LinearConfig::new(from, to).with_layout(layout);
    let block = || Block {
        norm: RmsNormConfig::new(6).init(&device),
        query: linear(6, 6).with_bias(false).init(&device),
    };
    let conv2 = Conv2dConfig::new([4, 6], [3, 1]).with_padding(PaddingConfig2d::Explicit(1, 0, 1, 0));
    Tiny {
        tokens: EmbeddingConfig::new(5, 4).init(&device),
        input: linear(4, 6).init(&device),
        norm: Norm::Layer(LayerNormConfig::new(6).init(&device)),
        square: linear(6, 6).init(&device),
        blocks: vec![block(), block()],
        conv1: Conv1dConfig::new(6, 4, 3).with_padding(PaddingConfig1d::Explicit(1, 1)).init(&device),
        conv2: conv2.init(&device),
        groups: GroupNormConfig::new(2, 6).init(&device),
        up: ConvTranspose2dConfig::new([6, 4], [2, 2]).with_stride([2, 2]).init(&device),
        batch: BatchNormConfig::new(4).init(&device),
        activation: PReluConfig::new().with_num_parameters(4).init(&device),
        instance: InstanceNormConfig::new(4).init(&device),
        conv3: Conv3dConfig::new([4, 2], [1, 2, 2]).init(&device),
    }
}

impl Tiny {
    fn answer(&self) -> Vec<f32> {
        let ids: Tensor<2, Int> = Tensor::from_ints([[0, 3, 1], [4, 2, 2]], &Device::flex());
        let x = self.input.forward(self.tokens.forward(ids));
        let x = match &self.norm {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Group(norm) => norm.forward(x),
        };
        let mut x = self.square.forward(x); // [2, 3, 6]
        for block in &self.blocks {
            x = x.clone() + block.query.forward(block.norm.forward(x)).tanh();
        }
        let x = self.conv1.forward(x.swap_dims(1, 2)).unsqueeze_dim::<4>(3); // [2, 4, 3, 1]
        let x = self.up.forward(self.groups.forward(self.conv2.forward(x))); // [2, 4, 6, 2]
        let x = self.instance.forward(self.activation.forward(self.batch.forward(x)));
        crate::host(&self.conv3.forward(x.unsqueeze_dim::<5>(2))) // [2, 2, 1, 5, 1]
    }
}

pub fn rules() -> Rules {
    Rules::new()
        .prefix("token_embedding", "tokens")
        .exact("proj_in.weight", "input.weight")
        .exact("proj_in.bias", "input.bias")
        .segments("transformer_blocks.{i}", "blocks.{i}")
        .segments("blocks.{i}.to_q", "blocks.{i}.query")
        .prefix("group_norm", "groups")
        .prefix("batch_norm", "batch")
        .prefix("instance_norm", "instance")
        .ignore("position_ids", "a buffer of 0, 1, 2, ...")
        .ignore("num_batches_tracked", "counts training steps")
}

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/published")
}

pub fn load(path: &Path, variant: Option<&str>, rules: &Rules) -> Result<(Tiny, Report), WeightsError> {
    load_published(tiny(LinearLayout::Row), &Source::open(path, variant)?, rules)
}

#[track_caller]
pub fn assert_answers(module: &Tiny, name: &str) {
    let answers = read_tensors(&fixtures().join("answers.safetensors")).unwrap();
    let expected: Vec<f32> = answers[name].iter::<f32>().collect();
    let found = module.answer();
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
    let error = found.iter().zip(&expected).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest;
    println!("{name}: {error:.1e} of the largest value");
    assert!(error < 2e-6, "{name}: {error}");
}

pub fn bits(module: &Tiny) -> Vec<(String, Vec<u32>)> {
    let values = |data: TensorData| data.iter::<f32>().map(f32::to_bits).collect();
    params::named(module).into_iter().map(|param| (param.name, values(param.data))).collect()
}
