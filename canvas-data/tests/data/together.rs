//! Stream, loader and keyed draws at once: whatever happens to a run, image `n` is the same.

use canvas_core::{generator, seed_for};
use canvas_data::{Caption, Fault, InMemory, Loader, Loading, Part, Place, Record, Shard, Source, Stream};
use proptest::prelude::*;
use rand::Rng;
use std::sync::{Arc, LazyLock};

const SEED: u64 = 23;
const LENGTH: u64 = 240;

/// What is trained on: number, image, and the draw that places its crop.
type Item = (u64, String, u64);

static IMAGES: LazyLock<Arc<InMemory>> = LazyLock::new(|| {
    let record = |index: usize| Record {
        key: format!("{index:03}.png"),
        image: vec![index as u8; 3],
        captions: vec![Caption::new("an image")],
        fields: serde_json::Map::new(),
    };
    Arc::new(InMemory((0..90).map(record).collect()))
});

fn stream() -> Stream {
    let buckets = vec![(0..60).collect(), (60..85).collect(), (85..90).collect()];
    Stream::new(SEED, 12, vec![Part::new(buckets)])
}

fn prepare(number: u64, place: Place) -> Result<Item, Fault> {
    let record = IMAGES.read(place.index)?;
    Ok((number, record.key, generator(seed_for(SEED, "crop"), number, 0).next_u64()))
}

static EXPECTED: LazyLock<Vec<Item>> =
    LazyLock::new(|| (0..LENGTH).map(|number| prepare(number, stream().at(number)).unwrap()).collect());

/// A stretch of a run: batch of each device, devices, threads, how far ahead, and after how many steps it is killed.
fn leg() -> impl Strategy<Value = (usize, usize, usize, usize, usize)> {
    let split = prop::sample::select(vec![
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 1),
        (6, 1),
        (12, 1),
        (3, 2),
        (6, 2),
        (2, 3),
        (1, 4),
    ]);
    (split, 0usize..4, 0usize..30, 0usize..9)
        .prop_map(|((batch, of), threads, ahead, steps)| (batch, of, threads, ahead, steps))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_history_of_a_run_gives_the_same_images(legs in proptest::collection::vec(leg(), 1..6)) {
        let mut seen: Vec<Item> = Vec::new();
        for (batch, of, threads, ahead, steps) in legs {
            // Each leg resumes where the last one was stopped, perhaps within one of its own batches.
            let start = seen.len() as u64;
            let mut devices: Vec<_> = (0..of)
                .map(|rank| {
                    let shard = Shard::new(rank, of);
                    let loading = Loading { start, shard, threads, ahead, ..Loading::new(batch) };
                    Loader::new(&stream(), loading, prepare).unwrap()
                })
                .collect();
            for _ in 0..steps {
                if seen.len() + batch * of > LENGTH as usize {
                    break;
                }
                let mut step: Vec<Item> = Vec::new();
                for device in &mut devices {
                    let part = device.next().unwrap().unwrap();
                    prop_assert_eq!(part.start, seen.len() as u64);
                    step.extend(part.items);
                }
                step.sort_unstable();
                let mut buckets = step.iter().map(|(number, ..)| stream().at(*number).bucket);
                let first = buckets.next();
                prop_assert!(buckets.all(|bucket| Some(bucket) == first), "{:?}", step);
                seen.extend(step);
            }
        }
        prop_assert_eq!(&seen[..], &EXPECTED[..seen.len()]);
    }
}
