//! From folders, shards and tables of captioned images to batches: every image accounted for, every order a function of its
//! number.

mod decode;
mod record;
mod shards;
mod source;

pub use decode::{Decode, Decoded, Several};
pub use record::{Caption, Fault, Record, reason};
pub use shards::{ShardError, ShardLimits, ShardStats, ShardWriter};
pub use source::{
    CaptionRules, Folder, Format, InMemory, OpenError, Options, Shards, Source, Table, TextRule, expand, open,
};
