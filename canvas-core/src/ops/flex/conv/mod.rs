//! Two-dimensional convolution on plain `f32` slices in NCHW order: the forward pass and both gradients.
//!
//! The forward pass and the input gradient are one correlation (see [`correlate`]): a product of packed weights
//! and packed input patches with one kernel in registers ([`super::tile`]), and for 3x3 kernels of stride 1 with
//! enough channels Winograd's transform ([`winograd`]), which needs a third of the multiplications.
//! The weight gradient ([`weight`]) is a product over positions with the same kernel.
//!
//! No sum depends on the number of threads. Beyond input and output a call holds packed pieces of at most
//! [`correlate::BUDGET`] each, kept by the calling thread for its next call, and each worker keeps some 300 KB.

mod correlate;
mod layer;
mod pack;
mod plan;
#[cfg(test)]
mod tests;
mod weight;
mod window;
mod winograd;

use correlate::correlate;
use layer::{Layer, Taps};

/// A convolution of a batch of images, without groups and without dilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv {
    /// Number of images.
    pub batch: usize,
    /// Channels of the input.
    pub from: usize,
    /// Channels of the output.
    pub to: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Rows and columns from one output to the next.
    pub stride: [usize; 2],
    /// Rows and columns of zeros put around the input.
    pub padding: [usize; 2],
}

impl Conv {
    /// Rows and columns of the output; zero where the kernel exceeds the padded input.
    pub fn output(&self) -> [usize; 2] {
        let axis = |size: usize, i: usize| {
            let room = size + 2 * self.padding[i];
            if room < self.kernel[i] { 0 } else { (room - self.kernel[i]) / self.stride[i] + 1 }
        };
        [axis(self.height, 0), axis(self.width, 1)]
    }

    /// Asserts that the lengths of an input, a weight and an output fit this convolution.
    fn check(&self, x: usize, weight: usize, out: usize) {
        let [rows, columns] = self.output();
        let taps = self.kernel[0] * self.kernel[1];
        assert!(self.from > 0 && self.to > 0 && taps > 0 && self.stride.iter().all(|s| *s > 0), "{self:?}");
        assert_eq!(x, self.batch * self.from * self.height * self.width, "input of {self:?}");
        assert_eq!(weight, self.to * self.from * taps, "weight of {self:?}");
        assert_eq!(out, self.batch * self.to * rows * columns, "output of {self:?}");
    }
}

/// Writes the convolution of `x` `[batch, from, height, width]` with `weight` `[to, from, kernel]`, plus `bias`
/// `[to]` where given, to `out` `[batch, to, output]`.
pub fn forward(conv: &Conv, x: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    conv.check(x.len(), weight.len(), out.len());
    assert!(bias.is_none_or(|b| b.len() == conv.to), "bias of {conv:?}");
    let [rows, columns] = conv.kernel;
    let grid = conv.output();
    let layer = Layer {
        batch: conv.batch,
        from: conv.from,
        to: conv.to,
        size: [conv.height, conv.width],
        grid,
        kernel: conv.kernel,
        step: conv.stride,
        origin: conv.padding.map(|p| -(p as isize)),
        plane: grid,
        first: [0, 0],
        spread: [1, 1],
    };
    let taps = Taps {
        data: weight,
        base: 0,
        out: conv.from * rows * columns,
        into: rows * columns,
        row: columns as isize,
        column: 1,
    };
    correlate(&layer, x, &taps, bias, out);
}

/// Writes the gradient of the input to `dx` `[batch, from, height, width]`, given `weight` `[to, from, kernel]`
/// and the gradient of the output `grad` `[batch, to, output]`.
///
/// Input positions that agree modulo the stride see the same taps, so each such phase is a correlation of stride
/// one of `grad` with the flipped taps it sees.
pub fn input_gradient(conv: &Conv, weight: &[f32], grad: &[f32], dx: &mut [f32]) {
    conv.check(dx.len(), weight.len(), grad.len());
    let [rows, columns] = conv.kernel;
    let size = [conv.height, conv.width];
    if conv.stride != [1, 1] {
        dx.fill(0.0); // A phase without taps writes nothing.
    }
    for first in (0..conv.stride[0]).flat_map(|r| (0..conv.stride[1]).map(move |c| [r, c])) {
        let phase = |i: usize| Phase::new(conv.kernel[i], conv.stride[i], conv.padding[i], first[i]);
        let [down, across] = [phase(0), phase(1)];
        if down.taps * across.taps == 0 {
            continue;
        }
        let layer = Layer {
            batch: conv.batch,
            from: conv.to,
            to: conv.from,
            size: conv.output(),
            grid: [0, 1].map(|i| size[i].saturating_sub(first[i]).div_ceil(conv.stride[i])),
            kernel: [down.taps, across.taps],
            step: [1, 1],
            origin: [down.origin, across.origin],
            plane: size,
            first,
            spread: conv.stride,
        };
        let taps = Taps {
            data: weight,
            base: down.last * columns + across.last,
            out: rows * columns,
            into: conv.from * rows * columns,
            row: -((conv.stride[0] * columns) as isize),
            column: -(conv.stride[1] as isize),
        };
        correlate(&layer, grad, &taps, None, dx);
    }
}

/// The taps one axis of the kernel has for the input positions of one remainder modulo the stride.
struct Phase {
    /// How many taps there are.
    taps: usize,
    /// The last of them: the one the first output in reach is multiplied with.
    last: usize,
    /// The output position that it meets for the first input position.
    origin: isize,
}

impl Phase {
    /// The phase of the input positions `first`, `first + stride`, ...
    fn new(kernel: usize, stride: usize, padding: usize, first: usize) -> Self {
        let lowest = (first + padding) % stride;
        let taps = kernel.saturating_sub(lowest).div_ceil(stride);
        let origin = ((first + padding) / stride) as isize - taps as isize + 1;
        Self { taps, last: lowest + stride * taps.saturating_sub(1), origin }
    }
}

/// Writes the gradient of the weight to `dw` `[to, from, kernel]`, given `x` `[batch, from, height, width]` and
/// the gradient of the output `grad` `[batch, to, output]`.
pub fn weight_gradient(conv: &Conv, x: &[f32], grad: &[f32], dw: &mut [f32]) {
    conv.check(x.len(), dw.len(), grad.len());
    weight::gradient(conv, x, grad, dw);
}
