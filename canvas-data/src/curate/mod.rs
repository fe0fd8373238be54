//! Curation: which images of a source are worth training on, and for each of the others one reason why not.
//!
//! A [`Pass`] judges image by image; one that [chooses](Choose) also compares all of them by what it noted of each. A [`Curation`] runs
//! passes in order over a [`Source`](crate::Source), writes what it found into a folder, run of images by run of images, and goes on
//! there when it is started again. The [`Outcome`] has the verdict of every image, and a [`Report`] whose numbers add up.
//!
//! Cheap passes come first: what the first one drops, no other sees. `docs/curation.md` gives an order, and what each pass costs.
//!
//! # Example
//! A pass of one's own is a name, its settings, and a judgement:
//! ```
//! use canvas_data::curate::{Curation, MinSide, Pass, Subject, Trouble, Verdict};
//! use canvas_data::{Caption, Decode, InMemory, Record};
//! use serde_json::{Value, json};
//!
//! /// Drops images darker than this mean grey, from 0 to 255.
//! struct Light(f64);
//!
//! impl Pass for Light {
//!     fn name(&self) -> &str {
//!         "light"
//!     }
//!
//!     fn settings(&self) -> Value {
//!         json!(self.0)
//!     }
//!
//!     fn judge(&self, subject: &Subject<'_>) -> Result<Verdict, Trouble> {
//!         let grey = image::imageops::grayscale(subject.picture()?);
//!         let mean = grey.iter().map(|&value| f64::from(value)).sum::<f64>() / grey.len() as f64;
//!         let verdict = if mean >= self.0 { Verdict::keep() } else { Verdict::drop("dark", format!("mean {mean}")) };
//!         Ok(verdict.noting(mean))
//!     }
//! }
//!
//! # fn png(side: u32, grey: u8) -> Vec<u8> {
//! #     let mut bytes = std::io::Cursor::new(Vec::new());
//! #     let picture = image::RgbImage::from_pixel(side, side, image::Rgb([grey; 3]));
//! #     picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
//! #     bytes.into_inner()
//! # }
//! # let record = |key: &str, image| Record {
//! #     key: key.into(), image, captions: vec![Caption::new("a square")], fields: Default::default(),
//! # };
//! # let source = InMemory(vec![record("night", png(64, 5)), record("day", png(64, 200)), record("dot", png(1, 200))]);
//! # let folder = tempfile::tempdir().unwrap();
//! let curation = Curation::decoding(Decode::default()).pass(MinSide(32)).pass(Light(20.0));
//! let outcome = curation.run(&source, folder.path())?;
//! assert_eq!(outcome.kept().collect::<Vec<_>>(), [1]);
//! println!("{}", outcome.report());
//! # assert_eq!(outcome.report().images, 3);
//! # Ok::<(), canvas_data::curate::CurationError>(())
//! ```

mod caption;
mod curation;
mod fates;
mod hamming;
mod identical;
mod kmeans;
mod ledger;
mod near;
mod outcome;
mod pass;
mod reading;
mod report;
mod score;
mod semantic;
mod size;
mod subject;

pub use caption::{Characters, Language, Words};
pub use curation::{Curation, Progress};
pub use hamming::HashIndex;
pub use identical::Identical;
pub use kmeans::Clusters;
pub use ledger::{CurationError, Dropped, Judged};
pub use near::{NearDuplicates, PerceptualHash};
pub use outcome::Outcome;
pub use pass::{Choose, Chosen, Noted, Pass, Rejection, Trouble, Verdict};
pub use report::{PassReport, Report};
pub use score::{Alignment, Bound, Field, ImageText, Score, Scored};
pub use semantic::{Embed, SemDeDup, Side};
pub use size::{Decodes, MaxAspect, MaxPixels, MinSide};
pub use subject::Subject;
