"""The median rule: stop a trial early that is worse than most others were after as many epochs.

References
----------
.. [1] Golovin et al., "Google Vizier: a service for black-box optimization", KDD 2017, doi:10.1145/3097983.3098043

Deviations from the paper
    - A trial is compared with those that had ended when it was drawn. Therefore, the medians can be recorded with the
      trial, and a search that is interrupted and continued stops the same trials after the same epochs.
    - The best balanced accuracy so far is compared with the median of those of the other trials; in the paper, it is
      compared with the median of their running averages.
    - A trial that ended earlier counts with its best balanced accuracy in all later epochs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import median

from pydantic import BaseModel, ConfigDict, PositiveInt


class StoppingConfig(BaseModel):
    """When the median rule applies.

    Parameters
    ----------
    warm_up : int
        Number of epochs that every trial trains.
    min_trials : int
        Number of trials that must have ended before a trial is drawn that can be stopped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    warm_up: PositiveInt = 5
    min_trials: PositiveInt = 10


def medians_of(histories: Iterable[Sequence[float]], config: StoppingConfig, epochs: int) -> tuple[float, ...]:
    """Return the median of the best balanced accuracies of trials after each epoch.

    Parameters
    ----------
    histories : iterable of sequence of float
        The balanced accuracies of each trial, one for each epoch that it was trained.
    config : StoppingConfig
        When the rule applies.
    epochs : int
        Number of epochs of a training.

    Returns
    -------
    tuple of float
        One value for each epoch, 0 in those in which no trial is stopped. Empty if there are too few trials.
    """
    bests = [list(accumulate(history, max)) for history in histories if history]
    if len(bests) < config.min_trials:
        return ()
    medians = (median(best[min(epoch, len(best) - 1)] for best in bests) for epoch in range(epochs))
    return tuple(0.0 if epoch < config.warm_up else value for epoch, value in enumerate(medians, start=1))


def is_hopeless(history: Sequence[float], medians: Sequence[float]) -> bool:
    """Return whether, after any epoch, the best balanced accuracy so far was below the median of the others."""
    return any(best < limit for best, limit in zip(accumulate(history, max), medians, strict=False))
