//! Products of small matrices, and the layouts that they read.
//!
//! Columns lie in panels of up to [`WIDE`] vectors: the numbers of one panel, row after row, then those of the next.

use super::BLOCK;
use super::room::Room;
use pulp::Simd;

/// Vectors in a panel: with [`TALL`] rows the sums take 12 of 16 registers, and 12 products need 8 loads. (4 rows of 3
/// vectors need 7, and every register.)
pub const WIDE: usize = 2;

/// Rows of the left operand that are multiplied at once.
pub const TALL: usize = 6;

/// Runs an expression with the width of a panel as a constant.
macro_rules! with_width {
    ($width:expr, $W:ident => $body:expr) => {
        match $width {
            1 => {
                const $W: usize = 1;
                $body
            }
            _ => {
                const $W: usize = WIDE;
                $body
            }
        }
    };
}
pub(super) use with_width;

/// First vector and width of each panel of so many vectors.
#[inline(always)]
pub fn panels(vectors: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..vectors).step_by(WIDE).map(move |first| (first, WIDE.min(vectors - first)))
}

/// The left operand of a product: `[M, K]`, of which [`TALL`] rows are read at once.
pub trait Left: Copy {
    /// The columns of the rows from `TALL * block` on. As references: numbers would first be gathered into a vector.
    fn columns<'a>(self, block: usize) -> impl Iterator<Item = [&'a f32; TALL]>
    where
        Self: 'a;
}

/// A left operand from its rows, which are `stride` apart.
#[derive(Clone, Copy)]
pub struct Across<'a> {
    /// Rows, up to a multiple of [`TALL`].
    pub data: &'a [f32],
    /// From row to row.
    pub stride: usize,
    /// Of a row.
    pub length: usize,
}

impl Left for Across<'_> {
    #[inline(always)]
    fn columns<'a>(self, block: usize) -> impl Iterator<Item = [&'a f32; TALL]>
    where
        Self: 'a,
    {
        let data = &self.data[block * TALL * self.stride..];
        let row = |i: usize| data[i * self.stride..][..self.length].iter();
        row(0).zip(row(1)).zip(row(2).zip(row(3))).zip(row(4).zip(row(5))).map(
            #[inline(always)]
            |(((a, b), (c, d)), (e, f))| [a, b, c, d, e, f],
        )
    }
}

/// A left operand from [`pack_columns`].
#[derive(Clone, Copy)]
pub struct Along<'a> {
    /// `[M / TALL, length, TALL]`
    pub data: &'a [f32],
    /// Of a row.
    pub length: usize,
}

impl Left for Along<'_> {
    #[inline(always)]
    fn columns<'a>(self, block: usize) -> impl Iterator<Item = [&'a f32; TALL]>
    where
        Self: 'a,
    {
        let columns = &self.data[block * TALL * self.length..][..TALL * self.length];
        columns.as_chunks::<TALL>().0.iter().map(
            #[inline(always)]
            |column| column.each_ref(),
        )
    }
}

/// A product with a panel: `to = a b`, or `to += a b` if `ADD`, rows as many as `to` has.
///
/// It is its own operation to [`Simd::vectorize`] so that it becomes its own function: inlined, its sums compete with
/// the constants of other loops for registers.
pub struct Product<'a, S: Simd, A, const W: usize, const ADD: bool> {
    /// Where it runs.
    pub simd: S,
    /// `[M, K]`
    pub a: A,
    /// `[K, W]` vectors, and the stride of rows, all of them whole.
    pub b: (&'a [S::f32s], usize),
    /// `[M, W]` vectors, and the stride of rows; `M` is a multiple of [`TALL`].
    pub to: (&'a mut [S::f32s], usize),
}

impl<S: Simd, A: Left, const W: usize, const ADD: bool> pulp::NullaryFnOnce for Product<'_, S, A, W, ADD> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, a, b: (b, stride), to: (to, apart) } = self;
        for (block, to) in to.chunks_mut(TALL * apart).enumerate() {
            let mut sums = [[simd.splat_f32s(0.0); W]; TALL];
            if ADD {
                for i in 0..TALL {
                    sums[i].copy_from_slice(&to[i * apart..][..W]);
                }
            }
            for (a, b) in a.columns(block).zip(b.chunks_exact(stride)) {
                let b = &b[..W];
                for i in 0..TALL {
                    let a = simd.splat_f32s(*a[i]);
                    for j in 0..W {
                        sums[i][j] = simd.mul_add_e_f32s(a, b[j], sums[i][j]);
                    }
                }
            }
            for i in 0..TALL {
                to[i * apart..][..W].copy_from_slice(&sums[i]);
            }
        }
    }
}

/// Each of `W` vectors, multiplied.
#[inline(always)]
pub fn times<S: Simd, const W: usize>(simd: S, mut a: [S::f32s; W], b: [S::f32s; W]) -> [S::f32s; W] {
    for j in 0..W {
        a[j] = simd.mul_f32s(a[j], b[j]);
    }
    a
}

/// `W` vectors from vector `p` of a row on.
#[inline(always)]
pub fn part<S: Simd, const W: usize>(row: &[S::f32s], p: usize) -> [S::f32s; W] {
    *row[p..].first_chunk().expect("a whole panel")
}

/// Numbers as vectors.
#[inline(always)]
pub fn vectors<S: Simd>(x: &[f32]) -> &[S::f32s] {
    S::as_simd_f32s(x).0
}

/// Numbers as vectors to write.
#[inline(always)]
pub fn vectors_mut<S: Simd>(x: &mut [f32]) -> &mut [S::f32s] {
    S::as_mut_simd_f32s(x).0
}

/// Rows `[R, width]` as they are, with rows of 0 up to a multiple of [`TALL`].
#[inline(always)]
pub fn pack_rows<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, width: usize) -> Room {
    let size = rows.len().next_multiple_of(TALL) * width;
    let mut packed = Room::empty(size);
    rows.for_each(|row| packed.append(row));
    packed.fill_up(size, 0.0);
    packed
}

/// Rows `[R, width]` as `[width / TALL, R, TALL]`: the left operand whose rows they are the columns of.
#[inline(always)]
pub fn pack_columns<'a>(rows: impl ExactSizeIterator<Item = &'a [f32]>, width: usize) -> Room {
    let count = rows.len();
    let mut packed = Room::zeros(width.next_multiple_of(TALL) * count);
    for (r, row) in rows.enumerate() {
        let (whole, rest) = row.as_chunks::<TALL>();
        for (i, part) in whole.iter().enumerate() {
            packed[(i * count + r) * TALL..][..TALL].copy_from_slice(part);
        }
        if !rest.is_empty() {
            packed[(whole.len() * count + r) * TALL..][..rest.len()].copy_from_slice(rest);
        }
    }
    packed
}

/// Rows `[R, width]` in panels of their columns, times a factor; columns of 0 fill the last vector.
#[inline(always)]
pub fn pack_panels<'a, S: Simd>(
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
    width: usize,
    factor: f32,
) -> Room {
    let (count, vectors) = (rows.len(), width.div_ceil(S::F32_LANES));
    let mut packed = Room::zeros(vectors * S::F32_LANES * count);
    for (r, row) in rows.enumerate() {
        for (first, wide) in panels(vectors) {
            let (start, wide) = (first * S::F32_LANES, wide * S::F32_LANES);
            let part = &row[start..width.min(start + wide)];
            let to = &mut packed[start * count + r * wide..][..part.len()];
            to.iter_mut().zip(part).for_each(|(to, x)| *to = x * factor);
        }
    }
    packed
}

/// Rows `[R, width]`, transposed, in panels of them, times a factor; rows of 0 fill the last vector.
#[inline(always)]
pub fn pack_transposed<'a, S: Simd>(
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
    width: usize,
    factor: f32,
) -> Room {
    let mut all: [&[f32]; BLOCK] = [&[]; BLOCK];
    let count = rows.len();
    all.iter_mut().zip(rows).for_each(|(to, row)| *to = row);
    let all = &all[..count];
    let vectors = count.div_ceil(S::F32_LANES);
    let mut packed = Room::zeros(vectors * S::F32_LANES * width);
    for (first, wide) in panels(vectors) {
        let (start, wide) = (first * S::F32_LANES, wide * S::F32_LANES);
        let panel = &mut packed[start * width..][..wide * width];
        for n in (0..wide.min(count - start)).step_by(8) {
            let rows = &all[start + n..all.len().min(start + wide.min(n + 8))];
            let tall = rows.len();
            let square = if tall == 8 { width / 8 * 8 } else { 0 };
            for d in (0..square).step_by(8) {
                let from: [[f32; 8]; 8] =
                    std::array::from_fn(|i| *rows[i][d..].first_chunk().expect("whole"));
                for j in 0..8 {
                    let column: [f32; 8] = std::array::from_fn(|i| from[i][j] * factor);
                    panel[(d + j) * wide + n..][..8].copy_from_slice(&column);
                }
            }
            for i in 0..tall {
                for (d, x) in rows[i].iter().enumerate().skip(square) {
                    panel[d * wide + n + i] = x * factor;
                }
            }
        }
    }
    packed
}

/// The inverse of [`pack_transposed`] for a panel `wide` numbers wide, each row times its own factor.
#[inline(always)]
pub fn unpack_transposed(panel: &[f32], wide: usize, factors: &[f32], rows: &mut [&mut [f32]]) {
    let width = rows.first().map_or(0, |row| row.len());
    for (n, rows) in (0..).step_by(8).zip(rows.chunks_mut(8)) {
        let square = if rows.len() == 8 { width / 8 * 8 } else { 0 };
        for d in (0..square).step_by(8) {
            let factors: [f32; 8] = *factors[n..].first_chunk().expect("whole");
            let from: [[f32; 8]; 8] = std::array::from_fn(|j| {
                let column: &[f32; 8] = panel[(d + j) * wide + n..].first_chunk().expect("whole");
                std::array::from_fn(|i| column[i] * factors[i])
            });
            for (i, row) in rows.iter_mut().enumerate() {
                row[d..][..8].copy_from_slice(&std::array::from_fn::<f32, 8, _>(|j| from[j][i]));
            }
        }
        for (i, row) in rows.iter_mut().enumerate() {
            for (d, x) in row.iter_mut().enumerate().skip(square) {
                *x = panel[d * wide + n + i] * factors[n + i];
            }
        }
    }
}
