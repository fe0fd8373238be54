"""Writes canvas-text/tests/fixtures/clip.safetensors and clip_vision.safetensors: what transformers' CLIP models answer.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_clip.py

Both sides fill their weights by a formula, so the fixtures hold outputs only. The reference runs in f64. The formula
is a chirp and not formula.py's sine: matrices of that have rank 2, and through five blocks of them f32 loses so many
digits (torch's own gradients 6e-3) that a mistake could hide.
Gradients of more than 400 values are stored as their length and 8 products with waves of different frequencies,
which no wrong element escapes.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures"
SIZES = dict(
    vocab_size=1000,
    hidden_size=32,
    intermediate_size=37,
    num_attention_heads=4,
    num_hidden_layers=5,
    max_position_embeddings=11,
    attn_implementation="eager",
)
IDS = torch.tensor(
    [
        [990, 5, 7, 120, 999, 0, 0, 0, 0],
        [990, 44, 999, 7, 7, 999, 3, 999, 7],
        [7, 999, 5, 999, 999, 999, 999, 999, 999],
    ]
)
MASK = torch.tensor([[1] * 5 + [0] * 4, [1] * 9, [1] * 2 + [0] * 7])


def pattern(shape, seed):
    return torch.from_numpy(formula.input_pattern(shape, seed)).double()


def ours(name):
    """Their name with `text_model.` in front, as in files, and Burn's names of a norm's parameters."""
    if not name.startswith(("text_", "vis")):
        name = "text_model." + name
    if "norm" in name:
        name = name.replace("weight", "gamma").replace("bias", "beta")
    return name


def chirp(name, shape):
    """Values of Burn's parameter of this name and shape: `sin(0.7 i + 0.013 i^2 + h(name))`, scaled as formula.py."""
    index = np.arange(np.prod(shape), dtype=np.float64)
    wave = np.sin(0.7 * index + 0.013 * index * index + float(formula.fnv1a(name) % 1000))
    if name.endswith("gamma"):
        return (1.0 + 0.1 * wave).astype(np.float32).reshape(shape)
    scale = 1.0 if "embedding" in name else 1.0 / np.sqrt(np.float64(shape[0] if len(shape) == 2 else 16))
    return (scale * wave).astype(np.float32).reshape(shape)


def fill(model):
    for name, param in model.named_parameters():
        linear = param.dim() == 2 and "embedding" not in name
        values = chirp(ours(name), param.shape[::-1]).T if linear else chirp(ours(name), param.shape)
        param.data = torch.from_numpy(np.ascontiguousarray(values))
    return model.double()


def summary(name, grad):
    """The gradient in Burn's layout, or its length and its products with 8 waves."""
    grad = grad.T if grad.dim() == 2 and "embedding" not in name else grad
    if grad.numel() <= 400:
        return grad
    flat = grad.reshape(-1)
    index = torch.arange(flat.numel(), dtype=torch.float64)
    waves = [torch.sin((0.37 + 0.21 * wave) * index + wave) for wave in range(8)]
    return torch.stack([flat.norm()] + [(flat * wave).sum() for wave in waves])


def gradients(model, outputs, chosen):
    sum((outputs[name] * pattern(outputs[name].shape, seed)).sum() for name, seed in chosen.items()).backward()
    return {f"grad.{ours(name)}": summary(name, param.grad) for name, param in model.named_parameters()}


def vision():
    sizes = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 3}
    sizes |= {"image_size": 12, "patch_size": 4, "projection_dim": 24, "hidden_act": "gelu", "layer_norm_eps": 1e-3}
    model = fill(CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, attn_implementation="eager")))
    found = model(pixel_values=pattern((2, 3, 12, 12), 1.0), output_hidden_states=True)
    outputs = {"last": found.last_hidden_state, "pooled": found.image_embeds, "hidden.0": found.hidden_states[0]}
    outputs["hidden.2"] = found.hidden_states[2]
    tensors = outputs | gradients(model, outputs, {"pooled": 2.0, "hidden.2": 3.0})
    return {name: value.detach().float().contiguous() for name, value in tensors.items() if value is not None}


def case(label, model, mask):
    found = fill(model)(input_ids=IDS, attention_mask=mask, output_hidden_states=True)
    pooled = found.text_embeds if "text_embeds" in found else found.pooler_output
    norm = getattr(model, "text_model", model).final_layer_norm
    outputs = {"last": found.last_hidden_state, "pooled": pooled, "skipped": norm(found.hidden_states[-3])}
    outputs["hidden.4"] = found.hidden_states[4]
    tensors = outputs | gradients(model, outputs, {"last": 1.0, "pooled": 2.0, "hidden.4": 3.0})
    return {f"{label}.{name}": value.detach().float().contiguous() for name, value in tensors.items()}


def main():
    first = CLIPTextModel(CLIPTextConfig(**SIZES, hidden_act="quick_gelu", eos_token_id=2))
    # Rows' first 7 is not their largest id, the width of the projection not that of the states.
    second = CLIPTextModelWithProjection(
        CLIPTextConfig(**SIZES, hidden_act="gelu", eos_token_id=7, projection_dim=24, layer_norm_eps=1e-3)
    )
    tensors = case("quick", first, None) | case("projected", second, MASK)
    FOLDER.mkdir(parents=True, exist_ok=True)
    notes = {"transformers": transformers.__version__, "torch": torch.__version__, "script": "tools/fixtures_clip.py"}
    save_file(tensors, FOLDER / "clip.safetensors", metadata=notes)
    save_file(vision(), FOLDER / "clip_vision.safetensors", metadata=notes)
    print(len(tensors), {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items() if ".grad" not in name})


if __name__ == "__main__":
    main()
