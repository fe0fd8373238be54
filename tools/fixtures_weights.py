"""Writes canvas-core/tests/fixtures/published: weights as diffusers saves them, and what PyTorch answers.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch diffusers transformers safetensors numpy
    /tmp/venv/bin/python tools/fixtures_weights.py

A tiny model with a layer of every kind, saved by diffusers' own `save_pretrained`: whole (f32, and the variants
fp16 and bf16) and in shards, and the same as PyTorch's own files in all forms that are read or refused. The answers
are computed in f64 from the rounded weights.

    /tmp/venv/bin/python tools/fixtures_weights.py --check DIR

loads what canvas saved (`cargo test -p canvas-core --test core -- --ignored save_for_pytorch` says where) with
diffusers' `from_pretrained`, and compares the answer.
"""

import json
import os
import shutil
import sys
import types
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).parent.parent / "canvas-core" / "tests" / "fixtures" / "published"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.RMSNorm(6, eps=1e-5)
        self.to_q = nn.Linear(6, 6, bias=False)

    def forward(self, x):
        return x + torch.tanh(self.to_q(self.norm(x)))


class Tiny(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self):
        super().__init__()
        self.token_embedding = nn.Embedding(5, 4)
        self.proj_in = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.square = nn.Linear(6, 6)
        self.transformer_blocks = nn.ModuleList([Block(), Block()])
        self.conv1 = nn.Conv1d(6, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 6, (3, 1), padding=(1, 0))
        self.group_norm = nn.GroupNorm(2, 6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.batch_norm = nn.BatchNorm2d(4)
        self.activation = nn.PReLU(4)
        self.instance_norm = nn.InstanceNorm2d(4, affine=True)
        self.conv3 = nn.Conv3d(4, 2, (1, 2, 2))
        self.register_buffer("position_ids", torch.arange(3))

    def forward(self, ids):
        x = self.square(self.norm(self.proj_in(self.token_embedding(ids))))  # [2, 3, 6]
        for block in self.transformer_blocks:
            x = block(x)
        x = self.conv1(x.transpose(1, 2))  # [2, 4, 3]
        x = self.up(self.group_norm(self.conv2(x[..., None])))  # [2, 4, 6, 2]
        x = self.instance_norm(self.activation(self.batch_norm(x)))
        return self.conv3(x[:, :, None])  # [2, 2, 1, 5, 1]


IDS = torch.tensor([[0, 3, 1], [4, 2, 2]])


def filled():
    torch.manual_seed(0)
    model = Tiny().eval()
    for name, value in list(model.named_parameters()) + list(model.named_buffers()):
        if value.is_floating_point():
            around = 1.0 if "norm" in name and "weight" in name or "running_var" in name else 0.0
            value.data = around + 0.5 * (torch.rand(value.shape) - 0.5)
    return model


@torch.no_grad()
def answer(model):
    return model.double()(IDS).float()


def write():
    shutil.rmtree(FOLDER, ignore_errors=True)
    answers = {"f32": answer(filled())}
    filled().save_pretrained(FOLDER / "whole")
    for variant, dtype in [("fp16", torch.float16), ("bf16", torch.bfloat16)]:
        filled().to(dtype).save_pretrained(FOLDER / "whole", variant=variant)
        answers[variant] = answer(filled().to(dtype))
    # Two shards or three, f64 in them: no rounding, and a type of its own.
    filled().double().save_pretrained(FOLDER / "sharded", max_shard_size="2KB")
    write_torch()
    for config in FOLDER.rglob("config.json"):
        config.unlink()
    save_file(answers, FOLDER / "answers.safetensors")
    for path in sorted(FOLDER.rglob("*.*")):
        print(path.stat().st_size, path.relative_to(FOLDER))


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/canvas-was-here",)


def write_torch():
    """`torch.save`: what diffusers writes, what training frameworks write around it, and what must be refused."""
    folder = FOLDER / "torch"
    filled().save_pretrained(folder, safe_serialization=False)
    filled().save_pretrained(folder / "sharded", safe_serialization=False, max_shard_size="2KB")
    state = filled().state_dict()
    # Views with steps of their own, two of one storage, and one that begins within its storage.
    state["square.weight"] = state["square.weight"].T.contiguous().T
    state["conv2.weight"] = state["conv2.weight"].to(memory_format=torch.channels_last)
    both = torch.cat([torch.zeros(3), state["norm.weight"], state["norm.bias"]])
    state["norm.weight"], state["norm.bias"] = both[3:9], both[9:]
    # The class is mentioned, as Lightning does; nothing is called.
    callbacks = types.ModuleType("pytorch_lightning.callbacks")
    sys.modules["pytorch_lightning"], sys.modules[callbacks.__name__] = types.ModuleType("pytorch_lightning"), callbacks
    callbacks.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": callbacks.__name__})
    around = {"epoch": 3, "lr": 0.5, "callbacks": {callbacks.ModelCheckpoint: {"best": None}}, "state_dict": state}
    torch.save(around, folder / "around.ckpt")
    kinds = {name: torch.tensor([0.5, -2.0, 3.0]).to(getattr(torch, name)) for name in
             ["float16", "bfloat16", "float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]}
    torch.save({"kinds": kinds, "parameter": nn.Parameter(torch.arange(4.0)), "scalar": torch.tensor(7.0),
                "big": 2**80}, folder / "kinds.pt")
    torch.save({"a": torch.ones(2)}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.ones(2), "b": Evil()}, folder / "evil.bin")
    torch.save(nn.Linear(1, 1), folder / "module.pt")
    torch.save([torch.ones(2)], folder / "list.pt")


def check(folder):
    folder = Path(folder)
    (folder / "config.json").write_text(json.dumps({"_class_name": "Tiny"}))
    # Buffers of integers are not canvas's to save.
    Tiny._keys_to_ignore_on_load_missing = ["position_ids", "num_batches_tracked"]
    model, info = Tiny.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
    print(info)
    assert not info["unexpected_keys"] and not info["mismatched_keys"], info
    assert set(info["missing_keys"]) <= {"position_ids", "batch_norm.num_batches_tracked"}, info
    exact = all(torch.equal(a, b) for a, b in zip(model.parameters(), filled().parameters()))
    error = (answer(model.eval()) - answer(filled())).abs().max().item()
    print(f"parameters equal: {exact}; answer differs by {error}")
    assert exact and error == 0.0


if __name__ == "__main__":
    check(sys.argv[2]) if sys.argv[1:2] == ["--check"] else write()
