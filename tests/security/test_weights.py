"""Weights are numbers: a file that holds code is refused unless the command line trusts it."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from igc_dist.config import TRUST
from igc_dist.model import load_weights
from igc_dist.records import ModelError


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def same(module: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )


def written(kind: str, net: nn.Module, path: Path) -> str:
    """A file of the net's weights."""
    if kind == "safetensors":
        save_file(net.state_dict(), path.with_suffix(".safetensors"))
        return str(path.with_suffix(".safetensors"))
    if kind == "torchscript":
        torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3)), str(path))
    elif kind == "torchscript called safetensors":
        path = path.with_suffix(".safetensors")
        torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3)), str(path))
    elif kind == "module":
        torch.save(net, path)
    elif kind == "lightning":
        torch.save({"state_dict": net.state_dict(), "epoch": 3}, path)
    elif kind == "legacy":
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        torch.save(net.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "lightning", "legacy"])
def test_numbers_load(kind: str, tmp_path: Path) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    for trust in (False, True):
        load_weights(other, written(kind, net, tmp_path / "net.pt"), trust)
        assert same(net, other)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["module", "torchscript"])
def test_code_is_refused_unless_trusted(kind: str, tmp_path: Path) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    path = written(kind, net, tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"would run code of whoever made it.*safetensors.*--trust"):
        load_weights(other, path)
    assert not same(net, other)
    load_weights(other, path, trust=True)
    assert same(net, other)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_name_does_not_make_safetensors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="do not load"):
        load_weights(nn.Linear(3, 2), written("torchscript called safetensors", nn.Linear(3, 2), tmp_path / "net"))


@pytest.mark.parametrize("how", ["torch", "pickle", "legacy"])
def test_a_pickle_does_not_run(how: str, tmp_path: Path) -> None:
    path, left = tmp_path / "net.pt", tmp_path / "left"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Evil(left)))
    else:
        torch.save({"weight": Evil(left)}, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(ModelError, match=r"--trust|[Pp]ickle"):
        load_weights(nn.Linear(3, 2), str(path))
    assert not left.exists()


def test_a_file_cannot_trust_itself(tmp_path: Path) -> None:
    """There is no setting for it; only what the command line allows reaches the loader."""
    from igc_dist import config
    from igc_dist.config import from_config

    assert "trust" not in json.dumps(config.leaves())
    path = written("module", nn.Linear(3, 2), tmp_path / "net.pt")
    import hydra

    with hydra.initialize_config_dir(str(config.folder()), version_base="1.3"):
        cfg = hydra.compose("config", [f"model.weights={path}"])
    OmegaConf.resolve(cfg)
    with pytest.raises(ModelError, match="would run code"):
        from_config(cfg, None)
    with pytest.raises(ModelError, match="do not load into DigitsCNN"):
        from_config(cfg, None, [TRUST])


class Large:
    """A gigabyte of zeros when it is unpickled."""

    def __reduce__(self) -> Any:
        return bytearray, (1 << 30,)


def bomb(kind: str, path: Path) -> str:
    """A small file that could take much memory."""
    whole = Path(written("state dict", nn.Linear(3, 2), path.with_suffix(".whole")))
    if kind == "a bytearray":
        torch.save({"weight": Large()}, path)
    elif kind == "a legacy bytearray":
        torch.save({"weight": Large()}, path, _use_new_zipfile_serialization=False)
    elif kind == "an overlap":
        data = bytearray(whole.read_bytes())
        with zipfile.ZipFile(whole) as file:
            n = file.getinfo("net/data/0").file_size if "net/data/0" in file.namelist() else 24
        at = data.rindex(n.to_bytes(4, "little") * 2)  # in the directory: compressed and plain size
        data[at : at + 8] = (1 << 30).to_bytes(4, "little") * 2
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as out:
            large = 1 << 24 if kind == "compressed" else 64  # 64: not more than the file has, all in all
            for part in source.infolist():
                value = bytes(large) if part.filename.endswith("data/0") else source.read(part)
                out.writestr(part.filename, value, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    return str(path)


@pytest.mark.parametrize(
    "kind", ["compressed", "compressed a little", "an overlap", "a bytearray", "a legacy bytearray"]
)
def test_a_bomb_is_refused_unless_trusted(kind: str, tmp_path: Path) -> None:
    path = bomb(kind, tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"could take any size in memory.*--trust"):
        load_weights(nn.Linear(3, 2), path)


HEADERS: dict[str, Any] = {
    "many elements": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]},
    "many elements, no bytes": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 0]},
    "an empty product": {"dtype": "F32", "shape": [1 << 40, 0], "data_offsets": [0, 0]},
    "an overflow": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 0]},
    "backwards": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
    "no header": None,
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_that_lie(kind: str, tmp_path: Path) -> None:
    """safetensors compares them with the file before anything is allocated."""
    header = json.dumps({"weight": HEADERS[kind]}).encode()
    size = 1 << 60 if HEADERS[kind] is None else len(header)
    (tmp_path / "net.safetensors").write_bytes(size.to_bytes(8, "little") + header)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="do not load"):
            load_weights(nn.Linear(3, 2), str(tmp_path / "net.safetensors"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b"", b"PK\x05\x06", b"PK\x03\x04" + bytes(40), b"\x80\x02" + b"]" * 10_000 + b"."])
def test_what_is_no_file_of_weights(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(text)
    with pytest.raises(ModelError):
        load_weights(nn.Linear(3, 2), str(tmp_path / "net.pt"))
