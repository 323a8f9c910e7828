"""Secrets stay out of everything that a run writes or prints: one masker, by key, by value and by form."""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist import cli, report
from igc_dist.secrets import MASK, Masking, masked, masked_spec, masked_text, same
from igc_dist.store import Store, sealed, unsealed
from tests.commands import TINY
from tests.ranks import Net, run_ranks
from tests.report.test_report import store
from tests.security import planted

HIDDEN = "hunter2hunter2"
NAMES = ("token", "hf_token", "HF_TOKEN", "api_key", "apikey", "aws_secret_access_key", "secret", "client-secret",
"password", "passwd", "db.password", "credentials", "key", "private_key", "accessToken", "passphrase", "auth", "pwd",
"pat", "bearer", "sig", "signature", "dsn", "accessKey", "AWS_ACCESS_KEY_ID", "dbPwd", "basicAuth", "githubPat",
"connection_string", "X-Amz-Signature")  # fmt: skip
OTHERS = ("keypoints", "monkey", "max_tokens", "n_tokens", "tokenizer", "token_type", "pad_token", "author", "keys",
"pattern", "compat", "signal", "design", "key_padding_mask", "sock_auth_path", "passes", "bypass")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_sounds_like_a_secret_is_masked(name: str) -> None:
    """Below any nesting, in lists, in overrides and in printed dictionaries; numbers too, but short ones."""
    assert masked({"a": [{name: HIDDEN}]}) == {"a": [{name: MASK}]}
    assert masked({name: {"value": [HIDDEN, 12345678, 3, True]}}) == {name: {"value": [MASK, MASK, 3, True]}}
    for text in (
        f"+data.build.{name}={HIDDEN}",
        f"{name}='{HIDDEN} and more'",
        f"got {{'{name}': '{HIDDEN}'}}",
        f'{{"{name}": "{HIDDEN}"}}',
        f"--{name} {HIDDEN}",
        f"+data.build.{name}={{user:me,a:[{HIDDEN}]}}",
        f"https://x.org/a?b=1&{name}={HIDDEN}",
        f"auth:x,b='--{name} {HIDDEN}",
    ):
        assert HIDDEN not in masked_text(text), text
        assert name in masked_text(text) or "?***" in masked_text(text) or "auth:***" in masked_text(text)


def test_what_is_none_stays() -> None:
    """Numbers, other names, a key of None; prose, code, help; and what is masked twice is as masked once."""
    document = {"n_tokens": 512, "key": None, "seed": 1, "token": 3, "name": "igc", "author": "a", "monkey": "x"}
    document |= dict.fromkeys(OTHERS, "a word") | {"auth": "${oc.env:HF_TOKEN}", "sig": {"shape": [2], "digest": "a"}}
    assert masked(document) == document
    for text in (
        "plan.n_tokens=512",
        "seed=1",
        "unknown setting 'quadrature.n_step'",
        "/data/keys/a=b",
        "key=None",
        "unknown key: 'images'",
        "sorted(names, key=len)",
        "cannot read /a/token.json: no such file",
        "s3://bucket/prefix",
        "the bearer of news",
        cli.help.text(),
        *(f"{name}=word" for name in OTHERS),
    ):
        assert masked_text(text) == text
    once = masked({"token": HIDDEN, "url": f"s3://me:{HIDDEN}@host/x"})
    assert masked(once) == once == {"token": MASK, "url": f"s3://{MASK}@host/x"}


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{HIDDEN}@x.y/z",
        f"postgres+psycopg://me:{HIDDEN}@db/x",
        f"s3://{HIDDEN}@bucket",
        f"redis://me:a/b@c{HIDDEN}@host:1/2",
        f"https://x.y/z?a=1&b={HIDDEN}",
        f"GET /\nAuthorization: Digest user, {HIDDEN}\nHost: x",
        f"Bearer {HIDDEN}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{HIDDEN}\n",
        f"got ghp_{HIDDEN}xyz, and",
        f'token= token = "{HIDDEN}"',
        f"token=' token={{a: [1]}} token='{HIDDEN}' ",
        f"Bearer  token='{HIDDEN}'",
        f"Authorization: token=b'{HIDDEN}'",
        f"token= Bearer {HIDDEN}",
    ],
)
def test_by_form(text: str) -> None:
    """URLs, headers, keys; and names inside of the values of others, as a fuzzer found them."""
    assert HIDDEN not in masked({"path": [text]})["path"][0]
    assert HIDDEN not in masked_text(f"cannot read {text}: no route")


def test_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wherever it turns up, as in an error of a library, however it is escaped; words and numbers only where they
    stand alone; no short value, no path, and not the working folder."""
    odd = f"{HIDDEN}&\"'\\/@ é\n"
    for name, value in {"WANDB_API_KEY": HIDDEN, "SHORT_KEY": "abc", "DB_PASSWORD": odd, "PWD": "/working/folder1",
                        "A_SECRET": "gradient", "B_SECRET": "123456", "SECRETS": str(tmp_path)}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert masked_text(f"401 for {HIDDEN}, abc") == f"401 for {MASK}, abc"
    assert HIDDEN not in masked_text(f"{odd} {odd!r} {[odd]}")
    assert "é" not in masked_text(f"{odd} {odd!r} {[odd]}")
    assert masked_text("gradients, a gradient, 1234567 123456") == f"gradients, a {MASK}, 1234567 {MASK}"
    for text in ("cpu", "true", f"in {tmp_path}", "/working/folder1/a"):
        assert masked_text(text) == text


def test_masking_takes_a_time_linear_in_the_text() -> None:
    """Names, quotes, brackets and schemes that end nowhere, of which the text of a stranger may be full."""
    for piece in ("a://", "token='", "token={", "key: ", "sk-", "eyJ-", "bearer ", "authorization:x'", "\\'", "hf_a-"):
        began = time.process_time()
        masked_text(f"{piece * (100_000 // len(piece))}@")
        assert time.process_time() - began < 5, piece


def test_logs() -> None:
    """Messages, arguments and tracebacks."""
    try:
        raise ValueError(f"token={HIDDEN}")
    except ValueError:
        record = logging.LogRecord(
            "igc_dist", logging.ERROR, "", 1, "with %s", (f"https://a:{HIDDEN}@b",), sys.exc_info()
        )
    text = Masking("%(message)s").format(record)
    assert HIDDEN not in text
    assert "Traceback" in text


# -- specs -------------------------------------------------------------------------------------------------------------


def test_masked_specs_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another token is the same run, another word is not: it may decide the numbers."""
    monkeypatch.setenv("WHERE", "layer9")

    def of(**kwargs: object) -> dict[str, object]:
        return masked_spec({"model": {"forward_kwargs": kwargs}})

    assert of(token=HIDDEN) == of(token="other4other4") == {"model": {"forward_kwargs": {"token": MASK}}}
    one, two = of(key="layer3"), of(key="layer4")
    assert not same(one, two)
    assert same(one, of(key="layer3"))
    assert same(one, of(key="layer9"))  # it came from the environment
    assert same(one, {"model": {"forward_kwargs": {"key": MASK}}})
    assert not same(one, {"model": {"forward_kwargs": {"key": MASK, "more": 1}}})
    assert "layer3" not in str(one)
    tensors = [{"key": {"shape": [2], "digest": digest}} for digest in "ab"]
    assert masked_spec(tensors[0]) == tensors[0]
    assert masked_spec(masked_spec(one)) == one


@pytest.mark.filterwarnings("ignore:The `srun` command")
def test_nothing_of_it_in_a_store(tmp_path: Path) -> None:
    """Settings of the forward pass; the store goes on with another token, not with another word, and one that an older
    version filled, which masked less, goes on and is masked."""
    net = Net(outputs=2)
    net.call = lambda x, **settings: net(x)
    x, y, path = torch.randn(6, 5), torch.randn(6, 2), tmp_path / "b.zarr"

    def run(**settings: str) -> xr.DataTree:
        few = {
            "n_folds": 3,
            "n_steps": 2,
            "store": path,
            "target": igc_dist.Targets(names=["ghp_other1other2other3", "b"]),
        }
        return igc_dist.attribute(net, (x, y), forward="call", forward_kwargs={"pat": "tokens", **settings}, **few)

    tree = run(token=HIDDEN)
    assert tree["output"].values.tolist() == [MASK, "b"]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not [text for text in written if HIDDEN.encode() in text or b'"tokens"' in text]
    kept = igc_dist.open(path).attrs["spec"]["model"]["forward_kwargs"]
    assert (kept["token"], kept["pat"][:5]) == (MASK, f"{MASK} (")
    run(token="another1another1")
    with pytest.raises(igc_dist.records.StoreError, match=r"forward_kwargs\.pat: "):
        run(token=HIDDEN, pat="images")
    for key in ("zarr.json", "shards/zarr.json"):
        about = unsealed((path / key).read_bytes())
        assert about is not None
        about["spec"]["model"]["forward_kwargs"] = {"token": MASK, "pat": "tokens"}
        (path / key).write_bytes(sealed({**about, "spec_hash": "an older one", "status": "running"}))
    run(token=HIDDEN)
    assert not [path for path in tmp_path.rglob("zarr.json") if b'"tokens"' in path.read_bytes()]
    assert Store.existing(path).verify() == []


def test_what_older_stores_kept_is_not_shown(tmp_path: Path) -> None:
    """On the page, in the pictures' labels and in tables."""
    tree = store(names=[f"ghp_{HIDDEN}xyz", "b", "c", "d", "e"])
    tree.attrs |= {"spec": {"auth": {"a": HIDDEN}}, "provenance": {"url": f"https://a:{HIDDEN}@b"}}
    tree.attrs["method"] = f"sk-{HIDDEN}xyz"
    assert HIDDEN not in report.write_report(tree, tmp_path, 2).read_text()
    console = cli.commands.Console(width=400, record=True, file=io.StringIO())
    for shown in (report.summary_table(tree), report.info(tree), report.compare({"a": tree, "b": tree})):
        console.print(shown)
    assert HIDDEN not in console.export_text()


# -- a whole run -------------------------------------------------------------------------------------------------------


def as_from_a_shell(cwd: str, said: str, *arguments: str) -> None:
    """The command in a forked process, as a process of its own runs it; what it raises goes where Python sends it."""
    os.chdir(cwd)
    streams = sys.stdout, sys.stderr
    with open(said, "w", buffering=1) as file:
        sys.stdout = sys.stderr = file
        sys.argv = ["igc-dist", *arguments]
        try:
            cli.main.main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        finally:
            sys.stdout, sys.stderr = streams
            logging.shutdown()
    os._exit(code)


def ran(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit code of a command and what it said."""
    with tempfile.NamedTemporaryFile() as said:
        code = run_ranks(1, as_from_a_shell, str(folder), said.name, *arguments, COLUMNS="200", **environment)[0].code
        return code, said.read().decode()


DATA = planted.filled("data.build", planted.DATA, 0)
CALL = planted.filled("model.forward_kwargs", planted.CALL, 40)
ENVIRONMENT = planted.environment(60)
EVERY = (
    "--allow-target", "tests.*", *TINY[5:], "data.build._target_=tests.security.planted.Loud", *DATA, *CALL,
    "plan.n_folds=2", "model.build._target_=tests.security.planted.Asking",
    "target.names=['${oc.env:HF_TOKEN}','${oc.env:PLAIN}']",
    "method.name='${oc.env:MY_SECRET}'",
)  # fmt: skip
PLANTED = [n for n in range(70) if planted.secret(n) in str((DATA, CALL, ENVIRONMENT))]


def leaks(folder: Path, said: str) -> list[tuple[str, int]]:
    """Where a secret stands: in what was said, in a file, or in the name of one."""
    texts = {"what it said": said.encode()}
    for path in folder.rglob("*"):
        texts[str(path)] = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
    return [(name, n) for name, text in texts.items() for n in PLANTED if planted.secret(n).encode() in text]


def test_fifty_secrets_are_planted() -> None:
    assert len(PLANTED) >= 50


@pytest.mark.parametrize(
    ("more", "ends"),
    [
        (("report.enabled=true",), (0, "report: ")),
        (("+data.build.fail=item",), (3, "ValueError: 401 for ")),
        pytest.param(("+data.build.fail=length",), (1, "Traceback (most recent call last)"), marks=pytest.mark.slow),
        pytest.param(
            ("-m", "seed=1", "hydra.sweep.subdir=a", "hydra.output_subdir=b"), (0, "store: "), marks=pytest.mark.slow
        ),
        (("--cfg", "job"), (0, "password: '***'")),
        (("model.nmae=1",), (2, "model.nmae")),
        (("name=${oc.env:PLAIN}",), (2, "would name a folder after a secret")),
        (("store.path=${oc.env:HF_TOKEN}/a.zarr",), (2, "would name a folder after a secret")),
        (("data.names=[${oc.env:HF_TOKEN}]",), (2, "the name of a secret")),
        pytest.param(("-m", "seed=1,2"), (0, "store: "), marks=pytest.mark.slow),
        (("-m", "name='${oc.env:PLAIN}',b"), (2, "would name a folder after a secret")),
    ],
)
def test_a_run_leaves_nothing_of_them(more: tuple[str, ...], ends: tuple[int, str], tmp_path: Path) -> None:
    """A complete run and a failed one, whose data set says all that it knows; a sweep; what Hydra prints and writes."""
    code, said = ran(tmp_path, *EVERY, *more, **ENVIRONMENT)
    assert (code, ends[1] in said) == (ends[0], True), said[-3000:]
    assert leaks(tmp_path, said) == []


def test_traces_and_streams_are_guarded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the main thread and of others."""
    for module, name in ((sys, "stdout"), (sys, "stderr"), (sys, "excepthook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    cli.screen.guard()

    def fail() -> None:
        raise ValueError(f"Bearer {HIDDEN}\x1b[2J")

    print("a", f"token={HIDDEN}")
    sys.stdout.writelines([f"https://a:{HIDDEN}@b\n"])
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    out, err = capsys.readouterr()
    assert HIDDEN not in out + err
    assert out.startswith("a token=***")
    assert "Traceback" in err
    assert "\x1b" not in err
