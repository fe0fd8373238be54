//! What diffusers calls the parameters of these autoencoders.

use crate::{AutoencoderKlConfig, AutoencoderTinyConfig, VqConfig};
use canvas_core::weights::Rules;

impl AutoencoderKlConfig {
    /// The names of diffusers' `AutoencoderKL` (`vae/diffusion_pytorch_model.safetensors`), for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// Files of older versions, Stable Diffusion 1's own among them, call the parts of the attention
    /// `query`, `key`, `value` and `proj_attn`; they load as well, and are saved by today's names.
    pub fn published(&self) -> Rules {
        halves()
    }
}

impl VqConfig {
    /// The names of diffusers' `VQModel`, as [`AutoencoderKlConfig::published`].
    pub fn published(&self) -> Rules {
        halves().prefix("quantize.embedding", "codebook")
    }
}

/// An encoder, a decoder, and the 1x1 convolutions at the latents.
fn halves() -> Rules {
    let rules = Rules::new()
        .prefix("quant_conv", "quant")
        .prefix("post_quant_conv", "post_quant")
        .segments("conv_in", "input")
        .segments("conv_norm_out", "norm")
        .segments("conv_out", "output")
        .segments("mid_block.resnets.0", "middle.first")
        .segments("mid_block.resnets.1", "middle.second")
        .segments("mid_block.attentions.0.group_norm", "middle.norm");
    // A rule goes backwards only from a name that those behind it left: today's names come last.
    let attention = [
        ("query", "query"),
        ("key", "key"),
        ("value", "value"),
        ("proj_attn", "output"),
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "output"),
    ];
    let rules = attention.iter().fold(rules, |rules, (published, ours)| {
        let place = format!("mid_block.attentions.0.{published}");
        rules.segments(&place, &format!("middle.attention.{ours}"))
    });
    let halves = [("encoder", "down", "downsamplers"), ("decoder", "up", "upsamplers")];
    let rules = halves.iter().fold(rules, |rules, (half, way, resize)| {
        let level = format!("{half}.{way}_blocks.{{i}}");
        rules
            .prefix(&format!("{level}.{resize}.0.conv"), &format!("{half}.stages.{{i}}.resize"))
            .prefix(&format!("{level}.resnets.{{j}}"), &format!("{half}.stages.{{i}}.blocks.{{j}}"))
    });
    rules.segments("conv_shortcut", "shortcut")
}

impl AutoencoderTinyConfig {
    /// The names of diffusers' `AutoencoderTiny`, as [`AutoencoderKlConfig::published`]; a half's layers are
    /// numbered in one row there, those without parameters too.
    pub fn published(&self) -> Rules {
        let levels = self.blocks.len();
        let blocks =
            |stage: usize, count: usize| (0..count).map(move |b| format!("stages.{stage}.blocks.{b}"));
        let mut encoder = Vec::new();
        for (stage, &count) in self.blocks.iter().enumerate() {
            encoder.push(format!("stages.{stage}.conv"));
            encoder.extend(blocks(stage, count));
        }
        encoder.push("output".into());

        let mut decoder = vec!["input".into(), String::new()]; // a ReLU
        for (stage, &count) in self.blocks.iter().rev().enumerate() {
            decoder.extend(blocks(stage, count));
            if stage + 1 < levels {
                decoder.push(String::new()); // a doubling of the size
            }
            decoder.push(format!("stages.{stage}.conv"));
        }

        let mut rules = Rules::new();
        for (half, row) in [("encoder", encoder), ("decoder", decoder)] {
            for (number, ours) in row.iter().enumerate().filter(|(_, ours)| !ours.is_empty()) {
                let (published, ours) = (format!("{half}.layers.{number}"), format!("{half}.{ours}"));
                if ours.contains(".blocks.") {
                    for (index, conv) in ["conv1", "conv2", "conv3"].iter().enumerate() {
                        let place = format!("{published}.conv.{}", 2 * index); // ReLUs between
                        rules = rules.prefix(&place, &format!("{ours}.{conv}"));
                    }
                } else {
                    rules = rules.prefix(&published, &ours);
                }
            }
        }
        rules
    }
}
