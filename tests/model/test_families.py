"""Families of models: what they take, what their outputs are, and preprocessing inside of what is attributed."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import igc_dist
from igc_dist.cli import main
from igc_dist.model import Model, Vision, families, load_weights
from igc_dist.model.families.transformers import intake
from igc_dist.model.vision import Intake
from igc_dist.records import ConfigError, ModelError
from tests.model.nets import CLIP, NORMAL, SMALL, EfficientNetLite, ViT, clip_stand_in, stand_in


def images(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 16, 16, generator=draw), torch.arange(n) % 5


def saved(net: nn.Module, path: Path) -> str:
    save_file(net.state_dict(), path)
    return str(path)


# -- preprocessing -----------------------------------------------------------------------------------------------------


def test_attributions_are_of_pixels() -> None:
    """Of a linear model of normalised pixels, ``f = sum w (x - m) / s``: ``a = w x / s`` from black."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    (x, _), weight = images(), net[1].weight.detach().reshape(2, 3, 16, 16)
    tree = igc_dist.attribute(igc_dist.models.module(net, **NORMAL), (x, torch.zeros(6, 2)), method="ig", n_steps=1)
    expected = weight * x[:, None] / torch.tensor(NORMAL["std"]).reshape(3, 1, 1)
    np.testing.assert_allclose(tree["samples/x/attribution"].values, expected, atol=1e-6)


def test_channels_may_be_last_in_the_module() -> None:
    class Last(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, :, 0].mean((1, 2))

    x, _ = images()
    seen = igc_dist.models.module(Last(), layout="NHWC", **NORMAL)(x)
    torch.testing.assert_close(seen, (x[:, 0].mean((1, 2)) - 0.5) / 0.25)


@pytest.mark.parametrize("kind", SMALL)
def test_small_models_give_the_same_with_their_final_layer(kind: type[nn.Module]) -> None:
    """It is found by name, and gradients go to its latents; of a dict, the logits are meant without being told."""
    torch.manual_seed(0)
    vision, data = igc_dist.models.module(kind(), **NORMAL), images()
    settings: dict[str, Any] = {"n_steps": 3, "n_folds": 2, "target": "one_hot"}
    plain = igc_dist.attribute(vision, data, **settings)
    cut = igc_dist.attribute(vision, data, final_layer="auto", **settings)
    assert vision.final_layer in ("net.head", "net.fc", "net.classifier")
    np.testing.assert_allclose(cut["x/igc"], plain["x/igc"], atol=1e-5)
    assert Model(vision, final_layer="auto").final is not None


def test_what_is_last_is_found_or_asked_for() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    found = Model(net, final_layer="auto").final
    assert found is not None
    assert found.name == "2"
    with pytest.raises(ConfigError, match=r"final_layer=auto: ReLU has no nn\.Linear"):
        Model(nn.ReLU(), final_layer="auto")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"std": (0.0, 1.0, 1.0)}, r"std=\[0.0, 1.0, 1.0\].*above 0"), ({"mean": (1.0,)}, "one of each per channel"),
        ({"layout": "CHW"}, "choose NCHW"), ({"interpolation": "cubic"}, "choose one of bicubic"),
        ({"mena": 1}, "unknown argument 'mena'"),
    ],
)  # fmt: skip
def test_what_a_model_does_not_take(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        igc_dist.models.module(ViT(), **wrong)


def test_pixels_that_are_normalised_twice_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """In the data, by their range; or in the module, by its own mean and std."""
    (x, y), settings = images(), {"n_steps": 2, "n_folds": 2}
    net = ViT()
    with caplog.at_level(logging.WARNING):
        igc_dist.attribute(igc_dist.models.module(net, **NORMAL), (x, y), **settings)
        igc_dist.attribute(igc_dist.models.module(net), (4 * x - 2, y), **settings)
    assert not [text for text in caplog.messages if "pixels" in text]
    net.mean, net.std = torch.zeros(1), torch.ones(1)
    with caplog.at_level(logging.WARNING):
        igc_dist.attribute(igc_dist.models.module(net, **NORMAL), (4 * x - 2, y), **settings)
    assert [text for text in caplog.messages if "pixels run from -2 to 2, but the model takes 0 to 1" in text]
    assert [text for text in caplog.messages if "ViT has a mean and a std of its own (itself)" in text]


# -- weights -----------------------------------------------------------------------------------------------------------


def test_weights_of_another_architecture_are_told_by_name(tmp_path: Path) -> None:
    """The first five tensors that differ; and those of another size."""
    path = saved(EfficientNetLite(), tmp_path / "net.safetensors")
    with pytest.raises(ModelError, match=r"into ViT, they are of another.*: cls_token is missing; .*, and \d+ more"):
        load_weights(ViT(), path)
    with pytest.raises(
        ModelError, match=r": classifier\.weight is \(5, 8\), not \(7, 8\); classifier\.bias is"
    ) as told:
        load_weights(EfficientNetLite(n_outputs=7), path)
    assert str(told.value).count(";") == 1


def test_a_prefix_of_all_names_makes_no_difference(tmp_path: Path) -> None:
    """That a LightningModule gave; but not where the file has the module twice."""
    net, other = ViT(), ViT()
    state = {f"model.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": {**state, "loss.weight": torch.ones(3)}}, tmp_path / "last.ckpt")
    load_weights(other, str(tmp_path / "last.ckpt"))
    assert torch.equal(other.pos_embed, net.pos_embed)
    load_weights(nn.ModuleDict({"net": other}), saved(net, tmp_path / "net.safetensors"))
    torch.save({**state, **{f"teacher.{name}": value for name, value in net.state_dict().items()}}, tmp_path / "two.pt")
    with pytest.raises(ModelError, match=r"has the module 2 times, as model\., teacher\."):
        load_weights(other, str(tmp_path / "two.pt"))


def test_a_checkpoint_builds_its_module(tmp_path: Path) -> None:
    """From the class, by its hyper_parameters; or fills one that is built."""
    net = ViT(width=8)
    state = {f"net.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"width": 8}, "epoch": 3}, tmp_path / "last.ckpt")
    x, _ = images()
    for module in (ViT, ViT(width=8)):
        vision = igc_dist.models.lightning_checkpoint(module, str(tmp_path / "last.ckpt"), **NORMAL).eval()
        again = igc_dist.models.module(net.eval(), **NORMAL)
        torch.testing.assert_close(vision(x), again(x))
        assert vision.identity == {"family": "lightning_checkpoint", "name": "ViT"}
    torch.save({"state_dict": state, "hyper_parameters": {"wide": 8}}, tmp_path / "wrong.ckpt")
    with pytest.raises(ModelError, match=r"cannot be built from its hyper_parameters \(wide\): TypeError"):
        igc_dist.models.lightning_checkpoint(ViT, str(tmp_path / "wrong.ckpt"))


# -- families ----------------------------------------------------------------------------------------------------------


def test_a_model_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    path = saved(ViT(), tmp_path / "vit.safetensors")
    vision = igc_dist.models.timm("vit_mini", path, classes=["a", "b", "c", "d", "e"])
    assert vision.takes == {
        "size": (16, 16),
        "resize": math.floor(16 / 0.8),
        "interpolation": "bilinear",
        "classes": ["a", "b", "c", "d", "e"],
    }
    assert (vision.final_layer, vision.identity["name"]) == ("net.head", "vit_mini")
    tree = igc_dist.attribute(vision, images(), n_steps=2, n_folds=2, target=["c", 0])
    assert tree["output"].values.tolist() == ["c", "a"]


def test_names_that_are_unknown_list_the_near_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    with pytest.raises(ConfigError, match=r"'vit_mina' is no model of timm: near are vit_mini, convnext_mini\. "):
        igc_dist.models.timm("vit_mina")
    with pytest.raises(ConfigError, match=r"'hf-hub:org/net' is no model"):
        igc_dist.models.timm("hf-hub:org/net")
    with pytest.raises(ConfigError, match=r"option pretrained is not taken"):
        igc_dist.models.timm("vit_mini", pretrained=True)
    with pytest.raises(ConfigError, match=r"nowhere'.*local folder with config\.json"):
        igc_dist.models.transformers("nowhere")


def test_a_model_without_weights_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    with pytest.raises(ModelError, match=r"timm vit_mini has no weights: give their file \(model\.weights"):
        igc_dist.attribute(igc_dist.models.timm("vit_mini"), images())


def test_the_name_is_part_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Names of one library may have the same tensors and another function."""
    from igc_dist.job import describe

    stand_in(monkeypatch)
    path = saved(ViT(), tmp_path / "vit.safetensors")
    one, two = (describe(igc_dist.models.timm(name, path)) for name in ("vit_mini", "convnext_mini"))
    assert one != two
    assert {**one, "identity": two["identity"]} == two


def test_the_command_lists_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch)
    for words, said in ((["timm", "vit*"], "vit_mini\nvit_mini.of_nobody\n"), (["timm", "NEXT"], "convnext_mini\n")):
        with pytest.raises(SystemExit) as left:
            main.main(["models", *words])
        assert (left.value.code, capsys.readouterr().out) == (0, said)
    with pytest.raises(SystemExit):
        main.main(["models"])
    assert all(family in capsys.readouterr().out for family in ["timm"])
    with pytest.raises(ConfigError, match=r"model=tim is no family \(did you mean 'timm'\?\)"):
        families.listed("tim")
    with pytest.raises(ConfigError, match=r"model=transformers has no list of names: it takes a local folder"):
        families.listed("transformers")


VIT = {"do_resize": True, "size": {"height": 32, "width": 48}, "resample": 2, "image_mean": [0.5] * 3}


@pytest.mark.parametrize(
    ("said", "size", "resize", "interpolation"),
    [
        (VIT, (32, 48), "squash", "bilinear"),
        ({"size": 24, "resample": 3}, (24, 24), "squash", "bicubic"),
        ({"size": {"shortest_edge": 36}, "do_center_crop": 1, "crop_size": 32, "resample": 1}, (32, 32), 36, "lanczos"),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (224, 224), 256, "bilinear"),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384), "squash", "bilinear"),
    ],
)  # fmt: skip
def test_a_processor_says_how_images_are_cut(said: Any, size: Any, resize: Any, interpolation: str) -> None:
    found = intake(json.loads(json.dumps(said)))
    assert (found.size, found.resize, found.interpolation) == (size, resize, interpolation)


@pytest.mark.parametrize(
    "said",
    [
        {"rescale_factor": 1 / 255, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "image_mean": [0.1, 0, 0], "image_std": [1, 2, 1]},
        {"do_rescale": False, "image_mean": [120, 110, 100], "image_std": [60, 50, 40]},
        {"do_normalize": False},
    ],
)
def test_a_processor_says_how_pixels_are_scaled(said: dict[str, Any]) -> None:
    """Step by step on bytes, as the processor works, against one step on pixels of 0 to 1."""
    pixels = torch.rand(1, 3, 4, 4)
    expected = 255 * pixels
    if said.get("do_rescale", True):
        expected = expected * said.get("rescale_factor", 1 / 255) - (1 if said.get("rescale_offset") else 0)
    if said.get("do_normalize", True):
        mean, std = (torch.tensor(said[f"image_{name}"]).reshape(3, 1, 1) for name in ("mean", "std"))
        expected = (expected - mean) / std
    vision = Vision(nn.Identity(), intake(said), {})
    torch.testing.assert_close(vision(pixels), expected)


@pytest.mark.parametrize("templates", [("a photo of a {}.",), ("a photo of a {}.", "a {}")])
def test_zero_shot_classes_are_cosines(templates: tuple[str, ...], tmp_path: Path, monkeypatch: Any) -> None:
    """``exp(scale) cos(z, t)`` of the mean over templates, from the text tower or from a file; the head is linear."""
    clip_stand_in(monkeypatch)
    net, (x, y) = CLIP().eval(), images()
    path = saved(net, tmp_path / "clip.safetensors")
    vision = igc_dist.models.clip("ViT-mini", path, classes=["cat", "dog"], templates=templates).eval()
    rows = torch.stack(
        [net.table.weight[[CLIP.WORDS.index(t.format(name)) for t in templates]] for name in ("cat", "dog")]
    )
    texts = nn.functional.normalize(rows, dim=2).mean(1).detach()
    mean, std = (torch.tensor(NORMAL[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    z = net.visual((x - mean) / std)
    expected = torch.stack([torch.cosine_similarity(z, t[None]) for t in texts], 1) * math.exp(1.5)
    torch.testing.assert_close(vision(x), expected)
    save_file({"dog": texts[1].contiguous(), "cat": texts[0].contiguous()}, tmp_path / "texts.safetensors")
    again = igc_dist.models.clip("ViT-mini", path, texts=tmp_path / "texts.safetensors").eval()
    torch.testing.assert_close(again(x), expected)
    assert (again.classes, again.takes["size"], again.final_layer) == (["cat", "dog"], (16, 16), "net.head")
    tree = igc_dist.attribute(again, (x, y % 2), n_steps=2, n_folds=2, final_layer="auto", target=["dog", "cat"])
    assert tree["output"].values.tolist() == ["dog", "cat"]


def test_a_clip_needs_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_stand_in(monkeypatch)
    with pytest.raises(ConfigError, match=r"clip needs names for its outputs"):
        igc_dist.models.clip("ViT-mini")
    with pytest.raises(ConfigError, match=r"'ViT-mino' is no model of clip: near are ViT-mini"):
        igc_dist.models.clip("ViT-mino", classes=["cat"])
    save_file({"cat": torch.ones(3), "dog": torch.ones(4)}, tmp_path / "wrong.safetensors")
    with pytest.raises(ConfigError, match=r"one embedding \(E,\) for each name"):
        igc_dist.models.clip("ViT-mini", texts=tmp_path / "wrong.safetensors")
    save_file({"cat": torch.ones(3), "dog": torch.zeros(3)}, tmp_path / "other.safetensors")
    path = saved(CLIP(), tmp_path / "clip.safetensors")
    with pytest.raises(ModelError, match=r"images have 6 numbers, those of texts 3"):
        igc_dist.models.clip("ViT-mini", path, texts=tmp_path / "other.safetensors")(images()[0])


def test_a_wrong_intake_is_refused() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Intake(mean=(0.0,), std=(math.inf,))
