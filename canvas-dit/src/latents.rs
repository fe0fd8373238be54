//! What networks that read latents beside text share: the convolution that cuts patches, and checks of what they are given.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear};
use burn::prelude::*;
use canvas_core::nn::init::xavier_linear;
use canvas_core::nn::{Activation, Mlp, MlpConfig, conv2d};
use canvas_core::{Condition, Text};

/// A convolution of kernel and stride `patch`: Xavier-uniform weight, zero bias.
pub(crate) fn embedding(channels: usize, width: usize, patch: usize, device: &Device) -> Conv2d {
    let config = Conv2dConfig::new([channels, width], [patch, patch]).with_stride([patch, patch]);
    let layer = config.with_initializer(Initializer::XavierUniform { gain: 1.0 }).init(device);
    Conv2d { bias: Some(Initializer::Zeros.init([width], device)), ..layer }
}

/// Latents to tokens, row by row: `[B, C, H, S]` to `[B, N, W]`.
pub(crate) fn tokens(embed: &Conv2d, x: Tensor<4>) -> Tensor<3> {
    conv2d(embed, x).flatten::<3>(2, 3).swap_dims(1, 2)
}

/// Two layers from another width to the model's.
pub(crate) fn projection(from: usize, width: usize, activation: Activation, device: &Device) -> Mlp {
    let mut mlp = MlpConfig::new(width, width).with_activation(activation).init(device);
    mlp.up = xavier_linear(from, width, device);
    mlp
}

/// The same layer without its bias.
pub(crate) fn unbiased(layer: Linear) -> Linear {
    Linear { bias: None, ..layer }
}

/// Rows and columns of patches of latents that a network reads together with times and text.
///
/// # Panics
/// If the sizes are not those the network `name` reads: channels, the patch, the width of text tokens, the batch.
pub(crate) fn grid(
    name: &str,
    [channels, patch, context]: [usize; 3],
    x: &Tensor<4>,
    time: &Tensor<1>,
    text: &Text,
) -> [usize; 2] {
    let [batch, found, height, width] = x.dims();
    assert_eq!(found, channels, "x has {found} channels, the {name} reads {channels}");
    assert!(
        height.is_multiple_of(patch) && width.is_multiple_of(patch),
        "patch ({patch}) must divide height ({height}) and width ({width})"
    );
    let (times, texts) = (time.dims()[0], text.batch());
    assert!(times == batch && texts == batch, "{times} times and {texts} texts for a batch of {batch}");
    let found = text.tokens.dims()[2];
    assert_eq!(found, context, "text tokens are {found} wide, the {name} reads {context}");
    [height / patch, width / patch]
}
