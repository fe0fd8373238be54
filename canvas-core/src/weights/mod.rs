//! Weight files: safetensors and PyTorch's own, read strictly; safetensors, written whole or not at all.
//!
//! [`save`] and [`load`] keep our own modules: parameters under their own names and in Burn's layout, as
//! checkpoints of training need them. [`load_published`] and [`save_published`] speak PyTorch's: a [`Source`] is one
//! file, a set of shards, a directory, or a [part](Source::part) of one of them, [`Rules`] map its keys to ours, and
//! layers' layouts are told from the layers' types. An [`Original`] says what lies where in a single file of Stable
//! Diffusion.
//! [`Lora`] files change such a module: [`Merging`] adds them to its parameters.

mod error;
mod index;
mod layout;
mod load;
mod lora;
mod original;
mod own;
mod pattern;
mod rules;
mod save;
mod shard;
mod source;
mod torch;

pub use error::{Report, WeightsError};
pub use layout::Walk;
pub use load::{Progress, load_published, load_published_with};
pub use lora::{Lora, Merging, Part};
pub use original::{Family, Original};
pub use own::{Rename, load, read_tensors, save, write_atomically, write_tensors};
pub use rules::Rules;
pub use save::{published_shapes, save_published};
pub use source::Source;
