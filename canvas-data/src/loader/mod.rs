//! Images prepared by threads ahead of the loop that trains on them.

mod faults;
mod workers;

pub use faults::{FaultRow, Faults, OnFault};

use crate::{Cursor, Fault, Place, Shard, Stream};
use faults::{FaultLog, Watch};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use workers::{Job, Outcome, Prepare, Workers, attempt};

/// A loader cannot begin, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Batches of this size would hold images of more than one bucket.
    #[error(
        "a batch of {batch} on each of {devices} devices does not divide the stream's groups of {group} images"
    )]
    Batch {
        /// Images of a batch on one device.
        batch: usize,
        /// Devices.
        devices: usize,
        /// The stream's group.
        group: usize,
    },
    /// The system starts no more threads.
    #[error("a thread of the loader does not start: {0}")]
    Threads(io::Error),
    /// The file of faults could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file of faults is another's.
    #[error("{}: expected rows of faults, which begin with {{\"number\":, found `{found}`", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// How its first line begins.
        found: String,
    },
    /// An image cannot be used, and none may be left out.
    #[error("image {number} of the run cannot be used: {fault}")]
    Refused {
        /// Its number in the run.
        number: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// More images cannot be used than may be left out: a disk or a network fails, or it is the wrong data.
    #[error(
        "{found} of the last {window} images cannot be used, and at most {at_most} of them may be left out; the last: {last}\n{faults}"
    )]
    TooMany {
        /// How many.
        found: usize,
        /// Among how many images.
        window: u64,
        /// The part that may be left out.
        at_most: f64,
        /// The last of them.
        last: Fault,
        /// All of the run, by reason.
        faults: String,
    },
    /// Preparing an image panicked.
    #[error("preparing image {number} of the run (number {} of source {}) panicked: {message}", place.index, place.source)]
    Panicked {
        /// Its number in the run.
        number: u64,
        /// Where it stands.
        place: Place,
        /// What the panic said.
        message: String,
    },
}

/// How images are loaded.
#[derive(Clone, Debug)]
pub struct Loading {
    /// Images of a batch on this device, at least 1. Times the devices, it divides the stream's group.
    pub batch: usize,
    /// Number of the run's image to begin with: 0, or where a run is resumed. If it is within a batch of this size, and there are
    /// several buckets, the first batch is the rest of that one: shorter, perhaps by one image more on some devices than on others.
    pub start: u64,
    /// Which of the devices this is.
    pub shard: Shard,
    /// Threads that prepare images; 0 prepares them in the thread that asks for a batch.
    pub threads: usize,
    /// Images that are prepared, or being prepared, beyond the batch that was last handed out; at least a batch. With the
    /// size of one image this bounds the memory. Images of different buckets have about as many pixels.
    pub ahead: usize,
    /// What is done about an image that cannot be used.
    pub on_fault: OnFault,
    /// A file to which each of those is written, as a [`FaultRow`] a line. A resumed run goes on with it. Each device needs one of its
    /// own.
    pub log: Option<PathBuf>,
}

impl Loading {
    /// From the beginning, on one device, with a thread a processor and four batches ahead. Stops if more than 1 in 100 of
    /// the last 10,000 images cannot be used.
    pub fn new(batch: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let on_fault = OnFault::Skip { at_most: 0.01, window: 10_000 };
        Self { batch, start: 0, shard: Shard::WHOLE, threads, ahead: 4 * batch, on_fault, log: None }
    }
}

/// Some images of the run, next to one another in it (or, on several devices, `of` apart).
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<T> {
    /// Number of the run's image at which the batch of all devices begins: a run resumed there goes on with this batch.
    pub start: u64,
    /// Number in the run of each item.
    pub numbers: Vec<u64>,
    /// What was prepared, in the run's order, of one bucket. Fewer than a batch if some are left out, and in the first batch of a run
    /// that is resumed within one; there may be none.
    pub items: Vec<T>,
    /// What was left out.
    pub faults: Vec<Fault>,
}

/// How long a training loop has waited for images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Batches handed out.
    pub batches: u64,
    /// Those that were not ready when they were asked for.
    pub stalls: u64,
    /// How long was waited for them.
    pub time: Duration,
}

/// Batches of a stream, prepared ahead of the loop that asks for them.
///
/// Batches come in the stream's order and are the same whatever the number of threads. The iterator has no end; after an
/// error it returns `None`. When it is dropped each thread ends the image it is at, and none is left behind.
///
/// # Example
/// ```
/// use canvas_data::{Loader, Loading, Part, Stream};
/// # fn main() -> Result<(), canvas_data::LoadError> {
/// let stream = Stream::new(7, 4, vec![Part::new(vec![(0..100).collect()])]);
/// let prepare = |_number, place: canvas_data::Place| Ok(place.index * 10); // read, decode, crop
/// let mut loader = Loader::new(&stream, Loading::new(4), prepare)?;
/// let first = loader.next().unwrap()?;
/// assert_eq!(first.items[3], stream.at(3).index * 10);
/// let resumed = Loading { start: 4, ..Loading::new(2) }; // and half the batch
/// let second = Loader::new(&stream, resumed, prepare)?.next().unwrap()?;
/// assert_eq!(second.items[..], loader.next().unwrap()?.items[..2]);
/// # Ok(())
/// # }
/// ```
pub struct Loader<T> {
    cursor: Cursor,
    prepare: Arc<Prepare<T>>,
    /// None if images are prepared in the thread that asks.
    workers: Option<Workers<T>>,
    ahead: usize,
    shard: Shard,
    /// Numbers of the images that come next.
    numbers: Box<dyn Iterator<Item = u64> + Send>,
    /// Where the next batch of all devices begins and ends, and the length of those after it.
    start: u64,
    end: u64,
    step: u64,
    slots: VecDeque<Slot<T>>,
    watch: Watch,
    waiting: Waiting,
    ended: bool,
}

/// An image that was given out, and what became of it.
struct Slot<T> {
    job: Job,
    outcome: Option<Outcome<T>>,
}

impl<T: Send + 'static> Loader<T> {
    /// Begins to prepare images of a stream.
    ///
    /// `prepare` is given an image's number in the run, by which its crop and noise are keyed, and where it stands. It
    /// runs on several threads at once.
    ///
    /// # Errors
    /// If the batch does not fit the stream's groups, threads or the file of faults cannot be had, or that file holds something else:
    /// it is then left as it is.
    ///
    /// # Panics
    /// If the batch is 0, the part of images that may be left out is not from 0 to 1, or its window is 0.
    pub fn new(
        stream: &Stream,
        loading: Loading,
        prepare: impl Fn(u64, Place) -> Result<T, Fault> + Send + Sync + 'static,
    ) -> Result<Self, LoadError> {
        let Loading { batch, start, shard, threads, ahead, on_fault, log } = loading;
        assert!(batch > 0, "a batch holds at least one image");
        let (group, devices) = (stream.group(), shard.of());
        if stream.buckets() > 1 && !group.is_multiple_of(batch * devices) {
            return Err(LoadError::Batch { batch, devices, group });
        }
        let log = log.map(|path| FaultLog::open(&path, start)).transpose()?;
        let prepare: Arc<Prepare<T>> = Arc::new(prepare);
        let workers = (threads > 0).then(|| Workers::start(threads, &prepare)).transpose()?;
        let step = (batch * devices) as u64;
        // A whole batch that begins within one would reach into the next group.
        let within = if stream.buckets() > 1 { start % step } else { 0 };
        let mut loader = Self {
            cursor: stream.cursor(),
            prepare,
            workers,
            ahead: ahead.max(batch),
            shard,
            numbers: Box::new(shard.numbers(start)),
            start,
            end: start + step - within,
            step,
            slots: VecDeque::new(),
            watch: Watch::new(on_fault, log),
            waiting: Waiting::default(),
            ended: false,
        };
        loader.give_out();
        Ok(loader)
    }

    /// Gives images out until as many are under way as may be.
    fn give_out(&mut self) {
        while self.slots.len() < self.ahead {
            let Some(number) = self.numbers.next() else { break };
            let job = (number, self.cursor.at(number));
            if let Some(workers) = &self.workers {
                workers.give(job);
            }
            self.slots.push_back(Slot { job, outcome: None });
        }
    }

    /// Puts away what a thread has done.
    fn put_away(&mut self, (number, outcome): (u64, Outcome<T>)) {
        let first = self.slots.front().expect("what is done was given out").job.0;
        self.slots[((number - first) / self.shard.of() as u64) as usize].outcome = Some(outcome);
    }

    /// Images of the next batch that are this device's.
    fn share(&self) -> usize {
        let first = self.start + self.shard.rank() as u64;
        self.end.saturating_sub(first).div_ceil(self.shard.of() as u64) as usize
    }

    /// Waits until the next batch is prepared.
    fn await_batch(&mut self) {
        let asked = Instant::now();
        let mut stalled = false;
        let done: Vec<_> = self.workers.iter().flat_map(Workers::done).collect();
        done.into_iter().for_each(|result| self.put_away(result));
        for place in 0..self.share() {
            while self.slots[place].outcome.is_none() {
                stalled = true;
                let job = self.slots[place].job;
                let prepared = match &self.workers {
                    Some(workers) => workers.wait(),
                    None => (job.0, attempt(&*self.prepare, job)),
                };
                self.put_away(prepared);
            }
        }
        self.waiting.batches += 1;
        self.waiting.stalls += u64::from(stalled);
        self.waiting.time += asked.elapsed();
    }

    fn hand_out(&mut self) -> Result<Batch<T>, LoadError> {
        self.await_batch();
        let mut batch =
            Batch { start: self.start, numbers: Vec::new(), items: Vec::new(), faults: Vec::new() };
        let share = self.share();
        let slots: Vec<_> = self.slots.drain(..share).collect();
        for Slot { job: (number, place), outcome } in slots {
            match outcome.expect("waited for") {
                Ok(Ok(item)) => {
                    self.watch.delivered();
                    batch.numbers.push(number);
                    batch.items.push(item);
                }
                Ok(Err(fault)) => {
                    self.watch.left_out(number, place, &fault)?;
                    batch.faults.push(fault);
                }
                Err(message) => return Err(LoadError::Panicked { number, place, message }),
            }
        }
        self.start = self.end;
        self.end += self.step;
        self.give_out();
        Ok(batch)
    }
}

impl<T> Loader<T> {
    /// What was left out so far.
    pub fn faults(&self) -> &Faults {
        &self.watch.faults
    }

    /// How long the loop has waited for batches so far.
    pub fn waiting(&self) -> Waiting {
        self.waiting
    }
}

impl<T: Send + 'static> Iterator for Loader<T> {
    type Item = Result<Batch<T>, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.hand_out();
        self.ended = batch.is_err();
        if self.ended {
            self.workers = None; // nobody will ask for more
        }
        Some(batch)
    }
}
