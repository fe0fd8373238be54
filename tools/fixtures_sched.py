"""Writes canvas-sched/tests/fixtures/{diffusers,k_diffusion}.json: what the reference samplers answer.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers numpy scipy
    /tmp/venv/bin/pip install --no-deps k-diffusion torchdiffeq torchsde trampoline tqdm
    /tmp/venv/bin/python tools/fixtures_sched.py [diffusers] [k_diffusion] [--condition]

Network, first state and noise are formulas (tests/fixtures/README.md), so a fixture holds numbers only. The
reference runs in f64: `torch.float32` and `np.float32` are replaced by their f64 fellows before diffusers is
imported, because its sources name them. Timesteps that diffusers keeps in int64 stay int64.

Brownian noise (DPMSolverSDEScheduler, k-diffusion's sample_dpmpp_sde and *_sde): a call that starts at the sigma
where the previous call started returns sqrt(w)*z1 + sqrt(1-w)*fresh, w = |mid - start| / |end - start| in SIGMA
space (both libraries build their Brownian tree over sigma, not over log sigma), z1 the previous answer. Any other
call returns a fresh draw. No case has a second interval shorter than its first; one would raise.

--condition writes nothing: it runs every case once more in the library's own f32 and prints the cases where
rounding grows, so that a tolerance can be chosen per case.
"""

import importlib
import importlib.util
import inspect
import json
import math
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import scipy.stats  # noqa: F401  imported before the dtype names are replaced
import torch

CONDITION = "--condition-child" in sys.argv
SHORT = torch.float32
if not CONDITION:
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float64
    torch.float = torch.float64
    np.float32 = np.float64
    torch.Tensor.float = torch.Tensor.double
REAL = torch.get_default_dtype()

import diffusers  # noqa: E402
from diffusers import schedulers  # noqa: E402, F401

warnings.filterwarnings("ignore")
diffusers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)

FOLDER = Path(__file__).parent.parent / "canvas-sched" / "tests" / "fixtures"
SHAPE = (2, 3, 1, 1)
ALL = [1, 2, 4, 5, 10, 20, 50, 1000]
ORDERS = [1, 2, 4, 5, 10, 20, 50]
FEW = [4, 10]
TEN = [10]
ONE = [5]


def wave(shape, frequency, phase):
    count = math.prod(shape)
    index = torch.arange(count, dtype=torch.float64)
    return (math.sqrt(2) * torch.sin(frequency * index + phase)).reshape(tuple(shape)).to(REAL)


class Noise:
    """Draw k of a run is sqrt(2)*sin(1.7k + 2.3i + 0.5); `drawn` counts the draws."""

    drawn = 0

    @classmethod
    def draw(cls, shape, *_, **__):
        shape = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else tuple(shape)
        out = wave(shape, 2.3, 1.7 * cls.drawn + 0.5)
        cls.drawn += 1
        return out


class Brownian:
    def __init__(self, x, *_, **__):
        self.shape, self.last = x.shape, None

    def __call__(self, sigma, sigma_next):
        start, end = float(sigma), float(sigma_next)
        z = Noise.draw(self.shape)
        if self.last is not None and self.last[0] == start:
            w = abs(self.last[1] - start) / abs(end - start)
            if w > 1:
                raise RuntimeError("the second interval is shorter than the first")
            z = math.sqrt(w) * self.last[2] + math.sqrt(1 - w) * z
        self.last = (start, end, z)
        return z


def randn_tensor(shape, *_, **__):
    return Noise.draw(shape)


torch.randn = lambda *shape, **_: Noise.draw(shape)
torch.randn_like = lambda x, **_: Noise.draw(x.shape)


def net(x, t):
    t = torch.as_tensor(float(t), dtype=REAL)
    return 0.6 * torch.sin(1.3 * x + 0.002 * t) + 0.25 * torch.cos(0.003 * t) * x / (1 + 0.1 * x * x)


def variance_net(x, t):
    return 0.8 * torch.sin(0.7 * x - 0.001 * torch.as_tensor(float(t), dtype=REAL))


# ---- cases ---------------------------------------------------------------------------------------------------

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
V = {"prediction_type": "v_prediction"}
X0 = {"prediction_type": "sample"}
ZERO_SNR = {**SD, **V, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
BETAS = {"num_train_timesteps": 20, "trained_betas": [round(0.001 + 0.004 * i + 0.0001 * i * i, 6) for i in range(20)]}
GRIDS = [{"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}]
SPACINGS = [{"timestep_spacing": s} for s in ("linspace", "leading", "trailing")]
THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def ramp(n):
    return [float(f"{1 - i / n:.15g}") if i else 1.0 for i in range(n)]


def cases():
    out = []

    def add(name, config=None, steps=FEW, **call):
        for n in steps:
            out.append((name, dict(config or {}), dict(call), n))

    n = "DDPMScheduler"
    add(n, {}, ALL)
    add(n, {**SD, "clip_sample": False}, [4, 10, 50])
    for c in [V, X0, THRESHOLD, {"clip_sample_range": 2.0}, {"beta_schedule": "squaredcos_cap_v2"}]:
        add(n, c)
    for c in [{"beta_schedule": "sigmoid"}, {"beta_schedule": "laplace"}, BETAS, {"num_train_timesteps": 500}]:
        add(n, {"clip_sample": False, **c}, ONE)
    for c in SPACINGS:
        add(n, {**SD, "clip_sample": False, "steps_offset": 1, **c})
    for c in ["fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range"]:
        add(n, {"variance_type": c, "clip_sample": False})
    add(n, {"variance_type": "learned_range", **THRESHOLD}, ONE)
    add(n, {**ZERO_SNR, "clip_sample": False})
    add(n, {"clip_sample": False}, [4], timesteps=[999, 500, 100, 3])

    n = "DDIMScheduler"
    add(n, {}, ALL)
    sd15 = {**SD, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
    add(n, sd15, ALL)
    for eta in (0.5, 1.0):
        add(n, sd15, eta=eta)
    add(n, {}, [4, 10, 50], eta=1.0)
    add(n, {}, use_clipped_model_output=True)
    add(n, {}, eta=0.7, use_clipped_model_output=True)
    for c in [V, X0]:
        add(n, {**SD, "clip_sample": False, **c})
        add(n, {**SD, "clip_sample": False, **c}, ONE, eta=1.0)
    for c in [THRESHOLD, {"clip_sample_range": 2.0}, {"beta_schedule": "squaredcos_cap_v2"}, BETAS]:
        add(n, c, ONE)
    for c in SPACINGS:
        add(n, {**SD, "clip_sample": False, **c}, [1, 4, 10])
    add(n, {**ZERO_SNR, "clip_sample": False}, [1, 4, 10, 50])
    add(n, {**ZERO_SNR, "clip_sample": False}, FEW, eta=1.0)
    add(n, {**ZERO_SNR, "clip_sample": False, "prediction_type": "epsilon"}, ONE)
    add(n, {**SD, "clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "trailing"}, [3, 7])
    # np.arange(1000, 0, -1000 / 61) has 62 entries: the last timestep is -1.
    for name in ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"]:
        add(name, {**SD, "timestep_spacing": "trailing"}, [61])

    n = "DDIMInverseScheduler"
    add(n, {}, ALL)
    add(n, sd15)
    add(n, {**SD, "clip_sample": False}, FEW)
    for c in [V, X0, {"timestep_spacing": "trailing"}, {"timestep_spacing": "linspace"}, {"clip_sample_range": 2.0}]:
        add(n, {**SD, **c}, ONE)
    add(n, {**ZERO_SNR, "clip_sample": False}, ONE)

    n = "PNDMScheduler"
    add(n, {}, ALL)
    sd15 = {**SD, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}
    add(n, sd15, ALL)
    add(n, {**SD, "steps_offset": 1}, [10, 20])
    for c in [V, X0, {"timestep_spacing": "linspace"}, {"timestep_spacing": "trailing"}, {"set_alpha_to_one": True}]:
        add(n, {**sd15, **c}, FEW)
    add(n, {**SD, **V, "timestep_spacing": "linspace"}, [10])

    n = "LMSDiscreteScheduler"
    add(n, {}, ALL)
    add(n, {**SD, **LEADING}, [4, 10, 50])
    for c in [V, X0, {"timestep_spacing": "trailing"}, *GRIDS]:
        add(n, {**SD, **c})
    for order in (1, 2, 3):
        add(n, SD, [10], order=order)

    n = "EulerDiscreteScheduler"
    sdxl = {**SD, **LEADING}
    add(n, {}, ALL)
    add(n, sdxl, ALL)
    add(n, {**SD, "timestep_spacing": "trailing"}, [1, 2, 4, 8])
    for c in [V, X0, *GRIDS, {"final_sigmas_type": "sigma_min"}, {"interpolation_type": "log_linear"}]:
        add(n, {**SD, **c})
    for c in GRIDS:
        add(n, {**SD, **c, "sigma_min": 0.05, "sigma_max": 12.0}, ONE)
    add(n, {"beta_schedule": "squaredcos_cap_v2"}, ONE)
    add(n, BETAS, ONE)
    svd = {**SD, **LEADING, **V, "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0}
    add(n, {**svd, "timestep_type": "continuous"}, [1, 4, 10, 20])
    add(n, {**SD, **V, "timestep_type": "continuous"}, ONE)
    add(n, {**SD, "timestep_type": "continuous"}, ONE)
    add(n, {**SD, **V, "interpolation_type": "log_linear", "timestep_type": "continuous"}, ONE)
    add(n, ZERO_SNR, [1, 4, 10, 50])
    add(n, SD, [4], timesteps=[999, 700, 301, 20])
    add(n, SD, [4], sigmas=[14.0, 5.0, 1.5, 0.3, 0.0])
    add(n, sdxl, FEW, s_churn=2.0)
    add(n, sdxl, [10], s_churn=5.0, s_tmin=0.5, s_tmax=10.0, s_noise=1.003)
    add(n, {**SD, **V}, FEW, s_churn=2.0)
    add(n, {**SD, **X0}, ONE, s_churn=2.0)

    n = "EulerAncestralDiscreteScheduler"
    add(n, {}, ALL)
    add(n, sdxl, [4, 10, 50])
    add(n, {**SD, "timestep_spacing": "trailing"})
    add(n, {**SD, **V})
    add(n, X0, ONE)
    add(n, ZERO_SNR)
    add(n, {"beta_schedule": "squaredcos_cap_v2"}, ONE)

    for n in ["HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"]:
        add(n, {}, ALL)
        add(n, sdxl, [4, 10])
        for c in [V, X0, {"timestep_spacing": "trailing"}, *GRIDS]:
            add(n, {**SD, **c})
        if n == "HeunDiscreteScheduler":
            add(n, {**SD, "clip_sample": True, "clip_sample_range": 1.5}, ONE)
            add(n, SD, [4], timesteps=[999, 700, 301, 20])
            add(n, {"beta_schedule": "exp"}, ONE)
        add(n, {"beta_schedule": "squaredcos_cap_v2"}, ONE)

    n = "DPMSolverSDEScheduler"
    add(n, {}, ALL)
    add(n, {**sdxl, "use_karras_sigmas": True})
    for c in [V, X0, *SPACINGS[1:], *GRIDS[1:]]:
        add(n, {**SD, **c}, FEW)
    add(n, SD, ONE, s_noise=0.5)

    sana = {**FLOW, "flow_shift": 3.0}
    n = "DPMSolverMultistepScheduler"
    add(n, {}, [*ALL, 999])
    add(n, SD, [4, 20])
    add(n, {**SD, **LEADING, "use_karras_sigmas": True}, [20])
    for c in [
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_type": "heun"},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "final_sigmas_type": "sigma_min"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"algorithm_type": "sde-dpmsolver++"},
    ]:
        add(n, c, ORDERS)
    add(n, {"lower_order_final": False}, [4, 20])
    old = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    for c in [
        old,
        {**old, "solver_type": "heun"},
        {**old, "solver_order": 3},
        {**old, "algorithm_type": "sde-dpmsolver"},
        {**old, "algorithm_type": "sde-dpmsolver", "solver_type": "heun"},
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        {**old, **V},
        {**old, **X0},
        V,
        X0,
        THRESHOLD,
        *GRIDS,
        {"use_lu_lambdas": True},
        LEADING,
    ]:
        add(n, c, TEN)
    for c in [
        {"algorithm_type": "dpmsolver"},
        {"algorithm_type": "deis", "solver_type": "logrho"},
        {**old, "algorithm_type": "sde-dpmsolver", "solver_order": 3},
        {**old, **THRESHOLD},
        {"variance_type": "learned_range"},
        {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
        {"timestep_spacing": "trailing"},
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
        {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True},
        {"beta_schedule": "squaredcos_cap_v2", "use_lu_lambdas": True},
        {**sana, "final_sigmas_type": "sigma_min"},
        {**sana, "use_flow_sigmas": False},
    ]:
        add(n, c, ONE)
    add(n, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1, "timestep_spacing": "trailing"}, ONE)
    add(n, ZERO_SNR, FEW)
    add(n, sana, ORDERS)
    add(n, {**sana, "use_dynamic_shifting": True}, ONE, mu=1.15)
    add(n, {**sana, "algorithm_type": "sde-dpmsolver++"}, FEW)
    add(n, {**sana, "solver_order": 3}, FEW)
    add(n, SD, [4], timesteps=[999, 700, 301, 20])
    add(n, {**SD, "use_karras_sigmas": True}, [50, 1000])

    n = "DPMSolverMultistepInverseScheduler"
    add(n, {}, [*ALL, 999])
    for c in [
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_type": "heun"},
        {"lower_order_final": False},
        {"euler_at_final": True},
        {"algorithm_type": "dpmsolver"},
        {"algorithm_type": "sde-dpmsolver++"},
        V,
        *GRIDS,
        LEADING,
    ]:
        add(n, c, TEN)
    for c in [X0, THRESHOLD, {"timestep_spacing": "trailing"}, sana]:
        add(n, c, ONE)
    add(n, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, ONE)
    add(n, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, ONE)

    n = "DPMSolverSinglestepScheduler"
    add(n, {}, [*ALL, 999])
    for c in [
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_order": 3, "lower_order_final": True},
        {"final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "final_sigmas_type": "sigma_min"},
    ]:
        add(n, c, ORDERS)
    low = {"lower_order_final": True}
    for c in [
        {**low, "solver_type": "heun"},
        {**low, "solver_type": "heun", "solver_order": 3},
        {**low, **old},
        {**low, **old, "solver_order": 3},
        {**low, **old, "solver_type": "heun", "solver_order": 3},
        {**low, "algorithm_type": "sde-dpmsolver++"},
        {**low, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        {**low, "algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        {**low, "algorithm_type": "sde-dpmsolver++", "solver_order": 3, "solver_type": "heun"},
        {**low, **V},
        {**low, **THRESHOLD},
        *[{**low, **g} for g in GRIDS],
        {**low, **sana},
    ]:
        add(n, c, TEN)
    for c in [{**low, **X0}, {**low, **old, **V}, {**low, **old, **X0}, {**low, **old, **THRESHOLD}]:
        add(n, c, ONE)
    add(n, {**SD, **low, "variance_type": "learned_range"}, ONE)
    add(n, {**low, "beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, ONE)
    add(n, {**low, **sana, "use_dynamic_shifting": True}, ONE, mu=1.15)
    add(n, {**SD, **low}, [4], timesteps=[999, 700, 301, 20])

    n = "UniPCMultistepScheduler"
    add(n, {}, [*ALL, 999])
    for c in [
        {"solver_order": 3},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"predict_x0": False, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    ]:
        add(n, c, ORDERS)
    for c in [
        {"solver_order": 4},
        {"final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "predict_x0": False, "final_sigmas_type": "sigma_min"},
        {"disable_corrector": [0]},
        {"disable_corrector": [0, 1, 2]},
        *GRIDS,
        LEADING,
        {"timestep_spacing": "trailing"},
        V,
        THRESHOLD,
    ]:
        add(n, c, TEN)
    for c in [
        X0,
        {"predict_x0": False},
        {"lower_order_final": False},
        {"solver_type": "bh1"},
        {"predict_x0": False, "final_sigmas_type": "sigma_min", **V},
        {"predict_x0": False, "final_sigmas_type": "sigma_min", **X0},
        {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"},
        {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 12.0},
        {"solver_type": "midpoint"},
    ]:
        add(n, c, ONE)
    add(n, ZERO_SNR, FEW)
    add(n, {"solver_order": 1}, FEW)
    wan = {**FLOW, "flow_shift": 3.0}
    add(n, wan, ALL)
    add(n, {**wan, "flow_shift": 5.0, "solver_order": 3}, FEW)
    add(n, {**wan, "final_sigmas_type": "sigma_min"}, ONE)
    add(n, {**FLOW, "use_karras_sigmas": True, "sigma_min": 0.01, "sigma_max": 200.0}, [1, 4, 10])
    add(n, {**FLOW, "use_exponential_sigmas": True}, ONE)
    add(n, {**FLOW, "use_dynamic_shifting": True}, FEW, mu=1.15)
    add(n, {**FLOW, "use_dynamic_shifting": True, "time_shift_type": "linear"}, ONE, mu=2.0)
    add(n, {**FLOW, "use_dynamic_shifting": True, "shift_terminal": 0.02}, FEW, mu=0.834325)
    add(n, {**FLOW, "flow_shift": 3.0}, [4], sigmas=ramp(4))

    n = "DEISMultistepScheduler"
    add(n, {}, [*ALL, 999])
    add(n, {"solver_order": 1}, FEW)
    for c in [{"solver_order": 3}, {"lower_order_final": False}]:
        add(n, c, ORDERS)
    for c in [{"solver_order": 3, "lower_order_final": False}, V, X0, THRESHOLD, *GRIDS, LEADING]:
        add(n, c, TEN)
    add(n, {**SD, "timestep_spacing": "trailing"}, FEW)
    add(n, sana, [4, 10, 20])
    add(n, {**sana, "use_dynamic_shifting": True}, ONE, mu=1.15)

    add("IPNDMScheduler", {}, ALL)
    add("IPNDMScheduler", {"num_train_timesteps": 100}, ONE)

    n = "SASolverScheduler"
    add(n, {}, [*ALL, 999])
    for c in [
        {"predictor_order": 1, "corrector_order": 1},
        {"predictor_order": 3, "corrector_order": 3},
        {"lower_order_final": False},
        {"algorithm_type": "noise_prediction"},
    ]:
        add(n, c, ORDERS)
    for c in [
        {"predictor_order": 3, "corrector_order": 4},
        {"predictor_order": 1, "corrector_order": 2},
        {"predictor_order": 2, "corrector_order": 1},
        {"predictor_order": 4, "corrector_order": 4},
        V,
        *GRIDS,
        LEADING,
        sana,
    ]:
        add(n, c, TEN)
    for c in [
        X0,
        THRESHOLD,
        {"timestep_spacing": "trailing"},
        {"variance_type": "learned_range"},
        {"algorithm_type": "noise_prediction", **V},
        {"algorithm_type": "noise_prediction", **X0},
        {"algorithm_type": "noise_prediction", **THRESHOLD},
    ]:
        add(n, c, ONE)
    for tau in (0.0, 0.5, 1.0):
        add(n, SD, FEW, tau=tau)
    add(n, {**SD, "algorithm_type": "noise_prediction"}, FEW, tau=0.5)
    add(n, {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1}, ONE)

    n = "EDMEulerScheduler"
    add(n, {}, ALL)
    cosxl = {"sigma_max": 120.0, "sigma_data": 1.0, "sigma_schedule": "exponential", **V}
    for c in [cosxl, V, {"sigma_schedule": "exponential"}, {"final_sigmas_type": "sigma_min"}, {"rho": 5.0}]:
        add(n, c)
    add(n, {}, FEW, s_churn=2.0)
    add(n, V, [10], s_churn=5.0, s_tmin=0.5, s_tmax=50.0, s_noise=1.003)

    n = "EDMDPMSolverMultistepScheduler"
    add(n, {}, ALL)
    for c in [
        {"solver_order": 3},
        {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"solver_order": 3, "final_sigmas_type": "sigma_min"},
    ]:
        add(n, c, ORDERS)
    add(n, {"solver_order": 1}, FEW)
    playground = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0, "sigma_schedule": "karras"}
    for c in [
        {**playground, "solver_type": "heun"},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"algorithm_type": "sde-dpmsolver++"},
        {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"},
        cosxl,
        THRESHOLD,
    ]:
        add(n, c, TEN)
    add(n, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, ONE)

    for n in ["LCMScheduler", "TCDScheduler"]:
        add(n, {}, ALL)
        for c in [V, X0, THRESHOLD, {"clip_sample": True}, {"set_alpha_to_one": False}, {"timestep_scaling": 3.0}]:
            add(n, c, [4])
        add(n, {"original_inference_steps": 100}, FEW)
        add(n, {"rescale_betas_zero_snr": True, **V}, [1, 4])
        add(n, {}, FEW, original_inference_steps=100)
        add(n, {}, [4], strength=0.5)
        add(n, {}, [4], timesteps=[999, 759, 499, 259])
        add(n, {"beta_schedule": "squaredcos_cap_v2"}, [4])
    for eta in (0.0, 1.0):
        add("TCDScheduler", {}, FEW, eta=eta)

    n = "CMStochasticIterativeScheduler"
    add(n, {}, [1, 2, 4, 5, 10, 20, 40, 50])
    for c in [{"clip_denoised": False}, {"clip_denoised": False, "s_noise": 0.7}, {"rho": 5.0, "sigma_max": 40.0}]:
        add(n, c)
    add(n, {}, [2], timesteps=[22, 0])
    add(n, {"num_train_timesteps": 201}, [2], timesteps=[106, 0])

    n = "SCMScheduler"
    add(n, {}, [1, 2])
    add(n, {}, [1, 2, 4, 5, 10, 20, 50, 1000], intermediate_timesteps=None)
    add(n, {}, [2], max_timesteps=1.5, intermediate_timesteps=1.0)
    add(n, {"sigma_data": 1.0}, [4], intermediate_timesteps=None)
    add(n, {}, [3], timesteps=[1.5, 1.0, 0.4, 0.0], max_timesteps=None, intermediate_timesteps=None)

    flux = {"base_shift": 0.5, "max_shift": 1.15, "shift": 3.0, "use_dynamic_shifting": True}
    qwen = {"use_dynamic_shifting": True, "time_shift_type": "exponential", "shift_terminal": 0.02, "max_shift": 0.9}
    for n in ["FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"]:
        add(n, {}, ALL)
        add(n, {"shift": 3.0}, [1, 4, 10, 28])
        for k in (1, 4, 10, 28):
            add(n, flux, [k], sigmas=ramp(k), mu=1.15)
            add(n, qwen, [k], sigmas=ramp(k), mu=0.834325)
        add(n, flux, ONE, mu=1.15)
        add(n, {**flux, "time_shift_type": "linear"}, ONE, mu=2.0)
        add(n, {"use_dynamic_shifting": True}, ONE)
        add(n, {"shift": 3.0, "shift_terminal": 0.1}, ONE)
        for c in GRIDS:
            add(n, {"shift": 3.0, **c})
        add(n, {"shift": 3.0, "invert_sigmas": True}, ONE)
        add(n, {"shift": 3.0}, [4], sigmas=ramp(4))
        add(n, {"shift": 3.0}, [4], timesteps=[1000.0, 750.0, 500.0, 250.0])
        add(n, {"shift": 3.0}, [4], timesteps=[1000.0, 750.0, 500.0, 250.0], sigmas=[0.9, 0.7, 0.4, 0.1])
        add(n, {"num_train_timesteps": 500, "shift": 2.0}, ONE)
    n = "FlowMatchEulerDiscreteScheduler"
    add(n, {"shift": 3.0, "stochastic_sampling": True}, [1, 4, 10])
    add(n, {"shift": 3.0}, [4], s_churn=3.0)

    n = "FlowMatchHeunDiscreteScheduler"
    add(n, {}, ALL)
    add(n, {"shift": 3.0}, FEW)
    add(n, {"shift": 3.0}, FEW, s_churn=1.0)
    add(n, {"shift": 3.0}, [4], s_churn=3.0, s_tmin=0.3, s_tmax=0.9, s_noise=1.1)

    n = "FlowMapEulerDiscreteScheduler"
    add(n, {}, ALL)
    add(n, {"shift": 3.0}, FEW)
    add(n, {"shift": 3.0}, [4], sigmas=ramp(4))
    add(n, {"shift": 3.0}, [4], timesteps=[1000.0, 750.0, 500.0, 250.0])
    add(n, {}, [4], r_timestep=0.0)
    add(n, {}, [4], r_timestep=125.0)
    return out


# ---- running -------------------------------------------------------------------------------------------------


def digits(value):
    """11 significant digits, whole numbers as such, null for what is not finite."""
    value = float(value)
    if not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.10e}")


def flat(x):
    return [digits(v) for v in x.reshape(-1)]


def picked(count, plain):
    """Which step calls are kept, always with the first and the last: a class's default config shows the most."""
    if plain:
        return list(range(count)) if count <= 5 else sorted({0, count // 3, (2 * count) // 3, count - 1})
    return sorted({0, count // 2, count - 1} if count >= 10 else {0, count - 1})


def spread(count, limit):
    if count <= limit:
        return None
    return sorted({0, count // 2, count - 1} if limit < 24 else {0, 1, count // 2, count - 2, count - 1})


SEEN = set()


def put_list(case, name, short, values, key):
    """A schedule already written for its class is written thinned out, to keep the file small."""
    values = [digits(v) for v in values]
    seen = (*key, name, json.dumps(values))
    at = spread(len(values), 3 if seen in SEEN else 24)
    SEEN.add(seen)
    if at is not None:
        case[f"{short}_at"] = at
        values = [values[i] for i in at]
    case[name] = values


def truncated(name, config, scheduler, levels):
    """Indices of int64 timesteps cut from a value within 1e-6 of a whole number: the last bit of a sum decides
    them, so another order of the same arithmetic may land one lower or higher."""
    count = len(scheduler.timesteps)
    if scheduler.timesteps.dtype != torch.int64:
        return []
    if config.get("use_flow_sigmas"):
        levels = [float(s) * scheduler.config.num_train_timesteps for s in scheduler.sigmas[:count]]
    elif config.get("beta_schedule") != "squaredcos_cap_v2" and any(
        config.get(k) for k in ("use_karras_sigmas", "use_lu_lambdas")
    ):
        return []  # these are rounded, not cut
    levels = [float(v) for v in levels]
    if len(levels) < count:
        return []
    return [i for i, v in enumerate(levels[:count]) if abs(v - round(v)) < 1e-6]


def run_diffusers(name, config, call, steps):
    module = sys.modules[getattr(diffusers, name).__module__]
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = randn_tensor
    if hasattr(module, "BrownianTreeNoiseSampler"):
        module.BrownianTreeNoiseSampler = Brownian
    Noise.drawn = 0
    case = {"class": name, "config": config, "call": call, "steps": steps}
    count = 0
    try:
        extra = dict(call)
        options = dict(config)
        if "tau" in extra:
            constant = extra.pop("tau")
            options["tau_func"] = lambda _: constant
        scheduler = getattr(diffusers, name)(**options)
        begin = extra.pop("begin_index", None)
        levels = []
        if hasattr(scheduler, "_sigma_to_t"):
            to_t = scheduler._sigma_to_t

            def noted(*arguments):
                levels.append(to_t(*arguments))
                return levels[-1]

            scheduler._sigma_to_t = noted
        accepted = inspect.signature(scheduler.set_timesteps).parameters
        setting = {k: v for k, v in extra.items() if k in accepted}
        stepping = {k: v for k, v in extra.items() if k not in accepted}
        if name == "UniPCMultistepScheduler" and "sigmas" in setting:
            setting["sigmas"] = np.array(setting["sigmas"])  # a list raises TypeError in 0.42.1
        if name == "SCMScheduler" or not ({"timesteps", "sigmas"} & set(setting)):
            setting = {"num_inference_steps": steps, **setting}
        scheduler.set_timesteps(**setting)
        if begin is not None:
            scheduler.set_begin_index(begin)
        first = float(getattr(scheduler, "init_noise_sigma", 1.0))
        put_list(case, "timesteps", "t", scheduler.timesteps, (name, steps))
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is not None and torch.is_floating_point(sigmas):
            assert sigmas.dtype == REAL or CONDITION, (name, sigmas.dtype)
            put_list(case, "sigmas", "s", sigmas, (name, steps))
        if hasattr(scheduler, "alphas_cumprod"):
            assert scheduler.alphas_cumprod.dtype == REAL, name
        assert scheduler.timesteps.dtype != SHORT or CONDITION, (name, "timesteps")
        fragile = truncated(name, config, scheduler, levels)
        if fragile:
            case["fragile"] = fragile
        case["init_noise_sigma"] = digits(first)
        # SCM's last timestep is the end of the trajectory, never a model call.
        timesteps = scheduler.timesteps[:-1] if name == "SCMScheduler" else scheduler.timesteps
        learned = config.get("variance_type") in ("learned", "learned_range")
        x = wave(SHAPE, 0.9, 0.4) * first
        keep = set(picked(len(timesteps), not config and not call))
        at, xs = [], []
        for t in timesteps:
            given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            out = net(given, t)
            if learned:
                out = torch.cat([out, variance_net(given, t)], dim=1)
            x = scheduler.step(out, t, x, **stepping).prev_sample
            assert x.dtype == REAL, (name, x.dtype)
            if tuple(x.shape) != SHAPE:
                raise RuntimeError(f"the state's shape became {tuple(x.shape)}")
            if count in keep:
                at.append(count)
                xs.append(flat(x))
            count += 1
        case["at"], case["x"], case["draws"] = at, xs, Noise.drawn
    except AssertionError as error:
        if str(error).startswith("("):
            raise
        case["error"], case["failed_at"] = f"AssertionError: {error}", count
    except Exception as error:  # whatever the class says is the fixture
        text = " ".join(str(error).split())
        case["error"], case["failed_at"] = f"{type(error).__name__}: {text[:160]}", count
    return case


def run_k(sampling, function, n, grid, args):
    def model(x, sigma):
        s = sigma.reshape(-1, 1, 1, 1)
        t = 1000 * s / (1 + s)
        given = x / (1 + s * s) ** 0.5
        part = 0.6 * torch.sin(1.3 * given + 0.002 * t)
        part = part + 0.25 * torch.cos(0.003 * t) * given / (1 + 0.1 * given * given)
        calls.append(float(sigma.reshape(-1)[0]))
        return x - s * part

    Noise.drawn = 0
    calls, states = [], []
    low, high = 0.03, 14.6
    x = high * wave(SHAPE, 0.9, 0.4)
    case = {"function": function, "args": args, "steps": n}
    try:
        extra = {"disable": True, "callback": lambda info: states.append(info["x"]), **args}
        sampler = getattr(sampling, function)
        if function in ("sample_dpmpp_sde", "sample_dpmpp_2m_sde", "sample_dpmpp_3m_sde"):
            extra["noise_sampler"] = Brownian(x)
        if function == "sample_dpm_fast":
            out = sampler(model, x, low, high, n, **extra)
        elif function == "sample_dpm_adaptive":
            out, info = sampler(model, x, low, high, return_info=True, **extra)
            case["info"] = info
        else:
            case["grid"] = grid
            sigmas = getattr(sampling, f"get_sigmas_{grid}")(n, low, high)
            out = sampler(model, x, sigmas, **extra)
        # The callback sees the state before its step, so state i+1 ends step i; with churn it already holds
        # the next step's noise, so only the last state is kept. dpm_adaptive calls back after its step.
        states = states[:-1] + [out] if function == "sample_dpm_adaptive" else states[1:] + [out]
        keep = [0, len(states) - 1] if len(states) > 2 else list(range(len(states)))
        if len(states) > 5:
            keep = [0, len(states) // 2, len(states) - 1]
        if "s_churn" in args:
            keep = keep[-1:]
        case["at"], case["x"] = keep, [flat(states[i]) for i in keep]
        case["draws"], case["calls"] = Noise.drawn, len(calls)
    except Exception as error:
        case["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return case


def k_cases(sampling):
    out = []
    for args in [
        ("get_sigmas_karras", {"sigma_min": 0.03, "sigma_max": 14.6}),
        ("get_sigmas_karras", {"sigma_min": 0.03, "sigma_max": 14.6, "rho": 5.0}),
        ("get_sigmas_exponential", {"sigma_min": 0.03, "sigma_max": 14.6}),
        ("get_sigmas_polyexponential", {"sigma_min": 0.03, "sigma_max": 14.6}),
        ("get_sigmas_polyexponential", {"sigma_min": 0.03, "sigma_max": 14.6, "rho": 2.0}),
        ("get_sigmas_vp", {}),
        ("get_sigmas_vp", {"beta_d": 12.0, "beta_min": 0.2, "eps_s": 0.01}),
    ]:
        for n in (1, 2, 5, 10):
            sigmas = [digits(v) for v in getattr(sampling, args[0])(n, **args[1])]
            out.append({"function": args[0], "args": args[1], "steps": n, "sigmas": sigmas})

    def add(function, args=None, steps=ORDERS, grid="karras"):
        for n in steps:
            out.append(run_k(sampling, function, n, grid, args or {}))

    churn = {"s_churn": 5.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.003}
    for f in ("sample_euler", "sample_heun", "sample_dpm_2"):
        add(f)
        add(f, {"s_churn": 2.0}, FEW)
        add(f, churn, [10])
    for f in ("sample_euler_ancestral", "sample_dpm_2_ancestral", "sample_dpmpp_2s_ancestral"):
        add(f)
        add(f, {"eta": 0.5}, FEW)
        add(f, {"eta": 0.0}, ONE)
    add("sample_euler_ancestral", {"s_noise": 0.7}, ONE)
    add("sample_lms")
    add("sample_lms", {"order": 2}, FEW)
    add("sample_dpmpp_2m")
    add("sample_dpmpp_sde")
    add("sample_dpmpp_sde", {"eta": 0.5}, FEW)
    add("sample_dpmpp_sde", {"eta": 0.0}, ONE)
    add("sample_dpmpp_sde", {"r": 0.3}, ONE)
    for solver in ("midpoint", "heun"):
        add("sample_dpmpp_2m_sde", {"solver_type": solver}, ORDERS if solver == "midpoint" else FEW)
        add("sample_dpmpp_2m_sde", {"solver_type": solver, "eta": 0.5}, FEW)
        add("sample_dpmpp_2m_sde", {"solver_type": solver, "eta": 0.0}, FEW)
    add("sample_dpmpp_3m_sde")
    add("sample_dpmpp_3m_sde", {"eta": 0.5}, FEW)
    add("sample_dpmpp_3m_sde", {"eta": 0.0}, FEW)
    add("sample_dpm_fast", {}, [1, 2, 3, 4, 5, 6, 10, 20])
    add("sample_dpm_fast", {"eta": 0.5}, [5, 10])
    for args in ({}, {"order": 2}, {"rtol": 0.01, "atol": 0.001}, {"eta": 0.5}, {"order": 2, "pcoeff": 0.2, "dcoeff": 0.1}):
        add("sample_dpm_adaptive", args, [0])
    for f in ("sample_euler", "sample_heun", "sample_dpmpp_2m", "sample_lms", "sample_euler_ancestral"):
        add(f, {}, ONE, "exponential")
    return out


def k_sampling():
    """k_diffusion.sampling alone: the package's __init__ and utils want torchvision and more."""
    spec = importlib.util.find_spec("k_diffusion")
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    package.utils = utils
    sys.modules["k_diffusion"], sys.modules["k_diffusion.utils"] = package, utils
    return importlib.import_module("k_diffusion.sampling")


def diffusers_cases():
    out = []
    for name, config, call, steps in cases():
        case = run_diffusers(name, config, call, steps)
        out.append(case)
        # Duplicated first timesteps start the loop at index 1 and run off the end. Pipelines which call
        # set_begin_index(0) escape that, so such a case is written both ways.
        twice = case.get("failed_at", 0) > 0 and case["timesteps"][0] == case["timesteps"][1]
        if twice and hasattr(getattr(diffusers, name), "set_begin_index"):
            out.append(run_diffusers(name, config, {**call, "begin_index": 0}, steps))
    return out


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, separators=(",", ":"), allow_nan=False) for row in rows]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(path, len(rows), "cases", path.stat().st_size, "bytes", sum("error" in r for r in rows), "errors")


def write_fields():
    """The fields of every covered class, one class a line."""
    import inspect
    import re

    source = (FOLDER.parent.parent / "src" / "diffusers" / "mod.rs").read_text()
    lines = []
    for name in re.findall(r'^    "(\w+Scheduler)",$', source, re.MULTILINE):
        own = set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self", "kwargs"}
        lines.append(f"{json.dumps(name)}: {json.dumps(sorted(own))}")
    (FOLDER / "diffusers_fields.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    chosen = [a for a in sys.argv[1:] if not a.startswith("--")] or ["diffusers", "k_diffusion", "fields"]
    if "fields" in chosen:
        write_fields()
        chosen.remove("fields")
    if CONDITION:
        json.dump(diffusers_cases(), sys.stdout)
        return
    if "--condition" in sys.argv:
        import subprocess

        child = subprocess.run([sys.executable, __file__, "--condition-child"], capture_output=True, check=True)
        key = lambda c: json.dumps([c["class"], c["config"], c["call"], c["steps"]])  # noqa: E731
        short = {key(c): c for c in json.loads(child.stdout)}
        for ours in diffusers_cases():
            theirs = short.get(key(ours), {})
            if ("x" in ours) != ("x" in theirs) or ours.get("at") != theirs.get("at"):
                print("differs in kind", key(ours), ours.get("error"), theirs.get("error"))
                continue
            if "x" not in ours:
                continue
            a, b = (np.array([[math.nan if v is None else v for v in r] for r in c["x"]], dtype=float) for c in (ours, theirs))
            gap = np.nanmax(np.abs(a - b)) / max(np.nanmax(np.abs(a)), 1e-30)
            if gap > 1e-3 or math.isnan(gap):
                print(f"{gap:.1e}", ours["class"], ours["config"], ours["call"], ours["steps"])
        return
    if "diffusers" in chosen:
        write(FOLDER / "diffusers.json", diffusers_cases())
    if "k_diffusion" in chosen:
        write(FOLDER / "k_diffusion.json", k_cases(k_sampling()))


if __name__ == "__main__":
    main()
