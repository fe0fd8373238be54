//! `--scheduler NAME|FILE`: a sampler and its levels, by a short name or from a diffusers file.

use crate::config::unknown;
use crate::model;
use anyhow::{Context, Result, bail};
use canvas_core::{Level, Prediction, Process, Sampler};
use canvas_sched::by_name::{self, GRIDS, SAMPLERS, TRANSFORMS};
use canvas_sched::diffusers::{self, Options};
use canvas_sched::{Over, Timesteps};
use std::path::Path;

/// How a drawing goes from noise to picture.
pub enum Scheduler {
    /// A sampler along the levels of a grid.
    Named {
        /// Steps from level to level.
        sampler: Box<dyn Sampler<4>>,
        /// Places the levels; without one they are [`model::levels`].
        grid: Option<Timesteps>,
    },
    /// A `scheduler_config.json`.
    Diffusers(diffusers::Scheduler<4>),
}

impl Scheduler {
    /// A sampler along the usual levels.
    pub fn of(sampler: impl Sampler<4> + 'static) -> Self {
        Self::Named { sampler: Box::new(sampler), grid: None }
    }

    /// Reads a short name, or a diffusers `scheduler_config.json` or the folder it lies in.
    ///
    /// A short name is a sampler, then if wanted a spacing, then if wanted a transform, with hyphens:
    /// `dpmpp-2m`, `dpmpp-2m-karras`, `euler-trailing`, `heun-linspace-exponential`. The longest sampler and the
    /// longest spacing that fit count. A transform alone runs between the ends of `linspace`.
    ///
    /// # Errors
    /// For a name with an unknown part, with the nearest known one; for a file that cannot be read or has
    /// something in it that is not honoured.
    pub fn parse(text: &str) -> Result<Self> {
        if Path::new(text).exists() || text.contains(['/', '\\']) || text.ends_with(".json") {
            return Ok(Self::Diffusers(diffusers::Scheduler::from_diffusers(text, &Options::default())?));
        }
        let Some((name, words)) = longest(text, SAMPLERS) else {
            return Err(by_name::sampler::<4>(text).err().context("a listed sampler")?.into());
        };
        let grid = words.map(grid).transpose().with_context(|| format!("{text:?} is {name} and a grid"))?;
        Ok(Self::Named { sampler: by_name::sampler(name)?, grid })
    }

    /// What a sheet calls what this text was read as: a class for a file, the text for a name.
    pub fn title(&self, text: &str) -> String {
        match self {
            Self::Named { .. } => text.to_owned(),
            Self::Diffusers(scheduler) => scheduler.class.clone(),
        }
    }

    /// What steps from level to level.
    pub fn sampler(&self) -> &dyn Sampler<4> {
        match self {
            Self::Named { sampler, .. } => sampler,
            Self::Diffusers(scheduler) => &scheduler.sampler,
        }
    }

    /// The levels of a run of this many steps, in the process that the model was trained in.
    ///
    /// # Errors
    /// If there are no such levels, the sampler cannot run along them, or a file was made for another process.
    pub fn levels(&self, process: &Process, steps: usize) -> Result<Vec<Level>> {
        let levels = match self {
            Self::Named { grid: None, .. } => model::levels(process, steps)?,
            Self::Named { grid: Some(grid), .. } => {
                // What starts at pure noise has an infinite sigma / alpha there: as diffusers' flow classes do.
                let flow = process.schedule.level(1.0).alpha == 0.0;
                let grid = if flow { grid.clone().over(Over::Flow) } else { grid.clone() };
                grid.levels(&*process.schedule, steps)?
            }
            Self::Diffusers(scheduler) => {
                let levels = scheduler.levels(steps)?;
                levels
                    .iter()
                    .filter(|level| level.sigma > 0.0)
                    .try_for_each(|&level| agree(&scheduler.class, &*scheduler.prediction, level, process))?;
                levels
            }
        };
        self.sampler().check(&levels)?;
        Ok(levels)
    }

    /// What unit noise is multiplied by to start at the first level.
    pub fn start_scale(&self, levels: &[Level]) -> f64 {
        match self {
            Self::Named { .. } => levels[0].sigma,
            Self::Diffusers(scheduler) => scheduler.start_scale(levels),
        }
    }
}

/// The longest name that is the text or its start before a hyphen, and what comes after the hyphen.
fn longest<'a>(text: &'a str, names: &[&'static str]) -> Option<(&'static str, Option<&'a str>)> {
    let fits = names.iter().filter_map(|&name| match text.strip_prefix(name)? {
        "" => Some((name, None)),
        rest => Some((name, Some(rest.strip_prefix('-')?))),
    });
    fits.max_by_key(|(name, _)| name.len())
}

/// The grid of these words.
fn grid(words: &str) -> Result<Timesteps> {
    match longest(words, GRIDS) {
        Some((spacing, None)) => Ok(by_name::grid(spacing)?),
        Some((spacing, Some(transform))) => Ok(by_name::grid(&format!("{spacing} {transform}"))?),
        None if TRANSFORMS.contains(&words) => Ok(by_name::grid(&format!("linspace {words}"))?),
        None => {
            let transforms = TRANSFORMS.iter().filter(|name| !GRIDS.contains(name));
            let known: Vec<&str> = GRIDS.iter().chain(transforms).copied().collect();
            Err(unknown("grid", words, &known))
        }
    }
}

/// Whether the network would be asked what it was trained for: at this level's ratio of noise to signal the same
/// kernel, the same meaning of its output, and the time it knows.
fn agree(class: &str, prediction: &dyn Prediction, level: Level, process: &Process) -> Result<()> {
    let ratio = level.sigma / level.alpha;
    let own = process.schedule.level_at_ratio(ratio);
    let (asked, trained) = (prediction.coefficients(level), process.prediction.coefficients(own));
    let near = |found: f64, wanted: f64| (found - wanted).abs() <= 1e-3 * wanted.abs().max(1.0);
    let same = near(level.alpha, own.alpha)
        && near(level.sigma, own.sigma)
        && near(asked.skip, trained.skip)
        && near(asked.out, trained.out)
        && near(asked.input, trained.input)
        // Files that round times to training steps are off by up to one of a thousand.
        && (asked.time - trained.time).abs() <= 1.5e-3;
    if same {
        return Ok(());
    }
    let told = |level: Level, time: f64| {
        format!("alpha {:.4}, sigma {:.4}, told time {time:.4}", level.alpha, level.sigma)
    };
    bail!(
        "{class} of the file does not fit this run: where sigma/alpha is {ratio:.4}, the file has {prediction:?} with {}; \
         the run was trained with {:?} and {}",
        told(level, asked.time),
        process.prediction,
        told(own, trained.time)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::process;

    fn complaint(text: &str) -> String {
        format!("{:#}", Scheduler::parse(text).err().unwrap())
    }

    fn levels(text: &str, prediction: &str, steps: usize) -> Result<Vec<Level>> {
        Scheduler::parse(text)?.levels(&process(prediction)?.0, steps)
    }

    #[test]
    fn every_sampler_and_grid_has_a_name() {
        for sampler in SAMPLERS {
            assert!(Scheduler::parse(sampler).is_ok(), "{sampler}");
            for spacing in GRIDS {
                assert!(Scheduler::parse(&format!("{sampler}-{spacing}")).is_ok(), "{sampler}-{spacing}");
                for transform in TRANSFORMS {
                    let name = format!("{sampler}-{spacing}-{transform}");
                    let Ok(Scheduler::Named { grid: Some(grid), .. }) = Scheduler::parse(&name) else {
                        panic!("{name}");
                    };
                    assert_eq!(grid, by_name::grid(&format!("{spacing} {transform}")).unwrap(), "{name}");
                }
            }
            assert!(Scheduler::parse(&format!("{sampler}-karras")).is_ok(), "{sampler}-karras");
        }
    }

    #[test]
    fn names_give_the_levels_they_say() {
        let (vp, _) = process("epsilon").unwrap();
        let karras = Timesteps::linspace(1000).karras().levels(&*vp.schedule, 7).unwrap();
        assert_eq!(levels("dpmpp-2m-karras", "epsilon", 7).unwrap(), karras);
        assert_eq!(levels("dpmpp-2m-sde-linspace-karras", "epsilon", 7).unwrap(), karras);
        assert_eq!(levels("euler", "epsilon", 7).unwrap(), model::levels(&vp, 7).unwrap());
        // From pure noise: over flow sigmas.
        let flow = levels("euler-karras", "flow", 5).unwrap();
        assert_eq!((flow.len(), flow[0].sigma, flow[5].sigma), (6, 1.0, 0.0));
    }

    #[test]
    fn unknown_parts_are_named_with_the_nearest() {
        assert!(complaint("eular").contains("did you mean euler?"));
        let said = complaint("dpmpp-2m-karas");
        assert!(said.contains("karas") && said.contains("nearest: karras"), "{said}");
        let said = complaint("euler-linspace-exponentail");
        assert!(said.contains("exponentail") && said.contains("did you mean exponential?"), "{said}");
        assert!(complaint("euler-").contains("grid"));
        assert!(complaint("no/such/scheduler_config.json").contains("no/such/scheduler_config.json"));
        assert!(complaint("-karras").contains("euler"));
        assert!(format!("{:#}", levels("euler", "flow", 0).unwrap_err()).contains("step"));
    }

    #[test]
    fn files_must_fit_the_training() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("scheduler_config.json");
        let written = |text: &str| {
            std::fs::write(&file, text).unwrap();
            folder.path().to_str().unwrap().to_owned()
        };
        let sd = r#"{"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "scaled_linear",
            "beta_start": 0.00085, "beta_end": 0.012, "use_karras_sigmas": true}"#;
        for steps in [1, 2, 20, 50] {
            assert_eq!(levels(&written(sd), "epsilon", steps).unwrap().len(), steps + 1);
        }
        let said = |text: &str, prediction: &str| {
            format!("{:#}", levels(&written(text), prediction, 20).unwrap_err())
        };
        let velocity = said(sd, "velocity");
        assert!(velocity.contains("Epsilon") && velocity.contains("Velocity"), "{velocity}");
        let schedule = said(&sd.replace("0.012", "0.02"), "epsilon");
        assert!(schedule.contains("told time"), "{schedule}");
        let flow = said(sd, "flow");
        assert!(flow.contains("Epsilon") && flow.contains("Flow") && flow.contains("alpha"), "{flow}");

        let shifted = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#;
        assert_eq!(levels(&written(shifted), "flow", 28).unwrap().len(), 29);
        let dynamic = said(
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": true}"#,
            "flow",
        );
        assert!(dynamic.contains("mu"), "{dynamic}");
        assert!(
            said(r#"{"_class_name": "EulerDiscreteSchedular"}"#, "flow").contains("EulerDiscreteScheduler")
        );
    }
}
