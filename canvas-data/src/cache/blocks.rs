//! A file of blocks that is only ever added to.
//!
//! ```text
//! file    magic [16] | model hash [32] | checksum [16] | block | block | ...
//! block   magic [8] | count u64 | count x (key [32], length u64) | checksum [16] | count x value
//! value   checksum [16] | bytes [length]
//! ```
//! Numbers are little-endian; checksums are the first 16 bytes of a BLAKE3 hash. A block's covers the model, the block's
//! place in the file and its table; a value's covers its key and its bytes. So nothing is taken for what it is not, be it
//! torn, flipped, moved or made by chance.

use super::{CacheError, Key, ModelHash};
use crate::disk::read_at;
use std::fs::File;
use std::io;
use std::path::PathBuf;

pub(super) const FILE_HEAD: u64 = 64;
const FILE_MAGIC: &[u8; 16] = b"canvas cache 1\r\n";
const MAGIC: [u8; 8] = [0xb1, b'c', b'a', b'c', b'h', b'e', 0x0d, 0x0a];
const ROW: usize = 40;
const SUM: usize = 16;
/// Entries of one block, so that a damaged count does not ask for more memory than the machine has.
pub(super) const MOST: usize = 1 << 14;
/// How much is read at a time in search of a block.
const STRIDE: usize = 1 << 20;

/// Where a value lies: its checksum first, then as many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    offset: u64,
    length: u64,
}

/// A block's entries, and where the next block begins.
pub(super) struct Block {
    pub(super) slots: Vec<(Key, Slot)>,
    pub(super) end: u64,
}

/// What lies between two offsets of a file.
pub(super) struct Scan {
    pub(super) blocks: Vec<Block>,
    /// Behind the last whole block.
    pub(super) end: u64,
    /// Bytes before that end that belong to no whole block.
    pub(super) damaged: u64,
}

fn sum(parts: &[&[u8]]) -> [u8; SUM] {
    let mut hasher = blake3::Hasher::new();
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    *hasher.finalize().as_bytes().first_chunk().expect("32 bytes")
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes"))
}

/// The bytes of a block that is to stand at `offset`, and its entries.
pub(super) fn block(
    model: &ModelHash,
    offset: u64,
    entries: &[(Key, Vec<u8>)],
) -> (Vec<u8>, Vec<(Key, Slot)>) {
    let mut bytes = [&MAGIC[..], &(entries.len() as u64).to_le_bytes()].concat();
    for (key, value) in entries {
        bytes.extend(key.0);
        bytes.extend((value.len() as u64).to_le_bytes());
    }
    bytes.extend(sum(&[&model.0, &offset.to_le_bytes(), &bytes]));
    let mut slots = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        slots.push((*key, Slot { offset: offset + bytes.len() as u64, length: value.len() as u64 }));
        bytes.extend(sum(&[&key.0, value]));
        bytes.extend(value);
    }
    (bytes, slots)
}

/// The bytes a file begins with.
pub(super) fn file_head(model: &ModelHash) -> Vec<u8> {
    [&FILE_MAGIC[..], &model.0, &sum(&[FILE_MAGIC, &model.0])].concat()
}

/// A file that is read at offsets, by any number of threads.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) model: ModelHash,
}

impl Drop for Blocks {
    /// Gives a lock back itself: closing the file leaves it to a process that another thread is just starting, which has
    /// the file until it runs its own program.
    fn drop(&mut self) {
        self.file.unlock().ok();
    }
}

impl Blocks {
    pub(super) fn io(&self) -> impl FnOnce(io::Error) -> CacheError + use<> {
        CacheError::io(&self.path)
    }

    pub(super) fn length(&self) -> Result<u64, CacheError> {
        self.file.metadata().map(|data| data.len()).map_err(self.io())
    }

    /// As many bytes as there are, up to `count`.
    fn read(&self, offset: u64, count: usize) -> Result<Vec<u8>, CacheError> {
        let mut bytes = vec![0; count];
        let read = read_at(&self.file, &mut bytes, offset).map_err(self.io())?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Whether the file begins as one of this model does.
    pub(super) fn check_head(&self) -> Result<(), CacheError> {
        let found = self.read(0, FILE_HEAD as usize)?;
        let content =
            |message: &str| Err(CacheError::Content { path: self.path.clone(), message: message.to_owned() });
        match found == file_head(&self.model) {
            true => Ok(()),
            false if !found.starts_with(FILE_MAGIC) => content("is not a cache, or its beginning is damaged"),
            false => content("is the cache of another model, or its beginning is damaged"),
        }
    }

    /// The block at an offset, if a whole one stands there.
    fn block_at(&self, offset: u64, length: u64) -> Result<Option<Block>, CacheError> {
        let mut head = self.read(offset, 16)?;
        if head.len() < 16 || head[..8] != MAGIC {
            return Ok(None);
        }
        let Some(count) = usize::try_from(word(&head[8..])).ok().filter(|&count| count <= MOST) else {
            return Ok(None);
        };
        head.extend(self.read(offset + 16, count * ROW + SUM)?);
        let table = 16 + count * ROW;
        if head.len() < table + SUM
            || sum(&[&self.model.0, &offset.to_le_bytes(), &head[..table]]) != head[table..]
        {
            return Ok(None);
        }
        let mut end = offset + head.len() as u64;
        let mut slots = Vec::with_capacity(count);
        for row in head[16..table].as_chunks::<ROW>().0 {
            let slot = Slot { offset: end, length: word(&row[32..]) };
            slots.push((Key(*row.first_chunk().expect("32 bytes")), slot));
            end += SUM as u64 + slot.length;
        }
        Ok((end <= length).then_some(Block { slots, end }))
    }

    /// Where the next block stands after an offset at which there is none.
    fn search(&self, from: u64, length: u64) -> Result<Option<(u64, Block)>, CacheError> {
        let mut offset = from + 1;
        while offset < length {
            let bytes = self.read(offset, STRIDE + MAGIC.len() - 1)?;
            for (place, _) in bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC) {
                if let Some(block) = self.block_at(offset + place as u64, length)? {
                    return Ok(Some((offset + place as u64, block)));
                }
            }
            offset += STRIDE as u64;
        }
        Ok(None)
    }

    /// All whole blocks from an offset on. What is damaged between two of them is passed over.
    pub(super) fn scan(&self, from: u64) -> Result<Scan, CacheError> {
        let length = self.length()?;
        let mut scan = Scan { blocks: Vec::new(), end: from, damaged: 0 };
        while scan.end < length {
            let found = match self.block_at(scan.end, length)? {
                Some(block) => Some((scan.end, block)),
                None => self.search(scan.end, length)?,
            };
            let Some((start, block)) = found else { break };
            scan.damaged += start - scan.end;
            scan.end = block.end;
            scan.blocks.push(block);
        }
        Ok(scan)
    }

    /// A value, if it is what was written.
    pub(super) fn value(&self, key: &Key, slot: Slot) -> Result<Option<Vec<u8>>, CacheError> {
        let mut bytes = self.read(slot.offset, SUM + slot.length as usize)?;
        if bytes.len() as u64 != SUM as u64 + slot.length || bytes[..SUM] != sum(&[&key.0, &bytes[SUM..]]) {
            return Ok(None);
        }
        bytes.drain(..SUM);
        Ok(Some(bytes))
    }
}
