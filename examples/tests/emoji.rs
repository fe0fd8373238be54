//! The program `emoji` from the outside: exact resume after kills, and what it says to bad input.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn emoji() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emoji"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    emoji().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
}

/// Standard error of a run that must fail.
fn complaint(arguments: &[&str]) -> String {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} should fail: {text}");
    assert!(!text.contains("panicked"), "{arguments:?} panicked: {text}");
    text
}

/// Standard output of a run that must succeed.
fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?} failed: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What two runs of one configuration must share, byte for byte.
const EXACT: [&str; 7] = [
    "autoencoder/log.jsonl",
    "autoencoder/evaluation.jsonl",
    "denoiser/log.jsonl",
    "denoiser/evaluation.jsonl",
    "autoencoder.safetensors",
    "model.safetensors",
    "samples.png",
];

fn assert_same(expected: &Path, found: &Path) {
    for name in EXACT {
        let same = fs::read(expected.join(name)).unwrap() == fs::read(found.join(name)).unwrap();
        assert!(same, "{name} of {} differs from the uninterrupted run", found.display());
    }
}

/// Moments that are random enough, from a fixed seed: xorshift.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        below.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}

#[test]
fn a_run_killed_at_twenty_moments_ends_as_if_it_had_not_been() {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    let begun = Instant::now();
    succeed(&["--smoke", "--out", text(&whole)]);
    let time = begun.elapsed();

    let (mut moments, mut kills, mut runs) = (Moments(0x9e37_79b9_7f4a_7c15), 0, 0);
    while kills < 20 {
        runs += 1;
        let folder = home.path().join(format!("killed-{runs}"));
        loop {
            // Killed before it wrote its configuration, a run is not there yet and starts anew.
            let begin = ["--smoke", "--out", text(&folder)];
            let resume = ["--resume", text(&folder)];
            let arguments = if folder.join("run.json").exists() { &resume[..] } else { &begin[..] };
            let mut child = emoji().args(arguments).spawn().unwrap();
            let deadline = Instant::now() + moments.next(time);
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                if Instant::now() >= deadline && kills < 20 {
                    break None;
                }
                std::thread::sleep(Duration::from_millis(2));
            };
            if let Some(status) = ended {
                assert!(status.success(), "a resumed run failed");
                break;
            }
            child.kill().unwrap(); // SIGKILL
            child.wait().unwrap();
            kills += 1;
        }
        assert_same(&whole, &folder);
    }
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
    assert!(said(&["--no-such-flag"]).contains("--no-such-flag"));
    assert!(complaint(&["--sample", text(&out), "--prompt", "red heart"]).contains("run.json"));
    assert!(!out.exists(), "a refused run leaves nothing behind");
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
