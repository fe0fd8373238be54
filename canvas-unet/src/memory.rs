//! How much memory a [`Unet`](crate::Unet) will need, from its configuration alone.

use crate::UnetConfig;
use burn::prelude::*;
use canvas_core::memory::{Memory, Peak};

impl UnetConfig {
    /// What a forward will take at its highest, without gradients and while no hook looks: the weights, and what the
    /// layers hold at the worst of them, the skips that wait for the way up included.
    ///
    /// It counts what the CPU's kernels allocate in f32. Measured for Stable Diffusion 1.5 in
    /// `benches/RESULTS.md`, where it also stands how far off it is. Two halves of guidance in one call are a batch
    /// of two. `bytes` are those of a number: 4 for f32. Nothing is allocated on the device.
    ///
    /// # Shapes
    /// For an input `[B, C, H, S]` given as `[B, H, S]`.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn estimate_memory(
        &self,
        [batch, height, width]: [usize; 3],
        bytes: usize,
        device: &Device,
    ) -> Memory {
        Memory::of(&self.init(device), self.peak(batch, [height, width]).numbers(), bytes)
    }

    /// The most numbers that are alive at once.
    fn peak(&self, batch: usize, size: [usize; 2]) -> Peak {
        let levels = self.channels.len();
        let halved = |[h, s]: [usize; 2]| [h.div_ceil(2), s.div_ceil(2)];
        let sizes = std::iter::successors(Some(size), |&size| Some(halved(size)));
        let pixels: Vec<usize> = sizes.take(levels).map(|[h, s]| batch * h * s).collect();
        let mut from = self.channels[0];
        let (mut skips, mut peak) = (vec![(from, from * pixels[0])], Peak::default());
        let kept = |skips: &[(usize, usize)]| skips.iter().map(|(_, numbers)| numbers).sum::<usize>();
        for level in 0..levels {
            let (to, pixels_here) = (self.channels[level], pixels[level]);
            for _ in 0..self.blocks {
                self.stage(&mut peak, kept(&skips), from, level, pixels_here);
                skips.push((to, to * pixels_here));
                from = to;
            }
            if let Some(pixels_below) = pixels.get(level + 1) {
                skips.push((to, to * pixels_below));
            }
        }
        self.stage(&mut peak, kept(&skips), from, levels - 1, pixels[levels - 1]);
        for level in (0..levels).rev() {
            for _ in 0..=self.blocks {
                let (skip, _) = skips.pop().expect("one for each block up");
                self.stage(&mut peak, kept(&skips), from + skip, level, pixels[level]);
                from = self.channels[level];
            }
            if level > 0 {
                peak.convolution(kept(&skips), [from; 2], pixels[level - 1]);
            }
        }
        peak
    }

    /// A residual block and the transformers behind it, while so many numbers wait.
    fn stage(&self, peak: &mut Peak, waiting: usize, from: usize, level: usize, pixels: usize) {
        let to = self.channels[level];
        peak.residual_block(waiting, [from, to], pixels);
        if self.depth[level] > 0 {
            // What both residual sums wait for, and two factors and their product, four times as wide.
            peak.holds(waiting + 14 * to * pixels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_near_what_was_measured() {
        let device = Device::flex();
        // benches/RESULTS.md: MiB beside the weights at the high-water mark.
        for (input, measured) in [
            ([1, 32, 32], 50),
            ([1, 64, 64], 124),
            ([2, 64, 64], 258),
            ([1, 96, 96], 262),
            ([1, 128, 128], 446),
        ] {
            let found = UnetConfig::sd1().estimate_memory(input, 4, &device);
            assert_eq!(found.weights, 4 * 859_520_964);
            let found = found.activations >> 20;
            assert!(
                (measured * 4 / 5..measured * 5 / 4).contains(&found),
                "{input:?}: {found}, not {measured}"
            );
        }
    }

    #[test]
    fn numbers_of_half_the_size_take_half() {
        let (config, device) = (UnetConfig::small(4, 8), Device::flex());
        let [full, half] = [4, 2].map(|bytes| config.estimate_memory([1, 15, 9], bytes, &device));
        assert_eq!((full.weights, full.activations), (2 * half.weights, 2 * half.activations));
    }
}
