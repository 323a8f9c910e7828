#!/usr/bin/env bash
# Collects as wheels in ./.whl what a bare CUDA machine may lack to run `check.sh`, for Python 3.12 on Linux, in the
# versions of constraints.txt: 20 MB. Run it where there is network, in the project's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
PY=${PYTHON:-python3}
WANTED=(zarr numcodecs donfig google-crc32c hydra-core omegaconf antlr4-python3-runtime obstore xarray lazy-loader
        safetensors jaxtyping wadler_lindig beartype captum pytest pytest-timeout pluggy iniconfig hypothesis
        sortedcontainers)
mkdir -p .whl
platforms=(--platform any)
for n in 28 27 17; do platforms+=(--platform "manylinux_2_${n}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
for name in "${WANTED[@]}"; do
    pin=$(grep -i "^$name==" constraints.txt) || { echo "constraints.txt has no version of $name" >&2; exit 1; }
    # published as source only; pure Python, so a wheel that is made here serves there
    if [ "$name" = antlr4-python3-runtime ]; then "$PY" -m pip wheel -q --no-deps -w .whl "$pin"; continue; fi
    "$PY" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${platforms[@]}" -d .whl "$pin"
done
du -sh .whl
