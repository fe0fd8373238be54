#!/usr/bin/env bash
# Canvas on a GPU, beside PyTorch on the same card. Nothing is built there:
#
#     benches/gpu.sh build [cuda | cuda-nvrtc | wgpu]   # here: target/gpu/, two programs, stripped and compressed
#     benches/gpu.sh run [cuda | wgpu] RESULTS          # there, in a copy of the repository with target/gpu/
#     python benches/compare/report.py RESULTS/bf16.json   # here: into benches/RESULTS.md
#
# `run` needs the driver and a Python with PyTorch, transformers and safetensors; diffusers comes with target/gpu/, as a
# wheel. It compares the answers of every operation and of a network of each family with PyTorch's on the CPU in f32, in f32
# and bf16, and times what agrees; then it trains the emoji example. Twenty minutes on an H200 is a guess: nobody has run it yet.
#
# `cuda-nvrtc` is the `cuda` of a machine that cannot download LLVM, which Burn's build does: CARGO names a cargo for that.
set -euo pipefail
cd "$(dirname "$0")/.."

packed=target/gpu
target="${CARGO_TARGET_DIR:-target}"
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }

build() {
    local feature="$1"
    case "$feature" in cuda | cuda-nvrtc | wgpu) ;; *) usage ;; esac
    ${CARGO:-cargo} build --release --workspace --locked --example compare --bin emoji \
        --features "canvas-benches/$feature,canvas-examples/$feature"
    mkdir -p "$packed"
    rm -f "$packed"/*
    for program in examples/compare emoji; do
        strip -o "$packed/${program##*/}" "$target/release/$program"
        xz -T0 -6 "$packed/${program##*/}"
    done
    python3 -m pip download -q --no-deps -d "$packed" diffusers==0.42.1
    du -ch "$packed"/*
}

run() {
    local device="$1" results="$2" python="${PYTHON:-python3}"
    case "$device" in cuda | wgpu) ;; *) usage ;; esac
    [ -e "$packed/compare.xz" ] || { echo "$packed/compare.xz is not there: benches/gpu.sh build makes it" >&2; exit 1; }
    mkdir -p "$results" "$target/release/examples"
    xz -dc "$packed/compare.xz" > "$target/release/examples/compare"
    xz -dc "$packed/emoji.xz" > "$target/release/emoji"
    chmod +x "$target/release/examples/compare" "$target/release/emoji"
    "$python" -c 'import diffusers' 2> /dev/null || "$python" -m pip install -q --no-index --no-deps "$packed"/diffusers-*.whl
    nvidia-smi > "$results/machine.txt" || true
    # What fails is in the tables, and does not keep the rest from being measured. Peaks: H200, dense, of tensor cores.
    local compare=("$python" benches/compare/compare.py --device "$device" --no-build --rounds 5 --threads "$(nproc)")
    "${compare[@]}" --dtype f32 --peak 494 --sides canvas,torch --results "$results/f32.json" | tee "$results/f32.md" || true
    "${compare[@]}" --dtype bf16 --peak 989 --sides canvas,torch --results "$results/bf16.json" | tee "$results/bf16.md" || true
    "${compare[@]}" --dtype bf16 --peak 989 --results "$results/compiled.json" dit-s2-train-b64 dit-xl2-train-b8 \
        | tee "$results/compiled.md" || true
    timeout 600 "$target/release/emoji" --device "$device" --out "$results/emoji" 2>&1 | tee "$results/emoji.txt" || true
}

case "${1:-} $#" in
    "build 1" | "build 2") build "${2:-cuda}" ;;
    "run 2") run cuda "$2" ;;
    "run 3") run "$2" "$3" ;;
    *) usage ;;
esac
