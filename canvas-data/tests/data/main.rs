//! Sources and shards through their public interface.

mod fixtures;
mod folder;
mod fuzz;
mod make;
mod opening;
#[cfg(feature = "object-store")]
mod remote;
mod shards;
mod table;
mod writer;
//! Sources, decoding, buckets, surveys and preparation through their public interface.

mod decode;
