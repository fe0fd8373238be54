"""Tiny tokenizers in the files of published transformer pipelines, trained on a page of text.

    t5        unigram, spiece.model and tokenizer.json (SD3, Flux, Chroma)
    t5_old    the same, spiece.model alone (PixArt-alpha)
    t5_nfkc   the same with the published normaliser, whose table has 240 kB (PixArt-sigma)
    llama     BPE with byte fallback, tokenizer.model and tokenizer.json, ends with </s> (AuraFlow)
    gemma     BPE with byte fallback, tokenizer.json, begins with <bos> (Lumina2, Sana, PRX)
    qwen      byte-level BPE, vocab.json, merges.txt, tokenizer.json, chat template (Qwen-Image, Z-Image, Flux.2 klein)
    pixtral   byte-level BPE, processor with chat template, padded on the left (Flux.2 dev)

CLIP's is that of `generate_inputs`. Training is not bound to be the same with other versions of sentencepiece or tokenizers: the
files are the reference, not the script.
"""

import functools
import io
import json
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GemmaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

import generate_inputs as inputs

# Sentences with the words of the cases, and with those of the pipelines' own templates.
PAGE = """a photo of a cat in the snow
a painting of a red house on a dark river
Dark forest, river; 3 cats & dogs!
a detailed oil painting of a river and a mountain
a small woman with a large dog in the street of a city at night
portrait of a man, bright sky, low quality, blurry, ugly
Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background
You are an assistant designed to generate superior images with the superior degree of image-text alignment
system user assistant prompt enhanced description
""".splitlines()


def sentences() -> list:
    """The page in both cases, often enough for a trainer."""
    words = [" ".join(inputs.WORDS[k : k + 6]) for k in range(len(inputs.WORDS))]
    return [*PAGE, *words, *(line.lower() for line in PAGE)] * 4


@functools.cache
def pieces(kind: str, **options) -> bytes:
    """A trained sentencepiece model's file."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences()), model_writer=model, model_type=kind, minloglevel=2, num_threads=1, **options
    )
    return model.getvalue()


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def t5(folder: Path, only_pieces: bool = False, rule: str = "identity") -> None:
    """T5's: <pad> 0, </s> 1, <unk> 2, a hundred <extra_id_k> at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    file = pieces("unigram", vocab_size=150, normalization_rule_name=rule, hard_vocab_limit=False, **ids)
    (folder / "spiece.model").write_bytes(file)
    extra = [f"<extra_id_{k}>" for k in range(100)]
    config = {"additional_special_tokens": extra, "clean_up_tokenization_spaces": True, "eos_token": "</s>", "extra_ids": 100}
    config |= {"legacy": True, "model_max_length": 512, "pad_token": "<pad>", "unk_token": "<unk>"}
    config |= {"sp_model_kwargs": {}, "tokenizer_class": "T5Tokenizer"}
    write_json(folder / "tokenizer_config.json", config)
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "additional_special_tokens": extra}
    write_json(folder / "special_tokens_map.json", special)
    if not only_pieces:
        AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))


def llama(folder: Path) -> None:
    """Llama's class as AuraFlow uses it: <unk> 0, <s> 1, </s> 2; no start, but an end token."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": 3}
    file = pieces("bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity", hard_vocab_limit=False, **ids)
    (folder / "tokenizer.model").write_bytes(file)
    config = {"add_bos_token": False, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config |= {"pad_token": "<pad>", "padding_side": "right", "legacy": True, "model_max_length": 512}
    config |= {"clean_up_tokenization_spaces": False, "tokenizer_class": "LlamaTokenizer"}
    write_json(folder / "tokenizer_config.json", config)
    AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))


def gemma(folder: Path, length: int = 1024) -> None:
    """Gemma's: <pad> 0, <eos> 1, <bos> 2, <unk> 3; spaces are letters, nothing is put in front; begins with <bos>."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    plain = {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False}
    named = {"eos_piece": "<eos>", "bos_piece": "<bos>", "hard_vocab_limit": False}
    file = pieces("bpe", vocab_size=420, byte_fallback=True, **ids, **plain, **named)
    model = sentencepiece.SentencePieceProcessor(model_proto=file)
    vocab = {model.id_to_piece(k): k for k in range(model.get_piece_size())}
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges(vocab), model_max_length=length, padding_side="left")
    begin = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)])
    tokenizer.backend_tokenizer.post_processor = begin
    tokenizer.save_pretrained(folder)


def merges(vocab: dict) -> list:
    """The merges of a sentencepiece BPE vocabulary: every split of a piece into two pieces, by the piece's id."""
    found = []
    for piece, k in vocab.items():
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        splits = [pair for pair in splits if pair[0] in vocab and pair[1] in vocab]
        found += [(k, vocab[a], vocab[b], (a, b)) for a, b in splits if not piece.startswith("<")]
    return [pair for *_, pair in sorted(found)]


def byte_pairs(size: int) -> tuple:
    """A byte-level BPE's vocabulary and merges."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(sentences(), trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
# What Qwen3's template does with messages of plain text.
QWEN_CHAT = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
)


def qwen(folder: Path) -> None:
    """Qwen's files, all of them; `<think>` is an added token that is not special, as in Qwen3."""
    vocab, pairs = byte_pairs(400)
    ends = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=pairs, **ends, model_max_length=131072)
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_SPECIAL[1:]})
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = QWEN_CHAT
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    write_json(folder / "vocab.json", vocab)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


PIXTRAL_SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
PIXTRAL_SPECIAL += ["[IMG]", "[IMG_BREAK]", "[IMG_END]", "<pad>"]
# What Mistral Small's template does with a system and a user message whose contents are lists.
PIXTRAL_CHAT = (
    "{{- bos_token }}{%- for message in messages %}{%- if message.role == 'system' %}{{- '[SYSTEM_PROMPT]' + message.content[0].text"
    " + '[/SYSTEM_PROMPT]' }}{%- else %}{{- '[INST]' }}{%- for block in message.content %}{%- if block.type == 'text' %}{{- block.text }}"
    "{%- else %}{{- '[IMG]' }}{%- endif %}{%- endfor %}{{- '[/INST]' }}{%- endif %}{%- endfor %}"
)


def pixtral(folder: Path) -> None:
    """The files of Mistral's processor: special tokens first, padding on the left.

    Its post-processor adds <s>, as the chat template does, so text of the template must be read without. transformers' PixtralProcessor wants
    torchvision, so its files are written here and `generate_transformer_run` reads the tokenizer alone, whose
    `apply_chat_template` answers the same for messages of text.
    """
    vocab, pairs = byte_pairs(400)
    vocab = {token: k + len(PIXTRAL_SPECIAL) for token, k in vocab.items()}
    vocab = {token: k for k, token in enumerate(PIXTRAL_SPECIAL)} | vocab
    backend = Tokenizer(models.BPE(vocab=vocab, merges=pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "padding_side": "left"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **named, additional_special_tokens=PIXTRAL_SPECIAL[3:10])
    tokenizer.chat_template = PIXTRAL_CHAT
    tokenizer.save_pretrained(folder)
    processor = {"processor_class": "PixtralProcessor", "patch_size": 8, "spatial_merge_size": 1, "image_token": "[IMG]"}
    write_json(folder / "processor_config.json", processor | {"image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"})
    images = {"image_processor_type": "PixtralImageProcessor", "processor_class": "PixtralProcessor"}
    write_json(folder / "preprocessor_config.json", images)


def length(folder: Path) -> int:
    """How many ids the tokenizer of a folder has."""
    return len(AutoTokenizer.from_pretrained(folder))


WRITERS = {
    "t5": t5,
    "t5_old": lambda folder: t5(folder, only_pieces=True),
    "t5_nfkc": lambda folder: t5(folder, only_pieces=True, rule="nmt_nfkc"),
    "llama": llama,
    "gemma": gemma,
    "gemma_short": lambda folder: gemma(folder, 40),
    "qwen": qwen,
    "pixtral": pixtral,
}
