//! A run of a transformer pipeline: from what was asked to latents and pictures.

use super::{Cond, Folder, Given, Pipeline, Request, ask, bins, cost, recipe};
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
    ask::refuse::<P>(args, folder.class())?;
    let pipeline = P::open(folder)?;
    write_report(folder)?;
    check_channels(&pipeline, folder)?;
    let defaults = pipeline.defaults(args);
    let (ask, asked) = ask::fill(args, &defaults, device)?;
    cost::check(&pipeline, &ask, asked)?;

    let config = folder.scheduler()?;
    let scheduler = match &args.scheduler {
        Some(asked) => Scheduler::asked(asked, &config)?,
        None => Scheduler::read(&config)?,
    };
    let strength = args.start().and(defaults.strength).map(|own| args.strength.unwrap_or(own));
    let plan = scheduler.plan_along(ask.steps, &pipeline.grid(&scheduler, &ask), strength)?;
    let mut draws = match &args.noise {
        Some(path) => Draws::recorded(path, device)?,
        None => Draws::seeded(args.seed.unwrap_or(0), ask.batch),
    };
    let start = start(&pipeline, &ask, &plan, strength.is_some(), &mut draws)?;
    let given = pipeline.conditions(&ask, &mut draws)?;
    let job = Job { pipeline: &pipeline, ask: &ask, scheduler: &scheduler, plan: &plan, asked };
    let latents = job.draw(start, given, &mut draws)?;
    if let Some(path) = &args.save_latents {
        save::latents(latents.clone(), path)?;
    }
    if let Some(path) = args.picture() {
        let recipe = recipe::of(&scheduler, &ask, &defaults, strength);
        let pictures = from_tensor(job.decode(latents));
        for (picture, name) in pictures.iter().zip(save::names(&path, pictures.len())) {
            save::picture(picture, &name, &recipe)?;
            println!("{}", name.display());
        }
    }
    Ok(())
}

/// An error if the autoencoder, which may be that of `--vae`, makes other latents than the network draws.
fn check_channels<P: Pipeline>(pipeline: &P, folder: &Folder<'_>) -> Result<()> {
    let (args, parts) = (folder.args, pipeline.parts());
    let (found, expected) = (parts.vae.channels, parts.shape.channels);
    if found != expected {
        let path = args.vae.clone().unwrap_or_else(|| args.model.join("vae"));
        bail!(
            "{}: expected an autoencoder of {expected} channels, those of {}, found {found}",
            path.display(),
            args.model.join("transformer/config.json").display()
        )
    }
    Ok(())
}

/// Noise, or a picture with noise: `[B, C, h, w]` at the first level.
fn start<P: Pipeline>(
    pipeline: &P,
    ask: &Request<'_>,
    plan: &Plan,
    from_picture: bool,
    draws: &mut Draws,
) -> Result<Tensor<4>> {
    let parts = pipeline.parts();
    let [channels, height, width] = parts.latent(ask.size);
    let dims = [ask.batch, channels, height, width];
    let (Some(path), true) = (ask.args.start(), from_picture) else {
        return Ok(draws.start("latents", dims, ask.device)? * plan.start_scale);
    };
    let image = picture::signed(&picture::open(path)?, ask.size, ask.device);
    let clean = encode(&parts.vae, image, "posterior", dims, draws)?;
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
    fn draw(&self, start: Tensor<4>, given: Given<Cond<P>>, draws: &mut Draws) -> Result<Tensor<4>> {
        let counted = self.scheduler.count(self.plan)?;
        draws.check_steps(counted.draws, start.dims())?;
        let network = Cast {
            network: &self.pipeline.parts().network,
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
        let vae = &self.pipeline.parts().vae;
        let latents = vae.scale.restore(latents);
        let pictures = canvas_core::Autoencoder::decode(&Sliced::new(&*vae.network), latents);
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
