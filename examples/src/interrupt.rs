//! Stopping when asked: Ctrl-C, and what a cluster sends before it takes a machine away.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a run was asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// A run stopped because it was asked to; its checkpoint is whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// What was trained.
    pub stage: String,
    /// Images trained on.
    pub images: u64,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: stopped as asked after {} images; a checkpoint is written", self.stage, self.images)
    }
}

impl std::error::Error for Interrupted {}

/// What a shell expects of a program that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// What a program's `main` returns of a run: one that stopped as asked ends the program here, without a complaint. `again` says how to
/// go on.
///
/// # Errors
/// What else stopped the run.
pub fn ended<T>(run: Result<T>, again: &str) -> Result<T> {
    if let Some(stopped) = run.as_ref().err().and_then(|error| error.downcast_ref::<Interrupted>()) {
        eprintln!("{stopped}; {again}");
        std::process::exit(INTERRUPTED)
    }
    run.with_context(|| format!("the run stopped; {again}"))
}

impl Interrupt {
    /// From now on Ctrl-C (SIGINT) and SIGTERM ask for a stop at the end of a step; a second one kills at once, as it would
    /// have before.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn listen() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, sets it, and kills nobody.
            flag::register_conditional_default(signal, Arc::clone(&interrupt.0))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupt.0)))
                .with_context(|| format!("signal {signal} cannot be listened to"))?;
        }
        Ok(interrupt)
    }

    /// Whether a stop was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Asks for one, as a signal does. When training is over and nothing is lost any more: the next Ctrl-C ends the program at once.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
