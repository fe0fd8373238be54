//! Which tokens stay where others go around.

use crate::generator;
use burn::prelude::*;
use burn::tensor::kind::Basic;
use rand::seq::index;

/// Which tokens of each image stay, in order.
///
/// # Example
/// ```
/// use canvas_core::trace::Kept;
/// let kept = Kept::draw(0.5, 8, 0, &[17, 18]);
/// assert_eq!((kept.rows().len(), kept.rows()[0].len()), (2, 4));
/// assert_eq!(Kept::draw(0.5, 8, 0, &[18]).rows()[0], kept.rows()[1]); // a function of seed and image number
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub(super) tokens: usize,
    pub(super) rows: Vec<Vec<usize>>,
}

impl Kept {
    /// Of each image its own, all choices alike: `keep` of so many tokens, rounded, and one at least.
    ///
    /// # Panics
    /// If `keep` is not above 0 and at most 1, or there are no tokens.
    pub fn draw(keep: f64, tokens: usize, seed: u64, images: &[u64]) -> Self {
        assert!(
            keep > 0.0 && keep <= 1.0,
            "the part of tokens to keep is above 0 and at most 1, found {keep}"
        );
        assert!(tokens > 0, "there are no tokens to keep any of");
        let count = ((keep * tokens as f64).round() as usize).max(1);
        let row = |&image: &u64| {
            let mut row = index::sample(&mut generator(seed, image, 0), tokens, count).into_vec();
            row.sort_unstable();
            row
        };
        Self { tokens, rows: images.iter().map(row).collect() }
    }

    /// These, for each image as many.
    ///
    /// # Panics
    /// If there are no images, they keep different numbers of tokens or none, or a row does not rise within `0..tokens`.
    pub fn new(tokens: usize, rows: Vec<Vec<usize>>) -> Self {
        let count = rows.first().map_or(0, Vec::len);
        assert!(
            count > 0 && rows.iter().all(|row| row.len() == count),
            "kept tokens {rows:?}: as many of each image"
        );
        let rise = |row: &Vec<usize>| row.windows(2).all(|pair| pair[0] < pair[1]) && row[count - 1] < tokens;
        assert!(rows.iter().all(rise), "kept tokens {rows:?}: each row rises within 0..{tokens}");
        Self { tokens, rows }
    }

    /// The tokens of each image that stay.
    pub fn rows(&self) -> &[Vec<usize>] {
        &self.rows
    }

    /// How many there were.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Whether all stay.
    pub fn is_all(&self) -> bool {
        self.rows.iter().all(|row| row.len() == self.tokens)
    }

    /// Those of a feature for each token, `[B, N, E]`: `[B, K, E]`.
    ///
    /// # Panics
    /// If the sizes are not these.
    pub fn pick(&self, x: Tensor<3>) -> Tensor<3> {
        let ([batch, count, _], expected) = (x.dims(), [self.rows.len(), self.tokens]);
        assert_eq!([batch, count], expected, "[images, tokens] to pick from");
        let index = table(self.rows.iter().map(|row| row.iter().copied()), &x.device());
        rows_of(x.unsqueeze_dim::<4>(1), 2, &index).squeeze_dim(1)
    }

    /// 1 at the pixels of tokens that stay and 0 at the others, where tokens are patches, row by row.
    ///
    /// # Shapes
    /// - `grid`: rows and columns of patches; output: `[B, 1, rows * patch, columns * patch]`
    ///
    /// # Panics
    /// If the grid has another number of tokens.
    pub fn mask(&self, grid: [usize; 2], patch: usize, device: &Device) -> Tensor<4> {
        let [rows, columns] = grid;
        assert_eq!(rows * columns, self.tokens, "{rows} by {columns} patches, tokens");
        let [height, width] = grid.map(|side| side * patch);
        let mut values = vec![0.0f32; self.rows.len() * height * width];
        for (image, row) in values.chunks_mut(height * width).zip(&self.rows) {
            for token in row {
                let [top, left] = [token / columns * patch, token % columns * patch];
                (top..top + patch).for_each(|y| image[y * width + left..][..patch].fill(1.0));
            }
        }
        Tensor::from_data(TensorData::new(values, [self.rows.len(), 1, height, width]), device)
    }
}

/// `[B, K]` on a device.
pub(super) fn table(
    rows: impl Iterator<Item = impl Iterator<Item = usize>>,
    device: &Device,
) -> Tensor<2, Int> {
    let rows: Vec<Vec<i64>> = rows.map(|row| row.map(|token| token as i64).collect()).collect();
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), device)
}

/// Of each sample the entries of its own row of the index, `[B, K]`, along an axis; one sample is every image's.
pub(super) fn rows_of<K: Basic>(x: Tensor<4, K>, axis: usize, index: &Tensor<2, Int>) -> Tensor<4, K> {
    let ([batch, count], device) = (index.dims(), index.device());
    let x = x.swap_dims(1, axis);
    let [samples, length, third, fourth] = x.dims();
    let index = if samples == 1 {
        index.clone()
    } else {
        let starts = Tensor::<1, Int>::arange(0..batch as i64, &device) * length as i64;
        index.clone() + starts.unsqueeze_dim::<2>(1)
    };
    let rows = x.reshape([samples * length, third * fourth]).select(0, index.reshape([batch * count]));
    rows.reshape([batch, count, third, fourth]).swap_dims(1, axis)
}
