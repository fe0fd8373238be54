//! Gradient clipping by the norm of all gradients together.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;

/// Scales all gradients so that their joint L2 norm is at most `limit`; returns the norm before.
///
/// Burn's own clipping by norm looks at each parameter alone, which changes the direction of the step.
///
/// # Reference
/// Pascanu et al., "On the difficulty of training recurrent neural networks", 2012,
/// <https://arxiv.org/abs/1211.5063>.
pub fn clip_global_norm<M: Module>(module: &M, grads: GradientsParams, limit: f64) -> (GradientsParams, f64) {
    let mut norm = Norm { grads: &grads, squares: Vec::new() };
    module.visit(&mut norm);
    // One transfer for all parameters, summed on the host in f64 in the module's order.
    let squares = norm.squares;
    let total = if squares.is_empty() {
        0.0
    } else {
        Tensor::cat(squares, 0).into_data().iter::<f64>().sum::<f64>().sqrt()
    };
    (clip_from_norm(module, grads, total, limit), total)
}

/// Scales gradients whose joint norm is known.
pub(crate) fn clip_from_norm<M: Module>(
    module: &M,
    grads: GradientsParams,
    norm: f64,
    limit: f64,
) -> GradientsParams {
    if norm <= limit || !norm.is_finite() {
        return grads;
    }
    let mut scale = Scale { grads, scaled: GradientsParams::new(), factor: limit / norm };
    module.visit(&mut scale);
    scale.scaled
}

struct Norm<'a> {
    grads: &'a GradientsParams,
    squares: Vec<Tensor<1>>,
}

impl ModuleVisitor for Norm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.squares.push(grad.square().sum());
        }
    }
}

struct Scale {
    grads: GradientsParams,
    scaled: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.scaled.register(param.id, grad * self.factor);
        }
    }
}
