//! What an answer depends on: its own row, time and condition, and no more.

use crate::{dit, dit_config, text, text_dit, times};
use burn::prelude::*;
use canvas_core::{Backbone, Class, Condition, Text};
use canvas_testkit::{distance, pattern};

#[test]
fn the_prediction_is_the_first_half_and_fewer_channels_without_variance() {
    let device = Device::flex();
    let (x, class) = (pattern([2, 3, 4, 10], 1.0, &device), Class::new(&[3, 7], &device));
    let net = dit([4, 10], &device);
    let both = net.forward_with_variance(x.clone(), times(&device), &class);
    assert_eq!(distance(net.forward(x.clone(), times(&device), &class), both.narrow(1, 0, 3)), 0.0);
    let net = dit_config([4, 10]).with_learn_variance(false).init(&device);
    assert_eq!(net.forward_with_variance(x, times(&device), &class).dims(), [2, 3, 4, 10]);
}

#[test]
fn a_row_alone_equals_its_row_in_a_batch() {
    let device = Device::flex();
    let x = pattern([2, 3, 4, 10], 0.0, &device);
    let (class, text) = (Class::new(&[3, 7], &device), text(&device));
    let (dit, text_dit) = (dit([4, 10], &device), text_dit(&device));
    let by_class = dit.forward(x.clone(), times(&device), &class);
    let by_text = text_dit.forward(x.clone(), times(&device), &text);
    for row in 0..2 {
        let (x, time) = (x.clone().narrow(0, row, 1), times(&device).narrow(0, row, 1));
        let alone = dit.forward(x.clone(), time.clone(), &class.select(&[row]));
        assert!(distance(alone, by_class.clone().narrow(0, row, 1)) < 1e-5, "row {row}");
        let alone = text_dit.forward(x, time, &text.select(&[row]));
        assert!(distance(alone, by_text.clone().narrow(0, row, 1)) < 1e-5, "row {row}");
    }
}

#[test]
fn every_input_counts_for_its_own_sample() {
    let device = Device::flex();
    let x = pattern([1, 3, 4, 10], 0.0, &device).repeat_dim(0, 2);
    let text = text(&device).select(&[0, 0]);
    let differ = |output: Tensor<4>| distance(output.clone().narrow(0, 0, 1), output.narrow(0, 1, 1));
    let same = Tensor::from_floats([0.25, 0.25], &device);

    let net = dit([4, 10], &device);
    let class = |labels: [usize; 2]| Class::new(&labels, &device);
    assert!(differ(net.forward(x.clone(), same.clone(), &class([3, 3]))) < 1e-6);
    assert!(differ(net.forward(x.clone(), times(&device), &class([3, 3]))) > 1e-3);
    assert!(differ(net.forward(x.clone(), same.clone(), &class([3, 7]))) > 1e-3);

    let net = text_dit(&device);
    assert!(differ(net.forward(x.clone(), same.clone(), &text)) < 1e-6);
    assert!(differ(net.forward(x.clone(), times(&device), &text)) > 1e-3);
    let change = pattern([2, 1], 0.5, &device);
    let pooled = Text { pooled: text.pooled.clone() + change.clone(), ..text.clone() };
    assert!(differ(net.forward(x.clone(), same.clone(), &pooled)) > 1e-3);
    let tokens = Text { tokens: text.tokens.clone() + change.unsqueeze_dim::<3>(2), ..text };
    assert!(differ(net.forward(x, same, &tokens)) > 1e-3);
}

#[test]
fn masked_tokens_are_not_read() {
    let device = Device::flex();
    let (net, times) = (text_dit(&device), times(&device));
    let x = pattern([2, 3, 4, 10], 0.0, &device);
    canvas_testkit::masked_tokens_are_not_read(&device, |text| net.forward(x.clone(), times.clone(), text));
}
