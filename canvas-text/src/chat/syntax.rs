//! What transformers' templates write otherwise than minijinja.

use minijinja::value::Value as Variable;
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::Formatter;
use std::io::{self, Write};

/// The same template for minijinja. Within tags, a backslash at the end of a line joins a string's lines, as in
/// Python; and `generation`, which marks what the model is to learn, is a block that is always there.
pub(super) fn of_minijinja(template: &str) -> String {
    let (mut written, mut rest) = (String::with_capacity(template.len()), template);
    while let Some(start) = rest.find("{%").into_iter().chain(rest.find("{{")).min() {
        let length = tag(&rest[start..]);
        written += &rest[..start];
        written += &of_tag(&rest[start..start + length]);
        rest = &rest[start + length..];
    }
    written + rest
}

/// Bytes of the tag that the text begins with, its strings understood.
fn tag(text: &str) -> usize {
    let close = if text.starts_with("{%") { "%}" } else { "}}" };
    let (mut quote, mut escaped) = (None, false);
    for (at, letter) in text.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            None if text[at..].starts_with(close) => return at + close.len(),
            None => {}
        }
    }
    text.len()
}

fn of_tag(tag: &str) -> String {
    let inner = tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['}', '%', '-', '+']).trim();
    let tag = match inner {
        "generation" => tag.replace("generation", "if true"),
        "endgeneration" => tag.replace("endgeneration", "endif"),
        _ => tag.to_owned(),
    };
    joined(&tag)
}

/// Without the ends of lines that a backslash stands before; an escaped backslash does not count.
fn joined(tag: &str) -> String {
    let (mut written, mut letters) = (String::with_capacity(tag.len()), tag.chars());
    while let Some(letter) = letters.next() {
        match (letter, letters.clone().next()) {
            ('\\', Some('\n')) => drop(letters.next()),
            ('\\', Some(next)) => {
                letters.next();
                written.extend([letter, next]);
            }
            _ => written.push(letter),
        }
    }
    written
}

/// JSON as Python writes it: a blank behind commas and colons, nothing escaped that need not be.
pub(super) fn python_json(value: &Variable) -> Result<Variable, Error> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Python);
    let wrong = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    value.serialize(&mut serializer).map_err(wrong)?;
    // A safe string: what it holds is not escaped once more.
    Ok(Variable::from_safe_string(String::from_utf8(bytes).expect("JSON is UTF-8")))
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
