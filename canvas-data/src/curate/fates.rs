//! What became of each image, in four bytes.

use std::collections::HashMap;

/// The pass and the kind of reason that dropped an image.
pub(super) type Kind = (usize, String);

const KEPT: u32 = u32::MAX;

/// Of each image, whether it is kept, or by which pass it was dropped and for which reason.
#[derive(Clone, Debug)]
pub(super) struct Fates {
    of: Vec<u32>,
    kinds: Vec<Kind>,
    numbers: HashMap<Kind, u32>,
}

impl Fates {
    /// So many images, all kept.
    pub fn new(images: usize) -> Self {
        Self { of: vec![KEPT; images], kinds: Vec::new(), numbers: HashMap::new() }
    }

    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// The pass that dropped an image, and why; none if it is kept.
    pub fn of(&self, image: usize) -> Option<&Kind> {
        (self.of[image] != KEPT).then(|| &self.kinds[self.of[image] as usize])
    }

    pub fn is_kept(&self, image: usize) -> bool {
        self.of[image] == KEPT
    }

    pub fn drop(&mut self, image: usize, kind: Kind) {
        let next = self.kinds.len() as u32;
        self.of[image] = *self.numbers.entry(kind).or_insert_with_key(|kind| {
            self.kinds.push(kind.clone());
            next
        });
    }
}
