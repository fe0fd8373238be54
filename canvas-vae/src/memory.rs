//! How much memory an [`AutoencoderKl`](crate::AutoencoderKl) will need, from its configuration alone.

use crate::AutoencoderKlConfig;
use burn::prelude::*;
use canvas_core::memory::{Memory, Peak};

impl AutoencoderKlConfig {
    /// What decoding will take at its highest, without gradients: the weights, the encoder's included, and what the
    /// layers hold at the worst of them.
    ///
    /// It counts what the CPU's kernels allocate in f32. Measured in `benches/RESULTS.md`, where it also stands how
    /// far off it is. [`Tiled`](crate::Tiled) needs that of one tile, [`Sliced`](crate::Sliced) that of one image,
    /// and the result. `bytes` are those of a number: 4 for f32. Nothing is allocated on the device.
    ///
    /// # Shapes
    /// For latents `[B, Z, h, w]` given as `[B, h, w]`.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    pub fn estimate_decode_memory(&self, latents: [usize; 3], bytes: usize, device: &Device) -> Memory {
        let model = self.init(device);
        let mut pixels: usize = latents.iter().product();
        let mut from = *self.decoder_levels().last().expect("validated");
        let mut peak = Peak::default();
        peak.residual_block(0, [from; 2], pixels);
        for (level, &to) in self.decoder_levels().iter().enumerate().rev() {
            peak.residual_block(0, [from, to], pixels);
            if level > 0 {
                pixels *= 4;
                peak.convolution(0, [to; 2], pixels);
            }
            from = to;
        }
        Memory::of(&model, peak.numbers(), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_near_what_was_measured() {
        let device = Device::flex();
        // benches/RESULTS.md: MiB beside the weights at the high-water mark.
        for (latents, measured) in [([1, 32, 32], 206), ([1, 64, 64], 683), ([2, 48, 48], 767)] {
            let found = AutoencoderKlConfig::sd().estimate_decode_memory(latents, 4, &device);
            assert_eq!(found.weights, 4 * 83_653_863);
            let found = found.activations >> 20;
            assert!(
                (measured * 4 / 5..measured * 5 / 4).contains(&found),
                "{latents:?}: {found}, not {measured}"
            );
        }
    }
}
