//! Noise schedules, prediction types, timestep grids, samplers and guidance.
//!
//! None of these knows another: a schedule makes levels, a grid picks some, a prediction says what the network's
//! output means at a level, a sampler steps from one to the next, guidance changes what it is told. So each is
//! swapped by one word. What each sampler costs and how exact it is: `SAMPLERS.md` beside this crate's sources.
//!
//! | | |
//! |---|---|
//! | schedules: VP tables, VP, sub-VP and VE SDEs, flow, EDM, cosine, Laplace, shifted | [`schedule`] |
//! | grids: spacings, Karras, exponential, beta, Align Your Steps, lists of one's own; image-to-image | [`Timesteps`], [`start`] |
//! | predictions: epsilon, sample, velocity, flow, EDM, consistency, TrigFlow, SiT's, JiT's | [`predict`] |
//! | solvers of the ODE | [`Euler`], [`Heun`], [`EdmHeun`], [`Midpoint`], [`Dpm2`], [`DpmPp`], [`DpmSolver`], [`DpmSingle`], [`UniPc`], [`Deis`], [`Lms`], [`Pndm`], [`Ipndm`], [`Dopri5`] |
//! | ancestral and SDE samplers | [`Ddpm`], [`Ddim`], [`EulerAncestral`], [`Dpm2Ancestral`], [`DpmPp2sAncestral`], [`DpmPpSde`], [`DpmPp2mSde`], [`DpmPp3mSde`], [`DpmSingleSde`], [`SdeDpmSolver`], [`SaSolver`], [`SitEuler`], [`SitHeun`] |
//! | samplers of distilled networks | [`Lcm`], [`Tcd`], [`ConsistencyModel`]; networks of two times: [`flow_map`] |
//! | samplers around samplers | [`Churned`], [`Restart`], [`Inversion`], [`Window`], [`Inpaint`] |
//! | for policy gradients | [`FlowSde`], [`Step::log_prob`](canvas_core::Step::log_prob), [`Trajectory`](canvas_core::Trajectory) |
//! | from data to noise | [`Inversion`], [`DdimInversion`] |
//! | guidance | [`guidance`] |
//! | diffusers' `scheduler_config.json` | [`diffusers`] |
//! | any of these by word | [`by_name`] |
//!
//! # Example
//! ```
//! use burn::prelude::*;
//! use canvas_core::{Backbone, Class, Denoiser, Noise, Preconditioned, Run, Seeded};
//! use canvas_sched::{Cfg, DpmPp, Timesteps, predict, schedule};
//!
//! /// Stands for a trained network.
//! struct Network;
//! impl Backbone<4> for Network {
//!     type Cond = Class;
//!     fn forward(&self, x: Tensor<4>, time: Tensor<1>, _cond: &Class) -> Tensor<4> {
//!         x * time.reshape([-1, 1, 1, 1])
//!     }
//! }
//!
//! let device = Device::flex();
//! let schedule = schedule::Flow::default(); // or Vp::cosine(1000), Edm::default()
//! let prediction = predict::Flow; // or Epsilon, Sample, Velocity, Edm::default()
//! let sampler = DpmPp::two_m(); // or Ddpm::default(), Ddim { eta: 0.5 }, Euler, Heun
//! let levels = Timesteps::uniform().levels(&schedule, 20)?;
//!
//! let network = Preconditioned { backbone: &Network, prediction: &prediction };
//! let guided = Cfg::new(network, Class::new(&[1000], &device), 4.0); // 1 is off
//! let cond = Class::new(&[207, 360], &device);
//!
//! let mut noise = Seeded::new(0, [0, 1]); // a seed, and the numbers of the images
//! let start = noise.normal_like(&Tensor::<4>::zeros([2, 3, 8, 8], &device)) * levels[0].sigma;
//! let run = Run::new(&sampler, &schedule, &levels, &mut noise)?;
//! let images = run.sample(|x, level| guided.denoise(x, &[level], &cond), start);
//! assert_eq!(images.dims(), [2, 3, 8, 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ancestral;
pub mod by_name;
pub mod diffusers;
mod diffusion;
mod dormand_prince;
mod exponential;
pub mod flow_map;
mod grid;
pub mod guidance;
mod locate;
mod multistep;
mod numeric;
pub mod predict;
mod pseudo;
mod sampler;
pub mod schedule;
mod within;

pub use ancestral::{Ancestral, Downstep};
pub use by_name::UnknownName;
pub use diffusion::{Diffusion, FlowNoise, LastStep, SitSde};
pub use grid::{
    Ays, Between, Ends, Final, Grid, GridSpecError, Over, Round, Rule, Spacing, Timesteps, Told, Transform,
    start,
};
pub use guidance::{
    Apg, ApgRun, Autoguidance, Calls, Cfg, CfgPp, CfgZeroStar, Clip, Composed, DynamicThreshold, Pag, Pair,
    Perturbed, Rescale, Slg, Space, Tcfg, Worse,
};
pub use multistep::{Bh, Finish, Form, SolverType};
pub use pseudo::Extrapolated;
pub use sampler::{
    Churned, ConsistencyModel, Ddim, DdimInversion, Ddpm, Deis, Dopri5, Dpm2, Dpm2Ancestral, DpmPp,
    DpmPp2mSde, DpmPp2sAncestral, DpmPp3mSde, DpmPpSde, DpmSingle, DpmSingleSde, DpmSolver, EdmHeun, Euler,
    EulerAncestral, FlowSde, Heun, Inpaint, Interval, Inversion, Ipndm, Lcm, Lms, Midpoint, Pndm, Restart,
    SaSolver, SdeDpmSolver, SitEuler, SitHeun, Tcd, UniPc, Variance, WarmUp, Window,
};
