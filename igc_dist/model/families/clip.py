"""The family `clip`: zero-shot classifiers of CLIP models (Radford et al. 2021), of transformers or open_clip."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from igc_dist.model.families.library import chosen, imported
from igc_dist.model.families.transformers import from_folder, intake_of
from igc_dist.model.vision import Intake, Vision
from igc_dist.records import ConfigError, ModelError
from igc_dist.targets import class_names

TEMPLATES = ("a photo of a {}.",)

Encode = Callable[[list[str]], Tensor]
"""The embeddings (n, E) of texts."""


class ZeroShot(nn.Module):
    """``y_k = s cos(z(x), t_k) + b``: how well an image goes with each of J texts, as a linear head over ``z / |z|``.

    `clip`: the whole model, whose weights are loaded. `embed`: images to z (n, E). `texts`: the embeddings t (J, E), or
    a function that makes them when the weights are there. s and b are the model's `logit_scale` (its exponential) and
    `logit_bias`.
    """

    head: nn.Linear

    def __init__(
        self, clip: nn.Module, embed: Callable[[Tensor], Any], texts: Float[Tensor, "J E"] | Callable[[], Tensor]
    ) -> None:
        super().__init__()
        self.clip, self.embed, self.texts = clip, embed, texts

    @property
    def weighted(self) -> nn.Module:
        """What weights are loaded into."""
        return self.clip

    def loaded(self) -> None:
        """Make the head from the texts."""
        with torch.no_grad():
            texts = normalize(self.texts() if callable(self.texts) else self.texts.float(), dim=1)
            scale = getattr(self.clip, "logit_scale", torch.tensor(0.0)).detach().float().exp().cpu()
            bias = getattr(self.clip, "logit_bias", None)
            head = nn.Linear(texts.shape[1], len(texts), bias=bias is not None)
            head.weight.copy_(scale * texts.cpu())
            if bias is not None:
                head.bias.fill_(float(bias))
        self.head = head

    def forward(self, x: Tensor) -> Float[Tensor, "n J"]:
        z = self.embed(x)
        z = z if isinstance(z, Tensor) else z.pooler_output
        if z.shape[-1] != self.head.in_features:
            raise ModelError(
                f"embeddings of images have {z.shape[-1]} numbers, those of texts {self.head.in_features}: give texts "
                "of the same model"
            )
        return self.head(normalize(z, dim=-1))


def clip(
    name: str,
    weights: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    texts: str | Path | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> Vision:
    """A CLIP model that classifies by texts. `name`: a local folder of transformers, or an architecture of open_clip.

    `texts`: a safetensors file of embeddings (E,) by the name of the class. Or `classes`: names, which become texts by
    `templates` (``{}`` is the name) and the model's text tower; several templates are averaged. `weights`: a file, for
    open_clip. Raises `ConfigError` or `ModelError`.
    """
    if (texts is None) == (classes is None):
        raise ConfigError(
            "clip needs names for its outputs: classes (model.classes), which the text tower embeds, or texts "
            "(model.build.texts), a safetensors file of embeddings by name; give one of them"
        )
    named, table = _embeddings(texts) if texts is not None else (class_names(classes) or [], None)
    folder = Path(os.path.expanduser(name))
    make = _of_transformers if (folder / "config.json").is_file() else _of_open_clip
    net, embed, encode, intake = make(name)
    net = net.eval()
    zero = ZeroShot(net, embed, table if table is not None else lambda: _averaged(encode, named, templates))
    kind = f"{'transformers' if make is _of_transformers else 'open_clip'} {type(net).__name__}"
    identity = {"family": "clip", "name": kind, "texts": named, "templates": [*templates]}
    made = Vision(zero, intake, identity, named, "head", pending=make is _of_open_clip)
    if make is _of_transformers:
        zero.loaded()
    if weights is not None:
        made.load(str(weights))
    return made


def names() -> list[str]:
    """All architectures of open_clip."""
    return sorted(imported("open_clip", "open_clip").list_models())


def _embeddings(path: str | Path) -> tuple[list[str], Float[Tensor, "J E"]]:
    """The names and embeddings in a file, in the order of the names."""
    try:
        found = load_file(os.path.expanduser(path))
    except Exception as error:
        raise ConfigError(f"texts={path}: the file is no safetensors file ({error})") from error
    if not found or len({tuple(value.shape) for value in found.values()}) != 1 or next(iter(found.values())).ndim != 1:
        raise ConfigError(f"texts={path}: give one embedding (E,) for each name, all of the same length")
    named = sorted(found)
    return named, torch.stack([found[name] for name in named])


def _averaged(encode: Encode, named: Sequence[str], templates: Sequence[str]) -> Float[Tensor, "J E"]:
    """The mean over templates of the embeddings of length 1."""
    said = [normalize(encode([template.replace("{}", name) for name in named]), dim=1) for template in templates]
    return torch.stack(said).mean(0)


def _of_transformers(name: str) -> tuple[nn.Module, Callable[[Tensor], Any], Encode, Intake]:
    library, folder = imported("transformers", "transformers"), Path(os.path.expanduser(name))
    net = from_folder(library.AutoModel, folder)
    if not hasattr(net, "get_image_features"):
        raise ModelError(f"{folder} has a {type(net).__name__}, which does not embed images and texts: take a CLIP")

    def encode(said: list[str]) -> Tensor:
        tokenizer = library.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        found = net.get_text_features(**tokenizer(said, padding="max_length", truncation=True, return_tensors="pt"))
        return found if isinstance(found, Tensor) else found.pooler_output

    return net, lambda x: net.get_image_features(pixel_values=x), encode, intake_of(folder)


def _of_open_clip(name: str) -> tuple[nn.Module, Callable[[Tensor], Any], Encode, Intake]:
    library = imported("open_clip", "open_clip")
    name = chosen(name, library.list_models(), "clip")
    text = library.get_model_config(name).get("text_cfg", {})
    net = library.create_model(name, pretrained=None, pretrained_hf=False)

    def encode(said: list[str]) -> Tensor:
        if text.get("hf_tokenizer_name"):
            raise ConfigError(f"the tokenizer of {name} would be downloaded: give embeddings of texts (texts)")
        return net.encode_text(library.get_tokenizer(name)(said))

    sides = net.visual.image_size
    side = (sides, sides) if isinstance(sides, int) else tuple(sides)
    intake = Intake(size=side, resize=min(side), mean=net.visual.image_mean, std=net.visual.image_std)
    return net, net.encode_image, encode, intake
