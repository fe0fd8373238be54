//! A flow from eight Gaussians to two moons, distilled to few steps by every method of `canvas_train::distill`.
//!
//! `cargo run --release --bin distill` trains a teacher and its students and measures what they draw; `docs/distillation.md` has
//! what it found.

mod methods;
mod network;
mod page;
mod toy;

use anyhow::{Context, Result};
use canvas_examples::device;
use clap::Parser;
use network::Network;
use page::{Facts, Row};
use std::path::PathBuf;
use toy::{Draw, Drawn, Toy};

/// Distils a flow of the plane to few steps, and measures how far what is drawn is from the data.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder of the page and the picture
    #[arg(long, value_name = "DIR", default_value = "runs/distill")]
    out: PathBuf,

    /// Steps of a student; the teacher and students without one take twice as many
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(8..))]
    steps: u64,

    /// Points that are drawn to measure
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(2..))]
    points: u64,

    /// Of everything
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Walk the whole path in seconds; nothing worth looking at comes out
    #[arg(long)]
    smoke: bool,

    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    device: String,
}

const FEW: [usize; 3] = [1, 2, 4];

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.smoke {
        (args.steps, args.points) = (16, 32);
    }
    let device = device::open(&args.device)?;
    device.seed(args.seed);
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let toy = Toy::new(&device, args.steps, args.points as usize, args.seed);
    let row = |name, network: &Network, how, counts: &[usize]| -> Result<Row> {
        let drawn: Result<Vec<Drawn>> =
            counts.iter().map(|&steps| toy.measure(network, how, steps)).collect();
        Ok(Row { name, drawn: drawn? })
    };

    let teacher = methods::teacher(&toy, false)?;
    let mut rows = vec![row("teacher", &teacher, Draw::Euler, &[1, 2, 4, 8, 16, 64])?];
    let (reflowed, bend) = methods::reflow(&toy, &teacher)?;
    rows.push(row("rectified flow", &reflowed, Draw::Euler, &FEW)?);
    let mut halved = Row { name: "progressive", drawn: Vec::new() };
    for (steps, student) in methods::progressive(&toy, &teacher, 16)? {
        halved.drawn.push(toy.measure(&student, Draw::Euler, steps)?);
    }
    rows.push(halved);
    let student = methods::consistency_distilled(&toy, &teacher)?;
    rows.push(row("consistency, distilled", &student, Draw::Renoise, &FEW)?);
    let student = methods::consistency_trained(&toy)?;
    rows.push(row("consistency, trained", &student, Draw::Renoise, &FEW)?);
    let student = methods::mean_flow(&toy, Some(&teacher))?;
    rows.push(row("mean flow, distilled", &student, Draw::Jump, &FEW)?);
    let student = methods::mean_flow(&toy, None)?;
    rows.push(row("mean flow, trained", &student, Draw::Jump, &FEW)?);
    let score = methods::teacher(&toy, true)?;
    for (name, of_critic) in [("distribution matching", 0.0), ("the same, with a critic", 0.1)] {
        let student = methods::matched(&toy, &teacher, &score, of_critic)?;
        rows.push(row(name, &student, Draw::Renoise, &FEW)?);
    }

    let [steps, points, seed] = [args.steps, args.points, args.seed];
    let command =
        format!("cargo run --release --bin distill -- --steps {steps} --points {points} --seed {seed}");
    page::write(
        &args.out,
        &rows,
        &Facts { command, points: toy.points, least: methods::least(&toy)?, bend },
    )?;
    println!("{}\n{}", page::table(&rows), args.out.join("distill.md").display());
    Ok(())
}
