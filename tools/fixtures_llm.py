"""Writes canvas-text/tests/fixtures/llm.safetensors and llm.json: what transformers' language models answer.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_llm.py

Weights are filled by formula.py's chirp on both sides, so the fixtures hold outputs only. The reference runs in f64 (its
norms of Gemma and its softmax are f32 all the same). Of each gradient its length is stored, and its products with three
waves, which no wrong element escapes. llm.json holds the configurations, the names and shapes of each class, and the
numbers of parameters of the published sizes, counted on the meta device.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    MistralModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)
from transformers.models.t5gemma.configuration_t5gemma import T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

sys.path.insert(0, str(Path(__file__).parent))
import formula

torch.set_num_threads(1)
FOLDER = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures"
IDS = [[3, 5, 7, 11, 2, 0, 0, 0, 0], [8, 1, 30, 4, 4, 17, 29, 9, 6], [0, 0, 0, 12, 5, 21, 8, 2, 2]]
MASK = [[1] * 5 + [0] * 4, [1] * 9, [0] * 3 + [1] * 6]  # padded behind, not at all, in front
NAMES = [
    ("embed_tokens.weight", "embedding.weight"),
    ("layers.", "blocks."),
    ("input_layernorm.weight", "attention_norm.gamma"),
    ("pre_self_attn_layernorm.weight", "attention_norm.gamma"),
    ("post_self_attn_layernorm.weight", "attention_after.gamma"),
    ("pre_feedforward_layernorm.weight", "mlp_norm.gamma"),
    ("post_feedforward_layernorm.weight", "mlp_after.gamma"),
    ("q_norm.weight", "query_norm.gamma"),
    ("k_norm.weight", "key_norm.gamma"),
    ("self_attn.", "attention."),
    ("q_proj.", "query."),
    ("k_proj.", "key."),
    ("v_proj.", "value."),
    ("o_proj.", "output."),
    ("gate_proj.", "gate."),
    ("up_proj.", "up."),
    ("down_proj.", "down."),
]


def ours(name, sandwich):
    """Burn's path of a parameter of the bare model."""
    if name == "norm.weight":
        return "norm.gamma"
    after = "attention_after" if sandwich else "mlp_norm"
    for theirs, mine in [*NAMES, ("post_attention_layernorm.weight", f"{after}.gamma")]:
        name = name.replace(theirs, mine)
    return name


def is_linear(name, param):
    return param.dim() == 2 and "embed" not in name


def fill(model, sandwich):
    for name, param in model.named_parameters():
        path = ours(name, sandwich)
        values = formula.chirp_linear(path, param.shape) if is_linear(name, param) else formula.chirp(path, param.shape)
        param.data = torch.from_numpy(np.ascontiguousarray(values))
    return model.double()


def summary(grad):
    index = torch.arange(grad.numel(), dtype=torch.float64)
    waves = [torch.sin((0.37 + 0.21 * wave) * index + wave) for wave in range(3)]
    return torch.stack([grad.norm()] + [(grad.reshape(-1) * wave).sum() for wave in waves])


def pattern(shape, seed):
    return torch.from_numpy(formula.input_pattern(shape, seed)).double()


def masks(config, mask):
    """transformers' own, of f32: the least f64 would be infinite in the softmax, which is of f32, and rows without a key NaN."""
    sizes = dict(config=config, inputs_embeds=torch.zeros(*mask.shape, config.hidden_size), attention_mask=mask)
    if isinstance(config, T5GemmaModuleConfig):
        full, window = create_bidirectional_mask(**sizes), create_bidirectional_sliding_window_mask(**sizes)
    else:
        sizes["past_key_values"] = None
        full, window = create_causal_mask(**sizes), create_sliding_window_causal_mask(**sizes)
    return {"full_attention": full, "sliding_attention": window}


def answers(label, model, sandwich):
    model = fill(model, sandwich).eval()
    mask, counted = torch.tensor(MASK), torch.ones(1, 1, 1)
    if model.config._attn_implementation == "eager":
        # A token that sees none answers the mean of all values, whatever the scores, which the least f32 swallows; but autograd
        # goes on as if they counted. No real token reads that answer.
        mask, counted = masks(model.config, mask), mask[:, :, None]
    found = model(input_ids=torch.tensor(IDS), attention_mask=mask, output_hidden_states=True)
    middle, last = found.hidden_states[2], found.hidden_states[-1]
    assert torch.equal(last, found.last_hidden_state) and len(found.hidden_states) == 4
    loss = (counted * middle * pattern(middle.shape, 3.0)).sum() + (counted * last * pattern(last.shape, 1.0)).sum()
    loss.backward()
    grads = {}
    for name, param in model.named_parameters():
        grads[ours(name, sandwich)] = summary(param.grad.T if is_linear(name, param) else param.grad)
    tensors = {"middle": middle, "last": last, "grads": torch.stack([grads[name] for name in sorted(grads)])}
    return {f"{label}.{name}": value.detach().float().contiguous() for name, value in tensors.items()}


# A head's width is not width / heads, a window is shorter than a row, waves are short enough to turn within it.
TINY = dict(
    vocab_size=31,
    hidden_size=12,
    intermediate_size=20,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=None,  # whose embedding would have no gradient
)
THETA = {"rope_type": "default", "rope_theta": 100.0}
SOFT = dict(query_pre_attn_scalar=11, attn_logit_softcapping=1.5, sliding_window=3, head_dim=6, rms_norm_eps=1e-3, pad_token_id=0)
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VISION = dict(
    depth=1, hidden_size=8, intermediate_size=8, num_heads=2, out_hidden_size=12, patch_size=2, fullatt_block_indexes=[0]
)
PIXTRAL = dict(
    model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=2, head_dim=4
)
SDPA = dict(attn_implementation="sdpa")
EAGER = dict(attn_implementation="eager")

gemma2 = Gemma2Config(**TINY | SOFT, rope_parameters=THETA)
# Heads of 4 elements in Qwen 2 and 2.5 VL: the classes know no other width.
WIDER = TINY | dict(hidden_size=16, rope_parameters=THETA)
qwen2 = Qwen2Config(**WIDER, use_sliding_window=True, sliding_window=3, max_window_layers=1)
qwen3 = Qwen3Config(**TINY, head_dim=6, rope_parameters=THETA)
llama = LlamaConfig(**TINY, head_dim=6, attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3)
mistral = MistralConfig(**TINY, head_dim=6, sliding_window=3, rope_parameters=THETA, rms_norm_eps=1e-5)
qwen25vl = Qwen2_5_VLConfig(
    text_config=WIDER | dict(rope_parameters=THETA | {"mrope_section": [1, 1, 0]}),
    vision_config=VISION | dict(out_hidden_size=16),
    image_token_id=1,
    video_token_id=2,
    vision_start_token_id=3,
    vision_end_token_id=4,
)
mistral3 = Mistral3Config(
    text_config=TINY | dict(model_type="mistral", head_dim=6, sliding_window=None, rope_parameters=THETA),
    vision_config=PIXTRAL,
    tie_word_embeddings=False,
)
module = dict(TINY | SOFT, rope_parameters=THETA)
t5gemma = T5GemmaConfig(encoder=module, decoder=module, vocab_size=31)


def loaded(kind, config, how):
    config._attn_implementation = how["attn_implementation"]
    return kind(config)


def values():
    tensors = answers("gemma2", loaded(Gemma2Model, gemma2, EAGER), True)
    tensors |= answers("qwen2", loaded(Qwen2Model, qwen2, SDPA), False)
    tensors |= answers("qwen3", loaded(Qwen3Model, qwen3, SDPA), False)
    tensors |= answers("llama", loaded(LlamaModel, llama, SDPA), False)
    tensors |= answers("mistral", loaded(MistralModel, mistral, SDPA), False)
    tensors |= answers("qwen2_5_vl", loaded(Qwen2_5_VLForConditionalGeneration, qwen25vl, SDPA).model.language_model, False)
    tensors |= answers("mistral3", loaded(Mistral3ForConditionalGeneration, mistral3, SDPA).model.language_model, False)
    tensors |= answers("t5gemma", loaded(T5GemmaEncoder, t5gemma.encoder, EAGER), True)
    return tensors


def keys(model):
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def written(config):
    """What config.json would hold."""
    return json.loads(config.to_json_string(use_diff=False))


# The published sizes, as their config.json has them (version 4's fields).
PUBLISHED = {
    "gemma-2-2b": (Gemma2Model, Gemma2Config()),
    "qwen3-4b": (
        Qwen3Model,
        Qwen3Config(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_key_value_heads=8),
    ),
    "llama-3.1-8b": (LlamaModel, LlamaConfig(vocab_size=128256, intermediate_size=14336, num_key_value_heads=8)),
    "qwen2.5-vl-7b": (
        Qwen2Model,
        Qwen2Config(
            vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4
        ),
    ),
    "mistral-small-24b": (MistralModel, Mistral3Config().text_config),
    "t5gemma-2b": (T5GemmaEncoder, T5GemmaConfig().encoder),
}


def count(kind, config):
    with torch.device("meta"):
        return sum(param.numel() for param in kind(config).parameters())


def main():
    notes = {"transformers": transformers.__version__, "torch": torch.__version__, "script": "tools/fixtures_llm.py"}
    tensors = values()
    for name, value in tensors.items():
        assert value.isfinite().all(), name
    save_file(tensors, FOLDER / "llm.safetensors", metadata=notes)
    models = {
        "Gemma2Model": (Gemma2Model, gemma2),
        "Gemma2ForCausalLM": (Gemma2ForCausalLM, gemma2),
        "Qwen2ForCausalLM": (Qwen2ForCausalLM, qwen2),
        "Qwen3Model": (Qwen3Model, qwen3),
        "Qwen3ForCausalLM": (Qwen3ForCausalLM, qwen3),
        "LlamaForCausalLM": (LlamaForCausalLM, llama),
        "MistralForCausalLM": (MistralForCausalLM, mistral),
        "Qwen2_5_VLForConditionalGeneration": (Qwen2_5_VLForConditionalGeneration, qwen25vl),
        "Mistral3ForConditionalGeneration": (Mistral3ForConditionalGeneration, mistral3),
        "T5GemmaEncoder": (T5GemmaEncoder, t5gemma.encoder),
        "T5GemmaForConditionalGeneration": (T5GemmaForConditionalGeneration, t5gemma),
    }
    lines = []
    for name, (kind, config) in models.items():
        model = kind(config)
        lines.append(f"{json.dumps(name)}: {json.dumps({'config': written(model.config), 'keys': keys(model)})}")
    counts = {name: count(*model) for name, model in PUBLISHED.items()}
    head = json.dumps({"notes": notes, "counts": counts})
    (FOLDER / "llm.json").write_text(head[:-1] + ', "models": {\n' + ",\n".join(lines) + "\n}}\n")
    print(counts, len(tensors), [(FOLDER / f"llm.{kind}").stat().st_size for kind in ("safetensors", "json")])


main()
