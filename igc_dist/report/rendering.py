"""Templates with everything in them escaped, and figures inside a page."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from igc_dist.report.figures import Drawing


def environment() -> Environment:
    """Jinja with autoescape for everything. A name that the page does not get is an error, not a blank."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def image(drawing: Drawing) -> str:
    """A figure as a data URI."""
    return "data:image/png;base64," + base64.b64encode(drawing.path.read_bytes()).decode("ascii")
