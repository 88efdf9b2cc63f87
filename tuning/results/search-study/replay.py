"""Replay strategies on recorded curves: `python tuning/results/search-study/replay.py`.

`curves.csv` has the complete training curves of random networks (`run.py`). A strategy that trains only some of these
networks, or only some of the epochs, can be replayed: its result and its computation are known without training. Each
strategy is replayed in many random orders of the networks:

- *random*: every network to the end.
- *median rule*: a network is stopped as `ecg_shock.search.stopping` stops it.
- *halving*: 27 networks for the fewest epochs, the best 9 for three times as many, then 3 and 1 (20 epochs: 1, 3, 7 and
  20). Then the next 27 networks.
- *hyperband*: the brackets of `ecg_shock.search.strategies`.

Computation is the number of multiply-adds of a forward pass, times windows, times epochs, in relation to training all
networks to the end. The plot shows the best balanced accuracy so far on the validation patients: medians over the
orders, and bands from the 5th to the 95th percentile.

The table shows what a strategy costs until it is as good as random search after its whole budget, in relation to that
budget. Random search trains the first networks of an order of its own. The strategy draws from all recorded networks,
in another order. The row *random* compares random search with itself in this way. "Never" is the proportion of orders
in which no network of the strategy is that good.

Bayesian optimisation cannot be replayed, because it proposes networks that were not recorded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ecg_shock.search.stopping import StoppingConfig, is_hopeless, medians_of
from ecg_shock.search.strategies import FACTOR, best_third, brackets

HERE = Path(__file__).parent
HALVINGS = 3  # of the strategy "halving"
BAND = (5, 50, 95)  # percentiles
GRID = np.geomspace(1e-3, 1, 200)

# Computation so far, relative to all, and best balanced accuracy so far, after each epoch that was trained.
Steps = tuple[np.ndarray, np.ndarray]
# Gets the curves, and the indices of networks in the order in which they are drawn. Yields for each training the index
# of its network, and how many epochs this network had before and has then.
Strategy = Callable[[np.ndarray, np.ndarray], Iterator[tuple[int, int, int]]]


def read_curves(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return balanced accuracies, shape (networks, epochs), and multiply-adds of an epoch, shape (networks,)."""
    table = pd.read_csv(file, dtype={"trial": str})
    table = table[table["error"].isna()]
    curves = table.pivot(index="trial", columns="epoch", values="balanced_accuracy")
    first = table.groupby("trial").first()
    return curves.to_numpy(), (first["macs"] * first["windows"]).to_numpy(dtype=float)


def random(curves: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Train every network to the end."""
    for index in order:
        yield index, 0, curves.shape[1]


def median_rule(curves: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Stop networks by the median rule, one after another."""
    epochs = curves.shape[1]
    config = StoppingConfig(warm_up=min(StoppingConfig().warm_up, epochs))
    histories: list[list[float]] = []
    for index in order:
        medians, history = medians_of(histories, config, epochs), curves[index].tolist()
        last = next((e for e in range(1, epochs + 1) if is_hopeless(history[:e], medians)), epochs)
        histories.append(history[:last])
        yield index, 0, last


def halving(curves: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Repeat brackets that begin with the fewest epochs."""
    rungs = tuple(math.ceil(curves.shape[1] / FACTOR**left) for left in range(HALVINGS, -1, -1))
    for first in range(0, len(order), FACTOR**HALVINGS):
        yield from _bracket(curves, order[first : first + FACTOR**HALVINGS], rungs)


def hyperband(curves: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Train the brackets of hyperband."""
    for first, size, rungs in brackets(len(order), curves.shape[1]):
        yield from _bracket(curves, order[first : first + size], rungs)


def _bracket(curves: np.ndarray, members: np.ndarray, rungs: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    trained = 0
    for rung in rungs:
        for index in members:
            yield index, trained, rung
        best = best_third({str(index): tuple(curves[index, :rung]) for index in members})
        members, trained = np.array([int(name) for name in best]), rung


STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "median rule": median_rule,
    "halving": halving,
    "hyperband": hyperband,
}


def replay(strategy: Strategy, curves: np.ndarray, costs: np.ndarray, order: np.ndarray) -> Steps:
    """Return what comes of a strategy with an order of the networks."""
    spent, found = [], []
    for index, first, last in strategy(curves, order):
        spent.extend([costs[index]] * (last - first))
        found.extend(curves[index, first:last])
    return np.cumsum(spent) / (costs.sum() * curves.shape[1]), np.maximum.accumulate(found)


def cost_to(spent: np.ndarray, best: np.ndarray, level: float) -> float:
    """Return the computation until the level is reached; infinite if it is not."""
    reached = np.flatnonzero(best >= level)
    return float(spent[reached[0]]) if len(reached) else math.inf


def ratios(steps: list[Steps], curves: np.ndarray, costs: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Return the cost to random search's final quality, relative to its budget, for each replay of a strategy."""
    rng = np.random.default_rng(seed)
    found = []
    for spent, best in steps:
        first = rng.permutation(len(curves))[:budget]
        found.append(cost_to(spent, best, curves[first].max()) * costs.sum() / costs[first].sum())
    return np.array(found)


def bands(steps: list[Steps]) -> np.ndarray:
    """Return the percentiles of the best balanced accuracy at each point of `GRID`, shape (3, points)."""
    found = []
    for spent, best in steps:
        done = np.searchsorted(spent, GRID * (1 + 1e-9), side="right")
        found.append(np.concatenate([[np.nan], best])[done])
    return np.percentile(found, BAND, axis=0)


def draw(results: dict[str, np.ndarray], networks: int, file: Path) -> None:
    """Draw the best balanced accuracy against the computation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, (low, middle, high) in results.items():
        (line,) = axes.plot(GRID, 100 * middle, label=name)
        axes.fill_between(GRID, 100 * low, 100 * high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(
        xscale="log",
        xlabel=f"multiply-adds, relative to {networks} complete trainings",
        ylabel="best validation balanced accuracy (%)",
        ylim=(100 * np.nanmin(results["random"][0]), None),
        title="Replayed searches: median, and 5th to 95th percentile of random orders",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(file)


def main() -> None:
    """Print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=HERE / "curves.csv", help="file of the curves")
    parser.add_argument("--plot", type=Path, default=HERE / "curves.png", help="file of the plot")
    parser.add_argument("--orders", type=int, default=200, help="number of random orders")
    parser.add_argument("--seed", type=int, default=0, help="seed of the orders")
    asked = parser.parse_args()
    curves, costs = read_curves(asked.csv)
    networks, epochs = curves.shape
    print(f"{networks} networks of {epochs} epochs, best balanced accuracy {100 * curves.max():.2f} %")
    print("cost to the final quality of random search, relative to its budget: median and 5th to 95th percentile")
    print(f"{'strategy':<13}{'budget':>7}{'median':>8}{'5 %':>8}{'95 %':>8}{'never':>8}")
    results = {}
    for name, strategy in STRATEGIES.items():
        rng = np.random.default_rng(asked.seed)
        steps = [replay(strategy, curves, costs, rng.permutation(networks)) for _ in range(asked.orders)]
        results[name] = bands(steps)
        for budget in sorted({max(1, networks // 4), max(1, networks // 2), networks}):
            found = ratios(steps, curves, costs, budget, asked.seed + 1)
            low, middle, high = np.percentile(found, BAND, method="inverted_cdf")
            print(f"{name:<13}{budget:>7}{middle:8.3f}{low:8.3f}{high:8.3f}{np.isinf(found).mean():8.0%}", flush=True)
    draw(results, networks, asked.plot)
    print(f"plot: {asked.plot}")


if __name__ == "__main__":
    main()
