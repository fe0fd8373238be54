//! How much memory training will take, before it does.

use crate::TrainState;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, Optimizer};
use burn::prelude::*;
use canvas_core::recompute;
use peak_alloc::PeakAlloc;
use std::fmt;

/// What training takes of memory, in bytes: see [`TrainState::estimate_memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainMemory {
    /// What is there all the time: parameters, their averages, what the optimizer keeps, and all else that the program has.
    pub held: u64,
    /// What a step takes beside it at its highest: activations, gradients, and what layers work with.
    pub step: u64,
}

impl TrainMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.held + self.step
    }
}

impl fmt::Display for TrainMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |bytes: u64| match bytes {
            0x4000_0000.. => format!("{:.2} GiB", bytes as f64 / (1u64 << 30) as f64),
            _ => format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64),
        };
        write!(f, "{} ({} all the time, {} in a step)", said(self.total()), said(self.held), said(self.step))
    }
}

/// What gradients of some images were seen to take, in bytes beside what was there before.
struct Seen {
    /// When the forward pass had ended.
    activations: u64,
    /// Of all trained parameters.
    gradients: u64,
    /// At the highest moment.
    peak: u64,
}

impl<M: Module, O: Optimizer> TrainState<M, O> {
    /// What training with so many images a step will take, by computing gradients of fewer, which changes nothing but
    /// [`PeakAlloc`]'s peak. `data` gives a batch of so many images, and `losses` computes theirs `[B]`; `blocks` says that training
    /// will [recompute](Self::step_recomputed) so many blocks at a time.
    ///
    /// A backward pass frees activations while gradients come to be, so its highest moment is the end with few images, when
    /// all gradients are there, and the beginning with many, when all activations are. From where activations
    /// outweigh gradients it grows evenly: the estimate is on the line through that number of images and twice as many,
    /// and is measured itself where `batch` is no more.
    ///
    /// Of networks of a few megabytes it is less exact: there, what products pack grows with the batch for a while.
    ///
    /// It counts what the process allocates, so it is of the CPU. `None` on other devices, and in a program whose allocator
    /// does not count.
    ///
    /// # Errors
    /// Those of `data`.
    ///
    /// # Panics
    /// If `batch` or `blocks` is 0.
    ///
    /// # Example
    /// ```
    /// use burn::nn::{Linear, LinearConfig};
    /// use burn::prelude::*;
    /// use canvas_train::{AdamW, PeakAlloc, TrainState};
    ///
    /// #[global_allocator]
    /// static ALLOCATOR: PeakAlloc = PeakAlloc; // what counts
    ///
    /// let device = Device::flex().autodiff();
    /// let state = TrainState::new(LinearConfig::new(256, 256).init(&device), AdamW::default());
    /// let data = |images| std::io::Result::Ok(Tensor::<2>::ones([images, 256], &device));
    /// let losses = |layer: &Linear, images: &Tensor<2>| {
    ///     layer.forward(images.clone()).square().mean_dim(1).squeeze_dim::<1>(1)
    /// };
    /// let memory = state.estimate_memory(data, losses, 64, None)?.unwrap();
    /// let weights = 4 * 256 * 256;
    /// assert!(memory.held > 4 * weights); // themselves, their average, and two moments
    /// assert!(memory.step > weights); // their gradients
    /// println!("training takes {memory}");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn estimate_memory<T, E>(
        &self,
        data: impl Fn(usize) -> Result<T, E>,
        losses: impl Fn(&M, &T) -> Tensor<1>,
        batch: usize,
        blocks: Option<usize>,
    ) -> Result<Option<TrainMemory>, E> {
        assert!(batch > 0, "a step has images");
        let see = |images: usize| self.see(|| data(images), &losses, blocks);
        // Memory that threads keep for their work is held from now on.
        if see(1)?.gradients < trained(&self.model) {
            return Ok(None); // less than a byte for a number: nothing counts, or they are not the process's
        }
        let (one, two) = (see(1)?, see(2.min(batch))?);
        // Before the first step the averages are the model itself.
        let averages = if self.steps == 0 { one.gradients * (1 + self.others().count() as u64) } else { 0 };
        let held = alive() + averages + self.moments_to_come();

        let further = two.activations.saturating_sub(one.activations).max(1);
        let few = 1 + one.gradients.saturating_sub(one.activations).div_ceil(further) as usize;
        let step = if batch <= 2 * few {
            see(batch)?.peak
        } else {
            let (few_peak, more_peak) = (see(few)?.peak, see(2 * few)?.peak);
            more_peak + more_peak.saturating_sub(few_peak) * (batch - 2 * few) as u64 / few as u64
        };
        Ok(Some(TrainMemory { held, step }))
    }

    fn see<T, E>(
        &self,
        data: impl Fn() -> Result<T, E>,
        losses: impl Fn(&M, &T) -> Tensor<1>,
        blocks: Option<usize>,
    ) -> Result<Seen, E> {
        let before = alive();
        PeakAlloc.reset_peak_usage();
        let batch = data()?;
        let losses = |model: &M| losses(model, &batch);
        let (activations, gradients) = match blocks {
            None => {
                let loss = losses(&self.model).mean();
                (alive(), GradientsParams::from_grads(loss.backward(), &self.model))
            }
            Some(blocks) => {
                let forward = recompute::Forward::new(&self.model, losses);
                (alive(), forward.gradients(blocks))
            }
        };
        let bytes = [activations, alive(), PeakAlloc.peak_usage() as u64];
        drop(gradients);
        let [activations, gradients, peak] = bytes.map(|bytes| bytes.saturating_sub(before));
        Ok(Seen { activations, gradients, peak })
    }
}

/// How many numbers get gradients.
fn trained<M: Module>(model: &M) -> u64 {
    struct Count(u64);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.shape().num_elements() as u64;
            }
        }
    }
    let mut count = Count(0);
    model.visit(&mut count);
    count.0
}

/// Bytes that are allocated now: 0 in a program whose allocator does not count.
pub(crate) fn alive() -> u64 {
    PeakAlloc.current_usage() as u64
}
