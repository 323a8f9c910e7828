"""The command on a page starts the same run again: with what it says besides overrides."""

from __future__ import annotations

import html
import json
import shlex
from pathlib import Path

import pytest

from tests.commands import command

MINE = """
import torch

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return torch.arange(4.0) * (i % 5 + 1), float(i % 3)

def net():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 1)
"""


@pytest.mark.slow
@pytest.mark.e2e
def test_the_command_of_a_page_runs(tmp_path: Path) -> None:
    (tmp_path / "my code").mkdir()
    (tmp_path / "my code/mine.py").write_text(MINE)
    words = ["--path", "my code", "--allow-target", "mine", "model.build._target_=mine.net"]
    words += ["data.build._target_=mine.Data", "target.one_hot=false", "quadrature.n_steps=2", "plan.n_folds=3"]
    first = command(*words, "store.path=a", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "a.run/run.json").read_text())["options"] == words[:4]
    page = (tmp_path / "a.run/report.html").read_text()
    _, *said = shlex.split(html.unescape(page.split("<code>igc-dist ")[1].split("</code>")[0]).join(["x ", ""]))
    again = command(*said, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert said[:4] == words[:4]
