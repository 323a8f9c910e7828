"""The door: `igc-dist [run|plan|verify|report|compare|info|merge|compact]`. Hydra stands behind run and plan."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HELP = """\
igc-dist - what a model has learned from a whole data set, split over its input features

  igc-dist [run] [overrides]     compute; without overrides the embedded demo (handwritten digits)
  igc-dist plan [overrides]      print shards, gradient evaluations, memory, disk, time and its bottleneck; exit 2 if they do not fit
  igc-dist -m a=1,2 b=x,y        sweep: one run per combination, finished ones are skipped
  igc-dist verify STORE          check every file of a store (run again to repair it), and results against shards; --quick: files only
  igc-dist report STORE [DIR]    write report.html and PNG files, beside the store or into DIR
  igc-dist compare STORE STORE.. what differs: specs, correlations, maps
  igc-dist info STORE            status, spec, arrays and provenance
  igc-dist merge STORE.. OUT     one store of the shards that several sites made of one run, or of runs over disjoint data (--overlap)
  igc-dist compact STORE OUT     the same store in few files
  igc-dist info STORE --watch    a running store, live: shards done, rate, time left, each rank; ends with the run (0 complete, else 2)
  torchrun --nproc-per-node N -m igc_dist [overrides]     the same on N ranks, with the same bits; srun works too

Overrides are Hydra's: group=choice selects a file of conf/, key=value sets a leaf. Groups and choices:

{groups}

Often used:
  method=igc baseline=samples baseline.k=8 quadrature=gauss_legendre quadrature.n_steps=8 statistic=all
  store.path=DIR store.samples=true fabric.devices=2 fabric.precision=bf16-mixed precision.tol=0.02 target.outputs=[0,3] seed=1
  plan.n_folds=32 plan.output_block=8 plan.micro_batch=256 plan.host_memory=8 on_nonfinite=skip report.enabled=false
  quadrature=auto      by the activations; method=ig_adaptive method.attributor.tol=1e-3      to a tolerance, sample by sample
  plan.trial=true model.channels_last=auto      the fastest is found by a trial and remembered; data.prefetch=false  no reading ahead
  design=pairs design.n_draws=4      the cheapest IGC: gradients between pairs of samples; design=stratified for other baselines
  budget.rel_se=0.05 | budget.gradients=1000000 | budget.seconds=600      folds are added until then      target.n_others=3      of labels
  data.slices=site data.weights=weight      attributes of the data set; reduce=patches reduce.size=8      sums of features
  method=guided_ig method.attributor.n_steps=50 | blur_ig | ig2 baseline=references | idgi      other paths; experiment=gallery  all of them
  fabric.devices=8 fabric.num_nodes=64 fabric.rates.flops=4e14      for plan: what it would take on 512 ranks
  model.final_layer=fc plan.mode=forward      many outputs; model.categories=50      categorical inputs
  profile=true      a trace of a few forward passes; run.json in the run's folder: how the run went, in one document
Your own model and data (any class or function of yours that returns them):
  igc-dist --allow-target mypkg.* model.build._target_=mypkg.net +model.build.width=64 model.weights=net.safetensors \\
           data.build._target_=mypkg.Data target=one_hot
Options:
  --allow-target PREFIX.*   let the configuration build classes of this package (only here, never in a file)
  --trust                   let model.weights be a file that holds code, your own: a pickle or TorchScript (only here, never in a file)
  -m, --multirun            sweep          --cfg job   print the composed configuration
  --config-dir DIR          add a folder of your own groups                --version, --help, --hydra-help

Object stores (pip install 'igc-dist[s3]'): s3://bucket/prefix, gs://bucket/prefix, az://container/prefix as store.path and STORE. Endpoint,
region and credentials come from the environment only: AWS_ENDPOINT_URL AWS_REGION AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
AWS_ALLOW_HTTP=true AWS_TIMEOUT=300s (of a request), GOOGLE_*, AZURE_*. Logs and page stay in the run's folder, ./NAME.run for report.

Exit codes: 0 done, 2 bad configuration, 3 bad model or data, 4 non-finite values or too low a precision, 75 stopped by a signal (resumes)
"""

COMMANDS = ("run", "plan", "verify", "report", "compare", "info", "merge", "compact")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and arguments[0] in COMMANDS else "run"
    if "--help" in arguments or "-h" in arguments:
        print(_help())
        raise SystemExit(0)
    if "--version" in arguments:
        from importlib.metadata import version

        print(version("igc-dist"))
        raise SystemExit(0)
    from igc_dist.records import IgcError

    try:
        raise SystemExit(_on_config(command, arguments) if command in ("run", "plan") else _on_stores(command, arguments))
    except IgcError as error:
        raise SystemExit(_complain(error)) from None


def _complain(error: Any) -> int:
    """Print an error for people; returns its exit code."""
    from igc_dist.records import said
    from igc_dist.secrets import masked_text

    rank = os.environ.get("RANK")
    print(f"igc-dist{'' if rank is None else f' (rank {rank})'}: {masked_text(said(error))}", file=sys.stderr, flush=True)
    return int(error.exit_code)


def _help() -> str:
    here = Path(__file__).resolve().parent
    conf = next(path for path in (here / "conf", here.parent / "conf") if (path / "config.yaml").is_file())
    groups = sorted(path for path in conf.iterdir() if path.is_dir())
    lines = [f"  {group.name:<11}{' '.join(sorted(path.stem for path in group.glob('*.yaml')))}" for group in groups]
    return HELP.replace("{groups}", "\n".join(lines))


# -- commands on a configuration ---------------------------------------------------------------------------------------


def _on_config(command: str, arguments: list[str]) -> int:
    from igc_dist import config, permitted
    from igc_dist.records import ConfigError, IgcError, Stopped

    for flag in {"-m", "--multirun"} & {*arguments}:  # Hydra takes it before the overrides only
        arguments.remove(flag)
        arguments.insert(0, flag)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # until the run has handlers of its own, nothing is lost by leaving
        signal.signal(number, lambda *_: os._exit(Stopped.exit_code))
    allow = []
    while "--allow-target" in arguments:
        at = arguments.index("--allow-target")
        if at + 1 >= len(arguments):
            raise ConfigError("--allow-target needs a prefix, for example mypkg.*")
        allow.append(arguments[at + 1])
        del arguments[at : at + 2]
    if permitted.TRUST in arguments:
        arguments.remove(permitted.TRUST)
        allow.append(permitted.TRUST)
    codes: list[int] = []

    def task(cfg: Any) -> None:
        if Stopped.exit_code in codes:
            return
        try:
            codes.append(_plans(cfg, allow) if command == "plan" else _run(cfg, allow, arguments))
        except IgcError as error:  # the other jobs of a sweep go on
            codes.append(_complain(error))

    config.compose_and_call(task, arguments, allow)
    return next((code for code in codes if code), 0)


def _run(cfg: Any, allow: Sequence[str], arguments: Sequence[str]) -> int:
    from igc_dist import address, agent, config, distributed, reading
    from igc_dist.records import ConfigError

    folder, overrides = config.hydra_job()
    path = _path(cfg)
    beside = address.beside(path, folder)
    if distributed.environment() is None and cfg.fabric.num_nodes > 1:
        raise ConfigError(
            f"fabric.num_nodes={cfg.fabric.num_nodes}: a run on several nodes is started on each of them, by torchrun --nnodes="
            f"{cfg.fabric.num_nodes} --nproc-per-node={cfg.fabric.devices} --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT -m igc_dist ..., "
            "by launch/multinode.sh or by srun (launch/slurm.sbatch). igc-dist plan says what it would take"
        )
    if distributed.environment() is None and cfg.fabric.devices > 1:
        flags = [part for prefix in allow for part in ("--allow-target", prefix)]
        kept = config.folder_flags(arguments)
        return agent.launch(
            cfg.fabric.devices,
            ["run", *flags, *kept, *overrides, config.override("store.path", path), config.override("hydra.run.dir", folder)],
            address.name(path),
        )
    if cfg.gallery:
        if isinstance(path, str):
            raise ConfigError(
                f"store.path={path} with gallery={list(cfg.gallery)}, which keeps a store for each method in a folder: give one"
            )
        return _gallery(cfg, allow, beside)
    _work(cfg, allow, path, beside)
    if _rank() == 0:
        tree = reading.open(path)
        _show(tree, path, _page(tree, beside, cfg.report.max_outputs) if cfg.report.enabled else None)
    return 0


def _path(cfg: Any) -> str | Path:
    """Where the store of a job is; inside a task only."""
    from igc_dist import address, config

    return address.located(cfg.store.path) if cfg.store.path is not None else config.hydra_job()[0] / "store.zarr"


def _rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def _work(cfg: Any, allow: Sequence[str], path: str | Path, beside: Path) -> None:
    """One rank of a run."""
    from igc_dist import account, compose, config, distributed, profiling, progress, run

    _log_to(beside / "logs", _rank())
    mine, fabric = account.Account(beside / "run.json", path, config.hydra_job()[1]) if _rank() == 0 else None, cfg.fabric
    with account.kept(mine):
        todo = compose.from_config(cfg, path, allow)
        with (
            distributed.joined(
                accelerator=fabric.accelerator,
                strategy=fabric.strategy,
                timeout=fabric.timeout,
                lease=fabric.lease,
                threads=fabric.threads,
                loggers=distributed.loggers(fabric.loggers, beside / "logs"),
            ) as world,
            progress.metered(world, show=True) as meter,
            profiling.profiled(beside / "trace.json.gz" if cfg.profile and world.first else None) as profile,
        ):
            if profile is not None:
                meter.passed = profile.passed
            if mine is not None:
                mine.join(meter)
            with account.kept(mine):  # while signals only set a flag: a launcher sends one as soon as another rank has failed
                run.run(todo, world, meter)


def _columns(cfg: Any) -> dict[str, Any]:
    """The configurations of a gallery, by the overrides of each; inside a task only."""
    from igc_dist import config
    from igc_dist.records import ConfigError

    _, overrides = config.hydra_job()
    if len({*cfg.gallery}) < len(cfg.gallery):
        raise ConfigError(f"gallery={list(cfg.gallery)}: give each method once, or with another setting")
    return {column: config.compose_again([*overrides, *shlex.split(column), "store.samples=true"]) for column in cfg.gallery}


def _gallery(cfg: Any, allow: Sequence[str], folder: Path) -> int:
    """A run for each column of a gallery, one after the other, then one picture. A column that fails is left out."""
    from igc_dist import compose, reading
    from igc_dist.records import ConfigError, IgcError, Stopped
    from igc_dist.report import write_gallery

    codes: list[int] = []
    stores: dict[str, Path] = {}
    for column, its in _columns(cfg).items():
        beside = folder / re.sub(r"[^A-Za-z0-9_.=-]+", ",", column)
        try:
            _work(its, allow, beside / "store.zarr", beside)
            stores[column] = beside / "store.zarr"
        except Stopped:
            raise
        except IgcError as error:
            codes.append(_complain(error))
    if _rank() > 0:
        return 0  # or the launcher would end the first rank before it has drawn; which knows of every failure
    if stores:
        trees = {column: reading.open(path) for column, path in stores.items()}
        source = compose.from_config(cfg, None, allow).source
        try:
            page = write_gallery(trees, lambda index: source.fetch(index).inputs[0].double().cpu().numpy(), folder)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        print(f"stores:  {len(stores)} of {len(cfg.gallery)} in {folder}\ngallery: {page.with_suffix('.png')}\npage:    {page}")
    return next(iter(codes), 0)


def _page(tree: Any, beside: Path, max_outputs: int) -> Path:
    from igc_dist.report import write_report

    return write_report(tree, beside, max_outputs=max_outputs)


def _show(tree: Any, path: str | Path, page: Path | None) -> None:
    from rich.console import Console

    from igc_dist.report import summary_table

    console = Console()
    console.print(summary_table(tree))
    print(f"store:  {path}")
    if page is not None:
        print(f"report: {page}")


def _log_to(folder: Path, rank: int) -> None:
    """A file per rank; warnings of every rank and progress of the first on stderr; no secrets in either."""
    from igc_dist.secrets import Masking

    folder.mkdir(parents=True, exist_ok=True)
    stderr = logging.StreamHandler()
    stderr.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    handlers: list[logging.Handler] = [logging.FileHandler(folder / f"rank-{rank}.log"), stderr]
    for handler in handlers:
        handler.setFormatter(Masking(f"%(asctime)s rank {rank} %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=handlers, force=True)
    logging.getLogger("igc_dist").setLevel(logging.INFO)


def _plans(cfg: Any, allow: Sequence[str]) -> int:
    """The plan of a run, or of each run of a gallery."""
    for column, its in (_columns(cfg) if cfg.gallery else {"": cfg}).items():
        if column:
            print(f"\n{column}")
        _plan(its, allow)
    return 0


def _plan(cfg: Any, allow: Sequence[str]) -> None:
    from igc_dist import compose, config, distributed, job, outlook, predict, trial

    todo = compose.from_config(cfg, _path(cfg), allow)
    with distributed.joined(accelerator=cfg.fabric.accelerator, threads=cfg.fabric.threads) as world:
        todo = trial.settled(todo, world)
        with todo.model.borrowed(world.device):
            todo = job.decided(todo, world.device)
            plan = job.plan_of(todo, world.device, check=False)
            began, few = time.perf_counter(), todo.source.fetch(range(min(4, len(todo.source))))
            sample = (time.perf_counter() - began) / len(few.target) / max(1, cfg.data.num_workers)
            passes = predict.passes_of(predict.probe(todo.inputs, few, world.device, todo.attributor.baselines))
    stages = todo.stages(plan)
    looks = f"at most {stages[-1]} of {plan.n_folds} folds" + (f", a look every {stages[0]}" if len(stages) > 1 else "")
    for name, value in (plan.summary() | ({"budget": looks} if todo.budget.limited else {})).items():
        print(f"{name:<28} {value}")
    fabric = config.typed(cfg).fabric
    print()
    for name, value in outlook.told(plan, passes, fabric.rates, sample, fabric.num_nodes, fabric.devices).items():
        print(f"{name:<28} {value}")
    plan.check()


def _on_stores(command: str, arguments: list[str]) -> int:
    from igc_dist import commands

    return commands.call(command, arguments)


if __name__ == "__main__":
    main()
