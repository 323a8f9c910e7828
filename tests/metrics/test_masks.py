"""The pointing game and the overlap with masks: literal twins and known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from igc_dist.metrics import Overlap, PointingGame, score
from igc_dist.records import ConfigError

N, J, H, W = 4, 2, 5, 6
DRAWS = np.random.default_rng(0)
MAPS = DRAWS.integers(-3, 5, size=(N, J, 1, H, W)).astype(float)  # with ties
MASKS = DRAWS.uniform(size=(N, H, W)) < 0.1
MASKS[0].flat[MAPS[0, 0].argmax()] = True
MASKS[3] = False
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(H * W, J))
DATA = (torch.zeros(N, 1, H, W), torch.zeros(N))


@pytest.mark.parametrize("tolerance", [0, 1])
def test_the_pointing_game_equals_its_literal_twin(tolerance: int, tmp_path: Path) -> None:
    np.save(tmp_path / "masks.npy", MASKS)
    given: Any
    for size, given in ((1, MASKS), (64, torch.as_tensor(MASKS)), (7, str(tmp_path / "masks.npy"))):
        found = score(NET, DATA, MAPS, [PointingGame(masks=given, tolerance=tolerance)], batch_size=size)
        for n, j in np.ndindex(N - 1, J):
            flat = MAPS[n, j, 0].ravel().tolist()
            h, w = divmod(flat.index(max(flat)), W)
            near = [MASKS[n, a, b] for a in range(H) for b in range(W) if (a - h) ** 2 + (b - w) ** 2 <= tolerance**2]
            assert found["pointing_game"][n, j].item() == float(any(near))
        assert found["pointing_game"][3].isnull().all()
        assert found["pointing_game_n"].values.tolist() == [3, 3]
    assert found["pointing_game"][0, 0] == 1
    assert (found["pointing_game"] == 0).any()


@pytest.mark.parametrize("rank", ["signed", "absolute"])
def test_the_overlap_equals_its_literal_twin(rank: str) -> None:
    found = score(NET, DATA, MAPS, [Overlap(masks=MASKS, rank=rank)])
    for n, j in np.ndindex(N - 1, J):
        a, mask = MAPS[n, j, 0].ravel(), MASKS[n].ravel()
        a = np.abs(a) if rank == "absolute" else a
        inside = [v for v, m in zip(a, mask, strict=True) if m]
        outside = [v for v, m in zip(a, mask, strict=True) if not m]
        mass = sum(v for v in inside if v > 0) / sum(v for v in a if v > 0)
        top = sorted(range(H * W), key=lambda i: (-a[i], i))[: len(inside)]
        pairs = [(p > q) + 0.5 * (p == q) for p in inside for q in outside]
        is_ = [mass, np.mean([mask[i] for i in top]), np.mean(pairs)]
        got = [found[name][n, j].item() for name in ("overlap", "overlap_rank", "overlap_auc")]
        np.testing.assert_allclose(got, is_, rtol=1e-12)
    assert found["overlap_auc"][3].isnull().all()


def test_a_map_that_is_its_mask_scores_one() -> None:
    found = score(NET, DATA, MASKS[:, None].astype(float), [Overlap(masks=MASKS)], target=0)
    for name in ("overlap", "overlap_rank", "overlap_auc"):
        assert found[name][:3].values.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: score(NET, DATA, MAPS, [PointingGame()]), "give masks"),
        (lambda: Overlap(masks="nowhere.npy"), "is no .npy file"),
        (lambda: score(NET, DATA, MAPS, [Overlap(masks=MASKS[:2])]), "masks of shape"),
        (lambda: score(NET, DATA, MAPS, ["overlap"]), "give masks"),
        (lambda: PointingGame(masks=MASKS, tolerance=-1), "tolerance=-1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(made: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made()
