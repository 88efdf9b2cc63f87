"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.rhythms import RHYTHMS

SPLIT = {"vf": "fine_vf", "vt": "other_vt"}


def _find_recordings() -> Path | None:
    beside_checkout = Path(__file__).resolve().parents[2] / "shared" / "data"
    candidates = [os.environ.get("ECG_SHOCK_DATA"), beside_checkout]
    return next((Path(c) for c in candidates if c and (Path(c) / "vfdb").is_dir()), None)


@pytest.fixture(scope="session")
def recordings_dir() -> Path:
    """Folder with the real recordings: vfdb/, cudb/, mitdb/, nstdb/."""
    folder = _find_recordings()
    if folder is None:
        pytest.skip("the real recordings are missing: set ECG_SHOCK_DATA, or run `ecg-shock fetch vfdb cudb mitdb`")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20201031)


@pytest.fixture
def make_predictions(rng: np.random.Generator) -> Callable[..., Predictions]:
    """Build predictions of `n` windows from random patients, rhythms and advice, a fifth of it wrong."""

    def make(n: int, duration_s: float = 5.0, databases: tuple[str, ...] = ("cudb", "vfdb")) -> Predictions:
        patient = rng.integers(0, 20, n)
        database = np.array(databases)[patient % len(databases)]
        rhythm = rng.choice(list(RHYTHMS), n)
        aha_class = np.array([SPLIT[r] if r in SPLIT and rng.random() < 0.3 else RHYTHMS[r] for r in rhythm], dtype=str)
        probability = np.where(np.isin(rhythm, ["vf", "vt"]), 0.9, 0.1)
        probability = np.where(rng.random(n) < 0.2, rng.random(n), probability)
        return Predictions(
            database=database,
            record=np.array([f"r{p}" for p in patient], dtype=str),
            lead=np.full(n, "ECG"),
            patient=np.array([f"{d}/r{p}" for d, p in zip(database, patient, strict=True)], dtype=str),
            start_s=np.arange(n) * duration_s + 1 / 3,
            duration_s=np.full(n, duration_s),
            rhythm=rhythm,
            aha_class=aha_class,
            probability=probability,
            shock=probability > 0.5,
            fold=patient % 5,
        )

    return make
