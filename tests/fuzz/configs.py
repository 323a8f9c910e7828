"""Files of a configuration that a fuzzer writes: they compose to a configuration whose nodes are built, or are refused;
no effects."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from igc_dist import config
from igc_dist.records import ConfigError, IgcError
from tests.commands import ROOT
from tests.fuzz.choices import HOSTILE, Choices

TOKENS = (
    "_target_: os.system",
    "_target_: igc_dist.baselines.Constant",
    "baseline: {_target_: igc_dist.baselines.base.np.save, arr: [1], file: a}\n",
    "reduce: {_target_: os.mkdir, _args_: [a]}\n",
    "_target_: igc_dist.baselines.base.np.load",
    "_target_: builtins.open",
    "_partial_: true",
    "_recursive_: false",
    "_convert_: object",
    "_args_: [a]",
    "_mode_: w",
    "value: ",
    "values: ",
    "k: ",
    "- ",
    "  ",
    "\n",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: *a",
    "!!python/object/apply:os.system [true]",
    "!!binary ",
    "'",
    '"',
    "| ",
    "${",
    "}",
    "${seed}",
    "${oc.env:HOME}",
    "${oc.create:{_target_: os.system}}",
    '${oc.decode:"{_target_: os.system}"}',
    "\\${oc.create:{_target_:os.getcwd}}",
    "${baseline}",
    "${model.build._target_}",
    "${..a}",
    "${oc.select:baseline}",
    "${oc.dict.values:baseline}",
    "???",
    "# @package _global_\n",
    "defaults:\n  - _self_\n",
    "defaults:\n  - /baseline: mean\n",
    "hydra:\n  callbacks:\n    a:\n      ",
    "hydra: {job: {env_set: {A: b}}}\n",
    "baseline:\n  ",
    "model:\n  build:\n    ",
    "reduce:\n  ",
    "method:\n  attributor:\n    ",
    "data:\n  build:\n    ",
    "plan:\n  ",
    "budget: ",
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EFFECTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "os.remove",
    "os.mkdir",
    "os.rename",
    "os.rmdir",
    "os.chmod",
    "os.kill",
    "os.symlink",
    "os.link",
    "shutil.",
    "socket.connect",
    "socket.bind",
    "ctypes.dlopen",
    "urllib.Request",
    "pickle.find_class",
    "webbrowser.open",
    "signal.pthread_kill",
)
"""Beginnings of events of `sys.addaudithook` that no configuration may cause."""


class Effect(BaseException):
    """Something was done that a configuration may not do; not to be caught by what handles errors."""


class Target:
    """What a fuzzer calls with bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.watching = folder, False
        self.story: list[str] = []
        (folder / "conf" / "experiment").mkdir(parents=True)
        files = sorted((ROOT / "conf").glob("*/*.yaml"))
        self.texts = [f"{file.parent.name}:\n  {file.read_text().strip()}".replace("\n", "\n  ") for file in files]
        self.texts += [f"# @package _global_\n{file.read_text()}" for file in files if file.parent.name == "experiment"]
        self.base = OmegaConf.structured(config.Config)
        importlib.import_module("igc_dist.run")  # the package is imported when it is needed, which is no effect
        sys.addaudithook(self.heard)
        os.chdir(folder)

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event.startswith(EFFECTS) or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
            self.watching = False
            raise Effect(f"{event} {arguments}"[:300])

    @contextmanager
    def watched(self) -> Iterator[None]:
        self.watching = True
        try:
            yield
        finally:
            self.watching = False

    def __call__(self, data: bytes) -> None:
        self.story.clear()
        choices = Choices(data)
        whole = choices.below(8) == 0
        text = self.text(choices)
        self.story.append(text)
        try:
            if whole:
                self.composed(text)
            else:
                self.merged(text)
        except IgcError:
            pass

    def text(self, choices: Choices) -> str:
        """A file of conf/ or nothing, with tokens and values at some places, or any bytes."""
        if choices.below(16) == 0:
            return choices.bytes(200).decode("utf-8", "replace")
        text = choices.of(["", *self.texts])
        while choices and len(text) < 3000:
            at, how = choices.below(len(text) + 1), choices.below(5)
            if how == 0:
                text = text[:at] + text[at + choices.below(20) :]
            elif how == 1:
                text = text[:at] + str(choices.of(HOSTILE)).encode("utf-8", "replace").decode() + text[at:]
            elif how == 2:  # at the beginning of a line
                at = text.rfind("\n", 0, at) + 1
                text = text[:at] + choices.of(TOKENS) + choices.of(["", "\n"]) + text[at:]
            else:
                text = text[:at] + choices.of(TOKENS) + text[at:]
        return text

    def merged(self, text: str) -> None:
        """As Hydra does, but for its defaults and its own node."""
        try:
            cfg = OmegaConf.merge(self.base, OmegaConf.create(text))
            _ = {**cfg}
        except (
            YAMLError,
            OmegaConfBaseException,
            ValueError,
            TypeError,
            AttributeError,
            AssertionError,
            RecursionError,
        ):
            return  # what Hydra says of these is tried by `composed`
        with self.watched():
            self.build(cfg)

    def build(self, cfg: Any) -> None:
        """Build every node, and what all of them are together."""
        for key in ("baseline", "reduce", "model.build", "model.output", "data.build", "method.attributor"):
            try:
                node = OmegaConf.select(cfg, key)
            except OmegaConfBaseException:
                continue
            try:
                config.build(node)
            except ConfigError:
                continue
        config.typed(cfg)

    def composed(self, text: str) -> None:
        """Through Hydra, as a file of a folder of somebody's."""
        (self.folder / "conf" / "experiment" / "fuzz.yaml").write_text(text, encoding="utf-8")

        def task(cfg: Any) -> None:
            with self.watched():
                self.build(cfg)

        config.compose_and_call(
            task, ["--config-dir", str(self.folder / "conf"), "experiment=fuzz", "hydra.run.dir=out"]
        )
