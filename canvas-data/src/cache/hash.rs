//! What a cached result is a function of.

use super::CacheError;
use burn::module::Module;
use canvas_core::params;
use std::fmt;
use std::fs::File;
use std::path::Path;

/// Which model a cache is of: a hash over its weights.
///
/// # Example
/// ```
/// use canvas_data::ModelHash;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let home = tempfile::tempdir()?;
/// # let path = home.path().join("vae.safetensors");
/// # std::fs::write(&path, b"weights")?;
/// let hash = ModelHash::of_file(&path)?;
/// assert_eq!(hash.to_string().len(), 64);
/// assert_eq!(hash, ModelHash::of_file(&path)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelHash(pub(super) [u8; 32]);

impl ModelHash {
    /// Over the bytes of a weights file.
    ///
    /// # Errors
    /// Names the file.
    pub fn of_file(path: &Path) -> Result<Self, CacheError> {
        let mut hasher = blake3::Hasher::new();
        let read = File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()));
        read.map_err(CacheError::io(path))?;
        Ok(Self(hasher.finalize().into()))
    }

    /// Over several files, in this order: shards, or all the encoders that a text embedding is of.
    ///
    /// # Errors
    /// Names the file.
    pub fn of_files<P: AsRef<Path>>(paths: &[P]) -> Result<Self, CacheError> {
        let mut hasher = blake3::Hasher::new();
        for path in paths {
            hasher.update(&Self::of_file(path.as_ref())?.0);
        }
        Ok(Self(hasher.finalize().into()))
    }

    /// Over a module's parameters: names, shapes, types and values. For a model that is not read from a file.
    pub fn of_module<M: Module>(module: &M) -> Self {
        let mut hasher = blake3::Hasher::new();
        for param in params::named(module) {
            let shape = format!("{:?} {:?}", param.data.shape(), param.data.dtype());
            for field in [param.name.as_bytes(), shape.as_bytes(), param.data.as_bytes()] {
                update(&mut hasher, field);
            }
        }
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for ModelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from(self.0).fmt(f)
    }
}

impl fmt::Debug for ModelHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelHash({self})")
    }
}

/// What one cached result is a function of: the model, how the content was prepared, and the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub(super) [u8; 32]);

impl Key {
    pub(super) fn new(model: &ModelHash, preparation: &str, content: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for field in [&model.0, preparation.as_bytes(), content] {
            update(&mut hasher, field);
        }
        Self(hasher.finalize().into())
    }
}

/// Hashes a field with its length, so that fields do not run into one another.
fn update(hasher: &mut blake3::Hasher, field: &[u8]) {
    hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
}
