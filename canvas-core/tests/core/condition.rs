use crate::{host, tensor};
use burn::prelude::*;
use canvas_core::{Class, Condition, Text, Unconditional};

fn class(labels: &[usize]) -> Class {
    Class::new(labels, &Device::flex())
}

fn labels(class: &Class) -> Vec<i64> {
    class.labels.to_data().iter::<i64>().collect()
}

/// Prompts of these numbers of real tokens; token `t` of row `r` is `10 (r + first) + t`, padding is 99.
fn text(first: usize, lengths: &[usize]) -> Text {
    let (batch, longest) = (lengths.len(), *lengths.iter().max().unwrap());
    let cells = || (0..batch).flat_map(|row| (0..longest).map(move |t| (row, t)));
    let value =
        |(row, t): (usize, usize)| if t < lengths[row] { (10 * (row + first) + t) as f32 } else { 99.0 };
    let mask: Vec<bool> = cells().map(|(row, t)| t < lengths[row]).collect();
    let pooled: Vec<f32> = (0..batch).flat_map(|row| [(row + first) as f32, -1.0]).collect();
    Text {
        tokens: tensor(&cells().map(value).collect::<Vec<f32>>(), [batch, longest, 1]),
        mask: Tensor::from_data(TensorData::new(mask, [batch, longest]), &Device::flex()),
        pooled: tensor(&pooled, [batch, 2]),
    }
}

/// The real tokens of each row, and the prompt vectors' first entries.
fn read(text: &Text) -> (Vec<Vec<f32>>, Vec<f32>) {
    let [batch, length, _] = text.tokens.dims();
    assert_eq!((text.mask.dims(), text.pooled.dims()), ([batch, length], [batch, 2]));
    let (tokens, mask) = (host(&text.tokens), text.mask.to_data().iter::<bool>().collect::<Vec<_>>());
    let rows = tokens.chunks(length).zip(mask.chunks(length));
    let real = |(row, mask): (&[f32], &[bool])| {
        row.iter().zip(mask).filter(|(_, real)| **real).map(|(v, _)| *v).collect()
    };
    (rows.map(real).collect(), host(&text.pooled).into_iter().step_by(2).collect())
}

#[test]
fn classes_cat_select_and_spread() {
    let both = Class::cat(&[class(&[3, 1]), class(&[7])]);
    assert_eq!((labels(&both), both.batch()), (vec![3, 1, 7], 3));
    assert_eq!(labels(&both.select(&[2, 0, 2])), [7, 3, 7]);
    assert_eq!(labels(&class(&[5]).spread(3)), [5, 5, 5]);
    assert_eq!(labels(&both.spread(3)), [3, 1, 7]);
}

#[test]
fn dropping_takes_the_single_null_or_the_null_of_the_row() {
    let batch = class(&[1, 2, 3]);
    let drop = [true, false, true];
    assert_eq!(labels(&batch.drop_rows(&drop, &class(&[9]))), [9, 2, 9]);
    assert_eq!(labels(&batch.drop_rows(&drop, &class(&[7, 8, 9]))), [7, 2, 9]);
    assert_eq!(labels(&batch.drop_rows(&[false; 3], &class(&[9]))), [1, 2, 3]);
    assert_eq!(labels(&class(&[1]).drop_rows(&[true], &class(&[9]))), [9]);
}

#[test]
fn texts_of_different_lengths_cat_with_masked_padding() {
    let both = Text::cat(&[text(0, &[2, 1]), text(5, &[4])]);
    assert_eq!(both.tokens.dims(), [3, 4, 1]);
    let (rows, pooled) = read(&both);
    assert_eq!(rows, [vec![0.0, 1.0], vec![10.0], vec![50.0, 51.0, 52.0, 53.0]]);
    assert_eq!(pooled, [0.0, 1.0, 5.0]);
    // The order of the parts does not decide who is padded.
    let (rows, _) = read(&Text::cat(&[text(5, &[4]), text(0, &[2, 1])]));
    assert_eq!(rows, [vec![50.0, 51.0, 52.0, 53.0], vec![0.0, 1.0], vec![10.0]]);
}

#[test]
fn texts_select_all_three_parts_together() {
    let picked = text(0, &[1, 3, 2]).select(&[2, 1, 2]);
    let (rows, pooled) = read(&picked);
    assert_eq!(rows, [vec![20.0, 21.0], vec![10.0, 11.0, 12.0], vec![20.0, 21.0]]);
    assert_eq!(pooled, [2.0, 1.0, 2.0]);
}

#[test]
fn dropped_prompts_become_the_null_prompt_of_another_length() {
    let (rows, pooled) = read(&text(0, &[3, 2]).drop_rows(&[false, true], &text(8, &[1])));
    assert_eq!((rows, pooled), (vec![vec![0.0, 1.0, 2.0], vec![80.0]], vec![0.0, 8.0]));
    // A null prompt longer than the batch is not cut.
    let (rows, _) = read(&text(0, &[1, 1]).drop_rows(&[true, false], &text(8, &[2])));
    assert_eq!(rows, [vec![80.0, 81.0], vec![10.0]]);
}

#[test]
fn pairs_move_together() {
    let pair = (class(&[1, 2]), text(0, &[2, 1]));
    let both = Condition::cat(&[pair.clone(), (class(&[3]), text(4, &[3]))]);
    assert_eq!((both.batch(), labels(&both.0)), (3, vec![1, 2, 3]));
    assert_eq!(read(&both.1).1, [0.0, 1.0, 4.0]);
    let dropped = pair.drop_rows(&[true, false], &(class(&[9]), text(8, &[1])));
    assert_eq!((labels(&dropped.0), read(&dropped.1).1), (vec![9, 2], vec![8.0, 1.0]));
    let nested = ((class(&[1]), Unconditional(1)), class(&[2])).spread(2);
    assert_eq!(
        (labels(&nested.0.0), nested.0.1, labels(&nested.1)),
        (vec![1, 1], Unconditional(2), vec![2, 2])
    );
}

#[test]
fn no_condition_counts_samples() {
    assert_eq!(Unconditional::cat(&[Unconditional(2), Unconditional(3)]), Unconditional(5));
    assert_eq!(Unconditional(5).select(&[0, 4]), Unconditional(2));
    assert_eq!(Unconditional(2).drop_rows(&[true, false], &Unconditional(1)), Unconditional(2));
}

#[test]
fn gradient_flows_through_joined_and_dropped_text() {
    let device = Device::flex().autodiff();
    let words = Tensor::<3>::from_data([[[1.0], [2.0]], [[3.0], [4.0]]], &device).require_grad();
    let mask = Tensor::<2, Int>::ones([2, 2], &device).bool();
    let on = Text { tokens: words.clone(), mask, pooled: Tensor::zeros([2, 2], &device) };
    let null = on.select(&[0]);
    let gradients = on.drop_rows(&[false, true], &null).tokens.sum().backward();
    assert_eq!(
        words.grad(&gradients).unwrap().into_data().iter::<f32>().collect::<Vec<_>>(),
        [2.0, 2.0, 0.0, 0.0]
    );
}

#[test]
#[should_panic(expected = "2 flags for a batch of 3")]
fn refuses_flags_that_are_not_one_per_sample() {
    class(&[1, 2, 3]).drop_rows(&[true, false], &class(&[9]));
}

#[test]
#[should_panic(expected = "2 conditions for a batch of 3")]
fn refuses_to_spread_two_rows_over_three() {
    class(&[1, 2]).spread(3);
}
