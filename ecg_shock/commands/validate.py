"""`ecg-shock validate`: judge models on their own test patients."""

from __future__ import annotations

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
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report.", show_default="MODEL/validation, or runs/validation"),
    ] = None,
    databases: Annotated[
        str | None,
        typer.Option(
            help="Databases by commas that the model has not seen: all their windows are judged.",
            show_default="the test patients of the model's own split",
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Add the test results to the model's own card as well.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings.", show_default="ECG_SHOCK_DATA, else the cache folder"),
    ] = None,
) -> None:
    """Judge a model by the AHA goals, on the patients it was never shown.

    Windows of 2, 3, 4, 5, 8 and 10 s are judged.

    The tables are printed and written as report.md and report.json, with every prediction in predictions.csv.
    """
    from ecg_shock.deploy.advisor import DEFAULT_BUNDLE
    from ecg_shock.evaluation.performance import judge
    from ecg_shock.evaluation.predictions import Predictions
    from ecg_shock.evaluation.protocol import (
        DURATIONS_S,
        describe,
        find_bundles,
        predict_databases,
        predict_test_part,
    )
    from ecg_shock.evaluation.tables import to_card, to_json, to_markdown, to_rich
    from ecg_shock.models.bundle import add_to_card

    console = Console()
    bundles = find_bundles(model or DEFAULT_BUNDLE)
    folder = out or (model / "validation" if model else Path("runs") / "validation")
    if record and (databases or len(bundles) > 1):
        raise ValueError("--record is for one bundle and its own test patients; leave it out, or give one bundle.")
    if databases and len(bundles) > 1:
        raise ValueError(f"{model} holds {len(bundles)} bundles; give the one to judge on {databases}.")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("folds and window lengths", total=len(bundles) * len(DURATIONS_S))

        def advance() -> None:
            progress.advance(task)

        if databases:
            predictions = predict_databases(bundles[0], databases.split(","), data, on_duration=advance)
        else:
            predictions = Predictions.concatenate(
                [predict_test_part(bundle, data, on_duration=advance) for bundle in bundles]
            )
    validation = judge(predictions, models=tuple(describe(bundle) for bundle in bundles))
    folder.mkdir(parents=True, exist_ok=True)
    predictions.write_csv(folder / "predictions.csv")
    (folder / "report.json").write_text(to_json(validation), encoding="utf-8")
    (folder / "report.md").write_text(to_markdown(validation), encoding="utf-8")
    if record:
        add_to_card(bundles[0], {"test": to_card(validation)})
    console.print(to_rich(validation))
    console.print(f"written: {folder}/report.md, report.json, predictions.csv", highlight=False, markup=False)
