//! Networks and denoisers: what a researcher writes, and what a sampler uses.

use crate::{Condition, Level, NoiseSchedule, Prediction, per_sample};
use burn::prelude::*;

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
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &Self::Cond) -> Tensor<D>;
}

impl<const D: usize, N: Denoiser<D>> Denoiser<D> for &N {
    type Cond = N::Cond;
    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &N::Cond) -> Tensor<D> {
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
        let input = per_sample::<D>(at, &device, |level| self.prediction.coefficients(level).input);
        let time = per_sample::<1>(at, &device, |level| self.prediction.coefficients(level).time);
        self.backbone.forward(x * input, time.expand([batch]), cond)
    }
}

impl<const D: usize, B: Backbone<D>, P: Prediction + ?Sized> Denoiser<D> for Preconditioned<'_, B, P> {
    type Cond = B::Cond;

    fn denoise(&self, x: Tensor<D>, at: &[Level], cond: &B::Cond) -> Tensor<D> {
        let device = x.device();
        let skip = per_sample::<D>(at, &device, |level| self.prediction.coefficients(level).skip);
        let out = per_sample::<D>(at, &device, |level| self.prediction.coefficients(level).out);
        let raw = self.raw(x.clone(), at, cond);
        x * skip + raw * out
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
