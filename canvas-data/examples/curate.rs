//! Runs the usual passes over pictures that it makes, and prints the funnel; with `cost`, what each pass costs.
//!
//! ```text
//! curate [IMAGES] [FOLDER]      judges so many generated images; FOLDER keeps the verdicts (verdicts.jsonl), and a second run goes on there
//! curate cost [IMAGES]          images a second of each pass alone on one core, and seconds of choosing among a million
//! ```
//!
//! To curate files, put one of the crate's sources where `generated` is.

use canvas_data::curate::{
    Bound, Characters, Choose, Clusters, Curation, Decodes, Field, Identical, Language, MaxAspect, MaxPixels,
    MinSide, NearDuplicates, Noted, Pass, PerceptualHash, Progress, Subject, Words,
};
use canvas_data::{Caption, Decode, Fault, InMemory, Record};
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use rand::{Rng, RngExt};
use serde_json::json;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let cost = arguments.next_if(|argument| argument == "cost").is_some();
    let images = arguments.next().map_or(Ok(500), |number| number.parse())?;
    let source = generated(images);
    if cost {
        return costs(&source);
    }
    let kept;
    let folder = match arguments.next() {
        Some(folder) => PathBuf::from(folder),
        None => {
            kept = tempfile::tempdir()?;
            kept.path().to_owned()
        }
    };
    let outcome = usual().run_watched(&source, &folder, &mut |progress| {
        let Progress { reading, images, of, found } = progress;
        eprint!("\rreading {reading}: {images} of {of}{}", if found { ", found" } else { "       " });
        ControlFlow::Continue(())
    })?;
    eprintln!();
    println!("{}\n", outcome.report());

    // What is kept goes to a writer of shards, one record at a time.
    let (mut records, mut bytes) = (0, 0);
    for record in outcome.kept_records(&source, &["shorter side", "aspect ratio"])? {
        let record = record?;
        (records, bytes) = (records + 1, bytes + record.image.len());
    }
    println!("{records} records, {bytes} bytes");

    // And every verdict to whoever reads JSON lines.
    let path = folder.join("verdicts.jsonl");
    let mut file = BufWriter::new(File::create(&path)?);
    for judged in outcome.verdicts()? {
        serde_json::to_writer(&mut file, &judged?)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// The usual passes, the cheap ones first.
fn usual() -> Curation<'static> {
    Curation::decoding(Decode::default())
        .pass(MinSide(192))
        .pass(MaxAspect(3.0))
        .pass(MaxPixels(100_000_000))
        .pass(Characters(5..=1000))
        .pass(Words(2..=200))
        .pass(Language::only(["eng"]).expect("a known language"))
        .pass(Field::new("punsafe", Bound::AtMost(0.5)).keep_unknown())
        .pass(Field::new("pwatermark", Bound::AtMost(0.8)).keep_unknown())
        .pass(Identical::bytes())
        .read_again()
        .pass(Decodes)
        .pass(Identical::pixels())
        .pass(NearDuplicates::default())
}

fn decode(record: &Record) -> Result<RgbImage, Fault> {
    Ok(Decode::default().picture(&record.key, &record.image)?.rgb)
}

/// Pictures of 256 x 256 pixels as JPEG of quality 90, among which there is some of everything that passes look for.
fn generated(images: usize) -> InMemory {
    let of = |number: usize| {
        let original = if number % 10 == 3 { number / 10 * 10 } else { number };
        let [width, height] = match number % 50 {
            7 => [96, 96],
            8 => [640, 200],
            _ => [256, 256],
        };
        let quality = if number % 20 == 3 { 60 } else { 90 };
        let mut image = jpeg(&picture(original as u64, [width, height]), quality);
        if number % 50 == 9 {
            image.truncate(image.len() / 2);
        }
        let caption = match number % 25 {
            5 => {
                "Ein brauner Hund läuft am Strand entlang, während sein Besitzer einen Stock ins Wasser wirft."
            }
            6 => "IMG",
            _ => "Soft waves of colour lie behind a pile of cards that somebody has left on the table.",
        };
        let mut fields = serde_json::Map::new();
        fields.insert("pwatermark".into(), json!((number * 37 % 100) as f64 / 100.0));
        Record { key: format!("{number:09}"), image, captions: vec![Caption::new(caption)], fields }
    };
    InMemory((0..images).map(of).collect())
}

fn picture(number: u64, [width, height]: [u32; 2]) -> RgbImage {
    let mut random = canvas_core::generator(7, number, 0);
    let colours: [[f32; 3]; 4] =
        std::array::from_fn(|_| std::array::from_fn(|_| 255.0 * random.random::<f32>()));
    let cards: [[f32; 4]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| random.random::<f32>()));
    RgbImage::from_fn(width, height, |x, y| {
        let [u, v] = [x as f32 / width as f32, y as f32 / height as f32];
        let inside =
            |card: &[f32; 4]| (u - card[0]).abs() < card[2] / 3.0 && (v - card[1]).abs() < card[3] / 3.0;
        let colour = cards.iter().position(inside).map_or(colours[3], |card| colours[card]);
        let shade = 0.6 + 0.4 * (9.0 * (u * cards[0][0] - v * cards[1][1])).sin();
        Rgb(colour.map(|value| (value * shade) as u8))
    })
}

fn jpeg(picture: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture).expect("a picture into memory");
    bytes
}

/// Times each pass alone, pictures that are decoded already where it needs them.
fn costs(source: &InMemory) -> Result<(), Box<dyn Error>> {
    let records: Vec<&Record> = source.0.iter().filter(|record| decode(record).is_ok()).collect();
    let subjects = || -> Vec<Subject<'_>> {
        records.iter().enumerate().map(|(n, record)| Subject::new(n, (*record).clone(), &decode)).collect()
    };
    let decoded = subjects();
    let bytes = records.iter().map(|record| record.image.len()).sum::<usize>() / records.len().max(1);
    println!("{} images of {bytes} bytes, one core\n", records.len());
    println!("{:24}  {:>12}  {:>18}", "pass", "images/s", "core hours/million");
    let passes: [(&str, &dyn Pass); 10] = [
        ("decoding", &Decodes),
        ("header: shorter side", &MinSide(192)),
        ("caption words", &Words(2..=200)),
        ("caption language", &Language::only(["eng"])?),
        ("a field", &Field::new("pwatermark", Bound::AtMost(0.8))),
        ("identical files", &Identical::bytes()),
        ("identical pixels", &Identical::pixels()),
        ("dHash", &NearDuplicates::default()),
        ("pHash", &NearDuplicates::new(PerceptualHash::Cosine, 4)),
        ("nothing: the loop", &Field::new("nothing", Bound::AtMost(0.0)).keep_unknown()),
    ];
    for (name, pass) in passes {
        let fresh = subjects();
        let of = if name == "decoding" || name.starts_with("header") { &fresh } else { &decoded };
        let start = Instant::now();
        let judged = of.iter().filter(|subject| pass.judge(subject).is_ok()).count();
        let rate = judged as f64 / start.elapsed().as_secs_f64();
        println!("{name:24}  {rate:>12.0}  {:>18.3}", 1e6 / rate / 3600.0);
        if name == "decoding" {
            decoded.iter().for_each(|subject| drop(subject.picture()));
        }
    }
    choosing()
}

/// Times those passes that compare, on a million random images.
fn choosing() -> Result<(), Box<dyn Error>> {
    const MILLION: usize = 1_000_000;
    let mut random = canvas_core::generator(1, 0, 0);
    // Every tenth is one bit off the one before it.
    let mut hashes: Vec<u64> = (0..MILLION).map(|_| random.next_u64()).collect();
    for number in (9..MILLION).step_by(10) {
        hashes[number] = hashes[number - 1] ^ (1 << (number % 64));
    }
    println!("\n{:32}  {:>8}  {:>9}", "choosing among a million", "seconds", "dropped");
    let time = |name: &str,
                whole: &dyn Choose,
                note: &dyn Fn(u64) -> serde_json::Value|
     -> Result<(), Box<dyn Error>> {
        let mut noted = hashes.iter().enumerate().map(|(number, &hash)| Noted { number, note: note(hash) });
        let start = Instant::now();
        let dropped = whole.choose(&mut noted)?.len();
        println!("{name:32}  {:>8.2}  {dropped:>9}", start.elapsed().as_secs_f64());
        Ok(std::io::stdout().flush()?)
    };
    time("identical files", &Identical::bytes(), &|hash| json!(format!("{hash:032x}")))?;
    for distance in [0, 4, 8] {
        let pass = NearDuplicates::new(PerceptualHash::Gradient, distance);
        let whole = pass.whole().expect("this pass compares");
        time(
            &format!("near duplicates, {distance} bits"),
            whole,
            &|hash| json!({ "hash": format!("{hash:016x}"), "pixels": 65_536 }),
        )?;
    }
    // A sixty-fourth of a million's work: time grows with images times clusters.
    let vectors: Vec<f32> = (0..15_625 * 512).map(|_| random.random::<f32>() - 0.5).collect();
    let start = Instant::now();
    let clusters = Clusters::spherical(&vectors, 512, 64, (1, 0));
    // Each number of a vector meets each centroid, in one round and at the end.
    let billions = 2.0 * 15_625.0 * clusters.centroids.len() as f64 / 1e9;
    println!("\nk-means: {:.1} billion multiplications a second", billions / start.elapsed().as_secs_f64());
    Ok(())
}
