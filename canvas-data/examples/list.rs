//! Lists a source of images as JSON lines, then its faults.
//!
//!     cargo run --release --example list -- PATH [split=train] [captions=short,long] [required=no] ..
//!
//! A line is `{"key", "captions": [[text, weight], ..], "fields", "bytes", "fnv1a"}` or `{"fault": key, "reason", "detail"}`. At the end
//! it counts both on the standard error.

mod arguments;

use anyhow::{Context, Error, Result};
use canvas_data::{Fault, Record, open};
use serde_json::{Value, json};
use std::io::{BufWriter, Write};

/// FNV-1a of 64 bits: tells images apart.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn line(record: &Record) -> Value {
    let captions: Vec<_> =
        record.captions.iter().map(|caption| json!([caption.text, caption.weight])).collect();
    let hash = format!("{:016x}", fnv1a(&record.image));
    json!({"key": record.key, "captions": captions, "fields": record.fields, "bytes": record.image.len(), "fnv1a": hash})
}

fn fault_line(fault: &Fault) -> Value {
    json!({"fault": fault.key, "reason": fault.reason, "detail": fault.detail})
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("expected a path")?;
    let source = open(path, &arguments::options(arguments).map_err(Error::msg)?)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut faults = 0;
    for index in 0..source.len() {
        match source.read(index) {
            Ok(record) => writeln!(out, "{}", line(&record))?,
            Err(fault) => {
                faults += 1;
                writeln!(out, "{}", fault_line(&fault))?;
            }
        }
    }
    for fault in source.faults() {
        writeln!(out, "{}", fault_line(fault))?;
    }
    out.flush()?;
    eprintln!(
        "{} images, {faults} of them with faults; {} other faults",
        source.len(),
        source.faults().len()
    );
    Ok(())
}
