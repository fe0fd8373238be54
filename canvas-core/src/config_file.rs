//! Configuration files of published models: JSON whose every field is honoured, or refused by its name.
//!
//! diffusers saves beside each network's weights the values that its class was made with. A reader takes the fields
//! it knows from [`Fields`], each by its name, and [`Fields::finish`] refuses whatever was not taken: nothing in a
//! file is passed over in silence. Absent and `null` are the class's defaults; names that begin with `_` are notes.
//!
//! # Example
//! ```
//! use canvas_core::config_file::{ConfigFileError, Fields};
//! use canvas_core::{ConfigError, check};
//!
//! #[derive(Debug)]
//! struct Small {
//!     width: usize,
//!     heads: usize,
//! }
//!
//! fn read(json: &str) -> Result<Small, ConfigFileError> {
//!     let fields = Fields::parse(json, "SmallModel")?;
//!     fields.only("act_fn", &["silu".into()])?;
//!     let heads = fields.number("heads")?.unwrap_or(2);
//!     let small = Small { width: fields.number("width")?.unwrap_or(64), heads };
//!     fields.finish(small, |small| check::divides(("heads", small.heads), ("width", small.width)))
//! }
//!
//! assert_eq!(read(r#"{"_class_name": "SmallModel", "width": 32}"#)?.width, 32);
//! let says = |json| read(json).unwrap_err().to_string();
//! assert_eq!(says(r#"{"act_fn": "gelu"}"#), r#"the text: act_fn: expected "silu", found "gelu""#);
//! assert_eq!(says(r#"{"depth": 3}"#), "the text: unknown fields depth");
//! assert_eq!(says(r#"{"heads": 7}"#), "the text: heads (7) must divide width (64)");
//! # Ok::<(), ConfigFileError>(())
//! ```

use crate::ConfigError;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why a configuration was not read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file is not there, or cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not JSON, or not an object.
    #[error("{origin} is not a configuration: {why}")]
    Syntax {
        /// The file, or "the text".
        origin: String,
        /// What the parser says.
        why: String,
    },
    /// A field with a value that is not honoured.
    #[error("{origin}: {field}: expected {expected}, found {found}")]
    Value {
        /// The file, or "the text".
        origin: String,
        /// The field.
        field: String,
        /// What is honoured.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Fields that the class has not: a typo, or a newer version of the library that wrote the file.
    #[error("{origin}: unknown fields {}", .fields.join(", "))]
    Unknown {
        /// The file, or "the text".
        origin: String,
        /// Their names.
        fields: Vec<String>,
    },
    /// Values that do not fit together.
    #[error("{origin}: {source}")]
    Config {
        /// The file, or "the text".
        origin: String,
        /// What does not fit.
        source: ConfigError,
    },
}

/// The fields of a file, each taken by its name; those that were not are an error in the end.
///
/// Every method that reads a field counts it as taken; [`has`](Self::has) does not read it.
#[derive(Debug)]
pub struct Fields {
    origin: String,
    values: Map<String, Value>,
    taken: RefCell<BTreeSet<String>>,
}

impl Fields {
    /// Reads a file; its `_class_name`, if it has one, must be this one.
    ///
    /// # Errors
    /// If there is no such file, if it is not a JSON object, or if it is of another class.
    pub fn open(path: &Path, class: &str) -> Result<Self, ConfigFileError> {
        let json = std::fs::read_to_string(path)
            .map_err(|source| ConfigFileError::Io { path: path.to_owned(), source })?;
        Self::new(path.display().to_string(), &json, class)
    }

    /// As [`open`](Self::open), from the text of a file.
    ///
    /// # Errors
    /// If it is not a JSON object, or of another class.
    pub fn parse(json: &str, class: &str) -> Result<Self, ConfigFileError> {
        Self::new("the text".to_owned(), json, class)
    }

    fn new(origin: String, json: &str, class: &str) -> Result<Self, ConfigFileError> {
        let why = |why: String| ConfigFileError::Syntax { origin: origin.clone(), why };
        let value: Value = serde_json::from_str(json).map_err(|error| why(error.to_string()))?;
        let Value::Object(values) = value else {
            return Err(why(format!("expected an object, found {value}")));
        };
        let fields = Self { origin, values, taken: RefCell::default() };
        fields.only("_class_name", &[Value::from(class)])?;
        Ok(fields)
    }

    /// The value of a field; `None` where it is absent or `null`.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.taken.borrow_mut().insert(field.to_owned());
        self.values.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is there, be it `null`: for the few classes that tell the two apart.
    pub fn has(&self, field: &str) -> bool {
        self.values.contains_key(field)
    }

    /// The error that says what was expected in place of what stands there.
    pub fn refuse(&self, field: &str, expected: &str) -> ConfigFileError {
        let found = self.values.get(field).map_or("nothing".into(), Value::to_string);
        let (origin, field, expected) = (self.origin.clone(), field.to_owned(), expected.to_owned());
        ConfigFileError::Value { origin, field, expected, found }
    }

    /// Refuses all but these values and an absent one: a field whose other values ask for what is not here.
    ///
    /// # Errors
    /// If another value stands there.
    pub fn only(&self, field: &str, honoured: &[Value]) -> Result<(), ConfigFileError> {
        let Some(found) = self.get(field) else { return Ok(()) };
        let same = |value: &Value| value == found || (value.is_number() && value.as_f64() == found.as_f64());
        if honoured.iter().any(same) {
            return Ok(());
        }
        let names: Vec<String> = honoured.iter().map(Value::to_string).collect();
        let expected = if names.is_empty() { "null".to_owned() } else { names.join(" or ") };
        Err(self.refuse(field, &expected))
    }

    /// A whole number, zero or above.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn number(&self, field: &str) -> Result<Option<usize>, ConfigFileError> {
        self.typed(field, "a whole number", whole)
    }

    /// A number.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn real(&self, field: &str) -> Result<Option<f64>, ConfigFileError> {
        self.typed(field, "a number", Value::as_f64)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool, ConfigFileError> {
        Ok(self.typed(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// A string.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn word(&self, field: &str) -> Result<Option<&str>, ConfigFileError> {
        self.typed(field, "a string", Value::as_str)
    }

    /// A string.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn word_or<'a>(&'a self, field: &str, default: &'a str) -> Result<&'a str, ConfigFileError> {
        Ok(self.word(field)?.unwrap_or(default))
    }

    /// A list of whole numbers.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn numbers(&self, field: &str, default: &[usize]) -> Result<Vec<usize>, ConfigFileError> {
        let found = self.typed(field, "a list of whole numbers", |value| list(value, whole))?;
        Ok(found.unwrap_or_else(|| default.to_vec()))
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn reals(&self, field: &str) -> Result<Option<Vec<f64>>, ConfigFileError> {
        self.typed(field, "a list of numbers", |value| list(value, Value::as_f64))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn words<'a>(&'a self, field: &str, default: &[&'a str]) -> Result<Vec<&'a str>, ConfigFileError> {
        let found = self.typed(field, "a list of strings", |value| list(value, Value::as_str))?;
        Ok(found.unwrap_or_else(|| default.to_vec()))
    }

    /// A configuration within this one: its fields are taken and finished as this one's are.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn object(&self, field: &str) -> Result<Option<Self>, ConfigFileError> {
        let values = self.typed(field, "an object", |value| value.as_object().cloned())?;
        let origin = format!("{}: {field}", self.origin);
        Ok(values.map(|values| Self { origin, values, taken: RefCell::default() }))
    }

    /// A whole number for each of so many levels: one for all, or a list with one a level.
    ///
    /// # Errors
    /// If something else stands there, or a list of another length.
    pub fn levels(&self, field: &str, default: usize, count: usize) -> Result<Vec<usize>, ConfigFileError> {
        let Some(value) = self.get(field) else { return Ok(vec![default; count]) };
        if let Some(number) = whole(value) {
            return Ok(vec![number; count]);
        }
        let list = self.numbers(field, &[])?;
        let expected = format!("a whole number or {count} of them, one a level");
        if list.len() == count { Ok(list) } else { Err(self.refuse(field, &expected)) }
    }

    /// Ends the reading: the configuration, once every field was taken and its values fit together.
    ///
    /// # Errors
    /// Names the fields that were never asked for, or says what `validate` does.
    pub fn finish<C>(
        &self,
        config: C,
        validate: impl FnOnce(&C) -> Result<(), ConfigError>,
    ) -> Result<C, ConfigFileError> {
        let (taken, origin) = (self.taken.borrow(), self.origin.clone());
        let left = self.values.keys().filter(|key| !key.starts_with('_') && !taken.contains(*key));
        let fields: Vec<String> = left.cloned().collect();
        if !fields.is_empty() {
            return Err(ConfigFileError::Unknown { origin, fields });
        }
        validate(&config).map_err(|source| ConfigFileError::Config { origin, source })?;
        Ok(config)
    }

    fn typed<'a, T>(
        &'a self,
        field: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigFileError> {
        self.get(field).map(|value| read(value).ok_or_else(|| self.refuse(field, expected))).transpose()
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

fn list<'a, T>(value: &'a Value, read: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json, "Net").unwrap()
    }

    #[test]
    fn values_of_another_type_are_refused_with_what_was_found() {
        let fields = fields(r#"{"a": -1, "b": "x", "c": [1, "x"], "d": [1, 2], "e": 1.5}"#);
        let says = |error: ConfigFileError| error.to_string();
        let cases = [
            (says(fields.number("a").unwrap_err()), "the text: a: expected a whole number, found -1"),
            (says(fields.real("b").unwrap_err()), "the text: b: expected a number, found \"x\""),
            (says(fields.flag("b", true).unwrap_err()), "the text: b: expected true or false, found \"x\""),
            (says(fields.word("a").unwrap_err()), "the text: a: expected a string, found -1"),
            (
                says(fields.numbers("c", &[]).unwrap_err()),
                "the text: c: expected a list of whole numbers, found [1,\"x\"]",
            ),
            (
                says(fields.reals("c").unwrap_err()),
                "the text: c: expected a list of numbers, found [1,\"x\"]",
            ),
            (
                says(fields.words("c", &[]).unwrap_err()),
                "the text: c: expected a list of strings, found [1,\"x\"]",
            ),
            (
                says(fields.levels("d", 1, 3).unwrap_err()),
                "the text: d: expected a whole number or 3 of them, one a level, found [1,2]",
            ),
            (
                says(fields.only("e", &[1.into(), 2.into()]).unwrap_err()),
                "the text: e: expected 1 or 2, found 1.5",
            ),
            (says(fields.only("e", &[]).unwrap_err()), "the text: e: expected null, found 1.5"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn absent_and_null_are_the_defaults() {
        let fields = fields(r#"{"a": null}"#);
        assert!(fields.has("a") && !fields.has("b"));
        for name in ["a", "b"] {
            assert_eq!(fields.number(name).unwrap(), None);
            assert!(fields.flag(name, true).unwrap());
            assert_eq!(fields.word_or(name, "x").unwrap(), "x");
            assert_eq!(fields.numbers(name, &[1, 2]).unwrap(), [1, 2]);
            assert_eq!(fields.words(name, &["x"]).unwrap(), ["x"]);
            assert_eq!(fields.levels(name, 4, 3).unwrap(), [4, 4, 4]);
            fields.only(name, &[]).unwrap();
        }
    }

    #[test]
    fn whole_floats_are_the_numbers_they_are() {
        let fields = fields(r#"{"a": 1.0, "b": [2]}"#);
        fields.only("a", &[1.into()]).unwrap();
        assert_eq!(fields.real("a").unwrap(), Some(1.0));
        assert_eq!(fields.levels("b", 1, 1).unwrap(), [2]);
    }

    #[test]
    fn files_of_another_class_and_no_files_are_refused() {
        let error = Fields::parse(r#"{"_class_name": "Other"}"#, "Net").unwrap_err().to_string();
        assert_eq!(error, "the text: _class_name: expected \"Net\", found \"Other\"");
        let error = Fields::parse("[1]", "Net").unwrap_err().to_string();
        assert_eq!(error, "the text is not a configuration: expected an object, found [1]");
        let error = Fields::open(Path::new("nowhere/config.json"), "Net").unwrap_err().to_string();
        assert!(error.starts_with("cannot read nowhere/config.json: "), "{error}");
    }
}
