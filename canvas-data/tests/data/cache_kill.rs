//! A process that fills a cache is killed at random moments, and the next goes on.

use super::cache::{key, model};
use burn::tensor::TensorData;
use canvas_data::{Cache, Damage, Tensors};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Entries of the child's largest block: some megabytes.
const MOST: u64 = 96;
const FOLDER: &str = "CANVAS_TEST_CACHE";

/// Mixes a number: kills and sizes that differ from run to run of the loop, and not from test to test.
fn mixed(number: u64) -> u64 {
    let bits = (number ^ 0x5bf0_3635).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 17
}

/// Up to 64 KiB of item `i`.
fn result(i: u64) -> Tensors {
    let count = 1 + mixed(i) % 16_000;
    let values: Vec<f32> = (0..count).map(|j| (i * 7 + j) as f32).collect();
    Tensors::from([("latent".to_owned(), TensorData::new(values, [count as usize]))])
}

/// The child: fills the cache of a folder until it is killed, and writes down what was acknowledged.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn fill() {
    let folder = std::env::var(FOLDER).expect("a folder");
    let folder = Path::new(&folder);
    let cache = Cache::open(folder, &model(folder, "vae")).unwrap();
    let mut acknowledged =
        File::options().append(true).create(true).open(folder.join("acknowledged")).unwrap();
    let mut next = (0..).find(|&i| !cache.contains(&key(&cache, i))).unwrap();
    loop {
        let count = 1 + mixed(next) % MOST;
        let results: Vec<_> = (next..next + count).map(|i| (key(&cache, i), result(i))).collect();
        cache.put(&results).unwrap();
        next += count;
        // One write of eight bytes: a kill falls before it or after it.
        acknowledged.write_all(&next.to_le_bytes()).unwrap();
    }
}

/// Kills a child at a random moment after its first acknowledgement; every fifth at one after its start. Every other kill
/// then waits until the file is seen to grow: it falls into a write, the others mostly into waiting for the disk.
fn kill_one(folder: &Path, file: &Path, kill: u64) {
    let before = acknowledged(folder);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cache_kill::fill", "--include-ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while kill % 5 != 4 && acknowledged(folder) == before {
        assert!(begun.elapsed() < Duration::from_secs(60), "the child writes nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_micros(mixed(kill) % 150_000));
    let length = || fs::metadata(file).map_or(0, |data| data.len());
    let (seen, deadline) = (length(), Instant::now() + Duration::from_millis(500));
    while kill % 2 == 1 && length() == seen && Instant::now() < deadline {}
    child.kill().unwrap(); // SIGKILL
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "the child ended before it was killed: {status}");
}

fn acknowledged(folder: &Path) -> u64 {
    let bytes = fs::read(folder.join("acknowledged")).unwrap_or_default();
    bytes.as_chunks::<8>().0.last().map_or(0, |last| u64::from_le_bytes(*last))
}

/// All that was acknowledged is there bit by bit, and all that is there is whole.
///
/// Ten kills unless `CANVAS_KILLS` says how many.
#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let kills = std::env::var("CANVAS_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let hash = model(folder, "vae");
    let file = folder.join(format!("{hash}.cache"));
    let (mut before, mut found, mut torn) = (0u64, 0u64, 0u64);
    for kill in 0..kills {
        kill_one(folder, &file, kill);
        let written = fs::metadata(&file).map_or(0, |data| data.len());
        let cache = Cache::open(folder, &hash).unwrap();
        torn += u64::from(written > cache.bytes());
        let promised = acknowledged(folder);
        assert!(promised >= before, "kill {kill}");
        let there = cache.len() as u64;
        // At most the one block that was on the disk and not yet acknowledged is more.
        let most = promised.max(found) + MOST;
        assert!(
            (promised.max(found)..=most).contains(&there),
            "kill {kill}: {there} there, {promised} acknowledged"
        );
        found = there;
        for i in before.saturating_sub(100)..there {
            assert_eq!(cache.get(&key(&cache, i)).unwrap(), Some(result(i)), "kill {kill}, item {i}");
        }
        assert_eq!(cache.damage(), Damage::default(), "kill {kill}");
        before = promised;
    }
    let cache = Cache::open(folder, &hash).unwrap();
    (0..before).for_each(|i| assert_eq!(cache.get(&key(&cache, i)).unwrap(), Some(result(i)), "item {i}"));
    println!("{kills} kills, {torn} of them inside a write; {before} entries, {} bytes", cache.bytes());
}
