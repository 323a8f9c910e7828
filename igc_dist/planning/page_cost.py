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
        stored, decoded and copied; and its panels."""
        if not self.work.page:
            return 0
        largest = 8 * max(map(prod, self.shapes.features))
        read = (2 * self.rows + 3 * min(self.chunk, len(self.work.outputs))) * largest
        return DRAWING + PER_ARRAY * self.n_arrays + PER_PANEL * self.rows + read

    def seconds(self, machine: Machine) -> float:
        """Seconds until the page is there."""
        if not self.work.page:
            return 0.0
        return machine.page + machine.array * self.n_arrays + machine.panel * self.panels
