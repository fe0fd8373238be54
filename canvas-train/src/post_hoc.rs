//! Any moving average of a run that is over, from a few that were saved while it went.
//!
//! A training run keeps two [power-function averages](crate::Ema::Power) and saves both from time to time. Afterwards
//! [`reconstruct`] makes the average of any width at any moment of it, as a weighted sum of what was saved, and so finds the
//! width that is best without training again.
//!
//! # Reference
//! Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2023, section 3 and appendix C,
//! <https://arxiv.org/abs/2312.02696>.

use crate::ema::power_of_width;
use crate::{CheckpointError, Ema, TrainState};
use burn::module::{Module, ModuleMapper, Param};
use burn::prelude::*;
use canvas_core::{params, weights};
use nalgebra::{DMatrix, DVector};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A power-function average: when it was taken, and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// Images of the training so far.
    pub images: u64,
    /// [Relative width](crate::Ema::Power).
    pub width: f64,
}

impl Profile {
    /// The integral over the training of the product of two profiles, each `(g + 1) / images (t / images)^g`.
    fn product(self, other: Self) -> f64 {
        let [early, late] = if self.images < other.images { [self, other] } else { [other, self] };
        let [a, b] = [early, late].map(|profile| power_of_width(profile.width));
        let ratio = early.images as f64 / late.images as f64;
        (a + 1.0) * (b + 1.0) * ratio.powf(b) / ((a + b + 1.0) * late.images as f64)
    }
}

/// What each of some averages counts in the sum that is nearest to another one, by least squares over their profiles. They add
/// up to 1.
///
/// Widths may be any, moments are those that were saved: in between there is nothing from which the steps up to a moment could be
/// told from those after it, and the sum has some of both.
///
/// # Panics
/// If there are none, or two are the same, or a width is out of its range.
///
/// # Example
/// ```
/// use canvas_train::post_hoc::{Profile, coefficients};
/// let had = [(100, 0.05), (100, 0.10), (200, 0.05), (200, 0.10)].map(|(images, width)| Profile { images, width });
/// // What was saved is found again, and nothing else counts.
/// let found = coefficients(&had, had[2]);
/// assert!((found[2] - 1.0).abs() < 1e-12 && found[0].abs() < 1e-12);
/// ```
pub fn coefficients(had: &[Profile], wanted: Profile) -> Vec<f64> {
    assert!(!had.is_empty(), "an average of nothing");
    let products = DMatrix::from_fn(had.len(), had.len(), |i, j| had[i].product(had[j]));
    let aims = DVector::from_fn(had.len(), |i, _| had[i].product(wanted));
    let found = products.lu().solve(&aims).expect("averages that differ");
    let sum = found.sum();
    found.iter().map(|part| part / sum).collect()
}

/// Saves the power-function averages that a state [also keeps](TrainState::also_average) into a folder of a run's snapshots, a file for each.
///
/// # Errors
/// Names the file.
pub fn save<M: Module, O: burn::optim::Optimizer>(
    state: &TrainState<M, O>,
    folder: &Path,
) -> Result<(), CheckpointError> {
    std::fs::create_dir_all(folder)
        .map_err(|source| CheckpointError::Io { path: folder.to_owned(), source })?;
    for (ema, average) in state.others() {
        let Ema::Power { width } = ema else { continue };
        let path = folder.join(format!("{:012}-{width}.safetensors", state.images));
        weights::save(average, &path, &BTreeMap::new())?;
    }
    Ok(())
}

/// What [`save`] has written into a folder, the oldest first.
///
/// # Errors
/// If the folder cannot be read, or a file in it has another name than such a file.
pub fn saved(folder: &Path) -> Result<Vec<(Profile, PathBuf)>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_none_or(|end| end != "safetensors") {
            continue; // what was being written when a run was stopped
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let parts = name.split_once('-').and_then(|(images, width)| {
            Some(Profile { images: images.parse().ok()?, width: width.parse().ok()? })
        });
        let Some(profile) = parts else {
            let message = "expected a name of images and width, as in 000000001000-0.05.safetensors".into();
            return Err(CheckpointError::Content { path, message });
        };
        found.push((profile, path));
    }
    found.sort_by_key(|(profile, path)| (profile.images, path.clone()));
    Ok(found)
}

/// The average of this width at this moment, of what [`save`] has written: `module` with other parameters. Sums are in f64,
/// and one file is in memory at a time.
///
/// # Errors
/// If there is nothing saved, or a file is not of this module: names the file.
pub fn reconstruct<M: Module>(module: M, folder: &Path, wanted: Profile) -> Result<M, CheckpointError> {
    let found = saved(folder)?;
    if found.is_empty() {
        let message = "no averages were saved here".into();
        return Err(CheckpointError::Content { path: folder.to_owned(), message });
    }
    let had: Vec<Profile> = found.iter().map(|(profile, _)| *profile).collect();
    let mut sums: Vec<Vec<f64>> = Vec::new();
    for ((_, path), part) in found.iter().zip(coefficients(&had, wanted)) {
        let loaded = weights::load(module.clone(), path, &[])?;
        let values = params::named(&loaded);
        sums.resize(values.len(), Vec::new());
        for (sum, values) in sums.iter_mut().zip(values) {
            sum.resize(values.data.num_elements(), 0.0);
            sum.iter_mut().zip(values.data.iter::<f64>()).for_each(|(sum, value)| *sum += part * value);
        }
    }
    Ok(module.map(&mut Fill { sums: sums.into_iter() }))
}

struct Fill {
    sums: std::vec::IntoIter<Vec<f64>>,
}

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let values = self.sums.next().expect("a sum for each parameter");
        param.map(|old| {
            let new = Tensor::from_data(TensorData::new(values, old.dims()), (&old.device(), old.dtype()));
            if old.is_require_grad() { new.require_grad() } else { new }
        })
    }
}
