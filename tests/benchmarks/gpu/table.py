"""The table of a report in Markdown: `python -m tests.benchmarks.gpu.table REPORT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NAMES = {
    "vit_large_patch16_224": "ViT-L/16",
    "vit_base_patch16_224": "ViT-B/16",
    "resnet50": "ResNet-50",
    "convnext_base": "ConvNeXt-B",
}
HEAD = "| net | precision | engine | bare loop | engine / bare loop | GiB |\n|---|---|---|---|---|---|\n"


def table(lines: list[dict[str, Any]]) -> str:
    """Gradients per second of the engine and of a bare loop, their ratio, and the most memory that the engine held."""
    rows = [
        f"| {NAMES.get(line['net'], line['net'])} | {line['precision']} | {line['engine_gradients_per_s']:,} | "
        f"{line['bare_gradients_per_s']:,} | {line['engine_over_bare']:.2f} | {line['peak_GiB']} |\n"
        for line in lines
    ]
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(table(json.loads(Path(sys.argv[1]).read_text())["lines"]), end="")
