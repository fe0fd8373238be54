use crate::{close, panic_text, tensor};
use burn::prelude::*;
use canvas_train::Distance;

const ERRORS: [f32; 7] = [-3.0, -0.5, -1e-4, 0.0, 1e-4, 0.5, 3.0];

fn of(distance: Distance) -> Vec<f64> {
    let device = Device::flex();
    let target = tensor::<2>(vec![0.0; 7], [7, 1], &device);
    distance.each(tensor(ERRORS.to_vec(), [7, 1], &device), target).into_data().iter::<f64>().collect()
}

/// Against each formula in f64.
fn is(distance: Distance, formula: impl Fn(f64) -> f64) {
    for (found, error) in of(distance).into_iter().zip(ERRORS) {
        let expected = formula(f64::from(error));
        close(found, expected, 1e-6 * expected);
    }
}

#[test]
fn distances_are_their_formulas() {
    is(Distance::Squared, |e| e * e);
    is(Distance::Absolute, f64::abs);
    for delta in [0.1f64, 0.5, 1.0] {
        // PyTorch's: e^2 / 2 up to delta, then delta (|e| - delta / 2).
        let huber = |e: f64| if e.abs() < delta { e * e } else { 2.0 * delta * (e.abs() - delta / 2.0) };
        is(Distance::Huber { delta }, huber);
        // Without the difference of two nearly equal numbers, as here in f64 for the small errors.
        is(Distance::PseudoHuber { delta }, |e| 2.0 * delta * e * e / (e.hypot(delta) + delta));
    }
}

/// One less the cosine at each place, whatever the lengths.
#[test]
fn cosine_is_of_the_channels_of_each_place() {
    let device = Device::flex();
    let answer = tensor::<4>(vec![1.0, 0.0, 3.0, 0.0, 0.0, 2.0, 3.0, 0.0], [1, 2, 2, 2], &device);
    let target = tensor::<4>(vec![5.0, 0.5, -1.0, 1.0, 0.0, 0.0, -1.0, 1.0], [1, 2, 2, 2], &device);
    let found = Distance::Cosine.each(answer, target);
    assert_eq!(found.dims(), [1, 1, 2, 2]);
    // Parallel, at right angles, opposed, and no direction at all.
    let found: Vec<f64> = found.into_data().iter::<f64>().collect();
    found.iter().zip([0.0, 1.0, 2.0, 1.0]).for_each(|(&found, expected)| close(found, expected, 1e-6));
}

/// Each has a finite gradient where the answer is right, and where there is nothing.
#[test]
fn gradients_are_finite_at_no_error() {
    let device = Device::flex().autodiff();
    let all = [
        Distance::Squared,
        Distance::Absolute,
        Distance::Huber { delta: 0.5 },
        Distance::PseudoHuber { delta: 0.5 },
        Distance::Cosine,
    ];
    for distance in all {
        for value in [0.0, 1.0] {
            let answer = Tensor::<4>::full([2, 3, 2, 2], value, &device).require_grad();
            let grads = distance.each(answer.clone(), answer.clone().detach()).sum().backward();
            let grad = answer.grad(&grads).unwrap().into_data();
            assert!(grad.iter::<f32>().all(|x| x.is_finite()), "{distance:?} at {value}: {grad:?}");
        }
    }
}

#[test]
fn shapes_that_differ_are_refused() {
    let device = Device::flex();
    let zeros = |dims| Tensor::<2>::zeros(dims, &device);
    let message = panic_text(|| Distance::Squared.each(zeros([2, 3]), zeros([1, 3])));
    assert!(message.contains("[2, 3]") && message.contains("[1, 3]"), "{message}");
}
