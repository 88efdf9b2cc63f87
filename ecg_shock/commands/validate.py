"""`ecg-shock validate`: evaluate a model on its test patients, or a file of predictions of another algorithm."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ecg_shock.commands import CorrectionsFile

if TYPE_CHECKING:
    from ecg_shock.models.bundle import Bundle


def validate(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="Folder of a bundle, or a folder with fold-0/bundle, fold-1/bundle …, whose results are pooled. A "
            "file is taken as --predictions.",
            show_default="the pretrained model",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="File with another algorithm's predictions of labelled windows.",
            show_default=False,
            rich_help_panel="Another algorithm",
        ),
    ] = None,
    windows: Annotated[
        Path | None,
        typer.Option(
            metavar="LIST.csv",
            help="The windows that should be evaluated, as ecg-shock windows --csv lists them: each prediction is "
            "matched with them.",
            show_default=False,
            rich_help_panel="Another algorithm",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Compare with another algorithm by its predictions of the same windows; its column shock decides.",
            show_default=False,
            rich_help_panel="Another algorithm",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Advise a shock at this probability or score or above; only for --predictions without the column "
            "shock.",
            show_default=False,
            rich_help_panel="Another algorithm",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report.", show_default="MODEL/validation, or runs/validation"),
    ] = None,
    databases: Annotated[
        str | None,
        typer.Option(
            help="Test all patients of these databases, separated by commas. These patients must not have been used "
            "in training.",
            show_default="the test patients of the model",
            rich_help_panel="A model",
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Evaluate only the models of these folds, separated by commas, such as 2,3,4.",
            show_default="all",
            rich_help_panel="A model",
        ),
    ] = None,
    corrections: CorrectionsFile = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Add the results to the model's card, in bundle.toml.", rich_help_panel="A model"
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Skip the classical detectors, the stress tests, the alarms on whole records, and what the model "
            "responds to.",
            rich_help_panel="A model",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the recordings.",
            show_default="ECG_SHOCK_DATA, else the cache folder",
            rich_help_panel="A model",
        ),
    ] = None,
) -> None:
    """Evaluate a model, or predictions of another algorithm, by the AHA goals.

    For example:
      ecg-shock validate runs/train
      ecg-shock validate --predictions FILE.csv --windows LIST.csv
      ecg-shock validate FILE.csv --against OTHER.csv

    A model is evaluated on its test patients, who were not used in training, in
    windows of 2, 3, 4, 5, 8 and 10 s. The report compares the model with
    classical detectors, tests it with noise and artefacts, evaluates alarms on
    whole records, and shows the ECG of each error.

    FILE.csv has one row per window. Required columns: record, patient, start_s,
    duration_s, aha_class or rhythm, and shock, probability or score. Optional
    columns: database, lead, fold, rate_bpm, amplitude_mv. In the column shock,
    none means no decision, which is counted as wrong.

    The report is written as report.html, report.md and report.json. For a model,
    its predictions are written to predictions.csv. If it was trained with other
    labels than the default ones, or if --corrections are given, the same advice
    is also evaluated under the default labels, and written to
    predictions-default-labels.csv.
    """
    from ecg_shock.evaluation.evaluation_set import EvaluationSet, find_bundles
    from ecg_shock.inference.advisor import DEFAULT_BUNDLE
    from ecg_shock.models.bundle import add_to_card
    from ecg_shock.report.review import REPORT_NAMES, prediction_names, review_bundles, review_file
    from ecg_shock.report.tables import to_card, to_rich

    console = Console()
    if model and not predictions and (model.is_file() or model.suffix == ".csv"):
        model, predictions = None, model
    folder = out or (model / "validation" if model else Path("runs") / "validation")
    if folds and not out:
        folder = folder.with_name(f"{folder.name}-folds-{folds.replace(',', '-')}")
    command = _command(
        model,
        {
            "--predictions": predictions,
            "--windows": windows,
            "--against": against,
            "--threshold": threshold,
            "--out": out,
            "--databases": databases,
            "--folds": folds,
            "--corrections": corrections,
            "--record": record,
            "--quick": quick,
            "--data": data,
        },
    )
    if predictions:
        if model or databases or folds or corrections or record or quick or data:
            raise ValueError(
                "MODEL, --databases, --folds, --corrections, --record, --quick and --data cannot be given with "
                "--predictions; remove them."
            )
        if predictions.is_dir():
            raise ValueError(
                f"--predictions is {str(predictions)!r}, a folder; give a CSV file. To evaluate the model in this "
                "folder, remove --predictions."
            )
        content = review_file(
            predictions, folder, against=against, windows=windows, threshold=threshold, command=command
        )
        written = [*REPORT_NAMES]
    else:
        if threshold is not None:
            raise ValueError("--threshold cannot be given for a model; remove it.")
        if windows is not None:
            raise ValueError("--windows cannot be given for a model, which has its own test windows; remove it.")
        if against is not None:
            raise ValueError("--against cannot be given for a model; give its predictions.csv as --predictions.")
        bundles = find_bundles(model or DEFAULT_BUNDLE)
        if folds:
            bundles = _of_folds(bundles, folds)
        if record and (databases or corrections or len(bundles) > 1):
            raise ValueError(
                "--record needs one bundle, and no --databases or --corrections; remove --record, or give one bundle "
                "without them."
            )
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

            def on_stage(stage: str, steps: int) -> Callable[[], None]:
                task = progress.add_task(stage, total=steps)
                return lambda: progress.advance(task)

            names = tuple(databases.split(",")) if databases else ()
            evaluation = EvaluationSet(bundles, names, data, corrections)
            content = review_bundles(evaluation, folder, quick=quick, command=command, on_stage=on_stage)
        written = [*REPORT_NAMES, *prediction_names(evaluation)]
    if record:
        add_to_card(bundles[0], {"test": to_card(content.validation)})
    console.print(to_rich(content.validation, content.whole_records, content.against))
    console.print(f"written: {folder}/{', '.join(written)}", highlight=False, markup=False)


def _of_folds(bundles: tuple[Bundle, ...], folds: str) -> tuple[Bundle, ...]:
    by_fold = {str(bundle.card.data.fold): bundle for bundle in bundles}
    unknown = [fold for fold in folds.split(",") if fold not in by_fold]
    if unknown:
        raise ValueError(f"--folds is {folds!r}, but the model has the folds {', '.join(by_fold)}; choose from these.")
    return tuple(by_fold[fold] for fold in sorted(set(folds.split(",")), key=int))


def _command(model: Path | None, options: dict[str, object]) -> str:
    """Return the command line with quotes, so that users can run it again."""
    words = ["ecg-shock", "validate", *([str(model)] if model else [])]
    for name, value in options.items():
        if value is True:
            words.append(name)
        elif value not in (None, False):
            words += [name, str(value)]
    return shlex.join(words)
