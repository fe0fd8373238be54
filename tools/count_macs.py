"""Prints the multiply-accumulate operations of UNets that canvas-unet/tests/macs.rs expects, as PyTorch counts them.

    /tmp/venv/bin/python tools/count_macs.py

Counted by torch.utils.flop_counter on the device "meta": no weights are made, and nothing is computed. A multiply-accumulate
is two of its operations. diffusers' networks in the sizes of fixtures_unet.py, and EDM2 of fixtures_edm2.py.
"""

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from fixtures_edm2 import Weights, edm2
from fixtures_unet import ADM, DDPM, PIXELS
from torch.utils.flop_counter import FlopCounterMode

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
    with torch.device("meta"):
        sd = plainly(UNet2DConditionModel(cross_attention_dim=768, sample_size=64))
        count("Stable Diffusion 1", lambda: sd(torch.zeros(1, 4, 64, 64), torch.zeros(1), torch.zeros(1, 77, 768)))
        x, time, labels = torch.zeros(2, 3, 8, 12), torch.zeros(2), torch.zeros(2, dtype=torch.int64)
        ddpm = plainly(UNet2DModel(in_channels=3, **PIXELS, **DDPM))
        count("DDPM", lambda: ddpm(x, time))
        adm = plainly(UNet2DModel(in_channels=3, **PIXELS, **ADM))
        count("ADM", lambda: adm(x, time, class_labels=labels))
        config = dict(
            widths=(16, 24, 32), attends=(False, True, False), blocks=2, head=8, clip=256.0, classes=0
        )
        weights = Weights(sizes_only=True)
        count("EDM2", lambda: edm2(weights, config, x, time, labels))


main()
