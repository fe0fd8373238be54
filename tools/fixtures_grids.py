"""Writes canvas-sched/tests/fixtures/grids.json: schedules and grids of diffusers' schedulers.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers scipy numpy
    /tmp/venv/bin/python tools/fixtures_grids.py

The reference runs in f64: torch.float32 and np.float32 are replaced before diffusers is imported.
"""

import json
from pathlib import Path

import numpy as np
import torch

torch.float32 = torch.float64
np.float32 = np.float64
torch.set_default_dtype(torch.float64)

import diffusers  # noqa: E402
from diffusers import (  # noqa: E402
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule  # noqa: E402
from diffusers.schedulers.scheduling_ddpm import betas_for_alpha_bar  # noqa: E402

FILE = Path(__file__).parent.parent / "canvas-sched" / "tests" / "fixtures" / "grids.json"
INDICES = [0, 1, 250, 499, 500, 998, 999]
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def picked(values):
    return [float(values[i]) for i in INDICES]


def table(betas, alphas_cumprod):
    return {"betas": picked(betas), "alphas_cumprod": picked(alphas_cumprod)}


def tables():
    found = {}
    for name in ["linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid"]:
        if name == "scaled_linear":
            scheduler = DDPMScheduler(**SD)
        else:
            scheduler = DDPMScheduler(beta_schedule=name)
        found[name] = table(scheduler.betas, scheduler.alphas_cumprod)
    betas = betas_for_alpha_bar(1000, alpha_transform_type="exp")
    found["exp"] = table(betas, torch.cumprod(1 - betas, 0))
    scheduler = DDIMScheduler(**SD, rescale_betas_zero_snr=True)
    found["zero_snr"] = table(scheduler.betas, scheduler.alphas_cumprod)
    scheduler = EulerDiscreteScheduler(**SD, rescale_betas_zero_snr=True)
    found["zero_snr_euler"] = table(scheduler.betas, scheduler.alphas_cumprod)
    return found


def steps(scheduler, count):
    scheduler.set_timesteps(count)
    return [float(t) for t in scheduler.timesteps]


def spacings():
    """The training steps of every spacing, for many numbers of steps."""
    found = {}
    for spacing in ["linspace", "leading", "trailing"]:
        for name, kind in [("ddim", DDIMScheduler), ("dpm", DPMSolverMultistepScheduler)]:
            settings = {} if name == "dpm" else {"clip_sample": False}
            scheduler = kind(**SD, timestep_spacing=spacing, steps_offset=1, **settings)
            found[f"{name} {spacing}"] = {n: steps(scheduler, n) for n in [2, 3, 4, 7, 16, 22, 28, 30, 54, 81]}
    clipped = DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1)
    found["dpm clipped"] = {n: steps(clipped, n) for n in [4, 20]}
    return found


def grid(scheduler, count=None, **options):
    scheduler.set_timesteps(count, **options)
    return {"timesteps": [float(t) for t in scheduler.timesteps], "sigmas": [float(s) for s in scheduler.sigmas]}


def vp_grids():
    found = {}
    for move in ["", "karras", "exponential", "beta"]:
        settings = {**SD, **({f"use_{move}_sigmas": True} if move else {})}
        for spacing in ["linspace", "leading", "trailing"]:
            euler = EulerDiscreteScheduler(**settings, timestep_spacing=spacing, steps_offset=1)
            found[f"euler {spacing} {move}".strip()] = grid(euler, 7)
        dpm = DPMSolverMultistepScheduler(**settings, final_sigmas_type="sigma_min")
        found[f"dpm {move}".strip()] = grid(dpm, 7)
        found[f"unipc {move}".strip()] = grid(UniPCMultistepScheduler(**settings, final_sigmas_type="sigma_min"), 7)
    found["dpm lu"] = grid(DPMSolverMultistepScheduler(**SD, use_lu_lambdas=True), 7)
    found["dpm flow"] = grid(
        DPMSolverMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"), 7
    )
    found["euler sigmas"] = grid(EulerDiscreteScheduler(**SD), sigmas=[10.0, 4.0, 1.0, 0.1, 0.0])
    return found


def flow_grids():
    found = {}
    for move in ["", "karras", "exponential", "beta"]:
        settings = {f"use_{move}_sigmas": True} if move else {}
        found[f"shift 3 {move}".strip()] = grid(FlowMatchEulerDiscreteScheduler(shift=3.0, **settings), 5)
        qwen = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02, **settings)
        found[f"qwen {move}".strip()] = grid(qwen, sigmas=np.linspace(1, 1 / 4, 4), mu=0.834325)
    linear = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear")
    found["cogview4"] = grid(linear, sigmas=np.linspace(1, 1 / 6, 6), mu=3.25)
    plain = FlowMatchEulerDiscreteScheduler(shift=1.0)
    found["linear quadratic"] = grid(plain, sigmas=np.array(linear_quadratic_schedule(9, 0.025)))
    return found


values = {
    "diffusers": diffusers.__version__,
    "indices": INDICES,
    "tables": tables(),
    "spacings": spacings(),
    "vp": vp_grids(),
    "flow": flow_grids(),
}
FILE.parent.mkdir(parents=True, exist_ok=True)
FILE.write_text(json.dumps(values, indent=None, separators=(",", ":")).replace('},"', '},\n"') + "\n")
print(FILE, FILE.stat().st_size)
