"""Times in PyTorch what benches/stable_diffusion.rs and benches/transformers.rs time here: eager, f32, random weights.

    python benches/pytorch.py [clip] [decoder] [unet]      # all three without a name; two threads
    python benches/pytorch.py transformers

Needs torch, diffusers and transformers. Prints the median, the least and the highest-water mark of the process.
"""

import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

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


class DitBlock(nn.Module):
    """DiT's block with adaLN-Zero (Peebles and Xie, 2022, Figure 3) and PyTorch's fused attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.modulation = heads, nn.Linear(width, 6 * width)
        self.norms = nn.ModuleList(nn.LayerNorm(width, 1e-6, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, h, c):
        shift, scale, gate, shift_m, scale_m, gate_m = self.modulation(F.silu(c))[:, None].chunk(6, -1)
        qkv = self.qkv(self.norms[0](h) * (1 + scale) + shift)
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = h + gate * self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return h + gate_m * self.mlp(self.norms[1](h) * (1 + scale_m) + shift_m)


class Dit(nn.Module):
    def __init__(self, width, depth, heads):
        super().__init__()
        self.embed, self.table = nn.Linear(16, width), nn.Parameter(torch.randn(256, width), requires_grad=False)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = nn.Embedding(1001, width)
        self.blocks = nn.ModuleList(DitBlock(width, heads) for _ in range(depth))
        self.norm, self.modulation = nn.LayerNorm(width, 1e-6, elementwise_affine=False), nn.Linear(width, 2 * width)
        self.unembed = nn.Linear(width, 32)

    def forward(self, x, time, labels):
        angles = 1000 * time[:, None] * torch.exp(-torch.arange(128) / 128 * 9.21034)
        c = self.time(torch.cat([angles.cos(), angles.sin()], 1)) + self.classes(labels)
        h = self.embed(x.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(len(x), 256, 16)) + self.table
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(F.silu(c))[:, None].chunk(2, -1)
        return self.unembed(self.norm(h) * (1 + scale) + shift)


def transformers():
    for name, sizes, trained in [("DiT-S/2", (384, 12, 6), 8), ("DiT-B/2", (768, 12, 12), 2)]:
        net = Dit(*sizes)
        inputs = lambda batch: (torch.randn(batch, 4, 32, 32), torch.rand(batch), torch.arange(batch))
        for batch in (1, 8):
            x, time, labels = inputs(batch)
            measure(f"{name} forward [{batch}, 4, 32, 32]", lambda: net(x, time, labels))
        optimizer, (x, time, labels) = torch.optim.AdamW(net.parameters(), 1e-4), inputs(trained)

        def step():
            with torch.inference_mode(False), torch.enable_grad():
                net(x.clone(), time.clone(), labels.clone()).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()

        measure(f"{name} training step [{trained}, 4, 32, 32]", step)
    for depth in (1, 2):
        net = SD3Transformer2DModel(  # medium
            sample_size=128, patch_size=2, in_channels=16, num_layers=depth, num_attention_heads=24, attention_head_dim=64,
            joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048, pos_embed_max_size=192,
        ).eval()  # fmt: skip
        x, text, pooled = torch.randn(1, 16, 64, 64), torch.randn(1, 154, 4096), torch.randn(1, 2048)
        run = lambda: net(x, text, pooled, torch.tensor([500.0]))
        measure(f"SD3 medium, {depth} of 24 blocks [1, 16, 64, 64]", run)
    sizes = dict(d_model=4096, d_kv=64, d_ff=10240, num_heads=64, feed_forward_proj="gated-gelu")
    t5 = T5EncoderModel(T5Config(vocab_size=1000, num_layers=1, **sizes)).eval()
    tokens = torch.arange(256)[None]
    measure("T5-XXL, 1 of 24 blocks [1, 256]", lambda: t5(tokens))


torch.set_num_threads(2)
with torch.inference_mode():
    for part in sys.argv[1:] or ["clip", "decoder", "unet"]:
        {"clip": clip, "decoder": decoder, "unet": unet, "transformers": transformers}[part]()
