//! One bucket's own endless order.

use super::key::derive;
use super::{Permutation, Place};
use std::ops::Range;

/// The images of one bucket of one source, and their endless order: each epoch a new permutation.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) key: u64,
    /// What a place in it begins with; the index is filled in.
    pub(super) source: usize,
    pub(super) bucket: usize,
    /// In rising order, so that each block's lie together.
    pub(super) images: Vec<usize>,
    pub(super) windows: Option<Windows>,
}

/// How an order stays within a few blocks at a time.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// Of the source: all its buckets go through the blocks in one order.
    key: u64,
    width: u64,
    /// Position in the lane's images of the first of each block, and their number at the end.
    firsts: Vec<usize>,
}

/// Where a lane's windows end in one of its epochs.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    epoch: u64,
    ends: Vec<usize>,
}

impl Windows {
    pub(super) fn new(key: u64, blocks: &[Range<usize>], width: usize, images: &[usize]) -> Self {
        let firsts = blocks.iter().map(|block| images.partition_point(|&image| image < block.start));
        Self { key, width: width as u64, firsts: firsts.chain([images.len()]).collect() }
    }

    fn blocks(&self) -> u64 {
        self.firsts.len() as u64 - 1
    }

    /// Where the images of the block lie that comes at a place of an epoch.
    fn block(&self, epoch: u64, place: u64) -> Range<usize> {
        let block = Permutation::new(derive(self.key, &[epoch]), self.blocks()).at(place) as usize;
        self.firsts[block]..self.firsts[block + 1]
    }

    fn places(&self, window: u64) -> Range<u64> {
        window * self.width..((window + 1) * self.width).min(self.blocks())
    }

    fn layout(&self, epoch: u64) -> Layout {
        let mut end = 0;
        let mut ends = Vec::new();
        for window in 0..self.blocks().div_ceil(self.width) {
            end += self.places(window).map(|place| self.block(epoch, place).len()).sum::<usize>();
            ends.push(end);
        }
        Layout { epoch, ends }
    }
}

impl Lane {
    /// The image at a position of the endless order. `memo` holds what consecutive positions share.
    pub(super) fn at(&self, position: u64, memo: &mut Option<Layout>) -> Place {
        let length = self.images.len() as u64;
        let (epoch, rest) = (position / length, position % length);
        let found = match &self.windows {
            None => Permutation::new(derive(self.key, &[epoch]), length).at(rest) as usize,
            Some(windows) => {
                let layout = match memo {
                    Some(layout) if layout.epoch == epoch => layout,
                    _ => memo.insert(windows.layout(epoch)),
                };
                self.in_window(windows, layout, rest as usize)
            }
        };
        Place { source: self.source, bucket: self.bucket, index: self.images[found] }
    }

    fn in_window(&self, windows: &Windows, layout: &Layout, rest: usize) -> usize {
        let window = layout.ends.partition_point(|&end| end <= rest);
        let begin = if window == 0 { 0 } else { layout.ends[window - 1] };
        let count = (layout.ends[window] - begin) as u64;
        let key = derive(self.key, &[layout.epoch, window as u64]);
        let mut within = Permutation::new(key, count).at((rest - begin) as u64) as usize;
        for place in windows.places(window as u64) {
            let block = windows.block(layout.epoch, place);
            if within < block.len() {
                return block.start + within;
            }
            within -= block.len();
        }
        unreachable!("a window holds as many images as its blocks")
    }
}
