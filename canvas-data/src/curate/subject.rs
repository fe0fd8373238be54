//! The image that a pass looks at.

use crate::{Fault, Record, decode};
use image::RgbImage;
use std::sync::OnceLock;

/// Makes a picture of a record.
pub(super) type Decode<'a> = dyn Fn(&Record) -> Result<RgbImage, Fault> + Send + Sync + 'a;

/// An image that is judged: read already, decoded when a pass first asks, and then once for all passes.
pub struct Subject<'a> {
    /// Its number in the source.
    pub number: usize,
    /// As it is stored.
    pub record: Record,
    decode: &'a Decode<'a>,
    size: OnceLock<Result<(u32, u32), Fault>>,
    picture: OnceLock<Result<RgbImage, Fault>>,
}

impl<'a> Subject<'a> {
    /// An image with its number, and the function that decodes it.
    pub fn new(
        number: usize,
        record: Record,
        decode: &'a (dyn Fn(&Record) -> Result<RgbImage, Fault> + Send + Sync + 'a),
    ) -> Self {
        Self { number, record, decode, size: OnceLock::new(), picture: OnceLock::new() }
    }

    /// Width and height in pixels, as the file's header has them: nothing is decoded, and nothing turned.
    ///
    /// # Errors
    /// If there are no bytes, or no header of a known format is whole in them.
    pub fn size(&self) -> Result<(u32, u32), Fault> {
        self.size.get_or_init(|| decode::stored_size(&self.record.key, &self.record.image)).clone()
    }

    /// The picture.
    ///
    /// # Errors
    /// What the curation's decoder says.
    pub fn picture(&self) -> Result<&RgbImage, Fault> {
        self.picture.get_or_init(|| (self.decode)(&self.record)).as_ref().map_err(Clone::clone)
    }
}
