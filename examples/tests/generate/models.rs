//! The models of `tests/fixtures/generate_transformers`, and what is said if they are asked for what they cannot draw.

use crate::reference::{fixtures, models};
use canvas_examples::generate::{args::Args, run::run};
use clap::Parser;
use std::fs;
use std::path::PathBuf;

/// All models in a folder of their own.
pub struct Models {
    root: tempfile::TempDir,
}

impl Models {
    /// Writes them.
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        models(&fixtures("generate_transformers"), root.path());
        Self { root }
    }

    /// Below their folder.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// As an argument.
    pub fn text(&self, below: &str) -> String {
        self.path(below).to_str().unwrap().to_owned()
    }

    /// The arguments for one step of a model, whose latents are saved.
    pub fn args(&self, model: &str, more: &[&str]) -> Args {
        let (model, latents) = (self.path("models").join(model), self.path("latents.safetensors"));
        let mut all = vec!["generate", "--model", model.to_str().unwrap(), "--steps", "1"];
        all.extend(["--save-latents", latents.to_str().unwrap()]);
        all.extend(more);
        Args::try_parse_from(all).unwrap()
    }

    /// The words of the error that these arguments end with.
    pub fn says(&self, model: &str, more: &[&str], words: &[&str]) {
        let error = format!("{:#}", run(&self.args(model, more)).expect_err("this cannot be drawn"));
        for word in words {
            assert!(error.contains(word), "expected {word:?} in {error}");
        }
    }

    /// What is said of "a cat" with something in a file replaced, which is put back behind.
    pub fn says_with(&self, model: &str, file: &str, [from, to]: [&str; 2], words: &[&str]) {
        let path = self.path("models").join(model).join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        self.says(model, &["--prompt", "a cat"], words);
        fs::write(&path, text).unwrap();
    }
}
