"""Train the demo's network and write its weights: `python -m igc_dist.demo.train [OUT]`, some seconds on one core.

Training is seeded, on one thread and with deterministic kernels, so a second training on the same machine writes the
same bytes. The held-out fifth is used once, at the end: the settings below were chosen by cross-validation within the
other four fifths.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import save
from torch import Tensor, nn

from igc_dist.demo.digits import WEIGHTS, Digits, DigitsCNN, split

SEED = 0
EPOCHS = 40
BATCH = 32
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 5e-2
MOVES = ((0, 0), (0, 0), (0, 0), (0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))  # half of the images do not move
REQUIRED_ACCURACY = 0.97


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and a given seed; all settings are restored afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)  # the order of a sum over threads changes its last bits
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def moved(x: Float[Tensor, "batch 1 8 8"]) -> Float[Tensor, "batch 1 8 8"]:
    """The images, each moved by at most one pixel at random: 1,438 images are few, and a move keeps the label."""
    rows, columns = torch.tensor(MOVES)[torch.randint(len(MOVES), (len(x),))].unbind(1)
    image = torch.arange(len(x)).view(-1, 1, 1)
    row = (torch.arange(8) + 1 + rows.view(-1, 1)).unsqueeze(2)
    column = (torch.arange(8) + 1 + columns.view(-1, 1)).unsqueeze(1)
    return F.pad(x, (1, 1, 1, 1))[image, 0, row, column].unsqueeze(1)


def train(epochs: int = EPOCHS, seed: int = SEED) -> DigitsCNN:
    """A network trained on all but the held-out fifth, in evaluation mode."""
    data = Digits()
    chosen, _ = split(len(data))
    x, y = data.x[chosen], data.y[chosen]
    with reproducible(seed):
        model = DigitsCNN()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        for _ in range(epochs):
            for batch in torch.randperm(len(x)).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(moved(x[batch])), y[batch]).backward()
                optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Digits, indices: Int[Tensor, "samples"]) -> float:
    """The share of these samples whose largest logit is at their label."""
    return (model(data.x[indices]).argmax(1) == data.y[indices].argmax(1)).double().mean().item()


def main(out: Path = WEIGHTS) -> int:
    data = Digits()
    chosen, held_out = split(len(data))
    model = train()
    reached = accuracy(model, data, held_out)
    print(
        f"training accuracy {accuracy(model, data, chosen):.4f}, test accuracy {reached:.4f} on {len(held_out)} "
        "held-out images"
    )
    if reached <= REQUIRED_ACCURACY:
        print(f"test accuracy must exceed {REQUIRED_ACCURACY}: {out.name} is left as it was", file=sys.stderr)
        return 1
    out.write_bytes(save(model.state_dict()))  # save_file of safetensors makes a file that only its owner can read
    print(f"wrote {out.name}: {sum(p.numel() for p in model.parameters())} parameters, {out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
