//! DreamBooth: a network that learns one subject of a few images, and does not forget its class over them.
//!
//! Beside each image of the subject ("a photo of sks dog") goes one that the network itself has drawn before of the class
//! ("a photo of a dog"); its loss counts `weight` times. All else is training as ever: the two are one batch ([`beside`]), and
//! their losses become one an image of the subject ([`with_prior`]).
//!
//! # Reference
//! Ruiz et al., "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation", 2022, equation 2,
//! <https://arxiv.org/abs/2208.12242>; the weight is 1 there.
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::{Backbone, Class, Condition, Noise, NoiseSchedule, Process, Seeded};
//! use canvas_dit::DitConfig;
//! use canvas_sched::{predict, schedule};
//! use canvas_train::dreambooth::{beside, with_prior};
//! use canvas_train::{Noised, Objective};
//!
//! let device = Device::flex();
//! let dit = DitConfig::new([4, 4], 16, 1, 2).with_classes(10).init(&device);
//! let process = Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
//! let subject = (Tensor::<4>::ones([2, 4, 4, 4], &device), Class::new(&[9, 9], &device));
//! let drawn = (Tensor::<4>::zeros([2, 4, 4, 4], &device), Class::new(&[3, 3], &device)); // once, before training
//!
//! let (x0, cond) = beside(subject, drawn);
//! let eps = Seeded::new(1, [0, 1, 2, 3]).normal_like(&x0);
//! let noised = Noised::new(x0, eps, [0.1, 0.9, 0.3, 0.4].map(|t| process.schedule.level(t)).to_vec());
//! let losses = with_prior(Objective::default().losses(process.denoiser(&dit), &noised, &cond), 1.0);
//! assert_eq!(losses.dims(), [2]);
//! ```

use burn::prelude::*;
use canvas_core::Condition;

/// The subject's images with their conditions, and behind them as many of the class: one batch.
///
/// # Panics
/// If there are not as many of one as of the other.
pub fn beside<const D: usize, C: Condition>(
    subject: (Tensor<D>, C),
    class: (Tensor<D>, C),
) -> (Tensor<D>, C) {
    let [of_subject, of_class] = [&subject, &class].map(|(x, cond)| [x.dims()[0], cond.batch()]);
    let count = of_subject[0];
    let fit = [of_subject, of_class] == [[count; 2]; 2];
    assert!(fit, "[images, conditions] of the subject {of_subject:?}, of its class {of_class:?}");
    (Tensor::cat(vec![subject.0, class.0], 0), C::cat(&[subject.1, class.1]))
}

/// Losses `[2 B]` of such a batch, to `[B]`: the subject's, and `weight` times the class's.
///
/// # Panics
/// If they are odd in number.
pub fn with_prior(losses: Tensor<1>, weight: f64) -> Tensor<1> {
    let [count] = losses.dims();
    assert!(count.is_multiple_of(2), "losses of a subject and as many of its class, found {count}");
    let subject = losses.clone().narrow(0, 0, count / 2);
    subject + losses.narrow(0, count / 2, count / 2) * weight
}

/// Images of the class, drawn by the network as it is before training: so many at a time, by their numbers `0..count`, so that
/// what is there already (`0..start`) need not be drawn again.
///
/// # Errors
/// What `draw` says.
///
/// # Panics
/// If `at_once` is 0.
pub fn class_images<T, E>(
    start: u64,
    count: u64,
    at_once: usize,
    mut draw: impl FnMut(&[u64]) -> Result<Vec<T>, E>,
) -> Result<Vec<T>, E> {
    assert!(at_once > 0, "images drawn at once, found 0");
    let mut all = Vec::new();
    for first in (start..count).step_by(at_once) {
        let numbers: Vec<u64> = (first..count.min(first + at_once as u64)).collect();
        all.extend(draw(&numbers)?);
    }
    Ok(all)
}
