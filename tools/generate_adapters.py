"""ControlNets, adapters, LoRAs and textual inversions for the models of `generate_models`, by the same formula.

The component in a weight's name is the folder, or the file without its ending: `lora_peft/unet.down_blocks...`.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, ControlNetModel, T2IAdapter, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import generate_inputs as inputs
from generate_ldm import ldm_module
from generate_models import save, shapes_of, write_weights


def controlnet(root: Path, name: str, model: Path, embedding) -> None:
    """A ControlNet of the UNet's skeleton; `embedding` channels halve the hint as often as the VAE halves a picture."""
    source = UNet2DConditionModel.from_pretrained(model / "unet")
    net = ControlNetModel.from_unet(source, conditioning_embedding_out_channels=embedding)
    save(root, name, net)


def image_encoder(root: Path, name: str) -> None:
    """CLIP's vision tower on 32 pixels, and the feature extractor's file of published pipelines."""
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, projection_dim=10,
        image_size=32, patch_size=8, hidden_act="gelu",
    )  # fmt: skip
    save(root, name, CLIPVisionModelWithProjection(config))
    extractor = {
        "crop_size": 32, "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 32,
    }  # fmt: skip
    (root / "feature_extractor").mkdir(parents=True, exist_ok=True)
    (root / "feature_extractor" / "preprocessor_config.json").write_text(json.dumps(extractor, indent=2) + "\n")


def cross_widths(model: Path) -> list:
    """Channels of each cross-attention in the order of `UNet2DConditionModel.attn_processors` (down, up, mid)."""
    net = UNet2DConditionModel.from_pretrained(model / "unet")
    names = [name for name in net.attn_processors if name.endswith("attn2.processor")]
    return [net.get_submodule(name.removesuffix(".processor")).to_q.out_features for name in names]


def ip_adapter(root: Path, name: str, model: Path, plus: bool) -> None:
    """An IP-Adapter file: keys and values of every cross-attention, and the projection of the image."""
    context = json.loads((model / "unet" / "config.json").read_text())["cross_attention_dim"]
    shapes = {}
    if plus:
        hidden, inner = 16, 128  # two heads of 64: the published width of a head
        shapes |= {"latents": (1, 6, hidden), "proj_in.weight": (hidden, 16), "proj_in.bias": (hidden,)}
        shapes |= {"proj_out.weight": (context, hidden), "proj_out.bias": (context,)}
        shapes |= {"norm_out.weight": (context,), "norm_out.bias": (context,)}
        for layer in range(4):
            at = f"layers.{layer}"
            for norm in ("0.norm1", "0.norm2", "1.0"):
                shapes |= {f"{at}.{norm}.weight": (hidden,), f"{at}.{norm}.bias": (hidden,)}
            shapes |= {f"{at}.0.to_q.weight": (inner, hidden), f"{at}.0.to_kv.weight": (2 * inner, hidden)}
            shapes |= {f"{at}.0.to_out.weight": (hidden, inner)}
            shapes |= {f"{at}.1.1.weight": (4 * hidden, hidden), f"{at}.1.3.weight": (hidden, 4 * hidden)}
    else:
        shapes |= {"proj.weight": (4 * context, 10), "proj.bias": (4 * context,)}
        shapes |= {"norm.weight": (context,), "norm.bias": (context,)}
    shapes = {f"image_proj.{key}": shape for key, shape in shapes.items()}
    for i, width in enumerate(cross_widths(model)):
        for part in ("to_k_ip", "to_v_ip"):
            shapes[f"ip_adapter.{2 * i + 1}.{part}.weight"] = (width, context)
    write_weights(root / f"{name}.safetensors", name, shapes)


def lora_targets(model: Path, component: str, kinds) -> dict:
    """Module path to (shape of its weight) of the modules whose path ends with one of `kinds`."""
    path = next((model / component).glob("*.safetensors"))
    found = {}
    for key, shape in shapes_of(path).items():
        module = key.removesuffix(".weight")
        if key.endswith(".weight") and module.endswith(tuple(kinds)):
            found[module] = shape
    return found


UNET_LINEAR = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
UNET_CONV = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def lora(root: Path, name: str, model: Path, form: str, encoders, rank: int, alpha=None, conv=False) -> None:
    """A LoRA file in the key format `form`: peft, diffusers_old, kohya, kohya_ldm (the last two with `alpha`)."""
    tensors = {}

    def add(key, shape):
        tensors[key] = torch.from_numpy(inputs.weight(f"{name}/{key}", shape))

    for component in ("unet", *encoders):
        kinds = TEXT if component != "unet" else UNET_LINEAR + (UNET_CONV if conv else ())
        if form == "diffusers_old" and component == "unet":
            kinds = ("to_q", "to_k", "to_v", "to_out.0")  # attention processors only, as diffusers 0.1x trained
        for module, shape in lora_targets(model, component, kinds).items():
            key, down, up = lora_names(form, component, module, len(encoders))
            kernel = tuple(shape[2:])  # lies in `down`
            add(f"{key}{down}.weight", (rank, shape[1], *kernel))
            add(f"{key}{up}.weight", (shape[0], rank, *(1 for _ in kernel)))
            if alpha is not None:
                tensors[f"{key}.alpha"] = torch.tensor(float(alpha))
    root.mkdir(parents=True, exist_ok=True)
    save_file(tensors, root / f"{name}.safetensors", metadata={"format": "pt"})


def lora_names(form: str, component: str, module: str, encoders: int) -> tuple:
    """What the format calls a module, and its two factors."""
    if form in ("kohya", "kohya_ldm"):
        if form == "kohya_ldm" and component == "unet":
            module = ldm_module(module, layers=2)
        first = "lora_te1" if encoders == 2 else "lora_te"
        prefix = {"unet": "lora_unet", "text_encoder": first, "text_encoder_2": "lora_te2"}[component]
        return f"{prefix}_{module.replace('.', '_')}", ".lora_down", ".lora_up"
    if form == "peft":
        return f"{component}.{module}", ".lora_A", ".lora_B"
    if component == "unet":
        attention, part = module.rsplit(".to_", 1)
        return f"unet.{attention}.processor.to_{part.removesuffix('.0')}_lora", ".down", ".up"
    return f"{component}.{module}.lora_linear_layer", ".down", ".up"


def embeddings(root: Path) -> None:
    """Textual inversions: diffusers' file of one token with three vectors, A1111's, and SDXL's pair."""
    write_weights(root / "inversion.safetensors", "inversion", {"<scribble>": (3, 12)})
    write_weights(root / "inversion_a1111.safetensors", "inversion_a1111", {"emb_params": (2, 12)})
    write_weights(root / "inversion_xl.safetensors", "inversion_xl", {"clip_l": (2, 8), "clip_g": (2, 16)})


def write_all(root: Path) -> None:
    """Every adapter under `root/adapters`; the models must be there."""
    torch.manual_seed(0)
    models, extra = root / "models", root / "adapters"
    controlnet(extra, "controlnet_sd1", models / "sd1", (4, 4, 8, 8))
    controlnet(extra, "controlnet_sd1_b", models / "sd1", (4, 8, 8, 8))
    controlnet(extra, "controlnet_sdxl", models / "sdxl", (4, 4, 8, 8))
    hint = {"in_channels": 3, "num_res_blocks": 2}
    save(extra, "t2i_sd1", T2IAdapter(channels=[8, 16, 16], downscale_factor=8, adapter_type="full_adapter", **hint))
    save(extra, "t2i_sdxl", T2IAdapter(channels=[8, 16, 16, 16], downscale_factor=16, adapter_type="full_adapter_xl", **hint))
    halves = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    blocks = {"num_encoder_blocks": (1, 1, 2, 1), "num_decoder_blocks": (1, 2, 1, 1)}
    save(extra, "taesd", AutoencoderTiny(**halves, **blocks))
    image_encoder(extra, "image_encoder")
    for model in ("sd1", "sdxl"):
        ip_adapter(extra, f"ip_{model}", models / model, plus=False)
        ip_adapter(extra, f"ip_plus_{model}", models / model, plus=True)
    lora(extra, "lora_peft", models / "sd1", "peft", ["text_encoder"], 3)
    lora(extra, "lora_old", models / "sd1", "diffusers_old", ["text_encoder"], 2)
    lora(extra, "lora_kohya", models / "sd1", "kohya", ["text_encoder"], 4, alpha=2.0, conv=True)
    lora(extra, "lora_peft_xl", models / "sdxl", "peft", ["text_encoder", "text_encoder_2"], 3)
    lora(extra, "lora_kohya_xl", models / "sdxl", "kohya", ["text_encoder", "text_encoder_2"], 2, alpha=1.0)
    both = ["text_encoder", "text_encoder_2"]
    lora(extra, "lora_kohya_ldm_xl", models / "sdxl", "kohya_ldm", both, 3, alpha=1.5, conv=True)
    embeddings(extra)
