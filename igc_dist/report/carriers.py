"""Samples that carry an output, and clusters of samples, as the page shows them: pictures beside their numbers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.report.contents import Floats, inputs, labels, number
from igc_dist.report.evidence import SAMPLES, Evidence
from igc_dist.report.maps import fold_features
from igc_dist.report.panels import whole_heading
from igc_dist.report.pictures import as_bytes, framed, jpeg, strip
from igc_dist.report.ranked import names_of
from igc_dist.report.rows import Fetch, fetched, first_group, known_confidence
from igc_dist.report.thumbnails import pictured
from igc_dist.secrets import masked_text

STRONGEST = 3
"""Features that are named of a sample or a cluster without a picture of its map."""


@dataclass(frozen=True)
class Seen:
    """A picture on the page; `src` is its data."""

    src: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Shown:
    """The samples that `evidence` names, from the opened store `tree`: their images as small pictures (`framed`),
    attributions and confidences."""

    tree: xr.DataTree
    images: dict[int, np.ndarray]
    confidence: dict[int, float]

    @classmethod
    def of(cls, tree: xr.DataTree, evidence: Evidence, fetch: Fetch | None) -> Shown:
        """With the images that `fetch` has, of pictures."""
        found = zip(evidence.samples, fetched(fetch, evidence.samples), strict=True)
        images = {i: framed(as_bytes(image)) for i, image in found if image is not None and pictured(image)}
        return cls(tree, images, known_confidence(tree))

    def attribution(self, place: int, index: int) -> tuple[Floats | None, list[str]]:
        """That of a sample to an output, of the first input, and the names of features in one dimension."""
        if (group := first_group(self.tree)) is None:
            return None, []
        row = np.flatnonzero(self.tree["samples/index"].values == index)
        array = self.tree[f"samples/{group}"].to_dataset()["attribution"]
        return (None, []) if not row.size else folded(array.isel(sample=row[:1], output=place).rename(sample="output"))

    def seen(self, place: int, index: int, name: str, *, one: bool = False) -> Seen | None:
        """The picture of a sample, None where there is nothing to draw."""
        image, (values, _) = self.images.get(index), self.attribution(place, index)
        drawn = strip(image, values, one=one)
        flat = values is not None and values.ndim == 2
        what = "sample" if not flat else "map" if image is None else "overlay" if one else "sample, map and overlay"
        return None if drawn is None else seen_of(drawn, f"{what} of sample {index} for {name}")

    def strongest(self, place: int, index: int) -> str:
        values, names = self.attribution(place, index)
        return strongest(values, names)


def evidenced(tree: xr.DataTree, evidence: Evidence, fetch: Fetch | None) -> dict[str, Any]:
    """What the template needs of this."""
    shown = Shown.of(tree, evidence, fetch)
    carriers = carriers_of(shown, evidence.influence)
    rows = [row for each in carriers for row in each["rows"]]
    return {
        "carriers": carriers,
        "labelled": evidence.influence is not None and bool(evidence.influence.attrs["labels"]),
        "carried_maps": any(row["strongest"] for row in rows),
        "sure": any(row["confidence"] for row in rows),
        "clustered": clusters_of(shown, evidence.strategies),
        "most_clustered": SAMPLES,
        "evidence_left": evidence.left,
    }


def folded(array: xr.DataArray) -> tuple[Floats, list[str]]:
    """A map (1, *P) with at most two dimensions, and the names of its features if it has one."""
    values = fold_features(array)[0][0]
    return values, names_of(array, values.size) if values.ndim == 1 else []


def strongest(values: Floats | None, names: Sequence[str]) -> str:
    """The largest features of a map in one dimension, with their values."""
    if values is None or values.ndim != 1:
        return ""
    order = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:STRONGEST]
    return ", ".join(f"{names[at]} {values[at]:+.2g}" for at in order.tolist())


def seen_of(pixels: np.ndarray, alt: str) -> Seen:
    high, wide = pixels.shape[:2]
    return Seen("data:image/jpeg;base64," + base64.b64encode(jpeg(pixels)).decode("ascii"), wide, high, alt)


def carriers_of(shown: Shown, answer: xr.Dataset | None) -> list[dict[str, Any]]:
    """For each output its name, how many samples carry half of it, and a row for each sample, those for first."""
    found = []
    for j, place in enumerate([] if answer is None else places_in(shown.tree, answer)):
        assert answer is not None
        its, name = answer.isel(output=j), labels(shown.tree)[place]
        rows = [
            row_of(shown, place, its.isel(side=s, rank=rank), bool(answer.attrs["labels"]))
            for s in range(its.sizes["side"])
            for rank in np.flatnonzero(its["sample"].values[s] >= 0).tolist()
        ]
        half, total = int(its["half"]), answer.attrs["total_of"]
        found.append({"name": whole_heading(name), "half": f"{half:,}", "total": total, "rows": rows})
    return found


def row_of(shown: Shown, place: int, cell: xr.Dataset, labelled: bool) -> dict[str, Any]:
    """A sample of an answer to `results.influence`."""
    index, name = int(cell["sample"]), whole_heading(labels(shown.tree)[place])
    twins = int(cell["twins"])
    others = f"same targets and predictions as sample {int(cell['twin'])}" if twins else ""
    marks = [f"{others}{f' and {twins - 1} more' if twins > 1 else ''}"] if twins else []
    marks += ["target may be wrong"] if bool(cell["candidate"]) else []
    confidence = shown.confidence.get(index)
    return {
        "index": index,
        "side": str(cell["side"].item()),
        "picture": shown.seen(place, index, name),
        "strongest": shown.strongest(place, index),
        "target": masked_text(str(cell["label"].item())) if labelled else number(float(cell["target"])),
        "prediction": number(float(cell["prediction"])),
        "predicted": masked_text(str(cell["predicted"].item())) if labelled else "",
        "confidence": "" if confidence is None or not np.isfinite(confidence) else f"{100 * confidence:.0f} %",
        "share": f"{100 * float(cell['share']):+.1f} %",
        "marks": marks,
    }


def clusters_of(shown: Shown, answer: xr.DataTree | None) -> list[dict[str, Any]]:
    """For each output its name, what the eigengap says, and a row for each cluster."""
    if answer is None:
        return []
    root, found = answer.to_dataset(), []
    group = next(iter(answer.children))
    features = {name: its for name, its in inputs(shown.tree)[group].coords.items() if name != "output"}
    for j, place in enumerate(places_in(shown.tree, root)):
        its, name = root.isel(output=j), whole_heading(labels(shown.tree)[place])
        rows = []
        for cluster in range(int(its["clusters"])):
            mean = answer[group].to_dataset()["mean"].isel(output=[j]).isel(cluster=cluster)
            values, names = folded(mean.assign_coords(features))
            drawn = strip(None, values)
            examples = [int(each) for each in its["example"].values[cluster] if each >= 0]
            seen = [(each, shown.seen(place, each, name, one=True)) for each in examples]
            rows.append(
                {
                    "size": f"{int(its['size'].values[cluster]):,}",
                    "share": f"{100 * float(its['share'].values[cluster]):+.1f} %",
                    "mean": None if drawn is None else seen_of(drawn, f"mean map of cluster {cluster + 1} of {name}"),
                    "strongest": strongest(values, names),
                    "examples": seen,
                }
            )
        found.append({"name": name, "said": gap_of(its), "rows": rows})
    return found


def gap_of(its: xr.Dataset) -> str:
    """What the eigenvalues of an output say about the number of clusters."""
    number_of, p, values = int(its["clusters"]), float(its["p"]), its["eigenvalue"].values
    of = "those of data sets without clusters"
    if number_of == 1:
        return f"No clusters stand out: the gaps between eigenvalues are like {of} (p = {p:.2g})."
    low, high = values[number_of - 1], values[number_of]
    return (
        f"{number_of} clusters: the gap after eigenvalue {number_of} (from {low:.2g} to {high:.2g}) is beyond {of} "
        f"(p = {p:.2g})."
    )


def places_in(tree: xr.DataTree, answer: xr.Dataset) -> list[int]:
    """The positions of the outputs of an answer in the tree that was asked."""
    every = np.asarray(tree["output"]).tolist()
    return [every.index(name) for name in np.asarray(answer["output"]).tolist()]
