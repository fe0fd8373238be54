//! What the original code of latent diffusion calls the parameters of its autoencoder, and what their shapes tell.

use crate::AutoencoderKlConfig;
use canvas_core::weights::{Rules, Source, WeightsError};

impl AutoencoderKlConfig {
    /// The names of the original code's `AutoencoderKL`: those of a single file behind `first_stage_model.`, and of a
    /// file of the autoencoder alone; for [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// There the decoder's levels are numbered from the image inwards, too, and the attention is made of 1x1
    /// convolutions. What training left in such a file is ignored: its loss, and an average of the weights.
    ///
    /// # Reference
    /// Rombach et al., `ldm/modules/diffusionmodules/model.py`, <https://github.com/CompVis/stable-diffusion>.
    pub fn original(&self) -> Rules {
        let last = self.channels.len() - 1;
        let mut rules = Rules::new()
            .ignore_prefix("loss", "of training")
            .ignore_prefix("model_ema", "an average of the weights, for training")
            .segments("norm_out", "conv_norm_out")
            .segments("nin_shortcut", "conv_shortcut")
            .segments("mid.block_1", "mid_block.resnets.0")
            .segments("mid.block_2", "mid_block.resnets.1");
        let attention =
            [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];
        for (published, diffusers) in attention {
            let place = format!("mid.attn_1.{published}");
            rules = rules.segments(&place, &format!("mid_block.attentions.0.{diffusers}"));
            if published != "norm" {
                rules = rules.pointwise(&format!("{place}.weight"));
            }
        }
        for level in 0..=last {
            let (down, up) = (format!("encoder.down.{level}"), format!("decoder.up.{level}"));
            let to_down = format!("encoder.down_blocks.{level}");
            let to_up = format!("decoder.up_blocks.{}", last - level);
            rules = rules
                .prefix(&format!("{down}.block"), &format!("{to_down}.resnets"))
                .prefix(&format!("{down}.downsample"), &format!("{to_down}.downsamplers.0"))
                .prefix(&format!("{up}.block"), &format!("{to_up}.resnets"))
                .prefix(&format!("{up}.upsample"), &format!("{to_up}.upsamplers.0"));
        }
        rules.then(self.published())
    }

    /// The configuration of an autoencoder in the original layout, such as the part of a file behind
    /// `first_stage_model.`. Shapes tell all but the groups of the norms, which are 32 as in every published model; the
    /// scale of the latents lies in no file.
    ///
    /// # Errors
    /// Names the file and the key, what was expected and what was found.
    pub fn detect(part: &Source) -> Result<Self, WeightsError> {
        let input = "encoder.conv_in.weight";
        let [_, image_channels, _, _] = part.dims(input)?;
        let [moments, ..] = part.dims::<4>("encoder.conv_out.weight")?;
        let key = |level: usize, block: usize| format!("encoder.down.{level}.block.{block}.conv1.weight");
        let levels = (0..).take_while(|level| part.shape(&key(*level, 0)).is_some());
        let channels =
            levels.map(|level| Ok(part.dims::<4>(&key(level, 0))?[0])).collect::<Result<_, _>>()?;
        let config = Self::new()
            .with_channels(channels)
            .with_layers((0..).take_while(|block| part.shape(&key(0, *block)).is_some()).count())
            .with_latent(moments / 2)
            .with_image_channels(image_channels)
            .with_quant_convs(part.shape("quant_conv.weight").is_some());
        let fits = config.validate();
        fits.map_err(|error| part.refuse(input, "an autoencoder of sizes that fit", &error.to_string()))?;
        Ok(config)
    }
}
