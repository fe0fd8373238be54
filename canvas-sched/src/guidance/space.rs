use crate::predict;
use burn::prelude::*;
use burn::tensor::DType;
use canvas_core::{Coefficients, Level, Prediction, per_sample};

fn precise<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) { x.cast(DType::F32) } else { x }
}

/// The variable a method of guidance acts on, for those where it matters.
///
/// References act on a network's raw output, whatever it means; a denoiser hides that, so it is said here. Each
/// is a [`Prediction`]: choose the one the network was trained with to repeat a reference's numbers.
///
/// Where a variable says nothing of the data (noise at `alpha = 0`; noise and velocities at `sigma = 0`), the
/// method acts on clean data.
///
/// # Example
/// ```
/// use burn::prelude::*;
/// use canvas_core::Level;
/// use canvas_sched::Space;
///
/// let at = [Level { time: 0.5, alpha: 0.5, sigma: 2.0 }];
/// let device = Device::flex();
/// let (x, x0) = (Tensor::<2>::full([1, 1], 3.0, &device), Tensor::full([1, 1], 1.0, &device));
/// let eps = Space::Eps.read(&x, x0, &at);
/// assert_eq!(eps.clone().into_scalar::<f32>(), 1.25); // (3 - 0.5) / 2
/// assert_eq!(Space::Eps.write(&x, eps, &at).into_scalar::<f32>(), 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Clean data.
    X0,
    /// Noise, as [`predict::Epsilon`].
    Eps,
    /// `(alpha eps - sigma x0) / hypot(alpha, sigma)`, as [`predict::Velocity`].
    Velocity,
    /// `eps - x0`, as [`predict::Flow`].
    Flow,
}

impl Space {
    /// `(skip, out)` with `x0 = skip x + out value`.
    fn weights(self, level: Level) -> (f64, f64) {
        let Coefficients { skip, out, .. } = match self {
            Self::X0 => return (0.0, 1.0),
            Self::Eps => predict::Epsilon.coefficients(level),
            Self::Velocity => predict::Velocity.coefficients(level),
            Self::Flow => predict::Flow.coefficients(level),
        };
        if out == 0.0 { (0.0, 1.0) } else { (skip, out) }
    }

    /// The value in this space of a clean estimate: `(x0 - skip x) / out`, in 32 bits at least: the norms that
    /// follow would not fit in 16.
    ///
    /// # Shapes
    /// `x`, `x0`, output: `[B, ..]`; `at`: `B` levels, or one shared by all.
    pub fn read<const D: usize>(self, x: &Tensor<D>, x0: Tensor<D>, at: &[Level]) -> Tensor<D> {
        let x0 = precise(x0);
        if self == Self::X0 {
            return x0;
        }
        let like = (&x0.device(), x0.dtype());
        let skip = per_sample::<D>(at, like, |level| self.weights(level).0);
        let out = per_sample::<D>(at, like, |level| self.weights(level).1);
        (x0 - precise(x.clone()) * skip) / out
    }

    /// The clean estimate of a value in this space: `skip x + out value`, in numbers like those of `x`.
    ///
    /// # Shapes
    /// As [`read`](Self::read).
    pub fn write<const D: usize>(self, x: &Tensor<D>, value: Tensor<D>, at: &[Level]) -> Tensor<D> {
        if self == Self::X0 {
            return value.cast(x.dtype());
        }
        let like = (&value.device(), value.dtype());
        let skip = per_sample::<D>(at, like, |level| self.weights(level).0);
        let out = per_sample::<D>(at, like, |level| self.weights(level).1);
        (precise(x.clone()) * skip + value * out).cast(x.dtype())
    }
}
