"""What the precision of a run changes: held against a hand-made computation, and above the tolerance the run ends."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist.features import Total
from igc_dist.model import Model
from igc_dist.passes import Auditor, DrawnEngine
from igc_dist.planning import Audit
from igc_dist.records import ConfigError, ModelError, PrecisionError
from igc_dist.store import Store
from tests import models

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
Y = torch.randn(24, 2, generator=torch.Generator().manual_seed(2))


def run(module: nn.Module | None = None, **settings: Any) -> Any:
    """A run of 24 samples in 3 folds of 2 micro-batches."""
    module = models.mlp(nn.GELU, width=32).float() if module is None else module
    return igc_dist.attribute(
        module,
        (X, Y),
        n_steps=2,
        n_folds=3,
        micro_batch=4,
        **{"precision": "bf16-mixed", "precision_tol": None, **settings},
    )


def attributions(precision: str, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """(sample, output, feature) and the residuals of completeness, from a run of its own."""
    tree = run(precision=precision, samples=True, precision_audit=0, **settings)
    samples = tree["samples"]
    return np.asarray(samples["x/attribution"], np.float64), np.asarray(samples["delta"])


@pytest.mark.parametrize(
    ("precision", "higher"), [("bf16-mixed", "32-true"), ("16-mixed", "32-true"), ("32-true", "64-true")]
)
def test_equals_a_hand_made_one(precision: str, higher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first halves of the drawn micro-batches, from whole runs in both precisions."""
    chosen: list[tuple[Any, Any]] = []
    original = Auditor.__post_init__

    def spied(self: Auditor) -> None:
        original(self)
        chosen.append((self._chosen, self.engine.plan))

    monkeypatch.setattr(Auditor, "__post_init__", spied)
    tree = run(precision=precision, precision_audit=3)
    (drawn, plan), centred = chosen[0], Y.double().numpy() - Y.double().numpy().mean(0)
    assert (len(drawn), plan.samples_per_batch, plan.n_folds) == (3, 4, 3)
    (low, low_delta), (high, high_delta) = attributions(precision), attributions(higher)
    assert {at for _, at in drawn} == {0, 4}
    sums = np.zeros((4, 2))
    for fold, at in drawn:
        rows = plan.order[fold * plan.fold_size + at :][:4][:2]
        one, two = (np.einsum("njp,nj->jp", a[rows], centred[rows]) for a in (low, high))
        rise = high[rows].sum(2) - high_delta[rows]
        sums += np.stack(
            [(two**2).sum(1), ((one - two) ** 2).sum(1), (rise**2).sum(0), ((low_delta - high_delta)[rows] ** 2).sum(0)]
        )
    tolerance = 1e-3
    np.testing.assert_allclose(tree["precision_error"], np.sqrt(sums[1] / sums[0]), rtol=tolerance)
    np.testing.assert_allclose(tree["precision_completeness_error"], np.sqrt(sums[3] / sums[2]), rtol=1e-2)
    bounds = {"bf16-mixed": (1e-4, 3e-2), "16-mixed": (1e-5, 3e-3), "32-true": (1e-9, 1e-6)}[precision]
    assert bounds[0] < float(tree["precision_error"].max()) < bounds[1]


def test_by_default() -> None:
    """Mixed precisions are audited on all four micro-batches that are asked for, others not; and the spec says so."""
    half, full = run(), run(precision="32-true")
    assert np.isfinite(half["precision_error"]).all()
    assert "precision_error" not in full
    assert (half.attrs["spec"]["audit"], full.attrs["spec"]["audit"]) == (4, 0)
    assert "precision_error" not in run(method="naive_correlation")


def test_above_the_tolerance_the_run_fails(tmp_path: Any) -> None:
    """Exit code 4 and the ways out; the shards are kept, so a run that only records the error has nothing left to
    compute."""
    store = tmp_path / "store"
    with pytest.raises(
        PrecisionError, match=r"bf16-mixed changes the (IGC|compl).* of output [01] by .* precision\.tol is 1e-06: take"
    ) as caught:
        run(store=store, precision_tol=1e-6)
    assert caught.value.exit_code == 4
    assert igc_dist.open(store, allow_partial=True).attrs["status"] == "failed"
    module = models.mlp(nn.GELU, width=32).float()
    module.forward = None  # type: ignore[assignment]
    tree = run(store=store, precision_tol=None)
    assert np.asarray(tree["precision_error"]).max() > 1e-6


class Doubled(nn.Module):
    """A forward with a float32 constant that does not follow the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.constant = nn.Linear(3, 4), [torch.ones(4, 2)]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) @ self.constant[0]


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"precision_audit": -1}, ConfigError, "precision.audit=-1: give a number"),
        ({"precision_tol": 0.0}, ConfigError, "precision.tol=0.0: give a relative error above 0"),
        ({"precision": "64-true", "precision_audit": 2}, ConfigError, "no precision above 64-true"),
        (
            {"module": Doubled(), "precision": "32-true", "precision_audit": 1},
            ModelError,
            "audit failed, .* does not run in 64-true",
        ),
    ],
)
def test_refused_with_the_reason(settings: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        run(**settings)


def test_a_compiled_forward_stays_in_its_type() -> None:
    """It is audited under autocast, but not in float64."""
    for precision, message in (("bf16-mixed", ""), ("32-true", "compiled forward is one of float32")):
        model = Model(nn.Linear(3, 2), precision=precision)
        model.compiled = True
        with pytest.raises(ConfigError, match=message) if message else nullcontext():
            assert Audit(2).batches(model) == 2


def test_weights_get_their_bits_back() -> None:
    """After float64, also when the block fails; the view has the precision above, the model keeps its own."""
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    before = {name: (t, t.data_ptr(), t.clone()) for name, t in module.state_dict(keep_vars=True).items()}
    model = Model(module, final_layer="2")

    def fails() -> None:
        with model.borrowed("cpu"), model.higher() as view:
            assert (view.precision, model.precision) == ("64-true", "32-true")
            assert view.predict((torch.zeros(2, 3, dtype=torch.float64),)).dtype is torch.float64
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    for name, (tensor, pointer, values) in before.items():
        assert (tensor.data_ptr(), tensor.dtype) == (pointer, values.dtype), name
        assert torch.equal(tensor, values), name


def test_other_walks() -> None:
    """Missing targets, weights, several baselines in blocks, forward mode and Shapley values: each has an error of the
    size of bf16."""
    y = Y.clone()
    y[::3, 0] = torch.nan
    y[:, 1] = torch.nan
    cases: list[dict[str, Any]] = [
        {"baseline": 4, "baseline_block": 2, "weights": np.arange(24.0)},
        {"reduce": Total(), "mode": "forward"},
        {"method": "bsc", "output_block": 1},
    ]
    for settings in cases:
        module = models.mlp(nn.GELU, width=32).float()
        tree = igc_dist.attribute(
            module, (X, y), n_steps=2, n_folds=2, precision="bf16-mixed", precision_tol=None, **settings
        )
        for name in ("precision_error", "precision_completeness_error"):
            first, second = tree[name].values
            assert np.isnan(second)  # an output without targets
            assert 1e-5 < first < 0.1 or (settings.get("method") == "bsc" and name != "precision_error"), (
                settings,
                name,
                first,
            )


def test_falls_back(tmp_path: Any) -> None:
    """Above the tolerance everything is done again in float32: the numbers of a float32 run; a rerun finds it complete;
    it is told."""
    settings: dict[str, Any] = {
        "precision_tol": 1e-6,
        "precision_on_error": "fallback",
        "store": tmp_path / "a",
        "samples": True,
    }
    tree, again, expected = run(**settings), run(**settings), run(precision="32-true", samples=True)
    assert (tree.attrs["fallback"], expected.attrs["fallback"], again.attrs["provenance"]) == (
        "32-true",
        None,
        tree.attrs["provenance"],
    )
    for name in ("x/igc", "prediction_mean", "samples/x/attribution", "igc_sum"):
        np.testing.assert_allclose(
            tree[name], expected[name], rtol=1e-5, atol=1e-7, err_msg=name
        )  # micro-batches are smaller
    assert np.abs(tree["x/igc"] - run()["x/igc"]).max() > 1e-5
    assert run(precision_tol=0.5, precision_on_error="fallback").attrs["fallback"] is None
    with pytest.raises(ConfigError, match=r"precision.on_error='again': choose fail, or fallback"):
        run(precision_on_error="again")


@pytest.mark.parametrize("when", ["between", "after"])
def test_a_killed_fallback_goes_on(when: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed when shards are gone but the mark is not there, or in the new walks: the same numbers in the end."""
    settings: dict[str, Any] = {"precision_tol": 1e-6, "precision_on_error": "fallback", "store": tmp_path / "a"}
    original = Store.restart if when == "between" else Store.commit
    fallen: list[bool] = []

    def broken(self: Store, *arguments: Any) -> None:
        if when == "between":
            for key in self._owned() & {*self.objects.names()}:
                self.objects.drop(key)
            raise KeyboardInterrupt
        fallen.append(self.fallen())
        if fallen.count(True) == 5:
            raise KeyboardInterrupt
        original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "restart" if when == "between" else "commit", broken)
        with pytest.raises(KeyboardInterrupt):
            run(**settings)
    tree, expected = run(**settings), run(**{**settings, "store": None})
    np.testing.assert_array_equal(tree["x/igc"], expected["x/igc"])
    assert tree.attrs["fallback"] == "32-true"


@pytest.mark.parametrize(
    "settings",
    [
        {"design": "pairs", "n_draws": 2},
        {"n_others": 1, "micro_batch": 4},
        {"design": "importance_pairs", "reduce": Total()},
    ],
    ids=str,
)
def test_draws_are_audited(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What draws contribute in both precisions, once for a fold; there is no completeness of a sample."""
    walks: list[bool] = []
    original = DrawnEngine._tried
    monkeypatch.setattr(DrawnEngine, "_tried", lambda *arguments: (walks.append(True), original(*arguments))[1])
    y = Y.argmax(1) if "n_others" in settings else Y
    module = models.mlp(nn.GELU, width=32).float()
    tree = igc_dist.attribute(
        module, (X, y), n_folds=2, precision="bf16-mixed", precision_tol=None, n_steps=2, **settings
    )
    assert (tree["precision_error"] > 1e-5).all()
    assert (tree["precision_error"] < 0.1).all()
    assert np.isnan(tree["precision_completeness_error"]).all()
    assert len(walks) == 2 * 2
    fine = igc_dist.attribute(module, (X, y), n_folds=2, precision_audit=4, n_steps=2, **settings)
    assert (fine["precision_error"] > 1e-9).all()
    assert (fine["precision_error"] < 1e-5).all()
    with pytest.raises(PrecisionError, match="IGC contribution"):
        igc_dist.attribute(module, (X, y), n_folds=2, precision="bf16-mixed", precision_tol=1e-6, n_steps=2, **settings)


def test_an_audit_is_of_the_folds_that_are_walked() -> None:
    """A budget leaves most folds out: none of those is drawn."""
    budget = igc_dist.Budget(rel_se=1e9, replicates=0)
    module = models.mlp(nn.GELU, width=32).float()
    tree = igc_dist.attribute(
        module, (X, Y), n_steps=1, n_folds=12, precision="bf16-mixed", precision_audit=1, budget=budget
    )
    assert tree.attrs["budget"]["folds"] == 4
    assert np.isfinite(tree["precision_error"]).all()
