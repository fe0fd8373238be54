//! Layers that several architectures use identically. Before three do, a copy in each file is fine.

pub mod attention;
pub mod dense;
pub mod gated;
pub mod init;
pub mod mlp;
pub mod modulate;
pub mod norm;
pub mod patch;
pub mod position;
pub mod qkv;
pub mod rope;
pub mod time;

pub use attention::{Attention, AttentionConfig, Scores, attend, attend_with};
pub use dense::{conv2d, dense, linear, project};
pub use gated::{GatedMlp, GatedMlpConfig};
pub use mlp::{Activation, Mlp, MlpConfig};
pub use norm::{GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};
pub use qkv::{Qkv, QkvConfig, attend_jointly};
pub use rope::{Pairs, Rope};
pub use time::{TimeEmbed, TimeEmbedConfig, sinusoidal};
