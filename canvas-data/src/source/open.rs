//! Which source a path is.

use super::folder::{Folder, extension, stem};
use super::options::{Format, Options};
use super::shards::Shards;
use super::survey::Survey;
use super::table::Table;
use super::{OpenError, Source, patterns};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Opens what is at a path: a folder of images, a tar or Parquet file, a folder of those, a data set as Hugging Face lays it out, or
/// the files that a pattern names, `train-{000..012}.tar`.
///
/// ```
/// use canvas_data::{Caption, Options, Record, ShardLimits, ShardWriter, Source, open};
/// let folder = tempfile::tempdir()?;
/// let image = vec![0xff, 0xd8, 0xff]; // as a JPEG file begins; more is not asked of it here
/// let captions = vec![Caption::new("a pear")];
/// let record = Record { key: "a".into(), image, captions, fields: Default::default() };
/// let mut writer = ShardWriter::create(folder.path(), ShardLimits::default())?;
/// writer.write(&record)?;
/// writer.finish()?;
/// let source = open(folder.path(), &Options::default())?;
/// assert_eq!(source.key(0), "000000.tar:0000000000");
/// assert_eq!(source.read(0)?.captions, record.captions);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If there is nothing, nothing of use, something that is not read, or more than one thing: names what there is, and the option that
/// decides.
pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Box<dyn Source>, OpenError> {
    let path = path.as_ref();
    if path.is_dir() {
        return folder(path, options);
    }
    let files = patterns::files(path)?;
    let formats: Result<Vec<_>, _> = files.iter().map(|file| format(file)).collect();
    let formats = formats?;
    match formats.first() {
        Some(format) if formats.iter().all(|other| other == format) => match format {
            Format::Table => Ok(Box::new(Table::files(files, options)?)),
            _ => Ok(Box::new(Shards::files(files, options)?)),
        },
        _ => Err(OpenError::Ambiguous {
            path: path.to_owned(),
            found: "names of tar and of Parquet files".into(),
            decide: "a pattern must name files of one format".into(),
        }),
    }
}

/// The format of a file, by its name.
fn format(path: &Path) -> Result<Format, OpenError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let unsupported = |why: &str| Err(OpenError::Unsupported { path: PathBuf::from(path), why: why.into() });
    match &*extension(&name) {
        "tar" => Ok(Format::Shards),
        "parquet" => Ok(Format::Table),
        "tgz" => unsupported("a compressed tar file: unpack it (gzip -d), parts of it cannot be read"),
        "gz" | "bz2" | "xz" | "zst" if name.contains(".tar.") => {
            unsupported("a compressed tar file: unpack it, parts of it cannot be read")
        }
        "arrow" => {
            unsupported("a file of Arrow, the cache of Hugging Face's `datasets`: write it by `to_parquet`")
        }
        "zip" => unsupported("a zip file: unpack it, and open the folder"),
        "jsonl" | "csv" | "txt" | "json" => unsupported("a text: open the folder that it is in"),
        _ => unsupported("neither a folder nor a .tar or .parquet file"),
    }
}

fn folder(path: &Path, options: &Options) -> Result<Box<dyn Source>, OpenError> {
    let survey = Survey::of(path)?;
    let format = match options.format {
        Some(format) => format,
        None => chosen(&survey)?,
    };
    Ok(match format {
        Format::Folder => Box::new(Folder::of(survey, options)?),
        Format::Shards => Box::new(Shards::of(survey, options)?),
        Format::Table => Box::new(Table::of(survey, options)?),
    })
}

/// The one format of what is there.
fn chosen(survey: &Survey) -> Result<Format, OpenError> {
    let stems =
        |names: &[String]| -> BTreeSet<String> { names.iter().map(|name| stem(name).to_owned()).collect() };
    let (tars, tables) = (stems(&survey.tars), stems(&survey.tables));
    // img2dataset writes what it knows of a shard's images beside it: NAME.parquet beside NAME.tar, or beside a folder NAME.
    let beside_images = |table: &String| {
        let within = format!("{table}/");
        let place = survey.images.partition_point(|image| *image < within);
        survey.images.get(place).is_some_and(|image| image.starts_with(&within))
    };
    let notes = !tables.is_empty() && (tables.is_subset(&tars) || tables.iter().all(beside_images));
    // Hugging Face's third way to write rows about the images of a folder.
    let about = !tables.is_empty() && tables.iter().all(|name| name.rsplit('/').next() == Some("metadata"));
    let (images, tars) = (!survey.images.is_empty(), !tars.is_empty());
    match (images, tars, !tables.is_empty() && !notes) {
        (true, false, false) => Ok(Format::Folder),
        (false, true, false) => Ok(Format::Shards),
        (false, false, true) => Ok(Format::Table),
        (true, false, true) if about => Ok(Format::Table),
        (false, false, false) => Err(OpenError::Empty { path: survey.root.clone(), found: survey.summary() }),
        _ => Err(OpenError::Ambiguous {
            path: survey.root.clone(),
            found: survey.summary(),
            decide: "the option `format` takes one".into(),
        }),
    }
}
