"""Predictions: one row a window, of our bundles or of any other algorithm, checked as they come in."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from ecg_shock.rhythms import AHA_CLASSES, RHYTHMS

# NumPy kinds that each sort of column takes, what they become, and the word for them in errors.
_TEXT = ("U", np.str_, "text")
_NUMBER = ("fiu", np.float64, "numbers")
_YES_NO = ("b", np.bool_, "true or false")
_WHOLE = ("iu", np.int64, "whole numbers")
_COLUMNS = {
    "database": _TEXT,
    "record": _TEXT,
    "lead": _TEXT,
    "patient": _TEXT,
    "start_s": _NUMBER,
    "duration_s": _NUMBER,
    "rhythm": _TEXT,
    "aha_class": _TEXT,
    "probability": _NUMBER,
    "shock": _YES_NO,
    "fold": _WHOLE,
}
_SHOCK_WORDS = {"true": True, "1": True, "false": False, "0": False}


class _BadRowError(ValueError):
    """A row that is not allowed: its index, what is wrong, and how many more rows have the same fault."""

    def __init__(self, row: int, fault: str, more: int) -> None:
        self.row = row
        self.fault = fault + (f" (and {more} more like it)" if more else "")
        super().__init__(f"row {row}: {self.fault}")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What an algorithm said of each window, beside what the window is.

    Parameters
    ----------
    database, record, lead, patient : numpy.ndarray
        Shape (n_windows,), str. `patient` is what folds keep apart, such as ``"mitdb/201"``. Only `lead` may be
        empty.
    start_s, duration_s : numpy.ndarray
        Shape (n_windows,), float, seconds from the start of the recording, and seconds.
    rhythm : numpy.ndarray
        Shape (n_windows,), str, names of `ecg_shock.rhythms.RHYTHMS`.
    aha_class : numpy.ndarray
        Shape (n_windows,), str, names of `ecg_shock.rhythms.AHA_CLASSES`.
    probability : numpy.ndarray
        Shape (n_windows,), float, probability of *shockable*, 0 to 1.
    shock : numpy.ndarray
        Shape (n_windows,), bool: a shock is advised. This is what is judged, since the threshold and the rule for
        unusable windows are the algorithm's own.
    fold : numpy.ndarray
        Shape (n_windows,), int: the fold in which the window's patient was tested.

    Raises
    ------
    TypeError
        If a column is of the wrong kind.
    ValueError
        If the columns differ in length, or naming the row: if a number is NaN, infinite or out of its range, a
        rhythm or class is unknown, a name is empty, a window (database, record, lead, start, duration) stands
        twice, or a patient stands in two folds.
    """

    database: np.ndarray
    record: np.ndarray
    lead: np.ndarray
    patient: np.ndarray
    start_s: np.ndarray
    duration_s: np.ndarray
    rhythm: np.ndarray
    aha_class: np.ndarray
    probability: np.ndarray
    shock: np.ndarray
    fold: np.ndarray

    def __post_init__(self) -> None:
        for name, (kinds, dtype, word) in _COLUMNS.items():
            values = np.asarray(getattr(self, name))
            if values.ndim != 1:
                raise ValueError(f"{name} has shape {values.shape}; allowed is (n_windows,)")
            if values.size and values.dtype.kind not in kinds:
                raise TypeError(f"{name} has dtype {values.dtype}; allowed are {word}")
            object.__setattr__(self, name, values.astype(dtype, copy=False))
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns differ in length: {lengths}")
        self._check_values()
        self._check_windows_are_unique()
        self._check_patients_have_one_fold()

    def __len__(self) -> int:
        return len(self.record)

    def select(self, mask: np.ndarray) -> Predictions:
        """Keep the windows where a mask is true.

        Parameters
        ----------
        mask : numpy.ndarray
            Shape (n_windows,), bool.

        Raises
        ------
        ValueError
            If the mask is not boolean or of another length.
        """
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise ValueError(f"mask has dtype {mask.dtype} and shape {mask.shape}; allowed is bool and ({len(self)},)")
        return Predictions(**{name: getattr(self, name)[mask] for name in _COLUMNS})

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """Join the predictions of several folds or durations, in the order given.

        Raises
        ------
        ValueError
            If there is nothing to join, or if together they hold a window twice or a patient in two folds.
        """
        if not parts:
            raise ValueError("there are no predictions to join; give at least one")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the predictions, one row a window, with a header; numbers keep every digit.

        Parameters
        ----------
        path : path-like
            The file, replaced only once everything is written.
        """
        path = Path(path)
        unfinished = path.with_name(path.name + ".part")
        shock = np.where(self.shock, "true", "false")
        columns = [shock if name == "shock" else getattr(self, name) for name in _COLUMNS]
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            # The default end of line, "\r\n", is what makes the writer quote a name that holds either.
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
        unfinished.replace(path)

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read predictions that `write_csv` or anybody else wrote.

        Nothing is guessed, mended or dropped: the header names every column once, in any order, and no other.

        Parameters
        ----------
        path : path-like
            A UTF-8 file with commas; `shock` is true, false, 1 or 0.

        Raises
        ------
        ValueError
            Naming the line, if anything in the file is not as `Predictions` allows.
        OSError
            If the file cannot be read.
        """
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            try:
                columns, lines = _parse(file)
            except _BadLineError as error:
                raise ValueError(f"{path}, line {error.line}: {error}") from error
        try:
            return cls(**{name: np.asarray(values) for name, values in columns.items()})
        except _BadRowError as error:
            raise ValueError(f"{path}, line {lines[error.row]}: {error.fault}") from error

    def _check_values(self) -> None:
        for name in ("database", "record", "patient"):
            self._allow(name, getattr(self, name) != "", "any name, but not none")
        self._allow("rhythm", np.isin(self.rhythm, tuple(RHYTHMS)), ", ".join(RHYTHMS))
        self._allow("aha_class", np.isin(self.aha_class, AHA_CLASSES), ", ".join(AHA_CLASSES))
        # NaN fails every comparison.
        self._allow("start_s", (self.start_s >= 0) & (self.start_s < np.inf), "0 s and later")
        self._allow("duration_s", (self.duration_s > 0) & (self.duration_s < np.inf), "more than 0 s")
        self._allow("probability", (self.probability >= 0) & (self.probability <= 1), "0 to 1")

    def _allow(self, name: str, good: np.ndarray, allowed: str) -> None:
        values = getattr(self, name)
        _refuse(~good, lambda row: f"{name} is {values[row].item()!r}; allowed: {allowed}")

    def _check_windows_are_unique(self) -> None:
        database, record, lead = (
            np.unique(column, return_inverse=True)[1] for column in (self.database, self.record, self.lead)
        )
        # The sort is stable: of equal windows the one that came first stays first.
        order = np.lexsort((self.duration_s, self.start_s, lead, record, database))
        repeated = np.ones(max(len(self) - 1, 0), dtype=bool)
        for key in (database, record, lead, self.start_s, self.duration_s):
            repeated &= key[order][1:] == key[order][:-1]
        bad = np.zeros(len(self), dtype=bool)
        bad[order[1:][repeated]] = True
        _refuse(
            bad,
            lambda row: (
                f"{str(self.database[row])!r}, record {str(self.record[row])!r}, lead {str(self.lead[row])!r}, "
                f"{self.start_s[row]:g} s, {self.duration_s[row]:g} s stands twice; a window counts once"
            ),
        )

    def _check_patients_have_one_fold(self) -> None:
        _, first, patient = np.unique(self.patient, return_index=True, return_inverse=True)
        first_fold = self.fold[first][patient]
        _refuse(
            self.fold != first_fold,
            lambda row: (
                f"patient {str(self.patient[row])!r} is in fold {self.fold[row]} and in fold {first_fold[row]}; "
                "a patient is tested in one"
            ),
        )


def _refuse(bad: np.ndarray, fault: Callable[[int], str]) -> None:
    rows = np.flatnonzero(bad)
    if rows.size:
        raise _BadRowError(int(rows[0]), fault(int(rows[0])), rows.size - 1)


class _BadLineError(ValueError):
    """A line of the file that cannot be taken apart."""

    def __init__(self, line: int, fault: str) -> None:
        self.line = line
        super().__init__(fault)


def _parse_shock(text: str) -> bool:
    return _SHOCK_WORDS[text.lower()]


# Names repeat from row to row, so that interning keeps a million rows small.
_PARSERS: dict[str, Callable[[str], object]] = {"U": sys.intern, "fiu": float, "b": _parse_shock, "iu": int}


def _parse(file: TextIO) -> tuple[dict[str, list], list[int]]:
    reader = csv.reader(file, strict=True)
    line = 1
    lines: list[int] = []
    try:
        header: list[str] = next(reader, [])
        if sorted(header) != sorted(_COLUMNS):
            raise _BadLineError(line, f"the header is {','.join(header)!r}; it must be {','.join(_COLUMNS)!r}")
        columns: dict[str, list] = {name: [] for name in header}
        plan = [(name, columns[name], _PARSERS[_COLUMNS[name][0]]) for name in header]
        line = reader.line_num + 1
        for row in reader:
            if len(row) != len(plan):
                raise _BadLineError(line, f"there are {len(row)} values; the header names {len(plan)}")
            for (name, values, parse), text in zip(plan, row, strict=True):
                try:
                    values.append(parse(text))
                except (ValueError, KeyError) as error:
                    raise _BadLineError(line, f"{name} is {text!r}; allowed: {_COLUMNS[name][2]}") from error
            lines.append(line)
            line = reader.line_num + 1  # where the next row begins: a quoted value may run over several lines
    except (csv.Error, UnicodeDecodeError) as error:
        raise _BadLineError(line, f"{error}; allowed is UTF-8 text with commas") from error
    return columns, lines
