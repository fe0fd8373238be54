//! The program `train` from the outside: from odd files to drawings, exact resume after kills, and what it says to bad input.

use crate::common::{EXACT, Program, assert_same, text};
use image::{Rgb, RgbImage};
use std::fs;
use std::path::Path;

const TRAIN: Program = Program(env!("CARGO_BIN_EXE_train"));

/// Kills of a run: `CANVAS_KILLS=50` for more.
const KILLS: usize = 12;

/// A picture of stripes.
fn picture(number: u32, width: u32, height: u32) -> RgbImage {
    let stripe = |x: u32, y: u32| ((x * (1 + number % 3) + y * (number / 3 % 4)) * 20 % 256) as u8;
    RgbImage::from_fn(width, height, |x, y| Rgb([stripe(x, y), (number * 37 % 256) as u8, stripe(y, x)]))
}

/// Thirty captioned pictures in two folders, wide and tall ones, and eight files that cannot be trained on.
fn make(folder: &Path) {
    for number in 0..30u32 {
        let place = folder.join(if number % 2 == 0 { "even" } else { "odd" });
        fs::create_dir_all(&place).unwrap();
        let (width, height) = if number % 3 == 0 { (96, 48 + number) } else { (64 + number, 90) };
        picture(number, width, height).save(place.join(format!("{number}.png"))).unwrap();
        fs::write(place.join(format!("{number}.txt")), format!("stripes number {number}\nA Picture, wide"))
            .unwrap();
    }
    let whole = fs::read(folder.join("even/0.png")).unwrap();
    let bad = [
        ("cut.png", &whole[..whole.len() / 2], Some(&b"a cut one"[..])),
        ("empty.png", b"", Some(b"an empty one")),
        ("page.jpg", b"<html>not found</html>", Some(b"no image")),
        ("alone.png", &whole, None),
        ("wordless.png", &whole, Some(b" \n")),
        ("latin.png", &whole, Some(b"caf\xe9")),
        ("orphan.txt", b"nothing beside it", None),
    ];
    for (name, bytes, caption) in bad {
        fs::write(folder.join(name), bytes).unwrap();
        if let Some(caption) = caption {
            fs::write(folder.join(name).with_extension("txt"), caption).unwrap();
        }
    }
    RgbImage::new(1, 1).save(folder.join("dot.png")).unwrap();
    fs::write(folder.join("dot.txt"), "a dot").unwrap();
}

fn same(expected: &Path, found: &Path) {
    assert_same(expected, found);
    for name in ["manifest.jsonl", "tokenizer.json", "latent_scale.json", "held-out.png"] {
        let [expected, found] = [expected, found].map(|folder| fs::read(folder.join(name)).unwrap());
        assert!(expected == found, "{name} differs from the uninterrupted run");
    }
}

#[test]
fn a_run_killed_while_it_looks_encodes_and_trains_ends_as_if_it_had_not_been() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    make(&data);
    let kills = std::env::var("CANVAS_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    TRAIN.kill(kills, home.path(), &["--data", text(&data), "--smoke", "--tensorboard"], same);
}

#[test]
fn odd_files_are_named_and_the_others_trained_on() {
    let home = tempfile::tempdir().unwrap();
    let (data, run) = (home.path().join("data"), home.path().join("run"));
    make(&data);
    let output = TRAIN.run(&["--data", text(&data), "--smoke", "--out", text(&run)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for expected in [
        "37 images: 30 kept, 7 dropped",
        "alone.png: looked for",
        "latin",
        "orphan.txt: there is no image",
        "58 captions of 35 words",
        "29 images to train on, 1 held out",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    for name in ["cut.png", "empty.png", "page.jpg", "alone.png", "wordless.png", "latin.png", "dot.png"] {
        let manifest = fs::read_to_string(run.join("manifest.jsonl")).unwrap();
        let row =
            manifest.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {manifest}"));
        assert!(row.contains("dropped"), "{row}");
    }
    for name in ["report.html", "samples.png", "held-out.png", "denoiser/preview-000000384.png"] {
        assert!(fs::metadata(run.join(name)).unwrap().len() > 100, "{name}");
    }
    let drawn = home.path().join("drawn.png");
    let draw = ["--sample", text(&run), "--steps", "2", "--picture", text(&drawn), "--prompt"];
    TRAIN.succeed(&[&draw[..], &["Stripes, number 7"]].concat());
    assert!(drawn.exists());
    assert!(TRAIN.complaint(&[&draw[..], &["qwzx"]].concat()).contains("qwzx"));
    assert!(TRAIN.complaint(&[&draw[..], &["stripes", "--size", "9x9"]].concat()).contains("16x16"));

    // Another run of the same, whose latents are all there before it begins, and whose steps are taken in parts, is the same.
    let (again, cache) = (home.path().join("again"), run.join("latents"));
    let begin = ["--data", text(&data), "--smoke", "--cache", text(&cache), "--out", text(&again)];
    TRAIN.succeed(&begin);
    for name in EXACT {
        assert!(fs::read(run.join(name)).unwrap() == fs::read(again.join(name)).unwrap(), "{name}");
    }

    // The run's autoencoder in another run.
    let other = home.path().join("other");
    let given = ["--data", text(&data), "--smoke", "--autoencoder", text(&run), "--cache", text(&cache)];
    TRAIN.succeed(
        &[&given[..], &["--backbone", "mmdit", "--accumulate", "4", "--out", text(&other)]].concat(),
    );
    let [a, b] = [&run, &other].map(|folder| fs::read(folder.join("autoencoder.safetensors")).unwrap());
    assert!(a == b && !other.join("autoencoder").exists());
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1, "one autoencoder, one file of latents");

    // What has changed since.
    fs::write(data.join("new.png"), fs::read(data.join("even/0.png")).unwrap()).unwrap();
    let said = TRAIN.complaint(&["--resume", text(&run)]);
    assert!(said.contains("not those that the run began with"), "{said}");
}

#[test]
fn pictures_of_several_proportions_are_trained_in_their_own() {
    let home = tempfile::tempdir().unwrap();
    let (data, run) = (home.path().join("data"), home.path().join("run"));
    make(&data);
    let begin = ["--data", text(&data), "--smoke", "--side", "32", "--aspect", "4", "--backbone", "unet"];
    let output = TRAIN.run(&[&begin[..], &["--enlarge", "2", "--out", text(&run)]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("32x32") && said.contains("48x16"), "{said}");
    let drawn = home.path().join("drawn.png");
    let draw =
        ["--sample", text(&run), "--prompt", "stripes", "--steps", "2", "--picture", text(&drawn), "--size"];
    TRAIN.succeed(&[&draw[..], &["16x64"]].concat());
    assert!(image::open(&drawn).is_ok());
    let said =
        TRAIN.complaint(&[&begin[..5], &["--aspect", "2", "--out", text(&home.path().join("x"))]].concat());
    assert!(said.contains("dit takes pictures of one size; of any do unet, mmdit"), "{said}");
}

#[test]
fn bad_arguments_say_what_is_needed_and_leave_no_folder() {
    let home = tempfile::tempdir().unwrap();
    let (data, out) = (home.path().join("data"), home.path().join("out"));
    make(&data);
    let with = |more: &[&str]| {
        let begin = ["--data", text(&data), "--smoke", "--out", text(&out)];
        let said = TRAIN.complaint(&[&begin[..], more].concat());
        assert!(!out.exists(), "{more:?}");
        said
    };
    for (more, expected) in [
        (&["--side", "20"][..], "--side 20: a multiple of 16"),
        (&["--aspect", "0.5"], "--aspect 0.5: a number of at least 1"),
        (&["--backbone", "lightening"], "nearest: lightning"),
        (&["--text", "line"], "nearest: lines"),
        (&["--format", "tabel"], "nearest: table"),
        (&["--enlarge", "0"], "--enlarge 0"),
        (&["--crop", "2"], "--crop 2"),
        (&["--minutes", "-1"], "--minutes -1"),
        (&["--accumulate", "99"], "a step has 16 images"),
        (&["--autoencoder", "nowhere"], "nowhere"),
        (&["--images", "0"], "--images"),
        (&["--format", "table"], "data"),
    ] {
        let said = with(more);
        assert!(said.contains(expected), "{more:?}: {said}");
    }
    let missing = home.path().join("missing");
    let said = TRAIN.complaint(&["--data", text(&missing), "--out", text(&out)]);
    assert!(said.contains(text(&missing)) && !out.exists(), "{said}");
    assert!(TRAIN.complaint(&["--out", text(&out)]).contains("--data PATH"));
    // A folder without captions: nothing is left, and why.
    let bare = home.path().join("bare");
    fs::create_dir(&bare).unwrap();
    picture(1, 64, 64).save(bare.join("a.png")).unwrap();
    let said = TRAIN.complaint(&["--data", text(&bare), "--survey"]);
    assert!(said.contains("0 images that can be trained on") && said.contains("a.txt"), "{said}");
}

#[test]
fn an_image_that_is_gone_stops_the_run_and_it_goes_on_when_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let (data, whole, run) = (home.path().join("data"), home.path().join("whole"), home.path().join("run"));
    make(&data);
    TRAIN.succeed(&["--data", text(&data), "--smoke", "--tensorboard", "--out", text(&whole)]);
    // Looked at, and then damaged: the survey of this run is the other's.
    fs::create_dir(&run).unwrap();
    for name in ["run.json", "manifest.jsonl", "tokenizer.json"] {
        fs::copy(whole.join(name), run.join(name)).unwrap();
    }
    let (path, aside) = (data.join("odd/7.png"), home.path().join("aside.png"));
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, b"").unwrap();
    let said = TRAIN.complaint(&["--resume", text(&run)]);
    assert!(said.contains("odd/7.png") && said.contains("empty") && said.contains("--resume"), "{said}");
    fs::rename(&aside, &path).unwrap();
    TRAIN.succeed(&["--resume", text(&run)]);
    same(&whole, &run);
}

/// A file that cannot grow is what a full disk is: the shell sets the limit, and that it is an error and no signal.
#[cfg(unix)]
#[test]
fn a_full_disk_stops_the_run_in_words_wherever_it_is_and_it_goes_on_when_there_is_room() {
    use std::process::Command;
    let home = tempfile::tempdir().unwrap();
    let (data, whole) = (home.path().join("data"), home.path().join("whole"));
    make(&data);
    TRAIN.succeed(&["--data", text(&data), "--smoke", "--tensorboard", "--out", text(&whole)]);
    // Blocks of 512 bytes, at which different files do not fit: the survey, the tokenizer, latents, checkpoints.
    for blocks in [8, 12, 24, 100, 400] {
        let run = home.path().join(format!("run-{blocks}"));
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut limited = Command::new("sh");
        limited.args([
            "-c",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_train"),
            "--smoke",
            "--tensorboard",
            "--data",
        ]);
        let output = limited.arg(&data).arg("--out").arg(&run).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !said.contains("panicked"), "{blocks}: {said}");
        assert!(
            said.contains("too large") && said.contains("--resume") && said.contains(text(&run)),
            "{blocks}: {said}"
        );
        TRAIN.succeed(&["--resume", text(&run)]);
        same(&whole, &run);
    }
}
