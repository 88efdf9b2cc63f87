"""The commands, one module each, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Lead = Annotated[
    str | None,
    typer.Option(help="Name of the lead.", show_default="the only lead, or the first that is named as an ECG"),
]
Fs = Annotated[
    float | None, typer.Option(help="Sampling rate in Hz, for CSV, NumPy and MATLAB files.", show_default=False)
]
Units = Annotated[
    str | None,
    typer.Option(help="Unit of the samples, mV, uV or V, for CSV, NumPy and MATLAB files.", show_default=False),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="Delimiter of the columns of a CSV file: ',', ';', '|', tab or space.", show_default="taken from the file"
    ),
]
Decimal = Annotated[
    str | None, typer.Option(help="Decimal sign of a CSV file, '.' or ','.", show_default="taken from the file")
]
Model = Annotated[Path | None, typer.Option(help="Folder of a bundle.", show_default="the model in the package")]
