"""Whole runs in one process: equal to the literal twins, and free of any trace of how the work was cut."""

from __future__ import annotations

from functools import cache
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.utils.data import DataLoader, TensorDataset

import igc_dist
from igc_dist import baselines
from igc_dist.paths import rule
from tests import models
from tests.oracles import attributions as oracle
from tests.oracles import statistics

N = 11
STATISTICS = ["correlation", "autocorrelation", "moments"]


def mlp() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model = models.mlp(torch.nn.GELU)
    x, y = models.data(model, N)
    return model, x, y


def run(model: Any, data: Any, **settings: Any) -> Any:
    return igc_dist.attribute(model, data, **{"n_steps": 4, "n_folds": 3, "statistics": STATISTICS, **settings})


def assert_close(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    scale = max(1.0, float(np.nanmax(np.abs(expected))))
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance * scale)


def expect(
    tree: Any, model: Any, xs: tuple[Any, ...], y: Any, starts: Any, tolerance: float = 1e-11, n_steps: int = 4
) -> None:
    """Every result of a run equals its literal twin."""
    xs, y = tuple(np.asarray(x) for x in xs), np.asarray(y)
    outputs = tree["output"].values.tolist()
    quadrature = rule("midpoint", n_steps)
    maps = oracle.integrated_gradients(
        model, xs, starts, outputs, quadrature.nodes.tolist(), quadrature.weights.tolist()
    )
    r, b = oracle.predictions(model, xs, outputs), oracle.baseline_predictions(model, starts, outputs)
    assert_close(tree["correlation"], statistics.correlations(y, r), tolerance)
    assert_close(tree["baseline_term"], statistics.rho0(y, r, b), tolerance)
    total = 0
    for name, a in zip(("x", "x1", "x2")[: len(xs)], maps, strict=True):
        assert_close(tree[f"{name}/igc"], statistics.igc(a, y, r), tolerance)
        assert_close(tree[f"{name}/igac"], statistics.igac(a, r), tolerance)
        assert_close(tree[f"{name}/ig_mean"], statistics.attribution_mean(a), tolerance)
        assert_close(tree[f"{name}/ig_std"], statistics.attribution_std(a), tolerance)
        if "samples" in tree.children:
            assert_close(tree[f"samples/{name}/attribution"], a, tolerance)
        total = total + a.reshape(*a.shape[:2], -1).sum(2)
    if "samples" in tree.children:
        assert tree["samples/index"].values.tolist() == list(range(len(y)))
        assert_close(tree["samples/target"], y, tolerance)
        assert_close(tree["samples/prediction"], r, tolerance)
        assert_close(tree["samples/prediction_baseline"], b, tolerance)
        assert_close(tree["samples/delta"], total - (r - b), tolerance)


def rows_of(x: torch.Tensor, indices: Any) -> list[tuple[np.ndarray, ...]]:
    return [(x[int(i)].numpy(),) for i in indices]


@cache
def uncut(baseline: Any) -> Any:
    model, x, y = mlp()
    return run(model, (x, y), baseline=baseline)


CUTS: list[dict[str, Any]] = [
    {"n_folds": 1},
    {"n_folds": N},
    {"output_block": 1},
    {"baseline_block": 1},
    {"baseline_block": 2, "n_folds": 2},
    {"micro_batch": 1},
    {"micro_batch": 2, "output_block": 1},
    {"micro_batch": 5, "baseline_block": 2},
    {"micro_batch": 500, "n_folds": 1},
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("baseline", [3, baselines.Resampled(3)], ids=["samples", "resampled"])
def test_cuts_leave_no_trace(cut: dict[str, Any], baseline: Any) -> None:
    """Folds, blocks of outputs and baselines, and micro-batches change nothing beyond 1e-12, whatever the draws are
    addressed by."""
    model, x, y = mlp()
    linear = ["correlation", "autocorrelation"] if "baseline_block" in cut else STATISTICS
    whole, found = uncut(baseline), run(model, (x, y), baseline=baseline, statistics=linear, **cut)
    names = [
        "x/igc",
        "x/igac",
        "correlation",
        "baseline_term",
        "igc_sum",
        "quadrature_error",
        "target_std",
        "prediction_mean",
    ]
    for name in names + (["x/ig_mean", "x/ig_std"] if len(linear) == 3 else []):
        assert_close(found[name], whole[name], 1e-12)
    assert found["n"].values.tolist() == [N, N]


def samples_starts(x: torch.Tensor, k: int, seed: int) -> list[Any]:
    from igc_dist import seeds

    chosen = seeds.generator(seed, 0, "baselines.samples").choice(np.arange(N), k, replace=False)
    return oracle.shared(rows_of(x, chosen), N)


def resampled_starts(x: torch.Tensor, k: int, seed: int) -> list[Any]:
    from igc_dist import seeds

    return [
        rows_of(x, seeds.generator(seed, n, "baselines.resampled").choice(np.arange(N), k, replace=False))
        for n in range(N)
    ]


def noise_starts(x: torch.Tensor, k: int, seed: int) -> list[Any]:
    from igc_dist import seeds

    draw = lambda n, b: 0.5 + 0.2 * seeds.generator(seed, n, "baselines.noise.0", b).standard_normal(3)  # noqa: E731
    return [[(draw(n, b),) for b in range(k)] for n in range(N)]


KINDS: dict[str, tuple[Any, Any]] = {
    "zeros": (None, lambda x: oracle.shared([(np.zeros(3),)], N)),
    "float": (0.7, lambda x: oracle.shared([(np.full(3, 0.7),)], N)),
    "given": (np.array([0.1, 0.2, 0.3]), lambda x: oracle.shared([(np.array([0.1, 0.2, 0.3]),)], N)),
    "given-two": (torch.eye(3)[:2], lambda x: oracle.shared([(row,) for row in np.eye(3)[:2]], N)),
    "mean": (baselines.Mean(), lambda x: oracle.shared([(x.numpy().mean(0),)], N)),
    "int": (4, lambda x: samples_starts(x, 4, 5)),
    "resampled": (baselines.Resampled(4), lambda x: resampled_starts(x, 4, 5)),
    "noise": (baselines.Noise(std=0.2, mean=0.5, k=2), lambda x: noise_starts(x, 2, 5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_baseline_equals_the_oracle(kind: str) -> None:
    """Maps, samples (in data order) and completeness numbers against literal twins; the draws are those of the
    documented address."""
    model, x, y = mlp()
    baseline, starts = KINDS[kind]
    tree = run(model, (x, y), baseline=baseline, samples=True, seed=5, micro_batch=3)
    expect(tree, model, (x,), y, starts(x))
    # sum IGC = corr - rho0 + quadrature error, and the error is that of the nodes alone
    assert_close(tree["igc_sum"], tree["correlation"] - tree["baseline_term"] + tree["quadrature_error"], 1e-14)
    assert_close(tree["igc_sum"], tree["x/igc"].sum("feature"), 1e-13)
    assert_close(tree["igc_error"], tree["igc_sum"] - tree["correlation"], 1e-14)
    fine = run(model, (x, y), baseline=baseline, seed=5, quadrature="gauss_legendre", n_steps=20)
    assert np.abs(fine["quadrature_error"]).max() < 1e-12
    shared = kind not in ("resampled", "noise")
    assert (np.abs(fine["baseline_term"]).max() < 1e-12) == shared


def test_blur_equals_the_oracle() -> None:
    """Images, a convolutional net, and each sample's own blurred self."""
    model = models.conv()
    x, y = models.data(model, 5, ((1, 6, 6),))
    blurred = [[(gaussian_filter(image.numpy(), (0, 1.5, 1.5), mode="reflect"),)] for image in x]
    tree = run(model, (x, y), baseline=baselines.Blur(1.5), samples=True, n_steps=2)
    assert tree["x/igc"].dims == ("output", "channel", "height", "width")
    expect(tree, model, (x,), y, blurred, n_steps=2)


def test_several_inputs_of_different_shapes() -> None:
    """x and x1, a vector and an image, together in one sum."""
    model = models.TwoInputs()
    xs, y = models.data(model, 7, ((3,), (2, 2)))
    start = (np.full(3, 0.1), np.full((2, 2), -0.2))
    tree = run(model, (xs, y), baseline=start, samples=True)
    expect(tree, model, xs, y, oracle.shared([start], 7))
    assert_close(tree["igc_sum"], tree["x/igc"].sum("feature") + tree["x1/igc"].sum(("height", "width")), 1e-13)


def test_inputs_without_feature_dimensions() -> None:
    """Scalar inputs, one number per sample."""
    model = models.Function(lambda x, z: torch.stack([x * z, x + torch.sin(z)], 1))
    xs, y = models.data(model, 7, ((), ()))
    tree = run(model, (xs, y), samples=True)
    expect(tree, model, xs, y, oracle.shared([(np.zeros(()), np.zeros(()))], 7))


@pytest.mark.parametrize("method", ["gradients", "gradient_x_input"])
def test_other_attributors_equal_their_oracle(method: str) -> None:
    """Gradients and gradient times input per sample, folded by the same statistics."""
    model, x, y = mlp()
    tree = run(model, (x, y), method=method, samples=True)
    twin = {"gradients": oracle.gradients, "gradient_x_input": oracle.gradients_x_input}[method]
    (a,), r = twin(model, (x.numpy(),), [0, 1]), oracle.predictions(model, (x.numpy(),), [0, 1])
    name = {"gradients": "gradient"}.get(method, method)
    assert_close(tree["samples/x/attribution"], a)
    assert_close(tree[f"x/{name}_correlation"], statistics.igc(a, y.numpy(), r), 1e-11)
    assert_close(tree[f"x/{name}_std"], statistics.attribution_std(a), 1e-11)
    assert not [
        label for label in tree.data_vars if label.endswith("_sum")
    ]  # not complete: a sum over features would mean nothing


def test_statistics_together_equal_statistics_alone() -> None:
    """From one pass, bit for bit: asking for more changes nothing of the rest."""
    model, x, y = mlp()
    together = run(model, (x, y), baseline=2)
    for name, maps in {"correlation": ["igc"], "autocorrelation": ["igac"], "moments": ["ig_mean", "ig_std"]}.items():
        alone = run(model, (x, y), baseline=2, statistics=[name])
        for label in [label for m in maps for label in (f"x/{m}", f"x/{m}_se")] + [
            "correlation",
            "correlation_se",
            "baseline_term",
        ]:
            assert alone[label].values.tobytes() == together[label].values.tobytes(), label
    with_samples = run(model, (x, y), baseline=2, samples=True)
    assert with_samples["x/igc"].values.tobytes() == together["x/igc"].values.tobytes()


def test_selected_outputs_equal_those_of_all() -> None:
    """A selection in any order gives the rows of the whole, labelled."""
    model, x, y = mlp()
    whole = run(model, (x, y))
    for target in (1, [1, 0], igc_dist.Targets(outputs=(1,), names=("one",))):
        found = run(model, (x, y), target=target)
        rows = [1, 0] if target == [1, 0] else [1]
        assert_close(found["x/igc"], whole["x/igc"].values[rows])
        assert found["output"].values.tolist() == (["one"] if isinstance(target, igc_dist.Targets) else rows)


def test_integer_labels_are_one_hot() -> None:
    """Labels equal the one-hot table that they stand for, bit for bit."""
    model, x, _ = mlp()
    label = torch.arange(N) % 2
    table = torch.nn.functional.one_hot(label, 2).double()
    expected = run(model, (x, table))
    for y, target in ((label, None), (label, "one_hot"), (label.int()[:, None], "one_hot")):
        assert run(model, (x, y), target=target)["x/igc"].values.tobytes() == expected["x/igc"].values.tobytes()


class Module(lightning.LightningDataModule):
    """The data behind one stage of a LightningDataModule; the loader shuffles, drops and batches, which must not
    matter."""

    def __init__(self, stage: str, dataset: Any) -> None:
        super().__init__()
        self.wanted, self.dataset, self.steps = stage, dataset, []

    def prepare_data(self) -> None:
        self.steps.append("prepare")

    def setup(self, stage: str) -> None:
        self.steps.append(stage)

    def loader(self) -> Any:
        return DataLoader(self.dataset, batch_size=4, shuffle=True, drop_last=True)


def test_all_kinds_of_data_give_the_same_bits() -> None:
    """A dataset, a list, arrays, a DataLoader and a LightningDataModule; in this process or two workers."""
    model, x, y = mlp()
    dataset = TensorDataset(x, y)
    expected = run(model, dataset, samples=True)["x/igc"].values.tobytes()
    module = Module("val", dataset)
    module.val_dataloader = module.loader  # type: ignore[method-assign]
    kinds = [
        [(x[n].numpy(), y[n].numpy()) for n in range(N)],
        (x.numpy(), y.numpy()),
        DataLoader(dataset, batch_size=4, shuffle=True, drop_last=True),
    ]
    for data in kinds:
        assert run(model, data)["x/igc"].values.tobytes() == expected
    assert run(model, module, stage="val")["x/igc"].values.tobytes() == expected
    assert module.steps == ["prepare", "validate"]
    assert run(model, dataset, num_workers=2)["x/igc"].values.tobytes() == expected


def test_same_seed_same_bits_and_other_seed_other_draws() -> None:
    """Two runs of one seed are equal to the bit; the seed moves resampled baselines, and folds, but no result of fixed
    baselines."""
    model, x, y = mlp()
    one, again, other = (run(model, (x, y), baseline=baselines.Resampled(3), seed=seed) for seed in (1, 1, 2))
    for name in ("x/igc", "x/igc_se", "x/ig_std", "correlation_se"):
        assert one[name].values.tobytes() == again[name].values.tobytes()
    assert np.abs(one["x/igc"] - other["x/igc"]).max() > 1e-3
    fixed = [run(model, (x, y), seed=seed)["x/igc"] for seed in (1, 2)]
    assert_close(fixed[0], fixed[1])


def test_store_on_disk_equals_memory(tmp_path: Any) -> None:
    """The tree of a run without a store, of one with a store, and of `open` are the same to the bit, samples in data
    order."""
    model, x, y = mlp()
    memory = run(model, (x, y), samples=True)
    disk = run(model, (x, y), samples=True, store=tmp_path / "store.zarr")
    opened = igc_dist.open(tmp_path / "store.zarr")
    for name in ("x/igc", "x/igc_se", "samples/x/attribution", "samples/index", "correlation"):
        for other in (disk, opened):
            assert memory[name].values.tobytes() == other[name].values.tobytes(), name


def test_precisions_agree() -> None:
    """float32, 64-true and bf16-mixed of one float32 model: near each other, in their order, and float64 sums
    throughout."""
    model = models.mlp(torch.nn.GELU).float()
    x, y = models.data(models.mlp(torch.nn.GELU), N)
    found = {p: run(model, (x.float(), y), precision=p)["x/igc"] for p in ("64-true", "32-true", "bf16-mixed")}
    assert all(table.dtype == np.float64 for table in found.values())
    single, half = (float(np.abs(found[p] - found["64-true"]).max()) for p in ("32-true", "bf16-mixed"))
    assert 0 < single < 1e-5
    assert single < half < 0.05
    assert next(model.parameters()).dtype is torch.float32
