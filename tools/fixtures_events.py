"""Writes canvas-train/tests/fixtures/events.tfevents: one event of each kind, as TensorBoard's own writer writes them.

    /tmp/venv/bin/python tools/fixtures_events.py

tensorboard 2.21.0; times are fixed, so that the bytes are.
"""

import io
import pathlib

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

# A grey pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c63680000008200817dd0ca0000000049454e44ae426082"
)


def events():
    yield Event(wall_time=1.5, file_version="brain.Event:2")
    yield Event(wall_time=2.5, step=33, session_log=SessionLog(status=SessionLog.START))
    scalars = [("train/loss", 0.25), ("train/rate", 1e-4), ("nothing", 0.0)]
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars]
    yield Event(wall_time=1764583183.123456, step=48, summary=Summary(value=values))
    image = Summary.Image(height=1, width=1, colorspace=1, encoded_image_string=PNG)
    value = Summary.Value(tag="drawn", image=image)
    yield Event(wall_time=1764583184.0, step=5_000_000_000, summary=Summary(value=[value]))
    metadata = create_summary_metadata(display_name="", description="")
    metadata.data_class = 2
    value = Summary.Value(tag="run", tensor=make_tensor_proto(["`caf\u00e9`"]), metadata=metadata)
    yield Event(wall_time=1764583185.0, step=1, summary=Summary(value=[value]))


def main():
    path = pathlib.Path(__file__).parent.parent / "canvas-train/tests/fixtures/events.tfevents"
    file = io.BytesIO()
    writer = RecordWriter(file)
    for event in events():
        writer.write(event.SerializeToString(deterministic=True))
    path.write_bytes(file.getvalue())
    print(path, len(file.getvalue()), "bytes")


main()
