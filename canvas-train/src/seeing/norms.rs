//! How large gradients, parameters and updates are, layer by layer.

use crate::Gradients;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::FloatDType;
use burn::tensor::container::TensorContainer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// L2 norms of a parameter, or of a group of them, in one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Norms {
    /// Path of the parameter, as in a checkpoint; or the group's name.
    pub name: String,
    /// Of the gradient before clipping.
    pub gradient: f64,
    /// Of the parameter before the step.
    pub parameter: f64,
    /// Of what the step changed.
    pub update: f64,
}

impl Norms {
    /// `|update| / |parameter|`: how much of itself a step changes. Infinite or NaN of a parameter that is all zeros.
    ///
    /// About 1e-3 is usual where training goes well; a layer far above the others is about to break, one far below them hardly
    /// learns.
    pub fn relative(&self) -> f64 {
        self.update / self.parameter
    }
}

/// Looks at one step: made between its gradients and its update, asked after it.
///
/// It keeps every trained parameter as it was, so the step needs that much more memory, and the update cannot be made in place.
/// The step itself is the same to the bit. Parameters without a gradient are left out: they do not move.
///
/// # Example
/// ```
/// use burn::nn::LinearConfig;
/// use burn::prelude::*;
/// use canvas_train::seeing::Watch;
/// use canvas_train::{AdamW, Ema, StepOptions, TrainState};
///
/// let device = Device::flex().autodiff();
/// let mut state = TrainState::new(LinearConfig::new(2, 1).init(&device), AdamW::default());
/// let options = StepOptions { rate: 0.1, clip: 1.0, ema: Ema::Constant { decay: 0.9 } };
///
/// let losses = state.model.forward(Tensor::<2>::ones([3, 2], &device)).square().reshape([3]);
/// let gradients = state.gradients(losses).unwrap();
/// let watch = Watch::before(&state.model, &gradients);
/// state.update(gradients, &options).unwrap();
/// let norms = watch.after(&state.model);
/// assert_eq!([&*norms[0].name, &*norms[1].name], ["weight", "bias"]);
/// assert!(norms[0].update > 0.0);
/// ```
pub struct Watch {
    before: Before,
}

impl Watch {
    /// Before the update.
    pub fn before<M: Module>(model: &M, gradients: &Gradients) -> Self {
        let empty = TensorContainer::new();
        let mut look = Look { gradients, before: Before { old: empty, seen: Vec::new() }, path: Vec::new() };
        model.visit(&mut look);
        Self { before: look.before }
    }

    /// After it, in the model's order.
    ///
    /// # Panics
    /// If it is another model than the one before.
    pub fn after<M: Module>(self, model: &M) -> Vec<Norms> {
        let Before { old, seen } = self.before;
        let mut moved = Moved { old, squares: Vec::new() };
        model.visit(&mut moved);
        assert_eq!(moved.squares.len(), seen.len(), "parameters after the step, and before it");
        // One transfer for all of them, however many devices queue work.
        let squares: Vec<Tensor<1>> =
            seen.iter().flat_map(|seen| seen.squares.clone()).chain(moved.squares).collect();
        if squares.is_empty() {
            return Vec::new();
        }
        let norms: Vec<f64> = Tensor::cat(squares, 0).into_data().iter::<f64>().map(f64::sqrt).collect();
        let updates = &norms[2 * seen.len()..];
        let each = seen.into_iter().zip(norms.chunks(2)).zip(updates);
        each.map(|((seen, pair), &update)| Norms {
            name: seen.name,
            gradient: pair[0],
            parameter: pair[1],
            update,
        })
        .collect()
    }
}

/// What is known before the update.
struct Before {
    old: TensorContainer<ParamId>,
    seen: Vec<Seen>,
}

/// Squared norms of a parameter's gradient and of itself.
struct Seen {
    name: String,
    squares: [Tensor<1>; 2],
}

struct Look<'a> {
    gradients: &'a Gradients,
    before: Before,
    path: Vec<String>,
}

impl ModuleVisitor for Look<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.gradients.grads.get::<D>(param.id) else { return };
        let value = param.val().inner();
        let squares = [square(grad.inner()), square(value.clone())];
        self.before.seen.push(Seen { name: self.path.join("."), squares });
        self.before.old.register(param.id, value);
    }
}

struct Moved {
    old: TensorContainer<ParamId>,
    squares: Vec<Tensor<1>>,
}

impl ModuleVisitor for Moved {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(old) = self.old.remove::<Tensor<D>>(&param.id) {
            self.squares.push(square(param.val().inner() - old));
        }
    }
}

/// The sum of squares, in f32 whatever the numbers are: 16 bits would overflow.
fn square<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    x.cast(FloatDType::F32).square().sum()
}

/// The block a parameter is in: its path up to the first number (`backbone.blocks.3`), or without one, up to its own name
/// (`backbone.embed` of `backbone.embed.weight`).
pub fn block_of(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let number = parts.iter().position(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    let length = number.map_or((parts.len() - 1).max(1), |at| at + 1);
    parts[..length].join(".")
}

/// The norms of groups of parameters together, in the order in which the groups come: `sqrt(sum norm^2)`. `group` names the
/// group of a parameter, as [`block_of`] does.
pub fn grouped(norms: &[Norms], group: impl Fn(&str) -> String) -> Vec<Norms> {
    let (mut places, mut groups) = (BTreeMap::new(), Vec::<Norms>::new());
    for one in norms {
        let name = group(&one.name);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            groups.push(Norms { name, gradient: 0.0, parameter: 0.0, update: 0.0 });
            groups.len() - 1
        });
        let sum = &mut groups[place];
        sum.gradient = sum.gradient.hypot(one.gradient);
        sum.parameter = sum.parameter.hypot(one.parameter);
        sum.update = sum.update.hypot(one.update);
    }
    groups
}
