//! The program `emoji` from the outside: exact resume after kills, and what it says to bad input.

use crate::common::{Program, assert_same, images, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const EMOJI: Program = Program(env!("CARGO_BIN_EXE_emoji"));

fn emoji() -> Command {
    EMOJI.command()
}

fn run(arguments: &[&str]) -> Output {
    EMOJI.run(arguments)
}

fn complaint(arguments: &[&str]) -> String {
    EMOJI.complaint(arguments)
}

fn succeed(arguments: &[&str]) -> String {
    EMOJI.succeed(arguments)
}

#[test]
fn a_run_killed_at_twenty_moments_ends_as_if_it_had_not_been() {
    let home = tempfile::tempdir().unwrap();
    EMOJI.kill(20, home.path(), &["--smoke", "--tensorboard"], assert_same);
}

#[test]
fn a_run_goes_from_data_to_report_and_draws_again() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("run");
    let printed = succeed(&["--smoke", "--out", text(&folder), "--backbone", "unet", "--prediction", "edm"]);
    assert!(printed.contains("retrieval") && printed.contains("composition"), "{printed}");
    for name in ["samples.png", "held-out.png", "loss.png", "report.html", "results.json", "run.json"] {
        assert!(fs::metadata(folder.join(name)).unwrap().len() > 100, "{name}");
    }
    // Resuming a finished run changes nothing and ends at once.
    let before = fs::read(folder.join("model.safetensors")).unwrap();
    succeed(&["--resume", text(&folder)]);
    assert_eq!(before, fs::read(folder.join("model.safetensors")).unwrap());

    let draw = |seed: &str, sampler: &str, name: &str| {
        let picture = home.path().join(name);
        let arguments = ["--sample", text(&folder), "--prompt", "Red heart!", "--prompt", "blue circle"];
        let how = ["--sampler", sampler, "--steps", "3", "--guidance", "4", "--seed", seed];
        succeed(&[&arguments[..], &how[..], &["--picture", text(&picture)]].concat());
        fs::read(picture).unwrap()
    };
    assert_eq!(draw("7", "heun", "a.png"), draw("7", "heun", "b.png"));
    assert_ne!(draw("7", "heun", "a.png"), draw("8", "heun", "b.png"));
    for sampler in ["ddpm", "ddim", "euler", "dpmpp-2m", "dpmpp-2m-sde-karras", "euler-trailing"] {
        draw("7", sampler, "c.png");
    }
    let config = home.path().join("scheduler_config.json");
    let edm = r#"{"_class_name": "EDMEulerScheduler", "sigma_data": 1.0}"#;
    fs::write(&config, edm).unwrap();
    assert_ne!(draw("7", text(&config), "c.png"), draw("7", "heun", "b.png"));
    assert_eq!(draw("7", text(&config), "c.png"), draw("7", text(home.path()), "c.png"));
    fs::write(&config, r#"{"_class_name": "DDIMScheduler"}"#).unwrap();
    let with = ["--sample", text(&folder), "--prompt", "red heart", "--scheduler", text(&config)];
    let said = complaint(&with);
    assert!(said.contains("--scheduler") && said.contains("Epsilon") && said.contains("Edm"), "{said}");

    bad_drawings(&folder);
    bad_folders(&folder);
}

/// Complaints about drawing with a run that is there.
fn bad_drawings(folder: &Path) {
    let sample = |more: &[&str]| complaint(&[&["--sample", text(folder)], more].concat());
    assert!(sample(&["--prompt", ""]).contains("no word"));
    assert!(sample(&["--prompt", "  !? "]).contains("no word"));
    let long = "red ".repeat(40);
    let said = sample(&["--prompt", &long]);
    assert!(said.contains("42") && said.contains("16"), "{said}");
    let said = sample(&["--prompt", "red heart", "--sampler", "hein"]);
    assert!(said.contains("--scheduler") && said.contains("heun") && said.contains("ddim"), "{said}");
    let said = sample(&["--prompt", "red heart", "--scheduler", "heun-karas"]);
    assert!(said.contains("--scheduler") && said.contains("karras"), "{said}");
    assert!(sample(&["--prompt", "red heart", "--scheduler", "a/b.json"]).contains("a/b.json"));
    assert!(sample(&["--prompt", "red heart", "--steps", "0"]).contains("at least one step"));
    assert!(sample(&["--prompt", "red heart", "--guidance", "NaN"]).contains("not a number"));
    let nowhere = folder.join("no/such/folder/a.png");
    let said = sample(&["--prompt", "red heart", "--steps", "1", "--picture", text(&nowhere)]);
    assert!(said.contains("no/such/folder"), "{said}");

    let output = run(&["--sample", text(folder), "--prompt", "red haert", "--steps", "1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("haert") && said.contains("heart"), "{said}");
}

/// Complaints about folders: another run, a damaged one, another architecture.
fn bad_folders(folder: &Path) {
    let said = complaint(&["--smoke", "--out", text(folder)]);
    assert!(said.contains("holds a run already") && said.contains("--resume"), "{said}");
    let said = complaint(&["--resume", text(folder.parent().unwrap())]);
    assert!(said.contains("run.json"), "{said}");

    let model = folder.join("model.safetensors");
    let whole = fs::read(&model).unwrap();
    fs::write(&model, &whole[..whole.len() / 2]).unwrap();
    let said = complaint(&["--sample", text(folder), "--prompt", "red heart"]);
    assert!(said.contains("model.safetensors") && said.contains("truncated"), "{said}");
    fs::write(&model, &whole).unwrap();

    let checkpoints = folder.join("denoiser/checkpoints");
    let newest = newest(&checkpoints);
    let part = newest.join("optimizer.safetensors");
    let bytes = fs::read(&part).unwrap();
    fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
    let output = run(&["--resume", text(folder)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("passed over") && said.contains("truncated"), "{said}");
    assert_eq!(fs::read(&model).unwrap(), whole, "redoing the last steps gives the same weights");

    // An evaluation that is none is not left out in silence.
    let evaluations = folder.join("denoiser/evaluation.jsonl");
    let rows = fs::read_to_string(&evaluations).unwrap();
    fs::write(&evaluations, rows.replacen("\"held_out\"", "\"held_in\"", 1)).unwrap();
    let said = complaint(&["--report", text(folder)]);
    assert!(said.contains("evaluation.jsonl:1") && said.contains("held_out"), "{said}");
    fs::write(&evaluations, rows).unwrap();

    let config = folder.join("run.json");
    let other = fs::read_to_string(&config).unwrap().replace("\"unet\"", "\"dit\"");
    fs::write(&config, other).unwrap();
    let said = complaint(&["--resume", text(folder)]);
    assert!(
        said.contains("model.safetensors") && said.contains("missing") && said.contains("unexpected"),
        "{said}"
    );
    fs::write(&config, "{}").unwrap();
    assert!(complaint(&["--resume", text(folder)]).contains("run.json"));
}

fn newest(checkpoints: &Path) -> PathBuf {
    let mut all: Vec<PathBuf> =
        fs::read_dir(checkpoints).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all.pop().unwrap()
}

#[test]
fn wrong_flags_say_what_exists() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let said = |arguments: &[&str]| complaint(&[&["--smoke", "--out", text(&out)], arguments].concat());
    assert!(said(&["--backbone", "dot"]).contains("dit, unet"));
    assert!(said(&["--prediction", "eps"]).contains("epsilon"));
    assert!(said(&["--set", "some"]).contains("simple"));
    assert!(said(&["--device", "gpu"]).contains("flex"));
    assert!(said(&["--minutes", "-1"]).contains("--minutes"));
    assert!(said(&["--rate", "0"]).contains("--rate"));
    let said_of = |flag: &str, value: &str| {
        let text = said(&[flag, value]);
        assert!(text.contains(flag), "{text}");
        text
    };
    assert!(said_of("--accumulate", "0").contains("at least 1"));
    assert!(said_of("--accumulate", "17").contains("16 images"));
    assert!(said_of("--recompute", "0").contains("at least 1"));
    assert!(said_of("--averages", "power:1").contains("at most 0.28"));
    assert!(said_of("--decay", "cosin").contains("nearest: cosine"));
    assert!(said_of("--decay", "tail:385").contains("384"));
    assert!(said_of("--peak", "-3").contains("above 0"));
    assert!(said_of("--layers", "x").contains("invalid"));
    assert!(said(&["--accumulate", "4", "--recompute", "1"]).contains("cannot be used with"));
    assert!(said_of("--precision", "f16").contains("there are f32 and bf16"));
    assert!(said_of("--devices", "flex,flex,flex").contains("16 images"));
    assert!(said_of("--devices", "cuda:0,flex").contains("not of one kind"));
    assert!(said_of("--devices", "cuda:1,cuda:1").contains("twice"));
    assert!(said(&["--devices", "flex,flex", "--minutes", "1"]).contains("cannot be used with"));
    assert!(said(&["--devices", "flex,flex", "--device", "flex"]).contains("cannot be used with"));
    assert!(complaint(&["--report", text(&out)]).contains("run.json"));
    assert!(said(&["--no-such-flag"]).contains("--no-such-flag"));
    assert!(complaint(&["--sample", text(&out), "--prompt", "red heart"]).contains("run.json"));
    assert!(!out.exists(), "a refused run leaves nothing behind");
}

/// The denoiser's rows of a small run with these flags.
fn denoiser_rows(flags: &[&str]) -> Vec<serde_json::Value> {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    succeed(&[&["--smoke", "--out", text(&out)], flags].concat());
    let log = fs::read_to_string(out.join("denoiser/log.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How far the losses of a run are from another's, at most.
fn apart(found: &[serde_json::Value], expected: &[serde_json::Value]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let loss = |row: &serde_json::Value| row["loss"].as_f64().unwrap();
    let off = found.iter().zip(expected).map(|(found, expected)| (loss(found) / loss(expected) - 1.0).abs());
    off.fold(0.0, f64::max)
}

#[test]
fn devices_share_steps_and_bf16_trains_as_f32() {
    let alone = denoiser_rows(&[]);
    let shared = apart(&denoiser_rows(&["--devices", "flex,flex", "--accumulate", "3"]), &alone);
    let half = apart(&denoiser_rows(&["--precision", "bf16"]), &alone);
    println!("losses are off by {shared:.1e} of two devices, by {half:.1e} in bf16");
    assert!(shared > 0.0 && shared < 1e-5, "{shared:e}");
    assert!(half > 1e-5 && half < 1e-2, "{half:e}");
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let said = complaint(&["--smoke", "--out", text(&out), "--rate", "1e30"]);
    assert!(said.contains("not finite at image") && said.contains("first not finite"), "{said}");
    assert!(said.contains("--resume"), "{said}");
    // The first stage is done and stays whole.
    assert!(out.join("autoencoder.safetensors").exists());
}

/// What a run writes beside the usual: accumulated gradients, averages, another decay, event files; and the first Ctrl-C.
#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on_exactly() {
    let home = tempfile::tempdir().unwrap();
    let how = "--smoke --tensorboard --accumulate 6 --averages power:0.1,constant:0.5 --decay tail:100 --layers 3 --out";
    let arguments = |out: &Path| -> Vec<String> {
        how.split(' ').map(String::from).chain([text(out).to_owned()]).collect()
    };
    let whole = home.path().join("whole");
    assert!(emoji().args(arguments(&whole)).status().unwrap().success());
    let newest = newest(&whole.join("denoiser/checkpoints"));
    assert!(newest.join("average-2.safetensors").exists() && newest.join("average-3.safetensors").exists());

    let stopped = home.path().join("stopped");
    let mut child = emoji().args(arguments(&stopped)).stderr(Stdio::piped()).spawn().unwrap();
    let log = stopped.join("denoiser/log.jsonl");
    while fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped as asked after") && said.contains("--resume"), "{said}");
    let rows = images(&log);
    let checkpoint = self::newest(&stopped.join("denoiser/checkpoints"));
    assert_eq!(checkpoint.file_name().unwrap().to_str().unwrap().parse(), Ok(*rows.last().unwrap()));
    // What its files say so far.
    succeed(&["--report", text(&stopped)]);
    assert!(fs::read_to_string(stopped.join("report.html")).unwrap().contains("has not ended"));

    succeed(&["--resume", text(&stopped)]);
    assert_same(&whole, &stopped);
    let average =
        |run: &Path| fs::read(self::newest(&run.join("denoiser/checkpoints")).join("average-3.safetensors"));
    assert!(average(&whole).unwrap() == average(&stopped).unwrap());
}

/// The program `style`, on a run of this one and pictures of one colour.
#[test]
fn a_style_is_learned_and_its_folder_keeps_to_one() {
    let home = tempfile::tempdir().unwrap();
    let [base, pictures, out] = ["run", "pictures", "style"].map(|name| home.path().join(name));
    succeed(&["--smoke", "--out", text(&base)]);
    fs::create_dir(&pictures).unwrap();
    for (n, glyph) in ["2764", "1f34e", "1f34f", "1f34a", "1f34b", "1f34d"].into_iter().enumerate() {
        let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([40 * n as u8, 90, 200]));
        picture.save(pictures.join(format!("{glyph}.webp"))).unwrap();
    }
    let style = |images: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_style"));
        command.arg("--run").arg(&base).arg("--pictures").arg(&pictures).arg("--out").arg(&out);
        let output = command.args(["--images", images]).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = style("48");
    assert!(done, "{said}");
    for file in ["style.md", "style.png", "style.json", "pytorch_lora_weights.safetensors"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert_eq!(images(&out.join("log.jsonl")), [16, 32, 48]);
    let page = fs::read(out.join("style.json")).unwrap();
    let (done, said) = style("48");
    assert!(done && page == fs::read(out.join("style.json")).unwrap(), "{said}");
    let (done, said) = style("64");
    assert!(!done && said.contains("other settings: stage.images is 48, not 64"), "{said}");

    // What was learned, in drawings of this program.
    let (file, drawn) = (out.join("pytorch_lora_weights.safetensors"), home.path().join("drawn.png"));
    let asked = ["--sample", text(&base), "--prompt", "red heart", "--steps", "2", "--picture", text(&drawn)];
    let draw = |more: &[&str]| {
        succeed(&[&asked, more].concat());
        let sheet = image::open(&drawn).unwrap().to_rgb8();
        // The title, which names the LoRA, is above.
        sheet.rows().rev().take(200).flatten().copied().collect::<Vec<_>>()
    };
    let weighed = |weight: &str| draw(&["--lora", &format!("{}:{weight}", text(&file))]);
    let plain = draw(&[]);
    assert!(plain == weighed("0") && plain != weighed("30"));
    assert!(draw(&["--lora", text(&file)]) == weighed("1"));
    let refused = |file: &Path| complaint(&[&asked[..], &["--lora", text(file)]].concat());
    let missing = home.path().join("missing.safetensors");
    assert!(refused(&missing).contains(text(&missing)));
    let said = refused(&base.join("model.safetensors"));
    assert!(said.contains("--lora") && said.contains("model.safetensors") && said.contains("LoRA"), "{said}");
}

/// A file that cannot grow is what a full disk is: the shell sets the limit, and that it is an error and no signal.
#[cfg(unix)]
#[test]
fn a_full_disk_stops_the_run_in_words_with_the_last_checkpoint_whole() {
    let home = tempfile::tempdir().unwrap();
    let (whole, full) = (home.path().join("whole"), home.path().join("full"));
    succeed(&["--smoke", "--tensorboard", "--out", text(&whole)]);
    // The autoencoder's files fit, the denoiser's do not: blocks of 512 bytes.
    let script = "trap '' XFSZ; ulimit -f 400; exec \"$@\"";
    let arguments = ["-c", script, "sh", env!("CARGO_BIN_EXE_emoji"), "--smoke", "--tensorboard", "--out"];
    let output = Command::new("sh").args(arguments).arg(&full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !said.contains("panicked"), "{said}");
    assert!(said.contains("could not be written") && said.contains("model.safetensors"), "{said}");
    assert!(said.contains("there is none before it") && said.contains("--resume"), "{said}");
    assert!(full.join("autoencoder.safetensors").exists());
    let left = fs::read_dir(full.join("denoiser/checkpoints")).unwrap().count();
    assert_eq!(left, 0, "nothing is left of the checkpoint that did not fit");
    // There is room again.
    succeed(&["--resume", text(&full)]);
    assert_same(&whole, &full);
}
