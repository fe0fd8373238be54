"""Writes canvas-vae/tests/fixtures/families: what diffusers answers for the autoencoders of DiT's descendants.

    /tmp/venv/bin/python tools/fixtures_autoencoders.py

Both sides fill their weights by a closed formula of the published name, so a fixture holds outputs, and of each
parameter's gradient its length and two projections. `cases.json` holds the published names with their shapes, and
`published.json` the configurations of published models with a digest of their names and shapes. The reference runs in
f64, in evaluation mode.
"""

import functools
import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderKLFlux2, AutoencoderKLQwenImage, AutoencoderRAE, Flux2Pipeline
from diffusers.models.autoencoders import autoencoder_rae
from safetensors.torch import save_file
from transformers import SiglipVisionModel

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-vae" / "tests" / "fixtures" / "families"
CASES = {}


def wave(shape, seed):
    """`sin(0.37 i + 0.011 i^2 + seed)`, rounded to f32."""
    index = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.from_numpy(np.sin(0.37 * index + 0.011 * index**2 + seed).astype(np.float32).reshape(shape)).double()


def value(name, shape):
    """A chirp; of what multiplies, around 1."""
    shape = tuple(shape) or (1,)
    index = np.arange(int(np.prod(shape)), dtype=np.float64)
    chirp = np.sin(0.7 * index + 0.013 * index * index + float(formula.fnv1a(name) % 1000))
    long = [n for n in shape if n > 1]
    if len(long) < 2 and name.endswith(("weight", "gamma", "running_var", "lambda1", "std")):
        return (1.0 + 0.1 * chirp).astype(np.float32).reshape(shape)
    fan_in = 16 if len(long) < 2 else int(np.prod(shape)) // long[0]
    return (chirp * np.sqrt(2.0 / fan_in)).astype(np.float32).reshape(shape)


def key(model, name):
    """The name in a file: of SigLIP's parts that of transformers 4, which diffusers 0.42.1 is written for."""
    siglip = isinstance(getattr(model, "encoder", None), SiglipVisionModel) and name.startswith("encoder.")
    return name.replace("encoder.", "encoder.vision_model.", 1) if siglip else name


def filled(model):
    model = model.eval()
    fresh = lambda name, old: torch.from_numpy(value(key(model, name), old.shape)).reshape(old.shape)
    state = {name: fresh(name, old) for name, old in model.state_dict().items()}
    model.load_state_dict(state)
    model.requires_grad_(True)
    return model.double()


def sketch(grad):
    """Length, and products with two waves."""
    return [grad.norm().item()] + [(grad * wave(grad.shape, seed)).sum().item() for seed in (5.0, 6.0)]


def write(case, model, size, run, seed=0.0):
    """`run` answers tensors, `image` among them, whose product with a wave is what gradients are of."""
    images = wave((2, 3, *size), seed).requires_grad_()
    out = run(images)
    (out["image"] * wave(out["image"].shape, 1.0)).sum().backward()
    grads = {key(model, name): param.grad for name, param in model.named_parameters() if param.grad is not None}
    grads["images"] = images.grad
    names = sorted(grads)
    out["gradients"] = torch.tensor([sketch(grads[name]) for name in names])
    CASES[case] = {
        "shapes": {key(model, name): list(old.shape) for name, old in model.state_dict().items()},
        "gradients": names,
        "seed": seed,
    }
    out = {name: tensor.detach().float().contiguous() for name, tensor in out.items()}
    # One key only: safetensors writes several in any order, and the file should not change when nothing did.
    notes = {"source": f"tools/fixtures_autoencoders.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(out, FOLDER / f"{case}.safetensors", metadata=notes)
    (FOLDER / f"{case}.safetensors").chmod(0o644)
    print(case, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in out.items()})
    print("  smallest gradient", min((grads[name].norm().item(), name) for name in names))


DC = {
    # Linear attention with two further scales; convolutions of stride 2, doubled places.
    "dc": (
        (16, 24),
        dict(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_types=["ResBlock", "ResBlock", "EfficientViTBlock"],
            decoder_block_types=["ResBlock", "EfficientViTBlock", "EfficientViTBlock"],
            encoder_block_out_channels=(4, 8, 16),
            decoder_block_out_channels=(4, 8, 8),
            encoder_layers_per_block=(1, 1, 2),
            decoder_layers_per_block=(1, 2, 1),
            encoder_qkv_multiscales=((), (), (5, 3)),
            decoder_qkv_multiscales=((), (), (3,)),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
        ),
    ),
    # Few places, for which diffusers multiplies in the other order; folded squares; no blocks at the image; batch norms.
    "dc_few": (
        (8, 16),
        dict(
            latent_channels=3,
            attention_head_dim=8,
            encoder_block_types=["ResBlock", "ResBlock", "EfficientViTBlock"],
            decoder_block_types=["ResBlock", "ResBlock", "EfficientViTBlock"],
            encoder_block_out_channels=(5, 8, 16),
            decoder_block_out_channels=(5, 4, 16),
            encoder_layers_per_block=(0, 2, 1),
            decoder_layers_per_block=(0, 1, 1),
            encoder_qkv_multiscales=((), (), ()),
            decoder_qkv_multiscales=((), (), (3,)),
            decoder_norm_types=["batch_norm", "batch_norm", "batch_norm"],
            decoder_act_fns=["relu", "relu", "silu"],
            encoder_out_shortcut=False,
            decoder_in_shortcut=False,
            decoder_conv_act_fn="silu",
        ),
    ),
}


def clear_of_kinks(model, size):
    """Seed of images for which no ReLU sees a number so near 0 that roundings of f32 might change its sign.

    Where they do, gradients jump: a weight of the linear attention's may be as small as it likes.
    """
    near = []

    def look(_module, inputs, _output):
        near.append((inputs[0].abs().min() / inputs[0].abs().max()).item())

    hooks = [part.register_forward_hook(look) for part in model.modules() if isinstance(part, torch.nn.ReLU)]
    margins = {}
    for seed in range(40):
        near.clear()
        with torch.no_grad():
            model(wave((2, 3, *size), float(seed)))
        margins[float(seed)] = min(near)
    for hook in hooks:
        hook.remove()
    best = max(margins, key=margins.get)
    print(f"seed {best}: nothing nearer to 0 than {margins[best]:.1e} of the largest")
    return best


def dc(case):
    size, options = DC[case]
    model = filled(AutoencoderDC(**options))

    def run(images):
        latents = model.encode(images).latent
        return {"mean": latents, "image": model.decode(latents).sample}

    write(case, model, size, run, clear_of_kinks(model, size))


def flux2():
    levels = dict(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    options = dict(block_out_channels=(8, 16), decoder_block_out_channels=(8, 12), layers_per_block=1, latent_channels=3)
    model = filled(AutoencoderKLFlux2(norm_num_groups=4, batch_norm_eps=0.01, **levels, **options))
    fold, unfold = Flux2Pipeline._patchify_latents, Flux2Pipeline._unpatchify_latents

    def run(images):
        posterior = model.encode(images).latent_dist
        mean, log_variance, std = fold(posterior.mean), fold(posterior.logvar), fold(posterior.std)
        spread = torch.sqrt(model.bn.running_var.view(1, -1, 1, 1) + model.config.batch_norm_eps)
        normalised = (mean - model.bn.running_mean.view(1, -1, 1, 1)) / spread
        image = model.decode(unfold(mean + std * wave(mean.shape, 2.0))).sample
        return {"mean": mean, "log_variance": log_variance, "normalised": normalised, "image": image}

    write("flux2", model, (8, 12), run)


def qwen():
    options = dict(base_dim=4, z_dim=3, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True])
    model = filled(AutoencoderKLQwenImage(**options))

    def run(images):
        posterior = model.encode(images.unsqueeze(2)).latent_dist
        latents = posterior.mean + posterior.std * wave(posterior.mean[:, :, 0].shape, 2.0).unsqueeze(2)
        # As decode(), without its clamp, which hides gradients.
        image = model.decoder(model.post_quant_conv(latents))
        assert torch.equal(image.clamp(-1, 1), model.decode(latents).sample)
        return {"mean": posterior.mean[:, :, 0], "log_variance": posterior.logvar[:, :, 0], "image": image[:, :, 0]}

    write("qwen", model, (8, 12), run)


# transformers 5 has no such part any more, and diffusers 0.42.1 asks for it.
SiglipVisionModel.vision_model = property(lambda self: self)


def rae(kind, **options):
    """Images of another side than the encoder's are resized, its table of positions always."""
    small = dict(
        encoder_type=kind,
        encoder_hidden_size=8,
        encoder_num_hidden_layers=2,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=20,
    )
    build = autoencoder_rae._build_encoder
    autoencoder_rae._build_encoder = functools.partial(build, head_dim=4)
    model = filled(AutoencoderRAE(**small, **options))
    autoencoder_rae._build_encoder = build

    def run(images):
        latents = model.encode((images + 1) / 2).latent
        return {"mean": latents, "image": model.decode(latents).sample * 2 - 1}

    write(f"rae_{kind}", model, (model.decoder_image_size,) * 2, run)


def digest(model):
    """FNV-1a of every name with its shape, but of what a reader leaves out, and the number of parameters."""
    left_out = ("time_conv", "num_batches_tracked", "mask_token", "encoder.head.")
    kept = lambda name: not any(part in name for part in left_out)
    state = {key(model, name): old for name, old in model.state_dict().items() if kept(name)}
    lines = "".join(f"{name} {list(state[name].shape)}\n" for name in sorted(state))
    return {
        "config": json.loads(model.to_json_string()),
        "digest": f"{formula.fnv1a(lines):016x}",
        "parameters": sum(param.numel() for param in model.parameters()),
    }


def published():
    """The configurations of published weights, as diffusers writes them."""
    three, attends = ["ResBlock"] * 3, ["EfficientViTBlock"] * 3
    sana = dict(
        encoder_block_types=three + attends,
        decoder_block_types=three + attends,
        encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    f64 = dict(
        latent_channels=128,
        encoder_block_types=three + ["EfficientViTBlock"] * 4,
        decoder_block_types=three + ["EfficientViTBlock"] * 4,
        encoder_block_out_channels=(128, 256, 512, 512, 1024, 1024, 2048),
        decoder_block_out_channels=(128, 256, 512, 512, 1024, 1024, 2048),
        encoder_layers_per_block=(0, 4, 8, 2, 2, 2, 2),
        decoder_layers_per_block=(0, 5, 10, 2, 2, 2, 2),
        encoder_qkv_multiscales=((),) * 7,
        decoder_qkv_multiscales=((),) * 7,
        decoder_norm_types=["batch_norm"] * 3 + ["rms_norm"] * 4,
        decoder_act_fns=["relu"] * 3 + ["silu"] * 4,
    )
    large = dict(decoder_hidden_size=1152, decoder_num_hidden_layers=28, decoder_intermediate_size=4096)
    with torch.device("meta"):
        models = {
            "sana": AutoencoderDC(**sana),
            "f64": AutoencoderDC(**f64),
            "flux2": AutoencoderKLFlux2(),
            "flux2_small": AutoencoderKLFlux2(decoder_block_out_channels=(96, 192, 384, 384)),
            "qwen": AutoencoderKLQwenImage(),
            "rae_dinov2": AutoencoderRAE(**large),
            "rae_siglip2": AutoencoderRAE("siglip2", encoder_patch_size=16, encoder_input_size=256, **large),
            "rae_mae": AutoencoderRAE("mae", encoder_patch_size=16, encoder_input_size=256, **large),
        }
        text = {name: digest(model) for name, model in models.items()}
    (FOLDER / "published.json").write_text(json.dumps(text, indent=None, sort_keys=True) + "\n")
    print({name: found["parameters"] for name, found in text.items()})


FOLDER.mkdir(parents=True, exist_ok=True)
torch.set_num_threads(1)
dc("dc")
dc("dc_few")
flux2()
qwen()
grid = wave((8, 2, 2), 7.0)
rae("dinov2", encoder_patch_size=14, encoder_input_size=28, patch_size=9, latents_mean=grid, latents_std=grid[:, :1, :1])
rae("siglip2", encoder_patch_size=4, encoder_input_size=16, patch_size=4)
rae("mae", encoder_patch_size=4, encoder_input_size=12, patch_size=6, latents_mean=grid[None, :, :1, :1])
published()
(FOLDER / "cases.json").write_text(json.dumps(CASES, indent=None, sort_keys=True) + "\n")
