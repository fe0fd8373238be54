//! The vocabulary of a run's captions.

use crate::images::{Images, bar};
use anyhow::Result;
use canvas_text::WordTokenizer;
use std::path::Path;

/// How many words a tokenizer knows, and the most tokens of a caption.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Words; those that captions hold less often are not known.
    pub words: usize,
    /// Tokens, the two at the ends included; longer captions are cut.
    pub context: usize,
}

/// The words of the captions of all images that are trained on; a run that has a tokenizer goes on with it.
///
/// # Errors
/// If there is no word, or a file cannot be read or written.
pub fn tokenizer(images: &Images, size: Size, folder: Option<&Path>) -> Result<WordTokenizer> {
    let path = folder.map(|folder| folder.join("tokenizer.json"));
    if let Some(path) = path.as_ref().filter(|path| path.exists()) {
        return Ok(WordTokenizer::load(path)?);
    }
    let trained: Vec<usize> = images.trained().collect();
    eprintln!("reading the captions of {} images", trained.len());
    let bar = bar(trained.len());
    let captions = images.captions(&trained, || bar.inc(1))?.concat();
    bar.finish_and_clear();
    let captions: Vec<String> = captions.into_iter().map(|caption| caption.text).collect();
    let all = WordTokenizer::from_captions(&captions, size.context)?.words().len();
    let tokenizer = WordTokenizer::most_frequent(&captions, size.context, size.words)?;
    let mut longer = 0;
    for caption in &captions {
        longer += usize::from(tokenizer.length(caption)? > size.context);
    }
    eprintln!(
        "{} captions of {all} words, of which {} are known; {longer} captions are longer than {} tokens and cut",
        captions.len(),
        tokenizer.words().len(),
        size.context
    );
    path.map(|path| tokenizer.save(&path)).transpose()?;
    Ok(tokenizer)
}
