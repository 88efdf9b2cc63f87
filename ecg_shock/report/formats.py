"""Tables of text for all reports, and the format of their numbers and names.

Proportions are given in per cent, and rounded to the algorithm's disadvantage: 2204 of 2205 is 99.9, not 100.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from ecg_shock.rhythms import AHA_LABELS

_Row = TypeVar("_Row")

NONE = "–"
MIN_P = 1e-4  # smaller p-values are shown as "< 0.0001"
_TOLERANCE = 1e-9  # because 1000 * 0.57 is 569.9999999999999
TEXT_COLUMNS = (
    *("Class", "Database", "Rhythm", "Patient", "Window", "Measure", "Verdict", "Record", "Alarm"),
    *("Pattern", "Patterns", "Background", "Dose", "Part"),
    *("Model", "Folder", "SHA-256", "Commit", "Limit", "Fold", "Default class", "Own class"),
    *("Label of the\ndatabase", "Label of the\nreader"),
)
NO_WRAP_COLUMNS = ("Window", "Windows", "Measure", "Limit", "SHA-256")


@dataclass(frozen=True)
class Table:
    """A table of text cells, for every kind of report. A cell may have several lines."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def from_rows(cls, title: str, rows: Iterable[_Row], columns: Mapping[str, Callable[[_Row], str]]) -> Table:
        """Make a table with one row for each item; `columns` maps each heading to a function that writes the cell."""
        return cls(title, tuple(columns), tuple(tuple(write(row) for write in columns.values()) for row in rows))

    def is_left(self, column: int) -> bool:
        """Return True if a column is left-aligned."""
        return self.header[column] in TEXT_COLUMNS

    def to_markdown(self) -> str:
        """Return the table as Markdown with aligned columns."""
        rows = [[markdown_text(cell) for cell in row] for row in (self.header, *self.rows)]
        columns = []
        for index, cells in enumerate(zip(*rows, strict=True)):
            width, left = max(map(cell_len, cells)), self.is_left(index)
            rule = "-" * width if left else "-" * (width - 1) + ":"
            spaces = [" " * (width - cell_len(cell)) for cell in cells]
            padded = [cell + space if left else space + cell for cell, space in zip(cells, spaces, strict=True)]
            columns.append([padded[0], rule, *padded[1:]])
        return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))

    def to_rich(self) -> RichTable:
        """Return the table for printing with rich."""
        # rich would parse a string as markup, but not a Text object.
        table = RichTable(title=Text(self.title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
        for index, name in enumerate(self.header):
            justify: Literal["left", "right"] = "left" if self.is_left(index) else "right"
            table.add_column(Text(name), justify=justify, no_wrap=name in NO_WRAP_COLUMNS, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table


def markdown_text(text: str) -> str:
    """Escape the special characters of Markdown."""
    return re.sub(r"([\\`*_\[\]<|~&!])", r"\\\1", text.replace("\n", " "))


def rounded_down(proportion: float | None) -> str:
    """Format a proportion in per cent, rounded down to one decimal."""
    return NONE if proportion is None else f"{math.floor(1000 * proportion + _TOLERANCE) / 10:.1f}"


def rounded_up(proportion: float | None) -> str:
    """Format a proportion in per cent, rounded up to one decimal."""
    return NONE if proportion is None else f"{math.ceil(1000 * proportion - _TOLERANCE) / 10:.1f}"


def hundredths_up(per_hour: float | None) -> str:
    """Format a number of events per hour, rounded up to two decimals."""
    return NONE if per_hour is None else f"{math.ceil(100 * per_hour - _TOLERANCE) / 100:.2f}"


def one_decimal(number: float | None) -> str:
    """Format a number to one decimal."""
    return NONE if number is None else f"{number:.1f}"


def printable(text: str) -> str:
    """Replace characters that are not printable, such as control characters, by their codes."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def class_name(aha_class: str) -> str:
    """Return the label of an AHA class without its examples."""
    return AHA_LABELS[aha_class].split(" (")[0]


def patients_text(count: int) -> str:
    """Return a number of patients as text, such as ``"3 patients"``."""
    return f"{count} patient" if count == 1 else f"{count} patients"


def points(difference: float) -> str:
    """Format a difference of proportions in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def p_value_text(p_value: float | None) -> str:
    """Format a p-value."""
    if p_value is None:
        return NONE
    return "< 0.0001" if p_value < MIN_P else f"{p_value:.4f}"
