//! What is asked of a pipeline: what it has no use for refused, and its defaults where nothing is said.

use super::{Defaults, Guidance, Pipeline, Request, Sizes, bins};
use crate::generate::args::{Args, numbers};
use anyhow::{Result, bail};
use burn::prelude::*;

/// Among the arguments that a pipeline takes: several pictures.
pub const MORE_IMAGES: &str = "--image a second time";
/// The scores for and against, where nothing is said.
const AESTHETIC: [f64; 2] = [6.0, 2.5];

/// An error for arguments that are for another kind of model, or that this pipeline has no use for.
///
/// # Errors
/// Names the argument and the pipeline.
pub fn refuse<P: Pipeline>(args: &Args, class: &str) -> Result<()> {
    let given = [
        ("--controlnet", !args.controlnet.is_empty()),
        ("--t2i-adapter", !args.t2i_adapter.is_empty()),
        ("--ip-adapter", !args.ip_adapter.is_empty()),
        ("--lora", !args.lora.is_empty()),
        ("--embedding", !args.embedding.is_empty()),
        ("--weighted", args.weighted),
        ("--long-prompt chunk", args.long_prompt == "chunk"),
        ("--image-encoder", args.image_encoder.is_some()),
        ("--feature-extractor", args.feature_extractor.is_some()),
        ("--config", args.config.is_some()),
        ("--prediction-type", args.prediction_type.is_some()),
        ("--guidance", args.guidance.is_some()),
        ("--guidance-rescale", args.guidance_rescale != 0.0),
        ("--aesthetic-score", args.aesthetic_score != AESTHETIC[0]),
        ("--negative-aesthetic-score", args.negative_aesthetic_score != AESTHETIC[1]),
        ("--original-size", args.original_size.is_some()),
        ("--target-size", args.target_size.is_some()),
        ("--crop", args.crop.is_some()),
        ("--negative-original-size", args.negative_original_size.is_some()),
        ("--negative-target-size", args.negative_target_size.is_some()),
        ("--negative-crop", args.negative_crop.is_some()),
        ("--prompt-2", !args.prompt_2.is_empty()),
        ("--prompt-3", !args.prompt_3.is_empty()),
        ("--negative-prompt", !args.negative_prompt.is_empty()),
        ("--negative-prompt-2", !args.negative_prompt_2.is_empty()),
        ("--negative-prompt-3", !args.negative_prompt_3.is_empty()),
        ("--max-sequence-length", args.max_sequence_length.is_some()),
        ("--clip-skip", args.clip_skip.is_some()),
        ("--instruction", args.instruction.is_some()),
        ("--true-cfg", args.true_cfg.is_some()),
        ("--exact-size", args.exact_size),
        ("--image", !args.image.is_empty()),
        (MORE_IMAGES, args.image.len() > 1),
        ("--mask", args.mask.is_some()),
        ("--strength", args.strength.is_some()),
        ("--redux", args.redux.is_some()),
    ];
    if let Some((flag, _)) = given.iter().find(|(flag, given)| *given && !P::TAKES.contains(flag)) {
        bail!("{flag} does nothing with {class}: leave it out");
    }
    Ok(())
}

/// The request, and the size of its pictures: what is drawn may be another, of which they are cut out.
///
/// # Errors
/// Names the argument and what it may be.
pub fn fill<'a>(
    args: &'a Args,
    defaults: &Defaults,
    device: &'a Device,
) -> Result<(Request<'a>, [usize; 2])> {
    let (asked, size) = size(args, defaults)?;
    let (length, (guidance, told)) = (length(args, defaults)?, guidance(args, defaults));
    // Redux may stand for the prompt.
    let batch = if args.classes.is_empty() { args.prompt.len().max(1) } else { args.classes.len() };
    let (steps, dtype) = (args.steps.unwrap_or(defaults.steps), numbers(&args.dtype));
    Ok((Request { args, device, batch, size, length, steps, guidance, told, dtype }, asked))
}

/// Tokens of a prompt.
fn length(args: &Args, defaults: &Defaults) -> Result<usize> {
    let Some(length) = defaults.length else { return Ok(0) };
    let asked = args.max_sequence_length.unwrap_or(length.own);
    match length.most {
        Some(most) if asked > most => {
            bail!("--max-sequence-length {asked}: this model reads at most {most} tokens")
        }
        _ => Ok(asked),
    }
}

/// What the picture is to be and what is drawn, height and width in pixels: another size where the model has bins.
fn size(args: &Args, defaults: &Defaults) -> Result<([usize; 2], [usize; 2])> {
    let asked = [args.height.unwrap_or(defaults.size[0]), args.width.unwrap_or(defaults.size[1])];
    let multiple = defaults.multiple;
    let drawn = match defaults.sizes {
        Sizes::Bins(bins) if !args.exact_size => bins::nearest(bins, asked),
        Sizes::Area(pixels) => bins::of_area(pixels, asked, multiple),
        _ => asked,
    };
    if matches!(defaults.sizes, Sizes::One) && drawn != defaults.size {
        let [height, width] = defaults.size;
        bail!("--height {}, --width {}: this model draws {height}x{width} pixels only", drawn[0], drawn[1]);
    }
    if drawn.contains(&0) {
        bail!("--height {}, --width {}: of these proportions a side would have no pixel", asked[0], asked[1]);
    }
    for (name, side) in [("--height", drawn[0]), ("--width", drawn[1])] {
        if let Sizes::UpTo(most) = defaults.sizes
            && side > most
        {
            bail!("{name} {side}: this model's positions end at {most} pixels");
        }
        if !side.is_multiple_of(multiple) {
            let (below, above) = (side / multiple * multiple, (side / multiple + 1) * multiple);
            let nearest = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
            bail!("{name} {side}: this model draws sides that are multiples of {multiple}: {nearest}");
        }
    }
    let cut = matches!(defaults.sizes, Sizes::Bins(_));
    Ok((if cut { asked } else { drawn }, drawn))
}

/// The scale of classifier-free guidance where it is on, and what the network is told.
fn guidance(args: &Args, defaults: &Defaults) -> (Option<f64>, Option<f64>) {
    if args.guidance.is_some() && !defaults.guidance.is_asked() {
        eprintln!("warning: --guidance does nothing: this model was distilled to draw without");
    }
    match defaults.guidance {
        Guidance::None => (None, None),
        Guidance::Told(told) => (None, Some(args.guidance.unwrap_or(told))),
        Guidance::Free { scale, off } => {
            let scale = args.guidance.unwrap_or(scale);
            // Where 0 is off, 1 is what others call 2.
            ((scale > off).then_some(scale + 1.0 - off), None)
        }
        Guidance::True { told, scale } => {
            let scale = args.true_cfg.unwrap_or(scale);
            let on = scale > 1.0 && !args.negative_prompt.is_empty();
            if args.true_cfg.is_some_and(|scale| scale > 1.0) && !on {
                eprintln!("warning: --true-cfg does nothing without --negative-prompt");
            }
            if scale <= 1.0 && !args.negative_prompt.is_empty() {
                eprintln!("warning: --negative-prompt does nothing without a --true-cfg above 1");
            }
            (on.then_some(scale), told.map(|told| args.guidance.unwrap_or(told)))
        }
    }
}
