//! Gradient checkpointing: training with the memory of a few blocks, at the price of running each twice.
//!
//! A backward pass needs what every layer has computed, so a training step holds the activations of the whole network.
//! [`Forward`] holds the outputs of its blocks only, runs the network without a graph, and then, from the last blocks to
//! the first, runs some again with a graph and sends the gradient of their outputs back through them. For any network that
//! names its parts by [`trace::block`](crate::trace::block) or [`trace::unit`](crate::trace::unit()): nothing else is asked of it.
//!
//! # How
//! The losses are computed by a function of the model that can be called again and again. In the pass of some blocks it is
//! called once more: these blocks run; all others are not run but give what they gave, the earlier ones as leaves of
//! a new graph. With `y_j` what the blocks of the pass give and `g_j` the gradient that later passes have found for it,
//! the gradients of `sum_j <y_j, g_j>` are those of the pass's parameters, of everything outside of blocks that it read (so
//! that shared inputs, such as the time's embedding, are differentiated wherever they are used), and of the earlier
//! blocks' outputs. All that lies outside of blocks runs once in each pass, so it should be little.
//!
//! # What is asked of the function
//! - That it does the same each time: noise and dropped captions are functions of the step (see [`Seeded`](crate::Seeded)).
//! - That a block's output is all it leaves behind.
//! - That it uses the model it is given, not one it has captured.
//!
//! A block that gives something else the second time, and a captured model, are a panic that names the block.
//!
//! Burn's own `Device::gradient_checkpointing` is another thing, and both can be on: it recomputes elementwise operations
//! and keeps the output of every product.
//!
//! # Reference
//! Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, <https://arxiv.org/abs/1604.06174>.
//!
//! # Example
//! ```
//! use burn::nn::{Linear, LinearConfig};
//! use burn::optim::GradientsParams;
//! use burn::prelude::*;
//! use canvas_core::recompute::Forward;
//! use canvas_core::trace;
//!
//! let device = Device::flex().autodiff();
//! let layers: Vec<Linear> = (0..4).map(|_| LinearConfig::new(3, 3).init(&device)).collect();
//! let losses = |layers: &Vec<Linear>| {
//!     let mut x = Tensor::<2>::ones([2, 3], &device);
//!     for (i, layer) in layers.iter().enumerate() {
//!         x = trace::block(|| format!("blocks.{i}"), x, |x| layer.forward(x).tanh());
//!     }
//!     x.square().mean_dim(1).reshape([2])
//! };
//! let forward = Forward::new(&layers, losses);
//! let found = forward.losses.clone().mean().into_scalar::<f32>();
//! let gradients = forward.gradients(2); // two blocks at a time
//!
//! let loss = losses(&layers).mean(); // the whole network at once
//! assert_eq!(found, loss.clone().into_scalar::<f32>());
//! let whole = GradientsParams::from_grads(loss.backward(), &layers);
//! let first = layers[0].weight.id;
//! assert_eq!(gradients.get::<2>(first).unwrap().into_data(), whole.get::<2>(first).unwrap().into_data());
//! ```

mod pass;

pub(crate) use pass::{is_on, unit};

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use pass::{Kept, Pass};

/// Losses, and what their gradients are to be computed from.
pub struct Forward<'a, M, F> {
    /// The losses: those of a batch, or one. Without a graph.
    pub losses: Tensor<1>,
    model: &'a M,
    run: F,
    kept: Vec<Kept>,
}

impl<'a, M: Module, F: Fn(&M) -> Tensor<1>> Forward<'a, M, F> {
    /// Runs the network without a graph, and keeps what its blocks give.
    ///
    /// `run` computes losses from the model it is given; it is called again for the [`gradients`](Self::gradients).
    ///
    /// # Panics
    /// If a block's output has a graph, as that of a captured model has; and within the `run` of another.
    pub fn new(model: &'a M, run: F) -> Self {
        let (losses, pass) = Pass::first().through(|| run(&model.clone().map(&mut Untracked)));
        Self { losses: losses.inner(), model, run, kept: pass.kept }
    }

    /// Gradients of the mean loss with respect to the model's parameters, `blocks` blocks at a time.
    ///
    /// They are those of `losses.mean().backward()`, but for the order in which the parts of a gradient are summed where a
    /// parameter has more than one use.
    ///
    /// # Panics
    /// If `blocks` is 0, or a block gives something else than it did before.
    pub fn gradients(self, blocks: usize) -> GradientsParams {
        assert!(blocks > 0, "gradients are computed some blocks at a time, not 0");
        let Self { model, run, mut kept, .. } = self;
        let mut sum = GradientsAccumulator::new();
        let mut end = kept.len();
        loop {
            let start = end.saturating_sub(blocks);
            let at_the_end = end == kept.len();
            let (losses, mut pass) = Pass::again(kept, start..end).through(|| run(model));
            // What follows the pass's blocks leads to the losses only where it follows the last ones.
            let root = at_the_end.then(|| losses.mean()).or_else(|| pass.product());
            if let Some(root) = root.filter(Tensor::is_tracked) {
                let mut found = root.backward();
                pass.collect(&mut found);
                sum.accumulate(model, GradientsParams::from_grads(found, model));
            }
            (kept, end) = (pass.kept, start);
            if start == 0 {
                return sum.grads();
            }
        }
    }
}

/// Parameters without gradients, but on the device with gradients: the operations are those to be differentiated later.
///
/// Not Burn's `no_grad`, which acts on every clone of a parameter that has not been drawn yet.
struct Untracked;

impl ModuleMapper for Untracked {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.set_require_grad(false))
    }
}
