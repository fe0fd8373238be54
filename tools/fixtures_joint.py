"""Writes canvas-dit/tests/fixtures/{sd3,sd35,pixart_*,auraflow,sana,sprint}.safetensors and joint.json.

    /tmp/venv/bin/python tools/fixtures_joint.py

What diffusers' SD3Transformer2DModel, PixArtTransformer2DModel, AuraFlowTransformer2DModel and SanaTransformer2DModel
answer, in f64, for weights by `chirp` of formula.py; their names, configurations and sizes. diffusers computes some
norms and Sana's linear attention in f32 whatever the model is in; the features of time are given in f64 here.
"""

import json
import math
import re
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
)
from diffusers.models.embeddings import Timesteps
from safetensors.torch import save_file

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

torch.set_num_threads(1)
FOLDER = Path(__file__).parent.parent / "canvas-dit" / "tests" / "fixtures"
TIME = torch.tensor([0.125, 0.5], dtype=torch.float64)
MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])

ATTENTION = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("norm_q", "query_norm"), ("norm_k", "key_norm")]
TIME_EMBED = [("timestep_embedder.linear_1", "time.input"), ("timestep_embedder.linear_2", "time.output")]
FEED = [("net.0.proj", "mlp.up"), ("net.2", "mlp.down")]

SD3 = [
    ("pos_embed.pos_embed", "position"),
    ("pos_embed.proj", "embed"),
    *[("time_text_embed." + theirs, ours) for theirs, ours in TIME_EMBED],
    ("time_text_embed.text_embedder.linear_1", "prompt.up"),
    ("time_text_embed.text_embedder.linear_2", "prompt.down"),
    ("context_embedder", "text"),
    ("transformer_blocks", "blocks"),
    ("norm1.linear", "image.modulation"),
    ("norm1_context.linear", "context.modulation"),
    *[("attn." + theirs, "image.qkv." + ours) for theirs, ours in ATTENTION],
    ("attn.to_out.0", "image.output"),
    *[(f"attn.add_{part}_proj", f"context.qkv.{ours}") for part, ours in zip("qkv", ["query", "key", "value"])],
    ("attn.norm_added_q", "context.qkv.query_norm"),
    ("attn.norm_added_k", "context.qkv.key_norm"),
    ("attn.to_add_out", "context.output"),
    *[("attn2." + theirs, "dual.qkv." + ours) for theirs, ours in ATTENTION],
    ("attn2.to_out.0", "dual.output"),
    *[("ff." + theirs, "image." + ours) for theirs, ours in FEED],
    *[("ff_context." + theirs, "context." + ours) for theirs, ours in FEED],
    ("norm_out.linear", "final_modulation"),
    ("proj_out", "unembed"),
]

PIXART = [
    ("pos_embed.proj", "embed"),
    *[("adaln_single.emb." + theirs, ours) for theirs, ours in TIME_EMBED],
    ("adaln_single.emb.resolution_embedder.linear_1", "size.input"),
    ("adaln_single.emb.resolution_embedder.linear_2", "size.output"),
    ("adaln_single.emb.aspect_ratio_embedder.linear_1", "aspect.input"),
    ("adaln_single.emb.aspect_ratio_embedder.linear_2", "aspect.output"),
    ("adaln_single.linear", "modulation"),
    ("caption_projection.linear_1", "caption.up"),
    ("caption_projection.linear_2", "caption.down"),
    *[("attn1." + theirs, "attention." + ours) for theirs, ours in ATTENTION],
    ("attn1.to_out.0", "attention.output"),
    *[("attn2." + theirs, "cross." + ours) for theirs, ours in ATTENTION],
    ("attn2.to_out.0", "cross.output"),
    *[("ff." + theirs, ours) for theirs, ours in FEED],
    (r"^scale_shift_table", "final_table"),
    ("scale_shift_table", "table"),
    ("transformer_blocks", "blocks"),
    ("proj_out", "unembed"),
]

AURAFLOW = [
    ("pos_embed.pos_embed", "position"),
    ("pos_embed.proj", "embed"),
    ("time_step_proj.linear_1", "time.input"),
    ("time_step_proj.linear_2", "time.output"),
    ("context_embedder", "text"),
    ("register_tokens", "registers"),
    (r"joint_transformer_blocks\.(\d+)\.(norm1|attn\.to|ff)([._])", r"joint_transformer_blocks.\1.image.\2\3"),
    (r"image\.ff_context", "ff_context"),
    (r"image\.norm1_context", "norm1_context"),
    (r"image\.attn\.to_add_out", "context.output"),
    (r"attn\.to_out\.0", "output"),
    *[(r"attn\." + theirs, "qkv." + ours) for theirs, ours in ATTENTION],
    *[(f"attn.add_{part}_proj", f"context.qkv.{ours}") for part, ours in zip("qkv", ["query", "key", "value"])],
    ("norm1_context.linear", "context.modulation"),
    ("norm1.linear", "modulation"),
    ("ff_context.", "context.ff."),
    ("ff.linear_1", "mlp.gate"),
    ("ff.linear_2", "mlp.up"),
    ("ff.out_projection", "mlp.down"),
    ("joint_transformer_blocks", "joint"),
    ("single_transformer_blocks", "single"),
    ("norm_out.linear", "final_modulation"),
    ("proj_out", "unembed"),
]

SANA = [
    ("patch_embed.proj", "embed"),
    *[("time_embed.emb." + theirs, ours) for theirs, ours in TIME_EMBED],
    *[("time_embed." + theirs, ours) for theirs, ours in TIME_EMBED],
    ("time_embed.guidance_embedder.linear_1", "guidance.input"),
    ("time_embed.guidance_embedder.linear_2", "guidance.output"),
    ("time_embed.linear", "modulation"),
    ("ff.conv_inverted", "mlp.inverted"),
    ("ff.conv_depth", "mlp.depth"),
    ("ff.conv_point", "mlp.point"),
    *PIXART[7:],
]


def ours(name, rules):
    for theirs, new in rules:
        name = re.sub(theirs, new, name)
    return re.sub(r"norm\.weight$", "norm.gamma", name)


def is_linear(name, value):
    """Whether Burn holds it as the `[in, out]` of a linear layer."""
    pointwise = value.dim() == 4 and value.shape[2:] == (1, 1) and name.startswith("blocks")
    return pointwise or (value.dim() == 2 and name.endswith("weight"))


def to_ours(name, value):
    return value.flatten(1).T if is_linear(name, value) else value


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


def features(timesteps):
    """diffusers' features of time, in f64: cosines, then sines."""
    half = timesteps.num_channels // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half).double() / half)

    def forward(time):
        angles = time.double()[:, None] * timesteps.scale * frequencies
        return torch.cat([angles.cos(), angles.sin()], 1)

    return forward


def fill(model, rules):
    kept = list(model.named_parameters())
    if "pos_embed.pos_embed" in model.state_dict() and isinstance(model, SD3Transformer2DModel):
        kept.append(("pos_embed.pos_embed", model.pos_embed.pos_embed))
    for name, param in kept:
        name = ours(name, rules)
        values = torch.from_numpy(formula.chirp(name, to_ours(name, param.data).shape))
        param.data = values.T.reshape(param.shape) if is_linear(name, param) else values
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, Timesteps):
            module.forward = features(module)
    return model


def write(file, model, rules, run, inputs, watch):
    inputs = {name: value.requires_grad_() for name, value in inputs.items()}
    output = run(**inputs)
    (output * pattern(output.shape, 2.0)).sum().backward()
    tensors = {"output": output} | {"grad." + name: value.grad for name, value in inputs.items()}
    found = {ours(n, rules): to_ours(ours(n, rules), p.grad) for n, p in model.named_parameters()}
    tensors["norms"] = torch.stack([found[name].norm() for name in sorted(found)])
    tensors |= {"grad." + name: found[name] for name in watch}
    with torch.no_grad():
        for param in [*model.parameters(), *[b for n, b in model.named_buffers() if n == "pos_embed.pos_embed"]]:
            param *= 0.1
        tensors["quiet"] = run(**{name: 1e-3 * value for name, value in inputs.items()})
    tensors = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    # One key only: safetensors writes several in any order, and the file should not change when nothing did.
    notes = {"source": f"tools/fixtures_joint.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(tensors, FOLDER / f"{file}.safetensors", metadata=notes)
    print(file, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items()})


def inputs(width, pooled=None, size=(6, 10)):
    found = {"x": pattern((2, 4, *size), 1.0), "tokens": pattern((2, 5, width), 1.0)}
    return found | ({"pooled": pattern((2, pooled), 3.0)} if pooled else {})


def sd3(names, configs):
    tiny = dict(sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8,
                num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16, pooled_projection_dim=10,
                pos_embed_max_size=6)
    for file, more in [("sd3", {}), ("sd35", {"dual_attention_layers": (0, 1), "qk_norm": "rms_norm"})]:
        model = SD3Transformer2DModel(**tiny, **more)
        record(file, model, names, configs)
        if file == "sd3":
            table = model.pos_embed.pos_embed.clone()
        model = fill(model, SD3)
        run = lambda x, tokens, pooled: model(x, tokens, pooled, TIME * 1000).sample
        watch = ["embed.weight", "text.weight", "prompt.up.bias", "time.input.bias", "final_modulation.bias",
                 "blocks.0.context.modulation.bias", "blocks.0.image.qkv.key.weight", "blocks.1.context.output.weight",
                 "blocks.2.context.qkv.value.weight", "blocks.2.context.modulation.bias"]
        if file == "sd35":
            watch += ["blocks.0.dual.qkv.query_norm.gamma", "blocks.1.dual.output.bias",
                      "blocks.0.image.modulation.bias", "blocks.1.context.qkv.key_norm.gamma"]
        write(file, model, SD3, run, inputs(12, 10), watch)
    save_file({"table": table}, FOLDER / "sd3_table.safetensors")


def pixart(names, configs):
    tiny = dict(sample_size=8, patch_size=2, in_channels=4, out_channels=8, num_layers=2, attention_head_dim=12,
                num_attention_heads=2, cross_attention_dim=24, caption_channels=12)
    for file, more in [("pixart_alpha", dict(use_additional_conditions=True, interpolation_scale=2)),
                       ("pixart_sigma", {})]:
        model = PixArtTransformer2DModel(**tiny, **more)
        record(file, model, names, configs)
        model = fill(model, PIXART)
        told = {"resolution": None, "aspect_ratio": None}
        if model.use_additional_conditions:
            sizes = torch.tensor([[512.0, 1024.0], [768.0, 512.0]], dtype=torch.float64)
            told = {"resolution": sizes, "aspect_ratio": (sizes[:, 0] / sizes[:, 1])[:, None]}
        run = lambda x, tokens: model(x, tokens, TIME * 1000, told, encoder_attention_mask=MASK.long()).sample
        watch = ["embed.weight", "caption.up.weight", "time.output.bias", "modulation.bias", "final_table",
                 "blocks.0.table", "blocks.0.cross.key.weight", "blocks.1.attention.value.weight"]
        watch += ["size.output.weight", "aspect.input.bias"] if file == "pixart_alpha" else []
        write(file, model, PIXART, run, inputs(12), watch)


def auraflow(names, configs):
    model = AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=2, num_single_dit_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16,
        pos_embed_max_size=36)
    record("auraflow_tiny", model, names, configs)
    model = fill(model, AURAFLOW)
    # The pipeline sets padding to zero.
    run = lambda x, tokens: model(x, tokens * MASK[:, :, None], TIME).sample
    watch = ["embed.weight", "position", "registers", "text.weight", "time.input.bias", "final_modulation.weight",
             "joint.0.image.qkv.key.weight", "joint.1.context.modulation.weight", "joint.0.context.output.weight",
             "single.0.qkv.query.weight", "single.1.output.weight", "single.1.modulation.weight"]
    write("auraflow", model, AURAFLOW, run, inputs(12), watch)


def sana(names, configs):
    tiny = dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
                num_cross_attention_heads=4, cross_attention_head_dim=4, cross_attention_dim=16, caption_channels=12,
                sample_size=8)
    sprint = dict(guidance_embeds=True, qk_norm="rms_norm_across_heads", interpolation_scale=2.0, patch_size=2)
    for file, more, size in [("sana", {}, (3, 5)), ("sprint", sprint, (6, 10))]:
        model = SanaTransformer2DModel(**tiny, **more)
        record(file, model, names, configs)
        model = fill(model, SANA)
        if file == "sprint":
            guidance = torch.tensor([4.5, 2.0], dtype=torch.float64) * model.config.guidance_embeds_scale
            run = lambda x, tokens: model(x, tokens, TIME, guidance, encoder_attention_mask=MASK.long()).sample
        else:
            run = lambda x, tokens: model(x, tokens, TIME * 1000, encoder_attention_mask=MASK.long()).sample
        watch = ["embed.weight", "caption.up.weight", "caption_norm.gamma", "time.output.bias", "final_table",
                 "modulation.bias", "blocks.0.table", "blocks.0.attention.key.weight", "blocks.1.cross.value.bias",
                 "blocks.0.mlp.depth.weight", "blocks.1.mlp.inverted.bias", "blocks.1.mlp.point.weight"]
        if file == "sprint":
            watch += ["guidance.output.weight", "blocks.0.attention.query_norm.gamma", "blocks.1.cross.key_norm.gamma"]
        write(file, model, SANA, run, inputs(12, size=size), watch)


def record(file, model, names, configs):
    names[file] = {name: list(value.shape) for name, value in model.state_dict().items()}
    configs[file] = json.loads(model.to_json_string())


def published(configs, counts):
    """The configurations that the released models have, and how many parameters that makes."""
    sd3 = dict(num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192)
    large = dict(num_layers=38, num_attention_heads=38, caption_projection_dim=2432, pos_embed_max_size=192)
    medium = dict(pos_embed_max_size=384, dual_attention_layers=tuple(range(13)))
    alpha = dict(caption_channels=4096)
    sana = dict(num_attention_heads=36, num_layers=28, num_cross_attention_heads=16, cross_attention_head_dim=72,
                cross_attention_dim=1152)
    normed = dict(qk_norm="rms_norm_across_heads")
    models = {
        "sd3_medium": (SD3Transformer2DModel, sd3),
        "sd35_medium": (SD3Transformer2DModel, sd3 | medium | {"qk_norm": "rms_norm"}),
        "sd35_large": (SD3Transformer2DModel, large | {"qk_norm": "rms_norm"}),
        "pixart_alpha_512": (PixArtTransformer2DModel, alpha | {"sample_size": 64}),
        "pixart_alpha_1024": (PixArtTransformer2DModel, alpha),
        "pixart_sigma_1024": (PixArtTransformer2DModel, alpha | {"use_additional_conditions": False}),
        "auraflow": (AuraFlowTransformer2DModel, {"pos_embed_max_size": 9216}),
        "sana_1600m": (SanaTransformer2DModel, {}),
        "sana_600m": (SanaTransformer2DModel, sana),
        "sana15_1600m": (SanaTransformer2DModel, normed),
        "sana15_4800m": (SanaTransformer2DModel, normed | {"num_layers": 60}),
        "sprint_600m": (SanaTransformer2DModel, sana | normed | {"guidance_embeds": True}),
        "sprint_1600m": (SanaTransformer2DModel, normed | {"guidance_embeds": True}),
    }
    for name, (kind, more) in models.items():
        with torch.device("meta"):
            model = kind(**more)
        configs[name] = json.loads(model.to_json_string())
        counts[name] = sum(param.numel() for param in model.parameters())


def main():
    names, configs, counts = {}, {}, {}
    for family in [sd3, pixart, auraflow, sana]:
        family(names, configs)
    published(configs, counts)
    print(counts)
    found = {"names": names, "configs": configs, "counts": counts}
    (FOLDER / "joint.json").write_text(json.dumps(found, sort_keys=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
