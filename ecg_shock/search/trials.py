"""The trials of a search: their results on disk, their ranking, and their table as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ecg_shock.files import explain, write_text
from ecg_shock.models.cnn import CnnSpec

RESULT_FILE = "result.json"
DRAWN_FILE = "drawn.json"
NOT_IN_TABLES = {"history", "medians"}

Model = TypeVar("Model", bound=BaseModel)


class Trial(BaseModel):
    """A trained network, and the results of its best epoch on the validation patients.

    Parameters
    ----------
    name : str
        Name of the trial.
    filters, kernels : tuple of int
        One value for each block.
    learning_rate : float
        Learning rate of Adam.
    seed : int
        Seed of the training.
    parameters, macs : int
        Number of trainable parameters, and number of multiply-adds for one window.
    seconds : float
        Duration of all epochs in s; 0 if the trial failed.
    balanced_accuracy, sensitivity, specificity, loss : float
        Results of the best epoch on the validation patients; NaN if the trial failed.
    best_epoch : int
        Counted from 1; 0 if the trial failed.
    error : str or None
        Why the trial failed, in one line; None if it did not.
    epochs : int
        Number of epochs that it was to be trained for.
    stopped : bool
        Whether it was stopped by the median rule.
    history : tuple of float
        Balanced accuracy after each epoch that it was trained.
    medians : tuple of float
        Limits of the median rule, see `ecg_shock.search.stopping.medians_of`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    name: str
    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    learning_rate: float
    seed: int
    parameters: int
    macs: int
    seconds: float = 0.0
    balanced_accuracy: float = math.nan
    sensitivity: float = math.nan
    specificity: float = math.nan
    loss: float = math.nan
    best_epoch: int = 0
    error: str | None = None
    epochs: int = 0
    stopped: bool = False
    history: tuple[float, ...] = ()
    medians: tuple[float, ...] = ()

    def covers(self, epochs: int) -> bool:
        """Return whether training it for so many epochs would change nothing."""
        return self.error is not None or self.epochs >= epochs

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.filters)


class Drawn(BaseModel):
    """A network that was drawn with regard to other trials, see `Trial`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: tuple[int, ...]
    kernels: tuple[int, ...]
    medians: tuple[float, ...]


def write_drawn(folder: Path, spec: CnnSpec, medians: tuple[float, ...]) -> Drawn:
    """Write what was drawn to the folder of a trial, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = Drawn(filters=tuple(spec.filters), kernels=tuple(spec.kernels), medians=medians)
    write_text(folder / DRAWN_FILE, drawn.model_dump_json())
    return drawn


def read_drawn(folder: Path) -> Drawn | None:
    """Return what was drawn, or None if nothing was drawn yet.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    return _read(folder / DRAWN_FILE, Drawn)


def write_trial(folder: Path, trial: Trial) -> None:
    """Write the result of a trial to its folder, atomically."""
    write_text(folder / RESULT_FILE, trial.model_dump_json(indent=2))


def read_trial(folder: Path) -> Trial | None:
    """Return the result in the folder of a trial, or None if the trial has not ended.

    Raises
    ------
    ValueError
        If the result is damaged.
    """
    return _read(folder / RESULT_FILE, Trial)


def _read(file: Path, model: type[Model]) -> Model | None:
    if not file.is_file():
        return None
    try:
        return model.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{file} is damaged ({'; '.join(explain(error))}); delete it, and run the same command again "
            "to repeat the trial"
        ) from error


def read_trials(folder: Path) -> tuple[Trial, ...]:
    """Return the trials in the subfolders of `folder` that have ended, including failed ones, sorted by name."""
    found = (read_trial(file.parent) for file in folder.glob(f"*/{RESULT_FILE}"))
    return tuple(sorted((trial for trial in found if trial is not None), key=lambda trial: trial.name))


def rank(trials: Iterable[Trial]) -> list[Trial]:
    """Sort the successful trials by balanced accuracy, best first.

    Trials of equal balanced accuracy are sorted by loss, then by number of parameters, then by name.
    """
    succeeded = (trial for trial in trials if trial.error is None)
    return sorted(succeeded, key=lambda t: (-t.balanced_accuracy, t.loss, t.parameters, t.name))


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """Return the successful trials that no other one beats, with the fewest multiply-adds first.

    A trial is beaten by one that needs no more multiply-adds and has a higher balanced accuracy, or needs fewer and has
    no lower one. Of equal trials, the first in `rank` stays.
    """
    front: list[Trial] = []
    for trial in sorted(rank(trials), key=lambda t: t.macs):  # stable: ranked among equal costs
        if not front or trial.balanced_accuracy > front[-1].balanced_accuracy:
            front.append(trial)
    return front


def write_csv(file: Path, trials: Sequence[Trial]) -> None:
    """Write the trials as CSV: first the ranked ones, then the failed ones without a rank."""
    failed = [trial for trial in trials if trial.error is not None]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rank", "blocks", *(name for name in Trial.model_fields if name not in NOT_IN_TABLES)])
        for place, trial in enumerate(rank(trials) + failed, start=1):
            row = trial.model_dump(exclude=NOT_IN_TABLES) | {
                "filters": dashed(trial.filters),
                "kernels": dashed(trial.kernels),
            }
            writer.writerow(["" if trial.error else place, trial.depth, *row.values()])


def dashed(values: Sequence[int]) -> str:
    """Join values with dashes, as in `20-15-15-10-5`."""
    return "-".join(map(str, values))
