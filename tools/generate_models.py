"""Tiny complete pipelines in diffusers' layout, weights by `generate_inputs.weight`.

    sd1, sd1_inpaint        UNet of three levels (8, 16, 16), VAE of four levels (8 pixels a latent), PNDM
    sd1_dated               sd1 with a scheduler's file that the pipeline overrules
    sd1_scattered           sd1 in shards and in PyTorch's own files
    sd2                     linear projections, heads per level, v-prediction DDIM, GELU, pad token "!", 2 pixels a latent
    sdxl, sdxl_inpaint      two text encoders, text_time; the empty negative prompt is zeros
    sdxl_empty              the same without that, 2 pixels a latent
    refiner                 the second text encoder only, aesthetic scores

Text encoders of sd1 and sdxl name their keys as published files do (`text_model.` in front, with the `position_ids`
buffer); those of sd2 as transformers 5 writes them (no prefix). So the trees hold both layouts.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import generate_inputs as inputs

VOCABULARY = len(inputs.vocabulary())
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
PNDM = {"_class_name": "PNDMScheduler", **BETAS, "skip_prk_steps": True, "set_alpha_to_one": False}
PNDM |= {"steps_offset": 1, "clip_sample": False, "trained_betas": None}
DDIM_V = {"_class_name": "DDIMScheduler", **BETAS, "prediction_type": "v_prediction", "set_alpha_to_one": False}
DDIM_V |= {"steps_offset": 1, "clip_sample": False, "skip_prk_steps": True, "trained_betas": None}
# As files of 2022 were: some pipelines overrule `steps_offset` and `clip_sample` of a model's own scheduler.
DDIM_DATED = {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": True, "steps_offset": 0, "set_alpha_to_one": False}
EULER = {"_class_name": "EulerDiscreteScheduler", **BETAS, "prediction_type": "epsilon", "steps_offset": 1}
EULER |= {"timestep_spacing": "leading", "interpolation_type": "linear", "use_karras_sigmas": False}
EULER |= {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "trained_betas": None}
EULER |= {"sample_max_value": 1.0}


def write_weights(path: Path, component: str, shapes: dict) -> None:
    """A safetensors file of formula weights."""
    tensors = {key: torch.from_numpy(inputs.weight(f"{component}/{key}", shape)) for key, shape in shapes.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})


def shapes_of(path: Path) -> dict:
    """Key to shape of the float tensors of a safetensors file."""
    with safe_open(path, "pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}


def save(folder: Path, component: str, model) -> None:
    """`save_pretrained` in one file, with the weights replaced."""
    model.save_pretrained(folder / component)
    path = next((folder / component).glob("*.safetensors"))
    write_weights(path, component, shapes_of(path))


@dataclass(frozen=True)
class Sizes:
    """Widths: small ones, or those by which single files are recognised (32 groups, heads of 64, the texts' widths)."""

    unet: tuple
    heads: tuple
    groups: int
    vae: tuple
    vae_groups: int
    text: tuple
    text_heads: tuple
    text_layers: tuple
    projection: int = 14
    features: int = 8

    @property
    def norms(self) -> dict:
        """What every UNet of these sizes has."""
        return {"block_out_channels": self.unet, "norm_num_groups": self.groups, "attention_head_dim": self.heads}


EIGHTH, HALF = (4, 4, 8, 8), (4, 8)  # channels of autoencoders that halve the picture three times, once
SD1 = Sizes((8, 16, 16), 2, 4, EIGHTH, 2, (12,), (2,), (3,))
SD2 = Sizes((8, 16, 16), (2, 4, 4), 4, HALF, 2, (20,), (2,), (2,))
SDXL = Sizes((8, 16, 16), (2, 2, 4), 4, EIGHTH, 2, (8, 16), (2, 2), (3, 4))
SDXL_EMPTY = replace(SDXL, vae=HALF)
REFINER = Sizes((8, 8, 16, 16), (2, 2, 4, 4), 4, EIGHTH, 2, (16,), (2,), (4,))
WIDE = {"groups": 32, "vae": (32, 32, 64, 64), "vae_groups": 32, "projection": 1280, "features": 256}
WIDE_SD1 = replace(SD1, unet=(32, 64, 64), heads=8, text=(768,), text_heads=(12,), **WIDE)
WIDE_SD2 = replace(SD2, unet=(64, 128, 128), heads=(1, 2, 2), text=(1024,), text_heads=(16,), **WIDE)
WIDE_SDXL = replace(SDXL, unet=(64, 128, 128), heads=(1, 2, 2), text=(768, 1280), text_heads=(12, 20), text_layers=(2, 2), **WIDE)
WIDE_REFINER = replace(REFINER, unet=(64, 64, 128, 128), heads=(1, 1, 2, 2), text=(1280,), text_heads=(20,), text_layers=(2,), **WIDE)


def unet(**changes) -> UNet2DConditionModel:
    """SD1's skeleton: attention on the first two levels, two resblocks a level."""
    config = {
        "sample_size": 6,
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**config | changes)


def vae(scale: float, sizes: Sizes, **changes) -> AutoencoderKL:
    """As many levels as channels, each but the last halving the picture."""
    count = len(sizes.vae)
    return AutoencoderKL(
        block_out_channels=sizes.vae,
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=sizes.vae_groups,
        sample_size=48,
        scaling_factor=scale,
        **changes,
    )


def text_config(sizes: Sizes, which: int, act: str, projection=None) -> CLIPTextConfig:
    """A CLIP text encoder. The end token 2 is what published files say: transformers then pools at the largest id."""
    width = sizes.text[which]
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=sizes.text_layers[which],
        num_attention_heads=sizes.text_heads[which],
        hidden_act=act,
        projection_dim=projection or width,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


def save_text(folder: Path, component: str, model, published: bool) -> None:
    """Weights with transformers' keys of now, or of then: `text_model.` in front and the buffer `position_ids`."""
    save(folder, component, model)
    if not published:
        return
    path = folder / component / "model.safetensors"
    own = {"text_projection.weight"}
    prefix = lambda key: key if key in own or key.startswith("text_model.") else f"text_model.{key}"
    named = {prefix(key): shape for key, shape in shapes_of(path).items()}
    tensors = {key: torch.from_numpy(inputs.weight(f"{component}/{key}", shape)) for key, shape in named.items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(tensors, path, metadata={"format": "pt"})


def write_index(folder: Path, pipeline: str, parts: dict, **fields) -> None:
    """`model_index.json` and the scheduler's file."""
    index = {"_class_name": pipeline, "_diffusers_version": "0.42.1", **fields, **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_scheduler(folder: Path, config: dict) -> None:
    """`scheduler/scheduler_config.json`."""
    (folder / "scheduler").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")


SD_PARTS = {
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "image_encoder": [None, None],
}
XL_PARTS = SD_PARTS | {
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
del XL_PARTS["safety_checker"]


def sd1(folder: Path, channels: int, sizes: Sizes = SD1, scheduler: dict = PNDM) -> None:
    """Stable Diffusion 1, or its inpainting variant with 9 input channels."""
    save(folder, "unet", unet(**sizes.norms, in_channels=channels, cross_attention_dim=sizes.text[0]))
    save(folder, "vae", vae(0.18215, sizes))
    save_text(folder, "text_encoder", CLIPTextModel(text_config(sizes, 0, "quick_gelu")), published=True)
    inputs.write_tokenizer(folder / "tokenizer", inputs.END)
    write_scheduler(folder, scheduler)
    pipeline = "StableDiffusionPipeline" if channels == 4 else "StableDiffusionInpaintPipeline"
    parts = SD_PARTS | {"scheduler": ["diffusers", scheduler["_class_name"]]}
    write_index(folder, pipeline, parts, requires_safety_checker=False)


def sd2(folder: Path, sizes: Sizes = SD2) -> None:
    """Stable Diffusion 2: its text encoder ends at the layer that is used, one before OpenCLIP's last."""
    changes = {"use_linear_projection": True, "cross_attention_dim": sizes.text[0], "upcast_attention": True}
    save(folder, "unet", unet(**sizes.norms, **changes, layers_per_block=1))
    save(folder, "vae", vae(0.18215, sizes))
    save_text(folder, "text_encoder", CLIPTextModel(text_config(sizes, 0, "gelu", 16)), published=False)
    inputs.write_tokenizer(folder / "tokenizer", "!")
    write_scheduler(folder, DDIM_V)
    parts = SD_PARTS | {"scheduler": ["diffusers", "DDIMScheduler"]}
    write_index(folder, "StableDiffusionPipeline", parts, requires_safety_checker=False)


def sdxl(folder: Path, channels: int, sizes: Sizes = SDXL, zeros: bool = True) -> None:
    """Stable Diffusion XL: levels without, with one and with two transformer blocks."""
    xl = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": sizes.features,
        "projection_class_embeddings_input_dim": 6 * sizes.features + sizes.projection,
        "cross_attention_dim": sum(sizes.text),
        "in_channels": channels,
    }
    save(folder, "unet", unet(**sizes.norms, **xl))
    save(folder, "vae", vae(0.13025, sizes, force_upcast=True))
    save_text(folder, "text_encoder", CLIPTextModel(text_config(sizes, 0, "quick_gelu")), published=True)
    second = CLIPTextModelWithProjection(text_config(sizes, 1, "gelu", sizes.projection))
    save_text(folder, "text_encoder_2", second, published=True)
    inputs.write_tokenizer(folder / "tokenizer", inputs.END)
    inputs.write_tokenizer(folder / "tokenizer_2", "!")
    write_scheduler(folder, EULER)
    pipeline = "StableDiffusionXLPipeline" if channels == 4 else "StableDiffusionXLInpaintPipeline"
    scheduler = {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    write_index(folder, pipeline, XL_PARTS | scheduler, force_zeros_for_empty_prompt=zeros)


def sd1_scattered(folder: Path) -> None:
    """sd1 with a UNet in shards and PyTorch's own files for the rest."""
    sd1(folder, 4)
    state = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    model = UNet2DConditionModel.from_config(folder / "unet")
    model.load_state_dict(state)
    model.save_pretrained(folder / "unet", max_shard_size="200KB")
    for component, name in [("vae", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")]:
        path = next((folder / component).glob("*.safetensors"))
        torch.save(load_file(path), folder / component / f"{name}.bin")
        path.unlink()


def refiner(folder: Path, sizes: Sizes = REFINER) -> None:
    """SDXL's refiner: the second text encoder alone, four levels, five size numbers (one is an aesthetic score)."""
    changes = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": 2,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": sizes.features,
        "projection_class_embeddings_input_dim": 5 * sizes.features + sizes.projection,
        "cross_attention_dim": sizes.text[0],
        "layers_per_block": 1,
    }
    save(folder, "unet", unet(**sizes.norms, **changes))
    save(folder, "vae", vae(0.13025, sizes, force_upcast=True))
    second = CLIPTextModelWithProjection(text_config(sizes, 0, "gelu", sizes.projection))
    save_text(folder, "text_encoder_2", second, published=True)
    inputs.write_tokenizer(folder / "tokenizer_2", "!")
    write_scheduler(folder, EULER)
    parts = XL_PARTS | {"text_encoder": [None, None], "tokenizer": [None, None]}
    parts["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    fields = {"force_zeros_for_empty_prompt": False, "requires_aesthetics_score": True}
    write_index(folder, "StableDiffusionXLImg2ImgPipeline", parts, **fields)


MODELS = {
    "sd1": lambda folder: sd1(folder, 4),
    "sd1_dated": lambda folder: sd1(folder, 4, scheduler=DDIM_DATED),
    "sd1_scattered": sd1_scattered,
    "sd1_inpaint": lambda folder: sd1(folder, 9),
    "sd2": sd2,
    "sdxl": lambda folder: sdxl(folder, 4),
    "sdxl_empty": lambda folder: sdxl(folder, 4, SDXL_EMPTY, zeros=False),
    "sdxl_inpaint": lambda folder: sdxl(folder, 9),
    "refiner": refiner,
}
RECOGNISED = {
    "wide_sd1": lambda folder: sd1(folder, 4, WIDE_SD1),
    "wide_sd1_inpaint": lambda folder: sd1(folder, 9, WIDE_SD1),
    "wide_sd2": lambda folder: sd2(folder, WIDE_SD2),
    "wide_sdxl": lambda folder: sdxl(folder, 4, WIDE_SDXL),
    "wide_refiner": lambda folder: refiner(folder, WIDE_REFINER),
}


def write_all(root: Path) -> None:
    """Every small model under `root/models`."""
    torch.manual_seed(0)
    for name, write in MODELS.items():
        write(root / "models" / name)
