"""Commands, one thin file each: parse, call, print. Options that several of them have stand here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Lead = Annotated[str | None, typer.Option(help="Name of the lead.", show_default="the first one")]
Fs = Annotated[
    float | None, typer.Option(help="Sampling rate in Hz; CSV, NumPy and MATLAB files do not say.", show_default=False)
]
Units = Annotated[
    str | None, typer.Option(help="mV, uV or V; CSV, NumPy and MATLAB files do not say.", show_default=False)
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Between the columns of a CSV file: ',', ';', '|', tab or space.", show_default="found in it"),
]
Decimal = Annotated[str | None, typer.Option(help="Decimal sign of a CSV file.", show_default="found in it")]
Model = Annotated[
    Path | None, typer.Option(help="Folder of a bundle.", show_default="the one that comes with the package")
]
