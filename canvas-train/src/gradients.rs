//! Gradients of a batch's mean loss, in the three ways a step can come to them.

use crate::{NonFinite, TrainState};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams, Optimizer};
use burn::prelude::*;
use canvas_core::recompute;
use std::ops::Range;

/// Losses of a batch, and the gradients of their mean: what an [update](TrainState::update) is made of.
pub struct Gradients {
    /// The loss of each image.
    pub losses: Vec<f64>,
    /// By parameter, before clipping.
    pub grads: GradientsParams,
}

/// A model that gradients are computed of: that of a [`TrainState`], or its copy on [another device](crate::Replicas).
pub struct Replica<'a, M> {
    /// The model.
    pub model: &'a M,
    /// Where it is; tracks gradients.
    pub device: &'a Device,
    /// Images trained on before this step, for errors.
    pub(crate) images: u64,
    /// Images of the step's batch before those that this replica is given, for errors.
    pub(crate) start: usize,
}

impl<M: Module> Replica<'_, M> {
    /// As [`TrainState::gradients`].
    ///
    /// # Errors
    /// If a loss is not finite.
    pub fn gradients(&self, losses: Tensor<1>) -> Result<Gradients, NonFinite> {
        let values = self.finite(&losses)?;
        let grads = GradientsParams::from_grads(losses.mean().backward(), self.model);
        Ok(Gradients { losses: values, grads })
    }

    /// As [`TrainState::gradients_recomputed`].
    ///
    /// # Errors
    /// If a loss is not finite.
    ///
    /// # Panics
    /// If `blocks` is 0, or `losses` does not do the same each time.
    pub fn gradients_recomputed(
        &self,
        losses: impl Fn(&M) -> Tensor<1>,
        blocks: usize,
    ) -> Result<Gradients, NonFinite> {
        let forward = recompute::Forward::new(self.model, losses);
        let values = self.finite(&forward.losses)?;
        Ok(Gradients { losses: values, grads: forward.gradients(blocks) })
    }

    /// As [`TrainState::gradients_accumulated`].
    ///
    /// # Errors
    /// If a loss is not finite.
    ///
    /// # Panics
    /// If `batch` or `at_once` is 0, or there are not as many losses as images.
    pub fn gradients_accumulated(
        &self,
        losses: impl Fn(&M, Range<usize>) -> Tensor<1>,
        batch: usize,
        at_once: usize,
    ) -> Result<Gradients, NonFinite> {
        assert!(batch > 0 && at_once > 0, "a batch of {batch}, {at_once} at once");
        let (mut values, mut sums) = (Vec::with_capacity(batch), GradientsAccumulator::<M>::new());
        for start in (0..batch).step_by(at_once) {
            let part = start..batch.min(start + at_once);
            let some = losses(self.model, part.clone());
            assert_eq!(some.dims(), [part.len()], "losses of images {part:?}");
            values.extend(self.finite(&some).map_err(|error| error.later(start))?);
            let loss = some.sum() / batch as f64;
            sums.accumulate(self.model, GradientsParams::from_grads(loss.backward(), self.model));
        }
        Ok(Gradients { losses: values, grads: sums.grads() })
    }

    /// The losses on the host.
    fn finite(&self, losses: &Tensor<1>) -> Result<Vec<f64>, NonFinite> {
        let values: Vec<f64> = losses.to_data().iter::<f64>().collect();
        let rows: Vec<usize> = (0..values.len()).filter(|&row| !values[row].is_finite()).collect();
        if rows.is_empty() {
            return Ok(values);
        }
        Err(NonFinite { images: self.images, rows, what: "loss" }.later(self.start))
    }
}

impl<M: Module, O: Optimizer> TrainState<M, O> {
    /// Gradients of the mean of per-sample losses `[B]`.
    ///
    /// # Errors
    /// If a loss is not finite.
    pub fn gradients(&self, losses: Tensor<1>) -> Result<Gradients, NonFinite> {
        self.replica(&losses.device()).gradients(losses)
    }

    /// As [`gradients`](Self::gradients), computed `blocks` blocks of the network at a time: most activations are not kept, but
    /// computed again. See [`canvas_core::recompute`] for what is asked of `losses`.
    ///
    /// # Errors
    /// If a loss is not finite.
    ///
    /// # Panics
    /// If `blocks` is 0, or `losses` does not do the same each time.
    pub fn gradients_recomputed(
        &self,
        losses: impl Fn(&M) -> Tensor<1>,
        blocks: usize,
    ) -> Result<Gradients, NonFinite> {
        self.replica(&self.device()).gradients_recomputed(losses, blocks)
    }

    /// As [`gradients`](Self::gradients), a few images of the batch at a time: their gradients are added up, so that a batch
    /// needs the memory of `at_once` images. They are the same but for rounding.
    ///
    /// `losses` computes those of some of the images `0..batch`.
    ///
    /// # Errors
    /// If a loss is not finite.
    ///
    /// # Panics
    /// If `batch` or `at_once` is 0, or there are not as many losses as images.
    pub fn gradients_accumulated(
        &self,
        losses: impl Fn(&M, Range<usize>) -> Tensor<1>,
        batch: usize,
        at_once: usize,
    ) -> Result<Gradients, NonFinite> {
        self.replica(&self.device()).gradients_accumulated(losses, batch, at_once)
    }

    /// The model as what gradients are computed of, on its device.
    pub fn replica<'a>(&'a self, device: &'a Device) -> Replica<'a, M> {
        Replica { model: &self.model, device, images: self.images, start: 0 }
    }
}
