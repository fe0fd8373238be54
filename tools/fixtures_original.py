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

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(Path(__file__).parent))
from formula import fnv1a, input_pattern

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
        # The names of all published files; since transformers 5.6 it saves some without.
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


def values(key, shape):
    """Of a tensor in the original layout: a chirp, scaled by its rows; weights of norms, the vectors, lie around 1."""
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    wave = np.sin(0.7 * i + 0.013 * i * i + float(fnv1a(key) % 1000))
    if len(shape) == 1:
        wave = 1.0 + 0.1 * wave if key.endswith("weight") else 0.25 * wave
    else:
        wave = wave / np.sqrt(np.float64(np.prod(shape[1:])))
    return torch.from_numpy(wave.astype(np.float32)).reshape(list(shape))


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(input_pattern(shape, seed, scale)).double()


def small_unets():
    """One of each family that `Original` knows; sizes that tell the family from the shapes are the real ones."""
    none, some = ("DownBlock2D", "UpBlock2D"), ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
    linear = {"use_linear_projection": True}

    def sized(count):
        return linear | {"addition_embed_type": "text_time", "addition_time_embed_dim": 256,
                         "projection_class_embeddings_input_dim": 32 + 256 * count}

    for name, channels, levels, depth, heads, context, inputs, more in [
        ("sd1", (32, 64), (some, none), 1, 8, 24, 4, {}),
        ("sd2", (64, 128), (some, some), 1, (1, 2), 24, 9, linear),
        ("sdxl", (64, 128), (none, some), (1, 2), (1, 2), 2048, 4, sized(6)),
        ("refiner", (64, 128, 128), (none, some, none), 2, (1, 2, 2), 1280, 4, sized(5)),
    ]:
        model = UNet2DConditionModel(
            in_channels=inputs, out_channels=4, block_out_channels=channels, layers_per_block=1, norm_num_groups=32,
            down_block_types=[level[0] for level in levels], up_block_types=[level[1] for level in levels[::-1]],
            transformer_layers_per_block=depth, attention_head_dim=heads, cross_attention_dim=context, **more)
        original = {}
        for key, value in model.state_dict().items():
            there = to_unet(key, model.config)
            original["model.diffusion_model." + there] = values(there, value.shape)
        model.load_state_dict(single_file_utils.convert_ldm_unet_checkpoint(original, dict(model.config)))
        sizes = torch.tensor([[64.0, 96, 0, 8, 64, 96], [128, 64, 4, 0, 96, 64]])
        count = 5 if name == "refiner" else 6
        added = {"text_embeds": pattern((2, 32), 3.0), "time_ids": sizes[:, :count].double()} if "addition_embed_type" in more else None
        out = model.double()(pattern((2, inputs, 4, 8), 1.0), torch.tensor([250.0, 750.0]), pattern((2, 5, context), 2.0),
                             added_cond_kwargs=added)
        yield name, out.sample


def small_vae():
    model = AutoencoderKL(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
                          up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4)
    original = {}
    for key, value in model.state_dict().items():
        there = to_vae(key, 2)
        shape = list(value.shape) + [1, 1] * ("attn_1" in there and value.dim() == 2)
        original["first_stage_model." + there] = values(there, shape)
    model.load_state_dict(single_file_utils.convert_ldm_vae_checkpoint(original, dict(model.config)))
    mean = model.double().encode(pattern((1, 3, 8, 12), 1.0)).latent_dist.mean
    yield "mean", mean
    yield "decoded", model.decode(mean).sample


def small_texts():
    ids = torch.tensor([[58, 3, 11, 59, 59, 59, 59], [58, 7, 7, 24, 40, 2, 59]])
    for name, kind, prefix, act in [
        ("sd1", CLIPTextModel, None, "quick_gelu"),
        ("sd2", CLIPTextModel, "cond_stage_model.model.", "gelu"),
        ("sdxl", CLIPTextModelWithProjection, "conditioner.embedders.1.model.", "gelu"),
    ]:
        config = CLIPTextConfig(vocab_size=60, hidden_size=128, intermediate_size=96, num_hidden_layers=2, hidden_act=act,
                                num_attention_heads=2, max_position_embeddings=7, projection_dim=24, eos_token_id=2,
                                attn_implementation="eager")
        model = kind(config)
        bare = not any(key.startswith("text_model.") for key in model.state_dict())
        state = {f"text_model.{key}" if bare else key: value for key, value in model.state_dict().items()}
        if prefix is None:
            back = {key: values(key, value.shape) for key, value in state.items()}
        else:
            _, entries = open_clip(state, 128, False)
            original = {prefix + key: values(key, shape) for key, (_, shape) in entries.items()}
            back = single_file_utils.convert_open_clip_checkpoint(model, original, prefix=prefix)
        model.load_state_dict({key.removeprefix("text_model.") if bare else key: value for key, value in back.items()})
        out = model.eval().double()(ids, output_hidden_states=True)
        # Every eighth state, for the fixture's size.
        if name == "sdxl":
            yield "sdxl.tokens", out.hidden_states[-2][..., ::8]
            yield "sdxl.pooled", out.text_embeds
        else:
            yield f"{name}.tokens", out.last_hidden_state[..., ::8]


order_of_parts()
torch.set_num_threads(1)
for crate, found in [("unet", small_unets()), ("vae", small_vae()), ("text", small_texts())]:
    path = ROOT / f"canvas-{crate}/tests/fixtures/original.safetensors"
    with torch.no_grad():
        save_file({name: value.float().contiguous() for name, value in found}, path)
    print(path.stat().st_size, path.relative_to(ROOT))
for crate, found in [("unet", unets()), ("vae", vaes()), ("text", texts())]:
    path = ROOT / f"canvas-{crate}/tests/fixtures/original.json"
    path.write_text(json.dumps(dict(found), indent=0) + "\n")
    print(path.stat().st_size, path.relative_to(ROOT))
