//! What diffusers calls the parts of Z-Image: its configuration and its parameters.

use super::ZImageConfig;
use crate::lumina2::published::triple;
use crate::sandwich::published::block;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::weights::Rules;
use std::path::Path;

impl ZImageConfig {
    /// Reads a `transformer/config.json` of class `ZImageTransformer2DModel`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "ZImageTransformer2DModel")?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "ZImageTransformer2DModel")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        let count = |field: &str, default: usize| Ok(fields.number(field)?.unwrap_or(default));
        fields.only("all_f_patch_size", &[vec![1].into()])?; // more is a video's
        fields.only("siglip_feat_dim", &[])?; // of Z-Image-Omni, which looks at pictures
        fields.only("qk_norm", &[true.into()])?;
        let [patch] = fields.numbers("all_patch_size", &[2])?[..] else {
            return Err(fields.refuse("all_patch_size", "one whole number"));
        };
        let heads = count("n_heads", 30)?;
        // diffusers has as many heads of keys, whatever the field says.
        fields.only("n_kv_heads", &[heads.into()])?;
        let axes = triple(fields, "axes_dims", [32, 48, 48])?;
        let width = heads * axes.iter().sum::<usize>();
        if count("dim", 3840)? != width {
            return Err(fields.refuse("dim", &format!("n_heads times the sum of axes_dims, {width}")));
        }
        let config = Self::new(count("n_layers", 30)?, heads, count("cap_feat_dim", 2560)?)
            .with_refiners(count("n_refiner_layers", 2)?)
            .with_axes(axes)
            .with_places(triple(fields, "axes_lens", [1024, 512, 512])?)
            .with_theta(fields.real("rope_theta")?.unwrap_or(256.0))
            .with_channels(count("in_channels", 16)?)
            .with_patch(patch)
            .with_time_scale(fields.real("t_scale")?.unwrap_or(1000.0))
            .with_eps(fields.real("norm_eps")?.unwrap_or(1e-5));
        fields.finish(config, Self::validate)
    }

    /// The names of diffusers' `ZImageTransformer2DModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    pub fn published(&self) -> Rules {
        let size = format!("{}-1", self.patch);
        let rules = Rules::new()
            .prefix("t_embedder.mlp.0", "time_in")
            .prefix("t_embedder.mlp.2", "time_out")
            .prefix("cap_embedder.0", "text_norm")
            .prefix("cap_embedder.1", "text_in")
            .prefix("cap_pad_token", "text_filling")
            .prefix("x_pad_token", "image_filling")
            .prefix(&format!("all_x_embedder.{size}"), "image_in")
            .prefix(&format!("all_final_layer.{size}.adaLN_modulation.1"), "final_modulation")
            .prefix(&format!("all_final_layer.{size}.linear"), "unembed");
        let more = [
            ("adaLN_modulation.0", "modulation"),
            ("attention_norm1", "attention_norm"),
            ("attention_norm2", "read_norm"),
        ];
        let blocks: [(&str, &str, &[_]); 3] = [
            ("context_refiner", "text_refiner", &more[1..]),
            ("noise_refiner", "image_refiner", &more),
            ("layers", "blocks", &more),
        ];
        let mlp = ["w1", "w3", "w2"];
        blocks
            .iter()
            .fold(rules, |rules, (theirs, ours, more)| block(rules, theirs, ours, "attention", mlp, more))
    }
}
