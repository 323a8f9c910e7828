"""An export for FiftyOne: a ``FiftyOneDataset`` on disk that is a ``FiftyOneImageClassificationDataset`` too.

The formats are those of https://docs.voxel51.com/user_guide/import_datasets.html. The first is written in its JSON form
without a version of FiftyOne's data base, which every version reads::

    dataset = fiftyone.Dataset.from_dir(dataset_dir=PATH, dataset_type=fiftyone.types.FiftyOneDataset)
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from igc_dist import files
from igc_dist.report.contents import Floats, labels, leaf, title_of
from igc_dist.report.pictures import image_png, map_png
from igc_dist.report.rows import Fetch, Row, rows_of


def write(tree: xr.DataTree, folder: Path, fetch: Fetch | None) -> Path:
    """``metadata.json`` and ``samples.json``, ``labels.json``, and a picture of each sample in ``data``. Returns the
    folder, which is what FiftyOne is given.

    A sample has ``target``, a label; ``prediction``, a label with its confidence; ``attribution``, a heatmap of the
    output of the target, from -m to m; ``index``, ``residual``. Its picture is the sample, or the map where that is not
    known.
    """
    files.folder(folder / "data")
    samples, found, classes = [], {}, list(labels(tree))
    for row in rows_of(tree, fetch):
        name = f"{row.index:06d}"
        files.write(folder / "data" / f"{name}.png", map_png(row.map) if row.image is None else image_png(row.image))
        samples.append(sample_of(row, f"data/{name}.png"))
        classes += [other for other in row.names if other not in classes]
        found[name] = {"label": row.output, "attributes": {"index": row.index, "residual": finite(row.residual)}}
    about = {name: leaf(tree.attrs.get(name, "")) for name in ("method", "spec_hash", "schema")}
    metadata = {"media_type": "image", "info": about | {"title": title_of(about["method"])}, "default_classes": classes}
    for name, content in {
        "metadata.json": metadata,
        "samples.json": {"samples": samples},
        "labels.json": {"classes": classes, "labels": found},
    }.items():
        files.write(folder / name, json.dumps(content, allow_nan=False).encode())
    return folder


def sample_of(row: Row, picture: str) -> dict[str, Any]:
    """A sample with its labels, as FiftyOne writes them."""
    best = row.order[0]
    return {
        "filepath": picture,
        "tags": [] if row.image is not None else ["map only"],
        "index": row.index,
        "residual": finite(row.residual),
        "target": {"_cls": "Classification", "label": row.output},
        "prediction": {
            "_cls": "Classification",
            "label": row.names[best],
            "confidence": finite(row.confidence),
            "value": finite(float(row.predictions[best])),
        },
        "attribution": heatmap(row.map),
    }


def heatmap(values: Floats) -> dict[str, Any]:
    """A map (*F) as a heatmap: a compressed array, and the range of its colours, symmetric about zero."""
    values = np.atleast_2d(np.nan_to_num(values)).astype(np.float32)
    held = io.BytesIO()
    np.save(held, values, allow_pickle=False)
    packed = base64.b64encode(zlib.compress(held.getvalue())).decode("ascii")
    limit = float(np.abs(values).max()) or 1.0
    return {"_cls": "Heatmap", "map": {"$binary": {"base64": packed, "subType": "00"}}, "range": [-limit, limit]}


def finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None
