"""Bad input: the error's type, the offending value and the way out in its text, and no forward pass where it can be
known before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

import igc_dist
from igc_dist import baselines
from igc_dist.attributors import Gradients
from igc_dist.metrics import Metric
from igc_dist.model import Probability
from igc_dist.records import ConfigError, DataError, ModelError, NonFiniteError, StoreError
from igc_dist.store import Store
from tests import models
from tests.oracles import attributions as oracle
from tests.oracles import statistics

N = 10
X = torch.from_numpy(np.random.default_rng(0).standard_normal((N, 3)))


def two(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0] * x[:, 1], torch.sin(x).sum(1)], 1)


def target() -> Tensor:
    return two(X) + 0.5 * torch.from_numpy(np.random.default_rng(1).standard_normal((N, 2)))


def run(model: Any = None, data: Any = None, **settings: Any) -> Any:
    model = models.Function(two) if model is None else model
    return igc_dist.attribute(
        model, (X, target()) if data is None else data, **{"n_steps": 2, "n_folds": 2, **settings}
    )


class Iterable(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Any]:
        yield X[0], target()[0]


# setting, error, what its text must hold: the value and the way out. None of these needs the model.
BEFORE: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "output negative": ({"target": -1}, ConfigError, "-1.*count from 0"),
    "output twice": ({"target": [0, 1, 0]}, ConfigError, r"\[0\] more than once.*once"),
    "outputs none": ({"target": []}, ConfigError, "empty.*at least one"),
    "target of another kind": ({"target": 1.5}, ConfigError, "1.5.*float.*int"),
    "more samples than data": ({"baseline": N + 1}, ConfigError, f"k={N + 1}.*{N} usable.*at most {N}"),
    "more resampled than data": ({"baseline": baselines.Resampled(N + 1)}, ConfigError, f"k={N + 1}.*at most {N}"),
    "inputs without features": ({"data": (torch.zeros(N, 0), target())}, DataError, r"x has no features.*leave it out"),
    "baseline 0": ({"baseline": 0}, ConfigError, r"baseline=0.*float \(0.0\)"),
    "baseline of another shape": ({"baseline": torch.zeros(4)}, ConfigError, r"\(4,\): expected \(3,\)"),
    "baseline of text": ({"baseline": np.array(["a", "b", "c"])}, ConfigError, "baseline holds text"),
    "complex baseline": ({"baseline": X[0] + 1j}, ConfigError, "baseline is complex.*real numbers"),
    "masked baseline": ({"baseline": np.ma.array([0.0, 1, 2], mask=[0, 0, 1])}, ConfigError, r"missing.*\(2,\)"),
    "baseline of NaN": ({"baseline": X[0] * torch.nan}, ConfigError, r"is nan at index \(0,\)"),
    "constant NaN": ({"baseline": float("nan")}, ConfigError, "baseline.value=nan: give a finite number"),
    "second baseline complex": ({"baseline": (X[0], X[0] + 1j)}, ConfigError, r"baseline\[1\] is complex"),
    "complex inputs": ({"data": (X + 1j, target())}, DataError, "x is complex.*view_as_real"),
    "baseline for other inputs": ({"baseline": (torch.zeros(3), torch.zeros(3))}, ConfigError, "2 tensors.*1 inputs"),
    "blur of a vector": ({"baseline": baselines.Blur(1.0)}, ConfigError, r"two dimensions.*\(3,\)"),
    "no steps": ({"n_steps": 0}, ConfigError, "n_steps=0.*at least 1"),
    "one step of a trapezoid": (
        {"n_steps": 1, "quadrature": "trapezoid"},
        ConfigError,
        "n_steps=1.*'trapezoid'.*at least 2",
    ),
    "even steps of Simpson": ({"n_steps": 4, "quadrature": "simpson"}, ConfigError, "n_steps=4.*try 5"),
    "unknown quadrature": ({"quadrature": "midpont"}, ConfigError, "'midpont'.*midpoint"),
    "unknown method": ({"method": "igcc"}, ConfigError, "'igcc'.*did you mean 'igc'"),
    "unknown statistic": ({"statistics": ["corelation"]}, ConfigError, "'corelation'.*did you mean 'correlation'"),
    "unknown keyword": ({"nfolds": 3}, ConfigError, "'nfolds'.*did you mean 'n_folds'"),
    "unknown precision": ({"precision": "bf16"}, ConfigError, "'bf16'.*bf16-mixed"),
    "unknown policy": ({"on_nonfinite": "ignore"}, ConfigError, "'ignore'.*fail.*skip"),
    "unknown policy of reading": ({"on_bad_sample": "ignore"}, ConfigError, "'ignore'.*fail.*skip"),
    "no method": ({"method": None}, ConfigError, "method=None of type NoneType: give str or Method"),
    "a statistic alone": ({"statistics": "moments"}, ConfigError, r"'moments': give a list, \['moments'\]"),
    "no filter": ({"filter": []}, ConfigError, "filter keeps no sample"),
    "a store that is a number": ({"store": 5}, ConfigError, "store=5 of type int: give str or Path or Store or None"),
    "a seed that is a fraction": ({"seed": 1.5}, ConfigError, "seed=1.5 of type float: give int"),
    "steps that are true": (
        {"n_steps": True},
        ConfigError,
        "n_steps=True of type bool: give int or None",
    ),
    "a budget that is a number": ({"budget": 5}, ConfigError, "budget=5 of type int: give Budget or None"),
    "a time in words": ({"lease": "long"}, ConfigError, "lease='long' of type str: give float"),
    "a store without a name": ({"store": " "}, ConfigError, "store.path=' ': give the name of a folder"),
    "threads": ({"threads": 0}, ConfigError, "fabric.threads=0: give a number of at least 1"),
    "timeout": ({"timeout": 0.0}, ConfigError, "fabric.timeout=0.0: give a number of seconds above 0"),
    "lease": ({"lease": -1.0}, ConfigError, "fabric.lease=-1.0: give a number of seconds above 0"),
    "a logger by name": ({"loggers": "csv"}, ConfigError, "loggers='csv': give a list of loggers"),
    "loggers by name": ({"loggers": ["csv"]}, ConfigError, r"loggers=\['csv'\]: give a list of loggers"),
    "folds": ({"n_folds": 0}, ConfigError, "n_folds=0.*at least 1"),
    "empty data": ({"data": (torch.zeros(0, 3), torch.zeros(0, 2))}, DataError, "empty.*at least 1"),
    "rows that do not pair": (
        {"data": (torch.zeros(3, 3), torch.zeros(4, 2))},
        DataError,
        r"\(3, 3\).*\(4, 2\).*same number",
    ),
    "iterable data": ({"data": Iterable()}, DataError, r"Iterable.*list\(dataset\)"),
    "items that are tensors": ({"data": list(X)}, DataError, r"Tensor.*pair \(x, y\)"),
    "items of three": ({"data": [(x, x, x) for x in X]}, DataError, "of 3.*pair"),
    "items of text": ({"data": [("a", 0.0)] * 4}, DataError, "sample 0: x .*str.*tensor"),
    "images in bytes": (
        {"data": (torch.zeros(4, 3, dtype=torch.uint8), torch.zeros(4, 2))},
        DataError,
        r"uint8.*x\.float\(\)",
    ),
    "no such method": ({"forward": "forwards"}, ModelError, "'forwards'.*method"),
    "workers": ({"num_workers": -1}, ConfigError, "num_workers=-1"),
    "negative labels": (
        {"target": igc_dist.Targets(one_hot=True), "data": (X, torch.full((N,), 0.5))},
        DataError,
        "integer label",
    ),
}
AFTER_ALL = ("negative labels",)  # how many outputs there are is the model's to say


@pytest.mark.parametrize("name", BEFORE)
def test_known_before_the_first_forward(name: str) -> None:
    """Refused with its value and the way out, and the model was never called."""
    settings, kind, text = BEFORE[name]
    model = models.Function(two)
    with pytest.raises(kind, match=f"(?s){text}") as caught:
        run(model, **settings)
    assert isinstance(caught.value, ValueError)
    assert model.calls == 0 or name in AFTER_ALL


# what only the model can tell, within the first look
LOOK: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "output out of range": ({"target": 2}, ConfigError, "has 2: the model has 2 outputs, give 0 to 1"),
    "y of another width": ({"data": (X, torch.zeros(N, 3))}, DataError, "3 values.*2 outputs.*one_hot"),
    "complex targets": ({"data": (X, target() + 1j)}, DataError, "y is complex.*y.abs"),
    "complex output": ({"model": models.Function(lambda x: two(x) + 1j)}, ModelError, "complex.*z.abs"),
    "complex part of an output": (
        {"model": models.Function(lambda x: two(x) + 1j), "output": Probability()},
        ModelError,
        "Probability takes real numbers.*z.abs",
    ),
    "label out of range": ({"data": (X, torch.arange(N) + 1)}, DataError, "1 to 4.*2 outputs"),
    "names that do not pair": ({"target": igc_dist.Targets(names=("a",))}, ConfigError, "1 names for 2"),
    "x of another shape": ({"model": nn.Linear(4, 2).double()}, ModelError, r"\(4, 3\).*RuntimeError"),
    "output of three dimensions": (
        {"model": models.Function(lambda x: two(x)[:, :, None])},
        ModelError,
        r"\(4, 2, 1\).*flatten",
    ),
    "output in a dict": ({"model": models.Function(lambda x: {"out": two(x)})}, ModelError, "'out'.*model.output"),
    "detached": ({"model": models.Function(lambda x: two(x.detach()))}, ModelError, "does not reach them.*detaches"),
    "cut of a nonlinear statistic": (
        {"statistics": ["moments"], "baseline": 2, "baseline_block": 1},
        ConfigError,
        "baseline_block=1.*'moments'.*null",
    ),
    "memory": ({"host_memory": 0.001}, ConfigError, r"host_memory is 1\.0 MiB.*raise the budget"),
    "disk": ({"disk": 1e-9}, ConfigError, r"plan\.disk.*or raise the budget"),
}


@pytest.mark.parametrize("name", LOOK)
def test_known_from_the_first_look(name: str) -> None:
    """Refused with its value and the way out on a handful of samples, before either pass."""
    settings, kind, text = LOOK[name]
    model = settings.get("model") or models.Function(two)
    with pytest.raises(kind, match=f"(?s){text}"):
        run(model, **{k: v for k, v in settings.items() if k != "model"})
    if isinstance(model, models.Function):
        assert model.rows < 50


def test_more_baselines_than_the_data_has_left() -> None:
    """Rows that were skipped cannot be baselines: K is checked again against what pass 1 found fit."""
    y = target()
    y[:3] = torch.inf
    with pytest.raises(ConfigError, match=f"k={N - 2}.*{N - 3} usable"):
        run(data=(X, y), baseline=N - 2, on_nonfinite="skip")
    assert run(data=(X, y), baseline=N - 3, on_nonfinite="skip")["n"].values.tolist() == [N - 3] * 2


BAD = 6
"""The sample that carries NaN or infinity: not among the few of the first look."""


def poisoned(where: str, value: float) -> tuple[Any, tuple[Tensor, Tensor]]:
    """A model and data in which sample BAD has `value` in one place."""
    x, y = X.clone(), target()
    mark = float(X[BAD, 0])
    if where == "input":
        x[BAD, 1] = value
    elif where == "target":
        y[BAD, 1] = value
    elif where == "prediction":
        return models.Function(lambda x: torch.where(x[:, :1] == mark, value, two(x))), (x, y)
    elif where == "gradient":  # a root has no slope at 0, and only the path of this sample ends there

        def kink(x: Tensor) -> Tensor:
            off = (x[:, :1] - mark).abs()
            return two(x) + torch.where(off < 1e-9, torch.sqrt(off), 0.0)

        return models.Function(kink), (x, y)
    return models.Function(two), (x, y)


PLACES = ["input", "target", "prediction", "gradient"]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *(
            (place, value)
            for place in PLACES[:3]
            for value in (np.nan, np.inf, -np.inf)
            if (place, value) != ("target", np.nan)
        ),
        ("gradient", np.nan),
    ],
)
def test_not_finite_under_fail(where: str, value: float) -> None:
    """The error names the sample's index and where it is, and offers the other policy."""
    model, data = poisoned(where, value)
    with pytest.raises(
        NonFiniteError, match=f"sample {BAD} has NaN or infinity in .*{where}.*on_nonfinite=skip"
    ) as caught:
        run(model, data, quadrature="right")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("where", PLACES)
def test_not_finite_under_skip(where: str) -> None:
    """The sample is left out and recorded; all numbers are those of the rest."""
    model, data = poisoned(where, np.inf if where == "target" else np.nan)  # NaN there is a target that is missing
    tree = run(model, data, quadrature="right", on_nonfinite="skip", samples=True)
    assert tree.attrs["skipped"] == [{"index": BAD, "reason": f"NaN or infinity in its {where}"}]
    assert tree["n"].values.tolist() == [N - 1] * 2
    rest = [n for n in range(N) if n != BAD]
    x, y = X[rest].numpy(), target()[rest].numpy()
    clean = models.Function(two)
    (a,) = oracle.integrated_gradients(
        clean, (x,), oracle.shared([(np.zeros(3),)], N - 1), [0, 1], [0.5, 1.0], [0.5, 0.5]
    )
    r = oracle.predictions(clean, (x,), [0, 1])
    np.testing.assert_allclose(tree["x/igc"], statistics.igc(a, y, r), rtol=1e-11)
    np.testing.assert_allclose(tree["correlation"], statistics.correlations(y, r), rtol=1e-11)
    np.testing.assert_allclose(tree["samples/x/attribution"][rest], a, rtol=1e-11, atol=1e-14)
    again = run(clean, (x, y), quadrature="right", baseline=None)
    np.testing.assert_allclose(tree["x/igc"], again["x/igc"], rtol=1e-11)


def test_blocks_of_baselines_leave_no_marks(tmp_path: Path) -> None:
    """Rows that pass 1 left out stay out; pass 2 leaves none out for a part of its baselines, and writes nothing about
    it."""
    model, data = poisoned("input", np.nan)
    tree = run(model, data, on_nonfinite="skip", baseline=4, baseline_block=2, store=tmp_path / "s.zarr")
    assert [entry["index"] for entry in tree.attrs["skipped"]] == [BAD]
    assert not (tmp_path / "s.zarr/shards/attribute/skipped").exists()
    assert Store.existing(tmp_path / "s.zarr").verify() == []


def test_nothing_left_to_fold() -> None:
    """Every sample skipped: an error, not an empty result."""
    with pytest.raises(DataError, match="no sample is left"):
        run(data=(X, torch.full((N, 2), torch.nan)), on_nonfinite="skip")


@pytest.mark.parametrize(("which", "flag"), [("target", 1), ("prediction", 2), ("both", 3)])
def test_constant_columns(which: str, flag: int) -> None:
    """A constant target or prediction makes that output NaN, with a flag that says which; the other output is unharmed,
    to the bit."""
    y, expected = target(), run()
    constant = lambda x: torch.stack([two(x)[:, 0], torch.full((len(x),), 0.1, dtype=x.dtype)], 1)  # noqa: E731
    model = models.Function(two if which == "target" else constant)
    if which != "prediction":
        y[:, 1] = 0.1
    tree = run(model, (X, y))
    assert tree["constant"].values.tolist() == [0, flag]
    for name in ("x/igc", "x/igc_se", "correlation", "igc_sum", "baseline_term"):
        assert np.isnan(tree[name][1]).all(), name
        assert tree[name][0].values.tobytes() == expected[name][0].values.tobytes(), name


def test_parameters_elsewhere() -> None:
    """Parameters without data, on the meta device."""
    with pytest.raises(ModelError, match=r"meta.*model.to"):
        run(nn.Linear(3, 2, device="meta", dtype=torch.float64), accelerator="cpu")


def test_batch_statistics() -> None:
    """A BatchNorm that uses the batch even in eval mode mixes samples; in train mode it is only put into eval mode, and
    back."""
    own = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, track_running_stats=False)).double()
    with pytest.raises(ModelError, match=r"(?s)other samples of its batch.*BatchNorm.*running statistics"):
        run(own)
    usual = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double().train()
    tree = run(usual)
    assert usual.training
    assert usual[1].num_batches_tracked == 0
    assert np.isfinite(tree["x/igc"]).all()


def test_models_that_are_not_functions() -> None:
    """Dropout that stays on in eval mode: another answer to the same batch."""
    with pytest.raises(ModelError, match=r"another output each time.*deterministic"):
        run(models.Function(lambda x: two(nn.functional.dropout(x, 0.5, training=True))))


class Augmented(Dataset):  # type: ignore[type-arg]
    """Answers the same index differently twice."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        noise = torch.rand(())
        return X[index] + noise * (self.what == "x"), target()[index] + noise * (self.what == "y")


@pytest.mark.parametrize("what", ["x", "y"])
def test_data_that_are_not_addressed(what: str) -> None:
    """Random augmentation is refused before any forward pass, with the index and how to mend it."""
    model = models.Function(two)
    with pytest.raises(DataError, match=f"another {what} each time index 0.*augmentation"):
        run(model, Augmented(what))
    assert model.calls == 0


def test_store_of_another_run(tmp_path: Path) -> None:
    """A path taken by another spec is refused with the keys that differ and both values, before pass 1; the store stays
    as it was."""
    path, model = tmp_path / "a.zarr", models.linear()
    before = run(model, store=path)["x/igc"].values
    with pytest.raises(StoreError, match=r"(?s)another run.*seed: 0 in the store, 1 asked for.*another store.path"):
        run(model, store=path, seed=1)
    with pytest.raises(StoreError, match=r"midpoint-2.*midpoint-3"):
        run(model, store=path, n_steps=3)
    with pytest.raises(StoreError, match=r"model\.module\.weights"):
        run(models.mlp(nn.GELU), store=path)
    assert (igc_dist.open(path)["x/igc"].values == before).all()


def test_paths_that_cannot_hold_a_store(tmp_path: Path) -> None:
    """A path below a regular file, a folder that holds something else, and a store that is not there."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match=r"file.*cannot be written.*another store\.path"):
        run(models.linear(), store=tmp_path / "file" / "a.zarr")
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"not empty and not an igc-dist store.*another store\.path"):
        run(models.linear(), store=tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["notes.txt"]
    with pytest.raises(StoreError, match="there is nothing"):
        igc_dist.open(tmp_path / "nowhere")


def test_the_model_is_handed_back_after_an_error() -> None:
    """Whatever failed, the user's model trains on."""
    model = models.mlp(nn.GELU).train()
    x = X.clone()
    x[BAD] = torch.nan
    with pytest.raises(NonFiniteError):
        run(model, (x, target()))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


class Nameless(Gradients):
    pass


class Metrical(Metric):
    def __call__(self, predict: Any, maps: Any) -> dict[str, Any]:
        return {}


def test_classes_that_leave_out_what_their_family_asks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a metric in a list, which is called by its name, and of one that is given a name."""
    for metrics in ([Metrical()], {"mine": Metrical()}):
        with pytest.raises(ConfigError, match="the class Metrical has no name: give it one, as other metrics have"):
            run(metrics=metrics)
    monkeypatch.delattr(Gradients, "name")
    with pytest.raises(ConfigError, match="the class Nameless has no name: give it what others have"):
        run(attributor=Nameless(), statistics=[])
