"""Writes canvas-text/tests/fixtures/clip_images.json: bytes that transformers' CLIPImageProcessor (Pillow) makes.

    /tmp/venv/bin/python tools/fixtures_clip_image.py

Pictures are noise by a formula, so that clamping shows. Normalised values are stored for one case; of all cases the
bytes before, found back exactly.
"""

import json
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers import CLIPImageProcessorPil

FIXTURE = Path(__file__).parent.parent / "canvas-text" / "tests" / "fixtures" / "clip_images.json"


def picture(width, height):
    index = np.arange(width * height * 3, dtype=np.uint64)
    noise = ((index * np.uint64(2654435761)) >> np.uint64(13)) & np.uint64(255)
    return Image.fromarray(noise.astype(np.uint8).reshape(height, width, 3))


cases = []
for width, height, short, crop in [(50, 37, 20, (20, 20)), (31, 90, 20, (13, 18)), (9, 13, 20, (20, 19)), (20, 25, 20, (20, 20)), (301, 203, 17, (17, 17))]:
    size = {"size": {"shortest_edge": short}, "crop_size": {"height": crop[0], "width": crop[1]}}
    processor = CLIPImageProcessorPil(**size)
    values = np.asarray(processor(picture(width, height), return_tensors="np")["pixel_values"][0], dtype=np.float64)
    mean, std = (np.array(x)[:, None, None] for x in (processor.image_mean, processor.image_std))
    units = (values * std + mean) * 255
    assert np.abs(units - units.round()).max() < 1e-3
    found = units.round().astype(np.uint8).transpose(1, 2, 0)
    cases.append({"width": width, "height": height, "short": short, "crop": crop, "bytes": found.tobytes().hex()})
    if len(cases) == 1:
        cases[0]["first"] = [float(x) for x in values[:, 0, :4].reshape(-1)]
notes = {"made by": "tools/fixtures_clip_image.py", "transformers": transformers.__version__, "pillow": PIL.__version__}
FIXTURE.write_text(json.dumps(notes | {"cases": cases}) + "\n")
print(len(cases), FIXTURE.stat().st_size)
