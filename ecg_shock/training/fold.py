"""The two ends of a training: windows become examples, and the best epoch becomes a bundle with its card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, DataConfig, Parts, shockable
from ecg_shock.data.windows import WindowSet
from ecg_shock.models.bundle import Bundle, write_bundle
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.training.trainer import ORIGIN_NAME, THRESHOLD, Examples, Groups, TrainingConfig, TrainingResult


def examples(windows: WindowSet, groups: Groups = "rhythm") -> Examples:
    """Make of windows what a network is trained on.

    Parameters
    ----------
    windows : WindowSet
        Windows of the clear classes.
    groups : {"rhythm", "rhythm-database", "rhythm-patient"}
        Which windows samplers take together: those of one AHA class, or of one AHA class in one database or patient.

    Returns
    -------
    ecg_shock.training.trainer.Examples
    """
    names = [windows.aha_class]
    if groups != "rhythm":
        names.append(windows.database if groups == "rhythm-database" else windows.patient)
    _, codes = np.unique(["\t".join(parts) for parts in zip(*names, strict=True)], return_inverse=True)
    return Examples(ecg=windows.ecg, shockable=shockable(windows), rhythm=windows.aha_class, groups=codes)


def patients(windows: WindowSet) -> list[str]:
    """Name the patients of windows; made-up ones only if there are no others.

    Parameters
    ----------
    windows : WindowSet
        A part of a run.

    Returns
    -------
    list of str
        Sorted.
    """
    real = windows.database != SYNTHETIC
    return sorted(set(windows.patient[real if real.any() else ~real].tolist()))


def ship(
    folder: Path,
    name: str,
    result: TrainingResult,
    *,
    spec: CnnSpec,
    data: DataConfig,
    training: TrainingConfig,
    parts: Parts,
    selection: str,
) -> Bundle:
    """Write the best epoch of a training as a bundle that says what it has seen.

    Parameters
    ----------
    folder : pathlib.Path
        The bundle's folder.
    name : str
        Name of the model on its card.
    result : TrainingResult
        The training.
    spec, data, training : CnnSpec, DataConfig, TrainingConfig
        What was trained, on what, and how.
    parts : Parts
        The windows; of the test part only the patients' names are used.
    selection : str
        How the network and its training were chosen, and with which patients: what a reader of the results must know.

    Returns
    -------
    Bundle
    """
    synthetic = SYNTHETIC in data.databases
    best = result.history[result.best_epoch - 1]
    origin = json.loads((result.folder / ORIGIN_NAME).read_text(encoding="utf-8"))
    card: dict[str, Any] = {
        "name": name + (" (synthetic data: says nothing about patients)" if synthetic else ""),
        "synthetic": synthetic,
        "protocol": "weights fitted on the train patients, the epoch chosen on the validation patients",
        "selection": selection,
        "commit": origin["commit"] or "not a checkout",
        "data": data.model_dump(mode="json", exclude_none=True),
        "training": training.model_dump(mode="json", exclude_none=True),
        "validation": {
            "epoch": best.epoch,
            "balanced_accuracy": best.balanced_accuracy,
            "sensitivity": best.sensitivity,
            "specificity": best.specificity,
            "windows": len(parts.validation),
            "patients": len(patients(parts.validation)),
        },
        "patients": {job: patients(getattr(parts, job)) for job in ("train", "validation", "test")},
        "synthetic_windows": int((parts.train.database == SYNTHETIC).sum()),
        "versions": origin["versions"],
    }
    return write_bundle(
        folder,
        result.load_model(),
        spec=spec,
        preprocessing=data.preprocessing,
        threshold=THRESHOLD,
        card=card,
    )
