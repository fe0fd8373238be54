//! Redux: pictures as prompts for Flux.1, by words that they are made into.
//!
//! Black Forest Labs, FLUX.1 Redux, 2024, <https://github.com/black-forest-labs/flux>.

use burn::nn::Linear;
use burn::prelude::*;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::nn::{dense, init::xavier_linear};
use canvas_core::ops::silu;
use canvas_core::weights::Rules;
use canvas_core::{ConfigError, Text, check};
use std::path::Path;

/// Sizes of a [`Redux`].
#[derive(Config, Debug)]
pub struct ReduxConfig {
    /// Width of the picture's tokens (SigLIP so400m).
    #[config(default = 1152)]
    pub image: usize,
    /// Width of the text's tokens (T5).
    #[config(default = 4096)]
    pub text: usize,
}

impl ReduxConfig {
    /// Reads an `image_embedder/config.json` of class `ReduxImageEncoder`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "ReduxImageEncoder")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "ReduxImageEncoder")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let config = Self::new()
            .with_image(fields.number("redux_dim")?.unwrap_or(1152))
            .with_text(fields.number("txt_in_features")?.unwrap_or(4096));
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `ReduxImageEncoder`.
    pub fn published(&self) -> Rules {
        Rules::new().prefix("redux_up", "up").prefix("redux_down", "down")
    }

    /// # Errors
    /// Names a width that is 0.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check::positive(("image", self.image))?;
        check::positive(("text", self.text))
    }

    /// Xavier-uniform weights, zero biases.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn init(&self, device: &Device) -> Redux {
        self.validate().unwrap_or_else(|error| panic!("ReduxConfig: {error}"));
        Redux {
            up: xavier_linear(self.image, 3 * self.text, device),
            down: xavier_linear(3 * self.text, self.text, device),
        }
    }
}

/// Makes a picture's tokens into words of the text.
#[derive(Module, Debug)]
pub struct Redux {
    up: Linear,
    down: Linear,
}

impl Redux {
    /// `down(silu(up(x)))`, of the last hidden states of SigLIP after its norm.
    ///
    /// # Shapes
    /// `[B, N, I]` to `[B, N, T]`.
    pub fn forward(&self, image: Tensor<3>) -> Tensor<3> {
        dense(&self.down, silu(dense(&self.up, image)))
    }

    /// The text with the picture's words behind its own; both are weighted by `scales` (1 and 1 as published) of
    /// `[tokens, pooled]`, which lets one of several prompts count for less.
    ///
    /// # Shapes
    /// - `text`: tokens `[B, T, W]`; `image`: `[B, N, I]`; output: tokens `[B, T + N, W]`
    ///
    /// # Panics
    /// If the batches differ, or the text's tokens have another width.
    pub fn extend(&self, text: &Text, image: Tensor<3>, scales: [f64; 2]) -> Text {
        let words = self.forward(image); // [B, N, W]
        let ([batch, count, width], [texts, _, expected]) = (words.dims(), text.tokens.dims());
        assert_eq!(
            [texts, expected],
            [batch, width],
            "[batch, width] of the text, and of the picture's words"
        );
        let seen = Tensor::<2, Int>::ones([batch, count], &text.mask.device()).bool();
        Text {
            tokens: Tensor::cat(vec![text.tokens.clone(), words], 1) * scales[0],
            mask: Tensor::cat(vec![text.mask.clone(), seen], 1),
            pooled: text.pooled.clone() * scales[1],
        }
    }
}
