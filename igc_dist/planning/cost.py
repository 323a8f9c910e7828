"""The work that a run does on the grid, and the cost of the parts of a walk: the memory model behind a plan."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.paths import GROUP
from igc_dist.records import Effort, Price, Shapes


@dataclass(frozen=True)
class Work:
    """The requested work on the grid: everything about the method that a plan needs to know."""

    outputs: tuple[int, ...]
    """Selected outputs of the model."""
    n_baselines: int
    """B; 1 for attributors without baselines."""
    points: int
    """Points of the walk per (input, baseline); 0 for attributors that do not call the model."""
    n_terms: int
    """Feature sums of a state."""
    n_cells: int = 1
    """Number of cells into which the samples of an output are divided; each cell has its own sums."""
    n_slices: int = 1
    """Slices of the data set that have results of their own."""
    gradients: bool = True
    """Whether gradients are taken."""
    price: Price | None = None
    """Cost of the walk per (input, baseline). None: per point a row of a forward pass, and a gradient per output."""
    recorded: int = 0
    """Bytes of the gradients of a pass up to which it is recorded, which keeps its memory; 0: nothing is."""
    held: int = 0
    """Points that are held in float64 for each row of a forward pass."""
    groups: int = 0
    """Groups of features along which forward mode moves each row of a forward pass; 0 in reverse mode."""
    nonlinear: tuple[str, ...] = ()
    """Names of the requested statistics that are not linear in the attribution."""
    samples: bool = False
    """Whether per-sample attributions are stored."""
    on_device: bool = False
    """Whether the walk uses accelerator memory."""
    in_memory: bool = False
    """Whether the store is kept in memory."""
    ahead: bool = False
    """Whether the next micro-batch is read while one is walked."""
    shared: bool = False
    """Whether all samples have the same baselines."""
    reduced: bool = False
    """Whether features are reduced before they are folded."""
    audited: bool = False
    """Whether half a micro-batch may be computed again in twice the precision."""
    free: bool = False
    """Whether a free function reduces the features; it need not be linear."""
    drawn: bool = False
    """Whether draws are folded one by one, so that there are no attributions of samples."""
    each: bool = False
    """Whether each sample has outputs of its own, of which `outputs` are the places."""
    pairs: bool = False
    """Whether the draws are pairs of samples of a fold."""
    n_asked: int | None = None
    """Outputs whose gradients are taken at each path point; None: all."""
    scores: tuple[tuple[str, str, str, tuple[float, ...]], ...] = ()
    """Arrays of the metrics of each sample and output: name, kind, dimension and points of a curve (`metrics.Part`)."""
    efforts: tuple[tuple[str, Effort], ...] = ()
    """Of each metric its name, and what it spends on a map."""
    sums: bool = False
    """Whether pass 1 keeps sums of the inputs, for baselines that need their mean."""
    replicates: int = 0
    """Folds that are walked twice."""
    n_maps: int = 6
    """Result arrays of an input, with standard errors."""
    page: int = 0
    """Outputs of a figure of the page, at most; 0: there is no page."""
    rule: str = ""
    """Where gradients are taken, as text for people."""
    certified: bool = False
    """Whether `points` is only an upper bound, and the attributor notes which samples failed."""


LAZY = 48 * 2**20
"""Memory that a process takes at first use, after the plan: codecs, threads and their stacks, scratch of the BLAS."""

PASS_BYTES = 256 * 2**20
"""Memory of a forward and backward pass on CPU beyond which more rows do not help: tensors outgrow the caches."""


@dataclass(frozen=True)
class Cost:
    """The memory model: bytes of the parts of a walk."""

    shapes: Shapes
    work: Work

    @property
    def margin(self) -> float:
        """Factor on the measured memory of the model.

        It covers scratch inside operators, which `footprint.Peak` does not see, and on CPU the holes that tensors of
        different sizes leave in the heap.
        """
        return 1.2 if self.work.on_device else 2.0

    @property
    def point(self) -> int:
        """One path point."""
        return self.shapes.n_walk * self.shapes.itemsize

    @property
    def whole(self) -> int:
        """The attributions of one sample and output before they are reduced."""
        return self.shapes.n_attributed * self.shapes.itemsize

    @property
    def row(self) -> int:
        """The attributions of one sample and output, as they are folded."""
        return self.shapes.n_features * self.shapes.itemsize

    def per_row(self) -> int:
        # beside the model's own memory: start, point, factor and factor * gradient; for draws also the end, and the
        # product in float64, twice
        own = (self.point + 3 * 8 * self.shapes.n_walk) * self.work.drawn + 8 * self.work.held * self.shapes.n_walk
        return int(self.margin * self.shapes.row_bytes) + 4 * self.point + own

    def per_sample(self, n_outputs: int) -> int:
        # inputs as read and as stacked, the sample's own baselines likewise, and the inputs that are read ahead
        inputs = (
            (2 if self.work.shared or self.work.pairs else 2 + 2 * self.work.n_baselines) + 2 * self.work.ahead
        ) * self.point
        inputs += self.folding(n_outputs)
        if self.work.drawn:
            return inputs
        # also sums of the latents, if they are walked; for categories, sums over baselines and those of one baseline
        sums = n_outputs + (self.shapes.n_latents if self.shapes.n_latents < n_outputs else 0)
        # in forward mode the sums are per group, plus what one group adds to them
        sums = (self.work.groups + 2) * self.shapes.itemsize * sums if self.work.groups else sums * self.point
        sums += n_outputs * self.whole if self.whole != self.point and not self.work.groups else 0
        # the sums of the walk; and copy, masked copy and square of one output in float64
        sums += self.work.price.sums * n_outputs * self.point if self.work.price else 0
        sums += (
            2 * n_outputs * self.point if self.work.certified else 0
        )  # integrals of a segment whose nodes need several passes
        features = 3 * 8 * self.shapes.n_features
        # an audit holds half of the samples again, in twice the precision
        own = (2 if self.work.audited else 1) * (inputs + sums) + max(features, self.reducing(n_outputs))
        return own + self.scoring(n_outputs) + (sums if any(one.walks for _, one in self.work.efforts) else 0)

    def scoring(self, n_outputs: int) -> int:
        """Bytes of the metrics for one sample, which score its maps one metric after the other."""
        if not self.work.efforts:
            return 0
        # a map in float64 and as it is scored, with its sample and its baseline; scores and curves twice
        maps = (2 * 8 + 2 * self.shapes.itemsize) * self.shapes.n_features
        found = 2 * 8 * sum(len(axis) or 1 for *_, axis in self.work.scores)
        return n_outputs * (maps + found + max(one.held for _, one in self.work.efforts))

    def folding(self, n_outputs: int) -> int:
        """Bytes for one sample and all outputs in scalar sums, in float64."""
        # target, prediction, baseline prediction, weight, residual, cell and mask; three centred, the product at hand
        # and its factors; and by cell the products that weigh the attributions, and these stacked
        return 8 * n_outputs * (13 + 2 * self.work.n_terms * self.work.n_cells)

    def reducing(self, n_outputs: int) -> int:
        """Bytes for one sample beside the sums of the walk; 0 if nothing is reduced."""
        if not self.work.reduced or self.work.groups:
            return 0
        # the result and its parts; for one output in float64: copy, padded copy, index. A free function may do
        # anything: three times both
        own = 3 * n_outputs * (self.whole + self.row) if self.work.free else 0
        return 2 * n_outputs * self.row + 3 * 8 * self.shapes.n_attributed + 3 * 8 * self.shapes.n_features + own

    def walk(self, samples: int, points: int, n_outputs: int) -> int:
        fixed = int(self.margin * self.shapes.fixed_bytes) + (
            self.work.n_baselines * self.point if self.work.shared else 0
        )
        if self.work.drawn:  # the samples of a group; products of one forward pass with the weights of its outputs
            fixed += (
                2 + self.work.ahead
            ) * 2 * GROUP * 2 * self.point + 2 * 8 * self.work.n_terms * n_outputs * self.shapes.n_walk
            # random keys of the outputs and how often each counts; the weights of the draws, and those that are used
            fixed += (8 + 3 * self.work.n_terms) * samples * points * n_outputs * 8
        fixed += self.recordings(samples * points, n_outputs)
        if self.work.efforts:  # rows that metrics make for a forward pass
            fixed += max(one.fixed + samples * points * (one.row + self.point) for _, one in self.work.efforts)
        return fixed + samples * points * self.per_row() + samples * self.per_sample(n_outputs)

    def recordings(self, rows: int, n_outputs: int) -> int:
        """Bytes that recorded gradients keep: the memory of a pass, the gradients of whole and last passes, copies."""
        gradients = rows * n_outputs * self.point
        kept = int(self.margin * (self.shapes.fixed_bytes + rows * self.shapes.row_bytes)) + 3 * gradients
        return kept if gradients <= self.work.recorded else 0

    def predict(self, rows: int) -> int:
        """The model's forward pass in pass 1, with inputs as read and as stacked; it takes no more than a walk's."""
        inputs = (2 + 2 * self.work.ahead) * self.point
        return int(self.margin * self.shapes.fixed_bytes) + rows * (int(self.margin * self.shapes.row_bytes) + inputs)

    def _sums(self, n_outputs: int) -> int:
        return self.work.n_terms * self.work.n_cells * n_outputs * self.shapes.n_features * 8

    def state(self, n_outputs: int) -> int:
        # the running sums, the sums of the last micro-batch, and the new sums
        return 3 * self._sums(n_outputs)

    def commit(self, samples: int, n_outputs: int) -> int:
        # the state on the host, packed, encoded, compressed; rows of a micro-batch in one piece, chunked, encoded,
        # compressed, read back
        return 4 * self._sums(n_outputs) + (5 * samples * n_outputs * self.row if self.work.samples else 0)
