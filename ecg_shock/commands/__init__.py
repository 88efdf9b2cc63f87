"""The commands, one module each, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Lead = Annotated[
    str | None,
    typer.Option(help="Name of the lead.", show_default="the first that is an ECG by its name, or the only one"),
]
Fs = Annotated[
    float | None, typer.Option(help="Sampling rate in Hz, for CSV, NumPy and MATLAB files.", show_default=False)
]
Units = Annotated[
    str | None,
    typer.Option(help="Unit of the samples, mV, uV or V, for CSV, NumPy and MATLAB files.", show_default=False),
]
Model = Annotated[Path | None, typer.Option(help="Folder of a bundle.", show_default="the model in the package")]
