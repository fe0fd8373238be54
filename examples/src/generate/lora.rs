//! LoRAs and textual inversions, merged into a model's weights.

use super::args::Args;
use super::model::Model;
use super::text::Reader;
use anyhow::{Context, Result};
use canvas_core::weights::{Lora, Merging, Part, Rules};
use canvas_text::TextualInversion;
use std::path::Path;

/// Puts everything on that `--lora` and `--embedding` name.
///
/// # Errors
/// If a file cannot be read, or a part of it fits nothing.
pub fn put_on(model: Model, args: &Args) -> Result<Model> {
    embeddings(loras(model, args)?, args)
}

fn loras(mut model: Model, args: &Args) -> Result<Model> {
    if args.lora.is_empty() {
        return Ok(model);
    }
    let files: Vec<Lora> = args.lora.iter().map(|lora| Lora::open(&lora.path)).collect::<Result<_, _>>()?;
    let weighed: Vec<(&Lora, f64)> = files.iter().zip(args.lora.iter().map(|lora| lora.weight)).collect();
    let mut merging = Merging::new(&weighed);
    // kohya's files for SDXL name blocks as the original code does.
    let names = [model.config.published(), model.config.original()];
    model.unet = merging.merge(model.unet, Part::Unet, &names.each_ref()).context("--lora, the UNet")?;
    let mut readers = Vec::new();
    for (Reader { tokenizer, encoder }, name) in model.readers.into_iter().zip(&model.reader_names) {
        let part = if *name == "text_encoder" { Part::TextEncoder } else { Part::TextEncoder2 };
        let names = Rules::new(); // transformers' are ours
        let encoder =
            merging.merge(encoder, part, &[&names]).with_context(|| format!("--lora, the {name}"))?;
        readers.push(Reader { tokenizer, encoder });
    }
    model.readers = readers;
    let reports = merging.finish().context("--lora")?;
    let named = args.lora.iter().map(|lora| lora.path.display().to_string());
    model.reports.extend(named.zip(reports));
    Ok(model)
}

fn embeddings(mut model: Model, args: &Args) -> Result<Model> {
    for given in &args.embedding {
        let (path, word) = match given.rsplit_once(':') {
            Some((path, word)) if !Path::new(given).exists() => (path, Some(word)),
            _ => (given.as_str(), None),
        };
        let inversion = TextualInversion::open(path.as_ref()).context("--embedding")?;
        let inversion = match word {
            Some(word) => inversion.with_tokens(&[word]),
            None => inversion,
        };
        let mut readers = Vec::new();
        for Reader { tokenizer, encoder } in model.readers {
            let (tokenizer, encoder) = inversion.add(tokenizer, encoder).context("--embedding")?;
            readers.push(Reader { tokenizer, encoder });
        }
        model.readers = readers;
    }
    Ok(model)
}
