//! One function a class, or a family of classes: which fields it has, and what they mean here.

use super::angles::{Circle, ConsistencyGrid, EdmEnd, EdmGrid, Open, Squared};
use super::fields::Fields;
use super::flow::{FlowGrid, Shift, ShiftKind};
use super::pndm::PndmCalls;
use super::predictions::{NegatedEdm, ToldFlow};
use super::sigmas::{End, SigmaGrid, Told, Transform};
use super::steps::{Kind, OriginGrid, RisingGrid, Spacing, StepGrid, end};
use super::table::{DDPM, Defaults, K_DIFFUSION, LATENT, Table};
use super::wrap::{Change, Changed, Drawing, EarlyChurn, Finished, InverseDdim, Strided};
use super::{Compat, DiffusersError, Options, Rule, Scheduler, Start};
use crate::*;
use canvas_core::{Level, NoiseSchedule, Prediction, Sampler};
use serde_json::json;

type Built<const D: usize> = Result<Scheduler<D>, DiffusersError>;

/// Builds the scheduler of the class the fields name.
pub(super) fn build<const D: usize>(fields: &Fields, options: &Options) -> Built<D> {
    let class = super::CLASSES.iter().find(|class| **class == fields.class).expect("checked by the caller");
    check(fields, options)?;
    match *class {
        "DDPMScheduler" | "DDPMParallelScheduler" => ddpm(fields, class, options),
        "DDIMScheduler" | "DDIMParallelScheduler" => ddim(fields, class, options),
        "DDIMInverseScheduler" => ddim_inverse(fields, options),
        "PNDMScheduler" => pndm(fields, class, options),
        "LCMScheduler" | "TCDScheduler" => distilled(fields, class, options),
        "EulerDiscreteScheduler" => euler(fields, class, options),
        "EulerAncestralDiscreteScheduler" => {
            k_diffusion(fields, class, DDPM, Told::Exact, Box::new(EulerAncestral::default()))
        }
        "LMSDiscreteScheduler" => {
            k_diffusion(fields, class, DDPM, Told::Exact, Box::new(Lms { order: options.order }))
        }
        "HeunDiscreteScheduler" => k_diffusion(fields, class, K_DIFFUSION, Told::Exact, Box::new(EdmHeun)),
        "KDPM2DiscreteScheduler" => k_diffusion(fields, class, K_DIFFUSION, Told::Rounded, Box::new(Dpm2)),
        "KDPM2AncestralDiscreteScheduler" => {
            k_diffusion(fields, class, K_DIFFUSION, Told::Rounded, Box::new(Dpm2Ancestral::default()))
        }
        "DPMSolverSDEScheduler" => {
            fields.only("noise_sampler_seed", &json!(null))?; // the noise is the run's
            let ancestral = Ancestral { noise: options.s_noise, ..Ancestral::default() };
            let sampler = DpmPpSde { ancestral, ..DpmPpSde::default() };
            k_diffusion(fields, class, K_DIFFUSION, Told::Exact, Box::new(sampler))
        }
        "DPMSolverMultistepScheduler" => multistep(fields, class, options, false),
        "DPMSolverMultistepInverseScheduler" => multistep(fields, class, options, true),
        "DPMSolverSinglestepScheduler" => singlestep(fields, class),
        "UniPCMultistepScheduler" => unipc(fields, class),
        "DEISMultistepScheduler" => deis(fields, class),
        "SASolverScheduler" => sa_solver(fields, class, options),
        "EDMEulerScheduler" | "EDMDPMSolverMultistepScheduler" => edm(fields, class, options),
        "CMStochasticIterativeScheduler" => consistency(fields),
        "SCMScheduler" => scm(fields),
        "IPNDMScheduler" => ipndm(fields),
        "FlowMatchEulerDiscreteScheduler" | "FlowMatchLCMScheduler" => flow_match(fields, class, options),
        _ => flow_straight(fields, class, options),
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
    rule: impl Rule + 'static,
) -> Scheduler<D> {
    let steps_per_time = table.train() as f64;
    let schedule = Box::new(table) as Box<dyn NoiseSchedule>;
    let (class, rule) = (class.to_owned(), Box::new(rule));
    Scheduler { class, schedule, prediction, sampler, steps_per_time, start, rule, sizes: None }
}

fn ddpm<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, false)?;
    // diffusers takes the root of a logarithm for `fixed_large_log`, which is not a number: refused.
    let known = ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"];
    let variance = match &*fields.word("variance_type", "fixed_small", &known)? {
        "fixed_large" => Variance::FixedLarge,
        "learned" => Variance::Learned,
        "learned_range" => Variance::LearnedRange,
        _ => Variance::FixedSmall,
    };
    let mut inner: Box<dyn Sampler<D>> = Box::new(Ddpm { variance });
    if variance == Variance::Learned && options.compat == Compat::Diffusers {
        inner = Box::new(Changed { inner, change: Change::Variance, keep_noise: false });
    }
    let sampler = limited(fields, Some(true), false, inner)?;
    let spacing = Spacing::read(fields, "leading", table.train())?;
    let grid = StepGrid { class, table: table.clone(), spacing, clean: true, least: (1, ""), custom: true };
    Ok(on_table(class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}

fn ddim<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, false)?;
    let inner = Box::new(Ddim { eta: options.eta.unwrap_or(0.0) });
    let limited = limited(fields, Some(true), !options.use_clipped_model_output, inner)?;
    let spacing = Spacing::read(fields, "leading", table.train())?;
    let clean = fields.flag("set_alpha_to_one", true)?;
    let grid = StepGrid { class, table: table.clone(), spacing, clean, least: (1, ""), custom: false };
    let sampler = strided(options, limited, &grid);
    Ok(on_table(class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}

fn strided<const D: usize>(
    options: &Options,
    inner: Box<dyn Sampler<D>>,
    grid: &StepGrid,
) -> Box<dyn Sampler<D>> {
    match options.compat {
        Compat::Diffusers => Box::new(Strided { inner, table: grid.table.clone(), end: grid.end() }),
        Compat::Corrected => inner,
    }
}

fn ddim_inverse<const D: usize>(fields: &Fields, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, false)?;
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
    let spacing = Spacing::read(fields, "leading", table.train())?;
    if spacing.kind == Kind::Linspace {
        return Err(fields.refuse("timestep_spacing", "one of leading, trailing", "linspace"));
    }
    let clean = fields.flag("set_alpha_to_one", true)?;
    let grid = RisingGrid { table: table.clone(), spacing, clean };
    Ok(on_table(&fields.class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}

fn pndm<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, false)?;
    let skip = fields.flag("skip_prk_steps", false)?;
    let warm_up = if skip { WarmUp::Average } else { WarmUp::RungeKutta };
    let spacing = Spacing::read(fields, "leading", table.train())?;
    let clean = fields.flag("set_alpha_to_one", false)?;
    let prediction = prediction(fields, EPS_V)?;
    // diffusers mixes what the network says at several times, and reads the mixture at one.
    let velocity = fields.word("prediction_type", "epsilon", EPS_V)? == "v_prediction";
    let mixed = velocity && options.compat == Compat::Diffusers;
    let of = if mixed { Extrapolated::Velocity } else { Extrapolated::Noise };
    let least = if skip { (1, "") } else { (4, "skip_prk_steps is off, and the Runge-Kutta start takes 3") };
    let grid = StepGrid { class, table: table.clone(), spacing, clean, least, custom: false };
    let inner = Pndm { warm_up, of };
    let sampler: Box<dyn Sampler<D>> = match options.compat {
        Compat::Diffusers => Box::new(PndmCalls { inner, table: table.clone(), end: grid.end() }),
        Compat::Corrected => Box::new(inner),
    };
    Ok(on_table(class, table, prediction, sampler, Start::Unit, grid))
}

fn distilled<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, LATENT, false)?;
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
    Spacing::read(fields, "leading", train)?;
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
    let end = if lcm { end(&table, true) } else { table.step(0) };
    let every = !lcm && options.original_inference_steps.is_some();
    let grid = OriginGrid { class, table: table.clone(), origin, every, end };
    Ok(on_table(class, table, prediction(fields, EPS_X_V)?, sampler, Start::Unit, grid))
}

/// A grid of ratios with the settings of the Euler family, to be changed where a class differs.
fn ratio_grid(class: &'static str, table: &Table, spacing: Spacing) -> SigmaGrid {
    SigmaGrid {
        class,
        table: table.clone(),
        spacing,
        whole: false,
        transform: Transform::None,
        full: false,
        ends: (None, None),
        log_linear: false,
        told: Told::Exact,
        end: End::Clean,
        flow: None,
        rising: false,
        custom: false,
    }
}

fn start(spacing: &Spacing) -> Start {
    if spacing.kind == Kind::Leading { Start::Total } else { Start::Sigma }
}

fn euler<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let table = Table::read(fields, DDPM, true)?;
    let spacing = Spacing::read(fields, "linspace", table.train())?;
    let start = start(&spacing);
    let known = ["epsilon", "v_prediction", "sample", "original_sample"];
    let prediction = || prediction(fields, &known);
    let velocity = fields.word("prediction_type", "epsilon", &known)? == "v_prediction";
    let continuous = fields.word("timestep_type", "discrete", &["discrete", "continuous"])? == "continuous";
    let any = (f64::MIN_POSITIVE, f64::MAX);
    let grid = SigmaGrid {
        transform: Transform::read(fields, false)?,
        ends: (fields.optional("sigma_min", any.0, any.1)?, fields.optional("sigma_max", any.0, any.1)?),
        log_linear: fields.word("interpolation_type", "linear", &["linear", "log_linear"])? == "log_linear",
        told: if continuous && velocity { Told::LogRatio } else { Told::Exact },
        end: final_sigma(fields, "zero")?,
        custom: true,
        ..ratio_grid(class, &table, spacing)
    };
    let churn = churn(options);
    let sampler: Box<dyn Sampler<D>> = match options.compat {
        _ if churn.amount == 0.0 => Box::new(Euler),
        Compat::Corrected => Box::new(churn),
        Compat::Diffusers => Box::new(EarlyChurn { churn, prediction: prediction()?, read_before: velocity }),
    };
    Ok(on_table(class, table, prediction()?, sampler, start, grid))
}

fn churn(options: &Options) -> Churned<Euler> {
    Churned { inner: Euler, amount: options.s_churn, range: options.s_range, noise: options.s_noise }
}

fn final_sigma(fields: &Fields, default: &str) -> Result<End, DiffusersError> {
    let word = fields.word("final_sigmas_type", default, &["zero", "sigma_min"])?;
    Ok(if word == "zero" { End::Clean } else { End::First })
}

/// The classes after k-diffusion that only differ in the sampler.
fn k_diffusion<const D: usize>(
    fields: &Fields,
    class: &'static str,
    defaults: Defaults,
    told: Told,
    sampler: Box<dyn Sampler<D>>,
) -> Built<D> {
    let table = Table::read(fields, defaults, true)?;
    let spacing = Spacing::read(fields, "linspace", table.train())?;
    let start = start(&spacing);
    let plain = class == "EulerAncestralDiscreteScheduler";
    let transform = if plain { Transform::None } else { Transform::read(fields, false)? };
    let samples = ["LMSDiscreteScheduler", "HeunDiscreteScheduler"].contains(&class);
    let prediction = prediction(fields, if samples { EPS_X_V } else { EPS_V })?;
    let sampler = match class {
        "HeunDiscreteScheduler" if fields.flag("clip_sample", false)? => {
            let change = Change::Clip(fields.number("clip_sample_range", 1.0, 0.0, f64::INFINITY)?);
            Box::new(Changed { inner: sampler, change, keep_noise: false })
        }
        "HeunDiscreteScheduler" => {
            fields.number("clip_sample_range", 1.0, f64::NEG_INFINITY, f64::INFINITY)?;
            sampler
        }
        _ => sampler,
    };
    let grid = SigmaGrid {
        transform,
        told: if transform == Transform::Karras { told } else { Told::Exact },
        custom: class == "HeunDiscreteScheduler",
        ..ratio_grid(class, &table, spacing)
    };
    Ok(on_table(class, table, prediction, sampler, start, grid))
}

/// What the DPM-Solver classes share: table, grid, prediction.
struct Solver {
    table: Table,
    grid: SigmaGrid,
    prediction: Box<dyn Prediction>,
    flow: bool,
}

impl Solver {
    fn read(fields: &Fields, class: &'static str, end: End, told: Told) -> Result<Self, DiffusersError> {
        let table = Table::read(fields, DDPM, true)?;
        let single = class == "DPMSolverSinglestepScheduler";
        let mut spacing = if single {
            Spacing { kind: Kind::Linspace, offset: 0, extra: true, last: table.train() }
        } else {
            Spacing::read(fields, "linspace", table.train())?
        };
        spacing.extra = true;
        let flow = fields.flag("use_flow_sigmas", false)?;
        let prediction = prediction(fields, if flow { &ALL[3..] } else { EPS_X_V })?;
        let transform = Transform::read(fields, class == "DPMSolverMultistepScheduler")?;
        let uni = class == "UniPCMultistepScheduler";
        let terminal = if uni { fields.optional("shift_terminal", f64::MIN_POSITIVE, 1.0)? } else { None };
        let shift = Shift { kind: ShiftKind::read(fields, "flow_shift")?, terminal, from_noise: uni };
        let told = match transform {
            Transform::Karras | Transform::Lu => told,
            _ => Told::Truncated,
        };
        let grid = SigmaGrid {
            whole: true,
            transform,
            full: true,
            told,
            end: if end == End::Repeat && transform == Transform::None && !flow { End::First } else { end },
            flow: flow.then_some(shift),
            ..ratio_grid(class, &table, spacing)
        };
        Ok(Self { table, grid, prediction, flow })
    }

    /// Leaves out training steps whose `ln(alpha / sigma)` lies below `lambda_min_clipped`.
    fn clip_lambda(&mut self, fields: &Fields) -> Result<(), DiffusersError> {
        let least = fields.number("lambda_min_clipped", f64::NEG_INFINITY, f64::NEG_INFINITY, 1e3)?;
        let above = (0..self.table.train()).filter(|&step| -self.table.ratio(step).ln() >= least).count();
        if above == 0 {
            return Err(fields.refuse("lambda_min_clipped", "a value some training step reaches", least));
        }
        self.grid.spacing.last = above;
        Ok(())
    }

    fn build<const D: usize>(self, sampler: Box<dyn Sampler<D>>) -> Scheduler<D> {
        let (class, flow) = (self.grid.class, self.flow);
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
fn dpm_sampler<const D: usize>(
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

fn multistep<const D: usize>(
    fields: &Fields,
    class: &'static str,
    options: &Options,
    inverse: bool,
) -> Built<D> {
    let end = if inverse { End::Repeat } else { final_sigma(fields, "zero")? };
    let cosine = fields.word("beta_schedule", "linear", &super::table::SCHEDULES)? == "squaredcos_cap_v2";
    let told = if cosine { Told::Truncated } else { Told::Rounded };
    let mut solver = Solver::read(fields, class, end, told)?;
    solver.clip_lambda(fields)?;
    unused_variance(fields)?;
    // The stochastic updates take the root of a negative number when they go up.
    let known = if inverse { &ALGORITHMS[..3] } else { ALGORITHMS };
    let (inner, noise) = dpm_sampler(fields, options, known)?;
    if noise && end == End::Clean {
        return Err(fields.refuse("final_sigmas_type", "sigma_min with this algorithm_type", "zero"));
    }
    let mut sampler = thresholded(fields, inner)?;
    if inverse {
        if solver.flow {
            return Err(fields.refuse("use_flow_sigmas", "false: diffusers' grid then falls", true));
        }
        solver.grid.rising = true;
        sampler = Box::new(Inversion { inner: sampler });
    }
    Ok(solver.build(sampler))
}

fn singlestep<const D: usize>(fields: &Fields, class: &'static str) -> Built<D> {
    let end = final_sigma(fields, "zero")?;
    let mut solver = Solver::read(fields, class, end, Told::Rounded)?;
    solver.clip_lambda(fields)?;
    unused_variance(fields)?;
    let order = fields.count("solver_order", 2, 1, 3)?;
    let kind = solver_type(fields)?;
    let finish = fields.flag("lower_order_final", false)? || end == End::Clean;
    let algorithm = fields.word("algorithm_type", "dpmsolver++", &["dpmsolver++", "deis", "dpmsolver"])?;
    let form = if algorithm == "dpmsolver" { Form::Noise } else { Form::Data };
    if form == Form::Noise && end == End::Clean {
        return Err(fields.refuse("final_sigmas_type", "sigma_min with this algorithm_type", "zero"));
    }
    let inner = Box::new(DpmSingle { form, order, solver: kind, finish });
    Ok(solver.build(thresholded(fields, inner)?))
}

fn unipc<const D: usize>(fields: &Fields, class: &'static str) -> Built<D> {
    let end = final_sigma(fields, "zero")?;
    let mut solver = Solver::read(fields, class, end, Told::Rounded)?;
    let any = (f64::MIN_POSITIVE, f64::MAX);
    solver.grid.ends =
        (fields.optional("sigma_min", any.0, any.1)?, fields.optional("sigma_max", any.0, any.1)?);
    if solver.grid.transform != Transform::None && end == End::First {
        solver.grid.end = End::Repeat;
    }
    if solver.flow && !matches!(solver.grid.transform, Transform::None | Transform::Karras) {
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

fn deis<const D: usize>(fields: &Fields, class: &'static str) -> Built<D> {
    let solver = Solver::read(fields, class, End::Repeat, Told::Rounded)?;
    fields.word("algorithm_type", "deis", &["deis", "dpmsolver", "dpmsolver++"])?;
    fields.word("solver_type", "logrho", &["logrho", "midpoint", "heun", "bh1", "bh2"])?;
    let lower = fields.flag("lower_order_final", true)?;
    let finish = if lower { Finish::SHORT_RUNS } else { Finish::FULL };
    let inner = Box::new(Deis { order: fields.count("solver_order", 2, 1, 3)?, finish });
    Ok(solver.build(thresholded(fields, inner)?))
}

fn sa_solver<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let mut solver = Solver::read(fields, class, End::Repeat, Told::Rounded)?;
    solver.clip_lambda(fields)?;
    fields.only("variance_type", &json!(null))?;
    fields.only("tau_func", &json!(null))?;
    fields.word("algorithm_type", "data_prediction", &["data_prediction"])?;
    let (tau, train) = (options.tau, solver.table.train() as f64);
    let tau = move |level: Level| {
        let within = (200.0..=800.0).contains(&(level.time * train).round());
        tau.unwrap_or(if within { 1.0 } else { 0.0 })
    };
    let predictor = fields.count("predictor_order", 2, 1, 9)?;
    let corrector = fields.count("corrector_order", 2, 0, 9)?;
    let lower = fields.flag("lower_order_final", true)?;
    let inner = SaSolver { predictor, corrector, tau, lower };
    let inner: Box<dyn Sampler<D>> = match options.compat {
        Compat::Diffusers => Box::new(Drawing(inner)),
        Compat::Corrected => Box::new(inner),
    };
    Ok(solver.build(thresholded(fields, inner)?))
}

fn edm<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let positive = |field, default| fields.number(field, default, f64::MIN_POSITIVE, f64::MAX);
    let (low, high) = (positive("sigma_min", 0.002)?, positive("sigma_max", 80.0)?);
    let (rho, sigma_data) = (positive("rho", 7.0)?, positive("sigma_data", 0.5)?);
    if low >= high {
        return Err(fields.refuse("sigma_min", format!("less than sigma_max ({high})"), low));
    }
    fields.count("num_train_timesteps", 1000, 1, usize::MAX)?; // only makes a grid that is replaced
    let karras = fields.word("sigma_schedule", "karras", &["karras", "exponential"])? == "karras";
    let transform = if karras { Transform::Karras } else { Transform::Exponential };
    let end = match final_sigma(fields, "zero")? {
        End::Clean => EdmEnd::Clean,
        _ if class == "EDMEulerScheduler" => EdmEnd::Repeat,
        _ => EdmEnd::Least,
    };
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
        schedule: Box::new(Open(schedule::Edm { sigma_min: low, sigma_max: high, rho })),
        prediction: prediction(),
        sampler,
        steps_per_time: 1.0,
        start: Start::Total,
        rule: Box::new(EdmGrid { class, low, high, rho, transform, end }),
        sizes: None,
    })
}

fn consistency<const D: usize>(fields: &Fields) -> Built<D> {
    let positive = |field, default| fields.number(field, default, f64::MIN_POSITIVE, f64::MAX);
    let (low, high) = (positive("sigma_min", 0.002)?, positive("sigma_max", 80.0)?);
    let (rho, sigma_data) = (positive("rho", 7.0)?, positive("sigma_data", 0.5)?);
    let train = fields.count("num_train_timesteps", 40, 1, usize::MAX)?;
    let noise = fields.number("s_noise", 1.0, 0.0, f64::MAX)?;
    let inner = ConsistencyModel { least: low, noise };
    let sampler: Box<dyn Sampler<D>> = if fields.flag("clip_denoised", true)? {
        Box::new(Changed { inner, change: Change::Clip(1.0), keep_noise: false })
    } else {
        Box::new(inner)
    };
    Ok(Scheduler {
        class: fields.class.clone(),
        schedule: Box::new(schedule::Edm { sigma_min: low, sigma_max: high, rho }),
        prediction: Box::new(predict::Consistency { sigma_data, least: low }),
        sampler,
        steps_per_time: 1000.0,
        start: Start::Sigma,
        rule: Box::new(ConsistencyGrid { train, low, high, rho }),
        sizes: None,
    })
}

fn scm<const D: usize>(fields: &Fields) -> Built<D> {
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
        rule: Box::new(circle),
        sizes: None,
    })
}

fn ipndm<const D: usize>(fields: &Fields) -> Built<D> {
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
        rule: Box::new(Squared),
        sizes: None,
    })
}

fn flow_match<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let train = fields.count("num_train_timesteps", 1000, 1, 1_000_000)?;
    let number = |field, default| fields.number(field, default, f64::MIN_POSITIVE, 1e9);
    let few = (number("base_image_seq_len", 256.0)?, number("base_shift", 0.5)?);
    let many = (number("max_image_seq_len", 4096.0)?, number("max_shift", 1.15)?);
    let kind = ShiftKind::read(fields, "shift")?;
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
        shift: Shift { kind, terminal, from_noise: false },
        transform: Transform::read(fields, false)?,
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
        rule: Box::new(grid),
        sizes: None,
    }
}

/// The flow classes with a static shift and nothing else.
///
/// FlowMapEuler's network is told two times, which a denoiser is not: use its grid and
/// [`FlowMap`](crate::flow_map::FlowMap). The sampler here is its step, for networks of one time.
fn flow_straight<const D: usize>(fields: &Fields, class: &'static str, options: &Options) -> Built<D> {
    let train = fields.count("num_train_timesteps", 1000, 1, 1_000_000)?;
    let shift = fields.number("shift", 1.0, f64::MIN_POSITIVE, 1e6)?;
    let map = class == "FlowMapEulerDiscreteScheduler";
    let grid = FlowGrid {
        class,
        train,
        shift: Shift { kind: ShiftKind::Static(shift), terminal: None, from_noise: false },
        transform: Transform::None,
        inverted: false,
        compat: options.compat,
        custom: map,
        uniform: map,
    };
    let sampler: Box<dyn Sampler<D>> = if map { Box::new(Euler) } else { Box::new(Heun) };
    Ok(on_flow(grid, sampler))
}
