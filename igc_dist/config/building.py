"""Builds objects from `_target_`s in configurations, after checking each against the allow-list."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igc_dist.config.permitted import ALLOWED, check_targets
from igc_dist.paths import Auto, Design, Grid, Quadrature
from igc_dist.records import ConfigError, IgcError


def build(node: Any, allow: Sequence[str] = (), group: str = "", **extra: Any) -> Any:
    """Instantiate a node with `_target_`, after checking every `_target_` in it against the allow-list.

    `group`: that of the node, for what an error names. Raises `ConfigError` for a target outside the list, and for an
    argument that must be given; or the error of ours that the object raises. A configuration is data, and Hydra's own
    block list still permits `torch.load`, `torch.hub.load` or `pathlib.Path.unlink`.
    """
    try:
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        if not isinstance(plain, Mapping) or "_target_" not in plain:
            raise ConfigError(f"{plain!r} cannot be built: it needs a _target_, the dotted name of a class or function")
        check_targets(plain, (*ALLOWED, *allow))
    except (OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"configuration: {str(error).splitlines()[0]}") from error
    try:
        return instantiate({**plain, **extra}, _convert_="all")
    except IgcError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, IgcError):
            raise cause from error
        if lacking := _lacking(plain):
            places = " and ".join(f"{group}.{name}" if group else name for name in lacking)
            raise ConfigError(f"{places} must be given: {plain['_target_']} needs it") from error
        raise ConfigError(f"{plain['_target_']} could not be built: {type(cause).__name__}: {cause}") from error


def _lacking(node: Mapping[Any, Any]) -> list[str]:
    """The arguments without a default that are null."""
    try:
        wanted = inspect.signature(get_object(node["_target_"])).parameters
    except Exception:  # a name that is not there is said by itself
        return []
    return [n for n, p in wanted.items() if n in node and node[n] is None and p.default is inspect.Parameter.empty]


def build_attributor(
    node: Any,
    quadrature: Quadrature | Auto | None,
    design: Design | None = None,
    allow: Sequence[str] = (),
    n_steps: int | None = None,
) -> Any:
    """Build an attributor. If it integrates, it gets the quadrature, and the design unless this is the grid.

    If attributors are nested, the innermost one gets them. `n_steps` is for the innermost attributor that has steps of
    its own. Raises `ConfigError` for a design that draws, if the attributor has no design.
    """
    return _with_rule(build(node, allow), quadrature, design, n_steps)


def _with_rule(
    attributor: Any, quadrature: Quadrature | Auto | None, design: Design | None, n_steps: int | None
) -> Any:
    fields = {f.name for f in dataclasses.fields(attributor)}
    own = {"n_steps": n_steps} if n_steps is not None and "n_steps" in fields else {}
    if "attributor" in fields:
        inner = attributor.attributor
        own = {} if hasattr(inner, "n_steps") else own
        return dataclasses.replace(attributor, attributor=_with_rule(inner, quadrature, design, n_steps), **own)
    mine: dict[str, Any] = own if quadrature is None or "quadrature" not in fields else {"quadrature": quadrature}
    if design is not None and not isinstance(design, Grid):
        if "design" not in fields:
            raise ConfigError(
                f"design={design.name} with attributor {attributor.name!r}, which does not draw its nodes: it is for "
                "Integrated Gradients, "
                "take design=grid"
            )
        mine["design"] = design
    return dataclasses.replace(attributor, **mine) if mine else attributor
