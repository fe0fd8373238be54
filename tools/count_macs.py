"""Prints the multiply-accumulate operations of UNets that canvas-unet/tests/macs.rs expects, as PyTorch counts them.

    /tmp/venv/bin/python tools/count_macs.py

Counted by torch.utils.flop_counter on the device "meta": no weights are made, and nothing is computed. A multiply-accumulate
is two of its operations. diffusers' networks, and EDM2 of fixtures_edm2.py.
"""

import runpy
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.utils.flop_counter import FlopCounterMode

# The sizes of fixtures_unet.py.
PIXELS = dict(
    in_channels=3, block_out_channels=(16, 24, 32), layers_per_block=2, attention_head_dim=8, norm_num_groups=2
)
DDPM = dict(
    out_channels=3,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    downsample_padding=0,
)
ADM = dict(
    out_channels=6,
    down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
    up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    downsample_type="resnet",
    upsample_type="resnet",
    resnet_time_scale_shift="scale_shift",
    attn_norm_num_groups=2,
    num_class_embeds=5,
)


def count(name, run):
    with FlopCounterMode(display=False) as counter:
        run()
    print(name, counter.get_total_flops() // 2)


def plainly(net):
    """With attention as two products, which the counter knows on every device."""
    for module in net.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    return net


def main():
    edm2 = runpy.run_path(str(Path(__file__).parent / "fixtures_edm2.py"), run_name="counted")
    with torch.device("meta"):
        sd = plainly(UNet2DConditionModel(cross_attention_dim=768, sample_size=64))
        count("Stable Diffusion 1", lambda: sd(torch.zeros(1, 4, 64, 64), torch.zeros(1), torch.zeros(1, 77, 768)))
        x, time, labels = torch.zeros(2, 3, 8, 12), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
        ddpm = plainly(UNet2DModel(**PIXELS, **DDPM))
        count("DDPM", lambda: ddpm(x, time))
        adm = plainly(UNet2DModel(**PIXELS, **ADM))
        count("ADM", lambda: adm(x, time, class_labels=labels))
        config = dict(
            widths=(16, 24, 32), attends=(False, True, False), blocks=2, head=8, clip=256.0, classes=0
        )
        weights = edm2["Weights"](sizes_only=True)
        count("EDM2", lambda: edm2["edm2"](weights, config, x, time, labels))


main()
