//! DDPM, DDIM and its inversion, PNDM, LCM, TCD: classes on whole training steps.

use super::super::Scheduler;
use super::super::fields::Fields;
use super::super::pndm::PndmCalls;
use super::super::spacing::{Kind, OriginGrid, Spaced, StepGrid, Variant};
use super::super::table::{DDPM, LATENT, Rescale, Table};
use super::super::wrap::{Change, Changed, InverseDdim, Strided};
use super::super::{Compat, DiffusersError, Options, Start};
use super::{Built, EPS_V, EPS_X_V, limited, on_table, prediction};
use crate::pseudo::Extrapolated;
use crate::{Ddim, DdimInversion, Ddpm, Lcm, Pndm, Tcd, Variance, WarmUp};
use canvas_core::Sampler;

/// What the classes share: the spacing of whole training steps.
fn steps(fields: &Fields, class: &'static str, table: &Table) -> Result<StepGrid, DiffusersError> {
    let spaced = Spaced::read(fields, "leading", Variant::Whole, table.train())?;
    let table = table.clone();
    Ok(StepGrid { class, table, spaced, clean: true, least: (1, ""), custom: false, rising: false })
}

pub(super) fn ddpm<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, Rescale::ToZero)?;
    let all =
        ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range", "fixed_large_log"];
    // diffusers takes the root of a negative logarithm for the last, which is not a number.
    let known = if options.compat == Compat::Diffusers { &all[..5] } else { &all[..] };
    let variance = match &*fields.word("variance_type", "fixed_small", known)? {
        "fixed_large" | "fixed_large_log" => Variance::FixedLarge,
        "learned" => Variance::Learned,
        "learned_range" => Variance::LearnedRange,
        _ => Variance::FixedSmall,
    };
    let mut inner: Box<dyn Sampler<D>> = Box::new(Ddpm { variance });
    if variance == Variance::Learned && options.compat == Compat::Diffusers {
        inner = Box::new(Changed { inner, change: Change::Variance, keep_noise: false });
    }
    let sampler = limited(fields, Some(true), false, inner)?;
    let grid = StepGrid { custom: true, ..steps(fields, class, &table)? };
    Ok(on_table(class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}

pub(super) fn ddim<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, Rescale::ToZero)?;
    let inner = Box::new(Ddim { eta: options.eta.unwrap_or(0.0) });
    let limited = limited(fields, Some(true), !options.use_clipped_model_output, inner)?;
    let clean = fields.flag("set_alpha_to_one", true)?;
    let grid = StepGrid { clean, ..steps(fields, class, &table)? };
    let sampler = match options.compat {
        Compat::Diffusers => {
            Box::new(Strided { inner: limited, table: table.clone(), end: table.end(clean) })
        }
        Compat::Corrected => limited,
    };
    Ok(on_table(class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}

pub(super) fn ddim_inverse<const D: usize>(
    fields: &Fields,
    class: &'static str,
    options: &Options,
) -> Built<D> {
    let table = Table::read(fields, DDPM, Rescale::ToZero)?;
    let clip = fields.flag("clip_sample", true)?;
    let range = fields.number("clip_sample_range", 1.0, 0.0, f64::INFINITY)?;
    let sampler: Box<dyn Sampler<D>> = match options.compat {
        Compat::Diffusers => {
            let prediction = prediction(fields, EPS_X_V)?;
            Box::new(InverseDdim { prediction, clip: clip.then_some(range) })
        }
        // An inversion of clipped estimates leads back to another image.
        Compat::Corrected => Box::new(DdimInversion),
    };
    let clean = fields.flag("set_alpha_to_one", true)?;
    let grid = StepGrid { clean, rising: true, ..steps(fields, class, &table)? };
    if grid.spaced.kind == Kind::Linspace {
        return Err(fields.refuse("timestep_spacing", "one of leading, trailing", "linspace"));
    }
    Ok(on_table(class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}

pub(super) fn pndm<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, Rescale::Never)?;
    let skip = fields.flag("skip_prk_steps", false)?;
    let warm_up = if skip { WarmUp::Average } else { WarmUp::RungeKutta };
    let clean = fields.flag("set_alpha_to_one", false)?;
    let prediction = prediction(fields, EPS_V)?;
    // diffusers mixes what the network says at several times, and reads the mixture at one.
    let velocity = fields.word("prediction_type", "epsilon", EPS_V)? == "v_prediction";
    let mixed = velocity && options.compat == Compat::Diffusers;
    let of = if mixed { Extrapolated::Velocity } else { Extrapolated::Noise };
    let least = if skip { (1, "") } else { (4, "skip_prk_steps is off, and the Runge-Kutta start takes 3") };
    let grid = StepGrid { clean, least, ..steps(fields, class, &table)? };
    let inner = Pndm { warm_up, of };
    let sampler: Box<dyn Sampler<D>> = match options.compat {
        Compat::Diffusers => Box::new(PndmCalls { inner, table: table.clone(), end: table.end(clean) }),
        Compat::Corrected => Box::new(inner),
    };
    let repeats = skip && options.compat == Compat::Diffusers;
    Ok(Scheduler { repeats, ..on_table(class, table, prediction, sampler, Start::Unit, grid) })
}

pub(super) fn distilled<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, LATENT, Rescale::ToZero)?;
    let train = table.train();
    let origin = fields.count("original_inference_steps", 50.min(train), 1, train)?;
    let origin = options.original_inference_steps.unwrap_or(origin);
    if origin == 0 || origin > train {
        return Err(fields.refuse(
            "original_inference_steps",
            format!("an integer within [1, {train}]"),
            origin,
        ));
    }
    // Read because they stand in every file; diffusers does not use them in these classes either.
    Spaced::read(fields, "leading", Variant::Whole, train)?;
    fields.flag("set_alpha_to_one", true)?;
    let scaling = fields.number("timestep_scaling", 10.0, 0.0, f64::INFINITY)?;
    let lcm = class == "LCMScheduler";
    let inner: Box<dyn Sampler<D>> = if lcm {
        let change = Change::Boundary(scaling * train as f64);
        Box::new(Changed { inner: Lcm, change, keep_noise: false })
    } else {
        let whole = (options.compat == Compat::Diffusers).then_some(train);
        Box::new(Tcd { gamma: options.eta.unwrap_or(0.3), whole })
    };
    // TCD's class reads the fields of clipping and does not clip.
    let sampler = if lcm {
        limited(fields, Some(false), false, inner)?
    } else {
        limited::<D>(fields, Some(false), false, Box::new(Lcm))?;
        inner
    };
    let every = !lcm && options.original_inference_steps.is_some();
    let grid = OriginGrid { class, table: table.clone(), origin, every, last: table.last(lcm) };
    Ok(on_table(class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}
