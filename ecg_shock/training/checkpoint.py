"""Save a training run after each epoch in one file, which is replaced atomically."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from ecg_shock.files import atomic_writer


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training run after an epoch.

    Parameters
    ----------
    run : dict
        Network, configuration and digests of the data, which identify the run. It must be serialisable as JSON.
    history : list of dict
        The logs of all epochs so far, serialisable as JSON.
    model : list of numpy.ndarray
        All variables of the model, including the states of its dropout seeds.
    best : list of numpy.ndarray
        All variables of the model at its best epoch so far, with the averaged weights.
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


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to an ``.npz`` file without pickles, replacing an older one."""
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
    """Read a checkpoint that `save_checkpoint` wrote.

    Raises
    ------
    ValueError
        If the file is damaged or is not a checkpoint.
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
            f"{path} is damaged or is not a training checkpoint ({type(error).__name__}: {error}); "
            "restore it from a copy, or delete it to train from the start"
        ) from error
    return Checkpoint(run=run, history=history, sampler=sampler, **parts)
