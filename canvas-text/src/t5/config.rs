//! Sizes of T5's encoder: the published ones, and those of a `config.json`.

use super::{Attention, Block, Feed, T5Encoder};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::prelude::*;
use canvas_core::config_file::{ConfigFileError, Fields};
use canvas_core::nn::init::normal_embedding;
use canvas_core::nn::{Activation, GatedMlpConfig, MlpConfig, QkvConfig, RmsNormConfig};
use canvas_core::weights::Rules;
use canvas_core::{ConfigError, check};
use std::path::Path;

/// Sizes of a [`T5Encoder`].
#[derive(Config, Debug, PartialEq)]
pub struct T5Config {
    /// Width of the token states.
    pub width: usize,
    /// Width of an attention head.
    pub head: usize,
    /// Attention heads of each block; need not fill the width.
    pub heads: usize,
    /// Width between the layers of a perceptron.
    pub hidden: usize,
    /// Blocks.
    pub depth: usize,
    /// Tokens it knows.
    #[config(default = 32128)]
    pub vocabulary: usize,
    /// Nonlinearity of the perceptrons.
    #[config(default = "Activation::GeluTanh")]
    pub activation: Activation,
    /// Whether a second layer's output is multiplied by that of the nonlinearity.
    #[config(default = true)]
    pub gated: bool,
    /// Buckets of distances, half of them for each direction: a multiple of 4.
    #[config(default = 32)]
    pub buckets: usize,
    /// Distance from which on all are in one bucket.
    #[config(default = 128)]
    pub distance: usize,
    /// Whether every block has positions of its own (UMT5), or all those of the first (T5).
    #[config(default = false)]
    pub positions_everywhere: bool,
    /// Added to mean squares by the norms.
    #[config(default = 1e-6)]
    pub epsilon: f64,
}

/// Fields of transformers that do not change what the encoder computes: other parts' sizes, training, generation,
/// what follows from other fields, notes.
const WITHOUT_EFFECT: [&str; 32] = [
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "dense_act_fn",
    "dropout_rate",
    "dtype",
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "is_encoder_decoder",
    "is_gated_act",
    "label2id",
    "n_positions",
    "num_decoder_layers",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "scalable_attention",
    "scale_decoder_outputs",
    "task_specific_params",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "max_length",
];

impl T5Config {
    /// The encoder of T5 version 1.1 XXL: PixArt, Stable Diffusion 3, Flux. 4,762,310,656 parameters.
    pub fn v1_1_xxl() -> Self {
        Self::new(4096, 64, 64, 10240, 24)
    }

    /// # Errors
    /// Names the fields that are zero or do not fit together.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for field in [
            ("width", self.width),
            ("head", self.head),
            ("heads", self.heads),
            ("hidden", self.hidden),
            ("depth", self.depth),
            ("vocabulary", self.vocabulary),
            ("buckets", self.buckets),
        ] {
            check::positive(field)?;
        }
        check::divides(("4", 4), ("buckets", self.buckets))?;
        if self.distance <= self.buckets / 4 {
            let (distance, exact) = (self.distance, self.buckets / 4);
            return Err(ConfigError::new(format!(
                "distance ({distance}) must be above a quarter of buckets ({exact})"
            )));
        }
        Ok(())
    }

    /// Draws weights as transformers does for a fresh model.
    ///
    /// # Panics
    /// If the configuration is not [valid](Self::validate).
    pub fn init(&self, device: &Device) -> T5Encoder {
        self.validate().unwrap_or_else(|error| panic!("{error}"));
        let norm = || RmsNormConfig::new(self.width).with_epsilon(self.epsilon).init(device);
        let block = |i: usize| Block {
            norm_attention: norm(),
            attention: self.attention(i == 0 || self.positions_everywhere, device),
            norm_feed: norm(),
            feed: self.feed(device),
        };
        T5Encoder {
            embedding: normal_embedding(1.0, self.vocabulary, self.width, device),
            blocks: (0..self.depth).map(block).collect(),
            norm: norm(),
            buckets: self.buckets,
            distance: self.distance,
            masked: true,
        }
    }

    /// Queries are drawn small, since scores are not scaled.
    fn attention(&self, positions: bool, device: &Device) -> Attention {
        let (width, inner) = (self.width, self.heads * self.head);
        let mut qkv = QkvConfig::new(width, self.heads, self.head).with_bias(false).init(device);
        qkv.query = normal(width * self.head, [width, inner], device);
        qkv.key = normal(width, [width, inner], device);
        qkv.value = normal(width, [width, inner], device);
        let embedding = || normal_embedding(deviation(width), self.buckets, self.heads, device);
        Attention { qkv, output: normal(inner, [inner, width], device), positions: positions.then(embedding) }
    }

    fn feed(&self, device: &Device) -> Feed {
        let (width, hidden) = (self.width, self.hidden);
        let up = || normal(width, [width, hidden], device);
        let down = normal(hidden, [hidden, width], device);
        if self.gated {
            let mut feed = GatedMlpConfig::new(width, hidden).with_activation(self.activation).init(device);
            (feed.gate, feed.up, feed.down) = (up(), up(), down);
            Feed::Gated(feed)
        } else {
            let mut feed = MlpConfig::new(width, hidden).with_activation(self.activation).init(device);
            (feed.up, feed.down) = (up(), down);
            Feed::Plain(feed)
        }
    }

    /// Reads a transformers `config.json` of a T5, an mT5 or a UMT5, whole or its encoder alone.
    ///
    /// What the file leaves out is the default of transformers' `T5Config` or `UMT5Config`. Fields that do not change what
    /// the encoder computes are passed over; those that are not known are refused.
    ///
    /// # Errors
    /// Names the file, the field, what was expected and what was found.
    pub fn from_transformers_file(path: &Path) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::open(path, "T5Config")?)
    }

    /// As [`from_transformers_file`](Self::from_transformers_file), from the file's text.
    ///
    /// # Errors
    /// As there.
    pub fn from_transformers(json: &str) -> Result<Self, ConfigFileError> {
        Self::read(&Fields::parse(json, "T5Config")?)
    }

    fn read(fields: &Fields) -> Result<Self, ConfigFileError> {
        for field in WITHOUT_EFFECT {
            fields.get(field);
        }
        fields.only("is_decoder", &[false.into()])?;
        // Sizes of the smallest published model of each kind, which is what the classes are made with.
        let (umt5, [vocabulary, hidden, depth, heads], feed) = match fields.word("model_type")? {
            Some("t5") => (false, [32128, 2048, 6, 8], "relu"),
            Some("mt5") => (false, [250_112, 1024, 8, 6], "gated-gelu"),
            Some("umt5") => (true, [250_112, 1024, 8, 6], "gated-gelu"),
            _ => return Err(fields.refuse("model_type", "\"t5\", \"mt5\" or \"umt5\"")),
        };
        let size = |field, default| Ok(fields.number(field)?.unwrap_or(default));
        let (activation, gated) =
            activation(fields.word_or("feed_forward_proj", feed)?).ok_or_else(|| {
                let known = "relu, silu, gelu or gelu_new, alone or behind \"gated-\"";
                fields.refuse("feed_forward_proj", known)
            })?;
        let config = Self {
            width: size("d_model", 512)?,
            head: size("d_kv", 64)?,
            heads: size("num_heads", heads)?,
            hidden: size("d_ff", hidden)?,
            depth: size("num_layers", depth)?,
            vocabulary: size("vocab_size", vocabulary)?,
            activation,
            gated,
            buckets: size("relative_attention_num_buckets", 32)?,
            distance: size("relative_attention_max_distance", 128)?,
            positions_everywhere: umt5,
            epsilon: fields.real("layer_norm_epsilon")?.unwrap_or(1e-6),
        };
        fields.finish(config, Self::validate)
    }

    /// The names of transformers' `T5EncoderModel` and `UMT5EncoderModel`, for
    /// [`load_published`](canvas_core::weights::load_published) and
    /// [`save_published`](canvas_core::weights::save_published).
    ///
    /// The token embeddings may be there twice, or under either name. Of a whole T5, the decoder is left out.
    pub fn published(&self) -> Rules {
        let block = |part: &str| format!("encoder.block.{{i}}.layer.{part}");
        let ours = |part: &str| format!("blocks.{{i}}.{part}");
        let up = if self.gated { "wi_1" } else { "wi" };
        let rules = Rules::new()
            .copy("encoder.embed_tokens.weight", "shared.weight")
            .ignore_prefix("decoder", "T5's decoder, which is not part of the encoder")
            .ignore_prefix("lm_head", "the decoder's output")
            .prefix("shared", "embedding")
            .prefix("encoder.final_layer_norm", "norm");
        let parts = [
            ("0.layer_norm".to_owned(), "norm_attention"),
            ("0.SelfAttention.q".to_owned(), "attention.qkv.query"),
            ("0.SelfAttention.k".to_owned(), "attention.qkv.key"),
            ("0.SelfAttention.v".to_owned(), "attention.qkv.value"),
            ("0.SelfAttention.o".to_owned(), "attention.output"),
            ("0.SelfAttention.relative_attention_bias".to_owned(), "attention.positions"),
            ("1.layer_norm".to_owned(), "norm_feed"),
            ("1.DenseReluDense.wi_0".to_owned(), "feed.gate"),
            (format!("1.DenseReluDense.{up}"), "feed.up"),
            ("1.DenseReluDense.wo".to_owned(), "feed.down"),
        ];
        parts.iter().fold(rules, |rules, (published, name)| rules.prefix(&block(published), &ours(name)))
    }
}

/// What a name of a perceptron stands for, and whether it is gated.
fn activation(name: &str) -> Option<(Activation, bool)> {
    let (name, gated) = name.strip_prefix("gated-").map_or((name, false), |rest| (rest, true));
    let activation = match name {
        "relu" => Activation::Relu,
        "silu" => Activation::Silu,
        // Only with this name does transformers take the approximation.
        "gelu" if gated => Activation::GeluTanh,
        "gelu" => Activation::Gelu,
        "gelu_new" => Activation::GeluTanh,
        _ => return None,
    };
    Some((activation, gated))
}

fn deviation(fan_in: usize) -> f64 {
    (fan_in as f64).sqrt().recip()
}

/// A layer without bias.
fn normal(fan_in: usize, [from, to]: [usize; 2], device: &Device) -> Linear {
    let initializer = Initializer::Normal { mean: 0.0, std: deviation(fan_in) };
    LinearConfig::new(from, to).with_bias(false).with_initializer(initializer).init(device)
}
