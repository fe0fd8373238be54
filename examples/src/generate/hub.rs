//! Models from the Hugging Face Hub by name, kept in its standard cache folder.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Parts of a pipeline that are networks: a configuration and weights.
#[cfg(any(feature = "hub", test))]
const NETWORKS: &[&str] = &[
    "unet",
    "transformer",
    "vae",
    "text_encoder",
    "text_encoder_2",
    "text_encoder_3",
    "image_encoder",
    "image_embedder",
];

/// Parts that are small files, all of which are read: a tokenizer's chat template, too.
#[cfg(any(feature = "hub", test))]
const FILES: &[&str] = &["tokenizer", "tokenizer_2", "tokenizer_3", "scheduler", "feature_extractor"];

/// The folder that an argument such as `--model` names: a path that is there, or `owner/name` on the Hub.
///
/// Downloaded are the parts of a pipeline that are read here, in safetensors, into `HF_HUB_CACHE` (or `HF_HOME/hub`, or
/// `~/.cache/huggingface/hub`), with the token of `HF_TOKEN` where there is one. Files that are there whole are not fetched
/// again. With `HF_HUB_OFFLINE=1` nothing is fetched at all.
///
/// # Errors
/// If there is no such path and no such name, or the download fails.
pub fn folder(flag: &str, model: &Path, variant: Option<&str>) -> Result<PathBuf> {
    if model.exists() {
        return Ok(model.to_owned());
    }
    match name(model) {
        Some((owner, name)) => fetched(flag, owner, name, variant),
        None => bail!("{flag} {}: there is no such folder or file", model.display()),
    }
}

/// Owner and name, of what can be both.
fn name(model: &Path) -> Option<(&str, &str)> {
    let (owner, name) = model.to_str()?.split_once('/')?;
    let fine = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    (fine(owner) && fine(name)).then_some((owner, name))
}

#[cfg(not(feature = "hub"))]
fn fetched(flag: &str, owner: &str, name: &str, _variant: Option<&str>) -> Result<PathBuf> {
    bail!(
        "{flag} {owner}/{name}: there is no such folder or file. To fetch it from the Hugging Face Hub, build with \
         `--features hub`"
    )
}

#[cfg(feature = "hub")]
fn fetched(flag: &str, owner: &str, name: &str, variant: Option<&str>) -> Result<PathBuf> {
    use anyhow::Context;
    let offline =
        std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()));
    let where_from = if offline { "the cache (HF_HUB_OFFLINE is set)" } else { "the Hugging Face Hub" };
    eprintln!("{owner}/{name}: from {where_from}");
    let client = hf_hub::HFClientSync::new().context("the Hugging Face Hub")?;
    let repository = client.model(owner, name);
    let download = repository.snapshot_download().allow_patterns(patterns(variant)).local_files_only(offline);
    download.send().with_context(|| format!("{flag} {owner}/{name}: not to be had from {where_from}"))
}

/// The files that are read here.
#[cfg(any(feature = "hub", test))]
fn patterns(variant: Option<&str>) -> Vec<String> {
    let variant = variant.map_or(String::new(), |variant| format!(".{variant}"));
    let files = FILES.iter().map(|component| format!("{component}/*"));
    let mut patterns: Vec<String> = std::iter::once("model_index.json".to_owned()).chain(files).collect();
    for component in NETWORKS {
        patterns.push(format!("{component}/*.json"));
        for stem in ["diffusion_pytorch_model", "model"] {
            patterns.push(format!("{component}/{stem}{variant}.safetensors"));
            patterns.push(format!("{component}/{stem}{variant}-*.safetensors")); // shards
        }
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_a_path_nor_a_name_is_said() {
        let says = |model: &str| folder("--model", model.as_ref(), None).unwrap_err().to_string();
        assert!(says("no-such-model").contains("no such folder or file"));
        assert!(says("../owner/name").contains("no such folder or file"));
        assert_eq!(name("stabilityai/sdxl-turbo".as_ref()), Some(("stabilityai", "sdxl-turbo")));
        for other in ["a/b/c", "/a", "a/", "./a", "a b/c"] {
            assert_eq!(name(other.as_ref()), None, "{other}");
        }
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn a_name_says_what_to_build() {
        let error = folder("--redux", "owner/name".as_ref(), None).unwrap_err().to_string();
        assert!(error.contains("--redux owner/name") && error.contains("--features hub"), "{error}");
    }

    /// Whether a name fits a pattern of plain characters and `*`.
    fn fits(pattern: &str, name: &str) -> bool {
        match pattern.split_once('*') {
            None => pattern == name,
            Some((start, rest)) => name
                .strip_prefix(start)
                .is_some_and(|name| (0..=name.len()).any(|skipped| fits(rest, &name[skipped..]))),
        }
    }

    /// All files of all models that the tests of pipelines draw with, whose weights and tokenizers lie elsewhere.
    fn read_by_pipelines() -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let mut found = Vec::new();
        for fixture in ["generate", "generate_transformers"] {
            let text = std::fs::read_to_string(root.join(fixture).join("weights.json")).unwrap();
            let weights: serde_json::Value = serde_json::from_str(&text).unwrap();
            found.extend(weights.as_object().unwrap().keys().cloned());
            let mut folders = vec![root.join(fixture).join("models")];
            while let Some(folder) = folders.pop() {
                for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                    if path.is_dir() {
                        folders.push(path);
                    } else {
                        let below = path.strip_prefix(root.join(fixture)).unwrap();
                        found.push(below.display().to_string());
                    }
                }
            }
        }
        let text = std::fs::read_to_string(root.join("generate_transformers/tokenizers.json")).unwrap();
        let tokenizers: serde_json::Value = serde_json::from_str(&text).unwrap();
        found.extend(tokenizers.as_object().unwrap().keys().map(|to| format!("{to}/tokenizer.json")));
        found.retain(|file| file.starts_with("models/"));
        found
    }

    #[test]
    fn what_pipelines_read_is_fetched() {
        let (patterns, files) = (patterns(None), read_by_pipelines());
        for file in &files {
            // models/NAME/COMPONENT/FILE
            let own = file.splitn(3, '/').nth(2).unwrap();
            assert!(patterns.iter().any(|pattern| fits(pattern, own)), "{file} is not fetched");
        }
        for component in NETWORKS.iter().chain(FILES).filter(|name| **name != "unet") {
            let own = format!("/{component}/");
            assert!(files.iter().any(|file| file.contains(&own)), "{component} is read by no pipeline");
        }
        let shard = "transformer/diffusion_pytorch_model-00001-of-00003.safetensors";
        assert!(patterns.iter().any(|pattern| fits(pattern, shard)));
        assert!(!patterns.iter().any(|pattern| fits(pattern, "flux1-dev.safetensors")));
    }
}
