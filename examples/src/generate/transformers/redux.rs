//! Flux Redux: pictures as words behind the prompt's.

use super::{Folder, Request};
use crate::generate::args::Scales;
use crate::generate::model::json;
use crate::generate::picture;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::Text;
use canvas_core::weights::Source;
use canvas_dit::{Redux, ReduxConfig};
use canvas_text::{SiglipImageProcessor, SiglipVision, SiglipVisionConfig};
use std::path::Path;

/// Tokens of a prompt that is left out.
const LENGTH: usize = 512;

/// What makes words of a picture.
pub struct ReduxReader {
    processor: SiglipImageProcessor,
    vision: SiglipVision,
    redux: Redux,
}

impl ReduxReader {
    /// Reads a folder of diffusers' `FluxPriorReduxPipeline`.
    ///
    /// # Errors
    /// Names the file and the key.
    pub fn open(folder: &mut Folder<'_>, root: &Path) -> Result<Self> {
        let index = root.join("model_index.json");
        let class = json(&index).with_context(|| format!("--redux {}", root.display()))?;
        if class["_class_name"] != "FluxPriorReduxPipeline" {
            bail!(
                "{}: _class_name: expected FluxPriorReduxPipeline, found {}",
                index.display(),
                class["_class_name"]
            );
        }
        let processor = root.join("feature_extractor/preprocessor_config.json");
        let processor = SiglipImageProcessor::from_transformers_file(&processor)?;
        let device = folder.device.clone();
        let path = root.join("image_encoder");
        let config = SiglipVisionConfig::from_transformers_file(&path.join("config.json"))?;
        let source = Source::open(&path, None)?;
        let vision =
            folder.loader().load("image_encoder", config.init(&device), &source, &config.published())?;
        let path = root.join("image_embedder");
        let config = ReduxConfig::from_diffusers_file(&path.join("config.json"))?;
        if config.image != vision.width() {
            bail!(
                "{}: redux_dim: expected {}, the width of the image encoder, found {}",
                path.display(),
                vision.width(),
                config.image
            );
        }
        let source = Source::open(&path, None)?;
        let redux =
            folder.loader().load("image_embedder", config.init(&device), &source, &config.published())?;
        Ok(Self { processor, vision, redux })
    }

    /// The picture's words behind a text; without one behind zeros of `[tokens, pooled]` widths, as the published folder,
    /// which has no text encoders, draws.
    ///
    /// # Errors
    /// If the picture cannot be read.
    pub fn behind(&self, ask: &Request<'_>, text: Option<Text>, [width, pooled]: [usize; 2]) -> Result<Text> {
        let Some(path) = ask.args.start() else { bail!("--redux needs --image PNG") };
        let image = self.processor.process(&[picture::open(path)?.to_rgb8()], ask.device);
        let states = self.vision.states(image); // [1, N, I]
        let text = text.unwrap_or_else(|| Text {
            tokens: Tensor::zeros([ask.batch, LENGTH, width], ask.device),
            mask: Tensor::<2, Int>::ones([ask.batch, LENGTH], ask.device).bool(),
            pooled: Tensor::zeros([ask.batch, pooled], ask.device),
        });
        let Scales(words, whole) = ask.args.redux_scale.unwrap_or(Scales(1.0, 1.0));
        let plain = Text { tokens: text.tokens.cast(burn::tensor::DType::F32), ..text };
        Ok(ask.cast(self.redux.extend(&plain, states.repeat_dim(0, ask.batch), [words, whole])))
    }
}
