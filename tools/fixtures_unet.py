"""Writes canvas-unet/tests/fixtures/sd.safetensors: what diffusers' UNet2DConditionModel answers.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_unet.py

Both sides fill their weights by formula.py, so a fixture holds outputs only. The reference runs in f64.
"""

import re
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-unet" / "tests" / "fixtures"


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


def ours(name):
    """`down_blocks.0.resnets.1.norm1.weight` -> `down.0.stages.1.res.norm_in.gamma`."""
    name = re.sub(r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1.\2.stages.\3.res", name)
    name = re.sub(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", r"\1.\2.stages.\3.transformer", name)
    for old, new in [
        ("down_blocks.", "down."),
        ("up_blocks.", "up."),
        ("downsamplers.0.conv", "downsample"),
        ("upsamplers.0.conv", "upsample"),
        ("mid_block.resnets.0", "middle.first.res"),
        ("mid_block.attentions.0", "middle.first.transformer"),
        ("mid_block.resnets.1", "middle.second"),
        ("transformer_blocks.", "blocks."),
        ("time_embedding.linear_1", "time.input"),
        ("time_embedding.linear_2", "time.output"),
        ("time_emb_proj", "time"),
        ("conv_norm_out", "norm"),
        ("conv_out", "output"),
        ("conv_in", "input"),
        ("conv_shortcut", "skip"),
        ("conv1", "conv_in"),
        ("conv2", "conv_out"),
        ("proj_in", "input"),
        ("proj_out", "output"),
        ("attn1", "attention"),
        ("attn2", "cross"),
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "output"),
        ("ff.net.0.proj", "feed.up"),
        ("ff.net.2", "feed.down"),
    ]:
        name = name.replace(old, new)
    if ".res." in name or "middle.second" in name:
        name = name.replace("norm1", "norm_in").replace("norm2", "norm_out")
    name = name.replace("norm1", "norm_attention").replace("norm2", "norm_cross").replace("norm3", "norm_feed")
    if "norm" in name:
        name = name.replace("weight", "gamma").replace("bias", "beta")
    return name


def fill(model):
    for name, param in model.named_parameters():
        matrix = param.dim() == 2
        values = formula.fill_linear(ours(name), param.shape) if matrix else formula.fill(ours(name), param.shape)
        param.data = torch.from_numpy(values)
    return model.double()


# Every number differs from its neighbours, so that nothing can be confused: channels in and out, context,
# heads and depth of the levels, height and width, text length.
model = fill(
    UNet2DConditionModel(
        in_channels=3,
        out_channels=5,
        block_out_channels=(16, 24, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(2, 1, 1),
        attention_head_dim=(2, 3, 4),  # the number of heads, whatever its name
        cross_attention_dim=12,
        norm_num_groups=2,
    )
)
TIME = torch.tensor([250.0, 750.0])
WATCH = [
    "time.input.bias",
    "down.0.stages.0.transformer.blocks.1.cross.key.weight",
    "middle.first.transformer.norm.gamma",
    "up.1.stages.2.res.skip.bias",
    "up.2.stages.1.res.norm_in.gamma",
]


def quiet():
    """The output with every parameter a tenth: variances come near the norms' epsilons, which differ."""
    with torch.no_grad():
        for param in model.parameters():
            param *= 0.1
        return model(pattern((2, 3, 8, 12), 1.0), TIME, pattern((2, 5, 12), 1.0)).sample.float().contiguous()


def case():
    x = pattern((2, 3, 8, 12), 1.0, 3.0).requires_grad_()
    tokens = pattern((2, 5, 12), 1.0).requires_grad_()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    out = model(x, TIME, tokens, encoder_attention_mask=mask).sample
    model.zero_grad()
    (out * pattern(out.shape, 2.0)).sum().backward()
    found = {ours(name): param.grad for name, param in model.named_parameters()}
    tensors = {"output": out, "grad.x": x.grad, "grad.tokens": tokens.grad}
    for name in WATCH:
        tensors["grad." + name] = found[name].T if found[name].dim() == 2 else found[name]
    return {name: value.detach().float().contiguous() for name, value in tensors.items()}


FOLDER.mkdir(parents=True, exist_ok=True)
tensors = case()
tensors["quiet"] = quiet()
notes = {"diffusers": diffusers.__version__, "torch": torch.__version__, "script": "tools/fixtures_unet.py"}
save_file(tensors, FOLDER / "sd.safetensors", metadata=notes)
print({name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items()})
print("parameters:", sum(p.numel() for p in model.parameters()))
