#!/usr/bin/env bash
# Run on the devices of this machine; Lightning Fabric starts the ranks.
#
#   launch/local.sh [overrides]
#   NPROC=4 launch/local.sh quadrature.steps=64 fabric.accelerator=gpu
#
#   NPROC   number of devices, one rank each (2)
set -euo pipefail

# An active environment wins; without one the checkout's own is used.
command -v igc-dist >/dev/null || PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH"

exec igc-dist fabric.devices="${NPROC:-2}" "$@"
