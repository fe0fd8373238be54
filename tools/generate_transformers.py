"""Tiny pipelines of diffusion transformers in diffusers' layout, weights by `generate_inputs.weight`.

    dit                     classes, learned variance (dropped), DDIM
    pixart_alpha, _1024     T5 from spiece.model alone; bins of 256 and of 1024 (told its size and aspect)
    pixart_sigma            bins of 512, SDXL's VAE scale
    sd3, sd3_no_t5, sd35    two CLIPs and T5; without T5; dual attention and norms of queries and keys
    flux, flux_schnell      guidance embedded, dynamic shift; neither
    flux_fill               masked picture and mask as channels
    flux_kontext            a VAE of 32 pixels a latent, so that its megapixel is small
    redux                   SigLIP and its embedder
    auraflow, chroma        UMT5; T5 alone with an approximator
    lumina2, z_image        Gemma2; Qwen3
    qwen_image              Qwen2.5-VL, causal three-dimensional VAE
    sana, sana_dynamic      Gemma2, DC-AE
    flux2, flux2_klein      Mistral 3, Qwen3; batch norm between VAE and transformer; klein_distilled too
    prx                     T5Gemma

A pipeline's `save_pretrained` writes the folder; then the weights are replaced. Positional tables that a file carries as a
buffer (SD3's `pos_embed.pos_embed`) stay what they are. Text encoders have as many layers as the pipeline's choice of states needs.
"""

import json
import shutil
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaConfig, T5GemmaModuleConfig

import generate_inputs as inputs
import generate_models as models
import generate_tokenizers as tokenizers

LINEAR = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}


def flow(**changes) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**changes)


def vae(channels: tuple, scale: float, shift=None, **changes) -> AutoencoderKL:
    """As many levels as channels, each but the last halving the picture; with a shift, without quantisation convolutions."""
    if shift is not None:
        changes |= {"shift_factor": shift, "use_quant_conv": False, "use_post_quant_conv": False}
    sizes = models.Sizes((), 0, 0, channels, 2, (), (), ())
    return models.vae(scale, sizes, **changes)


FLUX_VAE = (0.3611, 0.1159)
SD3_VAE = (1.5305, 0.0609)


class Parts:
    """The tokenizers and text encoders of a pipeline, whose tokenizers are written as its folder has them."""

    def __init__(self, folder: Path):
        self.folder = folder

    def tokenizer(self, kind: str, name: str = "tokenizer"):
        tokenizers.WRITERS[kind](self.folder / name)
        return AutoTokenizer.from_pretrained(self.folder / name)

    def clip(self, pad: str, name: str = "tokenizer") -> CLIPTokenizer:
        inputs.write_tokenizer(self.folder / name, pad)
        return CLIPTokenizer.from_pretrained(self.folder / name)


def t5(vocabulary: int, kind: str = "T5", width: int = 32):
    """T5 v1.1 or UMT5: gated feed-forward of tanh-GELU, heads narrower than width / heads, far buckets within twenty tokens."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=vocabulary, d_model=width, d_kv=6, d_ff=37, num_layers=3, num_heads=4, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0.0,
    )  # fmt: skip
    return getattr(transformers, f"{kind}EncoderModel")(config)


def clip(width: int, layers: int, act: str, projection=None):
    """A CLIP text encoder, with its projection if that has a width."""
    sizes = models.Sizes((), 0, 0, (), 0, (width,), (2,), (layers,))
    config = models.text_config(sizes, 0, act, projection)
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


# Grouped queries of two heads a key, heads that are not width / heads.
LLM = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
LLM |= {"max_position_embeddings": 4096, "tie_word_embeddings": True}
ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
GEMMA = {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0, "sliding_window": 8}
GEMMA |= {"rope_parameters": ROPE, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}


def gemma2(vocabulary: int):
    return transformers.Gemma2Model(transformers.Gemma2Config(vocab_size=vocabulary, num_hidden_layers=4, **LLM, **GEMMA))


def qwen3(vocabulary: int, layers: int, head: bool):
    rope = {"rope_theta": 1000000.0, "rope_type": "default"}
    whole = {"rope_parameters": rope, "use_sliding_window": False}
    config = transformers.Qwen3Config(vocab_size=vocabulary, num_hidden_layers=layers, **LLM, **whole)
    return (transformers.Qwen3ForCausalLM if head else transformers.Qwen3Model)(config)


def qwen_vl(vocabulary: int):
    rope = {"rope_theta": 1000000.0, "rope_type": "default", "mrope_section": [1, 1, 1]}
    wide = {key: value for key, value in LLM.items() if key != "head_dim"} | {"hidden_size": 24}
    text = {"vocab_size": vocabulary, "num_hidden_layers": 3, **wide, "rope_parameters": rope, "use_sliding_window": False}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 24}
    vision |= {"fullatt_block_indexes": [1]}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def mistral3(vocabulary: int):
    rope = {"rope_theta": 1000000000.0, "rope_type": "default"}
    text = {"model_type": "mistral", "vocab_size": vocabulary, "num_hidden_layers": 32, **LLM}
    text |= {"rope_parameters": rope, "sliding_window": None}
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2}
    vision |= {"image_size": 32, "patch_size": 8, "head_dim": 8}
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=7, tie_word_embeddings=False)
    return transformers.Mistral3ForConditionalGeneration(config)


def t5gemma(vocabulary: int):
    module = T5GemmaModuleConfig(vocab_size=vocabulary, num_hidden_layers=3, **LLM, **GEMMA, dropout_rate=0.0)
    return diffusers.pipelines.prx.T5GemmaEncoder(module), T5GemmaConfig(encoder=module, decoder=module, vocab_size=vocabulary)


def dit(folder: Path):
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=1000, attention_bias=True, activation_fn="gelu-approximate",
    )  # fmt: skip
    scheduler = DDIMScheduler(**LINEAR, clip_sample=False, set_alpha_to_one=True, steps_offset=0)
    return diffusers.DiTPipeline(net, vae((4, 8), 0.18215), scheduler)


def pixart(folder: Path, sigma: bool, sample: int, patch: int, conditions: bool):
    parts = Parts(folder)
    tokenizer = parts.tokenizer("t5_nfkc" if sigma else "t5_old")
    net = diffusers.PixArtTransformer2DModel(
        num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, cross_attention_dim=24,
        sample_size=sample, patch_size=patch, caption_channels=32, use_additional_conditions=conditions,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(**LINEAR)
    kind = diffusers.PixArtSigmaPipeline if sigma else diffusers.PixArtAlphaPipeline
    encoder = t5(tokenizers.length(folder / "tokenizer") + 6)
    return kind(tokenizer, encoder, vae(models.EIGHTH, 0.13025 if sigma else 0.18215), net, scheduler)


def sd3(folder: Path, dual: tuple = (), norm=None, with_t5: bool = True):
    parts = Parts(folder)
    first, second = parts.clip(inputs.END), parts.clip("!", "tokenizer_2")
    third = parts.tokenizer("t5", "tokenizer_3") if with_t5 else None
    net = diffusers.SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=3, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=24, pos_embed_max_size=24,
        dual_attention_layers=dual, qk_norm=norm,
    )  # fmt: skip
    encoders = {"text_encoder": clip(8, 3, "quick_gelu", 10), "text_encoder_2": clip(16, 4, "gelu", 14)}
    encoders["text_encoder_3"] = t5(tokenizers.length(folder / "tokenizer_3") + 6) if with_t5 else None
    named = {"tokenizer": first, "tokenizer_2": second, "tokenizer_3": third, **encoders}
    return diffusers.StableDiffusion3Pipeline(transformer=net, scheduler=flow(shift=3.0), vae=vae(models.HALF, *SD3_VAE), **named)


def flux_net(channels: int, guidance: bool):
    return diffusers.FluxTransformer2DModel(
        in_channels=channels, out_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=12, guidance_embeds=guidance, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


def flux(folder: Path, kind: str = "", channels: int = 16, guidance: bool = True, levels: tuple = models.HALF):
    parts = Parts(folder)
    named = {"tokenizer": parts.clip(inputs.END), "tokenizer_2": parts.tokenizer("t5", "tokenizer_2")}
    named |= {"text_encoder": clip(12, 3, "quick_gelu"), "text_encoder_2": t5(tokenizers.length(folder / "tokenizer_2") + 6)}
    scheduler = flow(shift=3.0, **DYNAMIC) if guidance else flow(shift=1.0)
    net = flux_net(channels, guidance)
    return getattr(diffusers, f"Flux{kind}Pipeline")(scheduler=scheduler, vae=vae(levels, *FLUX_VAE), transformer=net, **named)


def redux(folder: Path):
    config = transformers.SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
    )  # fmt: skip
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32}, resample=3, **half)
    encoder = transformers.SiglipVisionModel(config)
    return diffusers.FluxPriorReduxPipeline(encoder, processor, ReduxImageEncoder(redux_dim=16, txt_in_features=32))


def auraflow(folder: Path):
    tokenizer = Parts(folder).tokenizer("llama")
    net = diffusers.AuraFlowTransformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_mmdit_layers=2, num_single_dit_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, out_channels=4, pos_embed_max_size=256,
    )  # fmt: skip
    encoder = t5(tokenizers.length(folder / "tokenizer") + 6, "UMT5")
    return diffusers.AuraFlowPipeline(tokenizer, encoder, vae(models.HALF, 0.13025), net, flow(shift=1.73))


def chroma(folder: Path):
    tokenizer = Parts(folder).tokenizer("t5")
    net = diffusers.ChromaTransformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32,
        axes_dims_rope=(4, 4, 8), approximator_num_channels=16, approximator_hidden_dim=24, approximator_layers=2,
    )  # fmt: skip
    encoder = t5(tokenizers.length(folder / "tokenizer") + 6)
    return diffusers.ChromaPipeline(flow(shift=3.0, **DYNAMIC), vae(models.HALF, *FLUX_VAE), encoder, tokenizer, net)


def lumina2(folder: Path):
    tokenizer = Parts(folder).tokenizer("gemma")
    net = diffusers.Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=32, num_layers=2, num_refiner_layers=1, num_attention_heads=4,
        num_kv_heads=2, multiple_of=8, axes_dim_rope=(4, 2, 2), axes_lens=(300, 32, 32), cap_feat_dim=16,
    )  # fmt: skip
    encoder = gemma2(tokenizers.length(folder / "tokenizer"))
    return diffusers.Lumina2Pipeline(net, flow(shift=6.0), vae(models.EIGHTH, *FLUX_VAE), encoder, tokenizer)


def z_image(folder: Path):
    tokenizer = Parts(folder).tokenizer("qwen")
    net = diffusers.ZImageTransformer2DModel(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[640, 64, 64],
    )  # fmt: skip
    encoder = qwen3(tokenizers.length(folder / "tokenizer"), 3, head=False)
    return diffusers.ZImagePipeline(flow(shift=3.0), vae(models.HALF, *FLUX_VAE), encoder, tokenizer, net)


def qwen_image(folder: Path):
    tokenizer = Parts(folder).tokenizer("qwen")
    net = diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    autoencoder = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True],
        latents_mean=[-0.3, 0.1, 0.25, -0.05], latents_std=[1.5, 0.8, 1.1, 2.0],
    )  # fmt: skip
    steps = DYNAMIC | {"max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02, "shift": 1.0}
    encoder = qwen_vl(tokenizers.length(folder / "tokenizer"))
    return diffusers.QwenImagePipeline(flow(**steps, time_shift_type="exponential"), autoencoder, encoder, tokenizer, net)


def dc_ae() -> AutoencoderDC:
    blocks, channels = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3, (4, 4, 8, 8, 16, 16)
    return AutoencoderDC(
        latent_channels=8, attention_head_dim=4, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=channels, decoder_block_out_channels=channels, encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6, encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
        decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)), upsample_block_type="interpolate",
        downsample_block_type="Conv", scaling_factor=0.41407,
    )  # fmt: skip


def sana(folder: Path, dynamic: bool = False):
    tokenizer = Parts(folder).tokenizer("gemma")
    net = diffusers.SanaTransformer2DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8, num_layers=2, num_cross_attention_heads=2,
        cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16, mlp_ratio=2.5, sample_size=16, patch_size=1,
        qk_norm="rms_norm_across_heads" if dynamic else None, timestep_scale=1.0,
    )  # fmt: skip
    steps = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0, "solver_order": 2}
    scheduler = flow(shift=3.0) if dynamic else DPMSolverMultistepScheduler(**LINEAR, **steps)
    return diffusers.SanaPipeline(tokenizer, gemma2(tokenizers.length(folder / "tokenizer")), dc_ae(), net, scheduler)


def flux2_parts(guidance: bool) -> dict:
    net = diffusers.Flux2Transformer2DModel(
        in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=48,
        timestep_guidance_channels=32, mlp_ratio=3.0, axes_dims_rope=(4, 4, 4, 4), rope_theta=2000, guidance_embeds=guidance,
    )  # fmt: skip
    autoencoder = AutoencoderKLFlux2(
        latent_channels=4, block_out_channels=models.HALF, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=2, sample_size=48,
    )  # fmt: skip
    return {"transformer": net, "vae": autoencoder, "scheduler": flow(shift=3.0, **DYNAMIC)}


def flux2(folder: Path):
    tokenizer = Parts(folder).tokenizer("pixtral")
    encoder = mistral3(tokenizers.length(folder / "tokenizer"))
    return diffusers.Flux2Pipeline(**flux2_parts(True), tokenizer=tokenizer, text_encoder=encoder)


def klein(folder: Path, distilled: bool):
    tokenizer = Parts(folder).tokenizer("qwen")
    encoder = qwen3(tokenizers.length(folder / "tokenizer"), 29, head=True)
    return diffusers.Flux2KleinPipeline(**flux2_parts(False), tokenizer=tokenizer, text_encoder=encoder, is_distilled=distilled)


def prx(folder: Path):
    tokenizer = Parts(folder).tokenizer("gemma_short")
    net = diffusers.PRXTransformer2DModel(
        in_channels=4, patch_size=2, context_in_dim=16, hidden_size=16, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[4, 4],
    )  # fmt: skip
    encoder, _ = t5gemma(tokenizers.length(folder / "tokenizer"))
    return diffusers.PRXPipeline(net, flow(shift=3.0), encoder, tokenizer, vae(models.EIGHTH, *FLUX_VAE), default_sample_size=256)


MODELS = {
    "dit": dit,
    "pixart_alpha": lambda folder: pixart(folder, False, 32, 2, False),
    "pixart_alpha_1024": lambda folder: pixart(folder, False, 128, 8, True),
    "pixart_sigma": lambda folder: pixart(folder, True, 64, 4, False),
    "sd3": sd3,
    "sd3_no_t5": lambda folder: sd3(folder, with_t5=False),
    "sd35": lambda folder: sd3(folder, (0, 1), "rms_norm"),
    "flux": flux,
    "flux_schnell": lambda folder: flux(folder, guidance=False),
    "flux_fill": lambda folder: flux(folder, "Fill", 16 + 16 + 16),
    "flux_kontext": lambda folder: flux(folder, "Kontext", levels=(4, 4, 4, 4, 8, 8)),
    "redux": redux,
    "auraflow": auraflow,
    "chroma": chroma,
    "lumina2": lumina2,
    "z_image": z_image,
    "qwen_image": qwen_image,
    "sana": sana,
    "sana_dynamic": lambda folder: sana(folder, True),
    "flux2": flux2,
    "flux2_klein": lambda folder: klein(folder, False),
    "flux2_klein_distilled": lambda folder: klein(folder, True),
    "prx": prx,
}


def replace_weights(path: Path, prefix: str) -> None:
    """The formula's values for all but whole numbers and tables of positions; keys as published files have them."""
    component, tensors = path.parent.name, {}
    for key, tensor in load_file(path).items():
        key = prefix + key
        # AuraFlow learns its positions; SD3's are a table.
        table = key == "pos_embed.pos_embed" and "auraflow" not in path.parts
        kept = table or not tensor.is_floating_point()
        tensors[key] = tensor if kept else torch.from_numpy(inputs.weight(f"{component}/{key}", tensor.shape))
    save_file(tensors, path, metadata={"format": "pt"})


def prefix(folder: Path, component: str) -> str:
    """What published files have in front of keys where transformers 5 writes nothing (flux_schnell stays as that writes it)."""
    config = json.loads((folder / component / "config.json").read_text())
    fronts = {"CLIPTextModel": "text_model.", "SiglipVisionModel": "vision_model."}
    return "" if folder.name == "flux_schnell" else fronts.get(config.get("architectures", [""])[0], "")


def write(root: Path, name: str) -> None:
    """A pipeline's folder: `save_pretrained`, then tokenizers' own files again and weights by formula."""
    folder = root / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pipe = MODELS[name](folder)
    for place in folder.glob("tokenizer*"):
        place.rename(place.with_name("own_" + place.name))
    pipe.save_pretrained(folder)
    for place in folder.glob("own_*"):
        shutil.rmtree(folder / place.name.removeprefix("own_"), ignore_errors=True)
        place.rename(folder / place.name.removeprefix("own_"))
    for path in folder.glob("*/*.safetensors"):
        replace_weights(path, prefix(folder, path.parent.name))
    adjust(folder, name)


def adjust(folder: Path, name: str) -> None:
    """What published folders say otherwise than `save_pretrained` does."""
    index = json.loads((folder / "model_index.json").read_text())
    if name == "dit":
        index["id2label"] = {"88": "macaw", "207": "golden retriever, goldie", "360": "otter"}
    if name == "flux2":
        index["tokenizer"] = ["transformers", "PixtralProcessor"]
    if name == "redux":
        index["feature_extractor"] = ["transformers", "SiglipImageProcessor"]
    if name == "prx":  # the encoder's file holds the configuration of both halves of T5Gemma
        index["text_encoder"] = ["transformers", "T5GemmaEncoder"]
        _, config = t5gemma(tokenizers.length(folder / "tokenizer"))
        config.architectures = ["T5GemmaEncoder"]
        config.save_pretrained(folder / "text_encoder")
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_all(root: Path, chosen=tuple(MODELS)) -> None:
    """The chosen models under `root/models`."""
    torch.manual_seed(0)
    for name in chosen:
        write(root, name)
