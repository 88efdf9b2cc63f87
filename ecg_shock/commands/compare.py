"""`ecg-shock compare`: train variants of a setting in pairs, and compare them on validation patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecg_shock.commands import Scheduler, Workers
from ecg_shock.commands._trainings import Trainings

if TYPE_CHECKING:
    from ecg_shock.search.compare import Summary, TrialResult

console = Console()


def compare(
    comparison: Annotated[Path, typer.Argument(help="TOML file with the base setting and its variants.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; a run that is already there is continued.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings.", show_default="ECG_SHOCK_DATA, else the cache folder"),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
) -> None:
    """Compare ways of training in pairs, with the same folds and seeds.

    Every variant is trained on every fold with every seed, and evaluated on
    the validation patients; the test patients are not used. Ctrl-C stops after
    the current epoch, and a crash loses at most that epoch: run the same
    command to continue.

    Example: ecg-shock compare tuning/comparisons/headline.toml
    """
    from ecg_shock.files import locked
    from ecg_shock.search.compare import choose, read_comparison, read_results, run_comparison, summarise, title
    from ecg_shock.search.engine import LOG_FILE, Engine

    asked = read_comparison(comparison)
    folder = out or Path("runs") / asked.name
    total = len(asked.names) * len(asked.folds) * len(asked.seeds)
    engine = Engine(folder / LOG_FILE, workers=workers, scheduler=scheduler)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder), engine:
            done = [result.balanced_accuracy["5"] for result in read_results(asked, folder)]
            with Trainings(console, "trainings", total, len(done), max(done, default=0.0)) as trainings:

                def on_trial(result: TrialResult) -> None:
                    trainings.end(title(result.name, result.fold, result.seed), result.balanced_accuracy["5"])

                run_comparison(asked, folder, engine, data, on_progress=trainings.on_progress, on_trial=on_trial)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("run the same command to continue") from None
    summaries = summarise(asked, folder)
    console.print(f"rule of decision: {' '.join(asked.rule.split())}\n", highlight=False, markup=False)
    console.print(_table(summaries))
    for fold, name in choose(asked, folder).items():
        console.print(f"fold {fold} chooses {name}", highlight=False, markup=False)
    for summary in summaries:
        if summary.trainings < len(asked.folds) * len(asked.seeds):
            console.print(
                f"{summary.name}: {len(asked.folds) * len(asked.seeds) - summary.trainings} trainings are missing; "
                "run the same command again to repeat them",
                highlight=False,
            )


def _table(summaries: Sequence[Summary]) -> Table:
    table = Table(title="validation patients, mean over folds and seeds, in %", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("variant")
    for heading in ("BAC 5 s", "Se", "Sp", "BAC 2 s", "other hospitals Sp", "gain", "90 % interval"):
        table.add_column(heading, justify="right")

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f}"

    for row in summaries:
        interval = "" if row.interval is None else " to ".join(f"{100 * limit:+.2f}" for limit in row.interval)
        gain = "" if row.gain is None else f"{100 * row.gain:+.2f}"
        table.add_row(
            row.name,
            *map(percent, (row.balanced_accuracy, row.sensitivity, row.specificity, row.short, row.other_hospitals)),
            gain,
            interval,
        )
    return table
