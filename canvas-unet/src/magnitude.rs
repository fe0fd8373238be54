//! Layers that preserve magnitudes: what comes in with unit variance leaves with it, whatever the weights have learned.
//!
//! Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2023, appendix B,
//! <https://arxiv.org/abs/2312.02696>. No layer has a bias; every row of every weight is scaled to unit variance before
//! it is used. [`normalize_weights`] is what training has to do besides.
//!
//! Shape letters: `B` batch, `C` channels in, `O` channels out, `H` and `S` height and width, `F` features.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::Initializer;
use burn::prelude::*;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use canvas_core::macs;
use canvas_core::ops::silu;
use std::f64::consts::{PI, SQRT_2};

/// Keeps a vector of zeros from being divided by zero.
const EPSILON: f64 = 1e-4;

/// Root mean square of SiLU of a standard normal variable.
const SILU: f64 = 0.596;

/// Scales the vectors along an axis to unit variance: `x / (eps + |x| / sqrt(N))` for `N` entries, `eps = 1e-4`.
///
/// Of channels this is the paper's pixel norm, of a row of a weight its weight normalisation (equation 47); `eps` is added
/// to the root mean square, not to the norm.
pub fn normalized<const D: usize>(x: Tensor<D>, axis: usize) -> Tensor<D> {
    let count = x.dims()[axis] as f64;
    // The root has no slope at zero; the reference's norm takes 0 there, and so does this.
    let norm = (x.clone().square().sum_dim(axis) + 1e-30).sqrt();
    x / (norm / count.sqrt() + EPSILON)
}

/// `silu(x) / 0.596` (equation 81).
pub fn mp_silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    silu(x) / SILU
}

/// `((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)` (equation 88): of two independent tensors of unit variance one of unit
/// variance, to which `b` contributes the fraction `t`.
pub fn mp_sum<const D: usize>(a: Tensor<D>, b: Tensor<D>, t: f64) -> Tensor<D> {
    let size = (1.0 - t).hypot(t);
    a * ((1.0 - t) / size) + b * (t / size)
}

/// Joins channels so that `b` contributes the fraction `t` of what a layer makes of both, however many there are
/// (equation 103).
///
/// # Shapes
/// `[B, C1, H, S]` and `[B, C2, H, S]` to `[B, C1 + C2, H, S]`.
pub fn mp_cat(a: Tensor<4>, b: Tensor<4>, t: f64) -> Tensor<4> {
    let [first, second] = [a.dims()[1] as f64, b.dims()[1] as f64];
    let size = (first + second).sqrt() / (1.0 - t).hypot(t);
    Tensor::cat(vec![a * (size * (1.0 - t) / first.sqrt()), b * (size * t / second.sqrt())], 1)
}

/// A weight `[O, ..]` with every row of unit variance.
fn rows_normalized<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    let dims = weight.dims();
    let rows: Tensor<2> = weight.reshape([dims[0] as i32, -1]);
    normalized(rows, 1).reshape(dims)
}

fn standard_normal<const D: usize>(dims: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Initializer::Normal { mean: 0.0, std: 1.0 }.init(dims, device)
}

/// A linear layer `x w^T / sqrt(C)` with the rows of `w` of unit variance.
#[derive(Module, Debug)]
pub struct MpLinear {
    /// `[O, C]`.
    pub weight: Param<Tensor<2>>,
}

impl MpLinear {
    /// From a standard normal distribution.
    pub fn new(from: usize, to: usize, device: &Device) -> Self {
        Self { weight: standard_normal([to, from], device) }
    }

    /// `[B, C]` to `[B, O]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let ([rows, from], [to, _]) = (x.dims(), self.weight.dims());
        macs::add(rows * from * to);
        let scale = (from as f64).sqrt().recip();
        x.matmul((rows_normalized(self.weight.val()) * scale).transpose())
    }

    /// What the layer makes of `sqrt(C)` times one-hot vectors, which have unit variance; the label `C` stands for zeros.
    ///
    /// # Shapes
    /// `[B]` to `[B, O]`.
    pub fn of_labels(&self, labels: Tensor<1, Int>) -> Tensor<2> {
        let weight = rows_normalized(self.weight.val()); // [O, C]
        let none = weight.clone().narrow(1, 0, 1).zeros_like(); // [O, 1]
        Tensor::cat(vec![weight, none], 1).select(1, labels).transpose()
    }
}

/// A convolution with the rows of its weight of unit variance, divided by `sqrt(C k k)`; it keeps the size.
#[derive(Module, Debug)]
pub struct MpConv {
    /// `[O, C, k, k]`.
    pub weight: Param<Tensor<4>>,
}

impl MpConv {
    /// From a standard normal distribution.
    ///
    /// # Panics
    /// If the kernel's size is even.
    pub fn new(from: usize, to: usize, kernel: usize, device: &Device) -> Self {
        assert!(!kernel.is_multiple_of(2), "a kernel of size {kernel} has no middle");
        Self { weight: standard_normal([to, from, kernel, kernel], device) }
    }

    /// `[B, C, H, S]` to `[B, O, H, S]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let ([batch, _, height, width], [to, from, kernel, _]) = (x.dims(), self.weight.dims());
        macs::add(batch * height * width * to * from * kernel * kernel);
        let scale = ((from * kernel * kernel) as f64).sqrt().recip();
        let weight = rows_normalized(self.weight.val()) * scale;
        conv2d(x, weight, None, ConvOptions::new([1, 1], [kernel / 2; 2], [1, 1], 1))
    }
}

/// Random Fourier features of numbers: `sqrt(2) cos(2 pi (f x + p))` with `f` normal and `p` uniform in `[0, 1)`, which
/// stay as they were drawn (equation 75).
#[derive(Module, Debug)]
pub struct MpFourier {
    /// `[F]`, not trained.
    pub frequencies: Param<Tensor<1>>,
    /// `[F]`, not trained.
    pub phases: Param<Tensor<1>>,
}

impl MpFourier {
    /// Draws frequencies and phases.
    pub fn new(features: usize, device: &Device) -> Self {
        let phases = Initializer::Uniform { min: 0.0, max: 1.0 }.init([features], device);
        Self {
            frequencies: standard_normal([features], device).set_require_grad(false),
            phases: phases.set_require_grad(false),
        }
    }

    /// `[B]` to `[B, F]`.
    pub fn forward(&self, x: Tensor<1>) -> Tensor<2> {
        let [frequencies, phases] = [&self.frequencies, &self.phases].map(|p| p.val().unsqueeze::<2>()); // [1, F]
        ((x.unsqueeze_dim::<2>(1) * frequencies + phases) * (2.0 * PI)).cos() * SQRT_2 // [B, F]
    }
}

/// Forced weight normalisation: sets every row of every [`MpLinear`] and [`MpConv`] inside a module to unit variance.
///
/// The layers scale their weights anyway, so what they compute does not change; but weights of any length would still
/// grow, and with them the effective learning rate would decay. To train as the paper does, call it **before each
/// step** on the module that is trained, once its parameters are [`realise`](canvas_core::params::realise)d: the
/// optimizer then steps from the unit sphere, and averages see the weights as the step left them.
///
/// Identities, gradients' requirements and all other parameters stay.
///
/// # Reference
/// Karras et al., 2023, section 2.3 and equation 66, <https://arxiv.org/abs/2312.02696>.
pub fn normalize_weights<M: Module>(module: M) -> M {
    module.map(&mut Forced(Vec::new()))
}

/// The types on the way from the root, and whether each is one of the layers.
struct Forced(Vec<bool>);

impl ModuleMapper for Forced {
    fn enter_module(&mut self, _name: &str, container: &str) {
        self.0.push(matches!(container, "Struct:MpLinear" | "Struct:MpConv"));
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.0.last() != Some(&true) {
            return param;
        }
        param.map(|old| {
            let trained = old.is_require_grad();
            // The new weight is a leaf: it has no gradient to hand on to the old one.
            rows_normalized(old.set_require_grad(false)).set_require_grad(trained)
        })
    }
}
