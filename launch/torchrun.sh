#!/usr/bin/env bash
# Run under torchrun on this machine; for several, see multinode.sh.
#
#   launch/torchrun.sh [overrides]
#   NPROC=4 launch/torchrun.sh method=igc
#
#   NPROC          number of ranks, or auto = one per GPU, or per core without GPUs (auto)
#   MAX_RESTARTS   how often the ranks are started again after one failed (0)
set -euo pipefail

# An active environment wins; without one the checkout's own is used.
command -v torchrun >/dev/null || PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH"

exec torchrun --standalone --nproc-per-node "${NPROC:-auto}" --max-restarts "${MAX_RESTARTS:-0}" \
    --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 -m igc_dist "$@"
