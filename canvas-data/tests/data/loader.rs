use canvas_data::{Fault, FaultRow, LoadError, Loader, Loading, OnFault, Part, Place, Shard, Stream, reason};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

fn stream() -> Stream {
    let buckets = vec![(0..50).collect(), (50..70).collect(), (70..73).collect()];
    Stream::new(11, 12, vec![Part::new(buckets)])
}

/// What is made of an image: what it is keyed by.
fn made(number: u64, place: Place) -> (u64, usize) {
    (number, place.index)
}

fn loading(batch: usize, start: u64, threads: usize) -> Loading {
    Loading { start, threads, on_fault: OnFault::Refuse, ..Loading::new(batch) }
}

fn items(loading: Loading, batches: usize) -> Vec<(u64, usize)> {
    let loader = Loader::new(&stream(), loading, |number, place| Ok(made(number, place))).unwrap();
    loader.take(batches).flat_map(|batch| batch.unwrap().items).collect()
}

fn bad(index: usize) -> Fault {
    Fault::new(format!("image-{index}"), reason::TRUNCATED, "ends in the middle")
}

#[test]
fn any_number_of_threads_gives_the_same_batches() {
    let expected: Vec<_> = {
        let mut cursor = stream().cursor();
        (0..120).map(|number| made(number, cursor.at(number))).collect()
    };
    for threads in [0, 1, 2, 7] {
        for batch in [1, 4, 12] {
            assert_eq!(
                items(loading(batch, 0, threads), 120 / batch),
                expected,
                "{threads} threads, batches of {batch}"
            );
        }
    }
}

#[test]
fn a_run_resumes_at_any_number() {
    let whole = items(loading(4, 0, 2), 20);
    for start in 0..40 {
        let found = items(loading(4, start as u64, 2), 10);
        assert_eq!(found[..], whole[start..start + found.len()], "from {start}");
        assert_eq!(found.len(), 40 - start % 4, "from {start}");
    }
}

/// Stopped with one batch and resumed with another: the first batch is the rest of one, so that none has two sizes of images.
#[test]
fn a_run_resumed_within_a_batch_keeps_to_its_bucket() {
    for (start, batch, of) in [(4, 12, 1), (3, 4, 1), (4, 6, 2), (8, 2, 3), (11, 4, 3), (7, 1, 12)] {
        let step = (batch * of) as u64;
        let mut devices: Vec<_> = (0..of)
            .map(|rank| {
                let loading = Loading { shard: Shard::new(rank, of), ..loading(batch, start, 2) };
                Loader::new(&stream(), loading, |number, place| Ok(made(number, place))).unwrap()
            })
            .collect();
        let mut begins = start;
        for _ in 0..30 {
            let parts: Vec<_> = devices.iter_mut().map(|device| device.next().unwrap().unwrap()).collect();
            let mut numbers: Vec<u64> = parts.iter().flat_map(|part| part.numbers.clone()).collect();
            numbers.sort_unstable();
            let ends = (begins / step + 1) * step;
            assert_eq!(numbers, (begins..ends).collect::<Vec<_>>(), "{batch} on {of} from {start}");
            assert!(parts.iter().all(|part| part.start == begins));
            let buckets: HashSet<usize> = numbers.iter().map(|&number| stream().at(number).bucket).collect();
            assert_eq!(buckets.len(), 1, "{batch} on {of} from {start}: {numbers:?}");
            begins = ends;
        }
    }
    // Where all images have one size, batches are whole.
    let single = Stream::new(1, 12, vec![Part::new(vec![(0..9).collect()])]);
    let mut loader = Loader::new(&single, loading(4, 3, 0), |number, _| Ok(number)).unwrap();
    assert_eq!(loader.next().unwrap().unwrap().items, [3, 4, 5, 6]);
}

#[test]
fn devices_share_each_batch() {
    let whole = items(loading(12, 0, 0), 10);
    for of in [2, 3] {
        let shares: Vec<Vec<_>> = (0..of)
            .map(|rank| items(Loading { shard: Shard::new(rank, of), ..loading(12 / of, 0, 2) }, 10))
            .collect();
        for step in 0..10 {
            let share = 12 / of;
            let mut batch: Vec<_> =
                shares.iter().flat_map(|items| items[step * share..(step + 1) * share].to_vec()).collect();
            batch.sort_unstable();
            assert_eq!(batch, whole[step * 12..(step + 1) * 12]);
        }
    }
}

#[test]
fn a_batch_says_where_it_begins() {
    let shard = Shard::new(1, 2);
    let loading = Loading { shard, ..loading(3, 24, 2) };
    let loader = Loader::new(&stream(), loading, |number, place| Ok(made(number, place))).unwrap();
    let batches: Vec<_> = loader.take(3).map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.start).collect::<Vec<_>>(), [24, 30, 36]);
    assert_eq!(batches[1].numbers, [31, 33, 35]);
}

/// The first images are the slowest: they end after all others and still come first.
#[test]
fn a_slow_image_keeps_its_place() {
    let done = Arc::new((Mutex::new(0), Condvar::new()));
    let prepare = {
        let done = done.clone();
        move |number, place| {
            let (count, changed) = &*done;
            let mut count = count.lock().unwrap();
            if number == 0 {
                count = changed.wait_while(count, |count| *count < 11).unwrap();
            }
            *count += 1;
            changed.notify_all();
            Ok(made(number, place))
        }
    };
    let loading = Loading { ahead: 12, ..loading(4, 0, 2) };
    let found: Vec<_> =
        Loader::new(&stream(), loading, prepare).unwrap().take(3).map(|batch| batch.unwrap().items).collect();
    assert_eq!(found.concat(), items(self::loading(4, 0, 0), 3));
}

/// Counts itself while it is alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Waits for what other threads bring about.
fn until(what: &str, reached: impl Fn() -> bool) {
    for _ in 0..2000 {
        if reached() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what}: not within 10 s");
}

#[test]
fn a_slow_consumer_bounds_what_is_alive_and_finds_the_next_batch_ready() {
    let (alive, prepared) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (batch, ahead) = (4, 10);
    let prepare = {
        let (alive, prepared) = (alive.clone(), prepared.clone());
        move |_, _| {
            let item = Alive::new(&alive);
            prepared.fetch_add(1, SeqCst);
            Ok(item)
        }
    };
    let loading = Loading { ahead, ..loading(batch, 0, 3) };
    let mut loader = Loader::new(&stream(), loading, prepare).unwrap();
    for step in 0..20 {
        // The step lasts until the threads have nothing left to do.
        until("all that may be prepared is", || prepared.load(SeqCst) == step * batch + ahead);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(prepared.load(SeqCst), step * batch + ahead, "no more than that");
        let held = loader.next().unwrap().unwrap();
        assert!(alive.load(SeqCst) <= ahead + batch, "{} alive", alive.load(SeqCst));
        assert_eq!(held.items.len(), batch);
    }
    assert_eq!((loader.waiting().batches, loader.waiting().stalls), (20, 0));
    drop(loader);
    assert_eq!(alive.load(SeqCst), 0, "nothing is kept");
}

#[test]
fn waiting_is_measured() {
    let prepare = |_, _| {
        std::thread::sleep(Duration::from_millis(3));
        Ok(())
    };
    let mut loader = Loader::new(&stream(), loading(2, 0, 0), prepare).unwrap();
    loader.by_ref().take(3).for_each(|batch| drop(batch.unwrap()));
    let waiting = loader.waiting();
    assert_eq!((waiting.batches, waiting.stalls), (3, 3));
    // Six sleeps, none shorter than it says.
    assert!(waiting.time >= Duration::from_millis(18), "{waiting:?}");
}

/// Dropped with everything given out and nothing taken, threads end after the image they are at.
#[test]
fn no_thread_is_left_behind() {
    let running = Arc::new(AtomicUsize::new(0));
    for taken in [0, 1, 3] {
        let (witness, begun) = (Arc::new(()), running.clone());
        let held = witness.clone();
        let prepare = move |_, _| {
            begun.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            Ok(Arc::strong_count(&held))
        };
        let loading = Loading { ahead: 50_000, ..loading(4, 0, 4) };
        let mut loader = Loader::new(&stream(), loading, prepare).unwrap();
        loader.by_ref().take(taken).for_each(|batch| drop(batch.unwrap()));
        drop(loader);
        assert_eq!(Arc::strong_count(&witness), 1, "the threads' closure is gone with them");
        let begun = running.swap(0, SeqCst);
        // All of them would take 12 seconds.
        assert!(begun < 50_000, "{begun} images were begun");
    }
}

#[test]
fn a_panic_names_its_image_and_ends_the_run() {
    for threads in [0, 3] {
        let prepare = |number, place| {
            assert!(number != 9, "cannot look at {number}");
            Ok(made(number, place))
        };
        let mut loader = Loader::new(&stream(), loading(4, 0, threads), prepare).unwrap();
        assert_eq!(loader.by_ref().take(2).filter(Result::is_ok).count(), 2);
        let error = loader.next().unwrap().unwrap_err();
        let index = stream().at(9).index;
        let expected =
            format!("preparing image 9 of the run (number {index} of source 0) panicked: cannot look at 9");
        assert_eq!(error.to_string(), expected);
        assert!(loader.next().is_none());
    }
}

fn every(apart: u64) -> impl Fn(u64, Place) -> Result<u64, Fault> + Send + Sync + 'static {
    move |number, place| if number % apart == 1 { Err(bad(place.index)) } else { Ok(number) }
}

#[test]
fn faulty_images_are_left_out_counted_and_written_down() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("faults.jsonl");
    let rows = || -> Vec<FaultRow> {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let on_fault = OnFault::Skip { at_most: 0.2, window: 100 };
    let loading =
        |start, threads| Loading { on_fault, log: Some(path.clone()), ..loading(4, start, threads) };
    let mut loader = Loader::new(&stream(), loading(0, 3), every(10)).unwrap();
    let batches: Vec<_> = loader.by_ref().take(25).map(Result::unwrap).collect();
    assert_eq!(batches[0].numbers, [0, 2, 3]);
    assert_eq!(batches[0].items, [0, 2, 3]);
    assert_eq!(batches[0].faults, [bad(stream().at(1).index)]);
    let numbers: HashSet<u64> = batches.iter().flat_map(|batch| batch.numbers.clone()).collect();
    assert_eq!(numbers, (0..100).filter(|number| number % 10 != 1).collect());
    let faults = loader.faults();
    assert_eq!((faults.images(), faults.total()), (100, 10));
    let (name, count, examples) = faults.reasons().next().unwrap();
    assert_eq!((name, count, examples.len()), (reason::TRUNCATED, 10, 3));
    let text = faults.to_string();
    assert!(text.starts_with("10 of 100 images left out\n  10 truncated: image-"), "{text}");
    let whole = rows();
    assert_eq!(
        whole.iter().map(|row| row.number).collect::<Vec<_>>(),
        (0..10).map(|i| 10 * i + 1).collect::<Vec<_>>()
    );
    assert!(whole.iter().all(|row| row.fault == bad(row.index)));

    // A row that a kill has cut off, and those that the resumed run finds again, are not there twice.
    let mut torn = std::fs::read(&path).unwrap();
    torn.truncate(torn.len() - 5);
    std::fs::write(&path, torn).unwrap();
    Loader::new(&stream(), loading(48, 0), every(10))
        .unwrap()
        .take(13)
        .for_each(|batch| drop(batch.unwrap()));
    assert_eq!(rows(), whole);
}

#[test]
fn a_file_of_faults_keeps_its_earlier_rows_and_is_no_other_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("faults.jsonl");
    let open = |start| {
        let loading = Loading { log: Some(path.clone()), ..loading(4, start, 0) };
        Loader::new(&stream(), loading, every(1)).map(drop)
    };
    for other in ["my notes", "my notes\n", "{\"number\":\"one\"}\n", "{\"index\":0}\n"] {
        std::fs::write(&path, other).unwrap();
        let said = open(4).unwrap_err().to_string();
        let expected =
            format!("expected rows of faults, which begin with {{\"number\":, found `{}`", other.trim());
        assert!(said.ends_with(&expected), "{said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), other);
    }
    // Rows may stand in any order: two runs wrote into one file, say.
    let row = |number: u64| {
        let row = FaultRow { number, source: 0, index: 0, fault: bad(0) };
        serde_json::to_string(&row).unwrap() + "\n"
    };
    let cut = &row(3)[..20];
    std::fs::write(&path, [&row(9), &row(2), &row(7), &row(1), cut].map(|row| row.to_owned()).concat())
        .unwrap();
    open(8).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), row(2) + &row(7) + &row(1));
    for cut in [&b"{\"num"[..], b"{\"number\":1,\"sou", b""] {
        std::fs::write(&path, cut).unwrap();
        open(8).unwrap();
        assert!(std::fs::read(&path).unwrap().is_empty());
    }
}

#[test]
#[should_panic(expected = "a window of at least one")]
fn a_window_of_no_image_is_refused() {
    let on_fault = OnFault::Skip { at_most: 0.1, window: 0 };
    Loader::new(&stream(), Loading { on_fault, ..loading(4, 0, 0) }, every(10)).ok();
}

#[test]
fn a_run_may_refuse_faulty_images() {
    let mut loader = Loader::new(&stream(), loading(4, 4, 2), every(10)).unwrap();
    assert_eq!(loader.next().unwrap().unwrap().numbers, [4, 5, 6, 7]);
    let error = loader.next().unwrap().unwrap_err();
    let expected = format!("image 11 of the run cannot be used: {}", bad(stream().at(11).index));
    assert_eq!(error.to_string(), expected);
    assert!(loader.next().is_none());
}

/// A disk that dies in the middle of a run stops it, within the window and not before.
#[test]
fn too_many_faults_stop_the_run() {
    let prepare = |number, place: Place| if number < 100 { Ok(()) } else { Err(bad(place.index)) };
    for threads in [0, 3] {
        let on_fault = OnFault::Skip { at_most: 0.1, window: 50 };
        let loader = Loader::new(&stream(), Loading { on_fault, ..loading(1, 0, threads) }, prepare).unwrap();
        let results: Vec<_> = loader.collect();
        let (last, good) = results.split_last().unwrap();
        assert_eq!(good.len(), 105, "five of fifty may be left out");
        let Err(LoadError::TooMany { found, window, .. }) = last else { panic!("{last:?}") };
        assert_eq!((*found, *window), (6, 50));
        let text = last.as_ref().unwrap_err().to_string();
        assert!(
            text.starts_with("6 of the last 50 images cannot be used, and at most 0.1 of them"),
            "{text}"
        );
        assert!(text.contains("6 truncated: image-"), "{text}");
    }
    // One in ten for ever is not more than that.
    let on_fault = OnFault::Skip { at_most: 0.1, window: 50 };
    let loader = Loader::new(&stream(), Loading { on_fault, ..loading(4, 0, 2) }, every(10)).unwrap();
    assert!(loader.take(100).all(|batch| batch.is_ok()));
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let begin = |stream: &Stream, loading| {
        Loader::new(stream, loading, |number, place| Ok(made(number, place))).err()
    };
    let uneven = begin(&stream(), loading(5, 0, 0)).unwrap();
    let expected = "a batch of 5 on each of 1 devices does not divide the stream's groups of 12 images";
    assert_eq!(uneven.to_string(), expected);
    assert!(begin(&stream(), Loading { shard: Shard::new(0, 5), ..loading(4, 0, 0) }).is_some());
    // One bucket has one size, whatever the batch.
    let single = Stream::new(1, 12, vec![Part::new(vec![(0..9).collect()])]);
    assert!(begin(&single, loading(5, 0, 0)).is_none());
    let log = Some("no/such/folder/faults.jsonl".into());
    let text = begin(&stream(), Loading { log, ..loading(4, 0, 0) }).unwrap().to_string();
    assert!(text.starts_with("no/such/folder/faults.jsonl: "), "{text}");
}
