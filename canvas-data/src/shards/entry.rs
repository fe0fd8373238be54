//! A record as the members of a tar file.

use super::ShardError;
use crate::source::{BLOCK, CAPTION_FIELDS};
use crate::{Caption, Record, decode};
use image::ImageFormat;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Names and bytes of a record's members.
pub(super) fn members(record: &Record, key: &str) -> Result<Vec<(String, Vec<u8>)>, ShardError> {
    let format = image::guess_format(&record.image).ok();
    let extension = format.map(extension).ok_or_else(|| ShardError::Record {
        key: record.key.clone(),
        why: "expected an image of a known format, by whose ending its member is named".into(),
    })?;
    let mut members = vec![(format!("{key}.{extension}"), record.image.clone())];
    if let Some(caption) = record.captions.first() {
        members.push((format!("{key}.txt"), caption.text.clone().into_bytes()));
    }
    let json = serde_json::to_vec(&fields(record, key)).expect("plain data");
    members.push((format!("{key}.json"), json));
    Ok(members)
}

fn extension(format: ImageFormat) -> &'static str {
    format.extensions_str().first().copied().unwrap_or("image")
}

/// The JSON of a record: img2dataset's fields first, then its own.
fn fields(record: &Record, key: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("key".into(), key.into());
    fields.insert("status".into(), "success".into());
    if let Some(caption) = record.captions.first() {
        fields.insert("caption".into(), caption.text.clone().into());
    }
    let plain = record.captions.len() < 2 && record.captions.iter().all(|caption| caption.weight == 1.0);
    if !plain {
        let one = |caption: &Caption| json!({"text": caption.text, "weight": caption.weight});
        fields.insert("captions".into(), record.captions.iter().map(one).collect());
    }
    if let Ok((width, height)) = decode::stored_size(&record.key, &record.image) {
        fields.insert("width".into(), width.into());
        fields.insert("height".into(), height.into());
    }
    for (name, value) in &record.fields {
        fields.entry(free_name(name, record)).or_insert_with(|| value.clone());
    }
    // Of a record that went through several hands, the first.
    fields.entry("source_key").or_insert_with(|| record.key.clone().into());
    fields
}

/// A field that readers would take for captions, which the record does not take it for, is called `was_NAME`.
fn free_name(name: &str, record: &Record) -> String {
    let mut free = name.to_owned();
    while CAPTION_FIELDS.contains(&&*free) || (free != name && record.fields.contains_key(&free)) {
        free.insert_str(0, "was_");
    }
    free
}

/// How many bytes members take in a tar file.
pub(super) fn size(members: &[(String, Vec<u8>)]) -> u64 {
    members.iter().map(|(_, bytes)| BLOCK + (bytes.len() as u64).next_multiple_of(BLOCK)).sum()
}

/// Adds a member whose header says nothing of the machine or the day.
pub(super) fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, bytes)
}
