//! Reads diffusers' `scheduler_config.json`: the same levels, the same steps, the same pictures.
//!
//! A file becomes a [`Scheduler`]: a noise schedule, a prediction type, a sampler and a rule for the grid, each
//! usable alone. Every field is honoured or refused by name. What diffusers takes at each call instead (`eta`,
//! churn) is in [`Options`]; what it takes with the number of steps (`mu`, lists of one's own) in [`Ask`].
//!
//! All states are this crate's, `x = alpha x0 + sigma eps`. diffusers' Euler family keeps `x / alpha` instead; it
//! is the same run. `canvas-sched/tests/sched/diffusers.rs` compares about a thousand runs with diffusers 0.42.1.

mod angles;
mod classes;
mod error;
mod fields;
mod flow;
mod pndm;
mod predictions;
mod sigmas;
mod steps;
mod table;
mod wrap;

pub use error::{AskError, DiffusersError};

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

/// What to do where diffusers differs from the method's paper by mistake.
///
/// | class | diffusers | corrected |
/// |---|---|---|
/// | FlowMatchEuler, FlowMatchHeun, FlowMatchLCM | a static `shift` acts twice on the default grid (issue 13243) | once |
/// | DDIM, PNDM | a step goes to `t - T/N`, whatever the grid's next step is | to the grid's next step |
/// | PNDM | half steps are whole training steps; velocities of several times are mixed before they are read at one | halfway; each read at its own |
/// | DDIMInverse | the network's output is read at the level before the one it was told | at the one it was told |
/// | DDPM, `learned` | the standard deviation is the root of the network's output | the output is the variance's logarithm |
/// | DPMSolverMultistep, `sde-dpmsolver++` of order 3 | refused: a sign is wrong there | DPM++ 3M SDE |
/// | SASolver | draws noise in steps that add none, so a stream of noise is ahead | does not |
/// | Euler, EDMEuler with churn | the network is asked before the churn, at `sigma` | after it, at `sigma_hat` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// As diffusers 0.42.1 computes it.
    #[default]
    Diffusers,
    /// As the papers have it.
    Corrected,
}

/// What diffusers takes at each call of `step` instead of from the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What to do where diffusers differs from the papers by mistake.
    pub compat: Compat,
    /// `eta` of DDIM (0 unless given) and TCD (0.3 unless given), in `[0, 1]`.
    pub eta: Option<f64>,
    /// DDIM: whether the noise is taken from the clipped estimate, too.
    pub use_clipped_model_output: bool,
    /// Euler and EDMEuler: total churn of the run (`s_churn`), `>= 0`.
    pub s_churn: f64,
    /// Churn only while `sigma` lies in this range (`s_tmin`, `s_tmax`).
    pub s_range: (f64, f64),
    /// Scale of the churn's noise, and of all noise of DPMSolverSDE (`s_noise`).
    pub s_noise: f64,
    /// LMS: its order, at least 1.
    pub order: usize,
    /// SASolver: a constant `tau_func`, in `[0, 1]`, instead of 1 within training steps 200 to 800 and 0 outside.
    pub tau: Option<f64>,
    /// LCM and TCD: `original_inference_steps` of the call.
    pub original_inference_steps: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compat: Compat::default(),
            eta: None,
            use_clipped_model_output: false,
            s_churn: 0.0,
            s_range: (0.0, f64::INFINITY),
            s_noise: 1.0,
            order: 4,
            tau: None,
            original_inference_steps: None,
        }
    }
}

/// What a run asks of a scheduler's grid: diffusers' `set_timesteps`.
///
/// A number of steps is one by `into()`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask<'a> {
    /// Steps of the run. Ignored where a list is given.
    pub steps: usize,
    /// The resolution-dependent shift of flow models: see [`Scheduler::mu`].
    pub mu: Option<f64>,
    /// Training steps of one's own, noisiest first.
    pub timesteps: Option<&'a [f64]>,
    /// Sigmas of one's own, noisiest first: `sigma / alpha` with their end for Euler, flow sigmas without it.
    pub sigmas: Option<&'a [f64]>,
    /// LCM and TCD: the part of the distillation's steps to use, in `(0, 1]`.
    pub strength: f64,
}

impl From<usize> for Ask<'_> {
    fn from(steps: usize) -> Self {
        Self { steps, mu: None, timesteps: None, sigmas: None, strength: 1.0 }
    }
}

impl Ask<'_> {
    fn refuse(class: &'static str, what: &'static str) -> Result<(), AskError> {
        Err(AskError::Unsupported { class, what })
    }

    /// Refuses what only flow models and sigma grids take.
    fn only_timesteps(&self, class: &'static str, timesteps: bool) -> Result<(), AskError> {
        self.only_lists(class, false, timesteps)
    }

    fn only_lists(&self, class: &'static str, sigmas: bool, timesteps: bool) -> Result<(), AskError> {
        match self {
            Ask { sigmas: Some(_), .. } if !sigmas => Self::refuse(class, "sigmas"),
            Ask { timesteps: Some(_), .. } if !timesteps => Self::refuse(class, "timesteps"),
            _ => Ok(()),
        }
    }

    fn only_flow_lists(&self, class: &'static str, sigmas: bool) -> Result<(), AskError> {
        self.only_lists(class, sigmas, false)?;
        if self.steps == 0 && self.sigmas.is_none_or(<[f64]>::is_empty) {
            return Err(AskError::NoSteps);
        }
        Ok(())
    }
}

/// A rule that places the levels of a run.
trait Rule: Send + Sync {
    fn levels(&self, ask: &Ask<'_>) -> Result<Vec<Level>, AskError>;
}

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
    rule: Box<dyn Rule>,
    /// Image tokens and shifts at two sizes: `base_image_seq_len` and its kin.
    sizes: Option<[(f64, f64); 2]>,
}

/// Puts quotes around `Infinity` and `NaN` outside of strings: Python writes them, JSON has not got them.
fn quoted(text: &str) -> String {
    let (mut out, mut rest, mut inside) = (String::new(), text, false);
    while let Some(next) = rest.chars().next() {
        let word =
            ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| !inside && rest.starts_with(word));
        if let Some(word) = word {
            out.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        let length = if next == '\\' && rest.len() > 1 {
            1 + rest[1..].chars().next().map_or(0, char::len_utf8)
        } else {
            next.len_utf8()
        };
        inside ^= next == '"';
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
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
        self.rule.levels(&ask.into())
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
