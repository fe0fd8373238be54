"""Reads a run's event files as TensorBoard does, and checks them against the run's logs: every step once, in order, none lost.

    /tmp/venv/bin/python tools/check_tensorboard.py runs/emoji

For a run written with --tensorboard, killed and resumed as often as one likes. tensorboard 2.21.0.
"""

import json
import pathlib
import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as PluginAccumulator,
)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def same(what, events, expected):
    steps, values = [event.step for event in events], [event.value for event in events]
    assert steps == [step for step, _ in expected], (what, steps[:5], expected[:5], len(steps), len(expected))
    wrong = [(f, e) for f, (_, e) in zip(values, expected) if np.float32(e) != np.float32(f)]
    assert not wrong, (what, wrong[:5])
    print(f"  {what}: {len(steps)} steps")


def check(folder):
    print(folder, len(list(folder.glob("events.out.tfevents.*"))), "event files")
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    found = EventAccumulator(str(folder), size_guidance=everything)
    found.Reload()
    tags = found.Tags()
    log = rows(folder / "log.jsonl")
    for tag, key in [("train/loss", "loss"), ("train/rate", "rate"), ("train/gradient norm", "grad_norm")]:
        same(tag, found.Scalars(tag), [(row["images"], row[key]) for row in log])
    for tag in tags["scalars"]:
        steps = [event.step for event in found.Scalars(tag)]
        assert steps == sorted(set(steps)), (tag, steps)
    looks = [row["images"] for row in rows(folder / "layers.jsonl")]
    layers = [tag for tag in tags["scalars"] if tag.startswith("layers gradient/")]
    for tag in layers:
        assert [event.step for event in found.Scalars(tag)] == looks, tag
    print(f"  layers: {len(layers)} blocks at {len(looks)} steps")
    intervals = [row["images"] for row in rows(folder / "speed.jsonl")]
    if intervals:
        assert [event.step for event in found.Scalars("speed/images per second")] == intervals
    print(f"  speed: {len(intervals)} intervals")
    evaluated = [row["images"] for row in rows(folder / "evaluation.jsonl")]
    for tag in tags["images"]:
        images = found.Images(tag)
        assert [image.step for image in images] == evaluated, (tag, evaluated)
        assert all(image.encoded_image_string.startswith(b"\x89PNG") and image.width > 0 for image in images)
    print(f"  images: {len(tags['images'])} tags at {len(evaluated)} steps; {len(tags['scalars'])} scalars in all")
    # What the web page is served from: newer accessors, with values of V1 migrated.
    page = PluginAccumulator(str(folder), size_guidance={}, tensor_size_guidance={"scalars": 0})
    page.Reload()
    losses = page.Tensors("train/loss")
    assert [event.step for event in losses] == [row["images"] for row in log]
    text = page.Tensors("run")
    # One of each process that came beyond where the next one went on.
    begun = [event.step for event in text]
    assert begun and begun == sorted(set(begun)), begun
    print(f"  as the page sees it: {len(losses)} losses, begun at {begun}")


def main():
    run = pathlib.Path(sys.argv[1])
    folders = sorted({path.parent for path in run.rglob("events.out.tfevents.*")})
    assert folders, f"{run}: no event files"
    for folder in folders:
        check(folder)
    print("every step once, in order, none lost")


main()
