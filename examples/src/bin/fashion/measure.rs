//! How well a network draws, by a classifier.

use crate::classifier::{Classifier, FEATURES, accuracy};
use crate::denoiser::{Drawing, Network, draw};
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Noise, Seeded, seed_for};
use canvas_examples::frechet::Moments;
use canvas_examples::idx::{Fashion, NAMES};
use serde::Serialize;

/// Guidance scales that are compared; 1 is off.
const SCALES: [f64; 2] = [1.0, 2.0];

/// How much is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Pictures.
    pub drawn: usize,
    /// Steps of each.
    pub steps: usize,
    /// Key of the noise.
    pub seed: u64,
}

/// Pictures of one origin, as the classifier sees them.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Where they are from.
    pub name: String,
    /// How many.
    pub count: usize,
    /// Share that is seen as what it should be; NaN where nothing should be seen.
    pub accuracy: f64,
    /// Fréchet distance of features from all test pictures.
    pub distance: f64,
    /// Of each class by itself, the share that is seen as it.
    pub of_classes: Vec<f64>,
}

/// What was measured, and the pictures drawn at each scale.
pub struct Found {
    /// A row an origin.
    pub rows: Vec<Row>,
    /// Scale and pictures `[N, 1, 28, 28]`, the class of picture `i` is `i % 10`.
    pub pictures: Vec<(f64, Tensor<4>)>,
}

/// Compares test pictures with training pictures, with drawings, and with noise.
///
/// # Errors
/// If nothing can be drawn.
pub fn measure(
    classifier: &Classifier,
    network: &Network,
    data: &Fashion,
    amount: Amount,
    device: &Device,
) -> Result<Found> {
    let test = data.test.tensor(device);
    let (features, kinds) = classifier.look(&test);
    let reference = Moments::of(&features, FEATURES);
    let row = |name: String, pictures: &Tensor<4>, labels: Option<&[usize]>| {
        let (features, kinds) = classifier.look(pictures);
        let distance = Moments::of(&features, FEATURES).distance(&reference);
        seen(name, (&kinds, labels), distance)
    };
    let mut rows = vec![seen("test pictures".into(), (&kinds, Some(&data.test.labels)), 0.0)];
    let some = amount.drawn.min(data.train.count());
    let train = data.train.tensor(device).narrow(0, 0, some);
    rows.push(row("training pictures".into(), &train, Some(&data.train.labels[..some])));
    let labels: Vec<usize> = (0..amount.drawn).map(|i| i % NAMES.len()).collect();
    let mut pictures = Vec::new();
    for scale in SCALES {
        let how = Drawing { steps: amount.steps, scale, seed: amount.seed };
        let drawn = draw(network, &labels, how, device)?;
        rows.push(row(format!("drawn, guidance {scale}"), &drawn, Some(&labels)));
        eprintln!("drawn: {} pictures, guidance {scale}", amount.drawn);
        pictures.push((scale, drawn));
    }
    let numbers: Vec<u64> = (0..amount.drawn as u64).collect();
    let mut noise = Seeded::new(seed_for(amount.seed, "pure noise"), numbers);
    let noise = noise.normal_like(&pictures[0].1).clamp(-1.0, 1.0);
    rows.push(row("noise".into(), &noise, None));
    Ok(Found { rows, pictures })
}

fn seen(name: String, (kinds, labels): (&[usize], Option<&[usize]>), distance: f64) -> Row {
    let of_class = |class: usize| {
        let pairs = kinds.iter().zip(labels.unwrap_or(&[])).filter(|pair| *pair.1 == class);
        let (found, wanted): (Vec<usize>, Vec<usize>) = pairs.unzip();
        accuracy(&found, &wanted)
    };
    let right = labels.map_or(f64::NAN, |labels| accuracy(kinds, labels));
    let of_classes = if labels.is_some() { (0..NAMES.len()).map(of_class).collect() } else { Vec::new() };
    Row { name, count: kinds.len(), accuracy: right, distance, of_classes }
}
