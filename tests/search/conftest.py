"""An engine in this process, and trainings that worker processes can import."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ecg_shock.search.engine import OnProgress
from ecg_shock.search.tasks import Task

HERE = Path(__file__).parent


class InlineEngine:
    """Run trainings one after another in this process, where they can be replaced; `begun` are their names."""

    remote = False

    def __init__(self) -> None:
        self.begun: list[str] = []

    def run(
        self, tasks: Iterable[Task], on_progress: OnProgress = lambda task, epoch, balanced_accuracy: None
    ) -> Iterator[tuple[Task, str | None]]:
        """Do as `Engine.run`."""
        for task in tasks:
            self.begun.append(task.name)
            task.folder.mkdir(parents=True, exist_ok=True)

            def on_epoch(log: Any, task: Task = task) -> None:
                on_progress(task, log.epoch, log.balanced_accuracy)

            task.function(*task.arguments, folder=task.folder, on_epoch=on_epoch)
            yield task, None


@pytest.fixture
def inline_engine() -> InlineEngine:
    """Return an engine without worker processes."""
    return InlineEngine()


@pytest.fixture(scope="module")
def toy() -> Iterator[ModuleType]:
    """Return the module of trainings without TensorFlow; worker processes take over this process's search path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        import toy

        patch.setattr("ecg_shock.search.workers.import_keras", toy.load)
        yield toy
    sys.modules.pop("toy")
