//! Euler, LMS, Heun, DPM2, DPM++ SDE: the classes after k-diffusion.

use super::super::fields::Fields;
use super::super::sigmas::{SigmaGrid, transform};
use super::super::spacing::{Kind, Spaced, Variant};
use super::super::table::{DDPM, K_DIFFUSION, Rescale, Table};
use super::super::wrap::{Change, Changed, EarlyChurn};
use super::super::{Compat, DiffusersError, Options, Start};
use super::{Built, EPS_V, EPS_X_V, churn, final_sigma, on_table, prediction};
use crate::{
    Ancestral, Dpm2, Dpm2Ancestral, DpmPpSde, EdmHeun, Euler, EulerAncestral, Final, Lms, Round, Transform,
};
use canvas_core::Sampler;
use serde_json::json;

pub(super) fn euler<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, Rescale::AboveZero)?;
    let spaced = Spaced::read(fields, "linspace", Variant::Real, table.train())?;
    let start = start(&spaced);
    let known = ["epsilon", "v_prediction", "sample", "original_sample"];
    let prediction = || prediction(fields, &known);
    let velocity = fields.word("prediction_type", "epsilon", &known)? == "v_prediction";
    let continuous = fields.word("timestep_type", "discrete", &["discrete", "continuous"])? == "continuous";
    let any = (f64::MIN_POSITIVE, f64::MAX);
    let grid = SigmaGrid {
        transform: transform(fields, false)?.0,
        ends: (fields.optional("sigma_min", any.0, any.1)?, fields.optional("sigma_max", any.0, any.1)?),
        log_linear: fields.word("interpolation_type", "linear", &["linear", "log_linear"])? == "log_linear",
        continuous: continuous && velocity,
        last: final_sigma(fields, Final::At(table.first()))?,
        custom: true,
        ..SigmaGrid::new(class, &table, spaced)
    };
    let churn = churn(options);
    let sampler: Box<dyn Sampler<D>> = match options.compat {
        _ if churn.amount == 0.0 => Box::new(Euler),
        Compat::Corrected => Box::new(churn),
        Compat::Diffusers => Box::new(EarlyChurn { churn, prediction: prediction()?, read_before: velocity }),
    };
    Ok(on_table(class, table, prediction()?, sampler, start, grid))
}

/// The classes that only differ in the sampler.
pub(super) fn others<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let (sampler, defaults, round): (Box<dyn Sampler<D>>, _, _) = match class {
        "EulerAncestralDiscreteScheduler" => (Box::new(EulerAncestral::default()), DDPM, Round::Keep),
        "LMSDiscreteScheduler" => (Box::new(Lms { order: options.order }), DDPM, Round::Keep),
        "HeunDiscreteScheduler" => (heun(fields)?, K_DIFFUSION, Round::Keep),
        "KDPM2DiscreteScheduler" => (Box::new(Dpm2), K_DIFFUSION, Round::Nearest),
        "KDPM2AncestralDiscreteScheduler" => {
            (Box::new(Dpm2Ancestral::default()), K_DIFFUSION, Round::Nearest)
        }
        _ => {
            fields.only("noise_sampler_seed", &json!(null))?; // the noise is the run's
            let ancestral = Ancestral { noise: options.s_noise, ..Ancestral::default() };
            (Box::new(DpmPpSde { ancestral, ..DpmPpSde::default() }), K_DIFFUSION, Round::Keep)
        }
    };
    let plain = class == "EulerAncestralDiscreteScheduler";
    let rescale = if plain { Rescale::AboveZero } else { Rescale::Never };
    let table = Table::read(fields, defaults, rescale)?;
    let spaced = Spaced::read(fields, "linspace", Variant::Real, table.train())?;
    let start = start(&spaced);
    let transform = if plain { Transform::None } else { transform(fields, false)?.0 };
    let samples = ["LMSDiscreteScheduler", "HeunDiscreteScheduler"].contains(&class);
    let prediction = prediction(fields, if samples { EPS_X_V } else { EPS_V })?;
    let karras = matches!(transform, Transform::Karras { .. });
    let round = if karras { round } else { Round::Keep };
    let grid = SigmaGrid { transform, round, ..SigmaGrid::new(class, &table, spaced) };
    Ok(on_table(class, table, prediction, sampler, start, grid))
}

/// Heun's sampler, whose class may clip.
fn heun<const D: usize>(fields: &Fields) -> Result<Box<dyn Sampler<D>>, DiffusersError> {
    let clip = fields.flag("clip_sample", false)?;
    let least = if clip { 0.0 } else { f64::NEG_INFINITY };
    let change = Change::Clip(fields.number("clip_sample_range", 1.0, least, f64::INFINITY)?);
    Ok(match clip {
        true => Box::new(Changed { inner: EdmHeun, change, keep_noise: false }),
        false => Box::new(EdmHeun),
    })
}

fn start(spaced: &Spaced) -> Start {
    if spaced.kind == Kind::Leading { Start::Total } else { Start::Sigma }
}
