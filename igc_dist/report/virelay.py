"""An export for ViRelAy: its project file, label map, and the databases of inputs and attributions in HDF5.

The schema is that of "Project File Format" and "Database Specification" in https://virelay.readthedocs.io. There is no
database of an analysis: CoRelAy makes one from the attributions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from igc_dist import files
from igc_dist.records import ConfigError
from igc_dist.report.contents import mapping_of, title_of
from igc_dist.report.pictures import as_bytes
from igc_dist.report.rows import Fetch, Row, rows_of


def write(tree: xr.DataTree, folder: Path, fetch: Fetch | None) -> Path:
    """``project.yaml`` with ``label-map.json``, ``inputs.h5`` and ``attributions.h5``. Returns the project.

    Inputs ``data`` (n, 3, height, width) from 0 to 1, grey where a sample is not known; attributions ``attribution``
    (n, channel, height, width) in float32, stretched to the size of the inputs. Both number samples from 0; ``sample``
    (n,) has their index in the data. Raises `ConfigError` without h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("an export to virelay writes HDF5: pip install 'igc-dist[virelay]' for h5py") from error
    n = tree["samples"].sizes["sample"]
    found = Found({}, [], [], [], [])
    with (
        files.draft(folder / "inputs.h5") as part,
        files.draft(folder / "attributions.h5") as other,
        h5py.File(part, "w") as inputs,
        h5py.File(other, "w") as made,
    ):
        for place, row in enumerate(rows_of(tree, fetch)):
            parts, image = channels(row), None if row.image is None else as_bytes(row.image)
            if place == 0:
                shape = parts.shape[1:] if image is None else image.shape[:2]
                for file, name, count in ((inputs, "data", 3), (made, "attribution", len(parts))):
                    size = (count, *shape)
                    file.create_dataset(name, (n, *size), "float32", chunks=(1, *size), compression="gzip")
            inputs["data"][place] = 0.5 if image is None else resized(np.moveaxis(image / 255, -1, 0), shape)
            made["attribution"][place] = resized(parts, shape)
            found.add(row)
        for file in (inputs, made):
            file["label"], file["sample"] = np.array(found.label, np.uint16), np.array(found.index, np.uint32)
        made["index"], made["prediction"] = np.arange(n, dtype=np.uint32), found.predictions()
    entries = [{"index": place, "word_net_id": f"output-{place}", "name": name} for name, place in found.places.items()]
    files.write(folder / "label-map.json", json.dumps(entries, indent=1).encode())
    described = {"project": project(tree, found, shape)}
    return files.write(folder / "project.yaml", json.dumps(described, indent=1).encode())  # JSON is YAML too


@dataclass(frozen=True)
class Found:
    """What is held of all samples: `places` of all names, and of each its label and index, its predictions by name, and
    whether the output explained is the one predicted."""

    places: dict[str, int]
    label: list[int]
    index: list[int]
    predicted: list[dict[str, float]]
    best: list[bool]

    def add(self, row: Row) -> None:
        for name in row.names:
            self.places.setdefault(name, len(self.places))
        self.label.append(self.places[row.output])
        self.index.append(row.index)
        self.predicted.append(dict(zip(row.names, row.predictions.tolist(), strict=True)))
        self.best.append(row.place == row.order[0])

    def predictions(self) -> np.ndarray:
        """(n, names) in float32; NaN where a sample has no prediction of an output."""
        rows = [[each.get(name, np.nan) for name in self.places] for each in self.predicted]
        return np.array(rows, np.float32)


def project(tree: xr.DataTree, found: Found, shape: tuple[int, int]) -> dict[str, Any]:
    """The project file. The strategy is "true_label" unless every output explained is the one predicted."""
    method = title_of(str(tree.attrs.get("method", "attribution")))
    model = mapping_of(tree, "spec").get("model")
    predicted = all(found.best) and "explained_name" in tree["samples"].data_vars
    return {
        "name": f"{method} of {len(found.index)} samples",
        "model": str(model.get("name") or model.get("class") or "model") if isinstance(model, dict) else "model",
        "label_map": "label-map.json",
        "dataset": {
            "name": "samples of the run",
            "type": "hdf5",
            "path": "inputs.h5",
            "input_width": shape[1],
            "input_height": shape[0],
            "up_sampling_method": "none",
            "down_sampling_method": "none",
        },
        "attributions": {
            "attribution_method": method,
            "attribution_strategy": "predicted_label" if predicted else "true_label",
            "sources": ["attributions.h5"],
        },
    }


def channels(row: Row) -> np.ndarray:
    """An attribution as (channel, height, width): one channel where the features have none."""
    values = np.asarray(row.attribution.values, np.float32)
    return values if values.ndim == 3 else np.atleast_2d(row.map).astype(np.float32)[None]


def resized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(channel, height, width) stretched to another height and width: each pixel takes the nearest value."""
    down, across = (np.arange(new) * old // new for new, old in zip(shape, values.shape[1:], strict=True))
    return values[:, down][:, :, across]
