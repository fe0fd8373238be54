//! The Fréchet distance of two clouds of features.
//!
//! With Inception's features of 2048 numbers this is FID. With others it is not, and numbers of different features do not compare.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// Mean and covariance of a cloud, in 64 bits.
#[derive(Clone, Debug)]
pub struct Moments {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Moments {
    /// Of rows of this width; the covariance is the unbiased one.
    ///
    /// # Panics
    /// If `features` are not whole rows, or fewer than two.
    pub fn of(features: &[f64], width: usize) -> Self {
        assert!(
            width > 0 && features.len().is_multiple_of(width),
            "{} numbers in rows of {width}",
            features.len()
        );
        let count = features.len() / width;
        assert!(count > 1, "a covariance of {count} rows");
        let mut rows = DMatrix::from_row_slice(count, width, features);
        let mean = rows.row_mean();
        rows.row_iter_mut().for_each(|mut row| row -= &mean);
        let covariance = rows.tr_mul(&rows) / (count - 1) as f64;
        Self { mean: mean.transpose(), covariance }
    }

    /// `|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))`.
    ///
    /// The trace of the root is that of `(R C_2 R)^(1/2)` with the symmetric root `R` of `C_1`: the same eigenvalues, of a matrix that
    /// is symmetric too. Eigenvalues that may be nothing but rounding count as 0: the root of a rounding error of 1e-16 would be 1e-8.
    ///
    /// # Panics
    /// If widths differ.
    ///
    /// # Reference
    /// Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, equation 6, <https://arxiv.org/abs/1706.08500>.
    pub fn distance(&self, other: &Self) -> f64 {
        let ([a, b], [ca, cb]) = ([&self.mean, &other.mean], [&self.covariance, &other.covariance]);
        assert_eq!(a.len(), b.len(), "widths of features");
        let eigen = SymmetricEigen::new(ca.clone());
        let root = DMatrix::from_diagonal(&roots(&eigen.eigenvalues));
        let root = &eigen.eigenvectors * root * eigen.eigenvectors.transpose();
        let product = &root * cb * &root;
        let symmetric = (&product + product.transpose()) * 0.5;
        let shared = roots(&SymmetricEigen::new(symmetric).eigenvalues).sum();
        (a - b).norm_squared() + ca.trace() + cb.trace() - 2.0 * shared
    }
}

/// Roots of the eigenvalues of a covariance.
fn roots(eigenvalues: &DVector<f64>) -> DVector<f64> {
    let rounding = eigenvalues.len() as f64 * f64::EPSILON * eigenvalues.amax();
    eigenvalues.map(|value| if value > rounding { value.sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use canvas_core::generator;
    use rand_distr::{Distribution, StandardNormal};

    fn known(mean: &[f64], covariance: DMatrix<f64>) -> Moments {
        Moments { mean: DVector::from_row_slice(mean), covariance }
    }

    /// `N(0, I)` and `N(1, 4 I)` in four dimensions: 4 of the means, and 4 (1 - 2)^2 of the deviations.
    #[test]
    fn distances_of_known_normal_distributions() {
        let unit = || DMatrix::<f64>::identity(4, 4);
        let (a, b) = (known(&[0.0; 4], unit()), known(&[1.0; 4], unit() * 4.0));
        assert!((a.distance(&b) - 8.0).abs() < 1e-12, "{}", a.distance(&b));
        assert!((b.distance(&a) - 8.0).abs() < 1e-12);
        assert!(b.distance(&b).abs() < 1e-12);
        // Covariances that do not commute: of two by two, tr (C_1 C_2)^(1/2) = (tr C_1 C_2 + 2 sqrt(det C_1 C_2))^(1/2).
        let square = |entries: [f64; 4]| DMatrix::from_row_slice(2, 2, &entries);
        let (c, d) = (square([2.0, 1.0, 1.0, 3.0]), square([5.0, -1.0, -1.0, 1.0]));
        let product = &c * &d;
        let shared = (product.trace() + 2.0 * product.determinant().sqrt()).sqrt();
        let wanted = c.trace() + d.trace() - 2.0 * shared;
        let found = known(&[0.0; 2], c).distance(&known(&[0.0; 2], d));
        assert!((found - wanted).abs() < 1e-12, "{found}, {wanted}");
    }

    #[test]
    fn moments_are_of_rows_in_any_order() {
        let rows = [1.0, 2.0, 3.0, 6.0, 5.0, 4.0];
        let found = Moments::of(&rows, 2);
        assert_eq!(found.mean.as_slice(), [3.0, 4.0]);
        assert_eq!(found.covariance.as_slice(), [4.0, 2.0, 2.0, 4.0]);
        let turned = Moments::of(&[5.0, 4.0, 1.0, 2.0, 3.0, 6.0], 2);
        assert!(found.distance(&turned).abs() < 1e-12);
    }

    /// Fewer rows than columns: covariances have no inverse.
    #[test]
    fn few_rows_are_fine() {
        let mut generator = generator(0, 0, 0);
        let mut cloud = || (0..5 * 16).map(|_| StandardNormal.sample(&mut generator)).collect::<Vec<f64>>();
        let [a, b] = [0, 1].map(|_| Moments::of(&cloud(), 16));
        assert!(a.distance(&b).is_finite() && a.distance(&b) > 0.0);
        assert!(a.distance(&a).abs() < 1e-9, "{}", a.distance(&a));
    }

    #[test]
    #[should_panic(expected = "5 numbers in rows of 2")]
    fn rows_must_be_whole() {
        Moments::of(&[0.0; 5], 2);
    }
}
