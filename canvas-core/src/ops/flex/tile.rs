//! A product in registers, and memory for what it reads that threads keep for their next call.

use pulp::{Simd, WithSimd};
use std::cell::Cell;
use std::thread::LocalKey;

/// Rows of a register tile: with [`WIDE`] columns they fill twelve of AVX2's sixteen registers.
pub const TALL: usize = 6;
/// Columns of a register tile.
pub const WIDE: usize = 16;

/// How a kernel call walks its right-hand side: `rows` runs of `len` steps, `pitch` steps from run to run.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Number of runs.
    pub rows: usize,
    /// Steps in each run.
    pub len: usize,
    /// Steps between the starts of two runs.
    pub pitch: usize,
}

/// Sets, or with `add` increases, the `[TALL, WIDE]` tile of `c` (rows `stride` apart) by the product of the packed
/// panels `a` `[walk.rows * walk.len, TALL]`, transposed, and `b` `[.., WIDE]` read as `walk` says. `V` is the
/// number of vectors in [`WIDE`] columns.
#[inline(always)]
pub fn tile<S: Simd, const V: usize>(
    simd: S,
    a: &[f32],
    b: &[f32],
    walk: Walk,
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    let a = a.as_chunks::<TALL>().0;
    let b = S::as_simd_f32s(b).0.as_chunks::<V>().0;
    let mut sums = [[simd.splat_f32s(0.0); V]; TALL];
    for row in 0..walk.rows {
        let (a, b) = (&a[row * walk.len..][..walk.len], &b[row * walk.pitch..][..walk.len]);
        for (a, b) in a.iter().zip(b) {
            sums = grown(simd, sums, a.each_ref(), b);
        }
    }
    store::<S, V>(simd, &sums, c, stride, add);
}

/// As [`tile`], with a left side of rows as they lie, all as long as `b`.
#[inline(always)]
pub fn tile_of_rows<S: Simd, const V: usize>(
    simd: S,
    a: [&[f32]; TALL],
    b: &[f32],
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    let b = S::as_simd_f32s(b).0.as_chunks::<V>().0;
    let mut sums = [[simd.splat_f32s(0.0); V]; TALL];
    let [one, two, three, four, five, six] = a.map(<[f32]>::iter);
    let rows = one.zip(two).zip(three.zip(four)).zip(five.zip(six));
    for ((((one, two), (three, four)), (five, six)), b) in rows.zip(b) {
        sums = grown(simd, sums, [one, two, three, four, five, six], b);
    }
    store::<S, V>(simd, &sums, c, stride, add);
}

/// Sums, and one more product of a column and a row. The column as references: numbers would first be gathered.
#[inline(always)]
fn grown<S: Simd, const V: usize>(
    simd: S,
    mut sums: [[S::f32s; V]; TALL],
    a: [&f32; TALL],
    b: &[S::f32s; V],
) -> [[S::f32s; V]; TALL] {
    for (sums, a) in sums.iter_mut().zip(a) {
        let a = simd.splat_f32s(*a);
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum = simd.mul_add_e_f32s(a, *b, *sum);
        }
    }
    sums
}

/// Writes a tile's sums, or adds them.
#[inline(always)]
fn store<S: Simd, const V: usize>(
    simd: S,
    sums: &[[S::f32s; V]; TALL],
    c: &mut [f32],
    stride: usize,
    add: bool,
) {
    for (row, sums) in sums.iter().enumerate() {
        let c = S::as_mut_simd_f32s(&mut c[row * stride..][..WIDE]).0;
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = if add { simd.add_f32s(*c, *sum) } else { *sum };
        }
    }
}

/// Work of which [`tile`] is the inner part.
pub trait Tiled {
    /// Does it with `V` vectors in [`WIDE`] columns.
    fn run<S: Simd, const V: usize>(self, simd: S);
}

/// Does such work with as many vectors as the instructions ask for.
pub struct InTiles<T>(pub T);

impl<T: Tiled> WithSimd for InTiles<T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.0.run::<S, 1>(simd),
            8 => self.0.run::<S, 2>(simd),
            4 => self.0.run::<S, 4>(simd),
            _ => self.0.run::<S, WIDE>(simd),
        }
    }
}

thread_local! {
    /// Packed operands of the thread that called an operation.
    pub static PACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// Results a worker has not written out yet.
    pub static RESULTS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with `len` floats of this thread's `store`, with arbitrary values. A nested call gets its own.
pub fn scratch<R>(
    store: &'static LocalKey<Cell<Vec<f32>>>,
    len: usize,
    work: impl FnOnce(&mut [f32]) -> R,
) -> R {
    let mut memory = store.take();
    if memory.len() < len {
        memory = vec![0.0; len];
    }
    let result = work(&mut memory[..len]);
    store.set(memory);
    result
}
