"""`predict` does what was validated: single strips are classified like windows of a filtered recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_shock import Advisor
from ecg_shock.data.annotations import read_labelled
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.windows import cut_windows
from ecg_shock.rhythms import INTERMEDIATE

# Validation patients of the model that comes with the package: all rhythms, and not its test patients.
RECORDS = {"vfdb": ("418", "421", "430", "602"), "cudb": ("cu11", "cu22", "cu24", "cu29"), "mitdb": ("102", "219")}


@pytest.mark.recordings
@pytest.mark.parametrize("window_s", [2.0, 5.0, 10.0])
def test_predict_agrees_with_what_is_validated(window_s: float, recordings_dir: Path) -> None:
    """At least 98 % of the decisions are the same, although a strip does not know what came before it."""
    advisor = Advisor()
    same = []
    for database, records in RECORDS.items():
        manifest = load_manifest(database)
        for record in records:
            recording = read_labelled(record, manifest, recordings_dir / database)
            windows = cut_windows(recording, window_s, guard_s=manifest.guard_s)
            windows = windows.select(~np.isin(windows.aha_class, INTERMEDIATE))
            windows = windows.select(np.arange(0, len(windows), 3))
            n = round(window_s * recording.fs)
            firsts = np.round(windows.start_s * recording.fs).astype(int)
            strips = recording.signal[firsts[:, np.newaxis] + np.arange(n), 0]
            advised = np.array([advice.shock for advice in advisor.predict_many(strips, recording.fs)])
            validated = advisor.probabilities(windows.ecg) >= advisor.bundle.threshold
            same.append(advised == validated)
    agreement = np.concatenate(same)
    print(f"{window_s:g} s: {np.sum(~agreement)} of {len(agreement)} decisions differ")
    assert len(agreement) > 300
    assert agreement.mean() >= 0.98
