//! Layers that newer transformers share: rotary positions, streams that attend together, grouped queries.

use crate::{host, host64, waves};
use burn::prelude::*;
use canvas_core::nn::{
    GatedMlpConfig, Pairs, QkvConfig, Rope, Scores, attend, attend_jointly, attend_with, patch, position,
};
use canvas_core::{macs, params};

fn off<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar::<f32>()
}

fn positions(count: usize, shift: [f64; 2]) -> Vec<[f64; 2]> {
    (0..count).map(|i| [(i / 3) as f64 + shift[0], (i % 3) as f64 + shift[1]]).collect()
}

#[test]
fn rotations_by_hand() {
    let device = Device::flex();
    // One axis of four features at position 2: angles 2 and 2 / 100.
    let x = Tensor::<4>::from_floats([[[[1.0, 2.0, 3.0, 4.0]]]], &device);
    let rope = |pairs| Rope::new(&[[2.0]], &[4], 10000.0, pairs, &device);
    let turn =
        |a: f64, b: f64, angle: f64| [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()];
    let (first, second) = (turn(1.0, 2.0, 2.0), turn(3.0, 4.0, 0.02));
    let found = host64(&rope(Pairs::Neighbours).rotate(x.clone()));
    for (found, expected) in found.iter().zip([first, second].concat()) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    let (first, second) = (turn(1.0, 3.0, 2.0), turn(2.0, 4.0, 0.02));
    let found = host64(&rope(Pairs::Halves).rotate(x));
    for (found, expected) in found.iter().zip([first[0], second[0], first[1], second[1]]) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

/// What rotary positions are for: scores know differences of positions only.
#[test]
fn scores_do_not_change_when_all_positions_move() {
    let device = Device::flex();
    for pairs in [Pairs::Neighbours, Pairs::Halves] {
        let scores = |shift| {
            let rope = Rope::new(&positions(6, shift), &[4, 8], 100.0, pairs, &device);
            let [query, key] = [0.0, 1.0].map(|phase| rope.rotate(waves([2, 2, 6, 12], phase)));
            query.matmul(key.swap_dims(2, 3))
        };
        assert!(off(scores([0.0, 0.0]), scores([5.0, -3.0])) < 1e-5);
        assert!(
            off(
                scores([0.0, 0.0]),
                waves([2, 2, 6, 12], 0.0).matmul(waves([2, 2, 6, 12], 1.0).swap_dims(2, 3))
            ) > 0.1
        );
    }
}

#[test]
fn samples_may_have_positions_of_their_own() {
    let device = Device::flex();
    let ropes = [[0.0, 0.0], [2.0, 1.0]]
        .map(|shift| Rope::new(&positions(5, shift), &[4, 4], 100.0, Pairs::Neighbours, &device));
    let x = waves([2, 3, 5, 8], 0.0);
    let both = Rope::stack(&ropes).rotate(x.clone());
    for (row, rope) in ropes.iter().enumerate() {
        assert_eq!(host(&both.clone().narrow(0, row, 1)), host(&rope.rotate(x.clone().narrow(0, row, 1))));
    }
    let part = Rope::stack(&ropes).narrow(1, 3).rotate(x.narrow(2, 1, 3));
    assert_eq!(host(&part), host(&both.narrow(2, 1, 3)));
}

#[test]
#[should_panic(expected = "[tokens, width] of what is rotated")]
fn rotations_refuse_other_lengths() {
    let rope = Rope::new(&positions(5, [0.0; 2]), &[4, 4], 100.0, Pairs::Halves, &Device::flex());
    rope.rotate(waves([1, 1, 4, 8], 0.0));
}

#[test]
fn grouped_keys_serve_query_heads_in_a_row() {
    let (query, key, value) = (waves([2, 6, 5, 4], 0.0), waves([2, 2, 7, 4], 1.0), waves([2, 2, 7, 3], 2.0));
    let found = attend(query.clone(), key.clone(), value.clone(), None);
    assert_eq!(found.dims(), [2, 6, 5, 3]);
    for head in 0..6 {
        let own = |x: &Tensor<4>, head| x.clone().narrow(1, head, 1);
        let alone = attend(own(&query, head), own(&key, head / 3), own(&value, head / 3), None);
        assert!(off(own(&found, head), alone) < 1e-6, "head {head}");
    }
}

/// With and without a gradient are different ways through the code.
#[test]
fn scores_are_scaled_capped_biased_and_masked_in_this_order() {
    let inputs = || [waves([2, 2, 5, 4], 0.0), waves([2, 2, 7, 4], 1.0), waves([2, 2, 7, 4], 2.0)];
    let (bias, mask) = (waves([1, 2, 5, 7], 3.0), waves([2, 1, 5, 7], 0.5).greater_elem(-0.5));
    let scores =
        Scores { seen: Some(mask.clone()), bias: Some(bias.clone()), scale: Some(2.0), softcap: Some(3.0) };
    let [query, key, value] = inputs();
    let raw = ((query * 2.0).matmul(key.swap_dims(2, 3)) / 3.0).tanh() * 3.0 + bias;
    let raw = raw.mask_fill(mask.bool_not().expand([2, 2, 5, 7]), -1e30);
    let expected = burn::tensor::activation::softmax(raw, 3).matmul(value);
    assert!(off(attend_with(inputs(), &scores), expected.clone()) < 1e-5);
    let on = |x: Tensor<4>| Tensor::<4>::from_data(x.into_data(), &Device::flex().autodiff()).require_grad();
    let tracked = Scores {
        seen: scores.seen.map(|x| Tensor::from_data(x.into_data(), &Device::flex().autodiff())),
        bias: scores.bias.map(on),
        ..scores
    };
    assert!(off(attend_with(inputs().map(on), &tracked).inner(), expected) < 1e-5);
}

#[test]
fn streams_attend_as_one_sequence() {
    let device = Device::flex();
    let qkv = |seed: f64| {
        let config = QkvConfig::new(8, 2, 6).with_key_heads(Some(1)).with_norm(Some(1e-6)).with_bias(false);
        (params::fill_by_formula(config.init(&device)), waves([2, 3 + seed as usize, 8], seed))
    };
    let [(first, x), (second, y)] = [qkv(0.0), qkv(1.0)];
    let streams = [first.forward(x, None), second.forward(y, None)];
    let [a, b] = attend_jointly(streams.clone(), &Scores::default());
    assert_eq!([a.dims(), b.dims()], [[2, 3, 12], [2, 4, 12]]);
    let [query, key, value] =
        [0, 1, 2].map(|part| Tensor::cat(vec![streams[0][part].clone(), streams[1][part].clone()], 2));
    let whole = attend(query, key, value, None).swap_dims(1, 2).reshape([2, 7, 12]);
    assert!(off(Tensor::cat(vec![a, b], 1), whole) < 1e-6);
    // Normed queries have a length of their own, whatever the tokens' is.
    let [query, ..] = first.forward(waves([2, 3, 8], 0.0) * 100.0, None);
    assert!(off(query, streams[0][0].clone()) < 1e-3);
}

#[test]
fn gated_perceptron_by_hand() {
    let mlp = params::fill_by_formula(GatedMlpConfig::new(4, 6).init(&Device::flex()));
    let x = waves([2, 3, 4], 0.0);
    let gate = mlp.gate.forward(x.clone());
    let expected =
        mlp.down.forward(gate.clone() * burn::tensor::activation::sigmoid(gate) * mlp.up.forward(x.clone()));
    assert!(off(mlp.forward(x), expected) < 1e-6);
    assert!(mlp.gate.bias.is_none() && mlp.down.bias.is_none());
}

#[test]
fn patches_of_both_orders_are_put_back() {
    let x = waves([2, 3, 4, 6], 0.0);
    assert_eq!(host(&patch::join(patch::split(x.clone(), 2), 2, 4, 6)), host(&x));
    assert_eq!(host(&patch::join_channels_last(patch::split_channels_last(x.clone(), 2), 2, 4, 6)), host(&x));
    let token = |x: Tensor<3>| host(&x.narrow(0, 0, 1).narrow(1, 1, 1));
    let at = |c: usize, y: usize, s: usize| host(&x)[(c * 4 + y) * 6 + s];
    let first = token(patch::split(x.clone(), 2));
    assert_eq!(first[..4], [at(0, 0, 2), at(0, 0, 3), at(0, 1, 2), at(0, 1, 3)]);
    let last = token(patch::split_channels_last(x.clone(), 2));
    assert_eq!(last[..4], [at(0, 0, 2), at(1, 0, 2), at(2, 0, 2), at(0, 0, 3)]);
}

#[test]
fn position_tables_can_be_cut_out_of_larger_ones() {
    let device = Device::flex();
    let large = position::sincos_2d(4, 5, 8, &device).reshape([4, 5, 8]);
    let cut = large.slice([1..3, 2..5, 0..8]).reshape([1, 6, 8]);
    assert_eq!(host(&position::sincos_2d_at(&[1.0, 2.0], &[2.0, 3.0, 4.0], 8, &device)), host(&cut));
}

#[test]
fn products_are_counted() {
    let device = Device::flex();
    let qkv = QkvConfig::new(8, 2, 4).init(&device);
    let run = || attend_jointly([qkv.forward(waves([3, 5, 8], 0.0), None)], &Scores::default());
    let (_, counted) = macs::count(run);
    assert_eq!(counted, 3 * (5 * 8 * 8 * 3 + 2 * 2 * 5 * 5 * 4));
}
