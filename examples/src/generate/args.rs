//! The arguments of the program `generate`.

mod check;
mod values;

pub use values::{Pair, Scales, Weighed, Window};

use burn::tensor::FloatDType;
use clap::Parser;
use std::path::PathBuf;

/// Draws with a published model: Stable Diffusion 1.x, 2.x, XL, their inpainting variants and refiner, and the diffusion
/// transformers from DiT to Flux.
///
/// With --image it starts from a picture, with --mask it paints inside of one. ControlNets, T2I-Adapters and IP-Adapters are
/// given in groups: the first --control-image belongs to the first --controlnet, and so on. The same noise gives
/// the same picture as diffusers.
#[derive(Parser, Clone, Debug)]
#[command(name = "generate", version, allow_negative_numbers = true)]
pub struct Args {
    /// The model: a folder in diffusers' layout, one file in the original code's, or owner/name on the Hugging Face Hub
    /// (built with --features hub)
    #[arg(long, value_name = "DIR|FILE")]
    pub model: PathBuf,
    /// For a model in one file: a folder with its tokenizers, and its scheduler if it has one
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Weights of this variant: fp16 reads diffusion_pytorch_model.fp16.safetensors
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// Another autoencoder of as many channels: a folder of diffusers' AutoencoderKL, AutoencoderTiny, AutoencoderDC,
    /// AutoencoderKLFlux2 or AutoencoderKLQwenImage
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    /// A scheduler_config.json or its folder, or a sampler by name such as dpmpp-2m-karras [default: the model's own]
    #[arg(long, value_name = "DIR|FILE|NAME")]
    pub scheduler: Option<String>,
    /// What the network predicts, where the model does not say: epsilon or v_prediction
    #[arg(long, value_name = "NAME")]
    pub prediction_type: Option<String>,

    /// What to draw; repeat for a batch
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["classes", "redux"], allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    /// For class-conditional models: the classes to draw, one picture each
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with = "prompt")]
    pub classes: Vec<usize>,
    /// What the second text encoder reads [default: the prompt]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt_2: Vec<String>,
    /// What the third text encoder reads
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt_3: Vec<String>,
    /// What not to draw; once for all prompts, or once for each
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub negative_prompt: Vec<String>,
    /// The same for the second text encoder [default: the negative prompt]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub negative_prompt_2: Vec<String>,
    /// The same for the third text encoder
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub negative_prompt_3: Vec<String>,
    /// The most tokens of a prompt [default: the pipeline's own]
    #[arg(long, value_name = "N")]
    pub max_sequence_length: Option<usize>,
    /// Scale of guidance by a negative prompt, for models that are told another: diffusers' true_cfg_scale
    #[arg(long, value_name = "G")]
    pub true_cfg: Option<f64>,
    /// none leaves out the instruction that Sana puts before prompts
    #[arg(long, value_name = "none", value_parser = ["none"])]
    pub instruction: Option<String>,
    /// Draw the size that was asked for, where models were trained at others of like proportions (PixArt, Sana, PRX)
    #[arg(long)]
    pub exact_size: bool,
    /// Flux Redux: the folder, or owner/name on the Hugging Face Hub, of what makes words of --image, which are put behind
    /// the prompt's
    #[arg(long, value_name = "DIR", requires = "image")]
    pub redux: Option<PathBuf>,
    /// How much they count, and the pooled prompt beside them [default: 1:1]
    #[arg(long, value_name = "PROMPT:POOLED", requires = "redux")]
    pub redux_scale: Option<Scales>,
    /// What to do with prompts of more tokens than the encoder reads: truncate or chunk
    #[arg(long, default_value = "truncate", value_parser = ["truncate", "chunk"])]
    pub long_prompt: String,
    /// Read weights in prompts, (a cat:1.3) or [a dog], as AUTOMATIC1111 does
    #[arg(long)]
    pub weighted: bool,
    /// A textual inversion, and its word if the file does not say it
    #[arg(long, value_name = "FILE[:WORD]")]
    pub embedding: Vec<String>,

    /// Steps of the scheduler [default: 50, or the pipeline's own]
    #[arg(long)]
    pub steps: Option<usize>,
    /// Guidance scale; 1 or less is off, of Z-Image 0 or less; to Flux a number that the network is told [default: 7.5,
    /// SDXL 5, or the pipeline's own]
    #[arg(long)]
    pub guidance: Option<f64>,
    /// How far the guided noise is brought back to the conditional one's deviation, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub guidance_rescale: f64,
    /// Blocks of the text encoders to leave out
    #[arg(long)]
    pub clip_skip: Option<usize>,
    /// Height in pixels [default: the model's own; the picture's where Stable Diffusion before version 3 starts from one
    /// without a mask, or Flux.2 looks at one]
    #[arg(long)]
    pub height: Option<usize>,
    /// Width in pixels [default: as the height's]
    #[arg(long)]
    pub width: Option<usize>,

    /// SDXL: the size that the picture is said to have had [default: its own]
    #[arg(long, value_name = "HxW")]
    pub original_size: Option<Pair>,
    /// SDXL: where it is said to have been cut out
    #[arg(long, value_name = "TOPxLEFT")]
    pub crop: Option<Pair>,
    /// SDXL: the size that it is said to have been brought to [default: its own]
    #[arg(long, value_name = "HxW")]
    pub target_size: Option<Pair>,
    /// The same for the negative prompt; it counts if both sizes are given
    #[arg(long, value_name = "HxW")]
    pub negative_original_size: Option<Pair>,
    /// The same for the negative prompt
    #[arg(long, value_name = "TOPxLEFT")]
    pub negative_crop: Option<Pair>,
    /// The same for the negative prompt
    #[arg(long, value_name = "HxW")]
    pub negative_target_size: Option<Pair>,
    /// SDXL's refiner: how beautiful the picture is said to be
    #[arg(long, default_value_t = 6.0)]
    pub aesthetic_score: f64,
    /// The same for the negative prompt
    #[arg(long, default_value_t = 2.5)]
    pub negative_aesthetic_score: f64,

    /// The picture to start from, or to look at; Flux.2 looks at several
    #[arg(long, value_name = "PNG")]
    pub image: Vec<PathBuf>,
    /// How much of it is drawn anew, 0 to 1 [default: 0.8, SDXL 0.3, SD3 and Flux 0.6; with a mask 1, SDXL 0.9999]
    #[arg(long)]
    pub strength: Option<f64>,
    /// Where to paint: white is drawn anew, black stays
    #[arg(long, value_name = "PNG", requires = "image")]
    pub mask: Option<PathBuf>,

    /// A ControlNet's folder
    #[arg(long, value_name = "DIR")]
    pub controlnet: Vec<PathBuf>,
    /// What it sees
    #[arg(long, value_name = "PNG")]
    pub control_image: Vec<PathBuf>,
    /// How much it counts [default: 1; from a picture 0.8, with a mask 0.5, SDXL with a mask 1]
    #[arg(long)]
    pub control_scale: Vec<f64>,
    /// The part of the run in which it counts [default: 0:1]
    #[arg(long, value_name = "START:END")]
    pub control_window: Vec<Window>,

    /// A T2I-Adapter's folder
    #[arg(long, value_name = "DIR")]
    pub t2i_adapter: Vec<PathBuf>,
    /// What it sees
    #[arg(long, value_name = "PNG")]
    pub adapter_image: Vec<PathBuf>,
    /// How much it counts [default: 1]
    #[arg(long)]
    pub adapter_scale: Vec<f64>,

    /// An IP-Adapter's file
    #[arg(long, value_name = "FILE", requires = "image_encoder")]
    pub ip_adapter: Vec<PathBuf>,
    /// The folder of the CLIP vision transformer that IP-Adapters read
    #[arg(long, value_name = "DIR")]
    pub image_encoder: Option<PathBuf>,
    /// The folder with its preprocessor_config.json [default: CLIP's 224 pixels]
    #[arg(long, value_name = "DIR")]
    pub feature_extractor: Option<PathBuf>,
    /// The picture to draw after
    #[arg(long, value_name = "PNG")]
    pub ip_image: Vec<PathBuf>,
    /// How much it counts [default: 1]
    #[arg(long)]
    pub ip_scale: Vec<f64>,

    /// A LoRA and its weight, 1 where none is given; repeat for several
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub lora: Vec<Weighed>,

    /// Noise as torch.Generator("cpu").manual_seed(N) draws it for the first picture, N + 1 for the second, ... [default: 0]
    #[arg(long, conflicts_with = "noise")]
    pub seed: Option<u64>,
    /// Noise from a safetensors file: latents, noise, step_noise, posterior, posterior_masked
    #[arg(long, value_name = "FILE")]
    pub noise: Option<PathBuf>,

    /// Save the latents [B, C, h, w]: what diffusers returns for output_type="latent", but unpacked where it packs them (Flux,
    /// Chroma, Qwen-Image), and of unit variance as they are drawn, Flux.2's folded 2 by 2
    #[arg(long, value_name = "FILE")]
    pub save_latents: Option<PathBuf>,
    /// The picture; of a batch name-0.png, name-1.png, ... [default: out.png, unless only latents are saved]
    #[arg(long, value_name = "PNG")]
    pub out: Option<PathBuf>,
    /// Write what the picture is going to be beside it after every step, as name-preview.png
    #[arg(long)]
    pub preview: bool,
    /// Write what became of every key of the weights
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// flex (the CPU), wgpu, cuda; a number chooses among several, as in cuda:1
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Numbers of the UNet and what is put on it, or of the transformer: f32, bf16 or f16. Everything else computes in f32
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16", "f16"])]
    pub dtype: String,
    /// Start even if the estimated memory is more than there is
    #[arg(long)]
    pub ignore_memory: bool,
}

impl Args {
    /// The picture to start from.
    pub fn start(&self) -> Option<&PathBuf> {
        self.image.first()
    }

    /// The picture's file, if one is wanted.
    pub fn picture(&self) -> Option<PathBuf> {
        match (&self.out, &self.save_latents) {
            (Some(out), _) => Some(out.clone()),
            (None, Some(_)) => None,
            (None, None) => Some("out.png".into()),
        }
    }
}

/// The numbers that a `--dtype` names.
pub fn numbers(dtype: &str) -> FloatDType {
    match dtype {
        "bf16" => FloatDType::BF16,
        "f16" => FloatDType::F16,
        _ => FloatDType::F32,
    }
}
