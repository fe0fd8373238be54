//! Measures how time and memory grow with tokens, images, blocks and steps, and writes `benches/growth/README.md`.
//!
//! `cargo run --release --bin growth`: about ten minutes, in which nothing else should run.

mod attention;
mod cost;
mod sampling;
mod training;

use anyhow::{Context, Result};
use clap::Parser;
use std::fs;
use std::path::{Path, PathBuf};

/// Measures how time and memory grow, and writes the page about it.
#[derive(Parser, Debug)]
struct Args {
    /// Folder of the page and its plots [default: benches/growth of the source]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/growth");
    let folder = Args::parse().out.unwrap_or(home);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.join("README.md");
    // Before the minutes of measuring: what cannot be written is said now.
    let page = fs::File::options().append(true).create(true).open(&path);
    page.with_context(|| path.display().to_string())?;
    let device = canvas_examples::device::open("flex")?;
    let mut page = INTRODUCTION.to_owned();
    page.push_str(&attention::section(&device, &folder)?);
    page.push_str(&training::section(&device, &folder)?);
    page.push_str(&sampling::section(&device, &folder)?);
    canvas_core::weights::write_atomically(&path, page.as_bytes())?;
    println!("{}", path.display());
    Ok(())
}

const INTRODUCTION: &str = "\
# How cost grows

`cargo run --release --bin growth` writes this page and its plots. Times are the median of three runs after a first, on the
machine of [RESULTS.md](../RESULTS.md)'s comparison, f32; memory is what is allocated at the highest moment (MiB), counted by
the allocator. *Power*: the `p` of `cost ~ size^p` between the last two sizes.
";
