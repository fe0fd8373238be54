//! The trained numbers of an adapter, and the change they make.

use super::{AdapterConfig, Kind};
use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::prelude::*;

/// Each kind's factors. The first ones are drawn, the last is 0, so that nothing is changed at the start.
#[derive(Module, Debug)]
pub(super) enum Factors {
    Low(Low),
    Hadamard(Hadamard),
    Kronecker(Kronecker),
}

/// LoRA, and with a magnitude DoRA.
#[derive(Module, Debug)]
pub(super) struct Low {
    /// `[r, in]`
    down: Param<Tensor<2>>,
    /// `[out, r]`
    up: Param<Tensor<2>>,
    /// `[out]`
    magnitude: Option<Param<Tensor<1>>>,
}

/// LoHa: `(a b) * (c d)`.
#[derive(Module, Debug)]
pub(super) struct Hadamard {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    c: Param<Tensor<2>>,
    d: Param<Tensor<2>>,
}

/// LoKr: `a kron (b c)`.
#[derive(Module, Debug)]
pub(super) struct Kronecker {
    a: Param<Tensor<2>>,
    b: Param<Tensor<2>>,
    c: Param<Tensor<2>>,
}

impl Factors {
    /// Of a layer `[out, in, ..]` whose outputs' weights have these lengths.
    pub fn new(config: AdapterConfig, shape: &[usize], lengths: Vec<f32>, device: &Device) -> Self {
        let (out, inner, rank) = (shape[0], shape[1..].iter().product::<usize>(), config.rank);
        // PyTorch's `kaiming_uniform_` with a slope of the root of 5, as peft has it.
        let drawn = |rows: usize, columns: usize| {
            let bound = (columns as f64).sqrt().recip();
            Initializer::Uniform { min: -bound, max: bound }.init([rows, columns], device)
        };
        let normal = |std: f64, dims: [usize; 2]| Initializer::Normal { mean: 0.0, std }.init(dims, device);
        let zeros = |dims: [usize; 2]| Initializer::Zeros.init(dims, device);
        match config.kind {
            Kind::Lora => {
                Self::Low(Low { down: drawn(rank, inner), up: zeros([out, rank]), magnitude: None })
            }
            Kind::Dora => {
                let magnitude = Tensor::from_data(TensorData::new(lengths, [out]), device);
                let magnitude = Some(Param::from_tensor(magnitude));
                Self::Low(Low { down: drawn(rank, inner), up: zeros([out, rank]), magnitude })
            }
            Kind::Loha => Self::Hadamard(Hadamard {
                a: normal(0.1, [out, rank]),
                b: normal(1.0, [rank, inner]),
                c: zeros([out, rank]),
                d: normal(1.0, [rank, inner]),
            }),
            Kind::Lokr { factor } => {
                let [rows, columns] = [out, shape[1]].map(|size| divisor(size, factor));
                Self::Kronecker(Kronecker {
                    a: drawn(rows, columns),
                    b: drawn(out / rows, rank),
                    c: zeros([rank, inner / columns]),
                })
            }
        }
    }

    /// The changed matrix, of `[out, in]`.
    pub fn changed(&self, base: Tensor<2>, scale: f64) -> Tensor<2> {
        match self {
            Self::Low(Low { down, up, magnitude }) => {
                let sum = base + up.val().matmul(down.val()) * scale;
                let Some(magnitude) = magnitude else { return sum };
                let length = sum.clone().square().sum_dim(1).sqrt().detach(); // [O, 1]
                sum * (magnitude.val().unsqueeze_dim(1) / length)
            }
            Self::Hadamard(Hadamard { a, b, c, d }) => {
                base + a.val().matmul(b.val()) * c.val().matmul(d.val()) * scale
            }
            Self::Kronecker(Kronecker { a, b, c }) => {
                let (a, second) = (a.val(), b.val().matmul(c.val()));
                let ([rows, columns], [below, right]) = (a.dims(), second.dims());
                let product: Tensor<4> =
                    a.reshape([rows, 1, columns, 1]) * second.reshape([1, below, 1, right]);
                base + product.reshape([rows * below, columns * right]) * scale
            }
        }
    }

    /// What files call the tensors, with the scale in the second of those that are multiplied.
    pub fn published(&self, shape: &[usize], scale: f64) -> Vec<(&'static str, TensorData)> {
        let kernel = &shape[2..];
        let with = |data: TensorData, dims: &[usize]| {
            TensorData::new(data.iter::<f32>().collect::<Vec<_>>(), dims.to_vec())
        };
        let whole = |x: Tensor<2>| x.into_data();
        match self {
            Self::Low(Low { down, up, magnitude }) => {
                let rank = down.val().dims()[0];
                let ones = vec![1; kernel.len()];
                let mut tensors = vec![
                    ("lora_A.weight", with(whole(down.val()), &[&[rank, shape[1]], kernel].concat())),
                    (
                        "lora_B.weight",
                        with(whole(up.val() * scale), &[&[shape[0], rank], &ones[..]].concat()),
                    ),
                ];
                if let Some(magnitude) = magnitude {
                    let dims =
                        if kernel.is_empty() { vec![shape[0]] } else { [&[1, shape[0]], &ones[..]].concat() };
                    tensors.push(("lora_magnitude_vector", with(magnitude.val().into_data(), &dims)));
                }
                tensors
            }
            Self::Hadamard(Hadamard { a, b, c, d }) => vec![
                ("hada_w1_a", whole(a.val())),
                ("hada_w1_b", whole(b.val())),
                ("hada_w2_a", whole(c.val() * scale)),
                ("hada_w2_b", whole(d.val())),
            ],
            Self::Kronecker(Kronecker { a, b, c }) => vec![
                ("lokr_w1", whole(a.val() * scale)),
                ("lokr_w2_a", whole(b.val())),
                ("lokr_w2_b", whole(c.val())),
            ],
        }
    }
}

/// The largest divisor of a size up to this one.
fn divisor(size: usize, most: usize) -> usize {
    (1..=most.clamp(1, size)).rev().find(|by| size.is_multiple_of(*by)).unwrap_or(1)
}
