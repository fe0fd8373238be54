//! Networks and denoisers: what a researcher writes, and what a sampler uses.

use crate::{Condition, Level, NoiseSchedule, Prediction, per_sample};
use burn::prelude::*;
use burn::tensor::DType;

/// What a researcher writes: a network. It knows nothing of noise schedules or samplers.
pub trait Backbone<const D: usize> {
    /// What it is conditioned on: [`Unconditional`](crate::Unconditional), [`Class`](crate::Class),
    /// [`Text`](crate::Text), a pair of these, or a type of your own.
    type Cond: Condition;

    /// # Shapes
    /// - `x`: `[B, C, ..]`, about unit variance (see [`Prediction`])
    /// - `time`: `[B]`, the prediction's time
    /// - output: `[B, C, ..]`
    fn forward(&self, x: Tensor<D>, time: Tensor<1>, cond: &Self::Cond) -> Tensor<D>;
}

impl<const D: usize, B: Backbone<D>> Backbone<D> for &B {
    type Cond = B::Cond;
    fn forward(&self, x: Tensor<D>, time: Tensor<1>, cond: &B::Cond) -> Tensor<D> {
        (**self).forward(x, time, cond)
    }
}

/// What a researcher writes for a mean flow: a network of two times, which training and sampling share.
pub trait TwoTimes<const D: usize> {
    /// What it is conditioned on.
    type Cond: Condition;

    /// The average velocity from time `t` to time `r <= t`, both `[B]` and in rectified flow's time.
    ///
    /// # Shapes
    /// `[B, C, ..]` to `[B, C, ..]`
    fn forward(&self, x: Tensor<D>, r: Tensor<1>, t: Tensor<1>, cond: &Self::Cond) -> Tensor<D>;
}

impl<const D: usize, N: TwoTimes<D>> TwoTimes<D> for &N {
    type Cond = N::Cond;
    fn forward(&self, x: Tensor<D>, r: Tensor<1>, t: Tensor<1>, cond: &N::Cond) -> Tensor<D> {
        (**self).forward(x, r, t, cond)
    }
}

/// What a denoiser says of a noised batch: the clean estimate, and what goes with it where there is more.
///
/// A plain clean estimate becomes one by `into()`.
#[derive(Clone, Debug)]
pub struct Estimate<const D: usize> {
    /// The posterior mean `E[x_0 | x_t]`, `[B, C, ..]`, in the units of the data.
    pub x0: Tensor<D>,
    /// The noise estimate, `[B, C, ..]`, where it is not the one that `x0` implies: a clipped `x0` that keeps
    /// its noise, CFG++.
    pub eps: Option<Tensor<D>>,
    /// A learned variance, `[B, C, ..]`: the network's second half of channels, raw. (A DiT's is among its channels only
    /// if asked for: `canvas_dit::WithVariance`.)
    pub variance: Option<Tensor<D>>,
}

impl<const D: usize> From<Tensor<D>> for Estimate<D> {
    fn from(x0: Tensor<D>) -> Self {
        Self { x0, eps: None, variance: None }
    }
}

/// The one currency of the workspace: the posterior mean `E[x_0 | x_t]`.
///
/// Guidance methods are denoisers around denoisers.
pub trait Denoiser<const D: usize> {
    /// What it is conditioned on.
    type Cond: Condition;

    /// The clean estimate.
    ///
    /// # Shapes
    /// - `x`: `[B, C, ..]`, noised to the levels `at` (`B` of them, or one shared by the batch)
    /// - output: `[B, C, ..]`, in the units of the data
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &Self::Cond) -> Estimate<D>;
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for &N {
    type Cond = N::Cond;
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Estimate<D> {
        (**self).denoise(x, at, cond)
    }
}

/// A backbone made into a denoiser by a prediction type. Borrows both: cheap to make where it is needed.
#[derive(Debug)]
pub struct Preconditioned<'a, B, P: ?Sized> {
    /// The network.
    pub backbone: &'a B,
    /// What its output means.
    pub prediction: &'a P,
}

// By hand: two references are copied whatever they point to, which the derive would not see.
impl<B, P: ?Sized> Clone for Preconditioned<'_, B, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B, P: ?Sized> Copy for Preconditioned<'_, B, P> {}

impl<B, P: Prediction + ?Sized> Preconditioned<'_, B, P> {
    /// The network's raw output, with input scaling and time applied: what an objective regresses on.
    ///
    /// # Shapes
    /// As [`Denoiser::denoise`].
    ///
    /// # Panics
    /// If `at` holds neither one level nor one per sample.
    pub fn raw<const D: usize>(&self, x: Tensor<D>, at: &[Level], cond: &B::Cond) -> Tensor<D>
    where
        B: Backbone<D>,
    {
        let (device, batch) = (x.device(), x.dims()[0]);
        assert!(at.len() == 1 || at.len() == batch, "{} levels for a batch of {batch}", at.len());
        let coefficients = |level| self.prediction.coefficients(level);
        let input = per_sample::<D>(at, (&device, x.dtype()), |level| coefficients(level).input);
        // A time of 0.7453 does not survive 16 bits.
        let precise = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let time = per_sample::<1>(at, (&device, precise), |level| coefficients(level).time);
        self.backbone.forward(x * input, time.expand([batch]), cond)
    }

    /// What an answer that is [there already](Self::raw) says of a noised batch.
    ///
    /// # Shapes
    /// - `raw`: `[B, C, ..]`, or `[B, 2 C, ..]` with variances; the others as [`Denoiser::denoise`]
    pub fn estimate<const D: usize>(&self, raw: Tensor<D>, x: Tensor<D>, at: &[Level]) -> Estimate<D> {
        let like = (&x.device(), x.dtype());
        let skip = per_sample::<D>(at, like, |level| self.prediction.coefficients(level).skip);
        let out = per_sample::<D>(at, like, |level| self.prediction.coefficients(level).out);
        let channels = x.dims()[1];
        let (raw, variance) = if raw.dims()[1] == 2 * channels {
            let variance = raw.clone().narrow(1, channels, channels);
            (raw.narrow(1, 0, channels), Some(variance))
        } else {
            (raw, None)
        };
        Estimate { x0: x * skip + raw * out, eps: None, variance }
    }
}

impl<const D: usize, B: Backbone<D>, P: Prediction + ?Sized> Denoiser<D> for Preconditioned<'_, B, P> {
    type Cond = B::Cond;

    /// A network with twice the channels of its input has learned variances: they are passed on.
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &B::Cond) -> Estimate<D> {
        self.estimate(self.raw(x.clone(), at, cond), x, at)
    }
}

/// A noise schedule and what the network predicts on it: the one value that training and sampling share, so
/// that they cannot disagree.
pub struct Process {
    /// How noise grows with time.
    pub schedule: Box<dyn NoiseSchedule>,
    /// What the network's output means.
    pub prediction: Box<dyn Prediction>,
}

impl Process {
    /// The denoiser a network is in this process.
    pub fn denoiser<'a, B>(&'a self, backbone: &'a B) -> Preconditioned<'a, B, dyn Prediction> {
        Preconditioned { backbone, prediction: &*self.prediction }
    }
}
