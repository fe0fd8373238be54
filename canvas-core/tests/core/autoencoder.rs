use crate::{assert_near, host, host64, tensor, waves};
use burn::prelude::*;
use canvas_core::{LatentScale, Posterior};

fn posterior() -> Posterior {
    Posterior { mean: waves([2, 2, 2, 1], 0.0), log_variance: Some(waves([2, 2, 2, 1], 0.5)) }
}

#[test]
fn kl_is_the_closed_form_for_each_sample() {
    let post = posterior();
    let (mean, log) = (host64(&post.mean), host64(post.log_variance.as_ref().unwrap()));
    // KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - ln v) / 2 for each dimension.
    let term = |i: usize| 0.5 * (mean[i].powi(2) + log[i].exp() - 1.0 - log[i]);
    let expected: Vec<f64> = (0..2).map(|row| (row * 4..row * 4 + 4).map(term).sum()).collect();
    assert_near(&post.kl(), &expected, 1e-5);

    let standard = Posterior {
        mean: tensor(&[0.0; 4], [1, 4, 1, 1]),
        log_variance: Some(tensor(&[0.0; 4], [1, 4, 1, 1])),
    };
    assert_near(&standard.kl(), &[0.0], 0.0);
    let point = Posterior { log_variance: None, ..posterior() };
    let squares: Vec<f64> = mean.chunks(4).map(|row| 0.5 * row.iter().map(|m| m * m).sum::<f64>()).collect();
    assert_near(&point.kl(), &squares, 1e-5);
}

#[test]
fn a_sample_is_the_mean_plus_standard_deviations_of_noise() {
    let post = posterior();
    let zero = post.mean.zeros_like();
    assert_eq!(host(&post.sample(zero)), host(&post.mean));
    assert_eq!(host(&post.mode()), host(&post.mean));
    let (mean, log) = (host64(&post.mean), host64(post.log_variance.as_ref().unwrap()));
    let expected: Vec<f64> = mean.iter().zip(log).map(|(m, log)| m + (log / 2.0).exp()).collect();
    assert_near(&post.sample(post.mean.ones_like()), &expected, 1e-5);
    let point = Posterior { log_variance: None, ..posterior() };
    assert_eq!(host(&point.sample(point.mean.ones_like())), host(&point.mean));
}

/// Three channels of quite different means and spreads.
fn latents() -> Tensor<4> {
    let shift = tensor(&[5.0, -100.0, 0.0], [1, 3, 1, 1]);
    waves([4, 3, 5, 5], 0.0) * tensor(&[0.01, 30.0, 1.0], [1, 3, 1, 1]) + shift
}

#[test]
fn normalised_latents_have_zero_mean_and_unit_variance_in_each_channel() {
    let scale = LatentScale::measure(latents());
    let rows: Tensor<2> = scale.normalise(latents()).swap_dims(0, 1).flatten(1, 3);
    for channel in 0..3 {
        let values = host64(&rows.clone().slice([channel..channel + 1, 0..100]));
        let mean = values.iter().sum::<f64>() / 100.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 99.0;
        assert!(mean.abs() < 1e-3, "mean of channel {channel}: {mean}");
        assert!((variance - 1.0).abs() < 1e-3, "variance of channel {channel}: {variance}");
    }
}

#[test]
fn restore_undoes_normalise() {
    let scale = LatentScale::measure(latents());
    let back = scale.restore(scale.normalise(latents()));
    assert_near(&back, &host64(&latents()), 1e-4);
    // By hand: (latent - shift) * scale.
    let fixed = LatentScale { shift: vec![1.0], scale: vec![0.5] };
    assert_near(&fixed.normalise(tensor(&[5.0], [1, 1, 1, 1])), &[2.0], 0.0);
    assert_near(&fixed.restore(tensor(&[2.0], [1, 1, 1, 1])), &[5.0], 0.0);
}

#[test]
fn a_constant_channel_stays_finite() {
    let flat = tensor(&[3.0; 8], [2, 1, 2, 2]);
    let scale = LatentScale::measure(flat.clone());
    assert_near(&scale.normalise(flat), &[0.0; 8], 1e-6);
}

#[test]
fn scales_survive_json() {
    let scale = LatentScale::measure(latents());
    let json = serde_json::to_string(&scale).unwrap();
    assert_eq!(serde_json::from_str::<LatentScale>(&json).unwrap(), scale);
}
