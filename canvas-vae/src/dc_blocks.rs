//! Blocks of the deep compression autoencoder.

use crate::halves::{conv3, doubled};
use crate::norms::{ChannelRms, FrozenBatchNorm, wide};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d, PixelShuffleConfig, PixelUnshuffleConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;
use canvas_core::nn::{Activation, conv2d, dense};
use canvas_core::ops::{gate as gated, silu};
use serde::{Deserialize, Serialize};

/// Added to every norm's mean square or variance.
pub(crate) const EPSILON: f64 = 1e-5;

/// Added to the sum of an attention's weights.
const NO_WEIGHT: f64 = 1e-15;

/// How an encoder's level halves height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DcDown {
    /// A 3x3 convolution, then squares of 2x2 places folded into channels.
    Unshuffle,
    /// A 3x3 convolution of stride 2.
    Conv,
}

/// How a decoder's level doubles height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DcUp {
    /// A 3x3 convolution, then channels unfolded into squares of 2x2 places.
    Shuffle,
    /// Each number four times, then a 3x3 convolution.
    Interpolate,
}

/// The norm of a decoder's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DcNorm {
    /// Root mean square of the channels.
    Rms,
    /// A batch norm with the statistics that were loaded, in training too.
    Batch,
}

/// What a convolution does to the size.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Keep,
    Down(DcDown),
    Up(DcUp),
}

/// A convolution that may change the size, and perhaps a way around it without weights: averages of folded channels
/// on the way down, copies of channels on the way up.
#[derive(Module, Debug)]
pub(crate) struct Resize {
    conv: Conv2d,
    #[module(skip)]
    way: Way,
    #[module(skip)]
    around: Option<usize>,
}

impl Resize {
    /// Without a way around.
    pub(crate) fn plain([from, to]: [usize; 2], way: Way, device: &Device) -> Self {
        let conv = match way {
            Way::Keep | Way::Up(DcUp::Interpolate) => conv3(from, to, device),
            Way::Down(DcDown::Unshuffle) => conv3(from, to / 4, device),
            Way::Up(DcUp::Shuffle) => conv3(from, to * 4, device),
            Way::Down(DcDown::Conv) => Conv2dConfig::new([from, to], [3, 3])
                .with_stride([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device),
        };
        Self { conv, way, around: None }
    }

    /// With a way around.
    pub(crate) fn around([from, to]: [usize; 2], way: Way, device: &Device) -> Self {
        let around = Some(match way {
            Way::Keep if from > to => from / to,
            Way::Keep => to / from,
            Way::Down(_) => 4 * from / to,
            Way::Up(_) => 4 * to / from,
        });
        Self { around, ..Self::plain([from, to], way, device) }
    }

    /// `[B, C, H, W]` to the new channels and size.
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (unfold, fold) = (PixelShuffleConfig::new(2).init(), PixelUnshuffleConfig::new(2).init());
        let y = match self.way {
            Way::Keep | Way::Down(DcDown::Conv) => conv2d(&self.conv, x.clone()),
            Way::Down(DcDown::Unshuffle) => fold.forward(conv2d(&self.conv, x.clone())),
            Way::Up(DcUp::Shuffle) => unfold.forward(conv2d(&self.conv, x.clone())),
            Way::Up(DcUp::Interpolate) => conv2d(&self.conv, doubled(x.clone())),
        };
        let Some(times) = self.around else { return y };
        let other = match self.way {
            Way::Keep if x.dims()[1] > y.dims()[1] => averaged(x, times),
            Way::Keep => copied(x, times),
            Way::Down(_) => averaged(fold.forward(x), times),
            Way::Up(_) => unfold.forward(copied(x, times)),
        };
        y + other
    }
}

/// The means of groups of so many channels.
fn averaged(x: Tensor<4>, group: usize) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let groups: Tensor<5> = x.reshape([batch, channels / group, group, height, width]);
    groups.mean_dim(2).squeeze_dim(2)
}

/// Every channel so many times in a row.
fn copied(x: Tensor<4>, times: usize) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let copies: Tensor<5> = x.unsqueeze_dim(2);
    copies.expand([batch, channels, times, height, width]).reshape([batch, channels * times, height, width])
}

#[derive(Module, Debug)]
enum Norm {
    Rms(ChannelRms),
    Batch(FrozenBatchNorm),
}

impl Norm {
    fn new(kind: DcNorm, width: usize, device: &Device) -> Self {
        match kind {
            DcNorm::Rms => Self::Rms(ChannelRms::new(width, EPSILON, device)),
            DcNorm::Batch => Self::Batch(FrozenBatchNorm::new(width, EPSILON, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Batch(norm) => norm.forward(x),
        }
    }
}

fn bare_conv3(width: usize, device: &Device) -> Conv2d {
    let config = Conv2dConfig::new([width, width], [3, 3]).with_bias(false);
    config.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
}

/// Two convolutions with an activation between and a norm behind, and the way around them.
#[derive(Module, Debug)]
pub(crate) struct ResBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    norm: Norm,
    #[module(skip)]
    activation: Activation,
}

impl ResBlock {
    pub(crate) fn new(width: usize, norm: DcNorm, activation: Activation, device: &Device) -> Self {
        let (conv1, conv2) = (conv3(width, width, device), bare_conv3(width, device));
        Self { conv1, conv2, norm: Norm::new(norm, width, device), activation }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = self.activation.forward(conv2d(&self.conv1, x.clone())); // [B, C, H, W]
        x + self.norm.forward(conv2d(&self.conv2, hidden)) // [B, C, H, W]
    }
}

/// Attention whose map is `relu(q) relu(k)^T`, and a gated convolution, each with a way around it.
#[derive(Module, Debug)]
pub(crate) struct VitBlock {
    attention: LinearAttention,
    glu: GluConv,
}

impl VitBlock {
    pub(crate) fn new(width: usize, head: usize, scales: &[usize], norm: DcNorm, device: &Device) -> Self {
        let attention = LinearAttention::new(width, head, scales, norm, device);
        Self { attention, glu: GluConv::new(width, device) }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = x.clone() + self.attention.forward(x); // [B, C, H, W]
        x.clone() + self.glu.forward(x) // [B, C, H, W]
    }
}

/// Queries, keys and values once more, each from its neighbourhood: a convolution of each channel, then a mix of the
/// channels of a head.
#[derive(Module, Debug)]
struct Scale {
    gather: Conv2d,
    blend: Conv2d,
}

impl Scale {
    fn new(width: usize, head: usize, kernel: usize, device: &Device) -> Self {
        let (channels, pad) = (3 * width, kernel / 2);
        let gather = Conv2dConfig::new([channels, channels], [kernel, kernel])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad));
        let blend = Conv2dConfig::new([channels, channels], [1, 1]).with_groups(channels / head);
        Self {
            gather: gather.with_groups(channels).with_bias(false).init(device),
            blend: blend.with_bias(false).init(device),
        }
    }
}

/// Attention in time linear in the places: `relu(q) (relu(k)^T v) / (relu(q) sum(relu(k)))`, by heads; further heads
/// see each place's neighbourhood.
#[derive(Module, Debug)]
struct LinearAttention {
    /// Thirds of one matrix. diffusers calls them q, k and v, but heads are cut from all three behind each other: the
    /// first head's query, key and value are the first channels of the first third.
    parts: Vec<Linear>,
    scales: Vec<Scale>,
    output: Linear,
    norm: Norm,
    head: usize,
}

impl LinearAttention {
    fn new(width: usize, head: usize, scales: &[usize], norm: DcNorm, device: &Device) -> Self {
        let linear = |from| LinearConfig::new(from, width).with_bias(false).init(device);
        Self {
            parts: (0..3).map(|_| linear(width)).collect(),
            scales: scales.iter().map(|&kernel| Scale::new(width, head, kernel, device)).collect(),
            output: linear(width * (1 + scales.len())),
            norm: Norm::new(norm, width, device),
            head,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, width, height, columns] = x.dims();
        let image = |tokens: Tensor<3>| tokens.swap_dims(1, 2).reshape([batch, width, height, columns]);
        let tokens: Tensor<3> = x.flatten(2, 3).swap_dims(1, 2); // [B, N, C]
        let parts = self.parts.iter().map(|part| image(dense(part, tokens.clone()))).collect();
        let first = Tensor::cat(parts, 1); // [B, 3 C, H, W]
        let further =
            self.scales.iter().map(|scale| conv2d(&scale.blend, conv2d(&scale.gather, first.clone())));
        let all = Tensor::cat([first.clone()].into_iter().chain(further).collect(), 1); // [B, S 3 C, H, W]
        let (places, heads) = (height * columns, all.dims()[1] / (3 * self.head));
        let cut: Tensor<4> = all.reshape([batch, heads, 3 * self.head, places]); // [B, A, 3 D, N]
        let third = |i| cut.clone().narrow(2, i * self.head, self.head); // [B, A, D, N]
        let read = attend(relu(third(0)), relu(third(1)), third(2)); // [B, A, D, N]
        let read = read.reshape([batch, heads * self.head, places]).swap_dims(1, 2); // [B, N, A D]
        self.norm.forward(image(dense(&self.output, read))) // [B, C, H, W]
    }
}

/// `v k^T q` over its own sum of weights, each `[B, A, D, N]`; whichever product is smaller is taken first.
fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let [batch, heads, width, places] = query.dims();
    if places <= width {
        let map = key.swap_dims(2, 3).matmul(query); // [B, A, N keys, N queries]
        let map = map.clone() / (map.sum_dim(2) + NO_WEIGHT);
        return value.matmul(map); // [B, A, D, N]
    }
    let dtype = value.dtype();
    let (query, key, value) = (wide(query), wide(key), wide(value)); // sums over thousands of places
    let ones = Tensor::ones([batch, heads, 1, places], (&value.device(), value.dtype()));
    let sums = Tensor::cat(vec![value, ones], 2).matmul(key.swap_dims(2, 3)); // [B, A, D + 1, D]
    let read = sums.matmul(query); // [B, A, D + 1, N]
    let weight = read.clone().narrow(2, width, 1) + NO_WEIGHT; // [B, A, 1, N]
    let read = read.narrow(2, 0, width) / weight; // [B, A, D, N]
    read.cast(dtype)
}

/// A 1x1 convolution to eight times the channels, one of each channel over 3x3 places, half of them gated by the
/// other, and a 1x1 convolution back.
#[derive(Module, Debug)]
struct GluConv {
    widen: Conv2d,
    depth: Conv2d,
    narrow: Conv2d,
    norm: ChannelRms,
}

impl GluConv {
    fn new(width: usize, device: &Device) -> Self {
        let hidden = 8 * width;
        let depth = Conv2dConfig::new([hidden, hidden], [3, 3]).with_groups(hidden);
        Self {
            widen: Conv2dConfig::new([width, hidden], [1, 1]).init(device),
            depth: depth.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device),
            narrow: Conv2dConfig::new([hidden / 2, width], [1, 1]).with_bias(false).init(device),
            norm: ChannelRms::new(width, EPSILON, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let hidden = conv2d(&self.depth, silu(conv2d(&self.widen, x))); // [B, 8 C, H, W]
        let half = hidden.dims()[1] / 2;
        let [up, gate] = [0, half].map(|start| hidden.clone().narrow(1, start, half)); // [B, 4 C, H, W]
        self.norm.forward(conv2d(&self.narrow, gated(Activation::Silu, gate, up))) // [B, C, H, W]
    }
}
