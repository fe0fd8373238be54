"""Writes canvas-text/tests/fixtures/tokens/: small tokenizers of several kinds, and the ids of transformers for a thousand strings.

    /tmp/venv/bin/python tools/fixtures_tokens.py

The strings are those of clip_tokens.json. The vocabularies are trained on them here (SentencePiece), and so is the table of
characters; of the ids only hashes are kept.
"""

import json
import shutil
import sys
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, normalizers, pre_tokenizers, processors
from transformers import LlamaTokenizer, PreTrainedTokenizerFast, T5Tokenizer

sys.path.insert(0, str(Path(__file__).parent))
import formula

FIXTURES = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures"
FOLDER = FIXTURES / "tokens"
STRINGS = [row[0] for row in json.loads((FIXTURES / "clip_tokens.json").read_text())["rows"]]
CORPUS = [line for text in STRINGS[:400] for line in text.splitlines() if line.strip() and "\x00" not in line]
CORPUS += ["a photo of a cat", "the red house on the hill", "an oil painting of a woman"] * 20
SPACES = "\t\n\r\u00a0\u1680\u2003\u2028\u2029\u3000\x85"
NOTHING = "".join(map(chr, [*range(1, 9), 0xB, 0xC, *range(0xE, 0x20), 0x7F])) + "\u200b\ufeff\u00ad\u200d"


def hashed(ids):
    return f"{formula.fnv1a(','.join(map(str, ids))) & 0xFFFFFFFF:08x}"


def table(path):
    """Replacements of characters in the form that SentencePiece reads: those of NFKC that the strings need, spaces, nothing."""
    rules = {c: unicodedata.normalize("NFKC", c) for text in STRINGS[:350] for c in text}
    for text in STRINGS[:450]:
        for pair in zip(text, text[1:]):
            if unicodedata.combining(pair[1]):
                rules["".join(pair)] = unicodedata.normalize("NFKC", "".join(pair))
    rules = {old: new for old, new in rules.items() if old != new and old.isprintable()}
    rules |= {c: " " for c in SPACES} | {c: "" for c in NOTHING}
    shown = lambda text: " ".join(f"{ord(c):X}" for c in text)
    path.write_text("".join(f"{shown(old)}\t{shown(new)}\n" for old, new in sorted(rules.items())))


def train(folder, kind, **options):
    table(folder / "table.tsv")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_prefix=str(folder / kind), model_type=kind, minloglevel=2, num_threads=1,
        hard_vocab_limit=False, **options,
    )  # fmt: skip
    path = folder / f"{kind}.model"
    model = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    for part in (model.trainer_spec, model.normalizer_spec, model.denormalizer_spec):
        for field in ("model_prefix", "input", "normalization_rule_tsv"):  # paths of this machine
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)
    path.write_bytes(model.SerializeToString())
    return path


def fresh(name, config=None):
    folder = FOLDER / name
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return folder


def ids(tokenizer):
    return [hashed(tokenizer(text).input_ids) for text in STRINGS]


def shorten(folder):
    """The file on one line, and without the notes that say where it was read."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False, separators=(",", ":")) + "\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for key in ("is_local", "local_files_only", "name_or_path", "extra_special_tokens"):
        config.pop(key, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")


def t5(scratch):
    """T5's files: a spiece.model alone, and tokenizer.json as transformers 5 and as version 4 wrote it."""
    model = train(scratch, "unigram", vocab_size=420, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.98,
                  normalization_rule_tsv=str(scratch / "table.tsv"))  # fmt: skip
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 5, "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 512}
    folder = fresh("t5", config)
    shutil.copy(model, folder / "spiece.model")
    plain = T5Tokenizer.from_pretrained(folder)
    expected = {"t5": ids(plain)}
    # Version 4's: other rules for spaces. Its own class for such files follows them to the letter.
    old = fresh("t5_old")
    plain.save_pretrained(old)
    new = plain._tokenizer
    old_rules = tokenizers.Tokenizer.from_str(new.to_str())
    strip, join = normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")
    old_rules.normalizer = normalizers.Sequence([new.normalizer, strip, join])
    old_rules.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    old_rules.save(str(old / "tokenizer.json"))
    expected["t5_old"] = ids(PreTrainedTokenizerFast(tokenizer_file=str(old / "tokenizer.json")))
    shorten(old)
    # As version 5 saves it: the rules of version 5, put into the file by the test.
    rules = json.loads(new.to_str())
    expected["t5_rules"] = {key: rules[key] for key in ("pre_tokenizer", "post_processor")}
    return expected


def llama(scratch):
    """Llama's files: byte-pair encoding with bytes, as a tokenizer.model alone, and as a tokenizer.json of version 4."""
    model = train(scratch, "bpe", vocab_size=700, byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity",
                  remove_extra_whitespaces=False, user_defined_symbols=["<image>"])  # fmt: skip
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "model_max_length": 1000000000000000019884624838656}
    config |= {"bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}}
    folder = fresh("llama", config)
    shutil.copy(model, folder / "tokenizer.model")
    plain = LlamaTokenizer.from_pretrained(folder)
    expected = {"llama": ids(plain)}
    # AuraFlow's: a prefix by the normaliser, the end token behind, a pad token. Followed to the letter.
    old = fresh("llama_old")
    plain.save_pretrained(old)
    rules = tokenizers.Tokenizer.from_str(plain._tokenizer.to_str())
    rules.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rules.pre_tokenizer = None
    rules.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    rules.save(str(old / "tokenizer.json"))
    expected["llama_old"] = ids(PreTrainedTokenizerFast(tokenizer_file=str(old / "tokenizer.json")))
    (old / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "</s>", "tokenizer_class": "LlamaTokenizerFast"}))
    shorten(old)
    expected["llama_differs"] = sum(a != b for a, b in zip(ids(LlamaTokenizer.from_pretrained(old)), expected["llama_old"]))
    return expected


def batches():
    """Rows of several prompts: cut, padded, at either side."""
    prompts = ["a cat", "", "a photo of the red house on the hill, 4k", "東京 🐈"]
    found = []
    for name, load in [("t5", T5Tokenizer), ("t5_old", None), ("llama_old", None)]:
        own = FOLDER / name
        config = json.loads((own / "tokenizer_config.json").read_text())
        pad = {key: config[key] for key in ("pad_token",)}
        load_one = lambda **more: load.from_pretrained(own, **more) if load else PreTrainedTokenizerFast(tokenizer_file=str(own / "tokenizer.json"), **pad, **more)
        for side in ("left", "right"):
            tokenizer = load_one(padding_side=side)
            for options in ({"padding": "max_length", "max_length": 9, "truncation": True}, {"padding": True, "max_length": 7, "truncation": True}, {"padding": True}):
                rows = tokenizer(prompts, **options)
                found.append({"folder": name, "side": side, "options": options, "ids": rows.input_ids, "mask": rows.attention_mask})
    return {"prompts": prompts, "rows": found}


shutil.rmtree(FOLDER, ignore_errors=True)
with tempfile.TemporaryDirectory() as scratch:
    expected = t5(Path(scratch)) | llama(Path(scratch))
notes = {"made by": "tools/fixtures_tokens.py", "transformers": transformers.__version__, "tokenizers": tokenizers.__version__}
differs = sum(a != b for a, b in zip(expected["t5"], expected["t5_old"]))
for name in ("t5_old",):
    expected[name] = {i: b for i, (a, b) in enumerate(zip(expected["t5"], expected[name])) if a != b}
(FOLDER / "ids.json").write_text(json.dumps(notes | expected | {"batches": batches()}) + "\n")
print(len(STRINGS), "old T5 differs:", differs, "old Llama differs from its class:", expected["llama_differs"])
for path in sorted(FOLDER.rglob("*")):
    print(path.relative_to(FOLDER), path.stat().st_size)
