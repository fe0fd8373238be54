use crate::panic_text;
use burn::prelude::*;
use canvas_core::{Class, Condition};
use canvas_train::dreambooth::{beside, class_images, with_prior};
use std::convert::Infallible;

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

/// Equation 2 of the paper: `E[subject] + weight E[class]`; of weight 0 it is training of the subject alone.
#[test]
fn the_class_counts_by_its_weight() {
    let losses = Tensor::<1>::from_floats([1.0, 2.0, 10.0, 30.0], &Device::flex());
    assert_eq!(host(&with_prior(losses.clone(), 0.5)), [6.0, 17.0]);
    assert_eq!(host(&with_prior(losses.clone(), 0.5).mean()), [1.5 + 0.5 * 20.0]);
    assert_eq!(host(&with_prior(losses, 0.0)), [1.0, 2.0]);
    let odd = panic_text(|| with_prior(Tensor::<1>::ones([3], &Device::flex()), 1.0));
    assert!(odd.contains("found 3"), "{odd}");
}

#[test]
fn gradients_are_the_sum_of_both() {
    let device = Device::flex().autodiff();
    let losses = Tensor::<1>::from_floats([1.0, 2.0, 10.0, 30.0], &device).require_grad();
    let all = with_prior(losses.clone(), 0.5).mean().backward();
    assert_eq!(host(&losses.grad(&all).unwrap()), [0.5, 0.5, 0.25, 0.25]);
}

#[test]
fn the_subject_stands_before_its_class() {
    let device = Device::flex();
    let of = |value: f64, label: usize| {
        (Tensor::<2>::full([2, 1], value, &device), Class::new(&[label; 2], &device))
    };
    let (x, cond) = beside(of(1.0, 9), of(2.0, 3));
    assert_eq!(host(&x), [1.0, 1.0, 2.0, 2.0]);
    assert_eq!(cond.labels.into_data().iter::<i64>().collect::<Vec<_>>(), [9, 9, 3, 3]);
    let (x, cond) = of(2.0, 3);
    let says = panic_text(|| beside(of(1.0, 9), (x.narrow(0, 0, 1), cond.select(&[0]))));
    assert_eq!(says, "[images, conditions] of the subject [2, 2], of its class [1, 1]");
}

/// Image `n` is drawn once, whoever stopped in between.
#[test]
fn what_is_drawn_already_is_not_drawn_again() {
    let drawn = |start: u64| {
        let mut calls = Vec::new();
        let all = class_images(start, 7, 3, |numbers| {
            calls.push(numbers.to_vec());
            Ok::<_, Infallible>(numbers.iter().map(|number| number * 10).collect())
        });
        (all.unwrap(), calls)
    };
    let (all, calls) = drawn(0);
    assert_eq!(all, [0, 10, 20, 30, 40, 50, 60]);
    assert_eq!(calls, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    assert_eq!(drawn(5).0, [50, 60]);
    assert!(drawn(7).0.is_empty());
    let failed = class_images(0, 2, 1, |numbers| if numbers[0] == 1 { Err("full") } else { Ok(vec![0]) });
    assert_eq!(failed, Err("full"));
}
