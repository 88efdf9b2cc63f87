"""Learning curves of a comparison: balanced accuracy at equal cost, and speed-ups to fixed levels.

The curves are those of the validation patients, not smoothed. All intervals are of 90 %, by the percentile method, over
seeds: seeds are resampled, each with all its folds. They say whether other seeds would give the same answer, but not
whether other patients would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ecg_shock.evaluation.confidence import RESAMPLES
from ecg_shock.search.compare import BASE, TrainingComparison
from ecg_shock.search.compare_trainings import read_epochs, read_results, trial_folder

INTERVAL = (0.05, 0.95)
QUARTILES = (0.25, 0.5, 0.75)
COSTS = ("evaluations", "seconds")

Pair = tuple[int, int]  # fold and seed
Curves = Mapping[str, Mapping[Pair, "Curve"]]  # by name of the variant, or "base"


@dataclass(frozen=True, eq=False)
class Curve:
    """A training after each epoch; all arrays have the shape (epochs,).

    Parameters
    ----------
    evaluations : numpy.ndarray
        Number of gradients of single windows that were computed so far.
    seconds : numpy.ndarray
        Time so far, which includes drawing, scoring and validation.
    balanced_accuracy : numpy.ndarray
        On the validation windows, not smoothed.
    loss : numpy.ndarray
        Training loss.
    """

    evaluations: np.ndarray
    seconds: np.ndarray
    balanced_accuracy: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean or median over pairs of fold and seed, with its interval over seeds; None for a single seed."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class EqualCost:
    """The balanced accuracy of a variant and of the base after the same cost.

    The cost is that of the training of each pair that ends first.

    Parameters
    ----------
    name : str
        The variant.
    cost : {"evaluations", "seconds"}
        What is equal.
    budget : float
        Its mean over the pairs.
    pairs : int
        Number of pairs.
    last : Estimate
        Mean difference of the last epoch within the cost, variant minus base.
    best : Estimate
        The same of the best epoch within the cost, which is optimistic for both.
    """

    name: str
    cost: str
    budget: float
    pairs: int
    last: Estimate
    best: Estimate


@dataclass(frozen=True)
class SpeedUp:
    """How much less a variant costs than the base until an epoch first reaches a level.

    Parameters
    ----------
    name : str
        The variant.
    level : float
        The balanced accuracy.
    cost : {"evaluations", "seconds"}
        What is counted.
    pairs, reached, base_reached : int
        Number of pairs, and in how many of them the variant and the base reach the level.
    ratio : Estimate or None
        Median over the pairs of the base's cost over that of the variant. A base that does not reach the level counts
        as if its last epoch did. If only the variant does not reach it, the ratio is 0; if neither does, it is 1. None
        if no training reaches the level.
    """

    name: str
    level: float
    cost: str
    pairs: int
    reached: int
    base_reached: int
    ratio: Estimate | None


@dataclass(frozen=True, eq=False)
class Band:
    """The curves of a variant, or of the base, on one fold; all arrays have the shape (epochs,).

    Parameters
    ----------
    name, fold
        Which curves.
    seeds : int
        Number of curves.
    evaluations, seconds : numpy.ndarray
        Median cost over the seeds.
    low, median, high : numpy.ndarray
        Quartiles of the balanced accuracy over the seeds.
    """

    name: str
    fold: int
    seeds: int
    evaluations: np.ndarray
    seconds: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


def read_curves(comparison: TrainingComparison, folder: Path) -> dict[str, dict[Pair, Curve]]:
    """Read the learning curves of all trainings with a result, by name, then by fold and seed."""
    curves: dict[str, dict[Pair, Curve]] = {}
    for result in read_results(comparison, folder):
        epochs = read_epochs(trial_folder(folder, result.name, result.fold, result.seed))
        per_epoch = result.presentations / comparison.settings(result.name).training.epochs
        curves.setdefault(result.name, {})[result.fold, result.seed] = Curve(
            evaluations=per_epoch * np.arange(1, len(epochs) + 1),
            seconds=np.cumsum([epoch["seconds"] for epoch in epochs]),
            balanced_accuracy=np.array([epoch["balanced_accuracy"] for epoch in epochs]),
            loss=np.array([epoch["loss"] for epoch in epochs]),
        )
    return curves


def compare_at_equal_cost(curves: Curves) -> list[EqualCost]:
    """Compare each variant with the base after equal numbers of gradient evaluations, and after equal time."""
    found = []
    for name, pairs in _pairs_with_base(curves):
        for cost in COSTS:
            budgets, last, best = {}, {}, {}
            for pair, (base, variant) in pairs.items():
                budget = min(getattr(base, cost)[-1], getattr(variant, cost)[-1])
                within = [
                    curve.balanced_accuracy[getattr(curve, cost) <= budget * (1 + 1e-9)] for curve in (base, variant)
                ]
                if all(part.size for part in within):  # otherwise one has no epoch that early
                    budgets[pair] = float(budget)
                    last[pair] = float(within[1][-1] - within[0][-1])
                    best[pair] = float(within[1].max() - within[0].max())
            if budgets:
                budget = float(np.mean(list(budgets.values())))
                means = (estimate(differences, "mean") for differences in (last, best))
                found.append(EqualCost(name, cost, budget, len(budgets), *means))
    return found


def measure_speed_ups(curves: Curves, levels: Iterable[float]) -> list[SpeedUp]:
    """Compare how much each variant and the base cost until they reach each of the levels."""
    found = []
    for name, pairs in _pairs_with_base(curves):
        for level in levels:
            for cost in COSTS:
                spent = {
                    pair: (cost_to_reach(level, base, cost), cost_to_reach(level, variant, cost))
                    for pair, (base, variant) in pairs.items()
                }
                ratios = {}
                for pair, (of_base, of_variant) in spent.items():
                    capped = min(of_base, float(getattr(pairs[pair][0], cost)[-1]))
                    neither = np.isinf(of_base) and np.isinf(of_variant)
                    ratios[pair] = 1.0 if neither else capped / of_variant
                base_reached, reached = np.isfinite(list(spent.values())).sum(axis=0).tolist()
                ratio = estimate(ratios, "median") if reached or base_reached else None
                found.append(SpeedUp(name, level, cost, len(pairs), reached, base_reached, ratio))
    return found


def cost_to_reach(level: float, curve: Curve, cost: str) -> float:
    """Return the cost after the first epoch that reaches a level; infinity if none does."""
    reached = np.flatnonzero(curve.balanced_accuracy >= level)
    return float(getattr(curve, cost)[reached[0]]) if reached.size else np.inf


def estimate(values: Mapping[Pair, float], statistic: Literal["mean", "median"]) -> Estimate:
    """Return a statistic of the values of pairs of fold and seed, and its interval over seeds."""
    folds, seeds = (sorted(set(column)) for column in zip(*values, strict=True))
    table = np.array([[values.get((fold, seed), np.nan) for fold in folds] for seed in seeds])
    # NumPy's functions that skip missing values are much slower.
    compute: Callable[..., Any] = getattr(np, f"nan{statistic}" if np.isnan(table).any() else statistic)
    value = float(compute(table))
    if len(seeds) == 1:
        return Estimate(value, None)
    drawn = np.random.default_rng(0).integers(0, len(seeds), (RESAMPLES, len(seeds)))
    low, high = np.quantile(compute(table[drawn].reshape(RESAMPLES, -1), axis=1), INTERVAL)
    return Estimate(value, (float(low), float(high)))


def make_bands(curves: Curves) -> list[Band]:
    """Return the quartiles over the seeds of the curves of each fold, for as many epochs as all these curves have."""
    found = []
    for name, of_name in curves.items():
        for fold in sorted({fold for fold, _ in of_name}):
            of_fold = [curve for (of, _), curve in of_name.items() if of == fold]
            epochs = min(len(curve.evaluations) for curve in of_fold)
            evaluations, seconds, accuracy = (
                np.array([getattr(curve, field)[:epochs] for curve in of_fold])
                for field in (*COSTS, "balanced_accuracy")
            )
            costs = (np.median(cost, axis=0) for cost in (evaluations, seconds))
            found.append(Band(name, fold, len(of_fold), *costs, *np.quantile(accuracy, QUARTILES, axis=0)))
    return found


def _pairs_with_base(curves: Curves) -> list[tuple[str, dict[Pair, tuple[Curve, Curve]]]]:
    """Return for each variant the curves of base and variant, by fold and seed that both have."""
    base = curves.get(BASE, {})
    paired = [
        (name, {pair: (base[pair], curve) for pair, curve in of_name.items() if pair in base})
        for name, of_name in curves.items()
        if name != BASE
    ]
    return [(name, pairs) for name, pairs in paired if pairs]
