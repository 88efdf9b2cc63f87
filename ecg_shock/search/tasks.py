"""A training as a task of Dask: what a worker process does.

A worker on the machine of the run trains in the run's folder. A worker of a scheduler trains in its own cache, and
returns the files as values. In both cases, an interrupted training resumes from its checkpoint on the same machine.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distributed import get_worker

from ecg_shock.data.manifests import cache_dir
from ecg_shock.files import locked
from ecg_shock.training.trainer import EpochLog

TOPIC = "ecg_shock.epochs"  # of Dask's events

_stop_requested: set[str] = set()  # keys of trainings of this process
_ended = itertools.count(1)  # trainings that ended in this process


class WorkerError(ChildProcessError):
    """Raised if a worker process or its machine failed, so that trainings cannot go on."""


@dataclass(frozen=True)
class Task:
    """A training.

    Parameters
    ----------
    name : str
        Its name, unique in the run.
    folder : Path
        Its folder in the run. Its result is the files in this folder.
    epochs : int
        Its maximum number of epochs.
    function : callable
        A function of a module, called as ``function(*arguments, folder=folder, on_epoch=on_epoch)``. It must resume
        what is in `folder`, return at once if the result is there, and call `on_epoch` with each `EpochLog`.
    arguments : tuple
        Values that determine the result, and whose `repr` is complete.
    """

    name: str
    folder: Path
    epochs: int
    function: Callable[..., None]
    arguments: tuple[Any, ...]

    @property
    def digest(self) -> str:
        """Digest of the folder, and of what determines the result."""
        content = repr((str(self.folder.absolute()), self.function.__qualname__, self.arguments))
        return hashlib.sha256(content.encode()).hexdigest()[:32]


class Done(NamedTuple):
    """What a worker returns: its address, the trainings that its process has ended, and files if it is remote.

    `files` is None if the training was stopped.
    """

    worker: str
    trainings: int
    files: dict[str, bytes] | None


def train(task: Task, remote: bool) -> Done:
    """Run a training in a worker process of Dask.

    Raises
    ------
    WorkerError
        If the machine of a remote worker fails; the message names it.
    """
    worker = get_worker()
    key = worker.get_current_task()
    folder = cache_dir() / "trainings" / task.digest if remote else task.folder

    def report(epoch: int, balanced_accuracy: float | None) -> None:
        worker.log_event(TOPIC, {"key": key, "epoch": epoch, "balanced_accuracy": balanced_accuracy})
        if key in _stop_requested:
            raise _Stopped

    def on_epoch(log: EpochLog) -> None:
        report(log.epoch, log.balanced_accuracy)

    files: dict[str, bytes] | None = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=True):  # a worker whose driver was killed may still be in its last epoch
            report(0, None)
            task.function(*task.arguments, folder=folder, on_epoch=on_epoch)
            if remote:
                files = {path.name: path.read_bytes() for path in folder.glob("[!.]*")}
    except _Stopped:
        files = None
    except (OSError, MemoryError) as error:
        if not remote:
            raise
        raise WorkerError(f"on {socket.gethostname()}: {str(error) or type(error).__name__}") from error
    finally:
        _stop_requested.discard(key)
    return Done(worker.address, next(_ended), files)


def request_stop(keys: list[str], dask_worker: Any) -> None:
    """Stop those trainings of this process that have these keys after their current epoch."""
    _stop_requested.update(key for key in keys if key in dask_worker.state.tasks)


def end_process(dask_worker: Any) -> bool:
    """End this process if it has a nanny that starts another one; else return True."""
    if dask_worker.nanny:
        os._exit(0)
    return True


class _Stopped(BaseException):
    """Raised in a training to stop it; an Exception would count as its failure."""
