//! CLIP's image preprocessing against transformers and Pillow (fixture by `tools/fixtures_clip_image.py`).

use burn::prelude::*;
use canvas_text::ClipImageProcessor;
use image::RgbImage;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Noise by the formula of the fixture.
fn picture(width: u32, height: u32) -> RgbImage {
    let bytes = (0..u64::from(width * height * 3)).map(|i| ((i * 2_654_435_761) >> 13) as u8);
    RgbImage::from_raw(width, height, bytes.collect()).unwrap()
}

#[test]
fn equals_transformers_and_pillow() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clip_images.json");
    let fixture: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    for case in fixture["cases"].as_array().unwrap() {
        let crop = [number(&case["crop"][0]), number(&case["crop"][1])];
        let processor =
            ClipImageProcessor { short: number(&case["short"]), crop, ..ClipImageProcessor::default() };
        let picture = picture(number(&case["width"]) as u32, number(&case["height"]) as u32);
        let found = processor.process(&[picture], &Device::flex());
        assert_eq!(found.dims(), [1, 3, crop[0], crop[1]]);
        if let Some(first) = case["first"].as_array() {
            let values: Vec<f64> = found.clone().slice([0..1, 0..3, 0..1, 0..4]).into_data().iter().collect();
            for (value, expected) in values.iter().zip(first) {
                assert!((value - expected.as_f64().unwrap()).abs() < 1e-6, "{value}, expected {expected}");
            }
        }
        let colour =
            |values: [f32; 3]| Tensor::<1>::from_floats(values, &Device::flex()).reshape([1, 3, 1, 1]);
        let units = found * colour(processor.std) + colour(processor.mean);
        let bytes: Vec<f32> = (units * 255.0).permute([0, 2, 3, 1]).into_data().iter().collect();
        let bytes: String = bytes.iter().map(|byte| format!("{:02x}", byte.round() as u8)).collect();
        assert_eq!(bytes, case["bytes"].as_str().unwrap(), "{}x{}", case["width"], case["height"]);
    }
}

#[test]
fn very_long_pictures_cost_no_more_than_their_pixels() {
    let processor = ClipImageProcessor::default();
    for (width, height) in [(1, 300_000), (300_000, 1)] {
        let found = processor.process(&[picture(width, height)], &Device::flex());
        assert_eq!(found.dims(), [1, 3, 224, 224]);
    }
}

#[test]
fn configurations_are_read_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preprocessor_config.json");
    let read = |json: &str| {
        fs::write(&path, json).unwrap();
        ClipImageProcessor::from_file(&path)
    };
    let old = r#"{"crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224}"#;
    assert_eq!(read(old).unwrap(), ClipImageProcessor::default());
    let new = old.replace(r#""crop_size": 224"#, r#""crop_size": {"height": 200, "width": 210}"#).replace(
        r#""size": 224}"#,
        r#""size": {"shortest_edge": 256}, "rescale_factor": 0.00392156862745098}"#,
    );
    let found = read(&new).unwrap();
    assert_eq!((found.short, found.crop), (256, [200, 210]));
    for (from, to, message) in [
        (r#""do_resize": true"#, r#""do_resize": false"#, "do_resize: expected true, found false"),
        (r#""resample": 3"#, r#""resample": 2"#, "resample: expected 3 (bicubic), found 2"),
        (r#""size": 224}"#, r#""size": 200}"#, "crop_size: expected 1 to size (200), found [224, 224]"),
        (r#""size": 224}"#, r#""size": {"height": 9}}"#, "size: expected a number or a shortest_edge"),
        ("0.26862954, ", "", "image_std: expected three numbers"),
    ] {
        let error = read(&old.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
