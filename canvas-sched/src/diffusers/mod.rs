//! Reads diffusers' `scheduler_config.json`: the same levels, the same steps, the same pictures.
//!
//! A file becomes a [`Scheduler`]: a noise schedule, a prediction type, a sampler and a rule for the grid, each
//! usable alone. Every field of the class is honoured or refused by name, and one that no class has is a typo; fields
//! of other classes, which published files carry along, mean nothing, as in diffusers. What diffusers takes at each
//! call instead (`eta`, churn) is in [`Options`]; what it takes with the number of steps (`mu`, lists of one's own)
//! in [`Ask`].
//!
//! All states are this crate's, `x = alpha x0 + sigma eps`. diffusers' Euler family keeps `x / alpha` instead; it
//! is the same run. `canvas-sched/tests/sched/diffusers.rs` compares about a thousand runs with diffusers 0.42.1.

mod angles;
mod ask;
mod classes;
mod error;
mod fields;
mod flow;
mod options;
mod pndm;
mod predictions;
mod sigmas;
mod spacing;
mod table;
mod wrap;

pub use ask::Ask;
pub use error::{AskError, DiffusersError};
pub use fields::quoted;
pub use options::{Compat, Options};

use crate::Timesteps;
use ask::Places;
use canvas_core::{Level, NoiseSchedule, Prediction, Sampler};
use fields::Fields;
use serde_json::Value;
use std::path::Path;

/// Scheduler classes that are covered.
pub const CLASSES: &[&str] = &[
    "CMStochasticIterativeScheduler",
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "HeunDiscreteScheduler",
    "IPNDMScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "SCMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
];

/// A schedule, and a rule that places levels on it.
pub type OnSchedule = (Box<dyn NoiseSchedule>, Timesteps);

/// How large the noise is that a run starts from: `init_noise_sigma`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Unit noise, whatever the first level.
    Unit,
    /// The first level's `sigma`.
    Sigma,
    /// `sqrt(alpha^2 + sigma^2)` of the first level.
    Total,
}

/// A scheduler of diffusers, taken apart into what this workspace composes.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Run, Seeded};
/// use canvas_sched::diffusers::{Options, Scheduler};
///
/// let config = r#"{"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear",
///     "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading", "steps_offset": 1}"#;
/// let scheduler = Scheduler::<4>::from_json(config, &Options::default())?;
/// let levels = scheduler.levels(30)?;
/// assert_eq!((levels[0].time * scheduler.steps_per_time).round(), 958.0);
///
/// let unit = Tensor::<4>::ones([1, 4, 8, 8], &Device::flex()); // unit noise goes here
/// let mut noise = Seeded::new(0, [0]);
/// let run = Run::new(&scheduler.sampler, &scheduler.schedule, &levels, &mut noise)?;
/// let latents = run.sample(|x, _level| x * 0.5, unit * scheduler.start_scale(&levels));
/// assert_eq!(latents.dims(), [1, 4, 8, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scheduler<const D: usize> {
    /// The class the file names.
    pub class: String,
    /// How noise grows with time.
    pub schedule: Box<dyn NoiseSchedule>,
    /// What the network's output means.
    pub prediction: Box<dyn Prediction>,
    /// Steps from level to level, thresholding and clipping included.
    pub sampler: Box<dyn Sampler<D>>,
    /// What diffusers tells the network, divided by the time that the prediction tells it: 1000 for most, 1 for
    /// EDM, IPNDM and SCM.
    pub steps_per_time: f64,
    start: Start,
    grid: Box<dyn Places>,
    /// PNDM's list of training steps has its second one twice.
    repeats: bool,
    /// Image tokens and shifts at two sizes: `base_image_seq_len` and its kin.
    sizes: Option<[(f64, f64); 2]>,
}

impl<const D: usize> std::fmt::Debug for Scheduler<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("class", &self.class).finish_non_exhaustive()
    }
}

impl<const D: usize> Scheduler<D> {
    /// Reads a `scheduler_config.json`, or the one in a folder.
    ///
    /// # Errors
    /// If the file cannot be read, is no JSON object, names a class that is not covered, or has a field or a
    /// value that is not honoured. Every message names the file and the field.
    pub fn from_diffusers(path: impl AsRef<Path>, options: &Options) -> Result<Self, DiffusersError> {
        let mut path = path.as_ref().to_owned();
        if path.is_dir() {
            path.push("scheduler_config.json");
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|source| DiffusersError::Io { path: path.clone(), source })?;
        Self::parse(&text, path.display().to_string(), options)
    }

    /// Reads the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// As [`from_diffusers`](Self::from_diffusers).
    pub fn from_json(text: &str, options: &Options) -> Result<Self, DiffusersError> {
        Self::parse(text, "the configuration".to_owned(), options)
    }

    fn parse(text: &str, origin: String, options: &Options) -> Result<Self, DiffusersError> {
        let syntax = |why: String| DiffusersError::Syntax { origin: origin.clone(), why };
        let value: Value = serde_json::from_str(&quoted(text)).map_err(|error| syntax(error.to_string()))?;
        let Value::Object(values) = value else {
            return Err(syntax("expected an object at the top".to_owned()));
        };
        let Some(class) = values.get("_class_name").and_then(Value::as_str).map(str::to_owned) else {
            return Err(syntax("it has no _class_name".to_owned()));
        };
        if !CLASSES.contains(&class.as_str()) {
            let nearest = crate::by_name::nearest(&class, CLASSES);
            return Err(DiffusersError::Class { origin, class, nearest });
        }
        let fields = Fields::new(origin, class, values);
        let scheduler = classes::build(&fields, options)?;
        fields.finish()?;
        Ok(scheduler)
    }

    /// The levels of a run: a number of steps, or an [`Ask`] with more to say.
    ///
    /// # Errors
    /// If there are no steps or too many, a list goes the wrong way, `mu` is missing, or the class cannot be
    /// asked for what is asked.
    pub fn levels<'a>(&self, ask: impl Into<Ask<'a>>) -> Result<Vec<Level>, AskError> {
        self.grid.place(&ask.into())?.levels()
    }

    /// The grid of a run in this crate's own values: [`levels`](Self::levels) are those of the [`Timesteps`] on
    /// the schedule beside it, which is the scheduler's own but for a shift. `None` where the class has levels
    /// that only diffusers makes (`interpolation_type: log_linear`, say).
    ///
    /// # Errors
    /// As [`levels`](Self::levels).
    pub fn timesteps<'a>(&self, ask: impl Into<Ask<'a>>) -> Result<Option<OnSchedule>, AskError> {
        let placed = self.grid.place(&ask.into())?;
        Ok(placed.plain().then_some((placed.on, placed.timesteps)))
    }

    /// The levels of a run that starts at hop `first`, for image-to-image: for
    /// [`Run::starting`](canvas_core::Run::starting).
    ///
    /// They are the same, but for PNDM with `skip_prk_steps`: diffusers counts entries of a list that has the second
    /// training step twice, so a run that starts late starts one step earlier, and from its second hop on tells the network
    /// the step after that of the state. With [`Compat::Corrected`] they are the same.
    pub fn starting(&self, mut levels: Vec<Level>, first: usize) -> Vec<Level> {
        if self.repeats && first > 1 {
            levels[first] = levels[first - 1];
        }
        levels
    }

    /// What unit noise is multiplied by to start at the first level.
    pub fn start_scale(&self, levels: &[Level]) -> f64 {
        match self.start {
            Start::Unit => 1.0,
            Start::Sigma => levels[0].sigma,
            Start::Total => levels[0].alpha.hypot(levels[0].sigma),
        }
    }

    /// The shift of an image of this many tokens: linear through the two sizes of the file, as Flux' pipeline
    /// computes it. `None` unless `use_dynamic_shifting` is on.
    pub fn mu(&self, tokens: usize) -> Option<f64> {
        let [(few, low), (many, high)] = self.sizes?;
        Some(low + (tokens as f64 - few) * (high - low) / (many - few))
    }
}
