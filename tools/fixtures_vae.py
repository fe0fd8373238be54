"""Writes canvas-vae/tests/fixtures/*.safetensors: what diffusers' autoencoders answer.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_vae.py

Both sides fill their weights by formula.py, so a fixture holds outputs only. The reference runs in f64.
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-vae" / "tests" / "fixtures"


def pattern(shape, seed):
    return torch.from_numpy(formula.input_pattern(shape, seed)).double()


def fill(model, rename):
    """Fills every parameter; `rename` maps diffusers' name to ours."""
    for name, param in model.named_parameters():
        ours = rename(name)
        matrix = param.dim() == 2
        values = formula.fill_linear(ours, param.shape) if matrix else formula.fill(ours, param.shape)
        param.data = torch.from_numpy(values)
    return model.double()


def kl_name(name):
    """`encoder.down_blocks.1.resnets.0.norm1.weight` -> `encoder.stages.1.blocks.0.norm1.gamma`."""
    for old, new in [
        ("post_quant_conv.", "post_quant."),
        ("quant_conv.", "quant."),
        ("down_blocks.", "stages."),
        ("up_blocks.", "stages."),
        ("downsamplers.0.conv", "resize"),
        ("upsamplers.0.conv", "resize"),
        ("mid_block.resnets.0", "middle.first"),
        ("mid_block.resnets.1", "middle.second"),
        ("mid_block.attentions.0.group_norm", "middle.norm"),
        ("mid_block.attentions.0", "middle.attention"),
        ("resnets.", "blocks."),
        ("conv_shortcut", "shortcut"),
        ("conv_norm_out", "norm"),
        ("conv_out", "output"),
        ("conv_in", "input"),
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "output"),
    ]:
        name = name.replace(old, new)
    if "norm" in name:
        name = name.replace("weight", "gamma").replace("bias", "beta")
    return name


def tiny_name(blocks):
    """diffusers numbers the layers of a half in one row; ours are `stages.S.blocks.B.convN` and the ends."""
    rows = {"encoder": [], "decoder": ["input", None]}
    for stage, count in enumerate(blocks):
        rows["encoder"] += [f"stages.{stage}.conv"] + [f"stages.{stage}.blocks.{b}" for b in range(count)]
    rows["encoder"].append("output")
    for stage, count in enumerate(reversed(blocks)):
        rows["decoder"] += [f"stages.{stage}.blocks.{b}" for b in range(count)]
        # An upsampling without parameters precedes every convolution but the last.
        rows["decoder"] += ([None] if stage + 1 < len(blocks) else []) + [f"stages.{stage}.conv"]

    def rename(name):
        half, _, number, *rest = name.split(".")
        row = rows[half][int(number)]
        if rest[0] == "conv":
            return f"{half}.{row}.conv{int(rest[1]) // 2 + 1}.{rest[2]}"
        return f"{half}.{row}.{rest[0]}"

    return rename


def write(file, model, rename, run, watch):
    """Runs encode and decode, and the gradients of a fixed sum of the decoded image."""
    images = pattern((2, 3, 8, 12), 0.0).requires_grad_()
    out = run(images)
    (out["image"] * pattern(out["image"].shape, 1.0)).sum().backward()
    out["grad.images"] = images.grad
    found = {rename(name): param.grad for name, param in model.named_parameters()}
    for name in watch:
        grad = found[name]
        out["grad." + name] = grad.T if grad.dim() == 2 else grad
    out = {name: value.detach().float().contiguous() for name, value in out.items()}
    # One key only: safetensors writes several in any order, and the file should not change when nothing did.
    notes = {"source": f"tools/fixtures_vae.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(out, FOLDER / file, metadata=notes)
    print(file, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in out.items()})


NAMES = {}


def keep_names(case, model, rename):
    """Every key of diffusers with our name of it, `weight` and `bias` of norms as PyTorch's."""
    ours = {name: rename(name).replace("gamma", "weight").replace("beta", "bias") for name in model.state_dict()}
    NAMES[case] = ours


def kl():
    model = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=3,
    )
    fill(model, kl_name)
    keep_names("kl", model, kl_name)

    def run(images):
        posterior = model.encode(images).latent_dist
        noise = pattern(posterior.mean.shape, 2.0)
        image = model.decode(posterior.mean + posterior.std * noise).sample
        return {"mean": posterior.mean, "log_variance": posterior.logvar, "image": image}

    watch = ["encoder.stages.0.resize.weight", "encoder.middle.attention.query.weight", "quant.bias",
             "decoder.stages.0.blocks.1.norm2.gamma"]
    write("kl.safetensors", model, kl_name, run, watch)


def tiny(file, blocks, patch, watch):
    levels = len(blocks)
    model = AutoencoderTiny(
        in_channels=3 * patch**2,
        out_channels=3 * patch**2,
        encoder_block_out_channels=(6,) * levels,
        decoder_block_out_channels=(6,) * levels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
    )
    rename = tiny_name(blocks)
    fill(model, rename)
    keep_names(file.removesuffix(".safetensors"), model, rename)

    def run(images):
        latents = model.encode(F.pixel_unshuffle(images, patch)).latents
        image = F.pixel_shuffle(model.decode(latents).sample, patch)
        return {"mean": latents, "image": image}

    write(file, model, rename, run, watch)


FOLDER.mkdir(parents=True, exist_ok=True)
kl()
ends = ["encoder.stages.0.conv.weight", "decoder.stages.1.conv.weight"]
tiny("tiny.safetensors", (1, 2, 1), 1, ends + ["encoder.stages.1.blocks.1.conv2.bias"])
tiny("tiny_patch.safetensors", (0, 1), 2, ends)
(FOLDER / "names.json").write_text(json.dumps(NAMES, indent=0, sort_keys=True) + "\n")
