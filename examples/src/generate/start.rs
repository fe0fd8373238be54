//! Where a run starts from: noise, or a picture with noise; and what of the picture it keeps.

use super::args::Args;
use super::draws::Draws;
use super::model::Model;
use super::picture;
use super::scheduler::{Plan, Task};
use anyhow::{Context, Result};
use burn::prelude::*;
use canvas_core::{Channels, mix};

/// Where a run starts from, and what it keeps to.
pub struct Start {
    /// `[B, C, h, w]` at the first level.
    pub x: Tensor<4>,
    /// Mask and masked latents for a network that reads them.
    pub channels: Option<Channels<4>>,
    /// Clean latents, noise and mask for one that does not.
    pub keep: Option<[Tensor<4>; 3]>,
}

impl Start {
    /// Draws noise in diffusers' order: the picture's posterior, the noise, the masked picture's posterior.
    ///
    /// # Errors
    /// If a picture cannot be read, or a noise file does not fit.
    pub fn new(
        model: &Model,
        args: &Args,
        (task, strength, size): (Task, f64, [usize; 2]),
        plan: &Plan,
        draws: &mut Draws,
        device: &Device,
    ) -> Result<Self> {
        let [height, width] = size.map(|side| side / model.vae.factor);
        let dims = [args.prompt.len(), model.vae.channels, height, width];
        let Some(path) = args.start() else {
            let x = draws.start("latents", dims, device)? * plan.start_scale;
            return Ok(Self { x, channels: None, keep: None });
        };
        let image = picture::signed(&picture::open(path)?, size, device);
        // A network that reads masks does not need the picture's latents if nothing of them is left.
        let needed = !(model.reads_mask() && strength == 1.0);
        let clean = match needed {
            true => Some(model.encode(&image, "posterior", dims, draws)?),
            false => None,
        };
        // diffusers' inpainting takes `latents=`, too: noise that is started from at any strength.
        let told = task == Task::Inpaint && draws.has_but_not("latents", "noise");
        let noise = draws.start(if told { "latents" } else { "noise" }, dims, device)?;
        let x = match &clean {
            Some(clean) if task == Task::Image || (strength < 1.0 && !told) => {
                mix(clean.clone(), noise.clone(), &[plan.levels[plan.first]])
            }
            _ => noise.clone() * plan.start_scale,
        };
        let (mut channels, mut keep) = (None, None);
        if let Some(path) = &args.mask {
            let file = picture::open(path)?;
            let (found, expected) = ([file.height(), file.width()], size.map(|side| side as u32));
            if found != expected {
                eprintln!(
                    "warning: the mask has {found:?} pixels, what is drawn {expected:?}: it is resized"
                );
            }
            let mask = picture::mask(&file, size, device).with_context(|| format!("{}", path.display()))?;
            let small = picture::nearest(&mask, model.vae.factor);
            let masked = image * (mask * -1.0 + 1.0);
            // Without its use, diffusers draws for it, too: the noise that follows is the same.
            let masked = model.encode(&masked, "posterior_masked", dims, draws)?;
            let small = small.repeat_dim(0, dims[0]);
            match clean {
                _ if model.reads_mask() => {
                    channels = Some(Channels { values: Tensor::cat(vec![small, masked], 1) });
                }
                clean => keep = clean.map(|clean| [clean, noise, small]),
            }
        }
        Ok(Self { x, channels, keep })
    }
}

impl Model {
    /// Latents of a picture for each image, of unit variance.
    fn encode(&self, image: &Tensor<4>, key: &str, dims: [usize; 4], draws: &mut Draws) -> Result<Tensor<4>> {
        let posterior = self.vae.network.encode(image.clone());
        let noise = match self.vae.spread {
            true => draws.posterior(key, dims, &image.device())?,
            false => None,
        };
        let latents = match noise {
            Some(noise) => posterior.sample(noise),
            None => posterior.mode(),
        };
        let latents = self.vae.scale.normalise(latents);
        Ok(if latents.dims()[0] == dims[0] { latents } else { latents.repeat_dim(0, dims[0]) })
    }
}
