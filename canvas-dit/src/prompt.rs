//! What text-to-image transformers that also edit are told.

use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Condition, Text};

/// A text, and with it the guidance scale and the pictures to look at, for networks that read them.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Condition, Text};
/// use canvas_dit::Prompt;
///
/// let device = Device::flex();
/// let mask = Tensor::<2, Int>::ones([1, 3], &device).bool();
/// let text = Text { tokens: Tensor::ones([1, 3, 8], &device), mask, pooled: Tensor::ones([1, 4], &device) };
/// let prompt = Prompt::from(text).with_guidance(3.5).with_reference(Tensor::ones([1, 16, 4, 6], &device));
/// assert_eq!(prompt.spread(2).references[0].dims(), [2, 16, 4, 6]);
/// ```
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The encoded text.
    pub text: Text,
    /// The scale `[B]` of the guidance that a distilled network imitates (Flux: 3.5); exactly the networks that have
    /// an embedding for it are told.
    pub guidance: Option<Tensor<1>>,
    /// Latents of pictures to look at, each `[B, C, h, w]` of a size of its own, scaled as those that are drawn.
    pub references: Vec<Tensor<4>>,
}

impl From<Text> for Prompt {
    fn from(text: Text) -> Self {
        Self { text, guidance: None, references: Vec::new() }
    }
}

impl Prompt {
    /// With this guidance scale for all samples.
    pub fn with_guidance(self, scale: f64) -> Self {
        let ones = Tensor::ones([self.batch()], (&self.text.tokens.device(), DType::F32));
        Self { guidance: Some(ones * scale), ..self }
    }

    /// With one more picture to look at: latents `[B, C, h, w]`.
    pub fn with_reference(mut self, latents: Tensor<4>) -> Self {
        self.references.push(latents);
        self
    }

    /// The guidance scale, of a network that has an embedding for it if `embedded`.
    pub(crate) fn guidance_for(&self, embedded: bool) -> Option<Tensor<1>> {
        let told = self.guidance.is_some();
        assert!(told || !embedded, "the network embeds a guidance scale, and the prompt holds none");
        assert!(
            embedded || !told,
            "the prompt holds a guidance scale, and the network has no embedding for it"
        );
        self.guidance.clone()
    }
}

impl Condition for Prompt {
    fn batch(&self) -> usize {
        self.text.batch()
    }

    /// # Panics
    /// If some parts have a guidance scale and others not, or their references differ in number or size.
    fn cat(parts: &[Self]) -> Self {
        let texts: Vec<Text> = parts.iter().map(|part| part.text.clone()).collect();
        let scales: Vec<Tensor<1>> = parts.iter().filter_map(|part| part.guidance.clone()).collect();
        let told = scales.len();
        assert!(told == 0 || told == parts.len(), "{told} of {} prompts hold a guidance scale", parts.len());
        let counts: Vec<usize> = parts.iter().map(|part| part.references.len()).collect();
        let same = counts.windows(2).all(|pair| pair[0] == pair[1]);
        assert!(same, "prompts with {counts:?} references do not make a batch");
        let reference = |k: usize| {
            Tensor::cat(parts.iter().map(|part| part.references[k].clone()).collect(), 0) // [B, C, h, w]
        };
        Self {
            text: Text::cat(&texts),
            guidance: (told > 0).then(|| Tensor::cat(scales, 0)),
            references: (0..counts[0]).map(reference).collect(),
        }
    }

    fn select(&self, rows: &[usize]) -> Self {
        Self {
            text: self.text.select(rows),
            guidance: self.guidance.as_ref().map(|scale| picked(scale, rows)),
            references: self.references.iter().map(|latents| picked(latents, rows)).collect(),
        }
    }
}

fn picked<const D: usize>(x: &Tensor<D>, rows: &[usize]) -> Tensor<D> {
    Tensor::cat(rows.iter().map(|&row| x.clone().narrow(0, row, 1)).collect(), 0)
}

/// Sizes that a network expects of its inputs.
pub(crate) struct Expected {
    /// Channels of the input.
    pub channels: usize,
    /// Width of the text's tokens.
    pub text: usize,
    /// Width of the pooled text, if it is read.
    pub pooled: Option<usize>,
}

impl Expected {
    /// # Panics
    /// Naming what was found and what is expected.
    pub(crate) fn check(&self, x: &Tensor<4>, time: &Tensor<1>, text: &Text) {
        let [batch, channels, ..] = x.dims();
        assert_eq!(channels, self.channels, "channels of x, and those that the network takes");
        let (times, texts) = (time.dims()[0], text.batch());
        assert!(times == batch && texts == batch, "{times} times and {texts} texts for a batch of {batch}");
        assert_eq!(
            text.tokens.dims()[2],
            self.text,
            "width of the text's tokens, and what the network reads"
        );
        if let Some(width) = self.pooled {
            assert_eq!(text.pooled.dims()[1], width, "width of the pooled text, and what the network reads");
        }
    }

    /// # Panics
    /// If a picture to look at has other channels than the input, or another batch.
    pub(crate) fn check_references(&self, batch: usize, references: &[Tensor<4>]) {
        for (k, latents) in references.iter().enumerate() {
            let [found, channels, ..] = latents.dims();
            let expected = [batch, self.channels];
            assert_eq!([found, channels], expected, "[batch, channels] of reference {k}, and those of x");
        }
    }
}
