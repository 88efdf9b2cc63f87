"""Predictions: one row a window, of our bundles or of any other algorithm, checked as they come in."""

from __future__ import annotations

import csv
import io
import itertools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.files import atomic_writer
from ecg_shock.rhythms import AHA_CLASSES, RHYTHMS

MOST_FAULTS = 20  # rows named in an error
MOST_CHARACTERS = 64  # of a name in a file: every name of a column takes the room of the longest
UNNAMED_DATABASE = "unnamed"  # what a file that names no database is reported as

_ROUNDING_S = 1e-3  # lengths nearer to each other than this are meant to be one

_MOST_WHOLE = np.iinfo(np.int64).max
_CHUNK = 50_000  # rows read at a time

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
    "rate_bpm": _NUMBER,
    "amplitude_mv": _NUMBER,
}
_MEASURED = ("rate_bpm", "amplitude_mv")
_NEEDED = ("record", "patient", "start_s", "duration_s")
_ONE_OF = (("aha_class", "rhythm"), ("shock", "probability"))
_ALLOWED_TEXT = "allowed is UTF-8 text with commas"
_SHOCK_WORDS = {"true": True, "1": True, "false": False, "0": False}

_SPLIT_RHYTHMS = {"vf": ("coarse_vf", "fine_vf"), "vt": ("rapid_vt", "other_vt")}
_CLASSES_OF = {rhythm: _SPLIT_RHYTHMS.get(rhythm, (aha_class,)) for rhythm, aha_class in RHYTHMS.items()}
_RHYTHM_OF = {
    **{aha_class: rhythm for rhythm, classes in _SPLIT_RHYTHMS.items() for aha_class in classes},
    "normal_sinus": "normal_sinus",
    "asystole": "asystole",
    "other_nonshockable": "organised",
}


class _Faults:
    """Rows that are not allowed: each is named once, by the first thing that is wrong with it."""

    def __init__(self, n_rows: int) -> None:
        self.faulty = np.zeros(n_rows, dtype=bool)
        self._named: list[tuple[int, str]] = []

    def refuse(self, bad: np.ndarray, fault: Callable[[int], str]) -> None:
        rows = np.flatnonzero(bad & ~self.faulty)
        self.faulty[rows] = True
        self._named += [(int(row), fault(int(row))) for row in rows[:MOST_FAULTS]]

    def take_over(self, others: _Faults, rows: np.ndarray) -> None:
        """Add the faults of some of the rows, `rows` being where they stand here."""
        self.faulty[rows[others.faulty]] = True
        self._named += [(int(rows[row]), fault) for row, fault in others._named]

    def append(self, others: _Faults) -> None:
        """Add rows after these."""
        self._named += [(len(self.faulty) + row, fault) for row, fault in others._named]
        self.faulty = np.concatenate([self.faulty, others.faulty])

    def describe(self, noun: str, numbers: Sequence[int]) -> str:
        """Name the first faulty rows, and count the others."""
        named = [f"{noun} {numbers[row]}: {fault}" for row, fault in sorted(self._named)[:MOST_FAULTS]]
        count = int(self.faulty.sum())
        if count == 1:
            return named[0]
        more = [f"and {count - len(named)} more"] if count > len(named) else []
        return "\n  ".join([f"{count} {noun}s are not allowed:", *named, *more])


class _BadRowsError(ValueError):
    """Rows that `Predictions` does not allow."""

    def __init__(self, faults: _Faults) -> None:
        self.faults = faults
        super().__init__(faults.describe("row", range(len(faults.faulty))))


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
        Shape (n_windows,), bool: a shock is advised. This is what is judged, since the threshold and the rule for
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
        for name, (kinds, dtype, word) in _COLUMNS.items():
            values = np.asarray(getattr(self, name))
            if name in _MEASURED and values.shape == (0,):
                values = np.full(len(self), np.nan)
            if values.ndim != 1:
                raise ValueError(f"{name} has shape {values.shape}; allowed is (n_windows,)")
            if values.size and values.dtype.kind not in kinds:
                raise TypeError(f"{name} has dtype {values.dtype}; allowed are {word}")
            object.__setattr__(self, name, values.astype(dtype, copy=False))
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns differ in length: {lengths}")
        faults = _Faults(len(self))
        self._check_names(faults)
        self._check_numbers(faults)
        self._check_windows_are_unique(faults)
        self._check_patients_have_one_fold(faults)
        self._check_records_have_one_patient(faults)
        if faults.faulty.any():
            raise _BadRowsError(faults)

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
        selected = object.__new__(Predictions)  # what was checked as a whole is right in parts
        for name in _COLUMNS:
            object.__setattr__(selected, name, getattr(self, name)[mask])
        return selected

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
        path = Path(path)
        columns: dict[str, list] = {}
        for name in _COLUMNS:
            values = getattr(self, name)
            if name in (*_MEASURED, "probability") and len(self) and np.isnan(values).all():
                continue
            columns[name] = np.where(values, "true", "false").tolist() if name == "shock" else values.tolist()
            if name in _MEASURED:
                columns[name] = ["" if value != value else value for value in columns[name]]
        with atomic_writer(path) as stream:
            file = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            # The default end of line, "\r\n", is what makes the writer quote a name that holds either.
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
            file.detach()  # flushes; `atomic_writer` closes the stream

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], *, threshold: float | None = None) -> Predictions:
        """Read predictions that `write_csv` or anybody else wrote.

        Nothing is guessed, mended or dropped: the header names every column once, in any order, and no other than
        these.

        - ``record``, ``patient``, ``start_s``, ``duration_s``: needed.
        - ``aha_class`` or ``rhythm``, or both. VF is coarse or fine and VT rapid or other, so that these rhythms need
          their class; of the others either may be left empty. Without a rhythm, other nonshockable windows are shown
          as ``organised``.
        - ``shock`` or ``probability``, or both. Without ``shock`` a `threshold` is needed; without ``probability``
          there is no ROC curve and no reliability.
        - ``database`` (``unnamed`` if left out), ``lead`` (empty), ``fold`` (0).
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
        _check_threshold(threshold)
        columns, lines, faults = _read(path)
        _complete(columns, faults)
        if "shock" not in columns:
            if threshold is None:
                raise ValueError(
                    f"{path} has no column shock: say from which probability on a shock is advised, such as "
                    "threshold=0.5 (--threshold 0.5), or add the column."
                )
            columns["shock"] = columns["probability"] >= threshold
        elif threshold is not None:
            raise ValueError(f"{path} says itself where a shock is advised, in its column shock; give no threshold.")
        good = ~faults.faulty
        try:
            predictions = cls(**(columns if good.all() else {name: column[good] for name, column in columns.items()}))
        except _BadRowsError as error:
            faults.take_over(error.faults, np.flatnonzero(good))
        if faults.faulty.any():
            raise ValueError(f"{path}, {faults.describe('line', lines)}")
        return predictions

    def _check_names(self, faults: _Faults) -> None:
        for name in ("database", "record", "lead", "patient"):
            names, code = codes(getattr(self, name))
            # Names that look alike would count one patient as two.
            plain = np.array([unicodedata.normalize("NFC", n.strip()) == n for n in names], dtype=bool)
            self._allow(faults, name, plain[code], "names without spaces around them, in Unicode's form NFC")
            if name != "lead":
                self._allow(faults, name, getattr(self, name) != "", "any name, but not none")
        rhythms, rhythm = codes(self.rhythm)
        classes, aha_class = codes(self.aha_class)
        self._allow(faults, "rhythm", _among(rhythms, RHYTHMS)[rhythm], ", ".join(RHYTHMS))
        self._allow(faults, "aha_class", _among(classes, AHA_CLASSES)[aha_class], ", ".join(AHA_CLASSES))
        possible = [_among(classes, _CLASSES_OF.get(name, ())) for name in rhythms]
        fits = np.array(possible, dtype=bool).reshape(len(rhythms), len(classes))[rhythm, aha_class]
        faults.refuse(
            ~fits,
            lambda row: (
                f"rhythm {str(self.rhythm[row])!r} is no {str(self.aha_class[row])!r}; "
                f"allowed: {', '.join(_CLASSES_OF[str(self.rhythm[row])])}"
            ),
        )

    def _check_numbers(self, faults: _Faults) -> None:
        # NaN fails every comparison.
        self._allow(faults, "start_s", (self.start_s >= 0) & (self.start_s < np.inf), "0 s and later")
        self._allow(faults, "duration_s", (self.duration_s > 0) & (self.duration_s < np.inf), "more than 0 s")
        lengths, length = np.unique(self.duration_s, return_inverse=True)
        near = np.concatenate([[False], np.diff(lengths) < _ROUNDING_S])[: len(lengths)]
        self._allow(faults, "duration_s", ~near[length], "lengths that are equal, or differ by a millisecond or more")
        if not np.isnan(self.probability).all():
            self._allow(faults, "probability", (self.probability >= 0) & (self.probability <= 1), "0 to 1")
        for name, least in (("rate_bpm", self.rate_bpm > 0), ("amplitude_mv", self.amplitude_mv >= 0)):
            values = getattr(self, name)
            self._allow(faults, name, np.isnan(values) | (least & (values < np.inf)), "measured numbers, or nothing")

    def _allow(self, faults: _Faults, name: str, good: np.ndarray, allowed: str) -> None:
        values = getattr(self, name)
        faults.refuse(~good, lambda row: f"{name} is {values[row].item()!r}; allowed: {allowed}")

    def _check_windows_are_unique(self, faults: _Faults) -> None:
        # The sort is stable: of equal windows the one that came first stays first.
        keys = (recordings(self), self.start_s, self.duration_s)
        order = np.lexsort(keys[::-1])
        repeated = np.ones(max(len(self) - 1, 0), dtype=bool)
        for key in keys:
            repeated &= key[order][1:] == key[order][:-1]
        bad = np.zeros(len(self), dtype=bool)
        bad[order[1:][repeated]] = True
        faults.refuse(
            bad,
            lambda row: (
                f"{str(self.database[row])!r}, record {str(self.record[row])!r}, lead {str(self.lead[row])!r}, "
                f"{self.start_s[row]:g} s, {self.duration_s[row]:g} s stands twice; a window counts once"
            ),
        )

    def _check_patients_have_one_fold(self, faults: _Faults) -> None:
        patients, patient = codes(self.patient)
        first_fold = np.zeros(len(patients), dtype=np.int64)
        first_fold[patient[::-1]] = self.fold[::-1]  # of repeated indices the last one written stays
        first_fold = first_fold[patient]
        faults.refuse(
            self.fold != first_fold,
            lambda row: (
                f"patient {str(self.patient[row])!r} is in fold {self.fold[row]} and in fold {first_fold[row]}; "
                "a patient is tested in one"
            ),
        )

    def _check_records_have_one_patient(self, faults: _Faults) -> None:
        record, (patients, patient) = recordings(self, by_lead=False), codes(self.patient)
        first = np.zeros(int(record.max(initial=-1)) + 1, dtype=np.int64)
        first[record[::-1]] = patient[::-1]
        first = first[record]
        faults.refuse(
            patient != first,
            lambda row: (
                f"record {str(self.record[row])!r} is of patient {str(self.patient[row])!r} and of patient "
                f"{patients[first[row]]!r}; a record is of one"
            ),
        )


def codes(names: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Count off the names of a column, as `numpy.unique` does, but without sorting a name as often as it stands there.

    Parameters
    ----------
    names : numpy.ndarray
        Shape (n,), str.

    Returns
    -------
    list of str, numpy.ndarray
        Each name once, sorted, and shape (n,), int: which of them stands where.

    Examples
    --------
    >>> codes(np.array(["b", "a", "b"]))
    (['a', 'b'], array([1, 0, 1]))
    """
    numbers: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    found = np.fromiter(map(numbers.__getitem__, names.tolist()), np.int64, len(names))
    ordered = sorted(numbers)
    rank = np.empty(len(ordered), dtype=np.int64)
    rank[[numbers[name] for name in ordered]] = np.arange(len(ordered))
    return ordered, rank[found]


def recordings(predictions: Predictions, *, by_lead: bool = True) -> np.ndarray:
    """Count off the leads of records, or the records: windows with one number come from one signal, or one record.

    Parameters
    ----------
    predictions : Predictions
        Of any windows.
    by_lead : bool
        Whether leads of a record count apart.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), int.
    """
    number = np.zeros(len(predictions), dtype=np.int64)
    columns = (predictions.database, predictions.record, predictions.lead)
    for column in columns if by_lead else columns[:2]:
        names, code = codes(column)
        number = np.unique(number * len(names) + code, return_inverse=True)[1]
    return number


def _among(names: Sequence[str], allowed: Container[str]) -> np.ndarray:
    return np.array([name in allowed for name in names], dtype=bool)


def _check_threshold(threshold: float | None) -> None:
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold!r}; allowed is a probability between 0 and 1, such as 0.5")


def _complete(columns: dict[str, np.ndarray], faults: _Faults) -> None:
    """Add what a file may leave out, as far as the rest decides it."""
    n = len(columns["record"])
    columns.setdefault("database", np.full(n, UNNAMED_DATABASE))
    columns.setdefault("lead", np.full(n, ""))
    columns.setdefault("fold", np.zeros(n, dtype=np.int64))
    columns.setdefault("probability", np.full(n, np.nan))
    rhythm, aha_class = (columns.get(name, np.full(n, "")) for name in ("rhythm", "aha_class"))
    faults.refuse((rhythm == "") & (aha_class == ""), lambda row: "there is neither a rhythm nor an aha_class")
    faults.refuse(
        (aha_class == "") & np.isin(rhythm, list(_SPLIT_RHYTHMS)),
        lambda row: (
            f"rhythm {str(rhythm[row])!r} alone does not decide how it is judged; add the aha_class, "
            f"{' or '.join(_SPLIT_RHYTHMS[str(rhythm[row])])}"
        ),
    )
    # What neither decides gets any value at all: the unknown name beside it is what `Predictions` refuses.
    columns["aha_class"] = _filled(aha_class, rhythm, RHYTHMS, AHA_CLASSES[0])
    columns["rhythm"] = _filled(rhythm, aha_class, _RHYTHM_OF, "vf")


def _filled(column: np.ndarray, other: np.ndarray, decided: Mapping[str, str], otherwise: str) -> np.ndarray:
    """Fill in the empty names of a column by what the other column says."""
    others, code = codes(other)
    return np.where(column == "", np.array([decided.get(name, otherwise) for name in others], dtype=str)[code], column)


def _is_text(text: str) -> str | None:
    return None if "\0" in text or len(text) > MOST_CHARACTERS else text  # NumPy would cut a NUL off


def _is_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if number != number or "_" in text else number


def _is_measured(text: str) -> float | None:
    return float("nan") if text.lower() in ("", "nan") else _is_number(text)


def _is_shock(text: str) -> bool | None:
    return _SHOCK_WORDS.get(text.lower())


def _is_whole(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return None if "_" in text or abs(number) > _MOST_WHOLE else number


# What reads a cell, or gives None for one that is not allowed, and what stands in for such a cell.
_PARSERS: dict[str, tuple[Callable[[str], Any], Any]] = {
    "U": (_is_text, ""),
    "fiu": (_is_number, np.nan),
    "b": (_is_shock, False),
    "iu": (_is_whole, 0),
    **dict.fromkeys(_MEASURED, (_is_measured, np.nan)),
}


def _read(path: Path) -> tuple[dict[str, np.ndarray], list[int], _Faults]:
    """Read the columns of a file as they are, the line on which each row begins, and what cannot be read."""
    pieces: list[dict[str, np.ndarray]] = []
    lines: list[int] = []
    faults = _Faults(0)
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _check_header(path, header)
            chunk: list[list[str]] = []
            line = reader.line_num + 1
            for row in reader:
                chunk.append(row)
                lines.append(line)
                line = reader.line_num + 1  # where the next row begins: a quoted value may run over several lines
                if len(chunk) == _CHUNK:
                    pieces.append(_parse(header, chunk, faults))
                    chunk = []
            pieces.append(_parse(header, chunk, faults))
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}; {_ALLOWED_TEXT}") from error
    except UnicodeDecodeError as error:
        # Text is decoded in blocks, so that the reader is some lines ahead or behind.
        raise ValueError(f"{path}, line {_undecodable_line(path)}: {error.reason}; {_ALLOWED_TEXT}") from error
    return {name: np.concatenate([piece.pop(name) for piece in pieces]) for name in header}, lines, faults


def _check_header(path: Path, header: list[str]) -> None:
    unknown = [name for name in dict.fromkeys(header) if name not in _COLUMNS]
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    missing = [name for name in _NEEDED if name not in header]
    missing += [" or ".join(names) for names in _ONE_OF if not set(names) & set(header)]
    faults = [
        f"{what} {', '.join(map(repr, names[:MOST_FAULTS]))}"
        for what, names in (("missing are", missing), ("unknown are", unknown), ("twice there are", twice))
        if names
    ]
    if faults:
        raise ValueError(
            f"{path}, line 1: the header must name the columns, with commas: {'; '.join(faults)}. "
            f"Known are {', '.join(_COLUMNS)}."
        )


def _parse(header: list[str], rows: list[list[str]], faults: _Faults) -> dict[str, np.ndarray]:
    """Turn rows of text into columns; a cell that cannot be read is named, and something stands in for it."""
    found = _Faults(len(rows))
    counts = [len(row) for row in rows]
    found.refuse(
        np.array(counts, dtype=int) != len(header),
        lambda row: f"there are {counts[row]} values; the header names {len(header)}",
    )
    rows = [[""] * len(header) if faulty else row for row, faulty in zip(rows, found.faulty.tolist(), strict=True)]
    columns = {name: _parse_column(name, [row[i] for row in rows], found) for i, name in enumerate(header)}
    faults.append(found)
    return columns


def _parse_column(name: str, cells: list[str], faults: _Faults) -> np.ndarray:
    kinds, dtype, word = _COLUMNS[name]
    parse, stand_in = _PARSERS[name if name in _MEASURED else kinds]
    values = [parse(cell) for cell in cells]
    bad = np.array([value is None for value in values], dtype=bool)
    if word == "text":
        word = f"text of at most {MOST_CHARACTERS} characters, without NUL"
    faults.refuse(bad, lambda row: f"{name} is {cells[row][:MOST_CHARACTERS]!r}; allowed: {word}")
    return np.array([stand_in if value is None else value for value in values], dtype=dtype)


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1
