//! TensorBoard's event files.

use super::proto::{
    self, Data, Dim, Image, Metadata, Plugin, SessionLog, Shape, Status, Strings, Value, What,
};
use prost::Message;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How TensorBoard knows an event file; what follows is the time it was begun.
const PREFIX: &str = "events.out.tfevents.";

/// What is shown at one step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(proto::Event);

impl Event {
    /// Numbers by tag; those with one word before a `/` stand together.
    pub fn scalars<T: Into<String>>(values: impl IntoIterator<Item = (T, f64)>) -> Self {
        let value = |(tag, value): (T, f64)| Value {
            tag: tag.into(),
            data: Some(Data::Scalar(value as f32)),
            metadata: None,
        };
        Self::summary(values.into_iter().map(value).collect())
    }

    /// A picture: the bytes of a PNG file.
    ///
    /// # Panics
    /// If they are none.
    pub fn image(tag: impl Into<String>, png: Vec<u8>) -> Self {
        // Its header: width, height, bits, kind of colour.
        let header = png.get(16..26).filter(|_| png.starts_with(b"\x89PNG\r\n\x1a\n"));
        let header = header.expect("a picture is shown as PNG");
        let side = |at: usize| i32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let colorspace = match header[9] {
            0 => 1,
            4 => 2,
            6 => 4,
            _ => 3,
        };
        let image = Image { height: side(4), width: side(0), colorspace, encoded: png };
        Self::summary(vec![Value { tag: tag.into(), data: Some(Data::Image(image)), metadata: None }])
    }

    /// Words, as Markdown.
    pub fn text(tag: impl Into<String>, markdown: &str) -> Self {
        const STRING: i32 = 7;
        const TENSOR: i32 = 2;
        let shape = Some(Shape { dim: vec![Dim { size: 1 }] });
        let tensor = Strings { dtype: STRING, shape, values: vec![markdown.as_bytes().to_vec()] };
        let metadata = Metadata { plugin: Some(Plugin { name: "text".into() }), data_class: TENSOR };
        let value = Value { tag: tag.into(), data: Some(Data::Tensor(tensor)), metadata: Some(metadata) };
        Self::summary(vec![value])
    }

    /// What a file begins with.
    pub fn version() -> Self {
        Self::of(What::FileVersion("brain.Event:2".into()))
    }

    /// A run goes on: everything with this step or a later one, in earlier files, is void.
    pub fn restart() -> Self {
        Self::of(What::SessionLog(SessionLog { status: Status::Start.into() }))
    }

    /// At a step, and a time in seconds since 1970.
    #[must_use]
    pub fn at(mut self, step: u64, wall_time: f64) -> Self {
        self.0.step = i64::try_from(step).unwrap_or(i64::MAX);
        self.0.wall_time = wall_time;
        self
    }

    /// As a record of an event file: length, its checksum, the message, its checksum.
    pub fn record(&self) -> Vec<u8> {
        let message = self.0.encode_to_vec();
        let length = (message.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.len() + 16);
        record.extend(length);
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&message);
        record.extend(masked_crc(&message).to_le_bytes());
        record
    }

    fn summary(value: Vec<Value>) -> Self {
        Self::of(What::Summary(proto::Summary { value }))
    }

    fn of(what: What) -> Self {
        Self(proto::Event { wall_time: 0.0, step: 0, what: Some(what) })
    }
}

/// CRC-32C, turned and shifted, so that a checksum of data that holds checksums is not a weak one.
///
/// # Reference
/// `masked_crc` of TensorFlow's TFRecord format: `((crc >> 15) | (crc << 17)) + 0xa282ead8`.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Writes an event file into a run's folder: `tensorboard --logdir FOLDER` shows it, also while it grows.
///
/// Each process that works on a run writes a file of its own, which sorts behind the earlier ones, and says first from which
/// step on it goes; TensorBoard then forgets what the process before has written beyond that. So a run that was
/// killed and resumed from a checkpoint shows every step once, and a record that was cut off ends its file.
/// Old files are not touched: a TensorBoard that is running reads them by position.
///
/// # Example
/// ```
/// use canvas_train::seeing::{Event, EventWriter};
///
/// let folder = std::env::temp_dir().join("canvas-events-example");
/// let mut events = EventWriter::resume(&folder, 0)?; // nothing is done yet
/// events.push(16, Event::scalars([("train/loss", 0.5), ("train/rate", 1e-4)]))?;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// A new file of a run of which the steps up to `done` are kept.
    ///
    /// # Errors
    /// Names the file or folder.
    pub fn resume(folder: &Path, done: u64) -> io::Result<Self> {
        fs::create_dir_all(folder).map_err(|error| named(folder, &error))?;
        // Files are read in the order of their names: a clock that stands still or was set back must not turn it round.
        let newest = newest(folder).map_err(|error| named(folder, &error))?;
        let time = newest.map_or(0, |time| time + 1).max(now() as u64);
        let path = folder.join(format!("{PREFIX}{time:010}.canvas.{}", std::process::id()));
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.map_err(|error| named(&path, &error))?;
        let mut writer = Self { path, file };
        writer.push(0, Event::version())?;
        writer.push(done + 1, Event::restart())?;
        Ok(writer)
    }

    /// Adds an event at a step, now.
    ///
    /// # Errors
    /// Names the file.
    pub fn push(&mut self, step: u64, event: Event) -> io::Result<()> {
        let record = event.at(step, now()).record();
        self.file.write_all(&record).map_err(|error| named(&self.path, &error))
    }

    /// Puts everything on the disk: before a checkpoint that says it is there.
    ///
    /// # Errors
    /// Names the file.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|error| named(&self.path, &error))
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The latest time in the name of an event file.
fn newest(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let time = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        newest = newest.max(time);
    }
    Ok(newest)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
