//! `QwenImagePipeline`: Qwen 2.5 VL's last states of a prompt in a fixed chat.

use super::text::{LanguageModel, packed, reads};
use super::{Defaults, Folder, Given, Grid, Guidance, Length, Parts, Pipeline, Request, Shape, Sizes};
use crate::generate::args::Args;
use crate::generate::draws::Draws;
use crate::generate::scheduler::Scheduler;
use anyhow::Result;
use burn::prelude::*;
use canvas_core::{Level, Text};
use canvas_dit::{Prompt, QwenImage, QwenImageConfig};
use canvas_sched::Space;
use canvas_text::RowLength;
use canvas_text::templates::{QWEN_IMAGE, QWEN_IMAGE_DROPPED};

/// Tokens of a prompt that are kept where nothing is said, and the most.
const LENGTH: usize = 512;
const LONGEST: usize = 1024;

/// Qwen-Image with Qwen 2.5 VL.
pub struct QwenImagePipeline {
    parts: Parts<QwenImage, LanguageModel>,
}

impl Pipeline for QwenImagePipeline {
    type Network = QwenImage;
    type Text = LanguageModel;
    const TAKES: &'static [&'static str] = &["--negative-prompt", "--max-sequence-length", "--true-cfg"];

    fn open(folder: &mut Folder<'_>) -> Result<Self> {
        let text = folder.language_model(|depth| vec![depth])?;
        let path = folder.component("transformer")?;
        let config = QwenImageConfig::from_diffusers_file(&path.join("config.json"))?;
        reads(&path, text.width(1), config.text)?;
        let network = folder.network(config.init(folder.device), &config.published())?;
        let shape =
            Shape { channels: config.channels, patch: config.patch, width: config.width(), beside: 0 };
        Ok(Self { parts: Parts { network, text, vae: folder.vae()?, shape } })
    }

    fn parts(&self) -> &Parts<QwenImage, LanguageModel> {
        &self.parts
    }

    fn defaults(&self, _args: &Args) -> Defaults {
        Defaults {
            size: [128 * self.parts.vae.factor; 2],
            multiple: self.parts.token_pixels(),
            steps: 50,
            guidance: Guidance::True { told: None, scale: 4.0 },
            length: Some(Length::up_to(LENGTH, LONGEST)),
            strength: None,
            sizes: Sizes::Any,
        }
    }

    fn grid(&self, scheduler: &Scheduler, ask: &Request<'_>) -> Grid {
        scheduler.even(scheduler.mu(self.parts.tokens(ask)))
    }

    fn conditions(&self, ask: &Request<'_>, _draws: &mut Draws) -> Result<Given<Prompt>> {
        let most = ask.length;
        let Given { positive, negative } = ask.both(|prompts| {
            let [before, behind] = QWEN_IMAGE;
            let told: Vec<String> =
                prompts.iter().map(|prompt| format!("{before}{prompt}{behind}")).collect();
            let text = self.parts.text.read(&told, RowLength::AtMost(LONGEST + QWEN_IMAGE_DROPPED))?;
            Ok(ask.cast(packed(&text, QWEN_IMAGE_DROPPED, most)))
        })?;
        Ok(Given { positive: positive.into(), negative: negative.map(Text::into) })
    }

    /// As long as without guidance, token by token.
    fn guided(&self, x: &Tensor<4>, at: &[Level], cond: Tensor<4>, mixed: Tensor<4>) -> Tensor<4> {
        let [cond, mixed] = [cond, mixed].map(|x0| Space::Flow.read(x, x0, at));
        let ([batch, channels, height, width], p) = (mixed.dims(), self.parts.shape.patch);
        let cut = |v: Tensor<4>| v.reshape([batch, channels, height / p, p, width / p, p]);
        let length = |v: Tensor<6>| v.square().sum_dim(1).sum_dim(3).sum_dim(5).sqrt(); // [B, 1, h, 1, w, 1]
        let (cond, mixed) = (cut(cond), cut(mixed));
        let guided = mixed.clone() * (length(cond) / length(mixed));
        Space::Flow.write(x, guided.reshape([batch, channels, height, width]), at)
    }
}
