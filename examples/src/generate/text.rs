//! Prompts to conditions, as the pipelines of Stable Diffusion and SDXL encode them.

use super::args::Args;
use super::model::{Kind, Model};
use anyhow::Result;
use burn::prelude::*;
use canvas_core::Text;
use canvas_text::{ClipLayer, ClipText, ClipTokenizer, Emphasis, LongPrompt};

/// A tokenizer with its encoder.
pub struct Reader {
    /// Makes the ids.
    pub tokenizer: ClipTokenizer,
    /// Reads them.
    pub encoder: ClipText,
}

/// What is drawn, and what is not: one row a prompt. `negative` is `None` where guidance is off.
pub struct Prompts {
    /// The prompts.
    pub positive: Text,
    /// The negative prompts.
    pub negative: Option<Text>,
}

/// Encodes all prompts.
///
/// A `clip_skip` is for the prompts only: negative prompts are always read from the usual layer. SDXL's missing negative
/// prompt is zeros, if the model says so; an empty one is encoded.
///
/// # Errors
/// If a tokenizer fails, or a layer is asked for that there is not.
pub fn encode(model: &Model, args: &Args, guided: bool) -> Result<Prompts> {
    let batch = args.prompt.len();
    let (first, second) = (spread(&args.prompt, &[], batch), spread(&args.prompt_2, &args.prompt, batch));
    let none = [String::new()];
    let given = if args.negative_prompt.is_empty() { &none[..] } else { &args.negative_prompt };
    let negatives = (spread(given, &[], batch), spread(&args.negative_prompt_2, given, batch));
    let zeros = guided && model.zero_negative && args.negative_prompt.is_empty();
    if zeros && !args.negative_prompt_2.is_empty() {
        eprintln!(
            "warning: --negative-prompt-2 without --negative-prompt does nothing: this model takes zeros then"
        );
    }
    let skip = args.clip_skip.unwrap_or(0);
    let layers = match model.kind {
        Kind::Sd => (ClipLayer::sd(skip), ClipLayer::sd(0)),
        Kind::Sdxl => (ClipLayer::sdxl(skip), ClipLayer::sdxl(0)),
    };
    let (mut positive, mut negative) = (Vec::new(), Vec::new());
    for (number, reader) in model.readers.iter().enumerate() {
        // SDXL's refiner has the second encoder only, and reads the first prompt with it.
        let (prompts, others) = if number == 0 { (&first, &negatives.0) } else { (&second, &negatives.1) };
        let both = read(reader, &[prompts.as_slice(), others].concat(), args, layers)?;
        positive.push(both.0);
        negative.push(both.1);
    }
    let (positive, negative) = (joined(positive), joined(negative));
    let zero = |text: Text| Text {
        tokens: text.tokens.zeros_like(),
        pooled: text.pooled.zeros_like(),
        mask: text.mask,
    };
    let negative = if zeros { zero(negative) } else { negative };
    Ok(Prompts { positive, negative: guided.then_some(negative) })
}

/// One text for each image: as given, one for all, or those of another argument.
fn spread(given: &[String], otherwise: &[String], batch: usize) -> Vec<String> {
    let given = if given.is_empty() { otherwise } else { given };
    if given.len() == 1 { vec![given[0].clone(); batch] } else { given.to_vec() }
}

/// The first half of the prompts at one layer, the second at another: together, so that both have as many windows.
fn read(
    reader: &Reader,
    prompts: &[String],
    args: &Args,
    (layer, other): (ClipLayer, ClipLayer),
) -> Result<(Text, Text)> {
    let long = if args.long_prompt == "chunk" { LongPrompt::Chunk } else { LongPrompt::Truncate };
    let tokens = match args.weighted {
        true => reader.tokenizer.tokenize_weighted(prompts, long)?,
        false => reader.tokenizer.tokenize(prompts, long)?,
    };
    let mut warnings: Vec<String> = tokens.warnings.iter().map(ToString::to_string).collect();
    warnings.dedup(); // one negative prompt for many prompts
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    let half = prompts.len() / 2;
    let encode = |layer: ClipLayer, from: usize| -> Result<Text> {
        let encoder = reader.encoder.clone().with_layer(layer).map_err(anyhow::Error::from)?;
        let text = tokens.rows(from..from + half).encode(&encoder, Emphasis::RestoreMean);
        Ok(text)
    };
    Ok((encode(layer, 0)?, encode(other, half)?))
}

/// The tokens of several encoders side by side; the prompt's vector is the last one's.
fn joined(mut texts: Vec<Text>) -> Text {
    let last = texts.pop().expect("at least one text encoder");
    texts.push(last.clone());
    let tokens = Tensor::cat(texts.into_iter().map(|text| text.tokens).collect(), 2);
    Text { tokens, ..last }
}
