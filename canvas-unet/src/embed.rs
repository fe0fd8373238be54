//! What a UNet is told besides text: sizes, and labels of several kinds. All of it becomes part of the embedding.
//!
//! Shape letters: `B` batch, `P` pooled width, `I` numbers of a size condition, `L` label width, `E` embedding width.

use crate::UnetConfig;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::nn::{linear, sinusoidal};
use canvas_core::ops::silu;
use canvas_core::{Class, Condition, Text};
use serde::{Deserialize, Serialize};

/// How a network reads a [`Label`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// One of this many learned vectors: the noise level of Stable Diffusion's upscaler.
    Class(usize),
    /// A number, embedded as a time is.
    Time,
    /// A vector of this width through two layers: the image embedding of unCLIP.
    Vector(usize),
}

/// A label of a batch: an index or a vector, as the network's [`LabelKind`] asks.
#[derive(Clone, Debug)]
pub enum Label {
    /// For [`LabelKind::Class`].
    Class(Class),
    /// `[B, 1]` for [`LabelKind::Time`], `[B, L]` for [`LabelKind::Vector`].
    Vector(Tensor<2>),
}

impl Condition for Label {
    fn batch(&self) -> usize {
        match self {
            Self::Class(class) => class.batch(),
            Self::Vector(vector) => vector.dims()[0],
        }
    }
    /// # Panics
    /// If some are classes and others vectors.
    fn cat(parts: &[Self]) -> Self {
        let class = |part: &Self| match part {
            Self::Class(class) => Some(class.clone()),
            Self::Vector(_) => None,
        };
        let vector = |part: &Self| match part {
            Self::Class(_) => None,
            Self::Vector(vector) => Some(vector.clone()),
        };
        let classes: Vec<Class> = parts.iter().filter_map(class).collect();
        let vectors: Vec<Tensor<2>> = parts.iter().filter_map(vector).collect();
        assert!(
            classes.is_empty() || vectors.is_empty(),
            "labels that are classes beside some that are vectors"
        );
        if classes.is_empty() {
            Self::Vector(Tensor::cat(vectors, 0))
        } else {
            Self::Class(Class::cat(&classes))
        }
    }
    fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Class(class) => Self::Class(class.select(rows)),
            Self::Vector(vector) => Self::Vector(select(vector, rows)),
        }
    }
}

fn select(x: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
    Tensor::cat(rows.iter().map(|&row| x.clone().narrow(0, row, 1)).collect(), 0)
}

/// Text, and what a network is told beside it. Plain text becomes one by `into()`.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Encoded prompts.
    pub text: Text,
    /// `[B, I]`, in pixels; SDXL's six: original height and width, crop top and left, target height and width.
    pub sizes: Option<Tensor<2>>,
    /// What the network's [`LabelKind`] asks for.
    pub label: Option<Label>,
}

impl From<Text> for Conditions {
    fn from(text: Text) -> Self {
        Self { text, sizes: None, label: None }
    }
}

impl Condition for Conditions {
    fn batch(&self) -> usize {
        self.text.batch()
    }
    /// # Panics
    /// If some have sizes or labels and others have none.
    fn cat(parts: &[Self]) -> Self {
        let text: Vec<Text> = parts.iter().map(|part| part.text.clone()).collect();
        let sizes = all("sizes", parts.iter().map(|part| part.sizes.clone()));
        let label = all("labels", parts.iter().map(|part| part.label.clone()));
        Self {
            text: Text::cat(&text),
            sizes: sizes.map(|sizes| Tensor::cat(sizes, 0)),
            label: label.map(|label| Label::cat(&label)),
        }
    }
    fn select(&self, rows: &[usize]) -> Self {
        Self {
            text: self.text.select(rows),
            sizes: self.sizes.as_ref().map(|sizes| select(sizes, rows)),
            label: self.label.as_ref().map(|label| label.select(rows)),
        }
    }
}

/// Every part's value, or none if no part has one.
fn all<T>(name: &str, parts: impl ExactSizeIterator<Item = Option<T>>) -> Option<Vec<T>> {
    let count = parts.len();
    let found: Vec<T> = parts.flatten().collect();
    assert!(found.is_empty() || found.len() == count, "{} of {count} conditions have {name}", found.len());
    (!found.is_empty()).then_some(found)
}

/// Two layers with SiLU between.
#[derive(Module, Debug)]
struct Pair {
    input: Linear,
    output: Linear,
}

impl Pair {
    fn new(from: usize, to: usize, device: &Device) -> Self {
        Self {
            input: LinearConfig::new(from, to).init(device),
            output: LinearConfig::new(to, to).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(&self.output, silu(linear(&self.input, x)))
    }
}

/// The embeddings of pooled text, sizes and labels, which are added to that of the time.
#[derive(Module, Debug)]
pub(crate) struct Extra {
    sizes: Option<Pair>,
    classes: Option<Embedding>,
    label: Option<Pair>,
    size_features: usize,
    size_count: usize,
    /// Features of a label that is a number; 0 for a label that is a vector.
    label_features: usize,
}

impl Extra {
    pub(crate) fn new(config: &UnetConfig, device: &Device) -> Self {
        let (width, first) = (config.embedding(), config.channels[0]);
        let features = config.size_features.unwrap_or(0);
        let read = config.pooled_width.unwrap_or(0) + config.size_count * features;
        let (classes, label, label_features) = match config.label {
            None => (None, None, 0),
            Some(LabelKind::Class(count)) => (Some(EmbeddingConfig::new(count, width).init(device)), None, 0),
            Some(LabelKind::Time) => (None, Some(Pair::new(first, width, device)), first),
            Some(LabelKind::Vector(from)) => (None, Some(Pair::new(from, width, device)), 0),
        };
        Self {
            sizes: config.size_features.map(|_| Pair::new(read, width, device)),
            classes,
            label,
            size_features: features,
            size_count: config.size_count,
            label_features,
        }
    }

    /// `embedding`: `[B, E]`, output: `[B, E]`.
    ///
    /// # Panics
    /// If the network reads sizes or a label that the conditions have not, or the other way round.
    pub(crate) fn add(&self, embedding: Tensor<2>, cond: &Conditions) -> Tensor<2> {
        let embedding = match self.label(cond.label.as_ref()) {
            Some(label) => embedding + label,
            None => embedding,
        };
        match (&self.sizes, &cond.sizes) {
            (None, None) => embedding,
            (Some(pair), Some(sizes)) => embedding + self.sizes(pair, sizes.clone(), &cond.text),
            (Some(_), None) => {
                panic!("this UNet reads {} sizes beside the text, found none", self.size_count)
            }
            (None, Some(_)) => panic!("sizes for a UNet that reads none"),
        }
    }

    /// The sinusoidal features of all sizes behind the pooled prompt, through two layers.
    fn sizes(&self, pair: &Pair, sizes: Tensor<2>, text: &Text) -> Tensor<2> {
        let [batch, count] = sizes.dims();
        assert_eq!(count, self.size_count, "{count} sizes, this UNet reads {}", self.size_count);
        let features = sinusoidal(sizes.reshape([batch * count]), self.size_features, 10000.0); // [B I, F]
        let features = features.reshape([batch, count * self.size_features]); // [B, I F]
        let (features, pooled) = (features.cast(text.pooled.dtype()), text.pooled.clone());
        pair.forward(Tensor::cat(vec![pooled, features], 1)) // [B, E]
    }

    fn label(&self, label: Option<&Label>) -> Option<Tensor<2>> {
        match (&self.classes, &self.label, label) {
            (None, None, None) => None,
            (Some(table), None, Some(Label::Class(class))) => {
                Some(table.forward(class.labels.clone().unsqueeze_dim::<2>(1)).squeeze_dim(1)) // [B, E]
            }
            (None, Some(pair), Some(Label::Vector(vector))) if self.label_features > 0 => {
                let number = vector.clone().squeeze_dim::<1>(1); // [B]
                Some(pair.forward(sinusoidal(number, self.label_features, 10000.0)))
            }
            (None, Some(pair), Some(Label::Vector(vector))) => Some(pair.forward(vector.clone())),
            (None, None, Some(_)) => panic!("a label for a UNet that reads none"),
            (Some(_), _, _) => panic!("this UNet reads a class label, found another label or none"),
            (_, Some(_), _) => panic!("this UNet reads a label vector, found a class or none"),
        }
    }
}
