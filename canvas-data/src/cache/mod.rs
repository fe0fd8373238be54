//! Results that are expensive to compute, kept by what they are a function of: latents of images, embeddings of texts.
//!
//! # What to cache
//! A key covers the model, a text that says how the content was prepared (crop, flip, size, type, scale), and the
//! content's bytes: an image *file's* bytes, so that a hit needs no decoding. Where the crop or the flip is drawn at
//! random, each draw is another key: such a cache grows by a full copy with every epoch and is hardly ever hit. The usual
//! answer is a fixed centre crop for what is cached (and, for flips, both of them cached), with the random ones left to
//! runs that encode as they go.
//!
//! # Why a file of its own kind and not a database
//! `redb` 3.1.3 was tried first. It rounds a value up to a power of two of pages, and latents are a power of two with a
//! little in front: 4000 entries of 16,500 bytes took 2.04 times their size, of 32,900 bytes 2.05 times. With 20 flipped
//! bits in a file, 13 of 60 reads ended in a panic inside the library. While one process writes, no other can read. What a
//! cache needs is less than what a database gives: entries are only added, never changed, and are lost without harm, as
//! they can be computed again. A file that only grows, in blocks that say themselves whether they are whole, is that.
//!
//! # Cost
//! An entry takes 56 bytes beside its value's safetensors, and about 100 bytes of memory while the cache is open. Opening
//! reads the blocks' tables, not the values. Latents of 16 KiB take 1.0084 times their size in blocks of 32. On a busy
//! machine of two processors, 137 of them a second were written one at a time, 3600 in batches of 32, 4600 in batches of
//! 128 (each batch waits for the disk once), and 10,000 were read: `cargo run --release --example cache_speed`.

mod blocks;
mod error;
mod hash;
mod others;
mod tensors;

pub use error::CacheError;
pub use hash::{Key, ModelHash};
pub use others::OtherCache;
pub use tensors::Tensors;

use crate::disk::{sync_folder, write_at};
use blocks::{Blocks, FILE_HEAD, MOST, Scan, Slot, block, file_head};
use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What of a cache's file was found damaged and is computed again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Entries whose value is not what was written.
    pub entries: u64,
    /// Bytes between whole blocks: the entries in them are no longer known.
    pub bytes: u64,
}

/// Results of one model, in one file named after it.
///
/// Another model's results are in another file, so they are never read. The file is usable while it fills: what
/// [`put`](Self::put) has returned for is on the disk and survives a kill or a power cut; what it was writing is then
/// there or not, never in part. Any number of threads may share it. One process writes; others can
/// [read](Self::open_read_only) at the same time.
///
/// # Example
/// ```
/// use burn::tensor::TensorData;
/// use canvas_data::{Cache, CacheError, ModelHash, Tensors};
/// # fn main() -> Result<(), CacheError> {
/// # let home = tempfile::tempdir().unwrap();
/// # let weights = home.path().join("vae.safetensors");
/// # std::fs::write(&weights, b"weights").unwrap();
/// let cache = Cache::open(&home.path().join("latents"), &ModelHash::of_file(&weights)?)?;
/// let files: [&[u8]; 2] = [b"one image file", b"another"];
/// let keys = files.map(|file| cache.key("centre crop 512x512, f16, scale 0.18215", file));
/// let encode = |missing: &[usize]| {
///     let latent = |&index: &usize| Tensors::from([("latent".into(), TensorData::from([index as f32]))]);
///     Ok::<_, CacheError>(missing.iter().map(latent).collect())
/// };
/// let first = cache.get_or_insert_with(&keys, encode)?;
/// let again = cache.get_or_insert_with(&keys, |_| -> Result<_, CacheError> { unreachable!("all are there") })?;
/// assert_eq!(first, again);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    blocks: Blocks,
    writable: bool,
    /// Held while the file grows.
    growing: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    slots: HashMap<Key, Slot>,
    /// Where the next block will stand.
    end: u64,
    damage: Damage,
}

impl State {
    fn add(&mut self, scan: Scan) {
        self.slots.extend(scan.blocks.into_iter().flat_map(|block| block.slots));
        self.end = scan.end;
        self.damage.bytes += scan.damaged;
    }
}

impl Cache {
    /// Opens, or begins, the cache of a model in a folder.
    ///
    /// The end of a file that a kill or a power cut tore is cut off.
    ///
    /// # Errors
    /// Names the file: if it cannot be written, if it is open for writing elsewhere, or if it is no such cache.
    pub fn open(folder: &Path, model: &ModelHash) -> Result<Self, CacheError> {
        fs::create_dir_all(folder).map_err(CacheError::io(folder))?;
        let path = place(folder, model);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let blocks = Blocks { file: file.map_err(CacheError::io(&path))?, path, model: *model };
        lock(&blocks.file, &blocks.path)?;
        if blocks.length()? < FILE_HEAD {
            write_at(&blocks.file, &file_head(model), 0).map_err(blocks.io())?;
            sync_folder(folder).map_err(CacheError::io(folder))?;
        }
        let cache = Self::read(folder, blocks, true)?;
        let end = cache.state().end;
        if cache.blocks.length()? > end {
            cache.blocks.file.set_len(end).map_err(cache.blocks.io())?;
        }
        Ok(cache)
    }

    /// Opens the cache of a model to read what is there, while another process may be writing.
    ///
    /// # Errors
    /// Names the file: if it is not there, cannot be read, or is no such cache.
    pub fn open_read_only(folder: &Path, model: &ModelHash) -> Result<Self, CacheError> {
        let path = place(folder, model);
        let file = File::open(&path).map_err(CacheError::io(&path))?;
        Self::read(folder, Blocks { file, path, model: *model }, false)
    }

    fn read(folder: &Path, blocks: Blocks, writable: bool) -> Result<Self, CacheError> {
        blocks.check_head()?;
        let mut state = State { slots: HashMap::new(), end: FILE_HEAD, damage: Damage::default() };
        let scan = blocks.scan(FILE_HEAD)?;
        // After a power cut the last block may have its table and not its values.
        let mut torn = Vec::new();
        for (key, slot) in scan.blocks.last().iter().flat_map(|block| &block.slots) {
            if blocks.value(key, *slot)?.is_none() {
                torn.push(*key);
            }
        }
        state.add(scan);
        for key in torn {
            state.slots.remove(&key);
            state.damage.entries += 1;
        }
        let (growing, state) = (Mutex::new(()), RwLock::new(state));
        Ok(Self { folder: folder.to_owned(), blocks, writable, growing, state })
    }

    /// The key of a result: `preparation` says all that was done to the content before the model saw it.
    pub fn key(&self, preparation: &str, content: &[u8]) -> Key {
        Key::new(&self.blocks.model, preparation, content)
    }

    /// What is kept under a key. A value that is damaged is not there: [`damage`](Self::damage) counts it.
    ///
    /// # Errors
    /// Names the file, if it cannot be read.
    pub fn get(&self, key: &Key) -> Result<Option<Tensors>, CacheError> {
        let Some(slot) = self.state().slots.get(key).copied() else { return Ok(None) };
        let Some(bytes) = self.blocks.value(key, slot)? else {
            let mut state = self.state_mut();
            if state.slots.get(key).is_some_and(|now| *now == slot) {
                state.slots.remove(key);
                state.damage.entries += 1;
            }
            return Ok(None);
        };
        let content = |message| CacheError::Content { path: self.blocks.path.clone(), message };
        tensors::decode(&bytes).map(Some).map_err(content)
    }

    /// Keeps results. When it returns they are on the disk, all of them; one that is there already is not written again.
    ///
    /// Many at a time are much faster than one at a time: each call waits for the disk once.
    ///
    /// # Errors
    /// Names the file, or the tensor of a type that is not stored. On an error (a full disk, say) what was there before
    /// still is, and the file goes on being usable.
    pub fn put(&self, results: &[(Key, Tensors)]) -> Result<(), CacheError> {
        if !self.writable {
            return Err(CacheError::ReadOnly { path: self.blocks.path.clone() });
        }
        let encoded = results.iter().map(|(key, tensors)| Ok((*key, tensors::encode(tensors)?)));
        let mut encoded = encoded.collect::<Result<Vec<_>, CacheError>>()?;
        let _growing = self.growing();
        let state = self.state();
        encoded.retain(|(key, _)| !state.slots.contains_key(key));
        drop(state);
        encoded.chunks(MOST).try_for_each(|entries| self.grow(entries))
    }

    fn grow(&self, entries: &[(Key, Vec<u8>)]) -> Result<(), CacheError> {
        let offset = self.state().end;
        let (bytes, slots) = block(&self.blocks.model, offset, entries);
        if let Err(error) = write_at(&self.blocks.file, &bytes, offset) {
            self.blocks.file.set_len(offset).ok(); // if not, the next block is written over it
            return Err(self.blocks.io()(error));
        }
        let mut state = self.state_mut();
        state.slots.extend(slots);
        state.end = offset + bytes.len() as u64;
        Ok(())
    }

    /// What is kept under the keys, in their order; what is not there is computed, all in one call, and kept.
    ///
    /// `compute` is given the places in `keys` of those that are missing, each key once, and returns their results in
    /// that order. It is not called if none is.
    ///
    /// # Errors
    /// As [`get`](Self::get), [`put`](Self::put) and `compute`.
    ///
    /// # Panics
    /// If `compute` returns another number of results than it was asked for.
    pub fn get_or_insert_with<E: From<CacheError>>(
        &self,
        keys: &[Key],
        compute: impl FnOnce(&[usize]) -> Result<Vec<Tensors>, E>,
    ) -> Result<Vec<Tensors>, E> {
        let mut found = keys.iter().map(|key| self.get(key)).collect::<Result<Vec<_>, _>>()?;
        let mut missing: Vec<usize> = Vec::new();
        let mut first = HashMap::new();
        for (place, key) in keys.iter().enumerate().filter(|(place, _)| found[*place].is_none()) {
            first.entry(key).or_insert_with(|| {
                missing.push(place);
                missing.len() - 1
            });
        }
        if !missing.is_empty() {
            let computed = compute(&missing)?;
            let (asked, returned) = (missing.len(), computed.len());
            assert!(asked == returned, "{returned} results were computed for {asked} missing keys");
            let entries: Vec<_> = missing.iter().map(|&place| keys[place]).zip(computed).collect();
            self.put(&entries)?;
            for (place, result) in found.iter_mut().enumerate().filter(|(_, result)| result.is_none()) {
                *result = Some(entries[first[&keys[place]]].1.clone());
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Takes note of what another process has added since. For one that is opened read-only.
    ///
    /// # Errors
    /// Names the file, if it cannot be read.
    pub fn refresh(&self) -> Result<(), CacheError> {
        let _growing = self.growing();
        let end = self.state().end;
        let scan = self.blocks.scan(end)?;
        self.state_mut().add(scan);
        Ok(())
    }

    /// Whether there is something under a key.
    pub fn contains(&self, key: &Key) -> bool {
        self.state().slots.contains_key(key)
    }

    /// Results that are kept.
    pub fn len(&self) -> usize {
        self.state().slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of its file.
    pub fn bytes(&self) -> u64 {
        self.state().end
    }

    /// What was found damaged since it was opened.
    pub fn damage(&self) -> Damage {
        self.state().damage
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.blocks.path
    }

    // A thread that panicked left the state whole: it changes after the file has, in one piece.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn growing(&self) -> MutexGuard<'_, ()> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(folder: &Path, model: &ModelHash) -> PathBuf {
    folder.join(format!("{model}.{}", others::EXTENSION))
}

fn lock(file: &File, path: &Path) -> Result<(), CacheError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => CacheError::InUse { path: path.to_owned() },
        TryLockError::Error(source) => CacheError::Io { path: path.to_owned(), source },
    })
}
