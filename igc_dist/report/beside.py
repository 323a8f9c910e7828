"""What a page gets beside the results: pictures of samples, and the account of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from igc_dist.report.evidence import Evidence
from igc_dist.report.rows import Fetch
from igc_dist.report.thumbnails import Mean


@dataclass(frozen=True)
class Beside:
    """`fetch` gives samples. `means` are of the samples of an output, by its name. `run`: the folder of run.json.
    `evidence`: of the same outputs as the page, where it is known already."""

    fetch: Fetch | None = None
    means: Mapping[str, Mean] = field(default_factory=dict)
    run: Path | None = None
    evidence: Evidence | None = None
