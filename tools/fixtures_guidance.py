"""Writes canvas-sched/tests/fixtures/guidance.json: what diffusers' guiders answer.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_guidance.py

A guider acts on the network's raw output. Here the clean estimates are given by a formula; for each space they
are turned into that raw output, guided, and turned back into a clean estimate, which the fixture holds. In f64.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    PerturbedAttentionGuidance,
    SkipLayerGuidance,
    TangentialClassifierFreeGuidance,
)

torch.Tensor.float = torch.Tensor.double  # some guiders round to 32 bits inside

FILE = Path(__file__).parent.parent / "canvas-sched" / "tests" / "fixtures" / "guidance.json"
SHAPE = (2, 3, 2, 4)
# Two samples, two levels: alpha and sigma of no particular schedule.
ALPHA = torch.tensor([0.8, 0.3], dtype=torch.float64).reshape(2, 1, 1, 1)
SIGMA = torch.tensor([0.5, 0.9], dtype=torch.float64).reshape(2, 1, 1, 1)
N = (ALPHA**2 + SIGMA**2).sqrt()


def pattern(seed):
    return torch.from_numpy(np.sin(0.37 * np.arange(48) + seed).reshape(SHAPE))


X = pattern(1.0)
COND, NULL, WORSE = pattern(2.0) * 1.5, pattern(2.9), pattern(3.4) * 0.7

# How a clean estimate is read as raw output, and back.
SPACES = {
    "x0": (lambda x0: x0, lambda raw: raw),
    "eps": (lambda x0: (X - ALPHA * x0) / SIGMA, lambda raw: (X - SIGMA * raw) / ALPHA),
    "velocity": (
        lambda x0: (ALPHA * (X - ALPHA * x0) / SIGMA - SIGMA * x0) / N,
        lambda raw: (ALPHA * X - SIGMA * N * raw) / N**2,
    ),
    "flow": (
        lambda x0: (X - ALPHA * x0) / SIGMA - x0,
        lambda raw: (X - SIGMA * raw) / (ALPHA + SIGMA),
    ),
}


def guided(guider, *estimates, steps=None):
    found = {}
    for name, (read, write) in SPACES.items():
        if steps is None:
            pred = guider().forward(*[None if x0 is None else read(x0) for x0 in estimates]).pred
            found[name] = write(pred).flatten().tolist()
        else:  # one guider along several steps
            one = guider()
            found[name] = [write(steps(one, i, read)).flatten().tolist() for i in range(3)]
    return found


def apg(guider, i, read):
    if i == 0:
        from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

        guider.momentum_buffer = MomentumBuffer(guider.adaptive_projected_guidance_momentum)
    return guider.forward(read(COND * (1 + 0.2 * i)), read(NULL * (1 - 0.3 * i))).pred


def zero_star(step):
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=4.0, zero_init_steps=1)
    guider.set_state(step, 10, 0)
    return guider


def apg_guider(scale, original, momentum=None):
    return lambda: AdaptiveProjectedGuidance(
        guidance_scale=scale,
        adaptive_projected_guidance_momentum=momentum,
        adaptive_projected_guidance_rescale=1.5,
        eta=0.3,
        use_original_formulation=original,
    )


def pag(cfg, original=False, rescale=0.0, kind=PerturbedAttentionGuidance):
    args = {"guidance_scale": cfg, "guidance_rescale": rescale, "use_original_formulation": original}
    if kind is PerturbedAttentionGuidance:
        return lambda: kind(perturbed_guidance_layers=[0], perturbed_guidance_scale=2.0, **args)
    return lambda: kind(skip_layer_guidance_layers=[0], skip_layer_guidance_scale=2.0, **args)


cases = {
    "cfg": guided(lambda: ClassifierFreeGuidance(guidance_scale=3.0), COND, NULL),
    "rescale": guided(lambda: ClassifierFreeGuidance(guidance_scale=3.0, guidance_rescale=0.7), COND, NULL),
    "apg_original_4": guided(apg_guider(4.0, True), COND, NULL),
    "apg_default_5": guided(apg_guider(5.0, False), COND, NULL),
    "apg_original_4_momentum": guided(apg_guider(4.0, True, -0.5), steps=apg),
    "zero_star_first": guided(lambda: zero_star(0), COND, NULL),
    "zero_star_second": guided(lambda: zero_star(1), COND, NULL),
    "tcfg": guided(lambda: TangentialClassifierFreeGuidance(guidance_scale=4.0), COND, NULL),
    "auto": guided(lambda: AutoGuidance(guidance_scale=2.0, auto_guidance_layers=[0], dropout=0.5), COND, WORSE),
    "pag_cfg": guided(pag(3.0), COND, NULL, WORSE),
    "pag_cfg_rescale": guided(pag(3.0, rescale=0.7), COND, NULL, WORSE),
    "pag_default": guided(pag(1.0), COND, None, WORSE),
    "pag_original": guided(pag(0.0, original=True), COND, None, WORSE),
    "slg_cfg": guided(pag(3.0, kind=SkipLayerGuidance), COND, NULL, WORSE),
}

threshold = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.5)
wide = COND * torch.tensor([2.0, 0.8], dtype=torch.float64).reshape(2, 1, 1, 1)
quantiles = [0.0, 0.3, 0.5, 0.77, 0.995, 1.0]
rows = wide.abs().flatten(1)

# DDIM's step with clipping, keeping the noise or not: from its step 500 to 400.
clipped = {}
for name, follow in [("keeps", False), ("follows", True)]:
    ddim = DDIMScheduler(clip_sample=True)
    ddim.alphas_cumprod = ddim.alphas_cumprod.double()
    ddim.set_timesteps(10)
    start, end = ddim.alphas_cumprod[500], ddim.alphas_cumprod[400]
    eps = (X - start.sqrt() * wide) / (1 - start).sqrt()
    clipped[name] = ddim.step(eps, 500, X, use_clipped_model_output=follow).prev_sample.flatten().tolist()
clipped["alphas_cumprod"] = [start.item(), end.item()]

FILE.parent.mkdir(exist_ok=True)
FILE.write_text(
    json.dumps(
        {
            "cases": cases,
            "threshold": threshold._threshold_sample(wide).flatten().tolist(),
            "quantiles": [[q, torch.quantile(rows, q, dim=1).tolist()] for q in quantiles],
            "ddim": clipped,
        }
    )
)
print(FILE, FILE.stat().st_size)
