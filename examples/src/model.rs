//! A text-to-image model: where the sibling crates meet.

use crate::scheduler::Scheduler;
use anyhow::Result;
use burn::module::{Module, ModuleDisplay};
use burn::prelude::*;
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::{Autoencoder, Condition, Level, picture};
use canvas_core::{Backbone, Denoiser, LatentScale, Noise, Process, Run, Seeded, Text, TextEncoder, Tokens};
use canvas_sched::{Cfg, Timesteps, predict, schedule};
use canvas_text::TextTransformer;
use canvas_train::LevelDistribution;
use canvas_vae::AutoencoderTiny;
use image::RgbImage;

/// A network the programs can train: a backbone on latents, conditioned on text.
///
/// Every `#[derive(Module)]` type with a `Backbone<4, Cond = Text>` is one.
pub trait Network: Backbone<4, Cond = Text> + Module + ModuleDisplay {}
impl<B: Backbone<4, Cond = Text> + Module + ModuleDisplay> Network for B {}

/// What is trained in the second stage: a text encoder and the network it conditions.
#[derive(Module, Debug)]
pub struct TextToImage<B: Module> {
    /// Reads the prompt.
    pub text: TextTransformer,
    /// Denoises latents.
    pub backbone: B,
}

/// Sizes a backbone must fit.
#[derive(Clone, Copy, Debug)]
pub struct BackboneSizes {
    /// Latent channels, and the greatest height and width.
    pub latent: [usize; 3],
    /// Width of the text tokens and of the pooled prompt.
    pub text: usize,
    /// The most tokens of a prompt.
    pub context: usize,
    /// Small enough for a test of a few seconds.
    pub smoke: bool,
}

/// Names that [`process`] knows.
pub const PREDICTIONS: [&str; 5] = ["flow", "epsilon", "velocity", "sample", "edm"];

/// The process a prediction type is usually trained in, and how its levels are drawn.
///
/// Flow runs on the straight path, epsilon, velocity and sample on Stable Diffusion's scaled-linear schedule,
/// EDM on its own. Any other pairing works too; these are what a comparison expects.
///
/// # Errors
/// For an unknown name.
pub fn process(prediction: &str) -> Result<(Process, LevelDistribution)> {
    let vp = || Box::new(schedule::Vp::scaled_linear(1000));
    let uniform = LevelDistribution::Uniform;
    Ok(match prediction {
        "flow" => {
            let process = Process {
                schedule: Box::new(schedule::Flow::default()),
                prediction: Box::new(predict::Flow),
            };
            (process, LevelDistribution::LogitNormal { mean: 0.0, std: 1.0 })
        }
        "epsilon" => (Process { schedule: vp(), prediction: Box::new(predict::Epsilon) }, uniform),
        "velocity" => (Process { schedule: vp(), prediction: Box::new(predict::Velocity) }, uniform),
        "sample" => (Process { schedule: vp(), prediction: Box::new(predict::Sample) }, uniform),
        "edm" => {
            // Latents have unit variance; EDM's P_mean of -1.2 is for data of deviation 0.5.
            let prediction = Box::new(predict::Edm { sigma_data: 1.0 });
            let process = Process { schedule: Box::new(schedule::Edm::default()), prediction };
            (process, LevelDistribution::LogNormal { mean: -1.2 + 2f64.ln(), std: 1.2 })
        }
        _ => return Err(crate::config::unknown("--prediction", prediction, &PREDICTIONS)),
    })
}

/// How pictures are drawn.
pub struct DrawOptions {
    /// Steps along the process, and where they lie.
    pub scheduler: Scheduler,
    /// Number of steps.
    pub steps: usize,
    /// Classifier-free guidance scale; 1 is off.
    pub guidance: f64,
    /// Key of the noise.
    pub seed: u64,
}

/// Everything a trained model needs to draw.
pub struct Painter<'a, B: Module> {
    /// Text encoder and backbone, without gradients.
    pub model: &'a TextToImage<B>,
    /// From latents to pictures.
    pub autoencoder: &'a AutoencoderTiny,
    /// Between the autoencoder's latents and those the model works on.
    pub scale: &'a LatentScale,
    /// What the model was trained in.
    pub process: &'a Process,
    /// Latent channels, height and width.
    pub latent: [usize; 3],
}

impl<B: Network> Painter<'_, B> {
    /// Draws one picture a prompt; picture `i` depends on its prompt, the seed and `numbers[i]` alone.
    pub fn draw(
        &self,
        prompts: &Tokens,
        null: &Tokens,
        numbers: &[u64],
        options: &DrawOptions,
    ) -> Result<Vec<RgbImage>> {
        const BATCH: usize = 32;
        let rows: Vec<usize> = (0..numbers.len()).collect();
        let batches = rows.chunks(BATCH);
        let drawn = batches.map(|rows| {
            let numbers: Vec<u64> = rows.iter().map(|&row| numbers[row]).collect();
            self.draw_batch(&prompts.select(rows), null, numbers, options)
        });
        Ok(drawn.collect::<Result<Vec<_>>>()?.concat())
    }

    fn draw_batch(
        &self,
        prompts: &Tokens,
        null: &Tokens,
        numbers: Vec<u64>,
        options: &DrawOptions,
    ) -> Result<Vec<RgbImage>> {
        let (batch, [channels, height, width]) = (numbers.len(), self.latent);
        let cond = Tagged::new(self.model.text.encode(prompts), 0);
        let null = Tagged::new(self.model.text.encode(null).spread(batch), batch as u64);
        // What does not change over the run is computed once.
        let backbone = Remembering::new(&self.model.backbone);
        let guided = Cfg::new(self.process.denoiser(&backbone), null, options.guidance);
        let levels = options.scheduler.levels(self.process, options.steps)?;

        let mut noise = Seeded::new(canvas_core::seed_for(options.seed, "draw"), numbers);
        let blank = Tensor::<4>::zeros([batch, channels, height, width], &cond.cond.tokens.device());
        let start = noise.normal_like(&blank) * options.scheduler.start_scale(&levels);
        let run = Run::new(options.scheduler.sampler(), &*self.process.schedule, &levels, &mut noise)?;
        let latents = run.sample(|x, level| guided.denoise(x, &[level], &cond), start);
        Ok(picture::from_tensor(self.autoencoder.decode(self.scale.restore(latents))))
    }
}

/// The levels of a run of this many steps: evenly in time, except where only EDM's spacing makes sense.
///
/// # Errors
/// If there are no such levels: a run of 0 steps.
pub fn levels(process: &Process, steps: usize) -> Result<Vec<Level>> {
    let edm = process.schedule.level(1.0).alpha == 1.0;
    let grid = if edm { Timesteps::edm() } else { Timesteps::uniform() };
    Ok(grid.levels(&*process.schedule, steps)?)
}
