//! Files of LoRAs, in the ways that programs write them.

use burn::prelude::*;
use canvas_core::weights::{Lora, write_tensors};
use canvas_testkit::hashed;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Tensors by key.
pub type File = BTreeMap<String, TensorData>;

pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lora").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn write(path: &Path, file: &File, metadata: &BTreeMap<String, String>) {
    let tensors: Vec<(String, TensorData)> = file.clone().into_iter().collect();
    write_tensors(path, &tensors, metadata).unwrap();
}

pub fn all(_: &str) -> bool {
    true
}

pub fn attention(name: &str) -> bool {
    name.contains("attn") || name.contains(".ff.")
}

/// The two tensors of a LoRA on a weight of this shape.
pub fn low(down: &str, up: &str, shape: &[usize], rank: usize) -> File {
    let wide = [&[rank], &shape[1..]].concat();
    let tall = [vec![shape[0], rank], vec![1; shape.len() - 2]].concat();
    [(down, wide), (up, tall)].map(|(key, shape)| (key.to_owned(), hashed(key, &shape, 0.3, 0.0))).into()
}

pub fn peft(start: &str, name: &str, shape: &[usize], rank: usize) -> File {
    low(&format!("{start}{name}.lora_A.weight"), &format!("{start}{name}.lora_B.weight"), shape, rank)
}

/// kohya's key of a layer.
pub fn kohya_key(name: &str) -> String {
    format!("lora_unet_{}", name.replace('.', "_"))
}

/// A single number, as a layer's alpha is kept.
pub fn alpha(key: &str, value: f32) -> (String, TensorData) {
    (format!("{key}.alpha"), TensorData::new(vec![value], Vec::<usize>::new()))
}

pub fn kohya(name: &str, shape: &[usize]) -> File {
    let key = kohya_key(name);
    let mut file = low(&format!("{key}.lora_down.weight"), &format!("{key}.lora_up.weight"), shape, 3);
    file.extend([alpha(&key, 2.0)]);
    file
}

pub fn open(name: &str, file: &File) -> Lora {
    let path = folder(name).join("lora.safetensors");
    write(&path, file, &BTreeMap::new());
    Lora::open(&path).unwrap()
}
