//! What a run takes of memory, said before it takes it.
//!
//! Counted for Burn's CPU backend. On the tests' models (high-water mark beside that of a small run, estimate): Flux of 512x512
//! pixels and 16,896 tokens 30 MiB, 28; T5 with 2000 tokens 168 MiB, 154.

use super::{Encoders, Pipeline, Request, Shape};
use crate::generate::memory;
use anyhow::Result;

/// Numbers that are alive in a block for each number of its tokens: the tokens themselves and normed; queries, keys and values
/// with what they were rotated from, or the inside of a perceptron of four times the width before and after its gate.
const BLOCK: f64 = 10.0;
/// Copies of the latents that a sampler and guidance hold.
const LATENTS: f64 = 8.0;
/// Bytes of a number: everything is counted as f32.
const BYTES: f64 = 4.0;

/// Numbers that so many tokens of this width take in a block at the worst moment, about.
pub fn tokens(count: f64, width: usize) -> f64 {
    BLOCK * count * width as f64
}

/// Before a run: what reading the prompts, the largest step and the largest decoding of one picture take beside the weights.
/// `asked` is the size of the pictures, which are cut out of what is drawn.
///
/// # Errors
/// If the estimate is more than there is: names the argument, what is needed and what is free.
pub fn check<P: Pipeline>(pipeline: &P, ask: &Request<'_>, asked: [usize; 2]) -> Result<()> {
    let args = ask.args;
    let reading = pipeline.parts().text.numbers(ask.batch, ask.length);
    let what = format!("reading prompts of {} tokens", ask.length);
    memory::check(&what, "take a smaller --max-sequence-length", bytes(reading), args)?;
    let decode = if args.picture().is_some() { decoding(pipeline, ask, asked) } else { 0 };
    let [height, width] = asked;
    let what = format!("drawing {} of {height}x{width} pixels", ask.batch);
    let most = bytes(step(pipeline, ask)).max(decode);
    memory::check(&what, "take a smaller --height and --width, or fewer prompts", most, args)
}

/// Bytes of so many numbers; as many as there can be, if they are more.
fn bytes(numbers: f64) -> u64 {
    (BYTES * numbers) as u64
}

/// Numbers of a step of the sampler.
fn step<P: Pipeline>(pipeline: &P, ask: &Request<'_>) -> f64 {
    let parts = pipeline.parts();
    let Shape { patch, width, beside, .. } = parts.shape;
    let [channels, rows, columns] = parts.latent(ask.size).map(|side| side as f64);
    let picture = rows * columns / (patch * patch) as f64;
    let all = picture + (ask.length + beside) as f64;
    ask.batch as f64 * (tokens(all, width) + LATENTS * channels * rows * columns)
}

/// Bytes of decoding: one picture's activations, where they are known, and all pictures, which may be scaled before they are cut.
fn decoding<P: Pipeline>(pipeline: &P, ask: &Request<'_>, asked: [usize; 2]) -> u64 {
    let one = pipeline.parts().vae.config.as_ref().map_or(0, |config| {
        // Flux.2's latents are folded, its network's are not.
        let [rows, columns] = ask.size.map(|side| side / config.downsampling());
        config.estimate_decode_memory([1, rows, columns], BYTES as usize, ask.device).activations
    });
    let ([own_height, own_width], [height, width]) =
        (ask.size.map(|side| side as f64), asked.map(|side| side as f64));
    let scale = (height / own_height).max(width / own_width).max(1.0);
    one + bytes(3.0 * ask.batch as f64 * own_height * own_width * scale * scale)
}
