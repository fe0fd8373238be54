//! Choice at run time: each name is the word a command line or a recipe uses.

use crate::schedule::{Edm, Flow, Vp};
use crate::{
    Ddim, Ddpm, Deis, Dopri5, Dpm2, DpmPp, DpmSingle, DpmSolver, Euler, Heun, Ipndm, Lms, Midpoint, Pndm,
    UniPc, WarmUp, predict,
};
use canvas_core::{NoiseSchedule, Prediction, Sampler};

/// Names [`sampler`] knows.
pub const SAMPLERS: &[&str] = &[
    "ddpm",
    "ddim",
    "euler",
    "heun",
    "midpoint",
    "dpm2",
    "dopri5",
    "dpmpp-2m",
    "dpmpp-3m",
    "dpmpp-2s",
    "dpmpp-3s",
    "dpm-solver",
    "deis",
    "unipc",
    "lms",
    "pndm",
    "plms",
    "ipndm",
];
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
/// let error = error.to_string();
/// assert!(error.starts_with(r#"no sampler is called "eular", did you mean euler?; there are ddpm, ddim,"#));
/// ```
pub fn sampler<const D: usize>(name: &str) -> Result<Box<dyn Sampler<D>>, UnknownName> {
    Ok(match name {
        "ddpm" => Box::new(Ddpm::default()),
        "ddim" => Box::new(Ddim::default()),
        "euler" => Box::new(Euler),
        "heun" => Box::new(Heun),
        "midpoint" => Box::new(Midpoint),
        "dpm2" => Box::new(Dpm2),
        "dopri5" => Box::new(Dopri5::default()),
        "dpmpp-2m" => Box::new(DpmPp::two_m()),
        "dpmpp-3m" => Box::new(DpmPp::three_m()),
        "dpmpp-2s" => Box::new(DpmSingle::two_s()),
        "dpmpp-3s" => Box::new(DpmSingle::three_s()),
        "dpm-solver" => Box::new(DpmSolver::default()),
        "deis" => Box::new(Deis::default()),
        "unipc" => Box::new(UniPc::default()),
        "lms" => Box::new(Lms::default()),
        "pndm" => Box::new(Pndm { warm_up: WarmUp::RungeKutta, ..Pndm::default() }),
        "plms" => Box::new(Pndm::default()),
        "ipndm" => Box::new(Ipndm::default()),
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
