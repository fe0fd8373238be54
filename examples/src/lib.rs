//! What the example programs share: the emoji data set, the two training stages, drawing, measuring, reports.

pub mod args;
pub mod assignment;
pub mod autoencoder;
pub mod backbones;
pub mod bumps;
pub mod config;
pub mod denoiser;
pub mod device;
pub mod discriminant;
pub mod draw;
pub mod emoji_report;
pub mod emoji_set;
pub mod fine_tune;
pub mod finish;
pub mod frechet;
pub mod generate;
pub mod heat;
pub mod idx;
pub mod interrupt;
pub mod machine;
pub mod measure;
pub mod model;
pub mod plot;
pub mod points;
pub mod progress;
pub mod report;
pub mod run;
pub mod run_report;
pub mod schedule;
pub mod scheduler;
pub mod seeing;
pub mod sheet;
pub mod train_loop;
pub mod tree;

/// Counts, so that training can say beforehand what it will take.
#[global_allocator]
static ALLOCATOR: canvas_train::PeakAlloc = canvas_train::PeakAlloc;

/// The examples of CONTRIBUTING.md and README.md, compiled and run as doctests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../CONTRIBUTING.md")]
    struct Contributing;
    #[doc = include_str!("../../README.md")]
    struct Readme;
}
