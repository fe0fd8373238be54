//! diffusers' configuration files: published models, and what is refused.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::LatentScale;
use canvas_core::config_file::ConfigFileError;
use canvas_core::weights::{Rules, published_shapes};
use canvas_vae::{AutoencoderDcConfig, AutoencoderKlFlux2Config, AutoencoderKlQwenImageConfig};
use canvas_vae::{AutoencoderRaeConfig, DcNorm, RaeEncoder};
use serde_json::{Map, Value, json};

fn all() -> Value {
    serde_json::from_str(include_str!("../fixtures/families/published.json")).unwrap()
}

fn published(name: &str) -> Map<String, Value> {
    all()[name]["config"].as_object().unwrap().clone()
}

fn text(fields: &Map<String, Value>) -> String {
    Value::Object(fields.clone()).to_string()
}

/// Names and shapes at full size; nothing is allocated.
fn same_names<M: Module>(name: &str, module: &M, rules: &Rules) {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let shapes = published_shapes(module, rules);
    let lines: String = shapes.iter().map(|(key, shape)| format!("{key} {shape:?}\n")).collect();
    let digest = lines.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    assert_eq!(format!("{digest:016x}"), all()[name]["digest"].as_str().unwrap(), "{name}:\n{lines}");
}

fn dc(json: &str) -> Result<(AutoencoderDcConfig, LatentScale), ConfigFileError> {
    AutoencoderDcConfig::from_diffusers(json)
}

fn flux2(json: &str) -> Result<(AutoencoderKlFlux2Config, LatentScale), ConfigFileError> {
    AutoencoderKlFlux2Config::from_diffusers(json).map(|config| (config, LatentScale::uniform(0, 0.0, 1.0)))
}

fn qwen(json: &str) -> Result<(AutoencoderKlQwenImageConfig, LatentScale), ConfigFileError> {
    AutoencoderKlQwenImageConfig::from_diffusers(json)
}

fn rae(json: &str) -> Result<(AutoencoderRaeConfig, LatentScale), ConfigFileError> {
    AutoencoderRaeConfig::from_diffusers(json)
}

#[test]
fn published_models_have_diffusers_names_and_shapes() {
    let device = Device::flex();
    for name in ["sana", "f64"] {
        let (config, scale) = dc(&text(&published(name))).unwrap();
        same_names(name, &config.init(&device), &config.published());
        let expected = if name == "sana" { (32, 0.41407) } else { (128, 1.0) };
        assert_eq!(scale, LatentScale::uniform(expected.0, 0.0, expected.1));
    }
    for name in ["flux2", "flux2_small"] {
        let config = flux2(&text(&published(name))).unwrap().0;
        same_names(name, &config.init(&device), &config.published());
    }
    let (config, scale) = qwen(&text(&published("qwen"))).unwrap();
    same_names("qwen", &config.init(&device), &config.published());
    assert_eq!(scale, AutoencoderKlQwenImageConfig::qwen_scale());
    for name in ["rae_dinov2", "rae_siglip2", "rae_mae"] {
        let (config, scale) = rae(&text(&published(name))).unwrap();
        same_names(name, &config.init(&device), &config.published());
        assert_eq!(scale, LatentScale::uniform(768, 0.0, 1.0));
    }
    assert_eq!((scale.shift[1], scale.scale[1]), (-0.7089, 1.0 / 1.4541));
}

#[test]
fn presets_are_the_published_ones_and_absent_fields_the_defaults() {
    let same = |found: String, expected: String| assert_eq!(found, expected);
    same(
        format!("{:?}", dc(&text(&published("sana"))).unwrap().0),
        format!("{:?}", AutoencoderDcConfig::sana()),
    );
    let flux = AutoencoderKlFlux2Config::new();
    same(format!("{:?}", flux2(&text(&published("flux2"))).unwrap().0), format!("{flux:?}"));
    same(format!("{:?}", flux2("{}").unwrap().0), format!("{flux:?}"));
    let image = AutoencoderKlQwenImageConfig::new();
    same(format!("{:?}", qwen(&text(&published("qwen"))).unwrap().0), format!("{image:?}"));
    same(format!("{:?}", qwen("{}").unwrap().0), format!("{image:?}"));
    let (bare, _) = dc("{}").unwrap();
    assert_eq!((bare.encoder[3].blocks, bare.decoder[0].blocks, bare.encoder[3].attends), (3, 3, false));
    assert_eq!((bare.encoder[2].scales.len(), bare.decoder[5].scales[0]), (0, 5));
    let dino = rae(&text(&published("rae_dinov2"))).unwrap().0;
    same(format!("{dino:?}"), format!("{:?}", AutoencoderRaeConfig::dinov2_base()));
    same(format!("{:?}", rae("{}").unwrap().0), format!("{:?}", AutoencoderRaeConfig::new()));
    let (f64, _) = dc(&text(&published("f64"))).unwrap();
    assert_eq!((f64.decoder[2].norm, f64.decoder[3].norm), (DcNorm::Batch, DcNorm::Rms));
    assert_eq!((f64.downsampling(), f64.latent), (64, 128));
}

/// Every field of the classes is honoured or refused by its name.
#[test]
fn no_field_is_passed_over() {
    type Reads = fn(&str) -> Option<String>;
    let cases: [(&str, Reads); 4] = [
        ("sana", |json| dc(json).err().map(|error| error.to_string())),
        ("flux2", |json| flux2(json).err().map(|error| error.to_string())),
        ("qwen", |json| qwen(json).err().map(|error| error.to_string())),
        ("rae_mae", |json| rae(json).err().map(|error| error.to_string())),
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

#[test]
fn refusals_name_the_field_and_what_was_found() {
    let cases = [
        ("sana", "decoder_norm_types", json!("layer_norm"), "expected \"rms_norm\" or \"batch_norm\", found"),
        ("sana", "decoder_act_fns", json!(["silu"]), "a string, or 6 of them, one a level, found [\"silu\"]"),
        ("sana", "encoder_block_types", json!("Other"), "expected \"ResBlock\" or \"EfficientViTBlock\""),
        (
            "sana",
            "encoder_layers_per_block",
            json!([1]),
            "6 numbers, one a level of encoder_block_out_channels",
        ),
        ("sana", "encoder_qkv_multiscales", json!([[5]]), "expected 6 lists of whole numbers, one a level"),
        ("sana", "encoder_qkv_multiscales", json!([[], [], [], [4], [], []]), "scales must be odd, found 4"),
        ("sana", "attention_head_dim", json!(48), "head (48) must divide width (512)"),
        ("sana", "latent_channels", json!(48), "latent (48) must divide width of the last level (1024)"),
        ("sana", "scaling_factor", json!(0), "scaling_factor: expected a number above 0, found 0"),
        ("flux2", "patch_size", json!([2, 1]), "patch_size: expected the same number twice, found [2,1]"),
        ("flux2", "act_fn", json!("relu"), "act_fn: expected \"silu\" or \"swish\", found \"relu\""),
        ("flux2", "use_post_quant_conv", json!(false), "expected true, as use_quant_conv, found false"),
        (
            "flux2",
            "decoder_block_out_channels",
            json!([32]),
            "decoder_channels (1 levels) and channels (4 levels)",
        ),
        ("flux2", "batch_norm_eps", json!("x"), "batch_norm_eps: expected a number, found \"x\""),
        ("qwen", "attn_scales", json!([0.5]), "attn_scales: expected [], found [0.5]"),
        ("qwen", "dropout", json!(0.1), "dropout: expected 0, found 0.1"),
        ("qwen", "temperal_downsample", json!([true]), "expected 3 of true or false, one a halving"),
        ("qwen", "latents_std", json!([0.0]), "expected 16 numbers, one a channel of the latents, above 0"),
        ("qwen", "latents_mean", json!([0.0]), "expected 16 numbers, one a channel of the latents, found"),
        ("qwen", "z_dim", json!(4), "latents_mean: expected 4 numbers"),
        (
            "rae_mae",
            "encoder_type",
            json!("clip"),
            "expected \"dinov2\" or \"siglip2\" or \"mae\", found \"clip\"",
        ),
        (
            "rae_mae",
            "encoder_norm_std",
            json!([1]),
            "encoder_norm_std: expected 3 numbers, one a colour, found [1]",
        ),
        (
            "rae_mae",
            "image_size",
            json!(224),
            "image_size: expected 256, as patch_size and the encoder's make it",
        ),
        ("rae_mae", "encoder_input_size", json!(250), "encoder_patch (16) must divide input_side (250)"),
        ("rae_mae", "latents_mean", json!([[1, 2], [3]]), "latents_mean: expected nested lists of numbers"),
        ("rae_mae", "latents_mean", json!([1, 2]), "mean_shape must be [1], or [768, 16, 16] with 1 for any"),
        (
            "rae_mae",
            "latents_std",
            json!([[[1, 2]]]),
            "std_shape must be [1], or [768, 16, 16] with 1 for any",
        ),
        ("rae_mae", "reshape_to_2d", json!(false), "reshape_to_2d: expected true, found false"),
    ];
    for (name, key, value, expected) in cases {
        let mut fields = published(name);
        fields.insert(key.into(), value);
        let json = text(&fields);
        let error = match name {
            "sana" => dc(&json).unwrap_err(),
            "flux2" => flux2(&json).unwrap_err(),
            "rae_mae" => rae(&json).unwrap_err(),
            _ => qwen(&json).unwrap_err(),
        };
        assert!(error.to_string().contains(expected), "{name} {key}: {error}");
    }
}

/// transformers renamed the parts of its networks; files of both ages are read.
#[test]
fn encoders_by_their_older_names_are_the_same() {
    let rules = |kind| AutoencoderRaeConfig::new().with_encoder(kind).published();
    let layer = "encoder.encoder.layer.3";
    let cases = [
        (RaeEncoder::Dinov2, format!("{layer}.attention.attention.query.bias"), "attention.query.bias"),
        (RaeEncoder::Dinov2, format!("{layer}.attention.output.dense.weight"), "attention.output.weight"),
        (RaeEncoder::Mae, format!("{layer}.attention.attention.value.weight"), "attention.value.weight"),
        (RaeEncoder::Mae, format!("{layer}.attention.output.dense.bias"), "attention.output.bias"),
        (RaeEncoder::Mae, format!("{layer}.intermediate.dense.weight"), "mlp.up.weight"),
        (RaeEncoder::Mae, format!("{layer}.output.dense.weight"), "mlp.down.weight"),
        (RaeEncoder::Mae, format!("{layer}.layernorm_after.bias"), "norm2.bias"),
        (RaeEncoder::Siglip2, "encoder.encoder.layers.3.mlp.fc1.bias".to_owned(), "mlp.up.bias"),
    ];
    for (kind, old, ours) in cases {
        let ours = format!("encoder.blocks.3.{ours}");
        assert_eq!(rules(kind).ours(&old), ours, "{kind:?}");
        let new = rules(kind).published(&ours);
        assert_ne!(new, old, "{kind:?}");
        assert_eq!(rules(kind).ours(&new), ours, "{kind:?}");
    }
}
