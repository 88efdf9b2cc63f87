"""Commands, one thin file each: parse, call, print. Options that several of them have stand here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Lead = Annotated[
    str | None,
    typer.Option(help="Name of the lead.", show_default="the first that is an ECG by its name, or the only one"),
]
Fs = Annotated[
    float | None, typer.Option(help="Sampling rate in Hz; CSV and NumPy files do not say.", show_default=False)
]
Units = Annotated[str | None, typer.Option(help="mV, uV or V; CSV and NumPy files do not say.", show_default=False)]
Model = Annotated[
    Path | None, typer.Option(help="Folder of a bundle.", show_default="the one that comes with the package")
]
