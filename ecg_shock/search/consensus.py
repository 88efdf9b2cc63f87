"""From many trials to one network: the median of the best, for each depth, and the choice among the depths.

References
----------
.. [1] Krasteva et al., Sensors 20:2875, 2020, doi:10.3390/s20102875

How this follows the paper, and where it deviates
    - The paper takes the median of the hyperparameter space that a few top-ranked models have in common. Here: for each
      depth the trials are ranked by validation balanced accuracy (ties: lower loss, then fewer parameters), the best
      ones are taken, and each block's filters and kernel are the median over those, rounded to the search's grid.
    - A median that lies half-way between two points of the grid goes to the lower one, the smaller network.
    - The paper retrains each depth once for every learning rate; here with several seeds, and the mean counts, because
      one lucky start moves balanced accuracy by more than the depths differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from ecg_shock.search.trials import Trial, rank


class ConsensusConfig(BaseModel):
    """How one network is made out of the trials.

    Parameters
    ----------
    top : int
        How many of the best trials of each depth the median is taken over.
    within : float or None
        Take all trials whose balanced accuracy is at most this much (0.001 is 0.1 %) below the best of their depth,
        in place of `top`.
    learning_rates : tuple of float
        Learning rates with which each depth's median network is trained again.
    seeds : int
        How often each of those is trained, every time from another start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: PositiveInt = 10
    within: float | None = Field(default=None, ge=0, le=1)
    # Half-decade steps around Adam's usual 1e-3, inside the paper's 1e-5 to 1e-2.
    learning_rates: tuple[PositiveFloat, ...] = Field(default=(3.16e-4, 1e-3, 3.16e-3), min_length=1)
    seeds: PositiveInt = 5


@dataclass(frozen=True)
class Candidate:
    """The median network, block by block, of the best trials of one depth (`top`, best first)."""

    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    top: tuple[Trial, ...]


@dataclass(frozen=True)
class Setting:
    """A candidate retrained with one learning rate: its successful runs, best first, and how many others failed."""

    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    learning_rate: float
    runs: tuple[Trial, ...]
    failed: int

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return self.runs[0].parameters

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the runs."""
        return fmean(run.balanced_accuracy for run in self.runs)


def candidates(trials: Sequence[Trial], config: ConsensusConfig, *, step: int) -> tuple[Candidate, ...]:
    """Find for each depth the network that its best trials agree on.

    Parameters
    ----------
    trials : sequence of Trial
        All trials of a search, in any order; failed ones are excluded.
    config : ConsensusConfig
        Says how many of the best count.
    step : int
        Grid of filters and kernels.

    Returns
    -------
    tuple of Candidate
        By depth; none for a depth whose trials all failed.
    """
    found = []
    for depth in sorted({trial.depth for trial in trials}):
        top = _best_trials((trial for trial in trials if trial.depth == depth), config)
        if top:
            filters, kernels = (
                tuple(_round_to_grid(median(block), step) for block in zip(*values, strict=True))
                for values in ([t.filters for t in top], [t.kernels for t in top])
            )
            found.append(Candidate(filters, kernels, top))
    return tuple(found)


def _best_trials(trials: Iterable[Trial], config: ConsensusConfig) -> tuple[Trial, ...]:
    """Return the trials of one depth over which the median is taken, best first."""
    ranked = rank(trials)
    if config.within is None or not ranked:
        return tuple(ranked[: config.top])
    # BAC is a quotient of counts: a difference of exactly `within` must not fall to rounding.
    lowest = ranked[0].balanced_accuracy - config.within - 1e-12
    return tuple(trial for trial in ranked if trial.balanced_accuracy >= lowest)


def _round_to_grid(value: float, step: int) -> int:
    """Round to the nearest multiple of `step`; half-way goes down, to the smaller network."""
    return step * math.ceil(value / step - 0.5)


def settings(retrained: Iterable[Trial]) -> tuple[Setting, ...]:
    """Gather retrained networks that differ only in their seed, by depth, then learning rate.

    Settings whose runs all failed are excluded.
    """
    groups: dict[tuple[tuple[int, ...], tuple[int, ...], float], list[Trial]] = {}
    for trial in retrained:
        groups.setdefault((trial.filters, trial.kernels, trial.learning_rate), []).append(trial)
    found = [
        Setting(*key, runs=tuple(rank(runs)), failed=sum(run.error is not None for run in runs))
        for key, runs in groups.items()
    ]
    order = sorted(found, key=lambda s: (len(s.filters), s.learning_rate, s.filters, s.kernels))
    return tuple(setting for setting in order if setting.runs)


def choose(compared: Sequence[Setting]) -> Setting:
    """Choose depth and learning rate by mean balanced accuracy.

    Ties go to fewer parameters, then to the smaller learning rate. A setting with failed runs is chosen only if every
    setting has some: a mean over the lucky starts alone would flatter it.

    Raises
    ------
    ValueError
        If there is nothing to choose from.
    """
    if not compared:
        raise ValueError(
            "there is no setting to choose from: every retrained network failed; see the error.txt of each"
        )
    # Means that are equal on paper can differ in the last bits.
    return min(
        compared,
        key=lambda s: (
            s.failed > 0,
            -round(s.balanced_accuracy, 12),
            s.parameters,
            s.learning_rate,
            s.filters,
            s.kernels,
        ),
    )
