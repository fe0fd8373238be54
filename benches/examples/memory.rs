//! How much memory Stable Diffusion 1.5's networks need, and how fast they are loaded.
//!
//! ```text
//! cargo run --profile bench -p canvas-benches --example memory -- save FOLDER     # random weights: 3.8 GB
//! cargo run --profile bench -p canvas-benches --example memory -- read FOLDER     # the disk's own speed
//! cargo run --profile bench -p canvas-benches --example memory -- unet FOLDER BATCH HEIGHT WIDTH
//! cargo run --profile bench -p canvas-benches --example memory -- maps FOLDER BATCH HEIGHT WIDTH  # a hook looks at all
//! cargo run --profile bench -p canvas-benches --example memory -- guided FOLDER HEIGHT WIDTH
//! cargo run --profile bench -p canvas-benches --example memory -- together FOLDER HEIGHT WIDTH
//! cargo run --profile bench -p canvas-benches --example memory -- decode FOLDER BATCH HEIGHT WIDTH
//! ```
//!
//! Sizes are of latents. Each run loads its weights from the folder and prints the high-water mark of the process
//! (`VmHWM` of `/proc/self/status`, so Linux only) after loading and after the network has run.

use burn::module::Module;
use burn::prelude::*;
use canvas_core::weights::{Rules, Source, WeightsError, load_published, save_published};
use canvas_core::{Autoencoder, Backbone, Denoiser, Level, Memory, Preconditioned, Text, params, trace};
use canvas_sched::{Cfg, predict};
use canvas_unet::{Unet, UnetConfig};
use canvas_vae::AutoencoderKlConfig;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "memory (save | read) FOLDER, (unet | maps | decode) FOLDER BATCH HEIGHT WIDTH, \
                     or (guided | together) FOLDER HEIGHT WIDTH";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, folder, sizes @ ..] = &args[..] else { return Err(USAGE.into()) };
    let folder = PathBuf::from(folder);
    let sizes = sizes.iter().map(|size| size.parse()).collect::<std::result::Result<Vec<usize>, _>>()?;
    match (what.as_str(), &sizes[..]) {
        ("save", []) => save(&folder),
        ("read", []) => read(&unet_file(&folder)),
        ("unet", &[batch, height, width]) => unet(&folder, [batch, height, width], false),
        ("maps", &[batch, height, width]) => unet(&folder, [batch, height, width], true),
        ("guided", &[height, width]) => guided(&folder, [height, width], false),
        ("together", &[height, width]) => guided(&folder, [height, width], true),
        ("decode", &[batch, height, width]) => decode(&folder, [batch, height, width]),
        _ => Err(USAGE.into()),
    }
}

fn unet_file(folder: &Path) -> PathBuf {
    folder.join("unet.safetensors")
}

fn vae_file(folder: &Path) -> PathBuf {
    folder.join("vae.safetensors")
}

fn save(folder: &Path) -> Result<()> {
    let device = Device::flex();
    let (unet, vae) = (UnetConfig::sd1(), AutoencoderKlConfig::sd());
    save_published(&params::realise(unet.init(&device)), &unet_file(folder), &unet.published())?;
    save_published(&params::realise(vae.init(&device)), &vae_file(folder), &vae.published())?;
    Ok(())
}

/// Reads a file and drops it: what loading is compared with.
fn read(file: &Path) -> Result<()> {
    let (begun, mut buffer) = (Instant::now(), vec![0; 8 << 20]);
    let (mut file, mut bytes) = (File::open(file)?, 0);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => bytes += count as u64,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("read {} in {seconds:.2} s: {:.2} GB/s", mib(bytes), bytes as f64 / seconds / 1e9);
    Ok(())
}

/// Loads a network and says how long that took.
fn loaded<M: Module>(module: M, file: &Path, rules: &Rules) -> std::result::Result<M, WeightsError> {
    let begun = Instant::now();
    let (module, _) = load_published(module, &Source::open(file, None)?, rules)?;
    let (seconds, bytes) = (begun.elapsed().as_secs_f64(), 4 * module.num_params() as u64);
    println!("loaded {} in {seconds:.2} s: {:.2} GB/s", mib(bytes), bytes as f64 / seconds / 1e9);
    Ok(module)
}

/// Runs once, and prints the high-water mark before and after beside the estimate.
fn measured(estimate: Memory, run: impl FnOnce() -> Tensor<4>) -> Result<()> {
    println!("high water after loading {}", ratio(high_water()?, estimate.weights));
    let begun = Instant::now();
    let out = run();
    let (finite, seconds) = (out.is_finite().all().into_scalar::<bool>(), begun.elapsed().as_secs_f64());
    println!("ran in {seconds:.2} s");
    println!("high water after running {}", ratio(high_water()?, estimate.weights));
    println!("estimate {}", ratio(estimate.total(), estimate.weights));
    if finite { Ok(()) } else { Err("the output is not finite".into()) }
}

/// A forward, in which every attention map is made whole if it is looked at.
fn unet(folder: &Path, [batch, height, width]: [usize; 3], looked_at: bool) -> Result<()> {
    let (device, config) = (Device::flex(), UnetConfig::sd1());
    let unet = loaded(config.init(&device), &unet_file(folder), &config.published())?;
    let (x, time) = (random([batch, 4, height, width], &device), Tensor::full([batch], 0.5, &device));
    let cond = text(batch, &device);
    let estimate = config.estimate_memory([batch, height, width], 4, &device);
    let forward = || unet.forward(x, time, &cond);
    measured(estimate, || if looked_at { trace::with_hook(Rc::new(Looks), forward) } else { forward() })
}

/// Wants every activation, and does nothing.
struct Looks;

impl trace::Hook for Looks {}

/// A step of classifier-free guidance, its two halves together or one by one.
fn guided(folder: &Path, [height, width]: [usize; 2], together: bool) -> Result<()> {
    let (device, config) = (Device::flex(), UnetConfig::sd1());
    let unet: Unet = loaded(config.init(&device), &unet_file(folder), &config.published())?;
    let denoiser = Preconditioned { backbone: &unet, prediction: &predict::Epsilon };
    let cfg = Cfg::new(denoiser, text(1, &device), 7.5);
    let cfg = if together { cfg } else { cfg.one_by_one() };
    let (x, cond) = (random([1, 4, height, width], &device), text(1, &device));
    let at = [Level { time: 0.5, alpha: 0.6, sigma: 0.8 }];
    let estimate = config.estimate_memory([1 + usize::from(together), height, width], 4, &device);
    measured(estimate, || cfg.denoise(x, &at, &cond).x0)
}

fn decode(folder: &Path, [batch, height, width]: [usize; 3]) -> Result<()> {
    let (device, config) = (Device::flex(), AutoencoderKlConfig::sd());
    let vae = loaded(config.init(&device), &vae_file(folder), &config.published())?;
    let latents = random([batch, 4, height, width], &device);
    let estimate = config.estimate_decode_memory([batch, height, width], 4, &device);
    measured(estimate, || vae.decode(latents))
}

fn random<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(dims, burn::tensor::Distribution::Normal(0.0, 1.0), device)
}

/// 77 tokens, none hidden.
fn text(batch: usize, device: &Device) -> Text {
    let mask = Tensor::<2, Int>::ones([batch, 77], device).bool();
    Text { tokens: random([batch, 77, 768], device), mask, pooled: random([batch, 768], device) }
}

/// The most memory this process has had, in bytes.
fn high_water() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib =
        line.and_then(|line| line.trim().strip_suffix("kB")).ok_or("/proc/self/status has no VmHWM in kB")?;
    Ok(1024 * kib.trim().parse::<u64>()?)
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / 1048576.0)
}

fn ratio(bytes: u64, weights: u64) -> String {
    format!("{}: {:.3} of the weights", mib(bytes), bytes as f64 / weights as f64)
}
