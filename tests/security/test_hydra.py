"""Hydra does what the command line says, and what files say only as far as a short list goes."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from igc_dist import cli, config, distributed
from igc_dist.records import ConfigError

GLOBAL = "# @package _global_\n"
PRIMARY = "defaults: [config, _self_]\n"


class Gadget:
    """Unpickled, it leaves a file."""

    def __init__(self, left: Path) -> None:
        self.left = left

    def __reduce__(self) -> Any:
        return Path.touch, (self.left,)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for --config-dir, beside a module that leaves a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "importable.py").write_text(f"open({str(tmp_path / 'left')!r}, 'w')\n")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    return tmp_path / "conf"


def composed(conf: Path, *words: str) -> list[Any]:
    found: list[Any] = []
    config.compose_and_call(found.append, ["--config-dir", str(conf), *words])
    return found


FILES = {
    "words for the ranks": ("experiment/evil", GLOBAL + "hydra: {overrides: {task: [--trust]}}"),
    "words by a package": ("experiment/evil", "# @package hydra.overrides\ntask: [--allow-target, torch.*]"),
    "words by a group": ("hydra/launcher/evil", "setup: [reboot]"),
    "words of a sweep": ("experiment/evil", GLOBAL + "hydra: {sweeper: {params: {seed: '1,2'}}}"),
    "a sweep": ("experiment/evil", GLOBAL + "hydra: {mode: MULTIRUN}"),
    "a launcher's command": ("experiment/evil", GLOBAL + "hydra: {launcher: {setup: [reboot]}}"),
    "a log": ("experiment/evil", GLOBAL + "hydra: {job_logging: {handlers: {h: {class: logging.NullHandler}}}}"),
    "the environment": ("experiment/evil", GLOBAL + "hydra: {job: {env_copy: [HOME]}}"),
    "another folder": ("experiment/evil", GLOBAL + "hydra: {job: {chdir: true}}"),
    "a node for a text": ("experiment/evil", GLOBAL + "hydra: {job: {name: {a: b}}}"),
    "a node that is elsewhere": ("experiment/evil", GLOBAL + "hydra: {job: '${model.forward_kwargs}'}"),
}


@pytest.mark.parametrize("way", FILES)
def test_a_file_says_little_to_hydra(way: str, conf: Path) -> None:
    """What it may not say is refused by name, before anything acts on it."""
    name, text = FILES[way]
    (conf / name).parent.mkdir(exist_ok=True, parents=True)
    (conf / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"^{name}.yaml sets hydra\.\w+.* is not allowed in a file"):
        composed(conf, f"{name.rpartition('/')[0]}=evil")


def test_what_a_file_may_say_to_hydra(conf: Path) -> None:
    text = "run: {dir: here}, sweep: {dir: there, subdir: one}, verbose: false"
    naming = "job: {name: mine, config: {override_dirname: {exclude_keys: [seed]}}}"
    (conf / "experiment" / "good.yaml").write_text(f"{GLOBAL}hydra: {{{text}, {naming}}}\n")
    found: list[Path] = []
    config.compose_and_call(
        lambda cfg: found.append(config.hydra_job()[0]), [f"--config-dir={conf}", "experiment=good"]
    )
    assert found == [Path("here").absolute()]


WORDS = (
    ("hydra.overrides.task=[--trust]", "hydra.overrides is not allowed"),
    ("hydra.overrides.hydra=[--trust]", "hydra.overrides is not allowed"),
    ("hydra.overrides.task=${gallery}", "hydra.overrides is not allowed"),
    ("--experimental-rerun=saved", "--experimental-rerun=saved is not allowed: flags are"),
    ("--experimental-re", "--experimental-re is not allowed"),
    ("--shell-completion", "is not allowed"),
    ("--config-path=pkg://importable", "--config-path=pkg://importable is not allowed"),
    ("-cp", "-cp is not allowed"),
    ("--", "-- is not allowed"),
    ("--config-name", "--config-name needs a value"),
    ("hydra.searchpath=[pkg://importable]", "give a folder"),
    ("hydra.searchpath=pkg://importable", "give a folder"),
    ("+hydra.job_logging.formatters.f={style:'{',format:'{msg.__class__}'}", "style='{' is not allowed"),
    ("+hydra.launcher.partition='gpu\nreboot'", "is one line"),
    ("hydra.launcher._target_=hydra_plugins.hydra_ray_launcher.Launcher", "is not allowed: the command line may"),
    ("gallery=[\"method=ig hydra.searchpath=[pkg://importable]\"]", "settings of Hydra are for the command line"),
    ("gallery=[\"method=ig ++hydra.run.dir=a\"]", "settings of Hydra are for the command line"),
    ("gallery=['method=ig --trust']", "--trust is not allowed among overrides"),
    ("gallery=['method=\"ig']", "does not parse"),
    ("model.forward=__class__", "give a name without __"),
    ("model.embedding=forward.__globals__.update", "give a name without __"),
    ("data.weights=__dict__", "give a name without __"),
)  # fmt: skip


@pytest.mark.parametrize(("word", "said"), WORDS)
def test_a_command_line_of_others_runs_nothing(
    word: str, said: str, conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it pass words on that a rank would take for flags. One sentence says so."""
    Path("saved").write_bytes(pickle.dumps(Gadget(conf.parent / "left")))
    with pytest.raises(SystemExit) as left:
        cli.main.main(["plan", "--config-dir", str(conf), word])
    assert left.value.code == 2
    assert said in capsys.readouterr().err
    assert not (conf.parent / "left").exists()
    assert "importable" not in sys.modules


def test_a_primary_file_names_folders_only(conf: Path) -> None:
    """Hydra would import a package of the search path, before it looks at anything else."""
    (conf / "mine.yaml").write_text(f"{PRIMARY}hydra: {{searchpath: ['pkg://importable']}}\n")
    with pytest.raises(ConfigError, match="give a folder"):
        composed(conf, "--config-name", "mine")
    assert "importable" not in sys.modules


def test_permissions_reach_ranks_beside_the_words(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the words compose the same again: the primary file, every folder, the overrides."""
    (conf / "mine.yaml").write_text(f"{PRIMARY}name: mine\nfabric: {{devices: 2}}\n")
    (conf.parent / "more" / "experiment").mkdir(parents=True)
    (conf.parent / "more" / "experiment" / "other.yaml").write_text(f"{GLOBAL}on_nonfinite: skip\n")
    ordered: list[tuple[int, list[str], list[str]]] = []

    def launch(devices: int, words: list[str], allow: list[str]) -> int:
        ordered.append((devices, words, allow))
        return 0

    monkeypatch.setattr(distributed, "launch", launch)
    with pytest.raises(SystemExit):
        cli.main.main(
            ["--path", ".", "seed=3", "--allow-target", "mine.*", "-cd", str(conf), "--trust", "--config-name=mine",
             "experiment=other", f"hydra.searchpath=[{conf.parent / 'more'}]"]
        )  # fmt: skip
    ((devices, words, allow),) = ordered
    assert (devices, allow) == (2, ["mine.*", "--trust"])
    words.remove("--path=.")
    found: list[Any] = []
    config.compose_and_call(found.append, words)
    assert (found[0].name, found[0].seed, found[0].on_nonfinite) == ("mine", 3, "skip")
    assert not [word for word in words if word.startswith("-") and not word.startswith("--config-")]


def test_what_a_launcher_writes_into_a_script_is_one_line(conf: Path) -> None:
    """A file may name the job, and the folder of a sweep."""
    (conf / "experiment" / "evil.yaml").write_text(f'{GLOBAL}hydra: {{job: {{name: "a\\nreboot"}}}}\n')
    assert len(composed(conf, "experiment=evil")) == 1
    with pytest.raises(ConfigError, match="is one line"):
        composed(conf, "experiment=evil", "+hydra.launcher.name=${hydra.job.name}")


@pytest.mark.parametrize("depth", [90, 20000])
def test_a_deep_configuration_is_an_error_in_one_line(depth: int, conf: Path) -> None:
    (conf / "experiment" / "deep.yaml").write_text(f"{GLOBAL}data: {{build: {'{a: ' * depth}1{'}' * depth}}}\n")
    with pytest.raises(ConfigError, match=r"RecursionError[^\n]*$"):
        composed(conf, "experiment=deep")
    node: Any = 1
    for _ in range(depth):
        node = {"a": node}
    with pytest.raises(ConfigError, match="recursion"):
        config.build({"_target_": "igc_dist.baselines.Constant", "value": node})
    assert torch.is_grad_enabled()
