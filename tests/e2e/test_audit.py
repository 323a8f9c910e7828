"""`experiment=audit` from an empty folder: a model by name, photographs, one of them broken, and a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import igc_dist
from igc_dist.cli import main
from tests.model.nets import ViT, stand_in

CLASSES = ("bird", "cat", "dog", "emu", "fox")


@pytest.mark.e2e
def test_an_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every class that occurs, by its name; slices of the table; what is broken is left out and listed."""
    stand_in(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw, rows = np.random.default_rng(0), ["path,label,place"]
    (tmp_path / "photos").mkdir()
    for n in range(24):
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{n}.jpg")
        rows.append(f"{n}.jpg,{CLASSES[1 + n % 3]},{'field' if n % 2 else 'wood'}")
    (tmp_path / "photos" / "7.jpg").write_bytes((tmp_path / "photos" / "7.jpg").read_bytes()[:200])
    (tmp_path / "attributes.csv").write_text("\n".join(rows))
    torch.manual_seed(0)
    save_file(ViT().state_dict(), tmp_path / "vit.safetensors")
    words = ["experiment=audit", "model=timm", "model.name=vit_mini", "model.weights=vit.safetensors"]
    words += ["data.root=photos", "data.table=attributes.csv", f"model.classes=[{','.join(CLASSES)}]", "reduce.size=8"]
    words += ["data=image_folder", "data.slices=place", "plan.n_folds=4", "design.n_draws=8", "data.num_workers=0"]
    with pytest.raises(SystemExit) as left:
        main.main(words)
    assert left.value.code == 0, capsys.readouterr().err
    tree = igc_dist.open("outputs/audit/store.zarr")
    assert tree["output"].values.tolist() == ["cat", "dog", "emu"]
    assert tree["x/igc"].shape == (3, 3, 2, 2)
    assert tree["n"].values.tolist() == [23] * 3
    assert [Path(entry["path"]).name for entry in tree.attrs["skipped"]] == ["7.jpg"]
    page = Path("outputs/audit/report.html").read_text()
    assert all(name in page for name in ("cat", "dog", "emu", "7.jpg"))
