//! One look at each image of a source, before training.

mod progress;

use crate::manifest::{Fate, Manifest, ManifestError, Row};
use crate::{Buckets, Decode, Fault, Record, Source, reason};
use progress::{Head, Progress};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Looks at each image of a source once: which bucket it gets, or why it gets none.
///
/// # Example
/// ```
/// use canvas_data::{Buckets, Caption, InMemory, Record, Survey, reason};
/// use image::{ImageFormat, RgbImage};
///
/// let record = |key: &str, image: &[u8]| Record {
///     key: key.into(),
///     image: image.into(),
///     captions: vec![Caption::new("a test")],
///     fields: Default::default(),
/// };
/// let mut file = std::io::Cursor::new(Vec::new());
/// RgbImage::new(90, 60).write_to(&mut file, ImageFormat::Png)?;
/// let whole = file.into_inner();
/// let source = InMemory(vec![record("a", &whole), record("b", &whole[..60]), record("c", &whole)]);
///
/// let survey = Survey::new(Buckets::list([[48, 32], [32, 48]])?);
/// let manifest = survey.run(&source, None, &mut |_| ())?.manifest;
/// assert_eq!(manifest.kept(), [vec![], vec![0, 2]]); // by bucket, sorted by width
/// assert_eq!(manifest.totals().dropped[reason::TRUNCATED], 1);
/// println!("{manifest}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// How files are decoded.
    pub decode: Decode,
    /// The sizes they are trained in.
    pub buckets: Buckets,
    /// Whether each image is decoded, which finds damaged pixels, rather than its header and outline read, which takes a hundredth of the
    /// time; by default the latter.
    pub whole: bool,
    /// Whether images without a caption are kept; by default they are dropped for [`reason::NO_CAPTION`]. A source must give them, too:
    /// [`CaptionRules::required`](crate::CaptionRules::required) is then `false`.
    pub uncaptioned: bool,
    /// Threads; the machine's by default. The result does not depend on them.
    pub threads: NonZeroUsize,
}

/// How a survey began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// At the first image: there was no progress.
    Afresh,
    /// Where it was stopped: as many images had been looked at.
    Resumed(usize),
    /// At the first image, although there was progress: it was of other settings or of another source.
    Anew {
        /// The hash of the settings and keys in the file.
        found: String,
        /// The hash of this survey's.
        expected: String,
        /// Where that file is now. A survey of its settings takes it back.
        kept: PathBuf,
    },
}

/// A finished survey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// What became of each image.
    pub manifest: Manifest,
    /// How it began.
    pub begun: Begun,
}

impl Survey {
    /// By headers, on all threads, captions required.
    pub fn new(buckets: Buckets) -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { decode: Decode::default(), buckets, whole: false, uncaptioned: false, threads }
    }

    /// Looks at each image, and tells `report` how many have been.
    ///
    /// With a file for its `progress` (JSON lines), it can be killed at any moment, and goes on from there when it is run again; when
    /// it has been through, it only reads the file, and looks again at images that could not be read ([`Fault::may_pass`]). Whether the
    /// file is of this source and these settings is seen by a hash of the keys, their number and the settings of both; an image whose
    /// bytes or captions changed under its key is not noticed.
    ///
    /// A file of other settings or of another source is put aside as `PROGRESS.HASH.old`, with the first eight digits of its hash, and
    /// taken back by a survey like its own: a source of which a part was missing for once costs nothing but that run.
    ///
    /// # Errors
    /// If the file cannot be read or written (a full disk: what was written stays good), or is not a survey's progress; that is then
    /// left as it is.
    pub fn run(
        &self,
        source: &dyn Source,
        progress: Option<&Path>,
        report: &mut dyn FnMut(usize),
    ) -> Result<Surveyed, ManifestError> {
        let settings = self.settings(source);
        let head = Head::new(settings.clone(), source.len());
        let mut progress = Progress::open(progress, &head, source)?;
        let todo: Vec<usize> = (0..source.len()).filter(|&index| progress.rows[index].is_none()).collect();
        let mut done = source.len() - todo.len();
        report(done);
        self.look_at(source, &todo, &mut |index, row| {
            progress.push(index, row)?;
            done += 1;
            report(done);
            Ok(())
        })?;
        let Progress { rows, begun, .. } = progress;
        let rows = rows.into_iter().map(|row| row.expect("each image was looked at")).collect();
        let manifest = Manifest::new(settings, self.buckets.sizes(), rows, source.faults());
        Ok(Surveyed { manifest, begun })
    }

    /// Looks at images on the survey's threads; `done` gets them in any order.
    fn look_at(
        &self,
        source: &dyn Source,
        todo: &[usize],
        done: &mut dyn FnMut(usize, Row) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        let next = AtomicUsize::new(0);
        let (send, rows) = crossbeam_channel::bounded(4 * self.threads.get());
        thread::scope(|scope| {
            for _ in 0..self.threads.get().min(todo.len()) {
                let (send, next) = (send.clone(), &next);
                scope.spawn(move || {
                    while let Some(&index) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if send.send((index, self.look(source, index))).is_err() {
                            break; // the file cannot be written
                        }
                    }
                });
            }
            drop(send);
            rows.into_iter().try_for_each(|(index, row)| done(index, row))
        })
    }

    fn look(&self, source: &dyn Source, index: usize) -> Row {
        let assignment = source.read(index).and_then(|record| {
            let size = self.size(&record)?;
            self.buckets.assign(&record.key, size)
        });
        let fate = match assignment {
            Ok(assignment) => Fate::Kept(assignment),
            Err(Fault { reason, detail, .. }) => Fate::Dropped { reason: reason.into_owned(), detail },
        };
        Row { key: source.key(index), fate }
    }

    fn size(&self, record: &Record) -> Result<[u32; 2], Fault> {
        if record.captions.is_empty() && !self.uncaptioned {
            return Err(Fault::new(&record.key, reason::NO_CAPTION, "0 captions"));
        }
        if self.whole {
            let decoded = self.decode.picture(&record.key, &record.image)?;
            Ok(decoded.rgb.dimensions().into())
        } else {
            self.decode.size(&record.key, &record.image)
        }
    }

    /// A hash of everything that decides what becomes of an image, but for the images' own bytes.
    fn settings(&self, source: &dyn Source) -> String {
        let own = (&self.decode, &self.buckets, self.whole, self.uncaptioned);
        let settings = (own, source.settings(), source.len());
        let mut hash = blake3::Hasher::new();
        hash.update(&serde_json::to_vec(&settings).expect("plain data"));
        for index in 0..source.len() {
            let key = source.key(index);
            hash.update(&(key.len() as u64).to_le_bytes());
            hash.update(key.as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }
}
