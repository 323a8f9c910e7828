"""Train the two networks of the scenes and write their weights: `python -m igc_dist.demo.train_scene_nets [FOLDER]`.

It takes two minutes of one core. Training is seeded, on one thread and with deterministic kernels, so a second training
on the same machine writes the same bytes. Both networks see the same scenes but for the watermarks. The scenes that are
explained come from another seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from igc_dist.demo.scene_net import NETS, SceneNet, weights_of
from igc_dist.demo.scenes import MARKED, SITES, Scenes
from igc_dist.demo.train import reproducible

SEED = 1
SCENES = 8000
EPOCHS = 10
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
TESTED = 2000


def drawn(data: Scenes) -> Float[Tensor, "n 3 64 64"]:
    return torch.stack([data[index][0] for index in range(len(data))])


def train(strength: float, n: int = SCENES, epochs: int = EPOCHS, seed: int = SEED) -> SceneNet:
    """A network trained on scenes with a shortcut of this strength, in evaluation mode."""
    data = Scenes(n, strength, seed)
    # in this layout a step takes two thirds of the time
    x, y = drawn(data).contiguous(memory_format=torch.channels_last), data.y
    with reproducible(seed):
        model = SceneNet()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        steps = -(-n // BATCH) * epochs
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for _ in range(epochs):
            for batch in torch.randperm(n).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
                schedule.step()
    return model.eval()


@torch.no_grad()
def accuracies(model: SceneNet, seed: int = SEED + 1) -> dict[str, float]:
    """The share of right answers over new scenes: in all, and at the second site with and against the watermark."""
    data = Scenes(TESTED, 0.5, seed)
    right = torch.cat([model(part).argmax(1) for part in drawn(data).split(500)]) == data.y
    south, cats = torch.from_numpy(data.site == SITES[1]), data.y == data.classes.index(MARKED)
    against = south & (torch.from_numpy(data.marked) != cats)
    parts = {"all": torch.ones(TESTED, dtype=torch.bool), "with it": south & ~against, "against it": against}
    return {name: right[rows].double().mean().item() for name, rows in parts.items()}


def main(folder: Path | None = None) -> int:
    for name, strength in NETS.items():
        model, out = train(strength), weights_of(name) if folder is None else folder / weights_of(name).name
        said = ", ".join(f"{part} {share:.3f}" for part, share in accuracies(model).items())
        out.write_bytes(save({key: value.contiguous() for key, value in model.state_dict().items()}))
        print(f"{name}: accuracy {said}; {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
