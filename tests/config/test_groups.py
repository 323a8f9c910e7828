"""The groups in Python: the fields of the command line, the numbers of the keywords, and nothing given twice."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.config import groups, schemas
from igc_dist.records import ConfigError
from igc_dist.statistics import TTest

FOLDER = {"root", "table", "label", "classes", "size", "resize", "interpolation", "masks", "mask_names"}
OF_DATA = {"classes", "supposed"}
"""Fields of an object that its data set fills in."""

SCHEMAS: dict[type, tuple[type, dict[str, str], set[str]]] = {
    # families are functions in Python, `igc_dist.models`; replicas are of the command line
    igc_dist.Model: (schemas.ModelConfig, {"build": "module"}, {"name", "classes", "parallelize"}),
    # in Python, what a folder of images is made of is said to `ImageFolder`
    igc_dist.Data: (schemas.DataConfig, {"build": "dataset", "x": "fields", "y": "fields"}, FOLDER),
    igc_dist.Targets: (schemas.TargetConfig, {}, set()),
    igc_dist.Rule: (schemas.QuadratureConfig, {}, set()),
    igc_dist.Design: (schemas.DesignConfig, {}, set()),
    igc_dist.Method: (schemas.MethodConfig, {}, set()),
    igc_dist.Statistic: (schemas.StatisticConfig, {}, set()),
    igc_dist.Store: (schemas.StoreConfig, {}, set()),
    # who starts the ranks says how many there are; rates are for `igc-dist plan`
    igc_dist.Fabric: (
        schemas.FabricConfig,
        {},
        {"devices", "num_nodes", "rates", "data_parallel_size", "tensor_parallel_size"},
    ),
}
"""The schema of each group, what its fields are called in Python, and those that Python does not have."""

WHOLE = {"plan": igc_dist.Limits, "budget": igc_dist.Budget, "precision": igc_dist.Precision}
"""Groups whose object in Python is the schema itself."""


def fields(kind: Any) -> set[str]:
    return {each.name for each in dataclasses.fields(kind)}


def problem() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(24, 4)
    return net, (x, net(x).detach() + torch.randn(24, 3))


def bits(*arguments: Any, **settings: Any) -> bytes:
    return igc_dist.attribute(*arguments, **settings)["x/igc"].values.tobytes()


@pytest.mark.parametrize("kind", SCHEMAS, ids=lambda kind: kind.__name__)
def test_fields_are_those_of_the_command_line(kind: type) -> None:
    schema, called, absent = SCHEMAS[kind]
    assert fields(kind) - OF_DATA == {called.get(name, name) for name in fields(schema) - absent}


def test_every_group_has_an_object() -> None:
    """All groups of the issue but `baseline`, whose objects are those of `igc_dist.baselines`."""
    told = {each.name: each.type for each in dataclasses.fields(schemas.Config)}
    for name, kind in WHOLE.items():
        assert told[name] in (kind.__name__, {"precision": "Audit"}.get(name)), name
    assert {schema.__name__ for schema, _, _ in SCHEMAS.values()} <= {*told.values()}


def test_every_field_is_a_keyword_too() -> None:
    """What an object sets is what the keyword of `attribute` sets; the limits of a plan are keywords by their names."""
    known = {*inspect.signature(igc_dist.attribute).parameters} | fields(igc_dist.Limits)
    net, data = problem()
    for kind in (igc_dist.Model, igc_dist.Data, *groups.GROUPS.values()):
        called = groups.AUDITED if kind is igc_dist.Precision else getattr(kind, "flat", {})
        own = getattr(kind, "own", ())
        assert {called.get(name, name) for name in fields(kind) - {*own, *OF_DATA}} <= known, kind
    assert groups.flattened(igc_dist.Model(net), igc_dist.Data(data), {}) == (net, data, {})


def test_objects_and_keywords_give_the_same_bits() -> None:
    net, data = problem()
    flat = bits(
        net, data, n_steps=4, quadrature="gauss_legendre", n_folds=4, micro_batch=8, threads=1, channels_last=False,
        precision="64-true", target=[0, 2], names=["x"],
    )  # fmt: skip
    objects = bits(
        igc_dist.Model(net),
        igc_dist.Data(data, names=["x"]),
        quadrature=igc_dist.Rule("gauss_legendre", 4),
        plan=igc_dist.Limits(n_folds=4),
        micro_batch=8,  # what an object leaves open may be a keyword
        fabric=igc_dist.Fabric(threads=1, precision="64-true"),
        precision=igc_dist.Precision(audit=0),
        target=igc_dist.Targets([0, 2]),
        method=igc_dist.Method("igc"),
    )
    assert objects == flat


def test_statistic_store_and_design(tmp_path: Path) -> None:
    net, data = problem()
    labels = (data[1] > 0).double()
    tree = igc_dist.attribute(
        net,
        (data[0], labels),
        statistic=igc_dist.Statistic(["ttest"], low=0.25, high=0.75),
        store=igc_dist.Store(tmp_path / "store"),
        design=igc_dist.Design("grid"),
        n_steps=2,
        n_folds=2,
    )
    by_object = igc_dist.attribute(net, (data[0], labels), statistics=[TTest(0.25, 0.75)], n_steps=2, n_folds=2)
    assert tree.attrs["spec_hash"] == by_object.attrs["spec_hash"]
    assert igc_dist.open(tmp_path / "store").attrs["status"] == "complete"


def test_weights_are_loaded(tmp_path: Path) -> None:
    net, data = problem()
    other = problem()[0]
    for parameter in other.parameters():
        parameter.data.add_(1.0)
    torch.save(other.state_dict(), tmp_path / "w.pt")
    found = bits(igc_dist.Model(net, weights=tmp_path / "w.pt"), data, n_steps=2)
    assert found == bits(other, data, n_steps=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"plan": igc_dist.Limits(n_folds=4), "n_folds": 5}, "n_folds is given in plan=Limits"),
        ({"fabric": igc_dist.Fabric(threads=1), "threads": 2}, "threads is given in fabric=Fabric"),
        ({"precision": igc_dist.Precision(audit=3), "precision_audit": 2}, "precision_audit is given in precision="),
        ({"quadrature": igc_dist.Rule("left", 4), "n_steps": 5}, "n_steps is given in quadrature=Rule"),
        ({"target": igc_dist.Targets(n_others=2), "n_others": 1}, "n_others is given in target=Targets"),
        (
            {"statistic": igc_dist.Statistic(["moments"]), "method": igc_dist.Method(statistics=["pearson"])},
            "statistics is given in method=Method.* and in statistic=",
        ),
        ({"plan": 4}, r"plan=4: give an object of the group, igc_dist\.Limits\(n_folds"),
        ({"design": igc_dist.Limits(n_folds=4)}, "that is an object of the group plan, give plan="),
        ({"statistic": igc_dist.Statistic(["correlation"], low=1.0)}, "has no ttest"),
    ],
)
def test_what_is_given_twice_or_in_the_wrong_place_is_refused(settings: dict[str, Any], words: str) -> None:
    net, data = problem()
    with pytest.raises(ConfigError, match=words):
        igc_dist.attribute(net, data, **settings)


def test_model_and_data_are_given_once() -> None:
    net, data = problem()
    with pytest.raises(ConfigError, match="forward is given in model=Model"):
        igc_dist.attribute(igc_dist.Model(net, forward="forward"), data, forward="forward_2")
    with pytest.raises(ConfigError, match="stage is given in data=Data"):
        igc_dist.attribute(net, igc_dist.Data(data, stage="fit"), stage="validate")
