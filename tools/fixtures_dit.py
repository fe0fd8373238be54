"""Writes canvas-dit/tests/fixtures/*.safetensors: what the DiT family answers in PyTorch.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_dit.py

`dit.safetensors` comes from diffusers, which draws square images only. The two others come from `Network` below,
which is written from the papers' figures and must equal diffusers on the square before it is believed on the rest.
Both sides fill their weights by formula.py, so a fixture holds outputs only. The references run in f64.
"""

import re
import sys
from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel
from safetensors.torch import save_file
from torch import nn

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

FOLDER = Path(__file__).parent.parent / "canvas-dit" / "tests" / "fixtures"
TIME = torch.tensor([0.25, 0.75], dtype=torch.float64)
LABELS = torch.tensor([3, 7])  # the second is "no class"


def pattern(shape, seed, scale=1.0):
    return torch.from_numpy(formula.input_pattern(shape, seed, scale)).double()


def layer_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulated(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


def sincos(positions, width):
    """All sines, then all cosines, at frequencies 10000^(-i / (width/2)): `[N, width]`."""
    angles = positions[:, None] * 10000.0 ** (-torch.arange(width // 2).double() / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], 1)


class Attention(nn.Module):
    def __init__(self, width, heads, context):
        super().__init__()
        self.query, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(context, width), nn.Linear(context, width)
        self.heads = heads

    def forward(self, x, context, mask=None):
        """Head by head, as equation 1 of "Attention Is All You Need" has it."""
        size, mixed = x.shape[-1] // self.heads, []
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            query, key, value = (
                layer(source)[..., part]
                for layer, source in [(self.query, x), (self.key, context), (self.value, context)]
            )
            scores = query @ key.mT / size**0.5
            if mask is not None:
                scores = scores.masked_fill(~mask[:, None], -torch.inf)
            mixed.append(scores.softmax(-1) @ value)
        return self.output(torch.cat(mixed, -1))


class Block(nn.Module):
    def __init__(self, width, heads, context):
        super().__init__()
        self.attention = Attention(width, heads, width)
        self.cross = Attention(width, heads, context) if context else None
        self.mlp = nn.ModuleDict({"up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)})
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, h, c, tokens, mask):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(F.silu(c)).chunk(6, 1)
        a = modulated(layer_norm(h), shift_a, scale_a)
        h = h + gate_a[:, None] * self.attention(a, a)
        if self.cross is not None:  # PixArt-alpha: neither normalised nor gated
            h = h + self.cross(h, tokens, mask)
        m = modulated(layer_norm(h), shift_m, scale_m)
        return h + gate_m[:, None] * self.mlp["down"](F.gelu(self.mlp["up"](m), approximate="tanh"))


class Network(nn.Module):
    """DiT's Figure 3 with adaLN-Zero; `context` adds PixArt-alpha's cross-attention."""

    def __init__(self, channels, outputs, width, depth, heads, classes=None, context=None, pooled=None):
        super().__init__()
        self.embed = nn.Conv2d(channels, width, 2, 2)
        self.time = nn.ModuleDict({"input": nn.Linear(256, width), "output": nn.Linear(width, width)})
        if classes is not None:
            self.labels = nn.Embedding(classes + 1, width)
        if pooled is not None:
            self.prompt = nn.Linear(pooled, width)
        self.blocks = nn.ModuleList(Block(width, heads, context) for _ in range(depth))
        self.final_modulation = nn.Linear(width, 2 * width)
        self.unembed = nn.Linear(width, 4 * outputs)

    def forward(self, x, time, labels=None, tokens=None, mask=None, pooled=None):
        h = self.embed(x)
        width, rows, columns = h.shape[1:]
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        table = torch.cat([sincos(place.flatten(), width // 2) for place in (column, row)], 1)
        h = h.flatten(2).mT + table

        features = sincos(time * 1000, 256).roll(128, 1)  # cosines first
        c = self.time["output"](F.silu(self.time["input"](features)))
        c = c + (self.labels(labels) if labels is not None else self.prompt(pooled))
        for block in self.blocks:
            h = block(h, c, tokens, mask)
        h = self.unembed(modulated(layer_norm(h), *self.final_modulation(F.silu(c)).chunk(2, 1)))
        return torch.stack([self.image(sample, rows, columns) for sample in h])

    @staticmethod
    def image(tokens, rows, columns):
        """A token is its patch's pixels, row by row, each with all channels."""
        patches = [token.reshape(2, 2, -1).permute(2, 0, 1) for token in tokens]
        lines = [torch.cat(patches[row * columns : (row + 1) * columns], 2) for row in range(rows)]
        return torch.cat(lines, 1)


def of_diffusers(name):
    """`transformer_blocks.1.attn1.to_out.0.weight` -> `blocks.1.attention.output.weight`."""
    for old, new in [
        ("transformer_blocks.0.norm1.emb.timestep_embedder.linear_1", "time.input"),
        ("transformer_blocks.0.norm1.emb.timestep_embedder.linear_2", "time.output"),
        ("transformer_blocks.0.norm1.emb.class_embedder.embedding_table", "cond"),
        ("transformer_blocks.", "blocks."),
        ("norm1.linear", "modulation"),
        ("attn1.to_q", "attention.query"),
        ("attn1.to_k", "attention.key"),
        ("attn1.to_v", "attention.value"),
        ("attn1.to_out.0", "attention.output"),
        ("ff.net.0.proj", "mlp.up"),
        ("ff.net.2", "mlp.down"),
        ("pos_embed.proj", "embed"),
        ("proj_out_1", "final_modulation"),
        ("proj_out_2", "unembed"),
    ]:
        name = name.replace(old, new)
    return name


def of_network(name):
    return re.sub(r"^labels\.", "cond.", name)


def of_text(name):
    return name


def is_matrix(rename, name, value):
    """Burn holds these as `[in, out]`: linear layers, and where text is read the convolution that cuts the patches."""
    return value.dim() == 2 and name != "cond.weight" or value.dim() == 4 and rename is of_text


def to_ours(rename, name, value):
    return value.flatten(1).T if is_matrix(rename, name, value) else value


def fill(model, rename):
    for name, param in model.named_parameters():
        ours = rename(name)
        values = torch.from_numpy(formula.fill(ours, to_ours(rename, ours, param.data).shape))
        param.data = values.T.reshape(param.shape) if is_matrix(rename, ours, param) else values
    return model.double().eval()


def reference(heads, size, depth, channels, classes):
    """diffusers' DiT with the paper's conventions where the two differ."""
    model = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=size,
        in_channels=channels,
        out_channels=2 * channels,
        num_layers=depth,
        sample_size=6,
        num_embeds_ada_norm=classes,
        norm_eps=1e-6,  # 1e-5 by default; the paper's code has 1e-6 everywhere
    )
    shared = model.transformer_blocks[0].norm1.emb  # every block has a copy, and the last layer uses the first
    # Frequencies end at 1/10000 by default; the paper's code divides by half the width and never reaches it.
    shared.time_proj.forward = lambda time: sincos(time.double(), 256).roll(128, 1)
    for block in model.transformer_blocks:
        block.norm1.emb = shared
    # diffusers computes the position table in f32.
    width, row, column = heads * size, torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    table = torch.cat([sincos(place, width // 2) for place in (column, row)], 1)
    assert (model.pos_embed.pos_embed[0] - table).abs().max() < 1e-6
    model.pos_embed.pos_embed = table[None]
    return model


def write(file, model, rename, run, inputs, watch):
    """Values and gradients of a fixed sum, and the values again where the norms' epsilon matters."""
    inputs = {name: value.requires_grad_() for name, value in inputs.items()}
    output = run(**inputs)
    (output * pattern(output.shape, 2.0)).sum().backward()
    tensors = {"output": output} | {"grad." + name: value.grad for name, value in inputs.items()}
    found = {rename(name): to_ours(rename, rename(name), param.grad) for name, param in model.named_parameters()}
    tensors |= {"grad." + name: found[name] for name in watch}
    with torch.no_grad():
        for param in model.parameters():
            param *= 0.1
        tensors["quiet"] = run(**{name: 1e-3 * value for name, value in inputs.items()})
    tensors = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    # One key only: safetensors writes several in any order, and the file should not change when nothing did.
    notes = {"source": f"tools/fixtures_dit.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(tensors, FOLDER / file, metadata=notes)
    print(file, {name: (tuple(v.shape), f"{v.abs().max():.3g}") for name, v in tensors.items()})


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = fill(reference(2, 8, 2, 3, 7), of_diffusers)
    ours = fill(Network(3, 6, 16, 2, 2, classes=7), of_network)
    square = pattern((2, 3, 6, 6), 1.0)
    off = (model(square, TIME * 1000, LABELS).sample - ours(square, TIME, LABELS)).abs().max()
    print(f"Network against diffusers: {off:.1e}")
    assert off < 1e-12

    watch = ["embed.weight", "time.input.bias", "cond.weight", "blocks.0.modulation.bias",
             "blocks.1.attention.key.weight", "blocks.1.mlp.down.bias", "final_modulation.bias"]
    run = lambda x: model(x, TIME * 1000, LABELS).sample
    write("dit.safetensors", model, of_diffusers, run, {"x": square}, watch)
    run = lambda x: ours(x, TIME, LABELS)
    write("dit_wide.safetensors", ours, of_network, run, {"x": pattern((2, 3, 4, 10), 1.0)}, watch[:3])

    text = fill(Network(3, 3, 16, 2, 2, context=12, pooled=7), of_text)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    run = lambda x, tokens, pooled: text(x, TIME, tokens=tokens, mask=mask, pooled=pooled)
    inputs = {"x": pattern((2, 3, 4, 10), 1.0), "tokens": pattern((2, 5, 12), 1.0), "pooled": pattern((2, 7), 3.0)}
    watch = ["prompt.weight", "blocks.0.cross.key.weight", "blocks.1.cross.output.bias", "blocks.1.mlp.up.bias",
             "blocks.0.modulation.bias"]
    write("text_dit.safetensors", text, of_text, run, inputs, watch)


if __name__ == "__main__":
    main()
