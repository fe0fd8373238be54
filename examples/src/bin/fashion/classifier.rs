//! A small classifier: what says whether a drawing shows what it should, and whose features distances are measured in.

use anyhow::Result;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::{log_softmax, relu};
use canvas_core::nn::{conv2d, linear};
use canvas_examples::denoiser::picked;
use canvas_examples::idx::{Labelled, NAMES};
use canvas_examples::seeing::Seeing;
use canvas_examples::train_loop::Task;
use canvas_train::Order;
use std::ops::Range;

/// Numbers of the layer before the last.
pub const FEATURES: usize = 128;

/// Two convolutions that halve, and two layers.
#[derive(Module, Debug)]
pub struct Classifier {
    first: Conv2d,
    second: Conv2d,
    hidden: Linear,
    last: Linear,
}

impl Classifier {
    /// For pictures `[1, 28, 28]`.
    pub fn new(device: &Device) -> Self {
        let half = |channels| {
            let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
            Conv2dConfig::new(channels, [3, 3]).with_stride([2, 2]).with_padding(padding).init(device)
        };
        Self {
            first: half([1, 32]),
            second: half([32, 64]),
            hidden: LinearConfig::new(64 * 7 * 7, FEATURES).init(device),
            last: LinearConfig::new(FEATURES, NAMES.len()).init(device),
        }
    }

    /// What the last layer decides by.
    ///
    /// # Shapes
    /// `[B, 1, 28, 28]` to `[B, 128]`.
    pub fn features(&self, x: Tensor<4>) -> Tensor<2> {
        let h = relu(conv2d(&self.first, x)); // [B, 32, 14, 14]
        let h = relu(conv2d(&self.second, h)); // [B, 64, 7, 7]
        relu(linear(&self.hidden, h.flatten(1, 3))) // [B, 128]
    }

    /// Logits of the ten kinds, from features.
    pub fn decide(&self, features: Tensor<2>) -> Tensor<2> {
        linear(&self.last, features) // [B, 10]
    }

    /// Features on the host, row by row, and the likeliest kinds of pictures.
    pub fn look(&self, pictures: &Tensor<4>) -> (Vec<f64>, Vec<usize>) {
        const AT_ONCE: usize = 500;
        let count = pictures.dims()[0];
        let (mut features, mut kinds) = (Vec::new(), Vec::new());
        for start in (0..count).step_by(AT_ONCE) {
            let part = pictures.clone().narrow(0, start, AT_ONCE.min(count - start));
            let found = self.features(part);
            features.extend(found.to_data().iter::<f64>());
            let decided = self.decide(found).argmax(1).into_data();
            kinds.extend(decided.iter::<i64>().map(|kind| kind as usize));
        }
        (features, kinds)
    }
}

/// The share of pictures that are seen as what they are.
pub fn accuracy(found: &[usize], wanted: &[usize]) -> f64 {
    found.iter().zip(wanted).filter(|(a, b)| a == b).count() as f64 / wanted.len() as f64
}

/// Training of the classifier.
pub struct ClassifierTask {
    train: Tensor<4>,
    labels: Vec<usize>,
    test: (Tensor<4>, Vec<usize>),
    order: Order,
    device: Device,
}

impl ClassifierTask {
    /// On these pictures; `device` tracks gradients.
    pub fn new(seed: u64, train: &Labelled, test: &Labelled, device: &Device) -> Self {
        let plain = device.clone().inner();
        Self {
            train: train.tensor(&plain),
            labels: train.labels.clone(),
            test: (test.tensor(&plain), test.labels.clone()),
            order: Order::new(canvas_core::seed_for(seed, "classifier"), train.count()),
            device: device.clone(),
        }
    }
}

impl Task<Classifier> for ClassifierTask {
    /// Pictures, and what they are.
    type Batch = (Tensor<4>, Tensor<2, Int>);

    fn batch(&self, images: Range<u64>) -> Result<Self::Batch> {
        let batch = (images.end - images.start) as usize;
        let rows = self.order.batch(images.start, batch);
        let x = picked(&self.train, &rows).to_device(&self.device);
        let wanted: Vec<i64> = rows.iter().map(|&row| self.labels[row] as i64).collect();
        Ok((x, Tensor::from_data(TensorData::new(wanted, [batch, 1]), &self.device)))
    }

    fn losses(&self, model: &Classifier, (x, wanted): &Self::Batch) -> Tensor<1> {
        let logits = model.decide(model.features(x.clone())); // [B, 10]
        log_softmax(logits, 1).gather(1, wanted.clone()).neg().squeeze_dim(1)
    }

    fn evaluate(&mut self, average: &Classifier, images: u64, seeing: &mut Seeing) -> Result<()> {
        let right = accuracy(&average.look(&self.test.0).1, &self.test.1);
        seeing.scalars(images, [("test pictures/right".to_owned(), right)])?;
        seeing.note(&format!("classifier: {:.2} % of the test pictures", 100.0 * right));
        Ok(())
    }

    fn name(&self, number: u64) -> String {
        format!("training picture {}", self.order.batch(number, 1)[0])
    }
}
