//! A run: from what was asked to latents and pictures.

use super::adapters::{self, ImagePrompts};
use super::args::{Args, Pair, numbers};
use super::draws::Draws;
use super::model::{Kind, Model};
use super::network::{Control, Given, Network};
use super::scheduler::{Plan, Scheduler, Task};
use super::show::Steps;
use super::start::Start;
use super::text::{self, Prompts};
use super::{hub, lora, memory, picture, save, transformers};
use anyhow::{Context, Result, bail};
use burn::prelude::*;
use canvas_core::picture::from_tensor;
use canvas_core::weights::write_atomically;
use canvas_core::{Condition, Denoiser, Level, Preconditioned, Progress, Run, Sampler, params};
use canvas_sched::{Cfg, Inpaint, Rescale};
use canvas_unet::{Conditions, ImagePrompted, ImageTokens};
use std::cell::{Cell, RefCell};

/// What diffusers takes where nothing is said, by model and task.
struct Defaults {
    guidance: f64,
    strength: f64,
    control: f64,
}

fn defaults(kind: Kind, task: Task) -> Defaults {
    let (guidance, strength, control) = match (kind, task) {
        (Kind::Sd, Task::Text) => (7.5, 1.0, 1.0),
        (Kind::Sd, Task::Image) => (7.5, 0.8, 0.8),
        (Kind::Sd, Task::Inpaint) => (7.5, 1.0, 0.5),
        (Kind::Sdxl, Task::Text) => (5.0, 1.0, 1.0),
        (Kind::Sdxl, Task::Image) => (5.0, 0.3, 0.8),
        (Kind::Sdxl, Task::Inpaint) => (7.5, 0.9999, 1.0),
    };
    Defaults { guidance, strength, control }
}

/// Steps of the scheduler where nothing is said.
const STEPS: usize = 50;

/// Does what was asked.
///
/// # Errors
/// Whatever is wrong with files or arguments, named.
pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let device = crate::device::open(&args.device)?;
    // From here on the model is a path.
    let model = hub::folder("--model", &args.model, args.variant.as_deref())?;
    let redux = args.redux.as_ref().map(|redux| hub::folder("--redux", redux, None)).transpose()?;
    let args = &Args { model, redux, ..args.clone() };
    if let Some(done) = transformers::run(args, &device) {
        return done;
    }
    args.check_for_unet()?;
    let mut model = Model::open(args, &device)?;
    let task = match (args.start(), &args.mask) {
        (Some(_), Some(_)) => Task::Inpaint,
        (Some(_), None) => Task::Image,
        _ => Task::Text,
    };
    if model.reads_mask() && task != Task::Inpaint {
        bail!("{} is an inpainting model: it needs --image and --mask", args.model.display());
    }
    let defaults = defaults(model.kind, task);
    let strength = args.strength.unwrap_or(defaults.strength);
    let size = size(&model, args, task)?;
    memory::run(&model, args, size, &device)?;
    let controls = adapters::controls(&mut model, args, defaults.control, &device)?;
    let batch = args.prompt.len();
    let adapted = adapters::adapted(&mut model, args, size, batch, &device)?;
    let images = adapters::image_prompts(&mut model, args, batch, &device)?;
    let mut model = lora::put_on(model, args)?;
    let dtype = numbers(&args.dtype);
    model.unet = params::cast(model.unet, dtype);
    write_report(&model, args)?;

    let controlled = !controls.is_empty() || adapted.is_some();
    let scheduler = match &args.scheduler {
        Some(asked) => Scheduler::asked(asked, &model.scheduler)?,
        None => Scheduler::own(&model.scheduler, model.kind, task, controlled)?,
    };
    let plan = scheduler.plan(args.steps.unwrap_or(STEPS), (task != Task::Text).then_some(strength))?;
    let guidance = args.guidance.unwrap_or(defaults.guidance);
    let guided = guidance > 1.0;

    let prompts = text::encode(&model, args, guided)?;
    let mut draws = match &args.noise {
        Some(path) => Draws::recorded(path, &device)?,
        None => Draws::seeded(args.seed.unwrap_or(0), batch),
    };
    let start = Start::new(&model, args, (task, strength, size), &plan, &mut draws, &device)?;
    let hints = adapters::hints(args, size, batch, &device)?;
    let given = |text, negative| Given {
        conditions: conditions(&model, args, size, text, negative),
        channels: start.channels.clone(),
        hints: hints.clone(),
        adapted: adapted.clone(),
    };
    let Prompts { positive, negative } = prompts;
    let job = Job {
        model: &model,
        args,
        scheduler: &scheduler,
        plan: &plan,
        controls: &controls,
        guidance,
        positive: (given(positive, false).cast(dtype), images.positive.clone()),
        negative: negative.map(|text| (given(text, true).cast(dtype), images.negative.clone())),
    };
    let latents = job.draw(start, &images, &mut draws)?;
    if let Some(path) = &args.save_latents {
        save::latents(latents.clone(), path)?;
    }
    if let Some(path) = args.picture() {
        let recipe = recipe(args, &scheduler, guidance);
        let pictures = from_tensor(model.decode(latents));
        for (picture, name) in pictures.iter().zip(save::names(&path, pictures.len())) {
            save::picture(picture, &name, &recipe)?;
            println!("{}", name.display());
        }
    }
    Ok(())
}

/// The picture's size, height and width.
fn size(model: &Model, args: &Args, task: Task) -> Result<[usize; 2]> {
    let factor = model.vae.factor;
    let first = match (task, args.control_image.first()) {
        (Task::Image, _) => args.start(),
        (Task::Text, Some(hint)) => Some(hint),
        (Task::Inpaint, Some(_)) => args.start(),
        _ => None,
    };
    let own = match first {
        Some(path) => picture::own_size(&picture::open(path)?, factor),
        None => model.sample.map(|side| side * factor),
    };
    let size = [args.height.unwrap_or(own[0]), args.width.unwrap_or(own[1])];
    for (name, side) in [("--height", size[0]), ("--width", size[1])] {
        if side == 0 || !side.is_multiple_of(factor) {
            let (below, above) = (side / factor * factor, (side / factor + 1) * factor);
            let nearest = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
            bail!("{name} {side}: this autoencoder makes sides that are multiples of {factor}: {nearest}");
        }
    }
    Ok(size)
}

fn write_report(model: &Model, args: &Args) -> Result<()> {
    let Some(path) = &args.report else { return Ok(()) };
    let part =
        |(name, report): &(String, canvas_core::weights::Report)| format!("{name}{}\n", report.every_key());
    let text: String = model.reports.iter().map(part).collect();
    write_atomically(path, text.as_bytes()).context("the report was not written")
}

impl Model {
    /// Images `[B, 3, H, W]` of latents, one after the other: the largest activations of a run are here.
    fn decode(&self, latents: Tensor<4>) -> Tensor<4> {
        canvas_core::Autoencoder::decode(
            &canvas_vae::Sliced::new(&*self.vae.network),
            self.vae.scale.restore(latents),
        )
    }
}

/// How many numbers SDXL's refiner is told: a score in place of the target's height and width.
const REFINER_SIZES: usize = 5;

/// Text with the numbers that SDXL is told beside it.
fn conditions(
    model: &Model,
    args: &Args,
    [height, width]: [usize; 2],
    text: canvas_core::Text,
    negative: bool,
) -> Conditions {
    if model.kind == Kind::Sd {
        return text.into();
    }
    let own = Pair(height, width);
    let crop = args.crop.unwrap_or(Pair(0, 0));
    let (original, target) = (args.original_size.unwrap_or(own), args.target_size.unwrap_or(own));
    let refiner = model.config.size_count == REFINER_SIZES;
    let other = (args.negative_original_size, args.negative_target_size);
    let other_crop = args.negative_crop.unwrap_or(Pair(0, 0));
    let (original, crop, target) = match other {
        _ if !negative => (original, crop, target),
        // As diffusers: from a picture each size stands for itself, and the refiner alone has a crop of its own.
        (first, second) if args.start().is_some() => {
            let crop = if refiner { other_crop } else { crop };
            (first.unwrap_or(original), crop, second.unwrap_or(target))
        }
        (Some(first), Some(second)) => (first, other_crop, second),
        _ => (original, crop, target),
    };
    let counts =
        args.start().is_some() && refiner || args.image.is_empty() && other.0.is_some() && other.1.is_some();
    if negative && args.negative_crop.is_some() && !counts {
        eprintln!(
            "warning: --negative-crop does nothing here: see the table in examples/tests/fixtures/generate/README.md"
        );
    }
    let mut numbers = vec![original.0 as f32, original.1 as f32, crop.0 as f32, crop.1 as f32];
    if refiner {
        numbers.push(if negative { args.negative_aesthetic_score } else { args.aesthetic_score } as f32);
    } else {
        numbers.extend([target.0 as f32, target.1 as f32]);
    }
    let (batch, count) = (text.batch(), numbers.len());
    let device = text.tokens.device();
    let sizes = Tensor::<2>::from_data(TensorData::new(numbers, [1, count]), &device).repeat_dim(0, batch);
    Conditions { text, sizes: Some(sizes), label: None }
}

/// Everything a run needs.
struct Job<'a> {
    model: &'a Model,
    args: &'a Args,
    scheduler: &'a Scheduler,
    plan: &'a Plan,
    controls: &'a [Control],
    guidance: f64,
    positive: (Given, ImageTokens),
    negative: Option<(Given, ImageTokens)>,
}

impl Job<'_> {
    /// From the start to latents.
    fn draw(&self, start: Start, images: &ImagePrompts, draws: &mut Draws) -> Result<Tensor<4>> {
        let levels = &self.plan.levels;
        let counted = self.scheduler.count(self.plan)?;
        draws.check_steps(counted.draws, start.x.dims())?;
        let network = Network {
            unet: &self.model.unet,
            controls: self.controls,
            dtype: numbers(&self.args.dtype),
            time_scale: self.scheduler.time_scale(),
            call: Cell::new(0),
            calls: counted.evaluations,
        };
        let adapters = images.adapters.iter().map(|(adapter, scale)| (adapter, *scale)).collect();
        let backbone = ImagePrompted { backbone: &network, adapters };
        let plain = Preconditioned { backbone: &backbone, prediction: self.scheduler.prediction() };
        let guided = match &self.negative {
            None => None,
            Some(negative) => {
                // One after the other: the same numbers with half the activations.
                let cfg = Cfg::new(plain, negative.clone(), self.guidance).one_by_one();
                Some(match self.args.guidance_rescale {
                    0.0 => cfg,
                    phi => cfg.rescaled(Rescale { phi, space: self.scheduler.space()? }),
                })
            }
        };
        let steps = RefCell::new(Steps::new(counted.evaluations));
        let denoise = |x: Tensor<4>, level: Level| {
            let said = match &guided {
                Some(guided) => guided.denoise(x, &[level], &self.positive),
                None => plain.denoise(x, &[level], &self.positive),
            };
            network.call.set(network.call.get() + 1);
            steps.borrow_mut().advance();
            said
        };
        let inner = self.scheduler.sampler();
        let within;
        let sampler: &dyn Sampler<4> = match start.keep {
            Some([clean, noise, mask]) => {
                within = Inpaint { inner, clean, noise, mask };
                &within
            }
            None => inner,
        };
        let run = Run::new(sampler, self.scheduler.schedule(), levels, draws)?.starting(self.plan.first);
        let mut failed = None;
        let latents = run.watch(denoise, start.x, &mut |progress| {
            if let Err(error) = self.preview(&progress) {
                failed.get_or_insert(error);
            }
        });
        steps.into_inner().finish();
        match failed {
            Some(error) => Err(error),
            None => Ok(latents),
        }
    }

    /// Draws what the picture is going to be, if asked to.
    fn preview(&self, progress: &Progress<'_, 4>) -> Result<()> {
        let Some(path) = self.args.picture().filter(|_| self.args.preview) else { return Ok(()) };
        let pictures = from_tensor(self.model.decode(progress.step.eval.x0()));
        for (picture, name) in
            pictures.iter().zip(save::names(&save::beside(&path, "preview"), pictures.len()))
        {
            save::picture(picture, &name, &[])?;
        }
        Ok(())
    }
}

/// What a picture says of how it was made.
fn recipe(args: &Args, scheduler: &Scheduler, guidance: f64) -> Vec<(&'static str, String)> {
    let given = |values: &[String]| values.join(" | ");
    let noise = match &args.noise {
        Some(path) => format!("noise {}", path.display()),
        None => format!("seed {}", args.seed.unwrap_or(0)),
    };
    let title = scheduler.title(args.scheduler.as_deref());
    let steps = args.steps.unwrap_or(STEPS);
    let mut lines = vec![
        format!("model {}", args.model.display()),
        format!("prompt {}", given(&args.prompt)),
        format!("negative prompt {}", given(&args.negative_prompt)),
        format!("sampler {title}, steps {steps}, guidance {guidance}"),
        noise,
    ];
    lines.extend(args.lora.iter().map(|lora| format!("lora {}:{}", lora.path.display(), lora.weight)));
    vec![("Software", format!("canvas {}", env!("CARGO_PKG_VERSION"))), ("Description", lines.join("\n"))]
}
