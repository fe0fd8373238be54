//! The pipelines of diffusion transformers: `tests/fixtures/generate_transformers/README.md`.

use crate::reference::{self, deviation, fixtures, models};
use burn::tensor::TensorData;
use canvas_core::weights::{read_tensors, write_tensors};
use canvas_examples::generate::{args::Args, run::run};
use clap::Parser;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

#[test]
fn pipelines_of_transformers_give_diffusers_latents() {
    reference::pipelines_give_diffusers_latents("generate_transformers", 70, &[]);
}

/// All models, and what is said if they are asked for what they cannot draw.
struct Models {
    root: tempfile::TempDir,
}

impl Models {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        models(&fixtures("generate_transformers"), root.path());
        Self { root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn args(&self, model: &str, more: &[&str]) -> Args {
        let model = self.path("models").join(model);
        let latents = self.path("latents.safetensors");
        let mut all = vec!["generate", "--model", model.to_str().unwrap(), "--steps", "1"];
        all.extend(["--save-latents", latents.to_str().unwrap()]);
        all.extend(more);
        Args::try_parse_from(all).unwrap()
    }

    fn says(&self, model: &str, more: &[&str], words: &[&str]) {
        let error = format!("{:#}", run(&self.args(model, more)).expect_err("this cannot be drawn"));
        for word in words {
            assert!(error.contains(word), "expected {word:?} in {error}");
        }
    }
}

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

/// A picture of a batch is what it is alone, though its neighbours' prompts are longer.
#[test]
fn a_batch_is_its_pictures_alone() {
    let models = Models::new();
    let draw = |model: &str, prompts: &[&str], seed: &str| {
        let mut more = vec!["--seed", seed, "--height", "40", "--width", "56"];
        prompts.iter().for_each(|prompt| more.extend(["--prompt", prompt]));
        run(&models.args(model, &more)).unwrap();
        read_tensors(&models.path("latents.safetensors")).unwrap().remove("latents").unwrap()
    };
    for model in ["sd3", "flux", "chroma", "auraflow", "qwen_image", "flux2"] {
        let both = draw(model, &["a cat", "a red house in the snow by the sea"], "7");
        for (row, prompt) in ["a cat", "a red house in the snow by the sea"].into_iter().enumerate() {
            let alone = draw(model, &[prompt], ["7", "8"][row]);
            let size = alone.num_elements();
            let own: Vec<f32> = both.iter::<f32>().skip(row * size).take(size).collect();
            let off = deviation(&TensorData::new(own, alone.shape()), &alone);
            assert!(off < 2e-5, "{model}, {prompt}: {off:.1e}");
        }
    }
}
