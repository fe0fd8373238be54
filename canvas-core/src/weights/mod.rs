//! Weight files: safetensors, written whole or not at all, read strictly.
//!
//! [`save`] and [`load`] keep our own modules: parameters under their own names and in Burn's layout, as
//! checkpoints of training need them. [`load_published`] and [`save_published`] speak PyTorch's: a [`Source`] is one file, a set of shards or
//! a directory, [`Rules`] map its keys to ours, and layers' layouts are told from the layers' types.
//! [`Lora`] files change such a module: [`Merging`] adds them to its parameters.

mod error;
mod index;
mod layout;
mod lora;
mod own;
mod published;
mod rules;
mod source;

pub use error::{Report, WeightsError};
pub use lora::{Lora, Merging, Part};
pub use own::{Rename, load, read_tensors, save, write_atomically, write_tensors};
pub use published::{load_published, save_published};
pub use rules::Rules;
pub use source::Source;
