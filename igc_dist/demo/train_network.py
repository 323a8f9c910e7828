"""Train the network of the benchmark and write its weights: `python -m igc_dist.demo.train_network [OUT]`.

It takes some minutes of one core. Training is seeded, on one thread and with deterministic kernels, so a second
training on the same machine writes the same bytes. Every image is new, so there is nothing to overfit; the images of
`Simulation` come from other generators.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from igc_dist.demo.network import NETWORK, SIDE, SimulationNet
from igc_dist.demo.spectrum import images
from igc_dist.demo.tasks import TASKS, Task
from igc_dist.demo.train import reproducible

SEED = 0
BATCH = 96
STEPS = 1200
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
TESTED = 4000


def losses(model: SimulationNet, tasks: dict[str, Task], draws: np.random.Generator) -> dict[str, Tensor]:
    """The loss of each task over one batch of new images: squared error, or cross-entropy for D."""
    x = images(draws, BATCH, SIDE)
    seen = model.body(x.contiguous(memory_format=torch.channels_last))
    found = {}
    for name, task in tasks.items():
        y, said = task.scaled(task.true(x, draws)), model.heads[name](seen)
        found[name] = F.cross_entropy(said, y) if name == "D" else F.mse_loss(said, y)
    return found


def train(steps: int = STEPS, seed: int = SEED, told: int = 250) -> SimulationNet:
    """A trained network, in evaluation mode; the losses are printed every `told` steps."""
    tasks: dict[str, Task] = {name: kind(SIDE) for name, kind in TASKS.items()}
    with reproducible(seed):
        # in this layout a step takes half the time: 7 x 7 of each channel has a slow gradient in the other
        draws, model = np.random.default_rng(seed), SimulationNet()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for step in range(steps):
            optimizer.zero_grad()
            found = losses(model, tasks, draws)
            torch.stack([*found.values()]).sum().backward()
            optimizer.step()
            schedule.step()
            if step % told == told - 1:
                print(step + 1, *(f"{name} {loss.item():.3f}" for name, loss in found.items()), flush=True)
    return model.eval()


@torch.no_grad()
def correlations(
    model: SimulationNet, task: str, seed: int = SEED + 1
) -> tuple[Float[Tensor, "J"], Float[Tensor, "J"]]:
    """The correlation of the network's outputs with the truth, and that of the statistic itself, over new images."""
    truth, draws = TASKS[task](SIDE), np.random.default_rng(seed)
    x = images(draws, TESTED, SIDE)
    y = truth.true(x, draws)

    def with_truth(said: Tensor) -> Tensor:
        return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(said.T, y.T, strict=True)])

    model.task = task
    return with_truth(torch.cat([model(part) for part in x.split(500)])), with_truth(truth(x))


def main(out: Path = NETWORK) -> int:
    model = train(STEPS)
    for task in TASKS:
        reached, possible = correlations(model, task)
        print(f"{task}: correlation with the truth {reached.mean():.3f}, of the statistic itself {possible.mean():.3f}")
    out.write_bytes(save({name: value.contiguous() for name, value in model.state_dict().items()}))
    print(f"wrote {out.name}: {sum(p.numel() for p in model.parameters())} parameters, {out.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
