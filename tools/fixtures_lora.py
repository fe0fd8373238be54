"""Writes canvas-unet/tests/fixtures/lora.safetensors and canvas-text/tests/fixtures/lora.safetensors: what diffusers and
peft make of LoRA files.

    /tmp/venv/bin/python tools/fixtures_lora.py

Both sides fill the models' weights and write the LoRA files by a hash of key and index, so the fixtures hold outputs
only. Each case loads a file as a user would: into a pipeline, or, where diffusers cannot, by peft or by hand. f64.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, inject_adapter_in_model
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(Path(__file__).parent))
import formula

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
MASK = (1 << 64) - 1


def hashed(name, shape, scale=1.0, centre=0.0):
    """`centre + scale u` with u in [-1, 1) from splitmix64 of the name's hash and the index, rounded to f32."""
    count = int(np.prod(shape, dtype=np.int64))
    seed = np.uint64(formula.fnv1a(name))
    with np.errstate(over="ignore"):
        x = seed + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    unit = (x >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
    return torch.from_numpy((centre + scale * unit).astype(np.float32).reshape(shape))


def fill(model, prefix=""):
    for name, param in model.named_parameters():
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        fan = 16 if param.dim() < 2 else param[0].numel()
        param.data = hashed(prefix + name, param.shape, 0.1 if around else fan**-0.5, around)
    return model.double()


def sd():
    return fill(
        UNet2DConditionModel(
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 12),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            attention_head_dim=(2, 3),
            cross_attention_dim=10,
            norm_num_groups=2,
        )
    )


def sdxl():
    return fill(
        UNet2DConditionModel(
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 12),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 3),
            cross_attention_dim=10,
            norm_num_groups=2,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=7 + 6 * 4,
        )
    )


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


@torch.no_grad()
def draw(unet):
    sizes = torch.tensor([[512.0, 768.0, 3.0, 17.0, 1024.0, 896.0]]).double()
    added = {"text_embeds": pattern((1, 7), 3.0), "time_ids": sizes}
    x = pattern((1, 3, 4, 6), 1.0, 3.0)
    return unet.double()(x, torch.tensor([250.0]), pattern((1, 5, 10), 1.0), added_cond_kwargs=added).sample


def layers(model, kinds=(torch.nn.Linear, torch.nn.Conv2d)):
    return {name: module.weight for name, module in model.named_modules() if isinstance(module, kinds)}


def low(key_down, key_up, weight, rank, scale=0.3):
    """The two tensors of a LoRA on this weight."""
    down = (rank, *weight.shape[1:])
    up = (weight.shape[0], rank, *[1] * (weight.dim() - 2))
    return {key_down: hashed(key_down, down, scale), key_up: hashed(key_up, up, scale)}


def attention(name):
    return "attn" in name or ".ff." in name


def peft_file(model, rank, part="unet.", chosen=attention, scale=0.3):
    return merged(
        low(f"{part}{name}.lora_A.weight", f"{part}{name}.lora_B.weight", weight, rank, scale)
        for name, weight in layers(model).items()
        if chosen(name)
    )


def merged(files):
    return {key: value for file in files for key, value in file.items()}


def old_name(name):
    for layer in ["to_q", "to_k", "to_v", "to_out.0"]:
        if name.endswith(layer):
            return name.removesuffix(layer) + "processor." + layer.removesuffix(".0") + "_lora"
    return name + ".lora"


def old_file(model, rank):
    return merged(
        low(f"unet.{old_name(name)}.down.weight", f"unet.{old_name(name)}.up.weight", weight, rank)
        for name, weight in layers(model).items()
        if attention(name)
    )


def kohya_file(model, rank, alpha, prefix="lora_unet_", rename=lambda name: name, chosen=lambda name: True):
    file = {}
    for name, weight in layers(model).items():
        if chosen(name):
            key = prefix + rename(name).replace(".", "_")
            file |= low(f"{key}.lora_down.weight", f"{key}.lora_up.weight", weight, rank)
            file[f"{key}.alpha"] = torch.tensor(float(alpha))
    return file


def ldm_name(name):
    """The original code's name of a layer of `sdxl()`: two levels of two blocks, the second with transformers."""
    fixed = {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
    }
    if name in fixed:
        return fixed[name]
    for old, new in [("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"), ("conv2", "out_layers.3")]:
        name = name.replace(old, new) if ".resnets." in name else name
    name = name.replace("conv_shortcut", "skip_connection")
    head, *rest = name.split(".")
    if head == "mid_block":
        kind, at, *rest = rest
        return ".".join(["middle_block", str({"resnets": 2 * int(at), "attentions": 1}[kind]), *rest])
    level, kind, at, *rest = rest
    inner = {"resnets": "0", "attentions": "1"}[kind]
    block = 3 * int(level) + int(at) + (head == "down_blocks")
    return ".".join([{"down_blocks": "input_blocks", "up_blocks": "output_blocks"}[head], str(block), inner, *rest])


def pipeline(unet, xl=False):
    parts = dict(vae=None, text_encoder=None, tokenizer=None, unet=unet, scheduler=None)
    if xl:
        return StableDiffusionXLPipeline(**parts, text_encoder_2=None, tokenizer_2=None)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def load(pipe, file, name, metadata=None):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lora.safetensors"
        save_file(file, path, metadata and {"lora_adapter_metadata": json.dumps(metadata)})
        pipe.load_lora_weights(str(path), adapter_name=name)


def through_pipeline(files, weights, xl=False, metadata=None):
    unet = sdxl() if xl else sd()
    pipe = pipeline(unet, xl)
    names = [f"adapter{i}" for i in range(len(files))]
    for name, file in zip(names, files):
        load(pipe, file, name, metadata)
    pipe.set_adapters(names, weights)
    return draw(unet)


def magnitudes(model, file):
    """DoRA's magnitudes, near those of the weights."""
    for name, weight in layers(model).items():
        key = f"unet.{name}.lora_magnitude_vector"
        if f"unet.{name}.lora_A.weight" in file:
            shape = (weight.shape[0],) if weight.dim() == 2 else (1, weight.shape[0], 1, 1)
            file[key] = hashed(key, shape, 0.3, 0.8)
    return file


def loha_file(model, rank, effective):
    file = {}
    for name, weight in layers(model).items():
        out, inner, kernel = weight.shape[0], weight.shape[1:], tuple(weight.shape[2:])
        flat = int(np.prod(inner))
        cp = effective and kernel == (3, 3)
        shapes = {"hada_w1_a": (out, rank), "hada_w1_b": (rank, flat), "hada_w2_a": (out, rank), "hada_w2_b": (rank, flat)}
        if cp:
            shapes = {"hada_w1_a": (rank, out), "hada_w1_b": (rank, inner[0]), "hada_w2_a": (rank, out)}
            shapes |= {"hada_w2_b": (rank, inner[0]), "hada_t1": (rank, rank, *kernel), "hada_t2": (rank, rank, *kernel)}
        file |= {f"{name}.{role}": hashed(f"{name}.{role}", shape, 0.5) for role, shape in shapes.items()}
    return file


def lokr_file(model, rank, effective):
    """A first matrix of 2 rows and 1 column, whole or a product; the second whole in resnets, else a product."""
    file = {}
    for name, weight in layers(model).items():
        out, inner, kernel = weight.shape[0] // 2 if weight.shape[0] % 2 == 0 else weight.shape[0], weight.shape[1], tuple(weight.shape[2:])
        first = weight.shape[0] // out
        shapes = {"lokr_w1": (first, 1)}
        if ".ff." in name:
            shapes = {"lokr_w1_a": (first, rank), "lokr_w1_b": (rank, 1)}
        if "conv1" in name:
            shapes["lokr_w2"] = (out, inner, *kernel)
        elif effective and kernel == (3, 3):
            shapes |= {"lokr_w2_a": (rank, out), "lokr_w2_b": (rank, inner), "lokr_t2": (rank, rank, *kernel)}
        else:
            shapes |= {"lokr_w2_a": (out, rank), "lokr_w2_b": (rank, inner * int(np.prod(kernel)))}
        file |= {f"{name}.{role}": hashed(f"{name}.{role}", shape, 0.5) for role, shape in shapes.items()}
    return file


@torch.no_grad()
def by_peft(model, file, config, scale):
    """The deltas of peft's own layers, their parameters replaced by the file's."""
    inject_adapter_in_model(config, model)
    for name, module in model.named_modules():
        names = [key for key in file if key.rpartition(".")[0] == name]
        if hasattr(module, "get_delta_weight") and names:
            for kind in [attribute for attribute in module.__dict__["_modules"] if attribute.startswith(("hada", "lokr"))]:
                store = getattr(module, kind)
                store.pop("default") if "default" in store else None
                if f"{name}.{kind}" in file:
                    store["default"] = torch.nn.Parameter(file[f"{name}.{kind}"].double())
            module.scaling["default"] = scale(module, name)
    return draw(model)


@torch.no_grad()
def with_middle(file, scale):
    """LoCon with a kernel in the middle, by running the three convolutions beside each layer."""
    unet = sd()
    for name, module in unet.named_modules():
        key = "lora_unet_" + name.replace(".", "_")
        if f"{key}.lora_mid.weight" in file:
            down, mid, up = (file[f"{key}.lora_{role}.weight"].double() for role in ["down", "mid", "up"])

            def hook(layer, given, answer, down=down, mid=mid, up=up):
                x = F.conv2d(F.conv2d(given[0], down), mid, stride=layer.stride, padding=layer.padding)
                return answer + scale * F.conv2d(x, up)

            module.register_forward_hook(hook)
    return draw(unet)


def middle_file(model, rank, alpha):
    file = {}
    for name, weight in layers(model, torch.nn.Conv2d).items():
        if weight.shape[2] == 3:
            key = "lora_unet_" + name.replace(".", "_")
            shapes = {"down": (rank, weight.shape[1], 1, 1), "mid": (rank, rank, 3, 3), "up": (weight.shape[0], rank, 1, 1)}
            for role, shape in shapes.items():
                file[f"{key}.lora_{role}.weight"] = hashed(f"{key}.lora_{role}.weight", shape, 0.5)
            file[f"{key}.alpha"] = torch.tensor(float(alpha))
    return file


def peft_folder(unet):
    """As peft saves a model, with its configuration: an alpha of its own for some layers, and its root rule."""
    file = peft_file(unet, 3, "base_model.model.", chosen=lambda name: True)
    config = LoraConfig(
        r=3,
        lora_alpha=5,
        alpha_pattern={"to_q": 2.0, "mid_block.attentions.0.proj_in": 7.0},
        target_modules=[name for name in layers(unet)],
        use_rslora=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        save_file(file, Path(folder) / "adapter_model.safetensors")
        config.save_pretrained(folder)
        PeftModel.from_pretrained(unet, folder)
    return draw(unet)


def unet_cases():
    cases = {"sd": draw(sd()), "sdxl": draw(sdxl())}
    cases["peft"] = through_pipeline([peft_file(sd(), 3)], [0.7])
    mixed = peft_file(sd(), 3) | peft_file(sd(), 2, chosen=lambda name: ".attn2." in name)
    cases["ranks"] = through_pipeline([mixed], [1.0])
    metadata = {"unet.r": 3, "unet.lora_alpha": 6, "unet.alpha_pattern": {"attn2.to_k": 2.0, "^mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 9.0}}
    names = [name for name in layers(sd()) if attention(name)]
    metadata["unet.target_modules"] = names
    cases["metadata"] = through_pipeline([peft_file(sd(), 3)], [1.0], metadata=metadata)
    cases["old"] = through_pipeline([old_file(sd(), 3)], [1.0])
    cases["kohya"] = through_pipeline([kohya_file(sd(), 3, 2)], [0.8])
    cases["ldm"] = through_pipeline([kohya_file(sdxl(), 3, 2, rename=ldm_name)], [0.8], xl=True)
    cases["two"] = through_pipeline([peft_file(sd(), 3), kohya_file(sd(), 3, 2)], [0.7, -0.4])
    dora = magnitudes(sd(), peft_file(sd(), 3, chosen=lambda name: True))
    cases["dora"] = through_pipeline([dora], [0.7])
    cases["dora_two"] = through_pipeline([dora, kohya_file(sd(), 3, 2)], [0.7, -0.4])
    cases["peft_folder"] = peft_folder(sd())
    cases["loha"] = by_peft(sd(), loha_file(sd(), 2, True), LoHaConfig(r=2, target_modules=list(layers(sd())), use_effective_conv2d=True), lambda *_: 3 / 2)
    config = LoKrConfig(r=2, target_modules=list(layers(sd())), use_effective_conv2d=True)
    cases["lokr"] = by_peft(sd(), lokr_file(sd(), 2, True), config, lambda _, name: 1.0 if "conv1" in name else 3 / 2)
    middle = middle_file(sd(), 2, 3)
    cases["middle"] = with_middle(middle, 3 / 2)
    return cases


TEXT = dict(vocab_size=50, hidden_size=12, intermediate_size=20, num_attention_heads=3, num_hidden_layers=2)
TEXT |= dict(max_position_embeddings=6, attn_implementation="eager", hidden_act="quick_gelu", eos_token_id=2)
IDS = torch.tensor([[48, 5, 7, 12, 49, 49]])


def clip(second=False):
    if second:
        model = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=9))
    else:
        model = CLIPTextModel(CLIPTextConfig(**TEXT))
    own = lambda name: name if name.startswith("text_") else "text_model." + name
    for name, param in model.named_parameters():
        around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        fan = 16 if param.dim() < 2 else 1 if "embedding" in name else param[0].numel()
        param.data = hashed(own(name), param.shape, 0.1 if around else fan**-0.5, around)
    return model.double()


@torch.no_grad()
def encode(model):
    found = model.double()(input_ids=IDS)
    return {"last": found.last_hidden_state, "pooled": found.text_embeds if "text_embeds" in found else found.pooler_output}


def text_names(model):
    """With `text_model.` in front, as in files."""
    own = lambda name: name if name.startswith("text_") else "text_model." + name
    return {own(name): weight for name, weight in layers(model, torch.nn.Linear).items()}


def text_old(name):
    for layer in ["q", "k", "v", "out"]:
        if name.endswith(f"{layer}_proj"):
            return name.removesuffix(f"{layer}_proj") + f"to_{layer}_lora"
    return name + ".lora_linear_layer"


def text_pipeline(files, weights, second=False):
    model = clip(second)
    if second:
        pipe = StableDiffusionXLPipeline(vae=None, text_encoder=None, tokenizer=None, unet=sdxl(), scheduler=None, text_encoder_2=model, tokenizer_2=None)
    else:
        pipe = pipeline(sd())
        pipe.text_encoder = model
        pipe.register_modules(text_encoder=model)
    names = [f"adapter{i}" for i in range(len(files))]
    for name, file in zip(names, files):
        load(pipe, file, name)
    # `set_adapters` wants every component to have every adapter.
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_adapter(names)
            for name, weight in zip(names, weights):
                if name in module.scaling:
                    module.set_scale(name, weight)
    return encode(model)


def text_cases():
    modern = lambda part, rank: merged(
        low(f"{part}.{name}.lora_A.weight", f"{part}.{name}.lora_B.weight", weight, rank)
        for name, weight in text_names(clip(part.endswith("2"))).items()
        if "projection" not in name
    )
    written = lambda rename: merged(
        low(f"text_encoder.{rename(name)}.down.weight", f"text_encoder.{rename(name)}.up.weight", weight, 3)
        for name, weight in text_names(clip()).items()
    )
    kohya = {}
    for name, weight in text_names(clip()).items():
        key = "lora_te_" + name.replace(".", "_")
        kohya |= low(f"{key}.lora_down.weight", f"{key}.lora_up.weight", weight, 3)
        kohya[f"{key}.alpha"] = torch.tensor(2.0)
    second = {}
    for name, weight in text_names(clip(True)).items():
        key = "lora_te2_" + name.replace(".", "_")
        second |= low(f"{key}.lora_down.weight", f"{key}.lora_up.weight", weight, 3)
        second[f"{key}.alpha"] = torch.tensor(2.0)
    return {
        "plain": encode(clip()),
        "modern": text_pipeline([modern("text_encoder", 3)], [0.7]),
        "linear": text_pipeline([written(lambda name: name + ".lora_linear_layer")], [1.0]),
        "old": text_pipeline([written(text_old)], [1.0]),
        "kohya": text_pipeline([kohya], [0.8]),
        "two": text_pipeline([modern("text_encoder", 3), kohya], [0.7, -0.4]),
        "second": text_pipeline([second], [0.8], second=True),
    }


def save(crate, cases):
    path = ROOT / f"canvas-{crate}" / "tests" / "fixtures" / "lora.safetensors"
    save_file({name: value.float().contiguous() for name, value in cases.items()}, path)
    print(path.stat().st_size, path.name, len(cases))


if __name__ == "__main__":
    cases = unet_cases()
    for name, value in cases.items():
        base = cases["sdxl" if name == "ldm" else "sd"]
        print(name, f"{((value - base).abs().max() / base.abs().max()).item():.2f} from the model without")
    save("unet", cases)
    cases = text_cases()
    for name, value in cases.items():
        print(name, f"{(value['last'] - cases['plain']['last']).abs().max().item():.2f}")
    save("text", {f"{name}.{part}": value for name, parts in cases.items() for part, value in parts.items()})
