//! Data parallel training: the images of a step shared out among devices.

use crate::clip::clip_from_norm;
use crate::{
    Gradients, ModuleOptimizer, NonFinite, Replica, StateError, StepOptions, StepReport, TrainState,
};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::distributed::{CollectiveTensor, ReduceOperation, all_reduce};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

/// How gradients of several devices become their mean on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Copied to the first device, added up there, and copied back: on any devices. Everything goes through the first device.
    Copies,
    /// By Burn's collective, which in Burn 0.22 is NCCL's and of CUDA devices only; a panic on others.
    AllReduce,
}

/// What makes devices unfit to train together.
#[derive(Debug, thiserror::Error)]
pub enum ReplicasError {
    /// No threads for them.
    #[error("threads of {0} devices: {1}")]
    Threads(usize, rayon::ThreadPoolBuildError),
    /// The optimizer's state could not be copied.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Copies of a [`TrainState`]'s model and optimizer on further devices, which take part in its steps.
///
/// A step on `n` devices: each computes gradients of its share of the images in a thread of its own, they exchange them for
/// the mean, and each makes the same update. So no parameters travel, and a copy stays a copy: the update is a
/// function of numbers that are the same everywhere (how far gradients are clipped is found out once). Losses are a
/// sample's own, and shares are of one size, so `n` devices make the step that one makes of the whole batch, but for the order of
/// sums.
///
/// What is saved is the state alone; copies are made of it anew. Averages are kept by the state, on the first device.
///
/// # Example
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use canvas_train::{AdamW, Ema, Exchange, NonFinite, Replicas, StepOptions, TrainState};
///
/// let device = Device::flex().autodiff();
/// let mut state = TrainState::new(LinearConfig::new(3, 1).init(&device), AdamW::default());
/// // The CPU twice; of GPUs the others, with `Exchange::AllReduce`.
/// let mut replicas = Replicas::new(&state, &[Device::flex()], Exchange::Copies)?;
/// let options = StepOptions { rate: 1e-3, clip: 1.0, ema: Ema::WarmUp { limit: 0.999 } };
///
/// let gradients = replicas.gradients(&state, 8, |replica, images| -> Result<_, NonFinite> {
///     let x = Tensor::<2>::ones([images.len(), 3], replica.device); // those of the batch's images
///     replica.gradients(replica.model.forward(x).square().reshape([images.len()]))
/// })?;
/// assert_eq!(gradients.losses.len(), 8);
/// replicas.update(&mut state, gradients, &options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Reference
/// Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", 2020, <https://arxiv.org/abs/2006.15704>;
/// gradients are exchanged after the backward pass here, not during it.
pub struct Replicas<M, O> {
    /// Of all, the state's first; with gradients.
    devices: Vec<Device>,
    others: Vec<Copied<M, O>>,
    exchange: Exchange,
    /// One a device, the same in every step: devices keep memory for each thread that uses them.
    threads: ThreadPool,
}

/// What a further device holds.
struct Copied<M, O> {
    model: M,
    optimizer: ModuleOptimizer<O>,
    /// Of the step, until the update.
    grads: GradientsParams,
}

impl<M: Module, O: Optimizer> Replicas<M, O> {
    /// Copies a state's model and optimizer as they are now to these devices, beside its own.
    ///
    /// # Errors
    /// If there are no threads for them, or the optimizer's state does not belong to the model.
    pub fn new(
        state: &TrainState<M, O>,
        further: &[Device],
        exchange: Exchange,
    ) -> Result<Self, ReplicasError> {
        let first = state.device();
        let saved: BTreeMap<_, _> = state.optimizer.export(&state.model).into_iter().collect();
        let (mut devices, mut others) = (vec![first], Vec::new());
        for device in further {
            let device = device.clone().with_autodiff_context_from(&devices[0]);
            let model = state.model.clone().fork(&device);
            let mut optimizer = state.optimizer.clone();
            optimizer.import(&model, saved.clone(), &device.clone().inner())?;
            others.push(Copied { model, optimizer, grads: GradientsParams::new() });
            devices.push(device);
        }
        let count = devices.len();
        let threads = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|number| format!("device {number}"))
            .build()
            .map_err(|error| ReplicasError::Threads(count, error))?;
        Ok(Self { devices, others, exchange, threads })
    }

    /// The first half of a step: losses of all images of a batch, and the gradients of their mean.
    ///
    /// `each` computes those of a replica's share of the images `0..batch`, in the replica's thread: by
    /// [`Replica::gradients`] and its like, on the replica's device.
    ///
    /// # Errors
    /// What `each` returns, of the first device that fails.
    ///
    /// # Panics
    /// If the batch cannot be shared out evenly.
    pub fn gradients<E: Send>(
        &mut self,
        state: &TrainState<M, O>,
        batch: usize,
        each: impl Fn(&Replica<M>, Range<usize>) -> Result<Gradients, E> + Sync,
    ) -> Result<Gradients, E> {
        let count = self.devices.len();
        assert!(batch > 0 && batch.is_multiple_of(count), "{batch} images among {count} devices");
        let share = batch / count;
        let (devices, images) = (&self.devices, state.images);
        // A module can be sent to a thread, not looked at by several; a clone shares the parameters.
        let models = [&state.model].into_iter().chain(self.others.iter().map(|other| &other.model));
        let models: Vec<Mutex<M>> = models.map(|model| Mutex::new(model.clone())).collect();
        let found = self.threads.broadcast(|thread| {
            let number = thread.index();
            let (model, start) = (models[number].lock().expect("taken once"), number * share);
            each(&Replica { model: &model, device: &devices[number], images, start }, start..start + share)
        });
        let (mut losses, mut grads) = (Vec::with_capacity(batch), Vec::with_capacity(count));
        for found in found {
            let found = found?;
            losses.extend(found.losses);
            grads.push(found.grads);
        }
        let mut mean = Mean {
            devices: devices.iter().map(|device| device.clone().inner()).collect(),
            exchange: self.exchange,
            grads,
        };
        state.model.visit(&mut mean);
        let mut grads = mean.grads.into_iter();
        let first = grads.next().expect("the state's device");
        self.others.iter_mut().zip(grads).for_each(|(other, grads)| other.grads = grads);
        Ok(Gradients { losses, grads: first })
    }

    /// The second half: the state's [update](TrainState::update), and that of the copies.
    ///
    /// # Errors
    /// If the gradient is not finite: nothing is changed.
    pub fn update(
        &mut self,
        state: &mut TrainState<M, O>,
        gradients: Gradients,
        options: &StepOptions,
    ) -> Result<StepReport, NonFinite> {
        let report = state.update(gradients, options)?;
        let update = |mut other: Copied<M, O>| {
            let grads = std::mem::take(&mut other.grads);
            let grads = clip_from_norm(&other.model, grads, report.grad_norm, options.clip);
            // Given away, as the state's is: what nobody else holds is changed in place.
            other.model = other.optimizer.step(options.rate, other.model, grads);
            other
        };
        self.others = std::mem::take(&mut self.others).into_iter().map(update).collect();
        Ok(report)
    }

    /// All devices, the state's first; they track gradients.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The copies of the state's model, in the order of the devices.
    pub fn copies(&self) -> impl Iterator<Item = &M> {
        self.others.iter().map(|other| &other.model)
    }
}

/// Replaces the gradients of each device by their mean, parameter by parameter in the model's order, from one thread: so all
/// devices exchange the same ones at a time.
struct Mean {
    devices: Vec<Device>,
    exchange: Exchange,
    grads: Vec<GradientsParams>,
}

impl ModuleVisitor for Mean {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let found: Vec<Option<Tensor<D>>> =
            self.grads.iter_mut().map(|grads| grads.remove(param.id)).collect();
        let Some(zeros) = found.iter().flatten().next().map(Tensor::zeros_like) else { return };
        // A parameter may have had no part in the losses of a share.
        let found = found.into_iter().zip(&self.devices);
        let found = found.map(|(grad, device)| grad.unwrap_or_else(|| zeros.clone().to_device(device)));
        let means = mean(found.collect(), &self.devices, self.exchange);
        self.grads.iter_mut().zip(means).for_each(|(grads, mean)| grads.register(param.id, mean));
    }
}

/// The mean of tensors that are one on each device, on each device.
fn mean<const D: usize>(parts: Vec<Tensor<D>>, devices: &[Device], exchange: Exchange) -> Vec<Tensor<D>> {
    match exchange {
        Exchange::Copies => {
            let count = parts.len() as f64;
            let here = parts.into_iter().map(|part| part.to_device(&devices[0]));
            let mean = here.reduce(|sum, part| sum + part).expect("a device") / count;
            devices.iter().map(|device| mean.clone().to_device(device)).collect()
        }
        Exchange::AllReduce => {
            let reduce = |part| all_reduce(part, ReduceOperation::Mean, devices.to_vec());
            // Asked of all before the first is waited for, since each waits for the others.
            let asked: Vec<CollectiveTensor<D>> = parts.into_iter().map(reduce).collect();
            asked.into_iter().map(CollectiveTensor::resolve).collect()
        }
    }
}
