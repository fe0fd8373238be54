//! Images that show the same thing.

use super::kmeans::dot;
use super::{Choose, Chosen, Clusters, Noted, Pass, Rejection, Subject, Trouble, Verdict};
use crate::Fault;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use serde_json::{Value, json};

/// Turns pictures into vectors that are close where pictures mean the same: CLIP, SSCD, DINOv2.
pub trait Embed: Send + Sync {
    /// The model and its weights: what the vectors depend on.
    fn name(&self) -> &str;

    /// One vector for each picture, all of one length. Called from several threads.
    ///
    /// # Errors
    /// If the model cannot go on; the curation stops.
    fn embed(&self, pictures: &[&RgbImage]) -> Result<Vec<Vec<f32>>, Trouble>;
}

/// Which of several images that mean the same is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one least like its cluster: the paper's choice.
    Farthest,
    /// The one most like it.
    Nearest,
}

/// SemDeDup: drops images whose embedding has a cosine above `1 - epsilon` with one that comes before it.
///
/// Embeddings are clustered by [spherical k-means](Clusters), and only images of one cluster are compared. They are ordered by their cosine
/// with the centroid, from the [side](Self::keep) that is kept, equal ones by number; an image goes if any image before it is too similar,
/// whether or not that one stays.
///
/// An embedding is written down as unit vector, little-endian `f32` in Base64: `16/3` bytes a number. Memory while choosing: 4 bytes a
/// number and 32 bytes an image; of a million images with 512 numbers each, 2.1 GB. Time: see [`Clusters`], and in each cluster half the
/// square of its images times the width; clusters of about 1,000 images balance both at a million.
///
/// # Reference
/// Abbas, Tirumala, Simig, Ganguli, Morcos, "SemDeDup: Data-efficient learning at web-scale through semantic deduplication", 2023,
/// <https://arxiv.org/abs/2303.09540>; the rule about images before it is that of the authors' code.
#[derive(Clone, Debug)]
pub struct SemDeDup<E> {
    embed: E,
    clusters: usize,
    epsilon: f64,
    side: Side,
    rounds: usize,
    seed: u64,
}

impl<E: Embed> SemDeDup<E> {
    /// With so many clusters, and dropping above a cosine of `1 - epsilon`; 20 rounds of k-means, seed 0, keeping the farthest.
    ///
    /// # Panics
    /// If there is no cluster.
    pub fn new(embed: E, clusters: usize, epsilon: f64) -> Self {
        assert!(clusters > 0, "clusters must be at least 1, found 0");
        Self { embed, clusters, epsilon, side: Side::Farthest, rounds: 20, seed: 0 }
    }

    /// Which of several is kept.
    pub fn keep(self, side: Side) -> Self {
        Self { side, ..self }
    }

    /// How often k-means moves its centroids.
    pub fn rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    /// Where k-means starts.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

impl<E: Embed> Pass for SemDeDup<E> {
    fn name(&self) -> &str {
        "semantic duplicates"
    }

    fn settings(&self) -> Value {
        json!({
            "model": self.embed.name(), "clusters": self.clusters, "epsilon": self.epsilon, "rounds": self.rounds,
            "keep": format!("{:?}", self.side), "seed": self.seed,
        })
    }

    fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
        self.judge_all(&[subject]).remove(0)
    }

    fn judge_all(&self, subjects: &[&Subject<'_>]) -> Vec<Result<Verdict, Trouble>> {
        super::score::of_pictures(subjects, self.embed.name(), |pictures| self.embed.embed(pictures))
            .into_iter()
            .zip(subjects)
            .map(|(vector, subject)| Ok(Verdict::keep().noting(encode(&unit(vector?, subject)?))))
            .collect()
    }

    fn whole(&self) -> Option<&dyn Choose> {
        Some(self)
    }
}

impl<E: Embed> Choose for SemDeDup<E> {
    fn choose(&self, noted: &mut dyn Iterator<Item = Noted>) -> Result<Vec<Chosen>, Trouble> {
        let (mut numbers, mut vectors) = (Vec::new(), Vec::new());
        let mut width = None;
        for image in noted {
            let vector = decode(&image.note)?;
            let expected = *width.get_or_insert(vector.len());
            if vector.len() != expected {
                let found = vector.len();
                return Err(Trouble::Pass(format!(
                    "expected embeddings of {expected} numbers, found {found}"
                )));
            }
            numbers.push(image.number);
            vectors.extend(vector);
        }
        let Some(width) = width else { return Ok(Vec::new()) };
        let clusters = Clusters::spherical(&vectors, width, self.clusters, (self.rounds, self.seed));

        let mut order: Vec<usize> = (0..numbers.len()).collect();
        order.sort_by(|&a, &b| {
            let ((cluster_a, cosine_a), (cluster_b, cosine_b)) = (clusters.of[a], clusters.of[b]);
            let from_side = match self.side {
                Side::Farthest => cosine_a.total_cmp(&cosine_b),
                Side::Nearest => cosine_b.total_cmp(&cosine_a),
            };
            cluster_a.cmp(&cluster_b).then(from_side).then(a.cmp(&b))
        });
        let of = |position: usize| &vectors[position * width..][..width];
        let mut chosen = Vec::new();
        for cluster in order.chunk_by(|&a, &b| clusters.of[a].0 == clusters.of[b].0) {
            for (place, &image) in cluster.iter().enumerate() {
                let before = cluster[..place].iter().map(|&other| (dot(of(image), of(other)), other));
                let most = before.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
                if let Some((cosine, like)) = most.filter(|most| f64::from(most.0) > 1.0 - self.epsilon) {
                    chosen.push(Chosen {
                        number: numbers[image],
                        rejection: Rejection::new("semantic duplicate", format!("cosine {cosine}")),
                        like: Some(numbers[like]),
                    });
                }
            }
        }
        Ok(chosen)
    }
}

fn unit(vector: Vec<f32>, subject: &Subject<'_>) -> Result<Vec<f32>, Fault> {
    let norm = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        return Ok(vector.into_iter().map(|value| (f64::from(value) / norm) as f32).collect());
    }
    let detail = format!("expected an embedding with a direction, found one of length {norm}");
    Err(Fault::new(&subject.record.key, "embedding", detail))
}

fn encode(vector: &[f32]) -> String {
    STANDARD.encode(vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

fn decode(note: &Value) -> Result<Vec<f32>, Trouble> {
    let bytes = note.as_str().and_then(|text| STANDARD.decode(text).ok());
    let bytes = bytes.filter(|bytes| bytes.len().is_multiple_of(4) && !bytes.is_empty());
    let bytes = bytes
        .ok_or_else(|| Trouble::Pass(format!("expected a note of f32 numbers in Base64, found {note}")))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
