"""Read text tables: CSV, TSV and TXT files with any common delimiter, decimal sign, encoding and header."""

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
    TIME_UNITS,
    VOLTAGE_UNITS,
    check_clock,
    check_voltage,
    choose_columns,
    is_time_name,
    unit_of,
    why_not_ecg,
)
from ecg_shock.data.lead_labels import is_ecg, listed, quoted
from ecg_shock.data.recordings import MV_PER_UNIT, Recording
from ecg_shock.data.signal_files import WHAT_TO_DO, build_recording, find_columns, lead_names

# ", " can separate numbers that have decimal commas. " " means any number of spaces, and is used for a single column.
DELIMITERS = (" ", "\t", ";", "|", ",", ", ")
NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}  # for the command line
DECIMALS = (".", ",")

HEAD_LINES = 500  # lines from which the layout is detected
MAX_LINE_CHARACTERS = 2**17
CHUNK_CELLS = 100_000  # cells read at a time, which take 10 MB
MISSING = frozenset({"na", "n/a", "null", "none", "nil", "missing", "nan", "value!", "div/0!"})
SAMPLE_ROWS = 100
MAX_REASON = 80  # characters of a library's message that an error quotes
DAY_S = 86400.0
COMMENTS = ("#", "%", "//", ";")

_NUMBERS = {sign: re.compile(rf"[+-]?(\d+[{sign}]?\d*|[{sign}]\d+)(e[+-]?\d+)?", re.IGNORECASE) for sign in DECIMALS}
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)  # accepted by float(); may also be a column name
# Numbers that may have a thousands separator, such as 1.234. A number such as 0.123 shows that the sign is decimal.
_THOUSANDS = {sign: re.compile(rf"[+-]?[1-9]\d{{0,2}}[{sign}]\d{{3}}") for sign in DECIMALS}
_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})(?:[.,:](\d+))?")
_DATE = r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[- ]?[A-Za-z]{3}[- ]?\d{2,4}|\d{8}(?=T)"
_TIME = rf"(?:{_CLOCK.pattern}|(?<=T)\d{{6}}(?:\.\d+)?)(?: ?[AaPp]\.?[Mm]\.?)?(?:Z| ?[+-]\d\d:?\d\d| ?UTC)?"
_STAMP = re.compile(rf"['\"\[]*(?:(?:{_DATE})(?:(?:T|,? +){_TIME})?|{_TIME}(?: +(?:{_DATE}))?)['\"\]]*")
_RATE = re.compile(
    r"(?:sampl\w*[ _-]*(?:rate|freq\w*)|sfreq|\bfs\b|abtastrate)\D{0,12}?(\d+(?:[.,]\d+)?)\s*(k?)", re.IGNORECASE
)


@dataclass(frozen=True)
class _Layout:
    """The layout of a table, as it was detected or given."""

    delimiter: str
    decimal: str
    kinds: tuple[str, ...]  # kind of each column: "number", "time", "words" or "empty"
    first_line: int  # line of the first row of numbers, counted from 0
    n_rows: int  # number of lines, among the first `HEAD_LINES`, that have this layout
    fits_all: bool  # whether all lines from `first_line` to `HEAD_LINES` have this layout
    sample: tuple[tuple[float, ...], ...]  # numbers in the first rows


def read_csv(
    path: Path,
    fs: float,
    units: str,
    leads: Sequence[str] | None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> Recording:
    """Read the columns of a text table; see `ecg_shock.data.readers.read_record`."""
    delimiter = NAMED_DELIMITERS.get(delimiter or "", delimiter)
    if delimiter is not None and delimiter not in DELIMITERS:
        raise ValueError(f"delimiter is {delimiter!r}; allowed are {DELIMITERS} and {tuple(NAMED_DELIMITERS)}")
    if decimal is not None and decimal not in DECIMALS:
        raise ValueError(f"decimal is {decimal!r}; allowed are {DECIMALS}")
    encoding = _detect_encoding(path)
    with _open(path, encoding) as file:
        head = list(islice(iter(lambda: file.readline(MAX_LINE_CHARACTERS), ""), HEAD_LINES)) or [""]
    for line, text in enumerate(head, 1):
        if len(text) == MAX_LINE_CHARACTERS:
            raise ValueError(
                f"{path} line {line} has more than {MAX_LINE_CHARACTERS} characters; write one line per sample"
            )
        if "\0" in text:
            raise ValueError(
                f"{path} line {line} has NUL bytes: the file is incomplete, or not UTF-8; save it again as UTF-8"
            )
    if delimiter is None and (match := re.fullmatch(r"sep=(.)\s*", head[0], re.IGNORECASE)) and match[1] in DELIMITERS:
        delimiter, head[0] = match[1], "\n"  # Excel reads and writes this line
    layout = _find_layout(path, head, delimiter, decimal)
    names, found_units = _read_header(path, head, layout, fs)
    if names[-1] and layout.kinds[-1] == "empty":
        layout = replace(layout, kinds=(*layout.kinds[:-1], "number"))
    columns, stamps = _read_columns(path, encoding, layout, names, found_units, leads)
    if not len(next(iter(columns.values()), ())):
        raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
    filled = lead_names(names)
    reasons = {"time": "holds times", "words": "holds words", "empty": EMPTY}
    excluded = {i: reasons[kind] for i, kind in enumerate(layout.kinds) if kind in reasons}
    chosen = choose_columns(path, names, columns, excluded, leads)
    n = len(columns[chosen[0]])
    if len(names) > n:
        raise ValueError(
            f"{path} has {len(names)} columns of {n} samples; write one line per sample, not one line per lead"
        )
    for i in chosen:
        check_voltage(path, filled[i], found_units[i], units)
    for i, values in columns.items():
        if i not in chosen and (not names[i] or is_time_name(names[i], found_units[i])):
            check_clock(path, filled[i], values, found_units[i], fs, layout.first_line + 1)
    for i, values in stamps.items():
        check_clock(path, filled[i], values, "s", fs, layout.first_line + 1)
    with np.errstate(over="ignore"):  # build_recording refuses infinite values
        signal = np.empty((n, len(chosen)), dtype=np.float32)
        for j, i in enumerate(chosen):
            signal[:, j] = columns[i] * MV_PER_UNIT[units]
    return build_recording(path, signal, fs, [filled[i] for i in chosen])


def _detect_encoding(path: Path) -> str:
    """Return the encoding of a file, detected from its first 64 KiB: UTF-16 (if it has a BOM), UTF-8 or Latin-1."""
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
    """Open a table whose lines end with LF, CR LF or CR."""
    try:
        with path.open(encoding=encoding, newline="") as file:
            newline = "\n" if "\n" in file.read(2**16) else "\r"
        with path.open(encoding=encoding, newline=newline) as file:
            yield file
    except UnicodeError as error:
        raise ValueError(
            f"{path} has characters that are not {encoding.removesuffix('-sig')}; save it as UTF-8"
        ) from error


def _split_lines(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    """Split lines into cells; an empty line gives an empty list."""
    if delimiter == " ":
        return map(str.split, lines)
    if delimiter == ", ":
        return (line.split(", ") if line.strip() else [] for line in lines)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _split_line(line: str, delimiter: str) -> list[str]:
    """Split a line into cells; return an empty list if its quotes are unbalanced."""
    try:
        return next(_split_lines(iter([line]), delimiter), [])
    except csv.Error:
        return []


def _classify_cell(cell: str, decimal: str) -> str:
    """Return the kind of a cell: "number", "nan", "time", "words", "empty" or "other"."""
    cell = cell.strip()
    if not cell:
        return "empty"
    if _NUMBERS[decimal].fullmatch(cell):
        return "number"
    if _NOT_FINITE.fullmatch(cell):
        return "nan"
    if _STAMP.fullmatch(cell):
        return "time"
    return "words" if re.match(r"[\W_]*[^\W\d_]", cell) else "other"


def _is_comment(line: str, delimiter: str) -> bool:
    text = line.lstrip()
    is_excel_error = text[1:4] in ("N/A", "VAL", "DIV", "REF", "NAM", "NUM")  # such as "#N/A"
    return text.startswith(COMMENTS) and not is_excel_error and not (delimiter == ";" and text.startswith(";"))


def _try_layout(head: Sequence[str], delimiter: str, decimal: str, *, decimal_given: bool) -> _Layout | None:
    """Return the layout of lines with this delimiter and decimal sign, or None if they do not fit.

    With decimal commas, at least one number must have a comma, unless the user has given the decimal sign.
    """
    rows: list[list[str]] = []
    if delimiter == " " and any("\t" in line.strip() for line in head if not _is_comment(line, delimiter)):
        return None
    for line in head:
        row = _split_line(line, delimiter)
        rows.append([] if _is_comment(line, delimiter) or not "".join(row).strip() else row)
    kinds = [[_classify_cell(cell, decimal) for cell in row] for row in rows]
    widths = Counter(len(row) for row in kinds if "number" in row)
    if not widths:
        return None
    width = max(widths, key=lambda n: (widths[n], n))
    columns = []
    for cells in zip(*(row for row in kinds if len(row) == width and "number" in row), strict=True):
        count = Counter(cells)
        for missing in ("empty", "nan"):
            count.pop(missing, None)  # may occur in any column
        # If numbers and another kind are equally frequent, the column has numbers; its other cells are reported later.
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

    row_lines = [i for i, row in enumerate(kinds) if is_row(row)]
    if row_lines and rows[row_lines[0]] == ["", *map(str, range(width - 1))]:
        row_lines.pop(0)  # column numbers, which pandas writes if the columns have no names
    if not row_lines:
        return None
    if (
        decimal == ","
        and not (decimal_given and delimiter != ",")
        and not any("," in cell for i in row_lines for cell in rows[i])
    ):
        return None
    numbers = ("number", "nan")
    sample = tuple(
        tuple(
            _parse_number(cell, decimal) if kind in numbers else 0.0
            for cell, kind in zip(rows[i], kinds[i], strict=True)
        )
        for i in row_lines[:SAMPLE_ROWS]
    )
    filled = [i for i, row in enumerate(rows) if row and i > row_lines[0]]
    before = [rows[i][0] for i in range(row_lines[0]) if rows[i]]
    fits_all = len(filled) == len(row_lines) - 1 and not any(re.match(r"\s*[+-]?\d", cell) for cell in before)
    return _Layout(delimiter, decimal, tuple(columns), row_lines[0], len(row_lines), fits_all, sample)


def _parse_number(cell: str, decimal: str) -> float:
    cell = cell.strip()
    return float(cell.replace(decimal, ".")) if cell else math.nan


def _find_layout(path: Path, head: Sequence[str], delimiter: str | None, decimal: str | None) -> _Layout:
    """Return the layout of the lines; raise ValueError if no layout or more than one is possible."""
    layouts: dict[str, _Layout] = {}
    for sign in DECIMALS if decimal is None else (decimal,):
        for between in DELIMITERS if delimiter is None else (delimiter,):
            if layout := _try_layout(head, between, sign, decimal_given=decimal is not None):
                layouts.setdefault(repr((layout.kinds, layout.sample)), layout)
    if not layouts:
        if sum(1 for line in head if line.strip()) == 1:  # only a line of names
            raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
        raise ValueError(
            f"{path} cannot be read as CSV: none of the delimiters {DELIMITERS} splits its lines into numbers with "
            "decimal points or commas. Write one line per sample, and numbers without thousands separators"
        )
    most = max(layout.n_rows for layout in layouts.values())
    likely = [layout for layout in layouts.values() if 2 * layout.n_rows >= most]
    if not any(layout.fits_all for layout in likely):
        return max(likely, key=lambda layout: (layout.n_rows, len(layout.kinds)))  # the faulty line is reported later
    confirmed = [layout for layout in likely if _names_confirm(head, layout)] if len(likely) > 1 else likely
    if len(confirmed) == 1:
        layout = confirmed[0]
        if decimal is not None or (delimiter is not None and not _has_parts_of_fractions(head, layout)):
            return layout
        if not _may_be_decimal_commas(head, layout) or _names_confirm(head, layout):
            return layout
    line = quoted(head[likely[0].first_line].strip())
    raise ValueError(
        f"{path} line {likely[0].first_line + 1}, {line}, can be read in two ways: with commas between columns or "
        "with decimal commas. Give delimiter= (--delimiter) such as ',' or ';', or decimal= (--decimal) ',' or '.'"
    )


def _may_be_decimal_commas(head: Sequence[str], layout: _Layout) -> bool:
    """Return whether commas that separate columns of whole numbers may be decimal commas instead."""
    if layout.delimiter not in (",", ", ") or layout.decimal != "." or len(layout.kinds) < 2:
        return False
    rows = [_split_line(line, layout.delimiter) for line in head[layout.first_line :]]
    rows = [row for row in rows if len(row) == len(layout.kinds)]
    columns = [[cell.strip() for cell in cells] for cells in zip(*rows, strict=True)]
    whole = [all(re.fullmatch(r"[+-]?\d+", cell) for cell in cells) for cells in columns]
    digits = [all(cell.isdigit() for cell in cells) for cells in columns]
    return any(whole[i] and digits[i + 1] for i in range(len(columns) - 1))


def _names_confirm(head: Sequence[str], layout: _Layout) -> bool:
    """Return whether the names above the columns confirm this layout."""
    lines = [line for line in head[: layout.first_line] if line.strip() and not _is_comment(line, layout.delimiter)]
    if not lines:
        return False
    if len(layout.kinds) == 1:
        return not re.search(r"[,;|\t]", lines[0])
    names = _split_line(lines[0], layout.delimiter)
    if layout.decimal == "," or layout.delimiter not in (",", ", "):
        return len(names) == len(layout.kinds)
    units = any(name.strip("()[] ").casefold() in VOLTAGE_UNITS.keys() | TIME_UNITS.keys() for name in names[1:])
    return len(names) == len(layout.kinds) and all(names) and not _has_parts_of_fractions(head, layout) and not units


def _has_parts_of_fractions(head: Sequence[str], layout: _Layout) -> bool:
    """Return whether a cell between commas, such as 012 or -0, looks like part of a number with a decimal comma."""
    if layout.delimiter not in (",", ", ") or layout.decimal != ".":
        return False
    cells = [cell for line in head[layout.first_line :] for cell in _split_line(line, layout.delimiter)]
    return any(re.fullmatch(r"\s*([+-]?0\d+|-0)\s*", cell) for cell in cells)


def _read_header(path: Path, head: Sequence[str], layout: _Layout, fs: float) -> tuple[list[str], list[str]]:
    """Return the names and units of the columns, "" if not given.

    Raise ValueError if a line above the numbers cannot be read, or contradicts `fs`.
    """
    width = len(layout.kinds)
    above = [(i, line.strip("\r\n")) for i, line in enumerate(head[: layout.first_line]) if line.strip()]
    for i, line in above:
        if match := _RATE.search(line):
            said = float(match[1].replace(",", ".")) * (1000 if match[2] else 1)
            if said > 0 and abs(said / fs - 1) > 1e-6:
                raise ValueError(
                    f"{path} line {i + 1} says {said:g} Hz, but fs= (--fs) is {fs:g} Hz; give the right "
                    "sampling rate, or remove the line if it is wrong"
                )
    lines = [(i, line) for i, line in above if not _is_comment(line, layout.delimiter)]
    if not lines and above and above[-1][1].lstrip().startswith(("#", "%")):
        cells = _split_names(above[-1][1].lstrip().lstrip("#% "), layout)  # as numpy.savetxt writes names
        named = width > 1 or is_ecg(cells[0])  # above a single column, such a line is usually a remark
        if named and len(cells) == width and all(_is_name(cell, layout.decimal) for cell in cells):
            lines = [(above[-1][0], above[-1][1].lstrip().lstrip("#% "))]
    if not lines:
        cells = [cell.strip() for cell in _split_line(head[layout.first_line], layout.delimiter)]
        fractions = all(number != int(number) for row in layout.sample[1:] for number in row if math.isfinite(number))
        if cells in ([str(k + i) for k in range(width)] for i in (0, 1)) and (
            width > 1 or (cells == ["0"] and fractions)
        ):
            raise ValueError(
                f"{path} line {layout.first_line + 1}, {listed(cells)}, may be samples or column numbers; replace it "
                "by column names, or write names above it"
            )
        return [""] * width, [""] * width
    above_rows = [_split_names(line, layout) for _, line in lines]
    for row in above_rows:
        if width > 1 and len(row) == width - 1 and layout.kinds[-1] == "empty":
            row.append("")  # rows of numbers end with a delimiter, but the row of names does not
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
        named = len(above_rows[-1]) == width  # then the lines above the names are wrong
        wrong = [i + 1 for (i, _), row in zip(lines, above_rows, strict=True) if named or len(row) != width]
        wrong = wrong[:-1] if named else wrong
        what = f"line {wrong[0]}" if len(wrong) == 1 else f"lines {wrong[0]} to {wrong[-1]}"
        raise ValueError(
            f"{path}: {what} cannot be read as names of the {width} columns of numbers that begin in line "
            f"{layout.first_line + 1}. Remove {what}, or write # at the start"
        )
    row = above_rows[0]
    numbers = [cell for cell in row if not _is_name(cell, layout.decimal)]
    if numbers and not (row[0] == "" and row[1:] == [str(k) for k in range(width - 1)]):  # not column numbers of pandas
        words = [cell for cell in row if _classify_cell(cell, layout.decimal) == "words"]
        raise ValueError(f"{path} line {lines[0][0] + 1}: {_explain_not_number((words or numbers)[0], layout.decimal)}")
    names = [cell.strip("'\" ") for cell in above_rows[0]]
    return names, [unit or unit_of(name) for unit, name in zip(units, names, strict=True)]


def _split_names(line: str, layout: _Layout) -> list[str]:
    if len(layout.kinds) == 1 and layout.delimiter == " ":
        return [line.strip().strip('"')]
    if layout.delimiter == " ":  # a name in quotes may hold spaces
        return re.findall(r'"[^"]*"|\S+', line)
    return [cell.strip() for cell in _split_line(line, layout.delimiter)]


def _is_name(cell: str, decimal: str) -> bool:
    """Return whether a cell above the numbers is a name or empty, and not a sample or a missing sample."""
    text = cell.strip("'\" ")
    letters = sum(character.isalpha() for character in text)
    missing = text.casefold().strip("#-/") in MISSING or _classify_cell(text, decimal) in ("number", "nan", "time")
    return not text or (not missing and letters > (1 if re.match(r"[\W_]*\d", text) else 0))


def _is_unit(cell: str) -> bool:
    """Return whether a cell below a column name is empty or a unit: a known one, or a word in brackets."""
    text = cell.strip("'\" ")
    known = text.strip("()[] ").casefold() in VOLTAGE_UNITS.keys() | TIME_UNITS.keys()
    return not text or known or bool(re.fullmatch(r"[(\[].*[)\]]|[hdms:.]+|-+", text))


def _read_columns(
    path: Path, encoding: str, layout: _Layout, names: Sequence[str], units: Sequence[str], leads: Sequence[str] | None
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return the columns of numbers, and the columns of times in s, both by column index.

    If `leads` is given, only those leads and possible time columns are read; times are compared with `fs` later.
    """
    filled = lead_names(names)
    numbers = [i for i, kind in enumerate(layout.kinds) if kind == "number"]
    if leads is not None:
        asked = find_columns(path, filled, leads)
        sample = np.array(layout.sample)
        numbers = [i for i in numbers if i in asked or is_time_name(names[i], units[i]) or why_not_ecg(sample[:, i])]
    values = {i: _NumberColumn(path, filled[i], layout.decimal) for i in numbers}
    stamps = {i: array("d") for i, kind in enumerate(layout.kinds) if kind == "time"}
    empty = [i for i, kind in enumerate(layout.kinds) if kind == "empty"]
    for line, rows in _read_chunks(path, encoding, layout):
        for i, column in values.items():
            column.add([row[i] for row in rows], line)
        for i, seconds in stamps.items():
            seconds.extend(_parse_seconds(row[i]) for row in rows)
        for i in empty:
            for at, row in enumerate(rows, line):
                if row[i].strip():
                    raise ValueError(f"{path}: column {quoted(filled[i])} has no value before line {at}. {WHAT_TO_DO}")
    clocks = {i: np.frombuffer(seconds) for i, seconds in stamps.items()}
    past_midnight = {i: np.cumsum(np.diff(clock, prepend=clock[:1]) < -DAY_S / 2) for i, clock in clocks.items()}
    return (
        {i: column.checked() for i, column in values.items()},
        {i: clock + DAY_S * past_midnight[i] for i, clock in clocks.items()},
    )


def _read_chunks(path: Path, encoding: str, layout: _Layout) -> Iterator[tuple[int, list[list[str]]]]:
    """Yield chunks of rows, each with the line number of its first row; raise ValueError if a row cannot be read."""
    width, line, blank = len(layout.kinds), layout.first_line + 1, 0
    with _open(path, encoding) as file:
        rows = _split_lines(islice(file, layout.first_line, None), layout.delimiter)
        while True:
            chunk: list[list[str]] = []
            try:
                chunk.extend(islice(rows, max(1, CHUNK_CELLS // width)))
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
                            f"{path} line {blank} is empty; write nan if a sample is missing there, or remove the "
                            "empty line"
                        )
                    elif len(row) != width:
                        raise ValueError(f"{path} line {at} has {len(row)} cells instead of {width}. {WHAT_TO_DO}")
                yield line, chunk[: max(blank - line, 0) if blank else None]  # without empty lines at the end
            else:
                yield line, chunk
            line += len(chunk)


class _NumberColumn:
    """A column of numbers that is read in pieces."""

    def __init__(self, path: Path, name: str, decimal: str) -> None:
        self._path, self._name, self._decimal = path, name, decimal
        self._values = array("d")
        self._whole = self._thousands = self._fractions = False  # kinds of numbers read so far

    def add(self, cells: Sequence[str], line: int) -> None:
        """Add the cells of consecutive lines, beginning with `line`; raise ValueError if a cell is not a number."""
        try:
            text = "".join(cells)
            if "_" in text or (self._decimal == "," and "." in text):  # float() would accept it
                raise ValueError
            self._values.extend([float(cell if self._decimal == "." else cell.replace(",", ".")) for cell in cells])
        except ValueError:
            for at, cell in enumerate(cells, line):
                if _classify_cell(cell, self._decimal) not in ("number", "empty", "nan"):
                    raise ValueError(f"{self._path} line {at}: {_explain_not_number(cell, self._decimal)}") from None
            self._values.extend(_parse_number(cell, self._decimal) for cell in cells)
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
                f"{self._path}: column {quoted(self._name)} has whole numbers and numbers like 1{self._decimal}234, in "
                f"which {self._decimal!r} may be a thousands separator; write numbers without thousands separators, or "
                "all numbers with decimals"
            )
        return np.frombuffer(self._values)


def _explain_not_number(cell: str, decimal: str) -> str:
    sign = "point" if decimal == "." else "comma"
    if "\0" in cell:
        return "there are NUL bytes: the file is incomplete, or not UTF-8; save it again as UTF-8"
    what = f"{quoted(cell)} is not a number"
    return f"{what}; write numbers with a decimal {sign}, and leave the cells of missing samples empty"


def _parse_seconds(cell: str) -> float:
    """Return a time of day in seconds; NaN if the cell gives only hours and minutes."""
    match = _CLOCK.search(cell)
    if not match or (match[1] is None and match[4] is None):  # only hours and minutes
        return math.nan
    return int(match[1] or 0) * 3600 + int(match[2]) * 60 + int(match[3]) + float(f"0.{match[4] or 0}")
