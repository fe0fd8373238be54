//! Copies a source of images into WebDataset shards; a run that was stopped goes on where it was.
//!
//!     cargo run --release --example reshard -- PATH FOLDER [records=10000] [bytes=1073741824] [split=train] ..
//!
//! Images with faults are left out and named on the standard error.

mod arguments;

use anyhow::{Context, Error, Result};
use canvas_data::{ShardError, ShardLimits, ShardWriter, open};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (path, folder) = arguments.next().zip(arguments.next()).context("expected a path and a folder")?;
    let (mut limits, mut rest) = (ShardLimits::default(), Vec::new());
    for argument in arguments {
        match argument.split_once('=') {
            Some(("records", records)) => limits.records = records.parse()?,
            Some(("bytes", bytes)) => limits.bytes = bytes.parse()?,
            _ => rest.push(argument),
        }
    }
    let source = open(path, &arguments::options(rest.into_iter()).map_err(Error::msg)?)?;
    source.faults().iter().for_each(|fault| eprintln!("{fault}"));
    let mut writer = ShardWriter::create(folder, limits)?;
    // The last record written is one of the source: what comes behind it is not written yet.
    let last = writer.last().map(str::to_owned);
    let done = last.map_or(Some(0), |last| {
        (0..source.len()).find(|&index| source.key(index) == last).map(|index| index + 1)
    });
    let done = done.context("the folder holds shards of another source")?;
    for index in done..source.len() {
        match source.read(index) {
            Ok(record) => match writer.write(&record) {
                Err(error @ ShardError::Record { .. }) => eprintln!("{error}"),
                written => written?,
            },
            Err(fault) => eprintln!("{fault}"),
        }
    }
    let stats = writer.finish()?;
    println!("{} records in {} shards", stats.iter().map(|stats| stats.count).sum::<usize>(), stats.len());
    Ok(())
}
