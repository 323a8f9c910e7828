"""Two models on the same data, and two data sets under one model: paired where folds are the same, and said so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist import seeds
from igc_dist.cli import commands
from igc_dist.records import ConfigError
from igc_dist.results import between_data, between_models
from tests.oracles import statistics as oracle

N = 64


def linear(*weights: list[float]) -> torch.nn.Linear:
    model = torch.nn.Linear(3, len(weights), bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weights))
    return model


ONE, TWO = linear([1.0, 1.0, 0.0], [0.0, 1.0, -1.0]), linear([1.0, -1.0, 0.0], [0.0, 1.0, -1.0])
TRUTH = linear([1.0, 1.0, 0.3], [0.0, 1.0, -1.0])


def rows(seed: int, n: int = N, spread: tuple[float, ...] = (1.0, 1.0, 1.0)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64) * torch.tensor(spread)
    noise = 0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return x, TRUTH(x).detach() + noise


def run(model: torch.nn.Linear, data: tuple[torch.Tensor, torch.Tensor], **settings: Any) -> xr.DataTree:
    wishes = {"n_steps": 1, "n_folds": 8, "precision": "64-true", "threads": 1}
    return igc_dist.attribute(model, data, **wishes | settings)


def tables(model: torch.nn.Linear, data: tuple[torch.Tensor, torch.Tensor]) -> tuple[np.ndarray, ...]:
    x, y = data
    return (model.weight.detach()[None] * x[:, None]).numpy(), y.numpy(), model(x).detach().numpy()


def test_a_sum_that_only_one_result_has_is_not_compared() -> None:
    """Reduced by any function, a map does not add up, whichever of the two they are."""
    whole, free = run(ONE, rows(0)), run(TWO, rows(0), reduce=np.abs)
    for found in (between_models(whole, free), between_models(free, whole)):
        assert "correlation" in found
        assert "igc_sum" not in found


def test_models_are_compared_over_the_same_folds() -> None:
    """The error of the difference is that of the jackknife of the difference itself, by leaving rows out."""
    data = rows(0)
    found = between_models(run(ONE, data), run(TWO, data))
    one, two = tables(ONE, data), tables(TWO, data)

    def difference(kept: list[int]) -> np.ndarray:
        return oracle.igc(*(table[kept] for table in two)) - oracle.igc(*(table[kept] for table in one))

    order = seeds.generator(0, 0, "plan.folds").permutation(N)
    folds = [order[at : at + N // 8].tolist() for at in range(0, N, N // 8)]
    assert found.attrs["paired"]
    np.testing.assert_allclose(found["x/difference"][0], difference([*range(N)]), atol=1e-12)
    np.testing.assert_allclose(found["x/difference_se"][0], oracle.jackknife(difference, folds), rtol=1e-7, atol=1e-12)
    # the second output is the same in both: nothing is there to be tested
    assert np.isnan(found["x/p"][0, 1]).all()
    assert found["x/difference_se"].values[0, 1].max() == 0
    assert found["x/significant"].values[0].tolist() == [[False, True, False], [False] * 3]


def test_other_folds_are_not_paired_and_are_wider() -> None:
    data = rows(0)
    one, two = run(ONE, data), run(TWO, data)
    apart = between_models(one, run(TWO, data, seed=1))
    assert not apart.attrs["paired"]
    assert "the same seed and n_folds" in apart.attrs["pairing"]
    np.testing.assert_allclose(apart["x/difference"], between_models(one, two)["x/difference"], atol=1e-12)
    assert apart["x/difference_se"].values[0, 0, 0] > 1.5 * between_models(one, two)["x/difference_se"].values[0, 0, 0]
    half = run(TWO, data, weights=np.arange(N) % 2 + 1.0)
    assert not between_models(one, half).attrs["paired"]
    assert [line.split(":")[0] for line in between_models(one, half).attrs["also"]] == ["weights"]


def test_drift_adds_variances() -> None:
    """Of the two results; the feature that moves less in the new data carries less."""
    old, new = run(ONE, rows(0)), run(ONE, rows(1, 96, (1.0, 0.2, 1.0)))
    found = between_data(old, new)
    assert not found.attrs["paired"]
    np.testing.assert_allclose(found["x/difference"][0], new["x/igc"] - old["x/igc"], atol=1e-12)
    np.testing.assert_allclose(found["x/difference_se"][0], np.hypot(old["x/igc_se"], new["x/igc_se"]), rtol=1e-9)
    np.testing.assert_allclose(found["igc_sum"][0], new["igc_sum"] - old["igc_sum"], atol=1e-12)
    assert found["x/significant"].values[0, 0, 1]
    assert found["x/band_high"].values[0, 0, 1] < 0


def test_outputs_are_matched_by_name() -> None:
    named = [igc_dist.Targets(outputs=outputs, names=names) for outputs, names in (([0, 1], "ab"), ([1, 0], "ba"))]
    one, two = run(ONE, rows(0), target=named[0]), run(TWO, rows(0), target=named[1])
    found, same = between_models(one, two), between_models(run(ONE, rows(0)), run(TWO, rows(0)))
    np.testing.assert_allclose(found["x/difference"], same["x/difference"], atol=1e-12)
    assert between_models(one, two, ["b"])["output"].values.tolist() == ["b"]


def test_what_cannot_be_compared() -> None:
    one, two = run(ONE, rows(0)), run(TWO, rows(0))
    with pytest.raises(ConfigError, match="are of other data; for one model on two data sets ask drift"):
        between_models(one, run(TWO, rows(1)))
    with pytest.raises(ConfigError, match="both results are of one model"):
        between_models(one, run(ONE, rows(0), seed=1))
    with pytest.raises(ConfigError, match="are of other models; for two models on the same data ask models"):
        between_data(one, two)
    with pytest.raises(ConfigError, match="both results are of the same data"):
        between_data(one, run(ONE, rows(0), seed=1))
    with pytest.raises(ConfigError, match=r"the features are others: x \(3,\) here, x \(2,\) there"):
        between_models(one, run(TWO, rows(0), reduce=igc_dist.features.Segments(np.array([0, 0, 1]))))
    with pytest.raises(ConfigError, match="output '1' is in one of the results only"):
        between_models(one, run(TWO, rows(0), target=[0]), [1])


def test_two_stores_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, model, data in (("a", ONE, rows(0)), ("b", TWO, rows(0)), ("c", ONE, rows(1, 96))):
        run(model, data, store=tmp_path / name)
    for arguments, said in (
        (["a", "models", "b"], ["Paired, over the same folds", "1 of 3"]),
        (["a", "drift", "c"], ["Not paired, as the samples are others", "other - this: igc by feature"]),
    ):
        words = [str(tmp_path / word) if len(word) == 1 else word for word in arguments]
        assert commands.call("ask", words) == 0
        out = capsys.readouterr().out
        assert all(each in out for each in said), out
    with pytest.raises(ConfigError, match="ask models takes 2 stores, got "):
        commands.call("ask", [str(tmp_path / "a"), "models"])
    with pytest.raises(ConfigError, match="ask models has no --slices: it has --map"):
        commands.call("ask", [str(tmp_path / "a"), "models", str(tmp_path / "b"), "--slices", "a,b"])
