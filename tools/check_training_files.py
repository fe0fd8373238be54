"""Loads in diffusers what canvas has trained and saved: a learned word, a ControlNet, an IP-Adapter; and compares answers.

    CANVAS_SAVE_TO=FOLDER cargo test --workspace --test train saved
    /tmp/venv/bin/python tools/check_training_files.py FOLDER
"""

import sys
from pathlib import Path

import diffusers
import torch
from diffusers.loaders import TextualInversionLoaderMixin
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
import formula


def pattern(shape, seed):
    return torch.from_numpy(formula.input_pattern(shape, seed))


class Words(TextualInversionLoaderMixin):
    """As much of a pipeline as loading a word needs."""

    def __init__(self, text_encoder):
        self.text_encoder, self.tokenizer, self.components, self.hf_device_map = text_encoder, None, {}, None


def unet(folder):
    model = diffusers.UNet2DConditionModel(
        in_channels=3, out_channels=3, block_out_channels=(8, 16), norm_num_groups=2, cross_attention_dim=12,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1, transformer_layers_per_block=1, attention_head_dim=2,
    )
    model.load_state_dict(load_file(folder / "unet.safetensors"), strict=True)
    return model


def compare(name, found, expected):
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    print(f"{name}: {error:.1e} of the largest value")
    assert error < 1e-5, name


@torch.no_grad()
def main(folder):
    expected = load_file(folder / "answers.safetensors")
    model, tokens = unet(folder), pattern((2, 5, 12), 1.0)
    inputs = pattern((2, 3, 8, 12), 2.0), torch.tensor([300.0, 600.0]), tokens

    control = diffusers.ControlNetModel.from_unet(model, conditioning_embedding_out_channels=(4, 6))
    control.load_state_dict(load_file(folder / "controlnet.safetensors"), strict=True)
    skips, middle = control(*inputs, pattern((2, 3, 16, 24), 4.0), return_dict=False)
    added = dict(down_block_additional_residuals=skips, mid_block_additional_residual=middle)
    compare("controlled", model(*inputs, **added).sample, expected["controlled"])

    # As `load_ip_adapter` takes a file apart.
    tensors = {"image_proj": {}, "ip_adapter": {}}
    for key, value in load_file(folder / "ip_adapter.safetensors").items():
        part, rest = key.split(".", 1)
        tensors[part][rest] = value
    model._load_ip_adapter_weights([tensors], low_cpu_mem_usage=False)
    for name, processor in model.attn_processors.items():
        if name.endswith("attn2.processor"):
            processor.scale = [0.7]
    images = {"image_embeds": [pattern((2, 1, 10), 5.0)]}
    compare("prompted", model(*inputs, added_cond_kwargs=images).sample, expected["prompted"])

    sizes = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3, projection_dim=12)
    config = CLIPTextConfig(vocab_size=50, max_position_embeddings=6, hidden_act="quick_gelu", eos_token_id=49, **sizes)
    clip = CLIPTextModel(config)
    # transformers 5 leaves the first part of the published names out.
    weights = {key.removeprefix("text_model."): value for key, value in load_file(folder / "clip.safetensors").items()}
    clip.load_state_dict(weights, strict=True)
    word(folder, clip)
    ids = torch.tensor([[48, 3, 50, 51, 49, 49]])
    compare("told", clip.eval()(input_ids=ids).last_hidden_state, expected["told"])


def word(folder, clip):
    """By diffusers' own loader, with a tokenizer of 50 tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"t{i}": i for i in range(50)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")), unk_token="t0"
    )
    words = Words(clip)
    words.load_textual_inversion(
        str(folder / "learned_embeds.safetensors"), tokenizer=tokenizer, text_encoder=clip
    )
    ids = tokenizer.convert_tokens_to_ids(["<cat>", "<cat>_1"])
    assert ids == [50, 51], ids
    print("word:", words.maybe_convert_prompt("a <cat>", tokenizer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
