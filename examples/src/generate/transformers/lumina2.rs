//! `Lumina2Pipeline`: Gemma 2's penultimate states, behind a system prompt.

use super::text::{LanguageModel, check_places, reads};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::scheduler::Scheduler;
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Level, Text};
use canvas_dit::{Lumina2, Lumina2Config};
use canvas_sched::Space;
use canvas_text::templates::LUMINA2_SYSTEM;
use canvas_text::{RowLength, Side};

/// Tokens of a prompt where nothing is said.
const LENGTH: usize = 256;
/// Text's positions at least: one for a word, one for the image behind it.
const LEAST: usize = 2;
/// What the pipeline takes for the autoencoder's factor.
const FACTOR: usize = 8;

/// Lumina 2 with Gemma 2.
pub struct Lumina2Pipeline {
    parts: Parts<Lumina2, LanguageModel>,
    config: Lumina2Config,
    sample: [usize; 2],
}

impl Pipeline for Lumina2Pipeline {
    type Network = Lumina2;
    type Text = LanguageModel;
    const TAKES: &'static [&'static str] = &["--guidance", "--negative-prompt", "--max-sequence-length"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let mut text = folder.language_model(|depth| vec![depth - 1])?;
        text.tokenizer = text.tokenizer.with_padding_side(Side::Right);
        let path = folder.component("transformer")?;
        let config = Lumina2Config::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(1), config.text)?;
        check_places(&path, config.places, LEAST)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let sample = folder.sample("transformer")?;
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape }, config, sample })
    }

    fn parts(&self) -> &Parts<Lumina2, LanguageModel> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: self.sample.map(|side| side * FACTOR),
            multiple: lcm(2 * FACTOR, self.parts.token_pixels()),
            steps: 30,
            guidance: Guidance::Free { scale: 4.0, off: 1.0 },
            length: Some(Length::up_to(LENGTH, self.config.places[0] - 1)),
            strength: None,
            sizes: Sizes::UpTo(self.config.places[1].min(self.config.places[2]) * self.parts.token_pixels()),
        }
    }

    /// diffusers gives the shift's formula the number of channels, where it asks for that of tokens.
    fn grid(&self, scheduler: &Scheduler, _ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(self.parts.vae.channels))
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Text>> {
        let length = RowLength::Exactly(ask.length);
        let read =
            |prompts: &[String]| -> Result<Text> { Ok(ask.cast(self.parts.text.read(prompts, length)?)) };
        let told: Vec<String> =
            ask.prompts().iter().map(|prompt| format!("{LUMINA2_SYSTEM}{prompt}")).collect();
        let positive = read(&told)?;
        // The system says nothing of what is not to be drawn.
        let negative = ask.guidance.map(|_| read(&ask.negatives())).transpose()?;
        Ok(Given { positive, negative })
    }

    /// As long as without guidance, row by row of the latents: `cfg_normalization`.
    fn guided(&self, x: &Tensor<4>, at: &[Level], cond: Tensor<4>, mixed: Tensor<4>) -> Tensor<4> {
        let [cond, mixed] = [cond, mixed].map(|x0| Space::Flow.read(x, x0, at));
        let length = |v: &Tensor<4>| v.clone().square().sum_dim(3).sqrt();
        let factor = length(&cond) / length(&mixed);
        Space::Flow.write(x, mixed * factor, at)
    }
}

/// The least common multiple.
fn lcm(a: usize, b: usize) -> usize {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    a / divisor * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_divide_the_least_common_multiple() {
        assert_eq!([lcm(16, 16), lcm(16, 4), lcm(16, 24), lcm(16, 6)], [16, 16, 48, 48]);
    }
}
