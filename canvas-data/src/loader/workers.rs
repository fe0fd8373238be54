//! Threads that prepare images.

use super::LoadError;
use crate::{Fault, Place, panic_text};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// What is done with each image: number in the run and place in the stream to what the loop trains on.
pub(super) type Prepare<T> = dyn Fn(u64, Place) -> Result<T, Fault> + Send + Sync;

/// An image to prepare: its number in the run, and where it stands.
pub(super) type Job = (u64, Place);

/// What became of an image: prepared or not, or the text of a panic.
pub(super) type Outcome<T> = Result<Result<T, Fault>, String>;

/// Prepares one image; a panic becomes its text.
pub(super) fn attempt<T>(prepare: &Prepare<T>, (number, place): Job) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(|| prepare(number, place))).map_err(|panic| panic_text(&*panic).to_owned())
}

/// Threads, what they are to do, and what they have done.
///
/// Neither channel has a limit, so no thread ever waits to hand something over: whoever gives out the work bounds it.
pub(super) struct Workers<T> {
    jobs: Option<Sender<Job>>,
    done: Receiver<(u64, Outcome<T>)>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Workers<T> {
    pub(super) fn start(count: usize, prepare: &Arc<Prepare<T>>) -> Result<Self, LoadError> {
        let (jobs, todo) = unbounded::<Job>();
        let (results, done) = unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let mut workers = Self { jobs: Some(jobs), done, stopping, threads: Vec::new() };
        for index in 0..count {
            let (todo, results, prepare) = (todo.clone(), results.clone(), prepare.clone());
            let stopping = workers.stopping.clone();
            let work = move || {
                for job in todo {
                    // Its loader is gone if nobody is there to take it.
                    if stopping.load(Ordering::Relaxed)
                        || results.send((job.0, attempt(&*prepare, job))).is_err()
                    {
                        break;
                    }
                }
            };
            let thread =
                Builder::new().name(format!("loader-{index}")).spawn(work).map_err(LoadError::Threads)?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    pub(super) fn give(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("open until it is dropped");
        jobs.send(job).expect("threads outlive their loader");
    }

    /// What is done already, without waiting.
    pub(super) fn done(&self) -> impl Iterator<Item = (u64, Outcome<T>)> {
        self.done.try_iter()
    }

    /// The next to be done; for an image that has been given.
    pub(super) fn wait(&self) -> (u64, Outcome<T>) {
        self.done.recv().expect("threads outlive their loader")
    }
}

impl<T> Drop for Workers<T> {
    /// Each thread ends the image it is at, takes no other, and is waited for.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}
