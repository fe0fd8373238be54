"""Writes canvas-text/tests/fixtures/llm_prompts.json: the tokens that diffusers' pipelines give their language models.

    /tmp/venv/bin/python tools/fixtures_llm_prompts.py

The pipelines are the tiny ones of generate_transformers.py, the tokenizers those of examples/tests/fixtures/generate_transformers.
"""

import inspect
import json
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))
import generate_transformers

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
FIXTURE = ROOT / "canvas-text" / "tests" / "fixtures" / "llm_prompts.json"
TOKENIZERS = ROOT / "examples" / "tests" / "fixtures" / "generate_transformers" / "tokenizers"
LONG = "a very long prompt, " * 12 + "[IMG] which is cut"
PROMPTS = ["a Red cat <b> ", LONG, "東京 \"two\"\nlines"]
NEGATIVE = ["Blurry ", "", "no"]
NAMES = {"sana": "lumina2", "lumina2": "lumina2", "z_image": "flux2_klein", "qwen_image": "flux2_klein", "flux2": "flux2", "flux2_klein": "flux2_klein"}


def seen(name, folder):
    """Ids and masks of every call of the text encoder."""
    pipe = generate_transformers.MODELS[name](folder)
    pipe.tokenizer = AutoTokenizer.from_pretrained(TOKENIZERS / f"{NAMES[name]}-tokenizer")
    calls = []

    def record(_module, args, kwargs):
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        calls.append({"ids": ids.tolist(), "mask": kwargs["attention_mask"].long().tolist()})

    pipe.text_encoder.register_forward_pre_hook(record, with_kwargs=True)
    with torch.no_grad():
        if name == "sana":
            instruction = inspect.signature(diffusers.SanaPipeline.__call__).parameters["complex_human_instruction"].default
            pipe.encode_prompt(PROMPTS, True, NEGATIVE, max_sequence_length=30, complex_human_instruction=instruction)
        elif name == "lumina2":
            pipe.tokenizer.padding_side = "right"  # as the pipeline does with the one that it is made with
            pipe.encode_prompt(PROMPTS, True, NEGATIVE, max_sequence_length=160)
        elif name == "z_image":
            pipe.encode_prompt(list(PROMPTS), max_sequence_length=40, do_classifier_free_guidance=False)
        elif name == "qwen_image":
            pipe.tokenizer_max_length = 30
            pipe.encode_prompt(PROMPTS)
        elif name == "flux2":
            pipe.encode_prompt(PROMPTS, max_sequence_length=80, text_encoder_out_layers=(1, 2, 3))
        else:
            pipe.encode_prompt(PROMPTS, max_sequence_length=50, text_encoder_out_layers=(1, 2, 3))
    return calls


def main():
    found = {}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = seen(name, Path(folder))
        print(name, [(len(call["ids"]), len(call["ids"][0])) for call in found[name]])
    notes = {"diffusers": diffusers.__version__, "transformers": transformers.__version__, "script": "tools/fixtures_llm_prompts.py"}
    head = json.dumps({"notes": notes, "prompts": PROMPTS, "negative": NEGATIVE})
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(calls)}" for name, calls in found.items())
    FIXTURE.write_text(head[:-1] + ', "calls": {\n' + lines + "\n}}\n")
    print(FIXTURE.stat().st_size)


main()
