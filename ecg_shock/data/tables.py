"""Tables in text: CSV, TSV and TXT files, whatever their delimiter, decimal sign, encoding and header."""

from __future__ import annotations

import codecs
import csv
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from ecg_shock.data.columns import (
    EMPTY,
    SECONDS,
    VOLTS,
    check_clock,
    check_voltage,
    choose_columns,
    find_columns,
    is_time_name,
    unit_of,
    why_no_lead,
)
from ecg_shock.data.lead_labels import is_ecg, listed, quoted
from ecg_shock.data.reading import WHAT_TO_DO, build_recording, lead_names
from ecg_shock.data.recordings import MV_PER_UNIT, Recording

# ", " delimits the decimal commas of some devices. A space stands for any number of them, and for one column alone.
DELIMITERS = (" ", "\t", ";", "|", ",", ", ")
NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}  # easier to type in a shell
DECIMALS = (".", ",")

HEAD_LINES, MAX_LINE = 500, 2**17  # lines from which the form of a table is taken, and characters of a line
CHUNK = 100_000  # cells read at a time: 10 MB of Python's objects
MISSING = frozenset({"na", "n/a", "null", "none", "nil", "missing", "nan", "value!", "div/0!"})
SAMPLE_ROWS = 100
MAX_REASON = 80  # characters of a library's message
DAY_S = 86400.0
COMMENTS = ("#", "%", "//", ";")

_NUMBERS = {sign: re.compile(rf"[+-]?(\d+[{sign}]?\d*|[{sign}]\d+)(e[+-]?\d+)?", re.IGNORECASE) for sign in DECIMALS}
_NO_NUMBER = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)  # for float(), but no sign of numbers in a table
# 1.234 that is a thousand two hundred and thirty-four; a decimal fraction begins with "0." now and then.
_THOUSANDS = {sign: re.compile(rf"[+-]?[1-9]\d{{0,2}}[{sign}]\d{{3}}") for sign in DECIMALS}
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})(?:[.,:](\d+))?")
_DATE = r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[- ]?[A-Za-z]{3}[- ]?\d{2,4}|\d{8}(?=T)"
_TIME = rf"(?:{_CLOCK.pattern}|(?<=T)\d{{6}}(?:\.\d+)?)(?: ?[AaPp]\.?[Mm]\.?)?(?:Z| ?[+-]\d\d:?\d\d| ?UTC)?"
_STAMP = re.compile(rf"['\"\[]*(?:(?:{_DATE})(?:(?:T|,? +){_TIME})?|{_TIME}(?: +(?:{_DATE}))?)['\"\]]*")
_RATE = re.compile(
    r"(?:sampl\w*[ _-]*(?:rate|freq\w*)|sfreq|\bfs\b|abtastrate)\D{0,12}?(\d+(?:[.,]\d+)?)\s*(k?)", re.IGNORECASE
)


@dataclass(frozen=True)
class _Form:
    """One way to read the lines of a table."""

    delimiter: str
    decimal: str
    kinds: tuple[str, ...]  # of the columns: "number", "time", "words" or "empty"
    first: int  # number of the first row, counted in lines from 0
    rows: int  # that can be read so, of the head
    whole: bool  # whether all lines from the first row on can
    sample: tuple[tuple[float, ...], ...]  # numbers of the first rows


def read_csv(
    path: Path,
    fs: float,
    units: str,
    leads: Sequence[str] | None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> Recording:
    """Read the columns of a table in text; see `ecg_shock.data.readers.read_record`."""
    delimiter = NAMED_DELIMITERS.get(delimiter or "", delimiter)
    if delimiter is not None and delimiter not in DELIMITERS:
        raise ValueError(f"delimiter is {delimiter!r}; allowed are {DELIMITERS} and {tuple(NAMED_DELIMITERS)}")
    if decimal is not None and decimal not in DECIMALS:
        raise ValueError(f"decimal is {decimal!r}; allowed are {DECIMALS}")
    encoding = _encoding(path)
    with _open(path, encoding) as file:
        head = list(islice(iter(lambda: file.readline(MAX_LINE), ""), HEAD_LINES)) or [""]
    for line, text in enumerate(head, 1):
        if len(text) == MAX_LINE:
            raise ValueError(f"{path} line {line} has more than {MAX_LINE} characters; write a line for each sample")
        if "\0" in text:
            raise ValueError(
                f"{path} line {line} holds NUL bytes: the file was not saved to its end, or is not UTF-8; save it as "
                "UTF-8"
            )
    if delimiter is None and (match := re.fullmatch(r"sep=(.)\s*", head[0], re.IGNORECASE)) and match[1] in DELIMITERS:
        delimiter, head[0] = match[1], "\n"  # as Excel reads and writes it
    form = _form(path, head, delimiter, decimal)
    names, found_units = _header(path, head, form, fs)
    if names[-1] and form.kinds[-1] == "empty":
        form = replace(form, kinds=(*form.kinds[:-1], "number"))
    columns, stamps = _columns(path, encoding, form, names, found_units, leads)
    if not len(next(iter(columns.values()), ())):
        raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
    filled = lead_names(names)
    reasons = {"time": "holds times", "words": "holds words", "empty": EMPTY}
    no_leads = {i: reasons[kind] for i, kind in enumerate(form.kinds) if kind in reasons}
    chosen = choose_columns(path, names, columns, no_leads, leads)
    n = len(columns[chosen[0]])
    if len(names) > n:
        raise ValueError(f"{path} has {len(names)} columns of {n} samples; write a line a sample, not a line a lead")
    for i in chosen:
        check_voltage(path, filled[i], found_units[i], units)
    for i, values in columns.items():
        if i not in chosen and (not names[i] or is_time_name(names[i], found_units[i])):
            check_clock(path, filled[i], values, found_units[i], fs, form.first + 1)
    for i, values in stamps.items():
        check_clock(path, filled[i], values, "s", fs, form.first + 1)
    with np.errstate(over="ignore"):  # what is infinite is refused below
        signal = np.empty((n, len(chosen)), dtype=np.float32)
        for j, i in enumerate(chosen):
            signal[:, j] = columns[i] * MV_PER_UNIT[units]
    return build_recording(path, signal, fs, [filled[i] for i in chosen])


def _encoding(path: Path) -> str:
    """Return UTF-16 where the file begins with its mark, Latin-1 where its beginning is no UTF-8, else UTF-8."""
    with path.open("rb") as file:
        head = file.read(2**16)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


@contextmanager
def _open(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a table; a line ends with LF, with or without CR before it, or with CR where there is no LF."""
    try:
        with path.open(encoding=encoding, newline="") as file:
            newline = "\n" if "\n" in file.read(2**16) else "\r"
        with path.open(encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeError as error:
        raise ValueError(f"{path} is not {encoding.removesuffix('-sig')} text throughout; save it as UTF-8") from error


def _rows(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """Split lines into cells; a line without any gives an empty list."""
    if delimiter == " ":
        return map(str.split, lines)
    if delimiter == ", ":
        return (line.split(", ") if line.strip() else [] for line in lines)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _split(line: str, delimiter: str) -> list[str]:
    """Split one line of the head into cells; one whose quotes do not fit has none."""
    try:
        return next(_rows(iter([line]), delimiter), [])
    except csv.Error:
        return []


def _kind(cell: str, decimal: str) -> str:
    cell = cell.strip()
    if not cell:
        return "empty"
    if _NUMBERS[decimal].fullmatch(cell):
        return "number"
    if _NO_NUMBER.fullmatch(cell):
        return "nan"
    if _STAMP.fullmatch(cell):
        return "time"
    return "words" if re.match(r"[\W_]*[^\W\d_]", cell) else "other"


def _is_comment(line: str, delimiter: str) -> bool:
    text = line.lstrip()
    error = text[1:4] in ("N/A", "VAL", "DIV", "REF", "NAM", "NUM")  # of Excel, "#N/A"
    return text.startswith(COMMENTS) and not error and not (delimiter == ";" and text.startswith(";"))


def _try_form(head: Sequence[str], delimiter: str, decimal: str, *, commas: bool) -> _Form | None:
    """Return how the lines read with this delimiter and decimal sign, or None if they do not.

    Decimal commas have to stand there, unless the caller says that there are `commas`.
    """
    rows: list[list[str]] = []
    if delimiter == " " and any("\t" in line.strip() for line in head if not _is_comment(line, delimiter)):
        return None
    for line in head:
        row = _split(line, delimiter)
        rows.append([] if _is_comment(line, delimiter) or not "".join(row).strip() else row)
    kinds = [[_kind(cell, decimal) for cell in row] for row in rows]
    widths = Counter(len(row) for row in kinds if "number" in row)
    if not widths:
        return None
    width = max(widths, key=lambda n: (widths[n], n))
    columns = []
    for cells in zip(*(row for row in kinds if len(row) == width and "number" in row), strict=True):
        count = Counter(cells)
        for missing in ("empty", "nan"):
            count.pop(missing, None)  # a lead that is not connected yet, unless each row ends with a delimiter
        # Where a number and something else are as frequent, numbers are meant, and the rest is an error.
        columns.append(max(count, key=lambda kind: (count[kind], kind == "number")) if count else "number")
    if "other" in columns or "number" not in columns:
        return None
    if not any(row[-1].strip() for row in rows if len(row) == width):
        columns[-1] = "empty"
    allowed = {"number": ("number", "empty", "nan"), "time": ("time", "empty"), "empty": ("empty",)}

    def is_row(row: Sequence[str]) -> bool:
        return (
            len(row) == width
            and not {"number", "time", "nan"}.isdisjoint(row)
            and all(kind not in allowed or cell in allowed[kind] for cell, kind in zip(row, columns, strict=True))
        )

    good = [i for i, row in enumerate(kinds) if is_row(row)]
    if good and rows[good[0]] == ["", *map(str, range(width - 1))]:
        good.pop(0)  # pandas numbers columns that have no name
    if not good:
        return None
    if decimal == "," and not (commas and delimiter != ",") and not any("," in cell for i in good for cell in rows[i]):
        return None
    numbers = ("number", "nan")
    sample = tuple(
        tuple(_number(cell, decimal) if kind in numbers else 0.0 for cell, kind in zip(rows[i], kinds[i], strict=True))
        for i in good[:SAMPLE_ROWS]
    )
    filled = [i for i, row in enumerate(rows) if row and i > good[0]]
    before = [rows[i][0] for i in range(good[0]) if rows[i]]
    whole = len(filled) == len(good) - 1 and not any(re.match(r"\s*[+-]?\d", cell) for cell in before)
    return _Form(delimiter, decimal, tuple(columns), good[0], len(good), whole, sample)


def _number(cell: str, decimal: str) -> float:
    cell = cell.strip()
    return float(cell.replace(decimal, ".")) if cell else math.nan


def _form(path: Path, head: Sequence[str], delimiter: str | None, decimal: str | None) -> _Form:
    """Return the only way to read the lines; raise ValueError if there is none, or several."""
    forms: dict[str, _Form] = {}
    for sign in DECIMALS if decimal is None else (decimal,):
        for between in DELIMITERS if delimiter is None else (delimiter,):
            if form := _try_form(head, between, sign, commas=decimal is not None):
                forms.setdefault(repr((form.kinds, form.sample)), form)
    if not forms:
        if sum(1 for line in head if line.strip()) == 1:  # names, at most
            raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
        raise ValueError(
            f"{path} cannot be read as CSV: no delimiter of {DELIMITERS} makes numbers of its lines, with decimal "
            "points or commas. Write a line for each sample, and numbers without thousands separators"
        )
    most = max(form.rows for form in forms.values())
    likely = [form for form in forms.values() if 2 * form.rows >= most]
    if not any(form.whole for form in likely):
        return max(likely, key=lambda form: (form.rows, len(form.kinds)))  # whose faulty lines are named later
    settled = [form for form in likely if _is_settled(head, form)] if len(likely) > 1 else likely
    if len(settled) == 1:
        form = settled[0]
        if decimal is not None or (delimiter is not None and not _has_parts(head, form)):
            return form
        if not _may_be_decimal_commas(head, form) or _is_settled(head, form):
            return form
    line = quoted(head[likely[0].first].strip())
    raise ValueError(
        f"{path} line {likely[0].first + 1}, {line}, can be read in more than one way: with commas between columns or "
        "with decimal commas. Give delimiter= (--delimiter) such as ',' or ';', or decimal= (--decimal) ',' or '.'"
    )


def _may_be_decimal_commas(head: Sequence[str], form: _Form) -> bool:
    """Say whether commas between whole numbers may be the decimal signs of fewer columns."""
    if form.delimiter not in (",", ", ") or form.decimal != "." or len(form.kinds) < 2:
        return False
    rows = [_split(line, form.delimiter) for line in head[form.first :]]
    rows = [row for row in rows if len(row) == len(form.kinds)]
    columns = [[cell.strip() for cell in cells] for cells in zip(*rows, strict=True)]
    whole = [all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells) for cells in columns]
    digits = [all(cell.isdigit() for cell in cells) for cells in columns]
    return any(whole[i] and digits[i + 1] for i in range(len(columns) - 1))


def _is_settled(head: Sequence[str], form: _Form) -> bool:
    """Say whether names above the columns settle that commas between whole numbers are delimiters, or are not."""
    lines = [line for line in head[: form.first] if line.strip() and not _is_comment(line, form.delimiter)]
    if not lines:
        return False
    if len(form.kinds) == 1:
        return not re.search(r"[,;|\t]", lines[0])
    names = _split(lines[0], form.delimiter)
    if form.decimal == "," or form.delimiter not in (",", ", "):
        return len(names) == len(form.kinds)
    units = any(name.strip("()[] ").casefold() in VOLTS.keys() | SECONDS.keys() for name in names[1:])
    return len(names) == len(form.kinds) and all(names) and not _has_parts(head, form) and not units


def _has_parts(head: Sequence[str], form: _Form) -> bool:
    """Say whether cells between commas are 012 or -0, as parts of decimal fractions may be, and no whole number is."""
    if form.delimiter not in (",", ", ") or form.decimal != ".":
        return False
    cells = [cell for line in head[form.first :] for cell in _split(line, form.delimiter)]
    return any(re.fullmatch(r"\s*([+-]?0\d+|-0)\s*", cell) for cell in cells)


def _header(path: Path, head: Sequence[str], form: _Form, fs: float) -> tuple[list[str], list[str]]:
    """Return names and units of the columns, empty where there is none; raise ValueError for lines that are neither."""
    width = len(form.kinds)
    above = [(i, line.strip("\r\n")) for i, line in enumerate(head[: form.first]) if line.strip()]
    for i, line in above:
        if match := _RATE.search(line):
            said = float(match[1].replace(",", ".")) * (1000 if match[2] else 1)
            if said > 0 and abs(said / fs - 1) > 1e-6:
                raise ValueError(
                    f"{path} line {i + 1} says {said:g} Hz, not the {fs:g} Hz of fs= (--fs); give the rate that is "
                    "right, or remove the line if it is wrong"
                )
    lines = [(i, line) for i, line in above if not _is_comment(line, form.delimiter)]
    if not lines and above and above[-1][1].lstrip().startswith(("#", "%")):
        cells = _cells(above[-1][1].lstrip().lstrip("#% "), form)  # as numpy.savetxt writes names
        named = width > 1 or is_ecg(cells[0])  # one column alone has mostly remarks above it
        if named and len(cells) == width and all(_is_name(cell, form.decimal) for cell in cells):
            lines = [(above[-1][0], above[-1][1].lstrip().lstrip("#% "))]
    if not lines:
        cells = [cell.strip() for cell in _split(head[form.first], form.delimiter)]
        fractions = all(number != int(number) for row in form.sample[1:] for number in row if math.isfinite(number))
        if cells in ([str(k + i) for k in range(width)] for i in (0, 1)) and (
            width > 1 or (cells == ["0"] and fractions)
        ):
            raise ValueError(
                f"{path} line {form.first + 1}, {listed(cells)}, may be samples or the numbers of columns; write names "
                "there or above it"
            )
        return [""] * width, [""] * width
    above_rows = [_cells(line, form) for _, line in lines]
    for row in above_rows:
        if width > 1 and len(row) == width - 1 and form.kinds[-1] == "empty":
            row.append("")  # each row ends with a delimiter
    units = [""] * width
    if (
        len(above_rows) > 1
        and len(above_rows[-1]) == width
        and all(_is_unit(cell) for cell in above_rows[-1])
        and any(above_rows[-1])
    ):
        units = [cell.strip("'\" ") for cell in above_rows.pop()]
        lines.pop()
    if len(above_rows) > 1 or len(above_rows[0]) != width:
        named = len(above_rows[-1]) == width  # and what stands above is too much
        wrong = [i + 1 for (i, _), row in zip(lines, above_rows, strict=True) if named or len(row) != width]
        wrong = wrong[:-1] if named else wrong
        what = f"line {wrong[0]}" if len(wrong) == 1 else f"lines {wrong[0]} to {wrong[-1]}"
        raise ValueError(
            f"{path}: {what} above the numbers cannot be read: from line {form.first + 1} on it has {width} columns. "
            f"Remove {what}, or begin each with #"
        )
    row = above_rows[0]
    numbers = [cell for cell in row if not _is_name(cell, form.decimal)]
    if numbers and not (row[0] == "" and row[1:] == [str(k) for k in range(width - 1)]):  # so numbered by pandas
        words = [cell for cell in row if _kind(cell, form.decimal) == "words"]
        raise ValueError(f"{path} line {lines[0][0] + 1}: {_no_number((words or numbers)[0], form.decimal)}")
    names = [cell.strip("'\" ") for cell in above_rows[0]]
    return names, [unit or unit_of(name) for unit, name in zip(units, names, strict=True)]


def _cells(line: str, form: _Form) -> list[str]:
    if len(form.kinds) == 1 and form.delimiter == " ":
        return [line.strip().strip('"')]
    return [cell.strip() for cell in _split(line, form.delimiter)]


def _is_name(cell: str, decimal: str) -> bool:
    """Say whether a cell above numbers is a name, or nothing; else it is a sample, or what stands for a missing one."""
    text = cell.strip("'\" ")
    letters = sum(character.isalpha() for character in text)
    missing = text.casefold().strip("#-/") in MISSING or _kind(text, decimal) in ("number", "nan", "time")
    return not text or (not missing and letters > (1 if re.match(r"[\W_]*\d", text) else 0))


def _is_unit(cell: str) -> bool:
    """Say whether a cell below a name is a unit: a word that is known, or stands in brackets, or nothing."""
    text = cell.strip("'\" ")
    known = text.strip("()[] ").casefold() in VOLTS.keys() | SECONDS.keys()
    return not text or known or bool(re.fullmatch(r"[(\[].*[)\]]|[hdms:.]+|-+", text))


def _columns(
    path: Path, encoding: str, form: _Form, names: Sequence[str], units: Sequence[str], leads: Sequence[str] | None
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Read the columns of numbers, and those of times in seconds, by their position.

    Of columns that were not asked for, those of time alone are kept, so that they can be compared with the rate.
    """
    filled = lead_names(names)
    numbers = [i for i, kind in enumerate(form.kinds) if kind == "number"]
    if leads is not None:
        asked = find_columns(path, filled, leads)
        sample = np.array(form.sample)
        numbers = [i for i in numbers if i in asked or is_time_name(names[i], units[i]) or why_no_lead(sample[:, i])]
    values = {i: _Numbers(path, filled[i], form.decimal) for i in numbers}
    stamps = {i: array("d") for i, kind in enumerate(form.kinds) if kind == "time"}
    empty = [i for i, kind in enumerate(form.kinds) if kind == "empty"]
    for line, rows in _chunks(path, encoding, form):
        for i, column in values.items():
            column.add([row[i] for row in rows], line)
        for i, seconds in stamps.items():
            seconds.extend(_seconds(row[i]) for row in rows)
        for i in empty:
            for at, row in enumerate(rows, line):
                if row[i].strip():
                    raise ValueError(f"{path} line {at}: column {quoted(filled[i])} is empty above. {WHAT_TO_DO}")
    clocks = {i: np.frombuffer(seconds) for i, seconds in stamps.items()}
    past_midnight = {i: np.cumsum(np.diff(clock, prepend=clock[:1]) < -DAY_S / 2) for i, clock in clocks.items()}
    return (
        {i: column.checked() for i, column in values.items()},
        {i: clock + DAY_S * past_midnight[i] for i, clock in clocks.items()},
    )


def _chunks(path: Path, encoding: str, form: _Form) -> Iterator[tuple[int, list[list[str]]]]:
    """Yield rows of the right width, and the line of the first of them; raise ValueError for any other row."""
    width, line, blank = len(form.kinds), form.first + 1, 0
    with _open(path, encoding) as file:
        rows = _rows(islice(file, form.first, None), form.delimiter)
        while True:
            chunk: list[list[str]] = []
            try:
                chunk.extend(islice(rows, max(1, CHUNK // width)))
            except csv.Error as error:
                reason = str(error)[:MAX_REASON]
                raise ValueError(
                    f"{path} line {line + len(chunk)} cannot be read as CSV: {reason}. {WHAT_TO_DO}"
                ) from error
            if not chunk:
                return
            if blank or any(len(row) != width for row in chunk):
                for at, row in enumerate(chunk, line):
                    if len(row) != width and not "".join(row).strip():
                        blank = blank or at
                    elif blank:
                        raise ValueError(
                            f"{path} line {blank} is empty, which may be a missing sample or none; write nan for a "
                            "missing sample, or remove the empty lines"
                        )
                    elif len(row) != width:
                        raise ValueError(f"{path} line {at} has {len(row)} cells instead of {width}. {WHAT_TO_DO}")
                yield line, chunk[: max(blank - line, 0) if blank else None]  # empty lines at the end are none
            else:
                yield line, chunk
            line += len(chunk)


class _Numbers:
    """A column of numbers that is read piece by piece."""

    def __init__(self, path: Path, name: str, decimal: str) -> None:
        self._path, self._name, self._decimal = path, name, decimal
        self._values = array("d")
        self._whole = self._thousands = self._fractions = False  # which were seen

    def add(self, cells: Sequence[str], line: int) -> None:
        """Add cells, the first of which stands on this line."""
        try:
            text = "".join(cells)
            if "_" in text or (self._decimal == "," and "." in text):  # which float() would take
                raise ValueError
            self._values.extend([float(cell if self._decimal == "." else cell.replace(",", ".")) for cell in cells])
        except ValueError:
            for at, cell in enumerate(cells, line):
                if _kind(cell, self._decimal) not in ("number", "empty", "nan"):
                    raise ValueError(f"{self._path} line {at}: {_no_number(cell, self._decimal)}") from None
            self._values.extend(_number(cell, self._decimal) for cell in cells)
        if not self._fractions:
            for cell in map(str.strip, cells):
                self._whole = self._whole or cell.lstrip("+-").isdigit()
                if self._decimal in cell:
                    self._thousands = bool(_THOUSANDS[self._decimal].fullmatch(cell))
                    self._fractions = not self._thousands
                    if self._fractions:
                        break

    def checked(self) -> np.ndarray:
        """Return the numbers; raise ValueError if they may have thousands separators."""
        if self._whole and self._thousands:
            raise ValueError(
                f"{self._path}: column {quoted(self._name)} has whole numbers, and others in which {self._decimal!r} "
                "may separate the thousands; write numbers without such separators, or all with decimals"
            )
        return np.frombuffer(self._values)


def _no_number(cell: str, decimal: str) -> str:
    sign = "point" if decimal == "." else "comma"
    if "\0" in cell:
        return "there are NUL bytes: the file was not saved to its end, or is not UTF-8; save it as UTF-8"
    what = f"{quoted(cell)} is not a number"
    return f"{what}; write numbers with a decimal {sign}, and leave the cells of missing samples empty"


def _seconds(cell: str) -> float:
    """Return the time of day in seconds, or NaN where there is none."""
    match = _CLOCK.search(cell)
    if not match or (match[1] is None and match[4] is None):  # hours and minutes alone
        return math.nan
    return int(match[1] or 0) * 3600 + int(match[2]) * 60 + int(match[3]) + float(f"0.{match[4] or 0}")
