//! The machine a run is on: what it is called, what it can do; and where the program comes from.

use anyhow::{Context, Result};
use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A machine, as far as speeds depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Threads that run at once.
    pub threads: usize,
    /// Memory in GiB.
    pub memory: u64,
    /// Operating system and architecture.
    pub system: String,
}

impl Machine {
    /// This one. What the system does not say is left empty.
    pub fn here() -> Self {
        let field = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key))?.split_once(':')?.1;
            Some(line.trim().to_owned())
        };
        let kib =
            field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: kib.unwrap_or(0) >> 20,
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// A row of `processes.jsonl`: one for each process that worked on a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Seconds since 1970.
    pub begun: u64,
    /// The command line.
    pub command: Vec<String>,
    /// Version of the program.
    pub version: String,
    /// Commit of the repository it was started in, with `+` if files differ from it; none outside of one.
    pub commit: Option<String>,
    /// The device by name.
    pub device: String,
    /// Where it ran.
    pub machine: Machine,
}

impl Process {
    /// This one, on a device.
    pub fn here(device: &Device) -> Self {
        Self {
            begun: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            device: format!("{device:?}"),
            machine: Machine::here(),
        }
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let mut commit = git(&["rev-parse", "HEAD"])?;
    if git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty()) {
        commit.push('+');
    }
    Some(commit)
}

/// What [`roof`] measured, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Roof {
    machine: Machine,
    device: String,
    flops_per_second: f64,
}

/// Operations a second of this machine's products of matrices: what a network's are compared with where nothing else is
/// known. Measured in about a second, and then kept in `roof.json` of a run's folder for processes on the same machine.
///
/// # Errors
/// Names the file.
pub fn roof(folder: &Path, device: &Device) -> Result<f64> {
    let (path, machine, name) = (folder.join("roof.json"), Machine::here(), format!("{device:?}"));
    let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Roof>(&text).ok());
    if let Some(roof) = known.filter(|roof| (&roof.machine, &roof.device) == (&machine, &name)) {
        return Ok(roof.flops_per_second);
    }
    let flops_per_second = measure(device);
    let roof = Roof { machine, device: name, flops_per_second };
    let text = serde_json::to_vec_pretty(&roof)?;
    canvas_core::weights::write_atomically(&path, &text).with_context(|| path.display().to_string())?;
    Ok(flops_per_second)
}

/// The fastest of a second's products of two square matrices of f32, once the threads are awake.
fn measure(device: &Device) -> f64 {
    const SIDE: usize = 1024;
    const SECONDS: f64 = 1.0;
    let [left, right] = [0.5, 0.25].map(|value| Tensor::<2>::full([SIDE, SIDE], value, device));
    let (begun, mut fastest) = (Instant::now(), f64::INFINITY);
    while begun.elapsed().as_secs_f64() < SECONDS {
        let begun = Instant::now();
        drop(left.clone().matmul(right.clone()).slice([0..1, 0..1]).into_data());
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    2.0 * (SIDE as f64).powi(3) / fastest
}
