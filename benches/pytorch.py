"""Times in PyTorch what benches/stable_diffusion.rs times here: eager, f32, random weights, no gradients.

    python benches/pytorch.py [clip] [decoder] [unet]      # all without a name; two threads

Needs torch, diffusers and transformers. Prints the median, the least and the highest-water mark of the process.
"""

import resource
import statistics
import sys
import time

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

RUNS = 3


def measure(name, run):
    run()
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name}: median {statistics.median(times):.3f} s, least {min(times):.3f} s; high water {high:.0f} MiB", flush=True)


def clip():
    # CLIP ViT-L/14's text transformer: transformers' defaults are smaller.
    config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    model, tokens = CLIPTextModel(config).eval(), torch.randint(1000, 2000, (1, 77))
    measure("CLIP-L [1, 77]", lambda: model(tokens))


def decoder():
    model = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()
    latents = torch.randn(1, 4, 64, 64)
    measure("SD1.5 decode [1, 4, 64, 64]", lambda: model.decode(latents))


def unet():
    model = UNet2DConditionModel(cross_attention_dim=768, sample_size=64).eval()  # the other defaults are SD1's
    assert sum(parameter.numel() for parameter in model.parameters()) == 859_520_964
    for batch, name in [(1, "SD1.5 forward"), (2, "SD1.5 guided step, together")]:
        x, text = torch.randn(batch, 4, 64, 64), torch.randn(batch, 77, 768)
        measure(f"{name} [{batch}, 4, 64, 64]", lambda: model(x, 500, text))


torch.set_num_threads(2)
with torch.inference_mode():
    for part in sys.argv[1:] or ["clip", "decoder", "unet"]:
        {"clip": clip, "decoder": decoder, "unet": unet}[part]()
