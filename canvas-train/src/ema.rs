//! Moving averages of a model's parameters.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::prelude::*;
use burn::tensor::container::TensorContainer;
use serde::{Deserialize, Serialize};

/// A moving average of parameters: `average <- decay * average + (1 - decay) * parameters` after every step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Ema {
    /// Always the same decay. What the parameters were at the start stays in it for long.
    Constant {
        /// Decay per step, in `[0, 1)`; with 0 the average is the model.
        decay: f64,
    },
    /// `min(limit, (1 + step) / (10 + step))`, the warm-up of Stable Diffusion's and TensorFlow's: the memory is a part of the
    /// training so far, then at most a constant.
    WarmUp {
        /// Largest decay per step, in `[0, 1)`.
        limit: f64,
    },
    /// Counted in images, so that it does not change with the batch: half of it is younger than `images`, or than `part` of
    /// the training so far where that is less.
    ///
    /// Karras et al., "Elucidating the Design Space", 2022, <https://arxiv.org/abs/2206.00364>: 500,000 and 0.05 in its code.
    HalfLife {
        /// Images after which a parameter counts half.
        images: f64,
        /// Part of the training so far, above 0.
        part: f64,
    },
    /// Old parameters count as a power of their age's part of the training: the memory grows with the training for ever, and
    /// several such averages make any other afterwards ([`post_hoc`](crate::post_hoc)).
    ///
    /// Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2023, section 3.1,
    /// <https://arxiv.org/abs/2312.02696>.
    Power {
        /// Standard deviation of the average's profile as a part of the training so far: above 0, at most 0.28. 0.05 and 0.10 are
        /// what the paper keeps.
        width: f64,
    },
}

/// When an average is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Number of the step; the first is 0.
    pub step: u64,
    /// Images trained on, the step's included.
    pub images: u64,
    /// Images of the step.
    pub batch: u64,
}

impl Ema {
    /// How much of the average stays.
    ///
    /// # Panics
    /// If a `width` is not in its range.
    pub fn decay(&self, at: Moment) -> f64 {
        match *self {
            Self::Constant { decay } => decay,
            Self::WarmUp { limit } => limit.min((1.0 + at.step as f64) / (10.0 + at.step as f64)),
            Self::HalfLife { images, part } => {
                0.5f64.powf(at.batch as f64 / images.min(part * at.images as f64))
            }
            Self::Power { width } => {
                (1.0 - at.batch as f64 / at.images as f64).powf(power_of_width(width) + 1.0)
            }
        }
    }

    /// Moves the average towards the model. Both must share parameter identities, as clones do.
    ///
    /// # Panics
    /// If the average has a parameter the model lacks.
    pub fn update<M: Module>(&self, average: M, model: &M, at: Moment) -> M {
        let mut collect = Collect { params: TensorContainer::new() };
        model.visit(&mut collect);
        average.map(&mut Move { params: collect.params, decay: self.decay(at) })
    }
}

/// The exponent of a power-function average of this relative width: the largest root of
/// `(g + 1) / ((g + 2)^2 (g + 3)) = width^2`.
///
/// # Panics
/// If there is none, or the average's profile would fall with age: below 0, above 0.28.
///
/// # Reference
/// Karras et al., 2023, section 3.1.
pub fn power_of_width(width: f64) -> f64 {
    assert!(width > 0.0 && width <= 0.28, "a relative width of {width}: above 0, at most 0.28");
    let t = width.powi(-2);
    // From above the root of a function that is convex there, Newton's steps fall to it.
    let mut power = 1.0 / width;
    for _ in 0..100 {
        let value = ((power + 7.0) * power + 16.0 - t) * power + 12.0 - t;
        let slope = (3.0 * power + 14.0) * power + 16.0 - t;
        power -= value / slope;
    }
    power
}

struct Collect {
    params: TensorContainer<ParamId>,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.params.register(param.id, param.val().inner());
    }
}

struct Move {
    params: TensorContainer<ParamId>,
    decay: f64,
}

impl ModuleMapper for Move {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(current) = self.params.remove::<Tensor<D>>(&param.id) else {
            panic!("the model lacks a parameter of its average (id {})", param.id)
        };
        let decay = self.decay;
        param.map(|average| average * decay + current * (1.0 - decay))
    }
}
