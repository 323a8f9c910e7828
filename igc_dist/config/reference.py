"""The page of all settings: `python -m igc_dist.config.reference`. Types and defaults are those of the schemas."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, get_args, get_type_hints

from omegaconf import OmegaConf

from igc_dist.config.schemas import Config, folder

MEANINGS = {
    "model": "The group: how the model is built and called.",
    "model.build": "`_target_`, a class or function that returns an `nn.Module`, and its arguments.",
    "model.name": "Name of a model of the family (`igc-dist models FAMILY`).",
    "model.classes": "Names of the outputs in order: a list or a file; null: those of the family or of the data.",
    "model.weights": "File of weights: safetensors, or a checkpoint of tensors. Code in it runs with `--trust` only.",
    "model.forward": "Method to call; null: the module itself.",
    "model.forward_kwargs": "Constant keyword arguments of that method.",
    "model.output": "Which part of the result: a name, indices, `flatten`, or a function (`_target_`).",
    "model.channels_last": "Layout of convolutions: true, false, or `auto` (a trial chooses).",
    "model.compiled": "Whether the forward is compiled by `torch.compile`.",
    "model.cuda_graphs": "Whether gradients of small nets are recorded and replayed, on a CUDA device.",
    "model.final_layer": "Name of the last linear layer, which makes many outputs cheap; `auto`: the family's.",
    "model.layer": "Submodule whose activations are explained in place of the inputs (`blocks.6`), or a list.",
    "model.embedding": "Method whose result replaces categorical inputs.",
    "model.embedding_kwargs": "Its keyword arguments.",
    "model.n_categorical": "Number of trailing inputs that are categories; null: all of integer type.",
    "model.categories": "Numbers of categories of the trailing inputs, which then get a category axis.",
    "model.parallelize": "With `model_parallel`: layers as colwise or rowwise, or a function; null: blocks by FSDP2.",
    "data": "The group: the data set and how it is read.",
    "data.build": "`_target_`, a class or function that returns a data set or LightningDataModule, and its arguments.",
    "data.stage": "Loader of a data module: train, val, test or predict.",
    "data.num_workers": "Processes that read, for each rank; the memory that `igc-dist plan` tells is without theirs.",
    "data.prefetch": "Whether a thread reads the next batch while one is walked.",
    "data.x": "Of samples that are dicts: the key of x, or a list of them.",
    "data.y": "Of samples that are dicts: the key of y.",
    "data.weights": "Attribute of the data set with a weight per sample.",
    "data.slices": "Attribute of the data set with a label per sample: each label gets results of its own.",
    "data.on_unlabelled": "Samples without a slice label: `fail`, or `skip`.",
    "data.names": "Names of the inputs.",
    "data.dims": "Names of the dimensions of each input.",
    "data.root": "Folder or file of the data.",
    "data.table": "CSV or Parquet file of paths, labels and more columns.",
    "data.label": "Column or field of the labels, or a list of 0/1 columns.",
    "data.classes": "The same, where labels are read by name; `auto`: those of the model.",
    "data.size": "Height and width of the images; `auto`: those of the model.",
    "data.resize": "Length of the shorter side before the crop; `auto`: that of the model.",
    "data.interpolation": "How images are resized; `auto`: as the model's preprocessing.",
    "data.masks": "Label maps for `reduce=masks`: the column of their paths; in tar files the end of their names.",
    "data.mask_names": "Names of the labels 0, 1, ...: a list, a file, or label: name.",
    "target": "The group: which outputs are explained.",
    "target.outputs": "Numbers or names of outputs, `present`, `top:20`, `positives>=30`; null: all.",
    "target.one_hot": "Whether y is a class label.",
    "target.names": "Names of the outputs.",
    "target.n_others": "Outputs drawn beside the label's, of many labels.",
    "target.each": "`own`, `predicted` or `top:k`: each sample is explained for outputs of its own.",
    "baseline": "The group: a baseline, with `_target_` and its settings (`baseline.k`, ...).",
    "quadrature": "The group: nodes along a path.",
    "quadrature.name": "Rule; null: `auto`, or `midpoint` where `n_steps` is given.",
    "quadrature.n_steps": "Gradients per (input, baseline); of methods that have steps of their own, their number.",
    "quadrature.tol": "Error that `auto` allows, as a part of the correlation; null: 0.01.",
    "design": "The group: where gradients are taken.",
    "design.name": "`grid`, `shifted`, `stratified`, `random`, `pairs` or `importance_pairs`.",
    "design.n_draws": "Gradients per input; null: `quadrature.n_steps` per baseline (else 1; shifted 4), or 4 pairs.",
    "method": "The group: an attributor and statistics under one name.",
    "method.name": "Its name.",
    "method.attributor": "`_target_` of the attributor, and its settings.",
    "method.statistics": "Statistics that it folds.",
    "method.samples": "Whether its results are per sample.",
    "statistic": "The group: statistics in place of the method's.",
    "statistic.names": "Names: correlation, autocorrelation, moments, pearson, ttest, controlled_correlation, area.",
    "statistic.low": "Upper limit of the low group of a t-test.",
    "statistic.high": "Lower limit of the high group of a t-test.",
    "reduce": "The group: how features are summed before they are folded.",
    "metric": "The group: scores of the map of each sample; several at once.",
    "fabric": "The group: ranks, devices and precision, in Lightning's words.",
    "fabric.accelerator": "`auto`, `cpu`, `cuda`, ...",
    "fabric.devices": "Ranks that the command starts on this machine.",
    "fabric.num_nodes": "Machines; for `plan`, or told by the launcher.",
    "fabric.strategy": "Lightning's name of a strategy; `model_parallel`: several ranks hold one model (a replica).",
    "fabric.data_parallel_size": "Ranks of a replica that hold a part of each weight (FSDP2) and of each batch.",
    "fabric.tensor_parallel_size": "Ranks of a replica among which layers are split.",
    "fabric.precision": "`32-true`, `32-tf32`, `bf16-mixed`, `16-mixed` or `64-true`.",
    "fabric.threads": "CPU threads of a rank; the same bits need the same number.",
    "fabric.timeout": "Seconds of silence after which a rank counts as lost.",
    "fabric.lease": "Seconds of silence after which others do its shard; null: a sixth of `timeout`.",
    "fabric.loggers": "`csv`, `tensorboard`, `wandb`.",
    "fabric.rates": "For `plan`: a card that was measured (`h200`), or the rates below.",
    "fabric.rates.flops": "Floating point operations per second that a rank sustains on this model.",
    "fabric.rates.bandwidth": "Bytes per second that a rank sends to others.",
    "fabric.rates.disk": "Bytes per second that the storage accepts from all ranks.",
    "fabric.rates.card": "The card of a rank; `flops` counts if both are given.",
    "store": "The group: where results go.",
    "store.path": "A folder or a URL; null: store.zarr in the folder of the run.",
    "store.samples": "Whether the attribution of each sample is kept.",
    "report": "The group: the page.",
    "report.enabled": "Whether it is written.",
    "report.max_outputs": "Outputs drawn in each figure.",
    "report.images": "Whether the samples themselves are on it; `none` keeps every picture of them out.",
    "report.thumbnails": "Samples whose small pictures are kept beside the store, for a page without the data.",
    "plan": "The group: how the grid is cut, and what it may cost.",
    "plan.n_folds": "Largest number of folds: units of work, and groups of the jackknife.",
    "plan.output_block": "Outputs of a shard; null: the plan chooses.",
    "plan.baseline_block": "Baselines of a shard; null: all.",
    "plan.micro_batch": "Rows of a forward pass; null: the plan chooses.",
    "plan.trial": "Whether a trial on the real model chooses `micro_batch`.",
    "plan.host_memory": "GiB of host memory per rank, for all that the process holds.",
    "plan.device_memory": "GiB of the accelerator's memory per rank.",
    "plan.disk": "GiB of the store as a file system counts them; null: no limit.",
    "plan.files": "Files and folders of the store; null: no limit.",
    "plan.mode": "`reverse` (a gradient per output), `forward` (a derivative per reduced feature), or `auto`.",
    "budget": "The group: where a run stops early.",
    "budget.gradients": "Gradients, of all ranks and replicates.",
    "budget.seconds": "Seconds of the walks.",
    "budget.rel_se": "Standard error of every map, relative to its size.",
    "budget.replicates": "Folds walked twice with other draws; null: 4 with `rel_se`, else 0.",
    "precision": "The group: the audit of a precision.",
    "precision.audit": "Micro-batches attributed again in the next higher precision; null: 4 where it is mixed.",
    "precision.tol": "Largest relative change; null: only recorded.",
    "precision.on_error": "Above it: `fail` (exit code 4), or `fallback` (start again in the higher precision).",
    "filter": "Which samples count: `correct`, `confident(0.8)`, `column==value`, `indices FILE`; null: all.",
    "seed": "Seed of all draws.",
    "on_nonfinite": "Samples with NaN or infinity: `fail`, or `skip` (left out and listed).",
    "on_bad_sample": "Samples that cannot be read: `fail`, or `skip`.",
    "name": "Name of the run's folder below outputs/.",
    "profile": "Whether a trace of a few forward passes is written.",
    "gallery": "Overrides of the runs of `experiment=gallery`.",
    "picture": "What a gallery draws: `samples` (maps of the same samples), or `recovery` (maps beside a true mask).",
}
"""What each setting means."""


def settings(kind: Any = Config, above: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each key with its type and default: groups before their keys. "required" where there is no default."""
    hints = get_type_hints(kind)
    for each in dataclasses.fields(kind):
        key, hint = above + each.name, hints[each.name]
        if dataclasses.is_dataclass(hint):
            yield key, "group", None
            yield from settings(hint, f"{key}.")
        else:
            made = each.default_factory
            yield key, _named(hint), each.default if made is dataclasses.MISSING else made()


def _named(hint: Any) -> str:
    parts = get_args(hint)
    if type(None) in parts:
        return " or ".join([*(_named(part) for part in parts if part is not type(None)), "null"])
    if hint is Any:
        return "any"
    names = {"str": "text", "bool": "true or false", "int": "integer", "float": "number", "dict": "settings"}
    name = getattr(hint, "__origin__", hint).__name__
    return f"list of {_named(parts[0])}" if name == "list" and parts else names.get(name, name)


def page() -> str:
    """The page in Markdown. A key without a meaning is a `KeyError`."""
    lines = [
        "# Settings",
        "",
        "Written by `python -m igc_dist.config.reference`. On the command line `key=value` sets a key, `group=choice`",
        "takes a file of `conf/`, and `igc-dist --cfg job` prints all that a command would run with. In Python groups",
        "are objects with the same fields (`igc_dist.Limits(n_folds=8)`).",
    ]
    for key, kind, default in settings():
        if "." not in key and kind in ("group", "settings", "settings or null"):
            lines += ["", f"## {key}", "", MEANINGS[key], *_choices(key, kind != "group")]
            lines += ["", "| key | type | default | meaning |", "|---|---|---|---|"] if kind == "group" else []
        elif "." in key and kind != "group":
            lines.append(_row(key, kind, default))
    lines += ["", "## Of the run", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    lines += [
        _row(*each)
        for each in settings()
        if "." not in each[0] and "group" not in each[1] and "settings" not in each[1]
    ]
    lines += ["", "## experiment", "", "A whole command under one name.", *_choices("experiment", own=False)]
    return "\n".join(lines) + "\n"


def _choices(group: str, own: bool) -> list[str]:
    """The files of a group, with the comments at their tops; with their own settings, where the group has none."""
    rows = ["", "| choice | meaning |" + " settings |" * own, "|---|---|" + "---|" * own]
    for path in sorted((folder() / group).glob("*.yaml")):
        top = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        lines = [line[2:] for line in top if "@package" not in line]
        # indented lines are commands
        said = " ".join(f"`{line.strip()}`" if line.startswith(" ") else line for line in lines).replace("|", "\\|")
        found = dict(_leaves(OmegaConf.to_container(OmegaConf.load(path)), group)) if own else {}
        given = ", ".join(f"`{key}={_word(value)}`" for key, value in found.items())
        rows.append(f"| `{path.stem}` | {said} |" + f" {given} |" * own)
    return rows if len(rows) > 3 else []


def _word(value: Any) -> str:
    """A value as on the command line."""
    return json.dumps(value, separators=(",", ":")).replace('"', "")


def _leaves(node: Any, above: str) -> Iterator[tuple[str, Any]]:
    """The settings in a file by their keys, without those of Hydra."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}.{key}")
        elif key not in ("_target_", "_partial_", "defaults", above):
            yield f"{above}.{key}", value


def _row(key: str, kind: str, default: Any) -> str:
    shown = "required" if default == "???" else f"`{json.dumps(default)}`"
    return f"| `{key}` | {kind} | {shown} | {MEANINGS[key]} |"


if __name__ == "__main__":
    print(page(), end="")
