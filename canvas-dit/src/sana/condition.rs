//! What Sana is told.

use burn::prelude::*;
use canvas_core::{Condition, Text};

/// A text, and the strength of guidance for networks that were distilled to be told it.
#[derive(Clone, Debug)]
pub struct SanaCondition {
    /// The text; its pooled vectors are not read.
    pub text: Text,
    /// Strength of guidance, such as 4.5, of each sample: `[B]`. Read by networks with
    /// [`guidance_scale`](crate::SanaConfig::guidance_scale), which need it, and by no others.
    pub guidance: Option<Tensor<1>>,
}

impl SanaCondition {
    /// The text with one strength for all samples.
    pub fn new(text: Text, guidance: f32) -> Self {
        let strength = Tensor::from_floats([guidance], &text.tokens.device());
        Self { guidance: Some(strength.repeat_dim(0, text.batch())), text }
    }
}

impl From<Text> for SanaCondition {
    fn from(text: Text) -> Self {
        Self { text, guidance: None }
    }
}

impl Condition for SanaCondition {
    fn batch(&self) -> usize {
        self.text.batch()
    }

    /// # Panics
    /// If some parts have a strength and others have not.
    fn cat(parts: &[Self]) -> Self {
        let text: Vec<Text> = parts.iter().map(|part| part.text.clone()).collect();
        let strengths: Vec<Tensor<1>> = parts.iter().filter_map(|part| part.guidance.clone()).collect();
        let (told, all) = (strengths.len(), parts.len());
        assert!(told == 0 || told == all, "{told} of {all} conditions have a strength of guidance");
        Self { text: Text::cat(&text), guidance: (told > 0).then(|| Tensor::cat(strengths, 0)) }
    }

    fn select(&self, rows: &[usize]) -> Self {
        let pick =
            |all: &Tensor<1>| Tensor::cat(rows.iter().map(|&row| all.clone().narrow(0, row, 1)).collect(), 0);
        Self { text: self.text.select(rows), guidance: self.guidance.as_ref().map(pick) }
    }
}
