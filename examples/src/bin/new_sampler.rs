//! A researcher's idea in one file: a sampler that no library crate knows, measured and put to use.
//!
//! [`Bashforth`] is below. `cargo run --release --bin new_sampler` compares it with the library's samplers on
//! data whose exact answer is known, in a second; with `--run DIR --prompt "red heart"` it also draws with a
//! trained run of `emoji`. It prints:
//!
//! ```text
//! steps       8              16             32             64             order
//! euler       1.1e-1 (  8)  5.5e-2 ( 16)  2.8e-2 ( 32)  1.4e-2 ( 64)   0.99
//! heun        1.9e-2 ( 15)  4.5e-3 ( 31)  1.1e-3 ( 63)  2.6e-4 (127)   2.04
//! dpmpp-2m    3.6e-2 (  8)  6.8e-3 ( 16)  2.5e-3 ( 32)  1.1e-3 ( 64)   1.16
//! bashforth   1.5e-2 (  8)  3.6e-3 ( 16)  8.5e-4 ( 32)  2.1e-4 ( 64)   2.05
//! ```
//!
//! (DPM-Solver++(2M) thinks in `ln(alpha / sigma)`, which is infinite at both ends of this grid: there it
//! falls back to first order, and that is what is left of its error.)

use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Hop, Level, Run, Sampler, Seeded, Step};
use canvas_examples::backbones::AnyBackbone;
use canvas_examples::bumps;
use canvas_examples::config::RunConfig;
use canvas_examples::draw::{Request, draw};
use canvas_examples::emoji_set::normalise_prompts;
use canvas_examples::model::DrawOptions;
use canvas_examples::run::Folder;
use canvas_examples::scheduler::Scheduler;
use canvas_sched::{DpmPp, Euler, Heun, Timesteps, schedule};
use clap::Parser;
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// The two-step Adams-Bashforth rule for `dx = x0 d(alpha) + eps d(sigma)`, one evaluation a step.
///
/// Signal and noise are each extrapolated to the middle of the hop from their last two estimates. Second
/// order; the first hop is Euler's. Needs no logarithm, so a start at `alpha = 0` and an end at `sigma = 0`
/// are hops like any other. On the flow schedule, where `alpha + sigma = 1`, it is Adams-Bashforth on the
/// velocity.
#[derive(Clone, Copy, Debug)]
struct Bashforth;

impl<const D: usize> Sampler<D> for Bashforth {
    fn step(&self, x: Tensor<D>, hop: &mut Hop<'_, D>) -> Step<D> {
        let (from, to) = (hop.from, hop.to);
        let here = hop.start(x);
        let mut next = here.carry(to); // Euler
        if let Some(past) = hop.past.last() {
            let (eps_change, x0_change) = (here.eps() - past.eps(), here.x0() - past.x0());
            // Half the next hop, in units of the last; a quantity that stands still (EDM's alpha) adds nothing.
            let weight = |h: f64, last: f64| if last == 0.0 { 0.0 } else { 0.5 * h * h / last };
            next = next
                + x0_change * weight(to.alpha - from.alpha, from.alpha - past.level.alpha)
                + eps_change * weight(to.sigma - from.sigma, from.sigma - past.level.sigma);
        }
        Step::exact(next, here)
    }

    fn memory(&self) -> usize {
        1
    }
}

/// Root mean square distance from the exact ends, over starts spread evenly, and the calls it took.
fn measure(sampler: &dyn Sampler<1>, steps: usize) -> (f64, usize) {
    let device = Device::flex();
    let schedule = schedule::Flow::default();
    let levels = Timesteps::uniform().levels(&schedule, steps).expect("a grid of at least one step");
    let starts: Vec<f64> = (-16..=16).map(|i| f64::from(i) / 8.0).collect();
    let calls = Cell::new(0);
    let oracle = |x: Tensor<1>, level: Level| {
        calls.set(calls.get() + 1);
        bumps::denoise(&x, level)
    };
    let x = Tensor::from_data(starts.iter().map(|&x| x as f32).collect::<Vec<_>>().as_slice(), &device);
    let mut noise = Seeded::new(0, []);
    let run = Run::new(sampler, &schedule, &levels, &mut noise).expect("a grid that falls");
    let ends = run.sample(oracle, x).into_data();
    let exact = |&start: &f64| bumps::quantile(bumps::share_below(start, levels[0]), levels[steps]);
    let distance = |(end, start): (f64, &f64)| (end - exact(start)).powi(2);
    let mean = ends.iter::<f64>().zip(&starts).map(distance).sum::<f64>() / starts.len() as f64;
    (mean.sqrt(), calls.get())
}

/// A row of the table: errors at each number of steps, and the order between the last two.
fn row(name: &str, sampler: &dyn Sampler<1>, steps: &[usize]) -> String {
    let measured: Vec<(f64, usize)> = steps.iter().map(|&n| measure(sampler, n)).collect();
    let cells: String = measured.iter().map(|(error, calls)| format!("  {error:.1e} ({calls:>3})")).collect();
    let [.., (before, _), (after, _)] = measured[..] else { unreachable!("two numbers of steps") };
    format!("{name:<10}{cells}  {:>5.2}", (before / after).log2())
}

/// Compares a new sampler with the library's, and draws with it.
#[derive(Parser, Debug)]
struct Args {
    /// Also draw with this trained run of `emoji`
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// What to draw
    #[arg(long, value_name = "TEXT", requires = "run", default_value = "red heart")]
    prompt: Vec<String>,
    /// Steps of the drawing
    #[arg(long, requires = "run", default_value_t = 20)]
    steps: usize,
    /// File of the drawing [default: bashforth.png in the run's folder]
    #[arg(long, value_name = "FILE", requires = "run")]
    picture: Option<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    println!("Error against the exact flow of two bumps, flow schedule (network calls in brackets)\n");
    println!("steps     {}  order", [8, 16, 32, 64].map(|n| format!("  {n:<13}")).concat());
    let samplers: [(&str, &dyn Sampler<1>); 4] =
        [("euler", &Euler), ("heun", &Heun), ("dpmpp-2m", &DpmPp::two_m()), ("bashforth", &Bashforth)];
    for (name, sampler) in samplers {
        println!("{}", row(name, sampler, &[8, 16, 32, 64]));
    }
    match &args.run {
        Some(folder) => draw_with(&args, folder),
        None => Ok(()),
    }
}

/// Draws with a trained run: the sampler goes where a name of the library's would.
fn draw_with(args: &Args, folder: &Path) -> Result<()> {
    let config = RunConfig::read(folder)?;
    config.expect_program("emoji", folder)?;
    let request = Request {
        prompts: normalise_prompts(&args.prompt)?,
        loras: Vec::new(),
        size: None,
        scheduler: "bashforth".into(),
        options: DrawOptions {
            scheduler: Scheduler::of(Bashforth),
            steps: args.steps,
            guidance: 3.0,
            seed: 0,
        },
        picture: args.picture.clone().unwrap_or_else(|| folder.join("bashforth.png")),
    };
    let backbone = |sizes, device: &Device| AnyBackbone::new(&config.backbone, sizes, device);
    draw(&Folder(folder.to_owned()), &config, backbone, &request, &Device::flex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bashforth_is_of_second_order_at_one_call_a_step() {
        let ((coarse, _), (fine, calls)) = (measure(&Bashforth, 32), measure(&Bashforth, 64));
        let order = (coarse / fine).log2();
        assert!((order - 2.0).abs() < 0.3, "order {order:.2} (errors {coarse:.2e}, {fine:.2e})");
        assert_eq!(calls, 64);
    }
}
