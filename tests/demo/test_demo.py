"""The embedded demo: the data are what they claim, the shipped weights are good, and training is reproducible."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from igc_dist.demo import Digits, DigitsCNN, digits_cnn
from igc_dist.demo.digits import WEIGHTS, digits_table, split
from igc_dist.demo.train import REQUIRED_ACCURACY, accuracy, main, moved, train


@pytest.fixture(scope="module")
def data() -> Digits:
    return Digits()


def test_the_file_is_what_the_library_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read with or without importing scikit-learn, the digits are the same."""
    read = digits_table()
    monkeypatch.setattr("igc_dist.demo.digits.find_spec", lambda name: None)
    assert (digits_table() == read).all()
    assert read.shape == (1797, 65)


def test_digits_shapes_and_ranges(data: Digits) -> None:
    assert len(data) == 1797
    x, y = data[0]
    assert (x.shape, x.dtype) == ((1, 8, 8), torch.float32)
    assert (y.shape, y.dtype) == ((10,), torch.float32)
    assert (data.x.min().item(), data.x.max().item()) == (0.0, 1.0)
    assert torch.equal(data.y.sum(1), torch.ones(1797))
    assert y.argmax().item() == 0  # the data set counts 0, 1, 2, ... at its start
    assert sum(1 for _ in data) == 1797  # ends with an IndexError, as a sequence does


def test_split_is_a_fixed_partition(data: Digits) -> None:
    chosen, held_out = split(len(data))
    assert len(held_out) == len(data) // 5
    assert torch.equal(torch.cat([chosen, held_out]).sort().values, torch.arange(len(data)))
    assert all(torch.equal(a, b) for a, b in zip((chosen, held_out), split(len(data)), strict=True))
    assert set(data.y[held_out].argmax(1).tolist()) == set(range(10))


def test_shipped_weights_classify_the_held_out_fifth(data: Digits) -> None:
    model = digits_cnn()
    assert not model.training
    assert accuracy(model, data, split(len(data))[1]) > REQUIRED_ACCURACY


def test_shipped_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 400_000
    assert 20_000 <= sum(p.numel() for p in DigitsCNN().parameters()) <= 60_000


def bits(model: DigitsCNN) -> dict[str, Tensor]:
    return {name: value.view(torch.int32) for name, value in model.state_dict().items()}


def test_training_is_deterministic_and_leaves_no_trace() -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    first = bits(train(epochs=1))
    torch.rand(3)  # a different state of the global generator must not matter
    second = bits(train(epochs=1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[1:]
    torch.set_rng_state(before[0])
    other = bits(train(epochs=1, seed=1))
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), before[0])


def test_moved_images_are_shifted_by_at_most_one_pixel(data: Digits) -> None:
    x = data.x[:64]
    shifts = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    candidates = [padded[:, :, 1 + i : 9 + i, 1 + j : 9 + j] for i, j in shifts]
    result = moved(x)
    assert torch.stack([(result == c).flatten(1).all(1) for c in candidates]).any(0).all()
    assert not torch.equal(result, x)


def test_a_poor_training_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("igc_dist.demo.train.train", lambda: DigitsCNN().eval())
    out = tmp_path / "weights.safetensors"
    assert main(out) == 1
    assert not out.exists()
    assert "must exceed" in capsys.readouterr().err
