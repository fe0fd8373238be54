"""PyTorch's side of compare.py: what the cases are, their weights and inputs, and what PyTorch makes of them.

    python torch_side.py make CASE FOLDER      # weights.safetensors, inputs.safetensors, expected.safetensors, flops
    python torch_side.py worker [compiled]     # answers compare.py on stdin and stdout (README.md, "The protocol")
    python torch_side.py cases DEVICE          # the names of what is measured there

COMPARE_DEVICE (cpu, cuda or wgpu) and COMPARE_DTYPE (f32, bf16) say where and how a worker computes; what it is compared with is
always made on the CPU in f32.

A case is a function of its name: made in another process, it has the same weights and inputs to the last bit.
"""

import math
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

RATE = 1e-4  # of AdamW; its other numbers are PyTorch's defaults, spelled out in `optimizer`
ASKED = os.environ.get("COMPARE_DEVICE", "cpu")
# Beside Vulkan it is CUDA too, where there is one.
DEVICE = "cuda" if ASKED == "cuda" or (ASKED == "wgpu" and torch.cuda.is_available()) else "cpu"
STEPS = 5  # runs of a case that changes its parameters, before its answer is compared


@dataclass
class Case:
    """A network, or no more than operations on inputs."""

    net: nn.Module
    inputs: dict
    forward: Callable  # of the network and the inputs, by name


class Dit(nn.Module):
    """DiT (Peebles and Xie, 2022): adaLN-Zero, fused attention, one product for queries, keys and values.

    Parameters have canvas' names, but for `qkv`, which is saved as its three parts. diffusers' own DiT embeds time and class
    again in every block, so it is not the same work.
    """

    def __init__(self, width, depth, heads, side=16):
        super().__init__()
        self.embed, self.cond = nn.Conv2d(4, width, 2, 2), nn.Embedding(1001, width)
        self.time = nn.ModuleDict({"input": nn.Linear(256, width), "output": nn.Linear(width, width)})
        self.blocks = nn.ModuleList(DitBlock(width, heads) for _ in range(depth))
        self.final_modulation, self.unembed = nn.Linear(width, 2 * width), nn.Linear(width, 32)
        angles = torch.arange(side).double()[:, None] / 10000 ** (torch.arange(width // 4) / (width // 4)).double()
        half = torch.cat([angles.sin(), angles.cos()], 1).float()  # of one place
        table = torch.cat([half.repeat(side, 1), half.repeat_interleave(side, 0)], 1)  # column, then row
        self.register_buffer("table", table, persistent=False)
        self.frequencies = torch.exp(-math.log(10000) * torch.arange(128).double() / 128).float().to(DEVICE)

    def forward(self, x, time, labels):
        angles = (1000 * time)[:, None] * self.frequencies
        features = torch.cat([angles.cos(), angles.sin()], 1).to(x.dtype)
        c = self.time["input"](features)
        c = self.time["output"](F.silu(c)) + self.cond(labels)  # [B, W]
        h = self.embed(x).flatten(2).transpose(1, 2) + self.table  # [B, N, W]
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.final_modulation(F.silu(c))[:, None].chunk(2, -1)
        h = self.unembed(normed(h, shift, scale))  # [B, N, 2 2 8]
        return h.reshape(-1, 16, 16, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(-1, 8, 32, 32)


class DitBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.modulation = heads, nn.Linear(width, 6 * width)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "output": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)})

    def forward(self, h, c):
        shift, scale, gate, shift_m, scale_m, gate_m = self.modulation(F.silu(c))[:, None].chunk(6, -1)
        qkv = self.attention["qkv"](normed(h, shift, scale))
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        h = h + gate * self.attention["output"](read)
        fed = self.mlp["up"](normed(h, shift_m, scale_m))
        return h + gate_m * self.mlp["down"](F.gelu(fed, approximate="tanh"))


def normed(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def dit(width, depth, heads, batch):
    def make():
        inputs = dict(x=torch.randn(batch, 4, 32, 32), time=torch.arange(1, batch + 1) / 8, labels=100 * torch.arange(batch))
        inputs["target"] = torch.randn(batch, 8, 32, 32)
        return Case(Dit(width, depth, heads), inputs, lambda net, x, time, labels: net(x, time, labels))

    return make


def unet(widths, side, batch):
    def make():
        from diffusers import UNet2DConditionModel

        net = UNet2DConditionModel(cross_attention_dim=768, sample_size=side, block_out_channels=widths)  # else SD1's
        inputs = dict(x=torch.randn(batch, 4, side, side), time=torch.full([batch], 0.5), text=torch.randn(batch, 77, 768))
        return Case(net, inputs, lambda net, x, time, text: net(x, 1000 * time, text).sample)

    return make


def vae(side):
    def make():
        from diffusers import AutoencoderKL

        down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
        widths = (128, 256, 512, 512)
        net = AutoencoderKL(3, 3, down, up, widths, layers_per_block=2, latent_channels=4)
        return Case(net, dict(x=torch.randn(1, 4, side, side)), lambda net, x: net.decode(x).sample)

    return make


def clip():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    net, ids = CLIPTextModel(config), torch.randint(0, 49408, (1, 77))
    return Case(net, dict(ids=ids), lambda net, ids: net(ids).last_hidden_state)


def t5():
    """A block of T5 v1.1 XL, with its embedding (of a small vocabulary) and final norm."""
    from transformers import T5Config, T5EncoderModel

    sizes = dict(d_model=2048, d_kv=64, d_ff=5120, num_heads=32, num_layers=1, vocab_size=1000)
    net = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **sizes))
    ids = torch.randint(0, 1000, (1, 256))
    return Case(net, dict(ids=ids), lambda net, ids: net(ids).last_hidden_state)


def mmdit():
    """Stable Diffusion 3 medium with two of its blocks: one in the middle, and the last, where the text ends."""
    from diffusers import SD3Transformer2DModel

    net = SD3Transformer2DModel(
        sample_size=64, patch_size=2, in_channels=16, num_layers=2, num_attention_heads=24, attention_head_dim=64,
        joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=96,
    )  # fmt: skip
    inputs = dict(x=torch.randn(1, 16, 32, 32), time=torch.full([1], 0.5), text=torch.randn(1, 154, 4096))
    inputs |= dict(pooled=torch.randn(1, 2048), target=torch.randn(1, 16, 32, 32))
    return Case(net, inputs, lambda net, x, time, text, pooled: net(x, text, pooled, 1000 * time).sample)


def op(run, **shapes):
    return lambda: Case(nn.Module(), {name: torch.randn(shape) for name, shape in shapes.items()}, lambda _, **x: run(**x))


def attention(*shape):
    names = ("q", "k", "v", "towards")  # gradients are those of the sum of the output times the last
    return op(lambda q, k, v: F.scaled_dot_product_attention(q, k, v), **dict.fromkeys(names, shape))


def adamw():
    net = nn.Module()
    net.weights = nn.ParameterList(torch.empty(1024, 1024) for _ in range(32))
    return Case(net, {f"gradient{i}": torch.randn(1024, 1024) for i in range(32)}, None)


POINTS, ROWS = [4, 320, 64, 64], [8, 256, 1152]
CASES = {
    "dit-s2-forward-b1": dit(384, 12, 6, 1),
    "dit-s2-forward-b8": dit(384, 12, 6, 8),
    "dit-b2-forward-b1": dit(768, 12, 12, 1),
    "dit-b2-forward-b8": dit(768, 12, 12, 8),
    "dit-s2-train-b8": dit(384, 12, 6, 8),
    "dit-b2-train-b2": dit(768, 12, 12, 2),
    "unet-128-b1": unet((128, 256, 512, 512), 32, 1),
    "unet-128-b2": unet((128, 256, 512, 512), 32, 2),
    "unet-sd15": unet((320, 640, 1280, 1280), 64, 1),
    "vae-decode": vae(64),
    "vae-decode-32": vae(32),
    "clip-l": clip,
    "t5-block": t5,
    "mmdit-block": mmdit,
    "mmdit-block-train": mmdit,
    "silu": op(F.silu, input=POINTS),
    "gelu": op(F.gelu, input=POINTS),
    "gelu-tanh": op(lambda input: F.gelu(input, approximate="tanh"), input=POINTS),
    "groupnorm-silu": op(lambda x, w, b: F.silu(F.group_norm(x, 32, w, b, 1e-5)), x=POINTS, w=[320], b=[320]),
    "layernorm-modulate": op(normed, x=ROWS, shift=[8, 1, 1152], scale=[8, 1, 1152]),
    "attention-256": attention(8, 6, 256, 64),
    "attention-256-grad": attention(8, 6, 256, 64),
    "attention-1024": attention(2, 8, 1024, 64),
    "attention-1024-grad": attention(2, 8, 1024, 64),
    "attention-4096": attention(1, 8, 4096, 40),
    "matmul": op(torch.matmul, input=[4096, 1152], other=[1152, 4608]),
    "conv": op(lambda x, w, b: F.conv2d(x, w, b, padding=1), x=[4, 320, 32, 32], w=[320, 320, 3, 3], b=[320]),
    "adamw": adamw,
}
# On a GPU. No larger: the answers that are compared with are the CPU's, which takes half a minute for five steps of DiT-XL/2.
ON_GPU = {
    "dit-s2-forward-b64": dit(384, 12, 6, 64),
    "dit-b2-forward-b64": dit(768, 12, 12, 64),
    "dit-xl2-forward-b8": dit(1152, 28, 16, 8),
    "dit-s2-train-b64": dit(384, 12, 6, 64),
    "dit-b2-train-b32": dit(768, 12, 12, 32),
    "dit-xl2-train-b8": dit(1152, 28, 16, 8),
    "unet-sd15": CASES["unet-sd15"],
    "unet-sd15-b8": unet((320, 640, 1280, 1280), 64, 8),
    **{name: case for name, case in CASES.items() if not name.startswith(("dit-", "unet-"))},
}


def build(name):
    torch.manual_seed(0)
    case = (CASES | ON_GPU)[name]()
    fill(case.net)
    return case


def moved(case):
    """The case on the device and in the precision that compare.py asks for."""
    dtype = torch.bfloat16 if os.environ.get("COMPARE_DTYPE") == "bf16" else torch.float32

    def place(name, x):
        return x.to(DEVICE, dtype if x.is_floating_point() and name != "time" else None)  # times stay in 32 bits

    return Case(case.net.to(DEVICE, dtype), {name: place(name, x) for name, x in case.inputs.items()}, case.forward)


def synced():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


@torch.no_grad()
def fill(net):
    """Normal weights of 1/sqrt(fan in). Nothing is zero: a branch that adds nothing would hide its mistakes."""
    for module in net.modules():
        for key, value in module.named_parameters(recurse=False):
            norm, table = "Norm" in type(module).__name__, isinstance(module, nn.Embedding)
            if value.ndim == 1:
                value.normal_(1.0 if norm and key == "weight" else 0.0, 0.1)
            else:
                value.normal_(0.0, 1.0 if table else value[0].numel() ** -0.5)
            if isinstance(module, nn.ParameterList):
                value.mul_(0.01)  # so small that what AdamW adds, which is compared, is not rounded away
    for key, value in net.named_parameters():
        if key.endswith("SelfAttention.q.weight"):
            value.mul_(64**-0.5)  # T5 does not scale its scores: its weights do


def saved(net):
    """The parameters by the names that the other sides read."""
    state = {}
    for name, value in net.state_dict().items():
        if ".qkv." in name:
            state |= {name.replace("qkv", part): x for part, x in zip(("query", "key", "value"), value.chunk(3))}
        elif type(net).__name__ == "CLIPTextModel" and not name.startswith("text_model."):
            state[f"text_model.{name}"] = value  # transformers 5.6 dropped what candle asks for
        elif name != "encoder.embed_tokens.weight":  # T5's, which is shared.weight
            state[name] = value
    return {name: value.contiguous().clone() for name, value in state.items()}


def optimizer(net):
    return torch.optim.AdamW(net.parameters(), RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True)


def repeats(name):
    return STEPS if "train" in name or name == "adamw" else 1


def runner(name, case, compiled=False):
    """What is timed. It returns a function that reads the answer, which is not."""
    inputs, net = dict(case.inputs), case.net
    target, towards = inputs.pop("target", None), inputs.pop("towards", None)
    forward = torch.compile(case.forward) if compiled else case.forward
    if name == "adamw":
        weights, start = list(net.weights), net.weights[0].detach().clone()
        for i, weight in enumerate(weights):
            weight.grad = inputs[f"gradient{i}"]
        step = optimizer(net).step
        return lambda: (step(), lambda: (weights[0].detach() - start) / RATE)[1]
    if "train" in name:
        update = optimizer(net)
        net.train()

        def run():
            loss = F.mse_loss(forward(net, **inputs), target)
            loss.backward()
            update.step()
            update.zero_grad()
            loss = loss.item()
            return lambda: torch.tensor([loss])

    elif name.endswith("-grad"):
        leaves = [x.requires_grad_() for x in inputs.values()]

        def run():
            gradients = torch.autograd.grad((forward(net, **inputs) * towards).sum(), leaves)
            return lambda: torch.cat([x.flatten() for x in gradients])

    else:
        net.eval().requires_grad_(False)

        def run():
            with torch.no_grad() if compiled else torch.inference_mode():
                output = forward(net, **inputs)
            return lambda: output

    return run


def answer(name, case, run, file):
    """Runs as often as the case asks, and writes all answers and how many parameters have not moved."""
    before = [x.detach().clone() for x in case.net.parameters()] if "train" in name else []
    output = torch.cat([run()().flatten().float().cpu() for _ in range(repeats(name))])
    still = sum(torch.equal(old, new) for old, new in zip(before, case.net.parameters()))
    save_file({"output": output.contiguous(), "still": torch.tensor([float(still)])}, file)


def make(name, folder):
    case = build(name)
    save_file(saved(case.net), folder / "weights.safetensors")
    save_file({key: value.float().contiguous() for key, value in case.inputs.items()}, folder / "inputs.safetensors")
    if name != "adamw":
        with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            forward_only = {key: x for key, x in case.inputs.items() if key not in ("target", "towards")}
            case.forward(case.net, **forward_only)
        (folder / "flops").write_text(str(counter.get_total_flops() * (3 if repeats(name) > 1 else 1)))
    answer(name, case, runner(name, case), folder / "expected.safetensors")
    if name.startswith("unet-"):
        # candle's UNet has GELU's tanh approximation where diffusers' has GELU: 4e-4 apart. It is held to its own network.
        for gate in (module for module in case.net.modules() if type(module).__name__ == "GEGLU"):
            gate.gelu = lambda x: F.gelu(x, approximate="tanh")
        answer(name, case, runner(name, case), folder / "expected-candle.safetensors")


def status(field):
    """Bytes of a line of /proc/self/status."""
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1])


def worker(compiled):
    # Libraries may print: what they print is not an answer.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    run = None
    for line in sys.stdin:
        word, *rest = line.rstrip("\n").split("\t")
        try:
            if word == "load":
                name, _, file = rest
                if compiled and name == "adamw":
                    print("none", file=answers)  # there is no network to compile
                    continue
                case = moved(build(name))
                run = runner(name, case, compiled)
                begun = time.perf_counter()
                answer(name, case, run, file)
                print("ok", time.perf_counter() - begun, sep="\t", file=answers)
            elif word == "run":
                begun = time.perf_counter()
                output = run()
                synced()
                print(time.perf_counter() - begun, file=answers)
                del output
            elif word == "memory" and DEVICE == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_reserved()
                run()
                print(torch.cuda.max_memory_reserved() - before, file=answers)
            elif word == "memory":
                before = status("VmRSS")
                Path("/proc/self/clear_refs").write_text("5")
                run()
                print(max(status("VmHWM") - before, 0), file=answers)
            elif word == "quit":
                return
        except Exception as error:  # whatever it is, compare.py shows it
            print("error", f"{type(error).__name__}: {' '.join(str(error).split())[:400]}", sep="\t", file=answers)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    match sys.argv[1:]:
        case ["make", name, folder]:
            make(name, Path(folder))
        case ["worker", *mode]:
            worker(mode == ["compiled"])
        case ["cases", device]:
            print(*(CASES if device == "cpu" else ON_GPU), sep="\n")
        case _:
            sys.exit(__doc__)
