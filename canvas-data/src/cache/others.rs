//! Caches of other models in the same folder.

use super::{Cache, CacheError, lock};
use std::fs::{self, File};
use std::path::PathBuf;

pub(super) const EXTENSION: &str = "cache";

/// A cache of another model, which is never read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherCache {
    /// Its file, named after its model's hash.
    pub path: PathBuf,
    /// How large it is.
    pub bytes: u64,
}

impl Cache {
    /// The caches of other models in its folder, by name. Files of other kinds are not among them.
    ///
    /// # Errors
    /// Names the folder or file.
    pub fn others(&self) -> Result<Vec<OtherCache>, CacheError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(CacheError::io(&self.folder))? {
            let path = entry.map_err(CacheError::io(&self.folder))?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let hash = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
            if hash && path.extension().is_some_and(|end| end == EXTENSION) && path != self.path() {
                let bytes = fs::metadata(&path).map_err(CacheError::io(&path))?.len();
                found.push(OtherCache { path, bytes });
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Removes the caches of other models in its folder; returns how many bytes that frees.
    ///
    /// # Errors
    /// Names the file: one that is being written to is not removed.
    pub fn remove_others(&self) -> Result<u64, CacheError> {
        let mut freed = 0;
        for OtherCache { path, bytes } in self.others()? {
            let file = File::options().read(true).write(true).open(&path).map_err(CacheError::io(&path))?;
            lock(&file, &path)?;
            fs::remove_file(&path).map_err(CacheError::io(&path))?;
            freed += bytes;
        }
        Ok(freed)
    }
}
