"""The commands of the program, one module for each, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Lead = Annotated[
    str | None,
    typer.Option(help="Name of the lead.", show_default="the only lead, or the first with the name of an ECG lead"),
]
Fs = Annotated[
    float | None, typer.Option(help="Sampling rate in Hz; only for CSV, NumPy and MATLAB files.", show_default=False)
]
Units = Annotated[
    str | None,
    typer.Option(help="Unit of the samples, mV, uV or V; only for CSV, NumPy and MATLAB files.", show_default=False),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="Delimiter of the columns of a CSV file: ',', ';', '|', tab or space.", show_default="found in the file"
    ),
]
Decimal = Annotated[
    str | None, typer.Option(help="Decimal sign of a CSV file, '.' or ','.", show_default="found in the file")
]
Model = Annotated[
    Path | None,
    typer.Option(help="Folder of a model that was saved as a bundle.", show_default="the pretrained model"),
]
CorrectionsFile = Annotated[
    Path | None,
    typer.Option(
        "--corrections",
        metavar="FILE.toml",
        help="Apply a human reader's corrections of labels, such as the page of ecg-shock adjudicate saves them.",
        show_default=False,
    ),
]
Workers = Annotated[
    int,
    typer.Option(min=1, help="Number of trainings side by side, each in its own process.", rich_help_panel="Speed"),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="tls://HOST:PORT",
        help="Dask scheduler whose workers train in place of this machine. The certificates are those of Dask's "
        "configuration.",
        show_default=False,
        rich_help_panel="Speed",
    ),
]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``"1 epoch"`` or ``"2 epochs"``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def check_folder(out: Path) -> None:
    """Raise a ValueError if the folder of --out is a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out is {str(out)!r}, which is a file; give a folder.")
