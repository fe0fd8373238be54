//! Models from the Hugging Face Hub by name, kept in its standard cache folder.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The folder that `--model` names: a path that is there, or `owner/name` on the Hub.
///
/// Downloaded are the parts of a pipeline that are read here, in safetensors, into `HF_HUB_CACHE` (or `HF_HOME/hub`, or
/// `~/.cache/huggingface/hub`), with the token of `HF_TOKEN` where there is one. Files that are there whole are not fetched
/// again. With `HF_HUB_OFFLINE=1` nothing is fetched at all.
///
/// # Errors
/// If there is no such path and no such name, or the download fails.
pub fn folder(model: &Path, variant: Option<&str>) -> Result<PathBuf> {
    if model.exists() {
        return Ok(model.to_owned());
    }
    match name(model) {
        Some((owner, name)) => fetched(owner, name, variant),
        None => bail!("--model {}: there is no such folder or file", model.display()),
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
fn fetched(owner: &str, name: &str, _variant: Option<&str>) -> Result<PathBuf> {
    bail!(
        "--model {owner}/{name}: there is no such folder or file. To fetch it from the Hugging Face Hub, build with \
         `--features hub`"
    )
}

#[cfg(feature = "hub")]
fn fetched(owner: &str, name: &str, variant: Option<&str>) -> Result<PathBuf> {
    use anyhow::Context;
    let offline =
        std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()));
    let where_from = if offline { "the cache (HF_HUB_OFFLINE is set)" } else { "the Hugging Face Hub" };
    eprintln!("{owner}/{name}: from {where_from}");
    let client = hf_hub::HFClientSync::new().context("the Hugging Face Hub")?;
    let repository = client.model(owner, name);
    let download = repository.snapshot_download().allow_patterns(patterns(variant)).local_files_only(offline);
    download.send().with_context(|| format!("--model {owner}/{name}: not to be had from {where_from}"))
}

/// The files that are read here.
#[cfg(feature = "hub")]
fn patterns(variant: Option<&str>) -> Vec<String> {
    let variant = variant.map_or(String::new(), |variant| format!(".{variant}"));
    let mut patterns = vec!["model_index.json".to_owned(), "{tokenizer,tokenizer_2,scheduler}/*".to_owned()];
    for component in ["unet", "vae", "text_encoder", "text_encoder_2"] {
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
        let says = |model: &str| folder(model.as_ref(), None).unwrap_err().to_string();
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
        assert!(folder("owner/name".as_ref(), None).unwrap_err().to_string().contains("--features hub"));
    }
}
