"""Writes examples/tests/fixtures/generate/ from a folder of models and cases: what CI needs, without weights and noise.

Weights and noise are formulas of `generate_inputs.py`; the fixture holds which tensors there are, small configuration
files, pictures, the arguments of about seventy cases and what diffusers answered.
"""

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

FIXTURE = Path(__file__).parent.parent / "examples" / "tests" / "fixtures" / "generate"

CHOSEN = """
sd1-plain sd1-one-step sd1-negative-two-prompts sd1-empty-prompt sd1-long-prompt sd1-strange-characters sd1-guidance-1
sd1-rescale sd1-clip-skip-0 sd1-clip-skip-1 sd1-clip-skip-2 sd1-default-size sd1-odd-latents sd1-dated-scheduler
sd1-dated-scheduler-image sd1-dated-scheduler-inpaint4 sd1-dated-scheduler-control
sd2-two-prompts sd2-ddim-zero-snr sd2-pndm-prk sd2-image sd2-clip-skip
sdxl-plain sdxl-prompt-2 sdxl-negative-2 sdxl-negative-empty sdxl-clip-skip-1 sdxl-all-sizes sdxl-negative-sizes
sdxl-only-negative-crop sdxl-empty-plain sdxl-empty-negative refiner-negative refiner-sizes
sd1-ddpm sd1-ddpm-large sd1-euler-karras sd1-euler-a sd1-heun sd1-kdpm2-a sd1-dpmpp-2m-karras sd1-dpmpp-2m-sde sd1-dpmpp-2s sd1-dpm-sde
sd1-deis sd1-unipc sd1-lms sd1-sasolver sd1-lcm sd1-tcd sd1-edm-euler sd1-ipndm
sd1-image-0.35 sd1-image-1.0 sd1-image-posterior sd1-image-odd sd1-image-heun sd1-image-ddim sd1-image-lms sd1-image-dpmpp-2m-twenty sd1-image-dpmpp-2s
sd1-image-euler-a sd1-image-vae-tiny
sdxl-image-odd sdxl-image-dpmpp-2m-sde
sd1-inpaint9-mask_odd sd1-inpaint9-posterior sd1-inpaint4-odd sd1-inpaint4-two-prompts sd1-inpaint4-mask_hard
sd1-inpaint4-heun sd1-inpaint4-kdpm2 sdxl-inpaint9-resized sdxl-inpaint4-posterior sdxl-inpaint9-default-strength
sd1-control-window sd1-control-two sd1-control-image-resized sd1-control-inpaint9 sdxl-control-window
sd1-t2i-scale sdxl-t2i
sd1-ip-scale sd1-ip-two sdxl-ip-plus-two-prompts sdxl-ip-guidance-1 sd1-lora-control-ip
sd1-lora-old sd1-lora-two sdxl-lora-kohya-ldm sd1-inversion-negative sdxl-inversion
seed-sd1-two-prompts-euler-a seed-sd1-two-prompts-image seed-sd1-inpaint4-lcm
""".split()


def tree(path: Path) -> dict:
    """A safetensors file as a tree by the parts of its keys; a leaf is a shape, a scalar's value, or what `special` says."""
    root = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():
            tensor = file.get_slice(key)
            *parents, last = key.split(".")
            node = root
            for parent in parents:
                node = node.setdefault(parent, {})
            leaf = list(tensor.get_shape())
            node[last] = special(key, path) or (leaf if leaf else float(file.get_tensor(key)))
    return root


def special(key: str, path: Path):
    """Buffers that are no weights: positions of tokens, a batch norm's count (int64), SD3's table of positions, which is
    learned in AuraFlow."""
    names = {"position_ids": "indices", "num_batches_tracked": "count"}
    names |= {} if "auraflow" in path.parts else {"pos_embed.pos_embed": "sincos2d"}
    return next((word for name, word in names.items() if key.endswith(name)), None)


def changes(old: dict, new: dict):
    """What has to be laid over `old` to get `new`; None where a key of `old` is missing or is no leaf in both."""
    if set(old) != set(new):
        return None
    found = {}
    for key, value in new.items():
        if old[key] == value:
            continue
        inner = changes(old[key], value) if isinstance(value, dict) and isinstance(old[key], dict) else value
        if inner is None or isinstance(inner, dict) != isinstance(old[key], dict):
            return None
        found[key] = inner
    return found


def weights(out: Path, files) -> dict:
    """File to tree, or to `{"like": file, "changes": tree}` where an earlier file has the same keys."""
    trees, written = {}, {}
    for path in files:
        name = str(path.relative_to(out))
        new = tree(path)
        for earlier, old in trees.items():
            over = changes(old, new) if Path(earlier).name == path.name else None
            if over is not None:
                written[name] = {"like": earlier, "changes": over}
                break
        else:
            written[name] = new
            trees[name] = new
    return written


def write(out: Path) -> None:
    """The whole folder but its README.md."""
    cases = {name: json.loads((out / "cases" / name / "case.json").read_text()) for name in CHOSEN}
    named = {word.rsplit(":", 1)[0] for case in cases.values() for word in case["generate_args"]}
    for part in ("models", "adapters", "schedulers", "pictures"):
        shutil.rmtree(FIXTURE / part, ignore_errors=True)
    files = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        place = path.relative_to(out)
        if place.parts[0] == "cases" or not {str(place), *map(str, place.parents)} & named:
            continue
        if path.suffix == ".safetensors":
            files.append(path)
        elif path.name not in ("vocab.json", "merges.txt"):
            (FIXTURE / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, FIXTURE / place)
    for name in ("vocab.json", "merges.txt"):  # one for all tokenizers
        shutil.copyfile(out / "models" / "sd1" / "tokenizer" / name, FIXTURE / name)
    lines = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in weights(out, files).items()]
    (FIXTURE / "weights.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    kept = ("name", "generate_args", "noise", "f32_against_f64")
    lines = [json.dumps({key: case[key] for key in kept}, ensure_ascii=False) for case in cases.values()]
    (FIXTURE / "cases.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    expected = {name: load_file(out / "cases" / name / "expected.safetensors")["latents"] for name in CHOSEN}
    save_file(expected, FIXTURE / "expected.safetensors")
    print(len(CHOSEN), "cases,", sum(path.stat().st_size for path in FIXTURE.rglob("*") if path.is_file()), "bytes")
