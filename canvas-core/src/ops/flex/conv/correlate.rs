//! The correlation behind the forward pass and the input gradient, as one blocked product.
//!
//! Outputs are computed in units: single positions, or Winograd's tiles of 2 x 4. Units are gathered in panels of
//! [`WIDE`], panels in strips of whole rows of units, strips in bands. For a band the input is packed as
//! `[strip, channel block, panel, product, channel and tap, WIDE]`; the weight, as many output channels at a time
//! as fit, as `[panel of TALL, channel block, product, channel and tap, TALL]`. Then each task multiplies one strip
//! with some panels of the weight and writes its rows of those output channels.

use super::kernel::{PACKED, RESULTS, TALL, WIDE, Walk, copy, scratch, tile, window};
use super::winograd::{self, OUTPUTS, PRODUCTS};
use crate::ops::flex::simd::dispatch;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Floats of packed input, and of packed weight, that a call aims to hold at most (8 MiB each): what stays in a
/// cache shared by the cores. One strip or one panel is held in any case.
pub const BUDGET: usize = 2 << 20;
/// Depth of a channel block: the part of a panel that one kernel call reads stays in the first-level cache.
const DEPTH: usize = 256;
/// Units that a strip has at least, where the image has as many: Winograd's tiles, and single positions.
const STRIP: [usize; 2] = [64, 256];
/// Panels of units whose results a task holds at once, likewise.
const GROUP: [usize; 2] = [4, 16];
/// Panels of output channels that a task has at most, likewise.
const PANELS: [usize; 2] = [8, 16];
/// Channels from which Winograd's transforms cost less than they save.
const WINOGRAD_CHANNELS: usize = 16;
/// Tiles of an image from which transforming the weight costs less than it saves. Of one image, so that its answer does not
/// depend on how many others there are.
const WINOGRAD_TILES: usize = 32;

/// What to correlate: `grid` outputs per channel and image, each a sum over `from` channels and a window of input.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input.
    pub from: usize,
    /// Channels of the output.
    pub to: usize,
    /// Rows and columns of the input.
    pub size: [usize; 2],
    /// Rows and columns of outputs to compute.
    pub grid: [usize; 2],
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Input rows and columns from one output to the next.
    pub step: [usize; 2],
    /// Input row and column where the window of the first output starts.
    pub origin: [isize; 2],
    /// Rows and columns of the memory of an output channel.
    pub plane: [usize; 2],
    /// Row and column there of the first output.
    pub first: [usize; 2],
    /// Rows and columns there from one output to the next.
    pub spread: [usize; 2],
}

/// Weights read through strides, so that a flipped or transposed kernel needs no copy.
#[derive(Debug, Clone)]
pub struct Taps<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Index of the first tap of the first channels.
    pub base: usize,
    /// Distance of two output channels.
    pub out: usize,
    /// Distance of two input channels.
    pub into: usize,
    /// Distance of two rows of taps.
    pub row: isize,
    /// Distance of two taps in a row.
    pub column: isize,
}

impl Taps<'_> {
    /// The tap at `row`, `column` from channel `into` to channel `out`.
    #[inline(always)]
    fn at(&self, out: usize, into: usize, row: usize, column: usize) -> f32 {
        let channel = self.base + out * self.out + into * self.into;
        self.data[(channel as isize + row as isize * self.row + column as isize * self.column) as usize]
    }

    /// Writes the 3 x 3 taps from channel `into` to channel `out`, which lie together, to lane `lane` of `g`.
    #[inline(always)]
    fn square(&self, out: usize, into: usize, lane: usize, g: &mut [[[f32; 8]; 3]; 3]) {
        let flipped = self.column < 0;
        let start = self.base + out * self.out + into * self.into - if flipped { 8 } else { 0 };
        let taps = self.data[start..].first_chunk::<9>().expect("nine taps");
        for (i, g) in g.as_flattened_mut().iter_mut().enumerate() {
            g[lane] = if flipped { taps[8 - i] } else { taps[i] };
        }
    }
}

/// The rows of units `rows` of the images `images`, of each `columns` units.
#[derive(Debug, Clone)]
struct Strip {
    images: Range<usize>,
    rows: Range<usize>,
    columns: usize,
}

/// Consecutive units in one row of an image: lanes `lane` to `lane + len` of a panel.
#[derive(Debug, Clone, Copy)]
struct Run {
    image: usize,
    row: usize,
    column: usize,
    lane: usize,
    len: usize,
}

impl Strip {
    /// Number of units.
    fn units(&self) -> usize {
        self.images.len() * self.rows.len() * self.columns
    }

    /// The runs of units in panel `panel`.
    #[inline(always)]
    fn runs(&self, panel: usize) -> impl Iterator<Item = Run> + '_ {
        let end = (panel * WIDE + WIDE).min(self.units());
        let mut next = panel * WIDE;
        std::iter::from_fn(move || {
            (next < end).then(|| {
                let (row, column) = (next / self.columns, next % self.columns);
                let run = Run {
                    image: self.images.start + row / self.rows.len(),
                    row: self.rows.start + row % self.rows.len(),
                    column,
                    lane: next - panel * WIDE,
                    len: (self.columns - column).min(end - next),
                };
                next += run.len;
                run
            })
        })
    }
}

/// How a layer is cut in pieces.
#[derive(Debug)]
struct Plan<'a> {
    layer: &'a Layer,
    /// Products per unit: one, or Winograd's.
    products: usize,
    /// Rows and columns of outputs per unit.
    unit: [usize; 2],
    /// Rows and columns of units in an image.
    units: [usize; 2],
    /// Images per strip; more than one only if a strip has all their rows.
    images: usize,
    /// Rows of units per strip.
    rows: usize,
    /// Panels of units whose results a task holds at once.
    group: usize,
    /// Depth of one channel in a product.
    taps: usize,
    /// Channels in a block.
    channels: usize,
    /// Number of blocks.
    blocks: usize,
}

impl<'a> Plan<'a> {
    /// Chooses the pieces for `layer`. Only the blocks of channels affect the results.
    fn new(layer: &'a Layer) -> Self {
        let tiles = layer.grid[0].div_ceil(OUTPUTS[0]) * layer.grid[1].div_ceil(OUTPUTS[1]);
        let pays = layer.from >= WINOGRAD_CHANNELS && tiles >= WINOGRAD_TILES;
        let winograd = layer.kernel == [3, 3] && layer.step == [1, 1] && pays;
        let (products, unit) = if winograd { (PRODUCTS, OUTPUTS) } else { (1, [1, 1]) };
        let units = [0, 1].map(|i| layer.grid[i].div_ceil(unit[i]));
        let strip = STRIP[usize::from(!winograd)];
        let rows = strip.div_ceil(units[1]).min(units[0]);
        let rows = units[0].div_ceil(units[0].div_ceil(rows));
        let images = (strip / (units[0] * units[1])).clamp(1, layer.batch);
        let group = GROUP[usize::from(!winograd)];
        let taps = if winograd { 1 } else { layer.kernel[0] * layer.kernel[1] };
        let blocks = layer.from.div_ceil((DEPTH / taps).max(1));
        let channels = layer.from.div_ceil(blocks);
        let blocks = layer.from.div_ceil(channels);
        Self { layer, products, unit, units, images, rows, group, taps, channels, blocks }
    }

    /// The strips per image, and in total.
    fn strips(&self) -> (usize, usize) {
        let each = self.units[0].div_ceil(self.rows);
        (each, self.layer.batch.div_ceil(self.images) * each)
    }

    /// Strip number `index`.
    fn strip(&self, index: usize) -> Strip {
        let each = self.strips().0;
        let (image, row) = (index / each * self.images, index % each * self.rows);
        Strip {
            images: image..(image + self.images).min(self.layer.batch),
            rows: row..(row + self.rows).min(self.units[0]),
            columns: self.units[1],
        }
    }

    /// Panels of units in a strip, at most.
    fn panels(&self) -> usize {
        (self.images * self.rows * self.units[1]).div_ceil(WIDE)
    }

    /// The channels of block `block`.
    fn block(&self, block: usize) -> Range<usize> {
        block * self.channels..(block * self.channels + self.channels).min(self.layer.from)
    }

    /// Floats from one product of a packed block with `wide` lanes to the next; the padding keeps the products from
    /// competing for the same lines of a cache.
    fn pitch(&self, wide: usize) -> usize {
        (self.channels * self.taps + 1) * wide
    }

    /// Floats of a packed block with `wide` lanes.
    fn chunk(&self, wide: usize) -> usize {
        self.products * self.pitch(wide)
    }

    /// Floats of the sums of a group of panels of units and `panels` panels of output channels.
    fn results(&self, panels: usize) -> usize {
        self.products * panels * TALL * self.group * WIDE
    }

    /// Packs block `block` of the input `x` for `strip`.
    #[inline(always)]
    fn pack_input(&self, x: &[f32], strip: &Strip, block: usize, packed: &mut [f32]) {
        let plane = self.layer.size[0] * self.layer.size[1];
        let runs: Vec<Vec<Run>> = (0..self.panels()).map(|panel| strip.runs(panel).collect()).collect();
        for (k, channel) in self.block(block).enumerate() {
            for (runs, packed) in runs.iter().zip(packed.chunks_exact_mut(self.chunk(WIDE))) {
                let image = |run: &Run| &x[(run.image * self.layer.from + channel) * plane..][..plane];
                if self.products == 1 {
                    let packed = &mut packed[k * self.taps * WIDE..][..self.taps * WIDE];
                    for run in runs {
                        self.patch(image(run), *run, packed);
                    }
                    continue;
                }
                let mut d = [[[0.0; WIDE]; 6]; 4];
                for run in runs {
                    self.gather(image(run), *run, &mut d);
                }
                winograd::input(&mut d);
                for (product, d) in d.as_flattened().iter().enumerate() {
                    packed[product * self.pitch(WIDE) + k * WIDE..][..WIDE].copy_from_slice(d);
                }
            }
        }
    }

    /// The input row (`i` 0) or column (`i` 1) where the window of a unit starts.
    #[inline(always)]
    fn start(&self, i: usize, unit: usize) -> isize {
        (unit * self.unit[i] * self.layer.step[i]) as isize + self.layer.origin[i]
    }

    /// Writes what each tap meets at the positions of `run` to `packed` `[tap, WIDE]`.
    #[inline(always)]
    fn patch(&self, image: &[f32], run: Run, packed: &mut [f32]) {
        let layer = self.layer;
        let mut taps = packed.chunks_exact_mut(WIDE);
        for row in 0..layer.kernel[0] {
            for (column, lanes) in taps.by_ref().take(layer.kernel[1]).enumerate() {
                let row = self.start(0, run.row) + row as isize;
                let column = self.start(1, run.column) + column as isize;
                let lanes = &mut lanes[run.lane..run.lane + run.len];
                window(image, layer.size, row, column, layer.step[1], lanes);
            }
        }
    }

    /// Writes the 4 x 6 inputs of the tiles of `run` to their lanes.
    #[inline(always)]
    fn gather(&self, image: &[f32], run: Run, d: &mut [[[f32; WIDE]; 6]; 4]) {
        for (i, d) in d.iter_mut().enumerate() {
            let mut line = [0.0; WIDE * 4 + 4];
            let row = self.start(0, run.row) + i as isize;
            window(image, self.layer.size, row, self.start(1, run.column), 1, &mut line[..run.len * 4 + 2]);
            let line = line.as_chunks::<4>().0;
            if run.len == WIDE {
                winograd::spread(line, d, 0, WIDE); // The constant bounds let it be vectorised.
            } else {
                winograd::spread(line, d, run.lane, run.len);
            }
        }
    }

    /// Packs block `block` of the weights to the output channels from `first`; lanes beyond the last repeat it.
    #[inline(always)]
    fn pack_weight(&self, taps: &Taps, first: usize, block: usize, packed: &mut [f32]) {
        let to: [usize; TALL] = std::array::from_fn(|lane| (first + lane).min(self.layer.to - 1));
        let [rows, columns] = self.layer.kernel;
        for (k, channel) in self.block(block).enumerate() {
            if self.products > 1 {
                // The two lanes too many are overwritten by the next channel's, or lie in the padding.
                let mut g = [[[0.0; 8]; 3]; 3];
                for (lane, to) in to.iter().enumerate() {
                    taps.square(*to, channel, lane, &mut g);
                }
                for (product, g) in winograd::weight(&g).iter().enumerate() {
                    packed[product * self.pitch(TALL) + k * TALL..][..8].copy_from_slice(g);
                }
                continue;
            }
            let packed = &mut packed[k * self.taps * TALL..][..self.taps * TALL];
            for (lane, to) in to.iter().enumerate() {
                let mut lanes = packed[lane..].iter_mut().step_by(TALL);
                for row in 0..rows {
                    for (column, lane) in lanes.by_ref().take(columns).enumerate() {
                        *lane = taps.at(*to, channel, row, column);
                    }
                }
            }
        }
    }
}

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
    let (high, deep) = (layer.to.div_ceil(TALL), plan.blocks * plan.chunk(TALL));
    let wide = plan.blocks * plan.panels() * plan.chunk(WIDE);
    let band = (BUDGET / wide).clamp(1, strips);
    let piece = (BUDGET / deep).clamp(1, high);
    let panels = (band * piece / (4 * rayon::current_num_threads()))
        .clamp(1, PANELS[usize::from(plan.products == 1)].min(piece));
    let piece = piece / panels * panels;
    let mut tasks = tasks(&plan, out, panels);
    let each = high.div_ceil(panels);
    scratch(&PACKED, band * wide + piece * deep, |packed| {
        let (input, weight) = packed.split_at_mut(band * wide);
        let mut held = None;
        for (i, tasks) in tasks.chunks_mut(band * each).enumerate() {
            pack_band(&plan, x, i * band, &mut input[..tasks.len() / each * wide]);
            for first in (0..high).step_by(piece) {
                if held.replace(first) != Some(first) {
                    let weight = &mut weight[..piece.min(high - first) * deep];
                    weight.par_chunks_mut(plan.chunk(TALL)).enumerate().for_each(|(i, packed)| {
                        let (panel, block) = (first + i / plan.blocks, i % plan.blocks);
                        dispatch(PackWeight { plan: &plan, taps, panel, block, packed });
                    });
                }
                let (input, weight, to) = (&*input, &*weight, first * TALL..(first + piece) * TALL);
                tasks.par_iter_mut().filter(|task| to.contains(&task.to.start)).for_each(|task| {
                    let input = &input[(task.strip - i * band) * wide..][..wide];
                    let weight = &weight[(task.to.start / TALL - first) * deep..];
                    scratch(&RESULTS, plan.results(panels), |results| {
                        dispatch(Multiply { plan: &plan, input, weight, bias, task, results });
                    });
                });
            }
        }
    });
}

/// Packs the input of the strips from number `first` to `packed`.
fn pack_band(plan: &Plan, x: &[f32], first: usize, packed: &mut [f32]) {
    packed.par_chunks_mut(plan.panels() * plan.chunk(WIDE)).enumerate().for_each(|(i, packed)| {
        let strip = plan.strip(first + i / plan.blocks);
        dispatch(PackInput { plan, x, strip, block: i % plan.blocks, packed });
    });
}

/// Packs block `block` of the input `x` for `strip`.
struct PackInput<'a> {
    plan: &'a Plan<'a>,
    x: &'a [f32],
    strip: Strip,
    block: usize,
    packed: &'a mut [f32],
}

impl WithSimd for PackInput<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.plan.pack_input(self.x, &self.strip, self.block, self.packed);
    }
}

/// Packs block `block` of the weight for panel `panel` of output channels.
struct PackWeight<'a> {
    plan: &'a Plan<'a>,
    taps: &'a Taps<'a>,
    panel: usize,
    block: usize,
    packed: &'a mut [f32],
}

impl WithSimd for PackWeight<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.plan.pack_weight(self.taps, self.panel * TALL, self.block, self.packed);
    }
}

/// The products of one task with packed operands.
struct Multiply<'a, 'b> {
    plan: &'a Plan<'a>,
    /// The packed input of the strip.
    input: &'a [f32],
    /// The packed weight from the first channel of the task.
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    task: &'a mut Task<'b>,
    /// Memory for the sums of a group of panels.
    results: &'a mut [f32],
}

impl WithSimd for Multiply<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 1>(simd),
            8 => self.run::<S, 2>(simd),
            4 => self.run::<S, 4>(simd),
            _ => self.run::<S, WIDE>(simd),
        }
    }
}

impl Multiply<'_, '_> {
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
                let a = (row * plan.blocks + block) * plan.chunk(TALL) + product * plan.pitch(TALL);
                let a = &self.weight[a..][..walk.len * TALL];
                let c = &mut self.results[((product * high + row) * TALL * plan.group + i) * WIDE..];
                tile::<S, V>(simd, a, b, walk, c, plan.group * WIDE, block > 0);
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
