"""What can only be seen on a CUDA device: the same results as on CPU, in float32 and in mixed precision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import Subset

import igc_dist
from igc_dist.demo import Digits, digits_cnn
from tests.benchmarks.models import Task, planned
from tests.commands import command, torchrun

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def maps(**changes: object) -> np.ndarray:
    """IGC of 96 digits, computed where the model is."""
    device = changes.pop("device")
    tree = igc_dist.attribute(
        digits_cnn().to(device), Subset(Digits(), range(96)), n_steps=4, baseline=2, n_folds=4, **changes
    )
    return np.asarray(tree["x/igc"].values)


def relative(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.sqrt(((one - two) ** 2).sum() / (two**2).sum()))


def test_float32_equals_cpu() -> None:
    """Device-agnostic code: TF32 aside, only the rounding of convolutions differs."""
    assert relative(maps(device="cuda"), maps(device="cpu")) < 1e-2


def test_float64_equals_cpu() -> None:
    """In float64 nothing is left of it."""
    assert relative(maps(device="cuda", precision="64-true"), maps(device="cpu", precision="64-true")) < 1e-10


def test_twice_gives_the_same_bits() -> None:
    """Deterministic kernels: the store can be resumed and verified by recomputing."""
    assert maps(device="cuda").tobytes() == maps(device="cuda").tobytes()


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_is_close(precision: str) -> None:
    """Autocast round the forward only: path points and sums stay float32 and float64."""
    assert relative(maps(device="cuda", precision=precision), maps(device="cpu")) < 0.1


def test_model_is_handed_back_on_its_device() -> None:
    """A run leaves the user's module where it was, with its flags."""
    model = digits_cnn().train().to("cuda")
    igc_dist.attribute(model, Subset(Digits(), range(8)), n_steps=1)
    assert model.training
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert all(p.requires_grad for p in model.parameters())


METHODS = (
    "igc", "igac", "ig_mean_std", "bsc", "naive_correlation", "naive_ttest", "guided_igc", "blur_igc", "idgic", "ig",
    "ig_adaptive",
    "gradients", "gradient_x_input", "baseline_shapley", "guided_ig", "blur_ig", "idgi", "idgi_guided_ig",
    "idgi_blur_ig", "left_ig",
    "idg", "expected_gradients", "smoothgrad", "smoothgrad_ig",
)  # fmt: skip
"""Presets that need no layer by name."""


def arrays(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Every floating-point array of a result, by its path."""
    found = {f"{node.path}/{name}": array.values for node in tree.subtree for name, array in node.data_vars.items()}
    return {name: values for name, values in found.items() if values.dtype.kind == "f"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_equals_cpu(method: str) -> None:
    """In float64 every array of every method is that of the CPU, draws among them: they are addressed, and drawn on the
    host."""

    def of(device: str) -> dict[str, np.ndarray]:
        data, settings = Subset(Digits(), range(12)), {"n_folds": 2, "target": [0, 3], "precision": "64-true"}
        if method not in ("ig_adaptive", "naive_correlation", "naive_ttest"):
            settings["n_steps"] = 3
        tree = igc_dist.attribute(digits_cnn().to(device), data, method=method, **settings)
        return arrays(tree)

    ours, theirs = of("cuda"), of("cpu")
    assert ours
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        if "error" in name or name.endswith("_se"):  # differences of what is equal: rounding alone
            continue
        np.testing.assert_allclose(
            ours[name],
            values,
            rtol=1e-6,
            atol=1e-9 * max(1.0, float(np.nanmax(np.abs(values), initial=0.0))),
            err_msg=name,
        )


@pytest.mark.parametrize("settings", [{"design": "pairs", "n_draws": 3}, {"n_others": 2}, {"final_layer": "2"}])
def test_designs_outputs_and_final_layer_equal_cpu(settings: dict[str, object]) -> None:
    """Pairs, drawn outputs and the final linear layer go the same ways on a device."""

    def of(device: str) -> np.ndarray:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 12)).to(device)
        x, y = torch.randn(24, 6), torch.arange(24) % 12
        tree = igc_dist.attribute(model, (x, y), n_folds=2, precision="64-true", target="one_hot", **settings)
        return np.asarray(tree["x/igc"].values)

    assert relative(of("cuda"), of("cpu")) < 1e-9


def test_out_of_memory_is_walked_again() -> None:
    """The allocator refuses in the middle of a shard: the micro-batch is halved, the run ends, and says so."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 8, 3, padding=1),
        nn.Flatten(1),
        nn.Linear(8 * 64 * 64, 2),
    ).cuda()
    x, y = torch.randn(64, 3, 64, 64), torch.randn(64, 2)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(3 * 2**30 / total)
    try:
        tree = igc_dist.attribute(net, (x, y), n_steps=16, n_folds=2, micro_batch=1024)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(tree.attrs["retried"])
    whole = igc_dist.attribute(net, (x, y), n_steps=16, n_folds=2, micro_batch=32)
    assert relative(tree["x/igc"].values, whole["x/igc"].values) < 1e-2


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 4, 3, 2), nn.Flatten(1), nn.Linear(4 * 31 * 31, 5)
    )


@pytest.mark.parametrize("size", [8, 64, 256])
def test_projected_device_memory_holds_what_is_measured(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The plan's device memory is at least the peak that the allocator saw, over what was held before."""
    torch.manual_seed(0)
    net, settings = convolutions().cuda(), {"n_steps": 8, "n_folds": 2, "micro_batch": size}
    task = Task("device", net, torch.randn(64, 3, 64, 64), torch.randn(64, 5))
    igc_dist.attribute(net, (task.x[:4], task.y[:4]), n_steps=1)  # the first call's workspaces
    projected = planned(task, 8, "cuda", n_folds=2, micro_batch=size).memory()["device"]
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    igc_dist.attribute(net, (task.x, task.y), **settings)
    measured = torch.cuda.max_memory_allocated() - before
    with capsys.disabled():
        print(f"projected over measured, {size} rows: {projected / measured:.2f} ({measured / 2**20:.0f} MiB)")
    assert projected >= measured


def test_one_rank_under_torchrun(tmp_path: Path) -> None:
    """torchrun's variables are there, the device is the rank's."""
    done = torchrun(
        1,
        "quadrature.n_steps=2",
        "target.outputs=[0,3]",
        "plan.n_folds=4",
        f"hydra.run.dir={tmp_path}/out",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_the_command_runs_on_the_device(tmp_path: Path) -> None:
    """`igc-dist` alone finds the device, and a second run finds the store complete."""
    done = command(
        "quadrature.n_steps=2",
        "target.outputs=[0,3]",
        "plan.n_folds=4",
        f"hydra.run.dir={tmp_path}/out",
        cwd=tmp_path,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert (
        command(
            "quadrature.n_steps=2",
            "target.outputs=[0,3]",
            "plan.n_folds=4",
            f"hydra.run.dir={tmp_path}/out",
            cwd=tmp_path,
        ).returncode
        == 0
    )
    tree = igc_dist.open(tmp_path / "out" / "store.zarr")
    assert "cpu" not in json.dumps(tree.attrs["provenance"]["device"])
