"""Everything the reference of the program `generate` is fed with, by closed formulas over integers.

A Rust test makes the same bits without a file: weights, noise, pictures and the tokenizer are functions of a name.

- `u(name, i)` = top 53 bits of `splitmix64(fnv1a64(name) + i)` over 2^53, times 2, minus 1: uniform in [-1, 1).
- weights: `weight("<component>/<key>", shape)`, see there; f64 throughout, rounded to f32 once.
- noise: the sum of twelve uniforms in [0, 1) minus 6, in order, f64, rounded to f32 once.
- pictures: bilinear value noise in whole numbers.
"""

import json

import re

import numpy as np
from PIL import Image

from formula import fnv1a

START, END = "<|startoftext|>", "<|endoftext|>"


def splitmix64(state: np.ndarray) -> np.ndarray:
    """The generator's output for these states (which it advances by the golden ratio first)."""
    with np.errstate(over="ignore"):
        z = state + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def bits(name: str, count: int) -> np.ndarray:
    """64 hashed bits for each index below `count`."""
    with np.errstate(over="ignore"):
        return splitmix64(np.uint64(fnv1a(name)) + np.arange(count, dtype=np.uint64))


def unit(name: str, count: int) -> np.ndarray:
    """Uniform in [0, 1)."""
    return (bits(name, count) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def weight(name: str, shape) -> np.ndarray:
    """The tensor of a file: `name` is `<component>/<key in the file>`, `shape` as in the file.

    Norm weights (one axis, `.weight`) `1 + 0.1 u`; other vectors `0.1 u`; embeddings (`embedding.weight`, and CLIP's
    `class_embedding`) `u`; variances of batch norms (`running_var`) `1 + 0.5 u`; the rest `u sqrt(3 / fan_in)`, of unit
    variance per output, fan_in = product of all axes but the first. A scalar is 1.
    """
    shape = tuple(int(n) for n in shape)
    # DiT's blocks have a copy each of the one embedder of time and class.
    name = re.sub(r"(transformer_blocks)\.\d+\.norm1\.emb\.", r"\1.0.norm1.emb.", name)
    u = 2.0 * unit(name, int(np.prod(shape))) - 1.0
    if name.endswith(("embedding.weight", "class_embedding")):
        values = u
    elif len(shape) == 0:
        values = np.ones(1)
    elif name.endswith("running_var"):
        values = 1.0 + 0.5 * u
    elif len(shape) == 1:
        values = 1.0 + 0.1 * u if name.endswith(".weight") else 0.1 * u
    else:
        values = u * np.sqrt(3.0 / np.float64(int(np.prod(shape[1:]))))
    return values.astype(np.float32).reshape(shape)


def noise(name: str, shape) -> np.ndarray:
    """Nearly normal noise (Irwin-Hall): draws `12 i .. 12 i + 11` make element i."""
    count = int(np.prod(shape))
    twelve = unit(f"noise/{name}", 12 * count).reshape(count, 12)
    total = np.zeros(count)
    for column in range(12):
        total = total + twelve[:, column]
    return (total - 6.0).astype(np.float32).reshape(shape)


def value_noise(name: str, height: int, width: int, cell: int) -> np.ndarray:
    """Bytes at corners every `cell` pixels, interpolated linearly in whole numbers: [height, width] of 0..255."""
    across = width // cell + 2
    corners = (bits(name, (height // cell + 2) * across) >> np.uint64(56)).astype(np.int64).reshape(-1, across)
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    gy, gx, fy, fx = y // cell, x // cell, y % cell, x % cell
    top = corners[gy, gx] * (cell - fx) + corners[gy, gx + 1] * fx
    bottom = corners[gy + 1, gx] * (cell - fx) + corners[gy + 1, gx + 1] * fx
    return ((top * (cell - fy) + bottom * fy) // (cell * cell)).astype(np.uint8)


# name: (kind, height, width). Colours come from three channels of value noise, soft masks from one.
PICTURES = {
    "photo": ("photo", 40, 56),
    "photo_tall": ("photo", 64, 48),
    "photo_odd": ("photo", 43, 61),
    "photo_small": ("photo", 24, 40),
    "pose": ("photo", 40, 56),
    "pose_odd": ("photo", 57, 73),
    "style": ("photo", 45, 67),
    "style_b": ("photo", 32, 32),
    "photo_large": ("photo", 83, 101),
    "photo_wide": ("photo", 64, 120),
    "photo_big": ("photo", 210, 150),
    "mask_hard": ("hard", 40, 56),
    "mask_soft": ("soft", 40, 56),
    "mask_odd": ("soft", 53, 47),
    "mask_small": ("hard", 24, 40),
}


def picture(name: str) -> Image.Image:
    """A photograph-like picture, a mask with one white rectangle, or a mask of all grey levels."""
    kind, height, width = PICTURES[name]
    if kind == "photo":
        return Image.fromarray(np.stack([value_noise(f"picture/{name}/{c}", height, width, 8) for c in range(3)], -1))
    if kind == "soft":
        return Image.fromarray(value_noise(f"picture/{name}/0", height, width, 16))
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height - height // 5, width // 3 : width - 3] = 255
    return Image.fromarray(mask)


WORDS = (
    "a photo of cat dog red blue house in the on with small large painting oil portrait woman man mountain river tree "
    "sky night light color bright dark blurry ugly low quality high detailed and forest snow city street"
).split()


def byte_letters() -> dict:
    """CLIP's printable letter of each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in shown}
    hidden = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def merges() -> list:
    """Merges that spell each of the words left to right: `(c, a), (ca, t</w>)`."""
    found = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in found:
                found.append(pair)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return found


def vocabulary() -> dict:
    """Token to id in CLIP's order: bytes, bytes that end a word, merges, start, end."""
    known = byte_letters()
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [known[byte] for byte in shown + [byte for byte in range(256) if byte not in shown]]
    tokens = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges()] + [START, END]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def write_tokenizer(folder, pad: str) -> None:
    """The files of a published CLIP tokenizer; `pad` is `<|endoftext|>` (SD1, SDXL's first) or `!` (SD2, SDXL's second)."""
    folder.mkdir(parents=True, exist_ok=True)
    special = {"lstrip": False, "normalized": pad != END, "rstrip": False, "single_word": False}
    named = {"bos_token": START, "eos_token": END, "unk_token": END}
    (folder / "vocab.json").write_text(json.dumps(vocabulary(), ensure_ascii=False), encoding="utf-8")
    lines = [" ".join(pair) for pair in merges()]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
    tokens = {key: {"content": text, **special} for key, text in named.items()} | {"pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens, indent=2) + "\n")
    config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}
    config |= {"tokenizer_class": "CLIPTokenizer"}
    typed = {key: {"__type": "AddedToken", **value} if isinstance(value, dict) else value for key, value in tokens.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | typed, indent=2) + "\n")
