//! The weight gradient, a product over positions.
//!
//! Output rows are cut in strips. For a band of strips the input is packed as `[strip, panel of WIDE channels,
//! column modulo stride, row, column, WIDE]` with zeros around, so that each tap meets consecutive steps of it, and
//! the gradient as `[strip, panel of TALL channels, position, TALL]`. Each task holds the sums of some channels.

use super::Conv;
use super::correlate::BUDGET;
use super::window::window;
use crate::ops::flex::simd::dispatch;
use crate::ops::flex::tile::{InTiles, PACKED, RESULTS, TALL, Tiled, WIDE, Walk, scratch, tile};
use pulp::Simd;
use rayon::prelude::*;
use std::ops::Range;

/// Positions that a strip has at least, where the image has as many.
const STRIP: usize = 256;
/// Panels of output channels that a task has at most.
const PANELS: usize = 8;

/// How the sum over positions is cut in pieces.
#[derive(Debug)]
struct Plan<'a> {
    conv: &'a Conv,
    /// Rows and columns of the output.
    grid: [usize; 2],
    /// Output rows per strip.
    rows: usize,
    /// Strips per image.
    each: usize,
    /// Packed rows per strip and column modulo stride.
    tall: usize,
    /// Packed columns per row and column modulo stride.
    wide: usize,
}

impl<'a> Plan<'a> {
    /// Chooses the pieces for `conv`, whatever the number of threads.
    fn new(conv: &'a Conv) -> Self {
        let grid = conv.output();
        let rows = STRIP.div_ceil(grid[1]).min(grid[0]);
        let each = grid[0].div_ceil(rows);
        let rows = grid[0].div_ceil(each);
        let tall = (rows - 1) * conv.stride[0] + conv.kernel[0];
        let wide = grid[1] + (conv.kernel[1] - 1) / conv.stride[1];
        Self { conv, grid, rows, each: grid[0].div_ceil(rows), tall, wide }
    }

    /// The image and the output rows of strip `strip`.
    fn strip(&self, strip: usize) -> (usize, Range<usize>) {
        let first = strip % self.each * self.rows;
        (strip / self.each, first..(first + self.rows).min(self.grid[0]))
    }

    /// Floats of a packed panel of the input.
    fn input(&self) -> usize {
        self.conv.stride[1] * self.tall * self.wide * WIDE
    }

    /// Floats of a packed panel of the gradient.
    fn grad(&self) -> usize {
        self.rows * self.grid[1] * TALL
    }

    /// Packs the channels from `first` of strip `strip` of the input; lanes beyond the last channel repeat it.
    #[inline(always)]
    fn pack_input(&self, x: &[f32], strip: usize, first: usize, packed: &mut [f32]) {
        let (conv, (image, rows)) = (self.conv, self.strip(strip));
        let plane = conv.height * conv.width;
        let [down, across] = conv.stride;
        let mut line = vec![0.0; self.wide * across];
        for row in 0..(rows.len() - 1) * down + conv.kernel[0] {
            let top = (rows.start * down + row) as isize - conv.padding[0] as isize;
            for lane in 0..WIDE {
                let channel = image * conv.from + (first + lane).min(conv.from - 1);
                let x = &x[channel * plane..][..plane];
                window(x, [conv.height, conv.width], top, -(conv.padding[1] as isize), 1, &mut line);
                for phase in 0..across {
                    let packed =
                        &mut packed[(phase * self.tall + row) * self.wide * WIDE..][..self.wide * WIDE];
                    for (lanes, value) in
                        packed.as_chunks_mut::<WIDE>().0.iter_mut().zip(line[phase..].iter().step_by(across))
                    {
                        lanes[lane] = *value;
                    }
                }
            }
        }
    }

    /// Packs the channels from `first` of strip `strip` of the gradient; lanes beyond the last channel repeat it.
    #[inline(always)]
    fn pack_grad(&self, grad: &[f32], strip: usize, first: usize, packed: &mut [f32]) {
        let (image, rows) = self.strip(strip);
        let (plane, wide) = (self.grid[0] * self.grid[1], self.grid[1]);
        for lane in 0..TALL {
            let channel = image * self.conv.to + (first + lane).min(self.conv.to - 1);
            let grad = &grad[channel * plane..][rows.start * wide..rows.end * wide];
            for (lanes, value) in packed.as_chunks_mut::<TALL>().0.iter_mut().zip(grad) {
                lanes[lane] = *value;
            }
        }
    }
}

/// The sums that one task computes.
struct Task<'a> {
    /// Panel of input channels.
    from: usize,
    /// First panel of output channels.
    to: usize,
    /// The gradients of the weights from these channels, for each output channel.
    rows: Vec<&'a mut [f32]>,
}

/// Cuts `dw` in tasks of `panels` panels of output channels.
fn tasks<'a>(conv: &Conv, dw: &'a mut [f32], panels: usize) -> Vec<Task<'a>> {
    let (taps, per) = (conv.kernel[0] * conv.kernel[1], conv.from.div_ceil(WIDE));
    let total = conv.to.div_ceil(panels * TALL) * per;
    let mut tasks: Vec<Task> =
        (0..total).map(|i| Task { from: i % per, to: i / per * panels, rows: vec![] }).collect();
    for (to, row) in dw.chunks_exact_mut(conv.from * taps).enumerate() {
        for (from, piece) in row.chunks_mut(WIDE * taps).enumerate() {
            tasks[to / (panels * TALL) * per + from].rows.push(piece);
        }
    }
    tasks
}

/// Writes the gradient of the weight of `conv` to `dw`, given the input `x` and the gradient of the output `grad`.
pub fn gradient(conv: &Conv, x: &[f32], grad: &[f32], dw: &mut [f32]) {
    dw.fill(0.0);
    if grad.is_empty() {
        return;
    }
    let plan = Plan::new(conv);
    let (from, to) = (conv.from.div_ceil(WIDE), conv.to.div_ceil(TALL));
    let (wide, tall) = (from * plan.input(), to * plan.grad());
    let strips = conv.batch * plan.each;
    let band = (2 * BUDGET / (wide + tall)).clamp(1, strips);
    let panels = (from * to / (4 * rayon::current_num_threads())).clamp(1, PANELS);
    let taps = conv.kernel[0] * conv.kernel[1];
    let mut tasks = tasks(conv, dw, panels);
    scratch(&PACKED, band * (wide + tall), |packed| {
        for first in (0..strips).step_by(band) {
            let band = band.min(strips - first);
            let (input, rest) = packed.split_at_mut(band * wide);
            let grads = &mut rest[..band * tall];
            input.par_chunks_mut(plan.input()).enumerate().for_each(|(i, packed)| {
                let (strip, panel) = (first + i / from, i % from);
                dispatch(
                    #[inline(always)]
                    || plan.pack_input(x, strip, panel * WIDE, packed),
                );
            });
            grads.par_chunks_mut(plan.grad()).enumerate().for_each(|(i, packed)| {
                let (strip, panel) = (first + i / to, i % to);
                dispatch(
                    #[inline(always)]
                    || plan.pack_grad(grad, strip, panel * TALL, packed),
                );
            });
            let (input, grads, plan) = (&*input, &*grads, &plan);
            tasks.par_iter_mut().for_each(|task| {
                let strips = first..first + band;
                scratch(&RESULTS, taps * panels * TALL * WIDE, |results| {
                    dispatch(InTiles(Multiply { plan, input, grads, strips, task, results }));
                });
            });
        }
    });
}

/// The products of one task with a packed band.
struct Multiply<'a, 'b> {
    plan: &'a Plan<'a>,
    input: &'a [f32],
    grads: &'a [f32],
    /// The strips in the band.
    strips: Range<usize>,
    task: &'a mut Task<'b>,
    /// Memory for the sums.
    results: &'a mut [f32],
}

impl Tiled for Multiply<'_, '_> {
    /// Adds the sums over the band to the task's gradients.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(mut self, simd: S) {
        let conv = self.plan.conv;
        let taps = conv.kernel[0] * conv.kernel[1];
        let high = self.task.rows.len().div_ceil(TALL);
        for strip in 0..self.strips.len() {
            for tap in 0..taps {
                self.product::<S, V>(simd, strip, tap, high);
            }
        }
        for (row, out) in self.task.rows.iter_mut().enumerate() {
            for (lane, out) in out.chunks_exact_mut(taps).enumerate() {
                for (tap, out) in out.iter_mut().enumerate() {
                    *out += self.results[(tap * high * TALL + row) * WIDE + lane];
                }
            }
        }
    }
}

impl Multiply<'_, '_> {
    /// Adds the products of strip `strip` of the band at tap `tap` to the results `[tap, output channel, WIDE]`.
    #[inline(always)]
    fn product<S: Simd, const V: usize>(&mut self, simd: S, strip: usize, tap: usize, high: usize) {
        let (plan, conv) = (self.plan, self.plan.conv);
        let (row, column) = (tap / conv.kernel[1], tap % conv.kernel[1]);
        let rows = plan.strip(self.strips.start + strip).1.len();
        let walk = Walk { rows, len: plan.grid[1], pitch: plan.wide * conv.stride[0] };
        let panel = strip * conv.from.div_ceil(WIDE) + self.task.from;
        let line = column % conv.stride[1] * plan.tall + row;
        let b = &self.input[panel * plan.input()..][..plan.input()];
        let b = &b[(line * plan.wide + column / conv.stride[1]) * WIDE..];
        for i in 0..high {
            let panel = strip * conv.to.div_ceil(TALL) + self.task.to + i;
            let a = &self.grads[panel * plan.grad()..][..plan.grad()];
            tile::<S, V>(
                simd,
                a,
                b,
                walk,
                &mut self.results[(tap * high + i) * TALL * WIDE..],
                WIDE,
                strip > 0,
            );
        }
    }
}
