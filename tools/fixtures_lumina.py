"""Writes canvas-dit/tests/fixtures/{lumina2,z_image,prx}*: what single-stream transformers answer in diffusers.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_lumina.py

Both sides fill their weights by formula.py, so a fixture holds outputs only. The references run in f64. `lumina_names.json` holds
the names and shapes of the references' parameters, and the published models' number of them.
"""

import json
import math
import re
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import Lumina2Transformer2DModel, PRXTransformer2DModel, ZImageTransformer2DModel
from diffusers.models.embeddings import Timesteps
from diffusers.models.transformers import transformer_prx, transformer_z_image
from safetensors.torch import save_file

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

torch.set_num_threads(1)
FOLDER = Path(__file__).parent.parent / "canvas-dit" / "tests" / "fixtures"
TIME = torch.tensor([0.25, 0.75], dtype=torch.float64)
NAMES = {}


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


def features(time, width, scale=1.0):
    """Sinusoidal features with one rounding instead of several: of frequencies and of angles to 32 bits.

    At the largest times diffusers' own roundings turn the fastest angles by about 1e-4.
    """
    half = width // 2
    frequencies = np.exp(-math.log(10000.0) * np.arange(half) / half).astype(np.float32)
    angles = (time.numpy().astype(np.float32) * np.float32(scale))[:, None] * frequencies
    angles = torch.from_numpy(angles.astype(np.float64))
    return torch.cat([angles.cos(), angles.sin()], 1)


def checked(theirs, ours):
    assert (theirs - ours).abs().max() < 5e-4
    return ours


lumina_features, z_features, prx_features = (
    Timesteps.forward, transformer_z_image.TimestepEmbedder.timestep_embedding, transformer_prx.get_timestep_embedding
)  # fmt: skip
Timesteps.forward = lambda self, time: checked(lumina_features(self, time), features(time, self.num_channels, self.scale))
transformer_z_image.TimestepEmbedder.timestep_embedding = staticmethod(
    lambda time, width: checked(z_features(time, width), features(time, width))
)
transformer_prx.get_timestep_embedding = lambda timesteps, embedding_dim, scale, **same: checked(
    prx_features(timesteps, embedding_dim, scale=scale, **same), features(timesteps, embedding_dim, scale)
)

BLOCK = [
    (r"^(attn|attention)\.to_q", "qkv.query"),
    (r"^(attn|attention)\.to_k", "qkv.key"),
    (r"^(attn|attention)\.to_v", "qkv.value"),
    (r"^(attn|attention)\.norm_q", "qkv.query_norm"),
    (r"^(attn|attention)\.norm_k", "qkv.key_norm"),
    (r"^(attn|attention)\.to_out\.0", "output"),
    (r"^norm1\.linear|^adaLN_modulation\.0|^modulation\.lin", "modulation"),
    (r"^norm1\.norm|^norm1|^attention_norm1", "attention_norm"),
    (r"^norm2|^attention_norm2", "read_norm"),
    (r"^ffn_norm1", "mlp_norm"),
    (r"^ffn_norm2", "answer_norm"),
    (r"^feed_forward\.(linear_1|w1)|^gate_proj", "mlp.gate"),
    (r"^feed_forward\.(linear_3|w3)|^up_proj", "mlp.up"),
    (r"^feed_forward\.(linear_2|w2)|^down_proj", "mlp.down"),
    (r"^attention\.norm_added_k", "text_key_norm"),
]
ENDS = [
    (r"^(time_caption_embed\.timestep_embedder\.linear_1|time_in\.in_layer)", "time.input"),
    (r"^(time_caption_embed\.timestep_embedder\.linear_2|time_in\.out_layer)", "time.output"),
    (r"^t_embedder\.mlp\.0", "time_in"),
    (r"^t_embedder\.mlp\.2", "time_out"),
    (r"^(time_caption_embed\.caption_embedder|cap_embedder)\.0", "text_norm"),
    (r"^((time_caption_embed\.caption_embedder|cap_embedder)\.1|txt_in)", "text_in"),
    (r"^cap_pad_token", "text_filling"),
    (r"^x_pad_token", "image_filling"),
    (r"^img_in\.0", "bottleneck"),
    (r"^(x_embedder|all_x_embedder\.2-1|img_in\.1|img_in)", "image_in"),
    (r"^resolution_embedder\.mlp\.in_layer", "size.input"),
    (r"^resolution_embedder\.mlp\.out_layer", "size.output"),
    (r"^(norm_out\.linear_1|all_final_layer\.2-1\.adaLN_modulation\.1|final_layer\.adaLN_modulation\.1)", "final_modulation"),
    (r"^(norm_out\.linear_2|all_final_layer\.2-1\.linear|final_layer\.linear)", "unembed"),
]
LISTS = {"context_refiner": "text_refiner", "noise_refiner": "image_refiner", "layers": "blocks", "blocks": "blocks"}


def replaced(name, table):
    for theirs, ours in table:
        found = re.sub(theirs, ours, name)
        if found != name:
            return found
    raise KeyError(name)


def ours(key):
    """Our names of a parameter: one for each equal part along its first axis."""
    if found := re.match(r"(\w+)\.(\d+)\.(.*)", key):
        block = f"{LISTS[found[1]]}.{found[2]}." if found[1] in LISTS else None
    else:
        block = None
    if block is None:
        names = [replaced(key, ENDS)]
    elif "img_qkv_proj" in key:
        names = [block + f"qkv.{part}.weight" for part in ("query", "key", "value")]
    elif "txt_kv_proj" in key:
        names = [block + f"text_{part}.weight" for part in ("key", "value")]
    else:
        names = [block + replaced(found[3], BLOCK)]
    return [re.sub(r"(_norm)\.weight$", r"\1.gamma", name) for name in names]


def is_layer(name, value):
    return value.dim() == 2 and name.endswith(".weight")


def fill(title, model):
    NAMES[title] = {key: list(value.shape) for key, value in model.state_dict().items()}
    for key, param in model.named_parameters():
        names = ours(key)
        parts = []
        for name, part in zip(names, param.data.chunk(len(names), 0)):
            make = formula.chirp_linear if is_layer(name, part) else formula.chirp
            parts.append(torch.from_numpy(make(name, part.shape)))
        param.data = torch.cat(parts, 0)
    return model.double().eval()


def write(file, model, run, inputs, watch=()):
    """Values, and gradients of a fixed sum: of the inputs, of some parameters, and the norms of all."""
    inputs = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    model.zero_grad()
    output = run(**inputs)
    (output * pattern(output.shape, 2.0)).sum().backward()
    tensors = {"output": output} | {"grad." + name: value.grad for name, value in inputs.items()}
    found = {}
    for key, param in model.named_parameters():
        names = ours(key)
        for name, grad in zip(names, param.grad.chunk(len(names), 0)):
            found[name] = grad.T if is_layer(name, grad) else grad
    tensors["norms"] = torch.stack([found[name].norm() for name in sorted(found)])
    tensors |= {"grad." + name: found[name] for name in watch}
    tensors = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    # One key only: safetensors writes several in any order, and the file should not change when nothing did.
    notes = {"source": f"tools/fixtures_lumina.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(tensors, FOLDER / f"{file}.safetensors", metadata=notes)
    print(file, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items()})


INPUTS = {"x": pattern((2, 4, 4, 6), 1.0), "tokens": pattern((2, 5, 12), 3.0)}
# The second text has three tokens.
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def lumina2():
    model = fill("lumina2", Lumina2Transformer2DModel(
        in_channels=4, hidden_size=32, num_layers=2, num_refiner_layers=2, num_attention_heads=4, num_kv_heads=2, multiple_of=24,
        axes_dim_rope=(4, 2, 2), axes_lens=(6, 3, 4), cap_feat_dim=12,
    ))  # fmt: skip
    watch = ["text_norm.gamma", "text_refiner.0.attention_norm.gamma", "image_refiner.1.modulation.bias",
             "blocks.0.qkv.key_norm.gamma", "blocks.1.read_norm.gamma", "blocks.1.qkv.value.weight", "time.input.bias",
             "final_modulation.bias"]  # fmt: skip
    # As pipeline_lumina2.py: time from noise to data, and the answer's sign changed.
    write("lumina2", model, lambda x, tokens: -model(x, 1 - TIME, tokens, MASK).sample, INPUTS, watch)


def exact(dims, ends, theta):
    """The tables of rotations without a rounding to 32 bits of angles."""
    frequencies = [theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim) for dim in dims]
    return [torch.polar(torch.ones(end, len(f), dtype=torch.float64), torch.outer(torch.arange(end).double(), f))
            for end, f in zip(ends, frequencies)]  # fmt: skip


def z_image():
    transformer_z_image.RopeEmbedder.precompute_freqs_cis = staticmethod(exact)
    model = fill("z_image", ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=2, n_heads=2, n_kv_heads=2, cap_feat_dim=12, axes_dims=[8, 4, 4],
        axes_lens=[70, 3, 4],
    ))  # fmt: skip

    def run(x, tokens, lengths):
        texts = [row[:length] for row, length in zip(tokens, lengths)]
        return -torch.stack(model(list(x[:, :, None]), 1 - TIME, texts).sample)[:, :, 0]

    watch = ["text_filling", "image_filling", "text_norm.gamma", "image_refiner.1.modulation.bias", "blocks.0.qkv.key_norm.gamma",
             "blocks.1.answer_norm.gamma", "blocks.1.attention_norm.gamma", "time_out.bias", "final_modulation.bias"]  # fmt: skip
    write("z_image", model, lambda x, tokens: run(x, tokens, [5, 3]), INPUTS, watch)
    # One text is filled up to 64 tokens, the other to 32; so the batch is padded, too.
    long = INPUTS | {"tokens": pattern((2, 37, 12), 3.0)}
    write("z_image_long", model, lambda x, tokens: run(x, tokens, [37, 3]), long, ["text_filling"])
    # One that needs no filling up.
    full = {"x": pattern((2, 4, 6, 8), 1.0), "tokens": pattern((2, 32, 12), 3.0)}
    write("z_image_full", model, lambda x, tokens: run(x, tokens, [32, 31]), full, ["text_filling", "image_filling"])


def prx():
    sizes = dict(in_channels=4, context_in_dim=12, hidden_size=16, mlp_ratio=2.5, num_heads=2, depth=2, axes_dim=[4, 4])
    watch = ["blocks.0.modulation.bias", "blocks.1.text_key_norm.gamma", "blocks.1.text_value.weight", "blocks.0.qkv.key.weight",
             "text_in.bias", "time.input.bias", "final_modulation.bias", "unembed.bias"]  # fmt: skip
    model = fill("prx", PRXTransformer2DModel(**sizes))
    write("prx", model, lambda x, tokens: model(x, TIME, tokens, MASK).sample, INPUTS, watch)
    told = fill("prx_told", PRXTransformer2DModel(bottleneck_size=7, resolution_embeds=True, **sizes))
    watch = ["bottleneck.bias", "image_in.bias", "size.input.bias", "size.output.bias"]
    write("prx_told", told, lambda x, tokens: told(x, TIME, tokens, MASK).sample, INPUTS, watch)


def counts():
    """Parameters of published models."""
    with torch.device("meta"):
        models = {
            "lumina2": Lumina2Transformer2DModel(cap_feat_dim=2304),
            "z_image": ZImageTransformer2DModel(axes_lens=[1536, 512, 512]),
            "prx": PRXTransformer2DModel(),
            "prx_dc_ae": PRXTransformer2DModel(in_channels=32, patch_size=1),
        }
    print({name: sum(param.numel() for param in model.parameters()) for name, model in models.items()})


def main():
    for family in (lumina2, z_image, prx, counts):
        family()
    (FOLDER / "lumina_names.json").write_text(json.dumps(NAMES, sort_keys=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
