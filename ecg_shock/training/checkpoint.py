"""One file that holds a training run between two epochs, written so that a kill at any moment leaves a whole one."""

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
        What the run is, as JSON holds it: network, configuration and digests of the data.
    history : list of dict
        The epochs so far, as JSON holds them.
    model : list of numpy.ndarray
        All variables of the model, the states of its dropout seeds with them.
    best : list of numpy.ndarray
        All variables of the model at its best epoch so far, its averaged weights among them.
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
    """Write a checkpoint in place of the one before, as an ``.npz`` of arrays and JSON, without pickles."""
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
    """Read a checkpoint, equal, bit for bit, to what `save_checkpoint` was given.

    Raises
    ------
    ValueError
        If the file is damaged or is no checkpoint.
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
