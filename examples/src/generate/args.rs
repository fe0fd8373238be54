//! The arguments of the program `generate`.

use anyhow::{Context, Result, bail};
use burn::tensor::FloatDType;
use clap::Parser;
use std::path::PathBuf;
use std::str::FromStr;

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
    /// Another autoencoder: a folder of diffusers' AutoencoderKL or AutoencoderTiny
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
    /// Flux Redux: the folder that makes words of --image, which are put behind the prompt's
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
    /// Guidance scale; 1 or less is off [default: 7.5, SDXL 5, or the pipeline's own]
    #[arg(long)]
    pub guidance: Option<f64>,
    /// How far the guided noise is brought back to the conditional one's deviation, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    pub guidance_rescale: f64,
    /// Blocks of the text encoders to leave out
    #[arg(long)]
    pub clip_skip: Option<usize>,
    /// Height in pixels [default: the model's own, or the picture's]
    #[arg(long)]
    pub height: Option<usize>,
    /// Width in pixels
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
    /// How much of it is drawn anew, 0 to 1 [default: 0.8, SDXL 0.3; with a mask 1, SDXL 0.9999]
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

    /// Save the latents, as diffusers returns them for output_type="latent"
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
    /// Numbers of the UNet and what is put on it: f32, bf16 or f16. Everything else computes in f32
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

    /// An error for what models with a UNet have not got.
    ///
    /// # Errors
    /// Names the argument.
    pub fn check_for_unet(&self) -> Result<()> {
        let third = "no model of the Stable Diffusion family has a third text encoder before version 3";
        let others = [
            ("--prompt-3", !self.prompt_3.is_empty(), third),
            ("--negative-prompt-3", !self.negative_prompt_3.is_empty(), third),
            ("--classes", !self.classes.is_empty(), "this model draws what prompts say: --prompt TEXT"),
            (
                "--max-sequence-length",
                self.max_sequence_length.is_some(),
                "this model's text encoder has one length",
            ),
            ("--true-cfg", self.true_cfg.is_some(), "this model is guided by --guidance"),
            ("--instruction", self.instruction.is_some(), "only Sana has one"),
            ("--exact-size", self.exact_size, "this model draws any size"),
            ("--redux", self.redux.is_some(), "only Flux reads its words"),
            ("--image", self.image.len() > 1, "this model starts from one picture"),
        ];
        match others.iter().find(|(_, given, _)| *given) {
            Some((flag, _, why)) => bail!("{flag}: {why}"),
            None => Ok(()),
        }
    }

    /// # Errors
    /// If a group is incomplete, a number is out of its range, or arguments do not belong together.
    pub fn check(&self) -> Result<()> {
        let batch = self.prompt.len();
        for (flag, found) in [
            ("--prompt-2", self.prompt_2.len()),
            ("--negative-prompt", self.negative_prompt.len()),
            ("--prompt-3", self.prompt_3.len()),
            ("--negative-prompt-2", self.negative_prompt_2.len()),
            ("--negative-prompt-3", self.negative_prompt_3.len()),
        ] {
            if found > 1 && found != batch {
                bail!("{flag} is given {found} times for {batch} prompts: expected once, or once for each");
            }
        }
        group("--controlnet", self.controlnet.len(), ("--control-image", self.control_image.len(), true))?;
        group("--controlnet", self.controlnet.len(), ("--control-scale", self.control_scale.len(), false))?;
        group("--controlnet", self.controlnet.len(), ("--control-window", self.control_window.len(), false))?;
        group("--t2i-adapter", self.t2i_adapter.len(), ("--adapter-image", self.adapter_image.len(), true))?;
        group("--t2i-adapter", self.t2i_adapter.len(), ("--adapter-scale", self.adapter_scale.len(), false))?;
        group("--ip-adapter", self.ip_adapter.len(), ("--ip-image", self.ip_image.len(), true))?;
        group("--ip-adapter", self.ip_adapter.len(), ("--ip-scale", self.ip_scale.len(), false))?;
        if let Some(strength) = self.strength {
            if !(0.0..=1.0).contains(&strength) || strength == 0.0 {
                bail!("--strength {strength}: expected more than 0 and at most 1");
            }
            if self.image.is_empty() {
                bail!("--strength needs a picture to start from: --image PNG");
            }
        }
        if self.steps == Some(0) {
            bail!("--steps 0: expected at least 1");
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            bail!("--guidance-rescale {}: expected 0 to 1", self.guidance_rescale);
        }
        for (flag, path) in [("--out", self.picture()), ("--save-latents", self.save_latents.clone())] {
            let folder =
                path.as_ref().and_then(|path| path.parent()).filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
                bail!("{flag}: there is no folder {}", folder.display());
            }
        }
        if self.guidance.is_some_and(|guidance| !guidance.is_finite()) {
            bail!("--guidance: expected a finite number");
        }
        Ok(())
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

/// Members of a group belong to their head by their order.
fn group(head: &str, heads: usize, (flag, found, needed): (&str, usize, bool)) -> Result<()> {
    if found == heads || (found == 0 && !needed) {
        return Ok(());
    }
    let expected = if needed { format!("{heads}") } else { format!("none or {heads}") };
    bail!("{head} is given {heads} times and {flag} {found} times: expected {expected}, in the same order")
}

/// Two numbers with an `x` between: `512x768`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub usize, pub usize);

impl FromStr for Pair {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (first, second) = text.split_once(['x', 'X'])?;
            Some(Self(first.trim().parse().ok()?, second.trim().parse().ok()?))
        };
        read().with_context(|| format!("expected two whole numbers as in 512x768, found {text:?}"))
    }
}

/// A part of a run: `0.2:0.8`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Where it begins, 0 to 1.
    pub start: f64,
    /// Where it ends.
    pub end: f64,
}

impl FromStr for Window {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (start, end) = text.split_once(':')?;
            let window = Self { start: start.trim().parse().ok()?, end: end.trim().parse().ok()? };
            (0.0 <= window.start && window.start < window.end && window.end <= 1.0).then_some(window)
        };
        read().with_context(|| format!("expected START:END with 0 <= START < END <= 1, found {text:?}"))
    }
}

/// Two scales: `1:0.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales(pub f64, pub f64);

impl FromStr for Scales {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (first, second) = text.split_once(':')?;
            Some(Self(first.trim().parse().ok()?, second.trim().parse().ok()?))
        };
        read().with_context(|| format!("expected two numbers as in 1:0.5, found {text:?}"))
    }
}

/// A file with a weight: `style.safetensors:0.7`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The file.
    pub path: PathBuf,
    /// Its weight.
    pub weight: f64,
}

impl FromStr for Weighed {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let weighed = text.rsplit_once(':').and_then(|(path, weight)| {
            let weight: f64 = weight.trim().parse().ok()?;
            weight.is_finite().then(|| Self { path: path.into(), weight })
        });
        Ok(weighed.unwrap_or_else(|| Self { path: text.into(), weight: 1.0 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_last_colon() {
        let read = |text: &str| text.parse::<Weighed>().unwrap();
        assert_eq!(read("a.safetensors"), Weighed { path: "a.safetensors".into(), weight: 1.0 });
        assert_eq!(read("a.safetensors:-0.5"), Weighed { path: "a.safetensors".into(), weight: -0.5 });
        assert_eq!(read("C:/a.safetensors"), Weighed { path: "C:/a.safetensors".into(), weight: 1.0 });
    }

    #[test]
    fn sizes_and_windows_are_read_strictly() {
        assert_eq!("512x768".parse::<Pair>().unwrap(), Pair(512, 768));
        assert!("512".parse::<Pair>().unwrap_err().to_string().contains("\"512\""));
        assert_eq!("0.2:0.8".parse::<Window>().unwrap(), Window { start: 0.2, end: 0.8 });
        for wrong in ["0.8:0.2", "0:1.5", "0.5", "a:b", "nan:1"] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }

    fn checked(more: &[&str]) -> Result<()> {
        Args::try_parse_from(["generate", "--model", "m", "--prompt", "p"].iter().chain(more))?.check()
    }

    #[test]
    fn groups_and_ranges_are_checked() {
        checked(&[]).unwrap();
        let says = |more: &[&str], words: &str| {
            let text = checked(more).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        };
        says(&["--controlnet", "c"], "--control-image 0 times");
        says(&["--control-image", "c"], "--controlnet is given 0 times");
        says(&["--strength", "0.5"], "--image");
        says(&["--image", "a", "--strength", "1.5"], "1.5");
        says(&["--steps", "0"], "--steps 0");
        says(&["--negative-prompt", "a", "--negative-prompt", "b"], "2 times for 1 prompts");
        says(&["--mask", "a"], "--image");
    }
}
