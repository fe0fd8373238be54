//! Pipelines of diffusion transformers: what each is beside what all share.
//!
//! A pipeline is one file here and one implementation of [`Pipeline`]: its components, its defaults, how it reads prompts.
//! What all hold is in [`Parts`]; [`draw`] does the rest, alike for all.

mod ask;
mod auraflow;
mod bin_tables;
mod bins;
mod chroma;
mod class_cond;
mod cost;
mod defaults;
pub mod draw;
mod flux;
mod flux2;
mod flux_fill;
mod lumina2;
mod parts;
mod pixart;
mod prx;
mod qwen_image;
mod recipe;
mod redux;
mod sana;
mod sd3;
pub mod text;
mod z_image;

pub use defaults::{Defaults, Guidance, Length, Shape, Sizes};
pub use parts::{Encoders, Parts};

use super::args::Args;
use super::draws::Draws;
use super::folder::Folder;
use super::scheduler::Scheduler;
use anyhow::Result;
use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, Level};

/// Classes of diffusers' pipelines whose folders are read.
pub const CLASSES: &[&str] = &[
    "DiTPipeline",
    "PixArtAlphaPipeline",
    "PixArtSigmaPipeline",
    "SanaPipeline",
    "StableDiffusion3Pipeline",
    "AuraFlowPipeline",
    "FluxPipeline",
    "FluxKontextPipeline",
    "FluxFillPipeline",
    "ChromaPipeline",
    "Lumina2Pipeline",
    "ZImagePipeline",
    "QwenImagePipeline",
    "Flux2Pipeline",
    "Flux2KleinPipeline",
    "PRXPipeline",
];

/// Draws with the pipeline that the folder's index names; `None` if it is none of [`CLASSES`].
///
/// # Errors
/// Whatever is wrong with files or arguments, named.
pub fn run(args: &Args, device: &Device) -> Option<Result<()>> {
    let mut folder = Folder::open(args, device).ok()?;
    Some(match folder.class() {
        "DiTPipeline" => draw::run::<class_cond::ClassCond>(&mut folder),
        "PixArtAlphaPipeline" | "PixArtSigmaPipeline" => draw::run::<pixart::PixArtPipeline>(&mut folder),
        "SanaPipeline" => draw::run::<sana::SanaPipeline>(&mut folder),
        "StableDiffusion3Pipeline" => draw::run::<sd3::StableDiffusion3>(&mut folder),
        "AuraFlowPipeline" => draw::run::<auraflow::AuraFlowPipeline>(&mut folder),
        "FluxPipeline" | "FluxKontextPipeline" => draw::run::<flux::FluxPipeline>(&mut folder),
        "FluxFillPipeline" => draw::run::<flux_fill::FluxFill>(&mut folder),
        "ChromaPipeline" => draw::run::<chroma::ChromaPipeline>(&mut folder),
        "Lumina2Pipeline" => draw::run::<lumina2::Lumina2Pipeline>(&mut folder),
        "ZImagePipeline" => draw::run::<z_image::ZImagePipeline>(&mut folder),
        "PRXPipeline" => draw::run::<prx::PrxPipeline>(&mut folder),
        "QwenImagePipeline" => draw::run::<qwen_image::QwenImagePipeline>(&mut folder),
        "Flux2Pipeline" | "Flux2KleinPipeline" => draw::run::<flux2::Flux2Pipeline>(&mut folder),
        _ => return None,
    })
}

/// What a pipeline's network is conditioned on.
pub type Cond<P> = <<P as Pipeline>::Network as Backbone<4>>::Cond;

/// What a pipeline of diffusers is, beside what all share.
pub trait Pipeline: Sized {
    /// Its network.
    type Network: Backbone<4>;

    /// Its text encoders.
    type Text: Encoders;

    /// Whether it draws classes, and not what prompts say.
    const CLASSES: bool = false;

    /// Which of the arguments that not all pipelines have a use for it takes; it refuses the others.
    const TAKES: &'static [&'static str];

    /// Reads every component.
    ///
    /// # Errors
    /// Names the file and the key.
    fn open(folder: &mut Folder<'_>) -> Result<Self>;

    /// What it holds as every pipeline does.
    fn parts(&self) -> &Parts<Self::Network, Self::Text>;

    /// What it takes where nothing is said.
    fn defaults(&self, args: &Args) -> Defaults;

    /// Conditions for what is drawn and, if guidance is on, for what is not. What is drawn here comes after the noise that the
    /// run starts from.
    ///
    /// # Errors
    /// If a prompt or a picture cannot be read.
    fn conditions(&self, ask: &Request<'_>, draws: &mut Draws) -> Result<Given<Cond<Self>>>;

    /// Which levels the run visits.
    fn grid(&self, _scheduler: &Scheduler, _ask: &Request<'_>) -> Grid {
        Grid::Own { mu: None }
    }

    /// What becomes of a guided estimate `mixed` of clean latents, beside the one for what is drawn: `[B, C, h, w]` each.
    fn guided(&self, _x: &Tensor<4>, _at: &[Level], _cond: Tensor<4>, mixed: Tensor<4>) -> Tensor<4> {
        mixed
    }
}

/// The levels of a run.
#[derive(Clone, Debug)]
pub enum Grid {
    /// As the scheduler places so many steps.
    Own {
        /// How far a flow is shifted, where that follows from the size.
        mu: Option<f64>,
    },
    /// Sigmas from 1 down to `1/N`, which the scheduler shifts.
    Even {
        /// How far.
        mu: Option<f64>,
    },
}

/// What is asked of a pipeline, with its defaults filled in.
pub struct Request<'a> {
    /// Of the program.
    pub args: &'a Args,
    /// Where the networks are.
    pub device: &'a Device,
    /// Pictures.
    pub batch: usize,
    /// Height and width in pixels, of what is drawn.
    pub size: [usize; 2],
    /// Tokens of a prompt.
    pub length: usize,
    /// Steps of the scheduler.
    pub steps: usize,
    /// Scale of classifier-free guidance; `None` where it is off.
    pub guidance: Option<f64>,
    /// What the network is told of guidance.
    pub told: Option<f64>,
    /// Numbers of the network.
    pub dtype: FloatDType,
}

/// Conditions of a run.
pub struct Given<C> {
    /// For what is drawn, a row each.
    pub positive: C,
    /// For what is not, where guidance is on.
    pub negative: Option<C>,
}
