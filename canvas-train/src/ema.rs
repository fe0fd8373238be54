//! Exponential moving averages of a model's parameters.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::container::TensorContainer;
use serde::{Deserialize, Serialize};

/// An average whose memory is a fraction of the training so far, then at most a constant.
///
/// `average <- decay * average + (1 - decay) * parameters` with
/// `decay = min(limit, (1 + step) / (10 + step))`, the warm-up of Stable Diffusion's and TensorFlow's EMA.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ema {
    /// Largest decay per step, in `[0, 1)`.
    pub limit: f64,
}

impl Ema {
    /// The decay of this step (the first is step 0).
    pub fn decay(&self, step: u64) -> f64 {
        self.limit.min((1.0 + step as f64) / (10.0 + step as f64))
    }

    /// Moves the average towards the model. Both must share parameter identities, as clones do.
    ///
    /// # Panics
    /// If the average has a parameter the model lacks.
    pub fn update<M: Module>(&self, average: M, model: &M, step: u64) -> M {
        let mut collect = Collect { params: TensorContainer::new() };
        model.visit(&mut collect);
        average.map(&mut Move { params: collect.params, decay: self.decay(step) })
    }
}

struct Collect {
    params: TensorContainer<ParamId>,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.params.register(param.id, param.val().inner());
    }
}

struct Move {
    params: TensorContainer<ParamId>,
    decay: f64,
}

impl ModuleMapper for Move {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(current) = self.params.remove::<Tensor<D>>(&param.id) else {
            panic!("the model lacks a parameter of its average (id {})", param.id)
        };
        let decay = self.decay;
        param.map(|average| average * decay + current * (1.0 - decay))
    }
}
