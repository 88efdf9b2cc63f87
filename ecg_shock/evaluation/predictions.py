"""Predictions of a model of this package or of any other algorithm, one row per window."""

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
from ecg_shock.rhythms import CLASSES, NONSHOCKABLE, RHYTHMS

if TYPE_CHECKING:
    import pandas as pd

MAX_FAULTS = 20  # rows named in an error
MAX_CHARACTERS = 64  # of a name; NumPy stores all names of a column at the length of the longest
TEST_ROLE = "test"
UNNAMED_DATABASE = "unnamed"  # used if a file has no column database

# A number outside of these is in another unit, such as milliseconds, samples, Hz or microvolts.
MAX_START_S = 48 * 3600.0
DURATION_RANGE_S = (1.0, 60.0)
RATE_RANGE_BPM = (10.0, 1000.0)
MAX_AMPLITUDE_MV = 100.0

_DURATION_TOLERANCE_S = 1e-3  # a smaller difference of two durations is a rounding error

_MAX_INTEGER = np.iinfo(np.int64).max
_CHUNK = 50_000  # rows read at a time
_ALLOWED_TEXT = "allowed is UTF-8 text with commas"
_NO_DECISION = "none"  # in the column shock
_SHOCK_WORDS = {"true": 1, "1": 1, "false": 0, "0": 0, _NO_DECISION: -1}


def _read_text(cell: str) -> str | None:
    return None if "\0" in cell or len(cell) > MAX_CHARACTERS else cell  # NumPy drops NUL at the end of a string


def _read_number(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return None if number != number or "_" in cell else number


def _read_measured(cell: str) -> float | None:
    return float("nan") if cell.lower() in ("", "nan") else _read_number(cell)


def _read_integer(cell: str) -> int | None:
    try:
        number = int(cell)
    except ValueError:
        return None
    return None if "_" in cell or abs(number) > _MAX_INTEGER else number


def _read_shock(cell: str) -> int | None:
    return _SHOCK_WORDS.get(cell.lower())


@dataclass(frozen=True)
class _Column:
    kinds: str  # the allowed `dtype.kind` of an array
    dtype: type[Any]  # of the stored array
    allowed: str  # the allowed values, as errors describe them
    read: Callable[[str], Any]  # turns a cell of a file into a value, or None if it is not allowed


_TEXT = _Column("U", np.str_, "text", _read_text)
_NUMBER = _Column("fiu", np.float64, "numbers", _read_number)
_MEASURED = _Column("fiu", np.float64, "numbers", _read_measured)
_DECISION = _Column("b", np.bool_, "true or false", _read_shock)
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
    "shock": _DECISION,
    "fold": _Column("iu", np.int64, "whole numbers", _read_integer),
    "rate_bpm": _MEASURED,
    "amplitude_mv": _MEASURED,
    "no_decision": _DECISION,
}
_FILE_COLUMNS = {
    **{name: column for name, column in _COLUMNS.items() if column is not _DECISION},
    "shock": _Column("i", np.int8, f"true, false or {_NO_DECISION}", _read_shock),
    "score": _NUMBER,
    "role": _TEXT,
}
_UNREAD_COLUMNS = ("start_sample", "samples", "fs")  # of a list of windows, to which a file may add its own columns
_REQUIRED = ("record", "patient", "start_s", "duration_s")
_LABELS, _ADVICE = ("aha_class", "rhythm"), ("shock", "probability", "score")
_DEFAULTS = {  # of the columns that a file may lack
    **{"database": UNNAMED_DATABASE, "lead": "", "rhythm": "", "aha_class": "", "fold": 0, "role": TEST_ROLE},
    **dict.fromkeys(("probability", "rate_bpm", "amplitude_mv"), float("nan")),
}

SPLIT_RHYTHMS = {"vf": ("coarse_vf", "fine_vf", "slow_vf"), "vt": ("rapid_vt", "other_vt")}
_ALLOWED_CLASSES = {rhythm: SPLIT_RHYTHMS.get(rhythm, (aha_class,)) for rhythm, aha_class in RHYTHMS.items()}
_DEFAULT_RHYTHM = {
    **{aha_class: rhythm for rhythm, classes in SPLIT_RHYTHMS.items() for aha_class in classes},
    "normal_sinus": "normal_sinus",
    "asystole": "asystole",
    "other_nonshockable": "organised",
}


@dataclass(frozen=True, eq=False)
class Predictions:
    """The advice of an algorithm on labelled windows, one row per window.

    Parameters
    ----------
    database, record, lead, patient : numpy.ndarray
        Shape (n_windows,), str: names. All windows of a patient, such as ``"mitdb/201"``, must be in one fold. Only
        `lead` may be empty.
    start_s, duration_s : numpy.ndarray
        Shape (n_windows,), float: start of the window in seconds from the start of the recording, and its length in
        seconds.
    rhythm : numpy.ndarray
        Shape (n_windows,), str: annotated rhythm, one of `ecg_shock.rhythms.RHYTHMS`.
    aha_class : numpy.ndarray
        Shape (n_windows,), str: class, one of `ecg_shock.rhythms.CLASSES`; it must fit the rhythm.
    probability : numpy.ndarray
        Shape (n_windows,), float: probability of *shockable*, 0 to 1; NaN for all windows if the algorithm gives no
        probability.
    shock : numpy.ndarray
        Shape (n_windows,), bool: True if a shock is advised. Sensitivity and specificity are computed from this column,
        not from `probability`. Where `no_decision` is True, it is set to the wrong advice.
    fold : numpy.ndarray
        Shape (n_windows,), int: the fold in which the patient is a test patient.
    rate_bpm, amplitude_mv : numpy.ndarray, optional
        Shape (n_windows,), float: the measured rate of VT in beats per minute, and the peak-to-peak amplitude of VF in
        mV; NaN where not measured. With them, verdicts are also computed for other limits between the AHA classes.
    no_decision : numpy.ndarray, optional
        Shape (n_windows,), bool: True where the algorithm made no decision. This is counted as wrong: as no shock in
        shockable windows, and as a shock in nonshockable windows.

    Raises
    ------
    TypeError
        If a column has the wrong data type.
    ValueError
        If any of these is wrong; the message names the rows:

        - The columns differ in length.
        - A number is NaN, infinite or out of range: starts up to 48 h, durations of 1 to 60 s, rates of 10 to 1000 bpm,
          amplitudes up to 100 mV.
        - A rhythm or class is unknown, or the class does not fit the rhythm.
        - A name is empty, begins or ends with a space, or is not in the Unicode form NFC.
        - Two durations differ by less than a millisecond.
        - A window (database, record, lead, start, duration) appears twice.
        - A patient is in two folds, or a record belongs to two patients.
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
    no_decision: np.ndarray = field(default_factory=partial(np.zeros, 0, bool))

    def __post_init__(self) -> None:
        for name, column in _COLUMNS.items():
            values = np.asarray(getattr(self, name))
            if values.shape == (0,) and (column is _MEASURED or name == "no_decision"):
                values = np.full(len(self), np.nan if column is _MEASURED else False)
            if values.ndim != 1:
                raise ValueError(f"{name} has shape {values.shape}; allowed is (n_windows,)")
            if values.size and values.dtype.kind not in column.kinds:
                raise TypeError(
                    f"{name} has dtype {values.dtype}; allowed are {column.allowed}, in an array of dtype "
                    f"{np.dtype(column.dtype).name}"
                )
            object.__setattr__(self, name, values.astype(column.dtype, copy=False))
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns differ in length: {lengths}; give one value per window")
        faults = find_faults(self.to_frame())
        if faults:
            raise ValueError(list_faults("row", faults))
        object.__setattr__(self, "shock", _count_against(self.no_decision, self.shock, self.aha_class))

    def __len__(self) -> int:
        return len(self.record)

    @property
    def has_probability(self) -> bool:
        """Whether the predictions have probabilities."""
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
            If the mask is not boolean, or its length differs from the number of windows.
        """
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise ValueError(f"mask has dtype {mask.dtype} and shape {mask.shape}; allowed are bool and ({len(self)},)")
        return self._from_checked({name: getattr(self, name)[mask] for name in _COLUMNS})

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """Join the predictions of several folds or durations, in the order given.

        Raises
        ------
        ValueError
            If `parts` is empty, a window appears twice, or a patient is in two folds.
        """
        if not parts:
            raise ValueError("there is nothing to join; give one or more Predictions")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the predictions to a CSV file, one row per window, without rounding.

        Parameters
        ----------
        path : path-like
            The file. An existing file is replaced. The columns ``probability``, ``rate_bpm`` and ``amplitude_mv`` are
            omitted if they are NaN for all windows.
        """
        frame = self.to_frame()
        empty = [name for name in ("probability", "rate_bpm", "amplitude_mv") if len(self) and frame[name].isna().all()]
        frame["shock"] = np.where(self.no_decision, _NO_DECISION, np.where(self.shock, "true", "false"))
        with atomic_writer(Path(path)) as file:
            # With this line ending, pandas quotes names that contain a carriage return or a line feed.
            frame.drop(columns=[*empty, "no_decision"]).to_csv(file, index=False, lineterminator="\r\n")

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], *, threshold: float | None = None) -> Predictions:
        """Read predictions from a CSV file, written by `write_csv` or by any other program.

        A file with a faulty line is refused as a whole. The first line names these columns, in any order:

        - Required: ``record``, ``patient``, ``start_s``, ``duration_s``.
        - ``aha_class`` or ``rhythm``, or both. For the rhythms ``vf`` (coarse or fine) and ``vt`` (rapid or other),
          ``aha_class`` is required. For other rhythms, one of the two cells may be empty. A window of class
          ``other_nonshockable`` without a rhythm gets the rhythm ``organised``.
        - ``shock``, ``probability`` or ``score``. Without ``shock``, give a `threshold`. Without ``probability``, there
          are no ROC and reliability curves. A score is any number that is higher for *shockable*.
        - Optional: ``database`` (default ``unnamed``), ``lead`` (default empty), ``fold`` (default 0).
        - Optional: ``rate_bpm`` in windows of VT, and ``amplitude_mv`` in windows of VF; empty where not measured.
          Without them, verdicts are not computed for other limits between the classes.
        - Optional: ``role``, which must be ``test``; and ``start_sample``, ``samples`` and ``fs``, which are not read.
          The list that ``ecg-shock windows --csv`` writes has these columns.

        Parameters
        ----------
        path : path-like
            A UTF-8 text file with commas. Allowed values of ``shock`` are true, false, 1 and 0, and none for no
            decision.
        threshold : float, optional
            For a file without the column ``shock``: a shock is advised if the probability of *shockable*, or the score,
            is at least this.

        Raises
        ------
        ValueError
            If a line is not allowed by `Predictions` (the message names the first 20), or if `threshold` is missing or
            not allowed.
        OSError
            If the file cannot be read.
        """
        path = Path(path)
        number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
        if threshold is not None and not (number and np.isfinite(threshold)):
            raise ValueError(f"threshold is {threshold!r}; give a number, such as 0.5")
        table, faults = read_rows(path, (_LABELS, _ADVICE))
        others = table.loc[table["role"] != TEST_ROLE, "role"]
        if len(others):
            raise ValueError(
                f"{path} has {len(others)} windows of other roles, such as {others.iloc[0]!r} in line "
                f"{others.index[0]}; only those of the role {TEST_ROLE} are evaluated. Remove the others."
            )
        if "shock" in table:
            if threshold is not None:
                raise ValueError(f"{path} has a column shock, so no threshold is allowed; remove the threshold.")
            no_decision, shock = table["shock"] < 0, table["shock"] > 0
        else:
            no_decision, shock = False, _decide(path, table, threshold)
        table = table.assign(shock=shock, no_decision=no_decision)
        faults |= find_faults(table)
        table["shock"] = _count_against(table["no_decision"], table["shock"], table["aha_class"])
        if faults:
            raise ValueError(f"{path}, {list_faults('line', faults)}")
        return cls._from_checked({name: np.array(table[name], column.dtype) for name, column in _COLUMNS.items()})

    def on_windows(self, rows: np.ndarray, windows: pd.DataFrame) -> Predictions:
        """Return predictions with the advice of some rows. The other columns are from a table already checked."""
        advice = {name: getattr(self, name)[rows] for name in ("shock", "no_decision", "probability")}
        labels = {
            name: np.array(windows[name], column.dtype) for name, column in _COLUMNS.items() if name not in advice
        }
        return self._from_checked({name: (advice | labels)[name] for name in _COLUMNS})

    @classmethod
    def _from_checked(cls, columns: Mapping[str, np.ndarray]) -> Predictions:
        """Make predictions from columns that were checked before."""
        predictions = object.__new__(cls)
        for name, values in columns.items():
            object.__setattr__(predictions, name, values)
        return predictions

    def to_frame(self) -> pd.DataFrame:
        """Return the predictions as a data frame whose text columns are categorical."""
        import pandas as pd

        columns = {name: getattr(self, name) for name in _COLUMNS}
        return pd.DataFrame(
            {name: pd.Categorical(values) if _COLUMNS[name] is _TEXT else values for name, values in columns.items()}
        )


def combine_predictions(
    windows: WindowSet, fold: int, probability: np.ndarray, shock: np.ndarray, **measured: np.ndarray
) -> Predictions:
    """Make predictions from windows and their probability, advice and measurements, each of shape (n_windows,)."""
    names = ("database", "record", "lead", "patient", "start_s", "rhythm", "aha_class")
    return Predictions(
        **{name: getattr(windows, name) for name in names},
        duration_s=np.full(len(windows), windows.window_s),
        probability=probability,
        shock=shock,
        fold=np.full(len(windows), fold),
        **measured,
    )


def _decide(path: Path, table: pd.DataFrame, threshold: float | None) -> pd.Series:
    """Decide by the threshold of the probability or score."""
    scored = "score" in table
    if threshold is None:
        raise ValueError(
            f"{path} has no column shock; give the threshold of the {'score' if scored else 'probability'}, such as "
            "threshold=0.5 (--threshold 0.5, for --predictions only), or add the column."
        )
    if scored and table["probability"].notna().any():
        raise ValueError(f"{path} has the columns probability and score; remove the one that does not decide.")
    if not scored and not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold!r}; allowed is a probability between 0 and 1, such as 0.5")
    return table["score" if scored else "probability"] >= threshold


def _count_against(no_decision: Any, shock: Any, aha_class: Any) -> np.ndarray:
    """Return the advice. Where there is no decision, the advice is set to the wrong one."""
    return np.where(no_decision, np.isin(np.asarray(aha_class, dtype=str), NONSHOCKABLE), shock)


def describe_window(window: pd.Series) -> str:
    """Describe a row of a table of windows for an error."""
    return (
        f"database {window['database']!r}, record {window['record']!r}, lead {window['lead']!r}, "
        f"{window['start_s']:g} s, {window['duration_s']:g} s"
    )


def encode_names(names: np.ndarray) -> np.ndarray:
    """Return the position of each name in the alphabetical order of the distinct names, from 0; shape (n,), int."""
    import pandas as pd

    return pd.factorize(names, sort=True)[0]


def find_faults(frame: pd.DataFrame) -> dict[int, str]:
    """Return the first fault of each faulty row, by the index of the row; text columns must be categorical."""
    faults: dict[int, str] = {}
    for name in ("database", "record", "lead", "patient"):
        # Names that look the same but differ would count one patient twice.
        plain = [text for text in frame[name].cat.categories if unicodedata.normalize("NFC", text.strip()) == text]
        _require(faults, frame[name], frame[name].isin(plain), "names in Unicode form NFC, without spaces around them")
        if name != "lead":
            _require(faults, frame[name], frame[name] != "", "any name that is not empty")
    _require(faults, frame["rhythm"], frame["rhythm"].isin(RHYTHMS), ", ".join(RHYTHMS))
    _require(faults, frame["aha_class"], frame["aha_class"].isin(CLASSES), ", ".join(CLASSES))
    for rhythm, classes in _ALLOWED_CLASSES.items():
        _add_faults(
            faults,
            frame[(frame["rhythm"] == rhythm) & ~frame["aha_class"].isin(classes)],
            f"aha_class is {{0.aha_class!r}} and rhythm is {rhythm!r}; allowed for this rhythm: {', '.join(classes)}",
        )

    # `between` is False for NaN.
    starts, durations = frame["start_s"], frame["duration_s"]
    _require(faults, starts, starts.between(0, MAX_START_S), f"0 to {MAX_START_S:g} s (48 h); give seconds")
    shortest, longest = DURATION_RANGE_S
    _require(faults, durations, durations.between(shortest, longest), f"{shortest:g} to {longest:g} s; give seconds")
    lengths = np.unique(durations)
    near = lengths[1:][np.diff(lengths) < _DURATION_TOLERANCE_S]
    _require(faults, durations, ~durations.isin(near), "durations that are equal, or differ by a millisecond or more")
    if frame["probability"].notna().any():
        _require(faults, frame["probability"], frame["probability"].between(0, 1), "0 to 1")
    for name, low, high, unit in (("rate_bpm", *RATE_RANGE_BPM, "bpm"), ("amplitude_mv", 0.0, MAX_AMPLITUDE_MV, "mV")):
        measured = frame[name].isna() | frame[name].between(low, high)
        _require(faults, frame[name], measured, f"{low:g} to {high:g} {unit}, or empty if not measured")

    _add_faults(
        faults,
        frame[frame.duplicated(["database", "record", "lead", "start_s", "duration_s"])],
        "the window of database {0.database!r}, record {0.record!r}, lead {0.lead!r}, {0.start_s:g} s, "
        "{0.duration_s:g} s appears twice; give it once",
    )
    first = frame.groupby("patient", observed=True)["fold"].transform("first")
    _add_faults(
        faults,
        frame.assign(first=first)[frame["fold"] != first],
        "patient {0.patient!r} is in fold {0.fold} and in fold {0.first}; give each patient only one fold",
    )
    patient = frame["patient"].cat.codes
    first = patient.groupby([frame["database"], frame["record"]], observed=True).transform("first")
    _add_faults(
        faults,
        frame.assign(first=frame["patient"].cat.categories[first])[patient != first],
        "record {0.record!r} belongs to patient {0.patient!r} and to patient {0.first!r}; give each record one patient",
    )
    return faults


def _add_faults(faults: dict[int, str], rows: pd.DataFrame, message: str) -> None:
    """Add a message for each row that has no fault yet; the message is a format string for the row."""
    for row in rows.itertuples():
        faults.setdefault(row.Index, message.format(row))


def _require(faults: dict[int, str], column: pd.Series, good: pd.Series, allowed: str) -> None:
    """Add a fault for each value that is not good, unless its row already has a fault."""
    for row, value in column[~good].items():
        shown = value[:MAX_CHARACTERS] if isinstance(value, str) else value
        faults.setdefault(row, f"{column.name} is {shown!r}; allowed: {allowed}")


def list_faults(noun: str, faults: Mapping[int, str]) -> str:
    """List the first `MAX_FAULTS` faults, each by its first row: a column may be wrong in every row."""
    rows: dict[object, list[int]] = {}
    for number in sorted(faults):
        column, _, allowed = faults[number].rpartition("; allowed: ")
        rows.setdefault((column.partition(" is ")[0], allowed), []).append(number)
    first = list(rows.values())[:MAX_FAULTS]
    named = [
        f"{noun} {same[0]}{f' and {len(same) - 1} more' if len(same) > 1 else ''}: {faults[same[0]]}" for same in first
    ]
    if len(faults) == 1:
        return named[0]
    others = len(faults) - sum(map(len, first))
    more = [f"and {others} more"] if others else []
    return "\n  ".join([f"{len(faults)} {noun}s are not allowed:", *named, *more])


def read_rows(path: Path, one_of: Sequence[Sequence[str]] = (_LABELS,)) -> tuple[pd.DataFrame, dict[int, str]]:
    """Read the rows, indexed by the number of their first line, and the faults of rows that cannot be read.

    The header must name at least one column of each group in `one_of`.
    """
    import pandas as pd

    # `pandas.read_csv` would pad short rows, shift long rows, skip empty lines and cut text at a NUL.
    pieces: list[pd.DataFrame] = []
    faults: dict[int, str] = {}
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _check_header(path, header, one_of)
            rows: dict[int, list[str]] = {}
            line = reader.line_num + 1
            for row in reader:
                rows[line] = row
                line = reader.line_num + 1  # a quoted value may run over several lines
                if len(rows) == _CHUNK:
                    pieces.append(_parse(header, rows, faults))
                    rows = {}
            if rows or not pieces:
                pieces.append(_parse(header, rows, faults))
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: {error}; {_ALLOWED_TEXT}") from error
    except UnicodeDecodeError as error:
        # Text is decoded in blocks, so the faulty byte is not on line `line`.
        raise ValueError(f"{path}, line {_find_undecodable_line(path)}: {error.reason}; {_ALLOWED_TEXT}") from error
    table = pd.concat(pieces)
    return table.astype({name: "category" for name, column in _FILE_COLUMNS.items() if column is _TEXT}), faults


def _check_header(path: Path, header: list[str], one_of: Sequence[Sequence[str]]) -> None:
    unknown = [name for name in dict.fromkeys(header) if name not in (*_FILE_COLUMNS, *_UNREAD_COLUMNS)]
    twice = [name for name in dict.fromkeys(header) if header.count(name) > 1]
    missing = [name for name in _REQUIRED if name not in header]
    missing += [f"{', '.join(names[:-1])} or {names[-1]}" for names in one_of if not set(names) & set(header)]
    faults = [
        f"{what} {', '.join(map(repr, names[:MAX_FAULTS]))}"
        for what, names in (("missing:", missing), ("unknown:", unknown), ("repeated:", twice))
        if names
    ]
    if faults:
        raise ValueError(
            f"{path}, line 1: the header must name the columns, separated by commas; {'; '.join(faults)}. "
            f"Allowed columns are {', '.join(_FILE_COLUMNS)}."
        )


def _parse(header: list[str], rows: Mapping[int, Sequence[str]], faults: dict[int, str]) -> pd.DataFrame:
    """Parse the cells and fill in optional columns; drop rows that cannot be parsed, and add their faults."""
    import pandas as pd

    faults |= {
        line: f"there are {len(row)} values, but the header names {len(header)} columns; give one value for each column"
        for line, row in rows.items()
        if len(row) != len(header)
    }
    complete = {line: row for line, row in rows.items() if line not in faults}
    table = pd.DataFrame(list(complete.values()), index=list(complete), columns=header, dtype=object)
    for name in filter(_FILE_COLUMNS.__contains__, header):
        column = _FILE_COLUMNS[name]
        code, cells = pd.factorize(table[name])
        values = [column.read(cell) for cell in cells]  # each distinct text is parsed once
        allowed = column.allowed + (f" of at most {MAX_CHARACTERS} characters, without NUL" if column is _TEXT else "")
        _require(faults, table[name], np.array([value is not None for value in values], dtype=bool)[code], allowed)
        filled = [column.dtype() if value is None else value for value in values]
        table[name] = np.array(filled, dtype=object if column is _TEXT else column.dtype)[code]

    table = table.assign(**{name: default for name, default in _DEFAULTS.items() if name not in table})
    rhythm, aha_class = table["rhythm"], table["aha_class"]
    for line in table.index[(rhythm == "") & (aha_class == "")]:
        faults.setdefault(line, "rhythm and aha_class are both empty; give one of them")
    for line, name in rhythm[(aha_class == "") & rhythm.isin(list(SPLIT_RHYTHMS))].items():
        faults.setdefault(
            line,
            f"rhythm is {name!r} and aha_class is empty; give the aha_class {' or '.join(SPLIT_RHYTHMS[name])}",
        )
    # After an unknown name the fill value does not matter, because the row is refused later.
    table["aha_class"] = aha_class.where(aha_class != "", rhythm.map(RHYTHMS).fillna(CLASSES[0]))
    table["rhythm"] = rhythm.where(rhythm != "", aha_class.map(_DEFAULT_RHYTHM).fillna("vf"))
    return table.drop(index=[line for line in rows if line in faults and line in complete])


def _find_undecodable_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1
