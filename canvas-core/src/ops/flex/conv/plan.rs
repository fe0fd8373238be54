//! How a layer is cut in pieces: units of outputs, panels and strips of units, blocks of channels.

use super::layer::Layer;
use super::winograd::{OUTPUTS, PRODUCTS};
use crate::ops::flex::tile::{TALL, WIDE};
use std::ops::Range;

/// Depth of a channel block: the part of a panel that one kernel call reads stays in the first-level cache.
const DEPTH: usize = 256;
/// Units that a strip has at least, where the image has as many: Winograd's tiles, and single positions.
const STRIP: [usize; 2] = [64, 256];
/// Panels of units whose results a task holds at once, likewise.
const GROUP: [usize; 2] = [4, 16];
/// Channels from which Winograd's transforms cost less than they save.
const WINOGRAD_CHANNELS: usize = 16;
/// Tiles of an image from which transforming the weight costs less than it saves. Of one image, so that its answer does not
/// depend on how many others there are.
const WINOGRAD_TILES: usize = 32;

/// The rows of units `rows` of the images `images`, of each `columns` units.
#[derive(Debug, Clone)]
pub struct Strip {
    /// Numbers of images.
    pub images: Range<usize>,
    /// Rows of units.
    pub rows: Range<usize>,
    /// Units in a row.
    pub columns: usize,
}

/// Consecutive units in one row of an image: lanes `lane` to `lane + len` of a panel.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Number of the image.
    pub image: usize,
    /// Row of units.
    pub row: usize,
    /// The first unit there.
    pub column: usize,
    /// Its lane.
    pub lane: usize,
    /// Units.
    pub len: usize,
}

impl Strip {
    /// Number of units.
    pub fn units(&self) -> usize {
        self.images.len() * self.rows.len() * self.columns
    }

    /// The runs of units in panel `panel`.
    #[inline(always)]
    pub fn runs(&self, panel: usize) -> impl Iterator<Item = Run> + '_ {
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
pub struct Plan<'a> {
    /// What is cut.
    pub layer: &'a Layer,
    /// Products per unit: one, or Winograd's.
    pub products: usize,
    /// Rows and columns of outputs per unit.
    pub unit: [usize; 2],
    /// Rows and columns of units in an image.
    units: [usize; 2],
    /// Images per strip; more than one only if a strip has all their rows.
    pub images: usize,
    /// Rows of units per strip.
    pub rows: usize,
    /// Panels of units whose results a task holds at once.
    pub group: usize,
    /// Depth of one channel in a product.
    pub taps: usize,
    /// Channels in a block.
    channels: usize,
    /// Number of blocks.
    pub blocks: usize,
}

impl<'a> Plan<'a> {
    /// Chooses the pieces for `layer`. Only the blocks of channels affect the results.
    pub fn new(layer: &'a Layer) -> Self {
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
    pub fn strips(&self) -> (usize, usize) {
        let each = self.units[0].div_ceil(self.rows);
        (each, self.layer.batch.div_ceil(self.images) * each)
    }

    /// Strip number `index`.
    pub fn strip(&self, index: usize) -> Strip {
        let each = self.strips().0;
        let (image, row) = (index / each * self.images, index % each * self.rows);
        Strip {
            images: image..(image + self.images).min(self.layer.batch),
            rows: row..(row + self.rows).min(self.units[0]),
            columns: self.units[1],
        }
    }

    /// Panels of units in a strip, at most.
    pub fn panels(&self) -> usize {
        (self.images * self.rows * self.units[1]).div_ceil(WIDE)
    }

    /// The channels of block `block`.
    pub fn block(&self, block: usize) -> Range<usize> {
        block * self.channels..(block * self.channels + self.channels).min(self.layer.from)
    }

    /// Floats from one product of a packed block with `wide` lanes to the next; the padding keeps the products from
    /// competing for the same lines of a cache.
    pub fn pitch(&self, wide: usize) -> usize {
        (self.channels * self.taps + 1) * wide
    }

    /// Floats of a packed block with `wide` lanes.
    pub fn chunk(&self, wide: usize) -> usize {
        self.products * self.pitch(wide)
    }

    /// Floats of the sums of a group of panels of units and `panels` panels of output channels.
    pub fn results(&self, panels: usize) -> usize {
        self.products * panels * TALL * self.group * WIDE
    }
}
