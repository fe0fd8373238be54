//! Which fields each class has, and what they mean here: one function a class, or a family of classes.

mod ddpm;
mod dpm_solver;
mod flow;
mod k_diffusion;
mod other;

use super::ask::Places;
use super::fields::Fields;
use super::predictions::ToldFlow;
use super::table::Table;
use super::wrap::{Change, Changed};
use super::{DiffusersError, Options, Scheduler, Start};
use crate::{Churned, Euler, Final, predict};
use canvas_core::{NoiseSchedule, Prediction, Sampler};

type Built<const D: usize> = Result<Scheduler<D>, DiffusersError>;

/// Builds the scheduler of the class the fields name.
pub(super) fn build<const D: usize>(fields: &Fields, options: &Options) -> Built<D> {
    let class = super::CLASSES.iter().find(|class| **class == fields.class).expect("checked by the caller");
    check(fields, options)?;
    match *class {
        "DDPMScheduler" | "DDPMParallelScheduler" => ddpm::ddpm(fields, class, options),
        "DDIMScheduler" | "DDIMParallelScheduler" => ddpm::ddim(fields, class, options),
        "DDIMInverseScheduler" => ddpm::ddim_inverse(fields, class, options),
        "PNDMScheduler" => ddpm::pndm(fields, class, options),
        "LCMScheduler" | "TCDScheduler" => ddpm::distilled(fields, class, options),
        "EulerDiscreteScheduler" => k_diffusion::euler(fields, class, options),
        "EulerAncestralDiscreteScheduler"
        | "LMSDiscreteScheduler"
        | "HeunDiscreteScheduler"
        | "KDPM2DiscreteScheduler"
        | "KDPM2AncestralDiscreteScheduler"
        | "DPMSolverSDEScheduler" => k_diffusion::others(fields, class, options),
        "DPMSolverMultistepScheduler" => dpm_solver::multistep(fields, class, options, false),
        "DPMSolverMultistepInverseScheduler" => dpm_solver::multistep(fields, class, options, true),
        "DPMSolverSinglestepScheduler" => dpm_solver::singlestep(fields, class, options),
        "UniPCMultistepScheduler" => dpm_solver::unipc(fields, class, options),
        "DEISMultistepScheduler" => dpm_solver::deis(fields, class, options),
        "SASolverScheduler" => dpm_solver::sa_solver(fields, class, options),
        "EDMEulerScheduler" | "EDMDPMSolverMultistepScheduler" => other::edm(fields, class, options),
        "CMStochasticIterativeScheduler" => other::consistency(fields),
        "SCMScheduler" => other::scm(fields),
        "IPNDMScheduler" => other::ipndm(fields, class),
        "FlowMatchEulerDiscreteScheduler" | "FlowMatchLCMScheduler" => {
            flow::flow_match(fields, class, options)
        }
        _ => flow::flow_straight(fields, class, options),
    }
}

/// Refuses options that the class does not take.
fn check(fields: &Fields, options: &Options) -> Result<(), DiffusersError> {
    let class = fields.class.as_str();
    let taken = [
        (options.s_churn > 0.0, "s_churn", ["EulerDiscreteScheduler", "EDMEulerScheduler", ""]),
        (options.eta.is_some(), "eta", ["DDIMScheduler", "DDIMParallelScheduler", "TCDScheduler"]),
        (
            options.use_clipped_model_output,
            "use_clipped_model_output",
            ["DDIMScheduler", "DDIMParallelScheduler", ""],
        ),
        (options.tau.is_some(), "tau", ["SASolverScheduler", "", ""]),
        (
            options.original_inference_steps.is_some(),
            "original_inference_steps",
            ["LCMScheduler", "TCDScheduler", ""],
        ),
    ];
    for (given, name, classes) in taken {
        if given && !classes.contains(&class) {
            let takers = classes.join(" ");
            return Err(fields.refuse(
                name,
                format!("no such option (only {} take it)", takers.trim()),
                "one",
            ));
        }
    }
    let eta = options.eta.unwrap_or(0.0);
    if !(0.0..=1.0).contains(&eta) {
        return Err(fields.refuse("eta", "a number within [0, 1]", eta));
    }
    Ok(())
}

/// `epsilon`, `sample`, `v_prediction`; the classes differ in which they take.
fn prediction(fields: &Fields, known: &[&str]) -> Result<Box<dyn Prediction>, DiffusersError> {
    Ok(match &*fields.word("prediction_type", "epsilon", known)? {
        "epsilon" => Box::new(predict::Epsilon),
        "v_prediction" => Box::new(predict::Velocity),
        "flow_prediction" => Box::new(ToldFlow { sign: 1.0 }),
        _ => Box::new(predict::Sample),
    })
}

const EPS_V: &[&str] = &["epsilon", "v_prediction"];
const EPS_X_V: &[&str] = &["epsilon", "sample", "v_prediction"];
const ALL: &[&str] = &["epsilon", "sample", "v_prediction", "flow_prediction"];

/// `thresholding`, which goes before `clip_sample`.
fn limited<const D: usize>(
    fields: &Fields,
    clip: Option<bool>,
    keep_noise: bool,
    inner: Box<dyn Sampler<D>>,
) -> Result<Box<dyn Sampler<D>>, DiffusersError> {
    let clip = match clip {
        Some(default) => fields.flag("clip_sample", default)?,
        None => false,
    };
    let range = match clip {
        true => fields.number("clip_sample_range", 1.0, 0.0, f64::INFINITY)?,
        false => fields.number("clip_sample_range", 1.0, f64::NEG_INFINITY, f64::INFINITY)?,
    };
    let threshold = fields.flag("thresholding", false)?;
    let quantile = fields.number("dynamic_thresholding_ratio", 0.995, 0.0, 1.0)?;
    let max = fields.number("sample_max_value", 1.0, 1.0, f64::INFINITY)?;
    let change = match (threshold, clip) {
        (true, _) => Change::Threshold(quantile, max),
        (false, true) => Change::Clip(range),
        (false, false) => return Ok(inner),
    };
    Ok(Box::new(Changed { inner, change, keep_noise }))
}

/// Only thresholding: the solvers have no clipping.
fn thresholded<const D: usize>(
    fields: &Fields,
    inner: Box<dyn Sampler<D>>,
) -> Result<Box<dyn Sampler<D>>, DiffusersError> {
    let threshold = fields.flag("thresholding", false)?;
    let quantile = fields.number("dynamic_thresholding_ratio", 0.995, 0.0, 1.0)?;
    let max = fields.number("sample_max_value", 1.0, 1.0, f64::INFINITY)?;
    let change = Change::Threshold(quantile, max);
    Ok(if threshold { Box::new(Changed { inner, change, keep_noise: false }) } else { inner })
}

/// A scheduler on the training table.
fn on_table<const D: usize>(
    class: &str,
    table: Table,
    prediction: Box<dyn Prediction>,
    sampler: Box<dyn Sampler<D>>,
    start: Start,
    grid: impl Places + 'static,
) -> Scheduler<D> {
    let steps_per_time = table.train() as f64;
    let schedule = Box::new(table) as Box<dyn NoiseSchedule>;
    let (class, grid) = (class.to_owned(), Box::new(grid));
    Scheduler {
        class,
        schedule,
        prediction,
        sampler,
        steps_per_time,
        start,
        grid,
        repeats: false,
        sizes: None,
    }
}

fn churn(options: &Options) -> Churned<Euler> {
    Churned { inner: Euler, amount: options.s_churn, range: options.s_range, noise: options.s_noise }
}

/// `final_sigmas_type`: clean, or `least`.
fn final_sigma(fields: &Fields, least: Final) -> Result<Final, DiffusersError> {
    let word = fields.word("final_sigmas_type", "zero", &["zero", "sigma_min"])?;
    Ok(if word == "zero" { Final::Clean } else { least })
}
