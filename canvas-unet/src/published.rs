//! What diffusers calls the parameters of these networks.

use crate::{AdmConfig, ControlNetConfig, DdpmConfig, Resample, T2iAdapterConfig, UnetConfig};
use canvas_core::weights::Rules;

impl UnetConfig {
    /// The names of diffusers' `UNet2DConditionModel` (`unet/diffusion_pytorch_model.safetensors`), for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// diffusers has no projection of the pooled prompt alone (`pooled_width` without `size_features`): those
    /// parameters keep our name.
    ///
    /// # Example
    /// ```
    /// use burn::prelude::*;
    /// use canvas_core::weights::{Source, load_published, save_published};
    /// use canvas_unet::UnetConfig;
    ///
    /// let config = UnetConfig::small(4, 24);
    /// let folder = std::env::temp_dir().join(format!("canvas-unet-published-{}", std::process::id()));
    /// std::fs::create_dir_all(&folder)?;
    /// let file = folder.join("diffusion_pytorch_model.safetensors");
    /// save_published(&config.init(&Device::flex()), &file, &config.published())?;
    ///
    /// let source = Source::open(&file, None)?;
    /// assert!(source.keys().any(|key| key == "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"));
    /// let (unet, report) = load_published(config.init(&Device::flex()), &source, &config.published())?;
    /// assert!(report.one_way.is_empty());
    /// # drop(unet);
    /// # std::fs::remove_dir_all(&folder)?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn published(&self) -> Rules {
        let rules = ends()
            .prefix("add_embedding.linear_1", "extra.sizes.input")
            .prefix("add_embedding.linear_2", "extra.sizes.output")
            .prefix("class_embedding.linear_1", "extra.label.input")
            .prefix("class_embedding.linear_2", "extra.label.output")
            .exact("class_embedding.weight", "extra.classes.weight")
            .prefix("mid_block.resnets.0", "middle.first.res")
            .prefix("mid_block.attentions.0", "middle.first.transformer")
            .prefix("mid_block.resnets.1", "middle.second")
            .prefix("down_blocks.{i}.downsamplers.0.conv", "down.{i}.downsample")
            .prefix("up_blocks.{i}.upsamplers.0.conv", "up.{i}.upsample");
        let rules = ["down", "up"].iter().fold(rules, |rules, way| {
            let stage = |part: &str, ours: &str| {
                (format!("{way}_blocks.{{i}}.{part}.{{j}}"), format!("{way}.{{i}}.stages.{{j}}.{ours}"))
            };
            let (res, transformer) = (stage("resnets", "res"), stage("attentions", "transformer"));
            rules.prefix(&res.0, &res.1).prefix(&transformer.0, &transformer.1)
        });
        let rules = ["res", "middle.second"].iter().fold(rules, |rules, block| res_block(rules, block));
        transformer(rules, self.linear_projection)
    }
}

/// What comes before and after the levels.
fn ends() -> Rules {
    Rules::new()
        .prefix("conv_in", "input")
        .prefix("conv_norm_out", "norm")
        .prefix("conv_out", "output")
        .prefix("time_embedding.linear_1", "time.input")
        .prefix("time_embedding.linear_2", "time.output")
}

fn res_block(rules: Rules, block: &str) -> Rules {
    let parts = [
        ("norm1", "norm_in"),
        ("conv1", "conv_in"),
        ("time_emb_proj", "time"),
        ("norm2", "norm_out"),
        ("conv2", "conv_out"),
        ("conv_shortcut", "skip"),
    ];
    parts.iter().fold(rules, |rules, (published, ours)| {
        rules.segments(&format!("{block}.{published}"), &format!("{block}.{ours}"))
    })
}

fn transformer(rules: Rules, linear: bool) -> Rules {
    let ends = if linear { ["linear_in", "linear_out"] } else { ["input", "output"] };
    let rules = rules
        .segments("transformer.proj_in", &format!("transformer.{}", ends[0]))
        .segments("transformer.proj_out", &format!("transformer.{}", ends[1]))
        .segments("transformer.transformer_blocks.{i}", "transformer.blocks.{i}");
    let parts = [
        ("norm1", "norm_attention"),
        ("attn1.to_q", "attention.query"),
        ("attn1.to_k", "attention.key"),
        ("attn1.to_v", "attention.value"),
        ("attn1.to_out.0", "attention.output"),
        ("norm2", "norm_cross"),
        ("attn2.to_q", "cross.query"),
        ("attn2.to_k", "cross.key"),
        ("attn2.to_v", "cross.value"),
        ("attn2.to_out.0", "cross.output"),
        ("norm3", "norm_feed"),
        ("ff.net.0.proj", "feed.up"),
        ("ff.net.2", "feed.down"),
    ];
    parts.iter().fold(rules, |rules, (published, ours)| {
        let block = "transformer.blocks.{i}";
        rules.segments(&format!("{block}.{published}"), &format!("{block}.{ours}"))
    })
}

impl ControlNetConfig {
    /// The names of diffusers' `ControlNetModel`, as [`UnetConfig::published`].
    pub fn published(&self) -> Rules {
        self.unet
            .published()
            .prefix("controlnet_cond_embedding.conv_in", "hint.input")
            .prefix("controlnet_cond_embedding.blocks", "hint.blocks")
            .prefix("controlnet_cond_embedding.conv_out", "hint.output")
            .prefix("controlnet_down_blocks", "skips")
            .prefix("controlnet_mid_block", "middle_out")
    }
}

impl DdpmConfig {
    /// The names of diffusers' `UNet2DModel`, as [`UnetConfig::published`].
    ///
    /// Files of older versions, DDPM's own among them, call the parts of attention `query`, `key`, `value` and
    /// `proj_attn`; they load as well, and are saved by today's names.
    pub fn published(&self) -> Rules {
        let mut rules = ends()
            .prefix("mid_block.resnets.0", "middle.first")
            .prefix("mid_block.attentions.0", "middle.attention")
            .prefix("mid_block.resnets.1", "middle.second");
        for (way, change) in [("down", "downsamplers"), ("up", "upsamplers")] {
            let published = format!("{way}_blocks.{{i}}");
            let resize = format!("{published}.{change}.0");
            rules = match self.resample {
                Resample::Residual => rules.prefix(&resize, &format!("{way}.{{i}}.{way}_res")),
                _ => rules.prefix(&format!("{resize}.conv"), &format!("{way}.{{i}}.{way}sample")),
            };
            for (part, ours) in [("resnets", "res"), ("attentions", "attention")] {
                let stage = format!("{way}.{{i}}.stages.{{j}}.{ours}");
                rules = rules.prefix(&format!("{published}.{part}.{{j}}"), &stage);
            }
        }
        let blocks = ["res", "down_res", "up_res", "middle.first", "middle.second"];
        image_attention(blocks.iter().fold(rules, |rules, block| res_block(rules, block)))
    }
}

fn image_attention(rules: Rules) -> Rules {
    // A rule goes backwards only from a name that those behind it left: today's names come last.
    let parts = [
        ("query", "query"),
        ("key", "key"),
        ("value", "value"),
        ("proj_attn", "output"),
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "output"),
    ];
    let rules = parts.iter().fold(rules, |rules, (published, ours)| {
        rules.segments(&format!("attention.{published}"), &format!("attention.inner.{ours}"))
    });
    rules.segments("attention.group_norm", "attention.norm")
}

impl AdmConfig {
    /// The names of diffusers' `UNet2DModel` with classes, as [`DdpmConfig::published`].
    pub fn published(&self) -> Rules {
        self.body.published().prefix("", "body").prefix("body.class_embedding", "classes")
    }
}

impl T2iAdapterConfig {
    /// The names of diffusers' `T2IAdapter`, as [`UnetConfig::published`].
    pub fn published(&self) -> Rules {
        let part = |published: &str, ours: &str| {
            (format!("adapter.body.{{i}}.{published}"), format!("blocks.{{i}}.{ours}"))
        };
        let parts = [
            part("in_conv", "input"),
            part("resnets.{j}.block1", "stages.{j}.first"),
            part("resnets.{j}.block2", "stages.{j}.second"),
            part("out_conv", "output"),
        ];
        let rules = Rules::new().prefix("adapter.conv_in", "input");
        parts.iter().fold(rules, |rules, (published, ours)| rules.prefix(published, ours))
    }
}
