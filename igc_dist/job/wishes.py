"""Turns what a user writes (names and numbers) into the parts of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from igc_dist.data import Labelled, Source, labels, whole
from igc_dist.model import Model
from igc_dist.planning import Limits
from igc_dist.records import ConfigError, near
from igc_dist.statistics import STATISTICS, Statistic
from igc_dist.targets import Targets


def skipping(on_nonfinite: str) -> bool:
    """Whether samples with NaN or infinity are left out. Raises `ConfigError` for a policy that does not exist."""
    if on_nonfinite not in ("fail", "skip"):
        raise ConfigError(
            f"on_nonfinite={on_nonfinite!r}: choose fail (with the sample's index) or skip (leave out and record)"
        )
    return on_nonfinite == "skip"


def named(targets: Targets, model: Model, source: Source) -> Targets:
    """The targets with the names of the classes, and with numbers for chosen outputs.

    Names are the user's, else those of our data sets or of the model, else what another data set calls its labels.
    """
    own = source.classes if isinstance(whole(source.dataset), Labelled) else None
    sure = targets.classes or own or getattr(model.module, "classes", None)
    return replace(targets, classes=sure or source.classes, supposed=not sure).resolved(labels(source))


def limits_of(values: Mapping[str, Any], others: Sequence[str] = ()) -> Limits:
    """Make `Limits` from keyword arguments.

    For an unknown keyword, raises `ConfigError` that names the nearest one, also from `others`.
    """
    known = list(Limits.__dataclass_fields__)
    for name in values:
        if name not in known:
            hint = near(name, [*others, *known])
            raise ConfigError(f"unknown argument {name!r}{hint}: the limits of a plan are {', '.join(known)}")
    return Limits(**values)


def named_statistics(wishes: Sequence[str | Statistic], **settings: Mapping[str, Any]) -> tuple[Statistic, ...]:
    """Statistics from names or objects, each once. `settings` are by name. Raises `ConfigError` for an unknown name."""
    if isinstance(wishes, str):
        raise ConfigError(f"statistics={wishes!r}: give a list, [{wishes!r}]")
    found: dict[str, Statistic] = {}
    for wish in wishes:
        if isinstance(wish, Statistic):
            found[wish.name] = wish
        elif wish in STATISTICS:
            found.setdefault(wish, STATISTICS[wish](**settings.get(wish, {})))
        else:
            raise ConfigError(
                f"statistic {wish!r} is unknown{near(str(wish), list(STATISTICS))}: choose from {', '.join(STATISTICS)}"
            )
    return tuple(found.values())


def check_member(member: object) -> None:
    """Raise `ConfigError` for an object whose class leaves out what its family asks of every class, such as a name."""
    declared = [item for base in type(member).__mro__ for item in vars(base).get("__annotations__", {}).items()]
    lacking = [name for name, kind in declared if "ClassVar" in str(kind) and not hasattr(member, name)]
    if lacking:
        raise ConfigError(f"the class {type(member).__name__} has no {', '.join(lacking)}: give it what others have")
