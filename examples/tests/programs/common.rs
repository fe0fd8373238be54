//! Running a program from the outside, and what two of its runs must share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A program that trains: the path of its binary.
#[derive(Clone, Copy)]
pub struct Program(pub &'static str);

impl Program {
    pub fn command(self) -> Command {
        let mut command = Command::new(self.0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub fn run(self, arguments: &[&str]) -> Output {
        self.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap()
    }

    /// Standard error of a run that must fail.
    pub fn complaint(self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} should fail: {text}");
        assert!(!text.contains("panicked"), "{arguments:?} panicked: {text}");
        text
    }

    /// Standard output of a run that must succeed.
    pub fn succeed(self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} failed: {text}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs of one configuration that are killed at so many random moments, all together, and gone on with until they end, in
    /// folders of `home`: the first, `whole`, is not. `same` is given it and each of the others.
    pub fn kill(self, kills: usize, home: &Path, arguments: &[&str], same: impl Fn(&Path, &Path)) {
        let whole = home.join("whole");
        let begun = Instant::now();
        self.succeed(&[arguments, &["--out", text(&whole)]].concat());
        let time = begun.elapsed();

        let (mut moments, mut killed, mut runs) = (Moments(0x9e37_79b9_7f4a_7c15), 0, 0);
        while killed < kills {
            runs += 1;
            let folder = home.join(format!("killed-{runs}"));
            loop {
                // Killed before it wrote its configuration, a run is not there yet and starts anew.
                let begin = [arguments, &["--out", text(&folder)]].concat();
                let resume = ["--resume", text(&folder)];
                let arguments = if folder.join("run.json").exists() { &resume[..] } else { &begin[..] };
                let mut child = self.command().args(arguments).spawn().unwrap();
                let deadline = Instant::now() + moments.next(time);
                let ended = loop {
                    if let Some(status) = child.try_wait().unwrap() {
                        break Some(status);
                    }
                    if Instant::now() >= deadline && killed < kills {
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
                killed += 1;
            }
            same(&whole, &folder);
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What two runs of one configuration must share, byte for byte.
pub const EXACT: [&str; 11] = [
    "autoencoder/log.jsonl",
    "autoencoder/layers.jsonl",
    "autoencoder/levels.jsonl",
    "autoencoder/evaluation.jsonl",
    "denoiser/log.jsonl",
    "denoiser/layers.jsonl",
    "denoiser/levels.jsonl",
    "denoiser/evaluation.jsonl",
    "autoencoder.safetensors",
    "model.safetensors",
    "samples.png",
];

pub fn assert_same(expected: &Path, found: &Path) {
    for name in EXACT {
        let same = fs::read(expected.join(name)).unwrap() == fs::read(found.join(name)).unwrap();
        assert!(same, "{name} of {} differs from the uninterrupted run", found.display());
    }
    for stage in ["autoencoder", "denoiser"] {
        let [expected, found] = [expected, found].map(|folder| folder.join(stage));
        // Times differ, but not at which images they are measured.
        assert_eq!(images(&found.join("speed.jsonl")), images(&expected.join("speed.jsonl")));
        let shown = shown_events(&found);
        assert_eq!(shown.len(), images(&found.join("log.jsonl")).len());
        assert_eq!(shown, shown_events(&expected), "events of {}", found.display());
    }
}

/// The images of each row of a log.
pub fn images(path: &Path) -> Vec<u64> {
    let images =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["images"].as_u64().unwrap();
    fs::read_to_string(path).unwrap().lines().map(images).collect()
}

/// Steps and bytes of the losses that TensorBoard shows of a stage: of its event files in the order of their names, without what
/// a later process has declared void, and without what was cut off.
fn shown_events(stage: &Path) -> Vec<(u64, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(stage).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().contains("events.out.tfevents."));
    files.sort();
    let mut shown: Vec<(u64, Vec<u8>)> = Vec::new();
    for bytes in files.iter().map(|file| fs::read(file).unwrap()) {
        let mut rest = &bytes[..];
        while let Some(length) = rest.first_chunk().map(|length| u64::from_le_bytes(*length) as usize) {
            let Some(message) = rest.get(12..12 + length) else { break };
            rest = rest.get(16 + length..).unwrap_or_default();
            // The time, then the step, then what it is: field 5 holds values, field 7 says that a process begins.
            let mut after = &message[9..];
            let step = if after[0] == 0x10 { varint(&mut after) } else { 0 };
            if after[0] == 0x3a {
                shown.retain(|(old, _)| *old < step);
            } else if after.windows(10).any(|window| window == b"train/loss") {
                shown.push((step, after.to_vec()));
            }
        }
    }
    shown
}

/// A number behind its tag.
fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let byte = bytes[1 + place];
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            *bytes = &bytes[2 + place..];
            return value;
        }
    }
    unreachable!("a number ends")
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
