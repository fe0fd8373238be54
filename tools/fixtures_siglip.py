"""Writes canvas-text/tests/fixtures/siglip.safetensors and siglip.json: what transformers' SigLIP answers, saves, and makes of pictures.

    /tmp/venv/bin/python tools/fixtures_siglip.py

Weights are `chirp` of formula.py by our names, the reference runs in f64, and gradients of more than 300 values are stored as
their length and 8 products with waves.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures"
SIZES = dict(
    hidden_size=32, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4, image_size=13, patch_size=4,
    layer_norm_eps=1e-3, attn_implementation="sdpa",  # eager takes its softmax in f32
)  # fmt: skip


def pattern(shape, seed):
    return torch.from_numpy(formula.input_pattern(shape, seed)).double()


def ours(name):
    """Our names of the parameters that their parameter holds, and whether they are matrices of linear layers."""
    name = "vision_model." + name
    if "norm" in name:
        return [name.replace("weight", "gamma").replace("bias", "beta")], False
    if "in_proj_" in name:
        head, kind = name.split("in_proj_")
        return [f"{head}{part}.{kind}" for part in ("query", "key", "value")], kind == "weight"
    return [name.replace("attention.out_proj", "attention.output") if "head" in name else name], "embedding" not in name


def summary(grad):
    if grad.numel() <= 300:
        return grad
    flat = grad.reshape(-1)
    index = torch.arange(flat.numel(), dtype=torch.float64)
    waves = [torch.sin((0.37 + 0.21 * wave) * index + wave) for wave in range(8)]
    return torch.stack([flat.norm()] + [(flat * wave).sum() for wave in waves])


def answers(model):
    for name, parameter in model.named_parameters():
        names, linear = ours(name)
        shape = (parameter.shape[0] // len(names), *parameter.shape[1:])
        values = [formula.chirp_linear(n, shape) if linear and len(shape) == 2 else formula.chirp(n, shape) for n in names]
        parameter.data = torch.from_numpy(np.concatenate(values))
    model = model.double().eval()
    found = model(pixel_values=pattern((2, 3, 13, 13), 1.0))
    last, pooled = found.last_hidden_state, found.pooler_output
    ((last * pattern(last.shape, 2.0)).sum() + (pooled * pattern(pooled.shape, 3.0)).sum()).backward()
    tensors = {"last": last, "pooled": pooled}
    for name, parameter in model.named_parameters():
        names, linear = ours(name)
        for part, grad in zip(names, parameter.grad.chunk(len(names))):
            if part.endswith(("k_proj.bias", "key.bias")):
                assert grad.abs().max() < 1e-9  # a constant added to every key changes nothing
                continue
            assert grad.abs().max() > 1e-6, part
            tensors[f"grad.{part}"] = summary(grad.T if linear and grad.dim() == 2 else grad)
    return {name: value.detach().float().contiguous() for name, value in tensors.items()}


def picture(width, height):
    index = np.arange(width * height * 3, dtype=np.uint64)
    noise = ((index * np.uint64(2654435761)) >> np.uint64(13)) & np.uint64(255)
    return Image.fromarray(noise.astype(np.uint8).reshape(height, width, 3))


def pictures():
    for width, height, size in [(50, 37, (14, 14)), (9, 13, (21, 16)), (31, 90, (12, 20))]:
        processor = SiglipImageProcessorPil(size={"height": size[0], "width": size[1]})
        values = np.asarray(processor(picture(width, height), return_tensors="np")["pixel_values"][0], dtype=np.float64)
        units = (values * 0.5 + 0.5) * 255
        assert np.abs(units - units.round()).max() < 1e-3
        found = units.round().astype(np.uint8).transpose(1, 2, 0)
        first = [float(x) for x in values[:, 0, :4].reshape(-1)]
        yield {"width": width, "height": height, "size": size, "bytes": found.tobytes().hex(), "first": first}


torch.set_num_threads(1)
model = SiglipVisionModel(SiglipVisionConfig(**SIZES))
shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
config = json.loads(model.config.to_json_string())
with tempfile.TemporaryDirectory() as folder:
    SiglipImageProcessorPil().save_pretrained(folder)
    processor = json.loads((Path(folder) / "preprocessor_config.json").read_text())
    processor["image_processor_type"] = processor["image_processor_type"].removesuffix("Pil")
tensors = answers(model)
notes = {"transformers": transformers.__version__, "torch": torch.__version__, "script": "tools/fixtures_siglip.py"}
save_file(tensors, FOLDER / "siglip.safetensors", metadata=notes)
text = notes | {"config": config, "shapes": shapes, "processor": processor, "pictures": list(pictures())}
(FOLDER / "siglip.json").write_text(json.dumps(text) + "\n")
print(len(tensors), {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items() if "grad" not in name})
print([(FOLDER / name).stat().st_size for name in ("siglip.safetensors", "siglip.json")])
