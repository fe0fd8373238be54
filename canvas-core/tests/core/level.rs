use crate::{assert_near, waves};
use burn::prelude::*;
use canvas_core::{Level, NoiseSchedule, mix, per_sample};

/// The flow-matching schedule.
struct Flow;

impl NoiseSchedule for Flow {
    fn level(&self, t: f64) -> Level {
        Level { time: t, alpha: 1.0 - t, sigma: t }
    }
}

const LEVELS: [Level; 2] =
    [Level { time: 0.1, alpha: 0.9, sigma: 0.3 }, Level { time: 0.8, alpha: 0.2, sigma: 1.7 }];

#[test]
fn per_sample_broadcasts_over_any_rank() {
    let device = Device::flex();
    let one = per_sample::<1>(&LEVELS, &device, |level| level.sigma);
    let four = per_sample::<4>(&LEVELS, &device, |level| level.sigma);
    let shared = per_sample::<3>(&LEVELS[..1], &device, |level| level.alpha);
    assert_eq!((one.dims(), four.dims(), shared.dims()), ([2], [2, 1, 1, 1], [1, 1, 1]));
    assert_near(&four, &[0.3, 1.7], 1e-7);
    assert_near(&shared, &[0.9], 1e-7);
}

#[test]
fn mix_noises_each_sample_at_its_own_level() {
    let (x0, eps) = (waves([2, 3, 2], 0.0), waves([2, 3, 2], 0.5));
    let (a, b) = (crate::host64(&x0), crate::host64(&eps));
    let by_hand = |level: &dyn Fn(usize) -> Level| -> Vec<f64> {
        (0..12).map(|i| level(i / 6).alpha * a[i] + level(i / 6).sigma * b[i]).collect()
    };
    assert_near(&mix(x0.clone(), eps.clone(), &LEVELS), &by_hand(&|row| LEVELS[row]), 1e-6);
    assert_near(&mix(x0, eps, &LEVELS[1..]), &by_hand(&|_| LEVELS[1]), 1e-6);
}

#[test]
fn eps_recovers_the_noise_that_was_mixed_in() {
    let (x0, eps) = (waves([1, 6], 0.0), waves([1, 6], 0.5));
    let mixed = mix(x0.clone(), eps.clone(), &LEVELS[..1]);
    assert_near(&LEVELS[0].eps(mixed, x0), &crate::host64(&eps), 1e-6);
}

#[test]
fn level_at_ratio_is_the_inverse_of_the_schedule() {
    for t in [1e-6, 0.01, 0.3, 0.5, 0.77, 0.999] {
        let ratio = Flow.level(t).sigma / Flow.level(t).alpha;
        assert!((Flow.level_at_ratio(ratio).time - t).abs() < 1e-12, "{t}");
        let boxed: Box<dyn NoiseSchedule> = Box::new(Flow);
        assert_eq!(boxed.level_at_ratio(ratio), Flow.level_at_ratio(ratio));
    }
    assert!(Flow.level_at_ratio(0.0).time < 1e-12);
    assert!(Flow.level_at_ratio(f64::INFINITY).time > 1.0 - 1e-12);
}

#[test]
fn signal_to_noise_by_hand() {
    assert!((LEVELS[0].snr() - 9.0).abs() < 1e-12);
    assert!((LEVELS[0].half_log_snr() - 3f64.ln()).abs() < 1e-12);
    assert_eq!(Flow.level(1.0).half_log_snr(), f64::NEG_INFINITY);
    assert_eq!(Flow.level(0.0).half_log_snr(), f64::INFINITY);
}
