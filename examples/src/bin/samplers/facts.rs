//! What cannot be measured: where a sampler comes from, and what it is compared with.

use anyhow::{Context, Result};

/// What a sampler's step is, and so what is measured of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No noise: the order of its trajectories.
    Deterministic,
    /// No noise, and it chooses its own steps: the error it reaches.
    Adaptive,
    /// Noise: the order of its mean and standard deviation.
    Stochastic,
    /// For a distilled network, which the exact posterior mean is not: no order.
    Distilled,
}

/// Who a sampler is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Judge {
    /// A class of diffusers 0.42.1: the runs of `canvas-sched/tests/sched/diffusers.rs`.
    Diffusers(&'static str),
    /// A function of k-diffusion 0.1.1: the runs of `canvas-sched/tests/sched/k_diffusion.rs`.
    KDiffusion(&'static str),
    /// Another code, the deviation that a test allows, and the file of that test.
    Test(&'static str, &'static str, &'static str),
}

/// One sampler.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its name in [`canvas_sched::by_name`].
    pub name: &'static str,
    /// Its file in `canvas-sched/src/sampler`.
    pub file: &'static str,
    pub kind: Kind,
    /// Authors and year.
    pub paper: &'static str,
    pub link: &'static str,
    pub judges: &'static [Judge],
}

const SONG: (&str, &str) = ("Song et al. 2020", "https://arxiv.org/abs/2011.13456");
const DDIM: (&str, &str) = ("Song, Meng & Ermon 2020", "https://arxiv.org/abs/2010.02502");
const EDM: (&str, &str) = ("Karras et al. 2022", "https://arxiv.org/abs/2206.00364");
const DPM: (&str, &str) = ("Lu et al. 2022a", "https://arxiv.org/abs/2206.00927");
const DPMPP: (&str, &str) = ("Lu et al. 2022b", "https://arxiv.org/abs/2211.01095");
const DEIS: (&str, &str) = ("Zhang & Chen 2022", "https://arxiv.org/abs/2204.13902");
const PNDM: (&str, &str) = ("Liu et al. 2022", "https://arxiv.org/abs/2202.09778");
const SIT: (&str, &str) = ("Ma et al. 2024", "https://arxiv.org/abs/2401.08740");
const CM: (&str, &str) = ("Song et al. 2023", "https://arxiv.org/abs/2303.01469");

use Judge::{Diffusers, KDiffusion, Test};
use Kind::{Adaptive, Deterministic, Distilled, Stochastic};

const fn row(
    name: &'static str,
    file: &'static str,
    kind: Kind,
    (paper, link): (&'static str, &'static str),
    judges: &'static [Judge],
) -> Facts {
    Facts { name, file, kind, paper, link, judges }
}

#[rustfmt::skip]
const FACTS: &[Facts] = &[
    row("ddpm", "ddpm", Stochastic, ("Ho et al. 2020", "https://arxiv.org/abs/2006.11239"),
        &[Diffusers("DDPMScheduler")]),
    row("ddim", "ddim", Deterministic, DDIM, &[Diffusers("DDIMScheduler")]),
    row("euler", "euler", Deterministic, SONG,
        &[Diffusers("EulerDiscreteScheduler"), Diffusers("FlowMatchEulerDiscreteScheduler"),
          Diffusers("EDMEulerScheduler"), KDiffusion("sample_euler")]),
    row("heun", "heun", Deterministic, EDM,
        &[Diffusers("FlowMatchHeunDiscreteScheduler"), KDiffusion("sample_heun")]),
    row("edm-heun", "edm_heun", Deterministic, EDM, &[Diffusers("HeunDiscreteScheduler")]),
    row("midpoint", "midpoint", Deterministic,
        ("Runge 1895", "https://en.wikipedia.org/wiki/Midpoint_method"), &[]),
    row("dpm2", "dpm2", Deterministic, DPM, &[Diffusers("KDPM2DiscreteScheduler"), KDiffusion("sample_dpm_2")]),
    row("dopri5", "dopri5", Adaptive,
        ("Dormand & Prince 1980", "https://doi.org/10.1016/0771-050X(80)90013-3"),
        &[Test("torchdiffeq dopri5", "1e-12", "ode.rs")]),
    row("dpmpp-2m", "dpmpp", Deterministic, DPMPP,
        &[Diffusers("DPMSolverMultistepScheduler"), Diffusers("EDMDPMSolverMultistepScheduler"),
          KDiffusion("sample_dpmpp_2m")]),
    row("dpmpp-3m", "dpmpp", Deterministic, DPMPP, &[Diffusers("DPMSolverMultistepScheduler")]),
    row("dpmpp-2s", "dpm_single", Deterministic, DPMPP, &[Diffusers("DPMSolverSinglestepScheduler")]),
    row("dpmpp-3s", "dpm_single", Deterministic, DPMPP, &[Diffusers("DPMSolverSinglestepScheduler")]),
    row("dpm-solver", "dpm_solver", Deterministic, DPM, &[Diffusers("DPMSolverMultistepScheduler")]),
    row("deis", "deis", Deterministic, DEIS, &[Diffusers("DEISMultistepScheduler")]),
    row("unipc", "unipc", Deterministic, ("Zhao et al. 2023", "https://arxiv.org/abs/2302.04867"),
        &[Diffusers("UniPCMultistepScheduler")]),
    row("lms", "lms", Deterministic, EDM, &[Diffusers("LMSDiscreteScheduler"), KDiffusion("sample_lms")]),
    row("pndm", "pndm", Deterministic, PNDM, &[Diffusers("PNDMScheduler")]),
    row("plms", "pndm", Deterministic, PNDM, &[Diffusers("PNDMScheduler")]),
    row("ipndm", "ipndm", Deterministic, DEIS, &[Diffusers("IPNDMScheduler")]),
    row("euler-ancestral", "euler_ancestral", Stochastic, DDIM,
        &[Diffusers("EulerAncestralDiscreteScheduler"), KDiffusion("sample_euler_ancestral")]),
    row("euler-ancestral-rf", "euler_ancestral", Stochastic, DDIM, &[]),
    row("dpm2-ancestral", "dpm_2_ancestral", Stochastic, EDM,
        &[Diffusers("KDPM2AncestralDiscreteScheduler"), KDiffusion("sample_dpm_2_ancestral")]),
    row("dpmpp-2s-ancestral", "dpmpp_2s_ancestral", Stochastic, DPMPP, &[KDiffusion("sample_dpmpp_2s_ancestral")]),
    row("dpmpp-sde", "dpmpp_sde", Stochastic, DPMPP,
        &[Diffusers("DPMSolverSDEScheduler"), KDiffusion("sample_dpmpp_sde")]),
    row("dpmpp-2s-sde", "dpm_single_sde", Stochastic, DPMPP, &[Diffusers("DPMSolverSinglestepScheduler")]),
    row("dpmpp-2m-sde", "dpmpp_2m_sde", Stochastic, DPMPP,
        &[Diffusers("DPMSolverMultistepScheduler"), KDiffusion("sample_dpmpp_2m_sde")]),
    row("dpmpp-2m-sde-heun", "dpmpp_2m_sde", Stochastic, DPMPP,
        &[Diffusers("DPMSolverMultistepScheduler"), KDiffusion("sample_dpmpp_2m_sde")]),
    row("dpmpp-3m-sde", "dpmpp_3m_sde", Stochastic, DPMPP, &[KDiffusion("sample_dpmpp_3m_sde")]),
    row("sde-dpm-solver", "sde_dpm_solver", Stochastic, DPMPP, &[Diffusers("DPMSolverMultistepScheduler")]),
    row("sa-solver", "sa_solver", Stochastic, ("Xue et al. 2023", "https://arxiv.org/abs/2309.05019"),
        &[Diffusers("SASolverScheduler")]),
    row("sit-euler", "sit_euler", Stochastic, SIT, &[Test("the authors' SiT", "1e-7", "papers.rs")]),
    row("sit-heun", "sit_heun", Stochastic, SIT, &[Test("the authors' SiT", "1e-7", "papers.rs")]),
    row("flow-grpo", "flow_sde", Stochastic, ("Liu et al. 2025", "https://arxiv.org/abs/2505.05470"),
        &[Test("the authors' flow_grpo", "1e-10", "papers.rs")]),
    row("dance-grpo", "flow_sde", Stochastic, ("Xue et al. 2025", "https://arxiv.org/abs/2505.07818"),
        &[Test("the authors' DanceGRPO", "1e-10", "papers.rs")]),
    row("cps", "flow_sde", Stochastic, ("Wang & Yu 2025", "https://arxiv.org/abs/2509.05952"),
        &[Test("the paper's formula", "1e-8", "sde.rs")]),
    row("lcm", "lcm", Distilled, ("Luo et al. 2023", "https://arxiv.org/abs/2310.04378"),
        &[Diffusers("LCMScheduler"), Diffusers("FlowMatchLCMScheduler")]),
    row("tcd", "tcd", Distilled, ("Zheng et al. 2024", "https://arxiv.org/abs/2402.19159"),
        &[Diffusers("TCDScheduler")]),
    row("consistency-model", "consistency_model", Distilled, CM, &[Diffusers("CMStochasticIterativeScheduler")]),
];

/// The facts of a sampler.
pub fn of(name: &str) -> Result<&'static Facts> {
    FACTS.iter().find(|facts| facts.name == name).with_context(|| {
        format!("{name}: no row in FACTS of {}; the page says where each sampler comes from", file!())
    })
}
