//! Images that a program holds or makes.

use super::Source;
use crate::{Fault, Record};

/// Captioned images in memory.
#[derive(Clone, Debug, Default)]
pub struct InMemory(pub Vec<Record>);

impl Source for InMemory {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, index: usize) -> String {
        self.0[index].key.clone()
    }

    fn read(&self, index: usize) -> Result<Record, Fault> {
        Ok(self.0[index].clone())
    }
}
