//! Choice at run time: each name is the word a command line or a recipe uses.

use crate::schedule::{Cosine, Edm, Flow, Gvp, Laplace, SubVp, Ve, Vp, VpSde, betas};
use crate::{
    Ancestral, ConsistencyModel, Ddim, Ddpm, Deis, Dopri5, Dpm2, Dpm2Ancestral, DpmPp, DpmPp2mSde,
    DpmPp2sAncestral, DpmPp3mSde, DpmPpSde, DpmSingle, DpmSingleSde, DpmSolver, EdmHeun, Euler,
    EulerAncestral, FlowNoise, FlowSde, Heun, Ipndm, Lcm, Lms, Midpoint, Pndm, SaSolver, SdeDpmSolver,
    SitEuler, SitHeun, SolverType, Tcd, UniPc, WarmUp,
};
use crate::{Ays, Ends, Rule, Spacing, Timesteps, Transform, predict};
use canvas_core::{NoiseSchedule, Prediction, Sampler};

/// Names [`sampler`] knows.
pub const SAMPLERS: &[&str] = &[
    "ddpm",
    "ddim",
    "euler",
    "heun",
    "edm-heun",
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
    "euler-ancestral",
    "euler-ancestral-rf",
    "dpm2-ancestral",
    "dpmpp-2s-ancestral",
    "dpmpp-sde",
    "dpmpp-2s-sde",
    "dpmpp-2m-sde",
    "dpmpp-2m-sde-heun",
    "dpmpp-3m-sde",
    "sde-dpm-solver",
    "sa-solver",
    "sit-euler",
    "sit-heun",
    "flow-grpo",
    "dance-grpo",
    "cps",
    "lcm",
    "tcd",
    "consistency-model",
];
/// Names [`prediction`] knows.
pub const PREDICTIONS: &[&str] = &["epsilon", "sample", "velocity", "flow", "edm"];
/// Names [`schedule`] knows.
pub const SCHEDULES: &[&str] = &[
    "flow",
    "linear",
    "scaled-linear",
    "cosine",
    "sigmoid",
    "laplace",
    "zero-snr",
    "vp-sde",
    "sub-vp",
    "ve",
    "edm",
    "gvp",
    "cosine-continuous",
    "laplace-continuous",
];
/// Spacings [`grid`] knows. A transform may follow: see [`TRANSFORMS`].
pub const GRIDS: &[&str] = &[
    "uniform",
    "edm",
    "linspace",
    "linspace-rounded",
    "linspace-open",
    "leading",
    "leading-open",
    "trailing",
    "simple",
    "normal",
    "sgm-uniform",
    "ddim-uniform",
    "beta",
    "linear-quadratic",
    "ays-sd",
    "ays-sdxl",
    "ays-svd",
];
/// Transforms that may follow a spacing and a space in the names [`grid`] knows.
pub const TRANSFORMS: &[&str] = &["karras", "exponential", "polyexponential", "beta", "kl-optimal", "lu"];

/// A name nothing has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} is called {name:?}{}; there are {}", hint(.nearest), .known.join(", "))]
pub struct UnknownName {
    /// What was looked for: sampler, prediction, schedule, grid or transform.
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
        Self { kind, name: name.to_owned(), nearest: nearest(name, known), known }
    }
}

/// The most similar of some names, if one is similar.
pub(crate) fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let score = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    let best = known.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)));
    best.filter(|other| score(other) > 0.7)
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
        "edm-heun" => Box::new(EdmHeun),
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
        "euler-ancestral" => Box::new(EulerAncestral::default()),
        "euler-ancestral-rf" => Box::new(EulerAncestral(Ancestral::rectified_flow(1.0))),
        "dpm2-ancestral" => Box::new(Dpm2Ancestral::default()),
        "dpmpp-2s-ancestral" => Box::new(DpmPp2sAncestral::default()),
        "dpmpp-sde" => Box::new(DpmPpSde::default()),
        "dpmpp-2s-sde" => Box::new(DpmSingleSde(DpmSingle::two_s())),
        "dpmpp-2m-sde" => Box::new(DpmPp2mSde::default()),
        "dpmpp-2m-sde-heun" => Box::new(DpmPp2mSde { solver: SolverType::Heun, ..Default::default() }),
        "dpmpp-3m-sde" => Box::new(DpmPp3mSde::default()),
        "sde-dpm-solver" => Box::new(SdeDpmSolver::default()),
        "sa-solver" => Box::new(SaSolver::default()),
        "sit-euler" => Box::new(SitEuler::default()),
        "sit-heun" => Box::new(SitHeun::default()),
        "flow-grpo" => Box::new(FlowSde(FlowNoise::FlowGrpo(0.7))),
        "dance-grpo" => Box::new(FlowSde(FlowNoise::DanceGrpo(0.3))),
        "cps" => Box::new(FlowSde(FlowNoise::Cps(0.7))),
        "lcm" => Box::new(Lcm),
        "tcd" => Box::new(Tcd::default()),
        "consistency-model" => Box::new(ConsistencyModel::default()),
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
        "sigmoid" => Box::new(Vp::from_betas(&betas::sigmoid(1000, 1e-4, 0.02))),
        "laplace" => Box::new(Vp::from_betas(&betas::laplace(1000, 0.999))),
        "zero-snr" => Box::new(Vp::scaled_linear(1000).zero_terminal_snr()),
        "vp-sde" => Box::new(VpSde::default()),
        "sub-vp" => Box::new(SubVp::default()),
        "ve" => Box::new(Ve::default()),
        "edm" => Box::new(Edm::default()),
        "gvp" => Box::new(Gvp),
        "cosine-continuous" => Box::new(Cosine::default()),
        "laplace-continuous" => Box::new(Laplace::default()),
        _ => return Err(UnknownName::new("schedule", name, SCHEDULES)),
    })
}

/// The grid of this name: a spacing, and after a space a transform between its ends, each with its default
/// settings. What counts training steps counts 1000.
///
/// `lu` is `exponential` between the ends of all training steps.
///
/// # Errors
/// Names every spacing or transform and the nearest.
///
/// # Example
/// ```
/// use canvas_sched::{Timesteps, by_name};
/// assert_eq!(by_name::grid("linspace karras")?, Timesteps::linspace(1000).karras());
/// # Ok::<(), by_name::UnknownName>(())
/// ```
pub fn grid(name: &str) -> Result<Timesteps, UnknownName> {
    let (spacing, transform) = name.split_once(' ').unwrap_or((name, ""));
    let grid = match spacing {
        "uniform" => Timesteps::uniform(),
        "edm" => Timesteps::edm(),
        "linspace" | "normal" => Timesteps::linspace(1000),
        "linspace-rounded" => Timesteps::training(1000, Rule::Linspace),
        "linspace-open" => Timesteps::training(1000, Rule::LinspaceOpen),
        "leading" => Timesteps::leading(1000, 0),
        "leading-open" => Timesteps::training(1000, Rule::LeadingOpen { offset: 0 }),
        "trailing" => Timesteps::trailing(1000),
        "simple" => Timesteps::training(1000, Rule::Simple),
        "sgm-uniform" => Timesteps::sgm_uniform(1000),
        "ddim-uniform" => Timesteps::leading(1000, 1),
        "beta" => Timesteps::new(Spacing::Beta { alpha: 0.6, beta: 0.6, train: 1000 }),
        "linear-quadratic" => Timesteps::new(Spacing::LinearQuadratic { threshold: 0.025 }),
        "ays-sd" => Timesteps::new(Spacing::Ays(Ays::Sd)),
        "ays-sdxl" => Timesteps::new(Spacing::Ays(Ays::Sdxl)),
        "ays-svd" => Timesteps::new(Spacing::Ays(Ays::Svd)),
        _ => return Err(UnknownName::new("grid", spacing, GRIDS)),
    };
    Ok(match transform {
        "" => grid,
        "karras" => grid.karras(),
        "exponential" => grid.exponential(),
        "polyexponential" => grid.transformed(Transform::Polyexponential { rho: 1.0 }),
        "beta" => grid.beta(),
        "kl-optimal" => grid.transformed(Transform::KlOptimal),
        "lu" => grid.exponential().between(Ends::Times { first: 1.0, last: 0.001 }),
        _ => return Err(UnknownName::new("transform", transform, TRANSFORMS)),
    })
}
