"""The families with the real libraries, where these import: the same numbers as the library's own preprocessing.

torchvision from PyPI does not import beside a CPU build of torch, and timm and open_clip need it: skipped then.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import igc_dist
from igc_dist.data import Decoding

pytestmark = pytest.mark.filterwarnings("ignore")


def library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name} does not import here: {type(error).__name__}")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (60, 86, 3), dtype=np.uint8)
    Image.fromarray(values).resize((333, 270)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def saved(net: Any, path: Path) -> str:
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return str(path)


def seen(vision: Any, photo: Path) -> torch.Tensor:
    """What the model makes of a photograph that is decoded as it says."""
    takes = {name: value for name, value in vision.takes.items() if name != "classes"}
    with torch.no_grad():
        made = vision.eval()(Decoding(**takes)(photo)[None])
    return made if isinstance(made, torch.Tensor) else made.logits


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "efficientnet_lite0"])
def test_timm(name: str, photo: Path, tmp_path: Path) -> None:
    timm = library("timm")
    net = timm.create_model(name).eval()
    vision = igc_dist.models.timm(name, saved(net, tmp_path / "net.safetensors"))
    own = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    torch.testing.assert_close(seen(vision, photo), net(own(Image.open(photo))[None]).detach(), atol=1e-5, rtol=1e-4)
    assert vision.classes is not None
    assert vision.classes[207] == "golden retriever"
    assert dict(vision.named_modules())[str(vision.final_layer)] is vision.net.get_classifier()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_torchvision(name: str, photo: Path, tmp_path: Path) -> None:
    models = library("torchvision.models")
    net = models.get_model(name).eval()
    vision = igc_dist.models.torchvision(name, saved(net, tmp_path / "net.safetensors"))
    own = models.get_model_weights(name).DEFAULT.transforms()
    torch.testing.assert_close(seen(vision, photo), net(own(Image.open(photo))[None]).detach(), atol=1e-5, rtol=1e-4)
    assert vision.classes is not None
    assert vision.classes[207] == "golden retriever"


def test_transformers(photo: Path, tmp_path: Path) -> None:
    library("transformers")
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor  # type: ignore[import-not-found]

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    net = ViTForImageClassification(ViTConfig(**small, image_size=32, patch_size=8, id2label={0: "cat", 1: "dog"}))
    net.eval().save_pretrained(tmp_path)
    own = ViTImageProcessor(size={"height": 32, "width": 32})
    own.save_pretrained(tmp_path)
    vision = igc_dist.models.transformers(str(tmp_path))
    expected = net(**own(Image.open(photo), return_tensors="pt")).logits.detach()
    torch.testing.assert_close(seen(vision, photo), expected, atol=1e-3, rtol=0)  # it may resize with torchvision
    assert (vision.classes, vision.final_layer) == (["cat", "dog"], "net.classifier")


def test_open_clip(photo: Path, tmp_path: Path) -> None:
    library("torchvision")
    open_clip = library("open_clip")
    net, _, own = open_clip.create_model_and_transforms("ViT-B-32")
    vision = igc_dist.models.clip("ViT-B-32", saved(net.eval(), tmp_path / "net.safetensors"), classes=["cat", "dog"])
    words = open_clip.get_tokenizer("ViT-B-32")(["a photo of a cat.", "a photo of a dog."])
    with torch.no_grad():
        image, text, scale = net(own(Image.open(photo))[None], words)[:3]
    torch.testing.assert_close(seen(vision, photo), scale * image @ text.T, atol=1e-4, rtol=1e-4)
