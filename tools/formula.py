"""The closed weight formula of `canvas_core::params::fill_by_formula`, for reference models in Python.

Only the names and the layouts have to be mapped: `values(path, shape, layout)` gives the numpy array which the
Burn parameter of that path holds, in the *reference's* layout.
"""

import numpy as np

FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
MASK = (1 << 64) - 1


def fnv1a(name: str) -> int:
    """64-bit FNV-1a of the UTF-8 bytes."""
    code = FNV_OFFSET
    for byte in name.encode():
        code = ((code ^ byte) * FNV_PRIME) & MASK
    return code


def formula(name: str, count: int, fan_in: int, around_one: bool) -> np.ndarray:
    """`centre + scale sin(0.7 i + h(name))` in f64, rounded to f32 once, as in params.rs."""
    phase = float(fnv1a(name) % 1000)
    # The operations of Rust's `(fan_in as f64).sqrt().recip()`.
    scale = 0.1 if around_one else 1.0 / np.sqrt(np.float64(fan_in))
    centre = 1.0 if around_one else 0.0
    index = np.arange(count, dtype=np.float64)
    return (centre + scale * np.sin(0.7 * index + phase)).astype(np.float32)


def fill(name: str, shape) -> np.ndarray:
    """Values of the Burn parameter `name` with Burn's own `shape`.

    Fan-in as in params.rs: 16 for vectors, else all but the output axis, which is the last one of a matrix
    `[in, out]` and the first one of a convolution kernel `[out, in, ...]`.
    """
    shape = tuple(int(n) for n in shape)
    count = int(np.prod(shape))
    out = shape[1] if len(shape) == 2 else shape[0]
    fan_in = 16 if len(shape) < 2 else count // out
    return formula(name, count, fan_in, name.endswith("gamma")).reshape(shape)


def fill_linear(name: str, torch_shape) -> np.ndarray:
    """As `fill`, for a torch Linear weight `[out, in]`: Burn holds its transpose `[in, out]`."""
    out, inputs = torch_shape
    return np.ascontiguousarray(fill(name, (inputs, out)).T)


def input_pattern(shape, seed: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """Inputs of parity tests: `scale sin(0.37 i + seed)` in f64, rounded to f32."""
    index = np.arange(int(np.prod(shape)), dtype=np.float64)
    return (scale * np.sin(0.37 * index + seed)).astype(np.float32).reshape(shape)


def chirp(name: str, shape) -> np.ndarray:
    """As `fill`, but `sin(0.7 i + 0.013 i^2 + h(name))`: matrices of full rank, where those of `fill` have rank 2.

    Networks of low rank make tokens that hardly differ; what depends on the differences drowns in roundings.
    """
    shape = tuple(int(n) for n in shape)
    index = np.arange(int(np.prod(shape)), dtype=np.float64)
    wave = np.sin(0.7 * index + 0.013 * index * index + float(fnv1a(name) % 1000))
    if name.endswith("gamma"):
        return (1.0 + 0.1 * wave).astype(np.float32).reshape(shape)
    out = shape[1] if len(shape) == 2 else shape[0]
    fan_in = 16 if len(shape) < 2 else int(np.prod(shape)) // out
    return (wave * np.sqrt(2.0 / fan_in)).astype(np.float32).reshape(shape)


def chirp_linear(name: str, torch_shape) -> np.ndarray:
    """As `chirp`, for a torch Linear weight `[out, in]`."""
    out, inputs = torch_shape
    return np.ascontiguousarray(chirp(name, (inputs, out)).T)
