"""Every file of conf/ composes and builds what it says; a configuration cannot call what it likes; presets meet their
closed forms."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytest
import torch
import xarray as xr
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from scipy.stats import ttest_ind
from torch import nn

import igc_dist
from igc_dist import config
from igc_dist.attributors import PathIntegral
from igc_dist.config import from_config
from igc_dist.paths import Auto, Pairs, Stratified
from igc_dist.planning import Limits
from igc_dist.records import ConfigError, near
from tests.attributors import members
from tests.commands import ROOT, environment

CONF = ROOT / "conf"
FAMILIES = ("timm", "torchvision", "transformers", "clip", "module", "lightning_checkpoint")
FOR_FILES = (
    "image_folder",
    "tar",
    "huggingface",
    "arrays",
    "zarr",
    "audit",
    "masks",
    "lite0",
    "photographs",
    *FAMILIES,
)
"""Choices that need files, and have tests of their own: tests/data/, tests/demo/, tests/model/test_families.py."""
CHOICES = sorted(
    path.relative_to(CONF).with_suffix("").as_posix()
    for path in CONF.rglob("*.yaml")
    if path.parent != CONF and path.stem not in FOR_FILES
)
NEEDS_SAMPLES = {
    "statistic/none": ["method=ig"],
    "baseline/partners": ["design=pairs"],
    "target/own": ["method=ig"],
    "target/predicted": ["method=ig"],
    "target/top": ["method=ig"],
}


def composed(*overrides: str) -> Any:
    """The configuration that a command line composes."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config.folder()), version_base="1.3"):  # which knows the schema
        return hydra.compose("config", list(overrides))


def test_the_groups_are_those_of_the_design() -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    known = {
        "model",
        "data",
        "target",
        "baseline",
        "quadrature",
        "method",
        "statistic",
        "reduce",
        "metric",
        "fabric",
        "store",
        "report",
        "experiment",
        "design",
    }
    assert groups <= known
    assert groups >= known - {"metric"}


@pytest.mark.parametrize(
    "choice",
    # half a second each; in the slow set those that are built alike, and methods, which other tests build
    [
        pytest.param(c, marks=pytest.mark.slow if c.startswith(("quadrature/", "metric/", "method/")) else ())
        for c in CHOICES
    ],
)
def test_every_file_composes_and_builds(choice: str) -> None:
    """With everything else as it is by default; the job it describes is complete, and its spec has a plan."""
    group, name = choice.split("/")
    cfg = composed(choice.replace("/", "="), *NEEDS_SAMPLES.get(choice, ()))
    built = from_config(cfg, None)
    assert built.source.dataset.__class__.__name__ == {
        "data/simulation": "Simulation",
        "data/scenes": "Scenes",
        "experiment/shortcut": "Scenes",
        "experiment/strategies": "Scenes",
        "experiment/igc_simulation": "Simulation",
    }.get(choice, "Digits")
    typed = config.typed(cfg)
    if group == "method":
        assert (typed.method.name, built.method) == (name, name)
        assert [s.name for s in built.statistics] == typed.method.statistics == config.preset(name).statistics
    if group == "quadrature":
        chosen = built.attributor.quadrature
        assert (
            chosen == Auto()
            if name == "auto"
            else chosen.name == {"default": "midpoint-32", "simpson": "simpson-33"}.get(name, f"{name}-32")
        )
    if group == "baseline":
        assert type(built.baseline).__name__.lower() == name.replace("black_white", "constants")
    if group == "design":
        assert (typed.design.name, built.pairs) == (name, "pairs" in name)
    if group == "reduce":
        assert (built.inputs.__class__.__name__ == "Transformed") == (name in ("bands", "colour"))
        assert type(built.reduce).__name__.lower() == name.removesuffix("_small").replace("none", "nonetype")
    if group == "experiment":
        assert typed.name == name


@pytest.mark.parametrize(
    ("method", "walk"),
    [
        ("igc", "{a.quadrature.name}"), ("blur_ig", "{a.quadrature.name}"), ("guided_igc", "{a.n_steps}"),
        ("idg", "{a.n_steps}"), ("left_ig", "{a.n_steps}"), ("idgic", "{a.n_steps} {a.attributor.quadrature.name}"),
        ("idgi_guided_ig", "{a.attributor.n_steps}"), ("idgi_ig2", "{a.attributor.n_steps}"), ("ig2", "{a.n_steps}"),
    ],
)  # fmt: skip
def test_a_number_of_steps_reaches_every_method(method: str, walk: str) -> None:
    """Also those that have steps of their own, and walks round another."""
    built = from_config(composed(f"method={method}", "quadrature.n_steps=7"), None)
    assert {word.rpartition("-")[2] for word in walk.format(a=built.attributor).split()} == {"7"}


@pytest.mark.pilot
def test_no_override_is_the_demo() -> None:
    """igc of the digits, nodes by a pilot, zeros; the defaults of Python and of the command agree."""
    cfg = config.typed(composed())
    assert (cfg.method.name, cfg.seed, cfg.store.samples) == ("igc", 0, False)
    job = from_config(composed(), None)
    assert (job.baseline, job.attributor) == (igc_dist.baselines.Zeros(), PathIntegral(Auto(tol=0.01)))
    assert cfg.plan == Limits()


TYPOS = ("mode.build=1", "model.weight=1", "data.worker=1", "target.output=1", "quadrature.n_step=1", "method.nam=1",
"statistic.name=1",
         "fabric.device=1", "store.paths=1", "report.enable=1", "plan.folds=1", "sed=1")  # fmt: skip


@pytest.mark.parametrize("typo", TYPOS)
def test_a_typo_fails_at_compose_time(typo: str) -> None:
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        composed(typo)


@pytest.mark.parametrize(
    "wrong", ["quadrature.n_steps=many", "plan.n_folds=2.5", "fabric.devices=two", "target.n_others=all"]
)
def test_a_wrong_type_fails_at_compose_time(wrong: str) -> None:
    with pytest.raises(ConfigCompositionException):
        composed(wrong)


@pytest.mark.parametrize("odd", ["hydra.verbose=1", "+=x", "=1", "+reduce.a=1", "~=[]"])
def test_what_hydra_asserts_is_told(odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by hypothesis: Hydra meets these with AssertionError and ValueError. An error of a task stays what it
    is."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="composes to no configuration"):
        config.compose_and_call(lambda cfg: None, [odd])
    with pytest.raises(ZeroDivisionError):
        config.compose_and_call(lambda cfg: cfg.seed / 0, [])


def test_every_typo_has_a_near_key() -> None:
    known = config.leaves()
    assert near("quadrature.n_step", known) == " (did you mean 'quadrature.n_steps'?)"
    assert {"seed", "plan.n_folds", "fabric.devices", "store.samples"} <= set(known)
    assert near("zzzzzzzz", known) == ""


def test_an_unknown_preset_names_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"method='igcc' is unknown \(did you mean 'igc'\?\): choose one of"):
        config.preset("igcc")


# -- the allow-list ----------------------------------------------------------------------------------------------------

GADGETS = (
    "os.system", "os.getcwd", "builtins.eval", "builtins.print", "torch.load", "torch.hub.load", "torch.jit.load",
    "numpy.load",
    "pathlib.Path.unlink", "subprocess.Popen", "urllib.request.urlretrieve",
    "lightning.LightningModule.load_from_checkpoint",
    "igc_dist.config.building.build", "igc_dist.store.store.Store.existing", "igc_dist_evil.Model", "igc_dist",
    "igc_dist.demo", "",
    # under a prefix, but from elsewhere
    "igc_dist.baselines.base.np.load", "igc_dist.baselines.base.torch.load", "igc_dist.baselines.base.torch.hub.load",
    "igc_dist.baselines.numbers",
    "igc_dist.baselines.drawn.gaussian_filter", "igc_dist.baselines.base.dataclass", "igc_dist.demo.digits.load_file",
    "igc_dist.baselines.drawn.seeds.hashlib.new",
    "igc_dist.baselines.ensure.__globals__.clear", "igc_dist.baselines.Zeros.__subclasses__",
    "igc_dist.baselines.Zeros.__class__",
    "igc_dist.features.functions.np.load", "igc_dist.features.reducers.torch.load",
    "igc_dist.attributors.walk.torch.load", "igc_dist.demo.digits.Path", "igc_dist.demo.digits.Path.cwd",
)  # fmt: skip
PLACES: dict[str, Callable[[Any], Any]] = {
    "plain": lambda bad: bad,
    "nested": lambda bad: {"_target_": "igc_dist.baselines.Constant", "value": bad},
    "in a list": lambda bad: {"_target_": "igc_dist.baselines.Constant", "value": [1, [bad]]},
    "below plain keys": lambda bad: {"_target_": "igc_dist.baselines.Constant", "value": {"a": {"b": bad}}},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("gadget", GADGETS)
def test_a_configuration_cannot_call_what_it_likes(gadget: str, place: str) -> None:
    """Only what is defined under an allowed prefix; not what its modules happen to import, and nowhere in the tree."""
    node = PLACES[place]({"_target_": gadget})
    for form in (node, OmegaConf.create(node)):
        with pytest.raises(ConfigError, match=r"is not allowed: the command line may allow it with --allow-target"):
            config.build(form)


def test_interpolations_are_resolved_before_they_are_checked() -> None:
    cfg = OmegaConf.create({"name": "os.getcwd", "build": {"_target_": "${name}"}})
    with pytest.raises(ConfigError, match=r"'os.getcwd' is not allowed"):
        config.build(cfg.build)


def test_an_interpolation_of_nothing() -> None:
    cfg = OmegaConf.create({"build": {"_target_": "igc_dist.baselines.Constant", "value": "${a}"}})
    with pytest.raises(ConfigError, match="Interpolation key 'a' not found"):
        config.build(cfg.build)


def test_the_command_line_may_allow_a_package() -> None:
    """By a prefix of whole names, given with or without the star; it opens nothing else."""
    node = {"_target_": "tests.ranks.Net", "outputs": 3}
    with pytest.raises(ConfigError, match=r"--allow-target tests.ranks$"):
        config.build(node)
    for prefix in ("tests.ranks.*", "tests.ranks", "tests.*"):
        assert config.build(node, [prefix]).head.out_features == 3
    for prefix in ("tests.rank", "tests.ranks.N", "other.*"):
        with pytest.raises(ConfigError, match="is not allowed"):
            config.build(node, [prefix])
    for gadget in ("tests.ranks.os.getcwd", "tests.ranks.torch.load", "os.getcwd"):
        with pytest.raises(ConfigError, match="is not allowed"):
            config.build({"_target_": gadget}, ["tests.ranks.*"])


def test_a_target_that_fails_says_why() -> None:
    with pytest.raises(ConfigError, match=r"needs a _target_"):
        config.build({"k": 3})
    with pytest.raises(ConfigError, match=r"igc_dist.baselines.Samples could not be built: TypeError"):
        config.build({"_target_": "igc_dist.baselines.Samples", "j": 3})
    with pytest.raises(ConfigError, match=r"baseline\.k=0: give an integer of at least 1"):
        config.build({"_target_": "igc_dist.baselines.Samples", "k": 0})
    with pytest.raises(ConfigError, match="Nothing"):
        config.build({"_target_": "igc_dist.baselines.Nothing"})


# -- closed forms ------------------------------------------------------------------------------------------------------

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 2
W = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
Y = X @ W.T + torch.randn(40, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def t_test(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P-values of the lowest against the highest tenth of each target."""
    low, high = (y <= np.quantile(y, 0.1, axis=0)).T, (y >= np.quantile(y, 0.9, axis=0)).T
    return np.array([ttest_ind(x[a], x[b]).pvalue for a, b in zip(low, high, strict=True)])


def expected(name: str) -> dict[str, np.ndarray]:
    """What a preset gives for r = W x + 1 and zero baselines: the attribution of every method is w_i x_i, or w_i."""
    x, w, y = X.numpy(), W.numpy(), Y.numpy()
    r = x @ w.T + 1
    cov = lambda u, v: ((u - u.mean(0)).T @ (v - v.mean(0)) / len(u)).T  # noqa: E731 - (of v, of u)
    ig = w[None] * x[:, None]
    forms = {
        "igc": {"x/igc": w * cov(x, y) / (y.std(0) * r.std(0))[:, None]},
        "igac": {"x/igac": w * cov(x, r) / r.var(0)[:, None]},
        "ig_mean_std": {"x/ig_mean": w * x.mean(0), "x/ig_std": abs(w) * x.std(0)},
        "ig": {"samples/x/attribution": ig},
        "ig_adaptive": {"samples/x/attribution": ig, "failed": np.zeros(2)},
        "gradients": {"samples/x/attribution": np.broadcast_to(w, ig.shape)},
        "gradient_x_input": {"samples/x/attribution": ig},
        "baseline_shapley": {"samples/x/attribution": ig},
        "bsc": {"x/bsc": w * cov(x, y) / (y.std(0) * r.std(0))[:, None]},
        "guided_ig": {"samples/x/attribution": ig},
        "guided_igc": {"x/guided_igc": w * cov(x, y) / (y.std(0) * r.std(0))[:, None]},
        "naive_ttest": {"x/naive_ttest": t_test(x, y)},
        "naive_correlation": {"x/naive_correlation": cov(x, y) / (y.std(0)[:, None] * x.std(0))},
    }
    return forms[name]


@pytest.mark.parametrize(
    "name", sorted({path.stem for path in (CONF / "method").glob("*.yaml")} - members.named("PRESETS"))
)
def test_every_method_meets_its_closed_form(name: str) -> None:
    """A linear model, where one node is exact; a new preset needs its form here, or a file in tests/attributors."""
    model = nn.Linear(3, 2).double()
    with torch.no_grad():
        model.weight.copy_(W)
        model.bias.fill_(1.0)
    tree: xr.DataTree = igc_dist.attribute(model, (X, Y), method=name, n_steps=1, n_folds=5)
    for path, values in expected(name).items():
        np.testing.assert_allclose(tree[path].values, values, rtol=1e-10, atol=1e-12, err_msg=path)
    r = X.numpy() @ W.numpy().T + 1
    rho = [np.corrcoef(r[:, k], Y.numpy()[:, k])[0, 1] for k in (0, 1)]
    np.testing.assert_allclose(tree["correlation"].values, rho, rtol=1e-12)
    if name == "igc":
        np.testing.assert_allclose(tree["x/igc"].values.sum(1), rho, rtol=1e-10)


# -- the wheel ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_conf_is_inside_the_wheel(tmp_path: Path) -> None:
    """Every file, and no other; the command works from the unpacked wheel in any folder."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if name.startswith("igc_dist/conf/")}
        file.extractall(tmp_path / "installed")
    assert inside == {
        f"igc_dist/conf/{path.relative_to(CONF).as_posix()}" for path in CONF.rglob("*") if path.is_file()
    }
    assert (tmp_path / "installed" / "igc_dist" / "demo" / "digits.safetensors").exists()
    assert (tmp_path / "installed" / "igc_dist" / "report" / "template.html.j2").exists()
    found = subprocess.run(
        [sys.executable, "-m", "igc_dist", "plan"],
        cwd=tmp_path, env=environment(PYTHONPATH=str(tmp_path / "installed")), capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "gradient evaluations" in found.stdout


def test_what_is_drawn_and_how_far() -> None:
    """Designs with their draws, outputs of labels, strata, budgets and what to do about precision: as the command
    says."""
    drawn = from_config(
        composed("design=importance_pairs", "design.n_draws=7", "budget.gradients=900", "precision.on_error=fallback"),
        None,
    )
    assert drawn.attributor.design == Pairs(7, importance=True)
    assert drawn.baseline == igc_dist.baselines.Partners()
    assert (drawn.budget, drawn.audit.on_error) == (igc_dist.Budget(gradients=900), "fallback")
    some = from_config(
        composed(
            "design=stratified",
            "design.n_draws=6",
            "baseline=resampled",
            "baseline.k=3",
            "baseline.stratify=true",
            "target.n_others=2",
        ),
        None,
    )
    assert some.attributor.design == Stratified(2)
    assert some.baseline == igc_dist.baselines.Resampled(3, stratify=True)
    assert some.targets.n_others == 2
    with pytest.raises(ConfigError, match="takes other rows of the data as baselines, but baseline Zeros is given"):
        from_config(composed("design=pairs", "baseline=zeros"), None)


def test_the_keys_of_samples_that_are_dicts() -> None:
    cfg = composed("data.x=pixel_values", "data.y=labels", "data.build._target_=tests.data.test_samples.Dicts")
    allowed = ["tests.data.test_samples.*"]
    assert from_config(cfg, None, allowed).source.reading.fields == ("pixel_values", "labels")
    cfg.data.y = None
    with pytest.raises(ConfigError, match=r"fields=.*data\.y=labels"):
        from_config(cfg, None, allowed)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("data.build.root=photos", r"data.build has no 'root' yet: add it with \+data.build.root=..."),
        ("data.place=photos", r"'data.place'.*: an argument of your own class or function is \+data.build.place=..."),
        ("quadrature.n_step=3", r"unknown setting 'quadrature.n_step' \(did you mean 'quadrature.n_steps'\?\)$"),
        (
            "data=digit",
            r"data=digit is unknown \(did you mean 'digits'\?\): choose one of arrays, digits, .*or .*--config",
        ),
        ("seed=1.5", "Error merging override seed=1.5 Value '1.5' of type 'float' could not be converted to Integer$"),
        ("target.names=[a", "'target.names=.a' cannot be read: .*needs quotes of its own, target.names='...', besides"),
        ("store.path=it's", '"store.path=it\'s" cannot be read: .* store.path="..."'),
        ("reprot", "'reprot' is neither a command nor a setting: give key=value"),
    ],
)
def test_what_hydra_refuses_is_said_in_our_words(argument: str, words: str) -> None:
    """What was given and the way out, on one line, without names of Hydra's lexer, keys and addresses."""
    with pytest.raises(ConfigError, match=words) as told:
        config.compose_and_call(lambda cfg: None, [argument])
    text = str(told.value)
    assert "\n" not in text
    for name in ("http", "Lexer", "full_key", "EOF", "struct", "provider"):
        assert name not in text


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (("-m", "seed=1,2", "plan.n_folds=8", "name=x"), ["seed=1", "seed=2"]),
        (("--multirun", "seed=range(2,3)", "baseline=zeros", "fabric.devices=1,2"), ["seed=2", "seed=2"]),
        (("-m", "target.outputs=[0,1],[2]", "+name2=a"), ["target.outputs=_0_1_-HASH", "target.outputs=_2_-HASH"]),
        pytest.param(
            ("-m", "store.path='a/b','a b'"), ["store.path=a_b-HASH", "store.path=a_b-HASH"], marks=pytest.mark.slow
        ),
        (("-m", f"model.forward={'n' * 300},b"), [f"model.forward={'n' * 146}-HASH", "model.forward=b"]),
        pytest.param(("-m", "seed=1,2", "hydra.sweep.subdir=${hydra.job.num}"), ["0", "1"], marks=pytest.mark.slow),
        pytest.param(("-m", "seed=1"), ["."], marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_folders_of_a_sweep_are_named_by_what_is_swept(
    arguments: tuple[str, ...], folders: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job has one of its own, whatever characters the values have."""
    monkeypatch.chdir(tmp_path)
    found: list[Path] = []
    config.compose_and_call(lambda cfg: found.append(config.hydra_job()[0]), arguments)
    names = [str(path.relative_to(tmp_path / "outputs" / "sweep")) for path in found]
    assert [re.sub("-[0-9a-f]{6}$", "-HASH", name) for name in names] == folders
    assert len({*names}) >= len({*folders})
    if "HASH" in folders[-1]:
        assert len({*names}) == len(names)
