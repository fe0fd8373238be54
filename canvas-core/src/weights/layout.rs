//! Where Burn keeps a layer's parameters otherwise than PyTorch, told from the layer's type.

use burn::module::{Module, ModuleVisitor, Param};
use burn::prelude::*;

/// A parameter of a module beside its form in PyTorch.
#[derive(Debug)]
pub(super) struct Slot {
    /// Path in the module, as [`params::named`](crate::params::named) has it.
    pub path: String,
    /// The path with PyTorch's name of the parameter, and without enum variants, which PyTorch has none of.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
}

/// The way from a module's root to a field, for visitors and mappers: the names on it, and the types that hold them.
#[derive(Debug, Default)]
pub struct Walk(Vec<(String, String)>);

impl Walk {
    /// What a visitor is told as it goes into a field.
    pub fn enter(&mut self, name: &str, container: &str) {
        self.0.push((name.to_owned(), container.to_owned()));
    }

    /// Back out of the last field.
    pub fn leave(&mut self) {
        self.0.pop();
    }

    /// Names joined by dots, as [`params::named`](crate::params::named) has them.
    pub fn path(&self) -> String {
        self.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(".")
    }

    /// The path with PyTorch's name of the parameter, and without enum variants, which PyTorch has none of.
    pub fn name(&self) -> String {
        let kept = || self.0.iter().filter(|(_, container)| !container.starts_with("Enum:"));
        let mut names: Vec<&str> = kept().map(|(name, _)| name.as_str()).collect();
        if let (Some((field, container)), Some(last)) = (kept().next_back(), names.last_mut()) {
            *last = match (container.as_str(), field.as_str()) {
                (
                    "Struct:LayerNorm"
                    | "Struct:GroupNorm"
                    | "Struct:RmsNorm"
                    | "Struct:BatchNorm"
                    | "Struct:InstanceNorm",
                    "gamma",
                )
                | ("Struct:PRelu", "alpha") => "weight",
                (
                    "Struct:LayerNorm"
                    | "Struct:GroupNorm"
                    | "Struct:RmsNorm"
                    | "Struct:BatchNorm"
                    | "Struct:InstanceNorm",
                    "beta",
                ) => "bias",
                (_, field) => field,
            };
        }
        names.join(".")
    }

    /// Whether this is the matrix of a linear layer: `[in, out]` here, `[out, in]` in PyTorch.
    pub fn is_transposed(&self) -> bool {
        self.is_weight_of("Linear")
    }

    /// Whether this is the weight of a layer of this type, such as `Conv2d`.
    pub fn is_weight_of(&self, layer: &str) -> bool {
        self.0.last().is_some_and(|(field, container)| {
            field == "weight" && container.strip_prefix("Struct:") == Some(layer)
        })
    }
}

/// Whether a matrix of a linear layer is kept as `[out, in]` behind a transposing view (`LinearLayout::Col`).
///
/// Only its way of loading tells; asked with a row, since a square would not show.
pub(super) fn loads_transposed<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let mut dims = [1; D];
    dims[D - 1] = 2;
    let probe = Tensor::zeros(dims, &param.lazy_device());
    D == 2 && param.clone().transform_for_load(probe, param.id).val().dims() != dims
}

/// Every float parameter in the module's own order. None is drawn that has not been: half of loading a large
/// model would be drawing numbers to throw away.
pub(super) fn slots<M: Module>(module: &M) -> Vec<Slot> {
    let mut list = List::default();
    module.visit(&mut list);
    list.found
}

#[derive(Default)]
struct List {
    walk: Walk,
    found: Vec<Slot>,
}

impl ModuleVisitor for List {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.walk.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.walk.leave();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut shape = param.lazy_shape().to_vec();
        if self.walk.is_transposed() {
            if !param.is_initialized() && loads_transposed(param) {
                shape = param.val().dims().to_vec(); // what is promised before the draw is the transpose
            }
            shape.reverse();
        }
        self.found.push(Slot { path: self.walk.path(), name: self.walk.name(), shape });
    }
}
