#!/usr/bin/env bash
# One run per combination of the overrides that list several values. Finished runs are skipped, so the same command resumes a sweep.
#
#   launch/sweep.sh baseline=zeros,mean quadrature.n_steps=8,16 [overrides]                                one after the other, here
#   LAUNCHER=submitit_slurm NPROC=8 launch/sweep.sh baseline=zeros,mean hydra.launcher.partition=gpu ...   each a SLURM job, from a login node
#
#   LAUNCHER   basic | submitit_slurm | submitit_local (pip install 'igc-dist[submitit]') | another of Hydra's, with --allow-target hydra_plugins.* (basic)
#   NPROC      ranks of a run (1)
#   MINUTES    time limit of a job under submitit (60)
#
# Stores: outputs/sweep/<what is swept>/store.zarr. Under submitit the exit code says only that all jobs have ended: see igc-dist info.
set -euo pipefail

# An active environment wins; without one the checkout's own is used.
command -v igc-dist >/dev/null || PATH="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.venv/bin:$PATH"

launcher="${LAUNCHER:-basic}" nproc="${NPROC:-1}"
case "$launcher" in
# A task per rank, which are one group; a lost job is submitted again and resumes.
submitit_slurm) flags=("hydra.launcher.tasks_per_node=$nproc" "hydra.launcher.timeout_min=${MINUTES:-60}" hydra.launcher.max_num_timeout=100) ;;
submitit_local) flags=("fabric.devices=$nproc" "hydra.launcher.timeout_min=${MINUTES:-60}") ;;
*) flags=("fabric.devices=$nproc") ;;
esac

exec igc-dist -m "hydra/launcher=$launcher" "${flags[@]}" "$@"
