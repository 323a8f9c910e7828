#!/usr/bin/env bash
# Run on several nodes that may come and go: the same command on each of them, in any order.
#
#   RDZV_ENDPOINT=first-node:29400 launch/multinode.sh store.path=/shared/a.zarr [overrides]
#   RDZV_ENDPOINT=first-node:29400 NNODES=4:16 NPROC=8 RDZV_ID=job-7 launch/multinode.sh [overrides]
#
#   RDZV_ENDPOINT   host:port of one of the nodes, as all of them reach it; that node hosts the rendezvous (required)
#   NNODES          least:most nodes; it starts 30 s after the least have come, or at once when the most have (1:1024)
#   NPROC           ranks on this node: a number, or auto = one per GPU, or per core without GPUs (auto)
#   RDZV_ID         any name, the same on all nodes and of each job its own (igc)
#   MAX_RESTARTS    how often the ranks are started again after one failed (3)
#
# Every node needs the store at the same path. When a rank dies, or a node comes, torchrun starts all ranks again; they resume.
set -euo pipefail

# An active environment wins; without one the checkout's own is used.
command -v torchrun >/dev/null || PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH"

: "${RDZV_ENDPOINT:?set RDZV_ENDPOINT to host:port of the node that all others reach}"

# This node's address towards the endpoint, whether it is the endpoint's own, and the interface that has it. torchrun and gloo ask
# the host's name instead, which often means 127.0.1.1, or nothing in a container.
read -r address is_host interface < <(python3 - "$RDZV_ENDPOINT" <<'PYTHON'
import fcntl, socket, struct, sys

host, _, port = sys.argv[1].rpartition(":")
if not host or not port.isdigit():
    sys.exit(f"multinode.sh: RDZV_ENDPOINT={sys.argv[1]}: give host:port, for example first-node:29400")
try:
    there = socket.gethostbyname(host)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((there, int(port)))  # sends nothing
        here = way.getsockname()[0]
        names = [name for _, name in socket.if_nameindex()]
        asked = {name: struct.pack("256s", name.encode()) for name in names}
        found = ""
        for name in names:
            try:
                if socket.inet_ntoa(fcntl.ioctl(way.fileno(), 0x8915, asked[name])[20:24]) == here:  # SIOCGIFADDR
                    found = name
            except OSError:  # it has no address
                pass
except OSError as error:
    sys.exit(f"multinode.sh: RDZV_ENDPOINT={sys.argv[1]} is out of reach from this node: {error}")
print(here, int(here == there), found)
PYTHON
) || exit 2
[[ -z "$interface" ]] || export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-$interface}"

exec torchrun --nnodes "${NNODES:-1:1024}" --nproc-per-node "${NPROC:-auto}" --max-restarts "${MAX_RESTARTS:-3}" \
    --rdzv-backend c10d --rdzv-endpoint "$RDZV_ENDPOINT" --rdzv-id "${RDZV_ID:-igc}" --rdzv-conf "is_host=$is_host" \
    --local-addr "$address" --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 -m igc_dist "$@"
