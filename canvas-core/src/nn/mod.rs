//! Layers that several architectures use identically. Before three do, a copy in each file is fine.

pub mod attention;
pub mod dense;
pub mod init;
pub mod mlp;
pub mod modulate;
pub mod patch;
pub mod position;
pub mod time;

pub use attention::{Attention, AttentionConfig, attend};
pub use dense::dense;
pub use mlp::{Activation, Mlp, MlpConfig};
pub use time::{TimeEmbed, TimeEmbedConfig, sinusoidal};
