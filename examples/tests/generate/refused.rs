//! What transformers cannot draw, and what the program says then.

use crate::models::Models;
use burn::tensor::TensorData;
use canvas_core::weights::{read_tensors, write_tensors};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn what_transformers_cannot_draw_is_named() {
    let models = Models::new();
    let cat = ["--prompt", "a cat"];
    let says =
        |model: &str, more: &[&str], words: &[&str]| models.says(model, &[&cat[..], more].concat(), words);
    says("flux", &["--height", "41"], &["--height 41", "multiples of 4", "40 or 44"]);
    says("flux", &["--max-sequence-length", "513"], &["--max-sequence-length 513", "512"]);
    says("sd3", &["--true-cfg", "2"], &["--true-cfg", "StableDiffusion3Pipeline"]);
    says("sd3", &["--lora", "a.safetensors"], &["--lora"]);
    says("flux", &["--exact-size"], &["--exact-size"]);
    says("chroma", &["--image", "a.png"], &["--image", "ChromaPipeline"]);
    says("flux", &["--image", "a.png", "--mask", "b.png"], &["--mask"]);
    says("sana", &["--prompt-2", "b"], &["--prompt-2"]);
    says("flux", &["--noise", "no.safetensors"], &["no.safetensors"]);
    says("flux_fill", &[], &["--image", "--mask"]);
    says("flux", &["--redux", "nowhere", "--image", "a.png"], &["nowhere"]);
    says("flux2", &["--negative-prompt", "b"], &["--negative-prompt", "Flux2Pipeline"]);
    says("qwen_image", &["--max-sequence-length", "2000"], &["2000", "1024"]);
    // The position table of Stable Diffusion 3 has so many places.
    says("sd3", &["--height", "8000", "--width", "64"], &["--height 8000", "positions end at"]);
    models.says("dit", &["--classes", "7", "--height", "48"], &["--height 48", "only"]);
    models.says("dit", &["--classes", "7,1000"], &["--classes 1000", "0 to 999"]);
    models.says("dit", &["--prompt", "a cat"], &["--classes"]);
    models.says("flux", &["--classes", "3"], &["--classes"]);
}

/// Position tables, rows of text and the contexts of language models end somewhere.
#[test]
fn the_limits_of_transformers_are_named() {
    let models = Models::new();
    let says = |model: &str, flag: &str, value: &str, words: &[&str]| {
        let sides = ["--height", "--width"].into_iter().filter(|side| *side != flag);
        let mut all: Vec<&str> = sides.flat_map(|side| [side, "64"]).collect();
        all.extend(["--prompt", "a cat", flag, value]);
        models.says(model, &all, &[words, &[flag, value]].concat());
    };
    says("auraflow", "--height", "68", &["positions end at 64 pixels"]);
    says("sd3", "--width", "100", &["positions end at 96 pixels"]);
    says("lumina2", "--height", "528", &["positions end at 512 pixels"]);
    says("z_image", "--width", "260", &["positions end at 256 pixels"]);
    says("lumina2", "--max-sequence-length", "300", &["at most 299 tokens"]);
    // Its 640 positions hold texts filled up to a multiple of 32, and two more.
    says("z_image", "--max-sequence-length", "609", &["at most 608 tokens"]);
    // Sana's prompt stands behind an instruction.
    for (model, length) in [("flux2", "5000"), ("flux2_klein", "4097"), ("prx", "4097"), ("sana", "4000")] {
        let all = ["--prompt", "a cat", "--height", "64", "--width", "64", "--max-sequence-length", length];
        let words = ["reads 4096 at most", "max_position_embeddings", "--max-sequence-length"];
        models.says(model, &all, &words);
    }
    for model in ["sana", "pixart_alpha", "prx", "flux"] {
        says(model, "--height", "0", &["expected 1 to 1048576 pixels"]);
    }
    let far = ["--prompt", "a cat", "--height", "1", "--width", "1048576"];
    models.says("flux_kontext", &far, &["--height 1", "--width 1048576", "no pixel"]);
}

/// What does not fit into memory is refused before it is taken.
#[test]
fn what_would_not_fit_is_refused() {
    let models = Models::new();
    let says = |model: &str, more: &[&str], words: &[&str]| {
        let all = [&["--prompt", "a cat"][..], more].concat();
        models.says(model, &all, &[words, &["GiB", "are free", "--ignore-memory"]].concat());
    };
    let huge = ["--height", "1048544", "--width", "1048544"];
    for model in ["flux", "chroma", "qwen_image", "flux2"] {
        says(model, &huge, &["drawing 1 of 1048544x1048544 pixels"]);
    }
    for model in ["pixart_alpha", "sana", "prx"] {
        says(model, &[&huge[..], &["--exact-size"]].concat(), &["drawing 1 of 1048544x1048544 pixels"]);
    }
    // Drawn in a size of the table, and scaled until both sides reach.
    let out = models.text("out.png");
    let wide = ["--height", "1", "--width", "1048576", "--out", &out];
    says("sana", &wide, &["drawing 1 of 1x1048576 pixels"]);
    for model in ["pixart_alpha", "auraflow", "chroma"] {
        let long = ["--height", "64", "--width", "64", "--max-sequence-length", "1000000"];
        says(model, &long, &["reading prompts of 1000000 tokens"]);
    }
}

/// What a pipeline has no use for is refused, before its weights are read.
#[test]
fn what_would_do_nothing_is_refused() {
    let models = Models::new();
    for model in ["flux", "qwen_image", "sd3"] {
        let transformer = models.path("models").join(model).join("transformer");
        fs::write(transformer.join("diffusion_pytorch_model.safetensors"), "broken").unwrap();
    }
    let says = |model: &str, more: &[&str], words: &[&str]| {
        models.says(model, &[&["--prompt", "a cat"][..], more].concat(), words);
    };
    says("flux", &[], &["diffusion_pytorch_model.safetensors"]);
    says("qwen_image", &["--guidance", "3"], &["--guidance does nothing with QwenImagePipeline"]);
    says("flux", &["--aesthetic-score", "5"], &["--aesthetic-score does nothing with FluxPipeline"]);
    let two = ["--image", "a.png", "--image", "b.png"];
    for model in ["flux", "sd3", "flux_kontext"] {
        says(model, &two, &["--image a second time does nothing"]);
    }
    says("flux_fill", &[&two[..], &["--mask", "m.png"]].concat(), &["--image a second time"]);
    let folder = models.text("models/redux");
    let redux = ["--redux", &folder, "--image", "a.png"];
    says("flux", &[&two[..2], &redux].concat(), &["--image a second time"]);
    says("flux", &[&redux[..], &["--strength", "0.5"]].concat(), &["--strength", "looked at"]);
    says("flux_kontext", &["--image", "a.png", "--strength", "0.5"], &["--strength", "looked at"]);
    says("flux_kontext", &redux, &["--redux does nothing with FluxKontextPipeline"]);
    says("sd3_no_t5", &["--prompt-3", "b"], &["--prompt-3 does nothing", "no text_encoder_3"]);
    says("flux", &["--true-cfg", "nan"], &["--true-cfg NaN", "finite"]);
    for (flag, value) in [("--true-cfg", "2"), ("--max-sequence-length", "9"), ("--negative-prompt", "b")] {
        models.says("flux", &[&redux[..], &[flag, value]].concat(), &[flag, "nothing without --prompt"]);
    }
}

/// Components that are not made for each other.
#[test]
fn components_that_do_not_fit_are_named() {
    let models = Models::new();
    let vae = models.text("models/sana/vae");
    for model in
        ["flux", "chroma", "sd3", "auraflow", "pixart_alpha", "lumina2", "z_image", "qwen_image", "prx"]
    {
        let words = ["models/sana/vae", "4 channels", "transformer/config.json", "found 8"];
        models.says(model, &["--prompt", "a cat", "--vae", &vae], &words);
    }
    crate::Broken::new().says(&["--vae", &vae], &["UNet reads 4 channels", "latents have 8"]);
    // A token of Lumina 2 is 64 pixels wide with an autoencoder of factor 32.
    let vae = models.text("models/flux_kontext/vae");
    let wide = ["--prompt", "a cat", "--height", "64", "--width", "80", "--vae", &vae];
    models.says("lumina2", &wide, &["--width 80", "multiples of 64", "64 or 128"]);
    let config = "transformer/config.json";
    let says =
        |model: &str, change: [&str; 2], words: &[&str]| models.says_with(model, config, change, words);
    let [from, to] = ["\"caption_channels\": 32", "\"caption_channels\": 33"];
    says("pixart_alpha", [from, to], &["transformer", "width 32", "reads 33"]);
    let [from, to] = ["\"pooled_projection_dim\": 24", "\"pooled_projection_dim\": 25"];
    says("sd3", [from, to], &["transformer", "width 24", "reads 25", "pooled_projection_dim"]);
    says("lumina2", ["300", "1"], &["config.json: axes_lens", "at least 2 positions", "found 1"]);
    says("z_image", ["640", "33"], &["config.json: axes_lens", "at least 34 positions", "found 33"]);
}

#[test]
fn broken_transformers_are_named() {
    let models = Models::new();
    let says = |words: &[&str]| models.says("flux", &["--prompt", "a cat"], words);
    let folder = models.path("models/flux");
    let weights = folder.join("transformer/diffusion_pytorch_model.safetensors");
    let whole = read_tensors(&weights).unwrap();
    let mut wrong = whole.clone();
    wrong.remove("x_embedder.bias");
    let write = |tensors: BTreeMap<String, TensorData>| {
        write_tensors(&weights, &tensors.into_iter().collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
    };
    write(wrong);
    says(&["x_embedder.bias"]);
    let mut wrong = whole.clone();
    wrong.insert("x_embedder.bias".into(), TensorData::zeros::<f32, _>([3]));
    write(wrong);
    says(&["x_embedder.bias", "found [3]"]);
    write(whole);

    let config = folder.join("transformer/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen('{', "{\"an_unknown_field\": 7,", 1)).unwrap();
    says(&["config.json", "an_unknown_field"]);
    fs::write(&config, text).unwrap();
    fs::remove_dir_all(folder.join("tokenizer_2")).unwrap();
    says(&["tokenizer_2", "no folder"]);
}
