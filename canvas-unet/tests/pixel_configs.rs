//! Configurations of `UNet2DModel` and `T2IAdapter` (written by `tools/fixtures_unet.py`): the presets, and what is
//! refused.

use canvas_core::config_file::ConfigFileError;
use canvas_unet::{AdmConfig, DdpmConfig, Resample, T2iAdapterConfig};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The configuration of a published model, as diffusers writes it.
fn published(name: &str) -> Map<String, Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/configs.json")).unwrap();
    all[name].as_object().unwrap().clone()
}

/// With some fields changed.
fn changed(name: &str, changes: &[(&str, Value)]) -> String {
    let mut fields = published(name);
    fields.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Value::Object(fields).to_string()
}

fn ddpm(name: &str, changes: &[(&str, Value)]) -> Result<DdpmConfig, ConfigFileError> {
    DdpmConfig::from_diffusers(&changed(name, changes))
}

fn adm(name: &str, changes: &[(&str, Value)]) -> Result<AdmConfig, ConfigFileError> {
    AdmConfig::from_diffusers(&changed(name, changes))
}

fn adapter(name: &str, changes: &[(&str, Value)]) -> Result<T2iAdapterConfig, ConfigFileError> {
    T2iAdapterConfig::from_diffusers(&changed(name, changes))
}

fn same(found: impl std::fmt::Debug, expected: impl std::fmt::Debug) {
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
}

#[test]
fn published_configurations_are_the_presets() {
    same(ddpm("cifar10", &[]).unwrap(), DdpmConfig::cifar10());
    same(ddpm("large", &[]).unwrap(), DdpmConfig::large());
    same(adm("imagenet256", &[]).unwrap(), AdmConfig::imagenet256());
    let mut consistency = AdmConfig::imagenet64();
    consistency.body.out_channels = None; // no learned variance
    same(adm("imagenet64", &[]).unwrap(), consistency);
    same(adapter("adapter_sd1", &[]).unwrap(), T2iAdapterConfig::sd1());
    same(adapter("adapter_sdxl", &[]).unwrap(), T2iAdapterConfig::sdxl());
    same(adapter("adapter_light", &[]).unwrap(), T2iAdapterConfig::sd1_light());
}

#[test]
fn an_empty_file_is_the_class_with_its_defaults() {
    same(DdpmConfig::from_diffusers("{}").unwrap(), ddpm("unet2d", &[]).unwrap());
    same(T2iAdapterConfig::from_diffusers("{}").unwrap(), T2iAdapterConfig::sd1());
    // Absent and null differ in this one field.
    let heads = |json: &str| DdpmConfig::from_diffusers(json).unwrap().head_width;
    assert_eq!((heads("{}"), heads(r#"{"attention_head_dim": null}"#)), (Some(8), None));
}

#[test]
fn fields_are_honoured() {
    let read = |changes: &[(&str, Value)]| ddpm("cifar10", changes).unwrap();
    assert_eq!(read(&[("downsample_padding", json!(1))]).resample, Resample::Around);
    assert_eq!(read(&[("in_channels", json!(4))]).out_channels, Some(3));
    assert_eq!(read(&[("attention_head_dim", json!(32))]).head_width, Some(32));
    assert_eq!(read(&[("norm_eps", json!(1e-4))]).epsilon, 1e-4);
    assert_eq!(read(&[("layers_per_block", json!(4))]).blocks, 4);
    assert!(!read(&[("flip_sin_to_cos", json!(true)), ("freq_shift", json!(0))]).ddpm_time);
    read(&[("sample_size", Value::Null), ("time_embedding_dim", json!(512)), ("act_fn", json!("swish"))]);
    // The last level down and the first one do not change the size: their kind of change says nothing.
    let resnet = [("downsample_type", json!("resnet"))];
    let last = json!(["DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"]);
    let first = json!(["AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]);
    let found = read(&[resnet[0].clone(), ("down_block_types", last), ("up_block_types", first)]);
    assert_eq!((found.resample, found.attends), (Resample::After, vec![false, false, false, true]));
    let last = json!(["UpBlock2D", "UpBlock2D", "UpBlock2D", "AttnUpBlock2D"]);
    let first = json!(["AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]);
    let resnet = ("upsample_type", json!("resnet"));
    let found = read(&[resnet, ("down_block_types", first), ("up_block_types", last)]);
    assert_eq!((found.resample, found.attends), (Resample::After, vec![true, false, false, false]));
    let adapter = adapter("adapter_sd1", &[("in_channels", json!(1)), ("num_res_blocks", json!(3))]).unwrap();
    assert_eq!((adapter.hint_channels, adapter.blocks), (1, 3));
}

/// Every field of the classes that says something about the network is honoured or refused by its name.
#[test]
fn no_field_is_passed_over() {
    type Read = fn(&str, &[(&str, Value)]) -> Option<String>;
    let cases: [(&str, Read); 3] = [
        ("cifar10", |name, changes| ddpm(name, changes).err().map(|error| error.to_string())),
        ("imagenet64", |name, changes| adm(name, changes).err().map(|error| error.to_string())),
        ("adapter_sd1", |name, changes| adapter(name, changes).err().map(|error| error.to_string())),
    ];
    for (name, read) in cases {
        for key in published(name).keys().filter(|key| !key.starts_with('_')) {
            let error = read(name, &[(key, json!({"odd": 1}))]);
            let error = error.unwrap_or_else(|| panic!("{name}: {key} was not looked at"));
            assert!(error.contains(key.as_str()), "{name}: {key}: {error}");
        }
        let error = read(name, &[("chanels", json!(4))]).unwrap();
        assert_eq!(error, "the text: unknown fields chanels");
    }
}

#[test]
fn refusals_name_the_field_and_what_was_found() {
    let plain = json!(["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]);
    let mixed = json!(["ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]);
    let skips = json!(["SkipDownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]);
    let cases = [
        ("num_class_embeds", json!(10), "num_class_embeds: expected null, found 10"),
        ("class_embed_type", json!("timestep"), "class_embed_type: expected null, found \"timestep\""),
        ("add_attention", json!(false), "add_attention: expected true, found false"),
        ("time_embedding_type", json!("fourier"), "expected \"positional\", found \"fourier\""),
        ("time_embedding_dim", json!(256), "time_embedding_dim: expected 512, found 256"),
        ("freq_shift", json!(0), "freq_shift: expected 1, with flip_sin_to_cos false, found 0"),
        ("flip_sin_to_cos", json!(true), "freq_shift: expected 0, with flip_sin_to_cos true, found 1"),
        ("downsample_padding", json!(2), "downsample_padding: expected 0 or 1, found 2"),
        ("down_block_types", plain, "up_block_types: expected down_block_types in reverse"),
        ("down_block_types", mixed, "down_block_types: expected all levels to change the size the same way"),
        ("down_block_types", skips, "a list of DownBlock2D, AttnDownBlock2D and ResnetDownsampleBlock2D"),
        ("downsample_type", json!("resnet"), "(those that attend by downsample_type)"),
        ("upsample_type", json!("fir"), "upsample_type: expected \"conv\" or \"resnet\", found \"fir\""),
        ("block_out_channels", json!([128]), "block_out_channels: expected 4 numbers, one a level"),
        ("resnet_time_scale_shift", json!("spatial"), "expected \"default\" or \"scale_shift\""),
        ("resnet_time_scale_shift", json!("scale_shift"), "attn_norm_num_groups: expected 32, as norm_num"),
        ("attn_norm_num_groups", json!(16), "attn_norm_num_groups: expected 32, found 16"),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn"), "mid_block_type: expected \"UNetMidBlock2D\""),
        ("act_fn", json!("gelu"), "act_fn: expected \"silu\" or \"swish\", found \"gelu\""),
        ("norm_num_groups", json!(48), "the text: norm_groups (48) must divide channels of level 0 (128)"),
        ("_class_name", json!("UNet2DConditionModel"), "_class_name: expected \"UNet2DModel\""),
    ];
    for (key, value, expected) in cases {
        let error = ddpm("cifar10", &[(key, value)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{key}: {error}");
    }
    let ups = json!(["UpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]);
    let downs = json!([
        "ResnetDownsampleBlock2D",
        "ResnetDownsampleBlock2D",
        "ResnetDownsampleBlock2D",
        "DownBlock2D"
    ]);
    let error = ddpm("cifar10", &[("up_block_types", ups), ("down_block_types", downs)]).unwrap_err();
    let expected = "the text: up_block_types: expected sizes changed as by down_block_types";
    assert!(error.to_string().starts_with(expected), "{error}");

    let error = adm("imagenet64", &[("num_class_embeds", Value::Null)]).unwrap_err().to_string();
    assert_eq!(error, "the text: num_class_embeds: expected a number of classes, found null");
    let error = adapter("adapter_sd1", &[("adapter_type", json!("tiny"))]).unwrap_err().to_string();
    assert!(error.contains("\"light_adapter\", found \"tiny\""), "{error}");
    let error = adapter("adapter_light", &[("channels", json!([321]))]).unwrap_err().to_string();
    assert!(error.contains("must divide channels of level 0 (321)"), "{error}");
    let nowhere = Path::new("nowhere/config.json");
    let missing = [
        DdpmConfig::from_diffusers_file(nowhere).unwrap_err(),
        AdmConfig::from_diffusers_file(nowhere).unwrap_err(),
        T2iAdapterConfig::from_diffusers_file(nowhere).unwrap_err(),
    ];
    for error in missing {
        assert!(error.to_string().starts_with("cannot read nowhere/config.json: "), "{error}");
    }
}
