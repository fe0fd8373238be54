"""diffusers' side of the program `generate`: tiny models, cases, and the comparison.

    /tmp/venv/bin/python tools/reference_generate.py models OUT_DIR [--only PATTERN]
    /tmp/venv/bin/python tools/reference_generate.py cases OUT_DIR [--only PATTERN]
    /tmp/venv/bin/python tools/reference_generate.py fixture OUT_DIR [--only transformers]
    /tmp/venv/bin/python tools/reference_generate.py compare OUT_DIR GENERATE_BINARY [--only PATTERN]

`models` writes complete pipelines and adapters (`generate_models.py`, `generate_adapters.py`; transformers:
`generate_transformers.py`, `generate_tokenizers.py`); `cases` runs diffusers on each case (`generate_cases.py`,
`generate_run.py`; `generate_transformer_cases.py`, `generate_transformer_run.py`) and writes case.json, noise.safetensors,
expected.safetensors (f32), exact.safetensors (the same pipeline in f64) and picture-N.png; `fixture` keeps what CI needs
(`generate_fixture.py`, `generate_transformer_fixture.py`);
`compare` runs the program with each case's arguments in OUT_DIR and prints one row a case. PATTERN is a shell pattern
on names (`sdxl-*`).

Made with torch 2.15.0 (CPU), diffusers 0.42.1, transformers 5.23.0, peft 0.21.2.
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

TOLERANCE = 1e-4


def chosen(names, pattern):
    """The names that match."""
    return [name for name in names if fnmatch.fnmatch(name, pattern)]


def write_models(out: Path, pattern: str) -> None:
    """Models, adapters and pictures; those of Stable Diffusion together, if the pattern has sd1."""
    import generate_adapters as adapters
    import generate_inputs as inputs
    import generate_ldm as ldm
    import generate_models as models
    import generate_transformers as transformers

    if "sd1" in chosen(["sd1"], pattern):
        models.write_all(out)
        adapters.write_all(out)
        ldm.write_all(out)
    transformers.write_all(out, chosen(transformers.MODELS, pattern))
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for name in inputs.PICTURES:
        inputs.picture(name).save(out / "pictures" / f"{name}.png")


def write_cases(out: Path, pattern: str) -> int:
    """Runs the reference; answers how many cases it refused."""
    import generate_cases
    import generate_run
    import generate_transformer_cases

    failed = 0
    for name in chosen(generate_cases.CASES | generate_transformer_cases.CASES, pattern):
        try:
            written = generate_run.write_case(out, name)
            draws = {key: shape for key, shape in written["noise"].items() if key not in ("latents", "noise")}
            print(f"{name:40} {written['f32_against_f64']:.1e}  largest {written['largest']:.3g}  {draws or ''}", flush=True)
        except Exception as error:
            failed += 1
            print(f"{name:40} {type(error).__name__}: {error}", flush=True)
            traceback.print_exc()
    return failed


def compare(out: Path, binary: Path, pattern: str) -> int:
    """Runs the program on each case and prints a table; answers how many cases differ."""
    from safetensors.torch import load_file

    print("| case | deviation | from f64 | diffusers' f32 from f64 | picture | |\n|---|---|---|---|---|---|")
    wrong = 0
    names = sorted(path.parent.name for path in (out / "cases").glob("*/expected.safetensors"))
    for name in chosen(names, pattern):
        case = json.loads((out / "cases" / name / "case.json").read_text())
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "latents.safetensors"
            command = [str(binary.resolve()), *case["generate_args"], "--save-latents", str(found), "--out", f"{folder}/out.png"]
            ran = subprocess.run(command, cwd=out, capture_output=True, text=True)
            if ran.returncode:
                message = " ".join((ran.stderr.strip() or ran.stdout.strip()).split())[-300:]
                print(f"| {name} | | | {case['f32_against_f64']:.1e} | | failed: {message} |", flush=True)
                wrong += 1
                continue
            latents = load_file(found)["latents"]
            levels = picture_difference(out / "cases" / name, Path(folder) / "out.png")
        expected = load_file(out / "cases" / name / "expected.safetensors")["latents"]
        exact = load_file(out / "cases" / name / "exact.safetensors")["latents"]
        wrong += not row(case, levels, latents, expected, exact)
    print(f"\n{wrong} cases differ")
    return wrong


def picture_difference(case: Path, found: Path) -> str:
    """The largest difference in levels of 255, of cases with one picture."""
    import numpy as np
    from PIL import Image

    if (case / "picture-1.png").exists() or not found.exists():
        return ""
    a, b = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (found, case / "picture-0.png"))
    return str(abs(a - b).max()) if a.shape == b.shape else f"{a.shape} {b.shape}"


def row(case, levels, latents, expected, exact) -> bool:
    """Prints a case's row; answers whether it agrees."""
    from generate_run import deviation

    name = case["name"]
    if latents.shape != expected.shape:
        print(f"| {name} | | | | | shape {list(latents.shape)}, expected {list(expected.shape)} |", flush=True)
        return False
    off, far = deviation(latents, expected), deviation(latents, exact)
    good = off < TOLERANCE  # false for NaN
    said = "" if good else "DIFFERS"
    print(f"| {name} | {off:.1e} | {far:.1e} | {case['f32_against_f64']:.1e} | {levels} | {said} |", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["models", "cases", "fixture", "compare"])
    parser.add_argument("out", type=Path)
    parser.add_argument("binary", type=Path, nargs="?")
    parser.add_argument("--only", default="*")
    args = parser.parse_args()
    if args.what == "models":
        write_models(args.out, args.only)
    elif args.what == "cases":
        sys.exit(write_cases(args.out, args.only) > 0)
    elif args.what == "fixture":
        import generate_fixture
        import generate_transformer_fixture

        (generate_transformer_fixture if args.only == "transformers" else generate_fixture).write(args.out)
    else:
        sys.exit(compare(args.out, args.binary, args.only) > 0)


if __name__ == "__main__":
    main()
