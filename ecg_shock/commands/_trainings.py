"""Show trainings that run side by side: a live table on a terminal, else a line for each that has ended."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from ecg_shock.search.tasks import Task


class _Running(NamedTuple):
    """The state of a training: its last epoch, of how many, and the balanced accuracies of that and the best epoch."""

    epoch: int
    epochs: int
    last: float
    best: float


class Trainings:
    """The trainings of a command; use it in a `with` block.

    Parameters
    ----------
    console : Console
        Where they are shown.
    what : str
        What is done, in one word.
    total, done : int
        Number of trainings, and how many of them were done earlier.
    best : float
        The highest balanced accuracy so far; 0 if there is none.
    """

    def __init__(self, console: Console, what: str, total: int, done: int, best: float = 0.0) -> None:
        self._console = console
        self._what, self._total, self._done, self._best = what, total, done, best
        self._earlier, self._failed = done, 0
        self._running: dict[str, _Running] = {}
        self._started = time.monotonic()
        self._live = Live(console=console, get_renderable=self._table, transient=True, refresh_per_second=2)

    def __enter__(self) -> Trainings:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def on_progress(self, task: Task, epoch: int, balanced_accuracy: float | None) -> None:
        """Show that a training has begun (epoch 0), or completed an epoch."""
        best = max(balanced_accuracy or 0.0, self._running[task.name].best if task.name in self._running else 0.0)
        self._running[task.name] = _Running(epoch, task.epochs, balanced_accuracy or 0.0, best)

    def end(self, name: str, balanced_accuracy: float, error: str | None = None, stopped: bool = False) -> None:
        """Show the result of a training, whether it was stopped early, or why it failed."""
        self._running.pop(name, None)
        self._done += 1
        if error:
            self._failed += 1
            self._console.print(f"{self._what} {name} failed: {error}", style="yellow", highlight=False, markup=False)
            return
        self._best = max(self._best, balanced_accuracy)
        if not self._console.is_terminal:
            line = (
                f"{self._what} {self._done}/{self._total}: {name} BAC {100 * balanced_accuracy:.2f} %"
                f"{' (stopped early)' if stopped else ''}, {self._state()}"
            )
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _state(self) -> str:
        done = self._done - self._earlier
        state = f"best {100 * self._best:.2f} %"
        if self._failed:
            state += f", {self._failed} failed"
        if done:
            seconds = (time.monotonic() - self._started) / done
            left = timedelta(seconds=round(seconds * (self._total - self._done)))
            state += f", {3600 / seconds:,.0f} per hour, {left} left"
        return state

    def _table(self) -> Group:
        bar = Progress(
            TextColumn(self._what), BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}")
        )
        bar.add_task(self._state(), total=self._total, completed=self._done)
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("running")
        for heading in ("epoch", "BAC %", "best"):
            table.add_column(heading, justify="right")
        for name, state in self._running.items():
            accuracies = (f"{100 * value:.2f}" if state.epoch else "" for value in (state.last, state.best))
            table.add_row(name, f"{state.epoch}/{state.epochs}", *accuracies)
        return Group(bar, table)
