"""Times canvas, plain Burn, candle and PyTorch on the same random networks, side by side, in one run.

    python benches/compare/compare.py                                  # every case; --list names them
    python benches/compare/compare.py dit-s2-train-b8 silu --rounds 4 --sides canvas,torch
    python benches/compare/compare.py --write                          # and the tables into benches/RESULTS.md
    python benches/compare/compare.py --device cuda --dtype bf16       # on a GPU: benches/gpu.sh prepares it

A side's figures count only where its answer agrees with PyTorch's. README.md beside this file says what is measured and how.
"""

import argparse
import difflib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # nothing of a measurement stays in the repository

import report
from report import AGREES, ON_GPU, SIDES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LEFT_OUT_FIRST = ("torch.compile", "Burn alone")  # where not all fit in memory
LONG = ("unet-sd15", "vae-decode")
WARM_UP = 2
# OpenMP's threads go on turning for some milliseconds when their work is done: nobody else is timed while they do.
SETTLE = 0.05


class Failed(Exception):
    """A side could not do what it was asked."""


def main():
    options = arguments()
    versions = packages()
    cases = names(options.case, options.device)
    if options.list:
        return print(*cases, sep="\n")
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < options.threads:
        sys.exit(f"--threads {options.threads}: this process may use {len(cpus)} processors")
    build(options)
    os.sched_setaffinity(0, cpus[: options.threads])  # the workers inherit it
    stored = json.loads(options.results.read_text()) if options.results.exists() else {}
    about = report.machine(options, versions)
    for number, case in enumerate(cases, 1):
        print(f"[{number}/{len(cases)}] {case}", file=sys.stderr, flush=True)
        try:
            row, flops = measured(case, options)
        except Failed as failure:
            print(f"  {failure}", file=sys.stderr)
            continue
        # Each at once: an hour's measurements do not vanish with the last.
        stored[case] = {"about": about, "sides": row, "device": options.device, "dtype": options.dtype, "flops": flops, "peak": options.peak}
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(stored, indent=1))
    print(report.tables({case: stored[case] for case in cases if case in stored}))
    if options.write:
        report.write({case: stored[case] for case in names([], options.device) if case in stored})


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("case", nargs="*", help="names of cases; all when none is given")
    parser.add_argument("--rounds", type=int, help=f"runs of each side (10; 4 of {', '.join(LONG)})")
    parser.add_argument("--threads", type=int, default=2, help="threads, and processors they are pinned to (2)")
    parser.add_argument("--write", action="store_true", help="put the tables into benches/RESULTS.md")
    parser.add_argument("--sides", help=f"names, with commas between ({','.join(SIDES)}; on a GPU {','.join(ON_GPU)})")
    parser.add_argument("--device", choices=("cpu", "cuda", "wgpu"), default="cpu", help="where canvas computes; PyTorch: cpu, else cuda if there is one")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32", help="of weights and activations (%(default)s)")
    parser.add_argument("--peak", type=float, help="TFLOP/s that the device has at most in that precision: MFU is then in the tables")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("--no-build", action="store_true", help="use the programs that were built last")
    parser.add_argument("--candle-target", type=Path, default=target / "compare-candle", help="where candle is built")
    parser.add_argument("--results", type=Path, help="where rows of earlier runs are kept (compare.json in the target folder)")
    options = parser.parse_args()
    options.target = target
    usual = (options.device, options.dtype) == ("cpu", "f32")
    options.results = options.results or target / ("compare.json" if usual else f"compare-{options.device}-{options.dtype}.json")
    options.sides = options.sides.split(",") if options.sides else list(SIDES if usual else ON_GPU)
    for side in options.sides:
        known(side, SIDES, "side")
    return options


def known(name, all_names, what):
    if name not in all_names:
        near = difflib.get_close_matches(name, all_names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(all_names)}"
        sys.exit(f"there is no {what} {name!r}: {hint}")


def packages():
    """Versions of what Python needs here."""
    versions = {}
    for package in ("torch", "diffusers", "transformers", "safetensors", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            sys.exit(f"this Python ({sys.executable}) has no {package}: benches/compare/README.md says how to make one that has")
    return versions


def names(chosen, device):
    words = [sys.executable, HERE / "torch_side.py", "cases", device]
    listed = subprocess.run(words, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        sys.exit(f"torch_side.py does not run: {last_words(listed.stderr)}")
    every = listed.stdout.split()
    for name in chosen:
        known(name, every, "case")
    return chosen or every


def last_words(text):
    return " / ".join(text.strip().splitlines()[-3:]) or "(nothing was said)"


def programs(options):
    python = [sys.executable, HERE / "torch_side.py", "worker"]
    canvas = options.target / "release" / "examples" / "compare"
    candle = options.candle_target / "release" / "compare-candle"
    return {"canvas": [canvas], "Burn alone": [canvas], "candle": [candle], "torch": python, "torch.compile": [*python, "compiled"]}


def build(options):
    if not options.no_build:
        if not shutil.which("cargo"):
            sys.exit("there is no cargo to build the Rust sides with (--no-build uses what was built last)")
        # Of one member alone, Burn would be built again with other features.
        if {"canvas", "Burn alone"} & set(options.sides):
            features = [] if options.device == "cpu" else ["--features", f"canvas-benches/{options.device}"]
            cargo(["--workspace", "--example", "compare", *features], ROOT, {})
        if "candle" in options.sides:
            # What candle's own documentation recommends; canvas chooses its kernels when it runs.
            native = {"RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": str(options.candle_target)}
            cargo(["--locked"], HERE / "candle", native)
    for side in options.sides:
        program = programs(options)[side][0]
        if not Path(program).exists():
            sys.exit(f"{program} is not there: run without --no-build")


def cargo(words, folder, environment):
    done = subprocess.run(["cargo", "build", "--release", *words], cwd=folder, env=os.environ | environment, check=False)
    if done.returncode != 0:
        sys.exit(f"cargo build --release {' '.join(words)} in {folder} failed")


class Worker:
    """A process of one side, which waits for its next line whenever it is not asked."""

    def __init__(self, side, options, folder, environment=()):
        self.side, self.said = side, open(folder / f"{side}.stderr", "w+")
        threads = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
        variables = os.environ | threads | dict(environment)
        # Compiled anew for every case: its time is listed.
        variables |= {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        variables |= {"COMPARE_DEVICE": options.device, "COMPARE_DTYPE": options.dtype}
        if side == "Burn alone":
            variables["CANVAS_KERNELS"] = "off"
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True)
        self.process = subprocess.Popen(programs(options)[side], env=variables, **pipes)

    def ask(self, *words):
        """The words of the answer."""
        try:
            print(*words, sep="\t", file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline().rstrip("\n").split("\t")
        except BrokenPipeError:
            answer = [""]
        if answer[0] == "error":
            raise Failed(f"{self.side}, asked to {words[0]}: {answer[1]}")
        if answer == [""]:
            code = self.process.wait()
            self.said.seek(0)
            raise Failed(f"{self.side} ended with {code} when asked to {words[0]}: {last_words(self.said.read())}")
        return answer

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.communicate("quit\n", timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.said.close()


def measured(case, options):
    """A row: of each side its times, memory and difference, or why there are none."""
    rounds = options.rounds or (4 if case in LONG else 10)
    row, workers = {}, {}
    with tempfile.TemporaryDirectory(prefix="canvas-compare-") as folder:
        folder = Path(folder)
        make = [sys.executable, HERE / "torch_side.py", "make", case, folder]
        made = subprocess.run(make, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(options.threads)})
        if made.returncode != 0:
            raise Failed(f"torch could not make {case}: {last_words(made.stderr)}")
        try:
            # PyTorch first: in half precision its own difference is the measure.
            for side in sorted(fitting(case, folder, options.sides), key=lambda side: side != "torch"):
                workers[side] = Worker(side, options, folder)
                limit = tolerance(options, row.get("torch", {}).get("difference"))
                row[side] = tried(side, lambda: loaded(workers[side], case, folder, limit, options.dtype == "f32"))
                if "times" not in row[side]:
                    workers.pop(side).close()
            for turn in range(WARM_UP + rounds):
                for side in list(workers):
                    time.sleep(SETTLE)
                    answer = tried(side, lambda: {"seconds": float(workers[side].ask("run")[0])})
                    if "failed" in answer:
                        row[side] = answer
                        workers.pop(side).close()
                    elif turn >= WARM_UP:
                        row[side]["times"].append(answer["seconds"])
        finally:
            remaining = list(workers)
            for worker in workers.values():
                worker.close()
        for side in remaining:
            row[side] |= tried(side, lambda: {"memory": memory(side, case, folder, options)})
        flops = folder / "flops"
        return row, int(flops.read_text()) if flops.exists() else None


def tried(side, act):
    try:
        return act()
    except Failed as failure:
        print(f"  {failure}", file=sys.stderr, flush=True)
        return {"failed": str(failure)}


def fitting(case, folder, sides):
    """The sides that have room for their weights at once; in training also for gradients and two moments."""
    weights = (folder / "weights.safetensors").stat().st_size * (4 if "train" in case or case == "adamw" else 1)
    available = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    sides = list(sides)
    for side in LEFT_OUT_FIRST:
        if side in sides and len(sides) * weights + (3 << 30) > available:
            sides.remove(side)
            print(f"  {side} is left out: {available >> 20} MiB of memory are free", file=sys.stderr)
    return sides


def tolerance(options, torch):
    """What an answer may differ, as a part of the answers' root mean square."""
    if (options.device, options.dtype) == ("cpu", "f32"):
        return AGREES
    if options.dtype == "f32":
        return 1e-3  # tensor cores and cuDNN round factors to ten bits
    # What is rounded to eight bits all the way, in another order, is about as far off as PyTorch's own.
    return float("inf") if torch is None else 3 * torch


def loaded(worker, case, folder, limit, all_move):
    from safetensors.numpy import load_file

    file = folder / f"{worker.side}.safetensors"
    word, *seconds = worker.ask("load", case, folder, file)
    if word == "none":
        return {"none": True}
    own = folder / f"expected-{worker.side}.safetensors"  # of a side that computes something else on purpose
    found, expected = load_file(file), load_file(own if own.exists() else folder / "expected.safetensors")
    difference = differs(found["output"], expected["output"])
    print(f"  {worker.side}: differs by {difference:.1e}, first {float(seconds[0]):.2f} s", file=sys.stderr, flush=True)
    # A step of 1e-4 is too small for some numbers of half precision.
    row = {"difference": difference, "limit": limit, "first": float(seconds[0]), "still": int(found["still"][0]) * all_move}
    if row["still"]:
        print(f"  {worker.side}: {row['still']} parameters did not move", file=sys.stderr)
    return row | ({"times": []} if difference < limit and not row["still"] else {})


def differs(found, expected):
    import numpy

    if found.shape != expected.shape or not numpy.isfinite(found).all():
        return float("inf")
    found, expected = found.astype("f8"), expected.astype("f8")
    return float(abs(found - expected).max() / numpy.sqrt((expected**2).mean()))


def memory(side, case, folder, options):
    """Bytes a run needs beside what was held before it, in a process of its own.

    There the allocators give back what is freed at once: else memory that an earlier run left would hide the next one's.
    """
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MIMALLOC_PURGE_DELAY": "0"}
    worker = Worker(side, options, folder, at_once.items())
    try:
        worker.ask("load", case, folder, folder / "again.safetensors")
        worker.ask("run")
        return int(worker.ask("memory")[0])
    finally:
        worker.close()


if __name__ == "__main__":
    main()
