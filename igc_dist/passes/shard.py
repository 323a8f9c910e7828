"""Pass 2, a shard at a time: walked (again in smaller micro-batches if memory runs out), written and committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from igc_dist.faults import fault
from igc_dist.passes import retry
from igc_dist.passes.attribute import Engine, Rows
from igc_dist.passes.audit import Auditor
from igc_dist.passes.chunks import Chunks
from igc_dist.passes.findings import Known, of_fold
from igc_dist.passes.scorer import Scorer
from igc_dist.planning import TERMS, Plan
from igc_dist.records import Shard
from igc_dist.statistics import SCALAR_TERMS, State, unexplained
from igc_dist.store import Store
from igc_dist.tensors import Attribution, Batch


def packed(state: State, terms: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """A shard's state as the arrays that the store keeps: a leading axis for the part, then terms."""
    arrays = {
        name: np.stack([sums[term] for term in terms])[None] for name, sums in zip(names, state.features, strict=True)
    }
    return {"scalars": np.stack([state.scalars[term] for term in SCALAR_TERMS])[None], **arrays}


@dataclass(frozen=True)
class ShardWalk:
    """Computes, writes and commits shards of a phase, by their numbers.

    `residuals`: attributions of samples should sum to the model's difference, so the worst residual is reported.
    `scorer`: the metrics of the maps.
    """

    engine: Engine
    store: Store
    phase: str
    residuals: bool
    scorer: Scorer | None = None

    def __call__(self, number: int) -> dict[str, Any]:
        """Walk one shard and return its report. Its state is freed before the next one is computed."""
        fault("compute")
        plan, store, phase = self.engine.plan, self.store, self.phase
        block, part = divmod(number, store.phases[phase].grid[0])
        shard = plan.shard(block * plan.n_parts + part)
        counts = np.zeros((1, 2, len(shard.outputs)), dtype=np.int64)
        (state, lost), walked = retry.fitting(plan, lambda cut: self._walked(cut, shard, counts), str(shard))
        if phase == "attribute":
            self._write_notes(number, shard, walked, counts)
        if "skipped" in store.phases[phase].arrays:
            rows = slice(shard.rows.start, shard.rows.stop)
            store.write(phase, number, "skipped", np.isin(plan.order[rows], lost).astype(np.uint8)[:, None])
        for name, values in packed(state, self.engine.terms, plan.shapes.input_names).items():
            store.write(phase, number, name, values)
        store.commit(phase, number)
        residual = unexplained(state) if self.residuals else 0.0
        return {"lost": len(lost), "retried": walked is not plan, "residual": residual}

    def _walked(self, cut: Plan, shard: Shard, counts: Int64[np.ndarray, "1 2 J"]) -> tuple[State, list[int]]:
        """The state of a shard, in the micro-batches of `cut`, and the samples that were left out."""
        engine, plan = self.engine, self.engine.plan
        # cached baseline predictions come from other micro-batches
        walking = engine if cut is plan else replace(engine, plan=cut, _shared={})
        engine.inputs.model.fix(cut.rows_per_pass)
        counts[:] = 0
        if isinstance(engine.check, Auditor):
            engine.check.begin(shard)
        kept = self.phase == "attribute" and (plan.work.samples or plan.work.certified or self.scorer is not None)
        known = of_fold(self.store, plan, shard.fold)
        if not kept:
            return walking.run(shard, known)
        chunks = self._chunks(shard)
        found = walking.run(shard, known, self._keeper(walking, shard, counts, chunks))
        if plan.work.samples or self.scorer is not None:  # not where only a certificate is counted
            chunks.fill(shard.rows.stop)
        return found

    def _write_notes(self, number: int, shard: Shard, walked: Plan, counts: Int64[np.ndarray, "1 2 J"]) -> None:
        """Write the notes of the walk: the micro-batch that fitted, the audit, and the certificate."""
        store, phase, work, check = self.store, self.phase, self.engine.plan.work, self.engine.check
        store.write(phase, number, "micro_batch", np.asarray([[[walked.samples_per_batch, walked.points_per_batch]]]))
        if work.audited:
            nothing = np.zeros((1, len(TERMS), len(shard.outputs)))
            store.write(phase, number, "audit", check.taken()[None] if isinstance(check, Auditor) else nothing)
        if work.certified:
            store.write(phase, number, "certificate", counts)

    def _chunks(self, shard: Shard) -> Chunks:
        """Writes per-sample rows in chunks that are as long as the micro-batches of the plan."""
        store, own = self.store, self.store.phases["attribute"].arrays
        kept = {name: array for name, array in own.items() if array.dims[:1] == ("sample",)}

        def write(start: int, arrays: Mapping[str, np.ndarray]) -> None:
            for name, values in arrays.items():
                store.write("attribute", shard.number, name, values, (start, shard.outputs.start))

        def blank(n: int) -> dict[str, np.ndarray]:
            shapes = {name: (n, len(shard.outputs), *array.shape[2:]) for name, array in kept.items()}
            nothing = {name: np.nan if np.dtype(array.dtype).kind == "f" else 0 for name, array in kept.items()}
            return {name: np.full(shapes[name], nothing[name], array.dtype) for name, array in kept.items()}

        return Chunks(write, self.engine.plan.samples_per_batch, shard.rows.start, shard.rows.stop, blank)

    def _keeper(self, engine: Engine, shard: Shard, counts: Int64[np.ndarray, "1 2 J"], chunks: Chunks) -> Rows:
        """Counts failed samples and their gradients, and writes per-sample rows and scores if they are stored."""
        plan = self.engine.plan

        def keep(rows: Int64[np.ndarray, " n"], batch: Batch, known: Known, attribution: Attribution) -> None:
            notes = {
                name: note for name in ("failed", "evaluations") if (note := getattr(attribution, name)) is not None
            }
            used = (attribution.weight > 0).cpu().numpy()
            for count, note in zip(counts[0], notes.values(), strict=False):
                count += np.where(used, note, 0).sum(0, dtype=np.int64)
            scores = {} if self.scorer is None else self.scorer(engine, shard, batch, known, attribution)
            if not plan.work.samples:
                if scores:
                    chunks.put(rows, scores)
                return
            named = zip(plan.shapes.input_names, attribution.values, strict=True)
            # a method that claims no sums has no residual
            target, complete = attribution.target, self.engine.attributor.complete
            delta = attribution.delta if complete else target.new_full(target.shape, float("nan"))
            tables = {"delta": delta, "prediction_baseline": attribution.baseline_prediction}
            tables |= {f"{name}/attribution": values for name, values in named}
            chunks.put(rows, {name: values.cpu().numpy() for name, values in tables.items()} | notes | scores)

        return keep
