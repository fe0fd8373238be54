"""Single files in the original code's layout (LDM, SGM), made of pipelines in diffusers' layout."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import generate_inputs as inputs
import generate_models as models

RESBLOCK = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
RESBLOCK |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
ENDS = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
ENDS |= {f"time_embedding.linear_{i + 1}": f"time_embed.{2 * i}" for i in range(2)}
ENDS |= {f"add_embedding.linear_{i + 1}": f"label_emb.0.{2 * i}" for i in range(2)}


def ldm_module(module: str, layers: int) -> str:
    """A UNet module's name in the original code, which numbers the blocks through all levels."""
    if module in ENDS:
        return ENDS[module]
    pattern = r"(down|mid|up)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)"
    side, level, kind, index, rest = re.fullmatch(pattern, module).groups()
    sampler = kind in ("downsamplers", "upsamplers")
    number = int(level or 0) * (layers + 1) + (layers if sampler else int(index))
    block = {"down": f"input_blocks.{number + 1}", "up": f"output_blocks.{number}", "mid": "middle_block"}[side]
    if side == "mid":
        return f"{block}.{1 if kind == 'attentions' else 2 * int(index)}." + RESBLOCK.get(rest, rest)
    if kind == "downsamplers":
        return f"{block}.0.op"
    return f"{block}.{ {'resnets': 0, 'attentions': 1, 'upsamplers': 2}[kind]}." + RESBLOCK.get(rest, rest)


def unet_keys(state: dict, config: dict) -> dict:
    """The UNet under `model.diffusion_model.`; an upsampler stands behind what its level has."""
    found = {}
    for key, value in state.items():
        module, what = key.rsplit(".", 1)
        name = ldm_module(module, config["layers_per_block"])
        up = re.match(r"up_blocks\.(\d+)\.upsamplers", module)
        if up and not config["up_block_types"][int(up[1])].startswith("CrossAttn"):
            name = name.replace(".2.conv", ".1.conv")
        found[f"model.diffusion_model.{name}.{what}"] = value
    return found


def vae_keys(state: dict, config: dict) -> dict:
    """The autoencoder under `first_stage_model.`: the decoder's levels count inwards, attention is 1x1 convolutions."""
    last = len(config["block_out_channels"]) - 1
    renamed = {
        "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2",
        "mid_block.attentions.0.group_norm": "mid.attn_1.norm", "mid_block.attentions.0.to_out.0": "mid.attn_1.proj_out",
        "mid_block.attentions.0.to_": "mid.attn_1.", "conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut",
        "downsamplers.0": "downsample", "upsamplers.0": "upsample", "resnets": "block", "down_blocks": "down",
    }  # fmt: skip
    found = {}
    for key, value in state.items():
        if "attentions" in key and value.dim() == 2:
            value = value[:, :, None, None]
        for old, new in renamed.items():
            key = key.replace(old, new)
        key = re.sub(r"up_blocks\.(\d+)", lambda at: f"up.{last - int(at[1])}", key)
        found[f"first_stage_model.{key}"] = value
    return found


def open_clip_keys(state: dict, prefix: str) -> dict:
    """A text encoder as OpenCLIP has it: queries, keys and values in one tensor, the projection transposed."""
    renamed = {
        "encoder.layers": "transformer.resblocks", "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final", "layer_norm1": "ln_1",
        "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
    }  # fmt: skip
    found = {f"{prefix}.logit_scale": torch.tensor(4.6)}
    for key, value in state.items():
        key = key.removeprefix("text_model.")
        if key == "text_projection.weight":
            found[f"{prefix}.text_projection"] = value.T.contiguous()
            continue
        if ".q_proj." in key:
            three = [state[name] for name in (whole for part in "qkv" for whole in state if fits(whole, key, part))]
            key, value = key.replace("self_attn.q_proj.", "attn.in_proj_"), torch.cat(three)
        elif ".k_proj." in key or ".v_proj." in key or "position_ids" in key:
            continue
        for old, new in renamed.items():
            key = key.replace(old, new)
        found[f"{prefix}.{key}"] = value
    return found


def fits(whole: str, query: str, part: str) -> bool:
    """Whether `whole` is the key of `part` (q, k, v) beside that of the queries."""
    return whole.removeprefix("text_model.") == query.replace(".q_proj.", f".{part}_proj.")


def last_block(state: dict, layers: int) -> dict:
    """The block that diffusers drops from Stable Diffusion 2: another one behind the last."""
    old, new = f"encoder.layers.{layers - 1}.", f"encoder.layers.{layers}."
    shapes = {key.replace(old, new): value.shape for key, value in state.items() if old in key}
    return {key: torch.from_numpy(inputs.weight(f"dropped/{key}", shape)) for key, shape in shapes.items()}


def part(folder: Path, component: str) -> tuple:
    """Tensors and configuration of a component."""
    config = json.loads((folder / component / "config.json").read_text())
    return load_file(next((folder / component).glob("*.safetensors"))), config


def single(folder: Path, path: Path, dtype=torch.float32) -> None:
    """Writes a pipeline's folder as one file, with the leftovers of training that published files have."""
    found = unet_keys(*part(folder, "unet")) | vae_keys(*part(folder, "vae"))
    if (folder / "text_encoder_2").exists():
        at = "conditioner.embedders.1.model" if (folder / "text_encoder").exists() else "conditioner.embedders.0.model"
        found |= open_clip_keys(part(folder, "text_encoder_2")[0], at)
    if (folder / "text_encoder").exists():
        state, config = part(folder, "text_encoder")
        first = "conditioner.embedders.0" if (folder / "text_encoder_2").exists() else "cond_stage_model"
        if config["hidden_act"] == "gelu":
            state |= last_block(state, config["num_hidden_layers"])
            found |= open_clip_keys(state, f"{first}.model")
            found[f"{first}.model.text_projection"] = torch.eye(config["hidden_size"])
        else:
            found |= {f"{first}.transformer.{key}": value for key, value in state.items()}
    found |= {"alphas_cumprod": torch.linspace(1, 0, 1000), "betas": torch.linspace(0, 1, 1000)}
    found |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1)}
    found = {key: (value.to(dtype) if value.is_floating_point() else value).contiguous() for key, value in found.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(found, path)


def write_all(root: Path) -> None:
    """Models whose widths are those by which single files are recognised, as folders and as files."""
    torch.manual_seed(0)
    for name, write in models.RECOGNISED.items():
        write(root / "models" / name)
        single(root / "models" / name, root / "single" / f"{name}.safetensors")
    single(root / "models" / "wide_sd1", root / "single" / "wide_sd1_half.safetensors", torch.float16)
