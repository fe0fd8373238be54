//! What a LoRA's settings say of its scale: an `alpha` beside the tensors, or the configuration that diffusers and peft save.

use super::super::{Source, WeightsError};
use super::key::{Part, Place};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// diffusers' key in the metadata of a file.
const METADATA: &str = "lora_adapter_metadata";

/// peft's file beside the tensors.
const CONFIG: &str = "adapter_config.json";

/// The configurations of the parts; peft's own has no part.
#[derive(Default)]
pub(super) struct Settings {
    /// The file that says it.
    path: PathBuf,
    parts: BTreeMap<Option<Part>, Config>,
}

/// What a configuration says of the scale.
struct Config {
    alpha: f64,
    /// Alphas of layers whose name ends with a pattern; a `^` in front means all of the name.
    patterns: Vec<(String, f64)>,
    /// Whether alpha is divided by the rank's root, not by the rank.
    root: bool,
}

impl Settings {
    /// Of the file's metadata, or of the file beside it.
    pub fn read(source: &Source) -> Result<Self, WeightsError> {
        if let Some(text) = source.metadata(METADATA) {
            let all = object(source.path().to_owned(), METADATA, text)?;
            return Self::of_parts(source.path().to_owned(), &all);
        }
        let path = source.path().with_file_name(CONFIG);
        let named = source.path().file_name().is_some_and(|name| name == super::FILES[1]);
        if !named || !path.is_file() {
            return Ok(Self::default());
        }
        let text =
            fs::read_to_string(&path).map_err(|source| WeightsError::Io { path: path.clone(), source })?;
        let all = object(path.clone(), CONFIG, &text)?;
        let config = Config::new(|key| all.get(key)).map_err(|error| error.at(&path))?;
        Ok(Self { path, parts: config.map(|config| (None, config)).into_iter().collect() })
    }

    fn of_parts(path: PathBuf, all: &Map<String, Value>) -> Result<Self, WeightsError> {
        let mut parts = BTreeMap::new();
        for part in Part::ALL {
            let get = |key: &str| all.get(&format!("{part}.{key}"));
            if let Some(config) = Config::new(get).map_err(|error| error.at(&path))? {
                parts.insert(Some(part), config);
            }
        }
        Ok(Self { path, parts })
    }

    /// The factor on a layer's product.
    pub fn scale(
        &self,
        source: &Source,
        place: &Place,
        alpha: Option<&String>,
        rank: Option<usize>,
    ) -> Result<f64, WeightsError> {
        let config = self.parts.get(&place.part);
        // Two whole matrices have no rank to divide by.
        let Some(rank) = rank else { return Ok(1.0) };
        let rank = rank as f64;
        match (alpha, config) {
            (None, None) => Ok(1.0),
            (Some(key), None) => Ok(source.scalar(key)? / rank),
            (None, Some(config)) => {
                Ok(config.alpha(&place.names[0]) / if config.root { rank.sqrt() } else { rank })
            }
            (Some(key), Some(_)) => Err(WeightsError::Tensor {
                path: source.path().to_owned(),
                key: key.clone(),
                expected: format!("no alpha, which {} gives already", self.path.display()),
                found: "one".to_owned(),
            }),
        }
    }
}

/// What is wrong with a field.
struct Wrong {
    key: String,
    expected: &'static str,
    found: String,
}

impl Wrong {
    fn at(self, path: &std::path::Path) -> WeightsError {
        let Self { key, expected, found } = self;
        WeightsError::Tensor { path: path.to_owned(), key, expected: expected.to_owned(), found }
    }
}

impl Config {
    /// None where no field of a configuration is there.
    fn new<'a>(get: impl Fn(&str) -> Option<&'a Value>) -> Result<Option<Self>, Wrong> {
        let number = |key: &str, value: &Value| {
            let wrong = || Wrong { key: key.to_owned(), expected: "a number", found: value.to_string() };
            value.as_f64().ok_or_else(wrong)
        };
        // LoHa and LoKr say `alpha`.
        let Some((key, alpha)) = ["lora_alpha", "alpha"].iter().find_map(|key| Some((key, get(key)?))) else {
            return Ok(None);
        };
        let mut patterns = Vec::new();
        for (pattern, value) in get("alpha_pattern").and_then(Value::as_object).into_iter().flatten() {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
            if !pattern.strip_prefix('^').unwrap_or(pattern).chars().all(plain) {
                let expected = "the end of a layer's name: other regular expressions are not supported";
                return Err(Wrong { key: "alpha_pattern".to_owned(), expected, found: pattern.clone() });
            }
            patterns.push((pattern.clone(), number("alpha_pattern", value)?));
        }
        let root = get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Ok(Some(Self { alpha: number(key, alpha)?, patterns, root }))
    }

    fn alpha(&self, name: &str) -> f64 {
        let fits = |pattern: &str| match pattern.strip_prefix('^') {
            Some(whole) => name == whole,
            None => name.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        };
        let found = self.patterns.iter().find(|(pattern, _)| fits(pattern));
        found.map_or(self.alpha, |(_, alpha)| *alpha)
    }
}

fn object(path: PathBuf, key: &str, text: &str) -> Result<Map<String, Value>, WeightsError> {
    serde_json::from_str(text).map_err(|error| WeightsError::Tensor {
        path,
        key: key.to_owned(),
        expected: "an object of settings".to_owned(),
        found: error.to_string(),
    })
}
