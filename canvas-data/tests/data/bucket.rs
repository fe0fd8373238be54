use canvas_data::{Assignment, Buckets, Crop, Draw, reason};
use proptest::prelude::*;

/// The table of SDXL's paper, appendix I, its upright and square sizes.
const SDXL: [[u32; 2]; 21] = [
    [512, 2048],
    [512, 1984],
    [512, 1920],
    [512, 1856],
    [576, 1792],
    [576, 1728],
    [576, 1664],
    [640, 1600],
    [640, 1536],
    [704, 1472],
    [704, 1408],
    [704, 1344],
    [768, 1344],
    [768, 1280],
    [832, 1216],
    [832, 1152],
    [896, 1152],
    [896, 1088],
    [960, 1088],
    [960, 1024],
    [1024, 1024],
];

fn sorted(sizes: impl IntoIterator<Item = [u32; 2]>) -> Vec<[u32; 2]> {
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort();
    sizes.dedup();
    sizes
}

#[test]
fn filling_gives_sdxls_table() {
    let sizes = sorted(SDXL.into_iter().flat_map(|[w, h]| [[w, h], [h, w]]));
    assert_eq!(sizes.len(), 41); // 40, and 1344x704, which the table has only upright
    assert_eq!(Buckets::sdxl().sizes(), sizes);
}

#[test]
fn largest_gives_novel_ais_and_kohyas() {
    // What NovelAI's BucketManager makes of its defaults (commit 67017f0).
    let novel_ai = [
        [256, 1024],
        [320, 1024],
        [384, 1024],
        [384, 960],
        [384, 896],
        [448, 832],
        [512, 768],
        [512, 704],
        [512, 512],
        [576, 640],
        [640, 576],
        [704, 512],
        [768, 512],
        [832, 448],
        [896, 384],
        [960, 384],
        [1024, 384],
        [1024, 320],
        [1024, 256],
    ];
    assert_eq!(Buckets::novel_ai().sizes(), sorted(novel_ai));
    // sd-scripts' for 512x512, 256 to 1024.
    let kohya = Buckets::largest(512 * 512, 64, 256..=1024).unwrap();
    let upright = [
        [256, 1024],
        [256, 960],
        [256, 896],
        [256, 832],
        [320, 768],
        [320, 704],
        [384, 640],
        [448, 576],
        [512, 512],
    ];
    assert_eq!(kohya.sizes(), sorted(upright.into_iter().flat_map(|[w, h]| [[w, h], [h, w]])));
}

#[test]
fn buckets_that_cannot_be_are_refused() {
    assert_eq!(Buckets::list([]).unwrap_err().to_string(), "no bucket has the sizes asked for");
    assert_eq!(Buckets::list([[64, 64], [0, 64]]).unwrap_err().to_string(), "a bucket of 0x64 pixels");
    Buckets::square(0).unwrap_err();
    Buckets::filling(64, 64, 0.9, 4.0).unwrap_err();
    Buckets::filling(512 * 512, 0, 0.9, 4.0).unwrap_err();
    Buckets::filling(512 * 512, 64, 0.9, 0.5).unwrap_err();
    Buckets::filling(512 * 512, 64, 0.0, 4.0).unwrap_err();
    Buckets::filling(512 * 512, 64, f64::NAN, 4.0).unwrap_err();
    Buckets::filling(512 * 512, 64, 0.9, f64::NAN).unwrap_err();
    Buckets::largest(512 * 512, 0, 256..=1024).unwrap_err();
    Buckets::largest(512 * 512, 64, 5000..=6000).unwrap_err();
    assert_eq!(Buckets::list([[64, 32], [32, 64], [64, 32]]).unwrap().sizes(), [[32, 64], [64, 32]]);
}

#[test]
fn an_image_of_a_buckets_ratio_is_only_scaled() {
    let buckets = Buckets::sdxl();
    for (bucket, &[w, h]) in buckets.sizes().iter().enumerate() {
        for times in 1..4 {
            let found = buckets.assign("", [w * times, h * times]).unwrap();
            assert_eq!((found.bucket, found.resized, found.spare()), (bucket, [w, h], [0, 0]));
        }
    }
}

#[test]
fn a_square_crops_the_longer_side() {
    let square = Buckets::square(64).unwrap();
    let found = square.assign("", [200, 128]).unwrap();
    assert_eq!((found.resized, found.spare()), ([100, 64], [36, 0]));
    let found = square.assign("", [128, 201]).unwrap();
    assert_eq!((found.resized, found.spare()), ([64, 101], [0, 37])); // 100.5 rounds up
}

#[test]
fn limits_are_kept_to_the_pixel() {
    let square = Buckets::square(64).unwrap();
    assert!(square.assign("", [64, 64]).is_ok());
    let fault = square.assign("small.png", [63, 64]).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "small.png: too small: 63x64 to 64x64 enlarges it 1.02 times, at most 1 are allowed"
    );
    assert!(square.clone().enlarge(2.0).assign("", [32, 32]).is_ok());
    assert!(square.clone().enlarge(2.0).assign("", [31, 32]).is_err());
    assert!(square.assign("", [128, 64]).is_ok());
    let fault = square.assign("long.png", [129, 64]).unwrap_err();
    assert_eq!(fault.reason, reason::ASPECT);
    assert_eq!(fault.detail, "129x64 to 64x64 loses 50.4 % of it, at most 50.0 % may be");
    assert!(square.clone().crop(0.51).assign("", [129, 64]).is_ok());
    // The aspect is said first: no enlargement would help.
    assert_eq!(square.assign("", [3, 1]).unwrap_err().reason, reason::ASPECT);
    assert!(Buckets::square(1).unwrap().crop(1.0).assign("", [u32::MAX, 1]).is_ok());
    assert!(Buckets::square(u32::MAX).unwrap().enlarge(f64::INFINITY).assign("", [1, 1]).is_ok());
}

#[test]
fn of_one_ratio_the_largest_that_is_filled_is_taken() {
    let buckets = Buckets::list([[32, 32], [64, 64], [128, 128], [96, 64]]).unwrap();
    let bucket = |size| buckets.clone().enlarge(10.0).assign("", size).unwrap().target;
    assert_eq!(bucket([100, 100]), [64, 64]);
    assert_eq!(bucket([1000, 1000]), [128, 128]);
    assert_eq!(bucket([20, 20]), [32, 32]);
    assert_eq!(bucket([100, 70]), [96, 64]);
}

#[test]
fn ties_of_the_ratio_go_to_the_first() {
    // A square between two buckets of reciprocal ratios: exactly as far from both, which logarithms might not see.
    for step in 1..200 {
        let (a, b) = ([1000 - step, 1000], [1000, 1000 - step]);
        let buckets = Buckets::list([b, a]).unwrap();
        assert_eq!(buckets.assign("", [5000, 5000]).unwrap().target, a);
    }
}

#[test]
fn crops_are_a_function_of_the_draw_and_reach_every_place() {
    let assignment = Assignment { bucket: 0, original: [70, 40], resized: [70, 40], target: [64, 40] };
    assert_eq!(Crop::Centre.place(&assignment, Draw { seed: 0, number: 0 }), [3, 0]);
    let place = |number| Crop::Random.place(&assignment, Draw { seed: 5, number });
    let mut counts = [0; 7];
    for number in 0..7000 {
        let [left, top] = place(number);
        assert_eq!((place(number), top), ([left, top], 0));
        counts[left as usize] += 1;
    }
    // Chi-square with 6 degrees of freedom: 22.5 is passed once in 1000.
    let chi: f64 = counts.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi < 22.5, "{counts:?}: {chi}");
    let other = |number| Crop::Random.place(&assignment, Draw { seed: 6, number });
    assert!((0..50).any(|number| place(number) != other(number)));
}

fn buckets() -> impl Strategy<Value = Buckets> {
    let sides = proptest::collection::vec((1u32..300, 1u32..300).prop_map(|(w, h)| [w, h]), 1..12);
    let listed = sides.prop_map(|sizes| Buckets::list(sizes).unwrap());
    prop_oneof![listed, Just(Buckets::sdxl()), Just(Buckets::novel_ai()), Just(Buckets::square(512).unwrap())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_image_is_kept_as_promised_or_dropped_for_a_reason(
        buckets in buckets(),
        (width, height) in (1u32..6000, 1u32..6000),
        (enlarge, crop, number) in (0.5f64..20.0, 0.0f64..1.0, any::<u64>()),
    ) {
        let size = [width, height];
        let ratio = |[w, h]: [u32; 2]| (f64::from(w) / f64::from(h)).ln();
        let nearest = buckets.sizes().iter().map(|&b| (ratio(b) - ratio(size)).abs()).fold(f64::INFINITY, f64::min);
        let limited = buckets.clone().enlarge(enlarge).crop(crop);
        match limited.assign("key", size) {
            Ok(found) => {
                prop_assert_eq!(buckets.sizes()[found.bucket], found.target);
                prop_assert_eq!(found.original, size);
                prop_assert!(((ratio(found.target) - ratio(size)).abs() - nearest).abs() < 1e-12);
                let [resized, target] = [found.resized, found.target];
                prop_assert!(resized[0] >= target[0] && resized[1] >= target[1]);
                prop_assert!(resized[0] == target[0] || resized[1] == target[1]);
                // Within half a pixel of the image's own proportions.
                let scale = (0..2).map(|i| f64::from(target[i]) / f64::from(size[i])).fold(0.0, f64::max);
                for side in 0..2 {
                    prop_assert!((f64::from(resized[side]) - scale * f64::from(size[side])).abs() <= 0.5 + 1e-9);
                }
                prop_assert!(scale <= enlarge);
                prop_assert!(1.0 - (-nearest).exp() <= crop + 1e-12);
                for place in [Crop::Centre, Crop::Random].map(|crop| crop.place(&found, Draw { seed: 1, number })) {
                    prop_assert!((0..2).all(|side| place[side] + target[side] <= resized[side]));
                }
            }
            Err(fault) => {
                prop_assert_eq!(&fault.key, "key");
                let lost = 1.0 - (-nearest).exp();
                match &*fault.reason {
                    reason::ASPECT => prop_assert!(lost > crop - 1e-12),
                    reason::TOO_SMALL => {
                        let found = buckets.clone().enlarge(f64::INFINITY).crop(1.0).assign("", size).unwrap();
                        prop_assert!((0..2).any(|i| f64::from(found.target[i]) > enlarge * f64::from(size[i]) * 0.999_999));
                    }
                    other => prop_assert!(false, "{}", other),
                }
            }
        }
    }
}
