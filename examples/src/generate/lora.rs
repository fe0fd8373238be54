//! LoRAs and textual inversions, merged into a model's weights.

use super::args::Args;
use super::model::Model;
use anyhow::Result;

/// Puts everything on that `--lora` and `--embedding` name.
///
/// # Errors
/// If a file fits nothing.
pub fn put_on(_model: &mut Model, args: &Args) -> Result<()> {
    anyhow::ensure!(args.lora.is_empty() && args.embedding.is_empty(), "not yet");
    Ok(())
}
