//! What is read of a source, and what is refused.

use std::path::PathBuf;

/// How a source is laid out on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Image files in folders, with texts beside them or in a `metadata.jsonl` or `metadata.csv`: [`Folder`](crate::Folder).
    Folder,
    /// WebDataset's tar files: [`Shards`](crate::Shards).
    Shards,
    /// Parquet files: [`Table`](crate::Table).
    Table,
}

/// What a `NAME.txt` beside an image `NAME.jpg` in a folder holds.
///
/// Captions written in one line are the same by all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextRule {
    /// A caption in each line, of which one is drawn at a time, as OneTrainer reads them, and kohya's scripts with `enable_wildcard`.
    #[default]
    Lines,
    /// A caption in the first line, the others are notes: kohya's scripts without `enable_wildcard`.
    FirstLine,
    /// One caption, however many lines it has.
    Whole,
}

/// Which captions are used: the same for every source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptionRules {
    /// Whether an image without a caption, or with an empty one, is a fault. Training without text wants `false`: an empty caption
    /// then is none. Default: `true`. A [`Survey`](crate::Survey) and a [`Prepare`](crate::Prepare) refuse such images too unless they
    /// are told otherwise: see their `uncaptioned`.
    pub required: bool,
    /// The longest caption, in bytes; one that is longer is a fault, not cut. Default: 65,536.
    pub longest: usize,
}

impl Default for CaptionRules {
    fn default() -> Self {
        Self { required: true, longest: 64 << 10 }
    }
}

/// How sources are read. The defaults need no thought for data that one program wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What to take of a folder that holds files of several formats. Default: what is there, if it is one.
    pub format: Option<Format>,
    /// Which part of a data set to take, `train`, say. Default: all of it, if it has one part.
    pub split: Option<String>,
    /// The field or column of the image. Default: the one there is, by its name or type.
    pub image: Option<String>,
    /// The fields or columns of captions; all texts that an image has in them are its captions. Default: the first that is there of
    /// `captions`, `caption`, `text`, `TEXT`.
    pub captions: Vec<String>,
    /// The field or column of the captions' weights: one number, or a list as long as the captions'. Default: `weights`, if it is there.
    pub weights: Option<String>,
    /// How the text files in a folder are read.
    pub text: TextRule,
    /// The folder to which a table's paths are relative. Default: the table's own.
    pub images: Option<PathBuf>,
    /// Which captions are used.
    pub rules: CaptionRules,
    /// The longest image file that is read, in bytes; a longer one is a fault. Default: 1 GiB.
    pub longest_image: u64,
    /// The longest text or JSON of one image that is read, in bytes; a longer one is a fault. Default: 16 MiB.
    pub longest_sidecar: u64,
    /// How many bytes of a table's decoded row groups are kept for the next reads. Each thread that reads holds one more. Default: 1 GiB.
    pub table_cache: u64,
    /// How many bytes are asked for at once while the headers of a remote shard are read. Default: 1 MiB.
    pub read_ahead: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: None,
            split: None,
            image: None,
            captions: Vec::new(),
            weights: None,
            text: TextRule::default(),
            images: None,
            rules: CaptionRules::default(),
            longest_image: 1 << 30,
            longest_sidecar: 16 << 20,
            table_cache: 1 << 30,
            read_ahead: 1 << 20,
        }
    }
}

/// Names of caption fields when none is given, the fullest first, and of their weights.
pub(crate) const CAPTION_FIELDS: [&str; 5] = ["captions", "caption", "text", "TEXT", WEIGHTS];
const WEIGHTS: &str = "weights";

impl Options {
    /// Names of the fields that may hold captions.
    pub(crate) fn caption_names(&self) -> Vec<&str> {
        match self.captions.is_empty() {
            true => CAPTION_FIELDS[..4].to_vec(),
            false => self.captions.iter().map(String::as_str).collect(),
        }
    }

    /// A hash of what decides which record an image is; which images there are, their keys say.
    pub(super) fn settings(&self) -> String {
        let alike = Self { format: None, split: None, table_cache: 0, read_ahead: 0, ..self.clone() };
        blake3::hash(format!("{alike:?}").as_bytes()).to_hex().to_string()
    }

    /// Name of the field that may hold weights.
    pub(crate) fn weights_name(&self) -> &str {
        self.weights.as_deref().unwrap_or(WEIGHTS)
    }
}
