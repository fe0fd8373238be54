"""Writes tests/fixtures/original.json of canvas-unet, -vae and -text: names and shapes in single files of Stable Diffusion.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors accelerate numpy
    /tmp/venv/bin/python tools/fixtures_original.py

For every published architecture, at its real size but without values (PyTorch's `meta` device), each tensor of the
original layout as a line `KEY DIFFUSERS_KEYS SHAPE`; the fixture holds their number, the FNV-1a of all lines in the
order of keys, and some of them, to see what differs. The lines come from an inverse of diffusers' conversion, which
is checked here by converting back: every tensor must arrive under its own name again.
"""

import json
import re
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(Path(__file__).parent))
from formula import fnv1a

ROOT = Path(__file__).parent.parent

RES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "class_embedding": "label_emb",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}


def to_unet(key, config):
    """A key of diffusers' UNet or ControlNet in the original layout."""
    per_level = config["layers_per_block"] + 1
    stem, what = key.rsplit(".", 1)
    if stem in ENDS:
        return f"{ENDS[stem]}.{what}"
    if found := re.fullmatch(r"controlnet_down_blocks\.(\d+)", stem):
        return f"zero_convs.{found[1]}.0.{what}"
    if found := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d+)", stem):
        return f"input_hint_block.{2 * int(found[1]) + 2}.{what}"
    found = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
    way, level, kind, number, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if way == "mid":
        place = f"middle_block.{1 if kind == 'attentions' else 2 * number}"
    elif kind == "downsamplers":
        return f"input_blocks.{level * per_level + per_level}.0.op.{rest.removeprefix('conv.')}"
    elif kind == "upsamplers":
        attends = config["up_block_types"][level].startswith("CrossAttn")
        return f"output_blocks.{level * per_level + per_level - 1}.{1 + attends}.{rest}"
    else:
        blocks = f"input_blocks.{1 + level * per_level + number}" if way == "down" else f"output_blocks.{level * per_level + number}"
        place = f"{blocks}.{int(kind == 'attentions')}"
    if kind == "resnets":
        part, what = rest.split(".")
        rest = f"{RES[part]}.{what}"
    return f"{place}.{rest}"


def to_vae(key, levels):
    for old, new in [
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
        ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ("mid_block.attentions.0.to_", "mid.attn_1."),
        ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("resnets", "block"),
    ]:
        key = key.replace(old, new)
    key = key.replace("down_blocks", "down")
    return re.sub(r"up_blocks\.(\d+)", lambda found: f"up.{levels - 1 - int(found[1])}", key)


def to_open_clip(key):
    for old, new in [
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        ("text_model.embeddings.token_embedding", "token_embedding"),
        ("text_model.final_layer_norm", "ln_final"),
        ("text_projection.weight", "text_projection"),
        ("layer_norm1", "ln_1"),
        ("layer_norm2", "ln_2"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn.out_proj", "attn.out_proj"),
    ]:
        key = key.replace(old, new)
    return key


def summary(entries):
    """Of `{original key: (diffusers' keys, shape)}`."""
    rows = [f"{key} {','.join(names)} {'x'.join(map(str, shape))}" for key, (names, shape) in sorted(entries.items())]
    step = max(1, len(rows) // 12)
    return {"count": len(rows), "digest": f"{fnv1a(chr(10).join(rows)):016x}", "some": rows[::step]}


def same(back, state):
    """Conversion gives back exactly the tensors that went in."""
    assert back.keys() == state.keys(), back.keys() ^ state.keys()
    assert all(back[key] is state[key] for key in state)


def unets():
    configs = json.loads((ROOT / "canvas-unet/tests/fixtures/configs.json").read_text())
    for name, config in configs.items():
        control = config["_class_name"] == "ControlNetModel"
        with torch.device("meta"):
            model = (ControlNetModel if control else UNet2DConditionModel).from_config(config)
        state = model.state_dict()
        keys = {key: to_unet(key, config) for key in state}
        original = {keys[key]: value for key, value in state.items()}
        assert len(original) == len(state)
        if not control:
            prefixed = {"model.diffusion_model." + key: value for key, value in original.items()}
            same(single_file_utils.convert_ldm_unet_checkpoint(prefixed, dict(config)), state)
        elif not config.get("addition_embed_type"):  # diffusers' conversion leaves its layers out
            prefixed = {"control_model." + key: value for key, value in original.items()}
            same(single_file_utils.convert_controlnet_checkpoint(prefixed, config), state)
        yield name, summary({keys[key]: ([key], value.shape) for key, value in state.items()})


def vaes():
    for name, latent, quant in [("sd", 4, True), ("flux", 16, False)]:
        with torch.device("meta"):
            model = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=latent,
                use_quant_conv=quant,
                use_post_quant_conv=quant,
            )
        state, original, entries = model.state_dict(), {}, {}
        for key, value in state.items():
            there = to_vae(key, 4)
            kernel = "attn_1" in there and value.dim() == 2
            original["first_stage_model." + there] = value[..., None, None] if kernel else value
            entries[there] = ([key], original["first_stage_model." + there].shape)
        back = single_file_utils.convert_ldm_vae_checkpoint(original, dict(model.config))
        assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in state.items()}
        yield name, summary(entries)


def open_clip(state, width, deeper):
    """transformers' tensors in OpenCLIP's layout; with a block more, whose tensors diffusers drops."""
    original, entries = {}, {}
    for key, value in state.items():
        found = re.fullmatch(r"(.*)\.self_attn\.q_proj\.(weight|bias)", key)
        if found:
            names = [f"{found[1]}.self_attn.{part}_proj.{found[2]}" for part in "qkv"]
            there = to_open_clip(found[1]) + f".attn.in_proj_{found[2]}"
            original[there] = torch.cat([state[name] for name in names])
        elif re.search(r"self_attn\.[kv]_proj", key):
            continue
        else:
            names, there = [key], to_open_clip(key)
            original[there] = value.T if there == "text_projection" else value
        entries[there] = (names, original[there].shape)
    if deeper:
        last = max(int(key.split(".")[2]) for key in original if "resblocks" in key)
        block = f"resblocks.{last}."
        more = {key.replace(block, f"resblocks.{last + 1}."): value for key, value in original.items() if block in key}
        original |= more | {"text_projection": torch.empty(width, width, device="meta")}
    return original, entries


def texts():
    for name, width, depth, kind, prefix in [
        ("clip_l", 768, 12, CLIPTextModel, None),
        ("open_clip_h", 1024, 23, CLIPTextModel, "cond_stage_model.model."),
        ("open_clip_big_g", 1280, 32, CLIPTextModelWithProjection, "conditioner.embedders.1.model."),
    ]:
        config = CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=depth,
                                num_attention_heads=width // 64, projection_dim=width)
        with torch.device("meta"):
            model = kind(config)
        state = model.state_dict()
        # transformers keeps its files' old names when it saves.
        if not any(key.startswith("text_model.") for key in state):
            state = {f"text_model.{key}": value for key, value in state.items()}
        if prefix is None:
            yield name, summary({key: ([key], value.shape) for key, value in state.items()})
            continue
        deeper = kind is CLIPTextModel
        original, entries = open_clip(state, width, deeper)
        prefixed = {prefix + key: value for key, value in original.items()}
        back = single_file_utils.convert_open_clip_checkpoint(model, prefixed, prefix=prefix)
        assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in state.items()}
        yield name, summary(entries)


def order_of_parts():
    """Which third of a fused projection is which, and that the projection is transposed: with values."""
    config = CLIPTextConfig(vocab_size=5, hidden_size=8, intermediate_size=4, num_hidden_layers=1,
                            num_attention_heads=2, projection_dim=8, max_position_embeddings=3)
    model = CLIPTextModelWithProjection(config)
    state = model.state_dict()
    original, _ = open_clip(state, 8, False)
    prefix = "conditioner.embedders.1.model."
    prefixed = {prefix + key: value for key, value in original.items()}
    back = single_file_utils.convert_open_clip_checkpoint(model, prefixed, prefix=prefix)
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


order_of_parts()
for crate, found in [("unet", unets()), ("vae", vaes()), ("text", texts())]:
    path = ROOT / f"canvas-{crate}/tests/fixtures/original.json"
    path.write_text(json.dumps(dict(found), indent=0) + "\n")
    print(path.stat().st_size, path.relative_to(ROOT))
