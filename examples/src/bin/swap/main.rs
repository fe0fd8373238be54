//! The swap: one recipe, six networks, each in one word. Which learns most from the same pictures?
//!
//! Trains DiT, SiT, U-ViT, LightningDiT, an MMDiT and a UNet of about the same size on the latents of the same emoji, in the
//! same order, with the same noise, and prints one table and one picture.
//!
//! `cargo run --release --bin swap`, about 40 minutes on two CPU cores; then look at `runs/swap/swap.png`.

mod measure;

use anyhow::{Context, Result};
use burn::prelude::*;
use canvas_examples::backbones::AnyBackbone;
use canvas_examples::config::RunConfig;
use canvas_examples::emoji_set::EmojiSet;
use canvas_examples::interrupt::Interrupt;
use canvas_examples::run::{self, Folder};
use canvas_examples::{device, interrupt};
use clap::Parser;
use measure::{Row, Runs};
use std::path::{Path, PathBuf};

/// Trains six networks on the same pictures, and compares them.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of the runs; what is there already is gone on with
    #[arg(long, value_name = "DIR", default_value = "runs/swap")]
    out: PathBuf,

    /// Images that each network is trained on, repeats counted
    #[arg(long, value_name = "N", default_value_t = 14_000)]
    images: u64,

    /// Seed of initialization, data order and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Walk the whole path in seconds with tiny networks; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

/// A network in the comparison.
struct Entry {
    /// As its paper calls it.
    title: &'static str,
    /// Of [`AnyBackbone`].
    backbone: &'static str,
    /// Of [`process`](canvas_examples::model::process).
    prediction: &'static str,
}

/// DiT and SiT are one network: noise is predicted on a diffusion's path, or velocity on a straight one.
const ENTRIES: [Entry; 6] = [
    Entry { title: "DiT", backbone: "adaln", prediction: "epsilon" },
    Entry { title: "SiT", backbone: "adaln", prediction: "flow" },
    Entry { title: "U-ViT", backbone: "u-vit", prediction: "flow" },
    Entry { title: "LightningDiT", backbone: "lightning", prediction: "flow" },
    Entry { title: "MMDiT", backbone: "mmdit", prediction: "flow" },
    Entry { title: "UNet", backbone: "unet", prediction: "flow" },
];

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device::open(&args.device)?;
    interrupt::ended(compare(&args, &device), "the same command goes on")
}

/// Trains all of them, and measures.
fn compare(args: &Args, device: &Device) -> Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    let mut runs = Runs::default();
    let interrupt = Interrupt::listen()?;
    for (number, entry) in ENTRIES.iter().enumerate() {
        let config = config(args, entry);
        let set = EmojiSet::build(config.which()?, config.side)?;
        let path = args.out.join(entry.title.to_lowercase());
        let (folder, _lock) = Folder::claim(&path, &config)?;
        if number > 0 {
            // The first stage is the same for all.
            let first = Folder(args.out.join(ENTRIES[0].title.to_lowercase()));
            take_over(&first.autoencoder(), &folder.autoencoder())?;
        }
        eprintln!("{}: {} images", entry.title, config.second.images);
        let make = |sizes, device: &_| AnyBackbone::new(entry.backbone, sizes, device);
        let trained = run::train(&folder, &config, &set, make, (&device.clone().into(), &interrupt))
            .with_context(|| path.display().to_string())?;
        rows.push(runs.measure(entry.title, &config, &set, &trained)?);
    }
    interrupt.ask();
    let entries: Vec<_> = ENTRIES.iter().map(|entry| (entry.backbone, config(args, entry))).collect();
    measure::speeds(&args.out, &entries, &mut rows, device)?;
    measure::report(&args.out, &rows, &runs)
}

/// The default recipe with this network and prediction.
fn config(args: &Args, entry: &Entry) -> RunConfig {
    let mut config = if args.smoke { RunConfig::smoke("swap") } else { RunConfig::standard("swap") };
    entry.backbone.clone_into(&mut config.backbone);
    entry.prediction.clone_into(&mut config.prediction);
    config.seed = args.seed;
    if !args.smoke {
        config.second.images = args.images;
    }
    config.second.evaluations = 4;
    config.second.checkpoints = 4;
    config
}

/// Copies a finished stage, unless it is there.
fn take_over(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    // Beside its place first, so that what is there is whole.
    let beside = to.with_extension("partial");
    copy(from, &beside)?;
    std::fs::rename(&beside, to).with_context(|| to.display().to_string())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}
