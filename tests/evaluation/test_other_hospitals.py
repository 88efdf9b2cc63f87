"""Specificity on other hospitals is that of their windows, by database and patient."""

from __future__ import annotations

import numpy as np
import pytest

from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.confidence import cluster_limit, lower_limit
from ecg_shock.evaluation.other_hospitals import specificity_by_database


def test_specificity_by_database() -> None:
    """Counts, patients and limits are those of each database by itself, and of all."""
    database = np.array(["ludb"] * 6 + ["qtdb"] * 4)
    patient = np.array(["ludb/1", "ludb/1", "ludb/2", "ludb/2", "ludb/3", "ludb/3", *["qtdb/a"] * 3, "qtdb/b"])
    shock = np.array([True, False, False, False, False, False, True, True, False, False])
    empty = np.full(10, "")
    windows = WindowSet(
        np.zeros((10, 250), np.float32), database, empty, empty, patient, empty, empty, np.arange(10.0), 2.0
    )
    found = specificity_by_database(windows, shock)
    assert list(found) == ["ludb", "qtdb", "all"]
    assert [(p.windows, p.patients, p.count) for p in found.values()] == [(6, 3, 5), (4, 2, 2), (10, 5, 7)]
    assert found["ludb"].lower_limit == lower_limit(5, 6)
    assert found["all"].cluster_limit == cluster_limit(np.array([1, 2, 2, 1, 1]), np.array([2, 2, 2, 3, 1]))
    with pytest.raises(ValueError, match=r"shock has shape \(9,\) for 10 windows"):
        specificity_by_database(windows, shock[1:])
