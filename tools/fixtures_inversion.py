"""Writes canvas-text/tests/fixtures/inversion.safetensors: what diffusers makes of textual inversions.

    /tmp/venv/bin/python tools/fixtures_inversion.py

The vocabulary is bytes alone, the weights and the files are those of fixtures_lora.py's hash.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parent))
import fixtures_lora
from fixtures_lora import hashed, pipeline, sd

START, END = "<|startoftext|>", "<|endoftext|>"
WIDTH = 12
PROMPTS = ["a <cat> on a <Dog>", "<cat><cat> x<cat>y", "sks, <s0> <s1>", "A <DOG> and <S1>", "<cat>_1 and <cat", "plain"]


def tokenizer(folder):
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]
    tokens = letters + [letter + "</w>" for letter in letters] + [START, END]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=32)


@torch.no_grad()
def main():
    fixtures_lora.TEXT |= dict(vocab_size=514, max_position_embeddings=32)
    pipe = pipeline(sd())
    model = fixtures_lora.clip()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pipe.register_modules(text_encoder=model, tokenizer=tokenizer(folder))
        vectors = lambda name, *shape: hashed(name, shape, 0.5).double()
        save_file({"<cat>": vectors("<cat>", 3, WIDTH)}, folder / "learned.safetensors")
        pipe.load_textual_inversion(str(folder / "learned.safetensors"))
        pipe.load_textual_inversion({"<Dog>": vectors("<Dog>", WIDTH)})
        pipe.load_textual_inversion({"emb_params": vectors("emb_params", 2, WIDTH)}, token="sks")
        pipe.load_textual_inversion(vectors("clip_l", 2, WIDTH), token=["<s0>", "<s1>"])
    found = {}
    for i, prompt in enumerate(PROMPTS):
        converted = pipe.maybe_convert_prompt(prompt, pipe.tokenizer)
        ids = pipe.tokenizer(converted, padding="max_length", max_length=32, truncation=True).input_ids
        states = model.double()(input_ids=torch.tensor([ids]))
        print(prompt, "->", converted, ids[: ids.index(513) + 1])
        found[f"{i}.ids"] = torch.tensor(ids).float()
        found[f"{i}.pooled"] = states.pooler_output[0].float().contiguous()
        found[f"{i}.sum"] = states.last_hidden_state[0].sum(0).float().contiguous()
    path = fixtures_lora.ROOT / "canvas-text" / "tests" / "fixtures" / "inversion.safetensors"
    save_file(found, path)
    print(path.stat().st_size)


main()
