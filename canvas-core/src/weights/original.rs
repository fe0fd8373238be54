//! Single files of Stable Diffusion in the layout of the original code: what they hold, and where.

use super::{Report, Rules, Source, WeightsError};
use std::collections::BTreeSet;

/// Models that are published as single files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Stable Diffusion 1.x.
    Sd1,
    /// Stable Diffusion 2.x.
    Sd2,
    /// SDXL's base model.
    Sdxl,
    /// SDXL's refiner.
    SdxlRefiner,
}

/// A single file that has been recognised, with the places of its networks.
///
/// Each network is a [`part`](Source::part) of the file, whose sizes its configuration's `detect` reads from the shapes.
///
/// # Example
/// ```no_run
/// use canvas_core::weights::{Original, Source};
///
/// let source = Source::open("sd_xl_base_1.0.safetensors".as_ref(), None)?;
/// let file = Original::detect(&source)?;
/// let unet = source.part(file.unet());
/// assert_eq!(unet.shape("out.2.weight"), Some(&[4, 320, 3, 3][..]));
/// # Ok::<_, canvas_core::weights::WeightsError>(())
/// ```
///
/// # Reference
/// Rombach et al., <https://github.com/CompVis/stable-diffusion>; Stability AI,
/// <https://github.com/Stability-AI/stablediffusion> and <https://github.com/Stability-AI/generative-models>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// Which model it is.
    pub family: Family,
    /// Channels that its UNet reads: 4, 9 for inpainting, 8 for InstructPix2Pix.
    pub in_channels: usize,
}

const UNET: &str = "model.diffusion_model.";
const INPUT: &str = "model.diffusion_model.input_blocks.0.0.weight";
const LABEL: &str = "model.diffusion_model.label_emb.0.0.weight";

/// A token embedding of every text encoder, by which families are told from each other; the first one counts.
const TEXTS: [(&str, Family); 4] = [
    ("conditioner.embedders.1.model.token_embedding.weight", Family::Sdxl),
    ("conditioner.embedders.0.model.token_embedding.weight", Family::SdxlRefiner),
    ("cond_stage_model.model.token_embedding.weight", Family::Sd2),
    ("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", Family::Sd1),
];

impl Original {
    /// Recognises a file by its keys: the UNet's, then those of the text encoders, of which each family has others.
    ///
    /// # Errors
    /// Names the file and the key that was looked for, and what stands there or how the keys begin instead.
    pub fn detect(source: &Source) -> Result<Self, WeightsError> {
        let absent = |key: &str, what: &str| source.refuse(key, what, &beginnings(source));
        if source.shape(INPUT).is_none() {
            return Err(absent(INPUT, "the UNet of a Stable Diffusion in one file"));
        }
        let [_, in_channels, _, _] = source.dims(INPUT)?;
        let found = TEXTS.iter().find(|(key, _)| source.shape(key).is_some());
        let Some((_, family)) = found else {
            let looked = TEXTS.map(|(key, _)| key).join(" or ");
            return Err(absent(&looked, "a text encoder"));
        };
        if let Some(shape) = source.shape("edm_mean") {
            let found = format!("the shape {shape:?}");
            return Err(source.refuse("edm_mean", "no such tensor: it makes this a Playground 2.5", &found));
        }
        if ![4, 8, 9].contains(&in_channels) {
            return Err(source.refuse(INPUT, "4, 8 or 9 input channels", &in_channels.to_string()));
        }
        let label = source.shape(LABEL);
        match (family, label) {
            (Family::Sd1 | Family::Sd2, None) | (Family::Sdxl | Family::SdxlRefiner, Some(_)) => {
                Ok(Self { family: *family, in_channels })
            }
            (_, Some(shape)) => {
                let found = format!("the shape {shape:?}: a UNet that is told a label, as unCLIP's");
                Err(source.refuse(LABEL, "no such tensor beside this text encoder", &found))
            }
            (_, None) => Err(absent(LABEL, "an embedding of the sizes, as SDXL has")),
        }
    }

    /// What the keys of the UNet begin with.
    pub fn unet(&self) -> &'static str {
        UNET
    }

    /// What the keys of the autoencoder begin with.
    pub fn autoencoder(&self) -> &'static str {
        "first_stage_model."
    }

    /// What the keys of each text encoder begin with, in the order in which their tokens are joined.
    pub fn texts(&self) -> &'static [&'static str] {
        match self.family {
            Family::Sd1 => &["cond_stage_model.transformer."],
            Family::Sd2 => &["cond_stage_model.model."],
            Family::Sdxl => &["conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."],
            Family::SdxlRefiner => &["conditioner.embedders.0.model."],
        }
    }

    /// What the UNet predicts, as diffusers names it: `epsilon` or `v_prediction`.
    ///
    /// No tensor tells. As diffusers does, a Stable Diffusion 2 counts as 2.1, which predicts `v`, or as 2's
    /// inpainting model, which predicts the noise. This is wrong for 2-base and 2.1-base: they predict the noise,
    /// and their user has to know it.
    pub fn prediction_type(&self) -> &'static str {
        match (self.family, self.in_channels) {
            (Family::Sd2, 4 | 8) => "v_prediction",
            _ => "epsilon",
        }
    }

    /// What became of every key of the file, given what became of those of its parts.
    ///
    /// Beside the networks lie an average of the UNet's weights (which diffusers does not read either) and tables of the
    /// training schedule: they are ignored, with these reasons in the report.
    ///
    /// # Errors
    /// [`WeightsError::Mismatch`] lists the keys that are neither of a part nor to be ignored.
    pub fn account(&self, source: &Source, parts: Vec<Report>) -> Result<Report, WeightsError> {
        let mut report = parts.into_iter().fold(Report::default(), Report::beside);
        let taken: BTreeSet<String> = report.keys().map(str::to_owned).collect();
        let rest = rest();
        let whole =
            source.keys().map(|key| (key, source.whole(key))).filter(|(_, whole)| !taken.contains(whole));
        for (key, whole) in whole {
            match rest.ignored(&whole) {
                Some(reason) => report.ignored.push((whole, reason.to_owned())),
                None => report.unexpected.push((whole, source.shape(key).unwrap_or_default().to_vec(), None)),
            }
        }
        if report.unexpected.is_empty() {
            return Ok(report);
        }
        let (path, used) = (source.path().to_owned(), taken.len());
        let expected = used + report.unexpected.len();
        Err(WeightsError::Mismatch { path, used, expected, report: report.into() })
    }
}

/// The keys beside the networks.
fn rest() -> Rules {
    let tables = [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "logvar",
        "denoiser.sigmas",
    ];
    let rules = Rules::new().ignore_prefix("model_ema", "an average of the UNet's weights, for training");
    tables.iter().fold(rules, |rules, key| rules.ignore_prefix(key, "a table of the training schedule"))
}

/// How the keys of a file begin, for one that is not recognised.
fn beginnings(source: &Source) -> String {
    let first = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
    let mut names: Vec<String> = source.keys().map(first).collect();
    names.dedup();
    let more = names.len().saturating_sub(8);
    names.truncate(8);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("none, but keys that begin with {}{more}", names.join(", "))
}
