//! Draws with a published Stable Diffusion: the same noise, the same picture as diffusers.

use canvas_examples::generate::args::Args;
use canvas_examples::generate::run::run;
use clap::Parser;

fn main() -> anyhow::Result<()> {
    run(&Args::parse())
}
