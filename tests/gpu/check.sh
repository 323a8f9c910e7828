#!/usr/bin/env bash
# Tests and measures on a CUDA machine without network, make or pip: bash tests/gpu/check.sh OUT [SECONDS]
# Python there has torch, lightning, pytest, timm; the rest lies as wheels in .whl, which are unpacked beside the report.
# Each step has a limit of its own and a line in the report, so that one failure does not cost the others.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
OUT=${1:?where the report goes}; LIMIT=${2:-420}
PY=${PYTHON:-python3}
mkdir -p "$OUT"
SITE=$(mktemp -d)
for wheel in .whl/*.whl; do [ -e "$wheel" ] && "$PY" -m zipfile -e "$wheel" "$SITE"; done
export PYTHONPATH="$SITE:$PWD" PYTHONUNBUFFERED=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
began=$SECONDS
left() { echo $((LIMIT - SECONDS + began)); }

step() {  # NAME SECONDS COMMAND: runs it, and writes what it printed and how it ended
    local name=$1 limit=$2; shift 2
    [ "$(left)" -lt "$limit" ] && limit=$(left)
    if [ "$limit" -le 5 ]; then echo "$name left out: no time" | tee -a "$OUT/steps.txt"; return; fi
    local from=$SECONDS rc=0
    timeout -k 5 "$limit" "$@" >"$OUT/$name.txt" 2>&1 || rc=$?
    echo "$name rc=$rc $((SECONDS - from)) s: $(tail -n 1 "$OUT/$name.txt")" | tee -a "$OUT/steps.txt"
}

step tests 200 "$PY" -m pytest -q -s --maxfail=20 -p no:cacheprovider -o filterwarnings=default --durations=8 -rfEs ${TESTS:-tests/gpu}
step bench 240 "$PY" -m tests.benchmarks.gpu "$OUT/report.json"
cat "$OUT/bench.txt"
grep -E "^(FAILED|ERROR|E  |SKIPPED)" "$OUT/tests.txt" | cut -c1-300 | head -60
cat "$OUT/steps.txt"
