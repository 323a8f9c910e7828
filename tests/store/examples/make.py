"""``python make.py OUT``: a small store of digits, by whatever version of igc_dist is on PYTHONPATH, as OUT.zip, and
numbers in OUT.json; since version 4 also a run that stopped in pass 2, as OUT-stopped.zip.

The examples were made in a clone of this repository, with the packages of today, by

    git checkout COMMIT && PYTHONPATH=. OMP_NUM_THREADS=1 python make.py schema-N

at the last commit of each version but the newest: c3ee26a for 1, 1dd93b8 for 2, fda8984 for 3, 6bc1237 for 4;
schema-5 at the one that added it.
"""

import inspect
import json
import os
import platform
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

import igc_dist

NAMES = ("correlation", "correlation_se", "x/igc", "x/igc_se", "x/ig_std", "n", "samples/target")


def run(out: Path) -> None:
    """Twelve images of 4 x 4, two outputs of a model with fixed weights; weights of samples and reduced features since
    there are such."""
    torch.set_num_threads(1)
    digits = load_digits()
    x = torch.tensor(digits.images[:12], dtype=torch.float64)[:, None, ::2, ::2] / 16
    y = torch.tensor(np.stack([digits.target[:12] % 2, digits.target[:12] / 10.0], 1))
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)
    ).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    known = inspect.signature(igc_dist.attribute).parameters
    more = {"weights": np.arange(1.0, 13.0)} if "weights" in known else {}
    if "reduce" in known:
        more["reduce"] = igc_dist.features.Patches(2)
    kinds = ("correlation", "moments")
    igc_dist.attribute(
        model, (x, y), store=out, n_steps=2, n_folds=3, output_block=1, samples=True, statistics=kinds, **more
    )


def packed(out: Path) -> None:
    """All files of a store as OUT.zip."""
    with zipfile.ZipFile(f"{out}.zip", "w") as file:
        for path in sorted(out.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(out).as_posix(), (1980, 1, 1, 0, 0, 0))
                file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def main(out: Path) -> None:
    """Write both stores, and what the complete one holds."""
    platform.platform = platform.processor = lambda: "example"  # type: ignore[assignment,misc]
    run(out)
    tree = igc_dist.open(out)
    found = {name: np.asarray(tree[name].values).tolist() for name in NAMES} | {"schema": tree.attrs["schema"]}
    Path(f"{out}.json").write_text(json.dumps(found, indent=1))
    packed(out)
    if found["schema"] < 4:
        return
    stopped, os.environ["IGC_FAULT"] = out.with_name(f"{out.name}-stopped"), "digest:0:6:exception"
    try:
        run(stopped)
    except RuntimeError:
        packed(stopped)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
