//! What determines a run: written once into its folder, read again to resume and to draw.

use crate::emoji_set::Which;
use crate::schedule;
use anyhow::{Context, Result, anyhow, bail};
use canvas_data::Buckets;
use canvas_train::{Ema, LearningRate, Precision};
use canvas_vae::AutoencoderTinyConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// One training stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageConfig {
    /// Images trained on, repeats counted.
    pub images: u64,
    /// Images a step.
    pub batch: usize,
    /// Largest learning rate.
    pub peak_rate: f64,
    /// Largest decay of the moving average.
    pub ema: f64,
    /// AdamW's weight decay.
    pub weight_decay: f32,
    /// Checkpoints a stage, evenly spaced; the end is always one.
    pub checkpoints: u64,
    /// Evaluations (and sample sheets) a stage, evenly spaced; the end is always one.
    pub evaluations: u64,
    /// Images whose gradients are computed at once, if not those of a whole step: gradients are accumulated.
    #[serde(default)]
    pub at_once: Option<usize>,
    /// Blocks of the network whose activations are kept at once, if not all of them: the others are computed again.
    #[serde(default)]
    pub recompute: Option<usize>,
    /// Moving averages that are kept beside the one that is drawn with.
    #[serde(default)]
    pub averages: Vec<Ema>,
    /// What the networks compute in.
    #[serde(default)]
    pub precision: Precision,
    /// How the learning rate falls, as in [`schedule::decay`].
    #[serde(default = "cosine")]
    pub decay: String,
}

fn cosine() -> String {
    "cosine".into()
}

/// What is watched of a run while it trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchConfig {
    /// Steps from one look at the layers to the next; 0 is never.
    pub layers: u64,
    /// Rows a stage of losses by level and of speeds, evenly spaced.
    pub intervals: u64,
    /// Whether TensorBoard's event files are written.
    pub tensorboard: bool,
    /// What the machine can do, in 1e12 operations a second, if it is not to be measured.
    pub peak: Option<f64>,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { layers: 50, intervals: 50, tensorboard: false, peak: None }
    }
}

impl StageConfig {
    /// Warm-up over a twentieth, then the decay.
    ///
    /// # Errors
    /// For a decay that does not exist.
    pub fn rate(&self) -> Result<LearningRate> {
        let decay = schedule::decay(&self.decay, self.images)?;
        Ok(LearningRate { peak: self.peak_rate, warmup: self.images / 20, decay })
    }

    /// Whether one of `times` evenly spaced marks lies in `(before, after]`; the end is one.
    pub fn passes(&self, times: u64, before: u64, after: u64) -> bool {
        let mark = |images: u64| (images.min(self.images) * times.max(1)) / self.images.max(1);
        mark(after) > mark(before)
    }
}

/// Everything that determines a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunConfig {
    /// Program that made the run: another's folder is refused.
    pub program: String,
    /// Seed of initialization, data order and noise.
    pub seed: u64,
    /// `simple` or `all`.
    pub set: String,
    /// Side of the pictures in pixels.
    pub side: u32,
    /// How many times longer than narrow pictures may be, with about as many pixels as a square one; without it all are square.
    #[serde(default)]
    pub aspect: Option<f64>,
    /// `dit`, `unet`, or the name of a researcher's own.
    pub backbone: String,
    /// `flow`, `epsilon`, `velocity`, `sample` or `edm`.
    pub prediction: String,
    /// Share of captions replaced by the empty one, for classifier-free guidance.
    pub caption_dropout: f64,
    /// Width of the text encoder.
    pub text_width: usize,
    /// Blocks of the text encoder.
    pub text_depth: usize,
    /// Small networks for a test of seconds.
    pub smoke: bool,
    /// Sizes of the autoencoder.
    pub autoencoder: AutoencoderTinyConfig,
    /// Standard deviation of the noise on latents while the autoencoder trains.
    pub latent_noise: f64,
    /// First stage: the autoencoder.
    pub first: StageConfig,
    /// Second stage: text encoder and denoiser.
    pub second: StageConfig,
    /// What is watched.
    #[serde(default)]
    pub watch: WatchConfig,
}

/// Tokens a caption may have, `[start]` and `[end]` included.
pub const CONTEXT: usize = 16;

impl RunConfig {
    /// The default recipe, about 15 minutes on two CPU cores.
    pub fn standard(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            seed: 0,
            set: Which::Simple.to_string(),
            side: 64,
            aspect: None,
            backbone: "dit".into(),
            prediction: "flow".into(),
            caption_dropout: 0.1,
            text_width: 192,
            text_depth: 1,
            smoke: false,
            autoencoder: AutoencoderTinyConfig::new()
                .with_patch(4)
                .with_channels(vec![64, 96])
                .with_blocks(vec![1, 1])
                .with_latent(8)
                .with_clamp_latents(false),
            latent_noise: 0.1,
            first: StageConfig {
                images: 24_000,
                batch: 4,
                peak_rate: 2e-3,
                ema: 0.995,
                weight_decay: 0.0,
                checkpoints: 8,
                evaluations: 8,
                at_once: None,
                recompute: None,
                averages: Vec::new(),
                precision: Precision::F32,
                decay: cosine(),
            },
            second: StageConfig {
                images: 56_000,
                batch: 16,
                peak_rate: 1.5e-3,
                ema: 0.998,
                weight_decay: 0.01,
                checkpoints: 12,
                evaluations: 12,
                at_once: None,
                recompute: None,
                averages: Vec::new(),
                precision: Precision::F32,
                decay: cosine(),
            },
            watch: WatchConfig::default(),
        }
    }

    /// Chooses the backbone, and as many images as it trains on in the same time: a step of the UNet takes about
    /// twice as long as one of the transformer.
    pub fn set_backbone(&mut self, name: &str) {
        self.backbone = name.to_owned();
        if name == "unet" && !self.smoke {
            self.second.images /= 2;
        }
    }

    /// The same path in seconds, for tests: nothing worth looking at comes out.
    pub fn smoke(program: &str) -> Self {
        let mut config = Self::standard(program);
        config.smoke = true;
        config.side = 16;
        config.text_width = 16;
        config.autoencoder = config.autoencoder.with_channels(vec![8, 8]);
        config.first.images = 128;
        config.second.images = 384;
        for stage in [&mut config.first, &mut config.second] {
            (stage.checkpoints, stage.evaluations) = (4, 2);
        }
        (config.watch.layers, config.watch.intervals) = (5, 7);
        config
    }

    /// Sets the images of both stages to those that `minutes` are enough for, at so many images per second; a first stage that has
    /// no speed is not trained.
    ///
    /// Up to 60,000 images, two fifths of the time go to the autoencoder, which then has little to learn.
    pub fn fit(&mut self, minutes: f64, first: Option<f64>, second: f64) {
        let seconds = minutes * 60.0;
        let whole_batches = |images: f64, batch: usize| (images as u64).div_ceil(batch as u64) * batch as u64;
        // Evaluations, checkpoints and the measurements at the end take about a tenth.
        let mut rest = 0.9 * seconds;
        if let Some(first) = first {
            self.first.images = whole_batches((0.4 * seconds * first).min(60_000.0), self.first.batch);
            rest -= self.first.images as f64 / first;
        }
        self.second.images = whole_batches(rest * second, self.second.batch);
        let marks = (minutes as u64).clamp(4, 200);
        (self.second.checkpoints, self.second.evaluations) = (marks, marks);
    }

    /// What the sides of pictures are multiples of: a patch of the network, or what it halves, in pixels.
    pub fn step(&self) -> u32 {
        const LATENTS: usize = 2;
        (LATENTS * self.autoencoder.downsampling()) as u32
    }

    /// The sizes of pictures: one, or those of about as many pixels that are not too long.
    ///
    /// # Errors
    /// If the side, or what pictures may be longer, is none.
    pub fn buckets(&self) -> Result<Buckets> {
        let (side, step) = (self.side, self.step());
        let Some(aspect) = self.aspect else { return Ok(Buckets::square(side)?) };
        let root = aspect.sqrt() * f64::from(side);
        let (least, most) = (f64::from(side).powi(2) / root, root);
        let sides = (least.round() as u32)..=(most.round() as u32);
        Ok(Buckets::largest(u64::from(side).pow(2), step, sides)?)
    }

    /// The parsed data set.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn which(&self) -> Result<Which> {
        self.set.parse()
    }

    /// Refuses the folder of another program.
    ///
    /// # Errors
    /// Names both.
    pub fn expect_program(&self, program: &str, folder: &Path) -> Result<()> {
        if self.program != program {
            bail!("{}: a run of `{}`, not of `{program}`", folder.display(), self.program);
        }
        Ok(())
    }

    /// Reads `run.json` of a run's folder.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(folder: &Path) -> Result<Self> {
        read(folder)
    }
}

/// Writes what determines a run into `run.json` of its folder: a [`RunConfig`], with what else a program needs.
///
/// # Errors
/// Names the file.
pub fn write(folder: &Path, config: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(config)?;
    Ok(canvas_core::weights::write_atomically(&folder.join("run.json"), &text)?)
}

/// Reads `run.json` of a run's folder.
fn read<S: DeserializeOwned>(folder: &Path) -> Result<S> {
    let path = folder.join("run.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: not the folder of a run", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not a run's configuration", path.display()))
}

/// Refuses a folder whose `run.json` says something else.
///
/// # Errors
/// Names what it says, and what it should.
pub fn compare(folder: &Path, settings: &impl Serialize) -> Result<()> {
    // Both as written: numbers of 32 bits are others in memory.
    let wanted: Value = serde_json::from_slice(&serde_json::to_vec(settings)?)?;
    let others = differences(&read(folder)?, &wanted, "");
    if !others.is_empty() {
        bail!(
            "{}: a run of other settings: {}; choose another folder by --out",
            folder.display(),
            others.join(", ")
        );
    }
    Ok(())
}

/// Where a value is not the one that is wanted, in words.
fn differences(found: &Value, wanted: &Value, name: &str) -> Vec<String> {
    let Value::Object(fields) = wanted else {
        return if found == wanted { Vec::new() } else { vec![format!("{name} is {found}, not {wanted}")] };
    };
    let of_field = |(key, wanted): (&String, &Value)| {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        differences(found.get(key).unwrap_or(&Value::Null), wanted, &name)
    };
    fields.iter().flat_map(of_field).collect()
}

/// The error for a value that is not among those that exist.
pub fn unknown(flag: &str, value: &str, known: &[&str]) -> anyhow::Error {
    let best = known.iter().max_by(|a, b| strsim::jaro(a, value).total_cmp(&strsim::jaro(b, value)));
    let near = best
        .filter(|name| strsim::jaro(name, value) > 0.7)
        .map_or(String::new(), |n| format!("; nearest: {n}"));
    anyhow!("{flag} {value}: there are {}{near}", known.join(", "))
}
