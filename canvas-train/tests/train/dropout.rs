use crate::{close, panic_text};
use burn::prelude::*;
use canvas_core::{Class, Condition, Text, Tokens};
use canvas_train::ConditionDropout;

fn images(count: u64) -> Vec<u64> {
    (0..count).collect()
}

fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|&&gone| gone).count() as f64 / flags.len() as f64
}

/// Within four deviations of a binomial.
#[track_caller]
fn as_often(flags: &[bool], expected: f64) {
    close(share(flags), expected, 4.0 * (expected * (1.0 - expected) / flags.len() as f64).sqrt());
}

#[test]
fn parts_are_left_out_as_often_as_asked_and_each_by_itself() {
    let (dropout, images) = (ConditionDropout::sd3(), images(20_000));
    let gone = ["clip_l", "clip_g", "t5"].map(|part| dropout.dropped(part, 3, &images));
    gone.iter().for_each(|gone| as_often(gone, 0.463));
    let both = |a: &[bool], b: &[bool]| a.iter().zip(b).map(|(a, b)| *a && *b).collect::<Vec<_>>();
    let pair = both(&gone[0], &gone[1]);
    as_often(&pair, 0.463f64.powi(2));
    as_often(&both(&pair, &gone[2]), 0.463f64.powi(3)); // about one in ten has no text
}

/// InstructPix2Pix's: 5% without both, 5% without each alone.
#[test]
fn all_parts_together_are_left_out_for_the_same_images() {
    let (dropout, images) = (ConditionDropout::instruct_pix2pix(), images(100_000));
    let [text, image] = ["text", "image"].map(|part| dropout.dropped(part, 0, &images));
    for case in [[true, true], [true, false], [false, true]] {
        let found: Vec<bool> = text.iter().zip(&image).map(|(&text, &image)| [text, image] == case).collect();
        as_often(&found, 0.05);
    }
    let all = ConditionDropout::new().with("text", 0.0).with("image", 0.0).jointly(0.5);
    assert_eq!(all.dropped("text", 9, &images), all.dropped("image", 9, &images));
}

/// A function of seed, image and part: not of the batch, the other parts or their order.
#[test]
fn an_image_keeps_its_own() {
    let dropout = ConditionDropout::new().with("text", 0.4).jointly(0.1);
    let together = dropout.dropped("text", 5, &images(300));
    for image in 0..300 {
        assert_eq!(dropout.dropped("text", 5, &[image]), [together[image as usize]]);
    }
    let more = dropout.clone().with("class", 0.7);
    assert_eq!(more.dropped("text", 5, &images(300)), together);
    assert_ne!(dropout.dropped("text", 6, &images(300)), together);
    // Who is left out rarely is left out often, too.
    let often = ConditionDropout::new().with("text", 0.8).jointly(0.1).dropped("text", 5, &images(300));
    assert!(together.iter().zip(&often).all(|(rarely, often)| *often || !*rarely));
}

#[test]
fn conditions_of_all_kinds_are_dropped() {
    let (device, images) = (Device::flex(), images(64));
    let dropout = ConditionDropout::new().with("class", 0.5).with("text", 0.5);
    let labels: Vec<usize> = (0..64).collect();
    let class =
        dropout.apply("class", &Class::new(&labels, &device), &Class::new(&[1000], &device), 1, &images);
    let gone = dropout.dropped("class", 1, &images);
    for (row, found) in class.labels.into_data().iter::<i64>().enumerate() {
        assert_eq!(found, if gone[row] { 1000 } else { row as i64 });
    }

    let text = |batch: usize, length: usize, value: f64| Text {
        tokens: Tensor::full([batch, length, 2], value, &device),
        mask: Tensor::<2, Int>::ones([batch, length], &device).bool(),
        pooled: Tensor::full([batch, 1], value, &device),
    };
    let pair = (text(64, 3, 1.0), Class::new(&labels, &device));
    let null = (text(1, 2, -1.0), Class::new(&[64], &device));
    let (found, class) = dropout.apply("text", &pair, &null, 1, &images);
    let (pooled, seen) = (found.pooled.into_data(), found.mask.into_data());
    let (pooled, seen): (Vec<f32>, Vec<bool>) = (pooled.iter().collect(), seen.iter().collect());
    let labels: Vec<i64> = class.labels.into_data().iter().collect();
    for (row, gone) in dropout.dropped("text", 1, &images).into_iter().enumerate() {
        assert_eq!((pooled[row], seen[3 * row + 2]), if gone { (-1.0, false) } else { (1.0, true) });
        assert_eq!(labels[row], if gone { 64 } else { row as i64 });
    }

    let tokens = Tokens { ids: vec![5, 6, 7, 8, 9, 4], mask: vec![true; 6], length: 3 };
    let null = Tokens { ids: vec![1], mask: vec![true], length: 1 };
    let found = tokens.drop_rows(&[false, true], &null);
    assert_eq!(
        found,
        Tokens { ids: vec![5, 6, 7, 1, 0, 0], mask: vec![true, true, true, true, false, false], length: 3 }
    );
}

#[test]
fn what_is_no_probability_and_no_part_is_named() {
    let wrong = ConditionDropout::new().with("t5", 1.5);
    assert_eq!(wrong.validate().unwrap_err().to_string(), "the dropout of t5 must be from 0 to 1, found 1.5");
    let wrong = ConditionDropout::new().jointly(f64::NAN);
    assert!(
        wrong
            .validate()
            .unwrap_err()
            .to_string()
            .contains("all parts jointly must be from 0 to 1, found NaN")
    );
    let says = panic_text(|| ConditionDropout::sd3().dropped("t6", 0, &[1]));
    assert!(says.contains("\"t6\"") && says.contains("clip_g"), "{says}");
    let read: ConditionDropout = serde_json::from_str(r#"{"parts": {"t5": 0.5}}"#).unwrap();
    assert_eq!(read, ConditionDropout::new().with("t5", 0.5));
    assert!(serde_json::from_str::<ConditionDropout>(r#"{"part": {"t5": 0.5}}"#).is_err());
}
