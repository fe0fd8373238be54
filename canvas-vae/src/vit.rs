//! Vision transformers: the encoders and the decoder of a representation autoencoder.

use crate::resample::{Bicubic, resized};
use burn::module::Param;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::prelude::*;
use canvas_core::nn::{Activation, Attention, AttentionConfig, LayerNorm, LayerNormConfig, Mlp, MlpConfig};
use serde::{Deserialize, Serialize};

/// Which network an [`AutoencoderRae`](crate::AutoencoderRae) encodes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaeEncoder {
    /// DINOv2 with four registers (Darcet et al., 2023, [arXiv:2309.16588](https://arxiv.org/abs/2309.16588)).
    Dinov2,
    /// SigLIP 2 (Tschannen et al., 2025, [arXiv:2502.14786](https://arxiv.org/abs/2502.14786)).
    Siglip2,
    /// A masked autoencoder's encoder (He et al., 2021, [arXiv:2111.06377](https://arxiv.org/abs/2111.06377)).
    Mae,
}

impl RaeEncoder {
    /// Side of the images that its table of positions is for.
    pub(crate) fn trained_side(self) -> usize {
        match self {
            Self::Dinov2 => 518,
            Self::Siglip2 => 256,
            Self::Mae => 224,
        }
    }

    /// The blocks, as diffusers makes them: the hidden width of the last two is that of their base models at any width.
    fn block(self, width: usize, heads: usize) -> BlockSizes {
        let (epsilon, activation, hidden) = match self {
            Self::Dinov2 => (1e-6, Activation::Gelu, 4 * width),
            Self::Siglip2 => (1e-6, Activation::GeluTanh, 3072),
            Self::Mae => (1e-12, Activation::Gelu, 3072),
        };
        BlockSizes { width, heads, hidden, epsilon, activation, scaled: self == Self::Dinov2 }
    }
}

/// Sizes of a [`Block`].
#[derive(Clone, Copy)]
pub(crate) struct BlockSizes {
    pub width: usize,
    pub heads: usize,
    pub hidden: usize,
    pub epsilon: f64,
    pub activation: Activation,
    /// Whether each channel of both branches has a factor.
    pub scaled: bool,
}

/// Attention and a perceptron, each behind a norm.
#[derive(Module, Debug)]
pub(crate) struct Block {
    norm1: LayerNorm,
    attention: Attention,
    scale1: Option<Param<Tensor<1>>>,
    norm2: LayerNorm,
    mlp: Mlp,
    scale2: Option<Param<Tensor<1>>>,
}

impl Block {
    pub(crate) fn new(sizes: BlockSizes, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(sizes.width).with_epsilon(sizes.epsilon).init(device);
        let scale = || sizes.scaled.then(|| Initializer::Ones.init([sizes.width], device));
        let mlp = MlpConfig::new(sizes.width, sizes.hidden).with_activation(sizes.activation);
        Self {
            norm1: norm(),
            attention: AttentionConfig::new(sizes.width, sizes.heads).init(device),
            scale1: scale(),
            norm2: norm(),
            mlp: mlp.init(device),
            scale2: scale(),
        }
    }

    /// `[B, N, W]` to the same.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.norm1.forward(x.clone()); // [B, N, W]
        let x = x + scaled(&self.scale1, self.attention.forward(inner.clone(), inner, None)); // [B, N, W]
        let inner = self.mlp.forward(self.norm2.forward(x.clone())); // [B, N, W]
        x + scaled(&self.scale2, inner) // [B, N, W]
    }
}

fn scaled(scale: &Option<Param<Tensor<1>>>, x: Tensor<3>) -> Tensor<3> {
    match scale {
        Some(scale) => x * scale.val().unsqueeze(),
        None => x,
    }
}

/// A vision transformer without its last norm's weights: the tokens of the patches only.
#[derive(Module, Debug)]
pub(crate) struct Vit {
    patch: Conv2d,
    /// `[1, W]`.
    class: Option<Param<Tensor<2>>>,
    /// `[R, W]`.
    registers: Option<Param<Tensor<2>>>,
    /// The class token's, if there is one, then those of a square, row by row.
    positions: Param<Tensor<2>>,
    blocks: Vec<Block>,
    epsilon: f64,
    #[module(skip)]
    filter: Bicubic,
}

/// Sizes of a [`Vit`].
pub(crate) struct VitSizes {
    pub kind: RaeEncoder,
    pub width: usize,
    pub heads: usize,
    pub patch: usize,
    pub layers: usize,
}

impl Vit {
    pub(crate) fn new(sizes: &VitSizes, device: &Device) -> Self {
        let rows =
            |count: usize| Initializer::Normal { mean: 0.0, std: 0.02 }.init([count, sizes.width], device);
        let has_class = sizes.kind != RaeEncoder::Siglip2;
        let side = sizes.kind.trained_side() / sizes.patch;
        let block = sizes.kind.block(sizes.width, sizes.heads);
        Self {
            patch: Conv2dConfig::new([3, sizes.width], [sizes.patch; 2])
                .with_stride([sizes.patch; 2])
                .init(device),
            class: has_class.then(|| rows(1)),
            registers: (sizes.kind == RaeEncoder::Dinov2).then(|| rows(4)),
            positions: rows(side * side + usize::from(has_class)),
            blocks: (0..sizes.layers).map(|_| Block::new(block, device)).collect(),
            epsilon: block.epsilon,
            filter: if sizes.kind == RaeEncoder::Dinov2 { Bicubic::Smooth } else { Bicubic::Sharp },
        }
    }

    /// # Shapes
    /// - `images`: `[B, 3, H, H]`
    /// - output: `[B, W, h, h]`, each place of mean 0 and variance 1
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let grid = self.patch.forward(images); // [B, W, h, h]
        let [batch, width, height, columns] = grid.dims();
        let (first, table) = self.places([height, columns]);
        let patches: Tensor<3> = (grid + table).flatten(2, 3).swap_dims(1, 2); // [B, h h, W]
        let spread = |rows: Tensor<2>| {
            let count = rows.dims()[0];
            rows.unsqueeze::<3>().expand([batch, count, width]) // [B, R, W]
        };
        let class = self.class.as_ref().map(|class| spread(class.val() + first.clone()));
        let registers = self.registers.as_ref().map(|registers| spread(registers.val()));
        let tokens = Tensor::cat(class.into_iter().chain(registers).chain([patches]).collect(), 1); // [B, N, W]
        let tokens = self.blocks.iter().fold(tokens, |x, block| block.forward(x)); // [B, N, W]
        let count = height * columns;
        let patches = tokens.clone().narrow(1, tokens.dims()[1] - count, count); // [B, h h, W]
        standard(patches, self.epsilon).swap_dims(1, 2).reshape([batch, width, height, columns])
    }

    /// Positions of the class token, `[0 or 1, W]`, and of a grid of this size, `[1, W, h, w]`.
    fn places(&self, size: [usize; 2]) -> (Tensor<2>, Tensor<4>) {
        let all = self.positions.val();
        let [count, width] = all.dims();
        let special = usize::from(self.class.is_some());
        let side = (count - special).isqrt();
        let square = all.clone().narrow(0, special, count - special);
        let square = square.swap_dims(0, 1).reshape([1, width, side, side]); // [1, W, S, S]
        let square = if size == [side; 2] { square } else { resized(square, size, self.filter) };
        (all.narrow(0, 0, special.max(1)), square)
    }
}

/// Tokens of mean 0 and variance 1.
fn standard(x: Tensor<3>, epsilon: f64) -> Tensor<3> {
    let x = x.clone() - x.mean_dim(2);
    let variance = x.clone().square().mean_dim(2); // [B, N, 1]
    x / (variance + epsilon).sqrt()
}
