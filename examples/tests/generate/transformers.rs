//! The pipelines of diffusion transformers: `tests/fixtures/generate_transformers/README.md`.

use crate::models::Models;
use crate::reference::{self, deviation};
use burn::tensor::TensorData;
use canvas_core::weights::read_tensors;
use canvas_examples::generate::run::run;
use std::fs;

#[test]
fn pipelines_of_transformers_give_diffusers_latents() {
    reference::pipelines_give_diffusers_latents("generate_transformers", 70, &[]);
}

/// A picture of a batch is what it is alone, though its neighbours' prompts are longer.
#[test]
fn a_batch_is_its_pictures_alone() {
    let models = Models::new();
    let prompts = ["a cat", "a red house in the snow by the sea"];
    let draw = |model: &str, more: &[&str], prompts: &[&str], seed: &str| {
        let mut all = vec!["--seed", seed];
        all.extend(more);
        prompts.iter().for_each(|prompt| all.extend(["--prompt", prompt]));
        run(&models.args(model, &all)).unwrap();
        read_tensors(&models.path("latents.safetensors")).unwrap().remove("latents").unwrap()
    };
    let [photo, wide, mask] =
        ["photo", "photo_wide", "mask_hard"].map(|name| models.text(&format!("pictures/{name}.png")));
    let small = ["--height", "40", "--width", "56"];
    let larger = ["--height", "64", "--width", "96"];
    let exact = ["--height", "64", "--width", "96", "--exact-size"];
    let cases: [(&str, &[&str]); 15] = [
        ("sd3", &small),
        ("sd35", &small),
        ("flux", &small),
        ("flux_fill", &[&small[..], &["--image", &photo, "--mask", &mask]].concat()),
        ("flux_kontext", &["--image", &wide]),
        ("chroma", &small),
        ("auraflow", &small),
        ("qwen_image", &small),
        ("flux2", &small),
        ("flux2_klein", &small),
        ("pixart_alpha", &exact),
        ("sana", &exact),
        ("prx", &exact),
        ("lumina2", &larger),
        ("z_image", &small),
    ];
    for (model, more) in cases {
        let both = draw(model, more, &prompts, "7");
        for (row, prompt) in prompts.into_iter().enumerate() {
            let alone = draw(model, more, &[prompt], ["7", "8"][row]);
            let size = alone.num_elements();
            let own: Vec<f32> = both.iter::<f32>().skip(row * size).take(size).collect();
            let off = deviation(&TensorData::new(own, alone.shape()), &alone);
            assert!(off < 2e-5, "{model}, {prompt}: {off:.1e}");
        }
    }
}

/// Limits that are just not passed.
#[test]
fn what_is_asked_up_to_the_limits_is_drawn() {
    let models = Models::new();
    let draw = |model: &str, more: &[&str]| run(&models.args(model, more)).unwrap();
    let long = "a cat ".repeat(700);
    let small = ["--height", "40", "--width", "56"];
    draw("z_image", &[&small[..], &["--prompt", &long, "--max-sequence-length", "608"]].concat());
    let exact = ["--height", "64", "--width", "96", "--exact-size", "--max-sequence-length", "1"];
    draw("sana", &[&exact[..], &["--prompt", "a cat"]].concat());
}

#[test]
fn a_picture_says_all_that_it_was_drawn_with() {
    let models = Models::new();
    let [photo, redux, out] = ["pictures/photo.png", "models/redux", "out.png"].map(|at| models.text(at));
    let recipe = |model: &str, more: &[&str]| {
        let all = ["--prompt", "a cat", "--height", "40", "--width", "56", "--seed", "3", "--out", &out];
        run(&models.args(model, &[&all[..], more].concat())).unwrap();
        let file = std::io::BufReader::new(fs::File::open(&out).unwrap());
        let reader = png::Decoder::new(file).read_info().unwrap();
        let texts = reader.info().utf8_text.iter().map(|text| text.get_text().unwrap());
        texts.collect::<Vec<String>>().join("\n")
    };
    let says = |found: String, lines: &[&str]| {
        for line in lines {
            assert!(found.lines().any(|found| found == *line), "expected {line:?} in\n{found}");
        }
    };
    let image = ["--image", &photo, "--strength", "0.7", "--prompt-2", "b", "--max-sequence-length", "40"];
    let cfg = ["--true-cfg", "2", "--negative-prompt", "c", "--guidance", "3"];
    let lines = [
        "prompt a cat",
        "prompt 2 b",
        "negative prompt c",
        "max sequence length 40",
        &format!("image {photo}, strength 0.7"),
        "drawn at 40x56",
        "sampler FlowMatchEulerDiscreteScheduler, steps 1, guidance 3, true cfg 2",
        "seed 3",
    ];
    says(recipe("flux", &[&image[..], &cfg].concat()), &lines[..]);
    let found = recipe("flux", &["--image", &photo, "--redux", &redux, "--redux-scale", "0.6:1.3"]);
    says(found, &[&format!("image {photo}"), &format!("redux {redux}, scale 0.6:1.3")]);
    // The default, and the scale as it is given although 0 is off.
    says(
        recipe("sd3", &["--image", &photo, "--prompt-3", "d"]),
        &[&format!("image {photo}, strength 0.6"), "prompt 3 d"],
    );
    says(
        recipe("z_image", &["--guidance", "4"]),
        &["sampler FlowMatchEulerDiscreteScheduler, steps 1, guidance 4"],
    );
}
