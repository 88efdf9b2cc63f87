"""`ecg-shock windows`: count the labelled windows of the databases, and draw some of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecg_shock.rhythms import AHA_CLASSES, AHA_LABELS, INTERMEDIATE, SHOCKABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ecg_shock.data.windows import WindowSet

# ECG paper: at 25 mm/s and 10 mm/mV a small box is 1 mm wide and high, and a large one has five of them.
SMALL_BOX_S, SMALL_BOX_MV = 0.04, 0.1
LARGE_BOX_S, LARGE_BOX_MV = 0.2, 0.5
PAPER_COLOUR, SMALL_BOX_COLOUR, LARGE_BOX_COLOUR = "#fffaf8", "#fbe0dc", "#f0b4ac"
KIND_COLOURS = {"shockable": "#b3261e", "nonshockable": "#1b6e3c", "intermediate": "#5f6368"}

SHEET_COLUMNS = 4
SHEET_SUFFIXES = (".png", ".pdf", ".svg")
SHEET_DPI = 150
INCHES_PER_S = 0.75
MARGIN_IN, GAP_IN, HEADING_IN, TITLE_IN = 0.25, 0.16, 0.24, 0.2
MIN_HALF_RANGE_MV, MAX_HALF_RANGE_MV = 0.5, 3.0  # of a row; the rare larger complexes are cut off


def windows(
    databases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DB",
            help="Databases to count: vfdb, cudb, mitdb, synthetic, or the path of a manifest.",
            show_default="vfdb cudb mitdb",
        ),
    ] = None,
    window: Annotated[float, typer.Option(help="Length of each window in seconds, 2 to 10.")] = 5.0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds a folder for each database.",
            show_default="ECG_SHOCK_DATA, else the cache folder",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Draw windows of each AHA class to this .png, .pdf or .svg.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed that decides which windows are drawn.")] = 0,
) -> None:
    """Count windows by database and AHA class, and what is excluded by reason.

    Windows do not overlap, and are counted on the first lead of each recording.

    Example: ecg-shock windows vfdb cudb --window 4 --sheet windows.png
    """
    from ecg_shock.data.datasets import DataConfig, load_windows

    if sheet is not None:
        _check_sheet(sheet)
    config = DataConfig(databases=tuple(databases or DataConfig().databases), window_s=window)
    console = Console(markup=False, highlight=False)
    with console.status("reading the recordings"):
        found = load_windows(config, data)
    console.print(_class_table(found))
    console.print(_balance(found))
    if sheet is not None:
        draw_sheet(found, seed).savefig(sheet, dpi=SHEET_DPI)
        console.print(f"sheet: {sheet}", soft_wrap=True)


def _check_sheet(sheet: Path) -> None:
    """Refuse what could not be written, before the recordings are read."""
    if sheet.suffix.lower() not in SHEET_SUFFIXES:
        raise ValueError(f"--sheet is {str(sheet)!r}; give a file that ends in {', '.join(SHEET_SUFFIXES)}.")
    if not sheet.absolute().parent.is_dir():
        raise FileNotFoundError(f"{sheet.parent}, the folder of --sheet, is not there; make it, or give another.")


def _class_table(found: WindowSet) -> Table:
    from ecg_shock.data.windows import class_table

    table = Table(title=f"{found.window_s:g}-s windows", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("database")
    table.add_column("AHA class")
    for heading in ("patients", "windows", "seconds"):
        table.add_column(heading, justify="right")
    previous = ""
    for database, aha_class, patients, count, seconds in class_table(found):
        if previous and database != previous:
            table.add_section()
        table.add_row(
            "" if database == previous else database,
            _short_label(aha_class),
            f"{patients}",
            f"{count:,}",
            f"{seconds:,.0f}",
            style="" if count else "dim",
        )
        previous = database
    table.add_section()
    everyone = len(np.unique(found.patient))
    table.add_row("all", "", f"{everyone}", f"{len(found):,}", f"{len(found) * found.window_s:,.0f}", style="bold")
    return table


def _balance(found: WindowSet) -> Table:
    """Lay out seconds by database: what is excluded by reason, what is in windows, and both together."""
    import pandas as pd

    names = list(dict.fromkeys([*found.database.tolist(), *(entry.database for entry in found.left_out)]))
    entries = pd.DataFrame(list(found.left_out), columns=["database", "reason", "seconds"])
    by_reason = entries.pivot_table("seconds", "reason", "database", aggfunc="sum", fill_value=0.0)
    by_reason = by_reason.reindex(columns=names, fill_value=0.0)
    by_reason = by_reason.loc[by_reason.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    excluded = by_reason.sum()
    kept = found.window_s * pd.Series(found.database).value_counts().reindex(names, fill_value=0)

    table = Table(title="seconds of the first lead, and why they are in no window", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("excluded")
    for heading in (*names, "all"):
        table.add_column(heading, justify="right", no_wrap=True)

    def add(label: str, seconds: pd.Series, style: str = "") -> None:
        table.add_row(label, *(f"{cell:,.0f}" for cell in (*seconds, seconds.sum())), style=style)

    for reason, seconds in by_reason.iterrows():
        add(reason, seconds)
    table.add_section()
    add("excluded", excluded)
    add("+ in windows", kept)
    add("= recordings", kept + excluded, style="bold")
    return table


def draw_sheet(found: WindowSet, seed: int) -> Figure:
    """Draw windows of every AHA class on ECG paper, all on one scale.

    Parameters
    ----------
    found : WindowSet
        What to draw from.
    seed : int
        Of the choice. Windows of different patients come first.

    Returns
    -------
    matplotlib.figure.Figure
        A row for each class that has windows.

    Raises
    ------
    ValueError
        If there is no window at all.
    """
    from matplotlib.figure import Figure

    if not len(found):
        raise ValueError("there are no windows to draw; choose other databases or another length.")
    rng = np.random.default_rng(seed)
    chosen = {name: _choose(found, name, rng) for name in AHA_CLASSES if name in found.aha_class}
    ranges = {name: _half_range_mv(found.ecg[indices]) for name, indices in chosen.items()}
    # One scale for all: a large box is square, and a row is as high as it needs.
    inches_per_mv = INCHES_PER_S * LARGE_BOX_S / LARGE_BOX_MV
    heights = {name: 2 * half * inches_per_mv for name, half in ranges.items()}
    window_width = found.window_s * INCHES_PER_S
    width = SHEET_COLUMNS * (window_width + MARGIN_IN) + MARGIN_IN
    height = sum(heights.values()) + len(heights) * (GAP_IN + HEADING_IN + TITLE_IN) + HEADING_IN + 2 * MARGIN_IN
    figure = Figure(figsize=(width, height))
    y = height - MARGIN_IN - HEADING_IN
    caption = (
        f"{found.window_s:g}-s windows by AHA class · {', '.join(dict.fromkeys(found.database.tolist()))} · "
        f"filtered · large box {LARGE_BOX_S:g} s × {LARGE_BOX_MV:g} mV · seed {seed}"
    )
    figure.text(MARGIN_IN / width, y / height, caption, fontsize=12)
    for name, indices in chosen.items():
        y -= GAP_IN + HEADING_IN
        figure.text(
            MARGIN_IN / width,
            y / height,
            _heading(found, name),
            fontsize=11,
            fontweight="bold",
            color=KIND_COLOURS[_kind(name)],
        )
        y -= TITLE_IN + heights[name]
        for column, index in enumerate(indices):
            x = MARGIN_IN + column * (window_width + MARGIN_IN)
            axes = figure.add_axes((x / width, y / height, window_width / width, heights[name] / height))
            _draw_window(axes, found, int(index), ranges[name])
    return figure


def _choose(found: WindowSet, aha_class: str, rng: np.random.Generator) -> np.ndarray:
    """Pick windows at random, of different patients as far as there are enough."""
    order = rng.permutation(np.flatnonzero(found.aha_class == aha_class))
    first_of_patient = np.sort(np.unique(found.patient[order], return_index=True)[1])
    return np.concatenate([order[first_of_patient], np.delete(order, first_of_patient)])[:SHEET_COLUMNS]


def _half_range_mv(ecg: np.ndarray) -> float:
    """Round up to large boxes what a row needs on either side of zero."""
    needed = np.ceil(np.abs(ecg).max() / LARGE_BOX_MV) * LARGE_BOX_MV
    return float(np.clip(needed, MIN_HALF_RANGE_MV, MAX_HALF_RANGE_MV))


def _draw_window(axes: Axes, found: WindowSet, index: int, half_range_mv: float) -> None:
    from ecg_shock.preprocessing import FS

    ecg = found.ecg[index]
    axes.set(
        xlim=(0, found.window_s), ylim=(-half_range_mv, half_range_mv), xticks=[], yticks=[], facecolor=PAPER_COLOUR
    )
    for step_s, step_mv, colour, width in (
        (SMALL_BOX_S, SMALL_BOX_MV, SMALL_BOX_COLOUR, 0.3),
        (LARGE_BOX_S, LARGE_BOX_MV, LARGE_BOX_COLOUR, 0.6),
    ):
        axes.vlines(
            np.arange(0, found.window_s, step_s), -half_range_mv, half_range_mv, colors=colour, linewidths=width
        )
        axes.hlines(
            np.arange(-half_range_mv, half_range_mv, step_mv), 0, found.window_s, colors=colour, linewidths=width
        )
    axes.plot(np.arange(len(ecg)) / FS, ecg, color="black", linewidth=0.8)
    for spine in axes.spines.values():
        spine.set(color=LARGE_BOX_COLOUR)
    where = f"{found.database[index]}/{found.record[index]} @ {found.start_s[index]:.1f} s"
    rhythm = str(found.rhythm[index])
    axes.set_title(f"{where}  {found.lead[index]}  {rhythm.replace('_', ' ')}", fontsize=8, loc="left", pad=2.5)


def _heading(found: WindowSet, aha_class: str) -> str:
    mask = found.aha_class == aha_class
    patients = len(np.unique(found.patient[mask]))
    return f"{AHA_LABELS[aha_class]}: {_kind(aha_class)}, {int(mask.sum()):,} windows, {patients} patients"


def _kind(aha_class: str) -> str:
    return "shockable" if aha_class in SHOCKABLE else "intermediate" if aha_class in INTERMEDIATE else "nonshockable"


def _short_label(aha_class: str) -> str:
    return AHA_LABELS[aha_class].split(" (")[0]
