//! Losses of images that are not trained on, at fixed levels with fixed noise.

use crate::{Noised, Objective};
use burn::prelude::*;
use canvas_core::{Backbone, Condition, Level, Noise, Preconditioned, Prediction, Seeded};

/// What held-out losses are measured with: always the same levels and noise, so that a curve over a run shows the model and
/// not the luck of the draw, and two runs can be compared.
///
/// Loss by level is what correlates with quality: the mean over a training distribution moves with every change of it.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Level, Process, Unconditional};
/// use canvas_sched::{predict, schedule};
/// use canvas_train::{Objective, seeing::HeldOut};
///
/// struct Zero;
/// impl Backbone<2> for Zero {
///     type Cond = Unconditional;
///     fn forward(&self, x: Tensor<2>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
///         x.zeros_like()
///     }
/// }
/// let process = Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
/// let levels = [0.25, 0.75].map(|time| process.schedule.level(time)).to_vec();
/// let held_out = HeldOut { levels, seed: 7, objective: Objective::default(), at_once: 32 };
/// let images = Tensor::<2>::zeros([100, 4], &Device::flex());
/// // Against the noise alone, whose variance is 1.
/// let losses = held_out.losses(process.denoiser(&Zero), &images, &Unconditional(100));
/// assert!(losses.iter().all(|loss| (loss - 1.0).abs() < 0.2));
/// ```
#[derive(Clone, Debug)]
pub struct HeldOut {
    /// Where losses are measured.
    pub levels: Vec<Level>,
    /// Key of the noise: image `i` has the same at every level, and in every batch.
    pub seed: u64,
    /// What the losses are; its levels are not used.
    pub objective: Objective,
    /// Images that are computed at once, at least 1.
    pub at_once: usize,
}

impl HeldOut {
    /// The mean loss of the images at each level.
    ///
    /// # Shapes
    /// - `x0`: `[N, C, ..]`, with `N` conditions
    ///
    /// # Panics
    /// If there are no images, or not as many conditions.
    pub fn losses<const D: usize, B: Backbone<D>, P: Prediction + ?Sized>(
        &self,
        network: Preconditioned<'_, B, P>,
        x0: &Tensor<D>,
        cond: &B::Cond,
    ) -> Vec<f64> {
        let count = x0.dims()[0];
        assert!(count > 0, "a held-out loss is of images");
        assert_eq!(cond.batch(), count, "conditions, and images");
        let mut sums = vec![0.0; self.levels.len()];
        let rows: Vec<usize> = (0..count).collect();
        for rows in rows.chunks(self.at_once.max(1)) {
            let images = x0.clone().narrow(0, rows[0], rows.len());
            let numbers: Vec<u64> = rows.iter().map(|&row| row as u64).collect();
            let eps = Seeded::new(self.seed, numbers).normal_like(&images);
            let cond = if rows.len() == count { cond.clone() } else { cond.select(rows) };
            for (sum, level) in sums.iter_mut().zip(&self.levels) {
                let noised = Noised::new(images.clone(), eps.clone(), vec![*level; rows.len()]);
                let losses = self.objective.losses(network, &noised, &cond);
                *sum += losses.into_data().iter::<f64>().sum::<f64>();
            }
        }
        sums.into_iter().map(|sum| sum / count as f64).collect()
    }
}
