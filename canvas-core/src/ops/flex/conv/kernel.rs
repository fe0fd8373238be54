//! What the products share: the register-tiled kernel, zero-padded reads, and scratch memory kept by threads.

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
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = simd.splat_f32s(*a);
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = simd.mul_add_e_f32s(a, *b, *sum);
                }
            }
        }
    }
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

/// Copies `from` to `to`, of the same length; for the few values of a window faster than a call of the C library.
#[inline(always)]
pub fn copy(from: &[f32], to: &mut [f32]) {
    let ((from, from_tail), (to, to_tail)) = (from.as_chunks::<8>(), to.as_chunks_mut::<8>());
    for (from, to) in from.iter().zip(to) {
        *to = *from;
    }
    let ((from, from_tail), (to, to_tail)) = (from_tail.as_chunks::<2>(), to_tail.as_chunks_mut::<2>());
    for (from, to) in from.iter().zip(to) {
        *to = *from;
    }
    if let ([from], [to]) = (from_tail, to_tail) {
        *to = *from;
    }
}

/// Sets the few values of `out` to zero, again without a call.
#[inline(always)]
fn zero(out: &mut [f32]) {
    let (chunks, tail) = out.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = [0.0; 8];
    }
    let (pairs, tail) = tail.as_chunks_mut::<2>();
    for pair in pairs {
        *pair = [0.0; 2];
    }
    if let [value] = tail {
        *value = 0.0;
    }
}

/// Copies to `out` every `step`-th value of `plane` `[size]` from `row` and `column` on, with zeros outside.
#[inline(always)]
pub fn window(plane: &[f32], size: [usize; 2], row: isize, column: isize, step: usize, out: &mut [f32]) {
    if row < 0 || row >= size[0] as isize {
        zero(out);
        return;
    }
    let line = &plane[row as usize * size[1]..][..size[1]];
    let lanes = |columns: isize| {
        let columns = columns.max(0) as usize;
        (if step == 1 { columns } else { columns.div_ceil(step) }).min(out.len())
    };
    let (low, high) = (lanes(-column), lanes(size[1] as isize - column));
    zero(&mut out[..low]);
    zero(&mut out[high..]);
    if low < high {
        let line = &line[(column + (low * step) as isize) as usize..];
        if step == 1 {
            copy(&line[..high - low], &mut out[low..high]);
        } else {
            out[low..high].iter_mut().zip(line.iter().step_by(step)).for_each(|(out, value)| *out = *value);
        }
    }
}

thread_local! {
    /// Packed operands of the thread that called a convolution.
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
