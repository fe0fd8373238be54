"""Writes the IP-Adapter fixtures of canvas-unet/tests/fixtures: what diffusers' UNets answer with them.

    /tmp/venv/bin/python tools/fixtures_ip_adapter.py

Adapters are given to diffusers as it reads published ones, by keys of a file, and filled by formula.py's chirp under our names;
so the fixtures prove the order of the layers as well. The reference runs in f64.
"""

import json

import formula
import torch
from diffusers import UNet2DConditionModel
from fixtures_unet import FOLDER, MASK, POOLED, SIZES, SMALL, TIME, UP, XL, fill, inputs, pattern, save

CONTEXT = 12
CHIRP = (formula.chirp_linear, formula.chirp)


def resampler(width, heads, tokens, image_width, depth=4):
    """Keys and shapes of the reader of `ip-adapter-plus`, with our names. diffusers knows four layers only."""
    inner = 64 * heads
    found = {
        "image_proj.latents": ((1, tokens, width), "reader.Resampler.latents"),
        "image_proj.proj_in": ((width, image_width), "reader.Resampler.input"),
        "image_proj.proj_out": ((CONTEXT, width), "reader.Resampler.output"),
        "image_proj.norm_out": ((CONTEXT,), "reader.Resampler.norm"),
    }
    for i in range(depth):
        for key, shape, name in [
            ("0.norm1", (width,), "norm_states"),
            ("0.norm2", (width,), "norm_latents"),
            ("0.to_q.weight", (inner, width), "query.weight"),
            ("0.to_kv.weight", (2 * inner, width), "key_value.weight"),
            ("0.to_out.weight", (width, inner), "output.weight"),
            ("1.0", (width,), "norm_feed"),
            ("1.1.weight", (4 * width, width), "up.weight"),
            ("1.3.weight", (width, 4 * width), "down.weight"),
        ]:
            found[f"image_proj.layers.{i}.{key}"] = (shape, f"reader.Resampler.layers.{i}.{name}")
    return found


def pooled(tokens, image_width):
    return {
        "image_proj.proj": ((tokens * CONTEXT, image_width), "reader.Pooled.layer"),
        "image_proj.norm": ((CONTEXT,), "reader.Pooled.norm"),
    }


def each_state(image_width):
    return {
        "image_proj.proj.0": ((image_width, image_width), "reader.EachState.input"),
        "image_proj.proj.2": ((CONTEXT, image_width), "reader.EachState.output"),
        "image_proj.proj.3": ((CONTEXT,), "reader.EachState.norm"),
    }


def with_parts(keys):
    """Keys that name a layer become those of its weight and bias."""
    found = {}
    for key, (shape, name) in keys.items():
        if key.endswith((".weight", "latents")):
            found[key] = (shape, name)
        else:
            ends = (".gamma", ".beta") if len(shape) == 1 else (".weight", ".bias")
            found[key + ".weight"] = (shape, name + ends[0])
            found[key + ".bias"] = (shape[:1], name + ends[1])
    return found


def attentions(unet):
    """Widths of the attentions to the text in the order in which diffusers counts them."""
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    modules = dict(unet.named_modules())
    return [modules[name.removesuffix(".processor")].to_q.weight.shape[0] for name in layers]


def adapter_file(reader, unet):
    """What a published file holds, and our name of every key."""
    keys = with_parts(reader)
    for i, width in enumerate(attentions(unet)):
        for part, name in [("to_k_ip", "key"), ("to_v_ip", "value")]:
            keys[f"ip_adapter.{2 * i + 1}.{part}.weight"] = ((width, CONTEXT), f"layers.{i}.{name}.weight")
    tensors = {"image_proj": {}, "ip_adapter": {}}
    for key, (shape, name) in keys.items():
        values = formula.chirp_linear(name, shape) if len(shape) == 2 else formula.chirp(name, shape)
        folder, rest = key.split(".", 1)
        tensors[folder][rest] = torch.from_numpy(values).double()
    return tensors, {key: name for key, (_, name) in keys.items()}


def reader_name(kind, name):
    """Our name of a parameter of one of diffusers' readers."""
    for old, new in [
        ("image_embeds", "layer"),
        ("ff.net.0.proj" if kind == "EachState" else "ff.1.net.0.proj", "input" if kind == "EachState" else "up"),
        ("ff.net.2" if kind == "EachState" else "ff.1.net.2", "output" if kind == "EachState" else "down"),
        ("ff.0", "norm_feed"),
        ("proj_in", "input"),
        ("proj_out", "output"),
        ("norm_out", "norm"),
        ("ln0", "norm_states"),
        ("ln1", "norm_latents"),
        ("attn.to_q", "query"),
        ("attn.to_out.0", "output"),
    ]:
        name = name.replace(old, new)
    if "norm" in name:
        name = name.replace("weight", "gamma").replace("bias", "beta")
    return f"reader.{kind}.{name}"


def gradients(unet, index, kind):
    """Of every parameter of one adapter, under our names."""
    found = {}
    for name, param in unet.encoder_hid_proj.image_projection_layers[index].named_parameters():
        found[reader_name(kind, name)] = param.grad
    for name in [name for name in found if name.endswith("attn.to_k.weight")]:
        halves = [found.pop(name), found.pop(name.replace("to_k", "to_v"))]
        found[name.replace("attn.to_k", "key_value")] = torch.cat(halves)
    layers = [proc for name, proc in unet.attn_processors.items() if name.endswith("attn2.processor")]
    for i, layer in enumerate(layers):
        found[f"layers.{i}.key.weight"] = layer.to_k_ip[index].weight.grad
        found[f"layers.{i}.value.weight"] = layer.to_v_ip[index].weight.grad
    return found


def case(unet, adapters, added, mask):
    """`adapters`: kind, reader, scale, image, and the parameters whose gradients are kept."""
    files = [adapter_file(reader, unet) for _, reader, *_ in adapters]
    unet._load_ip_adapter_weights([tensors for tensors, _ in files], low_cpu_mem_usage=False)
    scales = [scale for _, _, scale, *_ in adapters]
    for name, processor in unet.attn_processors.items():
        if name.endswith("attn2.processor"):
            processor.scale = scales
    own = inputs(4)
    images = [image.requires_grad_() for _, _, _, image, _ in adapters]
    added = dict(added, image_embeds=images)
    out = unet(own["x"], TIME, own["tokens"], encoder_attention_mask=mask, added_cond_kwargs=added).sample
    (out * pattern(out.shape, 2.0)).sum().backward()
    tensors = {"output": out, "grad.x": own["x"].grad, "grad.tokens": own["tokens"].grad}
    for i, (kind, _, _, image, watch) in enumerate(adapters):
        found = gradients(unet, i, kind)
        # Ours reads the vectors of several images, or the states of one.
        tensors[f"{i}.grad.image"] = image.grad if kind == "Pooled" else image.grad[:, 0]
        for name in watch:
            tensors[f"{i}.grad.{name}"] = found[name].T if found[name].dim() == 2 else found[name]
        tensors[f"{i}.norms"] = torch.stack([found[name].norm() for name in sorted(found)])
    tensors["styled"] = styled(unet, own, mask, added)
    return {name: value.detach().float().contiguous() for name, value in tensors.items()}, [names for _, names in files]


def styled(unet, own, mask, added):
    """The output with every adapter in one block of each way only, in two strengths."""
    for name, processor in unet.attn_processors.items():
        if name.endswith("attn2.processor"):
            here = {"up_blocks.1.attentions.1": 0.9, "down_blocks.1.attentions.0": 0.4}
            scale = next((scale for block, scale in here.items() if name.startswith(block)), 0.0)
            processor.scale = [scale] * len(processor.scale)
    with torch.no_grad():
        args = (own["x"], TIME, own["tokens"])
        return unet(*args, encoder_attention_mask=mask, added_cond_kwargs=added).sample


def main():
    torch.set_num_threads(1)
    xl = fill(UNet2DConditionModel(in_channels=4, out_channels=4, up_block_types=UP, **XL), *CHIRP)
    plus = resampler(24, 2, 5, 14)
    adapters = [
        ("Pooled", pooled(4, 10), 0.7, pattern((2, 2, 10), 5.0), ["reader.Pooled.layer.weight", "layers.27.key.weight"]),
        (
            "Resampler",
            plus,
            1.3,
            pattern((2, 1, 7, 14), 6.0),
            ["reader.Resampler.latents", "reader.Resampler.layers.2.norm_states.gamma", "layers.10.value.weight"],
        ),
    ]
    tensors, [pooled_names, plus_names] = case(xl, adapters, {"text_embeds": POOLED, "time_ids": SIZES}, MASK)
    save("ip_adapter_sdxl", tensors)

    small = fill(UNet2DConditionModel(in_channels=4, out_channels=4, **SMALL), *CHIRP)
    watch = ["reader.EachState.output.bias", "layers.6.value.weight"]
    adapters = [("EachState", each_state(10), 0.6, pattern((2, 1, 7, 10), 5.0), watch)]
    tensors, [state_names] = case(small, adapters, {}, None)
    save("ip_adapter_sd", tensors)

    names = {"pooled": pooled_names, "resampler": plus_names, "each_state": state_names}
    # Published files say `weight` and `bias` of norms; enum variants are no part of a name.
    ours = {
        case: {
            key: ".".join(part for part in name.split(".") if not part[0].isupper())
            .replace("gamma", "weight")
            .replace("beta", "bias")
            for key, name in pairs.items()
        }
        for case, pairs in names.items()
    }
    (FOLDER / "ip_adapter_names.json").write_text(json.dumps(ours, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
