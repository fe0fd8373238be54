//! Objectives, optimisation steps, averaging, checkpoints and data order.

mod adamw;
mod checkpoint;
mod clip;
mod ema;
mod log;
mod memory;
mod objective;
mod optimizer;
mod order;
mod rate;
mod state;

pub use adamw::AdamW;
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints};
pub use clip::clip_global_norm;
pub use ema::Ema;
pub use log::Log;
pub use memory::TrainMemory;
pub use objective::{LevelDistribution, Objective, Weighting};
pub use optimizer::{ModuleOptimizer, StateError};
pub use order::Order;
pub use peak_alloc::PeakAlloc;
pub use rate::LearningRate;
pub use state::{NonFinite, StepOptions, StepReport, TrainState};
