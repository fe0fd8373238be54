//! Computing in 16 bits what is trained in 32.

use burn::module::Module;
use burn::prelude::*;
use burn::tensor::FloatDType;
use canvas_core::{Backbone, params};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The numbers that a network computes in while it trains. Parameters, gradients, the optimizer's state and averages are f32 in
/// either.
///
/// In bf16 the parameters are rounded at the start of each step, in the graph: forward and backward pass are bf16, and what comes
/// out is the gradient of the f32 parameters. bf16 has f32's range, so losses are not scaled. (f16 has not, and is not offered.)
/// Networks are told the time in f32, and losses are computed in f32 of an answer in bf16.
///
/// # Example
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use burn::tensor::DType;
/// use canvas_core::{Backbone, Noise, Process, Seeded, Unconditional};
/// use canvas_sched::{predict, schedule};
/// use canvas_train::{AdamW, Draws, Noised, Objective, Precision, TrainState};
///
/// #[derive(Module, Debug)]
/// struct Network {
///     layer: Linear,
/// }
/// impl Backbone<2> for Network {
///     type Cond = Unconditional;
///     fn forward(&self, x: Tensor<2>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<2> {
///         self.layer.forward(x)
///     }
/// }
///
/// let device = Device::flex().autodiff();
/// let precision: Precision = "bf16".parse()?;
/// precision.check(&device)?;
///
/// let state = TrainState::new(Network { layer: LinearConfig::new(2, 2).init(&device) }, AdamW::default());
/// let process = Process { schedule: Box::new(schedule::Flow::default()), prediction: Box::new(predict::Flow) };
/// let objective = Objective::default();
/// let x0 = Tensor::<2>::ones([1, 2], &device);
/// let level = objective.level(&*process.schedule, Draws::Independent.at(0, 0));
/// let batch = Noised::new(x0.clone(), Seeded::new(0, vec![0]).normal_like(&x0), vec![level]);
///
/// let model = precision.model(&state.model); // rounded, in the graph
/// let network = precision.network(&model); // takes and gives f32
/// let losses = objective.losses(process.denoiser(&network), &batch, &Unconditional(1));
/// let gradients = state.gradients(losses)?;
/// assert_eq!(gradients.grads.get::<2>(state.model.layer.weight.id).unwrap().dtype(), DType::F32);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Reference
/// Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019, <https://arxiv.org/abs/1905.12322>; Micikevicius et al.,
/// "Mixed Precision Training", 2017, section 3.1 (the f32 copy), <https://arxiv.org/abs/1710.03740>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Everything in 32 bits.
    #[default]
    F32,
    /// Networks in bfloat16: 8 bits of exponent and 8 of fraction.
    Bf16,
}

/// A precision that does not exist, or not on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrecisionError {
    /// No such name.
    #[error("{0:?} is no precision: there are f32 and bf16")]
    Unknown(String),
    /// The device does not compute in it.
    #[error("{device} does not compute in {precision}: Burn finds storage or arithmetic of it missing")]
    Device {
        /// The device, in Burn's words.
        device: String,
        /// What was asked of it.
        precision: Precision,
    },
}

impl Precision {
    /// Whether a device computes in it, as far as Burn knows of it.
    ///
    /// # Errors
    /// If not.
    pub fn check(self, device: &Device) -> Result<(), PrecisionError> {
        // What Burn answers is of the device without gradients.
        let device = device.clone().inner();
        if device.supports_dtype(self.dtype()) {
            return Ok(());
        }
        Err(PrecisionError::Device { device: format!("{device:?}"), precision: self })
    }

    /// A model in these numbers, whose gradients are those of the f32 parameters: made anew in each step.
    pub fn model<M: Module>(self, model: &M) -> M {
        match self {
            Self::F32 => model.clone(),
            Self::Bf16 => params::cast(model.clone(), self.dtype()),
        }
    }

    /// A network in these numbers as one that takes and gives f32, beside a time in f32 and a condition as it is.
    pub fn network<B>(self, network: &B) -> InPrecision<'_, B> {
        InPrecision { network, precision: self }
    }

    fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = PrecisionError;
    fn from_str(name: &str) -> Result<Self, PrecisionError> {
        [Self::F32, Self::Bf16]
            .into_iter()
            .find(|precision| precision.to_string() == name)
            .ok_or_else(|| PrecisionError::Unknown(name.to_owned()))
    }
}

/// A network in some precision: see [`Precision::network`].
#[derive(Clone, Copy, Debug)]
pub struct InPrecision<'a, B> {
    network: &'a B,
    precision: Precision,
}

impl<const D: usize, B: Backbone<D>> Backbone<D> for InPrecision<'_, B> {
    type Cond = B::Cond;

    fn forward(&self, x: Tensor<D>, time: Tensor<1>, cond: &B::Cond) -> Tensor<D> {
        let given = x.dtype();
        if self.precision == Precision::F32 {
            return self.network.forward(x, time, cond); // as it is, f64 too
        }
        self.network.forward(x.cast(self.precision.dtype()), time, cond).cast(given)
    }
}
