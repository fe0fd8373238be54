"""Writes canvas-text/tests/fixtures/llm_tokens/: small tokenizers of language models, and the ids of transformers for a thousand strings.

    /tmp/venv/bin/python tools/fixtures_llm_tokens.py

The strings are those of clip_tokens.json, and some with the signs of chats in them. The vocabularies are trained on them here;
of the ids only hashes are kept.
"""

import json
import shutil
import sys
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

sys.path.insert(0, str(Path(__file__).parent))
import formula

FIXTURES = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures"
FOLDER = FIXTURES / "llm_tokens"
STRINGS = [row[0] for row in json.loads((FIXTURES / "clip_tokens.json").read_text())["rows"]]
CORPUS = STRINGS[:400] + ["a photo of a cat", "the red house on the hill", "an oil painting of a woman, it's 4k"] * 20
CHATS = [
    "<|im_start|>user\na red cat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "a<|im_end|>b", " <|im_start|> ", "<|im_end|><|im_end|>", "<|im_end", "<|endoftext|>", "<|IM_END|>", "<think>hm</think>",
    "<bos>a cat<eos>", "<start_of_turn>user\na cat<end_of_turn>\n", " <end_of_turn> ", "a\n\nb\n\n\nc", "<pad><unk>", "<|begin_of_text|>a", "<|eot_id|> b",
    "1234567890 12 345", "it's IT'S we'Ll", "a  b   c    ", "  lead", "tab\t\tx", "\n \n x", "line  \n  next", "é\u0301 ﬁ", "▁a ▁", "a▁b",
]  # fmt: skip
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)


def hashed(ids):
    return f"{formula.fnv1a(','.join(map(str, ids))) & 0xFFFFFFFF:08x}"


def ids(tokenizer):
    return [hashed(tokenizer(text).input_ids) for text in STRINGS + CHATS]


def folder(name, config):
    path = FOLDER / name
    path.mkdir(parents=True)
    (path / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return path


def byte_level(pattern, size):
    plain = Tokenizer(models.BPE())
    plain.normalizer = normalizers.NFC()
    plain.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    return plain


def special(text, **more):
    return {"content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True} | more


def write(plain, path):
    path.write_text(json.dumps(json.loads(plain.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")


def qwen():
    """Qwen's: a vocab.json with merges.txt, and the tokenizer.json of the same."""
    plain = byte_level(QWEN, 560)
    model = json.loads(plain.to_str())["model"]
    first = len(model["vocab"])
    added = [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>"), special("<think>", special=False), special("</think>", special=False)]
    config = {
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None,
        "model_max_length": 131072, "add_bos_token": False, "add_prefix_space": False, "split_special_tokens": False, "errors": "replace",
        "added_tokens_decoder": {str(first + i): token for i, token in enumerate(added)},
    }  # fmt: skip
    old = folder("qwen", config)
    (old / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False, separators=(",", ":")) + "\n")
    (old / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]) + "\n")
    found = Qwen2Tokenizer.from_pretrained(old)
    new = folder("qwen_json", config)
    write(found._tokenizer, new / "tokenizer.json")
    assert ids(AutoTokenizer.from_pretrained(new)) == ids(found)
    return {"qwen": ids(found)}


def gemma():
    """Gemma's tokenizer.json, as version 4 wrote it: spaces are letters, bytes where there is no token, runs of lines are tokens."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "\n\n", "\n\n\n"]
    octets = [f"<0x{byte:02X}>" for byte in range(256)]
    text = [line.replace(" ", "▁") for line in CORPUS]
    learnt = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=names + octets, limit_alphabet=120, show_progress=False)
    learnt.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learnt.train_from_iterator(text, trainer)
    model = json.loads(learnt.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    plain = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    plain.normalizer = normalizers.Replace(" ", "▁")
    plain.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    plain.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    plain.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    plain.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names[:6]])
    plain.add_tokens([AddedToken(name, normalized=False) for name in names[6:]])
    config = {
        "tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>", "model_max_length": 1000000000000000019884624838656, "spaces_between_special_tokens": False,
    }  # fmt: skip
    path = folder("gemma", config)
    write(plain, path / "tokenizer.json")
    letter = ids(PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json")))
    own = ids(AutoTokenizer.from_pretrained(path))
    return {"gemma": letter, "gemma_class_differs": {i: b for i, (a, b) in enumerate(zip(letter, own)) if a != b}}


def llama3():
    """Llama 3's, and Mistral Small's kind: byte level, numbers by threes, whole tokens before merges, a start token."""
    plain = byte_level(LLAMA3, 560)
    plain.normalizer = None
    plain.model.ignore_merges = True
    first = plain.get_vocab_size()
    plain.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in ("<|begin_of_text|>", "<|eot_id|>")])
    begin = processors.TemplateProcessing("<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", first)])
    plain.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|eot_id|>", "model_max_length": 131072}
    path = folder("llama3", config)
    write(plain, path / "tokenizer.json")
    return {"llama3": ids(AutoTokenizer.from_pretrained(path))}


def batches():
    prompts = ["a cat", "", "<|im_start|>a photo of the red house on the hill, 4k", "東京 🐈 <end_of_turn>"]
    found = []
    for name in ("qwen", "qwen_json", "gemma", "llama3"):
        for side in (None, "left", "right"):
            more = {} if side is None else {"padding_side": side}
            tokenizer = AutoTokenizer.from_pretrained(FOLDER / name, **more)
            for options in ({"padding": "max_length", "max_length": 12, "truncation": True}, {"padding": True, "max_length": 7, "truncation": True}, {"padding": True}):
                rows = tokenizer(prompts, **options)
                found.append({"folder": name, "side": side, "options": options, "ids": rows.input_ids, "mask": rows.attention_mask})
    return {"prompts": prompts, "rows": found}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    expected = qwen() | gemma() | llama3()
    notes = {"made by": "tools/fixtures_llm_tokens.py", "transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
    text = json.dumps(notes | {"chats": CHATS} | expected | {"batches": batches()})
    (FOLDER / "ids.json").write_text(text + "\n")
    print(len(STRINGS + CHATS), "Gemma's class differs:", len(expected["gemma_class_differs"]))
    for path in sorted(FOLDER.rglob("*")):
        print(path.relative_to(FOLDER), path.stat().st_size)


main()
