"""Secrets stay out of specs, provenance, logs and messages."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import igc_dist
from igc_dist.secrets import MASK, Masking, masked, masked_text
from tests.ranks import Net

HIDDEN = "hunter2hunter2"
NAMES = ("token", "hf_token", "HF_TOKEN", "api_key", "apikey", "aws_secret_access_key", "secret", "client-secret",
"password", "passwd",
         "db.password", "credentials", "key", "private_key", "accessToken", "passphrase")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_sounds_like_a_secret_is_masked(name: str) -> None:
    """Below any nesting, in lists, in overrides and in printed dictionaries."""
    assert masked({"a": [{name: HIDDEN}]}) == {"a": [{name: MASK}]}
    assert masked({name: {"value": [HIDDEN]}}) == {name: {"value": [MASK]}}
    for text in (
        f"+data.build.{name}={HIDDEN}",
        f"{name}='{HIDDEN} and more'",
        f"got {{'{name}': '{HIDDEN}'}}",
        f'{{"{name}": "{HIDDEN}"}}',
    ):
        assert HIDDEN not in masked_text(text), text
        assert name in masked_text(text)


def test_what_is_none_stays() -> None:
    """Numbers, other names, a key of None; and what is masked twice is as masked once."""
    document = {
        "n_tokens": 512,
        "key": None,
        "seed": 1,
        "token_type": 3,
        "name": "igc",
        "author": "a",
        "keys": ["a"],
        "monkey": "x",
    }
    assert masked(document) == document
    for text in ("plan.n_tokens=512", "seed=1", "unknown setting 'quadrature.n_step'", "/data/keys/a=b", "key=None"):
        assert masked_text(text) == text
    once = masked({"token": HIDDEN, "url": f"s3://me:{HIDDEN}@host/x"})
    assert masked(once) == once == {"token": MASK, "url": f"s3://{MASK}@host/x"}


@pytest.mark.parametrize(
    "url", [f"https://me:{HIDDEN}@x.y/z", f"postgres+psycopg://me:{HIDDEN}@db/x", f"s3://{HIDDEN}@bucket"]
)
def test_users_of_urls(url: str) -> None:
    assert HIDDEN not in masked({"path": [url]})["path"][0]
    assert HIDDEN not in masked_text(f"cannot read {url}: no route")


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it turns up, as in an error of a library."""
    monkeypatch.setenv("WANDB_API_KEY", HIDDEN)
    monkeypatch.setenv("SHORT_KEY", "abc")
    assert masked_text(f"401 for {HIDDEN}, abc") == f"401 for {MASK}, abc"


def test_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, arguments and tracebacks."""
    import sys

    try:
        raise ValueError(f"token={HIDDEN}")
    except ValueError:
        record = logging.LogRecord(
            "igc_dist", logging.ERROR, "", 1, "with %s", (f"https://a:{HIDDEN}@b",), sys.exc_info()
        )
    text = Masking("%(message)s").format(record)
    assert HIDDEN not in text
    assert "Traceback" in text


@pytest.mark.filterwarnings("ignore:The `srun` command")
def test_nothing_of_it_in_a_store(tmp_path: Path) -> None:
    """A keyword of the forward pass that is a secret; the spec says that there was one."""
    net = Net(outputs=2)
    net.call = lambda x, token: net(x)
    x = torch.randn(6, 5)
    few = {"n_folds": 3, "n_steps": 2, "store": tmp_path / "b.zarr"}
    igc_dist.attribute(net, (x, torch.randn(6, 2)), forward="call", forward_kwargs={"token": HIDDEN}, **few)
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if HIDDEN.encode() in text]
    assert igc_dist.open(tmp_path / "b.zarr").attrs["spec"]["model"]["forward_kwargs"] == {"token": MASK}
