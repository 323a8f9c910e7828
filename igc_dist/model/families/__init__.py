"""Families of models: each builds a `Vision` from a name and a file of weights.

A family says what its models take (size, crop, mean, std), what their outputs are called, and which layer is the last
linear one. Weights are numbers from a file and are never fetched.
"""

from igc_dist.model.families.clip import clip
from igc_dist.model.families.listing import FAMILIES, listed
from igc_dist.model.families.own import lightning_checkpoint, module
from igc_dist.model.families.timm import timm
from igc_dist.model.families.torchvision import torchvision
from igc_dist.model.families.transformers import transformers

__all__ = ["FAMILIES", "clip", "lightning_checkpoint", "listed", "module", "timm", "torchvision", "transformers"]
