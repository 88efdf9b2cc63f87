"""What a search trains next: random search, hyperband [1]_ or Bayesian optimisation.

All strategies decide from the study and the recorded trials only. Therefore, a search that was interrupted continues as
it would have done, and needs no other state on disk.

- *random*: the networks that Keras Tuner draws from the seed.
- *hyperband*: the same networks, in brackets. The networks of a bracket are trained for a few epochs, the best third is
  trained further, and so on. The first bracket begins with the fewest epochs, the last one trains all its networks to
  the end; then the first one follows again.
- *bayesian*: the first networks are those of random search. Each later one is proposed by a Gaussian process, which
  Keras Tuner fits to the trials that have ended.

References
----------
.. [1] Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization", JMLR 18(185), 2018,
   https://jmlr.org/papers/v18/16-558.html

Deviations from the paper
    - The best third is chosen when all trainings of a rung have ended. Therefore, the choice does not depend on the
      number and speed of the workers. (Keras Tuner's hyperband chooses earlier, and is not used for this reason.) Until
      then, the next bracket is trained.
    - The number of trials ends the search. The last bracket can be smaller than the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from ecg_shock.models.cnn import CnnSpec, import_keras
from ecg_shock.search.stopping import medians_of
from ecg_shock.search.study import Study
from ecg_shock.search.trials import Trial, read_drawn, read_trial, write_drawn
from ecg_shock.training.trainer import CHECKPOINT_NAME

FACTOR = 3  # of the epochs of two rungs; also of the numbers of their networks


class Draw(NamedTuple):
    """A network to train, the number of epochs at which its training ends, and the limits of the median rule."""

    name: str
    spec: CnnSpec
    epochs: int
    medians: tuple[float, ...] = ()


class Ledger:
    """The trials in a folder. Those that have not ended are read from the folder each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ended: dict[str, Trial] = {}

    def folder(self, name: str) -> Path:
        """Return the folder of a trial."""
        return self._folder / f"trial_{name}"

    def ended(self, name: str, epochs: int = 0) -> Trial | None:
        """Return a trial if it has ended, and was to be trained for so many epochs."""
        if name not in self._ended or not self._ended[name].covers(epochs):
            trial = read_trial(self.folder(name))
            if trial is None or not trial.covers(epochs):
                return None
            self._ended[name] = trial
        return self._ended[name]


def draw_trials(study: Study, folder: Path) -> Iterator[Draw | None]:
    """Yield the trainings that have no result in the folder of the trials yet; None if all wait for a result."""
    import_keras()  # before Keras Tuner imports it, and without TensorFlow's messages
    ledger = Ledger(folder)
    if study.search.strategy == "hyperband":
        return _draw_hyperband(study, ledger)
    if study.search.strategy == "bayesian" or study.stopping is not None:
        return _draw_from_results(study, ledger)
    return _draw_random(study, ledger)


def _draw_random(study: Study, ledger: Ledger) -> Iterator[Draw]:
    """Yield all networks, the most expensive first.

    In this order, the last trainings are short, so that all workers end at nearly the same time.
    """
    networks = sorted(_named_networks(study), key=lambda network: -network[1].macs())
    for name, spec in networks:
        if not ledger.ended(name):
            yield Draw(name, spec, study.trial_training.epochs)


def _draw_from_results(study: Study, ledger: Ledger) -> Iterator[Draw]:
    """Yield networks one after another; each one, or when to stop it, depends on the trials that have ended."""
    from ecg_shock.search.draws import draw_networks, propose_network

    epochs = study.trial_training.epochs
    drawn: dict[CnnSpec, str] = {}
    networks = draw_networks(study)
    for number in range(study.search.trials):
        name = f"{number:04d}"
        found = read_drawn(ledger.folder(name))
        if found is None:
            trials = {spec: ledger.ended(known) for spec, known in drawn.items()}
            spec = None
            if study.search.strategy == "bayesian" and number >= study.space.random_trials:
                spec = propose_network(study, _with_guesses(trials))
            if spec is None:
                spec = next((network for network in networks if network not in drawn), None)
            if spec is None:
                return
            histories = [trial.history for trial in trials.values() if trial and trial.error is None]
            medians = medians_of(histories, study.stopping, epochs) if study.stopping else ()
            found = write_drawn(ledger.folder(name), spec, medians)
        spec = study.spec(found.filters, found.kernels)
        drawn[spec] = name
        if not ledger.ended(name):
            yield Draw(name, spec, epochs, found.medians)


def _with_guesses(trials: dict[CnnSpec, Trial | None]) -> dict[CnnSpec, float]:
    """Return balanced accuracies: those of trials under way are taken to be the mean, NaN are those of failed ones."""
    known = [trial.balanced_accuracy for trial in trials.values() if trial and trial.error is None]
    guess = fmean(known) if known else math.nan
    return {spec: trial.balanced_accuracy if trial else guess for spec, trial in trials.items()}


def _draw_hyperband(study: Study, ledger: Ledger) -> Iterator[Draw | None]:
    networks = _named_networks(study)
    begun: set[tuple[str, int]] = set()
    while waiting := list(_open_trainings(networks, study.trial_training.epochs, ledger)):
        draw = next((draw for draw in waiting if (draw.name, draw.epochs) not in begun), None)
        if draw is not None:
            begun.add((draw.name, draw.epochs))
        yield draw


def _open_trainings(networks: list[tuple[str, CnnSpec]], epochs: int, ledger: Ledger) -> Iterator[Draw]:
    """Yield the trainings of all brackets that can begin or have begun, but have no result."""
    for first, size, rungs in brackets(len(networks), epochs):
        members = dict(networks[first : first + size])
        for rung in rungs:
            open_trainings = [Draw(name, spec, rung) for name, spec in members.items() if not ledger.ended(name, rung)]
            yield from open_trainings
            if open_trainings:
                break
            best = best_third(
                {name: trial.history[:rung] for name in members if (trial := ledger.ended(name)) and not trial.error}
            )
            for name in members.keys() - set(best if rung < epochs else ()):
                (ledger.folder(name) / CHECKPOINT_NAME).unlink(missing_ok=True)
            members = {name: members[name] for name in best}


def brackets(networks: int, epochs: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Divide networks among brackets.

    Parameters
    ----------
    networks : int
        Number of networks.
    epochs : int
        Number of epochs of a complete training.

    Yields
    ------
    first, size : int
        Index of the first network of the bracket, and number of its networks.
    rungs : tuple of int
        Number of epochs after which the best third is chosen, ascending. The last one is `epochs`.

    Examples
    --------
    >>> list(brackets(20, 20))
    [(0, 9, (3, 7, 20)), (9, 5, (7, 20)), (14, 3, (20,)), (17, 3, (3, 7, 20))]
    """
    most = 0
    while FACTOR ** (most + 1) <= epochs:
        most += 1
    first = 0
    for halvings in cycle(range(most, -1, -1)):
        if first >= networks:
            return
        size = min(math.ceil((most + 1) / (halvings + 1) * FACTOR**halvings), networks - first)
        yield first, size, tuple(math.ceil(epochs / FACTOR**left) for left in range(halvings, -1, -1))
        first += size


def best_third(histories: dict[str, tuple[float, ...]]) -> list[str]:
    """Return the names of the third with the highest balanced accuracies, at least one; among equals the first ones."""
    ranked = sorted(histories, key=lambda name: -max(histories[name]))
    return ranked[: max(1, len(ranked) // FACTOR)]


def count_trainings(study: Study, trials: Sequence[Trial]) -> tuple[int, int]:
    """Return the number of trainings of a search, and how many of them are recorded in its trials."""
    if study.search.strategy != "hyperband":
        return study.search.trials, len(trials)
    total = done = 0
    for first, size, rungs in brackets(study.search.trials, study.trial_training.epochs):
        members = [trial for trial in trials if first <= int(trial.name) < first + size]
        left = size
        for rung in rungs:
            total += left
            done += min(left, sum(trial.covers(rung) for trial in members))
            left = max(1, left // FACTOR)
    return total, done


def _named_networks(study: Study) -> list[tuple[str, CnnSpec]]:
    from ecg_shock.search.draws import draw_networks

    return [(f"{number:04d}", spec) for number, spec in enumerate(draw_networks(study))]
