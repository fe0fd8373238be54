"""compare.py's tables, and where they were measured.

    python benches/compare/report.py FILE      # rows that another machine has measured, into benches/RESULTS.md
"""

import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benches" / "RESULTS.md"
MARKS = ("<!-- benches/compare{}: begin -->", "<!-- benches/compare{}: end -->")
NEW_SECTION = "\n## Beside PyTorch{}\n\n{}\n{}\n"

SIDES = ("canvas", "Burn alone", "candle", "torch", "torch.compile")
ON_GPU = ("canvas", "torch", "torch.compile")
AGREES = 1e-4  # largest difference of an answer, or of a step's loss, as a part of the answers' root mean square


def machine(options, versions):
    """What a row is worth nothing without, in words."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpu)
    flags = [flag for flag in ("avx2", "fma", "avx512f", "amx_tile") if re.search(rf"\b{flag}\b", cpu)]

    def run(*words):
        if not shutil.which(words[0]):
            return ""  # where nothing is built there may be no rustc, and no git
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    def locked(file, name):
        found = re.search(rf'name = "{name}"\nversion = "(.*)"', (ROOT / file).read_text())
        return found[1] if found else "of unknown version"

    candle = locked("benches/compare/candle/Cargo.lock", "candle-core")
    python = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers"))
    hardware = f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} cores, {' '.join(flags)}; {options.threads} threads"
    if options.device != "cpu":
        hardware = f"{run('nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader')}; {options.device}"
    return {
        "machine": f"{hardware}; {options.dtype}",
        "versions": f"{run('rustc', '--version') or 'built elsewhere'}; Burn {locked('Cargo.lock', 'burn')}; candle {candle}; {python}",
        "commit": (run("git", "rev-parse", "--short", "HEAD") or "of unknown commit") + (" and changes" if run("git", "status", "--porcelain") else ""),
        "date": datetime.date.today().isoformat(),
    }


def place(rows):
    """Where rows were measured, the same for all: a device, and a precision."""
    row = next(iter(rows.values()))
    return row.get("device", "cpu"), row.get("dtype", "f32")


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(side):
    return 1000 * statistics.median(side["times"]) if side.get("times") else None


def with_spread(side):
    if not side.get("times"):
        return None
    least, most, median = 1000 * min(side["times"]), 1000 * max(side["times"]), milliseconds(side)
    return f"{number(median)} ({number(least)}, {(most - least) / median:.0%})"


def mebibytes(side):
    return side["memory"] / 2**20 if "memory" in side else None


def with_unit(side):
    return number(mebibytes(side)) if "memory" in side else None


def difference(side):
    return f"{side['difference']:.1e}" if "difference" in side else None


def cell(side, figure):
    """A figure of a side, or why there is none."""
    if "failed" in side:
        return "failed"
    if side.get("still"):
        return f"DIFFERS: {side['still']} parameters did not move"
    if side.get("difference", 0) >= side.get("limit", AGREES):
        return f"DIFFERS {side['difference']:.1e}"
    value = figure(side)
    return "-" if value is None else value


def ratio(sides, figure, to):
    ours, theirs = (figure(sides.get(name, {})) for name in ("canvas", to))
    return f"{ours / theirs:.2f}" if ours is not None and theirs else "-"


def table(rows, sides, shown, headers, more):
    lines = [f"| case | {' | '.join([*sides, *headers])} |", "|---" * (1 + len(sides) + len(headers)) + "|"]
    for case, row in rows.items():
        cells = [cell(row["sides"].get(side, {}), shown) for side in sides]
        lines.append(f"| {case} | {' | '.join(cells + more(row['sides']))} |")
    return lines


def throughput(rows):
    """Of whole networks on a GPU: what a second computes."""
    lines = ["| case | images/s, canvas | torch | TFLOP/s, canvas | torch | MFU, canvas | torch |", "|---" * 7 + "|"]
    for case, row in rows.items():
        batch, flops, peak = re.search(r"-b(\d+)$", case), row.get("flops"), row.get("peak")
        times = [milliseconds(row["sides"].get(side, {})) for side in ("canvas", "torch")]
        figures = [
            lambda time: number(1000 * int(batch[1]) / time) if batch else None,
            lambda time: number(flops / time / 1e9) if flops else None,
            lambda time: f"{flops / time / 1e9 / peak:.0%}" if flops and peak else None,
        ]
        cells = [figure(time) if time else None for figure in figures for time in times]
        lines.append(f"| {case} | {' | '.join(cell or '-' for cell in cells)} |")
    return lines


def tables(rows):
    """What was measured, in Markdown."""

    def compiling(sides):
        first = sides.get("torch.compile", {}).get("first")
        return [f"{first:.1f} s" if first else "-"]

    on_gpu = place(rows)[0] != "cpu"
    sides = ON_GPU if on_gpu else SIDES
    to = ["torch"] if on_gpu else ["torch", "candle"]

    def ratios(figure):
        return lambda sides: [ratio(sides, figure, side) for side in to]

    against = [f"canvas / {side}" for side in to]
    text = [f"{line}  " for line in sorted({" · ".join(row["about"].values()) for row in rows.values()})]
    text += ["", "Milliseconds of a run: median (least, and most less least as a part of the median).", ""]
    text += table(rows, sides, with_spread, against, ratios(milliseconds))
    if on_gpu:
        text += ["", "What a second computes; the products of the forward pass, in training three times as many.", ""]
        text += throughput(rows)
    text += ["", "MiB that a run needs beside weights, inputs and the optimizer's moments.", ""]
    text += table(rows, sides, with_unit, against, ratios(mebibytes))
    text += ["", "Difference from PyTorch's answer, and how long torch.compile takes first, which is in no time above.", ""]
    if on_gpu:
        text[-2] = "Difference from the answer of PyTorch on the CPU in f32, and how long torch.compile takes first."
    elif any(case.startswith("unet-") for case in rows):
        text[-2] += " candle's UNet has GELU's tanh approximation, and is compared with PyTorch's that has it, too."
    return "\n".join(text + table(rows, sides, difference, ["compiling"], compiling))


def write(rows):
    """Replaces what is between the two marks of RESULTS.md for rows of this device; without them, begins a section."""
    page = RESULTS.read_text()
    name = "" if place(rows) == ("cpu", "f32") else " " + " ".join(place(rows))
    marks = [mark.format(name) for mark in MARKS]
    if any(mark not in page for mark in marks):
        page += NEW_SECTION.format(f":{name}" if name else " and candle", *marks)
    before, rest = page.split(marks[0], 1)
    RESULTS.write_text(f"{before}{marks[0]}\n\n{tables(rows)}\n\n{marks[1]}{rest.split(marks[1], 1)[1]}")


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text()))
