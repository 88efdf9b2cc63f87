"""`ecg-shock scan`: find episodes of shockable rhythm in a recording of any length."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ecg_shock.commands import Decimal, Delimiter, Fs, Lead, Model, Units, check_folder

if TYPE_CHECKING:
    from ecg_shock.inference.scanning import Scan
    from ecg_shock.inference.streaming import AlarmRule

MAX_SHOWN = 30  # episodes on the terminal


def scan(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RECORD",
            help="A WFDB record; an .edf, .bdf, .csv, .npy or .mat file; or a downloaded record, such as vfdb/426.",
        ),
    ],
    lead: Lead = None,
    window: Annotated[
        float | None,
        typer.Option(help="Length of a window in seconds, 2 to 10.", show_default="as in training, usually 5"),
    ] = None,
    step: Annotated[float, typer.Option(help="Step from one window to the next in seconds, 0.1 to 10.")] = 1.0,
    alarm: Annotated[
        str | None,
        typer.Option(
            metavar="K/N", help="Raise an alarm when K of the last N windows advise a shock.", show_default="5/8"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs/scan"),
    fs: Fs = None,
    units: Units = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and write no files.")] = False,
) -> None:
    """Find episodes of shockable rhythm in a recording of any length.

    The recording is filtered and divided into windows, and each window is
    classified. An alarm is raised when K of the last N windows advise a shock.

    These files are written:
      NAME.shk   WFDB annotations of the episodes and alarms
      NAME.csv   one row per window
      NAME.json  the episodes
      NAME.png   a picture of the recording and its episodes

    Files of another recording with the same name are not replaced.

    Example: ecg-shock scan cudb/cu01 --step 0.5 --alarm 4/6
    """
    from ecg_shock.data.lead import open_lead
    from ecg_shock.inference.scan_files import check_free, scan_paths, to_json, write_scan
    from ecg_shock.inference.scanning import scan as scan_lead
    from ecg_shock.plots import draw_scan

    rule = None if alarm is None else _rule(alarm)
    opened = open_lead(path, fs=fs, units=units, lead=lead, delimiter=delimiter, decimal=decimal)
    if not as_json:
        check_folder(out)
    if not as_json:
        paths = scan_paths(opened.name, out)
        if any(written.exists() and written.samefile(opened.source) for written in paths):
            raise ValueError(f"the results would replace the recording {path}; give another folder with --out.")
        check_free(paths, opened.source)
    console = Console(markup=False, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal or as_json) as progress:
        task = progress.add_task(opened.name, total=opened.duration_s)
        result = scan_lead(
            opened,
            step_s=step,
            window_s=window,
            alarm=rule,
            model=model,
            on_progress=lambda done_s: progress.update(task, completed=done_s),
        )
    if as_json:
        typer.echo(json.dumps(to_json(result), indent=2))
        return
    files = write_scan(result, out)
    files.append(scan_paths(result.name, out)[3])
    draw_scan(result, opened).savefig(files[-1])
    _print(console, result)
    console.print(f"written: {out}/{', '.join(file.name for file in files)}", soft_wrap=True)


def _rule(text: str) -> AlarmRule:
    from ecg_shock.inference.streaming import AlarmRule

    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if not match:
        raise ValueError(f"--alarm is {text!r}; give K/N, two whole numbers, such as 5/8.")
    return AlarmRule(int(match[1]), int(match[2]))


def _print(console: Console, result: Scan) -> None:
    from ecg_shock.inference.scan_files import clock

    unusable = int((~result.usable).sum())
    console.print(
        f"{result.name}, lead {result.lead}: {clock(result.duration_s)} in {len(result.start_s):,} windows of "
        f"{result.window_s:g} s, {unusable:,} unusable; alarm at {result.alarm_rule.k} of {result.alarm_rule.n}",
        soft_wrap=True,
    )
    if not result.episodes:
        shocks = int(result.shock.sum())
        but, style = "", "bold green"
        if not result.usable.any():
            but, style = ": no window could be classified", "bold yellow"
        elif shocks:
            but = f", but {shocks:,} window{' advises' if shocks == 1 else 's advise'} a shock, too few for an alarm"
            style = "bold yellow"
        console.print(f"no episode of shockable rhythm{but}", style=style)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("onset", "end", "lasts, s", "alarm", "probability"):
        table.add_column(heading, justify="right")
    for episode in result.episodes[:MAX_SHOWN]:
        table.add_row(
            clock(episode.onset_s),
            clock(episode.end_s),
            f"{episode.end_s - episode.onset_s:.1f}",
            clock(episode.alarm_s),
            f"{episode.probability:.3f}",
        )
    count = len(result.episodes)
    console.print(f"{count} episode{'' if count == 1 else 's'} of shockable rhythm", style="bold red")
    console.print(table)
    if count > MAX_SHOWN:
        console.print(f"… and {count - MAX_SHOWN} more, in the files")
