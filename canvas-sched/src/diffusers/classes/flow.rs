//! The flow-matching classes.

use super::super::fields::Fields;
use super::super::flow::{FlowGrid, ShiftKind};
use super::super::predictions::ToldFlow;
use super::super::sigmas::transform;
use super::super::{Options, Scheduler, Start};
use super::Built;
use crate::{Euler, Heun, Lcm, Transform, schedule};
use canvas_core::Sampler;
use serde_json::json;

pub(super) fn flow_match<const D: usize>(
    fields: &Fields,
    class: &'static str,
    options: &Options,
) -> Built<D> {
    let train = fields.count("num_train_timesteps", 1000, 1, 1_000_000)?;
    let number = |field, default| fields.number(field, default, f64::MIN_POSITIVE, 1e9);
    let few = (number("base_image_seq_len", 256.0)?, number("base_shift", 0.5)?);
    let many = (number("max_image_seq_len", 4096.0)?, number("max_shift", 1.15)?);
    let kind = ShiftKind::read(fields, "shift", true)?;
    let terminal = fields.optional("shift_terminal", 0.0, 1.0)?.filter(|terminal| *terminal > 0.0);
    let inverted = fields.flag("invert_sigmas", false)?;
    let stochastic = if class == "FlowMatchLCMScheduler" {
        fields.only("scale_factors", &json!(null))?;
        fields.word(
            "upscale_mode",
            "bicubic",
            &["bicubic", "nearest", "bilinear", "area", "linear", "trilinear"],
        )?;
        true
    } else {
        fields.flag("stochastic_sampling", false)?
    };
    if stochastic && inverted {
        return Err(fields.refuse(
            "invert_sigmas",
            "false where fresh noise is drawn: diffusers adds it to the wrong end",
            true,
        ));
    }
    let grid = FlowGrid {
        class,
        train,
        kind,
        terminal,
        transform: transform(fields, false)?.0,
        inverted,
        compat: options.compat,
        custom: true,
        uniform: false,
    };
    let sampler: Box<dyn Sampler<D>> = if stochastic { Box::new(Lcm) } else { Box::new(Euler) };
    let sizes = (!matches!(kind, ShiftKind::Static(_))).then_some([few, many]);
    Ok(Scheduler { sizes, ..on_flow(grid, sampler) })
}

fn on_flow<const D: usize>(grid: FlowGrid, sampler: Box<dyn Sampler<D>>) -> Scheduler<D> {
    Scheduler {
        class: grid.class.to_owned(),
        schedule: Box::new(schedule::Flow::default()),
        prediction: Box::new(ToldFlow { sign: if grid.inverted { -1.0 } else { 1.0 } }),
        sampler,
        steps_per_time: grid.train as f64,
        start: Start::Unit,
        grid: Box::new(grid),
        repeats: false,
        sizes: None,
    }
}

/// The flow classes with a static shift and nothing else.
///
/// FlowMapEuler's network is told two times, which a denoiser is not: use its grid and
/// [`FlowMap`](crate::flow_map::FlowMap). The sampler here is its step, for networks of one time.
pub(super) fn flow_straight<const D: usize>(
    fields: &Fields,
    class: &'static str,
    options: &Options,
) -> Built<D> {
    let train = fields.count("num_train_timesteps", 1000, 1, 1_000_000)?;
    let shift = fields.number("shift", 1.0, f64::MIN_POSITIVE, 1e6)?;
    let map = class == "FlowMapEulerDiscreteScheduler";
    let grid = FlowGrid {
        class,
        train,
        kind: ShiftKind::Static(shift),
        terminal: None,
        transform: Transform::None,
        inverted: false,
        compat: options.compat,
        custom: map,
        uniform: map,
    };
    let sampler: Box<dyn Sampler<D>> = if map { Box::new(Euler) } else { Box::new(Heun) };
    Ok(on_flow(grid, sampler))
}
