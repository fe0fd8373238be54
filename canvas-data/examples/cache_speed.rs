//! How fast a cache of latents is written and read, and how large it gets.
//!
//! `cargo run --release --example cache_speed [FOLDER]`: the folder says which disk.

use burn::tensor::{TensorData, f16};
use canvas_data::{Cache, CacheError, ModelHash, Tensors};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Latents of 4 x 32 x 64 in f16: 16 KiB.
const SHAPE: [usize; 3] = [4, 32, 64];
const ENTRIES: u64 = 8192;

fn latent(number: u64) -> Tensors {
    let values =
        (0..SHAPE.iter().product::<usize>() as u64).map(|i| f16::from_f32((number * 31 + i) as f32 * 1e-3));
    Tensors::from([("latent".to_owned(), TensorData::new(values.collect::<Vec<_>>(), SHAPE))])
}

fn measure(folder: &Path, batch: u64) -> Result<(), CacheError> {
    std::fs::create_dir_all(folder).map_err(|source| CacheError::Io { path: folder.to_owned(), source })?;
    let weights = folder.join("weights");
    std::fs::write(&weights, batch.to_le_bytes())
        .map_err(|source| CacheError::Io { path: weights.clone(), source })?;
    let hash = ModelHash::of_file(&weights)?;
    let cache = Cache::open(folder, &hash)?;
    let batches: Vec<Vec<_>> = (0..ENTRIES / batch)
        .map(|first| {
            let numbers = first * batch..(first + 1) * batch;
            numbers.map(|number| (cache.key("f16", &number.to_le_bytes()), latent(number))).collect()
        })
        .collect();
    let begun = Instant::now();
    batches.iter().try_for_each(|batch| cache.put(batch))?;
    let written = ENTRIES as f64 / begun.elapsed().as_secs_f64();
    let bytes = cache.bytes() as f64 / (ENTRIES as f64 * 16384.0);
    drop(cache);
    let begun = Instant::now();
    let cache = Cache::open(folder, &hash)?;
    let opened = begun.elapsed();
    let begun = Instant::now();
    for (key, stored) in batches.iter().flatten() {
        assert_eq!(cache.get(key)?.as_ref(), Some(stored));
    }
    let read = ENTRIES as f64 / begun.elapsed().as_secs_f64();
    println!(
        "batches of {batch:3}: {written:7.0} entries/s written, {read:7.0} read; opened in {opened:?}; {bytes:.4} bytes a byte"
    );
    std::fs::remove_file(cache.path())
        .map_err(|source| CacheError::Io { path: cache.path().to_owned(), source })
}

fn main() -> Result<(), CacheError> {
    let folder = std::env::args()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("canvas-cache-speed"), PathBuf::from);
    [1, 8, 32, 128].into_iter().try_for_each(|batch| measure(&folder, batch))
}
