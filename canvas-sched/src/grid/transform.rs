//! How noise levels run between two ends.

use super::GridSpecError;
use super::beta::quantile;
use super::error::positive;

/// How noise levels run from the noisiest, `high`, to the cleanest noisy one, `low`, with `u = i / (N - 1)`.
///
/// What a noise level is, [`Over`] says; where the ends are, [`Ends`](super::Ends).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Transform {
    /// As spaced.
    #[default]
    None,
    /// Linear in `level^(1/rho)`.
    ///
    /// # Reference
    /// Karras et al., 2022, equation 5, <https://arxiv.org/abs/2206.00364>.
    Karras {
        /// Bend, `> 0`, 7 in the paper.
        rho: f64,
    },
    /// Linear in `ln(level)`, so uniform in `lambda`: `use_exponential_sigmas` and `use_lu_lambdas` in
    /// diffusers.
    ///
    /// # Reference
    /// Lu et al., "DPM-Solver", 2022, section 3.4, <https://arxiv.org/abs/2206.00927>.
    Exponential,
    /// `low (high / low)^((1 - u)^rho)`. k-diffusion's.
    Polyexponential {
        /// Bend, `> 0`; 1 is exponential.
        rho: f64,
    },
    /// `low + F^-1(1 - u) (high - low)`, quantiles of a beta distribution: `use_beta_sigmas` in diffusers.
    ///
    /// # Differs from the paper
    /// The paper spaces times so: [`Spacing::Beta`](super::Spacing::Beta).
    ///
    /// # Reference
    /// Lee et al., "Beta Sampling is All You Need", 2024, <https://arxiv.org/abs/2407.12173>.
    Beta {
        /// First shape, `> 0`, 0.6 in the paper.
        alpha: f64,
        /// Second shape, `> 0`, 0.6 in the paper.
        beta: f64,
    },
    /// `tan(u atan(low) + (1 - u) atan(high))`; works from an infinite `high` too. Least divergence for
    /// Gaussian data of unit variance.
    ///
    /// # Reference
    /// Sabour et al., "Align Your Steps", 2024, section 3.1, <https://arxiv.org/abs/2404.14507>.
    KlOptimal,
}

/// What a transform runs over: what a noise level is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// `sigma / alpha`, from 0 to infinity: `sigma` of k-diffusion, of EDM, and of diffusers' VP and VE classes.
    #[default]
    Ratio,
    /// `sigma / (alpha + sigma)`, from 0 to 1: `sigma` of flow matching, and of diffusers' flow classes.
    Flow,
}

impl Over {
    /// This noise level from `sigma / alpha`.
    pub(super) fn of_ratio(self, ratio: f64) -> f64 {
        match self {
            Self::Ratio => ratio,
            Self::Flow => 1.0 / (1.0 + 1.0 / ratio),
        }
    }

    /// `sigma / alpha` from this noise level.
    pub(super) fn ratio(self, level: f64) -> f64 {
        match self {
            Self::Ratio => level,
            Self::Flow => level / (1.0 - level),
        }
    }
}

impl Transform {
    /// The name in messages.
    fn name(self) -> &'static str {
        match self {
            Self::None => "no transform",
            Self::Karras { .. } => "karras",
            Self::Exponential => "exponential",
            Self::Polyexponential { .. } => "polyexponential",
            Self::Beta { .. } => "beta",
            Self::KlOptimal => "kl-optimal",
        }
    }

    /// Refuses settings without a meaning, and an infinite level where there is no formula for it.
    pub(super) fn check(self, high: f64) -> Result<(), GridSpecError> {
        match self {
            Self::Karras { rho } => positive("karras' rho", rho)?,
            Self::Polyexponential { rho } => positive("polyexponential's rho", rho)?,
            Self::Beta { alpha, beta } => {
                positive("beta's alpha", alpha)?;
                positive("beta's beta", beta)?;
            }
            Self::None | Self::Exponential | Self::KlOptimal => {}
        }
        match high.is_finite() || matches!(self, Self::None | Self::KlOptimal) {
            true => Ok(()),
            false => Err(GridSpecError::PureNoise { transform: self.name() }),
        }
    }

    /// The noise level at `u`. The ends are exact; between them rounding errors do not leave the ends.
    pub(super) fn level(self, u: f64, (high, low): (f64, f64)) -> f64 {
        if u <= 0.0 || high == low {
            return high;
        }
        if u >= 1.0 {
            return low;
        }
        let line = |from: f64, to: f64| from + u * (to - from);
        let level = match self {
            // From the logarithm, so that no power overflows.
            Self::Karras { rho } => {
                let fall = ((low / high).ln() / rho).exp();
                high * (rho * line(1.0, fall).ln()).exp()
            }
            Self::None | Self::Exponential => line(high.ln(), low.ln()).exp(),
            Self::Polyexponential { rho } => (low.ln() + (1.0 - u).powf(rho) * (high / low).ln()).exp(),
            Self::Beta { alpha, beta } => low + quantile(1.0 - u, alpha, beta) * (high - low),
            Self::KlOptimal => line(high.atan(), low.atan()).tan(),
        };
        level.clamp(low, high)
    }
}
