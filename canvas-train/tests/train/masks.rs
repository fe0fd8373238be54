use crate::{close, panic_text};
use burn::prelude::*;
use canvas_train::masks::{Mask, background, batch};

const BOXES: Mask = Mask::Boxes { most: 1, least_side: 0.25, most_side: 0.5 };

fn masks(kind: Mask, size: [usize; 2], images: &[u64]) -> Vec<Vec<f32>> {
    let all: Vec<f32> =
        batch(&[(1.0, kind)], size, 3, images, &Device::flex()).into_data().iter::<f32>().collect();
    all.chunks(size[0] * size[1]).map(<[f32]>::to_vec).collect()
}

fn part(mask: &[f32]) -> f64 {
    f64::from(mask.iter().sum::<f32>()) / mask.len() as f64
}

/// Of any size, down to a pixel: something is to be painted, and nothing between.
#[test]
fn every_mask_has_something_to_paint() {
    let images: Vec<u64> = (0..100).collect();
    for kind in [Mask::strokes(), BOXES, Mask::borders(), Mask::Whole] {
        for size in [[1, 1], [1, 9], [16, 16], [33, 64]] {
            for mask in masks(kind, size, &images) {
                assert!(mask.iter().all(|x| [0.0, 1.0].contains(x)));
                assert!(part(&mask) > 0.0, "{kind:?} {size:?}");
            }
        }
    }
}

/// An image's mask is the same alone, in any batch; and another image's is another.
#[test]
fn masks_are_functions_of_the_image() {
    for kind in [Mask::strokes(), BOXES, Mask::borders()] {
        let together = masks(kind, [32, 48], &[4, 5, 6]);
        assert_eq!(together[1], masks(kind, [32, 48], &[5])[0]);
        assert_ne!(together[0], together[1]);
    }
}

#[test]
fn boxes_are_boxes_of_the_sizes_asked_for() {
    for mask in masks(BOXES, [40, 60], &(0..200).collect::<Vec<_>>()) {
        let on: Vec<[usize; 2]> = (0..2400).filter(|&i| mask[i] > 0.0).map(|i| [i / 60, i % 60]).collect();
        let side = |axis: usize| {
            let places = on.iter().map(|place| place[axis]);
            1 + places.clone().max().unwrap() - places.min().unwrap()
        };
        assert_eq!(on.len(), side(0) * side(1), "one whole rectangle");
        assert!([side(0), side(1)].iter().all(|side| (10..=20).contains(side)), "{} {}", side(0), side(1));
    }
}

/// What is given is in the middle: a mask touches the edge, and is whole along it.
#[test]
fn borders_leave_one_rectangle() {
    for mask in masks(Mask::borders(), [40, 60], &(0..200).collect::<Vec<_>>()) {
        let off: Vec<[usize; 2]> = (0..2400).filter(|&i| mask[i] == 0.0).map(|i| [i / 60, i % 60]).collect();
        let side = |axis: usize| {
            let places = off.iter().map(|place| place[axis]);
            1 + places.clone().max().unwrap() - places.min().unwrap()
        };
        assert_eq!(off.len(), side(0) * side(1), "one whole rectangle is given");
        assert!(side(0) < 40 || side(1) < 60);
    }
}

#[test]
fn strokes_are_of_moderate_size() {
    let all = masks(Mask::strokes(), [64, 64], &(0..300).collect::<Vec<_>>());
    let mean = all.iter().map(|mask| part(mask)).sum::<f64>() / 300.0;
    assert!((0.1..0.6).contains(&mean), "{mean}");
    // The same at twice the size: lengths are parts of the side.
    let large = masks(Mask::strokes(), [128, 128], &(0..300).collect::<Vec<_>>());
    close(large.iter().map(|mask| part(mask)).sum::<f64>() / 300.0, mean, 0.02);
}

#[test]
fn kinds_come_as_often_as_their_weights_say() {
    let images: Vec<u64> = (0..2000).collect();
    let mix = [(3.0, Mask::Whole), (0.0, Mask::strokes()), (1.0, BOXES)];
    let found = batch(&mix, [8, 8], 0, &images, &Device::flex()).mean_dim(3).mean_dim(2);
    let whole = found.into_data().iter::<f32>().filter(|&x| x == 1.0).count() as f64 / 2000.0;
    close(whole, 0.75, 4.0 * (0.75f64 * 0.25 / 2000.0).sqrt());
    let none = panic_text(|| batch(&[(0.0, BOXES)], [8, 8], 0, &[1], &Device::flex()));
    assert!(none.contains("weights above 0"), "{none}");
}

#[test]
fn a_background_is_where_nothing_is() {
    let alpha = Tensor::<4>::from_floats([[[[0.0, 0.49], [0.5, 1.0]]]], &Device::flex());
    assert_eq!(background(alpha).into_data().iter::<f32>().collect::<Vec<_>>(), [1.0, 1.0, 0.0, 0.0]);
}
