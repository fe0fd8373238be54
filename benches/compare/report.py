"""compare.py's tables, and where they were measured."""

import datetime
import os
import re
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benches" / "RESULTS.md"
MARKS = ("<!-- benches/compare: begin -->", "<!-- benches/compare: end -->")
NEW_SECTION = "\n## Beside PyTorch and candle\n\n```text\npython benches/compare/compare.py --write\n```\n\n{}\n{}\n"

SIDES = ("canvas", "Burn alone", "candle", "torch", "torch.compile")
AGREES = 1e-4  # largest difference of an answer, or of a step's loss, as a part of the answers' root mean square


def machine(threads, versions):
    """What a row is worth nothing without, in words."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpu)
    flags = [flag for flag in ("avx2", "fma", "avx512f", "amx_tile") if re.search(rf"\b{flag}\b", cpu)]

    def run(*words):
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    def locked(file, name):
        found = re.search(rf'name = "{name}"\nversion = "(.*)"', (ROOT / file).read_text())
        return found[1] if found else "of unknown version"

    candle = locked("benches/compare/candle/Cargo.lock", "candle-core")
    python = ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers"))
    return {
        "machine": f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} cores, {' '.join(flags)}; {threads} threads; f32",
        "versions": f"{run('rustc', '--version')}; Burn {locked('Cargo.lock', 'burn')}; candle {candle}; {python}",
        "commit": run("git", "rev-parse", "--short", "HEAD") + (" and changes" if run("git", "status", "--porcelain") else ""),
        "date": datetime.date.today().isoformat(),
    }


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
    if side.get("difference", 0) >= AGREES:
        return f"DIFFERS {side['difference']:.1e}"
    value = figure(side)
    return "-" if value is None else value


def ratio(sides, figure, to):
    ours, theirs = (figure(sides.get(name, {})) for name in ("canvas", to))
    return f"{ours / theirs:.2f}" if ours is not None and theirs else "-"


def table(rows, shown, headers, more):
    lines = [f"| case | {' | '.join([*SIDES, *headers])} |", "|---" * (1 + len(SIDES) + len(headers)) + "|"]
    for case, row in rows.items():
        cells = [cell(row["sides"].get(side, {}), shown) for side in SIDES]
        lines.append(f"| {case} | {' | '.join(cells + more(row['sides']))} |")
    return lines


def tables(rows):
    """What was measured, in Markdown."""

    def ratios(figure):
        return lambda sides: [ratio(sides, figure, to) for to in ("torch", "candle")]

    def compiling(sides):
        first = sides.get("torch.compile", {}).get("first")
        return [f"{first:.1f} s" if first else "-"]

    against = ["canvas / torch", "canvas / candle"]
    text = [f"{line}  " for line in sorted({" · ".join(row["about"].values()) for row in rows.values()})]
    text += ["", "Milliseconds of a run: median (least, and most less least as a part of the median).", ""]
    text += table(rows, with_spread, against, ratios(milliseconds))
    text += ["", "MiB that a run needs beside weights, inputs and the optimizer's moments.", ""]
    text += table(rows, with_unit, against, ratios(mebibytes))
    text += ["", "Difference from PyTorch's answer, and how long torch.compile takes first, which is in no time above.", ""]
    if any(case.startswith("unet-") for case in rows):
        text[-2] += " candle's UNet has GELU's tanh approximation, and is compared with PyTorch's that has it, too."
    return "\n".join(text + table(rows, difference, ["compiling"], compiling))


def write(rows):
    """Replaces what is between the two marks of RESULTS.md; without them, begins a section."""
    page = RESULTS.read_text()
    if any(mark not in page for mark in MARKS):
        page += NEW_SECTION.format(*MARKS)
    before, rest = page.split(MARKS[0], 1)
    RESULTS.write_text(f"{before}{MARKS[0]}\n\n{tables(rows)}\n\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}")
