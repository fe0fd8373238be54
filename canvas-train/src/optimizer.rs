//! A whole module's optimizer, with a state that is saved by parameter name.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::{DynState, GradientsParams, Optimizer, StateSink, StateSource};
use burn::prelude::*;
use canvas_core::params;
use std::collections::{BTreeMap, HashMap};

/// Drives one of Burn's optimizers over a module.
///
/// Burn's own driver restores states on its default device (a GPU that may not be there) and skips states it
/// cannot read; this one restores on the parameters' device, by name, all or nothing.
#[derive(Clone)]
pub struct ModuleOptimizer<O> {
    optimizer: O,
    states: HashMap<ParamId, DynState>,
}

/// A saved optimizer does not belong to the module.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("optimizer state: {0}")]
pub struct StateError(String);

impl<O: Optimizer> ModuleOptimizer<O> {
    /// Without state, as at the start of training.
    pub fn new(optimizer: O) -> Self {
        Self { optimizer, states: HashMap::new() }
    }

    /// One step: parameters without a gradient stay as they are.
    pub fn step<M: Module>(&mut self, rate: f64, module: M, grads: GradientsParams) -> M {
        module.map(&mut Update { driver: self, grads, rate })
    }

    /// The state as named tensors, one-element tensors for counters (exact up to 2^24).
    pub fn export<M: Module>(&self, module: &M) -> Vec<(String, TensorData)> {
        let mut sink = StateSink::default();
        for param in params::named(module) {
            if let Some(state) = self.states.get(&param.id) {
                flatten::<O>(param.data.rank(), state, &param.name, &mut sink);
            }
        }
        let scalars = sink.scalars.into_iter().map(|(name, value)| {
            let value = u64::try_from(value).map_or(f32::NAN, |value| value as f32);
            (format!("{name}#count"), TensorData::new(vec![value], [1]))
        });
        sink.tensors.into_iter().chain(scalars).collect()
    }

    /// Restores what [`export`](Self::export) gave, for the same module.
    ///
    /// # Errors
    /// If a state is missing, or one is left over.
    pub fn import<M: Module>(
        &mut self,
        module: &M,
        saved: BTreeMap<String, TensorData>,
        device: &Device,
    ) -> Result<(), StateError> {
        let (mut scalars, mut tensors) = (BTreeMap::new(), BTreeMap::new());
        for (name, data) in saved {
            match name.strip_suffix("#count") {
                Some(name) => {
                    let count = data.iter::<f64>().next().unwrap_or_default();
                    scalars.insert(name.to_owned(), (count as u64).into());
                }
                None => {
                    tensors.insert(name, data);
                }
            }
        }
        let mut states = HashMap::new();
        let mut source = StateSource::new(scalars);
        let mut left: Vec<String> = tensors.keys().cloned().collect();
        tensors.into_iter().for_each(|(name, data)| source.insert_tensor(name, data));
        for param in params::named(module) {
            let prefix = format!("{}.", param.name);
            left.retain(|name| !name.starts_with(&prefix));
            if !source.has_under(&param.name) {
                continue;
            }
            let state = unflatten::<O>(param.data.rank(), &param.name, &mut source, device)
                .ok_or_else(|| StateError(format!("{} is incomplete", param.name)))?;
            states.insert(param.id, state);
        }
        if let Some(name) = left.first() {
            return Err(StateError(format!("{name} belongs to no parameter of this model")));
        }
        self.states = states;
        Ok(())
    }
}

struct Update<'a, O> {
    driver: &'a mut ModuleOptimizer<O>,
    grads: GradientsParams,
    rate: f64,
}

impl<O: Optimizer> ModuleMapper for Update<'_, O> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let (id, value, mapper) = param.consume();
        let trained = value.is_require_grad();
        let state = self.driver.states.remove(&id).map(DynState::downcast::<O::State<D>>);
        let (value, state) = self.driver.optimizer.step(self.rate, value.inner(), grad.inner(), state);
        if let Some(state) = state {
            self.driver.states.insert(id, DynState::create(state, D));
        }
        let value = value.autodiff();
        let value = if trained { value.require_grad() } else { value };
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Calls a function generic over the rank for the rank of a parameter.
macro_rules! by_rank {
    ($rank:expr, $call:ident) => {
        match $rank {
            1 => $call!(1),
            2 => $call!(2),
            3 => $call!(3),
            4 => $call!(4),
            5 => $call!(5),
            rank => panic!("parameters have 1 to 5 axes, found {rank}"),
        }
    };
}

fn flatten<O: Optimizer>(rank: usize, state: &DynState, name: &str, sink: &mut StateSink) {
    use burn::optim::RecordState;
    macro_rules! call {
        ($d:literal) => {
            state.downcast_ref::<O::State<$d>>().state_flatten(name, sink)
        };
    }
    by_rank!(rank, call);
}

fn unflatten<O: Optimizer>(
    rank: usize,
    name: &str,
    source: &mut StateSource,
    device: &Device,
) -> Option<DynState> {
    use burn::optim::RecordState;
    macro_rules! call {
        ($d:literal) => {
            O::State::<$d>::state_unflatten(name, source, device).map(|state| DynState::create(state, $d))
        };
    }
    by_rank!(rank, call)
}
