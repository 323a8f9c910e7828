"""Two small networks for `Scenes`, one that has learnt the shortcut and one that has not.

`train_scene_nets.py` makes their weights, which ship beside this file.
"""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from igc_dist.demo.scenes import OBJECTS

NETS = {"shortcut": 0.9, "clean": 0.5}
"""The strength of the shortcut in the scenes that each network was trained with; 0.5 is none."""


def weights_of(name: str) -> Path:
    return Path(__file__).with_name(f"scenes_{name}.safetensors")


class SceneNet(nn.Module):
    """Three convolutions with ReLU, 16 x 16 to 8 x 8, and the mean over what is left; returns logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, kernel_size=4, stride=4),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, kernel_size=3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, len(OBJECTS))

    def forward(self, x: Float[Tensor, "n 3 64 64"]) -> Float[Tensor, "n 3"]:
        return self.head(self.body(x - 0.5).mean((2, 3)))


def scene_net(trained: str = "shortcut") -> SceneNet:
    """The network `trained` with the "shortcut", or "clean", in evaluation mode. Raises ValueError for others."""
    if trained not in NETS:
        raise ValueError(f"trained={trained!r}: choose one of {', '.join(NETS)}")
    model = SceneNet()
    model.load_state_dict(load_file(weights_of(trained)))
    return model.eval()
