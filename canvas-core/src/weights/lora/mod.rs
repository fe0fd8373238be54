//! LoRA files: small changes of a published model's weights, put on a module of any kind.
//!
//! [`Lora`] is a file, opened; [`Merging`] adds one or several of them, each with a weight, to the parts of a
//! pipeline, and sees to it that every key of every file had an effect.

mod factors;
mod key;
mod merge;
mod names;
mod settings;

pub use key::Part;
pub use merge::Merging;

use super::{Source, WeightsError};
use factors::Factors;
use key::Place;
use settings::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The names under which diffusers and peft keep a LoRA in a folder.
const FILES: [&str; 2] = ["pytorch_lora_weights.safetensors", "adapter_model.safetensors"];

/// A LoRA file, opened: which layers it changes and by which tensors. Values stay on the disk until they are merged.
///
/// A layer `W` of a module becomes `W + weight (alpha / rank) up down`. Four ways of writing the keys are told apart
/// key by key:
///
/// | written by | layer | tensors |
/// |---|---|---|
/// | diffusers, peft | `unet.`, `text_encoder.`, `text_encoder_2.`, `base_model.model.` | `lora_A.weight`, `lora_B.weight`, `lora_magnitude_vector` |
/// | older diffusers | the same, with `.processor.` and `to_q_lora` | `down.weight`, `up.weight`, also behind `lora` and `lora_linear_layer` |
/// | kohya | `lora_unet_`, `lora_te_`, `lora_te1_`, `lora_te2_` and the layer with underscores | `lora_down.weight`, `lora_up.weight`, `lora_mid.weight`, `alpha` |
/// | LyCORIS | as kohya or peft | `hada_w1_a`, .. (LoHa); `lokr_w1`, .. (LoKr) |
///
/// A layer's alpha is its own `alpha` tensor; or else what diffusers wrote into the file's metadata
/// (`lora_adapter_metadata`) or peft into the `adapter_config.json` beside the file, patterns and `use_rslora` included; or
/// else its rank. `lora_magnitude_vector` makes it a DoRA: `W' = m (W + change) / |W + change|`, the length being that
/// of an output's weights.
///
/// # Reference
/// Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, <https://arxiv.org/abs/2106.09685>; Liu et al.,
/// "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024, <https://arxiv.org/abs/2402.09353>, equation 5; Yeh et al.,
/// "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation", 2023,
/// <https://arxiv.org/abs/2309.14859>, section 3.
///
/// # Differs from diffusers
/// Where the layers of one kohya file have several alphas, each layer has its own; diffusers 0.42.1 loses them.
/// LoHa and `lora_mid` are read as well.
#[derive(Debug)]
pub struct Lora {
    source: Source,
    layers: Vec<Layer>,
}

/// What the file has for one layer.
#[derive(Debug)]
struct Layer {
    place: Place,
    factors: Factors,
    /// Factor on the product, but for the weight of the whole file.
    scale: f64,
    /// Every key, that of alpha included.
    keys: Vec<String>,
}

impl Lora {
    /// Opens a `.safetensors` file, or the folder in which diffusers or peft saved one.
    ///
    /// # Errors
    /// Names the file and the key, what was expected and what was found: a key of no known kind (biases, LyCORIS'
    /// `dora_scale` and whole differences among them), a layer of which a tensor is missing, settings that cannot be
    /// honoured, a file without a key.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let path = if path.is_dir() { choose(path)? } else { path.to_owned() };
        let source = Source::open(&path, None)?;
        let error = |key: &str, expected: &str, found: String| WeightsError::Tensor {
            path: path.clone(),
            key: key.to_owned(),
            expected: expected.to_owned(),
            found,
        };
        let mut found = BTreeMap::<Place, BTreeMap<&'static str, String>>::new();
        for key in source.keys() {
            let (place, role) = key::parse(key).map_err(|what| error(key, key::KINDS, what))?;
            if let Some(other) = found.entry(place).or_default().insert(role, key.to_owned()) {
                return Err(error(key, "one tensor of a kind for a layer", format!("{other} as well")));
            }
        }
        if found.is_empty() {
            return Err(error("(any)", key::KINDS, "no tensor at all".to_owned()));
        }
        let settings = Settings::read(&source)?;
        let mut layers = Vec::with_capacity(found.len());
        for (place, tensors) in found {
            let factors = Factors::new(&tensors)
                .map_err(|(has, expected)| error(&tensors[has], &expected, "it without".to_owned()))?;
            let scale = settings.scale(&source, &place, tensors.get("alpha"), factors.rank(&source))?;
            layers.push(Layer { place, factors, scale, keys: tensors.into_values().collect() });
        }
        Ok(Self { source, layers })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The parts of a pipeline that the file says it changes. Files of peft do not say it: their keys belong to the
    /// part that has such a layer.
    pub fn parts(&self) -> BTreeSet<Part> {
        self.layers.iter().filter_map(|layer| layer.place.part).collect()
    }
}

/// The LoRA in a folder.
fn choose(folder: &Path) -> Result<PathBuf, WeightsError> {
    let found: Vec<&str> = FILES.into_iter().filter(|name| folder.join(name).is_file()).collect();
    match found.as_slice() {
        [one] => Ok(folder.join(one)),
        _ => Err(WeightsError::Directory {
            path: folder.to_owned(),
            expected: FILES.map(str::to_owned).to_vec(),
            found: found.into_iter().map(str::to_owned).collect(),
        }),
    }
}
