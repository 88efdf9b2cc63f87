"""The record of a run: what it remembers, and when a run may go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.datasets import Parts
from ecg_shock.data.windows import WindowSet, concatenate
from ecg_shock.search.record import RUN_FILE, keep_run
from ecg_shock.search.study import Study


def make_part(database: str, *patients: str, level: float = 0.0) -> WindowSet:
    """Make a window of each patient."""
    n = len(patients)
    names = {name: np.full(n, name) for name in ("record", "lead", "rhythm")}
    return WindowSet(
        ecg=np.full((n, 625), level, dtype=np.float32),
        database=np.full(n, database),
        patient=np.array(patients),
        aha_class=np.full(n, "asystole"),
        start_s=np.arange(float(n)),
        window_s=5.0,
        **names,
    )


def make_study(database: str) -> Study:
    """Make a study of one database."""
    return Study.model_validate({"name": "small", "data": {"databases": [database]}, "search": {"trials": 1}})


def parts_with(train: WindowSet) -> Parts:
    """Complete a train part."""
    return Parts(train, make_part("vfdb", "vfdb/8"), make_part("vfdb", "vfdb/9"))


def test_every_start_is_kept(tmp_path: Path):
    """A run that goes on adds its start, and refuses other windows."""
    for starts in (1, 2):
        keep_run(make_study("vfdb"), parts_with(make_part("vfdb", "vfdb/1")), tmp_path)
        assert len(json.loads((tmp_path / RUN_FILE).read_text())["starts"]) == starts
    with pytest.raises(ValueError, match="begun with other windows"):
        keep_run(make_study("vfdb"), parts_with(make_part("vfdb", "vfdb/1", level=1.0)), tmp_path)


def test_made_up_patients_are_counted_apart(tmp_path: Path):
    """Synthetic windows stand apart from those of patients, unless the whole study is synthetic."""
    made_up = make_part("synthetic", "synthetic/1", "synthetic/2", "synthetic/2")
    mixed = parts_with(concatenate([make_part("vfdb", "vfdb/1", "vfdb/2"), made_up]))
    keep_run(make_study("vfdb"), mixed, tmp_path)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert record["synthetic"] is False
    assert record["parts"]["train"] == {
        "patients": ["vfdb/1", "vfdb/2"],
        "windows": {"asystole": 2},
        "supplement": {"synthetic_patients": 2, "windows": {"asystole": 3}},
    }
    assert "supplement" not in record["parts"]["validation"]

    (tmp_path / RUN_FILE).unlink()
    keep_run(make_study("synthetic"), parts_with(made_up), tmp_path)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert record["parts"]["train"] == {"patients": ["synthetic/1", "synthetic/2"], "windows": {"asystole": 3}}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"data_digest": "0"', b"\xff\xfe"])
def test_damaged_record_is_named(tmp_path: Path, content: bytes):
    """A record that cannot be read is not overwritten; the error names the file and what to do."""
    file = tmp_path / RUN_FILE
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged .*choose another folder with --out"):
        keep_run(make_study("vfdb"), parts_with(make_part("vfdb", "vfdb/1")), tmp_path)
    assert file.read_bytes() == content
