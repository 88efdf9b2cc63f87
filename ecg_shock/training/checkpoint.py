"""One file that holds a training run between two epochs, written so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.npyio import NpzFile

LOCK_NAME = ".lock"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training run after an epoch.

    Parameters
    ----------
    run : dict
        What the run is, as JSON holds it: network, configuration and digests of the data.
    history : list of dict
        The epochs so far, as JSON holds them.
    model : list of numpy.ndarray
        All variables of the model, the states of its dropout seeds with them.
    best : list of numpy.ndarray
        All variables of the model as it was judged best so far, its averaged weights among them.
    optimizer : list of numpy.ndarray
        All variables of the optimiser.
    sampler : dict of str to numpy.ndarray
        The sampler's state.
    """

    run: dict[str, Any]
    history: list[dict[str, Any]]
    model: list[np.ndarray]
    best: list[np.ndarray]
    optimizer: list[np.ndarray]
    sampler: dict[str, np.ndarray]


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` only when it is complete and on disk.

    Parameters
    ----------
    path : pathlib.Path
        The file to write; until the end of the `with` block it stays as it was.

    Yields
    ------
    file object
        Open for writing bytes.
    """
    # Each process has its own, so that two that write the same file never mix their bytes.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep every other process that asks for the same lock out of a folder.

    The system gives the lock back when the process ends, however it ends; the empty file ``.lock`` stays.

    Parameters
    ----------
    folder : pathlib.Path
        An existing folder.

    Raises
    ------
    OSError
        If another process holds the lock, or the folder cannot be written to.
    """
    with (folder / LOCK_NAME).open("ab") as file:
        if not _try_to_lock(file):
            raise OSError(f"another run works in {folder}; wait for it or choose another folder with --out")
        yield


def _try_to_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)  # the lock is on the byte at the file's position
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # what POSIX and Windows say when the lock is taken
        return False
    return True


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before.

    Parameters
    ----------
    path : pathlib.Path
        The file, by convention ``.npz``; it holds arrays and JSON, no pickles.
    checkpoint : Checkpoint
        What to write.
    """
    arrays: dict[str, Any] = {
        "run": np.array(json.dumps(checkpoint.run)),
        "history": np.array(json.dumps(checkpoint.history)),
    }
    for part in ("model", "best", "optimizer"):
        arrays |= {f"{part}/{i}": array for i, array in enumerate(getattr(checkpoint, part))}
    arrays |= {f"sampler/{name}": array for name, array in checkpoint.sampler.items()}
    with atomic_writer(path) as file:
        np.savez(file, **arrays)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : pathlib.Path
        A file that `save_checkpoint` wrote.

    Returns
    -------
    Checkpoint
        Equal, bit for bit, to what was saved.

    Raises
    ------
    ValueError
        If the file is damaged or is no checkpoint.
    OSError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        parts = {
            part: [arrays[f"{part}/{i}"] for i in range(sum(name.startswith(f"{part}/") for name in arrays))]
            for part in ("model", "best", "optimizer")
        }
        sampler = {name.removeprefix("sampler/"): a for name, a in arrays.items() if name.startswith("sampler/")}
        run, history = json.loads(str(arrays["run"])), json.loads(str(arrays["history"]))
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{path} is damaged or no training checkpoint ({type(error).__name__}: {error}); "
            "delete it to train this folder from the start, or restore it from a copy"
        ) from error
    return Checkpoint(run=run, history=history, sampler=sampler, **parts)
