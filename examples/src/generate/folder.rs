//! A model in a folder of diffusers' layout: `model_index.json` and a folder for each component.

use super::args::Args;
use super::loader::Loader;
use super::model::json;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::weights::Report;
use serde_json::Value;
use std::path::PathBuf;

/// A folder whose components are read one by one.
pub struct Folder<'a> {
    /// Of the program.
    pub args: &'a Args,
    /// Where the networks go.
    pub device: &'a Device,
    /// Its `model_index.json`.
    pub index: Value,
    /// What became of every key, by component.
    pub reports: Vec<(String, Report)>,
}

impl<'a> Folder<'a> {
    /// Reads the index.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(args: &'a Args, device: &'a Device) -> Result<Self> {
        let path = args.model.join("model_index.json");
        let index = json(&path).with_context(|| {
            format!(
                "--model {}: expected a folder in diffusers' layout, with a model_index.json",
                args.model.display()
            )
        })?;
        Ok(Self { args, device, index, reports: Vec::new() })
    }

    /// The pipeline's class.
    pub fn class(&self) -> &str {
        self.index["_class_name"].as_str().unwrap_or("nothing")
    }

    /// Where the index is.
    pub fn index_path(&self) -> PathBuf {
        self.args.model.join("model_index.json")
    }

    /// Whether the index has such a component.
    pub fn has(&self, name: &str) -> bool {
        self.index[name].as_array().is_some_and(|pair| !pair[0].is_null())
    }

    /// A component's folder.
    ///
    /// # Errors
    /// If the index does not name it, or there is no such folder.
    pub fn component(&self, name: &str) -> Result<PathBuf> {
        let path = self.args.model.join(name);
        if self.has(name) && path.is_dir() {
            return Ok(path);
        }
        let found = match &self.index[name] {
            Value::Null => "no such entry".to_owned(),
            entry if entry[0].is_null() => "null".to_owned(),
            _ => format!("no folder {}", path.display()),
        };
        bail!("{}: {name}: expected the component, found {found}", self.index_path().display())
    }

    /// What reads components.
    pub fn loader(&mut self) -> Loader<'_> {
        Loader { args: self.args, device: self.device, reports: &mut self.reports }
    }

    /// A component's configuration file, as it is.
    ///
    /// # Errors
    /// If it is not there or no JSON.
    pub fn config(&self, name: &str, file: &str) -> Result<Value> {
        json(&self.component(name)?.join(file))
    }

    /// The scheduler's configuration.
    ///
    /// # Errors
    /// If it is not there or no JSON.
    pub fn scheduler(&self) -> Result<Value> {
        self.config("scheduler", "scheduler_config.json")
    }
}
