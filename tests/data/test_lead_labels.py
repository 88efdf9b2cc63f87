"""Labels of ECG leads, and of the other signals in a file."""

from __future__ import annotations

import pytest

from ecg_shock.data.lead_labels import is_ecg

LEADS = (
    *(
        "ECG",
        "ekg",
        "ECG1",
        "ECG_II",
        "ecgII",
        "I",
        "II",
        "III",
        "aVR",
        "AVL",
        "-aVR",
        "V1",
        "V6",
        "MLII",
        "MCL1",
        "MV2",
    ),
    *("CM5", "D3", "DI", "EKG1-EKG2", "ECG-2", "Lead II", "lead_I", "LEAD V2", "ECG (mV)", "ECG_V", "II [uV]", "v4 mV"),
)
OTHERS = (
    *("", "1", "12", "ch1", "EEG C3-M2", "C3", "EOG-L", "EMG", "Resp", "ABP", "PLETH", "SpO2", "HR", "acc_x", "marker"),
    *("time", "Unnamed: 0", "value", "mV", "Temp I", "ECG_time", "ecg_peaks", "ECG quality"),
)


@pytest.mark.parametrize("name", LEADS)
def test_leads(name: str) -> None:
    """Names of leads, with a unit or without."""
    assert is_ecg(name)


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str) -> None:
    """Other signals, values derived from an ECG, numbers, and an empty label."""
    assert not is_ecg(name)
