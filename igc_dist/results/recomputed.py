"""Recomputes results from the shards of a store and the recipe in its root document, without model and data.

It uses the code that finalizes a run, on a store that compares instead of writing (`Checked`). `merge` uses it to write
the results of a union.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from igc_dist.distributed import World
from igc_dist.passes import Findings, findings, of_piece
from igc_dist.planning import Plan
from igc_dist.records import StoreError
from igc_dist.results.exchange import Walked
from igc_dist.results.finalize import Finalizer, Passed
from igc_dist.results.recipe import Recorded, recorded
from igc_dist.results.stored import without
from igc_dist.statistics import tree_sum
from igc_dist.store import Array, Store, array_of, unsealed

STATES = ("fold", "row", "sample")
"""First dimensions of arrays in a folded store with one entry per fold or sample. Other arrays have one per part."""

AT_ONCE = 256 << 20
"""The largest array of a folded store, in bytes and for one block of outputs, that is kept between reads of folds."""


class View(Store):
    """The shards of a store by the numbers of its plan.

    The shards may have chunks of their own, or be folded into few chunks (`folded`).
    """

    def __init__(self, held: Store, plan: Plan, folded: bool) -> None:
        super().__init__(None, [], held.spec, held.spec_hash)
        self.path, self.objects, self.held, self.plan, self.folded = held.path, held.objects, held, plan, folded
        parts = plan.n_baseline_blocks
        for name, phase in held.phases.items():
            n_folds = (
                phase.arrays["scalars"].shape[0] // (1 if folded else parts) if name != "predict" else plan.n_folds
            )
            grid = (n_folds,) if len(phase.grid) == 1 else (n_folds * parts, *phase.grid[1:])
            self.phases[name] = replace(phase, grid=grid)
        self._near: dict[tuple[str, str], tuple[int, np.ndarray]] = {}

    def read(self, phase: str, name: str, region: tuple[slice, ...] | None = None) -> np.ndarray:
        """An array of a phase, or a region of it. In a folded store, states have folds but no parts."""
        return self.held.read(phase, name, region)

    def read_tables(self, phase: str, number: int, names: Sequence[str]) -> list[np.ndarray]:
        """Several arrays as `read_own` gives them."""
        return [self.read_own(phase, number, name) for name in names]

    def read_own(self, phase: str, number: int, name: str) -> np.ndarray:
        """The data that a shard of the plan wrote to an array.

        If blocks of baselines are merged, the first block of a fold has the whole sum. The other blocks are -0.0, which
        changes no bit when it is added.
        """
        if not self.folded:
            return self.held.read_own(phase, number, name)
        part, *block = self.phases[phase].cell(number)
        fold, later = divmod(part, self.plan.n_baseline_blocks) if block else (part, 0)
        array = self.held.phases[phase].arrays[name]
        if array.dims[0] == "fold":
            rows = slice(fold, fold + 1)
        else:
            of_samples = array.dims[0] in STATES
            rows = slice(self.plan.fold(fold).start, self.plan.fold(fold).stop) if of_samples else slice(part, part + 1)
        region = (rows, *array.region((0, *block))[1:])
        if later and array.dims[0] == "fold":
            return np.full([cut.stop - cut.start for cut in region], -0.0)
        if np.prod([cut.stop - cut.start for cut in region[1:]], dtype=np.int64) * array.shape[0] * 8 > AT_ONCE:
            return self.held.read(phase, name, region)
        key, at = (phase, name), block[0] if block else 0
        if key not in self._near or self._near[key][0] != at:
            self._near[key] = at, self.held.read(phase, name, (slice(0, array.shape[0]), *region[1:]))
        return self._near[key][1][rows].copy()

    def complete(self, attributes: Mapping[str, Any]) -> None:
        """Complete the underlying store."""
        self.held.complete(attributes)

    def fold_state(self, phase: str, fold: int, block: int, name: str) -> np.ndarray:
        """The sums of a fold for a block of outputs, (T, C, J, *P), over all blocks of baselines, added as in a run."""
        parts = self.plan.n_baseline_blocks
        first = block * self.phases[phase].grid[0] + fold * parts
        return np.asarray(tree_sum(np.stack([self.read_own(phase, first + part, name)[0] for part in range(parts)])))


class Checked(View):
    """A store that compares written values with the values it holds. `lines` say where they differ."""

    def __init__(self, held: Store, plan: Plan, folded: bool) -> None:
        super().__init__(held, plan, folded)
        self.lines: dict[str, str] = {}
        self.paths: set[str] = set()
        self._far: dict[str, float] = {}

    def create_results(self, arrays: Iterable[Array]) -> None:
        """Compare shape, type and dimensions."""
        for array in arrays:
            self.paths.add(array.path)
            there = self.held.array(array.path) if self.objects.get(f"{array.path}/zarr.json") is not None else None
            kind = None if there is None else np.dtype(there.dtype)
            same = kind is not None and (
                kind.kind in "OTU" if array.dtype == "string" else kind == np.dtype(array.dtype)
            )
            dims = () if there is None else tuple(getattr(there.metadata, "dimension_names", None) or ())
            if there is None or not same or there.shape != array.shape or dims != array.dims:
                what = "missing" if there is None else f"is {there.dtype} {there.shape} {dims}"
                self.lines[array.path] = (
                    f"{array.path}: {what}, the shards give {array.dtype} {array.shape} {array.dims}"
                )

    def put(self, array: Array, values: Any, start: tuple[int, ...] = ()) -> None:
        """Compare a region of an array, to the bit; NaN equals NaN."""
        path, mine = array.path, np.asarray(values)
        if path in self.lines and path not in self._far:
            return
        first = (*start, *(0,) * (mine.ndim - len(start)))
        region = tuple(slice(begin, begin + n) for begin, n in zip(first, mine.shape, strict=True))
        its = np.asarray(self.held.array(path)[region])
        if mine.dtype.kind not in "fiub":
            if [*map(str, mine.ravel().tolist())] != [*map(str, its.ravel().tolist())]:
                self.lines[path] = f"{path}: not what the shards give"
            return
        one, two = mine.astype(np.float64), its.astype(np.float64)
        if np.array_equal(one, two, equal_nan=True):
            return
        with np.errstate(invalid="ignore"):
            far = np.where((one == two) | (np.isnan(one) & np.isnan(two)), 0.0, np.abs(one - two))
        far = np.where(np.isnan(far), np.inf, far)  # only one of both is NaN
        if far.max() > self._far.get(path, 0.0):
            self._far[path] = float(far.max())
            at = np.unravel_index(int(far.argmax()), far.shape)
            self.lines[path] = (
                f"{path}: not what the shards give (largest difference {far.max():.2g} at "
                + ", ".join(f"{dim} {begin + int(i)}" for dim, begin, i in zip(array.dims, first, at, strict=True))
                + ")"
            )

    def complete(self, attributes: Mapping[str, Any]) -> None:
        """Compare the entries of the root document that describe the results."""
        there = unsealed(self.objects.get("zarr.json")) or {}
        for name in ("method", "sums_to_prediction", "skipped", "retried", "cost", "filter"):
            if json.loads(json.dumps(attributes.get(name))) != there.get(name):
                self.lines[name] = f"zarr.json: {name} is not what the shards give"


def remembered(store: Store, about: Mapping[str, Any]) -> Recorded:
    """The job of a complete store. Raises `StoreError` if it has no recipe, or one that does not fit its arrays."""
    found = about.get("recipe")
    if found is None:
        raise StoreError(f"store {store.path}: {without(about)}")
    store.objects.reader().afford(lambda name: True)  # all of it is read, and states of many folds are held at once
    names = np.asarray(store.array("output")[...])
    job = recorded(found, about, names.astype(object) if names.dtype.kind in "OTU" else names)
    plan, first = job.plan, store.phases["predict"].arrays
    features = [store.phases["attribute"].arrays[name].shape[4:] for name in plan.shapes.input_names]
    sizes = first["target"].shape == (plan.shapes.n_samples, len(plan.work.outputs)) and features == [
        *plan.shapes.features
    ]
    if (
        not sizes or first["means"].shape[0] != plan.n_folds
    ):  # checked last, as its time grows with the number of samples
        raise StoreError(f"store {store.path}: its recipe does not fit its arrays, no run wrote it: do not use it")
    if store.spec.get("weights") is None:
        return job
    weights = np.empty(plan.shapes.n_samples)
    weights[plan.order] = store.array("known/sample_weight")[...]
    return replace(job, weights=weights)


def found_in(view: View, job: Recorded) -> Findings:
    """The findings of pass 1."""
    found = findings.find(view.plan, view.read("predict", "means"), job.weights, partial(of_piece, view))
    names = [f"shards/centre/{name}" for name in job.plan.shapes.input_names]
    if view.objects.get(f"{names[0]}/zarr.json") is None:
        return found
    return replace(
        found, centre=replace(found.centre, a=tuple(np.asarray(view.held.array(name)[...]) for name in names))
    )


def passed_in(view: View, about: Mapping[str, Any]) -> Passed:
    """The folds that were walked."""
    budget, parts = about["budget"], view.plan.n_baseline_blocks
    walked = {
        name: Walked(used // parts, view.phases[name].numbers(used))
        for name, used in budget["used"].items()
        if name in view.phases
    }
    if any(its.n_folds > view.plan.n_folds for its in walked.values()):
        raise StoreError(f"store {view.path}: its budget used more folds than there are, no run wrote it")
    return Passed(budget["reason"], walked)


def opened(store: Store, about: Mapping[str, Any]) -> tuple[Checked, Recorded]:
    """Open a complete store for checking, with its job. Raises `StoreError` as `remembered` does."""
    job = remembered(store, about)
    return Checked(store, job.plan, bool(job.document.get("folded"))), job


def check(view: Checked, job: Recorded, found: Findings, about: Mapping[str, Any]) -> list[str]:
    """Compare the results with those computed from the shards. Returns a line for each difference."""
    end = Finalizer(job, job.plan, view, World(), found, job.recipe)
    end.finalize(passed_in(view, about), about.get("provenance", {}))
    store = view.held
    owned = {array.path for phase in store.phases.values() for array in phase.every}
    arrays = {array_of(key) for key in about["digests"]} - {""}
    extra = [f"{path}: the shards give no such array" for path in sorted(arrays - view.paths - owned)]
    return [*view.lines.values(), *extra]
