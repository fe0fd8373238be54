"""Writes canvas-data/tests/fixtures/images/: small odd image files, and beside each what Pillow makes of it.

    python tools/fixtures_images.py

Needs Pillow 13.0.0 and numpy. `NAME.EXT` is a file, `NAME.EXT.png` what Pillow decodes: turned upright by its EXIF tag, RGB, or
RGBA where the file can be transparent. Files whose judge is not Pillow's decoder are commented.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OUT = Path(__file__).parents[1] / "canvas-data/tests/fixtures/images"
SIZE = (20, 12)


def scene(channels, size=SIZE):
    """A smooth gradient with an edge: [height, width, channels] bytes."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    planes = [(x * (9 - 2 * c) + y * (4 + 5 * c) + 60 * c + 70 * (x > y + 3)) % 256 for c in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def judge(data, mode=None):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    clear = "A" in image.mode or "transparency" in image.info
    return image.convert(mode or ("RGBA" if clear else "RGB"))


def store(name, data, picture=None):
    (OUT / name).write_bytes(data)
    encoded_judge = encoded(picture or judge(data), format="PNG", optimize=True)
    (OUT / f"{name}.png").write_bytes(encoded_judge)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header, rows, chunks=()):
    """A PNG of raw rows: for what Pillow does not write."""
    body = b"".join(chunk(kind, data) for kind, data in chunks)
    rows = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
        + body + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def without_adobe(data):
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0] :]


def jpegs():
    rgb, grey = Image.fromarray(scene(3)), Image.fromarray(scene(1)[..., 0])
    base = dict(format="JPEG", quality=80, optimize=True)
    for orientation in range(1, 9):
        store(f"upright_{orientation}.jpg", encoded(rgb, exif=exif(orientation), **base))
    store("full_colour.jpg", encoded(rgb, subsampling="4:4:4", **base))
    store("half_colour.jpg", encoded(rgb, subsampling="4:2:0", **base))
    store("progressive.jpg", encoded(rgb, progressive=True, **base))
    store("restarts.jpg", encoded(rgb, subsampling="4:2:2", restart_marker_blocks=1, **base))
    store("grey.jpg", encoded(grey, **base))
    store("stored_as_rgb.jpg", encoded(rgb, keep_rgb=True, **base))
    cmyk = Image.frombytes("CMYK", SIZE, scene(4).tobytes())
    inked = encoded(cmyk, **base)  # with Adobe's marker, inverted
    store("cmyk.jpg", inked)
    store("cmyk_without_adobe.jpg", without_adobe(inked))
    # Pillow writes no YCCK, but the same four planes with Adobe's transform 2 are one.
    at = inked.index(b"Adobe") + 11
    store("ycck.jpg", inked[:at] + b"\x02" + inked[at + 1 :])


def pngs():
    grey = scene(1)[..., 0]
    clear = (scene(2)[..., 1] // 2) * 2
    store("grey.png", encoded(Image.fromarray(grey), format="PNG"))
    store("grey_alpha.png", encoded(Image.fromarray(np.stack([grey, clear], -1)), format="PNG"))
    store("one_bit.png", encoded(Image.fromarray(grey).convert("1"), format="PNG"))
    palette = Image.fromarray(scene(3)).quantize(7)
    store("palette.png", encoded(palette, format="PNG"))
    store("palette_clear.png", encoded(palette, format="PNG", transparency=bytes([0, 90, 255, 128])))
    store("one_clear_colour.png", encoded(Image.fromarray(grey), format="PNG", transparency=int(grey[0, 0])))
    store("upright_6.png", encoded(Image.fromarray(scene(3)), format="PNG", exif=exif(6)))
    # 16 bits: Pillow drops the low byte (colour) or saturates; the judge is the rounded quotient by 257.
    wide = np.arange(SIZE[0] * SIZE[1] * 4, dtype=np.uint32).reshape(SIZE[1], SIZE[0], 4) * 68 + 11
    for name, kind, channels in [("grey", 0, 1), ("grey_alpha", 4, 2), ("colour", 2, 3), ("colour_alpha", 6, 4)]:
        rows = [row[:, :channels].astype(">u2").tobytes() for row in wide]
        narrow = ((wide[..., :channels] + 128) // 257).astype(np.uint8)
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        picture = Image.fromarray(narrow.squeeze(), mode).convert("RGBA" if channels in (2, 4) else "RGB")
        store(f"sixteen_{name}.png", png((*SIZE, 16, kind), rows), picture)
    profile = chunk(b"iCCP", b"nonsense\0\0" + zlib.compress(b"not a profile"))
    plain = encoded(Image.fromarray(scene(3)), format="PNG")
    store("profile.png", plain[:33] + profile + plain[33:], Image.fromarray(scene(3)))


def others():
    rgb, rgba = Image.fromarray(scene(3)), Image.fromarray(scene(4))
    store("lossless.webp", encoded(rgba, format="WEBP", lossless=True, exact=True))
    store("lossy.webp", encoded(rgb, format="WEBP", quality=80))
    store("lossy_alpha.webp", encoded(rgba, format="WEBP", quality=80))
    store("upright_6.webp", encoded(rgb, format="WEBP", lossless=True, exif=exif(6)))
    store("palette_clear.gif", encoded(rgb.quantize(7), format="GIF", transparency=2))
    store("colour.bmp", encoded(rgb, format="BMP"))
    store("palette.bmp", encoded(rgb.quantize(7), format="BMP"))
    store("lzw.tif", encoded(rgb, format="TIFF", compression="tiff_lzw"))
    store("one_bit.tif", encoded(rgb.convert("1"), format="TIFF"))
    store("cmyk.tif", encoded(Image.frombytes("CMYK", SIZE, scene(4).tobytes()), format="TIFF", compression="tiff_lzw"))
    store("upright_6.tif", encoded(rgb, format="TIFF", compression="tiff_lzw", exif=exif(6)))
    # Refused: no judge is read.
    floats = Image.fromarray(scene(1)[..., 0].astype(np.float32) / 255)
    store("palette.tif", encoded(rgb.quantize(7), format="TIFF"), rgb)
    store("floats.tif", encoded(floats, format="TIFF", compression="tiff_lzw"), rgb)


def moving():
    """The judge is the first picture."""
    frames = [Image.fromarray(np.roll(scene(3), 5 * k, 1)) for k in range(3)]
    options = dict(save_all=True, append_images=frames[1:])
    few = [frame.quantize(7) for frame in frames]
    moved = encoded(few[0], format="GIF", save_all=True, append_images=few[1:], duration=100, loop=0)
    store("moving.gif", moved)
    store("moving.webp", encoded(frames[0], format="WEBP", lossless=True, duration=100, **options))
    store("moving.png", encoded(frames[0], format="PNG", duration=100, **options))
    store("pages.tif", encoded(frames[0], format="TIFF", compression="tiff_lzw", **options))


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    jpegs()
    pngs()
    others()
    moving()
    sizes = [path.stat().st_size for path in OUT.iterdir()]
    print(f"{len(sizes)} files, {sum(sizes)} bytes, the largest {max(sizes)}")
