"""The memory of the tables of samples and outputs, which pass 1 makes: a piece of a fold is held at a time."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.planning.cost import Work
from igc_dist.records import Shapes

TABLE = 2**20
"""Largest number of elements of a table of samples and outputs that is held at once: 8 MiB in float64."""

CHUNK = 4 * TABLE
"""Largest number of elements of a chunk of such a table in the results, so that there are few files."""

PER_SAMPLE = 128
"""Bytes of each sample of the data set: its place in the folds, in the pool and in the order of the predictions, with
the copies that sorting makes."""

PER_OUTPUT = 6 * 8
"""Bytes of each row and output of the model in a forward pass of pass 1: prediction, target, and softmax in float64."""

SORTED = 2 * 8
"""More of them where the largest outputs of each row are looked for: values and their places, in order."""

CUTS = 5
"""Products of a cut of a table with weights, of at most 2 MiB each."""


@dataclass(frozen=True)
class TableCost:
    """Bytes of the steps that hold tables of `rows` rows, of folds that have `fold` rows."""

    shapes: Shapes
    work: Work
    rows: int
    fold: int

    @property
    def _elements(self) -> int:
        """Elements of the tables of a piece."""
        return self.rows * len(self.work.outputs)

    @property
    def _prediction(self) -> int:
        """Bytes of a prediction in a table."""
        return max(4, self.shapes.itemsize)

    @property
    def _numbers(self) -> int:
        """Bytes of the number of an output in a table, if each sample has its own."""
        return 8 * self.work.each

    @property
    def _cuts(self) -> int:
        return CUTS * 8 * min(self._elements, 2**18)

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk of the tables in the results: pieces of a fold that are small are written together."""
        rows = self.rows * max(1, CHUNK // self._elements)
        return min(rows, self.shapes.n_samples)

    def samples(self) -> int:
        """What is kept of each sample."""
        return PER_SAMPLE * self.shapes.n_samples

    def predict(self, batch: int) -> int:
        """Pass 1 in batches, beside the work of the model: the tables of a piece, and the larger one padded and
        compressed."""
        batch *= self.shapes.n_outputs * (PER_OUTPUT + SORTED * self.work.each)
        return batch + (8 + self._prediction + self._numbers + 2 * 8) * self._elements + self._cuts

    def read(self) -> int:
        """A piece that is read: the table at hand compressed, decoded and copied."""
        return max(3 * 8, 8 + 3 * self._prediction) * self._elements + self._cuts

    def held(self) -> int:
        """During a walk: the tables of a piece, and of the next one as it is read, if the fold has several."""
        return (8 + self._prediction + self._numbers) * self._elements + self.read() * (self.rows < self.fold)

    def know(self) -> int:
        """Between the passes: a piece at a time, and the targets of all samples whose quantiles part them, if any."""
        work, table = self.work, self.shapes.n_samples * len(self.work.outputs) * 8
        return self.read() + 2 * table * (work.n_cells > work.n_slices)

    def write(self) -> int:
        """The tables of the results: a chunk as it is filled, padded and compressed, and what is read for it."""
        chunk = self.chunk_rows * len(self.work.outputs) * 8
        return max(3 * chunk + self.held(), chunk + self.read())
