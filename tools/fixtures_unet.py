"""Writes canvas-unet/tests/fixtures: what diffusers' networks answer.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_unet.py

Both sides fill their weights by formula.py, so a fixture holds outputs only. The reference runs in f64.
"""

import json
import re
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import ControlNetModel, T2IAdapter, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-unet" / "tests" / "fixtures"


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


def ours(name, linear=False):
    """`down_blocks.0.resnets.1.norm1.weight` -> `down.0.stages.1.res.norm_in.gamma`."""
    for old, new in [
        ("controlnet_cond_embedding", "hint"),
        ("controlnet_down_blocks", "skips"),
        ("controlnet_mid_block", "middle_out"),
        ("add_embedding.linear_1", "extra.sizes.input"),
        ("add_embedding.linear_2", "extra.sizes.output"),
        ("class_embedding.linear_1", "extra.label.input"),
        ("class_embedding.linear_2", "extra.label.output"),
        ("class_embedding.weight", "extra.classes.weight"),
    ]:
        name = name.replace(old, new)
    if linear:
        name = name.replace("proj_in", "linear_in").replace("proj_out", "linear_out")
    name = re.sub(r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"\1.\2.stages.\3.res", name)
    name = re.sub(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", r"\1.\2.stages.\3.transformer", name)
    for old, new in [
        ("down_blocks.", "down."),
        ("up_blocks.", "up."),
        ("downsamplers.0.conv", "downsample"),
        ("upsamplers.0.conv", "upsample"),
        ("mid_block.resnets.0", "middle.first.res"),
        ("mid_block.attentions.0", "middle.first.transformer"),
        ("mid_block.resnets.1", "middle.second"),
        ("transformer_blocks.", "blocks."),
        ("time_embedding.linear_1", "time.input"),
        ("time_embedding.linear_2", "time.output"),
        ("time_emb_proj", "time"),
        ("conv_norm_out", "norm"),
        ("conv_out", "output"),
        ("conv_in", "input"),
        ("conv_shortcut", "skip"),
        ("conv1", "conv_in"),
        ("conv2", "conv_out"),
        ("proj_in", "input"),
        ("proj_out", "output"),
        ("attn1", "attention"),
        ("attn2", "cross"),
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "output"),
        ("ff.net.0.proj", "feed.up"),
        ("ff.net.2", "feed.down"),
    ]:
        name = name.replace(old, new)
    if ".res." in name or "middle.second" in name:
        name = name.replace("norm1", "norm_in").replace("norm2", "norm_out")
    name = name.replace("norm1", "norm_attention").replace("norm2", "norm_cross").replace("norm3", "norm_feed")
    if "norm" in name:
        name = name.replace("weight", "gamma").replace("bias", "beta")
    return name


def fill(model, matrices=formula.fill_linear, others=formula.fill):
    linear = model.config.use_linear_projection
    for name, param in model.named_parameters():
        name = ours(name, linear)
        matrix = param.dim() == 2 and name != "extra.classes.weight"
        values = matrices(name, param.shape) if matrix else others(name, param.shape)
        param.data = torch.from_numpy(values)
    return model.double()


# Every number differs from its neighbours, so that nothing can be confused: channels in and out, context,
# heads and depth of the levels, height and width, text length.
model = fill(
    UNet2DConditionModel(
        in_channels=3,
        out_channels=5,
        block_out_channels=(16, 24, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(2, 1, 1),
        attention_head_dim=(2, 3, 4),  # the number of heads, whatever its name
        cross_attention_dim=12,
        norm_num_groups=2,
    )
)
TIME = torch.tensor([250.0, 750.0])
WATCH = [
    "time.input.bias",
    "down.0.stages.0.transformer.blocks.1.cross.key.weight",
    "middle.first.transformer.norm.gamma",
    "up.1.stages.2.res.skip.bias",
    "up.2.stages.1.res.norm_in.gamma",
]


def quiet():
    """The output with every parameter a tenth: variances come near the norms' epsilons, which differ."""
    with torch.no_grad():
        for param in model.parameters():
            param *= 0.1
        return model(pattern((2, 3, 8, 12), 1.0), TIME, pattern((2, 5, 12), 1.0)).sample.float().contiguous()


def case():
    x = pattern((2, 3, 8, 12), 1.0, 3.0).requires_grad_()
    tokens = pattern((2, 5, 12), 1.0).requires_grad_()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    out = model(x, TIME, tokens, encoder_attention_mask=mask).sample
    model.zero_grad()
    (out * pattern(out.shape, 2.0)).sum().backward()
    found = {ours(name): param.grad for name, param in model.named_parameters()}
    tensors = {"output": out, "grad.x": x.grad, "grad.tokens": tokens.grad}
    for name in WATCH:
        tensors["grad." + name] = found[name].T if found[name].dim() == 2 else found[name]
    return {name: value.detach().float().contiguous() for name, value in tensors.items()}


def answer(model, outputs, inputs, watch):
    """Outputs, gradients of their sum with a pattern, and the gradient norm of every parameter by name's order."""
    model.zero_grad()
    sum((out * pattern(out.shape, 2.0)).sum() for out in outputs.values()).backward()
    linear = model.config.use_linear_projection
    found = {ours(name, linear): param.grad for name, param in model.named_parameters()}
    tensors = dict(outputs)
    tensors |= {"grad." + name: value.grad for name, value in inputs.items()}
    for name in watch:
        transposed = found[name].dim() == 2 and name != "extra.classes.weight"
        tensors["grad." + name] = found[name].T if transposed else found[name]
    tensors["norms"] = torch.stack([found[name].norm() for name in sorted(found)])
    return {name: value.detach().float().contiguous() for name, value in tensors.items()}


def inputs(channels):
    return {
        "x": pattern((2, channels, 8, 12), 1.0, 3.0).requires_grad_(),
        "tokens": pattern((2, 5, 12), 1.0).requires_grad_(),
    }


MASK = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
SIZES = torch.tensor([[512.0, 768.0, 3.0, 17.0, 1024.0, 896.0], [640.0, 480.0, 0.0, 64.0, 1000.0, 768.0]])
POOLED = pattern((2, 7), 3.0)
XL = dict(
    block_out_channels=(16, 24, 32),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    layers_per_block=2,
    transformer_layers_per_block=(1, 2, 3),
    attention_head_dim=(2, 3, 4),
    cross_attention_dim=12,
    norm_num_groups=2,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=7 + 6 * 8,
)
UP = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")


def sdxl():
    """SDXL with three channels more on the way in, as a condition."""
    net = fill(UNet2DConditionModel(in_channels=7, out_channels=4, up_block_types=UP, **XL))
    own = inputs(7)
    added = {"text_embeds": POOLED, "time_ids": SIZES}
    out = net(own["x"], TIME, own["tokens"], encoder_attention_mask=MASK, added_cond_kwargs=added).sample
    watch = [
        "extra.sizes.input.bias",
        "down.1.stages.0.transformer.linear_in.weight",
        "middle.first.transformer.blocks.2.cross.value.weight",
        "up.0.stages.2.transformer.linear_out.bias",
    ]
    return answer(net, {"output": out}, own, watch)


def labelled(labels, watch, **options):
    """Two levels, with a label of some kind."""
    net = fill(
        UNet2DConditionModel(
            in_channels=3,
            out_channels=5,
            block_out_channels=(8, 12),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            attention_head_dim=(2, 3),
            cross_attention_dim=12,
            norm_num_groups=2,
            **options,
        )
    )
    own = inputs(3)
    out = net(own["x"], TIME, own["tokens"], class_labels=labels, encoder_attention_mask=MASK).sample
    return answer(net, {"output": out}, {}, watch)


def cross_only():
    """Transformers of the first level that read the text twice. diffusers masks only the second time.

    With 8 and 12 channels, roundings of 1e-7 in the weights move the output by 5e-6 and gradients by 1e-4, in f64.
    """
    net = fill(
        UNet2DConditionModel(
            in_channels=3,
            out_channels=3,
            block_out_channels=(16, 24),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            only_cross_attention=[True, False],
            layers_per_block=1,
            attention_head_dim=(2, 3),
            cross_attention_dim=12,
            norm_num_groups=2,
        )
    )
    own = inputs(3)
    return answer(net, {"output": net(own["x"], TIME, own["tokens"]).sample}, {}, [])


def controlnet():
    """A ControlNet of SDXL's kind, and the UNet that reads it. ControlNets do not mask tokens."""
    net = fill(
        ControlNetModel(in_channels=4, conditioning_channels=3, conditioning_embedding_out_channels=(4, 6, 10), **XL)
    )
    own = inputs(4)
    own["hint"] = pattern((2, 3, 32, 48), 4.0).requires_grad_()
    added = {"text_embeds": POOLED, "time_ids": SIZES}
    args = (own["x"], TIME, own["tokens"], own["hint"], 0.7)
    skips, middle = net(*args, added_cond_kwargs=added, return_dict=False)
    outputs = {f"skips.{i}": skip for i, skip in enumerate(skips)} | {"middle": middle}
    tensors = answer(net, outputs, own, ["hint.blocks.1.weight", "skips.3.bias", "middle_out.weight"])
    # Values of whole feature maps are large; a part says as much.
    tensors = {name: value[:, :4].contiguous() if name in outputs else value for name, value in tensors.items()}
    tensors["grad.hint"] = tensors["grad.hint"][:, :, :8, :12].contiguous()
    with torch.no_grad():
        guess = net(*args, added_cond_kwargs=added, guess_mode=True, return_dict=False)
        unet = fill(UNet2DConditionModel(in_channels=4, out_channels=4, up_block_types=UP, **XL))
        for name, (skips, middle) in [("controlled", (skips, middle)), ("guessed", guess)]:
            residuals = dict(down_block_additional_residuals=skips, mid_block_additional_residual=middle)
            out = unet(own["x"], TIME, own["tokens"], added_cond_kwargs=added, **residuals).sample
            tensors[name] = out.float().contiguous()
    return tensors


def pixels(name):
    """A parameter of UNet2DModel, which calls attention and changes of size otherwise."""
    name = re.sub(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", r"\1.\2.stages.\3.attention", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.(?!conv\.)", r"down.\1.down_res.", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.(?!conv\.)", r"up.\1.up_res.", name)
    for old, new in [
        ("mid_block.resnets.0", "middle.first"),
        ("mid_block.resnets.1", "middle.second"),
        ("mid_block.attentions.0", "middle.attention"),
        ("group_norm", "norm"),
        ("attention.to_", "attention.inner.to_"),
        ("class_embedding.", "classes."),
    ]:
        name = name.replace(old, new)
    if "attention" not in name:
        name = name.replace("norm1", "norm_in").replace("norm2", "norm_out")
    return ours(name)


def fill_pixels(model, name_of):
    for name, param in model.named_parameters():
        name = name_of(name)
        matrix = param.dim() == 2 and name != "classes.weight"
        values = formula.fill_linear(name, param.shape) if matrix else formula.fill(name, param.shape)
        param.data = torch.from_numpy(values)
    return model.double()


def pixel_case(watch, name_of, labels=None, **options):
    """Three levels of UNet2DModel, the middle one attending, with heads of eight channels."""
    net = fill_pixels(
        UNet2DModel(in_channels=3, **PIXELS, **options),
        name_of,
    )
    x = pattern((2, 3, 8, 12), 1.0, 3.0).requires_grad_()
    out = net(x, TIME, class_labels=labels).sample
    (out * pattern(out.shape, 2.0)).sum().backward()
    found = {name_of(name): param.grad for name, param in net.named_parameters()}
    tensors = {"output": out, "grad.x": x.grad}
    for name in watch:
        matrix = found[name].dim() == 2 and name != "classes.weight"
        tensors["grad." + name] = found[name].T if matrix else found[name]
    tensors["norms"] = torch.stack([found[name].norm() for name in sorted(found)])
    return {name: value.detach().float().contiguous() for name, value in tensors.items()}


DDPM = dict(
    out_channels=3,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
    norm_eps=1e-6,
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
PIXELS = dict(block_out_channels=(16, 24, 32), layers_per_block=2, attention_head_dim=8, norm_num_groups=2)


def ddpm():
    watch = ["down.1.stages.1.attention.inner.query.weight", "down.0.downsample.bias", "up.0.upsample.bias"]
    return pixel_case(watch, pixels, **DDPM)


def classes_apart(name):
    name = pixels(name)
    return name if name.startswith("classes") else "body." + name


def adm():
    watch = ["classes.weight", "body.down.0.down_res.time.bias", "body.up.0.up_res.conv_in.bias"]
    return pixel_case(watch, classes_apart, labels=torch.tensor([3, 1]), **ADM)


def adapter_name(name):
    """`adapter.body.0.resnets.1.block1.weight` -> `blocks.0.stages.1.first.weight`."""
    for old, new in [
        ("adapter.conv_in", "input"),
        ("adapter.body", "blocks"),
        ("resnets", "stages"),
        ("in_conv", "input"),
        ("out_conv", "output"),
        ("block1", "first"),
        ("block2", "second"),
    ]:
        name = name.replace(old, new)
    return name


def adapter(unet, **options):
    """A T2I-Adapter and what a UNet answers with its features."""
    net = fill_pixels(T2IAdapter(in_channels=3, **options), adapter_name)
    hint = pattern((2, 3, 16, 24), 4.0).requires_grad_()
    features = net(hint)
    sum((out * pattern(out.shape, 2.0)).sum() for out in features).backward()
    found = {adapter_name(name): param.grad for name, param in net.named_parameters()}
    tensors = {f"levels.{i}": feature[:, :4] for i, feature in enumerate(features)}
    tensors["grad.hint"] = hint.grad[:, :, :8, :12]
    tensors["norms"] = torch.stack([found[name].norm() for name in sorted(found)])
    with torch.no_grad():
        features = [feature.detach() * 0.6 for feature in features]
        tensors["adapted"] = unet(features)
    return {name: value.detach().float().contiguous() for name, value in tensors.items()}


def adapters():
    own = {name: value.detach() for name, value in inputs(4).items()}
    small = fill(UNet2DConditionModel(in_channels=4, out_channels=4, **SMALL))
    xl = fill(UNet2DConditionModel(in_channels=4, out_channels=4, up_block_types=UP, **XL))

    def plain(features):
        args = (own["x"], TIME, own["tokens"])
        return small(*args, down_intrablock_additional_residuals=features).sample

    def sized(features):
        added = {"text_embeds": POOLED, "time_ids": SIZES}
        args = (own["x"], TIME, own["tokens"])
        return xl(*args, added_cond_kwargs=added, down_intrablock_additional_residuals=features).sample

    save("adapter_full", adapter(plain, **ADAPTERS["adapter_full"]))
    save("adapter_full_xl", adapter(sized, **ADAPTERS["adapter_full_xl"]))
    levels = dict(block_out_channels=(16, 24, 24), attention_head_dim=(2, 3, 3))
    small = fill(UNet2DConditionModel(in_channels=4, out_channels=4, **(SMALL | levels)))
    save("adapter_light", adapter(plain, **ADAPTERS["adapter_light"]))


ADAPTERS = {
    "adapter_full": dict(adapter_type="full_adapter", channels=[16, 24, 32], num_res_blocks=2, downscale_factor=2),
    "adapter_full_xl": dict(
        adapter_type="full_adapter_xl", channels=[16, 24, 32, 32], num_res_blocks=2, downscale_factor=4
    ),
    "adapter_light": dict(adapter_type="light_adapter", channels=[16, 24], num_res_blocks=2, downscale_factor=2),
}
SMALL = dict(
    block_out_channels=(16, 24, 32),
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=(2, 3, 4),
    cross_attention_dim=12,
    norm_num_groups=2,
)


def save(name, tensors):
    notes = {"diffusers": diffusers.__version__, "torch": torch.__version__, "script": "tools/fixtures_unet.py"}
    path = FOLDER / f"{name}.safetensors"
    save_file(tensors, path, metadata=notes)
    path.chmod(0o644)
    print(name, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items()})


def published():
    """The configurations of published weights, as diffusers writes them."""
    heads = [5, 10, 20, 20]
    sd2 = dict(cross_attention_dim=1024, attention_head_dim=heads, use_linear_projection=True)
    xl = dict(
        down_block_types=XL["down_block_types"],
        block_out_channels=(320, 640, 1280),
        cross_attention_dim=2048,
        attention_head_dim=heads[:3],
        transformer_layers_per_block=[1, 2, 10],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    refiner = xl | dict(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(384, 768, 1536, 1536),
        cross_attention_dim=1280,
        attention_head_dim=[6, 12, 24, 24],
        transformer_layers_per_block=4,
        projection_class_embeddings_input_dim=2560,
    )
    unclip = sd2 | dict(class_embed_type="projection", projection_class_embeddings_input_dim=2048)
    upscaler = dict(
        in_channels=7,
        block_out_channels=(256, 512, 512, 1024),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=1024,
        only_cross_attention=[True, True, True, False],
        use_linear_projection=True,
        num_class_embeds=1000,
    )
    original = dict(
        attention_head_dim=None, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6
    )

    def blocks(attends, down="DownBlock2D", up="UpBlock2D"):
        return dict(
            down_block_types=tuple("AttnDownBlock2D" if a else down for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else up for a in attends[::-1]),
        )

    imagenet = dict(
        attention_head_dim=64,
        attn_norm_num_groups=32,
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=1000,
    )
    residual = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    cifar10 = dict(block_out_channels=(128, 256, 256, 256), sample_size=32, **blocks((0, 1, 0, 0)))
    large = dict(block_out_channels=(128, 128, 256, 256, 512, 512), sample_size=256, **blocks((0, 0, 0, 0, 1, 0)))
    # The consistency models' network: ADM without a learned variance.
    imagenet64 = dict(
        block_out_channels=(192, 384, 576, 768), layers_per_block=3, sample_size=64, **blocks((0, 1, 1, 1), *residual)
    )
    imagenet256 = dict(
        block_out_channels=(256, 256, 512, 512, 1024, 1024),
        out_channels=6,
        sample_size=256,
        **blocks((0, 0, 0, 1, 1, 1), *residual),
    )
    with torch.device("meta"):
        models = {
            "cifar10": UNet2DModel(**cifar10, **original),
            "large": UNet2DModel(**large, **original),
            "imagenet64": UNet2DModel(**imagenet64, **imagenet),
            "imagenet256": UNet2DModel(**imagenet256, **imagenet),
            "unet2d": UNet2DModel(),
            "adapter_sd1": T2IAdapter(),
            "adapter_sdxl": T2IAdapter(adapter_type="full_adapter_xl", downscale_factor=16),
            "adapter_light": T2IAdapter(adapter_type="light_adapter", channels=[320, 640, 1280], num_res_blocks=4),
            "upscaler": UNet2DConditionModel(**upscaler),
            "sd1": UNet2DConditionModel(cross_attention_dim=768, sample_size=64),
            "inpaint": UNet2DConditionModel(cross_attention_dim=768, sample_size=64, in_channels=9),
            "sd2": UNet2DConditionModel(**sd2),
            "unclip": UNet2DConditionModel(**unclip),
            "sdxl": UNet2DConditionModel(up_block_types=UP, **xl),
            "refiner": UNet2DConditionModel(**refiner),
            "controlnet_sd1": ControlNetModel(cross_attention_dim=768),
            "controlnet_sdxl": ControlNetModel(**xl),
        }
    text = {name: json.loads(model.to_json_string()) for name, model in models.items()}
    (FOLDER / "configs.json").write_text(json.dumps(text, indent=None, sort_keys=True) + "\n")
    print({name: sum(p.numel() for p in model.parameters()) for name, model in models.items()})


def names():
    """Keys as diffusers writes them with ours: one of each kind, and how many there are."""
    small = dict(SMALL, num_class_embeds=5)
    label = dict(SMALL, class_embed_type="projection", projection_class_embeddings_input_dim=7)
    models = {
        "sd": UNet2DConditionModel(**small),
        "label": UNet2DConditionModel(**label),
        "sdxl": UNet2DConditionModel(up_block_types=UP, **XL),
        "controlnet": ControlNetModel(conditioning_embedding_out_channels=(4, 6, 10), **XL),
    }
    named = {}
    for case, model in models.items():
        named[case] = (model, lambda name, linear=model.config.use_linear_projection: ours(name, linear))
    named["ddpm"] = (UNet2DModel(**PIXELS, **DDPM), pixels)
    named["adm"] = (UNet2DModel(**PIXELS, **ADM), classes_apart)
    named |= {case: (T2IAdapter(**options), adapter_name) for case, options in ADAPTERS.items()}
    found = {}
    for case, (model, name_of) in named.items():
        pairs = [(name, name_of(name)) for name in model.state_dict()]
        pairs = [(name, own.replace("gamma", "weight").replace("beta", "bias")) for name, own in pairs]
        # Numbers that count; those of a pair of layers are names.
        number = r"(?<!mid_block\.resnets)(?<!ff\.net)\.\d+(?=\.)"
        kinds = {re.sub(number, ".#", name): (name, own) for name, own in pairs}
        found[case] = {"count": len(pairs), "names": dict(kinds.values())}
    (FOLDER / "names.json").write_text(json.dumps(found, indent=0, sort_keys=True) + "\n")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    tensors = case()
    tensors["quiet"] = quiet()
    save("sd", tensors)
    save("sdxl", sdxl())
    save("label_class", labelled(torch.tensor([3, 1]), ["extra.classes.weight"], num_class_embeds=5))
    save("label_time", labelled(torch.tensor([20.0, 741.0]), ["extra.label.input.bias"], class_embed_type="timestep"))
    projection = dict(class_embed_type="projection", projection_class_embeddings_input_dim=7)
    save("label_vector", labelled(POOLED, ["extra.label.output.weight"], **projection))
    save("cross_only", cross_only())
    save("controlnet", controlnet())
    save("ddpm", ddpm())
    save("adm", adm())
    adapters()
    published()
    names()


if __name__ == "__main__":
    main()
