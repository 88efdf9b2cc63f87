"""The ledger of a search: every network that was trained, as rows and a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ecg_shock.files import explain, write_text

RESULT_FILE = "result.json"
LEARNING_RATE_DIGITS = 3
COLUMNS = ("#", "N", "filters", "kernels", "params", "MMACs", "BAC %", "Se %", "Sp %", "loss", "epoch", "s")


class Trial(BaseModel):
    """One network that was trained, and how it did at its best epoch on the validation part.

    Parameters
    ----------
    name : str
        Name of the trial, which is also that of its folder.
    filters, kernels : tuple of int
        One value for each block.
    learning_rate : float
        Step size of Adam.
    seed : int
        Seed of weights and sampler.
    parameters, macs : int
        Trainable parameters, and multiply-adds for one window.
    seconds : float
        Time that all epochs took together; 0 if the trial failed.
    balanced_accuracy, sensitivity, specificity, loss : float
        At the best epoch, on the validation part; NaN if the trial failed.
    best_epoch : int
        Counted from 1; 0 if the trial failed.
    error : str or None
        Why the trial failed, in one line; None if it did not.
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

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.filters)


def write_trial(folder: Path, trial: Trial) -> None:
    """Write a trial's result into its folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        The trial's own folder.
    trial : Trial
        What to write.
    """
    write_text(folder / RESULT_FILE, trial.model_dump_json(indent=2))


def read_trial(folder: Path) -> Trial | None:
    """Read the result that a trial's folder holds.

    Parameters
    ----------
    folder : Path
        The trial's own folder.

    Returns
    -------
    Trial or None
        None while the trial has not ended.

    Raises
    ------
    ValueError
        If the result is damaged; the message names the file and what to do.
    """
    file = folder / RESULT_FILE
    if not file.is_file():
        return None
    try:
        return Trial.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{file} is damaged ({'; '.join(explain(error))}); delete it and run the same command again: "
            "that trial is trained again"
        ) from error


def read_trials(folder: Path) -> tuple[Trial, ...]:
    """Read the trials that have ended, failed ones included.

    Parameters
    ----------
    folder : Path
        Folder that holds one folder for each trial.

    Returns
    -------
    tuple of Trial
        By name.
    """
    found = (read_trial(file.parent) for file in folder.glob(f"*/{RESULT_FILE}"))
    return tuple(sorted((trial for trial in found if trial is not None), key=lambda trial: trial.name))


def rank(trials: Iterable[Trial]) -> list[Trial]:
    """Order the trials that succeeded, best first.

    Ties in balanced accuracy go to the lower loss, then to fewer parameters, then to the name, so that the order
    in which the trials come does not matter.

    Parameters
    ----------
    trials : iterable of Trial
        Failed ones are excluded.

    Returns
    -------
    list of Trial
    """
    succeeded = (trial for trial in trials if trial.error is None)
    return sorted(succeeded, key=lambda t: (-t.balanced_accuracy, t.loss, t.parameters, t.name))


def write_csv(file: Path, trials: Sequence[Trial]) -> None:
    """Write the trials as CSV: ranked ones first, failed ones after them without a rank.

    Parameters
    ----------
    file : Path
        Where to write.
    trials : sequence of Trial
        What to write.
    """
    ranked = rank(trials)
    failed = [trial for trial in trials if trial.error is not None]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["rank", "blocks", *Trial.model_fields])
        for place, trial in enumerate(ranked + failed, start=1):
            row = trial.model_dump()
            row["filters"], row["kernels"] = dashed(trial.filters), dashed(trial.kernels)
            writer.writerow(["" if trial.error else place, trial.depth, *row.values()])


def narrow_table(title: str, headings: Sequence[str]) -> Table:
    """Begin a table that fits 80 columns: numbers stand whole, and only filters and kernels wrap.

    Parameters
    ----------
    title : str
        Printed above.
    headings : sequence of str
        One for each column.

    Returns
    -------
    rich.table.Table
        Without rows.
    """
    begun = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        wraps = heading in ("filters", "kernels")
        begun.add_column(heading, justify="left" if wraps else "right", no_wrap=not wraps)
    return begun


def table(trials: Sequence[Trial], *, title: str, rows: int = 10) -> Table:
    """Lay the best trials out for the terminal.

    Parameters
    ----------
    trials : sequence of Trial
        In any order; failed ones are counted in the caption.
    title : str
        Printed above.
    rows : int
        How many to show.

    Returns
    -------
    rich.table.Table
    """
    ranked = rank(trials)
    failed = len(trials) - len(ranked)
    caption = f"{len(trials)} trained, {min(rows, len(ranked))} shown" + (f", {failed} failed" if failed else "")
    laid_out = narrow_table(title, COLUMNS)
    laid_out.caption = caption
    for place, trial in enumerate(ranked[:rows], start=1):
        laid_out.add_row(
            str(place),
            str(trial.depth),
            spaced(trial.filters),
            spaced(trial.kernels),
            f"{trial.parameters:,}",
            f"{trial.macs / 1e6:.2f}",
            percent(trial.balanced_accuracy),
            percent(trial.sensitivity),
            percent(trial.specificity),
            f"{trial.loss:.3f}",
            str(trial.best_epoch),
            f"{trial.seconds:.0f}",
        )
    return laid_out


def dashed(values: Sequence[int]) -> str:
    """Write the values of all blocks in a row, as in `20-15-15-10-5`."""
    return "-".join(str(value) for value in values)


def spaced(values: Sequence[int]) -> str:
    """Write the values of all blocks in a row that a narrow table can wrap."""
    return " ".join(str(value) for value in values)


def percent(proportion: float) -> str:
    """Write a proportion, from 0 to 1, as percent with two decimals."""
    return f"{100 * proportion:.2f}"
