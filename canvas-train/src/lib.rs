//! Objectives, optimisation steps, averaging, checkpoints and data order.

mod adamw;
pub mod adapters;
mod checkpoint;
mod clip;
pub mod distill;
pub mod dreambooth;
mod dropout;
mod ema;
mod gradients;
pub mod inpainting;
mod log;
pub mod masking;
pub mod masks;
mod memory;
mod objective;
mod optimizer;
mod order;
pub mod post_hoc;
mod precision;
mod rate;
mod replicas;
pub mod representation;
pub mod seeing;
pub mod self_conditioning;
mod state;
pub mod word_vectors;

pub use adamw::AdamW;
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints};
pub use clip::clip_global_norm;
pub use dropout::ConditionDropout;
pub use ema::{Ema, Moment, power_of_width};
pub use gradients::{Gradients, Replica};
pub use log::Log;
pub use memory::TrainMemory;
pub use objective::{
    ChainStep, Distance, Draws, LevelDistribution, Noised, Objective, Weighting, multi_resolution, offset,
    variational_bound,
};
pub use optimizer::{ModuleOptimizer, StateError};
pub use order::Order;
pub use peak_alloc::PeakAlloc;
pub use precision::{InPrecision, Precision, PrecisionError};
pub use rate::{Decay, LearningRate};
pub use replicas::{Exchange, Replicas, ReplicasError};
pub use state::{NonFinite, StepOptions, StepReport, TrainState};
