"""Compares canvas-data's readers and writer with Python's: webdataset, pyarrow, Hugging Face's datasets.

    /tmp/venv/bin/python tools/webdataset_round_trip.py            # compares; fails on a difference
    /tmp/venv/bin/python tools/webdataset_round_trip.py fixtures   # writes canvas-data/tests/fixtures, too

Files that Python writes are listed by canvas-data's example `list`; shards that its example `reshard` writes are read by Python.
Compared are keys, captions, weights, fields, and images byte by byte (by a hash, where canvas lists them).
"""

import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset as wds
from PIL import Image

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "canvas-data" / "tests" / "fixtures"
FORMATS = ["png", "jpeg", "webp"]
CAPTIONS = ["a pear", "two lines\nof one caption", "smörgåsbord, 寿司 and \U0001f350", "\"quoted\", with a comma"]


def image(number):
    """A small picture as a file, and its ending."""
    pixels = np.fromfunction(lambda y, x, c: (37 * number + 11 * y + 5 * x + 80 * c) % 256, (6, 9, 3)).astype(np.uint8)
    form = FORMATS[number % len(FORMATS)]
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, form)
    return held.getvalue(), {"jpeg": "jpg"}.get(form, form)


def fnv1a(data):
    code = 0xCBF29CE484222325
    for byte in data:
        code = ((code ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{code:016x}"


def line(key, captions, fields, data):
    """As canvas lists a record."""
    return {"key": key, "captions": captions, "fields": fields, "bytes": len(data), "fnv1a": fnv1a(data)}


def build():
    """Builds the two examples; answers how to run one."""
    examples = ["--example", "list", "--example", "reshard"]
    command = ["cargo", "build", "--workspace", *examples, "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
    messages = [json.loads(line) for line in lines]
    programs = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}

    def run(example, *arguments):
        done = subprocess.run([programs[example], *map(str, arguments)], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()

    return run


def same(what, found, expected):
    if found != expected:
        print(f"{what}: DIFFERENT")
        for ours, theirs in zip(found, expected):
            if ours != theirs:
                print(f"  found    {ours}\n  expected {theirs}")
        sys.exit(f"{what}: found {len(found)}, expected {len(expected)}")
    print(f"{what}: {len(expected)} the same")


def write_webdataset(path, count):
    """A shard of Python's; what canvas should list."""
    expected = []
    with wds.TarWriter(str(path), mtime=0) as writer:
        for number in range(count):
            data, ending = image(number)
            caption = CAPTIONS[number % len(CAPTIONS)]
            sample = {"__key__": f"set/{number:05d}", ending: data, "cls": number}
            fields = {"cls": number}
            captions = [[caption, 1.0]]
            if number % 3 == 0:
                sample["txt"] = caption
            else:
                own = {"url": f"http://x/{number}", "size": [9, 6], "score": number / 7}
                sample["json"] = {"caption": caption, **own}
                fields |= own
            if number % 3 == 2:
                sample["json"] = {"captions": [caption, "another"], "weights": [1, 0.25], **own}
                captions.append(["another", 0.25])
            writer.write(sample)
            expected.append(line(f"{path.name}:set/{number:05d}", captions, fields, data))
    return expected


def write_bytes(path, count):
    """A table of bytes by pyarrow, in groups of rows."""
    datas = [image(number)[0] for number in range(count)]
    lists = [[CAPTIONS[number % 4], "another"][: 1 + number % 2] for number in range(count)]
    weights = [[1.0, 0.5][: 1 + number % 2] for number in range(count)]
    columns = {
        "jpg": pa.array(datas, pa.binary()),
        "captions": pa.array(lists, pa.list_(pa.string())),
        "weights": pa.array(weights, pa.list_(pa.float64())),
        "width": pa.array([9] * count, pa.int32()),
        "id": pa.array([2**63 + number for number in range(count)], pa.uint64()),
        "good": pa.array([number % 2 == 0 or None for number in range(count)], pa.bool_()),
        "tags": pa.array([[] if number % 3 else ["x", None] for number in range(count)], pa.list_(pa.string())),
        "url": pa.array([None if number == 1 else f"http://x/{number}" for number in range(count)], pa.large_string()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=3, compression="zstd")
    expected = []
    for number in range(count):
        fields = {name: columns[name][number].as_py() for name in ("width", "id", "good", "tags", "url")}
        fields = {name: value for name, value in fields.items() if value is not None}
        captions = [list(pair) for pair in zip(lists[number], weights[number])]
        expected.append(line(f"{path.name}:{number}", captions, fields, datas[number]))
    return expected


def write_hugging_face(path, count):
    """A table by Hugging Face's datasets, with images as they store them."""
    rows = [(f"{number}.{image(number)[1]}", image(number)[0], CAPTIONS[number % 4]) for number in range(count)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string"), "n": datasets.Value("int64")})
    made = datasets.Dataset.from_dict(
        {
            "image": [{"path": name, "bytes": data} for name, data, _ in rows],
            "text": [text for *_, text in rows],
            "n": list(range(count)),
        },
        features=features,
    )
    made.to_parquet(str(path), batch_size=2)
    return [
        line(f"{path.name}:{n}", [[text, 1.0]], {"image.path": name, "n": n}, data)
        for n, (name, data, text) in enumerate(rows)
    ]


def write_folder(folder, count, form):
    """Images with rows in metadata.jsonl or metadata.csv."""
    rows = []
    for number in range(count):
        data, ending = image(number)
        name = f"{'sub/' if number % 2 else ''}{number}.{ending}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        rows.append({"file_name": name, "text": CAPTIONS[number % 4], "note": f"note {number}"})
    if form == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metadata.jsonl").write_text(text)
    else:
        with open(folder / "metadata.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def pairs_of_hugging_face(folder):
    """Images and texts as Hugging Face's imagefolder reads them."""
    read = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(folder) + "-cache")
    read = read.cast_column("image", datasets.Image(decode=False))
    data = lambda image: image["bytes"] or Path(image["path"]).read_bytes()
    return sorted((fnv1a(data(row["image"])), row["text"], row["note"]) for row in read)


def listed(run, path, *options):
    lines = [json.loads(text) for text in run("list", path, *options).splitlines()]
    faults = [entry for entry in lines if "fault" in entry]
    if faults:
        sys.exit(f"{path}: faults {faults}")
    return lines


def read_by_webdataset(run, source, folder):
    """Shards of canvas, read by Python: what canvas listed of their source, as webdataset should answer it."""
    run("reshard", source, folder, "records=4")
    paths = sorted(map(str, folder.glob("*.tar")))
    expected = listed(run, source)
    found = []
    for number, sample in enumerate(wds.WebDataset(paths, shardshuffle=False)):
        (ending,) = [name for name in sample if name in ("jpg", "png", "webp")]
        fields = json.loads(sample["json"])
        if fields["key"] != sample["__key__"] or fields["status"] != "success":
            sys.exit(f"{sample['__key__']}: {fields}")
        width, height = Image.open(io.BytesIO(sample[ending])).size
        if (fields["width"], fields["height"]) != (width, height) or fields["caption"] != sample["txt"].decode():
            sys.exit(f"{sample['__key__']}: {fields}")
        captions = fields.get("captions") or [{"text": fields["caption"], "weight": 1.0}]
        captions = [[caption["text"], caption["weight"]] for caption in captions]
        own = {name: value for name, value in fields.items() if name in expected[number]["fields"]}
        found.append(line(fields["source_key"], captions, own, sample[ending]))
    same(f"written by canvas ({len(paths)} shards of {Path(source).name}), read by webdataset", found, expected)
    counts = [json.loads(Path(path.replace(".tar", "_stats.json")).read_text())["count"] for path in paths]
    same("  counts of its shards", counts, [sum(1 for _ in wds.WebDataset(path, shardshuffle=False)) for path in paths])
    members = [member for path in paths for member in tarfile.open(path)]
    plain = [(member.mtime, member.mode, member.uid) for member in members]
    same("  headers of its members, which tell nothing of the machine", plain, [(0, 0o644, 0)] * len(members))


def write_fixtures():
    shutil.rmtree(FIXTURES, ignore_errors=True)
    FIXTURES.mkdir(parents=True)
    expected = {
        "webdataset.tar": write_webdataset(FIXTURES / "webdataset.tar", 4),
        "bytes.parquet": write_bytes(FIXTURES / "bytes.parquet", 5),
        "hugging-face.parquet": write_hugging_face(FIXTURES / "hugging-face.parquet", 4),
    }
    (FIXTURES / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


def main():
    datasets.disable_progress_bars()
    if sys.argv[1:] == ["fixtures"]:
        write_fixtures()
    run = build()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tar, table, hub = folder / "python.tar", folder / "bytes.parquet", folder / "hugging-face.parquet"
        same("written by webdataset's TarWriter, read by canvas", *ours_first(run, tar, write_webdataset(tar, 30)))
        same("written by pyarrow, read by canvas", *ours_first(run, table, write_bytes(table, 20)))
        same("written by datasets, read by canvas", *ours_first(run, hub, write_hugging_face(hub, 20)))
        shards = folder / "shards"
        shards.mkdir()
        with wds.ShardWriter(str(shards / "%06d.tar"), maxcount=7, verbose=0) as writer:
            for number in range(20):
                data, ending = image(number)
                writer.write({"__key__": f"{number:04d}", ending: data, "txt": CAPTIONS[number % 4]})
        expected = [
            line(f"{n // 7:06d}.tar:{n:04d}", [[CAPTIONS[n % 4], 1.0]], {}, image(n)[0]) for n in range(20)
        ]
        same("written by webdataset's ShardWriter, read by canvas", *ours_first(run, shards, expected))
        for number, source in enumerate((tar, table, hub, shards)):
            read_by_webdataset(run, source, folder / f"out{number}")
        for form in ("jsonl", "csv"):
            images = folder / form
            write_folder(images, 12, form)
            ours = [(entry["fnv1a"], entry["captions"][0][0], entry["fields"]["note"]) for entry in listed(run, images)]
            same(f"imagefolder with metadata.{form}, read by both", sorted(ours), pairs_of_hugging_face(images))
    print(f"webdataset {wds.__version__}, pyarrow {pa.__version__}, datasets {datasets.__version__}: all the same")


def ours_first(run, path, expected):
    return listed(run, path), expected


main()
