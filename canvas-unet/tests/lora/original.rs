//! LoRA files whose keys are those of the original code.

use crate::files::{all, kohya, open};
use crate::model::{Model, assert_draws};
use canvas_core::weights::{Merging, Part, Rules};

/// The original code's name of a layer of `Model::sdxl`.
fn ldm_name(name: &str, rules: &Rules, ldm: &Rules) -> String {
    ldm.published(&rules.ours(&format!("{name}.weight"))).trim_end_matches(".weight").to_owned()
}

/// The original code's names, as far as they are layers', after other rules.
fn ldm(rules: Rules) -> Rules {
    let mut rules = rules
        .prefix("input_blocks.0.0", "input")
        .prefix("out.2", "output")
        .prefix("time_embed.0", "time.input")
        .prefix("time_embed.2", "time.output")
        .prefix("label_emb.0.0", "extra.sizes.input")
        .prefix("label_emb.0.2", "extra.sizes.output")
        .prefix("input_blocks.3.0.op", "down.0.downsample")
        .prefix("output_blocks.2.2.conv", "up.0.upsample")
        .prefix("middle_block.0", "middle.first.res")
        .prefix("middle_block.1", "middle.first.transformer")
        .prefix("middle_block.2", "middle.second");
    let down =
        [(1, "down.0.stages.0"), (2, "down.0.stages.1"), (4, "down.1.stages.0"), (5, "down.1.stages.1")];
    for (at, stage) in down {
        rules = rules.prefix(&format!("input_blocks.{at}.0"), &format!("{stage}.res"));
        rules = rules.prefix(&format!("input_blocks.{at}.1"), &format!("{stage}.transformer"));
    }
    for at in 0..6 {
        let stage = format!("up.{}.stages.{}", at / 3, at % 3);
        rules = rules.prefix(&format!("output_blocks.{at}.0"), &format!("{stage}.res"));
        rules = rules.prefix(&format!("output_blocks.{at}.1"), &format!("{stage}.transformer"));
    }
    for block in ["res", "middle.second"] {
        for (theirs, ours) in [
            ("in_layers.2", "conv_in"),
            ("emb_layers.1", "time"),
            ("out_layers.3", "conv_out"),
            ("skip_connection", "skip"),
        ] {
            rules = rules.segments(&format!("{block}.{theirs}"), &format!("{block}.{ours}"));
        }
    }
    for (theirs, ours) in [
        ("proj_in", "linear_in"),
        ("proj_out", "linear_out"),
        ("transformer_blocks.{i}.attn1.to_q", "blocks.{i}.attention.query"),
        ("transformer_blocks.{i}.attn1.to_k", "blocks.{i}.attention.key"),
        ("transformer_blocks.{i}.attn1.to_v", "blocks.{i}.attention.value"),
        ("transformer_blocks.{i}.attn1.to_out.0", "blocks.{i}.attention.output"),
        ("transformer_blocks.{i}.attn2.to_q", "blocks.{i}.cross.query"),
        ("transformer_blocks.{i}.attn2.to_k", "blocks.{i}.cross.key"),
        ("transformer_blocks.{i}.attn2.to_v", "blocks.{i}.cross.value"),
        ("transformer_blocks.{i}.attn2.to_out.0", "blocks.{i}.cross.output"),
        ("transformer_blocks.{i}.ff.net.0.proj", "blocks.{i}.feed.up"),
        ("transformer_blocks.{i}.ff.net.2", "blocks.{i}.feed.down"),
    ] {
        rules = rules.segments(&format!("transformer.{theirs}"), &format!("transformer.{ours}"));
    }
    rules
}

#[test]
fn kohya_files_with_the_original_names_equal_diffusers() {
    let model = Model::sdxl("ldm_model");
    let (published, ldm) = (model.config.published(), ldm(Rules::new()));
    let file = model.file(all, |name, shape| kohya(&ldm_name(name, &published, &ldm), shape));
    for key in [
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0.alpha",
        "lora_unet_input_blocks_0_0.alpha",
        "lora_unet_output_blocks_2_2_conv.alpha",
        "lora_unet_middle_block_2_in_layers_2.alpha",
        "lora_unet_label_emb_0_2.alpha",
    ] {
        assert!(file.contains_key(key), "{key}");
    }
    let lora = open("ldm", &file);
    assert_draws(&model.with(&[(&lora, 0.8)], &[&published, &ldm]), "ldm");
    // A single file's keys begin with the same segments, which kohya leaves out.
    let single = self::ldm(Rules::new().prefix("model.diffusion_model", ""));
    assert_draws(&model.with(&[(&lora, 0.8)], &[&published, &single]), "ldm");
    let error = Merging::new(&[(&lora, 0.8)]).merge(model.unet.clone(), Part::Unet, &[&published]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("unexpected lora_unet_input_blocks_4_1_proj_in.alpha"), "{error}");
}
