use crate::host;
use burn::prelude::*;
use canvas_core::{DeviceNoise, Noise, Seeded, generator, seed_for};
use rand::Rng;
use std::collections::HashSet;

fn draw(noise: &mut Seeded, shape: [usize; 2]) -> Vec<f32> {
    host(&noise.normal_like(&Tensor::<2>::zeros(shape, &Device::flex())))
}

#[test]
fn an_image_has_the_same_noise_in_any_batch() {
    let (mut together, mut alone) = (Seeded::new(7, [9, 4, 1000]), Seeded::new(7, [4]));
    for _ in 0..3 {
        let (batch, single) = (draw(&mut together, [3, 6]), draw(&mut alone, [1, 6]));
        assert_eq!(batch[6..12], single);
    }
}

#[test]
fn noise_of_another_shape_starts_alike() {
    let (short, long) = (draw(&mut Seeded::new(7, [4]), [1, 3]), draw(&mut Seeded::new(7, [4]), [1, 30]));
    assert_eq!(short, long[..3]);
}

#[test]
fn draws_images_seeds_and_purposes_all_differ() {
    let mut seen = HashSet::new();
    for seed in [0, 1, seed_for(0, "data"), seed_for(0, "noise"), seed_for(1, "noise"), u64::MAX] {
        for image in [0, 1, 2, u64::MAX] {
            for draw in [0, 1, 2, u32::MAX] {
                assert!(seen.insert(generator(seed, image, draw).next_u64()), "{seed} {image} {draw}");
            }
        }
    }
    let mut noise = Seeded::new(7, [4]);
    assert_ne!(draw(&mut noise, [1, 4]), draw(&mut noise, [1, 4]));
}

#[test]
fn a_copy_continues_as_the_original_does() {
    let mut noise = Seeded::new(7, [4]);
    draw(&mut noise, [1, 4]);
    let mut copy = noise.clone();
    assert_eq!(draw(&mut noise, [1, 4]), draw(&mut copy, [1, 4]));
}

/// Mean, variance, skewness and excess kurtosis against their standard errors for `n` normal values.
pub(crate) fn assert_standard_normal(values: &[f32]) {
    let n = values.len() as f64;
    let moment = |k: i32| values.iter().map(|v| f64::from(*v).powi(k)).sum::<f64>() / n;
    let found = [moment(1), moment(2) - 1.0, moment(3), moment(4) - 3.0];
    let variance = [1.0, 2.0, 15.0, 96.0]; // of z, z^2, z^3 and z^4
    for (k, (value, variance)) in found.into_iter().zip(variance).enumerate() {
        assert!(value.abs() < 4.0 * (variance / n).sqrt(), "moment {}: off by {value}", k + 1);
    }
}

#[test]
fn values_are_standard_normal_along_an_image_and_across_images() {
    assert_standard_normal(&draw(&mut Seeded::new(1, [0]), [1, 100_000]));
    let images: Vec<u64> = (0..50_000).collect();
    assert_standard_normal(&draw(&mut Seeded::new(1, images), [50_000, 2]));
    let device = Device::flex();
    device.seed(5);
    assert_standard_normal(&host(&DeviceNoise.normal_like(&Tensor::<1>::zeros([100_000], &device))));
}

#[test]
fn neighbouring_images_and_draws_are_uncorrelated() {
    let mut noise = Seeded::new(3, [10, 11]);
    let (first, second) = (draw(&mut noise, [2, 50_000]), draw(&mut noise, [2, 50_000]));
    let correlation =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>() / a.len() as f64;
    let limit = 4.0 / 50_000f64.sqrt();
    assert!(correlation(&first[..50_000], &first[50_000..]).abs() < limit);
    assert!(correlation(&first, &second).abs() < limit);
    // Nor does a draw run into the next: no part of one is a part of the other.
    assert!(first.windows(4).all(|part| part != &second[..4]));
}

/// A change of these numbers changes every picture anyone has drawn with a seed.
#[test]
fn first_values_are_pinned() {
    let mut noise = Seeded::new(7, [3]);
    assert_eq!(draw(&mut noise, [1, 4]), [-1.0436549, -1.5494215, 0.68326443, -0.41305742]);
    assert_eq!(draw(&mut noise, [1, 2]), [-0.60522383, -0.38502872]);
    assert_eq!(seed_for(7, "noise"), 4_554_505_938_452_881_132);
    assert_eq!(seed_for(0, ""), 12_161_962_213_042_174_405);
}

#[test]
#[should_panic(expected = "a batch of 3 for noise of 2 images")]
fn refuses_a_batch_of_other_images() {
    draw(&mut Seeded::new(0, [1, 2]), [3, 2]);
}
