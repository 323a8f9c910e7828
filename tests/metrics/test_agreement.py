"""The same maps by Captum and Quantus (extra `bench`): equal to 1e-4 where the definition is shared; where Quantus'
differs, each test says how."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from igc_dist import seeds
from igc_dist.metrics import Deletion, Infidelity, MaxSensitivity, Overlap, PointingGame, Road, score
from igc_dist.metrics.road import imputed

N, J, H, W = 6, 3, 8, 8
PIXELS = H * W
DRAWS = np.random.default_rng(3)
X, BASE = (torch.as_tensor(DRAWS.normal(size=(N, 1, H, W)), dtype=torch.float32) for _ in range(2))
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(PIXELS, 8), torch.nn.Tanh(), torch.nn.Linear(8, J)).eval()
for weights in NET.parameters():
    weights.data = torch.as_tensor(DRAWS.normal(size=weights.shape) / 2, dtype=torch.float32)
DATA = (X, torch.zeros(N))
LABELS = NET(X).argmax(1)
"""The predictions, which are what the maps explain."""
MAPS = DRAWS.normal(size=(N, 1, H, W))
INSIDE = DRAWS.random((N, H, W)) < 0.3


def gradient(x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = NET(x).gather(1, output[:, None]).sum()
    return torch.autograd.grad(total, x)[0]


GRADIENTS = gradient(X, LABELS)


def ours(metric: Any, maps: Any = MAPS, **settings: Any) -> dict[str, np.ndarray]:
    found = score(NET, DATA, maps, {"m": metric}, target=LABELS, **settings)
    return {str(name): values.values for name, values in found.items()}


def theirs(name: str, maps: np.ndarray = MAPS, masks: np.ndarray | None = None, **settings: Any) -> np.ndarray:
    """The scores of Quantus' class of this name, of maps as they are. `explain` is a function of x."""
    quantus = pytest.importorskip("quantus", exc_type=ImportError)
    call = {key: settings.pop(key) for key in ("softmax", "explain_func") if key in settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = getattr(quantus, name)(abs=False, normalise=False, disable_warnings=True, **settings)
        found = metric(
            model=NET,
            x_batch=X.numpy(),
            y_batch=LABELS.numpy(),
            a_batch=maps.astype(np.float64),
            s_batch=None if masks is None else masks[:, None],
            channel_first=True,
            batch_size=N,
            **call,
        )
    return np.asarray(found)


def close(one: Any, other: Any) -> None:
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def noise(metric: Any, draw: int) -> torch.Tensor:
    """Our perturbations of a draw, for all samples."""
    shape = X.shape[1:]
    rows = [
        0.1 * some.standard_normal(shape) if metric.name == "infidelity" else some.uniform(-0.1, 0.1, shape)
        for some in (seeds.generator(0, n, metric.name, draw) for n in range(N))
    ]
    return torch.as_tensor(np.array(rows), dtype=torch.float32)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kind", ["noise", "baseline"])
def test_infidelity_is_captums(kind: str, scaled: bool) -> None:
    """Of a local map, and of a global one: Captum wants I / (x - x0) of that, and ours divides the map."""
    captum = pytest.importorskip("captum.metrics")
    for times in (False, True):
        metric = Infidelity(draws=4, perturbation=kind, multiply_by_inputs=times, scaled=scaled)
        moves = torch.stack([noise(metric, draw) for draw in range(4)], 1) + (kind == "baseline") * (X - BASE)[:, None]

        def perturbed(x: torch.Tensor, base: torch.Tensor, times: bool = times, moves: torch.Tensor = moves) -> Any:
            move = moves.flatten(0, 1)
            return (move / (x - base) if times else move), x - move

        maps = GRADIENTS * (X - BASE if times else 1)
        expected = captum.infidelity(
            NET, perturbed, X, maps, baselines=BASE, target=LABELS, n_perturb_samples=4, normalize=scaled
        )
        close(ours(metric, maps, baseline=BASE)["m"], expected)


def test_max_sensitivity_is_that_of_captum_and_of_quantus() -> None:
    metric = MaxSensitivity(draws=4, radius=0.1)
    moves = [noise(metric, draw) for draw in range(4)]
    found = ours(metric, GRADIENTS, explain=gradient)["m"]

    def explain(model: Any, inputs: Any, targets: Any, **rest: Any) -> np.ndarray:
        return gradient(torch.as_tensor(inputs, dtype=torch.float32), torch.as_tensor(targets)).numpy()

    left = iter(moves)
    close(found, theirs(
        "MaxSensitivity", GRADIENTS.numpy(), nr_samples=4, explain_func=explain,
        perturb_func=lambda arr, indices, **rest: arr + next(left).flatten(1).numpy(),
    ))  # fmt: skip
    captum = pytest.importorskip("captum.metrics")
    close(found, captum.sensitivity_max(
        lambda x, target: (gradient(x[0] if isinstance(x, tuple) else x, target),), X, target=LABELS,
        n_perturb_samples=4, perturb_func=lambda x: x + torch.stack(moves, 1).flatten(0, 1),
    ))  # fmt: skip


def test_deletion_is_pixel_flipping_from_its_second_point_on() -> None:
    """Quantus' curve lacks f(x). Its area lacks that point too, is not divided by the number of points, and NumPy has
    no `trapz` any more: it is not compared. Its "black" is the smallest value of an image, and not 0."""
    for of, softmax in (("probability", True), ("logit", False)):
        found = ours(Deletion(pixels=4, of=of))["m_curve"]
        flipped = theirs("PixelFlipping", features_in_step=4, perturb_baseline=0.0, softmax=softmax)
        assert found.shape == (N, 17)
        close(found[:, 1:], flipped)


def test_infidelity_is_that_of_quantus_for_one_patch() -> None:
    """Quantus' patches go one after the other and are never put back, so that its perturbations grow to the whole
    image: one patch of the whole image is where both definitions meet. It takes ``<I, a>`` of the map as it is."""
    found = ours(Infidelity(draws=1, perturbation="baseline", noise=0.0, multiply_by_inputs=False), baseline=0.0)["m"]
    close(found, theirs("Infidelity", perturb_patch_sizes=[H], perturb_baseline=0.0, n_perturb_samples=1))
    patches = theirs("Infidelity", perturb_patch_sizes=[H // 2], perturb_baseline=0.0, n_perturb_samples=1)
    kept, changes = torch.ones(4, H, W), []
    for patch in range(4):
        for later in kept[patch:]:
            later[patch // 2 * 4 :][:4, patch % 2 * 4 :][:, :4] = 0
    for mask in kept:
        change = (NET(X) - NET(X * mask)).gather(1, LABELS[:, None])[:, 0].detach()
        changes.append((change - (X * (1 - mask) * torch.as_tensor(MAPS)).sum((1, 2, 3))) ** 2)
    close(patches, torch.stack(changes).mean(0))


def test_sparseness_is_quantus_sparseness_and_its_entropy_the_complexity() -> None:
    """Of positive maps: Quantus' complexity of signed ones is the logarithm of negative numbers, NaN."""
    maps = np.abs(MAPS)
    found = ours("sparseness", maps)
    close(found["m"], theirs("Sparseness", maps))
    close(found["m_entropy"], theirs("Complexity", maps))
    with np.errstate(invalid="ignore"):
        assert np.isnan(theirs("Complexity", MAPS)).all()
    assert np.isfinite(ours("sparseness")["m_entropy"]).all()


def test_the_pointing_game_is_that_of_quantus() -> None:
    """But for an empty mask, which Quantus counts as a hit: its NaN becomes True in an array of booleans."""
    masks = INSIDE.copy()
    masks[0] = False
    found, hits = ours(PointingGame(masks=masks))["m"], theirs("PointingGame", masks=masks)
    close(found[1:], hits[1:])
    assert 0 < found[1:].sum() < N - 1
    assert np.isnan(found[0])
    assert hits[0] == 1


def test_overlap_is_quantus_mass_and_rank_accuracy_and_auc() -> None:
    """The mass is that of positive values: Quantus' divides by the signed sum, which may be near 0 or below it."""
    maps = np.abs(MAPS)
    found = ours(Overlap(masks=INSIDE), maps)
    close(found["m"], theirs("RelevanceMassAccuracy", maps, INSIDE))
    found = ours(Overlap(masks=INSIDE))
    close(found["m_rank"], theirs("RelevanceRankAccuracy", MAPS, INSIDE))
    close(found["m_auc"], theirs("AUC", MAPS, INSIDE))
    mass = theirs("RelevanceMassAccuracy", MAPS, INSIDE)
    assert (mass < 0).any() or (mass > 1).any()
    assert ((found["m"] >= 0) & (found["m"] <= 1)).all()


def test_road_is_that_of_quantus() -> None:
    """Quantus adds noise from numpy's global state: without it both fill in the same pixels. It takes the floor of a
    share of the pixels, ours rounds: whole numbers of them are where both agree."""
    shares = (0.25, 0.5, 0.75)
    found = ours(Road(shares=shares, noise=0.0))["m_curve"]
    known = list(theirs("ROAD", percentages=[25, 50, 75], noise=0.0).item().values())
    assert 0 < min(known) < max(known)
    close(found.mean(0), known)
    fill = pytest.importorskip("quantus.functions.perturb_func", exc_type=ImportError).noisy_linear_imputation
    for n in range(N):
        removed = INSIDE[n].ravel().nonzero()[0]
        close(imputed(X[n].double().numpy(), INSIDE[n]), fill(X[n].double().numpy(), removed, noise=0.0))
