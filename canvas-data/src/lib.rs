//! From folders, shards and tables of captioned images to batches: every image accounted for, every order a function of its
//! number.

mod bucket;
mod caption;
mod decode;
mod manifest;
mod prepare;
mod record;
mod shards;
mod source;
mod survey;

pub use bucket::{Assignment, Buckets, Crop};
pub use caption::draw_caption;
pub use decode::{Decode, Decoded, Several};
pub use manifest::{Fate, Manifest, ManifestError, Row, Totals};
pub use prepare::{Draw, Prepare, Prepared};
pub use record::{Caption, Fault, Record, reason};
pub use shards::{ShardError, ShardLimits, ShardStats, ShardWriter};
pub use source::{
    CaptionRules, Folder, Format, InMemory, OpenError, Options, Shards, Source, Table, TextRule, expand, open,
};
pub use source::{InMemory, Source};
pub use survey::{Begun, Survey, Surveyed};
