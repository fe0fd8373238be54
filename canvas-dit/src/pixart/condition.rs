//! What PixArt is told.

use burn::prelude::*;
use canvas_core::{Condition, Text};

/// A text, and the size of the picture for models with micro-conditions.
#[derive(Clone, Debug)]
pub struct PixArtCondition {
    /// The text; its pooled vectors are not read.
    pub text: Text,
    /// Heights and widths in pixels: `[B, 2]`. Read by models with
    /// [`micro_conditions`](crate::PixArtConfig::micro_conditions), which need it, and by no others.
    pub size: Option<Tensor<2>>,
}

impl PixArtCondition {
    /// The text for pictures of `height` by `width` pixels.
    pub fn new(text: Text, height: usize, width: usize) -> Self {
        let row = Tensor::from_floats([[height as f32, width as f32]], &text.tokens.device());
        Self { size: Some(row.repeat_dim(0, text.batch())), text }
    }
}

impl From<Text> for PixArtCondition {
    fn from(text: Text) -> Self {
        Self { text, size: None }
    }
}

impl Condition for PixArtCondition {
    fn batch(&self) -> usize {
        self.text.batch()
    }

    /// # Panics
    /// If some parts have sizes and others have not.
    fn cat(parts: &[Self]) -> Self {
        let text: Vec<Text> = parts.iter().map(|part| part.text.clone()).collect();
        let sizes: Vec<Tensor<2>> = parts.iter().filter_map(|part| part.size.clone()).collect();
        let (told, all) = (sizes.len(), parts.len());
        assert!(told == 0 || told == all, "{told} of {all} conditions have sizes of pictures");
        Self { text: Text::cat(&text), size: (told > 0).then(|| Tensor::cat(sizes, 0)) }
    }

    fn select(&self, rows: &[usize]) -> Self {
        let pick = |size: &Tensor<2>| {
            Tensor::cat(rows.iter().map(|&row| size.clone().narrow(0, row, 1)).collect(), 0)
        };
        Self { text: self.text.select(rows), size: self.size.as_ref().map(pick) }
    }
}
