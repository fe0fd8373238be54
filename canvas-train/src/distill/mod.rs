//! Fewer steps: a student that goes in one hop, or a few, where its teacher needs many.
//!
//! Most methods ask something of two points of a trajectory, a [`Chord`], and differ in where the second comes from and in
//! what is asked. Everything a student is to say is made without gradients; a student, its target and its teacher are
//! [`Denoiser`](canvas_core::Denoiser)s of any network and prediction, on any schedule.
//!
//! | method | two points or pairs | what is asked |
//! |---|---|---|
//! | consistency training | [`Chord::of_data`] | [`Consistency`]; [`Curriculum`], [`PseudoHuber`], [`Ladder::drawn_as`] |
//! | consistency distillation | [`Chord::of_teacher`], [`Solver::Heun`] | [`Consistency`] |
//! | latent consistency models | the ends of a [`Ladder::path`], a [`Guided`] teacher | [`Consistency`], [`Distance::PseudoHuber`] |
//! | progressive distillation | [`Chord::of_teacher`] of a [`Ladder::block`] of two | [`Chord::noised`], any [`Objective`] |
//! | guided distillation | the same, a [`Guided`] teacher; the first stage: [`Noised::of_state`] | any [`Objective`] |
//! | rectified flow | a [`Coupling`] of a whole run | [`Coupling::noised`], any [`Objective`] |
//! | PeRFlow | [`Chord::of_teacher`] of a longer block | [`Chord::within`], any [`Objective`] |
//! | mean flow | a [`Span`] of data or of a teacher | [`MeanFlow`] |
//! | distribution matching | what the student draws, [`Noised`] | [`matching`]; the fake denoiser's is any [`Objective`] |
//! | adversarial | the same | [`Adversarial`] of a [`Critic`], [`r1`] |
//!
//! The target of a consistency model is an average that [`TrainState`](crate::TrainState) keeps, or `state.model.valid()`. A
//! student of several steps draws its own states up to the one it is trained on (backward simulation) by a run that
//! [ends early](canvas_core::Run::until).
//!
//! # Example
//! A step of consistency distillation from a guided teacher:
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::prelude::*;
//! use canvas_core::{Backbone, Class, Noise, Process, Seeded};
//! use canvas_sched::{Cfg, Final, Timesteps, predict, schedule};
//! use canvas_train::distill::{Chord, Consistency, Ladder, PseudoHuber, Solver};
//! use canvas_train::{AdamW, Draws, Ema, Noised, StepOptions, TrainState};
//!
//! #[derive(Module, Debug)]
//! struct Network {
//!     layer: Linear,
//! }
//! impl Backbone<2> for Network {
//!     type Cond = Class;
//!     fn forward(&self, x: Tensor<2>, time: Tensor<1>, _: &Class) -> Tensor<2> {
//!         self.layer.forward(Tensor::cat(vec![x, time.unsqueeze_dim(1)], 1))
//!     }
//! }
//!
//! let device = Device::flex().autodiff();
//! let process =
//!     Process { schedule: Box::new(schedule::Edm::default()), prediction: Box::new(predict::Consistency::default()) };
//! let mut student = TrainState::new(Network { layer: LinearConfig::new(3, 2).init(&device) }, AdamW::default());
//! let plain = process.denoiser(&student.average); // in truth a network trained before, with a prediction of its own
//! let teacher = Cfg::new(plain, Class::new(&[10], &device), 3.0);
//! let ladder = Ladder::new(Timesteps::edm().ending(Final::Nothing).levels(&*process.schedule, 18)?)?;
//! let (x0, cond) = (Tensor::<2>::ones([2, 2], &device), Class::new(&[3, 7], &device));
//!
//! // The step:
//! let images: Vec<u64> = (0..2).map(|row| student.images + row).collect();
//! let paths: Vec<_> = images.iter().map(|&image| ladder.path(Draws::Independent.at(0, image), 1)).collect();
//! let eps = Seeded::new(1, images).normal_like(&x0);
//! let noised = Noised::new(x0, eps, paths.iter().map(|path| path[0]).collect());
//! let chord = Chord::of_teacher((&teacher, Solver::Heun), noised.x, &paths, &cond);
//! let (model, target) = (process.denoiser(&student.model), process.denoiser(&student.average));
//! let consistency = Consistency { metric: PseudoHuber::of_numbers(2), weight: Default::default() };
//! let losses = consistency.losses((&model, &target), &chord, &cond);
//! student.step(losses, &StepOptions { rate: 1e-3, clip: 1.0, ema: Ema::Constant { decay: 0.95 } })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adversarial;
mod chord;
mod consistency;
mod distribution;
mod guided;
mod ladder;
mod mean_flow;
mod metric;
mod ode;
mod reflow;

pub use adversarial::{Adversarial, Critic, r1};
pub use chord::Chord;
pub use consistency::{ChordWeight, Consistency};
pub use distribution::{matching, with_gradient};
pub use guided::{GuidanceScale, Guided};
pub use ladder::{Curriculum, Ladder};
pub use mean_flow::{MeanFlow, Span, two_levels};
pub use metric::{Adaptive, Metric, PseudoHuber};
pub use ode::{Between, Solver, carry};
pub use reflow::Coupling;

#[cfg(doc)]
use crate::{Distance, Noised, Objective};
