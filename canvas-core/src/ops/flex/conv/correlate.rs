//! The correlation behind the forward pass and the input gradient, as one blocked product.
//!
//! Outputs are computed in units: single positions, or Winograd's tiles of 2 x 4. Units are gathered in panels of
//! [`WIDE`], panels in strips of whole rows of units, strips in bands. For a band the input is packed as
//! `[strip, channel block, panel, product, channel and tap, WIDE]`; the weight, as many output channels at a time
//! as fit, as `[panel of TALL, channel block, product, channel and tap, TALL]`, unless it can be read as it lies. Then each
//! task multiplies one strip with some panels of the weight and writes its rows of those output channels.

use super::layer::{Layer, Taps};
use super::plan::{Plan, Run, Strip};
use super::window::copy;
use super::winograd;
use crate::ops::flex::simd::dispatch;
use crate::ops::flex::tile::{
    InTiles, PACKED, RESULTS, TALL, Tiled, WIDE, Walk, scratch, tile, tile_of_rows,
};
use pulp::Simd;
use rayon::prelude::*;
use std::ops::Range;

/// Floats of packed input, and of packed weight, that a call aims to hold at most (8 MiB each): what stays in a
/// cache shared by the cores. One strip or one panel is held in any case.
pub const BUDGET: usize = 2 << 20;
/// Panels of output channels that a task has at most, likewise.
const PANELS: [usize; 2] = [8, 16];

/// The part of the output that one task computes.
struct Task<'a> {
    /// Number of the strip.
    strip: usize,
    /// Output channels.
    to: Range<usize>,
    /// The strip's rows of each of the channels, image after image.
    rows: Vec<&'a mut [f32]>,
}

/// Cuts `out` in tasks of `panels` panels of output channels, sorted by strip.
fn tasks<'a>(plan: &Plan, out: &'a mut [f32], panels: usize) -> Vec<Task<'a>> {
    let (each, total) = plan.strips();
    let (layer, tall) = (plan.layer, panels * TALL);
    let per = layer.to.div_ceil(tall);
    let mut tasks: Vec<Task> = (0..total * per)
        .map(|i| Task {
            strip: i / per,
            to: i % per * tall..(i % per * tall + tall).min(layer.to),
            rows: vec![],
        })
        .collect();
    for (i, plane) in out.chunks_exact_mut(layer.plane[0] * layer.plane[1]).enumerate() {
        let (image, channel) = (i / layer.to, i % layer.to);
        let rows = if each == 1 { layer.plane[0] } else { plan.rows * plan.unit[0] * layer.spread[0] };
        let mut rest = plane;
        for part in 0..each {
            let end = if part + 1 == each { rest.len() } else { rows * layer.plane[1] };
            let (piece, tail) = rest.split_at_mut(end);
            tasks[(image / plan.images * each + part) * per + channel / tall].rows.push(piece);
            rest = tail;
        }
    }
    tasks
}

/// Computes `layer` for the input `x` `[batch, from, size]` with `taps` and `bias` `[to]`, and writes its outputs
/// to their places in `out` `[batch, to, plane]`.
pub fn correlate(layer: &Layer, x: &[f32], taps: &Taps, bias: Option<&[f32]>, out: &mut [f32]) {
    if out.is_empty() || layer.grid.contains(&0) {
        return;
    }
    let plan = Plan::new(layer);
    let strips = plan.strips().1;
    let as_it_lies = plan.products == 1 && taps.lie_in_rows(layer.kernel);
    let (high, deep) = (layer.to.div_ceil(TALL), plan.blocks * plan.chunk(TALL));
    let wide = plan.blocks * plan.panels() * plan.chunk(WIDE);
    let band = (BUDGET / wide).clamp(1, strips);
    let piece = if as_it_lies { high } else { (BUDGET / deep).clamp(1, high) };
    let panels = (band * piece / (4 * rayon::current_num_threads()))
        .clamp(1, PANELS[usize::from(plan.products == 1)].min(piece));
    let piece = piece / panels * panels;
    let mut tasks = tasks(&plan, out, panels);
    let each = high.div_ceil(panels);
    scratch(&PACKED, band * wide + if as_it_lies { 0 } else { piece * deep }, |packed| {
        let (input, weight) = packed.split_at_mut(band * wide);
        let mut held = None;
        for (i, tasks) in tasks.chunks_mut(band * each).enumerate() {
            let input = &mut input[..tasks.len() / each * wide];
            input.par_chunks_mut(plan.panels() * plan.chunk(WIDE)).enumerate().for_each(|(part, packed)| {
                let (strip, block) = (plan.strip(i * band + part / plan.blocks), part % plan.blocks);
                dispatch(
                    #[inline(always)]
                    || plan.pack_input(x, &strip, block, packed),
                );
            });
            for first in (0..high).step_by(piece) {
                if !as_it_lies && held.replace(first) != Some(first) {
                    let weight = &mut weight[..piece.min(high - first) * deep];
                    weight.par_chunks_mut(plan.chunk(TALL)).enumerate().for_each(|(i, packed)| {
                        let (panel, block) = (first + i / plan.blocks, i % plan.blocks);
                        dispatch(
                            #[inline(always)]
                            || plan.pack_weight(taps, panel * TALL, block, packed),
                        );
                    });
                }
                let (input, weight, to) = (&*input, &*weight, first * TALL..(first + piece) * TALL);
                tasks.par_iter_mut().filter(|task| to.contains(&task.to.start)).for_each(|task| {
                    let input = &input[(task.strip - i * band) * wide..][..wide];
                    let weight = match as_it_lies {
                        true => Weight::Rows(taps),
                        false => Weight::Packed(&weight[(task.to.start / TALL - first) * deep..]),
                    };
                    scratch(&RESULTS, plan.results(panels), |results| {
                        dispatch(InTiles(Multiply { plan: &plan, input, weight, bias, task, results }));
                    });
                });
            }
        }
    });
}

/// Where the weight is read.
#[derive(Clone, Copy)]
enum Weight<'a> {
    /// Packed, from the first channel of a task.
    Packed(&'a [f32]),
    /// As it lies.
    Rows(&'a Taps<'a>),
}

/// The products of one task.
struct Multiply<'a, 'b> {
    plan: &'a Plan<'a>,
    /// The packed input of the strip.
    input: &'a [f32],
    weight: Weight<'a>,
    bias: Option<&'a [f32]>,
    task: &'a mut Task<'b>,
    /// Memory for the sums of a group of panels.
    results: &'a mut [f32],
}

impl Tiled for Multiply<'_, '_> {
    /// Computes the task, a group of panels at a time.
    #[inline(always)]
    fn run<S: Simd, const V: usize>(mut self, simd: S) {
        let plan = self.plan;
        let strip = plan.strip(self.task.strip);
        let (panels, high) = (strip.units().div_ceil(WIDE), self.task.to.len().div_ceil(TALL));
        for group in (0..panels).step_by(plan.group) {
            let group = group..(group + plan.group).min(panels);
            for i in 0..plan.blocks * plan.products {
                self.product::<S, V>(simd, i / plan.products, i % plan.products, group.clone(), high);
            }
            let runs: Vec<Vec<Run>> = group.map(|panel| strip.runs(panel).collect()).collect();
            for channel in 0..self.task.to.len() {
                for (i, runs) in runs.iter().enumerate() {
                    self.write(&strip, runs, channel, i);
                }
            }
        }
    }
}

impl Multiply<'_, '_> {
    /// Multiplies product `product` of channel block `block` for the panels `group` and all output channels, into
    /// the results `[product, output channel, panel of the group, WIDE]`.
    #[inline(always)]
    fn product<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        block: usize,
        product: usize,
        group: Range<usize>,
        high: usize,
    ) {
        let plan = self.plan;
        let walk = Walk { rows: 1, len: plan.block(block).len() * plan.taps, pitch: 0 };
        for (i, panel) in group.enumerate() {
            let b = (block * plan.panels() + panel) * plan.chunk(WIDE) + product * plan.pitch(WIDE);
            let b = &self.input[b..][..walk.len * WIDE];
            for row in 0..high {
                let c = &mut self.results[((product * high + row) * TALL * plan.group + i) * WIDE..];
                let (stride, add) = (plan.group * WIDE, block > 0);
                match self.weight {
                    Weight::Packed(weight) => {
                        let a = (row * plan.blocks + block) * plan.chunk(TALL) + product * plan.pitch(TALL);
                        tile::<S, V>(simd, &weight[a..][..walk.len * TALL], b, walk, c, stride, add);
                    }
                    Weight::Rows(taps) => {
                        let first = taps.base + plan.block(block).start * plan.taps;
                        let a = std::array::from_fn(|lane| {
                            let to = (self.task.to.start + row * TALL + lane).min(plan.layer.to - 1);
                            &taps.data[first + to * taps.out..][..walk.len]
                        });
                        tile_of_rows::<S, V>(simd, a, b, c, stride, add);
                    }
                }
            }
        }
    }

    /// Writes the outputs of the task's output channel `channel` for the panel `runs` of `strip`, which is panel
    /// `index` of the group in the results.
    #[inline(always)]
    fn write(&mut self, strip: &Strip, runs: &[Run], channel: usize, index: usize) {
        let (plan, layer, [tall, wide]) = (self.plan, self.plan.layer, self.plan.unit);
        let pitch = self.task.to.len().div_ceil(TALL) * TALL * plan.group * WIDE;
        let m = &self.results[(channel * plan.group + index) * WIDE..];
        let bias = self.bias.map_or(0.0, |bias| bias[self.task.to.start + channel]);
        let mut tiles = [[[0.0; 4]; WIDE]; 2];
        let mut single = [0.0; WIDE];
        let values = if plan.products > 1 {
            winograd::output(m, pitch, bias, &mut tiles);
            [tiles[0].as_flattened(), tiles[1].as_flattened()]
        } else {
            single.iter_mut().zip(&m[..WIDE]).for_each(|(value, m)| *value = m + bias);
            [single.as_slice(), &[]]
        };
        for run in runs {
            let plane = &mut self.task.rows[(run.image - strip.images.start) * self.task.to.len() + channel];
            let len = (run.len * wide).min(layer.grid[1] - run.column * wide);
            let top = run.row * tall;
            for (row, values) in values.iter().enumerate().take(tall.min(layer.grid[0] - top)) {
                let row = (top + row - strip.rows.start * tall) * layer.spread[0] + layer.first[0];
                let column = run.column * wide * layer.spread[1] + layer.first[1];
                let line = &mut plane[row * layer.plane[1] + column..];
                let values = &values[run.lane * wide..][..len];
                if layer.spread[1] == 1 {
                    copy(values, &mut line[..len]);
                } else {
                    line.iter_mut()
                        .step_by(layer.spread[1])
                        .zip(values)
                        .for_each(|(out, value)| *out = *value);
                }
            }
        }
    }
}
