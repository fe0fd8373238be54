"""Writes canvas-text/tests/fixtures/clip_tokens.json: the ids of transformers' CLIPTokenizer for a thousand strings.

    /tmp/venv/bin/python tools/fixtures_clip_tokens.py path/to/bpe_simple_vocab_16e6.txt

The vocabulary is OpenAI's, as the crate `instant-clip-tokenizer` (a development dependency of canvas-text) carries it:
it lies in cargo's registry. It is not committed, and neither are ids, only their hashes.
"""

import json
import random
import sys
import tempfile
import unicodedata
from pathlib import Path

import tokenizers
import transformers
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parent))
import formula

FIXTURE = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures" / "clip_tokens.json"
START, END = "<|startoftext|>", "<|endoftext|>"


def write_vocabulary(source, folder):
    """vocab.json and merges.txt: bytes, bytes that end a word, one token a merge, two special tokens."""
    merges = source.read_text(encoding="utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]
    tokens = letters + [letter + "</w>" for letter in letters]
    tokens += ["".join(merge.split()) for merge in merges] + [START, END]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


CHOSEN = [
    "", " ", "\t\n  ", "\u00a0", "\u3000", "\u200b", "\ufeff", "a", "A", "!", "!!!", "?!?!", "...", "a!b!", "'", "''", "\"'\"",
    "a photo of a cat", "A Photo Of A CAT", "an astronaut riding a horse, 4k, (detailed:1.2), ((sharp)) [soft]",
    "it's", "IT'S", "it's we're you've i'm they'll he'd don't", "'s't're've'm'll'd", "x's'", "rock'n'roll", "’s don’t",
    "1", "12", "1234567890", "3.14", "1,000,000", "²³", "½ cup", "Ⅷ", "१२३", "٣٤", "①②", "4k 8K UHD", "f/1.8", "50mm",
    "café", "cafe\u0301", "Ångström", "A\u030angstro\u0308m", "İstanbul", "ſtraße", "ẞ ß", "ŒUVRE œuvre", "ﬁﬂ", "ΑΒΓ αβγ ς Σ",
    "Привет, мир", "שלום", "مرحبا بالعالم", "नमस्ते दुनिया", "สวัสดีชาวโลก", "안녕하세요", "한국어", "日本語のテキスト", "你好，世界！", "龍", "𠮷野家", "ｆｕｌｌ ｗｉｄｔｈ",
    "😀", "😀😀😀", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "❤️", "❤", "☃", "a😀b", "👩🏽‍🚀 on the 🌕", "1️⃣",
    "<b>bold</b>", "&amp;", "&lt;tag&gt;", "&amp;amp;", "<!-- comment -->", "<script>alert('x')</script>", "a&nbsp;b", "<br/>",
    START, END, END + END, f"a {END} b", f"a{END}b{START}c", "<|EndOfText|>", "<|endoftext", "|>", "<start_of_text>",
    "\x00", "\x01\x02", "a\x00b", "\x07bell", "\x1b[31mred\x1b[0m", "\x7f", "\x80\x85\x9f", "a\x85b", "a\x0bb\x0cc", "\x1c\x1d\x1e\x1f",
    "\r\n", "a\r\nb", "\u2028\u2029", "a\u2028b", "\u180e", "\u1680", "\u2060", "\u00ad", "\u202eabc\u202c", "\ufffd", "\U000e0041",
    "e\u0301\u0301\u0301", "\u0301", "a\u0301\u0323", "q\u0307\u0323", "\u1e9b\u0323", "\u212b \u2126 \u212a", "\uac00\u11a8", "\u1100\u1161\u11a8",
    "supercalifragilisticexpialidocious", "pneumonoultramicroscopicsilicovolcanoconiosis", "Donaudampfschifffahrtsgesellschaftskapitän",
    "a" * 300, "ab" * 200, "z" * 77, "-" * 200, "!" * 100, "9" * 90, "😀" * 60, "é" * 120, "漢" * 90, "word " * 90, "a,b;" * 40,
    "https://example.org/path?query=1&x=%20#top", "user@example.com", "C:\\Users\\x", "/usr/bin/env", "snake_case", "camelCase", "kebab-case",
    "trending on artstation", "by greg rutkowski", "masterpiece, best quality, 1girl", "_", "__init__", "~`@#$%^&*()-_=+[]{}\\|;:,.<>/?", "$5.00 £3 €2 ¥1",
    "x²+y²=z²", "∀x∈ℝ", "→←↑↓", "“quotes” ‘single’ «guillemets»", "–—―", "…", "•·", "©®™", "¿qué? ¡sí!", "a\u0000\u200db",
]  # fmt: skip


def random_strings(draw):
    words = "a the cat dog red blue house of in on woman man portrait painting oil 4k hdr café naïve 東京 🐈 it's don't & <b>".split()
    spaces = [" ", "  ", "\t", ", ", "-", "\n", "_", ". ", "", "\u00a0", "\u2003"]
    for _ in range(250):
        pieces = [word for _ in range(draw.randint(1, 12)) for word in (draw.choice(words), draw.choice(spaces))]
        text = "".join(pieces)
        yield draw.choice([text, text.upper(), text.title(), " " + text])
    ranges = [(32, 126)] * 3 + [(0, 255)] * 2 + [(0x100, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0xDFF), (0xE00, 0x1FFF)]
    ranges += [(0x2000, 0x2BFF), (0x3000, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFF), (0x10000, 0x1FFFF), (0x1F300, 0x1FAFF)]
    for _ in range(600):
        low, high = draw.choice(ranges)
        mixed = [draw.choice([(low, high), (low, high), (97, 122)]) for _ in range(draw.randint(1, 12))]
        yield "".join(chr(draw.randint(*pair)) for pair in mixed)


def hashed(ids):
    return f"{formula.fnv1a(','.join(map(str, ids))) & 0xFFFFFFFF:08x}"


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_vocabulary(Path(sys.argv[1]), folder)
        plain = CLIPTokenizer.from_pretrained(folder)
        other = CLIPTokenizer.from_pretrained(folder, pad_token="!")
        normal = lambda text: tokenizers.AddedToken(text, normalized=True, special=True)
        special = {"bos_token": normal(START), "eos_token": normal(END), "unk_token": normal(END)}
        folded = CLIPTokenizer.from_pretrained(folder, **special, pad_token="!")  # as SDXL's second
    strings = list(dict.fromkeys(CHOSEN + list(random_strings(random.Random(7)))))
    rows, differing = [], {"!": {}, "normalized": {}}
    for i, text in enumerate(strings):
        ids = plain(text, add_special_tokens=False).input_ids
        rows.append([text, len(ids), hashed(ids)])
        for name, tokenizer in [("!", other), ("normalized", folded)]:
            found = tokenizer(text, add_special_tokens=False).input_ids
            if found != ids:
                differing[name][i] = hashed(found)
        full = {"padding": "max_length", "max_length": 77, "truncation": True}
        for tokenizer in (plain, other):
            own = tokenizer(text, add_special_tokens=False).input_ids[:75]
            own = [tokenizer.bos_token_id, *own, tokenizer.eos_token_id]
            own += [tokenizer.pad_token_id] * (77 - len(own))
            assert tokenizer(text, **full).input_ids == own, text
    notes = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "unicode": unicodedata.unidata_version}
    lines = ",\n".join(json.dumps(row) for row in rows)
    head = json.dumps({"made by": "tools/fixtures_clip_tokens.py", **notes, "differing": differing})
    FIXTURE.write_text(head[:-1] + ',\n"rows": [\n' + lines + "\n]}\n")
    print(len(rows), {name: len(found) for name, found in differing.items()}, FIXTURE.stat().st_size)


main()
