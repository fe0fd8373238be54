//! The program `generate` against diffusers: whole pipelines, latents for the same noise.
//!
//! `tests/fixtures/generate/README.md` says how the models, the noise and the expected latents were made. Print the table
//! with `cargo test -p canvas-examples --test generate -- --nocapture`.

mod models;
mod reference;
mod refused;
mod transformers;

use burn::tensor::TensorData;
use canvas_core::weights::{read_tensors, write_tensors};
use canvas_examples::generate::{args::Args, run::run};
use clap::Parser;
use reference::{deviation, fixtures};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where we do not follow diffusers, and why; `docs/generate-parity.md` says more.
const DIFFER: [(&str, &str); 3] = [
    ("sd1-ddpm-large", "diffusers adds noise in a last step to clean data, if its training step is not 0"),
    ("sd1-image-lms", "diffusers takes the weights of an order for which a late start has no history"),
    ("sd1-inpaint4-kdpm2", "diffusers noises the picture to the step's end where the state is at its middle"),
];

#[test]
fn pipelines_give_diffusers_latents() {
    reference::pipelines_give_diffusers_latents("generate", 81, &DIFFER);
}

/// The sd1 model in a folder of its own, the arguments to draw with it, and what is said if it is changed.
struct Broken {
    root: tempfile::TempDir,
}

impl Broken {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        reference::models(&fixtures("generate"), root.path());
        Self { root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn says(&self, more: &[&str], words: &[&str]) {
        let model = self.path("models/sd1");
        let out = self.path("out.png");
        let mut all =
            vec!["generate", "--model", model.to_str().unwrap(), "--prompt", "a cat", "--steps", "1"];
        all.extend(["--out", out.to_str().unwrap()]);
        all.extend(more);
        let args = Args::try_parse_from(all).unwrap();
        let error = format!("{:#}", run(&args).expect_err("this cannot be drawn"));
        for word in words {
            assert!(error.contains(word), "expected {word:?} in {error}");
        }
        assert!(!out.exists(), "a picture in spite of: {error}");
    }
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let broken = Broken::new();
    let text = |below: &str| broken.path(below).to_string_lossy().into_owned();
    broken.says(&["--height", "41"], &["--height 41", "multiples of 8", "40 or 48"]);
    broken.says(&["--height", "80000", "--width", "80000"], &["80000x80000", "GiB", "--ignore-memory"]);
    broken.says(&["--scheduler", "eular"], &["eular", "euler"]);
    broken.says(&["--image", &text("no.png")], &["no.png"]);
    broken.says(&["--image", &text("weights.json")], &["weights.json"]);
    broken.says(&["--noise", &text("no.safetensors")], &["no.safetensors"]);
    broken.says(&["--clip-skip", "40"], &["40"]);
    let lora = text("adapters/lora_kohya_ldm_xl.safetensors");
    broken.says(&["--lora", &lora], &["lora_kohya_ldm_xl.safetensors"]);
    let (net, hint) = (text("adapters/controlnet_sdxl"), text("pictures/pose.png"));
    broken.says(&["--controlnet", &net, "--control-image", &hint], &["controlnet_sdxl", "another UNet"]);
    let (adapter, encoder) = (text("adapters/ip_sdxl.safetensors"), text("adapters/image_encoder"));
    let picture = text("pictures/style.png");
    let ip = ["--ip-adapter", &adapter, "--image-encoder", &encoder, "--ip-image", &picture];
    broken.says(&ip, &["ip_sdxl.safetensors", "expected"]);
    broken.says(&["--save-latents", &text("no-folder/l.safetensors")], &["no-folder"]);

    let noise = broken.path("noise.safetensors");
    write_tensors(&noise, &[("latents".into(), TensorData::zeros::<f32, _>([1, 4, 2, 2]))], &BTreeMap::new())
        .unwrap();
    broken.says(&["--noise", noise.to_str().unwrap()], &["latents", "[1, 4, 6, 6]", "[1, 4, 2, 2]"]);
    write_tensors(&noise, &[("latent".into(), TensorData::zeros::<f32, _>([1]))], &BTreeMap::new()).unwrap();
    broken.says(&["--noise", noise.to_str().unwrap()], &["latent:", "latents"]);

    let mask = broken.path("black.png");
    image::GrayImage::new(8, 8).save(&mask).unwrap();
    broken.says(&["--image", &picture, "--mask", mask.to_str().unwrap()], &["black.png", "black everywhere"]);
}

#[test]
fn a_broken_model_is_named() {
    let broken = Broken::new();
    let weights = broken.path("models/sd1/unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 10]).unwrap();
    broken.says(&[], &["diffusion_pytorch_model.safetensors", "truncated"]);

    let mut tensors: Vec<(String, TensorData)> = {
        fs::write(&weights, &whole).unwrap();
        read_tensors(&weights).unwrap().into_iter().collect()
    };
    let bias = tensors.iter_mut().find(|(key, _)| key == "conv_in.bias").unwrap();
    bias.1 = TensorData::zeros::<f32, _>([3]);
    write_tensors(&weights, &tensors, &BTreeMap::new()).unwrap();
    broken.says(&[], &["conv_in.bias", "expected shape [8]", "found [3]"]);

    let index = broken.path("models/sd1/model_index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replace("StableDiffusionPipeline", "StableDifusionPipeline")).unwrap();
    broken.says(&[], &["StableDifusionPipeline", "StableDiffusionPipeline"]);
    fs::write(&index, &text).unwrap();
    fs::remove_dir_all(broken.path("models/sd1/vae")).unwrap();
    broken.says(&[], &["vae", "no folder"]);
    fs::remove_file(&index).unwrap();
    broken.says(&[], &["model_index.json"]);
}

#[test]
fn a_picture_carries_its_recipe_and_a_batch_is_its_pictures_alone() {
    let broken = Broken::new();
    let (model, out) = (broken.path("models/sd1"), broken.path("out.png"));
    let draw = |prompts: &[&str], seed: &str, latents: &Path| {
        let mut all = vec!["generate", "--model", model.to_str().unwrap(), "--steps", "3", "--seed", seed];
        all.extend([
            "--out",
            out.to_str().unwrap(),
            "--preview",
            "--save-latents",
            latents.to_str().unwrap(),
        ]);
        for prompt in prompts {
            all.extend(["--prompt", prompt]);
        }
        run(&Args::try_parse_from(all).unwrap()).unwrap();
        read_tensors(latents).unwrap().remove("latents").unwrap()
    };
    let latents = broken.path("latents.safetensors");
    let both = draw(&["a cat", "a red house"], "7", &latents);
    assert!(broken.path("out-0.png").exists() && broken.path("out-1.png").exists());
    let alone = draw(&["a red house"], "8", &latents);
    let second = TensorData::new(both.iter::<f32>().skip(4 * 36).collect::<Vec<f32>>(), [1, 4, 6, 6]);
    assert!(deviation(&second, &alone) < 1e-5, "{:.1e}", deviation(&second, &alone));

    let file = std::io::BufReader::new(fs::File::open(&out).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let texts: Vec<String> = reader.info().utf8_text.iter().map(|text| text.get_text().unwrap()).collect();
    let recipe = texts.join("\n");
    for word in ["canvas", "a red house", "seed 8", "PNDMScheduler", "steps 3"] {
        assert!(recipe.contains(word), "{recipe}");
    }
    assert!(broken.path("out-preview.png").exists());
}
