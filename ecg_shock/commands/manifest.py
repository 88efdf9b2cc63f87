"""`ecg-shock manifest`: describe a folder of recordings of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def manifest(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder of your WFDB records. The database gets the name of this folder."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="File with the rhythm codes of records without annotation files, one per line: record,code or "
            "record,start_s,code.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="File for the manifest.", show_default="NAME OF FOLDER.toml"),
    ] = None,
) -> None:
    """Write a manifest of your own recordings, for you to complete.

    The manifest lists each file with its size and SHA-256, the rhythm codes in
    the annotation files or in FILE.csv, and a patient for each record. You then
    write in the manifest what the codes mean, and which records are of the same
    patient.

    Example: ecg-shock manifest recordings/mine --out mine.toml
    """
    from ecg_shock.data.own_manifest import describe_folder
    from ecg_shock.files import write_text

    console = Console(markup=False, highlight=False)
    path = out or Path(f"{folder.resolve().name}.toml")
    if path.suffix != ".toml":
        raise ValueError(f"--out is {str(path)!r}; give a file that ends in .toml")
    if path.exists():
        raise ValueError(f"{path} exists, and may have been completed by hand; remove it, or give another --out")
    with console.status("reading the recordings"):
        found = describe_folder(folder, labels)
        write_text(path, found.to_toml())
    unlabelled = [record for record, label in found.labels.items() if not label]
    counts = {
        "annotated": len(found.annotated),
        f"labelled in {labels}": len(found.labels) - len(unlabelled),
        "without a label": len(unlabelled),
    }
    shown = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    console.print(f"{found.name}: {len(found.records):,} records, {shown}")
    if found.not_here:
        console.print(f"{labels} also has {found.not_here:,} labels of records that are not in {folder}")
    if found.codes:
        table = Table("code", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("records", justify="right")
        table.add_column("read as")
        for code, count in sorted(found.codes.items()):
            table.add_row(code, f"{count:,}", found.rhythms[code] or "?")
        console.print(table)
    console.print(f"written: {path}. Before you use it:", soft_wrap=True)
    if unlabelled:
        console.print("- in [record_labels], write the code of each record")
        console.print("- in [rhythm_codes], write the rhythm that each of these codes means")
    if found.codes:
        console.print("- in [rhythm_codes], check the rhythm of each code, and replace each empty text (?) by a rhythm")
    console.print("- in [patients], give all records of one patient the same name")
    console.print(f"then: ecg-shock windows {path} --data {folder.parent}", soft_wrap=True)
