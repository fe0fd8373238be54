//! `AutoencoderKLFlux2`: its configuration and the names of its parameters.

use super::{channels, fixed, image_channels};
use crate::{AutoencoderKlConfig, AutoencoderKlFlux2Config};
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use serde_json::Value;
use std::path::Path;

impl AutoencoderKlFlux2Config {
    /// Reads a `vae/config.json` of class `AutoencoderKLFlux2`. The scale of its latents is in the weights:
    /// [`AutoencoderKlFlux2::scale`](crate::AutoencoderKlFlux2::scale).
    ///
    /// Not part of the network are `force_upcast`, `sample_size`, and `batch_norm_momentum`, by which the statistics
    /// were measured.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "AutoencoderKLFlux2")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "AutoencoderKLFlux2")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let quant = fields.flag("use_quant_conv", true)?;
        if fields.flag("use_post_quant_conv", true)? != quant {
            return Err(fields.refuse("use_post_quant_conv", &format!("{quant}, as use_quant_conv")));
        }
        let outwards = fields.get("decoder_block_out_channels").is_some();
        let outwards = outwards.then(|| fields.numbers("decoder_block_out_channels", &[])).transpose()?;
        let network = AutoencoderKlConfig::new()
            .with_channels(channels(fields, &[128, 256, 512, 512])?)
            .with_decoder_channels(outwards)
            .with_layers(fields.number("layers_per_block")?.unwrap_or(2))
            .with_latent(fields.number("latent_channels")?.unwrap_or(32))
            .with_image_channels(image_channels(fields)?)
            .with_groups(fields.number("norm_num_groups")?.unwrap_or(32))
            .with_quant_convs(quant)
            .with_middle_attention(fields.flag("mid_block_add_attention", true)?);
        fixed(fields)?;
        fields.real("batch_norm_momentum")?;
        let [patch, other] = fields.levels("patch_size", 2, 2)?[..] else { unreachable!("two levels") };
        if patch != other || fields.get("patch_size").is_some_and(Value::is_number) {
            return Err(fields.refuse("patch_size", "the same number twice"));
        }
        let epsilon = fields.real("batch_norm_eps")?.unwrap_or(1e-4);
        let config = Self::new().with_network(network).with_patch(patch).with_epsilon(epsilon);
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `AutoencoderKLFlux2`, as [`AutoencoderKlConfig::published`].
    pub fn published(&self) -> Rules {
        let rules = self.network.published();
        let parts = ["encoder", "decoder", "quant", "post_quant"];
        let rules = parts.iter().fold(rules, |rules, part| rules.prefix(part, &format!("network.{part}")));
        rules
            .exact("bn.running_mean", "mean")
            .exact("bn.running_var", "variance")
            .ignore("bn.num_batches_tracked", "how often the statistics were measured")
    }
}
