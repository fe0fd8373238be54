//! LoRA files of every kind on a UNet: parity with diffusers and peft (fixture by `tools/fixtures_lora.py`).

mod files;
mod lycoris;
mod model;
mod original;

use burn::prelude::*;
use canvas_core::weights::Lora;
use canvas_testkit::hashed;
use files::{all, attention, folder, kohya, low, open, peft, write};
use model::{Model, assert_draws, check};
use std::collections::BTreeMap;
use std::fs;

#[test]
fn without_a_lora_the_models_are_those_of_the_fixture() {
    assert_draws(&Model::sd("plain").unet, "sd");
    assert_draws(&Model::sdxl("plain_xl").unet, "sdxl");
}

#[test]
fn diffusers_files_equal_diffusers() {
    let model = Model::sd("diffusers");
    let file = model.file(attention, |name, shape| peft("unet.", name, shape, 3));
    check("peft", &model, &file, 0.7);
    let rank = |name: &str| if name.contains(".attn2.") { 2 } else { 3 };
    let mixed = model.file(attention, |name, shape| peft("unet.", name, shape, rank(name)));
    check("ranks", &model, &mixed, 1.0);
    // As saved without peft's own function: with the adapter's name.
    let named = |(key, data): (String, TensorData)| (key.replace(".weight", ".default.weight"), data);
    let mut with_name = open("named", &file.into_iter().map(named).collect());
    with_name = Lora::open(with_name.path()).unwrap();
    assert_draws(&model.merged(&[(&with_name, 0.7)]), "peft");
}

#[test]
fn alphas_of_the_metadata_equal_diffusers() {
    let model = Model::sd("metadata_model");
    let file = model.file(attention, |name, shape| peft("unet.", name, shape, 3));
    let settings = r#"{"unet.r": 3, "unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_k": 2.0,
        "^mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 9.0}}"#;
    let path = folder("metadata").join("lora.safetensors");
    write(&path, &file, &BTreeMap::from([("lora_adapter_metadata".into(), settings.into())]));
    let lora = Lora::open(&path).unwrap();
    assert_draws(&model.merged(&[(&lora, 1.0)]), "metadata");
}

#[test]
fn older_diffusers_files_equal_diffusers() {
    let model = Model::sd("old_model");
    let old = |name: &str| match name.rsplit_once(".to_") {
        Some((attention, layer)) => format!("{attention}.processor.to_{}_lora", layer.trim_end_matches(".0")),
        None => format!("{name}.lora"),
    };
    let file = model.file(attention, |name, shape| {
        let name = old(name);
        low(&format!("unet.{name}.down.weight"), &format!("unet.{name}.up.weight"), shape, 3)
    });
    assert!(file.contains_key(
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight"
    ));
    check("old", &model, &file, 1.0);
}

#[test]
fn kohya_files_equal_diffusers() {
    let model = Model::sd("kohya_model");
    check("kohya", &model, &model.file(all, kohya), 0.8);
}

#[test]
fn several_loras_with_weights_equal_diffusers() {
    let model = Model::sd("two_model");
    let first = open("two_first", &model.file(attention, |name, shape| peft("unet.", name, shape, 3)));
    let second = open("two_second", &model.file(all, kohya));
    let merged = model.merged(&[(&first, 0.7), (&second, -0.4)]);
    assert_draws(&merged, "two");
}

#[test]
fn doras_equal_diffusers() {
    let model = Model::sd("dora_model");
    let file = model.file(all, |name, shape| {
        let mut file = peft("unet.", name, shape, 3);
        let key = format!("unet.{name}.lora_magnitude_vector");
        let size = if shape.len() == 2 { vec![shape[0]] } else { vec![1, shape[0], 1, 1] };
        file.insert(key.clone(), hashed(&key, &size, 0.3, 0.8));
        file
    });
    check("dora", &model, &file, 0.7);
    let (dora, plain) = (open("dora_first", &file), open("dora_second", &model.file(all, kohya)));
    let merged = model.merged(&[(&dora, 0.7), (&plain, -0.4)]);
    assert_draws(&merged, "dora_two");
}

#[test]
fn a_folder_of_peft_equals_peft() {
    let model = Model::sd("peft_folder_model");
    let folder = folder("peft_folder");
    let file = model.file(all, |name, shape| peft("base_model.model.", name, shape, 3));
    write(&folder.join("adapter_model.safetensors"), &file, &BTreeMap::new());
    let settings = r#"{"r": 3, "lora_alpha": 5, "use_rslora": true, "peft_type": "LORA",
        "alpha_pattern": {"to_q": 2.0, "mid_block.attentions.0.proj_in": 7.0}}"#;
    fs::write(folder.join("adapter_config.json"), settings).unwrap();
    let lora = Lora::open(&folder).unwrap();
    assert!(lora.parts().is_empty());
    assert_draws(&model.merged(&[(&lora, 1.0)]), "peft_folder");
}

/// Some trainers write a convolution of size 1 for a linear layer, and the other way round.
#[test]
fn matrices_and_kernels_of_size_one_are_the_same() {
    let model = Model::sd("sizes_model");
    let mut file = model.file(all, kohya);
    for (key, data) in &mut file {
        let shape = data.shape().to_vec();
        let shape = match shape.as_slice() {
            [a, b] => vec![*a, *b, 1, 1],
            [a, b, 1, 1] => vec![*a, *b],
            _ => continue,
        };
        assert!(!key.ends_with("alpha"));
        *data = TensorData::new(data.iter::<f32>().collect::<Vec<f32>>(), shape);
    }
    let lora = open("sizes", &file);
    assert_draws(&model.merged(&[(&lora, 0.8)]), "kohya");
}
