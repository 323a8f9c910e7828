#!/usr/bin/env bash
# Run under torchrun, on one node or, started once on each node, on several.
#
#   launch/torchrun.sh [overrides]
#   NPROC=4 launch/torchrun.sh method=igc
#   NNODES=2 NODE_RANK=0 RDZV_ENDPOINT=first-node:29400 RDZV_ID=job-7 launch/torchrun.sh [overrides]   # on first-node
#   NNODES=2 NODE_RANK=1 RDZV_ENDPOINT=first-node:29400 RDZV_ID=job-7 launch/torchrun.sh [overrides]   # on the other
#
#   NPROC           ranks on this node: a number, or auto = one per GPU, or per core without GPUs (auto)
#   NNODES          number of nodes (1)
#   NODE_RANK       this node's number from 0; node 0 hosts the rendezvous (required for several nodes)
#   RDZV_ENDPOINT   host:port of node 0 as the others reach it (required for several nodes)
#   RDZV_ID         any name, the same on all nodes and fresh for each job (required for several nodes)
set -euo pipefail

# An active environment wins; without one the checkout's own is used.
command -v torchrun >/dev/null || PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH"

nnodes="${NNODES:-1}"
if [[ "$nnodes" == 1 ]]; then
    rendezvous=(--standalone)
else
    : "${NODE_RANK:?set NODE_RANK to the number of this node, 0 to NNODES - 1}"
    : "${RDZV_ENDPOINT:?set RDZV_ENDPOINT to host:port of node 0}"
    : "${RDZV_ID:?set RDZV_ID to a name shared by the nodes of this job}"
    # Say who hosts the rendezvous: torchrun otherwise guesses it from host names, which containers do not resolve.
    is_host=0
    [[ "$NODE_RANK" == 0 ]] && is_host=1
    rendezvous=(--nnodes "$nnodes" --rdzv-backend c10d --rdzv-endpoint "$RDZV_ENDPOINT" --rdzv-id "$RDZV_ID"
        --rdzv-conf "is_host=$is_host")
fi

exec torchrun "${rendezvous[@]}" --nproc-per-node "${NPROC:-auto}" -m igc_dist "$@"
