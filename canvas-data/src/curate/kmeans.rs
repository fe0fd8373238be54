//! Spherical k-means: clusters of directions.

use canvas_core::{generator, seed_for};
use rand::seq::index;

/// Unit vectors in clusters around unit vectors.
///
/// Starts at vectors drawn by a keyed seed; then, `rounds` times, every vector joins the centroid of the highest cosine (of equal ones the
/// first), and every centroid becomes the direction of the sum of its vectors (in `f64`, by ascending number). A centroid without vectors
/// stays where it is. Last, every vector joins once more. Takes `rounds * vectors * clusters * width` multiplications.
///
/// # Reference
/// Dhillon, Modha, "Concept Decompositions for Large Sparse Text Data using Clustering", 2001.
#[derive(Clone, Debug)]
pub struct Clusters {
    /// Unit vectors, one after another. `[clusters * width]`
    pub centroids: Vec<f32>,
    /// Of each vector, its cluster and its cosine with that centroid.
    pub of: Vec<(usize, f32)>,
}

impl Clusters {
    /// Clusters vectors of length 1 and `width` numbers each, one after another; there are at most as many clusters as vectors.
    ///
    /// # Panics
    /// If `width` does not divide the numbers.
    pub fn spherical(vectors: &[f32], width: usize, clusters: usize, (rounds, seed): (usize, u64)) -> Self {
        assert!(
            vectors.len().is_multiple_of(width),
            "width ({width}) must divide numbers ({})",
            vectors.len()
        );
        let count = vectors.len() / width;
        let mut random = generator(seed_for(seed, "spherical k-means"), 0, 0);
        let mut starts = index::sample(&mut random, count, clusters.min(count)).into_vec();
        starts.sort_unstable();
        let mut centroids: Vec<f32> =
            starts.iter().flat_map(|&start| vectors[start * width..][..width].iter().copied()).collect();
        let mut of = nearest(vectors, width, &centroids);
        for _ in 0..rounds {
            recentre(&mut centroids, vectors, width, &of);
            of = nearest(vectors, width, &centroids);
        }
        Self { centroids, of }
    }
}

/// The cosine of two unit vectors.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side: as fast as the processor's vectors, and in one order everywhere.
    let mut sums = [0.0_f32; 8];
    let (whole_a, rest_a) = a.as_chunks::<8>();
    let (whole_b, rest_b) = b.as_chunks::<8>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
}

fn nearest(vectors: &[f32], width: usize, centroids: &[f32]) -> Vec<(usize, f32)> {
    vectors
        .chunks_exact(width)
        .map(|vector| {
            let mut best = (0, f32::NEG_INFINITY);
            for (cluster, centroid) in centroids.chunks_exact(width).enumerate() {
                let cosine = dot(vector, centroid);
                if cosine > best.1 {
                    best = (cluster, cosine);
                }
            }
            best
        })
        .collect()
}

fn recentre(centroids: &mut [f32], vectors: &[f32], width: usize, of: &[(usize, f32)]) {
    let mut sums = vec![0.0_f64; centroids.len()];
    for (vector, &(cluster, _)) in vectors.chunks_exact(width).zip(of) {
        for (sum, &value) in sums[cluster * width..].iter_mut().zip(vector) {
            *sum += f64::from(value);
        }
    }
    for (centroid, sum) in centroids.chunks_exact_mut(width).zip(sums.chunks_exact(width)) {
        let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        if norm > 0.0 {
            for (value, sum) in centroid.iter_mut().zip(sum) {
                *value = (sum / norm) as f32;
            }
        }
    }
}
