"""`igc-dist run`: one rank of a run with its log and account, all ranks of this machine, or the runs of a gallery."""

from __future__ import annotations

import logging
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from igc_dist import cli, config, distributed, files, job, metrics, report, results, store, watching
from igc_dist.cli.screen import on_screen, say
from igc_dist.records import ConfigError, IgcError, Stopped
from igc_dist.secrets import Masking


def start(
    cfg: Any, allow: Sequence[str], arguments: Sequence[str], meeting: Path | None = None, own: bool = False
) -> int:
    """Start the run of a configuration, or its ranks. Returns an exit code.

    `meeting`: the folder where this rank meets the others, if a launcher on this machine started it. `own`: this
    process is the command.
    """
    folder, _ = config.hydra_job()
    path = located(cfg)
    store.check_place(path)
    if cfg.report.images not in (True, *NO_IMAGES):
        raise ConfigError(f"report.images={cfg.report.images}: give true, or none to keep pictures of samples out")
    beside = store.beside(path, folder)
    alone = distributed.environment() is None
    if alone and cfg.fabric.num_nodes > 1:
        raise ConfigError(
            f"fabric.num_nodes={cfg.fabric.num_nodes}: a run on several nodes is started on each of them, by torchrun "
            f"--nnodes={cfg.fabric.num_nodes} --nproc-per-node={cfg.fabric.devices} --rdzv-backend=c10d "
            "--rdzv-endpoint=HOST:PORT -m igc_dist ..., by launch/multinode.sh or by srun (launch/slurm.sbatch). "
            "igc-dist plan says what it would take"
        )
    if alone and cfg.fabric.devices > 1:
        places = [config.override("store.path", path), config.override("hydra.run.dir", folder)]
        only = own and not config.in_a_sweep()  # a sweep goes on after these ranks
        launch = distributed.become_launcher if only else distributed.launch
        return launch(cfg.fabric.devices, [*config.for_ranks(arguments), *places], allow)
    if cfg.gallery:
        if isinstance(path, str):
            raise ConfigError(
                f"store.path={path} with gallery={list(cfg.gallery)}, which keeps a store for each method in a folder: "
                "give one"
            )
        return _gallery(cfg, allow, beside, meeting)
    _work(cfg, allow, path, beside, meeting, options(allow, arguments))
    if distributed.rank() == 0:
        _show(cfg, allow, path, beside)
    return 0


def located(cfg: Any) -> str | Path:
    """The location of a job's store. Works only inside a task."""
    if cfg.store.path is None:
        files.refuse_links(config.hydra_job()[0], "store.zarr")
        return config.hydra_job()[0] / "store.zarr"
    config.check_name("store.path", cfg.store.path)
    return store.located(cfg.store.path)


def options(allow: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """What a command line says besides overrides and has to say again for the same run: ``--path``, ``--allow-target``,
    ``--trust``."""
    words = [*arguments]
    found = [word for folder in cli.main.folders(words) for word in ("--path", folder)]
    for prefix in allow:
        found += [prefix] if prefix == config.TRUST else ["--allow-target", prefix]
    return found


def _work(
    cfg: Any,
    allow: Sequence[str],
    path: str | Path,
    beside: Path,
    meeting: Path | None,
    said: Sequence[str] = (),
) -> None:
    """Run one rank. `said`: the options of its command line."""
    from igc_dist.run import run

    _log_to(beside / "logs", distributed.rank())
    mine = None
    if distributed.rank() == 0:
        mine = watching.Account(beside / "run.json", path, config.hydra_job()[1], said)
    fabric = cfg.fabric
    with watching.kept(mine):
        todo = config.from_config(cfg, path, allow)
        with (
            distributed.joined(
                accelerator=fabric.accelerator,
                strategy=todo.model.parts if todo.model.parts.ranks > 1 else fabric.strategy,
                timeout=fabric.timeout,
                lease=fabric.lease,
                threads=fabric.threads,
                loggers=distributed.loggers(fabric.loggers, beside / "logs"),
                meeting=meeting,
            ) as world,
            todo.model.reserved(),
            watching.metered(world, show=True) as meter,
            watching.profiled(beside / "trace.json.gz" if cfg.profile and world.first else None) as profile,
        ):
            if profile is not None:
                meter.passed = profile.passed
            if mine is not None:
                mine.join(meter)
            # here signals only set a flag: a launcher sends one as soon as another rank has failed
            with watching.kept(mine), job.in_step(todo, world) as leads:
                if leads:
                    run(todo, world, meter)


def _show(cfg: Any, allow: Sequence[str], path: str | Path, beside: Path) -> None:
    """Show the results on the screen, and write the page."""
    tree, page = store.open(path), None
    if cfg.report.enabled:
        with files.Aside(f"the page in {beside}").trying():
            fetch, means, evidence = None, dict[str, report.Mean](), report.gather(tree)
            if cfg.report.images in NO_IMAGES:
                report.forget_thumbnails(beside)
            else:
                fetch = partial(_images, config.from_config(cfg, None, allow).source)
                with files.Aside(f"the thumbnails in {beside}").trying():
                    means = _kept(cfg.report, tree, beside, fetch, evidence.samples)
            known = report.Beside(fetch, means, beside, evidence)
            page = report.write_report(tree, beside, cfg.report.max_outputs, beside=known)
    with on_screen():
        Console().print(report.summary_table(tree))
        if (scores := report.scores_table(tree)) is not None:
            Console().print(scores)
        say(f"store:  {path}")
        if page is not None:
            say(f"report: {page}")


def show_sweep(paths: Sequence[str], folder: Path) -> None:
    """Write the page of the runs of a sweep into its folder."""
    with files.Aside(f"the page of the sweep in {folder}").trying():
        trees = dict(zip(report.told_apart(paths), map(store.open, paths), strict=True))
        say(f"sweep:  {report.write_sweep(trees, folder)}")


NO_IMAGES = (False, "none")
"""Values of report.images that keep all pictures of samples out."""


def _kept(
    how: Any, tree: xr.DataTree, beside: Path, fetch: report.Fetch, named: Sequence[int]
) -> dict[str, report.Mean]:
    """Keep small pictures beside the page. Returns the means of each output's samples."""
    if how.thumbnails < 1:
        return {}
    report.keep_thumbnails(tree, beside, fetch, how.thumbnails, how.max_outputs, named)
    return report.Thumbnails.beside(tree, beside).means


def _log_to(folder: Path, rank: int) -> None:
    """Log to a file per rank, and to stderr: warnings of every rank, progress of the first. Secrets are masked."""
    for each in (folder.parent, folder):
        files.refuse_links(each)
    stderr = logging.StreamHandler()
    stderr.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    stderr.setFormatter(Masking(f"%(asctime)s rank {rank} %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[stderr], force=True)
    logging.getLogger("igc_dist").setLevel(logging.INFO)
    with files.Aside(file := folder / f"rank-{rank}.log").trying():
        files.folder(folder)
        kept = _Log(file)
        kept.setFormatter(stderr.formatter)
        logging.getLogger().addHandler(kept)


class _Log(logging.FileHandler):
    """Adds to a file, but not through a link. What cannot be added is left out."""

    def __init__(self, file: Path) -> None:
        self.aside = files.Aside(file)
        super().__init__(file, encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        if isinstance(sys.exc_info()[1], OSError):
            with self.aside.trying():
                raise
        else:
            super().handleError(record)

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=files.add_to)


PICTURES = ("samples", "recovery")
"""What the picture of a gallery shows: maps of the same samples, or dataset-wise maps beside a true mask."""


def columns(cfg: Any) -> dict[str, Any]:
    """The configurations of a gallery, by the overrides of each. Works only inside a task."""
    _, overrides = config.hydra_job()
    if cfg.picture not in PICTURES:
        raise ConfigError(f"picture={cfg.picture!r}: choose one of {', '.join(PICTURES)}")
    if len({*cfg.gallery}) < len(cfg.gallery):
        raise ConfigError(f"gallery={list(cfg.gallery)}: give each method once, or with another setting")
    words = {}
    for column in cfg.gallery:
        config.check_name("gallery", column)
        try:
            words[column] = [*shlex.split(column), *(["store.samples=true"] if cfg.picture == "samples" else [])]
        except ValueError as error:
            raise ConfigError(f"gallery has {column!r}, which does not parse ({error}): quote as in a shell") from error
    return {column: config.compose_again(overrides, more) for column, more in words.items()}


def _gallery(cfg: Any, allow: Sequence[str], folder: Path, meeting: Path | None) -> int:
    """Run each column of a gallery, one after the other, then draw one picture. A column that fails is left out."""
    codes: list[int] = []
    stores: dict[str, Path] = {}
    each = columns(cfg)
    masks = {column: _mask(its, allow) for column, its in each.items()} if cfg.picture == "recovery" else {}
    for column, its in each.items():
        beside = folder / re.sub(r"[^A-Za-z0-9_.=-]+", ",", column)
        try:
            _work(its, allow, beside / "store.zarr", beside, meeting)
            stores[column] = beside / "store.zarr"
        except Stopped:
            raise
        except IgcError as error:
            codes.append(cli.main.complain(error))
    if distributed.rank() > 0:
        return 0  # otherwise the launcher would end the first rank, which knows every failure, before it draws
    if stores:
        page = None
        with files.Aside(f"the gallery in {folder}", OSError).trying():
            if masks:
                page = report.write_recovered(list(_recovered(stores, masks)), folder)
            else:
                trees = {column: store.open(path) for column, path in stores.items()}
                page = report.write_gallery(
                    trees, partial(_images, config.from_config(cfg, None, allow).source), folder
                )
        with on_screen():
            say(f"stores:  {len(stores)} of {len(cfg.gallery)} in {folder}")
            if page is not None:
                say(f"gallery: {page.with_suffix('.png')}\n{'table:   ' if masks else 'page:    '}{page}")
    return next(iter(codes), 0)


def _mask(cfg: Any, allow: Sequence[str]) -> np.ndarray:
    """The true mask of the data, (J, *P)."""
    found = getattr(config.from_config(cfg, None, allow).source.dataset, "mask", None)
    if found is None:
        raise ConfigError(
            "picture=recovery compares maps with the true mask of the data, an attribute mask (outputs, *features): "
            "the data set has none; take data=simulation, or picture=samples"
        )
    return np.asarray(found, np.float64)


def _recovered(stores: Mapping[str, Path], masks: Mapping[str, np.ndarray]) -> Iterator[report.Recovered]:
    """Each map of each store with its scores; p-values are no map."""
    for column, path in stores.items():
        for name, found in results.replicates(path).items():
            if not name.endswith(("_p", "ttest")):
                yield report.Recovered(
                    column, name, masks[column], found.whole, metrics.recovery(masks[column], *found)
                )


def _images(source: Any, indices: list[int]) -> Any:
    """The first input of some samples, read one by one in this process; NaN for a sample that cannot be read."""
    found = []
    for i in indices:
        batch = source.look([i])
        image = batch.inputs[0][0].double().cpu().numpy()
        found.append(np.full_like(image, np.nan) if batch.unread else image)
    return np.stack(found)
