"""Families of models by name: `igc_dist.models.timm("vit_base_patch16_224", weights="vit.safetensors")`.

Each function returns a `Vision`, which `igc_dist.attribute` takes as any other module; `takes` says what images are to
be: ``igc_dist.data.ImageFolder("photos", **vision.takes)``.
"""

from igc_dist.model import families

clip = families.clip
lightning_checkpoint = families.lightning_checkpoint
listed = families.listed
module = families.module
timm = families.timm
torchvision = families.torchvision
transformers = families.transformers
