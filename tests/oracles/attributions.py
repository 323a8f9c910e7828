"""Attributions one row, one node and one component at a time, in float64. Nothing of the package is used: permutations
are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations as all_orders

import numpy as np
import torch
from torch import nn

Arrays = tuple[np.ndarray, ...]


def output(model: nn.Module, point: Arrays, k: int) -> float:
    """f_k of one row."""
    with torch.no_grad():
        return float(model(*(torch.from_numpy(np.asarray(x, np.float64))[None] for x in point)).reshape(-1)[k])


def gradient(model: nn.Module, point: Arrays, k: int) -> Arrays:
    """d f_k / d x of one row."""
    rows = [torch.from_numpy(np.array(x, np.float64))[None].requires_grad_() for x in point]
    with torch.enable_grad():
        y = model(*rows).reshape(-1)[k]
        if not y.requires_grad:
            return tuple(np.zeros(row.shape[1:]) for row in rows)
        return tuple(g[0].numpy() for g in torch.autograd.grad(y, rows, materialize_grads=True))


def samples(x: Sequence[np.ndarray]) -> list[Arrays]:
    """The rows of several inputs, as a tuple per sample."""
    return [tuple(np.asarray(xi[n], np.float64) for xi in x) for n in range(len(x[0]))]


def gradients(model: nn.Module, x: Sequence[np.ndarray], outputs: Sequence[int]) -> Arrays:
    """(N, J, *P) per input: a = d f_k(x) / d x."""
    found = [[gradient(model, point, k) for k in outputs] for point in samples(x)]
    return tuple(np.array([[by_input[i] for by_input in row] for row in found]) for i in range(len(x)))


def gradients_x_input(model: nn.Module, x: Sequence[np.ndarray], outputs: Sequence[int]) -> Arrays:
    """(N, J, *P) per input: a = x * d f_k(x) / d x."""
    found = [
        [[g * xi for g, xi in zip(gradient(model, point, k), point, strict=True)] for k in outputs]
        for point in samples(x)
    ]
    return tuple(np.array([[by_input[i] for by_input in row] for row in found]) for i in range(len(x)))


def integrated_gradients(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    nodes: Sequence[float],
    weights: Sequence[float],
) -> Arrays:
    """(N, J, *P) per input: ``a_i = mean_b (x_i - x0_i) sum_k w_k d_i f(x0 + t_k (x - x0))``; `baselines[n][b][i]`
    starts a path."""
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    for n, point in enumerate(samples(x)):
        for j, k in enumerate(outputs):
            for start in baselines[n]:
                for t, w in zip(nodes, weights, strict=True):
                    grads = gradient(model, tuple(x0 + t * (x1 - x0) for x0, x1 in zip(start, point, strict=True)), k)
                    for i, g in enumerate(grads):
                        result[i][n, j] += w * g * (point[i] - start[i]) / len(baselines[n])
    return result


def identity(x: Sequence[np.ndarray], outputs: Sequence[int]) -> Arrays:
    """(N, J, *P) per input: a = x, whatever the output."""
    return tuple(np.array([[point[i] for _ in outputs] for point in samples(x)]) for i in range(len(x)))


def switched(model: nn.Module, point: Arrays, start: Arrays, order: Sequence[int], k: int) -> Arrays:
    """What each component changes in f_k when all are switched from `start` to `point` in this order, counted through
    all inputs."""
    now = [np.array(x0, np.float64) for x0 in start]
    credit = [np.zeros(x0.shape) for x0 in now]
    places = [(i, where) for i, x0 in enumerate(now) for where in np.ndindex(x0.shape)]
    before = output(model, tuple(now), k)
    for component in order:
        i, where = places[component]
        now[i][where] = point[i][where]
        after = output(model, tuple(now), k)
        credit[i][where] = after - before
        before = after
    return tuple(credit)


def baseline_shapley(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    orders: Sequence[Sequence[Sequence[Sequence[int]]]],
) -> Arrays:
    """(N, J, *P) per input: the mean of `switched` over baselines and over the permutations `orders[n][b]` of all
    components."""
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    for n, point in enumerate(samples(x)):
        for j, k in enumerate(outputs):
            for start, of_start in zip(baselines[n], orders[n], strict=True):
                for order in of_start:
                    for i, credit in enumerate(switched(model, point, start, order, k)):
                        result[i][n, j] += credit / len(of_start) / len(baselines[n])
    return result


def exact_shapley(
    model: nn.Module, x: Sequence[np.ndarray], baselines: Sequence[Sequence[Arrays]], outputs: Sequence[int]
) -> Arrays:
    """(N, J, *P) per input: baseline Shapley over every permutation there is; for a few components."""
    orders = list(all_orders(range(sum(int(np.prod(xi.shape[1:])) for xi in x))))
    return baseline_shapley(model, x, baselines, outputs, [[orders for _ in of_n] for of_n in baselines])


def predictions(model: nn.Module, x: Sequence[np.ndarray], outputs: Sequence[int]) -> np.ndarray:
    """(N, J): f_k(x)."""
    return np.array([[output(model, point, k) for k in outputs] for point in samples(x)])


def baseline_predictions(model: nn.Module, baselines: Sequence[Sequence[Arrays]], outputs: Sequence[int]) -> np.ndarray:
    """(N, J): mean_b f_k(x0_b)."""
    return np.array(
        [[sum(output(model, start, k) for start in of_n) / len(of_n) for k in outputs] for of_n in baselines]
    )


def shared(starts: Sequence[Arrays], n: int) -> list[list[Arrays]]:
    """The same baselines for each of n samples."""
    return [list(starts) for _ in range(n)]


def adaptive(
    model: nn.Module,
    x: Sequence[np.ndarray],
    baselines: Sequence[Sequence[Arrays]],
    outputs: Sequence[int],
    rule: tuple[Sequence[float], Sequence[float], Sequence[float]],
    n_start: int,
    bounds: tuple[float, float],
    most: int,
) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Attributions as those of `integrated_gradients`, (N, J) whether a sample failed, (N, J) gradients that it took.

    `rule`: nodes, weights, and weights of the coarser rule; `bounds`: relative and absolute; `most`: rows of one path.
    """
    nodes, fine, coarse = rule
    result = tuple(np.zeros((len(xi), len(outputs), *xi.shape[1:])) for xi in x)
    failed, evaluations = np.zeros((len(x[0]), len(outputs)), bool), np.zeros((len(x[0]), len(outputs)), int)
    for n, point in enumerate(samples(x)):
        for start in baselines[n]:
            at = lambda t, start=start, point=point: tuple(  # noqa: E731
                x0 + t * (x1 - x0) for x0, x1 in zip(start, point, strict=True)
            )
            f = lambda t, k: output(model, at(t), k)  # noqa: B023, E731
            bound = [max(bounds[0] * abs(f(1, k) - f(0, k)), bounds[1]) for k in outputs]
            error, rows = [0.0 for _ in outputs], 2 + n_start - 1
            wave = [(i / n_start, (i + 1) / n_start, set(range(len(outputs)))) for i in range(n_start)]
            while wave:
                rows += len(nodes) * len(wave)
                last = rows + (2 * len(nodes) + 1) * len(wave) > most
                share = [
                    (bound[j] - error[j]) / max(1, sum(j in open_ for *_, open_ in wave)) for j in range(len(outputs))
                ]
                halves = []
                for left, right, open_ in wave:
                    again = set()
                    for j in open_:
                        evaluations[n, j] += len(nodes)
                        a, c = ([np.zeros(xi.shape) for xi in point] for _ in range(2))
                        for t, w, v in zip(nodes, fine, coarse, strict=True):
                            grads = gradient(model, at(left + (right - left) * t), outputs[j])
                            for i, g in enumerate(grads):
                                a[i] += w * (right - left) * g * (point[i] - start[i])
                                c[i] += v * (right - left) * g * (point[i] - start[i])
                        ends = f(left, outputs[j]), f(right, outputs[j])
                        missing = abs(ends[1] - ends[0] - sum(ai.sum() for ai in a))
                        e = max(missing, sum(abs(ai - ci).sum() for ai, ci in zip(a, c, strict=True)))
                        if e <= 16 * 2.0**-52 * (sum(abs(ai).sum() for ai in a) + abs(ends[0]) + abs(ends[1])):
                            e = 0.0
                        if e > share[j] and not last:
                            again.add(j)
                            continue
                        error[j] += e
                        for i, ai in enumerate(a):
                            result[i][n, j] += ai / len(baselines[n])
                    if again:
                        rows += 1
                        halves += [(left, (left + right) / 2, again), ((left + right) / 2, right, again)]
                wave = halves
            failed[n] |= np.array(error) > np.array(bound)
    return result, failed, evaluations
