"""What the page of a run takes, after the run and on the first rank: what it draws, bytes and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from igc_dist.planning.cost import Work
from igc_dist.planning.machine import Machine
from igc_dist.records import Shapes

MOST_INPUTS, MOST_MAPS, MOST_SAMPLES = 12, 24, 16
"""What a page draws at most: inputs, and figures of maps if there are more (`report.figures`); samples
(`report.samples`)."""

DRAWING = 96 * 2**20
"""Memory of the libraries that read the tree and draw, of a canvas and of the page itself."""

PER_ARRAY = 48 * 2**10
"""Memory of an array of the tree, whose values are not read: its documents and its variables."""

PER_PANEL = 512 * 2**10
"""Memory of a panel of a figure: axes, ticks, texts, and its part of the canvas."""

CELLS, SAMPLES, VALUES = 2**22, 500, 2**24
"""Samples times outputs up to which a page names the samples that carry an output; samples that it clusters at most,
and their attributions together (`report.evidence`)."""

KEPT, PER_CELL, OF_SAMPLES = 20, 48, 32
"""Bytes of a sample and output: weight, target and prediction, as read; and with their copies in the order of the data;
more of stored samples, whose attributions are summed."""

AT_ONCE, HELD = 64, 2**24
"""Samples that are read together for their pictures, and their bytes, at most (`report.rows`)."""


@dataclass(frozen=True)
class PageCost:
    """The page of the results in chunks of `chunk` outputs. Nothing is drawn if the work asks for no page."""

    shapes: Shapes
    work: Work
    chunk: int

    @property
    def n_arrays(self) -> int:
        """Arrays of all inputs."""
        sliced = self.work.n_slices > 1
        return len(self.shapes.input_names) * (self.work.n_maps * (1 + sliced) + 2 * sliced)

    @property
    def rows(self) -> int:
        """Outputs of a figure."""
        return min(self.work.page, len(self.work.outputs))

    @property
    def panels(self) -> int:
        """Panels of all figures: of the maps with their errors, and of the few other figures."""
        inputs, each = len(self.shapes.input_names), max(1, self.work.n_maps // 2)
        if inputs > MOST_INPUTS:
            inputs = max(1, min(MOST_INPUTS, MOST_MAPS // each))
        return self.rows * (inputs * each + 1) + (MOST_SAMPLES if self.work.samples else 0)

    def memory(self) -> int:
        """Bytes beside what the process holds: the maps of a figure, as read and masked, and a chunk of them, as
        stored, decoded and copied; and its panels. Before that, what its samples are chosen from, and their pictures:
        those that are read together, one as it is read, and a sum of them."""
        if not self.work.page:
            return 0
        largest = 8 * max(map(prod, self.shapes.features))
        read = (2 * self.rows + 3 * min(self.chunk, len(self.work.outputs))) * largest
        sample = 8 * prod((self.shapes.raw or self.shapes.walk or self.shapes.features)[0])
        fetched = max(min(HELD, AT_ONCE * sample), sample) + 3 * sample
        drawn = PER_PANEL * self.rows + read + KEPT * self.cells + fetched
        return DRAWING + PER_ARRAY * self.n_arrays + max(drawn, self.evidence())

    @property
    def cells(self) -> int:
        """Samples times outputs, of which a page names the samples that carry an output; 0 if there are too many."""
        cells = self.shapes.n_samples * len(self.work.outputs)
        return 0 if self.work.each or cells > CELLS else cells

    def evidence(self) -> int:
        """Bytes while samples are chosen: tables of all of them, and the attributions of those that are clustered as
        stored, in float64 and weighed."""
        tables = (PER_CELL + OF_SAMPLES * self.work.samples) * self.cells
        clustered = min(SAMPLES, self.shapes.n_samples, VALUES // self.shapes.n_features) * self.work.samples
        return tables + (self.shapes.itemsize + 2 * 8) * clustered * self.shapes.n_features * (self.cells > 0)

    def seconds(self, machine: Machine) -> float:
        """Seconds until the page is there."""
        if not self.work.page:
            return 0.0
        return machine.page + machine.array * self.n_arrays + machine.panel * self.panels
