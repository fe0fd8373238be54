"""Writes canvas-vae/tests/fixtures: what diffusers' autoencoders answer, their names and configurations.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_vae.py

Both sides fill their weights by formula.py, so a fixture holds outputs only. The reference runs in f64.
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from safetensors.torch import save_file

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-vae" / "tests" / "fixtures"


def pattern(shape, seed):
    return torch.from_numpy(formula.input_pattern(shape, seed)).double()


def fill(model, rename):
    """Fills every parameter; `rename` maps diffusers' name to ours."""
    for name, param in model.named_parameters():
        ours = rename(name)
        matrix = param.dim() == 2 and ours != "codebook.weight"
        values = formula.fill_linear(ours, param.shape) if matrix else formula.fill(ours, param.shape)
        param.data = torch.from_numpy(values)
    return model.double()


def kl_name(name):
    """`encoder.down_blocks.1.resnets.0.norm1.weight` -> `encoder.stages.1.blocks.0.norm1.gamma`."""
    for old, new in [
        ("post_quant_conv.", "post_quant."),
        ("quant_conv.", "quant."),
        ("quantize.embedding.", "codebook."),
        ("down_blocks.", "stages."),
        ("up_blocks.", "stages."),
        ("downsamplers.0.conv", "resize"),
        ("upsamplers.0.conv", "resize"),
        ("mid_block.resnets.0", "middle.first"),
        ("mid_block.resnets.1", "middle.second"),
        ("mid_block.attentions.0.group_norm", "middle.norm"),
        ("mid_block.attentions.0", "middle.attention"),
        ("resnets.", "blocks."),
        ("conv_shortcut", "shortcut"),
        ("conv_norm_out", "norm"),
        ("conv_out", "output"),
        ("conv_in", "input"),
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "output"),
    ]:
        name = name.replace(old, new)
    if "norm" in name:
        name = name.replace("weight", "gamma").replace("bias", "beta")
    return name


def tiny_name(blocks):
    """diffusers numbers the layers of a half in one row; ours are `stages.S.blocks.B.convN` and the ends."""
    rows = {"encoder": [], "decoder": ["input", None]}
    for stage, count in enumerate(blocks):
        rows["encoder"] += [f"stages.{stage}.conv"] + [f"stages.{stage}.blocks.{b}" for b in range(count)]
    rows["encoder"].append("output")
    for stage, count in enumerate(reversed(blocks)):
        rows["decoder"] += [f"stages.{stage}.blocks.{b}" for b in range(count)]
        # An upsampling without parameters precedes every convolution but the last.
        rows["decoder"] += ([None] if stage + 1 < len(blocks) else []) + [f"stages.{stage}.conv"]

    def rename(name):
        half, _, number, *rest = name.split(".")
        row = rows[half][int(number)]
        if rest[0] == "conv":
            return f"{half}.{row}.conv{int(rest[1]) // 2 + 1}.{rest[2]}"
        return f"{half}.{row}.{rest[0]}"

    return rename


def write(file, model, rename, run, watch):
    """Runs encode and decode, and the gradients of a fixed sum of the decoded image."""
    images = pattern((2, 3, 8, 12), 0.0).requires_grad_()
    out = run(images)
    aim = (out["image"] * pattern(out["image"].shape, 1.0)).sum() + out.get("loss", torch.zeros(1)).sum()
    aim.backward()
    out["grad.images"] = images.grad
    found = {rename(name): param.grad for name, param in model.named_parameters()}
    for name in watch:
        grad = found[name]
        out["grad." + name] = grad.T if grad.dim() == 2 and name != "codebook.weight" else grad
    save(file, out)


def save(file, out):
    out = {name: value.detach().float().contiguous() for name, value in out.items()}
    # One key only: safetensors writes several in any order, and the file should not change when nothing did.
    notes = {"source": f"tools/fixtures_vae.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(out, FOLDER / file, metadata=notes)
    (FOLDER / file).chmod(0o644)
    print(file, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in out.items()})


NAMES = {}


def keep_names(case, model, rename):
    """Every key of diffusers with our name of it, `weight` and `bias` of norms as PyTorch's."""
    ours = {name: rename(name).replace("gamma", "weight").replace("beta", "bias") for name in model.state_dict()}
    NAMES[case] = ours


def kl():
    model = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=3,
    )
    fill(model, kl_name)
    keep_names("kl", model, kl_name)

    def run(images):
        posterior = model.encode(images).latent_dist
        noise = pattern(posterior.mean.shape, 2.0)
        image = model.decode(posterior.mean + posterior.std * noise).sample
        return {"mean": posterior.mean, "log_variance": posterior.logvar, "image": image}

    watch = ["encoder.stages.0.resize.weight", "encoder.middle.attention.query.weight", "quant.bias",
             "decoder.stages.0.blocks.1.norm2.gamma"]
    write("kl.safetensors", model, kl_name, run, watch)


def tiny(file, blocks, patch, watch):
    levels = len(blocks)
    model = AutoencoderTiny(
        in_channels=3 * patch**2,
        out_channels=3 * patch**2,
        encoder_block_out_channels=(6,) * levels,
        decoder_block_out_channels=(6,) * levels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
    )
    rename = tiny_name(blocks)
    fill(model, rename)
    keep_names(file.removesuffix(".safetensors"), model, rename)

    def run(images):
        latents = model.encode(F.pixel_unshuffle(images, patch)).latents
        image = F.pixel_shuffle(model.decode(latents).sample, patch)
        return {"mean": latents, "image": image}

    write(file, model, rename, run, watch)


def vq(file, legacy, **options):
    """The reference's class has `legacy` built in; its quantiser has both."""
    model = VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        num_vq_embeddings=24,
        **options,
    )
    fill(model, kl_name)
    keep_names(file.removesuffix(".safetensors"), model, kl_name)
    # The formula's sine has rank 2 and is small: latents would find few codes, and those by a hair.
    book = model.quantize.embedding.weight
    index = torch.arange(book.numel(), dtype=torch.float64)
    book.data = torch.sin(0.13 * index**2 + index).float().double().reshape(book.shape)
    model.quantize.legacy = legacy

    def run(images):
        latents = model.encode(images).latents
        _, loss, (_, _, codes) = model.quantize(latents)
        nearest = torch.cdist(latents.permute(0, 2, 3, 1).flatten(0, 2), book).sort(1).values
        print(file, len(set(codes.tolist())), "codes; least margin", (nearest[:, 1] - nearest[:, 0]).min().item())
        image = model.decode(latents).sample
        shape = (2, latents.shape[2], latents.shape[3], latents.shape[1])
        looked = model.quantize.get_codebook_entry(codes.flip(0), shape)
        return {
            "mean": latents,
            "loss": loss.reshape(1),
            "codes": codes.reshape(shape[:3]).double(),
            "lookup": looked,
            "image": image,
        }

    watch = ["codebook.weight", "quant.weight", "post_quant.bias", "encoder.stages.0.resize.bias"]
    write(file, model, kl_name, run, watch)


def tiled():
    """`enable_tiling` with tiles that do not divide the image: the last column is one latent wide."""
    model = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=3,
        sample_size=16,
    )
    fill(model, kl_name)
    images, latents = pattern((2, 3, 28, 38), 0.0), pattern((2, 3, 14, 19), 3.0) * 2
    model.enable_tiling()
    out = {}
    with torch.no_grad():
        for name, factor in [("quarter", 0.25), ("half", 0.5)]:
            model.tile_overlap_factor = factor
            posterior = model.encode(images).latent_dist
            # The second image only: a file need not be large.
            out[f"{name}.mean"] = posterior.mean[1:]
            out[f"{name}.log_variance"] = posterior.logvar[1:]
            out[f"{name}.image"] = model.decode(latents).sample[1:, :2]
    save("tiled.safetensors", out)


def published():
    """The configurations of published weights, as diffusers writes them."""
    four = dict(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )
    sixteen = four | dict(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, sample_size=1024)
    three = dict(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(128, 256, 512),
        layers_per_block=2,
    )
    playground = dict(
        scaling_factor=0.5,
        latents_mean=[-1.6574, 1.886, -1.383, 2.5155],
        latents_std=[8.4927, 5.9022, 6.5498, 5.2299],
    )
    with torch.device("meta"):
        models = {
            "sd1": AutoencoderKL(sample_size=512, **four),
            "sdxl": AutoencoderKL(sample_size=1024, scaling_factor=0.13025, **four),
            "playground": AutoencoderKL(sample_size=1024, **playground, **four),
            "sd3": AutoencoderKL(scaling_factor=1.5305, shift_factor=0.0609, **sixteen),
            "flux": AutoencoderKL(scaling_factor=0.3611, shift_factor=0.1159, **sixteen),
            "vq_f4": VQModel(sample_size=256, num_vq_embeddings=8192, **three),
            "taesd": AutoencoderTiny(),
            "taef1": AutoencoderTiny(latent_channels=16),
        }
    text = {name: json.loads(model.to_json_string()) for name, model in models.items()}
    (FOLDER / "configs.json").write_text(json.dumps(text, indent=None, sort_keys=True) + "\n")
    print({name: sum(p.numel() for p in model.parameters()) for name, model in models.items()})


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    kl()
    vq("vq.safetensors", True, latent_channels=3, vq_embed_dim=5)
    vq("vq_plain.safetensors", False, latent_channels=4, mid_block_add_attention=False)
    tiled()
    published()
    ends = ["encoder.stages.0.conv.weight", "decoder.stages.1.conv.weight"]
    tiny("tiny.safetensors", (1, 2, 1), 1, ends + ["encoder.stages.1.blocks.1.conv2.bias"])
    tiny("tiny_patch.safetensors", (0, 1), 2, ends)
    (FOLDER / "names.json").write_text(json.dumps(NAMES, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
