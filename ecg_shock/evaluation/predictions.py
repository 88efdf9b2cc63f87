"""Predictions: one row a window, of our bundles or of any other algorithm, checked as they come in."""

from __future__ import annotations

import csv
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.data.windows import WindowSet
from ecg_shock.files import atomic_writer
from ecg_shock.rhythms import AHA_CLASSES, RHYTHMS

if TYPE_CHECKING:
    import pandas as pd

MAX_FAULTS = 20  # rows named in an error
MAX_CHARACTERS = 64  # of a name in a file: every name of a column takes the room of the longest
UNNAMED_DATABASE = "unnamed"  # what a file that names no database is reported as

_ROUNDING_S = 1e-3  # lengths nearer to each other than this are meant to be one

_MAX_WHOLE = np.iinfo(np.int64).max
_CHUNK = 50_000  # rows read at a time
_ALLOWED_TEXT = "allowed is UTF-8 text with commas"
_SHOCK_WORDS = {"true": True, "1": True, "false": False, "0": False}


def _read_text(cell: str) -> str | None:
    return None if "\0" in cell or len(cell) > MAX_CHARACTERS else cell  # NumPy would cut a NUL off


def _read_number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if number != number or "_" in cell else number


def _read_measured(cell: str) -> float | None:
    return float("nan") if cell.lower() in ("", "nan") else _read_number(cell)


def _read_whole(cell: str) -> int | None:
    try:
        number = int(cell)
    except ValueError:
        return None
    return None if "_" in cell or abs(number) > _MAX_WHOLE else number


def _read_shock(cell: str) -> bool | None:
    return _SHOCK_WORDS.get(cell.lower())


@dataclass(frozen=True)
class _Column:
    kinds: str  # of NumPy arrays that may be given
    dtype: type[Any]  # what they become
    allowed: str  # in the words of an error
    read: Callable[[str], Any]  # a cell of a file; gives None for one that is not allowed


_TEXT = _Column("U", np.str_, "text", _read_text)
_NUMBER = _Column("fiu", np.float64, "numbers", _read_number)
_MEASURED = _Column("fiu", np.float64, "numbers", _read_measured)
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
    "shock": _Column("b", np.bool_, "true or false", _read_shock),
    "fold": _Column("iu", np.int64, "whole numbers", _read_whole),
    "rate_bpm": _MEASURED,
    "amplitude_mv": _MEASURED,
}
_NEEDED = ("record", "patient", "start_s", "duration_s")
_ONE_OF = (("aha_class", "rhythm"), ("shock", "probability"))
# What a file need not say; a column that says nothing is not written.
_DEFAULTS = {
    **{"database": UNNAMED_DATABASE, "lead": "", "rhythm": "", "aha_class": "", "fold": 0},
    **dict.fromkeys(("probability", "rate_bpm", "amplitude_mv"), float("nan")),
}

_SPLIT_RHYTHMS = {"vf": ("coarse_vf", "fine_vf"), "vt": ("rapid_vt", "other_vt")}
_CLASSES_OF = {rhythm: _SPLIT_RHYTHMS.get(rhythm, (aha_class,)) for rhythm, aha_class in RHYTHMS.items()}
_RHYTHM_OF = {
    **{aha_class: rhythm for rhythm, classes in _SPLIT_RHYTHMS.items() for aha_class in classes},
    "normal_sinus": "normal_sinus",
    "asystole": "asystole",
    "other_nonshockable": "organised",
}


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
        Shape (n_windows,), str, names of `ecg_shock.rhythms.AHA_CLASSES`, as the rhythm allows.
    probability : numpy.ndarray
        Shape (n_windows,), float, probability of *shockable*, 0 to 1; NaN throughout if the algorithm gives none.
    shock : numpy.ndarray
        Shape (n_windows,), bool: a shock is advised. This is what is evaluated, since the threshold and the rule for
        unusable windows are the algorithm's own.
    fold : numpy.ndarray
        Shape (n_windows,), int: the fold in which the window's patient was tested.
    rate_bpm, amplitude_mv : numpy.ndarray, optional
        Shape (n_windows,), float: the rate measured in a window of VT, in beats per minute, and the peak-to-peak
        amplitude in one of VF, in mV; NaN where not measured. With them the AHA classes can be drawn at other limits.

    Raises
    ------
    TypeError
        If a column is of the wrong kind.
    ValueError
        If the columns differ in length, or naming the rows: if a number is NaN, infinite or out of its range, a
        rhythm or class is unknown or they contradict each other, a name is empty, has spaces around it or is not in
        Unicode's form NFC, two lengths differ by less than a millisecond, a window (database, record, lead, start,
        duration) stands twice, a patient stands in two folds, or a record is of two patients.
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
    rate_bpm: np.ndarray = field(default_factory=partial(np.empty, 0))
    amplitude_mv: np.ndarray = field(default_factory=partial(np.empty, 0))

    def __post_init__(self) -> None:
        for name, column in _COLUMNS.items():
            values = np.asarray(getattr(self, name))
            if column is _MEASURED and values.shape == (0,):
                values = np.full(len(self), np.nan)
            if values.ndim != 1:
                raise ValueError(f"{name} has shape {values.shape}; allowed is (n_windows,)")
            if values.size and values.dtype.kind not in column.kinds:
                raise TypeError(f"{name} has dtype {values.dtype}; allowed are {column.allowed}")
            object.__setattr__(self, name, values.astype(column.dtype, copy=False))
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns differ in length: {lengths}")
        faults = _find_faults(self.to_frame())
        if faults:
            raise ValueError(_describe("row", faults))

    def __len__(self) -> int:
        return len(self.record)

    @property
    def has_probability(self) -> bool:
        """Whether the algorithm gives probabilities, and not only its decisions."""
        return not np.isnan(self.probability).any()

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
        return self._of_checked({name: getattr(self, name)[mask] for name in _COLUMNS})

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
            The file, replaced only once everything is written. Probabilities, rates and amplitudes that the
            predictions do not hold have no column.
        """
        frame = self.to_frame()
        silent = [
            name for name in ("probability", "rate_bpm", "amplitude_mv") if len(self) and frame[name].isna().all()
        ]
        frame["shock"] = np.where(self.shock, "true", "false")
        with atomic_writer(Path(path)) as file:
            # This end of line is what makes the writer quote a name that holds either character of it.
            frame.drop(columns=silent).to_csv(file, index=False, lineterminator="\r\n")

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], *, threshold: float | None = None) -> Predictions:
        """Read predictions that `write_csv` or anybody else wrote.

        Nothing is guessed, corrected or dropped: the header names every column once, in any order, and no other than
        these.

        - ``record``, ``patient``, ``start_s``, ``duration_s``: needed.
        - ``aha_class`` or ``rhythm``, or both. VF is coarse or fine and VT rapid or other, so that these rhythms need
          their class; of the others either may be left empty. Without a rhythm, other nonshockable windows are shown
          as ``organised``.
        - ``shock`` or ``probability``, or both. Without ``shock`` a `threshold` is needed; without ``probability``
          there is no ROC curve and no reliability.
        - ``database`` (``unnamed`` if it is missing), ``lead`` (empty), ``fold`` (0).
        - ``rate_bpm``, ``amplitude_mv``: measured in windows of VT and VF, empty where not measured. Without them the
          verdicts are not shown at other limits between the classes.

        Parameters
        ----------
        path : path-like
            A UTF-8 file with commas; `shock` is true, false, 1 or 0.
        threshold : float, optional
            Probability of *shockable* from which on a shock is advised, for a file that does not say `shock`.

        Raises
        ------
        ValueError
            Naming the lines, the first 20 and how many more, if anything in the file is not as `Predictions` allows,
            or if it needs a threshold or needs none.
        OSError
            If the file cannot be read.
        """
        path = Path(path)
        number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if threshold is not None and not (number and 0 < threshold < 1):
            raise ValueError(f"threshold is {threshold!r}; allowed is a probability between 0 and 1, such as 0.5")
        table, faults = _read(path)
        if "shock" not in table:
            if threshold is None:
                raise ValueError(
                    f"{path} has no column shock: say from which probability on a shock is advised, such as "
                    "threshold=0.5 (--threshold 0.5), or add the column."
                )
            table["shock"] = table["probability"] >= threshold
        elif threshold is not None:
            raise ValueError(f"{path} says itself where a shock is advised, in its column shock; give no threshold.")
        faults |= _find_faults(table)
        if faults:
            raise ValueError(f"{path}, {_describe('line', faults)}")
        return cls._of_checked({name: np.array(table[name], column.dtype) for name, column in _COLUMNS.items()})

    @classmethod
    def _of_checked(cls, columns: Mapping[str, np.ndarray]) -> Predictions:
        """Put columns together that were checked before: any subset of allowed rows is allowed."""
        predictions = object.__new__(cls)
        for name, values in columns.items():
            object.__setattr__(predictions, name, values)
        return predictions

    def to_frame(self) -> pd.DataFrame:
        """Give the predictions as a table of pandas, whose texts are categories."""
        import pandas as pd

        columns = {name: getattr(self, name) for name in _COLUMNS}
        return pd.DataFrame(
            {name: pd.Categorical(values) if _COLUMNS[name] is _TEXT else values for name, values in columns.items()}
        )


def predictions_of(
    windows: WindowSet, fold: int, probability: np.ndarray, shock: np.ndarray, **measured: np.ndarray
) -> Predictions:
    """Put what was said of windows, each shape (n_windows,), beside what they are."""
    names = ("database", "record", "lead", "patient", "start_s", "rhythm", "aha_class")
    return Predictions(
        **{name: getattr(windows, name) for name in names},
        duration_s=np.full(len(windows), windows.window_s),
        probability=probability,
        shock=shock,
        fold=np.full(len(windows), fold),
        **measured,
    )


def codes(names: np.ndarray) -> np.ndarray:
    """Give each name of a column a number from 0 on, in alphabetical order; shape (n,), int."""
    import pandas as pd

    return pd.factorize(names, sort=True)[0]


def _find_faults(frame: pd.DataFrame) -> dict[int, str]:
    """Check a table whose texts are categories, and say by the index of each faulty row what is first wrong with it."""
    faults: dict[int, str] = {}
    for name in ("database", "record", "lead", "patient"):
        # Names that look alike would count one patient as two.
        plain = [text for text in frame[name].cat.categories if unicodedata.normalize("NFC", text.strip()) == text]
        _allow(faults, frame[name], frame[name].isin(plain), "names without spaces around them, in Unicode's form NFC")
        if name != "lead":
            _allow(faults, frame[name], frame[name] != "", "any name, but not none")
    _allow(faults, frame["rhythm"], frame["rhythm"].isin(RHYTHMS), ", ".join(RHYTHMS))
    _allow(faults, frame["aha_class"], frame["aha_class"].isin(AHA_CLASSES), ", ".join(AHA_CLASSES))
    for rhythm, classes in _CLASSES_OF.items():
        for row in frame[(frame["rhythm"] == rhythm) & ~frame["aha_class"].isin(classes)].itertuples():
            faults.setdefault(row.Index, f"rhythm {rhythm!r} is no {row.aha_class!r}; allowed: {', '.join(classes)}")

    # NaN lies between no two numbers.
    _allow(faults, frame["start_s"], frame["start_s"].between(0, np.inf, inclusive="left"), "0 s and later")
    durations = frame["duration_s"]
    _allow(faults, durations, durations.between(0, np.inf, inclusive="neither"), "more than 0 s")
    lengths = np.unique(durations)
    near = lengths[1:][np.diff(lengths) < _ROUNDING_S]
    _allow(faults, durations, ~durations.isin(near), "lengths that are equal, or differ by a millisecond or more")
    if frame["probability"].notna().any():
        _allow(faults, frame["probability"], frame["probability"].between(0, 1), "0 to 1")
    for name, inclusive in (("rate_bpm", "neither"), ("amplitude_mv", "left")):
        measured = frame[name].isna() | frame[name].between(0, np.inf, inclusive=inclusive)
        _allow(faults, frame[name], measured, "measured numbers, or nothing")

    for row in frame[frame.duplicated(["database", "record", "lead", "start_s", "duration_s"])].itertuples():
        faults.setdefault(
            row.Index,
            f"{row.database!r}, record {row.record!r}, lead {row.lead!r}, {row.start_s:g} s, {row.duration_s:g} s "
            "stands twice; a window counts once",
        )
    first = frame.groupby("patient", observed=True)["fold"].transform("first")
    for row in frame.assign(first=first)[frame["fold"] != first].itertuples():
        faults.setdefault(
            row.Index,
            f"patient {row.patient!r} is in fold {row.fold} and in fold {row.first}; a patient is tested in one",
        )
    patient = frame["patient"].cat.codes
    first = patient.groupby([frame["database"], frame["record"]], observed=True).transform("first")
    for row in frame.assign(first=first)[patient != first].itertuples():
        faults.setdefault(
            row.Index,
            f"record {row.record!r} is of patient {row.patient!r} and of patient "
            f"{frame['patient'].cat.categories[row.first]!r}; a record is of one",
        )
    return faults


def _allow(faults: dict[int, str], column: pd.Series, good: pd.Series, allowed: str) -> None:
    """Name the values of a column that are not allowed, unless something else is wrong with their rows."""
    for row, value in column[~good].items():
        shown = value[:MAX_CHARACTERS] if isinstance(value, str) else value
        faults.setdefault(row, f"{column.name} is {shown!r}; allowed: {allowed}")


def _describe(noun: str, faults: Mapping[int, str]) -> str:
    """Name the first faulty rows, and count the others."""
    named = [f"{noun} {number}: {faults[number]}" for number in sorted(faults)[:MAX_FAULTS]]
    if len(faults) == 1:
        return named[0]
    more = [f"and {len(faults) - len(named)} more"] if len(faults) > len(named) else []
    return "\n  ".join([f"{len(faults)} {noun}s are not allowed:", *named, *more])


def _read(path: Path) -> tuple[pd.DataFrame, dict[int, str]]:
    """Read rows by the lines on which they begin, and what is wrong with those that cannot be read."""
    import pandas as pd

    # Not by `pandas.read_csv`, which pads short rows, shifts long ones, skips empty lines and cuts text at a NUL.
    pieces: list[pd.DataFrame] = []
    faults: dict[int, str] = {}
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _check_header(path, header)
            rows: dict[int, list[str]] = {}
            line = reader.line_num + 1
            for row in reader:
                rows[line] = row
                line = reader.line_num + 1  # where the next row begins: a quoted value may run over several lines
                if len(rows) == _CHUNK:
                    pieces.append(_parse(header, rows, faults))
                    rows = {}
            if rows or not pieces:
                pieces.append(_parse(header, rows, faults))
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}; {_ALLOWED_TEXT}") from error
    except UnicodeDecodeError as error:
        # Text is decoded in blocks, so that the reader is some lines ahead or behind.
        raise ValueError(f"{path}, line {_undecodable_line(path)}: {error.reason}; {_ALLOWED_TEXT}") from error
    table = pd.concat(pieces)
    return table.astype({name: "category" for name, column in _COLUMNS.items() if column is _TEXT}), faults


def _check_header(path: Path, header: list[str]) -> None:
    unknown = [name for name in dict.fromkeys(header) if name not in _COLUMNS]
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    missing = [name for name in _NEEDED if name not in header]
    missing += [" or ".join(names) for names in _ONE_OF if not set(names) & set(header)]
    faults = [
        f"{what} {', '.join(map(repr, names[:MAX_FAULTS]))}"
        for what, names in (("missing are", missing), ("unknown are", unknown), ("twice there are", twice))
        if names
    ]
    if faults:
        raise ValueError(
            f"{path}, line 1: the header must name the columns, with commas: {'; '.join(faults)}. "
            f"Known are {', '.join(_COLUMNS)}."
        )


def _parse(header: list[str], rows: Mapping[int, Sequence[str]], faults: dict[int, str]) -> pd.DataFrame:
    """Turn cells of text into values, add what a file need not say, and drop and name the rows that cannot be read."""
    import pandas as pd

    faults |= {
        line: f"there are {len(row)} values; the header names {len(header)}"
        for line, row in rows.items()
        if len(row) != len(header)
    }
    whole = {line: row for line, row in rows.items() if line not in faults}
    table = pd.DataFrame(list(whole.values()), index=list(whole), columns=header, dtype=object)
    for name in header:
        column = _COLUMNS[name]
        code, cells = pd.factorize(table[name])
        values = [column.read(cell) for cell in cells]  # each text once, however often it stands there
        allowed = column.allowed + (f" of at most {MAX_CHARACTERS} characters, without NUL" if column is _TEXT else "")
        _allow(faults, table[name], np.array([value is not None for value in values], dtype=bool)[code], allowed)
        filled = [column.dtype() if value is None else value for value in values]
        table[name] = np.array(filled, dtype=object if column is _TEXT else column.dtype)[code]

    table = table.assign(**{name: default for name, default in _DEFAULTS.items() if name not in table})
    rhythm, aha_class = table["rhythm"], table["aha_class"]
    for line in table.index[(rhythm == "") & (aha_class == "")]:
        faults.setdefault(line, "there is neither a rhythm nor an aha_class")
    for line, name in rhythm[(aha_class == "") & rhythm.isin(list(_SPLIT_RHYTHMS))].items():
        faults.setdefault(
            line,
            f"rhythm {name!r} alone does not decide how it is judged; add the aha_class, "
            f"{' or '.join(_SPLIT_RHYTHMS[name])}",
        )
    # What neither decides gets any value at all: the unknown name beside it is what is refused later.
    table["aha_class"] = aha_class.where(aha_class != "", rhythm.map(RHYTHMS).fillna(AHA_CLASSES[0]))
    table["rhythm"] = rhythm.where(rhythm != "", aha_class.map(_RHYTHM_OF).fillna("vf"))
    return table.drop(index=[line for line in rows if line in faults and line in whole])


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1
