"""Writes canvas-train/tests/fixtures/training.safetensors: five AdamW steps of small networks in PyTorch.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers peft safetensors numpy
    /tmp/venv/bin/python tools/fixtures_training.py

Networks are diffusers', transformers' and fixtures_dit.py's, filled by formula.py; objectives are written out here as their papers
have them, and not as canvas composes them. Noise and levels are fixed. Everything runs in f64.

Of each case: the losses of five steps; after the first, the gradient of every parameter; after the fifth, how far every parameter
and two moving averages have come. Each is a row of its length and two products with waves (`summary`), in the order of our names.
"""

import math
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import save_file

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import fixtures_clip
import fixtures_dit
import fixtures_ip_adapter
import fixtures_unet
import fixtures_vae
import formula

FOLDER = Path(__file__).parent.parent / "canvas-train" / "tests" / "fixtures"
STEPS, BATCH = 5, 2
# Large enough that a gradient of nothing but rounding (a key's bias has no other) stays a step of nearly nothing.
ADAMW = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-5, weight_decay=0.01)
# Training steps of DDPM's linear schedule, times of a flow, EDM's sigmas.
INDICES = [[10, 600], [999, 0], [300, 45], [0, 800], [500, 120]]
TIMES = [[0.1, 0.6], [0.95, 0.02], [0.3, 0.5], [0.75, 0.8], [0.5, 0.25]]
SIGMAS = [[0.05, 1.0], [30.0, 0.2], [0.4, 2.5], [0.01, 7.0], [0.9, 0.6]]
ALPHA_BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


def summary(values):
    """Length, and products with waves of two frequencies, in the order of Burn's layout."""
    values = values.detach().double().flatten().numpy()
    index = np.arange(len(values), dtype=np.float64)
    waves = [values @ np.sin((0.37 + 0.21 * wave) * index + wave) for wave in range(2)]
    return torch.tensor([np.sqrt(values @ values), *waves])


def per_sample(x):
    return x.flatten(1).mean(1)


def column(values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def batch(step, shape):
    """Data and noise of a step."""
    return pattern((BATCH, *shape), 10.0 + step, 0.8), pattern((BATCH, *shape), 20.5 + step, 1.3)


def ddpm(network, shape, predicts, gamma=None, variances=False):
    """Epsilon or velocity on DDPM's chain; min-SNR by the formula of each; ADM's hybrid loss."""

    def losses(step):
        (x0, eps), index = batch(step, shape), torch.tensor(INDICES[step])
        bar = ALPHA_BAR[index][:, None, None, None]
        x = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
        out = network(x, index / 1000)
        answer = out[:, : shape[0]]
        target = eps if predicts == "epsilon" else bar.sqrt() * eps - (1 - bar).sqrt() * x0
        loss = per_sample((answer - target) ** 2)
        if gamma is not None:
            snr = (bar / (1 - bar)).flatten()
            loss = loss * snr.clamp(max=gamma) / (snr if predicts == "epsilon" else snr + 1)
        if variances:
            loss = loss + bound(x0, x, index, answer.detach(), out[:, shape[0] :])
        return loss

    return losses


def bound(x0, x, index, eps, v):
    """The term of the variational bound, in bits for each number: Nichol and Dhariwal, 2021, with their code's constants."""
    before = torch.cat([torch.ones(1, dtype=torch.float64), ALPHA_BAR[:-1]])
    beta = 1 - ALPHA_BAR / before
    posterior = beta * (1 - before) / (1 - ALPHA_BAR)
    clipped = torch.cat([posterior[1:2], posterior[1:]]).log()
    at = lambda table: table[index][:, None, None, None]
    log_variance = (v + 1) / 2 * at(beta.log()) + (1 - v) / 2 * at(clipped)
    estimate = (x - at(1 - ALPHA_BAR).sqrt() * eps) / at(ALPHA_BAR).sqrt()
    of_x0, of_x = beta * before.sqrt() / (1 - ALPHA_BAR), (1 - before) * (1 - beta).sqrt() / (1 - ALPHA_BAR)
    mean, true = at(of_x0) * estimate + at(of_x) * x, at(of_x0) * x0 + at(of_x) * x
    divergence = 0.5 * (
        -1 + log_variance - at(clipped) + (at(clipped) - log_variance).exp() + (true - mean) ** 2 * (-log_variance).exp()
    )
    cdf = lambda z: 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    narrow = (-0.5 * log_variance).exp()
    upper, lower = (cdf(narrow * (x0 - mean + side / 255)) for side in (1, -1))
    log = lambda p: p.clamp(min=1e-12).log()
    likelihood = torch.where(x0 < -0.999, log(upper), torch.where(x0 > 0.999, log(1 - lower), log(upper - lower)))
    first = (index == 0)[:, None, None, None]
    return per_sample(torch.where(first, -likelihood, divergence)) / math.log(2)


def flow(network, shape):
    def losses(step):
        (x0, eps), t = batch(step, shape), column(TIMES[step])
        return per_sample((network((1 - t) * x0 + t * eps, t.flatten()) - (eps - x0)) ** 2)

    return losses


def edm(network, shape, data=0.5):
    def losses(step):
        (x0, eps), sigma = batch(step, shape), column(SIGMAS[step])
        x, spread = x0 + sigma * eps, (sigma**2 + data**2).sqrt()
        skip, out = data**2 / spread**2, sigma * data / spread
        denoised = skip * x + out * network(x / spread, (sigma.log() / 4).flatten())
        weight = (sigma**2 + data**2) / (sigma * data) ** 2
        return per_sample(weight * (denoised - x0) ** 2)

    return losses


def dit(outputs):
    model = fixtures_dit.fill(fixtures_dit.Network(3, outputs, 16, 2, 2, classes=7), fixtures_dit.of_network)
    labels = torch.tensor([3, 7])
    name = fixtures_dit.of_network
    layout = lambda ours, value: fixtures_dit.to_ours(name, ours, value)
    return model, name, layout, lambda x, time: model(x, time, labels)


def transposed(ours, value):
    """Burn holds matrices as `[in, out]`, and tables as they are."""
    return value.T if value.dim() == 2 and "embedding" not in ours else value


def unet(in_channels=3):
    model = diffusers.UNet2DConditionModel(
        in_channels=in_channels, out_channels=3, block_out_channels=(8, 16), norm_num_groups=2, cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1, transformer_layers_per_block=1, attention_head_dim=2,
    )
    # Of full rank: with the others PyTorch's own f32 loses 3e-4 of some gradients.
    fixtures_unet.fill(model, formula.chirp_linear, formula.chirp)
    tokens = pattern((BATCH, 5, 12), 1.0)
    return model, fixtures_unet.ours, transposed, lambda x, time: model(x, time * 1000, tokens).sample


def lora():
    """LoRA of rank 3 on all attention of the UNet, by peft; the network is frozen."""
    model, _, _, network = unet()
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))

    def name(theirs):
        layer, factor = theirs.replace(".default.weight", "").rsplit(".", 1)
        return fixtures_unet.ours(layer + ".weight").removesuffix(".weight") + "." + factor

    for theirs, value in model.named_parameters():
        if value.requires_grad:
            value.data = torch.from_numpy(formula.fill(name(theirs), value.shape))
    return model.double(), name, lambda ours, value: value, network


def inpainting():
    """A network of three channels that reads a mask and a masked latent as well, by new channels that begin at zero; mask and
    channels as diffusers' training script and pipelines of inpainting make them."""
    model, name, layout, _ = unet(in_channels=7)
    narrow, *_ = unet()
    model.load_state_dict({k: v for k, v in narrow.state_dict().items() if k != "conv_in.weight"}, strict=False)
    model.conv_in.weight.data.zero_()
    model.conv_in.weight.data[:, :3] = narrow.conv_in.weight.data
    tokens = pattern((BATCH, 5, 12), 1.0)
    mask = (pattern((BATCH, 1, 16, 24), 7.0) >= 0.5).double()
    mask = torch.nn.functional.interpolate(mask, size=(8, 12))
    beside = torch.cat([mask, pattern((BATCH, 3, 8, 12), 8.0)], dim=1)
    return model, name, layout, lambda x, time: model(torch.cat([x, beside], dim=1), time * 1000, tokens).sample


def controlnet():
    """A ControlNet that begins as its frozen UNet, with zero convolutions."""
    model, _, _, _ = unet()
    model.requires_grad_(False)
    control = diffusers.ControlNetModel.from_unet(model, conditioning_embedding_out_channels=(4, 6)).double()
    for theirs, value in control.controlnet_cond_embedding.named_parameters():
        if not theirs.startswith("conv_out"):
            name = fixtures_unet.ours("controlnet_cond_embedding." + theirs)
            value.data = torch.from_numpy(formula.chirp(name, value.shape)).double()
    tokens, hint = pattern((BATCH, 5, 12), 1.0), pattern((BATCH, 3, 16, 24), 4.0)

    def network(x, time):
        skips, middle = control(x, time * 1000, tokens, hint, return_dict=False)
        added = dict(down_block_additional_residuals=skips, mid_block_additional_residual=middle)
        return model(x, time * 1000, tokens, **added).sample

    return control, fixtures_unet.ours, transposed, network


class Adapter(torch.nn.Module):
    """What is trained of an IP-Adapter."""

    def __init__(self, network):
        super().__init__()
        self.reader = network.encoder_hid_proj.image_projection_layers[0]
        crossing = [each for name, each in network.attn_processors.items() if name.endswith("attn2.processor")]
        self.layers = torch.nn.ModuleList(crossing)


def ip_adapter():
    model, _, _, _ = unet()
    reader = fixtures_ip_adapter.pooled(4, 10)  # diffusers takes this number of tokens for granted
    tensors, _ = fixtures_ip_adapter.adapter_file(reader, model)
    model._load_ip_adapter_weights([tensors], low_cpu_mem_usage=False)
    model.double().requires_grad_(False)
    adapter = Adapter(model).requires_grad_(True)
    for layer in adapter.layers:
        layer.scale = [0.7]
    tokens, image = pattern((BATCH, 5, 12), 1.0), pattern((BATCH, 1, 10), 5.0)

    def name(theirs):
        if theirs.startswith("reader."):
            return fixtures_ip_adapter.reader_name("Pooled", theirs.removeprefix("reader."))
        return theirs.replace("to_k_ip.0", "key").replace("to_v_ip.0", "value")

    added = {"image_embeds": [image]}
    return adapter, name, transposed, lambda x, time: model(x, time * 1000, tokens, added_cond_kwargs=added).sample


def autoencoder():
    model = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1, norm_num_groups=4, latent_channels=3,
    )
    fixtures_vae.fill(model, fixtures_vae.kl_name)

    def losses(step):
        """Stable Diffusion's, without its perceptual and adversarial parts: what is rebuilt of noised latents, and their KL."""
        image = pattern((BATCH, 3, 8, 8), 10.0 + step, 0.8)
        posterior = model.encode(image).latent_dist
        noise = pattern(posterior.mean.shape, 20.5 + step, 1.3)
        rebuilt = model.decode(posterior.mean + posterior.std * noise).sample
        return per_sample((rebuilt - image).abs()) + 1e-2 * posterior.kl()

    return model, fixtures_vae.kl_name, transposed, losses


def text():
    config = transformers.CLIPTextConfig(**fixtures_clip.SIZES, hidden_act="quick_gelu", eos_token_id=2)
    model = transformers.CLIPTextModel(config)
    for theirs, value in model.named_parameters():
        ours = fixtures_clip.ours(theirs)
        matrix = value.dim() == 2 and "embedding" not in ours
        value.data = torch.from_numpy((formula.chirp_linear if matrix else formula.chirp)(ours, value.shape))
    model.double()
    ids = torch.tensor([[990, 5, 7, 120, 999, 0, 0, 0, 0], [990, 44, 999, 7, 7, 999, 3, 999, 7]])

    def losses(step):
        last = model(input_ids=ids).last_hidden_state
        return per_sample((last - pattern(last.shape, 10.0 + step)) ** 2)

    return model, fixtures_clip.ours, transposed, losses


def train(model, name, layout, losses):
    """Losses, gradients after the first step, changes after the fifth, of parameters and of two averages."""
    parameters = {name(theirs): value for theirs, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), **ADAMW)
    start = {ours: value.detach().clone() for ours, value in parameters.items()}
    averages = {"warm_up": dict(start), "power": dict(start)}
    found, values = {}, []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = losses(step).mean()
        loss.backward()
        values.append(loss.item())
        if step == 0:
            found["grad"] = torch.stack([summary(layout(ours, parameters[ours].grad)) for ours in sorted(parameters)])
        optimizer.step()
        images = (step + 1) * BATCH
        decays = {"warm_up": min(0.25, (1 + step) / (10 + step)), "power": (1 - BATCH / images) ** (POWER + 1)}
        for kind, decay in decays.items():
            averages[kind] = {ours: decay * old + (1 - decay) * parameters[ours].detach() for ours, old in averages[kind].items()}
    for kind, values_now in (("param", parameters), *averages.items()):
        moved = [summary(layout(ours, values_now[ours].detach() - start[ours])) for ours in sorted(start)]
        found[kind] = torch.stack(moved)
    return found | {"losses": torch.tensor(values, dtype=torch.float64)}


# EDM2's relation of an average's width, here 0.1, to its power: the largest root.
POWER = max(root.real for root in np.roots([1, 7, 16 - 0.1**-2, 12 - 0.1**-2]))


def main():
    shape = (3, 4, 10)
    cases = {}
    for case, outputs, objective in [
        ("dit_flow", 3, lambda network: flow(network, shape)),
        ("dit_min_snr", 3, lambda network: ddpm(network, shape, "epsilon", gamma=5.0)),
        ("dit_velocity", 3, lambda network: ddpm(network, shape, "velocity", gamma=5.0)),
        ("dit_edm", 3, lambda network: edm(network, shape)),
        ("dit_variance", 6, lambda network: ddpm(network, shape, "epsilon", variances=True)),
    ]:
        model, name, layout, network = dit(outputs)
        cases[case] = train(model, name, layout, objective(network))
    model, name, layout, network = unet()
    cases["unet"] = train(model, name, layout, ddpm(network, (3, 8, 12), "epsilon"))
    model, name, layout, network = lora()
    cases["lora"] = train(model, name, layout, ddpm(network, (3, 8, 12), "epsilon"))
    for case, made in [("inpainting", inpainting), ("controlnet", controlnet), ("ip_adapter", ip_adapter)]:
        model, name, layout, network = made()
        cases[case] = train(model, name, layout, ddpm(network, (3, 8, 12), "epsilon"))
    cases["autoencoder"] = train(*autoencoder())
    cases["text"] = train(*text())
    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors = {f"{case}/{name}": value.float() for case, found in cases.items() for name, value in found.items()}
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}, transformers {transformers.__version__}"
    save_file(tensors, FOLDER / "training.safetensors", metadata={"source": f"tools/fixtures_training.py, {versions}"})
    for case, found in cases.items():
        print(case, len(found["param"]), [round(loss, 6) for loss in found["losses"].tolist()])


if __name__ == "__main__":
    main()
