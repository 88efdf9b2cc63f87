"""`ecg-shock compare`: train variants of a setting in pairs, and compare them on validation patients."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecg_shock.commands import Scheduler, Workers
from ecg_shock.commands._trainings import Trainings

if TYPE_CHECKING:
    from ecg_shock.search.compare import TrainingComparison
    from ecg_shock.search.compare_curves import Curves, EqualCost, SpeedUp
    from ecg_shock.search.compare_results import Summary
    from ecg_shock.search.compare_trainings import TrialResult

Interval = tuple[float, float] | None

JSON_NAME, PLOT_NAME = "comparison.json", "curves.png"

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
    from ecg_shock.search.compare import read_comparison
    from ecg_shock.search.compare_trainings import read_results, run_comparison, title
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
    _show_results(asked, folder)


def _show_results(asked: TrainingComparison, folder: Path) -> None:
    """Print the results, and write them to the folder as JSON and as a plot."""
    from ecg_shock.files import write_text
    from ecg_shock.plots import draw_curves
    from ecg_shock.search import compare_curves as learning
    from ecg_shock.search.compare_results import choose, summarise

    summaries, chosen = summarise(asked, folder), choose(asked, folder)
    curves = learning.read_curves(asked, folder)
    at_equal_cost = learning.compare_at_equal_cost(curves)
    speed_ups = learning.measure_speed_ups(curves, asked.levels)
    console.print(f"rule of decision: {' '.join(asked.rule.split())}\n", highlight=False, markup=False)
    console.print(_summary_table(summaries))
    if at_equal_cost:
        console.print(_equal_cost_table(at_equal_cost))
    if speed_ups:
        console.print(_speed_up_table(speed_ups))
    console.print(_cost_table(summaries))
    for fold, name in chosen.items():
        console.print(f"fold {fold} chooses {name}", highlight=False, markup=False)
    for summary in summaries:
        if summary.trainings < len(asked.folds) * len(asked.seeds):
            console.print(
                f"{summary.name}: {len(asked.folds) * len(asked.seeds) - summary.trainings} trainings are missing; "
                "run the same command again to repeat them",
                highlight=False,
            )
    content = {
        "comparison": asked.model_dump(mode="json"),
        "summaries": [asdict(summary) for summary in summaries],
        "equal_cost": [asdict(row) for row in at_equal_cost],
        "speed_ups": [asdict(row) for row in speed_ups],
        "chosen": chosen,
        "curves": _plain(curves),
    }
    write_text(folder / JSON_NAME, json.dumps(content, indent=1))
    bands = learning.make_bands(curves)
    if bands:
        draw_curves(bands, asked.levels, title=asked.name).savefig(folder / PLOT_NAME)
    console.print(
        f"all numbers: {folder / JSON_NAME}; learning curves: {folder / PLOT_NAME}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _plain(curves: Curves) -> list[dict[str, object]]:
    return [
        {"name": name, "fold": fold, "seed": seed, **{key: values.tolist() for key, values in vars(curve).items()}}
        for name, of_name in curves.items()
        for (fold, seed), curve in of_name.items()
    ]


def _table(title: str, columns: Sequence[str]) -> Table:
    """Make an empty table; only the first column is aligned to the left."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, heading in enumerate(columns):
        table.add_column(heading, justify="right" if place else "left")
    return table


def _summary_table(summaries: Sequence[Summary]) -> Table:
    others = any(row.other_hospitals is not None for row in summaries)
    columns = [
        "variant",
        "all epochs",
        "BAC 5 s",
        "Se",
        "Sp",
        "BAC 2 s",
        *(["other hospitals Sp"] if others else []),
        "gain",
    ]
    table = _table(
        "validation patients, best epoch, mean of all trainings, in %\n90 % intervals over patients", columns
    )
    for row in summaries:
        values = [row.all_epochs, row.balanced_accuracy, row.sensitivity, row.specificity, row.short]
        values += [row.other_hospitals] if others and row.other_hospitals is not None else []
        gain = "" if row.gain is None else _points(row.gain, row.interval)
        table.add_row(row.name, *(f"{100 * value:.2f}" for value in values), gain)
    return table


def _equal_cost_table(rows: Sequence[EqualCost]) -> Table:
    table = _table(
        "BAC minus that of the base at equal cost, in points\n90 % intervals over seeds",
        ("variant", "equal", "pairs", "last epoch", "best epoch"),
    )
    for row in rows:
        cost = "time" if row.cost == "seconds" else row.cost
        table.add_row(row.name, cost, str(row.pairs), *(_points(e.value, e.interval) for e in (row.last, row.best)))
    return table


def _speed_up_table(rows: Sequence[SpeedUp]) -> Table:
    table = _table(
        "cost of the base until it reaches a BAC, divided by that of the variant\nmedians, 90 % intervals over seeds",
        ("variant", "BAC %", "base, variant reach", "evaluations", "time"),
    )
    # Rows come in pairs: evaluations, then seconds.
    for evaluations, seconds in zip(rows[::2], rows[1::2], strict=True):
        reached = f"{evaluations.base_reached}, {evaluations.reached} of {evaluations.pairs}"
        ratios = (
            _with_interval(ratio.value, ratio.interval, ".2f") if ratio else "–"
            for ratio in (evaluations.ratio, seconds.ratio)
        )
        table.add_row(evaluations.name, f"{100 * evaluations.level:g}", reached, *ratios)
    return table


def _cost_table(summaries: Sequence[Summary]) -> Table:
    columns = ("variant", "parameters", "multiply-adds", "evaluations", "s", "evaluations per s")
    table = _table("size of the network, and mean cost of a training", columns)
    for row in summaries:
        rate = row.evaluations / row.seconds
        cells = (row.parameters, row.macs, row.evaluations, row.seconds, rate)
        table.add_row(row.name, *(f"{value:,.0f}" for value in cells))
    return table


def _points(difference: float, interval: Interval) -> str:
    percent = None if interval is None else (100 * interval[0], 100 * interval[1])
    return _with_interval(100 * difference, percent, "+.2f")


def _with_interval(value: float, interval: Interval, form: str) -> str:
    limits = "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"
    return f"{value:{form}}{limits}"
