//! `unet/config.json` and the configurations of ControlNets, as diffusers writes them.
//!
//! Every field of `UNet2DConditionModel` and `ControlNetModel` in diffusers 0.42.1 is honoured, or refused by name
//! where its value asks for something that is not here. Absent and `null` are the class's defaults.

use crate::{ControlNetConfig, LabelKind, UnetConfig};
use canvas_core::ConfigError;
use canvas_core::nn::Activation;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why a configuration was not read.
#[derive(Debug, thiserror::Error)]
pub enum DiffusersError {
    /// The file is not there, or cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not JSON, or not an object.
    #[error("{origin} is not a configuration: {why}")]
    Syntax {
        /// The file, or "the text".
        origin: String,
        /// What the parser says.
        why: String,
    },
    /// A field with a value that is not honoured.
    #[error("{origin}: {field}: expected {expected}, found {found}")]
    Value {
        /// The file, or "the text".
        origin: String,
        /// The field.
        field: String,
        /// What is honoured.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Fields that the class has not: a typo, or a newer version of diffusers.
    #[error("{origin}: unknown fields {}", .fields.join(", "))]
    Unknown {
        /// The file, or "the text".
        origin: String,
        /// Their names.
        fields: Vec<String>,
    },
    /// Values that do not fit together.
    #[error("{origin}: {source}")]
    Config {
        /// The file, or "the text".
        origin: String,
        /// What does not fit.
        source: ConfigError,
    },
}

/// The fields of a file, each taken by name; those that were not are an error in the end.
struct Fields {
    origin: String,
    values: Map<String, Value>,
    taken: RefCell<BTreeSet<String>>,
}

impl Fields {
    fn new(origin: &str, json: &str, class: &str) -> Result<Self, DiffusersError> {
        let why = |why: String| DiffusersError::Syntax { origin: origin.to_owned(), why };
        let value: Value = serde_json::from_str(json).map_err(|error| why(error.to_string()))?;
        let Value::Object(values) = value else {
            return Err(why(format!("expected an object, found {value}")));
        };
        let fields = Self { origin: origin.to_owned(), values, taken: RefCell::default() };
        fields.only("_class_name", &[Value::from(class)])?;
        Ok(fields)
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.taken.borrow_mut().insert(field.to_owned());
        self.values.get(field).filter(|value| !value.is_null())
    }

    fn refuse(&self, field: &str, expected: &str) -> DiffusersError {
        let found = self.values.get(field).map_or("nothing".into(), Value::to_string);
        let (origin, field, expected) = (self.origin.clone(), field.to_owned(), expected.to_owned());
        DiffusersError::Value { origin, field, expected, found }
    }

    /// One of these values, or absent.
    fn only(&self, field: &str, honoured: &[Value]) -> Result<(), DiffusersError> {
        let Some(found) = self.get(field) else { return Ok(()) };
        let same = |value: &Value| value == found || (value.is_number() && value.as_f64() == found.as_f64());
        if honoured.iter().any(same) {
            return Ok(());
        }
        let names: Vec<String> = honoured.iter().map(Value::to_string).collect();
        let expected = if names.is_empty() { "null".to_owned() } else { names.join(" or ") };
        Err(self.refuse(field, &expected))
    }

    fn number(&self, field: &str) -> Result<Option<usize>, DiffusersError> {
        let read = |value: &Value| whole(value).ok_or_else(|| self.refuse(field, "a whole number"));
        self.get(field).map(read).transpose()
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, DiffusersError> {
        let read = |value: &Value| value.as_bool().ok_or_else(|| self.refuse(field, "true or false"));
        self.get(field).map_or(Ok(default), read)
    }

    fn word(&self, field: &str) -> Result<Option<&str>, DiffusersError> {
        let read = |value| Value::as_str(value).ok_or_else(|| self.refuse(field, "a string"));
        self.get(field).map(read).transpose()
    }

    fn numbers(&self, field: &str, default: &[usize]) -> Result<Vec<usize>, DiffusersError> {
        let Some(value) = self.get(field) else { return Ok(default.to_vec()) };
        let list = value.as_array().and_then(|list| list.iter().map(whole).collect());
        list.ok_or_else(|| self.refuse(field, "a list of whole numbers"))
    }

    /// A number for all levels, or one for each.
    fn levels(&self, field: &str, default: usize, count: usize) -> Result<Vec<usize>, DiffusersError> {
        let Some(value) = self.get(field) else { return Ok(vec![default; count]) };
        if let Some(number) = whole(value) {
            return Ok(vec![number; count]);
        }
        let list = self.numbers(field, &[])?;
        let expected = format!("a whole number or {count} of them, one a level");
        if list.len() == count { Ok(list) } else { Err(self.refuse(field, &expected)) }
    }

    /// Which levels attend.
    fn attends(&self, field: &str, names: [&str; 2], default: &[&str]) -> Result<Vec<bool>, DiffusersError> {
        let refused = || self.refuse(field, &format!("a list of {} and {}", names[0], names[1]));
        let attends = |name: &str| names.iter().position(|known| *known == name).map(|at| at == 1);
        let found: Option<Vec<bool>> = match self.get(field) {
            None => default.iter().map(|name| attends(name)).collect(),
            Some(value) => value
                .as_array()
                .and_then(|list| list.iter().map(|name| name.as_str().and_then(attends)).collect()),
        };
        found.ok_or_else(refused)
    }

    /// An error for every field that was never asked for; those that begin with `_` are notes.
    fn finish(&self) -> Result<(), DiffusersError> {
        let taken = self.taken.borrow();
        let left = self.values.keys().filter(|key| !key.starts_with('_') && !taken.contains(*key));
        let fields: Vec<String> = left.cloned().collect();
        let origin = self.origin.clone();
        if fields.is_empty() { Ok(()) } else { Err(DiffusersError::Unknown { origin, fields }) }
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

fn read(path: &Path) -> Result<String, DiffusersError> {
    std::fs::read_to_string(path).map_err(|source| DiffusersError::Io { path: path.to_owned(), source })
}

const DOWN: [&str; 2] = ["DownBlock2D", "CrossAttnDownBlock2D"];
const UP: [&str; 2] = ["UpBlock2D", "CrossAttnUpBlock2D"];

impl UnetConfig {
    /// Reads a `unet/config.json` of class `UNet2DConditionModel`.
    ///
    /// Times stay in `[0, 1]`: [`time_scale`](Self::time_scale) is 1000, as diffusers counts steps.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, DiffusersError> {
        Self::parse(&path.display().to_string(), &read(path)?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, DiffusersError> {
        Self::parse("the text", json)
    }

    fn parse(origin: &str, json: &str) -> Result<Self, DiffusersError> {
        let fields = Fields::new(origin, json, "UNet2DConditionModel")?;
        let down = way_down(&fields)?;
        let mut up = fields.attends("up_block_types", UP, &[UP[0], UP[1], UP[1], UP[1]])?;
        up.reverse();
        if up != down {
            return Err(fields.refuse("up_block_types", "down_block_types in reverse"));
        }
        let config = common(&fields, &down)?;
        let output = fields.number("out_channels")?.unwrap_or(4);
        only_unet(&fields)?;
        let config = config.with_out_channels(Some(output));
        finished(&fields, config, Self::validate)
    }
}

impl ControlNetConfig {
    /// Reads a ControlNet's `config.json`.
    ///
    /// # Errors
    /// Names the file and the field.
    pub fn from_diffusers_file(path: &Path) -> Result<Self, DiffusersError> {
        Self::parse(&path.display().to_string(), &read(path)?)
    }

    /// As [`from_diffusers_file`](Self::from_diffusers_file), from the text.
    ///
    /// # Errors
    /// Names the field.
    pub fn from_diffusers(json: &str) -> Result<Self, DiffusersError> {
        Self::parse("the text", json)
    }

    fn parse(origin: &str, json: &str) -> Result<Self, DiffusersError> {
        let fields = Fields::new(origin, json, "ControlNetModel")?;
        let unet = common(&fields, &way_down(&fields)?)?;
        let hint = fields.number("conditioning_channels")?.unwrap_or(3);
        let widths = fields.numbers("conditioning_embedding_out_channels", &[16, 32, 96, 256])?;
        fields.only("controlnet_conditioning_channel_order", &["rgb".into()])?;
        fields.only("global_pool_conditions", &[false.into()])?;
        let config = Self::new(unet).with_hint_channels(hint).with_hint_widths(widths);
        finished(&fields, config, Self::validate)
    }
}

fn finished<C>(
    fields: &Fields,
    config: C,
    validate: impl Fn(&C) -> Result<(), ConfigError>,
) -> Result<C, DiffusersError> {
    fields.finish()?;
    let origin = fields.origin.clone();
    validate(&config).map_err(|source| DiffusersError::Config { origin, source })?;
    Ok(config)
}

/// Which levels attend on the way down.
fn way_down(fields: &Fields) -> Result<Vec<bool>, DiffusersError> {
    fields.attends("down_block_types", DOWN, &[DOWN[1], DOWN[1], DOWN[1], DOWN[0]])
}

/// The fields that both classes have.
fn common(fields: &Fields, attends: &[bool]) -> Result<UnetConfig, DiffusersError> {
    fixed(fields)?;
    let channels = fields.numbers("block_out_channels", &[320, 640, 1280, 1280])?;
    let count = channels.len();
    if count != attends.len() {
        return Err(fields.refuse("block_out_channels", &format!("{} numbers, one a level", attends.len())));
    }
    // What diffusers calls a head's dimension is the number of heads.
    let named = fields.levels("attention_head_dim", 8, count)?;
    let heads = match fields.get("num_attention_heads") {
        None => named,
        Some(_) => fields.levels("num_attention_heads", 8, count)?,
    };
    let depth = fields.levels("transformer_layers_per_block", 1, count)?;
    let middle = match fields.word_or("mid_block_type", "UNetMidBlock2DCrossAttn")? {
        "UNetMidBlock2DCrossAttn" => depth.last().copied().unwrap_or(0),
        _ => return Err(fields.refuse("mid_block_type", "\"UNetMidBlock2DCrossAttn\"")),
    };
    let blocks = fields.levels("layers_per_block", 2, count)?;
    if blocks.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(fields.refuse("layers_per_block", "the same number for all levels"));
    }
    let at = |(depth, attends): (usize, &bool)| if *attends { depth } else { 0 };
    let depth = depth.into_iter().zip(attends).map(at).collect();
    let context = fields.number("cross_attention_dim")?.unwrap_or(1280);
    let input = fields.number("in_channels")?.unwrap_or(4);
    let config = UnetConfig::new(input, context, channels, depth, heads)
        .with_blocks(blocks.first().copied().unwrap_or(2))
        .with_middle_depth(middle)
        .with_norm_groups(fields.number("norm_num_groups")?.unwrap_or(32))
        .with_linear_projection(fields.flag("use_linear_projection", false)?)
        .with_activation(activation(fields)?)
        .with_cross_only(cross_only(fields, count)?);
    told(fields, config)
}

impl Fields {
    fn word_or<'a>(&'a self, field: &str, default: &'a str) -> Result<&'a str, DiffusersError> {
        Ok(self.word(field)?.unwrap_or(default))
    }
}

fn activation(fields: &Fields) -> Result<Activation, DiffusersError> {
    match fields.word_or("act_fn", "silu")? {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        _ => Err(fields.refuse("act_fn", "\"silu\", \"swish\", \"gelu\" or \"relu\"")),
    }
}

/// Labels and sizes.
fn told(fields: &Fields, config: UnetConfig) -> Result<UnetConfig, DiffusersError> {
    let width = fields.number("projection_class_embeddings_input_dim")?;
    let needs = || fields.refuse("projection_class_embeddings_input_dim", "a width, for what is projected");
    let classes = fields.number("num_class_embeds")?;
    let label = match fields.word("class_embed_type")? {
        None => classes.map(LabelKind::Class),
        Some("timestep") => Some(LabelKind::Time),
        Some("projection") => Some(LabelKind::Vector(width.ok_or_else(needs)?)),
        Some(_) => return Err(fields.refuse("class_embed_type", "null, \"timestep\" or \"projection\"")),
    };
    let features = fields.number("addition_time_embed_dim")?;
    let config = config.with_label(label);
    match fields.word("addition_embed_type")? {
        None => Ok(config),
        Some("text_time") => {
            let width = width.ok_or_else(needs)?;
            let expected = "a number of sinusoidal features, for addition_embed_type \"text_time\"";
            let features = features.ok_or_else(|| fields.refuse("addition_time_embed_dim", expected))?;
            // The file holds the sum of pooled text and sizes only. Five sizes are the refiner's, six everyone else's.
            let count = if width == 1280 + 5 * features { 5 } else { 6 };
            let expected = format!("more than {count} sizes of {features} features");
            let pooled = width.checked_sub(count * features).filter(|&pooled| pooled > 0);
            let pooled =
                pooled.ok_or_else(|| fields.refuse("projection_class_embeddings_input_dim", &expected))?;
            Ok(config
                .with_size_features(Some(features))
                .with_size_count(count)
                .with_pooled_width(Some(pooled)))
        }
        Some(_) => Err(fields.refuse("addition_embed_type", "null or \"text_time\"")),
    }
}

/// Fields of both classes with one value that is honoured, and those without an effect on the network.
fn fixed(fields: &Fields) -> Result<(), DiffusersError> {
    fields.only("flip_sin_to_cos", &[true.into()])?;
    fields.only("freq_shift", &[0.into()])?;
    fields.only("downsample_padding", &[1.into()])?;
    fields.only("mid_block_scale_factor", &[1.into()])?;
    fields.only("norm_eps", &[1e-5.into()])?;
    fields.only("resnet_time_scale_shift", &["default".into()])?;
    fields.only("encoder_hid_dim", &[])?;
    fields.only("encoder_hid_dim_type", &[])?;
    // A matter of precision in 16 bits, and of an embedding that is refused.
    fields.flag("upcast_attention", false)?;
    fields.number("addition_embed_type_num_heads")?;
    Ok(())
}

/// Which levels read the text only; a single `true` would mean the middle, too.
fn cross_only(fields: &Fields, count: usize) -> Result<Option<Vec<bool>>, DiffusersError> {
    let field = "only_cross_attention";
    let Some(value) = fields.get(field).filter(|value| **value != false) else { return Ok(None) };
    let list: Option<Vec<bool>> = value.as_array().and_then(|list| list.iter().map(Value::as_bool).collect());
    let list = list.filter(|list| list.len() == count);
    let list = list.ok_or_else(|| fields.refuse(field, &format!("false, or {count} flags, one a level")))?;
    Ok(list.contains(&true).then_some(list))
}

/// Fields of the UNet alone with one value that is honoured.
fn only_unet(fields: &Fields) -> Result<(), DiffusersError> {
    // diffusers refuses it, too: the heads are in attention_head_dim.
    fields.only("num_attention_heads", &[])?;
    fields.only("center_input_sample", &[false.into()])?;
    // Of training only.
    fields.only("dropout", &[0.into()])?;
    fields.only("dual_cross_attention", &[false.into()])?;
    fields.only("reverse_transformer_layers_per_block", &[])?;
    fields.only("resnet_skip_time_act", &[false.into()])?;
    fields.only("resnet_out_scale_factor", &[1.into()])?;
    fields.only("time_embedding_type", &["positional".into()])?;
    fields.only("time_embedding_dim", &[])?;
    fields.only("time_embedding_act_fn", &[])?;
    fields.only("timestep_post_act", &[])?;
    fields.only("time_cond_proj_dim", &[])?;
    fields.only("conv_in_kernel", &[3.into()])?;
    fields.only("conv_out_kernel", &[3.into()])?;
    fields.only("attention_type", &["default".into()])?;
    fields.only("class_embeddings_concat", &[false.into()])?;
    fields.only("mid_block_only_cross_attention", &[false.into()])?;
    fields.only("cross_attention_norm", &[])?;
    // The size it was trained at.
    fields.get("sample_size");
    Ok(())
}
