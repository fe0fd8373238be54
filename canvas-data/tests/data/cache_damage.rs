//! Caches whose file is torn or damaged, and those on a full disk.

use super::cache::{model, present, put};
use canvas_data::{Cache, CacheError, Damage, ModelHash};
use proptest::prelude::*;
use std::fs;
use std::process::Command;
use std::sync::LazyLock;

/// A cache of three blocks of four items: its model, its file's bytes, and where blocks end.
static FILE: LazyLock<(ModelHash, Vec<u8>, [usize; 3])> = LazyLock::new(|| {
    let home = tempfile::tempdir().unwrap();
    let hash = model(home.path(), "vae");
    let cache = Cache::open(home.path(), &hash).unwrap();
    let ends = [0, 4, 8].map(|start| {
        put(&cache, start..start + 4).unwrap();
        cache.bytes() as usize
    });
    (hash, fs::read(cache.path()).unwrap(), ends)
});

/// Wherever a kill tears the file, whole blocks are there, nothing else is, and the cache goes on.
#[test]
fn a_file_torn_at_any_byte_keeps_its_whole_blocks() {
    let home = tempfile::tempdir().unwrap();
    let (hash, bytes, ends) = FILE.clone();
    let path = home.path().join(format!("{hash}.cache"));
    for length in (0..ends[0]).chain(ends[1]..=ends[2]) {
        fs::remove_file(&path).ok(); // a file that is cut to nothing and written is flushed by some systems: slow
        fs::write(&path, &bytes[..length]).unwrap();
        let whole = 4 * ends.iter().filter(|&&end| end <= length).count() as u64;
        let cache = Cache::open(home.path(), &hash).unwrap();
        assert_eq!(cache.len() as u64, whole, "torn at {length}");
        assert_eq!(cache.damage(), Damage::default());
        if length % 37 == 0 || ends.contains(&length) {
            assert_eq!(present(&cache, 0..12), (0..whole).collect::<Vec<_>>());
            put(&cache, 0..12).unwrap();
            drop(cache);
            assert_eq!(present(&Cache::open(home.path(), &hash).unwrap(), 0..12).len(), 12);
        }
    }
}

#[test]
fn what_is_no_cache_is_refused_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let hash = model(home.path(), "vae");
    let path = home.path().join(format!("{hash}.cache"));
    let content = vec![b'x'; 500];
    fs::write(&path, &content).unwrap();
    let error = Cache::open(home.path(), &hash).unwrap_err().to_string();
    assert_eq!(error, format!("{}: is not a cache, or its beginning is damaged", path.display()));
    assert_eq!(fs::read(&path).unwrap(), content);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Bits flipped, bytes cut out, doubled or added: a clear error or a miss, never another tensor; what is lost is computed again.
    #[test]
    fn damage_is_an_error_or_a_miss(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..20),
        cut in proptest::option::of((any::<prop::sample::Index>(), 1usize..200)),
        doubled in proptest::option::of((any::<prop::sample::Index>(), 1usize..2000)),
        tail in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let home = tempfile::tempdir().unwrap();
        let (hash, mut bytes, _) = FILE.clone();
        let length = bytes.len();
        flips.iter().for_each(|(place, bit)| bytes[place.index(length)] ^= 1 << bit);
        if let Some((place, count)) = cut {
            let start = place.index(length);
            bytes.drain(start..(start + count).min(length));
        }
        if let Some((place, count)) = doubled {
            let start = place.index(bytes.len());
            let copy = bytes[start..(start + count).min(bytes.len())].to_vec();
            bytes.splice(start..start, copy);
        }
        bytes.extend(tail);
        let path = home.path().join(format!("{hash}.cache"));
        fs::write(&path, &bytes).unwrap();
        for _ in 0..2 {
            match Cache::open(home.path(), &hash) {
                Err(CacheError::Content { path: named, .. }) => prop_assert_eq!(named, path.clone()),
                Err(error) => prop_assert!(false, "{error}"),
                Ok(cache) => {
                    present(&cache, 0..12);
                    let lost = 12 - cache.len();
                    put(&cache, 0..12).unwrap();
                    prop_assert_eq!(present(&cache, 0..12).len(), 12, "{} lost", lost);
                }
            }
        }
    }
}

/// One flipped bit in a value costs that entry, in a block's table that block.
#[test]
fn damage_is_counted_and_costs_no_more_than_it_must() {
    let home = tempfile::tempdir().unwrap();
    let (hash, bytes, ends) = FILE.clone();
    let path = home.path().join(format!("{hash}.cache"));
    let mut value = bytes.clone();
    value[ends[0] - 1] ^= 1; // the last byte of the first block's last value
    fs::write(&path, value).unwrap();
    let cache = Cache::open(home.path(), &hash).unwrap();
    assert_eq!(present(&cache, 0..12), [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(cache.damage(), Damage { entries: 1, bytes: 0 });
    drop(cache);
    let mut table = bytes;
    table[ends[0] + 30] ^= 1; // a key of the second block
    fs::write(&path, table).unwrap();
    let cache = Cache::open(home.path(), &hash).unwrap();
    assert_eq!(present(&cache, 0..12), [0, 1, 2, 3, 8, 9, 10, 11]);
    assert_eq!(cache.damage(), Damage { entries: 0, bytes: (ends[1] - ends[0]) as u64 });
}

/// A disk of a megabyte, if this system lets us have one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(folder.path()).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_cache_is_whole() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!("skipped: needs to mount a tmpfs");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let hash = model(home.path(), "vae");
    let filler = disk.0.path().join("filler");
    fs::write(&filler, vec![0; 700_000]).unwrap();
    let cache = Cache::open(disk.0.path(), &hash).unwrap();
    let mut items = 0;
    let error = loop {
        match put(&cache, items..items + 64) {
            Ok(()) => items += 64,
            Err(error) => break error,
        }
    };
    let text = error.to_string();
    assert!(
        matches!(error, CacheError::Io { .. }) && text.starts_with(&cache.path().display().to_string()),
        "{text}"
    );
    assert!(items > 0);
    assert_eq!(fs::metadata(cache.path()).unwrap().len(), cache.bytes(), "what did not fit is cut off");
    assert_eq!(present(&cache, 0..items + 64), (0..items).collect::<Vec<_>>());
    drop(cache);
    let cache = Cache::open(disk.0.path(), &hash).unwrap();
    assert_eq!(present(&cache, 0..items + 64), (0..items).collect::<Vec<_>>());
    assert!(put(&cache, items..items + 64).is_err(), "still full");
    // The same cache goes on when there is room.
    fs::remove_file(&filler).unwrap();
    put(&cache, items..items + 64).unwrap();
    assert_eq!(present(&cache, 0..items + 64).len() as u64, items + 64);
}
