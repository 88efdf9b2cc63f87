"""Tests of ecg_shock.training.fold: what of the windows a sampler gets to know."""

from __future__ import annotations

import numpy as np
import pytest

from ecg_shock.data.windows import WindowSet
from ecg_shock.training.fold import examples
from ecg_shock.training.trainer import TrainingConfig

# Two databases may name a rhythm alike, and a patient may have two rhythms.
ROWS = [
    ("vfdb", "vfdb:1", "coarse_vf"),
    ("vfdb", "vfdb:1", "normal_sinus"),
    ("cudb", "cudb:1", "coarse_vf"),
    ("vfdb", "vfdb:2", "coarse_vf"),
    ("vfdb", "vfdb:1", "coarse_vf"),
    ("mitdb", "mitdb:9", "normal_sinus"),
    ("cudb", "cudb:1", "asystole"),
    ("cudb", "cudb:2", "rapid_vt"),
]


@pytest.fixture
def windows(rng):
    """Return a window of each row."""
    database, patient, aha_class = (np.array(column) for column in zip(*ROWS, strict=True))
    empty = np.full(len(ROWS), "")
    return WindowSet(
        ecg=rng.normal(size=(len(ROWS), 250)).astype(np.float32),
        database=database,
        record=empty,
        lead=empty,
        patient=patient,
        rhythm=empty,
        aha_class=aha_class,
        start_s=np.zeros(len(ROWS)),
        window_s=2.0,
    )


@pytest.mark.parametrize(
    ("groups", "columns"), [("rhythm", [2]), ("rhythm-database", [2, 0]), ("rhythm-patient", [2, 1])]
)
def test_windows_are_taken_together_by_what_they_share(windows, groups, columns):
    """Two windows are of one group just when they share the rhythm, and with it the database or the patient."""
    made = examples(windows, groups)
    for i, one in enumerate(ROWS):
        for j, other in enumerate(ROWS):
            assert (made.groups[i] == made.groups[j]) == all(one[c] == other[c] for c in columns)
    np.testing.assert_array_equal(made.ecg, windows.ecg)
    np.testing.assert_array_equal(made.shockable, [r[2] in ("coarse_vf", "rapid_vt") for r in ROWS])
    np.testing.assert_array_equal(made.rhythm, [r[2] for r in ROWS])  # the history tells rhythms, whatever the groups


def test_every_choice_of_groups_is_known(windows):
    """The default is the configuration's, and each of its choices makes other groups."""
    default = examples(windows).groups
    np.testing.assert_array_equal(default, examples(windows, TrainingConfig().groups).groups)
    counts = [np.unique(examples(windows, g).groups).size for g in ("rhythm", "rhythm-database", "rhythm-patient")]
    assert counts == [4, 6, 7]


def test_groups_are_the_same_in_any_order(windows):
    """Codes depend on the names that there are and not on the order of windows, so that a run can be resumed."""
    made = examples(windows, "rhythm-patient")
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    again = examples(windows.select(order), "rhythm-patient")
    np.testing.assert_array_equal(again.groups, made.groups[order])
