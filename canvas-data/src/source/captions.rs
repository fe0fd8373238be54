//! The rules of captions, the same for every source.

use super::options::{CaptionRules, Options, TextRule};
use crate::{Caption, Fault, Record, reason};
use serde_json::{Map, Value};

/// What a source found of an image.
#[derive(Default)]
pub(super) struct Found {
    pub image: Vec<u8>,
    /// Rows of tables about it: all of their captions are its captions.
    pub rows: Vec<Map<String, Value>>,
    /// Fields of its own JSON; their captions are used if the rows have none.
    pub json: Map<String, Value>,
    /// Its own texts, and how they are read; used if the others have no caption.
    pub texts: Vec<(Vec<u8>, TextRule)>,
    /// Where captions were looked for, for the one who has none.
    pub looked: String,
}

impl Options {
    /// The record of what was found, or which rule it breaks.
    pub(super) fn compose(&self, key: String, found: Found) -> Result<Record, Fault> {
        let mut fields = Map::new();
        let composed = (|| {
            let mut captions = Vec::new();
            for mut row in found.rows {
                captions.extend(self.take(&mut row)?);
                add(&mut fields, row);
            }
            let mut json = found.json;
            if captions.is_empty() {
                captions = self.take(&mut json)?;
            }
            add(&mut fields, json);
            if captions.is_empty() {
                let texts = found.texts.into_iter().map(|(text, rule)| written(text, rule));
                captions = texts.collect::<Result<Vec<_>, _>>()?.concat();
            }
            self.rules.check(captions, &found.looked)
        })();
        let captions = composed.map_err(|(reason, detail)| Fault::new(&key, reason, detail))?;
        Ok(Record { key, image: found.image, captions, fields })
    }

    /// Takes captions and their weights out of fields.
    fn take(&self, fields: &mut Map<String, Value>) -> Result<Vec<Caption>, Broken> {
        let mut captions = Vec::new();
        for name in self.caption_names() {
            let value = fields.get(name).filter(|value| !value.is_null());
            let Some(value) = value.cloned() else { continue };
            fields.remove(name);
            let found = texts(name, value)?;
            if !self.rules.required && found.iter().all(|caption| caption.text.is_empty()) {
                continue; // as if it were not there: the caption may stand elsewhere
            }
            captions.extend(found);
            if self.captions.is_empty() && !captions.is_empty() {
                break;
            }
        }
        if self.captions.is_empty() {
            // Beside the list, some writers name the first of it again.
            let again = |name| fields.get(name).and_then(Value::as_str).map(str::trim).map(str::to_owned);
            if again("caption").is_some_and(|again| captions.iter().any(|caption| caption.text == again)) {
                fields.remove("caption");
            }
        }
        let name = self.weights_name();
        match fields.get(name).filter(|value| !value.is_null()) {
            Some(value) if !captions.is_empty() => {
                let weighted =
                    weigh(captions, value).map_err(|why| (reason::WEIGHT, format!("{name}: {why}")))?;
                fields.remove(name);
                Ok(weighted)
            }
            _ => Ok(captions),
        }
    }
}

/// Adds the fields that are not there yet.
fn add(fields: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        fields.entry(name).or_insert(value);
    }
}

/// A reason, and what was expected and found.
pub(super) type Broken = (&'static str, String);

/// The captions of a field: a text, or a list of texts or of `{"text": .., "weight": ..}`.
fn texts(name: &str, value: Value) -> Result<Vec<Caption>, Broken> {
    let malformed = |found: &Value| {
        let expected = "expected a text, a list of texts or of {\"text\": .., \"weight\": ..}";
        (reason::MALFORMED, format!("{name}: {expected}, found {}", kind(found)))
    };
    let one = |value: Value| match value {
        Value::String(text) => Ok(Some(Caption::new(text.trim()))),
        Value::Null => Ok(None),
        Value::Object(mut parts) => {
            let weight = match parts.get("weight") {
                None | Some(Value::Null) => 1.0,
                Some(weight) => weight.as_f64().ok_or_else(|| {
                    (reason::WEIGHT, format!("{name}: expected a number above 0, found {weight}"))
                })?,
            };
            match parts.remove("text") {
                Some(Value::String(text)) => Ok(Some(Caption { text: text.trim().to_owned(), weight })),
                _ => Err(malformed(&Value::Object(parts))),
            }
        }
        other => Err(malformed(&other)),
    };
    match value {
        Value::Array(values) => values.into_iter().filter_map(|value| one(value).transpose()).collect(),
        value => Ok(one(value)?.into_iter().collect()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object without such fields",
    }
}

/// Gives captions their weights: one number, or a list of as many.
fn weigh(mut captions: Vec<Caption>, value: &Value) -> Result<Vec<Caption>, String> {
    // A CSV file knows texts only.
    let number = |value: &Value| match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    };
    let weights = match value {
        Value::Array(values) => values.iter().map(number).collect(),
        value => number(value).map(|weight| vec![weight]),
    };
    let weights: Vec<f64> = weights.ok_or("expected numbers")?;
    if weights.len() != captions.len() {
        return Err(format!(
            "expected {} numbers, one for each caption, found {}",
            captions.len(),
            weights.len()
        ));
    }
    for (caption, weight) in captions.iter_mut().zip(weights) {
        caption.weight = weight;
    }
    Ok(captions)
}

/// The captions of a text file.
fn written(bytes: Vec<u8>, rule: TextRule) -> Result<Vec<Caption>, Broken> {
    let text = String::from_utf8(bytes).map_err(|error| {
        (reason::NOT_UTF8, format!("byte {} of the text", error.utf8_error().valid_up_to()))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text); // editors on Windows mark UTF-8 with it
    let captions = match rule {
        TextRule::Lines if text.trim().is_empty() => vec![Caption::new("")],
        TextRule::Lines => {
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Caption::new).collect()
        }
        TextRule::FirstLine => vec![Caption::new(text.lines().next().unwrap_or_default().trim())],
        TextRule::Whole => vec![Caption::new(text.trim())],
    };
    Ok(captions)
}

impl CaptionRules {
    fn check(&self, mut captions: Vec<Caption>, looked: &str) -> Result<Vec<Caption>, Broken> {
        if captions.is_empty() && self.required {
            return Err((reason::NO_CAPTION, format!("looked for {looked}")));
        }
        if !self.required {
            captions.retain(|caption| !caption.text.is_empty());
        }
        let count = captions.len();
        for (number, caption) in captions.iter().enumerate() {
            let broken =
                |reason, what: String| Err((reason, format!("caption {} of {count}: {what}", number + 1)));
            if caption.text.is_empty() {
                return broken(reason::EMPTY_CAPTION, "there is nothing in it".into());
            }
            if caption.text.len() > self.longest {
                let what = format!("expected at most {} bytes, found {}", self.longest, caption.text.len());
                return broken(reason::LONG_CAPTION, what);
            }
            if let Some(place) = caption.text.find('\0') {
                return broken(reason::NUL, format!("at byte {place}"));
            }
            if !(caption.weight.is_finite() && caption.weight > 0.0) {
                return broken(
                    reason::WEIGHT,
                    format!("expected a number above 0, found {}", caption.weight),
                );
            }
        }
        Ok(captions)
    }
}

/// Fields of a JSON object.
pub(super) fn parse_fields(bytes: &[u8]) -> Result<Map<String, Value>, Broken> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (reason::NOT_UTF8, format!("byte {} of the JSON", error.valid_up_to())))?;
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text))
        .map_err(|error| (reason::MALFORMED, format!("expected a JSON object: {error}")))
}
