//! Duplicates: identical, nearly so, and of one meaning, against definitions that compare all pairs.

use super::curate_common::{decode, encoded, record, verdicts};
use canvas_data::curate::{
    Clusters, Curation, Embed, HashIndex, Identical, NearDuplicates, Noted, Pass, PerceptualHash, SemDeDup,
    Side, Trouble,
};
use canvas_data::{Fault, InMemory, Record};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;
use rand::{Rng, RngExt};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::tempdir;

/// A picture of soft waves and some rectangles: as different from picture to picture as photographs' outlines are.
fn picture(number: u64, side: u32) -> RgbImage {
    let mut random = canvas_core::generator(7, number, 0);
    let mut between = |low: f32, high: f32| low + (high - low) * random.random::<f32>();
    let waves: Vec<[f32; 7]> = (0..4)
        .map(|_| {
            let [amplitude, phase] = [20.0_f32, 6.3].map(|most| [0; 5].map(|_| between(-most, most)));
            let [x, y] = [between(0.5, 3.0), between(0.5, 3.0)];
            [amplitude[0], amplitude[1], amplitude[2], phase[0], phase[1], x, y]
        })
        .collect();
    let boxes: Vec<[f32; 7]> = (0..5)
        .map(|_| {
            let [x, y] = [between(0.0, 0.8), between(0.0, 0.8)];
            let [w, h] = [between(0.1, 0.4), between(0.1, 0.4)];
            [x, y, x + w, y + h, between(0.0, 255.0), between(0.0, 255.0), between(0.0, 255.0)]
        })
        .collect();
    RgbImage::from_fn(side, side, |column, row| {
        let [u, v] = [column, row].map(|place| (place as f32 + 0.5) / side as f32);
        let inside = boxes.iter().rev().find(|b| b[0] <= u && u < b[2] && b[1] <= v && v < b[3]);
        let base = inside.map_or([128.0; 3], |b| [b[4], b[5], b[6]]);
        let mut colour = base;
        for [r, g, b, p, q, x, y] in &waves {
            let wave = (x * u * 6.3 + p).cos() * (y * v * 6.3 + q).cos();
            for (value, amplitude) in colour.iter_mut().zip([r, g, b]) {
                *value += amplitude * wave;
            }
        }
        Rgb(colour.map(|value| value.clamp(0.0, 255.0) as u8))
    })
}

fn png(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

fn jpeg(picture: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture).unwrap();
    bytes
}

fn resized(picture: &RgbImage, side: u32) -> RgbImage {
    imageops::resize(picture, side, side, FilterType::Triangle)
}

/// Cut off on each side, in pixels.
fn cropped(picture: &RgbImage, margin: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    imageops::crop_imm(picture, margin, margin, width - 2 * margin, height - 2 * margin).to_image()
}

fn curated(pass: impl Pass, source: &InMemory) -> Vec<Option<(String, Option<String>)>> {
    let folder = tempdir().unwrap();
    let outcome = Curation::new("rgb8", decode).pass(pass).run(source, folder.path()).unwrap();
    let like = |dropped: canvas_data::curate::Dropped| (dropped.reason, dropped.like);
    verdicts(&outcome).into_iter().map(|judged| judged.dropped.map(like)).collect()
}

#[test]
fn identical_files_and_identical_pixels() {
    let [one, two] = [1, 2].map(|number| picture(number, 32));
    let source = InMemory(vec![
        record("png", png(&one)),
        record("other", png(&two)),
        record("bmp", encoded(&one, ImageFormat::Bmp)),
        record("png again", png(&one)),
        record("jpeg", jpeg(&one, 95)),
        // The same bytes in another shape are another picture.
        record("wide", png(&RgbImage::from_raw(64, 16, one.clone().into_raw()).unwrap())),
    ]);
    let like = |pass: &str, key: &str| Some((pass.to_owned(), Some(key.to_owned())));
    let files = curated(Identical::bytes(), &source);
    assert_eq!(files, [None, None, None, like("identical files", "png"), None, None]);
    let same = like("identical pixels", "png");
    assert_eq!(curated(Identical::pixels(), &source), [None, None, same.clone(), same, None, None]);
}

/// dHash by its definition.
fn gradient_hash(picture: &RgbImage) -> u64 {
    let small = imageops::resize(&imageops::grayscale(picture), 9, 8, FilterType::Lanczos3);
    (0..64).fold(0, |hash, bit| {
        let [left, right] = [0, 1].map(|step| small.get_pixel(bit % 8 + step, bit / 8).0[0]);
        hash | u64::from(left < right) << bit
    })
}

#[test]
fn the_gradient_hash_is_the_defined_one() {
    let pass = NearDuplicates::default();
    for number in 0..20 {
        let picture = picture(number, 50);
        assert_eq!(pass.hash(&picture), gradient_hash(&picture), "picture {number}");
    }
    // Large pictures are averaged first.
    let apart = (0..20).map(|number| {
        let picture = picture(number, 256);
        (pass.hash(&picture) ^ gradient_hash(&picture)).count_ones()
    });
    let apart: Vec<u32> = apart.collect();
    assert_eq!((apart.iter().sum::<u32>(), apart.iter().max()), (9, Some(&2)), "of 1280 bits: {apart:?}");
    let ramp = |value: fn(u32) -> u32| RgbImage::from_fn(64, 64, |x, _| Rgb([value(x) as u8; 3]));
    assert_eq!(pass.hash(&ramp(|x| 4 * x)), u64::MAX);
    assert_eq!(pass.hash(&ramp(|x| 255 - 4 * x)), 0);
    assert_eq!(pass.hash(&ramp(|_| 200)), 0, "one colour is 0, whichever it is");
}

/// 200 different pictures, then five changed ones of each of the first 50: JPEG of quality 60, half the size, 1 and 3 of 96 pixels cut off
/// on each side, brighter by 25 of 255.
fn changed_pictures() -> InMemory {
    let different: Vec<RgbImage> = (0..200).map(|number| picture(number, 96)).collect();
    let mut records: Vec<Record> = different
        .iter()
        .enumerate()
        .map(|(number, picture)| record(format!("{number}"), png(picture)))
        .collect();
    for (number, picture) in different[..50].iter().enumerate() {
        let changed = [
            jpeg(picture, 60),
            png(&resized(picture, 48)),
            png(&cropped(picture, 1)),
            png(&cropped(picture, 3)),
            png(&imageops::brighten(picture, 25)),
        ];
        let changed = changed.into_iter().enumerate();
        records.extend(changed.map(|(how, image)| record(format!("{number} changed {how}"), image)));
    }
    InMemory(records)
}

/// Of each change, how many of the 50 are found; and how many of the 200 different pictures are taken for another.
fn found(source: &InMemory, hash: PerceptualHash, distance: u32) -> ([usize; 5], usize) {
    let fates = curated(NearDuplicates::new(hash, distance), source);
    let mut right = [0; 5];
    for (place, fate) in fates[200..].iter().enumerate() {
        let original = (place / 5).to_string();
        right[place % 5] +=
            usize::from(fate.as_ref().is_some_and(|(_, like)| like.as_ref() == Some(&original)));
    }
    (right, fates[..200].iter().flatten().count())
}

#[test]
fn averaging_large_pictures_first_changes_few_bits() {
    for hash in [PerceptualHash::Gradient, PerceptualHash::Cosine] {
        let pass = NearDuplicates::new(hash, 4);
        let apart = (0..20).map(|number| {
            let large = picture(number, 256);
            // Narrower than what is averaged, and resized by a better filter.
            let small = imageops::resize(&large, 143, 143, FilterType::CatmullRom);
            (pass.hash(&large) ^ pass.hash(&small)).count_ones()
        });
        let apart: Vec<u32> = apart.collect();
        assert!(apart.iter().all(|&bits| bits <= 2), "{hash:?}: {apart:?}");
    }
}

#[test]
fn near_duplicates_are_found_and_different_pictures_are_not() {
    let source = changed_pictures();
    let of = |hash, distance| found(&source, hash, distance);
    assert_eq!(of(PerceptualHash::Gradient, 4), ([50, 50, 42, 21, 50], 0)); // the default
    assert_eq!(of(PerceptualHash::Gradient, 8), ([50, 50, 50, 44, 50], 0));
    assert_eq!(of(PerceptualHash::Cosine, 4), ([50, 50, 44, 18, 49], 0));
    assert_eq!(of(PerceptualHash::Cosine, 8), ([50, 50, 48, 44, 50], 0));
    // Too far: different pictures are taken for each other.
    assert_eq!(of(PerceptualHash::Gradient, 16), ([48, 48, 48, 48, 48], 13));
}

/// Hashes of which many are near to others.
fn hashes() -> impl Strategy<Value = Vec<u64>> {
    let centres = prop::collection::vec(any::<u64>(), 1..5);
    let around = prop::collection::vec(
        (any::<prop::sample::Index>(), prop::collection::vec(0_u32..64, 0..12)),
        0..120,
    );
    (centres, around).prop_map(|(centres, around)| {
        let flipped = |(centre, bits): (prop::sample::Index, Vec<u32>)| {
            bits.into_iter().fold(*centre.get(&centres), |hash, bit| hash ^ 1 << bit)
        };
        around.into_iter().map(flipped).collect()
    })
}

/// Which are dropped, and their nearest kept ones: all pairs, from the largest to the smallest.
fn near_by_definition(images: &[(u64, u64)], distance: u32) -> BTreeMap<usize, usize> {
    let apart = |a: usize, b: usize| (images[a].0 ^ images[b].0).count_ones();
    let mut order: Vec<usize> = (0..images.len()).collect();
    order.sort_by_key(|&image| (u64::MAX - images[image].1, image));
    let mut kept: Vec<usize> = Vec::new();
    for &image in &order {
        if kept.iter().all(|&other| apart(image, other) > distance) {
            kept.push(image);
        }
    }
    let dropped = order.iter().filter(|image| !kept.contains(image));
    // `min_by_key` takes the first of equals, and those that are kept are in order.
    dropped.map(|&image| (image, *kept.iter().min_by_key(|&&other| apart(image, other)).unwrap())).collect()
}

proptest! {
    #[test]
    fn the_index_finds_what_comparing_all_finds(hashes in hashes(), distance in 0_u32..=64, asked in any::<u64>()) {
        let index = HashIndex::new(hashes.clone(), distance);
        for query in hashes.iter().copied().take(20).chain([asked]) {
            let mut found = Vec::new();
            index.within(query, &mut |position, distance| found.push((position, distance)));
            found.sort_unstable();
            let all = hashes.iter().map(|hash| (hash ^ query).count_ones()).enumerate();
            prop_assert_eq!(found, all.filter(|(_, apart)| *apart <= distance).collect::<Vec<_>>());
        }
    }

    #[test]
    fn near_duplicates_are_those_of_the_definition(
        hashes in hashes(), pixels in prop::collection::vec(1_u64..4, 120), distance in 0_u32..9,
    ) {
        let images: Vec<(u64, u64)> = hashes.into_iter().zip(pixels).collect();
        let pass = NearDuplicates::new(PerceptualHash::Gradient, distance);
        let mut noted = images.iter().enumerate().map(|(number, (hash, pixels))| Noted {
            number,
            note: json!({ "hash": format!("{hash:016x}"), "pixels": pixels }),
        });
        let chosen = pass.whole().unwrap().choose(&mut noted).unwrap();
        let count = chosen.len();
        let found: BTreeMap<usize, usize> =
            chosen.into_iter().map(|chosen| (chosen.number, chosen.like.unwrap())).collect();
        prop_assert_eq!(count, found.len());
        prop_assert_eq!(found, near_by_definition(&images, distance));
    }
}

#[test]
fn notes_of_another_kind_stop_a_pass() {
    let wrong = || std::iter::once(Noted { number: 0, note: json!("what is this") });
    for pass in [&NearDuplicates::default() as &dyn Pass, &Identical::bytes(), &SemDeDup::new(Raw, 2, 0.1)] {
        let found = pass.whole().unwrap().choose(&mut wrong());
        assert!(
            matches!(found, Err(Trouble::Pass(message)) if message.contains("what is this")),
            "{}",
            pass.name()
        );
    }
}

/// Pixels as they are, around zero: what the embedding is, the test says.
struct Raw;

impl Embed for Raw {
    fn name(&self) -> &str {
        "raw"
    }

    fn embed(&self, pictures: &[&RgbImage]) -> Result<Vec<Vec<f32>>, Trouble> {
        let around_zero =
            |picture: &&RgbImage| picture.as_raw().iter().map(|&value| f32::from(value) - 128.0).collect();
        Ok(pictures.iter().map(around_zero).collect())
    }
}

/// The bytes are the pixels of one row.
fn pixels(record: &Record) -> Result<RgbImage, Fault> {
    let width = record.image.len() as u32 / 3;
    Ok(RgbImage::from_raw(width, 1, record.image.clone()).unwrap())
}

fn semantic(vectors: &[Vec<u8>], pass: SemDeDup<Raw>) -> BTreeMap<usize, String> {
    let records =
        vectors.iter().enumerate().map(|(number, bytes)| record(format!("{number}"), bytes.clone()));
    let (source, folder) = (InMemory(records.collect()), tempdir().unwrap());
    let outcome = Curation::new("pixels", pixels).pass(pass).run(&source, folder.path()).unwrap();
    let dropped =
        verdicts(&outcome).into_iter().filter_map(|judged| Some((judged.number, judged.dropped?.like?)));
    dropped.collect()
}

/// `count` directions of 24 numbers, as bytes.
fn directions(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut random = canvas_core::generator(seed, 0, 0);
    (0..count).map(|_| (0..24).map(|_| random.next_u32() as u8).collect()).collect()
}

fn unit(bytes: &[u8]) -> Vec<f64> {
    let values: Vec<f64> = bytes.iter().map(|&value| f64::from(value) - 128.0).collect();
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.into_iter().map(|value| value / norm).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn planted_duplicates_are_found_whatever_the_clusters() {
    let mut vectors = directions(1, 60);
    let changed = |vector: &Vec<u8>| vector.iter().map(|value| value.saturating_add(3)).collect();
    let planted: Vec<Vec<u8>> = vectors[10..30].iter().map(changed).collect();
    vectors.extend(planted);
    let pairs: BTreeSet<(usize, usize)> = (0..20).map(|place| (10 + place, 60 + place)).collect();
    for clusters in [1, 5] {
        for side in [Side::Farthest, Side::Nearest] {
            let dropped = semantic(&vectors, SemDeDup::new(Raw, clusters, 0.05).keep(side));
            let found: BTreeSet<(usize, usize)> = dropped
                .iter()
                .map(|(&number, like)| (number, like.parse().unwrap()))
                .map(|(one, other): (usize, usize)| (one.min(other), one.max(other)))
                .collect();
            assert_eq!((dropped.len(), &found), (20, &pairs), "{clusters} clusters, {side:?}");
        }
    }
}

#[test]
fn semantic_duplicates_are_those_of_the_papers_definition() {
    for (seed, clusters, side) in
        [(1, 1, Side::Farthest), (2, 4, Side::Farthest), (3, 4, Side::Nearest), (4, 80, Side::Nearest)]
    {
        let vectors = directions(seed, 80);
        let units: Vec<Vec<f64>> = vectors.iter().map(|bytes| unit(bytes)).collect();
        let flat: Vec<f32> = units.iter().flatten().map(|&value| value as f32).collect();
        let of = Clusters::spherical(&flat, 24, clusters, (20, 9)).of;

        let mut expected = BTreeSet::new();
        for cluster in 0..clusters {
            let mut members: Vec<usize> = (0..80).filter(|&image| of[image].0 == cluster).collect();
            members.sort_by(|&a, &b| of[a].1.total_cmp(&of[b].1));
            if side == Side::Nearest {
                members.reverse();
            }
            // The largest entry of each column of the upper triangle: any image before it, kept or not.
            for (column, &image) in members.iter().enumerate() {
                let most = members[..column].iter().map(|&row| cosine(&units[row], &units[image]));
                if most.fold(f64::NEG_INFINITY, f64::max) > 1.0 - 0.7 {
                    expected.insert(image);
                }
            }
        }
        let pass = SemDeDup::new(Raw, clusters, 0.7).keep(side).seed(9);
        let found: BTreeSet<usize> = semantic(&vectors, pass).into_keys().collect();
        assert_eq!(found, expected, "{clusters} clusters, {side:?}");
        assert_eq!(found.is_empty(), clusters == 80, "{} found", found.len());
    }
}

#[test]
fn clusters_are_where_their_directions_are() {
    // Two bundles, around (1, 0) and (0, 1), symmetric: the centroids are known.
    let tilt = |degrees: f32| degrees.to_radians().sin_cos();
    let vectors: Vec<f32> = [-10.0, -5.0, 0.0, 5.0, 10.0, 80.0, 85.0, 90.0, 95.0, 100.0]
        .into_iter()
        .flat_map(|degrees| [tilt(degrees).1, tilt(degrees).0])
        .collect();
    for seed in 0..20 {
        let clusters = Clusters::spherical(&vectors, 2, 2, (20, seed));
        let first = clusters.of[0].0;
        assert!(clusters.of.iter().enumerate().all(|(image, of)| (of.0 == first) == (image < 5)));
        let centroid = &clusters.centroids[2 * first..][..2];
        assert!((centroid[0] - 1.0).abs() < 1e-6 && centroid[1].abs() < 1e-6, "{centroid:?}");
        assert!((clusters.of[0].1 - 10_f32.to_radians().cos()).abs() < 1e-6);
    }
    assert_eq!(Clusters::spherical(&vectors, 2, 99, (20, 0)).centroids.len(), 20);
}

#[test]
fn an_embedding_without_direction_drops_its_image() {
    let source = InMemory(vec![record("grey", vec![128; 24]), record("a", vec![3; 24])]);
    let folder = tempdir().unwrap();
    let outcome =
        Curation::new("pixels", pixels).pass(SemDeDup::new(Raw, 2, 0.1)).run(&source, folder.path()).unwrap();
    let first = verdicts(&outcome).remove(0).dropped.unwrap();
    assert_eq!((&*first.pass, &*first.reason), ("semantic duplicates", "embedding"));
    assert_eq!(outcome.kept().collect::<Vec<_>>(), [1]);

    let mixed = InMemory(vec![record("short", vec![1; 3]), record("long", vec![2; 6])]);
    let error = Curation::new("pixels", pixels).pass(SemDeDup::new(Raw, 2, 0.1)).run(&mixed, folder.path());
    assert_eq!(
        error.unwrap_err().to_string(),
        "semantic duplicates: expected embeddings of 3 numbers, found 6"
    );
}
