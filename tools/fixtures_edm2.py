"""Writes the EDM2 fixtures of canvas-unet/tests/fixtures, and prints the sizes of the paper's networks.

    /tmp/venv/bin/python tools/fixtures_edm2.py

There is no free reference implementation. This one is written from the equations of Karras et al., 2023,
arXiv 2312.02696, as plain functions of named weights, in f64; it shares no structure with canvas-unet/src/edm2.rs but
the names of the weights.
"""

import math
from pathlib import Path

import formula
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

FOLDER = Path(__file__).parent.parent / "canvas-unet" / "tests" / "fixtures"


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


class Weights(dict):
    """Made when first asked for: the names and shapes that a network turns out to have."""

    def __init__(self, sizes_only=False):
        self.sizes_only = sizes_only

    def get(self, name, *shape, fixed=False):
        if name not in self:
            if self.sizes_only:
                self[name] = torch.zeros(shape, device="meta")
            else:
                values = torch.from_numpy(formula.chirp(name, shape)).double()
                self[name] = values if fixed else values.requires_grad_()
        assert self[name].shape == shape, name
        return self[name]


def rms(x, axes):
    return x.pow(2).mean(axes, keepdim=True).sqrt()


def unit(x, axes):
    """Root mean square 1, but for the 1e-4 that is added to it."""
    return x / (1e-4 + rms(x, axes))


def layer(weights, name, x, to, kernel=None):
    """A linear layer without a kernel, else a convolution; fan-in n: rows of norm about 1."""
    shape = (to, x.shape[1]) + ((kernel, kernel) if kernel else ())
    w = unit(weights.get(name + ".weight", *shape), tuple(range(1, len(shape))))
    w = w / math.sqrt(math.prod(shape[1:]))
    return F.conv2d(x, w, padding=kernel // 2) if kernel else x @ w.T


def silu(x):
    return x * torch.sigmoid(x) / 0.596


def mix(a, b, t):
    return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def join(a, b):
    """Equation 103 with t = 1/2: both count alike, and the variance of all stays 1."""
    n, m = a.shape[1], b.shape[1]
    half = math.sqrt((n + m) / 2)
    return torch.cat([a * half / math.sqrt(n), b * half / math.sqrt(m)], 1)


def fourier(weights, name, x, count):
    f = weights.get(name + ".frequencies", count, fixed=True)
    p = weights.get(name + ".phases", count, fixed=True)
    return math.sqrt(2) * torch.cos(2 * math.pi * (torch.outer(x, f) + p))


def attention(weights, name, x, head):
    b, c, h, s = x.shape
    q, k, v = (
        unit(layer(weights, f"{name}.{part}", x, c, 1).reshape(b, c // head, head, h * s), 2)
        for part in ("query", "key", "value")
    )
    scores = torch.einsum("bhdn,bhdm->bhnm", q, k) / math.sqrt(head)
    read = torch.einsum("bhnm,bhdm->bhdn", scores.softmax(3), v).reshape(b, c, h, s)
    return mix(x, layer(weights, name + ".output", read, c, 1), 0.3)


def block(weights, name, x, emb, to, config, way, attends, resize=None):
    if resize == "halve":
        x = F.avg_pool2d(x, 2)
    if resize == "double":
        x = F.interpolate(x, scale_factor=2, mode="nearest")

    def skip(x):
        return layer(weights, name + ".skip", x, to, 1) if x.shape[1] != to else x

    if way == "down":
        x = unit(skip(x), 1)
    h = layer(weights, name + ".first", silu(x), to, 3)
    factor = 1 + weights.get(name + ".gain", 1) * layer(weights, name + ".embed", emb, to)
    h = layer(weights, name + ".second", silu(h * factor[:, :, None, None]), to, 3)
    h = mix(x if way == "down" else skip(x), h, 0.3)
    if attends:
        h = attention(weights, name + ".attention", h, config["head"])
    return h.clamp(-config["clip"], config["clip"])


def edm2(weights, config, x, time, labels):
    widths, attends, count = config["widths"], config["attends"], config["blocks"]
    width, classes, channels = max(widths), config["classes"], x.shape[1]
    emb = layer(weights, "noise", fourier(weights, "fourier", time, widths[0]), width)
    if classes:
        hot = F.one_hot(labels, classes + 1)[:, :classes] * math.sqrt(classes)
        emb = mix(emb, layer(weights, "classes", hot.to(x), width), 0.5)
    emb = silu(emb)
    h = layer(weights, "input", torch.cat([x, torch.ones_like(x[:, :1])], 1), widths[0], 3)
    left = [h]

    def run(name, h, to, way, attends=False, resize=None):
        return block(weights, name, h, emb, to, config, way, attends, resize)

    for i, to in enumerate(widths):
        if i:
            h = run(f"down.{i}.resize", h, widths[i - 1], "down", resize="halve")
            left.append(h)
        for j in range(count):
            h = run(f"down.{i}.blocks.{j}", h, to, "down", attends[i])
            left.append(h)
    h = run("middle.0", h, widths[-1], "up", True)
    h = run("middle.1", h, widths[-1], "up")
    for i, to in enumerate(reversed(widths)):
        if i:
            h = run(f"up.{i}.resize", h, h.shape[1], "up", resize="double")
        for j in range(count + 1):
            h = run(f"up.{i}.blocks.{j}", join(h, left.pop()), to, "up", attends[len(widths) - 1 - i])
    assert not left
    return layer(weights, "output", h, channels, 3) * weights.get("gain", 1)


def case(config, labels, watch):
    """Values, and gradients of their sum with a pattern, as the other fixtures of UNets."""
    weights = Weights()
    x = pattern((2, 3, 8, 12), 1.0, 1.4).requires_grad_()
    out = edm2(weights, config, x, torch.tensor([-0.4, 0.3]).double(), labels)
    (out * pattern(out.shape, 2.0)).sum().backward()
    learned = {name: value.grad for name, value in weights.items() if value.requires_grad}
    tensors = {"output": out, "grad.x": x.grad}
    tensors |= {"grad." + name: learned[name] for name in watch}
    tensors["norms"] = torch.stack([learned[name].norm() for name in sorted(learned)])
    return tensors


def uncertainty():
    """`u` at two noise levels, and the loss that it weighs."""
    weights = Weights()
    time = torch.tensor([-0.4, 0.3]).double()
    u = layer(weights, "output", fourier(weights, "fourier", time, 16), 1)[:, 0]
    losses = torch.tensor([0.7, 2.5]).double() / u.exp() + u
    losses.sum().backward()
    return {"u": u, "losses": losses, "grad.output.weight": weights["output.weight"].grad}


def save(name, tensors):
    tensors = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    notes = {"paper": "arXiv 2312.02696", "torch": torch.__version__, "script": "tools/fixtures_edm2.py"}
    path = FOLDER / f"{name}.safetensors"
    save_file(tensors, path, metadata=notes)
    path.chmod(0o644)
    print(name, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items()})


def main():
    torch.set_num_threads(1)
    config = dict(
        widths=(16, 24, 32), attends=(False, True, False), blocks=2, head=8, clip=256.0, classes=5
    )
    # The second image is of no class.
    watch = ["noise.weight", "classes.weight", "down.1.blocks.0.attention.key.weight", "up.1.resize.embed.weight"]
    save("edm2", case(config, torch.tensor([3, 5]), watch))
    config = dict(widths=(8, 16), attends=(False, False), blocks=1, head=8, clip=1.5, classes=0)
    save("edm2_plain", case(config, torch.tensor([0, 0]), ["input.weight", "up.0.blocks.1.skip.weight", "gain"]))
    save("edm2_uncertainty", uncertainty())

    for name, width in [("xs", 128), ("s", 192), ("m", 256), ("l", 320), ("xl", 384), ("xxl", 448)]:
        widths = tuple(width * i for i in (1, 2, 3, 4))
        config = dict(widths=widths, attends=(False, False, True, True), blocks=3, head=64, clip=256.0, classes=1000)
        weights = Weights(sizes_only=True)
        x = torch.zeros((1, 4, 64, 64), device="meta")
        edm2(weights, config, x, torch.zeros(1, device="meta"), torch.zeros(1, dtype=torch.int64))
        print(name, sum(value.numel() for value in weights.values()))


if __name__ == "__main__":
    main()
