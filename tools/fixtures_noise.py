"""Writes canvas-core/tests/fixtures/noise.json: what torch.randn draws on a CPU, with its AVX2 and its scalar kernel.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch numpy
    /tmp/venv/bin/python tools/fixtures_noise.py

On x86-64 Linux with AVX2. Of each call the fixture holds a checksum of the bits and four of the numbers.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parent.parent / "canvas-core" / "tests" / "fixtures" / "noise.json"
SIZES = [1, 2, 15, 16, 17, 31, 32, 33, 100, 4096, 300_001]  # the last one sees one wrong bit in 10^5 numbers
SEEDS = [0, 42, 2**32 + 5, 2**64 - 1]
# Small tensors leave every second number for the next small one, whatever comes between.
MIXED = [
    [("float32", n) for n in (3, 20, 5)],
    [("float32", 1), ("float64", 2), ("float32", 16), ("float32", 1), ("float64", 40), ("float64", 7)],
    [("float64", 3), ("float16", 17), ("bfloat16", 33), ("float16", 5), ("bfloat16", 16), ("float32", 18)],
]
BITS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32, "float64": np.uint64}


def summary(dtype, values):
    """The sum of bits times place, modulo 2^64, and the numbers at four places."""
    as_integers = {"float64": torch.int64, "float32": torch.int32}.get(dtype, torch.int16)
    bits = values.view(as_integers).numpy().view(BITS[dtype]).astype(np.uint64)
    checksum = int((bits * np.arange(1, len(bits) + 1, dtype=np.uint64)).sum())
    n = len(values)
    picked = [float(values[i]) for i in (0, n // 3, n // 2, n - 1)]
    return {"dtype": dtype, "count": n, "checksum": checksum, "picked": picked}


def draw(seed, calls):
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = [(dtype, torch.randn(n, generator=generator, dtype=getattr(torch, dtype))) for dtype, n in calls]
    return {"seed": seed, "calls": [summary(*call) for call in drawn]}


def kernel(name):
    assert torch.backends.cpu.get_cpu_capability() == name.upper()
    alone = [[(dtype, n)] for dtype in ("float32", "float64") for n in SIZES]
    cases = [draw(seed, calls) for seed in SEEDS for calls in (alone if seed == 42 else alone[4:9]) + MIXED]
    print(json.dumps(cases))


if len(sys.argv) > 1:
    kernel(sys.argv[1])
else:
    found = {"torch": torch.__version__, "script": "tools/fixtures_noise.py"}
    for name in ("avx2", "default"):  # fixed for a process
        environment = os.environ | {"ATEN_CPU_CAPABILITY": name}
        answer = subprocess.run([sys.executable, __file__, name], env=environment, capture_output=True, check=True)
        found[name] = json.loads(answer.stdout)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(found).replace('{"seed"', '\n{"seed"') + "\n")
    print(FILE.name, FILE.stat().st_size, "bytes")
