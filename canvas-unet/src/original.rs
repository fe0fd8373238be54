//! What the original code of Stable Diffusion calls the parameters of these networks, in files of one piece.

use crate::{ControlNetConfig, LabelKind, UnetConfig};
use canvas_core::weights::Rules;

impl UnetConfig {
    /// The names of the original code's `UNetModel`: those of a single file behind `model.diffusion_model.`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// There the blocks of all levels are numbered in one row, changes of size among them.
    /// [`detect`](Self::detect) makes the configuration of such a file.
    ///
    /// # Example
    /// ```
    /// use burn::prelude::*;
    /// use canvas_core::weights::{Source, load_published, save_published};
    /// use canvas_unet::UnetConfig;
    ///
    /// let config = UnetConfig::new(4, 24, vec![64, 128], vec![1, 0], vec![8, 8]);
    /// let folder = std::env::temp_dir().join(format!("canvas-unet-original-{}", std::process::id()));
    /// std::fs::create_dir_all(&folder)?;
    /// let file = folder.join("unet.safetensors");
    /// save_published(&config.init(&Device::flex()), &file, &config.original().prefix("model.diffusion_model", ""))?;
    ///
    /// let unet = Source::open(&file, None)?.part("model.diffusion_model.");
    /// let config = UnetConfig::detect(&unet)?;
    /// assert_eq!((config.channels.as_slice(), config.depth.as_slice()), (&[64, 128][..], &[1, 0][..]));
    /// load_published(config.init(&Device::flex()), &unet, &config.original())?;
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Reference
    /// Rombach et al., `ldm/modules/diffusionmodules/openaimodel.py`, <https://github.com/CompVis/stable-diffusion>.
    pub fn original(&self) -> Rules {
        let rules = Rules::new().prefix("out.0", "conv_norm_out").prefix("out.2", "conv_out");
        let rules = up(self, way_in(self, rules));
        res_blocks(rules).then(self.published())
    }
}

impl ControlNetConfig {
    /// The names of the original code's ControlNet: those of a single file behind `control_model.`, as
    /// [`UnetConfig::original`].
    ///
    /// # Reference
    /// Zhang et al., `cldm/cldm.py`, <https://github.com/lllyasviel/ControlNet>.
    pub fn original(&self) -> Rules {
        let rules = way_in(&self.unet, Rules::new())
            .prefix("zero_convs.{i}.0", "controlnet_down_blocks.{i}")
            .prefix("middle_block_out.0", "controlnet_mid_block")
            .prefix("input_hint_block.0", "controlnet_cond_embedding.conv_in");
        // The layers of the hint are numbered in one row, activations among them.
        let blocks = 2 * (self.hint_widths.len() - 1);
        let rules = (0..blocks).fold(rules, |rules, block| {
            let published = format!("input_hint_block.{}", 2 * block + 2);
            rules.prefix(&published, &format!("controlnet_cond_embedding.blocks.{block}"))
        });
        let last = format!("input_hint_block.{}", 2 * blocks + 2);
        res_blocks(rules.prefix(&last, "controlnet_cond_embedding.conv_out")).then(self.published())
    }
}

/// Embeddings, the way down and the middle.
fn way_in(config: &UnetConfig, rules: Rules) -> Rules {
    let mut rules = rules
        .prefix("time_embed.0", "time_embedding.linear_1")
        .prefix("time_embed.2", "time_embedding.linear_2")
        .prefix("input_blocks.0.0", "conv_in");
    let label = match (config.size_features, config.label) {
        (Some(_), _) => Some("add_embedding"),
        (None, Some(LabelKind::Time | LabelKind::Vector(_))) => Some("class_embedding"),
        (None, Some(LabelKind::Class(_)) | None) => None,
    };
    rules = match label {
        Some(label) => rules
            .prefix("label_emb.0.0", &format!("{label}.linear_1"))
            .prefix("label_emb.0.2", &format!("{label}.linear_2")),
        None => rules.exact("label_emb.weight", "class_embedding.weight"),
    };

    let (mut number, last) = (1, config.channels.len() - 1);
    for (level, depth) in config.depth.iter().enumerate() {
        for block in 0..config.blocks {
            rules = stage(rules, "input", number, &format!("down_blocks.{level}"), block, *depth > 0);
            number += 1;
        }
        if level < last {
            let resize = format!("down_blocks.{level}.downsamplers.0.conv");
            rules = rules.prefix(&format!("input_blocks.{number}.0.op"), &resize);
            number += 1;
        }
    }
    let second = if config.middle_depth > 0 { 2 } else { 1 };
    let rules = rules
        .prefix("middle_block.0", "mid_block.resnets.0")
        .prefix(&format!("middle_block.{second}"), "mid_block.resnets.1");
    if second == 2 { rules.prefix("middle_block.1", "mid_block.attentions.0") } else { rules }
}

/// The way up.
fn up(config: &UnetConfig, mut rules: Rules) -> Rules {
    let (mut number, last) = (0, config.channels.len() - 1);
    for (level, depth) in config.depth.iter().rev().enumerate() {
        for block in 0..=config.blocks {
            rules = stage(rules, "output", number, &format!("up_blocks.{level}"), block, *depth > 0);
            number += 1;
        }
        if level < last {
            // Behind the level's last block, and its transformer if it has one.
            let place = if *depth > 0 { 2 } else { 1 };
            let resize = format!("up_blocks.{level}.upsamplers.0.conv");
            rules = rules.prefix(&format!("output_blocks.{}.{place}.conv", number - 1), &resize);
        }
    }
    rules
}

/// A residual block and its transformer.
fn stage(rules: Rules, way: &str, number: usize, level: &str, block: usize, attends: bool) -> Rules {
    let rules = rules.prefix(&format!("{way}_blocks.{number}.0"), &format!("{level}.resnets.{block}"));
    if attends {
        rules.prefix(&format!("{way}_blocks.{number}.1"), &format!("{level}.attentions.{block}"))
    } else {
        rules
    }
}

fn res_blocks(rules: Rules) -> Rules {
    let parts = [
        ("in_layers.0", "norm1"),
        ("in_layers.2", "conv1"),
        ("emb_layers.1", "time_emb_proj"),
        ("out_layers.0", "norm2"),
        ("out_layers.3", "conv2"),
        ("skip_connection", "conv_shortcut"),
    ];
    parts.iter().fold(rules, |rules, (published, ours)| {
        rules.segments(&format!("resnets.{{j}}.{published}"), &format!("resnets.{{j}}.{ours}"))
    })
}
