"""Replays every random draw of diffusers, and runs it in f64.

What diffusers draws, and where a case's `noise.safetensors` holds it:

    latents           text-to-image: `randn_tensor` of the pipeline's `prepare_latents`, before `init_noise_sigma`
    noise             image-to-image and inpainting: the same place; at strength 1 inpainting starts from it alone
    step_noise        [draws, B, C, h, w]: `randn_tensor` of the schedulers, in order (LCM, DDPM, ancestral, SDE, ...)
    posterior         [1, C, h, w]: the autoencoder's sample of the picture. Drawn BEFORE `noise`
    posterior_masked  [1, C, h, w]: of the masked picture (inpainting with 9 channels). Drawn AFTER `noise`

A posterior without its key is its mean (a zero draw). diffusers itself always samples there, so a picture's latents
depend on the generator even where nothing else does; the cases `*-posterior` have the keys. An autoencoder without
posterior (AutoencoderTiny) draws nothing. Inpainting with 4 channels encodes the masked picture too, and draws
for it, and never uses it: that draw is not recorded. `DPMSolverSDEScheduler` takes Brownian noise from torchsde; here
its k-th call is the k-th `step_noise`, combined as canvas-sched/tests/fixtures/README.md says.
"""

import contextlib
import importlib
import math
import sys

import numpy as np
import torch
from transformers import CLIPTextModel

import generate_inputs as inputs

SINGLE = torch.float32  # its name may be replaced


class Draws:
    """The draws of one run, made on demand: what was asked for is what `noise.safetensors` will hold."""

    def __init__(self, start: str, posterior: bool, batch: int | None = None):
        self.start, self.posterior = start, posterior
        self.batch = batch  # DiT's schedulers step this many pictures twice; only the first half counts
        self.masked = False  # whether the picture that is being encoded is the masked one
        self.steps, self.found = [], {}

    def __call__(self, place: str, shape, _generator) -> torch.Tensor:
        """The answer of `randn_tensor` in the module `place`."""
        shape = tuple(shape)
        if ".schedulers." in place:
            return self.step(shape)
        if ".autoencoders." not in place:
            return self.named(self.start, shape)
        key = "posterior_masked" if self.masked else "posterior"
        return self.named(key, shape) if self.posterior else torch.zeros(shape)

    def named(self, key: str, shape) -> torch.Tensor:
        assert key not in self.found, f"{key} is drawn twice"
        self.found[key] = torch.from_numpy(inputs.noise(key, shape))
        return self.found[key]

    def step(self, shape) -> torch.Tensor:
        """The next of the schedulers' draws. The formula runs on over all of them, in the order of the file."""
        twice = self.batch is not None and shape[0] == 2 * self.batch
        own = (self.batch, *shape[1:]) if twice else shape
        whole = inputs.noise("step_noise", (len(self.steps) + 1, *own))
        self.steps.append(torch.from_numpy(whole[-1]))
        return torch.cat([self.steps[-1]] * 2) if twice else self.steps[-1]

    def tensors(self) -> dict:
        """What the file holds."""
        return self.found | ({"step_noise": torch.stack(self.steps)} if self.steps else {})


class Stream:
    """The draws of generators that the pipeline is given, one a picture: f32 in both precisions, posteriors included."""

    masked = False

    def __call__(self, _place: str, shape, generator) -> torch.Tensor:
        shape = tuple(shape)
        if isinstance(generator, torch.Generator):
            return torch.randn(shape, generator=generator, dtype=SINGLE)
        assert len(generator) == shape[0]
        return torch.cat([torch.randn((1, *shape[1:]), generator=one, dtype=SINGLE) for one in generator])

    def tensors(self) -> dict:
        return {}


class Brownian:
    """diffusers' Brownian tree over sigma, from the run's draws: a second interval from the same start shares a path."""

    draws = None

    def __init__(self, x, *_, **__):
        self.shape, self.last = x.shape, None

    def __call__(self, sigma, sigma_next):
        start, end = float(sigma), float(sigma_next)
        z = Brownian.draws.step(tuple(self.shape)).to(torch.get_default_dtype())
        if self.last is not None and self.last[0] == start:
            share = abs(self.last[1] - start) / abs(end - start)
            assert share <= 1, "the second interval is shorter than the first"
            z = math.sqrt(share) * self.last[2] + math.sqrt(1 - share) * z
        self.last = (start, end, z)
        return z


def answer(draws, place: str):
    """`randn_tensor` as the module `place` has it."""

    def randn_tensor(shape, generator=None, device=None, dtype=None, layout=None):
        return draws(place, shape, generator).to(dtype or torch.get_default_dtype())

    return randn_tensor


@contextlib.contextmanager
def replayed(draws):
    """Every `randn_tensor` of diffusers asks `draws`."""
    undo = []
    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and "randn_tensor" in vars(module):
            undo.append((module, "randn_tensor", module.randn_tensor))
            module.randn_tensor = answer(draws, name)
    sde = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
    undo.append((sde, "BrownianTreeNoiseSampler", sde.BrownianTreeNoiseSampler))
    sde.BrownianTreeNoiseSampler, Brownian.draws = Brownian, draws
    try:
        yield
    finally:
        for module, attribute, value in undo:
            setattr(module, attribute, value)


@contextlib.contextmanager
def text_model_of_itself():
    """Lets diffusers 0.42.1 find the last norm where transformers 5 has put it, or `clip_skip` raises."""
    CLIPTextModel.text_model = property(lambda encoder: encoder)
    try:
        yield
    finally:
        del CLIPTextModel.text_model


REAL = torch.float32, torch.float, np.float32, torch.Tensor.float


@contextlib.contextmanager
def named(names, default):
    """Gives f32's names these meanings: diffusers' and transformers' sources mention it."""
    kept, before = (torch.float32, torch.float, np.float32, torch.Tensor.float), torch.get_default_dtype()
    torch.float32, torch.float, np.float32, torch.Tensor.float = names
    torch.set_default_dtype(default)
    try:
        yield
    finally:
        torch.float32, torch.float, np.float32, torch.Tensor.float = kept
        torch.set_default_dtype(before)


def double():
    """Runs what mentions f32 in f64."""
    return named((torch.float64, torch.float64, np.float64, torch.Tensor.double), torch.float64)


def single():
    """Undoes `double`, for loading files."""
    return named(REAL, SINGLE)


def mark_masked(pipe, draws) -> None:
    """Tells the draws when the masked picture is encoded."""
    if not hasattr(pipe, "prepare_mask_latents"):
        return
    inner = pipe.prepare_mask_latents

    def outer(*args, **kwargs):
        draws.masked = True
        try:
            return inner(*args, **kwargs)
        finally:
            draws.masked = False

    pipe.prepare_mask_latents = outer
