//! Which levels a run visits and how it steps: the model's own scheduler, another file's, or a sampler by name.

use super::model::Kind;
use super::transformers::Grid;
use crate::scheduler::Scheduler as Asked;
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::{Estimate, Level, NoiseSchedule, Prediction, Run, Sampler};
use canvas_sched::diffusers::{Ask, Options, Scheduler as File};
use canvas_sched::schedule::mu;
use canvas_sched::{Space, start};
use serde_json::Value;
use std::cell::Cell;

/// What a pipeline of diffusers is for: they differ in how they overrule a model's scheduler and in their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// From noise.
    Text,
    /// From a picture.
    Image,
    /// Within a mask.
    Inpaint,
}

/// A scheduler, and how it steps if a sampler by name stands in for its own.
pub struct Scheduler {
    file: File<4>,
    named: Option<Asked>,
    prediction: String,
    /// Places sigmas itself: pipelines that would give it theirs do not.
    flow_sigmas: bool,
    /// Shifts by size.
    dynamic: bool,
}

/// The levels of a run.
pub struct Plan {
    /// Noisiest first.
    pub levels: Vec<Level>,
    /// Where the run starts: behind the first where less than all of a picture is drawn anew.
    pub first: usize,
    /// What unit noise is multiplied by at the first.
    pub start_scale: f64,
}

impl Scheduler {
    /// The model's own, as the pipelines of Stable Diffusion 1 and 2 overrule it.
    ///
    /// Their text-to-image and image-to-image set `steps_offset` to 1 and `clip_sample` to false, their inpainting
    /// `steps_offset` to 1 and `skip_prk_steps` to true, whatever the file says; with a ControlNet or a T2I-Adapter, and in
    /// SDXL, nothing is overruled.
    ///
    /// # Errors
    /// Names what is not honoured.
    pub fn own(config: &Value, kind: Kind, task: Task, controlled: bool) -> Result<Self> {
        let mut config = config.clone();
        if kind == Kind::Sd && !controlled {
            config["steps_offset"] = 1.into();
            match task {
                Task::Inpaint => config["skip_prk_steps"] = true.into(),
                Task::Text | Task::Image => config["clip_sample"] = false.into(),
            }
        }
        Self::read(&config)
    }

    /// Another: a file, its folder, or a sampler by name on the model's schedule.
    ///
    /// # Errors
    /// For an unknown name with the nearest, for a file that cannot be read or is not honoured.
    pub fn asked(text: &str, config: &Value) -> Result<Self> {
        match Asked::parse(text).context("--scheduler")? {
            Asked::Diffusers(_) => {
                let path = std::path::Path::new(text);
                let path = if path.is_dir() { path.join("scheduler_config.json") } else { path.to_owned() };
                Self::read(&super::model::json(&path)?)
            }
            named => Ok(Self { named: Some(named), ..Self::read(config)? }),
        }
    }

    /// As a file says it.
    ///
    /// # Errors
    /// Names what is not honoured.
    pub fn read(config: &Value) -> Result<Self> {
        // What the pipelines pass to every step that takes it; TCD's own default is another.
        let eta = (config["_class_name"] == "TCDScheduler").then_some(0.0);
        let options = Options { eta, ..Options::default() };
        let file = File::from_json(&config.to_string(), &options)?;
        let prediction = config["prediction_type"].as_str().unwrap_or("epsilon").to_owned();
        let [flow_sigmas, dynamic] =
            ["use_flow_sigmas", "use_dynamic_shifting"].map(|field| config[field] == true);
        Ok(Self { file, named: None, prediction, flow_sigmas, dynamic })
    }

    /// The class, or the sampler's name.
    pub fn title(&self, asked: Option<&str>) -> String {
        match (&self.named, asked) {
            (Some(_), Some(name)) => name.to_owned(),
            _ => self.file.class.clone(),
        }
    }

    /// What the network's output means.
    pub fn prediction(&self) -> &dyn Prediction {
        &*self.file.prediction
    }

    /// What guidance is rescaled in: the network's raw output.
    ///
    /// # Errors
    /// For a prediction without such a space.
    pub fn space(&self) -> Result<Space> {
        Ok(match self.prediction.as_str() {
            "epsilon" => Space::Eps,
            "v_prediction" => Space::Velocity,
            "sample" => Space::X0,
            other => bail!("--guidance-rescale is not known for networks that predict {other:?}"),
        })
    }

    /// What times are multiplied by, so that a network that counts a thousand steps is told what diffusers tells it.
    pub fn time_scale(&self) -> f64 {
        self.file.steps_per_time / 1000.0
    }

    /// How noise grows.
    pub fn schedule(&self) -> &dyn NoiseSchedule {
        &*self.file.schedule
    }

    /// What steps from level to level.
    pub fn sampler(&self) -> &dyn Sampler<4> {
        match &self.named {
            Some(named) => named.sampler(),
            None => &self.file.sampler,
        }
    }

    /// The levels of a run; those of its last part where less than all of a picture is drawn anew.
    ///
    /// # Errors
    /// If there are no such levels.
    pub fn plan(&self, steps: usize, strength: Option<f64>) -> Result<Plan> {
        let (levels, named) = match &self.named {
            None => (self.file.levels(steps)?, false),
            Some(Asked::Named { grid: Some(grid), .. }) => (grid.levels(self.schedule(), steps)?, true),
            Some(_) => (self.file.levels(steps)?, true),
        };
        let left = match strength {
            Some(strength) => start(&levels, strength).context("--strength")?.len(),
            None => levels.len(),
        };
        let first = levels.len() - left;
        let levels = if named { levels } else { self.file.starting(levels, first) };
        let start_scale = if named { levels[0].sigma } else { self.file.start_scale(&levels) };
        Ok(Plan { levels, first, start_scale })
    }

    /// The levels of a run of a transformer pipeline.
    ///
    /// # Errors
    /// If there are no such levels.
    pub fn plan_along(&self, steps: usize, grid: &Grid, strength: Option<f64>) -> Result<Plan> {
        let even: Vec<f64> = (0..steps).map(|i| 1.0 - i as f64 / steps as f64).collect();
        let (mu, sigmas) = match grid {
            Grid::Own { mu } => (*mu, None),
            Grid::Even { mu } => (*mu, Some(&even[..])),
        };
        let own = || self.file.levels(Ask { steps, mu, timesteps: None, sigmas, strength: 1.0 });
        let (levels, named) = match &self.named {
            None => (own()?, false),
            Some(Asked::Named { grid: Some(grid), .. }) => (grid.levels(self.schedule(), steps)?, true),
            Some(_) => (own()?, true),
        };
        let hops = (levels.len() - 1) as f64;
        // What is left out is rounded down, where Stable Diffusion rounds down what is left.
        let first = strength.map_or(0, |strength| (hops - (hops * strength).min(hops)) as usize);
        if first + 1 >= levels.len() {
            bail!("--strength is too small for {hops} steps: none is left");
        }
        let levels = if named { levels } else { self.file.starting(levels, first) };
        let start_scale = if named { levels[0].sigma } else { self.file.start_scale(&levels) };
        Ok(Plan { levels, first, start_scale })
    }

    /// Sigmas from 1 to `1/N`, unless the scheduler places its own.
    pub fn even(&self, mu: Option<f64>) -> Grid {
        if self.flow_sigmas { Grid::Own { mu } } else { Grid::Even { mu } }
    }

    /// The shift of a picture of so many tokens, if the file shifts by size: by its own line, or Flux'.
    pub fn mu(&self, tokens: usize) -> Option<f64> {
        self.dynamic.then(|| self.file.mu(tokens).unwrap_or_else(|| mu::flux(tokens)))
    }

    /// How often a run asks the network and how often it draws noise, counted on a run without one.
    ///
    /// # Errors
    /// If the sampler cannot run along the levels.
    pub fn count(&self, plan: &Plan) -> Result<Counted> {
        /// Noise that counts.
        struct Draws(usize);
        impl canvas_core::Noise<4> for Draws {
            fn normal_like(&mut self, x: &Tensor<4>) -> Tensor<4> {
                self.0 += 1;
                x.zeros_like()
            }
        }
        let (evaluations, mut draws) = (Cell::new(0), Draws(0));
        let run = Run::new(self.sampler(), self.schedule(), &plan.levels, &mut draws)?.starting(plan.first);
        let asked = |x: Tensor<4>, _: Level| -> Estimate<4> {
            evaluations.set(evaluations.get() + 1);
            x.into()
        };
        run.sample(asked, Tensor::zeros([1, 1, 1, 1], &Device::flex()));
        Ok(Counted { evaluations: evaluations.get(), draws: draws.0 })
    }
}

/// What a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Calls of the network.
    pub evaluations: usize,
    /// Draws of noise.
    pub draws: usize,
}
