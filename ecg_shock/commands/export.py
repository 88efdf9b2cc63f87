"""`ecg-shock export`: convert a model for a device, and check the converted model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

if TYPE_CHECKING:
    from ecg_shock.export.rescoring import Rescoring

MAX_FLIPS_SHOWN = 10


def export(
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="litert, litert-int8, onnx, c or c-int8."),
    ],
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="Folder of a model that was saved as a bundle.", show_default="the pretrained model"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="runs/export/FORMAT")] = None,
    fs: Annotated[
        float,
        typer.Option(help="Sampling rate of the device in Hz. The JSON file describes the filter for this rate."),
    ] = 250.0,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Smallest probability of shockable with which a shock is advised, above 0 and below 1.",
            show_default="that of the model",
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(help="Length of a window in seconds, 2 to 10.", show_default="that of the model"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings.", show_default="ECG_SHOCK_DATA, else the cache folder"),
    ] = None,
) -> None:
    """Export a model for a device, and check the exported model.

    First, the command compares the exported model with the original on the
    validation patients, or on the training patients if all patients trained the
    model. If they differ by more than the tolerance of the format, it writes
    nothing.

    With the network, the command writes a JSON file. It describes the filter, the
    input, the threshold and the rule for unusable windows, and contains test
    samples with their results. The C code includes the filter, and needs no
    library. It comes with selftest.c, which runs test samples on the device.

    Example: ecg-shock export --to c-int8 --fs 500
    """
    from ecg_shock.export.export import export as export_model
    from ecg_shock.preprocessing import FS

    console = Console()
    folder = out or Path("runs") / "export" / to
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def on_stage(stage: str, steps: int) -> Callable[[], None]:
            task = progress.add_task(stage, total=steps)
            return lambda: progress.advance(task)

        result = export_model(
            model, to, folder, fs=fs, threshold=threshold, window_s=window, data=data, on_stage=on_stage
        )
    console.print(_table(result.rescoring))
    if threshold is not None or window is not None:
        window_s = result.bundle.spec.input_samples / FS
        console.print(
            f"Se and Sp at a threshold of {result.bundle.threshold:g}, in windows of {window_s:g} s", highlight=False
        )
    for flip in result.rescoring.flips[:MAX_FLIPS_SHOWN]:
        console.print(
            f"decision changed: {flip.database}/{flip.record} at {flip.start_s:g} s, {flip.aha_class}, "
            f"probability {flip.probability:.3f} became {flip.exported:.3f}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    more = len(result.rescoring.flips) - MAX_FLIPS_SHOWN
    if more > 0:
        console.print(f"and {more} more; all are in {result.files[-1].name}", highlight=False, markup=False)
    for path in result.files:
        console.print(f"written: {path} ({path.stat().st_size:,} bytes)", highlight=False, markup=False, soft_wrap=True)


def _table(rescoring: Rescoring) -> Table:
    table = Table(title=f"{rescoring.part} subset: {rescoring.windows:,} windows of {rescoring.patients} patients")
    for column in ("", "model", "exported", "change"):
        table.add_column(column, justify="right" if column else "left")
    for name, before, after in (
        ("Se %", rescoring.sensitivity, rescoring.exported_sensitivity),
        ("Sp %", rescoring.specificity, rescoring.exported_specificity),
    ):
        table.add_row(name, f"{100 * before:.2f}", f"{100 * after:.2f}", f"{100 * (after - before):+.2f}")
    flipped = len(rescoring.flips)
    table.add_row("decisions changed", "", f"{flipped}", f"{100 * flipped / rescoring.windows:.2f} %")
    table.add_row("largest difference of probability", "", "", f"{rescoring.largest_probability_difference:.2g}")
    table.add_row("largest difference of logit", "", "", f"{rescoring.largest_logit_difference:.2g}")
    return table
