//! What diffusers takes at each call, and which side to take where it errs.

/// What to do where diffusers differs from the method's paper by mistake.
///
/// | class | diffusers | corrected |
/// |---|---|---|
/// | FlowMatchEuler, FlowMatchHeun, FlowMatchLCM | a static `shift` acts twice on the default grid (issue 13243) | once |
/// | DDIM, PNDM | a step goes to `t - T/N`, whatever the grid's next step is | to the grid's next step |
/// | PNDM | half steps are whole training steps; velocities of several times are mixed before they are read at one | halfway; each read at its own |
/// | PNDM, image-to-image | entries of its list are counted, one of them twice: from the second hop on the network is told the step after the state's | the state's |
/// | DDIMInverse | the network's output is read at the level before the one it was told | at the one it was told |
/// | DDPM, `fixed_large_log` | refused: the root of a negative logarithm | `fixed_large` |
/// | DDPM, `learned` | the standard deviation is the root of the network's output | the output is the variance's logarithm |
/// | DPM-Solver's classes, UniPC, DEIS, SASolver | with Karras, exponential, beta or flow sigmas the network is told a whole training step | the exact time |
/// | TCD | noise is added from a whole training step | from `1 - eta` times the target's |
/// | DPMSolverMultistep and DPMSolverSinglestep (`heun`), `sde-dpmsolver++` of order 3 | refused: a sign is wrong there | with the sign of the paper |
/// | SASolver | draws noise in steps that add none, so a stream of noise is ahead | does not |
/// | Euler, EDMEuler with churn | the network is asked before the churn, at `sigma` | after it, at `sigma_hat` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// As diffusers 0.42.1 computes it.
    #[default]
    Diffusers,
    /// As the papers have it.
    Corrected,
}

/// What diffusers takes at each call of `step` instead of from the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What to do where diffusers differs from the papers by mistake.
    pub compat: Compat,
    /// `eta` of DDIM (0 unless given) and TCD (0.3 unless given), in `[0, 1]`.
    pub eta: Option<f64>,
    /// DDIM: whether the noise is taken from the clipped estimate, too.
    pub use_clipped_model_output: bool,
    /// Euler and EDMEuler: total churn of the run (`s_churn`), `>= 0`.
    pub s_churn: f64,
    /// Churn only while `sigma` lies in this range (`s_tmin`, `s_tmax`).
    pub s_range: (f64, f64),
    /// Scale of the churn's noise, and of all noise of DPMSolverSDE (`s_noise`).
    pub s_noise: f64,
    /// LMS: its order, at least 1.
    pub order: usize,
    /// SASolver: a constant `tau_func`, in `[0, 1]`, instead of 1 within training steps 200 to 800 and 0 outside.
    pub tau: Option<f64>,
    /// LCM and TCD: `original_inference_steps` of the call.
    pub original_inference_steps: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compat: Compat::default(),
            eta: None,
            use_clipped_model_output: false,
            s_churn: 0.0,
            s_range: (0.0, f64::INFINITY),
            s_noise: 1.0,
            order: 4,
            tau: None,
            original_inference_steps: None,
        }
    }
}
