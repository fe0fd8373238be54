//! Norms over rows, and residuals with gates: what happens once for every token of a transformer.
//!
//! A tensor is `R` rows of `W` numbers. Its vectors (weight and bias of a norm, gate of a residual) are `G` rows of `W`, and
//! each serves `R / G` rows of the tensor one after another: one for all tokens, or one for each sample.

use super::simd::{CHUNK, add, dispatch, each, fresh, sum, total, write, written};
use crate::ops::Norm;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `(x - mean) / deviation * (plus + weight) + bias`, and for each row `[mean, 1 / deviation]`.
pub fn norm(norm: Norm, x: &[f32], weight: &[f32], bias: &[f32], width: usize) -> (Vec<f32>, Vec<[f32; 2]>) {
    let cut = Cut::new(x.len(), weight.len(), width);
    let (mut y, mut stats) = (fresh(x.len()), vec![[0.0; 2]; cut.rows]);
    let parts = cut.tasks().zip(cut.apart(&mut y, width)).zip(cut.apart(&mut stats, 1));
    let tasks = parts.map(|((task, y), stats)| {
        let (numbers, own) = (task.numbers(width), task.vector(width));
        NormTask { norm, x: &x[numbers], weight: &weight[own.clone()], bias: &bias[own], y, stats }
    });
    let tasks: Vec<_> = tasks.collect();
    each(tasks, dispatch);
    (written(y), stats)
}

struct NormTask<'a> {
    norm: Norm,
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [MaybeUninit<f32>],
    stats: &'a mut [[f32; 2]],
}

impl WithSimd for NormTask<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { norm, x, weight, bias, y, stats } = self;
        let width = weight.len();
        let plus = simd.splat_f32s(norm.plus as f32);
        for ((x, y), stats) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(stats) {
            let mean = if norm.centred { sum(simd, [x], |[x]| x) / width as f32 } else { 0.0 };
            let middle = simd.splat_f32s(mean);
            let square = sum(simd, [x], |[x]| {
                let x = simd.sub_f32s(x, middle);
                simd.mul_f32s(x, x)
            });
            let inverse = 1.0 / (square / width as f32 + norm.epsilon as f32).sqrt();
            *stats = [mean, inverse];
            let inverse = simd.splat_f32s(inverse);
            write(simd, [x, weight, bias], y, |[x, weight, bias]| {
                let normal = simd.mul_f32s(simd.sub_f32s(x, middle), inverse);
                simd.mul_add_e_f32s(normal, simd.add_f32s(weight, plus), bias)
            });
        }
    }
}

/// Gradients of `x`, of the weight and of the bias.
pub fn norm_backward(
    norm: Norm,
    x: &[f32],
    weight: &[f32],
    stats: &[[f32; 2]],
    grad: &[f32],
    width: usize,
) -> [Vec<f32>; 3] {
    let cut = Cut::new(x.len(), weight.len(), width);
    let mut dx = fresh(x.len());
    let mut sums: Vec<_> =
        cut.tasks().map(|task| (task.group, [vec![0.0; width], vec![0.0; width]])).collect();
    let parts = cut.tasks().zip(cut.apart(&mut dx, width)).zip(&mut sums);
    let tasks = parts.map(|((task, dx), (_, [dw, db]))| {
        let numbers = task.numbers(width);
        NormBackward {
            norm,
            x: &x[numbers.clone()],
            grad: &grad[numbers],
            weight: &weight[task.vector(width)],
            stats: &stats[task.rows],
            dx,
            dw,
            db,
        }
    });
    let tasks: Vec<_> = tasks.collect();
    each(tasks, dispatch);
    let of = |which: usize| {
        total(weight.len(), width, sums.iter().map(|(group, sums)| (*group, &sums[which][..])))
    };
    [written(dx), of(0), of(1)]
}

struct NormBackward<'a> {
    norm: Norm,
    x: &'a [f32],
    grad: &'a [f32],
    weight: &'a [f32],
    stats: &'a [[f32; 2]],
    dx: &'a mut [MaybeUninit<f32>],
    dw: &'a mut [f32],
    db: &'a mut [f32],
}

impl WithSimd for NormBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { norm, x, grad, weight, stats, dx, dw, db } = self;
        let width = weight.len();
        let plus = simd.splat_f32s(norm.plus as f32);
        let rows =
            x.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(stats);
        for (((x, grad), dx), &[mean, inverse]) in rows {
            let (middle, factor) = (simd.splat_f32s(mean), simd.splat_f32s(inverse));
            let normal = |x| simd.mul_f32s(simd.sub_f32s(x, middle), factor);
            let weighted = |grad, weight| simd.mul_f32s(grad, simd.add_f32s(weight, plus));
            let along = sum(simd, [x, grad, weight], |[x, grad, weight]| {
                simd.mul_f32s(weighted(grad, weight), normal(x))
            });
            let along = simd.splat_f32s(along / width as f32);
            let across = if norm.centred {
                sum(simd, [grad, weight], |[grad, weight]| weighted(grad, weight))
            } else {
                0.0
            };
            let across = simd.splat_f32s(across / width as f32);
            write(simd, [x, grad, weight], dx, |[x, grad, weight]| {
                let own = simd.sub_f32s(weighted(grad, weight), across);
                simd.mul_f32s(factor, simd.negate_mul_add_e_f32s(normal(x), along, own))
            });
            add(simd, [x, grad], dw, |[x, grad]| simd.mul_f32s(grad, normal(x)));
            add(simd, [grad], db, |[grad]| grad);
        }
    }
}

/// `x + gate * y`.
pub fn residual(x: &[f32], gate: &[f32], y: &[f32], width: usize) -> Vec<f32> {
    let cut = Cut::new(x.len(), gate.len(), width);
    let mut out = fresh(x.len());
    let tasks = cut.tasks().zip(cut.apart(&mut out, width)).map(|(task, out)| {
        let numbers = task.numbers(width);
        Residual { x: &x[numbers.clone()], y: &y[numbers], gate: &gate[task.vector(width)], out }
    });
    let tasks: Vec<_> = tasks.collect();
    each(tasks, dispatch);
    written(out)
}

struct Residual<'a> {
    x: &'a [f32],
    y: &'a [f32],
    gate: &'a [f32],
    out: &'a mut [MaybeUninit<f32>],
}

impl WithSimd for Residual<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, y, gate, out } = self;
        let width = gate.len();
        let rows = x.chunks_exact(width).zip(y.chunks_exact(width)).zip(out.chunks_exact_mut(width));
        for ((x, y), out) in rows {
            write(simd, [x, y, gate], out, |[x, y, gate]| simd.mul_add_e_f32s(gate, y, x));
        }
    }
}

/// Gradients of the gate and of `y`; that of `x` is `grad` itself.
pub fn residual_backward(gate: &[f32], y: &[f32], grad: &[f32], width: usize) -> [Vec<f32>; 2] {
    let cut = Cut::new(y.len(), gate.len(), width);
    let mut dy = fresh(y.len());
    let mut sums: Vec<_> = cut.tasks().map(|task| (task.group, vec![0.0; width])).collect();
    let parts = cut.tasks().zip(cut.apart(&mut dy, width)).zip(&mut sums);
    let tasks = parts.map(|((task, dy), (_, dgate))| {
        let numbers = task.numbers(width);
        let gate = &gate[task.vector(width)];
        ResidualBackward { y: &y[numbers.clone()], grad: &grad[numbers], gate, dy, dgate }
    });
    let tasks: Vec<_> = tasks.collect();
    each(tasks, dispatch);
    let dgate = total(gate.len(), width, sums.iter().map(|(group, dgate)| (*group, &dgate[..])));
    [dgate, written(dy)]
}

struct ResidualBackward<'a> {
    y: &'a [f32],
    grad: &'a [f32],
    gate: &'a [f32],
    dy: &'a mut [MaybeUninit<f32>],
    dgate: &'a mut [f32],
}

impl WithSimd for ResidualBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { y, grad, gate, dy, dgate } = self;
        let width = gate.len();
        let rows = y.chunks_exact(width).zip(grad.chunks_exact(width)).zip(dy.chunks_exact_mut(width));
        for ((y, grad), dy) in rows {
            write(simd, [grad, gate], dy, |[grad, gate]| simd.mul_f32s(grad, gate));
            add(simd, [grad, y], dgate, |[grad, y]| simd.mul_f32s(grad, y));
        }
    }
}

/// How rows are cut into tasks: of one group each, and about [`CHUNK`] numbers, whatever the machine.
struct Cut {
    rows: usize,
    groups: usize,
    each: usize,
}

/// A task's rows, and their group.
struct Task {
    rows: Range<usize>,
    group: usize,
}

impl Task {
    /// Of its rows.
    fn numbers(&self, width: usize) -> Range<usize> {
        self.rows.start * width..self.rows.end * width
    }

    /// Of its group's vector.
    fn vector(&self, width: usize) -> Range<usize> {
        self.group * width..(self.group + 1) * width
    }
}

impl Cut {
    /// # Panics
    /// If the groups do not divide the rows.
    fn new(numbers: usize, vectors: usize, width: usize) -> Self {
        if numbers == 0 {
            return Self { rows: 0, groups: 1, each: 1 };
        }
        let (rows, groups) = (numbers / width, vectors / width);
        assert!(groups > 0 && rows.is_multiple_of(groups), "{groups} vectors for {rows} rows");
        Self { rows, groups, each: (CHUNK / width).max(1) }
    }

    fn tasks(&self) -> impl Iterator<Item = Task> {
        let (in_group, each) = (self.rows / self.groups, self.each);
        (0..self.groups).flat_map(move |group| {
            (0..in_group).step_by(each).map(move |start| {
                let end = in_group.min(start + each);
                Task { rows: group * in_group + start..group * in_group + end, group }
            })
        })
    }

    /// What each task writes, of `width` for each row.
    fn apart<'a, T>(&self, mut all: &'a mut [T], width: usize) -> Vec<&'a mut [T]> {
        let size = |task: Task| task.rows.len() * width;
        self.tasks().map(|task| all.split_off_mut(..size(task)).expect("tasks cover the rows")).collect()
    }
}
