#!/usr/bin/env bash
# Tests and measures on a CUDA machine without network, make or pip: bash tests/gpu/check.sh OUT [SECONDS]
# Python there has torch, lightning and timm; what else is needed lies as wheels in .whl (`wheels.sh` collects them).
# `check.py` says what is run, and what is written to OUT. Without CUDA it is a dry run on the CPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
OUT=${1:?where the report goes}
PY=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec "$PY" -m tests.gpu.check "$OUT" ${2:+--seconds "$2"}
