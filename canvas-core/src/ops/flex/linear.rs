//! Linear layers: a product that starts from the bias, so that nothing goes over its answer again.

use super::few::{self, FEW};
use super::simd::{CHUNK, add, dispatch, each, filled, fresh, total, written};
use gemm::Parallelism;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// A matrix: its numbers, and how far rows and columns lie apart.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// From the first on.
    pub numbers: &'a [f32],
    /// How many rows.
    pub rows: usize,
    /// How many columns.
    pub columns: usize,
    /// From row to row, and from column to column.
    pub strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row after row.
    fn new(numbers: &'a [f32], columns: usize) -> Self {
        Self { numbers, rows: numbers.len() / columns.max(1), columns, strides: [columns, 1] }
    }

    fn transposed(self) -> Self {
        let [rows, columns] = self.strides;
        Self { rows: self.columns, columns: self.rows, strides: [columns, rows], ..self }
    }
}

/// `a b`, row after row.
fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let mut to = fresh(a.rows * b.columns);
    multiply(a, b, &mut to, false);
    written(to)
}

/// `to += a b`, or `to = a b`, whatever was there; `to` is row after row.
///
/// # Panics
/// If the sizes do not fit.
#[allow(unsafe_code)]
fn multiply(a: Matrix<'_>, b: Matrix<'_>, to: &mut [MaybeUninit<f32>], onto: bool) {
    assert_eq!(a.columns, b.rows, "columns of the left, rows of the right");
    assert_eq!(to.len(), a.rows * b.columns, "numbers of {} rows of {}", a.rows, b.columns);
    let last = |x: Matrix<'_>| {
        let place = x.rows.saturating_sub(1) * x.strides[0] + x.columns.saturating_sub(1) * x.strides[1];
        assert!(x.rows * x.columns == 0 || place < x.numbers.len(), "a matrix within its numbers");
    };
    [a, b].into_iter().for_each(last);
    let large = a.rows * a.columns * b.columns > 1 << 20;
    let parallelism = if large { Parallelism::Rayon(0) } else { Parallelism::None };
    let ([a_rows, a_columns], [b_rows, b_columns]) = (a.strides, b.strides);
    // SAFETY: the asserts hold every place that the strides lead to within the slices; `to` is borrowed by nobody else, all
    // of it is written, and it is read only where `onto` says so.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            to.as_mut_ptr().cast::<f32>(),
            1,
            b.columns as isize,
            onto,
            a.numbers.as_ptr(),
            a_columns as isize,
            a_rows as isize,
            b.numbers.as_ptr(),
            b_columns as isize,
            b_rows as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `x w + b`: `[R, I]` by `[I, O]`.
pub fn forward(x: &[f32], weight: Matrix<'_>, bias: &[f32]) -> Vec<f32> {
    let rows = x.len() / weight.rows.max(1);
    if (1..=FEW).contains(&rows) && weight.strides == [weight.columns, 1] {
        let mut y = vec![0.0; rows * bias.len()];
        few::linear(x, weight.numbers, bias, &mut y);
        return y;
    }
    let x = Matrix::new(x, weight.rows);
    let mut y = fresh(x.rows * bias.len());
    filled(&mut y, bias);
    multiply(x, weight, &mut y, true);
    written(y)
}

/// The gradient of `x`.
pub fn input_gradient(grad: &[f32], weight: Matrix<'_>) -> Vec<f32> {
    product(Matrix::new(grad, weight.columns), weight.transposed())
}

/// The gradient of `w`.
pub fn weight_gradient(x: &[f32], grad: &[f32], [from, to]: [usize; 2]) -> Vec<f32> {
    product(Matrix::new(x, from).transposed(), Matrix::new(grad, to))
}

/// The gradient of `b`: the sum of all rows.
pub fn bias_gradient(grad: &[f32], to: usize) -> Vec<f32> {
    let size = (CHUNK / to.max(1)).max(1) * to.max(1);
    let mut parts: Vec<Vec<f32>> = grad.chunks(size).map(|_| vec![0.0; to]).collect();
    let tasks: Vec<_> = grad.chunks(size).zip(&mut parts).map(|(grad, sum)| Sum { grad, sum }).collect();
    each(tasks, dispatch);
    total(to, to, parts.iter().map(|part| (0, &part[..])))
}

struct Sum<'a> {
    grad: &'a [f32],
    sum: &'a mut [f32],
}

impl WithSimd for Sum<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in self.grad.chunks_exact(self.sum.len()) {
            add(simd, [row], self.sum, |[row]| row);
        }
    }
}
