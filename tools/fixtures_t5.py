"""Writes canvas-text/tests/fixtures/t5.safetensors and t5.json: what transformers' T5 and UMT5 encoders answer and save.

    /tmp/venv/bin/python tools/fixtures_t5.py

Weights are `chirp` of formula.py by our names, the reference runs in f64, and gradients of more than 300 values are stored as
their length and 8 products with waves.
"""

import json
import re
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures"
SIZES = dict(
    d_model=32, d_kv=7, d_ff=37, num_layers=3, num_heads=4, vocab_size=99, relative_attention_num_buckets=8,
    relative_attention_max_distance=9, attn_implementation="eager", dropout_rate=0.0,
)  # fmt: skip
IDS = torch.tensor([[5, 7, 12, 98, 44, 3, 21, 8, 9, 30, 1], [90, 44, 7, 7, 33, 1, 0, 0, 0, 0, 0]])
MASK = torch.tensor([[1] * 11, [1] * 6 + [0] * 5])
NAMES = [
    (r"^shared\.", "embedding."),
    (r"^encoder\.final_layer_norm\.weight", "norm.gamma"),
    (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm\.weight", r"blocks.\1.norm_attention.gamma"),
    (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm\.weight", r"blocks.\1.norm_feed.gamma"),
    (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.", r"blocks.\1.attention."),
    (r"\.q\.weight", ".qkv.query.weight"),
    (r"\.k\.weight", ".qkv.key.weight"),
    (r"\.v\.weight", ".qkv.value.weight"),
    (r"\.o\.weight", ".output.weight"),
    (r"relative_attention_bias", "positions"),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.", r"blocks.\1.feed."),
]


def ours(name, gated):
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    parts = {"wi_0": "Gated.gate", "wi_1": "Gated.up", "wo": "Gated.down"} if gated else {"wi": "Plain.up", "wo": "Plain.down"}
    return re.sub(r"feed\.(\w+)\.", lambda found: f"feed.{parts[found[1]]}.", name)


def summary(grad):
    if grad.numel() <= 300:
        return grad
    flat = grad.reshape(-1)
    index = torch.arange(flat.numel(), dtype=torch.float64)
    waves = [torch.sin((0.37 + 0.21 * wave) * index + wave) for wave in range(8)]
    return torch.stack([flat.norm()] + [(flat * wave).sum() for wave in waves])


def case(label, model, mask):
    gated = model.config.is_gated_act
    linear = lambda name: not re.search("embedding|positions|gamma", name)
    named = {ours(name, gated): parameter for name, parameter in model.named_parameters()}
    for name, parameter in named.items():
        values = formula.chirp_linear(name, parameter.shape) if linear(name) else formula.chirp(name, parameter.shape)
        parameter.data = torch.from_numpy(values)
    model = model.double().eval()
    last = model(input_ids=IDS, attention_mask=mask).last_hidden_state
    (last * torch.from_numpy(formula.input_pattern(last.shape, 1.0)).double()).sum().backward()
    found = {"last": last}
    for name, parameter in named.items():
        assert parameter.grad.abs().max() > 1e-6, name
        found[f"grad.{name}"] = summary(parameter.grad.T if linear(name) else parameter.grad)
    return {f"{label}.{name}": value.detach().float().contiguous() for name, value in found.items()}


def saved(model):
    """The configuration and the tensors that save_pretrained writes."""
    tied = set(model.all_tied_weights_keys)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if name not in tied}
    return {"config": json.loads(model.config.to_json_string()), "shapes": shapes}


torch.set_num_threads(1)
t5 = lambda: T5EncoderModel(T5Config(**SIZES, feed_forward_proj="gated-gelu"))
umt5 = lambda: UMT5EncoderModel(UMT5Config(**SIZES, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-3))
first = lambda: T5EncoderModel(T5Config(**SIZES, feed_forward_proj="relu"))
tensors = case("t5", t5(), MASK) | case("t5_unmasked", t5(), None) | case("umt5", umt5(), MASK) | case("first", first(), MASK)
notes = {"transformers": transformers.__version__, "torch": torch.__version__, "script": "tools/fixtures_t5.py"}
save_file(tensors, FOLDER / "t5.safetensors", metadata=notes)
(FOLDER / "t5.json").write_text(json.dumps(notes | {"t5": saved(t5()), "umt5": saved(umt5()), "first": saved(first())}) + "\n")
print(len(tensors), {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items() if "grad" not in name})
print([(FOLDER / name).stat().st_size for name in ("t5.safetensors", "t5.json")])
