//! Choice at run time: each name is the word a command line or a recipe uses.

use crate::schedule::{Edm, Flow, Vp};
use crate::{Ddim, Ddpm, DpmPp2m, Euler, Heun, predict};
use canvas_core::{NoiseSchedule, Prediction, Sampler};

/// Names [`sampler`] knows.
pub const SAMPLERS: &[&str] = &["ddpm", "ddim", "euler", "heun", "dpmpp-2m"];
/// Names [`prediction`] knows.
pub const PREDICTIONS: &[&str] = &["epsilon", "sample", "velocity", "flow", "edm"];
/// Names [`schedule`] knows.
pub const SCHEDULES: &[&str] = &["flow", "linear", "scaled-linear", "cosine", "edm"];

/// A name nothing has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} is called {name:?}{}; there are {}", hint(.nearest), .known.join(", "))]
pub struct UnknownName {
    /// What was looked for: sampler, prediction or schedule.
    pub kind: &'static str,
    /// The name that was given.
    pub name: String,
    /// The most similar known name, if one is similar.
    pub nearest: Option<&'static str>,
    /// All known names.
    pub known: &'static [&'static str],
}

fn hint(nearest: &Option<&str>) -> String {
    nearest.map_or(String::new(), |name| format!(", did you mean {name}?"))
}

impl UnknownName {
    fn new(kind: &'static str, name: &str, known: &'static [&'static str]) -> Self {
        let score = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), other);
        let best = known.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)));
        let nearest = best.filter(|other| score(other) > 0.7);
        Self { kind, name: name.to_owned(), nearest, known }
    }
}

/// The sampler of this name, with its default settings.
///
/// # Errors
/// Names every sampler and the nearest.
///
/// # Example
/// ```
/// let error = canvas_sched::by_name::sampler::<4>("eular").err().unwrap();
/// assert_eq!(
///     error.to_string(),
///     r#"no sampler is called "eular", did you mean euler?; there are ddpm, ddim, euler, heun, dpmpp-2m"#
/// );
/// ```
pub fn sampler<const D: usize>(name: &str) -> Result<Box<dyn Sampler<D>>, UnknownName> {
    Ok(match name {
        "ddpm" => Box::new(Ddpm::default()),
        "ddim" => Box::new(Ddim::default()),
        "euler" => Box::new(Euler),
        "heun" => Box::new(Heun),
        "dpmpp-2m" => Box::new(DpmPp2m),
        _ => return Err(UnknownName::new("sampler", name, SAMPLERS)),
    })
}

/// The prediction type of this name, with its default settings.
///
/// # Errors
/// Names every prediction type and the nearest.
pub fn prediction(name: &str) -> Result<Box<dyn Prediction>, UnknownName> {
    Ok(match name {
        "epsilon" => Box::new(predict::Epsilon),
        "sample" => Box::new(predict::Sample),
        "velocity" => Box::new(predict::Velocity),
        "flow" => Box::new(predict::Flow),
        "edm" => Box::new(predict::Edm::default()),
        _ => return Err(UnknownName::new("prediction", name, PREDICTIONS)),
    })
}

/// The noise schedule of this name, with its default settings; the tables have 1000 training steps.
///
/// # Errors
/// Names every schedule and the nearest.
pub fn schedule(name: &str) -> Result<Box<dyn NoiseSchedule>, UnknownName> {
    Ok(match name {
        "flow" => Box::new(Flow::default()),
        "linear" => Box::new(Vp::linear(1000)),
        "scaled-linear" => Box::new(Vp::scaled_linear(1000)),
        "cosine" => Box::new(Vp::cosine(1000)),
        "edm" => Box::new(Edm::default()),
        _ => return Err(UnknownName::new("schedule", name, SCHEDULES)),
    })
}
