use crate::{png, record, scene, written};
use canvas_core::picture::{Axis, Filter, resize, resized};
use canvas_data::{Assignment, Buckets, Caption, Crop, Draw, Prepare, reason};
use image::imageops::{crop_imm, flip_horizontal};
use image::{ImageFormat, RgbImage, RgbaImage};

const DRAW: Draw = Draw { seed: 7, number: 3 };

fn assigned(size: [u32; 2], target: [u32; 2]) -> Assignment {
    Buckets::list([target]).unwrap().assign("", size).unwrap()
}

fn random(flip: f64) -> Prepare {
    Prepare { crop: Crop::Random, flip, ..Prepare::default() }
}

#[test]
fn an_image_is_scaled_whole_and_then_cropped() {
    let (record, assignment) = (record("a", png(90, 61)), assigned([90, 61], [48, 40]));
    assert_eq!((assignment.resized, assignment.spare()), ([59, 40], [11, 0]));
    let whole = resized(&scene(90, 61), (59, 40), Filter::Lanczos);
    for number in 0..20 {
        let found = random(0.0).prepared(&record, &assignment, Draw { seed: 1, number }).unwrap();
        let [left, top] = found.crop;
        assert_eq!(found.rgb, crop_imm(&whole, left, top, 48, 40).to_image());
        assert_eq!((found.original, found.target), ([90, 61], [48, 40]));
        assert_eq!(found.size_ids(), [61, 90, top, left, 40, 48]);
    }
    let centre = Prepare::default().prepared(&record, &assignment, DRAW).unwrap();
    assert_eq!((centre.crop, centre.flipped, centre.alpha), ([5, 0], false, None));
}

#[test]
fn the_filter_is_the_one_asked_for() {
    let (record, assignment) = (record("a", png(64, 64)), assigned([64, 64], [24, 24]));
    for filter in [Filter::Bicubic, Filter::Lanczos] {
        let prepare = Prepare { filter, ..Prepare::default() };
        let found = prepare.prepared(&record, &assignment, DRAW).unwrap();
        assert_eq!(found.rgb, resized(&scene(64, 64), (24, 24), filter));
    }
}

#[test]
fn a_flipped_image_is_cropped_where_it_says() {
    let (record, assignment) = (record("a", png(90, 40)), assigned([90, 40], [48, 40]));
    let mirrored = flip_horizontal(&resized(&scene(90, 40), (90, 40), Filter::Lanczos));
    for number in 0..20 {
        let found = random(1.0).prepared(&record, &assignment, Draw { seed: 2, number }).unwrap();
        assert!(found.flipped);
        let [left, top] = found.crop;
        assert_eq!(found.rgb, crop_imm(&mirrored, left, top, 48, 40).to_image(), "{left}");
    }
}

#[test]
fn images_are_flipped_as_often_as_asked() {
    let (record, assignment) = (record("a", png(2, 2)), assigned([2, 2], [2, 2]));
    let flipped = |flip: f64| {
        let draws = (0..4000).map(|number| Draw { seed: 9, number });
        draws.filter(|&draw| random(flip).prepared(&record, &assignment, draw).unwrap().flipped).count()
    };
    assert_eq!((flipped(0.0), flipped(1.0)), (0, 4000));
    // Five standard deviations of a quarter of 4000.
    assert!(flipped(0.25).abs_diff(1000) < 5 * 27, "{}", flipped(0.25));
}

#[test]
fn alpha_goes_the_way_of_the_colours() {
    let clear = RgbaImage::from_fn(90, 40, |x, y| [40, 80, (x * 2) as u8, (x * 2 + y) as u8].into());
    let file = written(&clear.clone().into(), ImageFormat::Png);
    let (record, assignment) = (record("a", file), assigned([90, 40], [30, 20]));
    assert_eq!(assignment.resized, [45, 20]);
    let bytes: Vec<u8> = clear.pixels().map(|pixel| pixel.0[3]).collect();
    for (number, flip) in [(0, 0.0), (1, 1.0)] {
        let found = random(flip).prepared(&record, &assignment, Draw { seed: 0, number }).unwrap();
        let left = if found.flipped { 15 - found.crop[0] as usize } else { found.crop[0] as usize };
        let wide = Axis { from: 90, to: 45, keep: left..left + 30 };
        let mut expected = resize(&bytes, 1, (&Axis::whole(40, 20), &wide), Filter::Lanczos);
        if found.flipped {
            expected.chunks_mut(30).for_each(<[u8]>::reverse);
        }
        let alpha = found.alpha.unwrap();
        assert_eq!((alpha.dimensions(), alpha.into_raw()), ((30, 20), expected));
    }
}

#[test]
fn a_draw_gives_the_same_bytes_and_another_another_crop() {
    let (record, assignment) = (record("a", png(200, 60)), assigned([200, 60], [100, 60]));
    let prepared = |seed, number| random(0.5).prepared(&record, &assignment, Draw { seed, number }).unwrap();
    assert_eq!(prepared(1, 2), prepared(1, 2));
    assert_ne!(prepared(1, 2).rgb, prepared(1, 3).rgb);
    assert_ne!(prepared(1, 2).rgb, prepared(2, 2).rgb);
}

#[test]
fn what_cannot_be_prepared_is_named() {
    let assignment = assigned([20, 10], [20, 10]);
    let fault = |record| Prepare::default().prepared(&record, &assignment, DRAW).unwrap_err();
    let changed = fault(record("a/b.png", png(10, 20)));
    assert_eq!(changed.to_string(), "a/b.png: changed: 10x20 pixels, when assigned it had 20x10");
    assert_eq!(fault(record("a", png(20, 10)[..50].to_vec())).reason, reason::TRUNCATED);

    let mut silent = record("silent", png(20, 10));
    silent.captions.clear();
    assert_eq!(fault(silent.clone()).to_string(), "silent: no caption: none of 0 captions can be drawn");
    let prepare = Prepare { uncaptioned: Some("a picture".into()), ..Prepare::default() };
    assert_eq!(prepare.prepared(&silent, &assignment, DRAW).unwrap().caption, "a picture");
    silent.captions = vec![Caption { weight: 0.0, ..Caption::new("never") }];
    assert_eq!(fault(silent).reason, reason::NO_CAPTION);
}

#[test]
fn a_jpeg_on_its_side_is_prepared_upright() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images/upright_");
    let [lying, upright] = ["6.jpg", "6.jpg.png"].map(|end| std::fs::read(format!("{root}{end}")).unwrap());
    let assignment = assigned([12, 20], [12, 12]);
    let prepared = |bytes| Prepare::default().prepared(&record("a", bytes), &assignment, DRAW).unwrap();
    let [found, expected] = [prepared(lying), prepared(upright)];
    assert_eq!((found.original, found.crop), ([12, 20], [0, 4]));
    let off = |a: &RgbImage, b: &RgbImage| a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off(&found.rgb, &expected.rgb).unwrap() <= 11, "decoded by another decoder");
}
