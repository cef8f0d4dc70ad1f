#!/usr/bin/env bash
# The figures that need a GPU, unattended, from this checkout alone: no data set, no weights, no network but pip's.
#
#   scripts/gpu_figures.sh          every step into $OUT (results/bench/gpu), whatever becomes of the others
#   scripts/gpu_figures.sh --try    the same steps at tiny sizes, on the CPU where there is no GPU
#
#   PYTHON  an interpreter with adbench and its extras dev and bench; else a virtual environment is made in .venv
#   OUT     the folder of the pages and logs; summary.md says what ended how
#   DEVICE  cuda
set -uo pipefail
cd "$(dirname "$0")/.." || exit

OUT=${OUT:-results/bench/gpu}
DEVICE=${DEVICE:-cuda}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

if [[ -z ${PYTHON:-} ]]; then
  [[ -x .venv/bin/python ]] || python3 -m venv .venv || exit
  PYTHON=.venv/bin/python
  "$PYTHON" -c 'import ad_bench, adeval, pytest' 2>/dev/null ||
    "$PYTHON" -m pip install --quiet -e '.[dev,bench]' >"$OUT/install.log" 2>&1 ||
    { echo "gpu_figures.sh: adbench cannot be installed, see $OUT/install.log" >&2; exit 1; }
fi

cell=(--backbone wide_resnet50_2 --size 224 --train 209 --test 83 --epochs 20)
precise=(--backbone wide_resnet50_2 --size 224 --train 209 --test 83 --methods patchcore)
coreset=(--points 40000 163856 --ratio 0.1 --part 200)
maps=(--images 100)
if [[ ${1:-} == --try ]]; then
  cell=(--backbone resnet18 --size 64 --train 6 --test 8 --repeats 1 --epochs 1)
  precise=(--backbone resnet18 --size 64 --train 6 --test 8 --repeats 1 --methods patchcore)
  coreset=(--points 2000 --ratio 0.01 --part 5 --repeats 1)
  maps=(--images 4 --size 32 --repeats 1)
  "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || DEVICE=cpu
elif [[ $# -gt 0 ]]; then
  sed -n '2,10p' "$0" | cut -c3-
  exit 2
fi

"$PYTHON" - >"$OUT/summary.md" <<'END'
import datetime
import torch

found = torch.cuda.is_available()
device = torch.cuda.get_device_properties(0) if found else None
name = f"{device.name}, {device.total_memory / 1e9:.0f} GB" if device else "no CUDA device"
print(f"# Figures of a GPU\n\n{name}; torch {torch.__version__}, CUDA {torch.version.cuda}, {datetime.date.today()}\n")
print("| step | ended | seconds |\n|---|---|---|")
END

# step NAME COMMAND...: its output in NAME.log, how it ended in the summary
step() {
  local name=$1 start=$SECONDS status
  shift
  "$@" >"$OUT/$name.log" 2>&1
  status=$?
  echo "| $name | $([[ $status == 0 ]] && echo well || echo "with $status, see $name.log") | $((SECONDS - start)) |" |
    tee -a "$OUT/summary.md"
  failed=$((failed + (status != 0)))
}
failed=0

noise=(--synthetic-images --weights random --device "$DEVICE")
step cell "$PYTHON" scripts/bench_cell.py "${noise[@]}" "${cell[@]}" --start-up --out "$OUT/cell.md"
for precision in tf32 float16; do # a CPU has no tf32
  [[ $DEVICE == cpu && $precision == tf32 ]] && continue
  step "cell_$precision" "$PYTHON" scripts/bench_cell.py "${noise[@]}" "${precise[@]}" \
    --word "runtime.precision=$precision" --out "$OUT/cell_$precision.md"
done
if "$PYTHON" -c 'import faiss' 2>/dev/null; then
  step faiss "$PYTHON" - "$DEVICE" <<'END'
import sys

import faiss
import torch

from ad_bench.parts.neighbors import choose_backend, nearest

device = sys.argv[1]
print(f"faiss {faiss.__version__}, GPUs it sees: {getattr(faiss, 'get_num_gpus', lambda: 0)()}")
print(f"backend auto means {choose_backend('auto', device)} here")
generator = torch.Generator().manual_seed(0)
bank, queries = (torch.randn(count, 256, generator=generator).to(device) for count in (5000, 2000))
found = {name: nearest(queries, bank, 3, name) for name in ("torch", "faiss", "torch")}
same = torch.equal(found["torch"][1], found["faiss"][1])
print(f"the same neighbours by torch and faiss in one process: {same}")
sys.exit(not same)
END
else
  echo "| faiss | is not installed: pip install '.[faiss]' brings its GPU build | 0 |" | tee -a "$OUT/summary.md"
fi
step tests "$PYTHON" -m pytest -q -k "cuda or gpu" tests
step metrics "$PYTHON" scripts/bench_metrics.py "${maps[@]}" --out "$OUT/metrics.md"
step coreset "$PYTHON" scripts/bench_coreset.py "${coreset[@]}" --device "$DEVICE"
echo "$OUT/summary.md"
exit $((failed > 0))
