//! diffusers' configuration files: the presets, what is refused, and our own as JSON.

use burn::config::Config;
use canvas_dit::{ChromaConfig, Flux2Config, FluxConfig, QwenImageConfig, ReduxConfig};
use serde_json::{Value, json};

fn debug(config: impl std::fmt::Debug) -> String {
    format!("{config:?}")
}

/// `transformer/config.json` of the published models, without notes.
fn published(name: &str) -> Value {
    let flux = |input: usize, output: Value, guidance: bool| {
        json!({
            "_class_name": "FluxTransformer2DModel", "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56],
            "guidance_embeds": guidance, "in_channels": input, "joint_attention_dim": 4096, "num_attention_heads": 24,
            "num_layers": 19, "num_single_layers": 38, "out_channels": output, "patch_size": 1,
            "pooled_projection_dim": 768,
        })
    };
    let flux2 = |double: usize, single: usize, heads: usize, text: usize, guidance: bool| {
        json!({
            "_class_name": "Flux2Transformer2DModel", "attention_head_dim": 128, "axes_dims_rope": [32, 32, 32, 32],
            "eps": 1e-6, "guidance_embeds": guidance, "in_channels": 128, "joint_attention_dim": text, "mlp_ratio": 3.0,
            "num_attention_heads": heads, "num_layers": double, "num_single_layers": single, "out_channels": null,
            "patch_size": 1, "rope_theta": 2000, "timestep_guidance_channels": 256,
        })
    };
    match name {
        "dev" => flux(64, Value::Null, true),
        "schnell" => flux(64, Value::Null, false),
        "fill" => flux(384, json!(64), true),
        "control" => flux(128, json!(64), true),
        "chroma" => json!({
            "_class_name": "ChromaTransformer2DModel", "approximator_hidden_dim": 5120, "approximator_layers": 5,
            "approximator_num_channels": 64, "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56],
            "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 19,
            "num_single_layers": 38, "out_channels": null, "patch_size": 1,
        }),
        "flux2" => flux2(8, 48, 48, 15360, true),
        "klein_4b" => flux2(5, 20, 24, 7680, false),
        "klein_9b" => flux2(8, 24, 32, 12288, false),
        "qwen" => json!({
            "_class_name": "QwenImageTransformer2DModel", "attention_head_dim": 128, "axes_dims_rope": [16, 56, 56],
            "guidance_embeds": false, "in_channels": 64, "joint_attention_dim": 3584, "num_attention_heads": 24,
            "num_layers": 60, "out_channels": 16, "patch_size": 2, "zero_cond_t": false, "use_layer3d_rope": false,
            "use_additional_t_cond": false,
        }),
        _ => panic!("{name}"),
    }
}

/// Reads a file of this model; the configuration's text.
fn read(name: &str, file: &Value) -> Result<String, String> {
    let text = file.to_string();
    match name {
        "chroma" => ChromaConfig::from_diffusers(&text).map(debug),
        "flux2" | "klein_4b" | "klein_9b" => Flux2Config::from_diffusers(&text).map(debug),
        "qwen" => QwenImageConfig::from_diffusers(&text).map(debug),
        _ => FluxConfig::from_diffusers(&text).map(debug),
    }
    .map_err(|error| error.to_string())
}

#[test]
fn published_configurations_are_the_presets() {
    let cases = [
        ("dev", debug(FluxConfig::dev())),
        ("schnell", debug(FluxConfig::schnell())),
        ("fill", debug(FluxConfig::fill())),
        ("control", debug(FluxConfig::control())),
        ("chroma", debug(ChromaConfig::chroma1())),
        ("flux2", debug(Flux2Config::dev())),
        ("klein_4b", debug(Flux2Config::klein_4b())),
        ("klein_9b", debug(Flux2Config::klein_9b())),
        ("qwen", debug(QwenImageConfig::qwen_image())),
    ];
    for (name, expected) in cases {
        assert_eq!(read(name, &published(name)).unwrap(), expected, "{name}");
    }
    assert_eq!(debug(ReduxConfig::from_diffusers("{}").unwrap()), debug(ReduxConfig::new()));
    let small = ReduxConfig::from_diffusers(r#"{"redux_dim": 6, "txt_in_features": 8}"#).unwrap();
    assert_eq!(debug(small), debug(ReduxConfig::new().with_image(6).with_text(8)));
    let edit = json!({"zero_cond_t": true});
    assert_eq!(
        read("qwen", &edit).unwrap(),
        debug(QwenImageConfig::qwen_image().with_clean_references(true))
    );
}

/// An empty file is the class's defaults.
#[test]
fn absent_is_the_default() {
    let cases = [
        ("dev", debug(FluxConfig::schnell())),
        ("chroma", debug(ChromaConfig::chroma1())),
        ("flux2", debug(Flux2Config::dev())),
        ("qwen", debug(QwenImageConfig::qwen_image())),
    ];
    for (name, expected) in cases {
        assert_eq!(read(name, &json!({})).unwrap(), expected, "{name}");
    }
}

#[test]
fn every_field_is_honoured_or_refused_by_its_name() {
    for name in ["dev", "chroma", "flux2", "qwen"] {
        let file = published(name);
        for key in file.as_object().unwrap().keys() {
            let mut odd = file.clone();
            odd[key] = json!({"odd": 1});
            let error = read(name, &odd).unwrap_err();
            assert!(error.contains(key.as_str()), "{name} {key}: {error}");
        }
        let mut more = file.clone();
        more["novelty"] = json!(1);
        assert_eq!(read(name, &more).unwrap_err(), "the text: unknown fields novelty");
    }
}

#[test]
fn values_that_are_not_there_are_refused() {
    let cases = [
        ("dev", "patch_size", json!(2), "patch_size: expected 1, found 2"),
        ("dev", "attention_head_dim", json!(64), "expected the sum of axes_dims_rope, 128, found 64"),
        ("dev", "axes_dims_rope", json!([64, 64]), "axes_dims_rope: expected 3 whole numbers, found [64,64]"),
        (
            "dev",
            "in_channels",
            json!(66),
            "in_channels: expected 4 times the channels of latents and what is read beside, found 66",
        ),
        (
            "fill",
            "out_channels",
            json!(400),
            "out_channels: expected 4 times the channels of latents, at most 384, found 400",
        ),
        ("dev", "num_attention_heads", json!(0), "heads must be at least 1, found 0"),
        ("chroma", "in_channels", json!(128), "in_channels: expected out_channels, found 128"),
        ("flux2", "eps", json!(1e-5), "eps: expected 1e-6, found"),
        ("flux2", "out_channels", json!(64), "out_channels: expected 128, found 64"),
        ("qwen", "guidance_embeds", json!(true), "guidance_embeds: expected false, found true"),
        ("qwen", "use_layer3d_rope", json!(true), "use_layer3d_rope: expected false, found true"),
        ("qwen", "in_channels", json!(16), "in_channels: expected 4 times out_channels (16), found 16"),
    ];
    for (name, key, value, says) in cases {
        let mut file = published(name);
        file[key] = value;
        if name == "chroma" {
            file["out_channels"] = json!(64);
        }
        let error = read(name, &file).unwrap_err();
        assert!(error.contains(says), "{name} {key}: {error}");
    }
}

#[test]
fn configurations_survive_json() {
    fn again<C: Config + std::fmt::Debug>(config: C) {
        let file = tempfile::NamedTempFile::new().unwrap();
        config.save(file.path()).unwrap();
        assert_eq!(debug(C::load(file.path()).unwrap()), debug(config));
    }
    again(FluxConfig::fill().with_axes([2, 4, 6]));
    again(ChromaConfig::chroma1().with_mask(canvas_dit::ChromaMask::Favours));
    again(Flux2Config::klein_4b().with_theta(10.0));
    again(QwenImageConfig::qwen_image().with_clean_references(true));
    again(ReduxConfig::new().with_image(7));
}
