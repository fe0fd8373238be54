//! diffusers' configuration files (written by `tools/fixtures_unet.py`): the presets, and what is refused; and its
//! names of the parameters.

use burn::prelude::*;
use canvas_core::params;
use canvas_core::weights::{self, Rules, Source};
use canvas_unet::{
    AdapterKind, AdmConfig, ControlNetConfig, DdpmConfig, LabelKind, Resample, T2iAdapterConfig, UnetConfig,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// The configuration of a published model, as diffusers writes it.
fn published(name: &str) -> Map<String, Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/configs.json")).unwrap();
    all[name].as_object().unwrap().clone()
}

fn text(fields: &Map<String, Value>) -> String {
    Value::Object(fields.clone()).to_string()
}

fn debug(config: impl std::fmt::Debug) -> String {
    format!("{config:?}")
}

#[test]
fn published_configurations_are_the_presets() {
    let unclip = UnetConfig::sd2().with_label(Some(LabelKind::Vector(2048)));
    let cases = [
        ("sd1", UnetConfig::sd1().with_in_channels(4)),
        ("inpaint", UnetConfig::sd1().with_in_channels(9)),
        ("sd2", UnetConfig::sd2().with_in_channels(4)),
        ("unclip", unclip.with_in_channels(4)),
        ("sdxl", UnetConfig::sdxl().with_in_channels(4)),
        ("upscaler", UnetConfig::sd_upscaler().with_in_channels(7)),
        ("refiner", UnetConfig::sdxl_refiner().with_in_channels(4)),
    ];
    for (name, expected) in cases {
        let found = UnetConfig::from_diffusers(&text(&published(name))).unwrap();
        assert_eq!(debug(found), debug(expected), "{name}");
    }
    for (name, expected) in [("controlnet_sd1", UnetConfig::sd1()), ("controlnet_sdxl", UnetConfig::sdxl())] {
        let found = ControlNetConfig::from_diffusers(&text(&published(name))).unwrap();
        assert_eq!(debug(found), debug(ControlNetConfig::new(expected)), "{name}");
    }
}

/// An empty file is the class's defaults; SD 1's file without what it need not say is the same network.
#[test]
fn absent_and_null_are_the_defaults() {
    let bare = UnetConfig::from_diffusers(r#"{"cross_attention_dim": 768}"#).unwrap();
    assert_eq!(debug(bare), debug(UnetConfig::sd1().with_in_channels(4)));
    let mut fields = published("sd1");
    for key in ["act_fn", "block_out_channels", "layers_per_block", "norm_num_groups", "down_block_types"] {
        fields.insert(key.into(), Value::Null);
    }
    let found = UnetConfig::from_diffusers(&text(&fields)).unwrap();
    assert_eq!(debug(found), debug(UnetConfig::sd1().with_in_channels(4)));
}

/// Every field of the classes that says something about the network is honoured or refused by its name.
#[test]
fn no_field_is_passed_over() {
    let free = ["sample_size", "upcast_attention", "addition_embed_type_num_heads"];
    // Read only together with a type that needs them.
    let idle = ["addition_time_embed_dim", "projection_class_embeddings_input_dim"];
    for name in ["sd1", "controlnet_sd1"] {
        let fields = published(name);
        for key in fields.keys().filter(|key| !key.starts_with('_')) {
            let mut odd = fields.clone();
            odd.insert(key.clone(), json!({"odd": 1}));
            let parsed = match name {
                "sd1" => UnetConfig::from_diffusers(&text(&odd)).map(drop),
                _ => ControlNetConfig::from_diffusers(&text(&odd)).map(drop),
            };
            match parsed {
                Ok(()) => assert_eq!(key, free[0], "{key} was not looked at"),
                Err(error) => assert!(error.to_string().contains(key.as_str()), "{key}: {error}"),
            }
        }
        for key in free.iter().chain(&idle).filter(|key| fields.contains_key(**key)) {
            let mut other = fields.clone();
            other.insert((*key).into(), if *key == "upcast_attention" { json!(true) } else { json!(96) });
            let parsed = match name {
                "sd1" => UnetConfig::from_diffusers(&text(&other)).map(drop),
                _ => ControlNetConfig::from_diffusers(&text(&other)).map(drop),
            };
            parsed.unwrap_or_else(|error| panic!("{key}: {error}"));
        }
    }
}

#[test]
fn refusals_name_the_field_and_what_was_found() {
    let cases = [
        ("flip_sin_to_cos", json!(false), "the text: flip_sin_to_cos: expected true, found false"),
        ("act_fn", json!("gelu"), "the text: act_fn: expected \"silu\" or \"swish\", found \"gelu\""),
        ("freq_shift", json!(1), "the text: freq_shift: expected 0, found 1"),
        (
            "only_cross_attention",
            json!([true, false]),
            "only_cross_attention: expected false, or 4 flags, one a level, found [true,false]",
        ),
        ("num_attention_heads", json!(8), "the text: num_attention_heads: expected null, found 8"),
        (
            "class_embed_type",
            json!("identity"),
            "expected null, \"timestep\" or \"projection\", found \"identity\"",
        ),
        ("class_embed_type", json!("projection"), "projection_class_embeddings_input_dim: expected a width"),
        (
            "attention_head_dim",
            json!([8, 8]),
            "expected a whole number or 4 of them, one a level, found [8,8]",
        ),
        (
            "attention_head_dim",
            json!(7),
            "the text: heads of level 0 (7) must divide channels of level 0 (320)",
        ),
        (
            "layers_per_block",
            json!([2, 1, 2, 2]),
            "layers_per_block: expected the same number for all levels",
        ),
        (
            "up_block_types",
            json!(["UpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]),
            "up_block_types: expected down_block_types in reverse",
        ),
        ("cross_attention_dims", json!(768), "the text: unknown fields cross_attention_dims"),
        ("_class_name", json!("UNet2DModel"), "_class_name: expected \"UNet2DConditionModel\""),
    ];
    for (key, value, expected) in cases {
        let mut fields = published("sd1");
        fields.insert(key.into(), value);
        let error = UnetConfig::from_diffusers(&text(&fields)).unwrap_err().to_string();
        assert!(error.contains(expected), "{key}: {error}");
    }
    let error = UnetConfig::from_diffusers("[1]").unwrap_err().to_string();
    assert_eq!(error, "the text is not a configuration: expected an object, found [1]");
    let missing = UnetConfig::from_diffusers_file(Path::new("nowhere/config.json")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read nowhere/config.json: "), "{missing}");
}

/// A key without the numbers that count; those of a pair of layers are names.
fn kind(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    let pair = |i: usize| i >= 2 && matches!(parts[i - 2..i], ["mid_block", "resnets"] | ["ff", "net"]);
    let kinds = parts.iter().enumerate().map(|(i, part)| match part.parse::<usize>() {
        Ok(_) if !pair(i) => "#",
        _ => part,
    });
    kinds.collect::<Vec<_>>().join(".")
}

/// What we save has diffusers' keys, all of them, each from the parameter that the parity tests compare it with.
fn saved_as<M: Module>(case: &str, module: impl Fn() -> M, rules: &Rules) {
    let all: Value = serde_json::from_str(include_str!("fixtures/names.json")).unwrap();
    let names = all[case]["names"].as_object().unwrap();
    for (key, ours) in names {
        let ours = ours.as_str().unwrap();
        assert_eq!(rules.ours(key), ours, "{case}");
        assert_eq!(&rules.published(ours), key, "{case}");
    }
    let file = std::env::temp_dir().join(format!("canvas-unet-names-{case}-{}", std::process::id()));
    let net: M = params::fill_by_formula(module());
    weights::save_published(&net, &file, rules).unwrap();
    let source = Source::open(&file, None).unwrap();
    let kinds: BTreeSet<String> = source.keys().map(kind).collect();
    assert_eq!(kinds, names.keys().map(|key| kind(key)).collect(), "{case}");
    assert_eq!(source.keys().count() as u64, all[case]["count"].as_u64().unwrap(), "{case}");

    let (back, report) = weights::load_published(module(), &source, rules).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(report.one_way.is_empty(), "{case}: {:?}", report.one_way);
    let values =
        |net: &M| params::named(net).into_iter().map(|param| (param.name, param.data)).collect::<Vec<_>>();
    assert_eq!(values(&back), values(&net), "{case}");
}

#[test]
fn keys_are_those_of_diffusers() {
    let device = Device::flex();
    let small = UnetConfig::new(4, 12, vec![16, 24, 32], vec![1, 1, 0], vec![2, 3, 4])
        .with_blocks(1)
        .with_norm_groups(2);
    let xl = UnetConfig::new(4, 12, vec![16, 24, 32], vec![0, 2, 3], vec![2, 3, 4])
        .with_middle_depth(3)
        .with_norm_groups(2)
        .with_linear_projection(true)
        .with_pooled_width(Some(7))
        .with_size_features(Some(8));
    let sd = small.clone().with_label(Some(LabelKind::Class(5)));
    let label = small.with_label(Some(LabelKind::Vector(7)));
    for (case, unet) in [("sd", sd), ("label", label), ("sdxl", xl.clone())] {
        saved_as(case, || unet.init(&device), &unet.published());
    }
    let control = ControlNetConfig::new(xl).with_hint_widths(vec![4, 6, 10]);
    saved_as("controlnet", || control.init(&device), &control.published());
}

/// Those of networks without text, and of adapters; the sizes are the parity tests'.
#[test]
fn keys_of_the_others_are_those_of_diffusers() {
    let device = Device::flex();
    let body = DdpmConfig::new(3, vec![16, 24, 32], vec![false, true, false])
        .with_head_width(Some(8))
        .with_norm_groups(2);
    let ddpm = body.clone().with_resample(Resample::After).with_ddpm_time(true);
    saved_as("ddpm", || ddpm.init(&device), &ddpm.published());
    let body = body.with_out_channels(Some(6)).with_scale_shift(true).with_resample(Resample::Residual);
    let adm = AdmConfig::new(body, 5);
    saved_as("adm", || adm.init(&device), &adm.published());
    let adapters = [
        ("adapter_full", AdapterKind::Full, vec![16, 24, 32], 2),
        ("adapter_full_xl", AdapterKind::FullXl, vec![16, 24, 32, 32], 4),
        ("adapter_light", AdapterKind::Light, vec![16, 24], 2),
    ];
    for (case, kind, channels, factor) in adapters {
        let config = T2iAdapterConfig::new(kind, channels).with_factor(factor);
        saved_as(case, || config.init(&device), &config.published());
    }
}

/// Keys of attention as DDPM's own files have them load too, and are saved by today's.
#[test]
fn old_names_of_attention_load() {
    let rules = DdpmConfig::cifar10().published();
    for place in ["mid_block.attentions.0", "down_blocks.1.attentions.0", "up_blocks.2.attentions.1"] {
        for (old, today) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")]
        {
            let ours = rules.ours(&format!("{place}.{old}.weight"));
            assert_eq!(ours, rules.ours(&format!("{place}.{today}.weight")));
            assert_eq!(rules.published(&ours), format!("{place}.{today}.weight"));
        }
    }
}
