"""`ecg-shock validate`: evaluate models on their own test patients."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress


def validate(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="A bundle, or a folder of fold-0/bundle, fold-1/bundle …, whose predictions are pooled.",
            show_default="the model that comes with the package",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Evaluate any other algorithm by what it said of labelled windows, instead of a model.",
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="With --predictions that have no column shock: probability from which on a shock is advised.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report.", show_default="MODEL/validation, or runs/validation"),
    ] = None,
    databases: Annotated[
        str | None,
        typer.Option(
            help="Databases by commas that the model has not seen: all their windows are predicted.",
            show_default="the test patients of the model's own split",
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Add the test results to the model's own card as well.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Exclude other algorithms, stress tests and whole records.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings.", show_default="ECG_SHOCK_DATA, else the cache folder"),
    ] = None,
) -> None:
    """Evaluate a model by the AHA goals on the patients it was never shown, or another algorithm by its predictions.

    A model is evaluated on windows of 2, 3, 4, 5, 8 and 10 s.

    FILE.csv has one row a window, with record, patient, start_s, duration_s,
    aha_class (or rhythm, where that decides it), and shock (or probability).
    It may have database, lead, fold, rate_bpm and amplitude_mv.

    The tables are printed and written as report.md and report.json, and what a model predicted as predictions.csv.

    report.html is the whole review on one page. Of a model it shows classical detectors on the same windows, stress
    tests, what an alarm does on whole records (detected episodes, false alarms an hour, delay), and every error as ECG.
    The alarm rule is chosen on the patients that the model was selected with.
    """
    from ecg_shock.evaluation.evaluation_set import EvaluationSet, find_bundles
    from ecg_shock.inference.advisor import DEFAULT_BUNDLE
    from ecg_shock.models.bundle import add_to_card
    from ecg_shock.report.review import PREDICTIONS_NAME, REPORT_NAMES, review_bundles, review_file
    from ecg_shock.report.tables import to_card, to_rich

    console = Console()
    folder = out or (model / "validation" if model else Path("runs") / "validation")
    command = _command(
        model,
        {
            "--predictions": predictions,
            "--threshold": threshold,
            "--out": out,
            "--databases": databases,
            "--record": record,
            "--quick": quick,
            "--data": data,
        },
    )
    if predictions:
        if model or databases or record or quick or data:
            raise ValueError(
                "--predictions are evaluated as they are; remove MODEL, --databases, --record, --quick and --data."
            )
        if predictions.is_dir():
            raise ValueError(f"{predictions} is a folder; --predictions takes a CSV file, MODEL the folder of a model.")
        content = review_file(predictions, folder, threshold=threshold, command=command)
        written = [*REPORT_NAMES]
    else:
        if threshold is not None:
            raise ValueError("--threshold is for --predictions; a model has its own.")
        bundles = find_bundles(model or DEFAULT_BUNDLE)
        if record and (databases or len(bundles) > 1):
            raise ValueError("--record is for one bundle and its own test patients; remove it, or give one bundle.")
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

            def on_stage(stage: str, steps: int) -> Callable[[], None]:
                task = progress.add_task(stage, total=steps)
                return lambda: progress.advance(task)

            evaluation = EvaluationSet(bundles, tuple(databases.split(",")) if databases else (), data)
            content = review_bundles(evaluation, folder, quick=quick, command=command, on_stage=on_stage)
        written = [*REPORT_NAMES, PREDICTIONS_NAME]
    if record:
        add_to_card(bundles[0], {"test": to_card(content.validation)})
    console.print(to_rich(content.validation, content.whole_records))
    console.print(f"written: {folder}/{', '.join(written)}", highlight=False, markup=False)


def _command(model: Path | None, options: dict[str, object]) -> str:
    """Write the command as it can be typed again."""
    words = ["ecg-shock", "validate", *([str(model)] if model else [])]
    for name, value in options.items():
        if value is True:
            words.append(name)
        elif value not in (None, False):
            words += [name, str(value)]
    return shlex.join(words)
