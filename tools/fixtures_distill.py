"""Writes canvas-train/tests/fixtures/distill.safetensors: losses of distillation in PyTorch, and constants of diffusers.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_distill.py

Networks are two layers, filled by formula.py; losses are written out here as their papers have them, on three samples in the plane,
in f64. Of each case the losses, and the gradient of their mean by every parameter that has one. The mean flow's derivative is
torch.func.jvp's.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import CMStochasticIterativeScheduler, LCMScheduler
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import (
    LatentConsistencyModelPipeline,
)
from safetensors.torch import save_file

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

FILE = Path(__file__).parent.parent / "canvas-train" / "tests" / "fixtures" / "distill.safetensors"
torch.set_default_dtype(torch.float64)


def parameter(name, shape):
    return torch.from_numpy(formula.fill(name, shape)).double().requires_grad_()


class Net:
    """Matrices as Burn has them, [in, out]."""

    def __init__(self, name, two_times=False):
        shapes = {"up.weight": (2, 8), "up.bias": (8,), "time.weight": (1, 8), "down.weight": (8, 2), "down.bias": (2,)}
        prefix = f"{name}.net" if two_times else name
        self.all = {f"{prefix}.{key}": parameter(f"{prefix}.{key}", shape) for key, shape in shapes.items()}
        if two_times:
            self.all[f"{name}.r"] = parameter(f"{name}.r", (1, 8))
        self.values = [self.all[key] for key in self.all]

    def __call__(self, x, t, r=None):
        up, up_bias, time, down, down_bias, *of_r = self.values
        h = x @ up + up_bias + t[:, None] * time
        if r is not None:
            h = h + r[:, None] * of_r[0]
        return (h * torch.sigmoid(h)) @ down + down_bias


def wave(seed):
    """As in the tests, where it is f32."""
    return torch.from_numpy(np.sin(0.7 * np.arange(6) + seed).astype(np.float32)).double().reshape(3, 2)


def column(values):
    return torch.tensor(values)[:, None]


X0, EPS = wave(0.3), wave(1.7)


def edm(net, x, sigma, d=0.5):
    """Karras et al., 2022, Table 1."""
    root = (sigma**2 + d**2).sqrt()
    return d**2 / root**2 * x + sigma * d / root * net(x / root, sigma[:, 0].log() / 4)


def consistency(net, x, sigma, d=0.5, least=0.002):
    """Song et al., 2023, appendix C, with EDM's input."""
    root = (sigma**2 + d**2).sqrt()
    skip = d**2 / ((sigma - least) ** 2 + d**2)
    return skip * x + (sigma - least) * d / root * net(x / root, sigma[:, 0].log() / 4)


def heun(denoise, x, sigma, to):
    d = (x - denoise(x, sigma)) / sigma
    y = x + (to - sigma) * d
    return x + (to - sigma) * 0.5 * (d + (y - denoise(y, to)) / to)


def consistency_losses(student, teacher):
    sigma, to = column([3.0, 0.8, 0.1]), column([1.0, 0.3, 0.002])
    x = X0 + sigma * EPS
    y = X0 + to * EPS if teacher is None else heun(lambda x, s: edm(teacher, x, s), x, sigma, to)
    target = consistency(student, y.detach(), to).detach()
    square = ((consistency(student, x, sigma) - target) ** 2).sum(1)
    return ((square + 0.03**2).sqrt() - 0.03) / (sigma - to)[:, 0]


def progressive_losses(student, teacher):
    """Salimans and Ho, 2022, algorithm 2, on rectified flow's line."""
    t, mid, end = column([1.0, 0.6, 0.3]), column([0.8, 0.45, 0.15]), column([0.6, 0.3, 0.0])
    z = (1 - t) * X0 + t * EPS

    def ddim(z, t, s):
        x = z - t * teacher(z, t[:, 0])
        return (1 - s) * x + s / t * (z - (1 - t) * x)

    z2 = ddim(ddim(z, t, mid), mid, end)
    target = (z2 - end / t * z) / (1 - end - end / t * (1 - t))
    root = ((1 - t) ** 2 + t**2).sqrt()
    # A velocity of the unit circle: x = (alpha z - sigma v) / root, of z / root.
    x = ((1 - t) * z / root - t * student(z / root, t[:, 0])) / root
    weight = torch.maximum((1 - t) ** 2 / t**2, torch.tensor(1.0))
    return (weight * (target.detach() - x) ** 2).mean(1)


def mean_flow_losses(net):
    """Geng et al., 2025, algorithm 1, with p = 1 and c = 1e-3."""
    t, r = torch.tensor([0.9, 0.5, 0.7]), torch.tensor([0.2, 0.5, 0.1])
    z, v = (1 - t[:, None]) * X0 + t[:, None] * EPS, EPS - X0
    primals, tangents = (z, r, t), (v, torch.zeros(3), torch.ones(3))
    u, change = torch.func.jvp(lambda z, r, t: net(z, t, r), primals, tangents)
    target = (v - (t - r)[:, None] * change).detach()
    square = ((u - target) ** 2).sum(1)
    return square / (square.detach() + 1e-3)


def matching_losses(generator, real, fake):
    """Yin et al., 2024: 0.5 mse of what was drawn and itself less the gradient."""
    z, t = wave(0.9), column([0.3, 0.6, 0.8])
    drawn = z - generator(z, torch.ones(3))
    x = ((1 - t) * drawn + t * EPS).detach()
    of_real, of_fake = (x - t * net(x, t[:, 0]) for net in (real, fake))
    p_real, p_fake = drawn - of_real, drawn - of_fake
    grad = ((p_real - p_fake) / p_real.abs().mean(1, keepdim=True)).detach()
    return 0.5 * ((drawn - (drawn - grad).detach()) ** 2).mean(1)


def main():
    found = {}

    def case(name, net, losses):
        grads = torch.autograd.grad(losses.mean(), net.values, allow_unused=True)
        found[f"{name}/losses"] = losses.detach()
        for key, grad in zip(net.all, grads):
            found[f"{name}/grad/{key}"] = grad.flatten()

    student, teacher, fake, average = Net("student"), Net("teacher"), Net("fake"), Net("average", True)
    case("distilled", student, consistency_losses(student, teacher))
    case("trained", student, consistency_losses(student, None))
    case("progressive", student, progressive_losses(student, teacher))
    case("mean_flow", average, mean_flow_losses(average))
    case("matching", student, matching_losses(student, teacher, fake))

    lcm = LCMScheduler()
    rows = [[t, *lcm.get_scalings_for_boundary_condition_discrete(t)] for t in (0, 1, 19, 259, 999)]
    found["lcm"] = torch.tensor(rows, dtype=torch.float64)
    cm = CMStochasticIterativeScheduler()
    sigmas = [0.002, 0.01, 0.5, 3.0, 80.0]
    scalings = [cm.get_scalings_for_boundary_condition(torch.tensor(s, dtype=torch.float64)) for s in sigmas]
    found["cm"] = torch.tensor([[s, *map(float, pair)] for s, pair in zip(sigmas, scalings)])
    w = torch.tensor([0.0, 2.5, 8.0], dtype=torch.float32)
    embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    found["embedding"] = embed(None, w, 16).double().flatten()
    save_file({name: value.contiguous() for name, value in found.items()}, FILE)
    print(FILE.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
