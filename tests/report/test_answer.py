"""The first screen: sentences and verdicts follow from the numbers, and the command is that of the run."""

from __future__ import annotations

import html
import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hydra.core.override_parser.overrides_parser import OverridesParser

import igc_dist
from igc_dist import config, files
from igc_dist.__main__ import main
from igc_dist.report import write_report
from igc_dist.report.answer import answer, command_of
from igc_dist.report.standing import AVOID, LOOK, TRUST, rarer, standings
from tests.report.test_report import DEAD, SCRIPT, Page, store


def sound(**columns: list[float]) -> xr.DataTree:
    """Five outputs without a fault, but for these columns."""
    tree = store(names=list("abcde"))
    values = {"correlation": 0.5, "correlation_se": 0.01, "quadrature_error": 0.0, "baseline_term": 0.0, "constant": 0}
    for name, value in values.items():
        tree[name].values[:] = value
    tree["convergence/map_distance"].values[:] = 0.1
    tree.dataset = tree.to_dataset().assign({name: ("output", np.array(each)) for name, each in columns.items()})
    return tree


def words(tree: xr.DataTree) -> list[tuple[str, list[str]]]:
    return [(each.word, each.reasons) for each in standings(tree)]


@pytest.mark.parametrize(
    ("column", "values", "word", "reason"),
    [
        ("constant", [0, 2, 0, 0, 0], AVOID, "constant prediction"),
        ("correlation", [0.5, np.nan, 0.5, 0.5, 0.5], AVOID, "no correlation"),
        ("quadrature_error", [0, 0.1, 0, 0, 0], AVOID, "quadrature error too large"),
        ("correlation_se", [0.01, np.nan, 0.01, 0.01, 0.01], LOOK, "no standard error"),
        ("correlation", [0.5, 0.03, 0.5, 0.5, 0.5], LOOK, "its correlation may be zero"),  # t of 3 degrees is 3.18
        ("baseline_term", [0.02, -0.03, 0.02, 0, 0], LOOK, "baseline term -0.03"),
        ("precision_error", [0.05, 0.06, np.nan, 0, 0], LOOK, "changed by 6 % in higher precision"),
        ("failed", [0, 3, 0, 0, 0], LOOK, "3 samples not to tolerance"),
    ],
)
def test_each_fault_has_its_verdict(column: str, values: list[float], word: str, reason: str) -> None:
    """The output with the fault has it alone, the others are trusted."""
    assert words(sound()) == [(TRUST, [])] * 5
    found = words(sound(**{column: values}))
    assert found[1] == (word, [reason])
    assert [found[place] for place in (0, 2, 3, 4)] == [(TRUST, [])] * 4


def test_faults_of_the_whole_run() -> None:
    running, moving = sound(), sound()
    running.attrs["status"] = "running"
    assert words(running) == [(AVOID, ["status running"])] * 5
    moving["convergence/map_distance"].values[1, 3] = 0.7  # the second of four folds: half of the samples
    assert words(moving)[3] == (LOOK, ["half of the samples change its map by 70 %"])
    halved = sound()
    halved.attrs["provenance"] = {"half_steps": 0.2}
    assert words(halved) == [(LOOK, ["the map changes with half of the steps"])] * 5


def test_rare_labels_are_looked_at() -> None:
    """Positives are counted from the moments of targets of 0 and 1; other targets have none."""
    share = np.array([0.1, 0.5, 0.9, 1 / 6, 0.3])
    tree = sound(n=[120] * 5, target_mean=[*share], target_std=[*np.sqrt(share * (1 - share))])
    tree["target_std"].values[4] = 0.2
    np.testing.assert_allclose(rarer(tree), [12, 60, 12, 20, np.nan])
    assert [each.word for each in standings(tree)] == [LOOK, TRUST, LOOK, TRUST, TRUST]
    assert standings(tree)[0].reasons == ["only 12 of its rarer label"]


def test_sentences_hold_the_numbers() -> None:
    tree = sound(correlation=[0.1, 0.9, 0.5, 0.4, 0.3])
    del tree["age"], tree["rgb"], tree["table"]
    values = np.zeros((5, 6, 5))
    values[1, 4, 2], values[1, 0, 0] = -3.0, 1.0  # a tenth of 30 positions is 3: all of the magnitude
    tree["x/igc"].values[:] = values
    first, second, third = answer(tree, standings(tree))
    assert first == (
        "Over 120 samples, the predictions follow the targets with a correlation of 0.90 for b at best and 0.10 for a "
        "at worst (median 0.40 of 5 outputs)."
    )
    assert second == (
        "In IGC of b a tenth of the 30 positions hold 100 % of all magnitude; the largest value is -3, in the lower "
        "centre (row 4, column 2)."
    )
    assert third == "Correlations are known to ±0.032 (95 %, median); 5 of 5 outputs can be trusted as they are."
    table = sound()
    del table["age"], table["rgb"], table["x"]
    table["table/igc"].values[0] = [0.1, -0.3, 0.2]
    assert answer(table, standings(table))[1] == (
        f"In IGC of a the largest of 3 features are {SCRIPT} (-0.3), $ (+0.2), age (+0.1)."
    )


def test_attributions_of_samples_are_no_correlations() -> None:
    """They may be sound where the correlation is not known at all; none is beyond 1."""
    tree = sound(correlation_se=[0.7] * 5)
    for group in ("age", "rgb", "table", "x"):
        del tree[group]
    third = answer(tree, standings(tree))[2]
    assert third.startswith("Correlations are not known, ±2.2 (95 %, median); attributions of 5 of 5 outputs can be")
    del tree["correlation"]  # outputs of each sample's own have none
    assert answer(tree, standings(tree))[0] == (
        "Attributions are kept of 7 samples, one by one: there is no map of the data set."
    )


def test_the_first_screen_is_in_the_page(tmp_path: Path) -> None:
    page = Page(write_report(store(), tmp_path).read_text(encoding="utf-8")).text
    first = page[page.index("Over 120 samples") : page.index("How to read this")]
    assert "do not use: 1" in first
    assert "$x_{: constant target" in first
    assert standings(store())[DEAD].word == AVOID
    assert "the command is not kept beside this page" in first


def test_the_command_is_that_of_the_run(tmp_path: Path) -> None:
    """Quoted as a shell needs it, escaped and masked; the account of another run, or a torn one, is no account."""
    tree = store()
    overrides = ["model=digits", "name=a b", "key=<b>", "x.url=https://me:pw@h/", "store.path='/a/b=1.zarr'"]
    overrides += ["store.path='/a/b.zarr'", "model.build.name='3'"]  # quotes that Hydra needs, and those it does not
    account = {"spec_hash": "abc123", "overrides": overrides, "options": ["--path", "my code", "--allow-target", "zoo"]}
    (tmp_path / "run.json").write_text(json.dumps(account))
    text = write_report(tree, tmp_path, 1).read_text(encoding="utf-8")
    assert "<code>igc-dist --path &#39;my code&#39; --allow-target zoo model=digits " in text
    assert "zoo model=digits &#39;name=a b&#39; &#39;key=&lt;b&gt;&#39;" in text
    assert "pw@" not in text
    words = shlex.split(html.unescape(text.split("<code>igc-dist ")[1].split("</code>")[0]))
    assert words[8:] == ['store.path="/a/b=1.zarr"', "store.path=/a/b.zarr", 'model.build.name="3"']
    for other in (json.dumps(account | {"spec_hash": "other"}), "{", "[]", json.dumps({"spec_hash": "abc123"})):
        (tmp_path / "run.json").write_text(other)
        assert command_of(tree, tmp_path) is None


PATHS = {
    "/a/b.zarr": "store.path=/a/b.zarr",
    "/a/my maps/b": "'store.path=/a/my maps/b'",
    "s3://maps/b:2": "store.path=s3://maps/b:2",
    "/a/model=net,x=1": """'store.path="/a/model=net,x=1"'""",
    "/a/{b}(c)[d]": """'store.path="/a/{b}(c)[d]"'""",
    "/a/$HOME`b`!": """'store.path="/a/$HOME`b`!"'""",
    "/ü/ b": """'store.path="/ü/ b"'""",
    "/a/it's": r""" "store.path='/a/it\\'s'" """,
    '/a/"b"': r""" "store.path='/a/\"b\"'" """,
    '/a/"$b"': """ 'store.path='"'"'/a/"$b"'"'"'' """,
    "/a\\b": r""" "store.path='/a\\b'" """,
    "/a\\": r""" "store.path='/a\\\\'" """,
}
"""Paths, and the word of the command for each."""


@pytest.mark.parametrize("path", PATHS)
def test_the_command_is_read_back_by_a_shell_and_by_hydra(path: str, tmp_path: Path) -> None:
    """Of a run on several ranks, whose launcher gives a path in Hydra's quotes."""
    account = {"spec_hash": "abc123", "overrides": [config.override("store.path", path)]}
    (tmp_path / "run.json").write_text(json.dumps(account))
    command = command_of(store(), tmp_path)
    assert command is not None
    assert command == f"igc-dist {PATHS[path].strip()}"
    printed = subprocess.run(
        ["sh", "-c", command.replace("igc-dist", "printf %s", 1)], check=True, capture_output=True, text=True
    ).stdout
    assert [printed] == shlex.split(command)[1:]
    (said,) = OverridesParser.create().parse_overrides([printed])
    assert (said.key_or_group, said.value()) == ("store.path", path)


def test_the_command_is_found_from_any_folder(tmp_path: Path) -> None:
    """A page that is written elsewhere than by the run has the command that lies beside the store; so has that of a
    tree that was opened."""
    data = torch.rand(12, 3, generator=torch.Generator().manual_seed(0)), torch.rand(12, 1)
    tree = igc_dist.attribute(torch.nn.Linear(3, 1), data, n_steps=2, n_folds=2, threads=1, store=tmp_path / "a")
    account = {"spec_hash": tree.attrs["spec_hash"], "overrides": ["model=mine"]}
    files.write(files.folder(tmp_path / "a.run") / "run.json", json.dumps(account).encode())
    with pytest.raises(SystemExit) as left:
        main(["report", str(tmp_path / "a"), str(tmp_path / "page")])
    assert left.value.code == 0
    igc_dist.open(tmp_path / "a").igc.report(tmp_path / "opened")
    for folder in ("page", "opened"):
        assert "<code>igc-dist model=mine</code>" in (tmp_path / folder / "report.html").read_text(encoding="utf-8")
