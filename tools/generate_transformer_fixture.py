"""Writes examples/tests/fixtures/generate_transformers/ from a folder of models and cases: what CI needs of transformer pipelines.

As `generate_fixture` does for Stable Diffusion; tokenizers of the same files are kept once, in `tokenizers/`.
"""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from generate_fixture import FIXTURE, weights

FOLDER = FIXTURE.parent / "generate_transformers"

CHOSEN = """
dit-two-classes dit-dpmpp-2m dit-ddpm seed-dit
pixart-alpha-binned pixart-alpha-two-prompts pixart-alpha-max-length pixart-alpha-strange-characters
sd3-two-prompts sd3-prompts-2-3 sd3-negative-3 sd3-clip-skip-1 sd3-max-length sd3-heun sd3-dynamic sd3-image-0.35
sd3-image-default-size
sd35-two-prompts sd35-image-two-prompts sd3-no-t5-two-prompts sd3-one-step seed-sd3-image
flux-two-prompts flux-true-cfg-two-prompts flux-prompt-2 flux-max-length flux-beta flux-dpmpp-2m flux-schnell-two-prompts
flux-image-0.35 flux-image-true-cfg flux-fill-strength flux-fill-soft flux-kontext-wide flux-redux-scale flux-redux-no-prompt
seed-flux-fill seed-flux-two-prompts
auraflow-two-prompts auraflow-max-length auraflow-strange-characters chroma-two-prompts chroma-guidance-1
lumina2-two-prompts lumina2-dynamic lumina2-max-length
z-image-two-prompts z-image-guidance-1 z-image-long-prompt z-image-strange-characters
qwen-image-two-prompts qwen-image-true-cfg qwen-image-max-length qwen-image-thirty seed-qwen-image
sana-binned sana-two-prompts sana-no-instruction sana-max-length sana-dynamic-plain
flux2-few-pads flux2-two-images flux2-max-length flux2-strange-characters flux2-klein-two-images flux2-klein-guidance-1
flux2-klein-distilled seed-flux2
prx-binned prx-negative prx-two-prompts-guidance-1 prx-cleaned prx-strange-characters
""".split()


class Tokenizers:
    """Folders of tokenizers, each content kept once under the name of the first that had it."""

    def __init__(self):
        self.kept, self.places = {}, {}

    def add(self, folder: Path, place: str) -> None:
        content = tuple((path.name, path.read_bytes()) for path in sorted(folder.iterdir()))
        if content not in self.kept:
            self.kept[content] = place.replace("models/", "").replace("/", "-")
            shutil.copytree(folder, FOLDER / "tokenizers" / self.kept[content])
        self.places[place] = self.kept[content]


def named_files(out: Path, cases: dict) -> list:
    """The files below what the cases' arguments name, but for noise."""
    named = {word for case in cases.values() for word in case["generate_args"] if not word.startswith("cases/")}
    places = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return [path for path in places if {str(path.relative_to(out)), *map(str, path.relative_to(out).parents)} & named]


def write_captions() -> None:
    """What pipelines make of captions: PRX's clean_text and basic_clean, PixArt's clean_caption (which wants bs4)."""
    from diffusers import PixArtAlphaPipeline
    from diffusers.pipelines.prx.pipeline_prx import TextPreprocessor

    prx, pixart = TextPreprocessor(), object.__new__(PixArtAlphaPipeline)
    rows = []
    for text in CAPTIONS:
        (cleaned,) = PixArtAlphaPipeline._text_preprocessing(pixart, text, clean_caption=True)
        rows.append([text, prx.clean_text(text), prx.basic_clean(text), cleaned])
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (FOLDER / "captions.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


CAPTIONS = [
    "", "  a Photo of a CAT  ", "Dark forest, river; 3 cats & dogs!", "<person> in http://www.a.com/b?c=d and www.x.org, @me", "a.b.c ... d",
    "漢字 and kana カナ", "a—b–c‐d", "`quoted` «text» “more” ‘single’", "it''s \"\"ok\"\"", "&quot;x&quot &amp; y &amp;amp; z", "at 10.0.0.1 or 5:30  ",
    "new\\nline", "#1 and #123456 and 1234567", "photo.jpg, scan.PNG and a-b_c-d_e-f", "(round) [square] {curly} | / \\ * ~", "a . b : c",
    "abc123 and a1b and 1a2 x5", "Free Shipping worldwide free shipping; click here, download free", "jpg image, png images", "page 12 of 4x5 and 3.5 × 2",
    "end-", "-start", "'quoted'", "\"whole\"", ".hidden", "100% true; 50/50", "a,b.c/d", "one+two=three", "caf%C3%A9+au+lait", "naïve CAFÉ 😀",
    "tab\tand\nline", "_under_", "x:y", "w/o", "A man, 3d-render; 8k!!! -- ultra", "U.S.A.", "e.g. this", "don't", "¿qué? ¡sí!", "#hash ®©™",
]  # fmt: skip


def write(out: Path) -> None:
    """The whole folder but its README.md."""
    for part in ("models", "schedulers", "pictures", "tokenizers"):
        shutil.rmtree(FOLDER / part, ignore_errors=True)
    cases = {name: json.loads((out / "cases" / name / "case.json").read_text()) for name in CHOSEN}
    tokenizers, files = Tokenizers(), []
    for path in named_files(out, cases):
        place = path.relative_to(out)
        if path.parent.name.startswith("tokenizer"):
            if str(place.parent) not in tokenizers.places:
                tokenizers.add(path.parent, str(place.parent))
        elif path.suffix == ".safetensors":
            files.append(path)
        else:
            (FOLDER / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, FOLDER / place)
    write_lists(out, cases, tokenizers.places, weights(out, files))
    write_captions()
    print(len(CHOSEN), "cases,", sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()), "bytes")


def write_lists(out: Path, cases: dict, places: dict, trees: dict) -> None:
    """tokenizers.json, weights.json, cases.json and expected.safetensors."""
    (FOLDER / "tokenizers.json").write_text(json.dumps(places, indent=2) + "\n")
    lines = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in trees.items()]
    (FOLDER / "weights.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    kept = ("name", "generate_args", "noise", "f32_against_f64")
    lines = [json.dumps({key: case[key] for key in kept}, ensure_ascii=False) for case in cases.values()]
    (FOLDER / "cases.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    expected = {name: load_file(out / "cases" / name / "expected.safetensors")["latents"] for name in cases}
    save_file(expected, FOLDER / "expected.safetensors")
