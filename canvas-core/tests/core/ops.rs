//! Kernels against what they stand for: values and gradients, over many shapes, orders in memory and types.

use burn::prelude::*;
use burn::tensor::{DType, FloatDType};
use canvas_core::nn::attention::{joined, split};
use canvas_core::nn::{Activation, Pairs, Rope, Scores, attend_with};
use canvas_core::ops::{self, AdamW, GroupNorm, Norm, definition};
use canvas_core::trace::{self, Hook};
use std::rc::Rc;

const ACTIVATIONS: [Activation; 6] = [
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Relu,
    Activation::ReluSquared,
];

/// No row is a multiple of another, and both signs occur.
fn chirp<const D: usize>(dims: [usize; D], phase: f64) -> Tensor<D> {
    let values: Vec<f32> = (0..dims.iter().product::<usize>())
        .map(|i| (2.5 * (i as f64 * 0.7 + (i * i % 1013) as f64 * 0.013 + phase).sin()) as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

/// The largest difference, by the largest of what is expected.
fn off<const D: usize>(found: Tensor<D>, expected: Tensor<D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    if found.dims().contains(&0) {
        return 0.0;
    }
    let size = expected.clone().abs().max().cast(DType::F32).into_scalar::<f32>().max(1e-3);
    (found - expected).abs().max().cast(DType::F32).into_scalar::<f32>() / size
}

/// Compares an operation with its definition in 64 bits: values, and the gradients of all inputs, which have one rank.
///
/// Where terms cancel, no 32 bits are exact: then the operation may be twice as far off as its definition in 32 bits.
fn compare<const D: usize, const N: usize>(
    what: &str,
    inputs: &[Tensor<D>; N],
    kernel: impl Fn([Tensor<D>; N]) -> Tensor<D>,
    definition: impl Fn([Tensor<D>; N]) -> Tensor<D>,
) {
    compare_within([2e-6, 5e-6], what, inputs, kernel, definition);
}

/// As [`compare`], with how far off values and gradients may be.
fn compare_within<const D: usize, const N: usize>(
    [value, gradient]: [f32; 2],
    what: &str,
    inputs: &[Tensor<D>; N],
    kernel: impl Fn([Tensor<D>; N]) -> Tensor<D>,
    definition: impl Fn([Tensor<D>; N]) -> Tensor<D>,
) {
    let all = |run: &dyn Fn([Tensor<D>; N]) -> Tensor<D>, dtype: DType| {
        let tracked = inputs.clone().map(|x| x.cast(dtype).autodiff().require_grad());
        let y = run(tracked.clone());
        let weight = chirp(y.dims(), 0.3).cast(dtype).autodiff();
        let gradients = (y.clone() * weight).sum().backward();
        let gradients = tracked.map(|x| x.grad(&gradients).expect("every input is used"));
        [y.inner()].into_iter().chain(gradients).map(|x| x.cast(DType::F64)).collect::<Vec<_>>()
    };
    let (exact, plain) = (all(&definition, DType::F64), all(&definition, DType::F32));
    for (i, (found, exact)) in all(&kernel, DType::F32).into_iter().zip(&exact).enumerate() {
        let (far, near) = (off(found, exact.clone()), off(plain[i].clone(), exact.clone()));
        let (name, bar) = match i {
            0 => ("value".to_owned(), value),
            _ => (format!("gradient {}", i - 1), gradient),
        };
        assert!(far < f32::max(bar, 2.0 * near), "{what}: {name} off by {far:e}, its definition by {near:e}");
    }
    let without = off(kernel(inputs.clone()).cast(DType::F64), exact[0].clone());
    let near = off(plain[0].clone(), exact[0].clone());
    assert!(without < f32::max(value, 2.0 * near), "{what}: without gradients off by {without:e}");
}

#[test]
fn kernels_compute_with_gradients_and_without() {
    let flex = Device::flex();
    for device in [flex.clone(), flex.clone().autodiff(), flex.clone().autodiff().gradient_checkpointing()] {
        let found = ops::has_kernels(&Tensor::<1>::zeros([1], &device));
        assert_eq!(found, ops::kernels_are_on(), "{device:?}"); // CANVAS_KERNELS=off turns them off for all tests
    }
    assert!(!ops::has_kernels(&Tensor::<1>::zeros([1], &flex).cast(FloatDType::F64)));
}

#[test]
fn activations_are_their_definitions() {
    for by in ACTIVATIONS {
        for dims in [[1, 1], [3, 5], [7, 1000], [33, 1001], [0, 4]] {
            let what = format!("{by:?} of {dims:?}");
            let x = [chirp(dims, 1.0)];
            compare(&what, &x, |[x]| ops::activate(by, x), |[x]| definition::activate(x, by));
            let two = [chirp(dims, 1.0), chirp(dims, 2.0)];
            compare(&what, &two, |[a, b]| ops::gate(by, a, b), |[a, b]| definition::gate(a, b, by));
        }
    }
}

#[test]
fn far_ends_of_activations_are_finite_or_what_goes_in() {
    let ends = Tensor::<1>::from_floats([-1e4, -90.0, -20.0, 20.0, 90.0, 1e4], &Device::flex());
    for by in ACTIVATIONS {
        let found = ops::activate(by, ends.clone());
        let off = off(found.clone(), definition::activate(ends.clone(), by));
        assert!(off < 1e-6, "{by:?}: {found} off by {off:e}");
        let nan = ops::activate(by, Tensor::<1>::from_floats([f32::NAN, 1.0], &Device::flex()));
        assert!(nan.clone().is_nan().into_data().iter::<bool>().eq([true, false]), "{by:?}: {nan}");
    }
}

/// All shapes that vectors may have.
fn vectors([batch, length, width]: [usize; 3]) -> [[usize; 3]; 3] {
    [[1, 1, width], [batch, 1, width], [batch, length, width]]
}

#[test]
fn norms_are_their_definitions() {
    for norm in
        [Norm::layer(1e-6), Norm::rms(1e-5), Norm::layer(1e-5).modulated(), Norm::rms(1e-6).modulated()]
    {
        for dims in [[1, 1, 2], [2, 3, 7], [3, 50, 64], [2, 70, 384], [2, 2, 20_001], [0, 3, 8], [2, 0, 8]] {
            for small in vectors(dims) {
                let inputs = [chirp(dims, 0.0), chirp(small, 1.0), chirp(small, 2.0)];
                let what = format!("{norm:?} of {dims:?}, vectors {small:?}");
                if dims[0] * dims[1] == 0 {
                    let [x, weight, bias] = inputs;
                    assert_eq!(ops::norm(norm, x, weight, bias).dims(), dims, "{what}");
                    continue;
                }
                let kernel = |[x, w, b]: [Tensor<3>; 3]| ops::norm(norm, x, w, b);
                compare(&what, &inputs, kernel, |[x, w, b]| definition::norm(x, w, b, norm));
            }
        }
    }
}

#[test]
fn residuals_are_their_definitions() {
    for dims in [[1, 1, 1], [2, 3, 7], [3, 50, 64], [2, 90, 384]] {
        for small in vectors(dims) {
            let inputs = [chirp(dims, 0.0), chirp(small, 1.0), chirp(dims, 2.0)];
            let kernel = |[x, gate, y]: [Tensor<3>; 3]| ops::residual(x, gate, y);
            compare(&format!("{dims:?}, {small:?}"), &inputs, kernel, |[x, gate, y]| {
                definition::residual(x, gate, y)
            });
        }
    }
}

#[test]
fn group_norms_are_their_definitions() {
    for activation in [None, Some(Activation::Silu), Some(Activation::Relu)] {
        for (dims, groups) in
            [([1, 2, 1, 3], 1), ([2, 6, 5, 3], 3), ([3, 32, 9, 7], 32), ([1, 64, 40, 33], 8)]
        {
            let norm = GroupNorm { groups, epsilon: 1e-5, activation };
            // As vectors of rank 4, so that all inputs have one rank.
            let small = [1, dims[1], 1, 1];
            let inputs = [chirp(dims, 0.0), chirp(small, 1.0), chirp(small, 2.0)];
            let flat = |x: Tensor<4>| x.reshape([dims[1]]);
            compare(
                &format!("{norm:?} of {dims:?}"),
                &inputs,
                |[x, w, b]| ops::group_norm(norm, x, flat(w), flat(b)),
                |[x, w, b]| definition::group_norm(x, flat(w), flat(b), norm),
            );
        }
    }
}

#[test]
fn linear_layers_are_their_definitions() {
    for [rows, from, to] in [[1, 1, 1], [3, 5, 7], [130, 64, 96], [7, 2100, 70], [300, 33, 129], [0, 4, 3]] {
        // The bias as a matrix of one row, so that all inputs have one rank.
        let inputs = [chirp([rows, from], 0.0), chirp([from, to], 1.0), chirp([1, to], 2.0)];
        let flat = |bias: Tensor<2>| bias.reshape([to]);
        compare(
            &format!("{rows} rows from {from} to {to}"),
            &inputs,
            |[x, w, b]| ops::linear(x, w, flat(b)),
            |[x, w, b]| definition::linear(x, w, flat(b)),
        );
    }
}

#[test]
fn convolutions_are_their_definitions() {
    // The second and the fourth are large enough for Winograd's.
    for ([batch, from, to, height, width], kernel, stride, padding) in [
        ([1, 1, 1, 3, 3], [3, 3], [1, 1], [0, 0]),
        ([2, 16, 20, 17, 13], [3, 3], [1, 1], [1, 1]),
        ([2, 5, 7, 9, 12], [3, 3], [2, 2], [1, 1]),
        ([1, 32, 33, 24, 24], [3, 3], [1, 1], [1, 1]),
        ([1, 3, 4, 8, 9], [5, 3], [1, 2], [2, 1]),
        ([2, 3, 4, 8, 8], [4, 4], [4, 4], [0, 0]),
        ([2, 20, 70, 9, 7], [1, 1], [1, 1], [0, 0]),
        ([1, 60, 40, 5, 4], [3, 3], [1, 1], [1, 1]),
    ] {
        let conv = ops::Conv2d { stride, padding };
        let [rows, columns] = kernel;
        let weight = chirp([to, from, rows, columns], 1.0) / ((from * rows * columns) as f64).sqrt();
        let inputs = [chirp([batch, from, height, width], 0.0), weight, chirp([1, to, 1, 1], 2.0)];
        let flat = |bias: Tensor<4>| bias.reshape([to]);
        compare(
            &format!("{from} to {to} channels, {kernel:?} of {height}x{width}, {conv:?}"),
            &inputs,
            |[x, w, b]| ops::conv2d(conv, x, w, flat(b)),
            |[x, w, b]| definition::conv2d(x, w, flat(b), conv),
        );
    }
}

#[test]
fn numbers_may_lie_in_any_order() {
    let x = chirp([5, 6, 8], 0.0);
    let turned = || x.clone().swap_dims(0, 2).narrow(1, 1, 4).flip([0]);
    let copy = Tensor::<3>::from_data(turned().into_data(), &Device::flex());
    let same = |a: Tensor<3>, b: Tensor<3>| assert_eq!(a.into_data(), b.into_data());
    same(ops::silu(turned()), ops::silu(copy.clone()));
    let vector = || chirp([1, 1, 5], 1.0);
    let norm = Norm::layer(1e-6);
    same(ops::norm(norm, turned(), vector(), vector()), ops::norm(norm, copy.clone(), vector(), vector()));
    same(ops::residual(turned(), vector(), turned()), ops::residual(copy.clone(), vector(), copy));
    let (rows, matrix, bias) = (chirp([4, 6], 0.0), chirp([5, 8], 1.0), chirp([5], 2.0));
    let view = || matrix.clone().swap_dims(0, 1).narrow(0, 1, 6); // columns of a larger matrix, as rows
    let copy = Tensor::<2>::from_data(view().into_data(), &Device::flex());
    let [found, expected] = [view(), copy].map(|weight| ops::linear(rows.clone(), weight, bias.clone()));
    assert!(off(found, expected) < 1e-6);
}

#[test]
fn other_types_go_by_the_definition() {
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let x = chirp([2, 3, 8], 0.0).cast(dtype);
        let found = ops::activate(Activation::Silu, x.clone());
        assert_eq!(found.dtype(), dtype);
        assert_eq!(found.into_data(), definition::activate(x, Activation::Silu).into_data());
    }
}

#[test]
fn a_large_mean_leaves_the_deviation() {
    // The sum of squares less the square of the sum would have no digit of this left.
    let x = chirp([1, 4, 512], 0.0) * 1e-2 + 100.0;
    let ones = Tensor::<3>::ones([1, 1, 512], &Device::flex());
    let y = ops::norm(Norm::layer(1e-9), x, ones.clone(), ones.zeros_like());
    let square = y.square().mean_dim(2).sub_scalar(1.0).abs().max().into_scalar::<f32>();
    assert!(square < 1e-3, "{square}");
}

#[test]
fn adamw_is_its_definition_bit_for_bit() {
    let with = AdamW {
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        corrections: [0.271, 0.002_997],
        rate: 1e-3,
        keep: 0.9999,
    };
    for dims in [[1, 1], [3, 1000], [200, 201], [0, 2]] {
        let (param, grad) = (chirp(dims, 0.0), chirp(dims, 1.0));
        let moments = || [chirp(dims, 2.0), chirp(dims, 3.0).square()];
        let (found, [first, second]) = ops::adamw(with, param.clone(), grad.clone(), moments());
        let (expected, [one, two]) = definition::adamw(with, param.clone(), grad, moments());
        for (found, expected) in [(found, expected), (first, one), (second, two)] {
            assert_eq!(found.into_data(), expected.into_data(), "{dims:?}");
        }
        assert_eq!(param.into_data(), chirp(dims, 0.0).into_data(), "what somebody else holds is as it was");
    }
}

/// A hook that wants every map, and so has attention by its definition.
struct Wants;
impl Hook for Wants {}

/// Tiles against the whole map: values and gradients, of queries that are views of a projection.
#[test]
fn attention_in_tiles_is_attention() {
    let sizes = [[2, 2, 2, 5, 3, 4], [1, 6, 3, 130, 77, 8], [2, 4, 2, 40, 140, 40], [1, 1, 1, 1, 1, 2]];
    for [batch, heads, key_heads, count, length, width] in sizes {
        let hidden = (0..batch * length).map(|i| i % length > 0 && i % 3 == 1).collect::<Vec<bool>>();
        let seen = Tensor::<2, Bool>::from_data(TensorData::new(hidden, [batch, length]), &Device::flex())
            .bool_not();
        let bias = chirp([1, heads, count, length], 3.0);
        let scores = [
            Scores::default(),
            Scores::seen(Some(seen.clone())),
            Scores { bias: Some(bias.clone()), scale: Some(0.3), ..Scores::default() },
            Scores { bias: Some(bias), softcap: Some(2.0), ..Scores::seen(Some(seen)) },
        ];
        let inputs = |size: f64| {
            [
                chirp([batch, count, heads * width], 0.0) * size,
                chirp([batch, length, key_heads * width], 1.0),
                chirp([batch, length, key_heads * width], 2.0),
            ]
        };
        for scores in &scores {
            let run = |[query, key, value]: [Tensor<3>; 3]| {
                let bias = scores.bias.clone().map(|bias| bias.cast(query.dtype()));
                let heads = [split(query, heads), split(key, key_heads), split(value, key_heads)];
                joined(attend_with(heads, &Scores { bias, ..scores.clone() }))
            };
            let what = format!("{heads} heads, {key_heads} of keys, {count} to {length} of {width}");
            let whole = |inputs| trace::with_hook(Rc::new(Wants), || run(inputs));
            compare(&what, &inputs(0.2), run, whole);
            // Scores up to 40: the rounding of one, 2.4e-6, is that of its exponential (Burn's own attention is 2.5e-6 off).
            // And a score's gradient is what is left of the product of values with the output's gradient less that of the
            // output: the definition sums the latter from the former, whose roundings cancel; tiles do not have them at once.
            compare_within([4e-6, 1e-5], &what, &inputs(1.0), run, whole);
        }
    }
}

#[test]
fn a_bias_may_be_trained() {
    let dims = [1, 2, 5, 4];
    let [query, key, value] = [0.0, 1.0, 2.0].map(|phase| chirp(dims, phase));
    let with = |bias: Tensor<4>| {
        let scores = Scores { bias: Some(bias), ..Scores::default() };
        attend_with([query.clone(), key.clone(), value.clone()].map(Tensor::autodiff), &scores)
    };
    let bias = chirp([1, 2, 5, 5], 0.0).autodiff().require_grad();
    let gradients = (with(bias.clone()) * chirp(dims, 0.5).autodiff()).sum().backward();
    assert!(bias.grad(&gradients).unwrap().abs().max().into_scalar::<f32>() > 1e-3);
}

#[test]
fn rotations_are_their_definitions() {
    let positions: Vec<[f64; 2]> = (0..7).map(|i| [f64::from(i / 3), f64::from(i % 3)]).collect();
    for pairs in [Pairs::Neighbours, Pairs::Halves] {
        let rope = |shift: f64| {
            let moved: Vec<[f64; 2]> = positions.iter().map(|[a, b]| [a + shift, b - shift]).collect();
            Rope::new(&moved, &[4, 8], 10.0, pairs, &Device::flex())
        };
        for rope in [rope(0.0), Rope::stack(&[rope(0.0), rope(1.0)])] {
            // Heads within tokens, as a projection gives them. In 64 bits it goes by the definition.
            let within = |[x]: [Tensor<3>; 1]| joined(rope.rotate(split(x, 3)));
            let exact = |[x]: [Tensor<3>; 1]| {
                let dtype = x.dtype();
                within([x.cast(DType::F64)]).cast(dtype)
            };
            compare(&format!("{pairs:?}"), &[chirp([2, 7, 36], 0.0)], within, exact);
            // Heads one after another, each with its own tokens; a gradient is turned back.
            let (x, weight) = (chirp([2, 3, 7, 12], 0.0), chirp([2, 3, 7, 12], 1.0));
            let exact = rope.rotate(x.clone().cast(DType::F64)).cast(DType::F32);
            let x = x.autodiff().require_grad();
            let y = rope.rotate(x.clone());
            assert!(off(y.clone().inner(), exact) < 1e-6);
            let gradients = (y * weight.clone().autodiff()).sum().backward();
            assert!(off(rope.rotate(x.grad(&gradients).unwrap()), weight) < 1e-6);
        }
    }
}
