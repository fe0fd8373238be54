//! diffusers' configuration files (written by `tools/fixtures_vae.py`): the presets, and what is refused.

use canvas_core::LatentScale;
use canvas_core::config_file::ConfigFileError;
use canvas_vae::{AutoencoderKlConfig, AutoencoderTinyConfig, VqConfig};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The configuration of a published model, as diffusers writes it.
fn published(name: &str) -> Map<String, Value> {
    let all: Value = serde_json::from_str(include_str!("fixtures/configs.json")).unwrap();
    all[name].as_object().unwrap().clone()
}

fn text(fields: &Map<String, Value>) -> String {
    Value::Object(fields.clone()).to_string()
}

type Read<C> = Result<(C, LatentScale), ConfigFileError>;

fn kl(fields: &Map<String, Value>) -> Read<AutoencoderKlConfig> {
    AutoencoderKlConfig::from_diffusers(&text(fields))
}

fn one_scale(channels: usize, shift: f32, scale: f32) -> LatentScale {
    LatentScale { shift: vec![shift; channels], scale: vec![scale; channels] }
}

#[test]
fn published_configurations_are_the_presets() {
    let playground = LatentScale {
        shift: vec![-1.6574, 1.886, -1.383, 2.5155],
        scale: [8.4927, 5.9022, 6.5498, 5.2299].map(|std| (0.5 / std) as f32).to_vec(),
    };
    let cases = [
        ("sd1", AutoencoderKlConfig::sd(), AutoencoderKlConfig::sd_scale()),
        ("sdxl", AutoencoderKlConfig::sdxl(), AutoencoderKlConfig::sdxl_scale()),
        ("sd3", AutoencoderKlConfig::sd3(), AutoencoderKlConfig::sd3_scale()),
        ("flux", AutoencoderKlConfig::flux(), AutoencoderKlConfig::flux_scale()),
        ("playground", AutoencoderKlConfig::sdxl(), playground),
    ];
    for (name, expected, expected_scale) in cases {
        let (found, scale) = kl(&published(name)).unwrap();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{name}");
        assert_eq!(scale, expected_scale, "{name}");
    }
    for (name, latent) in [("taesd", 4), ("taef1", 16)] {
        let (found, scale) = AutoencoderTinyConfig::from_diffusers(&text(&published(name))).unwrap();
        let expected = AutoencoderTinyConfig::taesd().with_latent(latent);
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{name}");
        assert_eq!(scale, one_scale(latent, 0.0, 1.0), "{name}");
    }
    let (found, scale) = VqConfig::from_diffusers(&text(&published("vq_f4"))).unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", VqConfig::vq_f4()));
    assert_eq!(scale, one_scale(3, 0.0, 0.18215));
}

/// Files of older versions leave out what was added since, and an empty one is the class's defaults.
#[test]
fn absent_and_null_are_the_defaults() {
    let mut old = published("sd1");
    let since =
        ["scaling_factor", "shift_factor", "latents_mean", "use_quant_conv", "mid_block_add_attention"];
    for (i, key) in since.iter().enumerate() {
        if i % 2 == 0 {
            old.remove(*key)
        } else {
            old.insert((*key).into(), Value::Null)
        };
    }
    let (found, scale) = kl(&old).unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", AutoencoderKlConfig::sd()));
    assert_eq!(scale, AutoencoderKlConfig::sd_scale());

    let (bare, _) = AutoencoderKlConfig::from_diffusers("{}").unwrap();
    assert_eq!((bare.channels, bare.layers, bare.latent), (vec![64], 1, 4));
    let (bare, scale) = VqConfig::from_diffusers(r#"{"vq_embed_dim": 7}"#).unwrap();
    assert_eq!((bare.channels.clone(), bare.codes, bare.latent, bare.width()), (vec![64], 256, 3, 7));
    assert_eq!(scale.scale.len(), 7);
    let (bare, _) = AutoencoderTinyConfig::from_diffusers("{}").unwrap();
    assert_eq!(format!("{bare:?}"), format!("{:?}", AutoencoderTinyConfig::taesd()));
}

/// Every field of the classes that says something about the network is honoured or refused by its name.
#[test]
fn no_field_is_passed_over() {
    type Reads = fn(&str) -> Option<String>;
    let cases: [(&str, Reads); 3] = [
        ("sd1", |json| AutoencoderKlConfig::from_diffusers(json).err().map(|error| error.to_string())),
        ("taesd", |json| AutoencoderTinyConfig::from_diffusers(json).err().map(|error| error.to_string())),
        ("vq_f4", |json| VqConfig::from_diffusers(json).err().map(|error| error.to_string())),
    ];
    for (name, read) in cases {
        let fields = published(name);
        for key in fields.keys().filter(|key| !key.starts_with('_')) {
            let mut odd = fields.clone();
            odd.insert(key.clone(), json!({"odd": 1}));
            let error = read(&text(&odd)).unwrap_or_else(|| panic!("{name}: {key} was not looked at"));
            assert!(error.contains(key.as_str()), "{name}: {key}: {error}");
        }
        let mut typo = fields.clone();
        typo.insert("latent_chanels".into(), json!(4));
        assert_eq!(read(&text(&typo)).unwrap(), "the text: unknown fields latent_chanels");
        typo.insert("_class_name".into(), json!("Other"));
        assert!(read(&text(&typo)).unwrap().contains("_class_name: expected"), "{name}");
    }
}

/// What changes the network changes the configuration.
#[test]
fn fields_are_honoured() {
    let with = |changes: &[(&str, Value)]| {
        let mut fields = published("sd1");
        fields.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        kl(&fields).unwrap()
    };
    assert!(!with(&[("mid_block_add_attention", json!(false))]).0.middle_attention);
    let bare = with(&[("use_quant_conv", json!(false)), ("use_post_quant_conv", json!(false))]).0;
    assert!(!bare.quant_convs);
    assert_eq!(with(&[("in_channels", json!(1)), ("out_channels", json!(1))]).0.image_channels, 1);
    assert_eq!(with(&[("norm_num_groups", json!(16))]).0.groups, 16);
    assert_eq!(with(&[("layers_per_block", json!(3))]).0.layers, 3);
    assert_eq!(with(&[("shift_factor", json!(0.5))]).1, one_scale(4, 0.5, 0.18215));
    // Of precision, and of training.
    with(&[("force_upcast", json!(false)), ("sample_size", json!([512, 768])), ("act_fn", json!("swish"))]);
}

#[test]
fn refusals_name_the_field_and_what_was_found() {
    let cases = [
        ("sd1", "act_fn", json!("relu"), "act_fn: expected \"silu\" or \"swish\", found \"relu\""),
        ("sd1", "out_channels", json!(4), "out_channels: expected 3, as in_channels, found 4"),
        ("sd1", "use_post_quant_conv", json!(false), "expected true, as use_quant_conv, found false"),
        ("sd1", "scaling_factor", json!(0), "scaling_factor: expected a number above 0, found 0"),
        ("sd1", "latents_std", json!([1, 1, 1, 1]), "latents_std: expected null, found [1,1,1,1]"),
        ("sd1", "sample_size", json!([1, 2, 3]), "expected a whole number or 2 of them"),
        ("sd1", "norm_num_groups", json!(48), "the text: groups (48) must divide channels (128)"),
        (
            "sd1",
            "down_block_types",
            json!(["DownEncoderBlock2D"]),
            "down_block_types: expected 4 of DownEncoderBlock2D, one a level of block_out_channels",
        ),
        (
            "sd1",
            "up_block_types",
            json!(["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]),
            "up_block_types: expected 4 of UpDecoderBlock2D",
        ),
        ("playground", "latents_std", json!([1, 1]), "latents_std: expected 4 numbers, one a channel"),
        ("playground", "latents_std", json!([1, 1, 0, 1]), "above 0, found [1,1,0,1]"),
        ("playground", "latents_std", Value::Null, "latents_std: expected 4 numbers"),
        ("playground", "latents_mean", json!([0]), "latents_mean: expected 4 numbers"),
        ("playground", "shift_factor", json!(0.1), "shift_factor: expected 0, found 0.1"),
        ("taesd", "act_fn", json!("silu"), "act_fn: expected \"relu\", found \"silu\""),
        ("taesd", "upsample_fn", json!("bilinear"), "upsample_fn: expected \"nearest\""),
        ("taesd", "upsampling_scaling_factor", json!(4), "upsampling_scaling_factor: expected 2, found 4"),
        (
            "taesd",
            "num_decoder_blocks",
            json!([1, 3, 3, 3]),
            "num_decoder_blocks: expected num_encoder_blocks in reverse, found [1,3,3,3]",
        ),
        (
            "taesd",
            "decoder_block_out_channels",
            json!([64, 64, 32, 64]),
            "decoder_block_out_channels: expected encoder_block_out_channels in reverse",
        ),
        (
            "taesd",
            "encoder_block_out_channels",
            json!([64, 64, 64, 32]),
            "encoder_block_out_channels: expected the same number for all levels",
        ),
        ("vq_f4", "norm_type", json!("spatial"), "norm_type: expected \"group\", found \"spatial\""),
        ("vq_f4", "shift_factor", json!(0.1), "the text: unknown fields shift_factor"),
        ("vq_f4", "num_vq_embeddings", json!(0), "the text: codes must be at least 1, found 0"),
    ];
    for (name, key, value, expected) in cases {
        let mut fields = published(name);
        fields.insert(key.into(), value);
        let json = text(&fields);
        let error = match name {
            "taesd" => AutoencoderTinyConfig::from_diffusers(&json).unwrap_err(),
            "vq_f4" => VqConfig::from_diffusers(&json).unwrap_err(),
            _ => AutoencoderKlConfig::from_diffusers(&json).unwrap_err(),
        };
        assert!(error.to_string().contains(expected), "{name} {key}: {error}");
    }
    let nowhere = Path::new("nowhere/config.json");
    let missing = [
        AutoencoderKlConfig::from_diffusers_file(nowhere).unwrap_err(),
        AutoencoderTinyConfig::from_diffusers_file(nowhere).unwrap_err(),
        VqConfig::from_diffusers_file(nowhere).unwrap_err(),
    ];
    for error in missing {
        assert!(error.to_string().starts_with("cannot read nowhere/config.json: "), "{error}");
    }
}
