//! From folders, shards and tables of captioned images to batches: every image accounted for, every order a function of its
//! number.
//!
//! # From files to images of one size
//! A [`Survey`] looks at each image of a [`Source`] once, by the rules of [`Decode`] and [`Buckets`], and writes a [`Manifest`]: a line an
//! image, kept in a bucket or dropped for a reason. It can be killed at any moment and goes on where it was. [`Manifest::kept`] is what
//! an order shuffles; [`Manifest::assignment`] and a [`Draw`] are what [`Prepare`] needs to make an image of its bucket's size.
//!
//! ```no_run
//! use canvas_data::{Buckets, Draw, InMemory, Manifest, Prepare, Source, Survey};
//! use std::path::Path;
//!
//! let source = InMemory::default(); // or any other
//! let survey = Survey::new(Buckets::sdxl());
//! let surveyed = survey.run(&source, Some(Path::new("survey.jsonl")), &mut |done| println!("{done} images"))?;
//! println!("{:?}: {}", surveyed.begun, surveyed.manifest);
//! surveyed.manifest.write(Path::new("manifest.jsonl"))?;
//!
//! let manifest = Manifest::read(Path::new("manifest.jsonl"))?;
//! manifest.check(&source)?;
//! let index = manifest.kept().concat()[0];
//! let assignment = manifest.assignment(index).expect("it is kept");
//! let prepared = Prepare::default().prepared(&source.read(index)?, assignment, Draw { seed: 0, number: 0 })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bucket;
mod cache;
mod caption;
pub mod curate;
mod decode;
mod disk;
mod loader;
mod manifest;
mod prepare;
mod record;
mod shards;
mod source;
mod stream;
mod survey;

pub use bucket::{Assignment, Buckets, Crop};
pub use cache::{Cache, CacheError, Damage, Key, ModelHash, OtherCache, Tensors};
pub use caption::draw_caption;
pub use decode::{Decode, Decoded, Several};
pub use loader::{Batch, FaultRow, Faults, LoadError, Loader, Loading, OnFault, Waiting};
pub use manifest::{Fate, Manifest, ManifestError, Row, Totals};
pub use prepare::{Draw, Prepare, Prepared};
pub use record::{Caption, Fault, Record, reason};
pub use shards::{ShardError, ShardLimits, ShardStats, ShardWriter};
pub use source::{
    CaptionRules, Folder, Format, InMemory, OpenError, Options, Shards, Source, Table, TextRule, expand, open,
};
pub use stream::{Cursor, Part, Permutation, Place, Shard, Stream};
pub use survey::{Begun, Survey, Surveyed};

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    formatted.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
