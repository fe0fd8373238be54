//! Samplers: one file each.

mod churned;
mod ddim;
mod ddpm;
mod dpmpp_2m;
mod euler;
mod heun;

pub use churned::Churned;
pub use ddim::Ddim;
pub use ddpm::{Ddpm, Variance};
pub use dpmpp_2m::DpmPp2m;
pub use euler::Euler;
pub use heun::Heun;
