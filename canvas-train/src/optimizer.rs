//! A whole module's optimizer, with a state that is saved by parameter name.

use crate::memory::alive;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{DynState, GradientsParams, Optimizer, StateSink, StateSource};
use burn::prelude::*;
use canvas_core::params;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Ends of the names of what is saved beside tensors.
const COUNT: &str = "#count";
const NONE: &str = "#none";

/// Drives one of Burn's optimizers over a module.
///
/// Burn's own driver restores states on its default device (a GPU that may not be there) and skips states it
/// cannot read; this one restores on the parameters' device, by name, all or nothing.
///
/// # Example
/// Norms and biases without weight decay, the text encoder at a tenth of the rate:
/// ```
/// use canvas_train::{AdamW, ModuleOptimizer};
/// let plain = AdamW { weight_decay: 0.0, ..AdamW::default() };
/// let optimizer = ModuleOptimizer::new(AdamW::default())
///     .with_group(|name| name.starts_with("text."), AdamW::default(), 0.1)
///     .with_group(|name| name.ends_with(".bias") || name.ends_with(".gamma"), plain, 1.0);
/// ```
#[derive(Clone)]
pub struct ModuleOptimizer<O> {
    optimizer: O,
    groups: Vec<Group<O>>,
    states: HashMap<ParamId, DynState>,
}

/// Parameters with settings of their own.
#[derive(Clone)]
struct Group<O> {
    holds: fn(&str) -> bool,
    optimizer: O,
    factor: f64,
}

/// A saved optimizer does not belong to the module.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("optimizer state: {0}")]
pub struct StateError(String);

impl<O: Optimizer> ModuleOptimizer<O> {
    /// Without state, as at the start of training.
    pub fn new(optimizer: O) -> Self {
        Self { optimizer, groups: Vec::new(), states: HashMap::new() }
    }

    /// Gives the parameters whose names (their paths, as in a checkpoint) are in a group another optimizer, and a factor on the
    /// rate. A parameter is in the first group that holds it.
    #[must_use]
    pub fn with_group(mut self, holds: fn(&str) -> bool, optimizer: O, factor: f64) -> Self {
        self.groups.push(Group { holds, optimizer, factor });
        self
    }

    /// One step: parameters without a gradient stay as they are.
    pub fn step<M: Module>(&mut self, rate: f64, module: M, grads: GradientsParams) -> M {
        module.map(&mut Update { driver: self, grads, rate, path: Vec::new() })
    }

    /// The optimizer of a parameter, and the factor on its rate.
    fn of(&self, path: &[String]) -> (&O, f64) {
        if self.groups.is_empty() {
            return (&self.optimizer, 1.0);
        }
        let name = path.join(".");
        let group = self.groups.iter().find(|group| (group.holds)(&name));
        group.map_or((&self.optimizer, 1.0), |group| (&group.optimizer, group.factor))
    }

    /// Bytes that will be kept for the trained parameters that have no state yet, one after the other with a gradient of
    /// zeros; 0 in a program that does not count.
    pub(crate) fn bytes_to_come<M: Module>(&self, module: &M) -> u64 {
        let mut toll = Toll { driver: self, bytes: 0 };
        module.visit(&mut toll);
        toll.bytes
    }

    /// The state as named tensors, one-element tensors for counters (exact up to 2^24) and, marked `#none`, for
    /// parameters without a state.
    ///
    /// # Panics
    /// If the optimizer keeps a number that is not a counter.
    pub fn export<M: Module>(&self, module: &M) -> Vec<(String, TensorData)> {
        let (mut sink, mut marks) = (StateSink::default(), Vec::new());
        for param in params::named(module) {
            match self.states.get(&param.id) {
                Some(state) => flatten::<O>(param.data.rank(), state, &param.name, &mut sink),
                None => marks.push((format!("{}{NONE}", param.name), TensorData::new(vec![0f32], [1]))),
            }
        }
        let scalars = sink.scalars.into_iter().map(|(name, value)| {
            let count =
                u64::try_from(value).unwrap_or_else(|_| panic!("{name} ({value:?}) is not a counter"));
            (format!("{name}{COUNT}"), TensorData::new(vec![count as f32], [1]))
        });
        sink.tensors.into_iter().chain(scalars).chain(marks).collect()
    }

    /// Restores what [`export`](Self::export) gave, for the same module.
    ///
    /// # Errors
    /// If a state or a part of one is missing, left over or of another shape: names it, and the old states stay.
    pub fn import<M: Module>(
        &mut self,
        module: &M,
        saved: BTreeMap<String, TensorData>,
        device: &Device,
    ) -> Result<(), StateError> {
        let params = params::named(module);
        params.iter().try_for_each(|param| check_shapes(param, &saved))?;
        let mut left: BTreeSet<String> = saved.keys().cloned().collect();
        let mut source = source(saved)?;
        let mut states = HashMap::new();
        for param in params {
            let (name, rank) = (&param.name, param.data.rank());
            if left.remove(&format!("{name}{NONE}")) {
                continue;
            }
            let state = unflatten::<O>(rank, name, &mut source, device)
                .ok_or_else(|| StateError(format!("that of {name} is missing or incomplete")))?;
            // What this state would be saved as is what was read; anything else would vanish unread.
            let mut read = StateSink::default();
            flatten::<O>(rank, &state, name, &mut read);
            for (name, _) in read.tensors {
                left.remove(&name);
            }
            for (name, _) in read.scalars {
                left.remove(&format!("{name}{COUNT}"));
            }
            states.insert(param.id, state);
        }
        if let Some(name) = left.first() {
            return Err(StateError(format!("{name} belongs to no parameter of this model")));
        }
        self.states = states;
        Ok(())
    }
}

/// A state's tensors have the axes of their parameter, or 1 where they hold a statistic over one.
fn check_shapes(param: &params::Named, saved: &BTreeMap<String, TensorData>) -> Result<(), StateError> {
    let prefix = format!("{}.", param.name);
    for (name, data) in saved.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix)) {
        let (expected, found) = (param.data.shape().to_vec(), data.shape().to_vec());
        let fits = expected.len() == found.len()
            && found.iter().zip(expected.iter()).all(|(found, expected)| found == expected || *found == 1);
        if !fits && !name.ends_with(COUNT) {
            let message = format!("{name} has shape {found:?}, its parameter {expected:?}");
            return Err(StateError(message));
        }
    }
    Ok(())
}

/// Tensors and counters as Burn reads them.
fn source(saved: BTreeMap<String, TensorData>) -> Result<StateSource, StateError> {
    let (mut scalars, mut tensors) = (BTreeMap::new(), Vec::new());
    for (name, data) in saved {
        let Some(counter) = name.strip_suffix(COUNT) else {
            tensors.push((name, data));
            continue;
        };
        let values: Vec<f64> = data.iter::<f64>().collect();
        match values[..] {
            [count] if count >= 0.0 && count.fract() == 0.0 => {
                scalars.insert(counter.to_owned(), (count as u64).into());
            }
            _ => return Err(StateError(format!("{name} is no counter: {values:?}"))),
        }
    }
    let mut source = StateSource::new(scalars);
    tensors.into_iter().for_each(|(name, data)| source.insert_tensor(name, data));
    Ok(source)
}

struct Update<'a, O> {
    driver: &'a mut ModuleOptimizer<O>,
    grads: GradientsParams,
    rate: f64,
    path: Vec<String>,
}

impl<O: Optimizer> ModuleMapper for Update<'_, O> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return param };
        let (id, value, mapper) = param.consume();
        let trained = value.is_require_grad();
        let state = self.driver.states.remove(&id).map(DynState::downcast::<O::State<D>>);
        let (optimizer, factor) = self.driver.of(&self.path);
        let (value, state) = optimizer.step(self.rate * factor, value.inner(), grad.inner(), state);
        if let Some(state) = state {
            self.driver.states.insert(id, DynState::create(state, D));
        }
        let value = value.autodiff();
        let value = if trained { value.require_grad() } else { value };
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Sees what states a module's parameters will have.
struct Toll<'a, O> {
    driver: &'a ModuleOptimizer<O>,
    bytes: u64,
}

impl<O: Optimizer> ModuleVisitor for Toll<'_, O> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() || self.driver.states.contains_key(&param.id) {
            return;
        }
        let value = param.val().inner();
        let before = alive();
        let (new, state) = self.driver.optimizer.step(0.0, value.zeros_like(), value.zeros_like(), None);
        drop(new);
        self.bytes += alive().saturating_sub(before);
        drop(state);
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
