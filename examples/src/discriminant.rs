//! Which of several kinds something is, by a few numbers of it.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

/// Fisher's linear discriminant: the nearest mean, in units of the spread that the kinds share.
#[derive(Clone, Debug)]
pub struct Discriminant {
    means: Vec<DVector<f64>>,
    within: Cholesky<f64, Dyn>,
}

impl Discriminant {
    /// Learns from examples of each kind. A thousandth of the variances is added to them, so that none is zero.
    ///
    /// # Panics
    /// If there are no examples of a kind, or their lengths differ.
    pub fn new(kinds: &[Vec<DVector<f64>>]) -> Self {
        let size = kinds[0][0].len();
        let mut within = DMatrix::zeros(size, size);
        let mut mean = |rows: &Vec<DVector<f64>>| {
            let mean = rows.iter().sum::<DVector<f64>>() / rows.len() as f64;
            let spread = rows.iter().map(|row| (row - &mean) * (row - &mean).transpose());
            within += spread.sum::<DMatrix<f64>>() / rows.len() as f64;
            mean
        };
        let means = kinds.iter().map(&mut mean).collect();
        let ridge = DMatrix::from_diagonal(&(within.diagonal().add_scalar(1e-9) * 1e-3));
        Self { means, within: Cholesky::new(within + ridge).expect("variances above 0") }
    }

    /// The kind of one more.
    pub fn kind(&self, row: &DVector<f64>) -> usize {
        let distance = |mean: &DVector<f64>| {
            let apart = row - mean;
            apart.dot(&self.within.solve(&apart))
        };
        let distances: Vec<f64> = self.means.iter().map(distance).collect();
        (0..distances.len())
            .min_by(|&a, &b| distances[a].total_cmp(&distances[b]))
            .expect("at least one kind")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Means that differ along the axis of least spread: the plain nearest mean would be wrong.
    #[test]
    fn spread_is_taken_into_account() {
        let row = |x: f64, y: f64| DVector::from_vec(vec![x, y]);
        let kind =
            |at: f64| (-5..=5).map(|n| row(f64::from(n) * 10.0, at + f64::from(n % 2) * 0.1)).collect();
        let found = Discriminant::new(&[kind(0.0), kind(1.0), kind(2.0)]);
        assert_eq!([0.1, 0.9, 2.3].map(|y| found.kind(&row(70.0, y))), [0, 1, 2]);
    }
}
