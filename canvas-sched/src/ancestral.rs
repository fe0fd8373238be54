//! What ancestral samplers share: a hop as a deterministic part and fresh noise.

use canvas_core::Level;

/// `a/a'`: the part of the signal at `to` that is left at `from`, the noisier of the two.
pub(crate) fn kept(from: Level, to: Level) -> f64 {
    if to.alpha == 0.0 { 1.0 } else { from.alpha / to.alpha }
}

/// Variance of `q(x_from | x_to)`, `s^2 - (a/a')^2 s'^2`, for `to` the cleaner of the two.
pub(crate) fn forward_variance(from: Level, to: Level) -> f64 {
    (from.sigma.powi(2) - (kept(from, to) * to.sigma).powi(2)).max(0.0)
}

/// `(a s') / (a' s)`, the factor by which a hop shrinks `sigma / alpha`: `e^-h`, in `[0, 1]`.
///
/// 0 at a start without signal and at a clean end, 1 if both ends are the same.
pub(crate) fn shrink(from: Level, to: Level) -> f64 {
    if (from.alpha, from.sigma) == (to.alpha, to.sigma) {
        return 1.0;
    }
    from.alpha * to.sigma / (to.alpha * from.sigma)
}

/// How an ancestral sampler splits a hop: go below the target without noise, then add noise back up to it.
///
/// # Reference
/// Song et al., "Denoising Diffusion Implicit Models", 2020, equation 16, <https://arxiv.org/abs/2010.02502>;
/// the rectified-flow form: `sample_euler_ancestral_RF` of ComfyUI.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ancestral {
    /// Part of the ancestral noise, `>= 0`: 0 is deterministic.
    pub eta: f64,
    /// Scale of the fresh noise, about 1 (`s_noise`). Only 1 keeps the marginals.
    pub noise: f64,
    /// How far below the target the deterministic part goes.
    pub form: Downstep,
}

/// How far below its target an ancestral step goes before noise is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Downstep {
    /// `up = min(s', eta (s'/s) sqrt(s^2 - (a/a')^2 s'^2))`, `down^2 = s'^2 - up^2`: k-diffusion's, and at
    /// `eta <= 1` the noise of [`Ddim`](crate::Ddim).
    #[default]
    Variance,
    /// `f_down = f' (1 + eta (f'/f - 1))` in `f = s / (a + s)`, the time of rectified flow.
    RectifiedFlow,
}

impl Default for Ancestral {
    /// All of the ancestral noise, k-diffusion's form.
    fn default() -> Self {
        Self::new(1.0)
    }
}

impl Ancestral {
    /// k-diffusion's form with this `eta`.
    pub fn new(eta: f64) -> Self {
        Self { eta, noise: 1.0, form: Downstep::Variance }
    }

    /// The rectified-flow form with this `eta`.
    pub fn rectified_flow(eta: f64) -> Self {
        Self { form: Downstep::RectifiedFlow, ..Self::new(eta) }
    }

    /// The level the deterministic part goes to (the target's alpha, less noise), and the standard deviation
    /// of the noise on top.
    pub fn split(&self, from: Level, to: Level) -> (Level, f64) {
        let q = shrink(from, to);
        let (down, up) = match self.form {
            Downstep::Variance => {
                let up = self.eta * to.sigma * ((1.0 - q) * (1.0 + q)).max(0.0).sqrt();
                let up = up.min(to.sigma);
                (((to.sigma - up) * (to.sigma + up)).sqrt(), up)
            }
            Downstep::RectifiedFlow if q == 1.0 || to.alpha == 0.0 => (to.sigma, 0.0),
            Downstep::RectifiedFlow => {
                // By the distance below the target, which is exactly 0 at eta = 0.
                let time = |level: Level| level.sigma / (level.alpha + level.sigma);
                let gap = (self.eta * time(to) * (1.0 - time(to) / time(from))).min(time(to));
                let lost = (gap * (to.alpha + to.sigma) / (1.0 - time(to) + gap)).min(to.sigma);
                let down = to.sigma - lost;
                (down, (lost * (to.sigma + down)).sqrt())
            }
        };
        (Level { sigma: down, ..to }, up * self.noise)
    }
}
