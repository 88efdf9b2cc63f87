"""`ecg-shock windows`: count the labelled windows of the databases, and plot some of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecg_shock.commands import CorrectionsFile
from ecg_shock.rhythms import AHA_CLASSES, AHA_LABELS, CLASSES

if TYPE_CHECKING:
    from ecg_shock.data.windows import WindowSet

SHEET_SUFFIXES = (".png", ".pdf", ".svg")
NUMBER_WIDTH = 7  # characters; the longest number of seconds


def windows(
    databases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DB",
            help="Databases: vfdb, cudb, mitdb, synthetic, ludb, qtdb, challenge-2017, aami-ec13, or the path of a "
            "manifest (.toml).",
            show_default="vfdb cudb mitdb",
        ),
    ] = None,
    window: Annotated[float, typer.Option(help="Length of each window in seconds, 2 to 10.")] = 5.0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the recordings, with a folder for each database.",
            show_default="ECG_SHOCK_DATA, else the cache folder",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot some windows of each AHA class to this .png, .pdf or .svg file.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a list of the windows, one per line, to this .csv.", show_default=False
        ),
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With --csv: the fold for the column role, which is train, validation or test.",
            show_default="each patient has the role test",
        ),
    ] = None,
    augmented: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="With --sheet: plot the augmented windows on which this bundle was trained.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the choice of plotted windows.")] = 0,
    corrections: CorrectionsFile = None,
) -> None:
    """Count labelled windows by AHA class, and the excluded seconds by reason.

    Windows are cut from the first lead of each recording, without overlap.

    For example:
      ecg-shock windows vfdb cudb --window 4 --sheet windows.png
      ecg-shock windows cudb --csv windows.csv

    The CSV file lists the windows on which you can run your own algorithm. Its
    columns are database, record, patient and lead; start and length in seconds,
    and in samples at the recording's sampling rate; rhythm and AHA class; the
    fold in which the patient is a test patient; and the patient's role. Starts
    are multiples of 8 ms. Add a column shock with the advice of your algorithm,
    and give the file to ecg-shock validate --predictions.
    """
    from ecg_shock.data.corrected import count_corrected, pin_corrections
    from ecg_shock.data.datasets import DataConfig, load_windows
    from ecg_shock.data.windows import LabelPolicy
    from ecg_shock.files import atomic_writer

    if fold is not None and csv is None:
        raise ValueError("--fold needs --csv; give --csv too, or remove --fold.")
    if csv is not None and csv.suffix.lower() != ".csv":
        raise ValueError(f"--csv is {str(csv)!r}; give a file that ends in .csv.")
    if sheet is not None:
        if sheet.suffix.lower() not in SHEET_SUFFIXES:
            raise ValueError(f"--sheet is {str(sheet)!r}; give a file that ends in {', '.join(SHEET_SUFFIXES)}.")
        if not sheet.absolute().parent.is_dir():
            raise FileNotFoundError(
                f"--sheet is {str(sheet)!r}, but its folder does not exist; make the folder, or give another."
            )
    if augmented is not None:
        if sheet is None or databases or csv is not None or corrections is not None:
            raise ValueError("--augmented needs --sheet FILE, without databases, --csv and --corrections.")
        _draw_augmented(augmented, data, sheet, seed)
        return
    config = DataConfig(
        databases=tuple(databases or DataConfig().databases),
        window_s=window,
        labels=LabelPolicy(corrections=str(corrections) if corrections else None),
    )
    config = pin_corrections(config)
    console = Console(markup=False, highlight=False)
    with console.status("reading the recordings"):
        found = load_windows(config, data)
        if csv is not None:
            from ecg_shock.evaluation.window_list import list_windows

            with atomic_writer(csv) as file:
                list_windows(config, data, fold=fold).to_csv(file, index=False, lineterminator="\r\n")
    console.print(_class_table(found))
    console.print(_balance(found))
    if corrections:
        from ecg_shock.report.label_policies import corrected_table

        console.print(corrected_table(count_corrected(config.labels, config.databases)).to_rich())
    if sheet is not None:
        from ecg_shock.plots import draw_sheet

        draw_sheet(found, seed).savefig(sheet)
        console.print(f"sheet: {sheet}", soft_wrap=True)
    if csv is not None:
        console.print(f"csv: {csv}, {len(found):,} windows", soft_wrap=True)


def _draw_augmented(folder: Path, data: Path | None, sheet: Path, seed: int) -> None:
    """Plot augmented windows of a bundle's training, and count the windows of each class in an epoch."""
    from ecg_shock.models.bundle import load_bundle
    from ecg_shock.plots import draw_sheet
    from ecg_shock.training.fold import augmented_windows

    console = Console(markup=False, highlight=False)
    with console.status("reading the recordings"):
        found = augmented_windows(load_bundle(folder), data)
    table = Table(title="windows of an epoch", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("class")
    table.add_column("windows", justify="right")
    table.add_column("patients", justify="right")
    for name in sorted(set(found.aha_class.tolist())):
        patients = set(found.patient[found.aha_class == name].tolist()) - {""}
        table.add_row(name.replace("_", " "), f"{(found.aha_class == name).sum():,}", f"{len(patients)}")
    console.print(table)
    draw_sheet(found, seed).savefig(sheet)
    console.print(f"sheet: {sheet}", soft_wrap=True)


def _class_table(found: WindowSet) -> Table:
    table = Table(title=f"{found.window_s:g}-s windows", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("database")
    table.add_column("AHA class")
    for heading in ("patients", "windows", "seconds"):
        table.add_column(heading, justify="right")

    def add(database: str, label: str, patients: np.ndarray, style: str) -> None:
        count = len(patients)
        seconds = count * found.window_s
        table.add_row(database, label, f"{len(set(patients))}", f"{count:,}", f"{seconds:,.0f}", style=style)

    for database in dict.fromkeys(found.database.tolist()):
        for aha_class in CLASSES:
            patients = found.patient[(found.database == database) & (found.aha_class == aha_class)]
            if not len(patients) and aha_class not in AHA_CLASSES:
                continue
            label = AHA_LABELS[aha_class].split(" (")[0]
            add(database if aha_class == AHA_CLASSES[0] else "", label, patients, "" if len(patients) else "dim")
        table.add_section()
    add("all", "", found.patient, "bold")
    return table


def _balance(found: WindowSet) -> Table:
    """Make a table of the excluded seconds by reason, the seconds in windows, and their sum, by database."""
    import pandas as pd

    names = list(dict.fromkeys([*found.database.tolist(), *(entry.database for entry in found.excluded)]))
    entries = pd.DataFrame(list(found.excluded), columns=["database", "reason", "seconds"])
    by_reason = entries.pivot_table("seconds", "reason", "database", aggfunc="sum", fill_value=0.0)
    by_reason = by_reason.reindex(columns=names, fill_value=0.0)
    by_reason = by_reason.loc[by_reason.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    excluded = by_reason.sum()
    kept = found.window_s * pd.Series(found.database).value_counts().reindex(names, fill_value=0)

    table = Table(title="seconds of the first lead, excluded and in windows", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("reason", min_width=12)
    for heading in (*names, "all"):
        table.add_column(heading, justify="right", min_width=min(len(heading), NUMBER_WIDTH), overflow="fold")

    def add(label: str, seconds: pd.Series, style: str = "") -> None:
        table.add_row(label, *(f"{cell:,.0f}" for cell in (*seconds, seconds.sum())), style=style)

    for reason, seconds in by_reason.iterrows():
        add(reason, seconds)
    table.add_section()
    add("excluded", excluded)
    add("+ in windows", kept)
    add("= recordings", kept + excluded, style="bold")
    return table
