#!/usr/bin/env python3
"""What watching a run costs: the first steps of `emoji`'s denoiser with everything on and with everything off, in turns.

    tools/overhead.py target/release/emoji RUN.json OUT [PAIRS] [STEPS]

RUN.json is the run.json of a default run; the autoencoder is trained on 16 images only. Prints images/s of speed.jsonl and
CPU milliseconds a step; the latter is what to believe on a machine with other work.
"""
import json, os, pathlib, shutil, statistics, subprocess, sys, time

binary, config, out = sys.argv[1], json.loads(pathlib.Path(sys.argv[2]).read_text()), pathlib.Path(sys.argv[3])
pairs, steps = [int(x) for x in sys.argv[4:6] + ["3", "100"][len(sys.argv) - 4:]]
WARM_UP, BATCH, TICK = 16, config["second"]["batch"], os.sysconf("SC_CLK_TCK")
WATCH = {"off": dict(layers=0, tensorboard=False), "on": dict(layers=50, tensorboard=True), "every step": dict(layers=1, tensorboard=True)}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(which, number):
    folder = out / f"{which}-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config["first"].update(images=16, evaluations=1, checkpoints=1)
    config["watch"].update(WATCH[which], peak=0.1)
    (folder / "run.json").write_text(json.dumps(config))
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([binary, "--resume", str(folder)], stdout=log, stderr=log)
    marks = []
    while process.poll() is None and len(marks) < 2:
        log = folder / "denoiser/log.jsonl"
        done = log.read_text().count("\n") if log.exists() else 0
        if done >= (WARM_UP, WARM_UP + steps)[len(marks)]:
            fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            marks.append((done, sum(map(int, fields[11:13])) / TICK))
        time.sleep(0.02)
    process.kill()
    process.wait()
    (first, before), (last, after) = marks
    rates = [row["images_per_second"] for row in rows(folder / "denoiser/speed.jsonl")]
    return dict(which=which, images_per_second=rates, cpu_ms_per_step=1000 * (after - before) / (last - first), load=os.getloadavg()[0])


found = []
for number in range(pairs):
    for which in ("on", "off") if number % 2 == 0 else ("off", "on"):
        found.append(run(which, number))
        print(json.dumps(found[-1]), flush=True)
found.append(run("every step", 0))
print(json.dumps(found[-1]))
for which in dict.fromkeys(one["which"] for one in found):
    print(which, statistics.median(one["cpu_ms_per_step"] for one in found if one["which"] == which), "ms of CPU time a step")
