//! EDM, consistency models, SCM, IPNDM: classes with an axis of their own.

use super::super::angles::{Circle, ConsistencyGrid, Fixed, Open, Squared};
use super::super::fields::Fields;
use super::super::predictions::NegatedEdm;
use super::super::wrap::{Change, Changed, EarlyChurn};
use super::super::{Compat, Options, Scheduler, Start};
use super::dpm_solver::dpm_sampler;
use super::{Built, EPS_V, churn, final_sigma, thresholded};
use crate::{ConsistencyModel, Euler, Final, Ipndm, Lcm, Timesteps, predict, schedule};
use canvas_core::{Prediction, Sampler};
use serde_json::json;

pub(super) fn edm<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let positive = |field, default| fields.number(field, default, f64::MIN_POSITIVE, f64::MAX);
    let (low, high) = (positive("sigma_min", 0.002)?, positive("sigma_max", 80.0)?);
    let (rho, sigma_data) = (positive("rho", 7.0)?, positive("sigma_data", 0.5)?);
    if low >= high {
        return Err(fields.refuse("sigma_min", format!("less than sigma_max ({high})"), low));
    }
    fields.count("num_train_timesteps", 1000, 1, usize::MAX)?; // only makes a grid that is replaced
    let karras = fields.word("sigma_schedule", "karras", &["karras", "exponential"])? == "karras";
    let grid = if karras { Timesteps::edm() } else { Timesteps::edm().exponential() };
    let least = if class == "EDMEulerScheduler" { Final::Repeat } else { Final::At(0.0) };
    let timesteps = grid.ending(final_sigma(fields, least)?);
    let on = Open(schedule::Edm { sigma_min: low, sigma_max: high, rho });
    let plain = predict::Edm { sigma_data };
    let epsilon = fields.word("prediction_type", "epsilon", EPS_V)? == "epsilon";
    let prediction =
        || -> Box<dyn Prediction> { if epsilon { Box::new(plain) } else { Box::new(NegatedEdm(plain)) } };
    let churn = churn(options);
    let sampler: Box<dyn Sampler<D>> = match options.compat {
        _ if class != "EDMEulerScheduler" => {
            let (inner, _) = dpm_sampler(fields, options, &["dpmsolver++", "deis", "sde-dpmsolver++"])?;
            thresholded(fields, inner)?
        }
        _ if churn.amount == 0.0 => Box::new(Euler),
        Compat::Corrected => Box::new(churn),
        Compat::Diffusers => Box::new(EarlyChurn { churn, prediction: prediction(), read_before: false }),
    };
    Ok(Scheduler {
        class: class.to_owned(),
        schedule: Box::new(on),
        prediction: prediction(),
        sampler,
        steps_per_time: 1.0,
        start: Start::Total,
        grid: Box::new(Fixed { class, on, timesteps }),
        repeats: false,
        sizes: None,
    })
}

pub(super) fn consistency<const D: usize>(fields: &Fields) -> Built<D> {
    let positive = |field, default| fields.number(field, default, f64::MIN_POSITIVE, f64::MAX);
    let (low, high) = (positive("sigma_min", 0.002)?, positive("sigma_max", 80.0)?);
    let (rho, sigma_data) = (positive("rho", 7.0)?, positive("sigma_data", 0.5)?);
    let train = fields.count("num_train_timesteps", 40, 1, usize::MAX)?;
    let on = schedule::Edm { sigma_min: low, sigma_max: high, rho };
    let noise = fields.number("s_noise", 1.0, 0.0, f64::MAX)?;
    let inner = ConsistencyModel { least: low, noise };
    let sampler: Box<dyn Sampler<D>> = if fields.flag("clip_denoised", true)? {
        Box::new(Changed { inner, change: Change::Clip(1.0), keep_noise: false })
    } else {
        Box::new(inner)
    };
    Ok(Scheduler {
        class: fields.class.clone(),
        schedule: Box::new(on),
        prediction: Box::new(predict::Consistency { sigma_data, least: low }),
        sampler,
        steps_per_time: 1000.0,
        start: Start::Sigma,
        grid: Box::new(ConsistencyGrid { train, on }),
        repeats: false,
        sizes: None,
    })
}

pub(super) fn scm<const D: usize>(fields: &Fields) -> Built<D> {
    fields.count("num_train_timesteps", 1000, 1, usize::MAX)?; // only a bound on the steps there
    fields.word("prediction_type", "trigflow", &["trigflow"])?;
    let sigma_data = fields.number("sigma_data", 0.5, f64::MIN_POSITIVE, f64::MAX)?;
    let circle = Circle { sigma_data };
    Ok(Scheduler {
        class: fields.class.clone(),
        schedule: Box::new(circle),
        prediction: Box::new(predict::TrigFlow { sigma_data }),
        sampler: Box::new(Lcm),
        steps_per_time: 1.0,
        start: Start::Sigma,
        grid: Box::new(circle),
        repeats: false,
        sizes: None,
    })
}

pub(super) fn ipndm<const D: usize>(fields: &Fields, class: &'static str) -> Built<D> {
    fields.count("num_train_timesteps", 1000, 1, usize::MAX)?; // only makes a grid that is replaced
    fields.only("trained_betas", &json!(null))?;
    let inner = Changed { inner: Ipndm::default(), change: Change::Blind, keep_noise: false };
    Ok(Scheduler {
        class: fields.class.clone(),
        schedule: Box::new(Squared),
        prediction: Box::new(predict::Velocity),
        sampler: Box::new(inner),
        steps_per_time: 1.0,
        start: Start::Unit,
        grid: Box::new(Fixed { class, on: Squared, timesteps: Timesteps::uniform() }),
        repeats: false,
        sizes: None,
    })
}
