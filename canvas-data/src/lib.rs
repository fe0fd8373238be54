//! From folders, shards and tables of captioned images to batches: every image accounted for, every order a function of its
//! number.

mod record;
mod source;

pub use record::{Caption, Fault, Record, reason};
pub use source::{InMemory, Source};
