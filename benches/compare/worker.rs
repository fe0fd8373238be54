//! What a Rust side of `benches/compare/compare.py` answers, which starts it: see `benches/compare/README.md`. Both sides
//! are compiled with this file.
//!
//! Words of a line are separated by tabs, answers are one line each.

use std::error::Error;
use std::fs;
use std::io::{BufRead, stdin};
use std::path::Path;
use std::time::Instant;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Reads what a run computed: not part of its time.
pub type Output = Box<dyn FnOnce() -> Result<Vec<f32>>>;

/// A case, ready to run.
pub trait Work {
    /// All that is timed.
    fn run(&mut self) -> Result<Output>;

    /// How many parameters training has not moved. It is asked once.
    fn still(&mut self) -> Result<usize> {
        Ok(0)
    }
}

/// Runs of a case that changes its parameters, before its answer is compared.
const STEPS: usize = 5;

/// Answers lines until there are no more. `open` makes a case of a folder, or `None` where there is no such network;
/// `write` puts named numbers into a file of safetensors; `reserved` says how many bytes of a GPU's memory are taken, after
/// what nobody uses was given back if it is told so, or `None` where tensors are the process's own.
pub fn serve(
    open: impl Fn(&str, &Path) -> Result<Option<Box<dyn Work>>>,
    write: impl Fn(&Path, [(&str, &[f32]); 2]) -> Result<()>,
    reserved: impl Fn(bool) -> Result<Option<u64>>,
) -> Result<()> {
    let mut work: Option<Box<dyn Work>> = None;
    for line in stdin().lock().lines() {
        let line = line?;
        let answered = match (&line.split('\t').collect::<Vec<_>>()[..], &mut work) {
            (["load", case, folder, answer], work) => open(case, Path::new(folder)).and_then(|made| {
                let Some(mut made) = made else { return Ok("none".to_owned()) };
                let (seconds, output) = first(case, &mut *made)?;
                write(Path::new(answer), [("output", &output), ("still", &[made.still()? as f32])])?;
                *work = Some(made);
                Ok(format!("ok\t{seconds}"))
            }),
            (["run"], Some(work)) => timed(&mut **work).map(|(seconds, _)| seconds.to_string()),
            (["memory"], Some(work)) => memory(&mut **work, &reserved).map(|bytes| bytes.to_string()),
            (["quit"], _) => return Ok(()),
            _ => Err(format!("{line:?} is nothing that can be asked now").into()),
        };
        // Lists of keys have many lines, an answer has one.
        let error = |error: Box<dyn Error>| format!("error\t{}", error.to_string().replace('\n', "; "));
        println!("{}", answered.unwrap_or_else(error));
    }
    Ok(())
}

/// What is compared of a case, run as often as that needs; with the seconds of it.
fn first(case: &str, work: &mut dyn Work) -> Result<(f64, Vec<f32>)> {
    let begun = Instant::now();
    let changes = case.contains("train") || case == "adamw";
    let mut output = Vec::new();
    for _ in 0..if changes { STEPS } else { 1 } {
        output.extend(work.run()?()?);
    }
    Ok((begun.elapsed().as_secs_f64(), output))
}

/// The seconds of a run, and what it computed, still held: freeing it is not part of the time, as in the other sides.
fn timed(work: &mut dyn Work) -> Result<(f64, Output)> {
    let begun = Instant::now();
    let output = work.run()?;
    Ok((begun.elapsed().as_secs_f64(), output))
}

/// How far memory rises in a run above what was held before it.
fn memory(work: &mut dyn Work, reserved: impl Fn(bool) -> Result<Option<u64>>) -> Result<u64> {
    if let Some(before) = reserved(true)? {
        let _output = timed(work)?;
        return Ok(reserved(false)?.unwrap_or(0).saturating_sub(before));
    }
    let before = status("VmRSS:")?;
    fs::write("/proc/self/clear_refs", "5")?; // from here on VmHWM counts anew
    let _output = timed(work)?;
    Ok(status("VmHWM:")?.saturating_sub(before))
}

/// Bytes of a line of `/proc/self/status`.
fn status(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib = kib.ok_or_else(|| format!("/proc/self/status has no {field} in kB"))?;
    Ok(1024 * kib.trim().parse::<u64>()?)
}
