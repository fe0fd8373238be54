//! Seeing a training run: norms of its layers, losses by noise level, held-out losses, where the time goes, and event files
//! for TensorBoard.
//!
//! Each part is a value that a loop uses or leaves out; none is known to [`TrainState`](crate::TrainState), and a step at
//! which nobody looks costs nothing. `docs/seeing.md` shows them together.

mod clock;
mod events;
mod held_out;
mod levels;
mod norms;
mod proto;

pub use clock::{Clock, Phase, Split};
pub use events::{Event, EventWriter};
pub use held_out::HeldOut;
pub use levels::{LevelAxis, LevelRow, LossByLevel};
pub use norms::{Norms, Watch, block_of, grouped};
