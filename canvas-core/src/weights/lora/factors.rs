//! The tensors of one layer, and the change they make: LoRA, DoRA, LoHa and LoKr.
//!
//! A kernel `[out, in, k, k]` is treated as the matrix `[out, in k k]` throughout.

use super::super::{Source, WeightsError};
use burn::prelude::*;
use burn::tensor::DType;
use std::collections::BTreeMap;

/// A layer's tensors, by key.
#[derive(Debug)]
pub(super) enum Factors {
    /// `up down`, or `up mid down` with a kernel in the middle; with a magnitude it is a DoRA.
    Lora { down: String, up: String, mid: Option<String>, magnitude: Option<String> },
    /// LoHa: the product of two products, element by element.
    Hadamard(Product, Product),
    /// LoKr: the Kronecker product of two matrices.
    Kronecker(Factor, Factor),
}

/// `a b`; with a core `t`, `sum over i, j of t[i, j] a[i] b[j]`.
#[derive(Debug)]
pub(super) struct Product {
    a: String,
    b: String,
    t: Option<String>,
}

/// A matrix of a Kronecker product.
#[derive(Debug)]
pub(super) enum Factor {
    Whole(String),
    Product(Product),
}

/// A key, the shape that the layer asks for, and the one it has.
pub(super) type Misshapen = (String, Vec<usize>, Vec<usize>);

type Tensors = BTreeMap<&'static str, String>;

impl Factors {
    /// Fails with a tensor that is there, and what must be with it.
    pub fn new(tensors: &Tensors) -> Result<Self, (&'static str, String)> {
        let (&first, _) = tensors.first_key_value().expect("a place is made by a key");
        let has = |name: &str| tensors.get(name).cloned();
        let needs = |name: &str| has(name).ok_or((first, format!("the tensor {name} of the same layer")));
        let product = |a: &str, b: &str, t: &str| -> Result<Product, _> {
            Ok(Product { a: needs(a)?, b: needs(b)?, t: has(t) })
        };
        let factor = |whole: &str, a: &str, b: &str, t: &str| match has(whole) {
            Some(whole) => Ok(Factor::Whole(whole)),
            None => product(a, b, t).map(Factor::Product),
        };
        let any = |start: &str| tensors.keys().any(|name| name.starts_with(start));
        let kind = ["hada", "lokr"].into_iter().find(|start| any(start));
        let other = |name: &&&str| kind.is_some_and(|kind| !name.starts_with(kind) && **name != "alpha");
        if let Some(name) = tensors.keys().find(other) {
            return Err((name, format!("{} tensors of the same layer only", kind.unwrap_or_default())));
        }
        if any("hada") {
            let first = product("hada_w1_a", "hada_w1_b", "hada_t1")?;
            return Ok(Self::Hadamard(first, product("hada_w2_a", "hada_w2_b", "hada_t2")?));
        }
        if any("lokr") {
            let first = factor("lokr_w1", "lokr_w1_a", "lokr_w1_b", "")?;
            return Ok(Self::Kronecker(first, factor("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")?));
        }
        Ok(Self::Lora {
            down: needs("down")?,
            up: needs("up")?,
            mid: has("mid"),
            magnitude: has("magnitude"),
        })
    }

    /// What alpha is divided by; none for LoKr of two whole matrices.
    pub fn rank(&self, source: &Source) -> Option<usize> {
        let key = match self {
            Self::Lora { down, .. } => down,
            Self::Hadamard(product, _)
            | Self::Kronecker(_, Factor::Product(product))
            | Self::Kronecker(Factor::Product(product), Factor::Whole(_)) => &product.b,
            Self::Kronecker(Factor::Whole(_), Factor::Whole(_)) => return None,
        };
        Some(source.shape(key).and_then(|shape| shape.first().copied()).unwrap_or(0))
    }

    /// Everything about the shapes that does not fit a layer of this one (`[out, in]` or `[out, in, k, ..]`). A kernel
    /// of size 1 and a matrix are the same.
    pub fn misshapen(&self, source: &Source, layer: &[usize]) -> Vec<Misshapen> {
        let (out, inner) = (layer[0], &layer[1..]);
        let mut check = Check { source, found: Vec::new() };
        match self {
            Self::Lora { down, up, mid, magnitude } => {
                let rank = check.rank(down);
                match mid {
                    None => check.expect(down, &[&[rank], inner].concat()),
                    Some(mid) => {
                        check.expect(down, &[rank, inner[0]]);
                        check.expect(mid, &[&[rank, rank], &inner[1..]].concat());
                    }
                }
                check.expect(up, &[out, rank]);
                if let Some(key) = magnitude {
                    // peft keeps that of a kernel as `[1, out, 1, 1]`.
                    let shape = check.shape(key);
                    let kernel = shape.len() > 1 && shape[0] == 1;
                    let expected = if kernel { vec![1, out] } else { vec![out] };
                    check.expect(key, &expected);
                }
            }
            Self::Hadamard(first, second) => {
                check.product(first, out, inner);
                check.product(second, out, inner);
            }
            Self::Kronecker(first, second) => check.kronecker((first, second), out, inner),
        }
        check.found
    }

    /// The change of a matrix `[out, in]`, in its type and on its device.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn change(&self, source: &Source, base: &Tensor<2>, scale: f64) -> Result<Tensor<2>, WeightsError> {
        let read = Read { source, device: base.device() };
        let product = match self {
            Self::Lora { down, up, mid: None, .. } => read.matrix(up)?.matmul(read.matrix(down)?),
            Self::Lora { down, up, mid: Some(mid), .. } => {
                let (up, down) = (read.matrix(up)?.transpose(), read.matrix(down)?);
                tucker(read.matrix(mid)?, up, down)
            }
            Self::Hadamard(first, second) => read.product(first)? * read.product(second)?,
            Self::Kronecker(first, second) => {
                kronecker(read.factor(first)?, read.factor(second)?, base.dims())
            }
        };
        let change = product * scale; // [O, I]
        let Self::Lora { magnitude: Some(magnitude), .. } = self else { return Ok(change) };
        let out = base.dims()[0];
        let sum = base.clone() + change;
        let length = sum.clone().square().sum_dim(1).sqrt(); // [O, 1]
        Ok(read.matrix(magnitude)?.reshape([out, 1]) / length * sum - base.clone())
    }
}

/// Compares shapes; sizes of 1 at the end do not count.
struct Check<'a> {
    source: &'a Source,
    found: Vec<Misshapen>,
}

impl Check<'_> {
    fn shape(&self, key: &str) -> Vec<usize> {
        self.source.shape(key).unwrap_or_default().to_vec()
    }

    /// A rank of 0 is none.
    fn rank(&self, key: &str) -> usize {
        self.shape(key).first().copied().unwrap_or(1).max(1)
    }

    fn expect(&mut self, key: &str, expected: &[usize]) {
        let found = self.shape(key);
        let end = |shape: &[usize]| shape.iter().rposition(|&size| size != 1).map_or(0, |last| last + 1);
        if found[..end(&found)] != expected[..end(expected)] {
            self.found.push((key.to_owned(), expected.to_vec(), found));
        }
    }

    /// `a b` of `[out, inner]`.
    fn product(&mut self, Product { a, b, t }: &Product, out: usize, inner: &[usize]) {
        let rank = self.rank(b);
        match t {
            None => {
                self.expect(a, &[out, rank]);
                self.expect(b, &[rank, inner.iter().product()]);
            }
            Some(t) => {
                self.expect(a, &[rank, out]);
                self.expect(b, &[rank, inner[0]]);
                self.expect(t, &[&[rank, rank], &inner[1..]].concat());
            }
        }
    }

    /// The first matrix is `[a, b]`, and `[out / a, in / b, ..]` is left for the second.
    fn kronecker(&mut self, (first, second): (&Factor, &Factor), out: usize, inner: &[usize]) {
        let (name, rows, columns) = match first {
            Factor::Whole(key) => (key, self.rank(key), self.shape(key).get(1).copied().unwrap_or(1)),
            Factor::Product(Product { a, b, .. }) => {
                let rank = self.rank(b);
                let (rows, columns) = (self.rank(a), self.shape(b).get(1).copied().unwrap_or(1));
                self.expect(a, &[rows, rank]);
                (a, rows, columns)
            }
        };
        if !out.is_multiple_of(rows) || columns == 0 || !inner[0].is_multiple_of(columns) {
            let key = format!("{name} (divisors of these sizes)");
            self.found.push((key, vec![out, inner[0]], vec![rows, columns]));
            return;
        }
        let rest = [&[inner[0] / columns], &inner[1..]].concat();
        match second {
            Factor::Whole(key) => self.expect(key, &[&[out / rows], rest.as_slice()].concat()),
            Factor::Product(product) => self.product(product, out / rows, &rest),
        }
    }
}

/// Tensors of a file on a device.
struct Read<'a> {
    source: &'a Source,
    device: Device,
}

impl Read<'_> {
    /// Everything but the first axis as one.
    fn matrix(&self, key: &str) -> Result<Tensor<2>, WeightsError> {
        let data = self.source.read(key)?;
        let rows = data.shape().first().copied().unwrap_or(1).max(1);
        let columns = data.num_elements() / rows;
        let values: Vec<f32> = data.iter::<f32>().collect();
        Ok(Tensor::from_data(TensorData::new(values, [rows, columns]), (&self.device, DType::F32)))
    }

    fn product(&self, Product { a, b, t }: &Product) -> Result<Tensor<2>, WeightsError> {
        let (a, b) = (self.matrix(a)?, self.matrix(b)?);
        Ok(match t {
            None => a.matmul(b),
            Some(t) => tucker(self.matrix(t)?, a, b),
        })
    }

    fn factor(&self, factor: &Factor) -> Result<Tensor<2>, WeightsError> {
        match factor {
            Factor::Whole(key) => self.matrix(key),
            Factor::Product(product) => self.product(product),
        }
    }
}

/// `sum over i, j of core[i, j, k] a[i, o] b[j, n]`: `[R, R K]`, `[R, O]`, `[R, I]` to `[O, I K]`.
fn tucker(core: Tensor<2>, a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let ([rank, out], [_, inner]) = (a.dims(), b.dims());
    let kernel = core.dims()[1] / rank;
    let rows = a.transpose().matmul(core); // [O, R K]
    let rows = rows.reshape([out, rank, kernel]).swap_dims(1, 2).reshape([out * kernel, rank]);
    rows.matmul(b).reshape([out, kernel, inner]).swap_dims(1, 2).reshape([out, inner * kernel])
}

/// `[A, B]` and `[C, D K]` to `[A C, B D K]`.
fn kronecker(first: Tensor<2>, second: Tensor<2>, dims: [usize; 2]) -> Tensor<2> {
    let ([a, b], [c, d]) = (first.dims(), second.dims());
    let blocks: Tensor<4> = first.reshape([a, 1, b, 1]) * second.reshape([1, c, 1, d]); // [A, C, B, D K]
    blocks.reshape(dims)
}
