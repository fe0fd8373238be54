use crate::{FOUR, ONE, Ranks, THREE, TWO, close, wave};
use burn::optim::GradientsParams;
use burn::prelude::*;
use canvas_train::clip_global_norm;

/// All gradients in the order of the parameters.
fn all(model: &Ranks, mut grads: GradientsParams) -> Vec<Vec<f64>> {
    fn host<const D: usize>(grad: Option<Tensor<D>>) -> Vec<f64> {
        grad.map_or(Vec::new(), |grad| grad.into_data().iter::<f64>().collect())
    }
    vec![
        host(grads.remove::<1>(model.one.id)),
        host(grads.remove::<2>(model.two.id)),
        host(grads.remove::<3>(model.three.id)),
        host(grads.remove::<4>(model.four.id)),
    ]
}

fn norm<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn model() -> Ranks {
    Ranks::new(&Device::flex().autodiff())
}

#[test]
fn the_norm_is_that_of_all_gradients_together() {
    let model = model();
    let counts = [&ONE[..], &TWO, &THREE, &FOUR].map(|dims| dims.iter().product::<usize>());
    let values = counts.iter().enumerate().flat_map(|(i, &count)| wave(count, i as f64, 3.0)).map(f64::from);
    let expected = values.map(|x| x * x).sum::<f64>().sqrt();
    for limit in [1.0, 1e6] {
        close(clip_global_norm(&model, model.grads(0, 3.0), limit).1, expected, 1e-5);
    }
}

#[test]
fn under_the_limit_nothing_changes() {
    let model = model();
    let before = all(&model, model.grads(0, 3.0));
    let (grads, norm) = clip_global_norm(&model, model.grads(0, 3.0), 1e3);
    assert_eq!(all(&model, grads), before);
    assert_eq!(all(&model, clip_global_norm(&model, model.grads(0, 3.0), norm).0), before);
}

#[test]
fn beyond_the_limit_the_length_is_the_limit_and_the_direction_stays() {
    let model = model();
    let before = all(&model, model.grads(0, 3.0));
    let (grads, found) = clip_global_norm(&model, model.grads(0, 3.0), 0.5);
    let after = all(&model, grads);
    close(norm(after.iter().flatten()), 0.5, 1e-6);
    for (a, b) in after.iter().flatten().zip(before.iter().flatten()) {
        close(*a, b * 0.5 / found, 1e-6);
    }
    // Clipped alone, every parameter would come to the same length; jointly they keep their proportions.
    for (a, b) in after.iter().zip(&before) {
        assert!(norm(b) > 0.5 && norm(a) < 0.45, "{} -> {}", norm(b), norm(a));
    }
}

#[test]
fn parameters_without_a_gradient_do_not_count() {
    let model = model();
    let mut grads = model.grads(0, 3.0);
    grads.remove::<1>(model.one.id);
    let expected = norm(all(&model, model.grads(0, 3.0))[1..].iter().flatten());
    let (grads, found) = clip_global_norm(&model, grads, 0.5);
    close(found, expected, 1e-5);
    assert!(all(&model, grads)[0].is_empty());
    assert_eq!(clip_global_norm(&model, GradientsParams::new(), 1.0).1, 0.0);
}

#[test]
fn what_is_not_finite_is_reported_and_passes_through() {
    let model = model();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut grads = model.grads(0, 3.0);
        grads.remove::<2>(model.two.id);
        grads.register(
            model.two.id,
            crate::tensor(vec![1.0, value, 1.0, 1.0, 1.0, 1.0], TWO, &Device::flex()),
        );
        let (grads, norm) = clip_global_norm(&model, grads, 0.5);
        assert!(!norm.is_finite(), "{norm}");
        let after = all(&model, grads);
        // An infinity must not have been scaled to NaN, nor the others to 0.
        assert_eq!(after[1][1].to_bits(), f64::from(value).to_bits());
        assert_eq!(after[0], all(&model, model.grads(0, 3.0))[0]);
    }
}
