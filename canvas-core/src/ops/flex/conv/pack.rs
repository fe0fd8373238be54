//! How a layer's input and weights are packed for the products.

use super::layer::Taps;
use super::plan::{Plan, Run, Strip};
use super::window::window;
use super::winograd;
use crate::ops::flex::tile::{TALL, WIDE};

impl Plan<'_> {
    /// Packs block `block` of the input `x` for `strip`.
    #[inline(always)]
    pub fn pack_input(&self, x: &[f32], strip: &Strip, block: usize, packed: &mut [f32]) {
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
    pub fn pack_weight(&self, taps: &Taps, first: usize, block: usize, packed: &mut [f32]) {
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
