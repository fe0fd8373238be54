//! A run of a transformer pipeline: from what was asked to latents and pictures.

use super::{Defaults, Folder, Given, Guidance, Pipeline, Request, Sizes, bins};
use crate::generate::args::{Args, numbers};
use crate::generate::draws::Draws;
use crate::generate::model::Vae;
use crate::generate::scheduler::{Plan, Scheduler};
use crate::generate::show::Steps;
use crate::generate::{picture, save};
use anyhow::{Result, bail};
use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::memo::{Remembering, Tagged};
use canvas_core::picture::from_tensor;
use canvas_core::weights::write_atomically;
use canvas_core::{Backbone, Condition, Denoiser, Estimate, Level, Preconditioned, Progress, Run, mix};
use canvas_vae::Sliced;
use std::cell::RefCell;

/// Does what was asked.
///
/// # Errors
/// Whatever is wrong with files or arguments, named.
pub fn run<P: Pipeline>(folder: &mut Folder<'_>) -> Result<()> {
    let (args, device) = (folder.args, folder.device);
    match (P::CLASSES, args.classes.is_empty()) {
        (true, true) => bail!("{} draws classes: --classes N,N in place of --prompt", folder.class()),
        (false, false) => bail!("--classes: {} draws what prompts say: --prompt TEXT", folder.class()),
        _ => {}
    }
    let pipeline = P::open(folder)?;
    write_report(folder)?;
    let defaults = pipeline.defaults(args);
    refuse::<P>(args, &defaults, folder.class())?;
    let (asked, size) = size(args, &defaults)?;
    let dtype = numbers(&args.dtype);
    let (guidance, told) = guidance(args, &defaults);
    // Redux may stand for the prompt.
    let batch = if args.classes.is_empty() { args.prompt.len().max(1) } else { args.classes.len() };
    let steps = args.steps.unwrap_or(defaults.steps);
    let ask = Request { args, device, batch, size, steps, guidance, told, dtype };

    let config = folder.scheduler()?;
    let scheduler = match &args.scheduler {
        Some(asked) => Scheduler::asked(asked, &config)?,
        None => Scheduler::read(&config)?,
    };
    let strength = args.start().and(defaults.strength).map(|own| args.strength.unwrap_or(own));
    let plan = scheduler.plan_along(steps, &pipeline.grid(&scheduler, &ask), strength)?;
    let mut draws = match &args.noise {
        Some(path) => Draws::recorded(path, device)?,
        None => Draws::seeded(args.seed.unwrap_or(0), batch),
    };
    let start = start(&pipeline, &ask, &plan, strength.is_some(), &mut draws)?;
    let given = pipeline.conditions(&ask, &mut draws)?;
    let pipeline = pipeline.cast(dtype);
    let asked = if matches!(defaults.sizes, Sizes::Bins(_)) { asked } else { size };
    let job = Job { pipeline: &pipeline, ask: &ask, scheduler: &scheduler, plan: &plan, asked };
    let latents = job.draw(start, given, &mut draws)?;
    if let Some(path) = &args.save_latents {
        save::latents(latents.clone(), path)?;
    }
    if let Some(path) = args.picture() {
        let recipe = recipe(args, &scheduler, &ask);
        let pictures = from_tensor(job.decode(latents));
        for (picture, name) in pictures.iter().zip(save::names(&path, pictures.len())) {
            save::picture(picture, &name, &recipe)?;
            println!("{}", name.display());
        }
    }
    Ok(())
}

/// An error for arguments that are for another kind of model, or that this pipeline has no use for.
fn refuse<P: Pipeline>(args: &Args, defaults: &Defaults, class: &str) -> Result<()> {
    let given = [
        ("--controlnet", !args.controlnet.is_empty()),
        ("--t2i-adapter", !args.t2i_adapter.is_empty()),
        ("--ip-adapter", !args.ip_adapter.is_empty()),
        ("--lora", !args.lora.is_empty()),
        ("--embedding", !args.embedding.is_empty()),
        ("--weighted", args.weighted),
        ("--long-prompt chunk", args.long_prompt == "chunk"),
        ("--config", args.config.is_some()),
        ("--prediction-type", args.prediction_type.is_some()),
        ("--guidance-rescale", args.guidance_rescale != 0.0),
        ("--original-size", args.original_size.is_some()),
        ("--target-size", args.target_size.is_some()),
        ("--crop", args.crop.is_some()),
        ("--negative-original-size", args.negative_original_size.is_some()),
        ("--negative-target-size", args.negative_target_size.is_some()),
        ("--negative-crop", args.negative_crop.is_some()),
        ("--prompt-2", !args.prompt_2.is_empty()),
        ("--prompt-3", !args.prompt_3.is_empty()),
        ("--negative-prompt", !args.negative_prompt.is_empty()),
        ("--negative-prompt-2", !args.negative_prompt_2.is_empty()),
        ("--negative-prompt-3", !args.negative_prompt_3.is_empty()),
        ("--max-sequence-length", args.max_sequence_length.is_some()),
        ("--clip-skip", args.clip_skip.is_some()),
        ("--instruction", args.instruction.is_some()),
        ("--true-cfg", args.true_cfg.is_some()),
        ("--exact-size", args.exact_size),
        ("--image", !args.image.is_empty()),
        ("--mask", args.mask.is_some()),
        ("--strength", args.strength.is_some()),
        ("--redux", args.redux.is_some()),
    ];
    if let Some((flag, _)) = given.iter().find(|(flag, given)| *given && !P::TAKES.contains(flag)) {
        bail!("{flag} does nothing with {class}: leave it out");
    }
    if args.strength.is_some() && defaults.strength.is_none() {
        bail!("--strength: here the picture is looked at, not started from");
    }
    if args.guidance.is_some() && !defaults.guidance.is_asked() {
        eprintln!("warning: --guidance does nothing: this model was distilled to draw without");
    }
    Ok(())
}

/// What is asked for and what is drawn, height and width in pixels: another size where the model has bins.
fn size(args: &Args, defaults: &Defaults) -> Result<([usize; 2], [usize; 2])> {
    let asked = [args.height.unwrap_or(defaults.size[0]), args.width.unwrap_or(defaults.size[1])];
    let multiple = defaults.multiple;
    let drawn = match defaults.sizes {
        Sizes::Bins(bins) if !args.exact_size => bins::nearest(bins, asked),
        Sizes::Area(pixels) => bins::of_area(pixels, asked, multiple),
        _ => asked,
    };
    if matches!(defaults.sizes, Sizes::One) && drawn != defaults.size {
        let [height, width] = defaults.size;
        bail!("--height {}, --width {}: this model draws {height}x{width} pixels only", drawn[0], drawn[1]);
    }
    for (name, side) in [("--height", drawn[0]), ("--width", drawn[1])] {
        if let Sizes::UpTo(most) = defaults.sizes
            && side > most
        {
            bail!("{name} {side}: this model's positions end at {most} pixels");
        }
        if side == 0 || !side.is_multiple_of(multiple) {
            let (below, above) = (side / multiple * multiple, (side / multiple + 1) * multiple);
            let nearest = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
            bail!("{name} {side}: this model draws sides that are multiples of {multiple}: {nearest}");
        }
    }
    Ok((asked, drawn))
}

/// The scale of classifier-free guidance where it is on, and what the network is told.
fn guidance(args: &Args, defaults: &Defaults) -> (Option<f64>, Option<f64>) {
    match defaults.guidance {
        Guidance::None => (None, None),
        Guidance::Told(told) => (None, Some(args.guidance.unwrap_or(told))),
        Guidance::Free { scale, off } => {
            let scale = args.guidance.unwrap_or(scale);
            // Where 0 is off, 1 is what others call 2.
            ((scale > off).then_some(scale + 1.0 - off), None)
        }
        Guidance::True { told, scale } => {
            let scale = args.true_cfg.unwrap_or(scale);
            let on = scale > 1.0 && !args.negative_prompt.is_empty();
            if args.true_cfg.is_some_and(|scale| scale > 1.0) && !on {
                eprintln!("warning: --true-cfg does nothing without --negative-prompt");
            }
            (on.then_some(scale), told.map(|told| args.guidance.unwrap_or(told)))
        }
    }
}

/// Noise, or a picture with noise: `[B, C, h, w]` at the first level.
fn start<P: Pipeline>(
    pipeline: &P,
    ask: &Request<'_>,
    plan: &Plan,
    from_picture: bool,
    draws: &mut Draws,
) -> Result<Tensor<4>> {
    let [channels, height, width] = pipeline.latent(ask.size);
    let dims = [ask.batch, channels, height, width];
    let (Some(path), Some(vae), true) = (ask.args.start(), pipeline.vae(), from_picture) else {
        return Ok(draws.start("latents", dims, ask.device)? * plan.start_scale);
    };
    let image = picture::signed(&picture::open(path)?, ask.size, ask.device);
    let clean = encode(vae, image, "posterior", dims, draws)?;
    let noise = draws.start("noise", dims, ask.device)?;
    Ok(mix(clean, noise, &[plan.levels[plan.first]]))
}

/// Latents of unit variance of a picture `[1, 3, H, W]`, for each of a batch; drawn from the posterior, or its mean where a file
/// holds no noise of this name.
///
/// # Errors
/// If the file holds it in another shape.
pub fn encode(
    vae: &Vae,
    image: Tensor<4>,
    key: &str,
    dims: [usize; 4],
    draws: &mut Draws,
) -> Result<Tensor<4>> {
    let device = image.device();
    let posterior = vae.network.encode(image);
    let noise = match vae.spread {
        true => draws.posterior(key, dims, &device)?,
        false => None,
    };
    let latents = match noise {
        Some(noise) => posterior.sample(noise),
        None => posterior.mode(),
    };
    let latents = vae.scale.normalise(latents);
    Ok(if latents.dims()[0] == dims[0] { latents } else { latents.repeat_dim(0, dims[0]) })
}

fn write_report(folder: &Folder<'_>) -> Result<()> {
    let Some(path) = &folder.args.report else { return Ok(()) };
    let part =
        |(name, report): &(String, canvas_core::weights::Report)| format!("{name}{}\n", report.every_key());
    let text: String = folder.reports.iter().map(part).collect();
    Ok(write_atomically(path, text.as_bytes())?)
}

/// A network in its own numbers: the outside is f32.
struct Cast<'a, B> {
    network: &'a B,
    dtype: FloatDType,
    time_scale: f64,
}

impl<B: Backbone<4>> Backbone<4> for Cast<'_, B> {
    type Cond = B::Cond;
    fn forward(&self, x: Tensor<4>, time: Tensor<1>, cond: &B::Cond) -> Tensor<4> {
        let outside = x.dtype();
        self.network.forward(x.cast(self.dtype), time * self.time_scale, cond).cast(outside)
    }
}

/// Classifier-free guidance as a pipeline has it.
struct Guided<'a, P, D, C> {
    pipeline: &'a P,
    plain: D,
    negative: Option<(C, f64)>,
}

impl<P: Pipeline, C: Condition, D: Denoiser<4, Cond = C>> Denoiser<4> for Guided<'_, P, D, C> {
    type Cond = C;

    /// One after the other: the same numbers with half the activations.
    fn denoise(&self, x: Tensor<4>, at: &[Level], cond: &C) -> Estimate<4> {
        let said = self.plain.denoise(x.clone(), at, cond);
        let Some((negative, scale)) = &self.negative else { return said };
        let other = self.plain.denoise(x.clone(), at, negative);
        let mixed = other.x0.clone() + (said.x0.clone() - other.x0) * *scale;
        self.pipeline.guided(&x, at, said.x0, mixed).into()
    }
}

/// Everything a run needs.
struct Job<'a, P> {
    pipeline: &'a P,
    ask: &'a Request<'a>,
    scheduler: &'a Scheduler,
    plan: &'a Plan,
    asked: [usize; 2],
}

impl<P: Pipeline> Job<'_, P> {
    /// From the start to latents.
    fn draw(&self, start: Tensor<4>, given: Given<P::Cond>, draws: &mut Draws) -> Result<Tensor<4>> {
        let counted = self.scheduler.count(self.plan)?;
        draws.check_steps(counted.draws, start.dims())?;
        let network = Cast {
            network: self.pipeline.network(),
            dtype: self.ask.dtype,
            time_scale: self.scheduler.time_scale(),
        };
        // The text is read once, not once a step.
        let backbone = Remembering::new(network);
        let plain = Preconditioned { backbone: &backbone, prediction: self.scheduler.prediction() };
        let positive = Tagged::new(given.positive, 0);
        let behind = positive.batch() as u64;
        let negative = given.negative.map(|negative| Tagged::new(negative, behind)).zip(self.ask.guidance);
        let guided = Guided { pipeline: self.pipeline, plain, negative };
        let steps = RefCell::new(Steps::new(counted.evaluations));
        let denoise = |x: Tensor<4>, level: Level| {
            let said = guided.denoise(x, &[level], &positive);
            steps.borrow_mut().advance();
            said
        };
        let (sampler, schedule) = (self.scheduler.sampler(), self.scheduler.schedule());
        let run = Run::new(sampler, schedule, &self.plan.levels, draws)?.starting(self.plan.first);
        let mut failed = None;
        let latents = run.watch(denoise, start, &mut |progress| {
            if let Err(error) = self.preview(&progress) {
                failed.get_or_insert(error);
            }
        });
        steps.into_inner().finish();
        failed.map_or(Ok(latents), Err)
    }

    /// Pictures `[B, 3, H, W]` of latents, one after the other: the largest activations of a run are here.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        let pictures = match self.pipeline.vae() {
            Some(vae) => {
                let latents = vae.scale.restore(latents);
                canvas_core::Autoencoder::decode(&Sliced::new(&*vae.network), latents)
            }
            None => latents,
        };
        bins::cut_out(pictures, self.asked)
    }

    /// Draws what the picture is going to be, if asked to.
    fn preview(&self, progress: &Progress<'_, 4>) -> Result<()> {
        let Some(path) = self.ask.args.picture().filter(|_| self.ask.args.preview) else { return Ok(()) };
        let pictures = from_tensor(self.decode(progress.step.eval.x0()));
        let names = save::names(&save::beside(&path, "preview"), pictures.len());
        pictures.iter().zip(names).try_for_each(|(picture, name)| save::picture(picture, &name, &[]))
    }
}

/// What a picture says of how it was made.
fn recipe(args: &Args, scheduler: &Scheduler, ask: &Request<'_>) -> Vec<(&'static str, String)> {
    let noise = match &args.noise {
        Some(path) => format!("noise {}", path.display()),
        None => format!("seed {}", args.seed.unwrap_or(0)),
    };
    let what = match args.classes.is_empty() {
        true => format!(
            "prompt {}\nnegative prompt {}",
            args.prompt.join(" | "),
            args.negative_prompt.join(" | ")
        ),
        false => format!("classes {:?}", args.classes),
    };
    let title = scheduler.title(args.scheduler.as_deref());
    let said =
        |name: &str, scale: Option<f64>| scale.map_or(String::new(), |scale| format!(", {name} {scale}"));
    let steps = ask.steps;
    let (told, free) = (said("guidance told", ask.told), said("guidance", ask.guidance));
    let sampler = format!("sampler {title}, steps {steps}{told}{free}");
    let lines = [format!("model {}", args.model.display()), what, sampler, noise];
    vec![("Software", format!("canvas {}", env!("CARGO_PKG_VERSION"))), ("Description", lines.join("\n"))]
}
