//! Measures every sampler of the library and writes `canvas-sched/SAMPLERS.md` with its diagrams.
//!
//! `cargo run --release --bin samplers`; with `--check` it writes nothing, and fails if the page is not what it
//! would write.

mod diagrams;
mod facts;
mod orders;
mod page;
mod references;

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::path::{Path, PathBuf};

/// Measures the samplers and writes the page about them.
#[derive(Parser, Debug)]
struct Args {
    /// Write nothing; fail if the page differs from what would be written
    #[arg(long)]
    check: bool,
    /// Folder of the page, whose folder docs holds the diagrams [default: canvas-sched of the source]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../canvas-sched");
    let folder = args.out.unwrap_or(home);
    let path = folder.join("SAMPLERS.md");
    let page = page::page()?;
    if args.check {
        let there = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        return same(&there, &page).with_context(|| format!("{} is out of date", path.display()));
    }
    let pictures = folder.join("docs");
    std::fs::create_dir_all(&pictures).with_context(|| pictures.display().to_string())?;
    diagrams::draw(&pictures)?;
    std::fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("{}", path.display());
    Ok(())
}

/// Says the first line that differs.
fn same(there: &str, page: &str) -> Result<()> {
    let (mut old, mut new) = (there.lines(), page.lines());
    for number in 1.. {
        match (old.next(), new.next()) {
            (None, None) => return Ok(()),
            (left, right) if left == right => {}
            (left, right) => bail!(
                "line {number}: there is\n  {}\nand should be\n  {}\n(`cargo run --release --bin samplers` writes it)",
                left.unwrap_or("nothing"),
                right.unwrap_or("nothing")
            ),
        }
    }
    Ok(())
}
