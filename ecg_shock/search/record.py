"""The record of a run, `run.json`: what must be known to repeat it, that is versions, commit, patients and windows."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, Parts
from ecg_shock.data.windows import WindowSet
from ecg_shock.files import commit, versions, write_text
from ecg_shock.search.study import Study

RUN_FILE = "run.json"


def digest(*parts: WindowSet) -> str:
    """Hash what a network is trained and selected on: samples, classes and patients.

    Parameters
    ----------
    *parts : WindowSet
        Windows, in the order in which they are used.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(np.ascontiguousarray(part.ecg).tobytes())
        for names in (part.aha_class, part.patient):
            sha.update("\n".join(names.tolist()).encode())
    return sha.hexdigest()


def keep_run(study: Study, parts: Parts, folder: Path) -> None:
    """Write `run.json`, or add this start to the one found, after checking that the windows are the same.

    Parameters
    ----------
    study : Study
        What is about to run.
    parts : Parts
        The study's windows. Of the test part only the patients and the counts are written.
    folder : Path
        The run folder.

    Raises
    ------
    ValueError
        If the folder's run was begun with other windows, or its `run.json` is damaged.
    """
    file = folder / RUN_FILE
    found = digest(parts.train, parts.validation)
    starts: list[Any] = []
    if file.is_file():
        begun_with, starts = _read(file)
        if begun_with != found:
            raise ValueError(
                f"{folder} was begun with other windows: their digest was {begun_with[:12]}…, now it is "
                f"{found[:12]}…. The recordings, manifests, label policy or preprocessing have changed since; "
                "go back to those, or choose another folder with --out."
            )
    start = {
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
    }
    run = {
        "study": study.name,
        "synthetic": study.synthetic,
        "seeds": {
            "search": study.search.seed,
            "trials": study.training.seed,
            "consensus": [study.training.seed + index for index in range(study.consensus.seeds)],
        },
        "data_digest": found,
        "parts": {name: _summary(getattr(parts, name), study) for name in ("train", "validation", "test")},
        "starts": [*starts, start],
    }
    write_text(file, json.dumps(run, indent=2))


def made_up(part: WindowSet, study: Study) -> np.ndarray:
    """Say which windows `data.supplement` added to those of patients.

    Parameters
    ----------
    part : WindowSet
        Windows of the study.
    study : Study
        If all its windows are synthetic, none of them was added.

    Returns
    -------
    numpy.ndarray of bool
        Shape (n_windows,).
    """
    return (part.database == SYNTHETIC) & (not study.synthetic)


def _read(file: Path) -> tuple[str, list[Any]]:
    """Return the digest of the windows and the starts so far."""
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        return str(run["data_digest"]), list(run["starts"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is damaged ({type(error).__name__}: {error}); "
            "restore it from a copy, or choose another folder with --out"
        ) from error


def _summary(part: WindowSet, study: Study) -> dict[str, Any]:
    added = made_up(part, study)
    summary: dict[str, Any] = {
        "patients": sorted(set(part.patient[~added].tolist())),
        "windows": _count(part.aha_class[~added]),
    }
    if added.any():
        summary["supplement"] = {
            "synthetic_patients": len(set(part.patient[added].tolist())),
            "windows": _count(part.aha_class[added]),
        }
    return summary


def _count(classes: np.ndarray) -> dict[str, int]:
    return dict(sorted(Counter(classes.tolist()).items()))
