"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest


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
