//! What SiT's networks predict: quantities of an interpolant, of whose states they are given nothing but the numbers.

use crate::locate::time_of;
use canvas_core::{Coefficients, Level, NoiseSchedule, Prediction};
use std::fmt::Debug;

/// The network predicts the velocity of a schedule's path, `a' x0 + s' eps` with derivatives in the schedule's time.
///
/// On the straight line this is [`Flow`](super::Flow), on the quarter circle [`Velocity`](super::Velocity) times `pi / 2`.
/// With `d = a s' - s a'`, `x0 = (s' x - s v) / d`. The input is not scaled, and the network is told the level's time.
///
/// # Example
/// SiT is a process: an interpolant, what the network predicts of it, and any solver. Each of the three is one word.
/// ```
/// use burn::prelude::*;
/// use canvas_core::{Backbone, Noise, Process, Run, Sampler, Seeded, Unconditional, Denoiser};
/// use canvas_sched::schedule::{Flow, Gvp};
/// use canvas_sched::predict::{Epsilon, PathVelocity, Raw, Score};
/// use canvas_sched::{Dopri5, Heun, SitEuler, SitHeun, Spacing, Timesteps};
///
/// /// Stands for a trained `canvas_dit::Sit`.
/// struct Network;
/// impl Backbone<4> for Network {
///     type Cond = Unconditional;
///     fn forward(&self, x: Tensor<4>, _time: Tensor<1>, _cond: &Unconditional) -> Tensor<4> {
///         x
///     }
/// }
///
/// let processes = [
///     Process { schedule: Box::new(Flow::default()), prediction: Box::new(PathVelocity(Flow::default())) },
///     Process { schedule: Box::new(Gvp), prediction: Box::new(PathVelocity(Gvp)) },
///     Process { schedule: Box::new(Gvp), prediction: Box::new(Raw(Epsilon)) },
///     Process { schedule: Box::new(Flow::default()), prediction: Box::new(Score) },
/// ];
/// let solvers: [Box<dyn Sampler<4>>; 4] = [
///     Box::new(Dopri5::default()),
///     Box::new(Heun),
///     Box::new(SitEuler::default()), // an SDE: its coefficient and its last step are fields
///     Box::new(SitHeun::default()),
/// ];
/// let grid = Timesteps::new(Spacing::Linspace { first: 0.999, last: 0.04 }); // SiT's last step is 0.04 long
/// for (process, solver) in processes.iter().zip(&solvers) {
///     let levels = grid.levels(&*process.schedule, 4)?;
///     let mut noise = Seeded::new(0, [0]);
///     let start = noise.normal_like(&Tensor::<4>::zeros([1, 3, 4, 4], &Device::flex()));
///     let run = Run::new(&**solver, &*process.schedule, &levels, &mut noise)?;
///     let network = process.denoiser(&Network);
///     let image = run.sample(|x, level| network.denoise(x, &[level], &Unconditional(1)), start);
///     assert_eq!(image.dims(), [1, 3, 4, 4]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Reference
/// Ma et al., "SiT", 2024, equations 4 and 5, <https://arxiv.org/abs/2401.08740>; Albergo et al., "Stochastic Interpolants", 2023.
/// There `t` is `1 - t` here, and so the velocity is the negative of this one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PathVelocity<S>(
    /// The path.
    pub S,
);

impl<S: NoiseSchedule + Debug> PathVelocity<S> {
    fn slope(&self, level: Level) -> (f64, f64) {
        self.0.slope(time_of(&self.0, level))
    }
}

impl<S: NoiseSchedule + Debug> Prediction for PathVelocity<S> {
    fn coefficients(&self, level: Level) -> Coefficients {
        let Level { time, alpha, sigma } = level;
        let (of_alpha, of_sigma) = self.slope(level);
        let d = alpha * of_sigma - sigma * of_alpha;
        Coefficients { skip: of_sigma / d, out: -sigma / d, input: 1.0, time }
    }
    fn target(&self, level: Level) -> (f64, f64) {
        self.slope(level)
    }
}

/// Another prediction whose input is not scaled to unit variance: the network is given `x` as it is.
///
/// # Reference
/// As SiT's networks that predict noise, 2024, section 3.2, <https://arxiv.org/abs/2401.08740>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Raw<P>(
    /// What the network's output means.
    pub P,
);

impl<P: Prediction> Prediction for Raw<P> {
    fn coefficients(&self, level: Level) -> Coefficients {
        Coefficients { input: 1.0, ..self.0.coefficients(level) }
    }
    fn target(&self, level: Level) -> (f64, f64) {
        self.0.target(level)
    }
}

/// The network predicts the score, `-eps / sigma`: the gradient of the log-density of `x`, which it is given as it is.
///
/// At `alpha = 0` the estimate is 0, as [`Epsilon`](super::Epsilon)'s. At `sigma = 0` the target is infinite: SiT trains
/// from `t = 0.001` on, with the error weighted by `sigma^2`, which makes it the noise's.
///
/// # Reference
/// Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2020, equation 7,
/// <https://arxiv.org/abs/2011.13456>; Ma et al., "SiT", 2024, equation 7, <https://arxiv.org/abs/2401.08740>.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score;

impl Prediction for Score {
    fn coefficients(&self, Level { time, alpha, sigma }: Level) -> Coefficients {
        if alpha == 0.0 {
            return Coefficients { skip: 0.0, out: 0.0, input: 1.0, time };
        }
        Coefficients { skip: 1.0 / alpha, out: sigma * sigma / alpha, input: 1.0, time }
    }
    fn target(&self, level: Level) -> (f64, f64) {
        (0.0, -1.0 / level.sigma)
    }
}
