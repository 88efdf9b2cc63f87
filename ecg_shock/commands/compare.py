"""`ecg-shock compare`: train variants of a setting in pairs, and compare them on validation patients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

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
) -> None:
    """Compare ways of training in pairs, with the same folds and seeds.

    Every variant is trained on every fold with every seed, and evaluated on
    the validation patients; the test patients are not used. Ctrl-C or a crash
    loses at most the current epoch: run the same command to continue. Several
    processes may run the same command to share the work.

    Example: ecg-shock compare tuning/comparisons/headline.toml
    """
    from ecg_shock.search.compare import choose, read_comparison, read_results, run_comparison, summarise

    # TensorFlow warns that functions are compiled repeatedly; here, each training compiles its own.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    asked = read_comparison(comparison)
    folder = out or Path("runs") / asked.name
    total = len(asked.names) * len(asked.folds) * len(asked.seeds)
    columns = (
        TextColumn("trainings"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TimeRemainingColumn(),
    )
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            done = sum(1 for _ in read_results(asked, folder))
            task = progress.add_task("compare", total=total, completed=done, now="")

            def on_trial(result: TrialResult) -> None:
                line = (
                    f"{result.name}, fold {result.fold}, seed {result.seed}: "
                    f"BAC {100 * result.balanced_accuracy['5']:.2f} %"
                )
                progress.update(task, advance=1, now=line)
                if not console.is_terminal:
                    console.print(f"{line}, {result.seconds:.0f} s", highlight=False, markup=False)

            run_comparison(asked, folder, data, on_trial=on_trial)
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
                "another process may be running them",
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
