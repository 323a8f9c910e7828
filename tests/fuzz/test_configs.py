"""Any overrides: a typed configuration, or a line that says what is wrong and exit code 2; never a traceback, and
nothing is called."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from igc_dist import __main__, cli, config
from igc_dist.config import ALLOWED, is_allowed
from igc_dist.records import ConfigError
from tests.commands import ROOT

CALLED: list[Any] = []


def gadget(*arguments: Any, **keywords: Any) -> None:
    """What no configuration may call."""
    CALLED.append((arguments, keywords))


BAD = "tests.fuzz.test_configs.gadget"
GROUPS = {
    path.name: sorted(file.stem for file in path.iterdir()) for path in (ROOT / "conf").iterdir() if path.is_dir()
}
NODES = ("baseline", "model.build", "data.build", "model.output", "reduce", "method.attributor")
TARGETS = (
    BAD,
    "os.system",
    "igc_dist.baselines.Zeros",
    "igc_dist.baselines.Constant",
    "igc_dist.baselines.base.np.load",
    "igc_dist",
    "",
    "..",
)

letters = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.one_of(
    st.integers(),
    st.integers(10**17, 10**40),
    st.floats(),
    st.sampled_from(["1e400", "-0", "0x1f", "1_000", "٣", "1.", ".5"]),
)
interpolations = st.sampled_from(
    [
        "${seed}",
        "${name}",
        "${nothing}",
        "${a",
        "${}",
        "${${name}}",
        "${oc.env:HOME}",
        "${oc.env:NOT_THERE_AT_ALL}",
        "${oc.create:{a: 1}}",
        "${plan}",
        "${.}",
        "${..seed}",
        "\\${seed}",
        "${oc.decode:'['}",
        "${now:%Y}",
        "${hydra:job.num}",
        "${baseline}",
        "???",
        f"${{oc.create:{{_target_: {BAD}}}}}",
    ]
)
plain = st.one_of(
    numbers,
    letters,
    interpolations,
    st.sampled_from(["null", "true", "yes", "[]", "{}", "[1,2]", "{a: 1}", "'", '"', "a,b"]),
)
quoted = letters.map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")
nodes = st.sampled_from(TARGETS).map(lambda target: f"{{_target_: {target!r}}}")
texts = st.one_of(
    plain.map(str), quoted, nodes, st.lists(plain.map(str), max_size=3).map(lambda parts: f"[{','.join(parts)}]")
)


@cache
def leaves() -> list[str]:
    """Settings, but for those that say where files go."""
    return [key for key in config.leaves() if not key.startswith(("store.path", "name"))]


def near_miss(key: str, at: int, letter: str) -> str:
    at %= len(key)
    return key[:at] + letter + key[at + 1 :]


known = st.deferred(lambda: st.sampled_from(leaves()))
keys = st.one_of(
    known, known, st.builds(near_miss, known, st.integers(0, 40), st.sampled_from([*"xs._@/- ", ""])), letters
)
settings_ = st.builds("{}{}={}".format, st.sampled_from(["", "", "", "+", "++", "~"]), keys, texts)
choices = st.sampled_from(
    [(group, choice) for group, every in GROUPS.items() for choice in every if group != "experiment"]
)
groups = st.builds(
    lambda pair, change: f"{pair[0]}={pair[1]}{change}", choices, st.sampled_from(["", "", "", "x", ",zeros", "/../x"])
)
targets = st.builds(
    "{}{}.{}={}".format,
    st.sampled_from(["", "+", "++"]),
    st.sampled_from(NODES),
    st.sampled_from(("_target_", "a._target_")),
    st.sampled_from(TARGETS),
)
hydras = st.sampled_from(
    [
        f"+hydra.callbacks.a._target_={BAD}",
        f"hydra.launcher._target_={BAD}",
        "hydra.verbose=1",
        "hydra.job.chdir=x",
        "hydra/launcher=x",
        "hydra=x",
        "~hydra",
        "hydra.run.dir=null",
        "hydra.job_logging=1",
        "hydra.searchpath=1",
        "hydra.mode=x",
        "+hydra.job.env_set.A=1",
    ]
)
overrides = st.lists(st.one_of(settings_, settings_, settings_, groups, targets, hydras), min_size=1, max_size=4)


@pytest.fixture(scope="module", autouse=True)
def elsewhere() -> Iterator[None]:
    """In a folder far below all others, as names of runs become folders."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, *"abcdefgh").mkdir(parents=True)
        os.chdir(Path(folder, *"abcdefgh"))
        yield
        os.chdir(before)


def planned(cfg: Any, allow: tuple[str, ...]) -> int:
    """In place of `igc-dist plan`: typed, the same again, and what it may name is what is allowed."""
    made = config.typed(cfg)
    assert isinstance(made, config.Config)
    again = OmegaConf.merge(OmegaConf.structured(config.Config), OmegaConf.create(OmegaConf.to_yaml(cfg, resolve=True)))
    assert repr(config.typed(again)) == repr(made)
    for node in (made.baseline, made.model.build, made.model.output, made.reduce, made.method.attributor):
        if isinstance(node, dict) and not _allowed(node):
            with pytest.raises(ConfigError):
                config.build(node, allow)
    return 0


def _allowed(node: Any) -> bool:
    """Whether nothing in a node is refused; what it says is not built here, as it may say a huge size."""
    if isinstance(node, dict):
        try:
            if "_target_" in node and not is_allowed(node["_target_"], ALLOWED):
                return False
        except ConfigError:
            return False
        return all(map(_allowed, node.values()))
    return all(map(_allowed, node)) if isinstance(node, list) else not (isinstance(node, str) and "${" in node)


def check(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    CALLED.clear()
    monkeypatch.setattr(cli.plans, "plans", planned)
    with pytest.raises(SystemExit) as left:
        __main__.main(["plan", *arguments])
    error = capsys.readouterr().err
    assert left.value.code in (0, 2)
    assert bool(error) == (left.value.code == 2)
    assert "Traceback" not in error
    assert not CALLED


# what monkeypatch and capsys hold is the same for every example; without shrinking, which takes longer than a test may
loose = settings(suppress_health_check=list(HealthCheck), phases=[Phase.generate])


@settings(loose, max_examples=7)
@given(arguments=overrides)
def test_any_overrides(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(arguments, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(loose, max_examples=800)
@given(arguments=overrides)
def test_many_overrides(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(arguments, monkeypatch, capsys)
