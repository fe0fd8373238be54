//! The part of a grid that image-to-image runs along.

use super::GridSpecError;
use super::error::setting;
use canvas_core::Level;

/// The levels of a run that starts from a picture: the last `min(floor(N strength), N)` of `N` hops.
///
/// Noise the picture to the first of them with [`mix`](canvas_core::mix), and run on from there: a strength
/// of 1 runs the whole grid and keeps nothing of the picture if it starts at pure noise, 0.3 keeps most.
///
/// # Errors
/// If the strength does not lie in `(0, 1]`, or is so small that no hop is left.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Noise, Seeded, mix};
/// use canvas_sched::{Timesteps, schedule, start};
/// let levels = Timesteps::uniform().levels(&schedule::Flow::default(), 10)?;
/// let levels = start(&levels, 0.3)?;
/// assert_eq!(levels.len(), 4); // three hops, from t = 0.3
/// let picture = Tensor::<4>::ones([1, 3, 8, 8], &Device::flex());
/// let noise = Seeded::new(0, [0]).normal_like(&picture);
/// let noised = mix(picture, noise, &levels[..1]); // what the run starts from
/// # assert_eq!(noised.dims(), [1, 3, 8, 8]);
/// # Ok::<(), canvas_sched::GridSpecError>(())
/// ```
pub fn start(levels: &[Level], strength: f64) -> Result<&[Level], GridSpecError> {
    setting(strength > 0.0 && strength <= 1.0, "the strength", "in (0, 1]", strength)?;
    let hops = levels.len().saturating_sub(1);
    let left = ((hops as f64 * strength) as usize).min(hops);
    setting(left > 0, "the strength", "enough for one step of the grid", strength)?;
    Ok(&levels[hops - left..])
}
