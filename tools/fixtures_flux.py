"""Writes canvas-dit/tests/fixtures/{flux,chroma,flux2,klein,qwen,redux}*: what Flux and its relatives answer in diffusers.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_flux.py

Both sides fill their weights by formula.py, so a fixture holds outputs only. The references run in f64. Positions and
packing come from diffusers' pipelines. `flux_names.json` holds the names and shapes of the references' parameters.
"""

import json
import math
import re
import sys
import types
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import (
    ChromaTransformer2DModel,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from diffusers.models.embeddings import Timesteps
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import save_file

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

torch.set_num_threads(1)
FOLDER = Path(__file__).parent.parent / "canvas-dit" / "tests" / "fixtures"
TIME = torch.tensor([0.25, 0.75], dtype=torch.float64)
GUIDANCE = torch.tensor([3.5, 1.0], dtype=torch.float64)
NAMES = {}


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


def features(self, time):
    """What `Timesteps` computes, with one rounding instead of several: of frequencies and of angles to 32 bits.

    At the largest times diffusers' own roundings turn the fastest angles by about 1e-4.
    """
    half = self.num_channels // 2
    frequencies = np.exp(-math.log(10000.0) * np.arange(half) / half).astype(np.float32)
    angles = (time.numpy().astype(np.float32) * np.float32(self.scale))[:, None] * frequencies
    angles = torch.from_numpy(angles.astype(np.float64))
    exact = torch.cat([angles.cos(), angles.sin()], 1)
    assert (exact - timesteps(self, time)).abs().max() < 5e-4
    return exact


timesteps = Timesteps.forward
Timesteps.forward = features

BLOCK = [
    ("attn.to_q", "image.qkv.query"),
    ("attn.to_k", "image.qkv.key"),
    ("attn.to_v", "image.qkv.value"),
    ("attn.norm_q", "image.qkv.query_norm"),
    ("attn.norm_k", "image.qkv.key_norm"),
    ("attn.to_out.0", "image.output"),
    ("attn.add_q_proj", "text.qkv.query"),
    ("attn.add_k_proj", "text.qkv.key"),
    ("attn.add_v_proj", "text.qkv.value"),
    ("attn.norm_added_q", "text.qkv.query_norm"),
    ("attn.norm_added_k", "text.qkv.key_norm"),
    ("attn.to_add_out", "text.output"),
    ("ff_context.net.0.proj", "text.mlp.up"),
    ("ff_context.net.2", "text.mlp.down"),
    ("ff.net.0.proj", "image.mlp.up"),
    ("ff.net.2", "image.mlp.down"),
    ("txt_mlp.net.0.proj", "text.mlp.up"),
    ("txt_mlp.net.2", "text.mlp.down"),
    ("img_mlp.net.0.proj", "image.mlp.up"),
    ("img_mlp.net.2", "image.mlp.down"),
]
SINGLE = [
    ("attn.to_q", "qkv.query"),
    ("attn.to_k", "qkv.key"),
    ("attn.to_v", "qkv.value"),
    ("attn.norm_q", "qkv.query_norm"),
    ("attn.norm_k", "qkv.key_norm"),
    ("proj_mlp", "up"),
    ("proj_out", "output"),
]
ENDS = [
    (r"^(time_text_embed|time_guidance_embed)\.timestep_embedder\.linear_1", "time.input"),
    (r"^(time_text_embed|time_guidance_embed)\.timestep_embedder\.linear_2", "time.output"),
    (r"^(time_text_embed|time_guidance_embed)\.guidance_embedder\.linear_1", "guidance.input"),
    (r"^(time_text_embed|time_guidance_embed)\.guidance_embedder\.linear_2", "guidance.output"),
    (r"^time_text_embed\.text_embedder\.linear_1", "pooled_in"),
    (r"^time_text_embed\.text_embedder\.linear_2", "pooled_out"),
    (r"^(context_embedder|txt_in)", "text_in"),
    (r"^(x_embedder|img_in)", "image_in"),
    (r"^txt_norm", "text_norm"),
    (r"^norm_out\.linear", "final_modulation"),
    (r"^proj_out", "unembed"),
    (r"^distilled_guidance_layer\.in_proj", "approximator.input"),
    (r"^distilled_guidance_layer\.out_proj", "approximator.output"),
    (r"^distilled_guidance_layer\.norms", "approximator.norms"),
    (r"^distilled_guidance_layer\.layers\.(\d+)\.linear_1", r"approximator.layers.\1.up"),
    (r"^distilled_guidance_layer\.layers\.(\d+)\.linear_2", r"approximator.layers.\1.down"),
    (r"^double_stream_modulation_txt\.linear", "text_modulation"),
    (r"^double_stream_modulation_img\.linear", "image_modulation"),
    (r"^single_stream_modulation\.linear", "single_modulation"),
    (r"^redux_", ""),
]


def replaced(name, table):
    for theirs, ours in table:
        if name.startswith(theirs + "."):
            return ours + name[len(theirs) :]
    return None


def ours(family, key):
    """Our names of a parameter: one for each equal part along its first axis."""
    if found := re.match(r"transformer_blocks\.(\d+)\.(.*)", key):
        block = ("blocks." if family == "qwen" else "double.") + found[1]
        streams = block + (".streams." if family in ("flux", "qwen") else ".")
        if name := replaced(found[2], BLOCK):
            names = [streams + name]
        elif part := re.match(r"ff(_context)?\.linear_(in|out)", found[2]):
            mlp = block + (".text.mlp." if part[1] else ".image.mlp.")
            names = [mlp + side + ".weight" for side in (["gate", "up"] if part[2] == "in" else ["down"])]
        else:
            image = re.match(r"(norm1\.linear|img_mod\.1)\.", found[2])
            text = re.match(r"(norm1_context\.linear|txt_mod\.1)\.", found[2])
            assert image or text, key
            names = [block + (".image_modulation." if image else ".text_modulation.") + key.rsplit(".", 1)[1]]
    elif found := re.match(r"single_transformer_blocks\.(\d+)\.(.*)", key):
        block = f"single.{found[1]}."
        if family == "flux2":
            table = [("attn.to_qkv_mlp_proj", "input"), ("attn.to_out", "output"), ("attn.norm_q", "query_norm"),
                     ("attn.norm_k", "key_norm")]
            names = [block + replaced(found[2], table)]
        elif found[2].startswith("norm.linear."):
            names = [block + "modulation." + key.rsplit(".", 1)[1]]
        else:
            names = [block + ("block." if family == "flux" else "") + replaced(found[2], SINGLE)]
    else:
        name = key
        for theirs, own in ENDS:
            name = re.sub(theirs, own, name)
        names = [name]
    return [re.sub(r"((^|_|\.)norms?(\.\d+)?)\.weight$", r"\1.gamma", name) for name in names]


def fill(family, title, model):
    if title not in ("fill", "klein", "qwen_clean"):  # named as their relatives
        NAMES[title] = {key: list(value.shape) for key, value in model.state_dict().items()}
    for key, param in model.named_parameters():
        names = ours(family, key)
        parts = []
        for name, part in zip(names, param.data.chunk(len(names), 0)):
            make = formula.chirp_linear if part.dim() == 2 else formula.chirp
            parts.append(torch.from_numpy(make(name, part.shape)))
        param.data = torch.cat(parts, 0)
    return model.double().eval()


def write(file, family, model, run, inputs, watch=(), hide=()):
    """Values, and gradients of a fixed sum: of the inputs, of some parameters, and the norms of all."""
    inputs = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    model.zero_grad()
    output = run(**inputs)
    (output * pattern(output.shape, 2.0)).sum().backward()
    tensors = {"output": output} | {"grad." + name: value.grad for name, value in inputs.items() if name not in hide}
    found = {}
    for key, param in model.named_parameters():
        names = ours(family, key)
        if param.grad is None:  # the text behind Qwen-Image's last attention, which nothing reads
            print("never read:", names)
            param.grad = torch.zeros_like(param)
        for name, grad in zip(names, param.grad.chunk(len(names), 0)):
            found[name] = grad.T if grad.dim() == 2 else grad
    tensors["norms"] = torch.stack([found[name].norm() for name in sorted(found)])
    tensors |= {"grad." + name: found[name] for name in watch}
    tensors = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    # One key only: safetensors writes several in any order, and the file should not change when nothing did.
    notes = {"source": f"tools/fixtures_flux.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(tensors, FOLDER / f"{file}.safetensors", metadata=notes)
    print(file, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items()})


def packed(x):
    batch, channels, height, width = x.shape
    return FluxPipeline._pack_latents(x, batch, channels, height, width)


def unpacked(tokens, height, width):
    return FluxPipeline._unpack_latents(tokens, 8 * height, 8 * width, 8)


def image_ids(x):
    return FluxPipeline._prepare_latent_image_ids(1, x.shape[2] // 2, x.shape[3] // 2, "cpu", torch.float64)


SIZES = dict(num_layers=2, num_attention_heads=2, attention_head_dim=16, joint_attention_dim=12)


def flux():
    sizes = SIZES | dict(num_single_layers=2, in_channels=16, pooled_projection_dim=10, axes_dims_rope=(4, 4, 8))
    model = fill("flux", "flux", FluxTransformer2DModel(guidance_embeds=True, **sizes))

    def run(x, tokens, pooled, reference=None):
        height, width = x.shape[2:]
        ids, h = image_ids(x), packed(x)
        count = h.shape[1]
        if reference is not None:
            pipeline = types.SimpleNamespace(latent_channels=4, vae_scale_factor=8, _pack_latents=FluxKontextPipeline._pack_latents,
                                             _prepare_latent_image_ids=FluxKontextPipeline._prepare_latent_image_ids)
            _, more, ids, more_ids = kontext(pipeline, reference, x)
            ids, h = torch.cat([ids, more_ids]), torch.cat([h, more], 1)
        found = model(h, tokens, pooled, TIME, ids, torch.zeros(5, 3), GUIDANCE).sample
        return unpacked(found[:, :count], height, width)

    inputs = {"x": pattern((2, 4, 4, 6), 1.0), "tokens": pattern((2, 5, 12), 3.0), "pooled": pattern((2, 10), 4.0)}
    watch = ["guidance.input.bias", "pooled_in.bias", "double.0.text_modulation.bias", "double.1.image_modulation.bias",
             "double.0.streams.text.qkv.key_norm.gamma", "double.1.streams.image.mlp.up.bias", "single.0.modulation.bias",
             "single.1.block.qkv.query.bias", "final_modulation.bias"]
    write("flux", "flux", model, run, inputs, watch)
    write("flux_kontext", "flux", model, run, inputs | {"reference": pattern((2, 4, 6, 2), 5.0)})

    model = fill("flux", "fill", FluxTransformer2DModel(**(sizes | dict(in_channels=16 + 16 + 256, out_channels=16))))

    def run(x, masked, mask, tokens, pooled):
        pipeline = types.SimpleNamespace(
            vae_scale_factor=8,
            vae=types.SimpleNamespace(config=types.SimpleNamespace(shift_factor=0.0, scaling_factor=1.0)),
            _pack_latents=FluxFillPipeline._pack_latents,
        )
        height, width = x.shape[2:]
        mask, masked = FluxFillPipeline.prepare_mask_latents(
            pipeline, mask, masked, 2, 4, 1, 8 * height, 8 * width, torch.float64, "cpu", None
        )
        h = torch.cat([packed(x), masked, mask], 2)
        return unpacked(model(h, tokens, pooled, TIME, image_ids(x), torch.zeros(5, 3)).sample, height, width)

    more = {"masked": pattern((2, 4, 4, 6), 6.0), "mask": pattern((2, 1, 32, 48), 7.0)}
    write("flux_fill", "flux", model, run, inputs | more, hide=["mask"])


def kontext(pipeline, reference, x):
    """Latents and positions of the picture to look at, by the pipeline."""
    height, width = x.shape[2:]
    return FluxKontextPipeline.prepare_latents(
        pipeline, reference, 2, 4, 8 * height, 8 * width, torch.float64, "cpu", None, packed(x)
    )


def chroma():
    sizes = SIZES | dict(num_single_layers=2, in_channels=16, axes_dims_rope=(4, 4, 8))
    approximator = dict(approximator_num_channels=16, approximator_hidden_dim=20, approximator_layers=2)
    model = fill("chroma", "chroma", ChromaTransformer2DModel(**sizes, **approximator))
    for norm in model.distilled_guidance_layer.norms:
        norm.eps = torch.finfo(torch.float32).eps  # of the type it runs in where none is given
    words = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    # As pipeline_chroma.py: one token of padding is seen.
    seen = torch.arange(5)[None] <= words.sum(1)[:, None]

    def run(x, tokens, number):
        mask = torch.cat([seen, torch.ones(2, x.shape[2] * x.shape[3] // 4, dtype=torch.bool)], 1)
        mask = mask.double() if number else mask
        found = model(packed(x), tokens, TIME, image_ids(x), torch.zeros(5, 3), mask).sample
        return unpacked(found, *x.shape[2:])

    inputs = {"x": pattern((2, 4, 4, 6), 1.0), "tokens": pattern((2, 5, 12), 3.0)}
    watch = ["approximator.input.bias", "approximator.norms.1.gamma", "approximator.layers.0.up.bias",
             "approximator.output.bias", "double.1.text.qkv.key.bias", "single.1.output.bias"]
    write("chroma", "chroma", model, lambda **inputs: run(number=False, **inputs), inputs, watch)
    write("chroma_favours", "chroma", model, lambda **inputs: run(number=True, **inputs), inputs)


def flux2():
    sizes = SIZES | dict(num_single_layers=2, in_channels=6, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=32)
    model = fill("flux2", "flux2", Flux2Transformer2DModel(**sizes))

    def run(model, x, tokens, guidance, **references):
        height, width = x.shape[2:]
        ids, h = Flux2Pipeline._prepare_latent_ids(x)[0], Flux2Pipeline._pack_latents(x)
        if references:
            pictures = list(references.values())
            more = Flux2Pipeline._prepare_image_ids([picture[:1] for picture in pictures])[0]
            ids = torch.cat([ids, more])
            h = torch.cat([h] + [Flux2Pipeline._pack_latents(picture) for picture in pictures], 1)
        text_ids = Flux2Pipeline._prepare_text_ids(tokens)[0]
        found = model(h, tokens, TIME, ids, text_ids, guidance).sample[:, : height * width]
        return found.mT.reshape(2, -1, height, width)

    inputs = {"x": pattern((2, 6, 2, 3), 1.0), "tokens": pattern((2, 5, 12), 3.0)}
    watch = ["single.0.query_norm.gamma", "double.1.text.qkv.key_norm.gamma", "unembed.weight"]
    write("flux2", "flux2", model, lambda **inputs: run(model, guidance=GUIDANCE, **inputs), inputs, watch)
    more = {"first": pattern((2, 6, 3, 1), 5.0), "second": pattern((2, 6, 2, 2), 6.0)}
    write("flux2_references", "flux2", model, lambda **inputs: run(model, guidance=GUIDANCE, **inputs), inputs | more)
    klein = fill("flux2", "klein", Flux2Transformer2DModel(guidance_embeds=False, **sizes))
    write("klein", "flux2", klein, lambda **inputs: run(klein, guidance=None, **inputs), inputs)


def qwen():
    sizes = SIZES | dict(in_channels=16, out_channels=4, axes_dims_rope=(4, 4, 8))
    model = fill("qwen", "qwen", QwenImageTransformer2DModel(**sizes))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])

    def run(model, x, tokens, **references):
        height, width = x.shape[2:]
        pictures = [x, *references.values()]
        shapes = [(1, picture.shape[2] // 2, picture.shape[3] // 2) for picture in pictures]
        pack = lambda x: QwenImagePipeline._pack_latents(x[:, :, None], x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        h = torch.cat([pack(picture) for picture in pictures], 1)
        found = model(h, tokens, mask, TIME, [shapes] * 2).sample[:, : math.prod(shapes[0])]
        return QwenImagePipeline._unpack_latents(found, 8 * height, 8 * width, 8)[:, :, 0]

    # Odd numbers of rows and columns are not centred.
    inputs = {"x": pattern((2, 4, 6, 10), 1.0), "tokens": pattern((2, 5, 12), 3.0)}
    watch = ["text_norm.gamma", "blocks.0.text_modulation.bias", "blocks.1.image_modulation.bias",
             "blocks.0.streams.text.qkv.key_norm.gamma", "blocks.1.streams.image.mlp.up.bias", "time.input.bias",
             "final_modulation.bias"]
    write("qwen", "qwen", model, lambda **inputs: run(model, **inputs), inputs, watch)
    more = {"first": pattern((2, 4, 4, 4), 5.0), "second": pattern((2, 4, 2, 16), 6.0)}
    write("qwen_edit", "qwen", model, lambda **inputs: run(model, **inputs), inputs | more)
    clean = fill("qwen", "qwen_clean", QwenImageTransformer2DModel(zero_cond_t=True, **sizes))
    write("qwen_clean", "qwen", clean, lambda **inputs: run(clean, **inputs), inputs | more)


def redux():
    model = fill("redux", "redux", ReduxImageEncoder(6, 8))
    write("redux", "redux", model, lambda x: model(x).image_embeds, {"x": pattern((2, 3, 6), 1.0)}, ["up.bias", "down.weight"])


def main():
    for family in (flux, chroma, flux2, qwen, redux):
        family()
    (FOLDER / "flux_names.json").write_text(json.dumps(NAMES, sort_keys=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
