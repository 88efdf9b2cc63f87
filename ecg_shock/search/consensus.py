"""Combine the trials of a search into one network.

For each depth, this takes the median of the best networks. The median networks are retrained, and the best one is
chosen.

References
----------
.. [1] Krasteva et al., Sensors 20:2875, 2020, doi:10.3390/s20102875

Deviations from the paper
    - The paper takes the median of the hyperparameters of a few top-ranked models. Here the trials of each depth are
      ranked by validation balanced accuracy (ties: lower loss, then fewer parameters), and the filters and kernel of
      each block are the median of the best trials, rounded to the grid of the search.
    - A median half-way between two points of the grid is rounded down.
    - The paper retrains each depth once for every learning rate. Here each network is trained with several seeds, and
      the mean balanced accuracy is compared, because the seed has more influence than the depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

from ecg_shock.search.trials import Trial, rank


class ConsensusConfig(BaseModel):
    """Settings for combining the trials into one network.

    Parameters
    ----------
    top : int
        Number of trials of each depth, the best ones, from which the median is computed.
    within : float or None
        If given, it replaces `top`: the median is computed from all trials whose balanced accuracy is at most this much
        below that of the best trial of their depth (0.001 is 0.1 %).
    learning_rates : tuple of float
        Learning rates with which the median network of each depth is retrained.
    seeds : int
        Number of seeds with which each network is retrained at each learning rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    top: PositiveInt = 10
    within: float | None = Field(default=None, ge=0, le=1)
    # Adam's usual 1e-3, and half a decade below and above it; the paper uses 1e-5 to 1e-2.
    learning_rates: tuple[PositiveFloat, ...] = Field(default=(3.16e-4, 1e-3, 3.16e-3), min_length=1)
    seeds: PositiveInt = 5


@dataclass(frozen=True)
class Candidate:
    """The median network of the best trials of one depth (`top`, best first)."""

    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    top: tuple[Trial, ...]


@dataclass(frozen=True)
class Setting:
    """A candidate with one learning rate, its successful runs (best first), and the number of its failed runs."""

    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    learning_rate: float
    runs: tuple[Trial, ...]
    failed: int

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return self.runs[0].parameters

    @property
    def balanced_accuracy(self) -> float:
        """Mean balanced accuracy of the runs."""
        return fmean(run.balanced_accuracy for run in self.runs)


def find_candidates(trials: Sequence[Trial], config: ConsensusConfig, *, step: int) -> tuple[Candidate, ...]:
    """Find the median network of the best trials of each depth.

    Parameters
    ----------
    trials : sequence of Trial
        All trials of a search, in any order. Failed ones are excluded.
    config : ConsensusConfig
        Which trials are the best.
    step : int
        Step between the numbers of filters, and between the kernel lengths.

    Returns
    -------
    tuple of Candidate
        Sorted by depth, without depths whose trials all failed.
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
    """Return the trials of one depth from which the median is computed, best first."""
    ranked = rank(trials)
    if config.within is None or not ranked:
        return tuple(ranked[: config.top])
    # A trial exactly `within` below the best must count in spite of rounding errors.
    lowest = ranked[0].balanced_accuracy - config.within - 1e-12
    return tuple(trial for trial in ranked if trial.balanced_accuracy >= lowest)


def _round_to_grid(value: float, step: int) -> int:
    """Round to the nearest multiple of `step`, and down from half-way."""
    return step * math.ceil(value / step - 0.5)


def group_by_setting(retrained: Iterable[Trial]) -> tuple[Setting, ...]:
    """Group retrained networks that differ only in their seed, sorted by depth, then learning rate.

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
    """Choose the setting with the highest mean balanced accuracy.

    Among equals, the setting with fewer parameters is chosen, then the one with the smaller learning rate. A setting
    with failed runs is chosen only if all settings have failed runs.

    Raises
    ------
    ValueError
        If there are no settings.
    """
    if not compared:
        raise ValueError(
            "there is no setting to choose from: every retrained network failed; see error.txt in the folder of each"
        )
    # Equal means can differ by a rounding error.
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
