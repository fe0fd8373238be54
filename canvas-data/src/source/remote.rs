//! Shards in an object store.

use super::options::Options;
use super::ranges::Ranges;
use super::{OpenError, Shards};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// Shards whose headers are read at the same time: the threads wait, they do not work.
const REQUESTS: usize = 16;

impl Shards {
    /// Reads the headers of tar files in an object store: S3, GCS, Azure, HTTP, or what else `object_store` knows.
    ///
    /// The headers are read [`Options::read_ahead`] bytes at a time. A sample is one request, or one for each of its members that are
    /// read if others of more than 64 KiB lie between them. Reads wait for the store: call them from several threads. The store, its
    /// retries and its credentials are the caller's.
    ///
    /// ```
    /// use canvas_data::{Options, Shards, expand};
    /// use object_store::{memory::InMemory, path::Path};
    /// let store = std::sync::Arc::new(InMemory::new());
    /// let paths = expand("set/{000..001}.tar")?.into_iter().map(Path::from).collect();
    /// let nothing = Shards::remote(store, paths, &Options::default()).err().unwrap();
    /// assert!(nothing.to_string().contains("set/000.tar"), "{nothing}");
    /// # Ok::<(), canvas_data::OpenError>(())
    /// ```
    ///
    /// # Errors
    /// If none of them has an image.
    ///
    /// # Panics
    /// Within a tokio runtime: it has one of its own, and waits. So do reads of the source, and so does dropping it: an async program
    /// does all three in `spawn_blocking` or in threads of its own.
    pub fn remote(
        store: Arc<dyn ObjectStore>,
        paths: Vec<Path>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let path = PathBuf::from(paths.first().map_or(String::new(), ToString::to_string));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(OpenError::io(&path))?;
        let remote = Remote { store, paths, runtime };
        Self::ranges(Box::new(remote), (REQUESTS, options.read_ahead), options)
            .map_err(|found| OpenError::Empty { path, found })
    }
}

/// Files of an object store.
struct Remote {
    store: Arc<dyn ObjectStore>,
    paths: Vec<Path>,
    runtime: Runtime,
}

impl Ranges for Remote {
    fn count(&self) -> usize {
        self.paths.len()
    }

    fn name(&self, file: usize) -> String {
        self.paths[file].to_string()
    }

    fn length(&self, file: usize) -> io::Result<u64> {
        Ok(self.runtime.block_on(self.store.head(&self.paths[file]))?.size)
    }

    fn read(&self, file: usize, range: Range<u64>) -> io::Result<Vec<u8>> {
        let expected = super::ranges::range_length(&range)?;
        if expected == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.runtime.block_on(self.store.get_range(&self.paths[file], range))?;
        if bytes.len() != expected {
            // A store may answer with what there is.
            let error = format!("expected {expected} bytes, found {}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
        }
        Ok(bytes.into())
    }
}
