//! The programs `fashion` and `background` from the outside, on pictures that are made here.

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{Rgb, RgbImage, Rgba, RgbaImage};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn fashion(data: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fashion"));
    command.arg("--smoke").arg("--data").arg(data).arg("--out").arg(out).args(more).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn put(folder: &Path, name: &str, dims: &[u32], bytes: &[u8]) {
    let mut all = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|size| all.extend(size.to_be_bytes()));
    all.extend(bytes);
    let mut encoder = GzEncoder::new(fs::File::create(folder.join(name)).unwrap(), Compression::fast());
    encoder.write_all(&all).unwrap();
    encoder.finish().unwrap();
}

/// Pictures of ten kinds, a bright stripe each.
fn make(folder: &Path) {
    for (part, count) in [("train", 80u32), ("t10k", 40)] {
        let stripe = |i: u32, pixel: u32| if pixel / 28 / 3 == i % 10 { 200 + (pixel % 50) as u8 } else { 0 };
        let pictures: Vec<u8> =
            (0..count).flat_map(|i| (0..784).map(move |pixel| stripe(i, pixel))).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
        put(folder, &format!("{part}-images-idx3-ubyte.gz"), &[count, 28, 28], &pictures);
        put(folder, &format!("{part}-labels-idx1-ubyte.gz"), &[count], &labels);
    }
}

#[test]
fn both_networks_draw_and_are_measured() {
    let home = tempfile::tempdir().unwrap();
    make(home.path());
    for backbone in ["dit", "unet"] {
        let out = home.path().join(backbone);
        let output = fashion(home.path(), &out, &["--backbone", backbone]);
        assert!(output.status.success(), "{}", said(&output));
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        for row in [
            "| test pictures | 40 |",
            "| training pictures | 20 |",
            "| drawn, guidance 2 | 20 |",
            "| noise | 20 |",
        ] {
            assert!(table.contains(row), "{table}");
        }
        assert!(out.join(format!("{backbone}-guidance-2.png")).exists());
    }
}

/// A run that is stopped after its first half and gone on with ends in the same weights; other settings are refused.
#[test]
fn a_stopped_run_goes_on() {
    let home = tempfile::tempdir().unwrap();
    make(home.path());
    let [whole, stopped] = ["whole", "stopped"].map(|name| home.path().join(name));
    assert!(fashion(home.path(), &whole, &[]).status.success());
    assert!(fashion(home.path(), &stopped, &[]).status.success());
    // As if it had been killed after the last checkpoint but one.
    let checkpoints = stopped.join("denoiser/checkpoints");
    let mut found: Vec<_> = fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() > 1, "{found:?}");
    let last = found.pop().unwrap();
    fs::remove_dir_all(&last).unwrap();
    assert!(fashion(home.path(), &stopped, &[]).status.success());
    let again = fs::read(last.join("average.safetensors")).unwrap();
    let name = last.strip_prefix(&stopped).unwrap();
    assert!(again == fs::read(whole.join(name).join("average.safetensors")).unwrap(), "other weights");
    let [a, b] = [&whole, &stopped].map(|run| fs::read(run.join("found.json")).unwrap());
    assert!(a == b, "other measurements");

    let other = fashion(home.path(), &stopped, &["--seed", "1"]);
    assert!(
        !other.status.success() && said(&other).contains("other settings: seed is 0, not 1"),
        "{}",
        said(&other)
    );
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_stop_says_how_to_go_on() {
    let home = tempfile::tempdir().unwrap();
    make(home.path());
    let out = home.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fashion"));
    command.args(["--smoke", "--images", "6400", "--data"]).arg(home.path()).arg("--out").arg(&out);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let log = out.join("denoiser/log.jsonl");
    while fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(said(&output).contains("a checkpoint is written; the same command goes on"), "{}", said(&output));
    assert!(command.output().unwrap().status.success());
}

/// Discs to cut out, and so many places of a colour.
fn scenery(home: &Path, count: u8) -> [PathBuf; 2] {
    let [things, places] = ["things", "places"].map(|name| home.join(format!("{name}-{count}")));
    [&things, &places].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    for n in 0..17u8 {
        let disc = RgbaImage::from_fn(64, 50, |x, y| {
            let far = (f64::from(x) - 32.0).hypot(f64::from(y) - 25.0);
            Rgba([200, 10 * n, 30, if far < 24.0 { 255 } else { 0 }])
        });
        disc.save(things.join(format!("disc{n:02}.png"))).unwrap();
        fs::write(things.join(format!("disc{n:02}.txt")), "Disc.\n").unwrap();
    }
    for n in 0..count {
        RgbImage::from_pixel(30, 20, Rgb([3 * n, 180, 40]))
            .save(places.join(format!("Place{n}.png")))
            .unwrap();
    }
    [things, places]
}

#[test]
fn places_are_painted_and_a_folder_keeps_to_one_run() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("run");
    let background = |[things, places]: &[PathBuf; 2], scenes: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_background"));
        command.arg("--smoke").arg("--things").arg(things).arg("--places").arg(places).arg("--out").arg(&out);
        command.args(["--scenes", scenes]).output().unwrap()
    };
    let many = scenery(home.path(), 65);
    let output = background(&many, "64");
    assert!(!output.status.success() && said(&output).contains("--scenes 64: fewer than the 65 places"));
    assert!(!out.exists(), "a refused run leaves nothing behind");
    // As many places as scenes of which some would have none by chance.
    let places = scenery(home.path(), 48);
    let output = background(&places, "64");
    assert!(output.status.success(), "{}", said(&output));
    for file in ["background.md", "background.png", "background.json", "painter.safetensors"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert!(background(&places, "64").status.success(), "what is done is not done again");
    let other = background(&many, "66");
    assert!(!other.status.success() && said(&other).contains("other settings"), "{}", said(&other));
    for change in ["places is ", "scenes is 64, not 66", "set is \"64 scenes\", not \"66 scenes\""] {
        assert!(said(&other).contains(change), "{}", said(&other));
    }
}

#[test]
fn missing_data_says_how_to_get_it() {
    let home = tempfile::tempdir().unwrap();
    let output = fashion(&home.path().join("nowhere"), &home.path().join("run"), &[]);
    let text = said(&output);
    assert!(!output.status.success() && !text.contains("panicked"), "{text}");
    for word in ["nowhere/train-images-idx3-ubyte.gz", "apt-get install dataset-fashion-mnist"] {
        assert!(text.contains(word), "{text}");
    }
}
