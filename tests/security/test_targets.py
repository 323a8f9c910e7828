"""No configuration runs what it likes: gadgets in every place and every way in which a configuration comes."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import igc_dist
from igc_dist import config
from igc_dist.config import permitted
from igc_dist.records import ConfigError
from igc_dist.store import sealed, unsealed
from tests.ranks import attribute


def mark(path: str) -> None:
    """What a gadget does here: it leaves a file."""
    Path(path).touch()


GADGETS = (
    "os.system", "os.popen", "os.remove", "os.putenv", "posix.system", "logging.os.system", "subprocess.run",
    "subprocess.call",
    "subprocess.check_output", "subprocess.Popen", "builtins.eval", "builtins.exec", "builtins.compile",
    "builtins.getattr",
    "builtins.__import__", "builtins.open", "torch.load", "torch.hub.load", "torch.hub.load_state_dict_from_url",
    "torch.jit.load",
    "torch.package.PackageImporter", "torch.utils.cpp_extension.load_inline", "pickle.load", "pickle.loads",
    "cloudpickle.loads",
    "joblib.load", "marshal.loads", "shelve.open", "shutil.rmtree", "shutil.move", "pathlib.Path.unlink",
    "pathlib.Path.write_text",
    "importlib.import_module", "importlib.machinery.SourceFileLoader", "runpy.run_path", "code.interact",
    "hydra.utils.instantiate",
    "hydra.utils.call", "hydra.utils.get_method", "hydra.utils.get_class", "hydra.utils.get_object", "hydra.main",
    "hydra._internal.utils._locate", "functools.partial", "functools.reduce", "operator.methodcaller",
    "operator.attrgetter",
    "types.FunctionType", "types.CodeType", "ctypes.CDLL", "numpy.load", "numpy.memmap", "numpy.fromfile",
    "pandas.read_pickle",
    "zarr.open", "xarray.open_datatree", "yaml.unsafe_load", "omegaconf.OmegaConf.register_new_resolver",
    "urllib.request.urlopen",
    "urllib.request.urlretrieve", "socket.socket", "multiprocessing.Process",
    "lightning.LightningModule.load_from_checkpoint",
    "safetensors.torch.load_file", "sys.exit", "os._exit", "atexit.register", "signal.signal", "webbrowser.open",
    "pydoc.pipepager",
    "timeit.timeit", "cProfile.run", "pdb.run", "doctest.debug_script", "torch.distributed.run.main", "torch.compile",
    # the package's own doors
    "igc_dist.__main__.main", "igc_dist.run.run", "igc_dist.model.weights.load_weights",
    "igc_dist.distributed.agent.launch",
    "igc_dist.store.objects.Objects", "igc_dist.api.attribute", "igc_dist.attribute", "igc_dist.demo.train.main",
    "igc_dist.demo.train.train", "igc_dist.demo.train_network.main",
    "igc_dist.baselines.ensure.__builtins__", "igc_dist.baselines.ensure.__code__.replace",
    "igc_dist.demo.digits.__loader__.load_module",
    "igc_dist.baselines.Zeros.__init__.__globals__", "igc_dist.baselines.Zeros.__reduce_ex__",
    "igc_dist.baselines.__dict__.get",
    "--trust.x", " os.system", "os.system ", "..os.system", ".os.system", "igc_dist.baselines..os.system",
)  # fmt: skip


@pytest.mark.parametrize("gadget", GADGETS)
def test_known_gadgets(gadget: str) -> None:
    """As a target, as a partial one, with positional arguments, one that is not recursed into, and below a mapping of a
    list."""
    for bad in (
        {"_target_": gadget},
        {"_target_": gadget, "_partial_": True},
        {"_target_": gadget, "_args_": ["true"], "_convert_": "object"},
        {
            "_target_": "igc_dist.baselines.Constant",
            "_recursive_": False,
            "value": {"a": [{"b": {"_target_": gadget}}]},
        },
        {"_target_": "igc_dist.baselines.Constant", "_args_": [{"_target_": gadget}]},
    ):
        with pytest.raises(ConfigError, match=r"is not allowed|is not found"):
            config.build(OmegaConf.create(bad))
        with pytest.raises(ConfigError, match=r"is not allowed|is not found"):
            config.build(bad)


def modules() -> dict[str, ModuleType]:
    """Every module of the package."""
    found = {m.name: importlib.import_module(m.name) for m in pkgutil.walk_packages(igc_dist.__path__, "igc_dist.")}
    return {"igc_dist": igc_dist, **found}


def test_everything_that_a_module_of_the_package_imports() -> None:
    """Each name of each module: allowed are callables that a module under a prefix defines; thousands are not."""
    refused, allowed = 0, set()
    for where, module in modules().items():
        for name in sorted(vars(module)):
            target = f"{where}.{name}"
            try:
                good = permitted.is_allowed(target, permitted.ALLOWED)
            except ConfigError:
                good = False
            if good:
                allowed.add(f"{getattr(module, name).__module__}.")
            refused += not good
    assert all(home.startswith(permitted.ALLOWED) and not home.startswith(permitted.BARRED) for home in allowed), (
        allowed
    )
    assert refused > 2500
    assert not {home for home in allowed if home.split(".")[0] != "igc_dist"}


# -- aliases -----------------------------------------------------------------------------------------------------------

ALIASES = {
    "a name": "name: os.getcwd\nbuild: {_target_: '${name}'}",
    "a name in pieces": "a: os\nb: getcwd\nbuild: {_target_: '${a}.${b}'}",
    "a whole node": "node: {_target_: os.getcwd}\nbuild: {_target_: igc_dist.baselines.Constant, value: '${node}'}",
    "the environment": "build: {_target_: '${oc.env:NOT_THERE,os.getcwd}'}",
    "a decoded value": "build: {_target_: igc_dist.baselines.Constant, value: '${oc.decode:\"{_target_: "
    "os.getcwd}\"}'}",
    "a created node": "build: {_target_: igc_dist.baselines.Constants, values: '${oc.create:{_target_: os.getcwd}}'}",
    "an anchor": "node: &a {_target_: os.getcwd}\nbuild: {_target_: igc_dist.baselines.Constant, value: *a}",
    "a merged anchor": "node: &a {_target_: os.getcwd}\nbuild: {<<: *a}",
    # Hydra resolves what is left once more
    "an escaped node": "build: {_target_: igc_dist.baselines.Constants, values: '\\${oc.create:{_target_:os.getcwd}}'}",
    "an escaped key": "build: {_target_: igc_dist.baselines.Constants, values: {a: "
    "'\\${oc.create:{_target_:os.getcwd}}'}}",
    "an escaped name": "build: {_target_: '\\${oc.decode:os.getcwd}'}",
}


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("os.getcwd", lambda: called.append(1))
    with pytest.raises(ConfigError, match="is not allowed"):
        config.build(OmegaConf.create(ALIASES[alias]).build)
    assert not called


def test_interpolations_in_python() -> None:
    """A dictionary is not resolved by us, but by Hydra."""
    with pytest.raises(ConfigError, match="an interpolation is resolved once"):
        config.build({"_target_": "igc_dist.baselines.Constants", "values": "${oc.create:{_target_:os.getpid}}"})


# -- overrides, sweeps, files ------------------------------------------------------------------------------------------

BAD = "tests.security.test_targets.mark"


def ways(mark: Path) -> dict[str, str]:
    """Files of a group `experiment` that try to leave `mark`, through the nodes of the run and those of Hydra."""
    gadget = f"{{_target_: {BAD}, path: {mark}}}"
    factory = f"version: 1\n    handlers: {{evil: {{(): {BAD}, path: {mark}}}}}\n    root: {{handlers: [evil]}}"
    return {
        "model": f"model: {{build: {gadget}}}",
        "baseline": f"baseline: {{_target_: igc_dist.baselines.Constant, value: {gadget}}}",
        "output": f"model: {{output: {gadget}}}",
        "reduce": f"reduce: {gadget}",
        "attributor": f"method: {{attributor: {{_target_: igc_dist.attributors.IDGI, attributor: {gadget}}}}}",
        "callbacks": f"hydra: {{callbacks: {{a: {gadget}}}}}",
        "launcher": f"hydra: {{launcher: {{_target_: {BAD}}}}}",
        "sweeper": f"hydra: {{sweeper: {{_target_: {BAD}}}}}",
        "logging": f"hydra:\n  job_logging:\n    {factory}",
        "hydra's logging": f"hydra:\n  hydra_logging:\n    {factory}",
        "a class of logging": "hydra: {job_logging: {handlers: {console: {class: logging.handlers.SMTPHandler}}}}",
        "an object of logging": "hydra: {job_logging: {handlers: {console: {stream: 'ext://antigravity.fly'}}}}",
        "a log that is emptied": "hydra: {job_logging: {handlers: {file: {mode: w}}}}",
        "a node by its name": "model: {forward_kwargs: {a: "
"{b: " + gadget + "}}}\nhydra: {callbacks: '${model.forward_kwargs.a}'}",
        "a node by the job": f"model:\n  forward_kwargs:\n   '0':\n    {factory}\n"
        "hydra: {job_logging: '${model.forward_kwargs.${hydra.job.num}}'}",
        "the environment": "hydra: {job: {env_set: {LD_PRELOAD: /tmp/evil.so}}}",
        "a created node": f"hydra: {{callbacks: '${{oc.create:{{a:{gadget}}}}}'}}",
    }  # fmt: skip


@pytest.mark.parametrize("way", ways(Path()))
@pytest.mark.parametrize("sweep", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["run", "sweep"])
def test_files_of_others(way: str, sweep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of --config-dir, in a run and as one job of a sweep: nothing runs, whatever the task would do with the
    configuration."""
    monkeypatch.chdir(tmp_path)
    left = tmp_path / "left"
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "evil.yaml").write_text(f"# @package _global_\n{ways(left)[way]}\n")
    composed: list[Any] = []
    arguments = [
        *(["-m"] if sweep else []),
        "--config-dir",
        str(tmp_path / "conf"),
        f"experiment={'captum_ig,' if sweep else ''}evil",
    ]

    def task(cfg: Any) -> None:
        composed.append(cfg)
        if cfg.model.build._target_ == BAD or way in ("baseline", "output", "reduce", "attributor"):
            from igc_dist.config import from_config

            if len(composed) > sweep:
                from_config(cfg, None)

    with pytest.raises(ConfigError, match="is not allowed"):
        config.compose_and_call(task, [*arguments, "hydra/job_logging=none"] if "logging" not in way else arguments)
    assert not left.exists()


def test_overrides_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for override in (
        f"+hydra.callbacks.a._target_={BAD}", "+hydra.job.env_set.PYTHONPATH=/evil", f"hydra.launcher._target_={BAD}",
        "+hydra.launcher.setup=[reboot]", "+hydra.sweeper.custom_search_space=os.getcwd",
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="is not allowed"):
            config.compose_and_call(lambda cfg: None, [override])
    config.compose_and_call(lambda cfg: None, ["hydra/job_logging=none", "hydra/hydra_logging=none"])


def test_the_loader_of_hydra_is_given_back() -> None:
    from hydra._internal import hydra as internal
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    assert internal.ConfigLoaderImpl is ConfigLoaderImpl


# -- stores ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The `srun` command")
def test_the_spec_of_a_store_is_never_built(tmp_path: Path) -> None:
    """Neither reading nor verifying, reporting or resuming calls what a spec or a provenance names."""
    from igc_dist.report import compare, info, write_report
    from igc_dist.store import Store

    path = tmp_path / "store.zarr"
    attribute(path, n=6, n_folds=3, n_steps=2)
    left = tmp_path / "left"
    import json

    document = json.loads((path / "zarr.json").read_text())
    about, metadata = unsealed((path / "zarr.json").read_bytes()), document["consolidated_metadata"]["metadata"]
    assert about is not None
    gadget = {"_target_": BAD, "path": str(left), "kind": BAD, "class": BAD}
    about["spec"] = dict.fromkeys(about["spec"], gadget)
    about["provenance"] = {**about["provenance"], "model": gadget}
    (path / "zarr.json").write_bytes(sealed(about, metadata))
    tree = igc_dist.open(path)
    write_report(tree, tmp_path / "report")
    info(tree)
    compare({"a": tree, "b": tree})
    Store.existing(path).verify()
    assert not left.exists()
    assert torch.is_grad_enabled()
