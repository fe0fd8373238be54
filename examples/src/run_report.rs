//! What a training stage's files say, as sections of a report: nothing is asked of the run but its folder, so that a run that
//! still trains, or was stopped, can be looked at as well.

use crate::denoiser::DenoiserRow;
use crate::heat::{self, HeatMap};
use crate::machine::Process;
use crate::plot::{Curve, Mark, Panel, page};
use crate::report::Section;
use crate::seeing::{LayersRow, SpeedRow, read};
use crate::sheet::png_bytes;
use crate::train_loop::{Row, rows};
use anyhow::{Context, Result};
use canvas_train::seeing::{LevelRow, Norms, block_of, grouped};
use image::RgbImage;
use serde_json::Value;
use std::path::Path;

const MIB: f64 = (1u64 << 20) as f64;

/// A number in about three digits.
fn digits(value: f64) -> String {
    let places = (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.places$}")
}

/// Everything a stage's folder holds, in sections; what is not there is left out.
///
/// # Errors
/// Names the file that cannot be read.
pub fn stage(folder: &Path, name: &str) -> Result<Vec<Section>> {
    let steps = rows(folder)?;
    if steps.is_empty() {
        return Ok(Vec::new());
    }
    let speed: Vec<SpeedRow> = read(folder, "speed.jsonl")?;
    let mut sections = vec![Section::Heading(format!("How it trained: {name}"))];
    sections.push(summary(&steps, &speed));
    let mut plots = of_steps(&steps);
    plots.extend(by_level(&read::<LevelRow>(folder, "levels.jsonl")?));
    // Another stage's evaluations have no levels.
    if read::<Value>(folder, "evaluation.jsonl")?.iter().any(|row| row.get("times").is_some()) {
        plots.extend(held_out(&read::<DenoiserRow>(folder, "evaluation.jsonl")?));
    }
    sections.push(picture(&page(&plots)?, &format!("{name}: losses, learning rate, gradients"))?);
    if !speed.is_empty() {
        sections.push(picture(&page(&of_speed(&speed))?, &format!("{name}: speed, time and memory"))?);
    }
    sections.extend(layers(&read::<LayersRow>(folder, "layers.jsonl")?)?);
    sections.extend(samples(folder)?);
    Ok(sections)
}

/// Who worked on the run: commands, commits, machines.
///
/// # Errors
/// Names the file that cannot be read.
pub fn processes(folder: &Path) -> Result<Vec<Section>> {
    let all: Vec<Process> = read(folder, "processes.jsonl")?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let row = |process: &Process| {
        let Process { command, version, commit, device, machine, .. } = process;
        let where_it_ran = format!(
            "{}, {} threads, {} GiB, {}",
            machine.processor, machine.threads, machine.memory, machine.system
        );
        let commit = commit.as_deref().map_or("-".to_owned(), |commit| commit.chars().take(12).collect());
        vec![command.join(" "), version.clone(), commit, device.clone(), where_it_ran]
    };
    Ok(vec![
        Section::Heading("Processes".into()),
        Section::Table {
            caption: "Each process that worked on the run, the first one first".into(),
            head: ["command", "version", "commit", "device", "machine"].map(String::from).to_vec(),
            rows: all.iter().map(row).collect(),
        },
    ])
}

fn picture(picture: &RgbImage, caption: &str) -> Result<Section> {
    Ok(Section::Picture { caption: caption.into(), png: png_bytes(picture)? })
}

fn panel(title: &str, y: &str, log_y: bool, curves: Vec<Curve>) -> Panel {
    Panel { title: title.into(), x_label: "images".into(), y_label: y.into(), log_x: false, log_y, curves }
}

fn curve<R>(name: &str, rows: &[R], point: impl Fn(&R) -> (u64, f64)) -> Curve {
    let points = rows.iter().map(|row| {
        let (images, value) = point(row);
        (images as f64, value)
    });
    Curve::new(name, points.collect())
}

fn of_steps(steps: &[Row]) -> Vec<Panel> {
    let loss = curve("each step", steps, |row| (row.images, row.loss));
    let norm = curve("each step", steps, |row| (row.images, row.grad_norm));
    // Over a fortieth of the run, at most a hundred steps.
    let keep = 1.0 - 40.0 / (steps.len() as f64).clamp(200.0, 4_000.0);
    let smooth = |curve: &Curve| vec![curve.clone().shown_as(Mark::Faint), curve.smoothed("smoothed", keep)];
    vec![
        panel("loss of training steps", "loss", true, smooth(&loss)),
        panel("gradient norm before clipping", "norm", true, smooth(&norm)),
        panel("learning rate", "rate", false, vec![curve("", steps, |row| (row.images, row.rate))]),
    ]
}

fn by_level(rows: &[LevelRow]) -> Option<Panel> {
    let bins = rows.first()?.losses.len();
    let named = |bin: usize| {
        let edges = &rows[0].edges;
        let points = rows.iter().filter_map(|row| Some((row.images as f64, *row.losses.get(bin)?.as_ref()?)));
        Curve::new(format!("{:.1} to {:.1}", edges[bin], edges[bin + 1]), points.collect())
    };
    let title = "loss of training steps by time (0 data, 1 noise)";
    Some(panel(title, "loss", true, (0..bins).map(named).filter(|curve| !curve.points.is_empty()).collect()))
}

fn held_out(rows: &[DenoiserRow]) -> Option<Panel> {
    let times = &rows.first()?.times;
    let at = |place: usize| {
        curve(&format!("t {:.2}", times[place]), rows, |row| {
            (row.images, row.held_out.get(place).copied().unwrap_or(f64::NAN))
        })
    };
    Some(panel("held-out loss at fixed levels", "loss", true, (0..times.len()).map(at).collect()))
}

fn of_speed(rows: &[SpeedRow]) -> Vec<Panel> {
    let share = |name: &str, part: fn(&SpeedRow) -> Option<f64>| {
        curve(name, rows, |row| {
            (row.images, part(row).map_or(f64::NAN, |part| 100.0 * part / row.split.seconds))
        })
    };
    let time = vec![
        share("data", |row| row.split.data),
        share("forward", |row| row.split.forward),
        share("backward", |row| row.split.backward),
        share("optimizer", |row| row.split.optimizer),
        share("evaluation", |row| Some(row.split.evaluation)),
        share("checkpoint", |row| Some(row.split.checkpoint)),
    ];
    let rate = curve("", rows, |row| (row.images, row.images_per_second));
    let mut plots =
        vec![panel("speed", "images/s", false, vec![rate]), panel("where the time goes", "%", false, time)];
    if rows.iter().any(|row| row.utilisation.is_some()) {
        let used = |row: &SpeedRow| (row.images, 100.0 * row.utilisation.unwrap_or(f64::NAN));
        plots.push(panel("model FLOPs utilisation", "%", false, vec![curve("", rows, used)]));
    }
    if rows.iter().any(|row| row.peak_bytes.is_some()) {
        let mib = |row: &SpeedRow| (row.images, row.peak_bytes.map_or(f64::NAN, |bytes| bytes as f64 / MIB));
        plots.push(panel("peak memory", "MiB", false, vec![curve("", rows, mib)]));
    }
    plots
}

/// What comes out of all intervals together.
fn summary(steps: &[Row], speed: &[SpeedRow]) -> Section {
    let last = steps.last().copied().unwrap_or(Row { images: 0, loss: 0.0, rate: 0.0, grad_norm: 0.0 });
    let mut rows =
        vec![vec!["images".into(), last.images.to_string()], vec!["steps".into(), steps.len().to_string()]];
    let sum = |part: fn(&SpeedRow) -> f64| speed.iter().map(part).sum::<f64>();
    let (seconds, training) = (sum(|row| row.split.seconds), sum(|row| row.split.training()));
    if training > 0.0 {
        let images: u64 = speed.iter().map(|row| row.images - row.from).sum();
        let flops = sum(|row| row.flops_per_second * row.split.training()) / training;
        rows.push(vec!["time of the intervals".into(), format!("{seconds:.0} s")]);
        rows.push(vec!["images/s while training".into(), digits(images as f64 / training)]);
        rows.push(vec!["model GFLOP/s".into(), digits(flops / 1e9)]);
        if let Some(used) = speed.iter().map(|row| row.utilisation).collect::<Option<Vec<f64>>>() {
            let used = used.iter().zip(speed).map(|(used, row)| used * row.split.training()).sum::<f64>();
            rows.push(vec!["model FLOPs utilisation".into(), format!("{:.1}%", 100.0 * used / training)]);
        }
        if let Some(bytes) = speed.iter().filter_map(|row| row.peak_bytes).max() {
            rows.push(vec!["peak memory".into(), format!("{:.1} MiB", bytes as f64 / MIB)]);
        }
    }
    let tail = &steps[steps.len() - (steps.len() / 50).max(1)..];
    let loss = tail.iter().map(|row| row.loss).sum::<f64>() / tail.len() as f64;
    rows.push(vec!["loss of the last fiftieth".into(), format!("{loss:.4}")]);
    Section::Table { caption: String::new(), head: Vec::new(), rows }
}

/// Heat maps of relative updates and of gradients, by block.
fn layers(rows: &[LayersRow]) -> Result<Vec<Section>> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
    let moments: Vec<Vec<Norms>> = rows.iter().map(|row| grouped(&row.norms, block_of)).collect();
    let names: Vec<String> = moments[0].iter().map(|block| block.name.clone()).collect();
    let map = |title: &str, size: fn(&Norms) -> f64| {
        let of = |name: &String, moment: &Vec<Norms>| {
            moment.iter().find(|block| &block.name == name).map_or(f64::NAN, size)
        };
        let values =
            names.iter().map(|name| moments.iter().map(|moment| of(name, moment)).collect()).collect();
        let ends = [first, last].map(|row| format!("{} images", row.images));
        let map = HeatMap { title: title.into(), ends, rows: names.clone(), values };
        picture(&heat::draw(&map, 1280)?, &format!("{title}; grey where it is zero, or the parameters are"))
    };
    Ok(vec![
        map("Update of a step relative to the parameters, by block", Norms::relative)?,
        map("Gradient norm before clipping, by block", |block| block.gradient)?,
    ])
}

/// The sample sheets of evaluations, oldest first.
fn samples(folder: &Path) -> Result<Vec<Section>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("preview-") && name.ends_with(".png") {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let read = |path: &std::path::PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    let pngs = paths.iter().map(read).collect::<Result<Vec<_>>>()?;
    let caption = "The same prompts with the same noise, over the run".into();
    Ok(vec![Section::Strip { caption, pngs }])
}
