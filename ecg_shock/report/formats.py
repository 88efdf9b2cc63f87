"""Tables of plain cells, and how their numbers and names are written: the same for every form of output.

Proportions are printed in per cent and rounded against the algorithm, so that 2204 of 2205 is 99.9 and never 100.0.
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
# A proportion is a ratio of counts: the tolerance only undoes the rounding of 1000 * 0.57 to 569.9999999999999.
_TOLERANCE = 1e-9
TEXT_COLUMNS = (
    *("Class", "Database", "Rhythm", "Patient", "Window", "Measure", "Verdict", "Record", "Alarm"),
    *("Model", "Folder", "SHA-256", "Commit", "Limit", "Fold"),
)
# Others are folded where the terminal is narrow, and none is ever cut.
WHOLE_COLUMNS = ("Window", "Windows", "Measure", "Limit", "SHA-256")


@dataclass(frozen=True)
class Table:
    """Plain cells: what every form of output starts from. A cell may have two lines, to keep columns narrow."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, title: str, rows: Iterable[_Row], columns: Mapping[str, Callable[[_Row], str]]) -> Table:
        """Lay out one thing a row, by the header of each column and how its cell is written."""
        return cls(title, tuple(columns), tuple(tuple(write(row) for write in columns.values()) for row in rows))

    def is_left(self, column: int) -> bool:
        """Say whether a column holds text, which begins at its left."""
        return self.header[column] in TEXT_COLUMNS

    def to_markdown(self) -> str:
        """Write the table as Markdown whose columns line up as text too."""
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
        """Lay the table out for a rich console."""
        # Text objects are printed as they are, where strings would be read as markup.
        table = RichTable(title=Text(self.title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
        for index, name in enumerate(self.header):
            justify: Literal["left", "right"] = "left" if self.is_left(index) else "right"
            table.add_column(Text(name), justify=justify, no_wrap=name in WHOLE_COLUMNS, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table


def markdown_text(text: str) -> str:
    """Write text so that Markdown takes none of it for its own."""
    return re.sub(r"([\\`*_\[\]<|~&!])", r"\\\1", text.replace("\n", " "))


def rounded_down(share: float | None) -> str:
    """Write a proportion that should be high, in per cent."""
    return NONE if share is None else f"{math.floor(1000 * share + _TOLERANCE) / 10:.1f}"


def rounded_up(share: float | None) -> str:
    """Write a proportion that should be low, in per cent."""
    return NONE if share is None else f"{math.ceil(1000 * share - _TOLERANCE) / 10:.1f}"


def hundredths_up(rate: float | None) -> str:
    """Write a rate that should be low, such as alarms an hour."""
    return NONE if rate is None else f"{math.ceil(100 * rate - _TOLERANCE) / 100:.2f}"


def one_decimal(number: float | None) -> str:
    """Write a number to one decimal."""
    return NONE if number is None else f"{number:.1f}"


def printable(text: str) -> str:
    """Show characters that would not be seen, or would move what stands beside them."""
    # A control character in a name could move the cursor or turn the direction of the text.
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def class_name(aha_class: str) -> str:
    """Write an AHA class without its examples."""
    return AHA_LABELS[aha_class].split(" (")[0]


def patients_text(count: int) -> str:
    """Write a number of patients."""
    return f"{count} patient" if count == 1 else f"{count} patients"


def points(difference: float) -> str:
    """Write a difference of proportions in points of per cent, with its sign."""
    return f"{100 * difference:+.1f}".replace("-0.0", "+0.0").replace("-", "−")
