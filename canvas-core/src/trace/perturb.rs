//! The two hooks that make a network worse on purpose, for guidance by its own mistakes.

use super::{Hook, Tapped};
use burn::prelude::*;
use std::cell::RefCell;

/// A hook that acts on named layers, and can say whether it met them all.
pub trait Perturbation: Hook {
    /// To be called after the network ran: a hook that never acted would look like a method that does nothing.
    ///
    /// # Panics
    /// If a name was never met. Says which, and lists those it could have been.
    fn verify(&self);
}

/// The wanted names, and all that were met.
#[derive(Debug)]
struct Layers {
    wanted: Vec<String>,
    met: RefCell<Vec<String>>,
}

impl Layers {
    fn new(names: &[impl AsRef<str>]) -> Self {
        let wanted = names.iter().map(|name| name.as_ref().to_owned()).collect();
        Self { wanted, met: RefCell::default() }
    }

    fn wants(&self, name: &str) -> bool {
        let mut met = self.met.borrow_mut();
        if !met.iter().any(|old| old == name) {
            met.push(name.to_owned());
        }
        self.wanted.iter().any(|wanted| wanted == name)
    }

    #[track_caller]
    fn verify(&self, kind: &str) {
        let met = self.met.borrow();
        for wanted in &self.wanted {
            let known = if met.is_empty() { "none".to_owned() } else { met.join(", ") };
            assert!(met.contains(wanted), "this network ran no {kind} named {wanted:?}; it ran: {known}");
        }
    }
}

/// Replaces named self-attention maps by the identity: every token attends to itself alone.
///
/// # Reference
/// Ahn et al., "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", 2024,
/// <https://arxiv.org/abs/2403.17377>.
#[derive(Debug)]
pub struct IdentityMaps(Layers);

impl IdentityMaps {
    /// Of the maps with these full names, such as `blocks.3.attention.map`.
    pub fn new(names: &[impl AsRef<str>]) -> Self {
        Self(Layers::new(names))
    }
}

impl Hook for IdentityMaps {
    fn wants(&self, name: &str) -> bool {
        name.ends_with(".map") && self.0.wants(name)
    }

    /// # Panics
    /// If a named map is not square: in cross-attention no token can attend to itself.
    fn tap(&self, tapped: &mut Tapped<'_>) {
        let Some(map) = tapped.get::<4>().filter(|_| tapped.name().ends_with(".map")) else { return };
        if self.0.wants(tapped.name()) {
            let [_, _, rows, columns] = map.dims(); // [B, H, N, T]
            let name = tapped.name();
            assert_eq!(rows, columns, "{name} is not of self-attention: it cannot become the identity");
            let eye = Tensor::<2>::eye(rows, &map.device()).cast(map.dtype());
            tapped.set(eye.reshape([1, 1, rows, rows]).expand(map.dims()));
        }
    }
}

impl Perturbation for IdentityMaps {
    fn verify(&self) {
        self.0.verify("attention map");
    }
}

/// Leaves named blocks out: their input is passed on.
#[derive(Debug)]
pub struct SkippedBlocks(Layers);

impl SkippedBlocks {
    /// Of the blocks with these full names, such as `blocks.3`.
    pub fn new(names: &[impl AsRef<str>]) -> Self {
        Self(Layers::new(names))
    }
}

impl Hook for SkippedBlocks {
    /// It changes no activation, so what it does not skip is computed as without it.
    fn wants(&self, _name: &str) -> bool {
        false
    }

    fn skip(&self, block: &str) -> bool {
        self.0.wants(block)
    }
}

impl Perturbation for SkippedBlocks {
    fn verify(&self) {
        self.0.verify("block");
    }
}
