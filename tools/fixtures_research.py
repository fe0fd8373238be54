"""Writes canvas-dit/tests/fixtures/{dit_diffusers,sit,u_vit,lightning,jit,ddt}*.{safetensors,json}.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_research.py

DiT comes from diffusers as it is. The others have no implementation there: what stands here is written from the papers'
equations, head by head and pair by pair, so that it shares no shortcut with ours; parameters bear the names and forms of the
authors' files. Everything runs in f64, with weights by formula.py; a fixture holds outputs, gradients and names.
"""

import json
import math
import re
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import DiTTransformer2DModel
from safetensors.torch import save_file
from torch import nn

sys.dont_write_bytecode = True  # tools/ stays clean
sys.path.insert(0, str(Path(__file__).parent))
import formula

torch.set_num_threads(1)
FOLDER = Path(__file__).parent.parent / "canvas-dit" / "tests" / "fixtures"
TIME = torch.tensor([0.25, 0.8], dtype=torch.float64)
LABELS = torch.tensor([3, 5])  # the second is "no class"


def pattern(shape, seed):
    return torch.from_numpy(formula.input_pattern(shape, seed)).double()


# --- the papers' parts ------------------------------------------------------------------------------------------------


def silu(x):
    return x / (1 + (-x).exp())


def rms(x, weight, eps=1e-6):
    return x / ((x**2).mean(-1, keepdim=True) + eps).sqrt() * weight


def centred(x, eps):
    x = x - x.mean(-1, keepdim=True)
    return x / ((x**2).mean(-1, keepdim=True) + eps).sqrt()


def waves(time, width):
    """Cosines, then sines, of `time 10000^(-i / (width/2))`."""
    half = width // 2
    angles = [[float(t) * 10000 ** (-i / half) for i in range(half)] for t in time]
    return torch.tensor([[math.cos(a) for a in row] + [math.sin(a) for a in row] for row in angles]).double()


def table(rows, columns, width):
    """Column first, then row: sines, then cosines, of each place."""
    quarter = width // 4
    out = []
    for row in range(rows):
        for column in range(columns):
            line = []
            for place in (column, row):
                angles = [place * 10000 ** (-i / quarter) for i in range(quarter)]
                line += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            out.append(line)
    return torch.tensor(out).double()


def turned(x, places):
    """Each pair of neighbours of each token turned: the first half of the features by row, the second by column."""
    size = x.shape[-1] // 2
    columns = []
    for axis in (0, 1):
        for i in range(size // 2):
            angle = torch.tensor([place[axis] * 10000 ** (-2 * i / size) for place in places]).double()
            a, b = x[..., axis * size + 2 * i], x[..., axis * size + 2 * i + 1]
            columns += [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()]
    return torch.stack(columns, -1)


def patches(x, weight, bias):
    """Each patch by itself through the kernel: `[B, N, W]`, and how many there are in rows and columns."""
    size = weight.shape[-1]
    rows, columns = x.shape[2] // size, x.shape[3] // size
    out = []
    for row in range(rows):
        for column in range(columns):
            cut = x[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
            out.append(torch.einsum("bcij,wcij->bw", cut, weight))
    out = torch.stack(out, 1)
    return (out if bias is None else out + bias), rows, columns


def image(tokens, rows, columns, size):
    """A token is its patch's pixels, row by row, each with all channels."""
    lines = []
    for row in range(rows):
        cells = [
            tokens[:, row * columns + column].reshape(len(tokens), size, size, -1).permute(0, 3, 1, 2)
            for column in range(columns)
        ]
        lines.append(torch.cat(cells, 3))
    return torch.cat(lines, 2)


class Weight(nn.Module):
    """A name for a weight."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))


class Heads(nn.Module):
    """Attention, head by head, of tokens to those that `seen` [B, M] shows."""

    def __init__(self, width, heads, bias=True, norms=False):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width), heads
        if norms:
            self.q_norm, self.k_norm = Weight(width // heads), Weight(width // heads)
        self.norms = norms

    def forward(self, x, places=None, seen=None):
        width = x.shape[-1]
        size, all, read = width // self.heads, self.qkv(x), []
        for head in range(self.heads):
            query, key, value = (all[..., part * width + head * size :][..., :size] for part in range(3))
            if self.norms:
                query, key = rms(query, self.q_norm.weight), rms(key, self.k_norm.weight)
            if places is not None:
                query, key = turned(query, places), turned(key, places)
            scores = query @ key.transpose(1, 2) / size**0.5
            if seen is not None:
                scores = scores.masked_fill(~seen[:, None], -torch.inf)
            read.append(scores.softmax(-1) @ value)
        return self.proj(torch.cat(read, -1))


def time_mlp(inputs, width):
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))


class Time(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = time_mlp(256, width)

    def forward(self, time):
        return self.mlp(waves(time, 256))


class Label(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, labels):
        return self.embedding_table(labels)


class Pooled(nn.Module):
    """What reads text where a class would be read: ours, no paper's."""

    def __init__(self, inputs, width):
        super().__init__()
        self.embedding_table = nn.Linear(inputs, width)

    def forward(self, pooled):
        return self.embedding_table(pooled)


class Kernel(nn.Module):
    def __init__(self, channels, width, size):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, size, size)


class Gated(nn.Module):
    def __init__(self, width):
        super().__init__()
        hidden = 8 * width // 3
        self.w12, self.w3, self.hidden = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width), hidden

    def forward(self, x):
        both = self.w12(x)
        return self.w3(silu(both[..., : self.hidden]) * both[..., self.hidden :])


def modulation(width, count):
    return nn.Sequential(nn.SiLU(), nn.Linear(width, count * width))


class LightningBlock(nn.Module):
    def __init__(self, width, heads, norms):
        super().__init__()
        self.norm1, self.norm2 = Weight(width), Weight(width)
        self.attn, self.mlp = Heads(width, heads, norms=norms), Gated(width)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, h, c, places):
        """`c`: `[B, 1 or N, W]`."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, -1)
        h = h + gate_a * self.attn(rms(h, self.norm1.weight) * (1 + scale_a) + shift_a, places)
        return h + gate_m * self.mlp(rms(h, self.norm2.weight) * (1 + scale_m) + shift_m)


class LightningEnd(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.norm_final, self.linear = Weight(width), nn.Linear(width, outputs)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, h, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, -1)
        return self.linear(rms(h, self.norm_final.weight) * (1 + scale) + shift)


def grid(rows, columns):
    return [(row, column) for row in range(rows) for column in range(columns)]


class Lightning(nn.Module):
    """LightningDiT; the paper's time is 1 at the data, and its velocity points there."""

    def __init__(self, channels, width, depth, heads, size, norms, reads):
        super().__init__()
        self.x_embedder, self.t_embedder, self.y_embedder = Kernel(channels, width, size), Time(width), reads
        self.blocks = nn.ModuleList(LightningBlock(width, heads, norms) for _ in range(depth))
        self.final_layer = LightningEnd(width, channels * size * size)
        self.size = size

    def forward(self, x, time, cond):
        h, rows, columns = patches(x, self.x_embedder.proj.weight, self.x_embedder.proj.bias)
        h = h + table(rows, columns, h.shape[-1])
        c = (self.t_embedder(time) + self.y_embedder(cond))[:, None]
        for block in self.blocks:
            h = block(h, c, grid(rows, columns))
        return image(self.final_layer(h, c), rows, columns, self.size)


class Bottleneck(nn.Module):
    def __init__(self, channels, narrow, width, size):
        super().__init__()
        self.proj1 = nn.Conv2d(channels, narrow, size, size, bias=False)
        self.proj2 = nn.Conv2d(narrow, width, 1)


class Jit(nn.Module):
    def __init__(self, channels, width, depth, heads, size, narrow, tokens, start, reads):
        super().__init__()
        self.x_embedder, self.t_embedder, self.y_embedder = Bottleneck(channels, narrow, width, size), Time(width), reads
        self.in_context_posemb = nn.Parameter(torch.zeros(1, tokens, width))
        self.blocks = nn.ModuleList(LightningBlock(width, heads, True) for _ in range(depth))
        self.final_layer = LightningEnd(width, channels * size * size)
        self.size, self.start, self.tokens = size, start, tokens

    def forward(self, x, time, cond):
        h, rows, columns = patches(x, self.x_embedder.proj1.weight, None)
        h = h @ self.x_embedder.proj2.weight[:, :, 0, 0].T + self.x_embedder.proj2.bias
        h = h + table(rows, columns, h.shape[-1])
        y = self.y_embedder(cond)
        c, places = (self.t_embedder(time) + y)[:, None], grid(rows, columns)
        for i, block in enumerate(self.blocks):
            if i == self.start:
                extra = [y + self.in_context_posemb[0, token] for token in range(self.tokens)]
                h, places = torch.cat([torch.stack(extra, 1), h], 1), [(0, 0)] * self.tokens + places
            h = block(h, c, places)
        return image(self.final_layer(h[:, self.tokens :], c), rows, columns, self.size)


class Fourier(nn.Module):
    def __init__(self, frequencies, width):
        super().__init__()
        self.W = nn.Parameter(torch.zeros(frequencies), requires_grad=False)
        self.mlp = time_mlp(2 * frequencies, width)

    def forward(self, time):
        angles = 2 * math.pi * time[:, None] * self.W
        return self.mlp(torch.cat([angles.sin(), angles.cos()], 1))


class Ddt(nn.Module):
    """An encoder of the condition and a wide head; time is 1 at the noise."""

    def __init__(self, channels, width, depth, heads, size, frequencies, reads):
        super().__init__()
        self.s_embedder, self.x_embedder = (Kernel(channels, each, size) for each in width)
        self.t_embedder, self.y_embedder = Fourier(frequencies, width[0]), reads
        self.s_projector = nn.Linear(*width)
        self.blocks = nn.ModuleList(
            LightningBlock(width[part], heads[part], False) for part in (0, 1) for _ in range(depth[part])
        )
        self.final_layer = LightningEnd(width[1], channels * size * size)
        self.size, self.encoder = size, depth[0]

    def forward(self, x, time, cond):
        t = self.t_embedder(time)
        c = silu(t + self.y_embedder(cond))[:, None]
        s, rows, columns = patches(x, self.s_embedder.proj.weight, self.s_embedder.proj.bias)
        s = s + table(rows, columns, s.shape[-1])
        for block in self.blocks[: self.encoder]:
            s = block(s, c, grid(rows, columns))
        s = self.s_projector(silu(t[:, None] + s))
        h, _, _ = patches(x, self.x_embedder.proj.weight, self.x_embedder.proj.bias)
        for block in self.blocks[self.encoder :]:
            h = block(h, s, grid(rows, columns))
        return image(self.final_layer(h, s), rows, columns, self.size)


class Perceptron(nn.Module):
    def __init__(self, width, activation):
        super().__init__()
        self.fc1, self.fc2, self.activation = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), activation

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)))


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_tanh(x):
    return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class ViTBlock(nn.Module):
    def __init__(self, width, heads, skips):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Heads(width, heads, bias=False), Perceptron(width, gelu)
        self.skip_linear = nn.Linear(2 * width, width) if skips else None

    def forward(self, h, seen, skip=None):
        if skip is not None:
            h = self.skip_linear(torch.cat([h, skip], -1))
        norm = lambda layer, x: centred(x, 1e-5) * layer.weight + layer.bias
        h = h + self.attn(norm(self.norm1, h), seen=seen)
        return h + self.mlp(norm(self.norm2, h))


class UVit(nn.Module):
    def __init__(self, channels, width, depth, heads, size, count, labels=None, context=None, conv=True):
        super().__init__()
        self.patch_embed = Kernel(channels, width, size)
        extras = 1
        if labels:
            self.label_emb, extras = nn.Embedding(labels, width), 2
        if context:
            self.context_embed, extras = nn.Linear(context[0], width), 1 + context[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, extras + count, width))
        self.in_blocks, self.out_blocks = (
            nn.ModuleList(ViTBlock(width, heads, skips) for _ in range(depth // 2)) for skips in (False, True)
        )
        self.mid_block = ViTBlock(width, heads, False)
        self.norm, self.decoder_pred = nn.LayerNorm(width), nn.Linear(width, channels * size * size)
        if conv:
            self.final_layer = nn.Conv2d(channels, channels, 3, padding=1)
        self.size, self.extras, self.conv = size, extras, conv

    def forward(self, x, time, labels=None, tokens=None, mask=None):
        """Time in steps of 1000."""
        h, rows, columns = patches(x, self.patch_embed.proj.weight, self.patch_embed.proj.bias)
        parts = [waves(time, h.shape[-1])[:, None], h]
        if labels is not None:
            parts.insert(0, self.label_emb(labels)[:, None])
        if tokens is not None:
            parts.insert(1, self.context_embed(tokens))
        h = torch.cat(parts, 1) + self.pos_embed
        seen = None
        if mask is not None:
            one = torch.ones(len(mask), 1, dtype=bool)
            seen = torch.cat([one, mask, one.expand(-1, rows * columns)], 1)
        skips = []
        for block in self.in_blocks:
            h = block(h, seen)
            skips.append(h)
        h = self.mid_block(h, seen)
        for block in self.out_blocks:
            h = block(h, seen, skips.pop())
        h = self.decoder_pred(centred(h, 1e-5) * self.norm.weight + self.norm.bias)
        x = image(h[:, self.extras :], rows, columns, self.size)
        return self.final_layer(x) if self.conv else x


class SitBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn, self.mlp = Heads(width, heads), Perceptron(width, gelu_tanh)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, h, c):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, -1)
        h = h + gate_a * self.attn(centred(h, 1e-6) * (1 + scale_a) + shift_a)
        return h + gate_m * self.mlp(centred(h, 1e-6) * (1 + scale_m) + shift_m)


class SitEnd(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.linear, self.adaLN_modulation = nn.Linear(width, outputs), modulation(width, 2)

    def forward(self, h, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, -1)
        return self.linear(centred(h, 1e-6) * (1 + scale) + shift)


class Sit(nn.Module):
    """The paper's time is 1 at the data, and its velocity points there; the second half of the outputs is not used."""

    def __init__(self, channels, width, depth, heads, size, reads):
        super().__init__()
        self.x_embedder, self.t_embedder, self.y_embedder = Kernel(channels, width, size), Time(width), reads
        self.blocks = nn.ModuleList(SitBlock(width, heads) for _ in range(depth))
        self.final_layer = SitEnd(width, 2 * channels * size * size)
        self.size, self.channels = size, channels

    def forward(self, x, time, cond):
        h, rows, columns = patches(x, self.x_embedder.proj.weight, self.x_embedder.proj.bias)
        h = h + table(rows, columns, h.shape[-1])
        c = (self.t_embedder(time) + self.y_embedder(cond))[:, None]
        for block in self.blocks:
            h = block(h, c)
        return image(self.final_layer(h, c), rows, columns, self.size)[:, : self.channels]


# --- our names and layouts --------------------------------------------------------------------------------------------

LIGHTNING = [
    ("t_embedder.mlp.0", "time.input"),
    ("t_embedder.mlp.2", "time.output"),
    ("t_embedder.W", "time.frequencies"),
    ("y_embedder.embedding_table", "cond"),
    ("attn.q_norm.weight", "qkv.query_norm.gamma"),
    ("attn.k_norm.weight", "qkv.key_norm.gamma"),
    ("attn.proj", "output"),
    ("attn.qkv", "qkv"),
    ("norm1.weight", "norm_attention.gamma"),
    ("norm2.weight", "norm_mlp.gamma"),
    ("mlp.w3", "mlp.down"),
    ("final_layer.norm_final.weight", "end.norm.gamma"),
    ("final_layer.linear", "end.unembed"),
    ("final_layer.adaLN_modulation.1", "end.modulation"),
    ("adaLN_modulation.1", "modulation"),
]
NAMES = {
    "lightning": [("x_embedder.proj", "embed")] + LIGHTNING,
    "jit": [
        ("x_embedder.proj1", "squeeze"),
        ("x_embedder.proj2", "embed"),
        ("in_context_posemb", "places"),
    ]
    + LIGHTNING,
    "ddt": [("s_embedder.proj", "embed"), ("x_embedder.proj", "head_embed"), ("s_projector", "widen")] + LIGHTNING,
    "u_vit": [
        ("patch_embed.proj", "embed"),
        ("label_emb", "cond"),
        ("context_embed", "cond"),
        ("pos_embed", "position"),
        ("in_blocks", "down"),
        ("mid_block", "middle"),
        ("out_blocks", "up"),
        ("decoder_pred", "unembed"),
        ("final_layer", "conv"),
        ("norm1.weight", "norm_attention.gamma"),
        ("norm1.bias", "norm_attention.beta"),
        ("norm2.weight", "norm_mlp.gamma"),
        ("norm2.bias", "norm_mlp.beta"),
        ("norm.weight", "norm.gamma"),
        ("norm.bias", "norm.beta"),
        ("attn.proj", "output"),
        ("attn.qkv", "qkv"),
        ("mlp.fc1", "mlp.up"),
        ("mlp.fc2", "mlp.down"),
        ("skip_linear", "skip"),
    ],
    "sit": [
        ("x_embedder.proj", "dit.embed"),
        ("t_embedder.mlp.0", "dit.time.input"),
        ("t_embedder.mlp.2", "dit.time.output"),
        ("y_embedder.embedding_table", "dit.cond"),
        ("attn.proj", "attention.output"),
        ("attn.qkv", "attention"),
        ("mlp.fc1", "mlp.up"),
        ("mlp.fc2", "mlp.down"),
        ("final_layer.linear", "dit.unembed"),
        ("final_layer.adaLN_modulation.1", "dit.final_modulation"),
        ("adaLN_modulation.1", "modulation"),
        ("blocks.", "dit.blocks."),
    ],
    "dit_diffusers": [
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
    ],
}


def ours(family, name, value):
    """Our name and layout of each part of a published tensor."""
    for published, own in NAMES[family]:
        name = name.replace(published, own)
    parts = [(name, value)]
    thirds, halves = ["query", "key", "value"], ["gate", "up"]
    for whole, prefix, names in [("qkv", "qkv", thirds), ("attention", "attention", thirds), ("mlp.w12", "mlp", halves)]:
        if found := re.fullmatch(rf"(.*\b){re.escape(whole)}\.(weight|bias)", name):
            pieces = value.chunk(len(names))
            parts = [(f"{found[1]}{prefix}.{part}.{found[2]}", piece) for part, piece in zip(names, pieces)]
    if family == "jit" and name == "embed.weight":  # a 1x1 convolution, to us a linear layer
        parts = [(name, value[:, :, 0, 0])]
    return parts


def tables(model):
    """The weights that are not matrices of a linear layer: Burn holds them as PyTorch does."""
    return {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}


def layout(piece, is_table):
    return piece.T if piece.dim() == 2 and not is_table else piece


def fill(family, model):
    kept = tables(model)
    for name, param in model.named_parameters():
        pieces = []
        for own, piece in ours(family, name, param.data):
            mine = layout(piece, id(param) in kept)
            value = torch.from_numpy(formula.chirp(own, mine.shape))
            pieces.append(layout(value, id(param) in kept))
        param.data = torch.cat(pieces).reshape(param.shape)
    return model.double()


def write(name, family, model, run, inputs, watch):
    """Values, the norm of every parameter's gradient in the order of our names, and some gradients whole."""
    kept = tables(model)
    model.zero_grad()
    inputs = {key: value.clone().requires_grad_() for key, value in inputs.items()}
    output = run(**inputs)
    (output * pattern(output.shape, 2.0)).sum().backward()
    found = {}
    for key, param in model.named_parameters():
        if param.requires_grad:
            for own, piece in ours(family, key, param.grad):
                found[own] = layout(piece, id(param) in kept)
    tensors = {"output": output, "norms": torch.stack([found[key].norm() for key in sorted(found)])}
    tensors |= {"grad.input." + key: value.grad for key, value in inputs.items()}
    tensors |= {"grad." + key: found[key] for key in watch}
    tensors = {key: value.detach().float().contiguous() for key, value in tensors.items()}
    notes = {"source": f"tools/fixtures_research.py, diffusers {diffusers.__version__}, torch {torch.__version__}"}
    save_file(tensors, FOLDER / f"{name}.safetensors", metadata=notes)
    print(name, {key: (tuple(v.shape), f"{v.abs().max():.3g}") for key, v in tensors.items()})


def names(models):
    listed = {
        name: {key: list(value.shape) for key, value in model.state_dict().items()} for name, model in models.items()
    }
    (FOLDER / "research_names.json").write_text(json.dumps(listed, indent=0) + "\n")


def diffusers_dit():
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=6, num_layers=2, sample_size=6, num_embeds_ada_norm=5
    )
    model = fill("dit_diffusers", model).eval()
    first = model.transformer_blocks[0].norm1.emb
    for block in model.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(first.state_dict())
    # As published files, where every block's copy is a tensor of its own; gradients are those of one shared embedder.
    shared = [block.norm1.emb for block in model.transformer_blocks]
    # diffusers computes tables of sines in f32, those of the time too; the formula is its own.
    half, period = 128, 10000 ** (128 / 127)
    def waves_of(time):
        angles = time.double()[:, None] * period ** (-torch.arange(half).double() / half)
        return torch.cat([angles.cos(), angles.sin()], 1)
    theirs = first.time_proj(torch.tensor([250.0, 800.0])).double()
    assert (theirs - waves_of(TIME * 1000)).abs().max() < 1e-4
    for each in shared:
        each.time_proj.forward = waves_of
    assert (model.pos_embed.pos_embed[0] - table(3, 3, 16)).abs().max() < 1e-6
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.pos_embed.pos_embed = table(3, 3, 16)[None]
    for block in model.transformer_blocks:
        block.norm1.emb = first
    return model, state


def main():
    square, wide = pattern((2, 3, 6, 6), 1.0), pattern((2, 3, 4, 6), 1.0)
    pooled, tokens = pattern((2, 7), 3.0), pattern((2, 5, 12), 1.0)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    listed = {}

    dit, state = diffusers_dit()
    run = lambda x: dit(x, TIME * 1000, LABELS).sample
    write("dit_diffusers", "dit_diffusers", dit, run, {"x": square}, ["cond.weight", "blocks.1.mlp.up.bias", "time.input.bias"])

    watch = ["embed.bias", "cond.weight", "time.input.bias", "blocks.1.qkv.key.weight", "blocks.0.mlp.gate.bias", "end.norm.gamma"]
    label = lambda width: Label(5, width)
    net = fill("lightning", Lightning(3, 24, 3, 2, 2, False, label(24)))
    listed["lightning"] = net
    run = lambda x: -net(x, 1 - TIME, LABELS)
    write("lightning", "lightning", net, run, {"x": wide}, watch)
    normed = fill("lightning", Lightning(3, 24, 2, 3, 1, True, Pooled(7, 24)))
    listed["lightning_text"] = normed
    run = lambda x, pooled: -normed(x, 1 - TIME, pooled)
    write("lightning_text", "lightning", normed, run, {"x": wide, "pooled": pooled}, ["cond.weight", "blocks.1.qkv.query_norm.gamma"])

    jit = fill("jit", Jit(3, 24, 4, 2, 2, 8, 3, 2, label(24)))
    listed["jit"] = jit
    run = lambda x: jit(x, 1 - TIME, LABELS)
    write("jit", "jit", jit, run, {"x": wide}, ["squeeze.weight", "embed.weight", "places", *watch[1:]])

    ddt = fill("ddt", Ddt(5, (16, 24), (2, 2), (2, 3), 1, 8, label(16)))
    listed["ddt"] = ddt
    run = lambda x: ddt(x, TIME, LABELS)
    x = pattern((2, 5, 3, 4), 1.0)
    write("ddt", "ddt", ddt, run, {"x": x}, ["widen.weight", "head_embed.weight", "blocks.2.modulation.bias", *watch[1:-1]])

    watch = ["embed.bias", "position", "cond.weight", "down.1.qkv.key.weight", "up.0.skip.weight", "middle.mlp.up.bias", "norm.gamma"]
    u_vit = fill("u_vit", UVit(3, 16, 4, 2, 2, 6, labels=6))
    listed["u_vit"] = u_vit
    write("u_vit", "u_vit", u_vit, lambda x: u_vit(x, TIME * 1000, LABELS), {"x": wide}, [*watch, "conv.weight"])
    text = fill("u_vit", UVit(3, 16, 4, 2, 2, 6, context=(12, 5), conv=False))
    listed["u_vit_text"] = text
    run = lambda x, tokens: text(x, TIME * 1000, tokens=tokens)
    write("u_vit_text", "u_vit", text, run, {"x": wide, "tokens": tokens}, watch)
    run = lambda x, tokens: text(x, TIME * 1000, tokens=tokens, mask=mask)
    write("u_vit_masked", "u_vit", text, run, {"x": wide, "tokens": tokens}, watch)
    plain = fill("u_vit", UVit(3, 16, 2, 2, 2, 6))
    listed["u_vit_plain"] = plain
    write("u_vit_plain", "u_vit", plain, lambda x: plain(x, TIME * 1000), {"x": wide}, ["position"])

    sit = fill("sit", Sit(3, 16, 2, 2, 2, label(16)))
    listed["sit"] = sit
    watch = ["dit.cond.weight", "dit.blocks.1.attention.key.weight", "dit.time.input.bias", "dit.embed.weight"]
    write("sit", "sit", sit, lambda x: -sit(x, 1 - TIME, LABELS), {"x": wide}, watch)

    names(listed)
    data = json.loads((FOLDER / "research_names.json").read_text())
    data["dit_diffusers"] = {key: list(value.shape) for key, value in state.items()}
    (FOLDER / "research_names.json").write_text(json.dumps(data, indent=0) + "\n")


if __name__ == "__main__":
    main()
