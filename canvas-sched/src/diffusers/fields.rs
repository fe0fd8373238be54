//! Typed reading of a configuration that forgets nothing: what was not asked for is an error.

use super::DiffusersError;
use serde_json::{Map, Value};
use std::cell::RefCell;

/// Fields of some class in diffusers 0.42.1. Published files carry those of the class they were made from, and
/// diffusers ignores what its class has not.
const FIELDS: &[&str] = &[
    "algorithm_type",
    "base_image_seq_len",
    "base_shift",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_denoised",
    "clip_sample",
    "clip_sample_range",
    "corrector_order",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "invert_sigmas",
    "lambda_min_clipped",
    "lower_order_final",
    "max_image_seq_len",
    "max_shift",
    "noise_sampler_seed",
    "num_train_timesteps",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "predictor_order",
    "rescale_betas_zero_snr",
    "rho",
    "s_noise",
    "sample_max_value",
    "scale_factors",
    "set_alpha_to_one",
    "shift",
    "shift_terminal",
    "sigma_data",
    "sigma_max",
    "sigma_min",
    "sigma_schedule",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "stochastic_sampling",
    "tau_func",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "upscale_mode",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// The fields of one configuration, each taken by name with its class's default.
pub(super) struct Fields {
    pub(super) origin: String,
    pub(super) class: String,
    values: Map<String, Value>,
    asked: RefCell<Vec<&'static str>>,
}

impl Fields {
    pub(super) fn new(origin: String, class: String, values: Map<String, Value>) -> Self {
        Self { origin, class, values, asked: RefCell::default() }
    }

    /// The value that stands in the file; `null` counts as absent, as it does in diffusers' defaults.
    fn get(&self, field: &'static str) -> Option<&Value> {
        self.asked.borrow_mut().push(field);
        self.values.get(field).filter(|value| !value.is_null())
    }

    #[expect(clippy::needless_pass_by_value, reason = "numbers, words and JSON values alike")]
    pub(super) fn refuse(
        &self,
        field: &str,
        expected: impl ToString,
        found: impl ToString,
    ) -> DiffusersError {
        DiffusersError::Value {
            origin: self.origin.clone(),
            class: self.class.clone(),
            field: field.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    fn typed<T>(
        &self,
        field: &'static str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, DiffusersError> {
        let refused = |value: &Value| self.refuse(field, expected, value);
        self.get(field).map(|value| read(value).ok_or_else(|| refused(value))).transpose()
    }

    /// A finite number within `[low, high]`, or absent.
    pub(super) fn optional(
        &self,
        field: &'static str,
        low: f64,
        high: f64,
    ) -> Result<Option<f64>, DiffusersError> {
        let read = |value: &Value| {
            let number = value.as_f64().or_else(|| value.as_str()?.replace("Infinity", "inf").parse().ok());
            number.filter(|number| (low..=high).contains(number))
        };
        self.typed(field, &format!("a number within [{low}, {high}]"), read)
    }

    /// A finite number within `[low, high]`.
    pub(super) fn number(
        &self,
        field: &'static str,
        default: f64,
        low: f64,
        high: f64,
    ) -> Result<f64, DiffusersError> {
        Ok(self.optional(field, low, high)?.unwrap_or(default))
    }

    /// An integer within `[low, high]`.
    pub(super) fn count(
        &self,
        field: &'static str,
        default: usize,
        low: usize,
        high: usize,
    ) -> Result<usize, DiffusersError> {
        let read = |value: &Value| {
            value.as_u64().map(|number| number as usize).filter(|number| (low..=high).contains(number))
        };
        Ok(self.typed(field, &format!("an integer within [{low}, {high}]"), read)?.unwrap_or(default))
    }

    pub(super) fn flag(&self, field: &'static str, default: bool) -> Result<bool, DiffusersError> {
        Ok(self.typed(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// One of some words, as its index.
    pub(super) fn word(
        &self,
        field: &'static str,
        default: &str,
        known: &[&str],
    ) -> Result<String, DiffusersError> {
        let read = |value: &Value| value.as_str().filter(|word| known.contains(word)).map(str::to_owned);
        let expected = format!("one of {}", known.join(", "));
        Ok(self.typed(field, &expected, read)?.unwrap_or_else(|| default.to_owned()))
    }

    /// A list of numbers, or absent.
    pub(super) fn list(&self, field: &'static str) -> Result<Option<Vec<f64>>, DiffusersError> {
        let read = |value: &Value| value.as_array()?.iter().map(Value::as_f64).collect();
        self.typed(field, "a list of numbers", read)
    }

    /// A field that must be absent, `null` or this value, because another is not honoured.
    pub(super) fn only(&self, field: &'static str, value: &Value) -> Result<(), DiffusersError> {
        match self.get(field) {
            Some(found) if found != value => Err(self.refuse(field, format!("{value} or null"), found)),
            _ => Ok(()),
        }
    }

    /// Refuses fields nobody asked for, unless another class has them. Names that start with `_` are diffusers'
    /// own notes.
    pub(super) fn finish(&self) -> Result<(), DiffusersError> {
        let mut known = self.asked.borrow().clone();
        known.sort_unstable();
        known.dedup();
        let has = |name: &str| known.contains(&name) || FIELDS.contains(&name);
        let unknown = |name: &&String| !name.starts_with('_') && !has(name.as_str());
        let fields: Vec<String> = self.values.keys().filter(unknown).cloned().collect();
        if fields.is_empty() {
            return Ok(());
        }
        let (origin, class) = (self.origin.clone(), self.class.clone());
        Err(DiffusersError::UnknownFields { origin, class, fields, known })
    }
}

/// Puts quotes around `Infinity` and `NaN` outside of strings: Python writes them, JSON has not got them.
pub fn quoted(text: &str) -> String {
    let (mut out, mut rest, mut inside) = (String::new(), text, false);
    while let Some(next) = rest.chars().next() {
        let word =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !inside && rest.starts_with(word));
        if let Some(word) = word {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        let length = if next == '\\' && rest.len() > 1 {
            1 + rest[1..].chars().next().map_or(0, char::len_utf8)
        } else {
            next.len_utf8()
        };
        inside ^= next == '"';
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}
