//! Whether a run fits into memory, said before it starts.

use super::args::Args;
use super::model::Model;
use anyhow::Result;

/// # Errors
/// If the estimate is more than there is.
pub fn check(_model: &Model, _args: &Args, _size: [usize; 2]) -> Result<()> {
    Ok(())
}
