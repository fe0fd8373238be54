//! DPM-Solver and DPM++, UniPC, DEIS, SA-Solver.

use super::super::fields::Fields;
use super::super::flow::{Shift, ShiftKind};
use super::super::sigmas::{SigmaGrid, transform};
use super::super::spacing::{Kind, Spaced, Variant};
use super::super::table::{DDPM, Rescale, SCHEDULES, Table};
use super::super::wrap::{Drawing, Finished};
use super::super::{Compat, DiffusersError, Options, Scheduler, Start};
use super::{ALL, Built, EPS_X_V, final_sigma, on_table, prediction, thresholded};
use crate::{
    Bh, Ddim, Deis, DpmPp, DpmPp2mSde, DpmPp3mSde, DpmSingle, DpmSingleSde, DpmSolver, Final, Finish, Form,
    Inversion, Round, SaSolver, SdeDpmSolver, SolverType, Transform, UniPc, schedule,
};
use canvas_core::{Level, Prediction, Sampler};
use serde_json::json;

/// What the DPM-Solver classes share: table, grid, prediction.
struct Solver {
    table: Table,
    grid: SigmaGrid,
    prediction: Box<dyn Prediction>,
}

impl Solver {
    /// `karras` is what becomes of training steps that are not whole with Karras' sigmas and Lu's lambdas;
    /// with all others they are cut. Corrected, they stay.
    fn read(
        fields: &Fields,
        class: &'static str,
        karras: Round,
        compat: Compat,
    ) -> Result<Self, DiffusersError> {
        let uni = class == "UniPCMultistepScheduler";
        let rescales = uni || class == "DPMSolverMultistepScheduler";
        let rescale = if rescales { Rescale::AboveZero } else { Rescale::Never };
        let table = Table::read(fields, DDPM, rescale)?;
        let train = table.train();
        let spaced = if class == "DPMSolverSinglestepScheduler" {
            Spaced { kind: Kind::Linspace, offset: 0, variant: Variant::Open, train, used: train }
        } else {
            Spaced::read(fields, "linspace", Variant::Open, train)?
        };
        let flow = fields.flag("use_flow_sigmas", false)?;
        let prediction = prediction(fields, if flow { &ALL[3..] } else { EPS_X_V })?;
        let (transform, field) = transform(fields, class == "DPMSolverMultistepScheduler")?;
        let terminal = if uni { fields.optional("shift_terminal", f64::MIN_POSITIVE, 1.0)? } else { None };
        let dynamic = !["SASolverScheduler", "DPMSolverMultistepInverseScheduler"].contains(&class);
        let shift =
            Shift { kind: ShiftKind::read(fields, "flow_shift", dynamic)?, terminal, from_noise: uni };
        let cut = !matches!(field, Some("use_karras_sigmas" | "use_lu_lambdas"));
        let grid = SigmaGrid {
            transform,
            round: match compat {
                Compat::Corrected => Round::Keep,
                Compat::Diffusers if cut => Round::Down,
                Compat::Diffusers => karras,
            },
            last: if transform == Transform::None && !flow {
                Final::At(table.first())
            } else {
                Final::Repeat
            },
            flow: flow.then_some(shift),
            ..SigmaGrid::new(class, &table, spaced)
        };
        Ok(Self { table, grid, prediction })
    }

    /// Ends as `final_sigmas_type` says.
    fn ending(&mut self, fields: &Fields) -> Result<(), DiffusersError> {
        self.grid.last = final_sigma(fields, Final::At(self.table.first()))?;
        Ok(())
    }

    /// Leaves out training steps whose `ln(alpha / sigma)` lies below `lambda_min_clipped`.
    fn clip_lambda(&mut self, fields: &Fields) -> Result<(), DiffusersError> {
        let least = fields.number("lambda_min_clipped", f64::NEG_INFINITY, f64::NEG_INFINITY, 1e3)?;
        let above = self.table.steps_above(least);
        if above == 0 {
            return Err(fields.refuse("lambda_min_clipped", "a value some training step reaches", least));
        }
        self.grid.spaced.used = above;
        Ok(())
    }

    fn build<const D: usize>(self, sampler: Box<dyn Sampler<D>>) -> Scheduler<D> {
        let (class, flow) = (self.grid.class, self.grid.flow.is_some());
        let mut scheduler = on_table(class, self.table, self.prediction, sampler, Start::Unit, self.grid);
        if flow {
            scheduler.schedule = Box::new(schedule::Flow::default());
        }
        scheduler
    }
}

/// `solver_type`, for which the solvers accept each other's words.
fn solver_type(fields: &Fields) -> Result<SolverType, DiffusersError> {
    let known = ["midpoint", "heun", "logrho", "bh1", "bh2"];
    let word = fields.word("solver_type", "midpoint", &known)?;
    Ok(if word == "heun" { SolverType::Heun } else { SolverType::Midpoint })
}

fn finish(fields: &Fields) -> Result<Finish, DiffusersError> {
    let lower = fields.flag("lower_order_final", true)?;
    let euler = fields.flag("euler_at_final", false)?;
    Ok(Finish { euler, ..if lower { Finish::SHORT_RUNS } else { Finish::FULL } })
}

/// DPM-Solver's multistep samplers by `algorithm_type`, `solver_type`, `solver_order`.
pub(super) fn dpm_sampler<const D: usize>(
    fields: &Fields,
    options: &Options,
    known: &[&str],
) -> Result<(Box<dyn Sampler<D>>, bool), DiffusersError> {
    let order = fields.count("solver_order", 2, 1, 3)?;
    let (solver, finish) = (solver_type(fields)?, finish(fields)?);
    let algorithm = fields.word("algorithm_type", "dpmsolver++", known)?;
    let third = algorithm.starts_with("sde") && order == 3;
    if third && (options.compat == Compat::Diffusers || algorithm == "sde-dpmsolver") {
        // A wrong sign in diffusers' third-order update, or no such update.
        return Err(fields.refuse("solver_order", format!("1 or 2 with {algorithm}"), order));
    }
    let noise = !algorithm.ends_with("++") && algorithm != "deis";
    let sampler: Box<dyn Sampler<D>> = match (&*algorithm, order) {
        ("dpmsolver", _) => Box::new(DpmSolver { order, solver, published: true, finish }),
        ("sde-dpmsolver++", 1) => Box::new(Ddim { eta: 1.0 }),
        ("sde-dpmsolver++", 3) => {
            Box::new(Finished { inner: DpmPp3mSde::default(), first: Ddim { eta: 1.0 }, finish })
        }
        ("sde-dpmsolver++", _) => {
            let inner = DpmPp2mSde { solver, ..DpmPp2mSde::default() };
            Box::new(Finished { inner, first: Ddim { eta: 1.0 }, finish })
        }
        ("sde-dpmsolver", _) => {
            let finish = if order == 1 { Finish { euler: true, lower_below: usize::MAX } } else { finish };
            Box::new(SdeDpmSolver { solver, order, finish })
        }
        _ => Box::new(DpmPp { order, solver, published: true, finish }),
    };
    Ok((sampler, noise))
}

const ALGORITHMS: &[&str] = &["dpmsolver++", "deis", "dpmsolver", "sde-dpmsolver", "sde-dpmsolver++"];

/// A learned variance is split off and not used, as in diffusers.
fn unused_variance(fields: &Fields) -> Result<(), DiffusersError> {
    fields.word("variance_type", "none", &["learned", "learned_range"]).map(drop)
}

pub(super) fn multistep<const D: usize>(
    fields: &Fields,
    class: &'static str,
    options: &Options,
    inverse: bool,
) -> Built<D> {
    let cosine = fields.word("beta_schedule", "linear", &SCHEDULES)? == "squaredcos_cap_v2";
    let mut solver =
        Solver::read(fields, class, if cosine { Round::Down } else { Round::Nearest }, options.compat)?;
    if !inverse {
        solver.ending(fields)?;
    }
    solver.clip_lambda(fields)?;
    unused_variance(fields)?;
    // The stochastic updates take the root of a negative number when they go up.
    let known = if inverse { &ALGORITHMS[..3] } else { ALGORITHMS };
    let (inner, noise) = dpm_sampler(fields, options, known)?;
    if noise && solver.grid.last == Final::Clean {
        return Err(fields.refuse("final_sigmas_type", "sigma_min with this algorithm_type", "zero"));
    }
    let mut sampler = thresholded(fields, inner)?;
    if inverse {
        if solver.grid.flow.is_some() {
            return Err(fields.refuse("use_flow_sigmas", "false: diffusers' grid then falls", true));
        }
        solver.grid.rising = true;
        sampler = Box::new(Inversion { inner: sampler });
    }
    Ok(solver.build(sampler))
}

pub(super) fn singlestep<const D: usize>(
    fields: &Fields,
    class: &'static str,
    options: &Options,
) -> Built<D> {
    let mut solver = Solver::read(fields, class, Round::Nearest, options.compat)?;
    solver.ending(fields)?;
    solver.clip_lambda(fields)?;
    unused_variance(fields)?;
    let order = fields.count("solver_order", 2, 1, 3)?;
    let kind = solver_type(fields)?;
    let finish = fields.flag("lower_order_final", false)? || solver.grid.last == Final::Clean;
    let known = ["dpmsolver++", "deis", "dpmsolver", "sde-dpmsolver++"];
    let algorithm = fields.word("algorithm_type", "dpmsolver++", &known)?;
    let form = if algorithm == "dpmsolver" { Form::Noise } else { Form::Data };
    if form == Form::Noise && solver.grid.last == Final::Clean {
        return Err(fields.refuse("final_sigmas_type", "sigma_min with this algorithm_type", "zero"));
    }
    let blocks = DpmSingle { form, order, solver: kind, finish };
    let inner: Box<dyn Sampler<D>> = if algorithm.starts_with("sde") {
        if (order, kind, options.compat) == (3, SolverType::Heun, Compat::Diffusers) {
            // A wrong sign in diffusers' third-order update.
            return Err(fields.refuse("solver_order", "1 or 2 with sde-dpmsolver++ and heun", order));
        }
        Box::new(DpmSingleSde(blocks))
    } else {
        Box::new(blocks)
    };
    Ok(solver.build(thresholded(fields, inner)?))
}

pub(super) fn unipc<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let mut solver = Solver::read(fields, class, Round::Nearest, options.compat)?;
    solver.grid.last = final_sigma(fields, solver.grid.last)?;
    let any = (f64::MIN_POSITIVE, f64::MAX);
    solver.grid.ends =
        (fields.optional("sigma_min", any.0, any.1)?, fields.optional("sigma_max", any.0, any.1)?);
    if solver.grid.flow.is_some()
        && !matches!(solver.grid.transform, Transform::None | Transform::Karras { .. })
    {
        // diffusers takes ratios of up to 157 for straight-line sigmas there.
        return Err(fields.refuse("use_flow_sigmas", "false with exponential or beta sigmas", true));
    }
    fields.only("solver_p", &json!(null))?;
    let known = ["bh2", "bh1", "midpoint", "heun", "logrho"];
    let bh = if fields.word("solver_type", "bh2", &known)? == "bh1" { Bh::One } else { Bh::Two };
    let skipped = fields.list("disable_corrector")?.unwrap_or_default();
    if skipped.iter().enumerate().any(|(index, &step)| step != index as f64) {
        return Err(fields.refuse(
            "disable_corrector",
            "the first steps in order: [0, 1, ..]",
            format!("{skipped:?}"),
        ));
    }
    let lower = fields.flag("lower_order_final", true)?;
    let inner = Box::new(UniPc {
        order: fields.count("solver_order", 2, 1, 9)?,
        bh,
        form: if fields.flag("predict_x0", true)? { Form::Data } else { Form::Noise },
        uncorrected: skipped.len(),
        finish: if lower { Finish::LOWER } else { Finish::FULL },
    });
    Ok(solver.build(thresholded(fields, inner)?))
}

pub(super) fn deis<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let solver = Solver::read(fields, class, Round::Nearest, options.compat)?;
    fields.word("algorithm_type", "deis", &["deis", "dpmsolver", "dpmsolver++"])?;
    fields.word("solver_type", "logrho", &["logrho", "midpoint", "heun", "bh1", "bh2"])?;
    let lower = fields.flag("lower_order_final", true)?;
    let finish = if lower { Finish::SHORT_RUNS } else { Finish::FULL };
    let inner = Box::new(Deis { order: fields.count("solver_order", 2, 1, 3)?, finish });
    Ok(solver.build(thresholded(fields, inner)?))
}

pub(super) fn sa_solver<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let mut solver = Solver::read(fields, class, Round::Nearest, options.compat)?;
    solver.clip_lambda(fields)?;
    fields.only("variance_type", &json!(null))?;
    fields.only("tau_func", &json!(null))?;
    let algorithm =
        fields.word("algorithm_type", "data_prediction", &["data_prediction", "noise_prediction"])?;
    let form = if algorithm == "data_prediction" { Form::Data } else { Form::Noise };
    let (tau, train) = (options.tau, solver.table.train() as f64);
    let tau = move |level: Level| {
        let within = (200.0..=800.0).contains(&(level.time * train).round());
        tau.unwrap_or(if within { 1.0 } else { 0.0 })
    };
    let predictor = fields.count("predictor_order", 2, 1, 9)?;
    let corrector = fields.count("corrector_order", 2, 0, 9)?;
    let lower = fields.flag("lower_order_final", true)?;
    let inner = SaSolver { predictor, corrector, tau, lower, form };
    let inner: Box<dyn Sampler<D>> = match options.compat {
        Compat::Diffusers => Box::new(Drawing(inner)),
        Compat::Corrected => Box::new(inner),
    };
    Ok(solver.build(thresholded(fields, inner)?))
}
