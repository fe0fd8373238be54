//! Where a run's images are, and how they are read: a part of its `run.json`.

use anyhow::{Context, Result, bail};
use canvas_data::{Format, Options, Source, TextRule};
use canvas_examples::config::unknown;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where images are and what is read of them.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Captioned images: a folder with texts beside them, WebDataset shards, Parquet files, a Hugging Face data set's folder, or
    /// a pattern as "train-{000..012}.tar"
    #[arg(id = "data", long = "data", value_name = "PATH")]
    pub path: Option<PathBuf>,

    /// Which part of the data set, if it has several: train, say
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,

    /// What to take of a folder that holds several things: folder, shards or table
    #[arg(long, value_name = "NAME")]
    pub format: Option<String>,

    /// Fields or columns of captions, of which one is drawn each time [default: captions, caption, text or TEXT]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub captions: Vec<String>,

    /// Field or column of the image [default: the one there is]
    #[arg(long, value_name = "NAME")]
    pub image: Option<String>,

    /// What a text beside an image is: lines (each a caption), first-line or whole
    #[arg(long, value_name = "NAME", default_value = "lines")]
    pub text: String,

    /// How many times an image may be enlarged; those that would have to be more are dropped
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub enlarge: f64,

    /// Which part of an image may be cropped away; those that would lose more are dropped
    #[arg(long, value_name = "PART", default_value_t = 0.5)]
    pub crop: f64,
}

/// The names of these arguments, which are said of a new run only.
pub const DATA: [&str; 8] = ["data", "split", "format", "captions", "image", "text", "enlarge", "crop"];

const FORMATS: [(&str, Format); 3] =
    [("folder", Format::Folder), ("shards", Format::Shards), ("table", Format::Table)];
const TEXTS: [(&str, TextRule); 3] =
    [("lines", TextRule::Lines), ("first-line", TextRule::FirstLine), ("whole", TextRule::Whole)];

impl Data {
    /// The same, from wherever the program is run again.
    ///
    /// # Errors
    /// If no images are given, or an argument is none.
    pub fn anywhere(mut self) -> Result<Self> {
        let Some(path) = &self.path else { bail!("--data PATH: which images are to be trained on?") };
        self.path = Some(std::path::absolute(path).with_context(|| format!("--data {}", path.display()))?);
        self.options()?;
        if !(self.enlarge.is_finite() && self.enlarge > 0.0) {
            bail!("--enlarge {}: a number above 0 is needed", self.enlarge);
        }
        if !(0.0..=1.0).contains(&self.crop) {
            bail!("--crop {}: a part is from 0 to 1", self.crop);
        }
        Ok(self)
    }

    /// Opens it.
    ///
    /// # Errors
    /// If there is nothing, or nothing of use.
    pub fn open(&self) -> Result<Box<dyn Source>> {
        Ok(canvas_data::open(self.path(), &self.options()?)?)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// How it is read.
    ///
    /// # Errors
    /// Names what exists.
    fn options(&self) -> Result<Options> {
        let format = self.format.as_deref().map(|name| named("--format", name, FORMATS)).transpose()?;
        let text = named("--text", &self.text, TEXTS)?;
        let (split, image, captions) = (self.split.clone(), self.image.clone(), self.captions.clone());
        Ok(Options { format, split, image, captions, text, ..Options::default() })
    }
}

fn named<T: Copy, const N: usize>(flag: &str, name: &str, known: [(&str, T); N]) -> Result<T> {
    let found = known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| unknown(flag, name, &known.map(|(name, _)| name)))
}
