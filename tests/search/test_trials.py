"""Trials are written, read back, ranked, and exported as CSV."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from ecg_shock.search.trials import Trial, rank, read_trial, read_trials, write_csv, write_trial


@pytest.fixture
def trials() -> list[Trial]:
    """Three good trials and a failed one."""
    common = {"learning_rate": 1e-3, "seed": 0, "macs": 1000, "seconds": 2.0, "sensitivity": 0.8, "specificity": 1.0}
    return [
        Trial(name="0", filters=(5,), kernels=(10,), parameters=61, balanced_accuracy=0.9, loss=0.3, **common),
        Trial(name="1", filters=(5, 5), kernels=(5, 5), parameters=161, balanced_accuracy=0.95, loss=0.2, **common),
        Trial(name="2", filters=(10,), kernels=(5,), parameters=71, balanced_accuracy=0.95, loss=0.1, **common),
        Trial(name="3", filters=(50,), kernels=(5,), parameters=351, error="died, badly", **common),
    ]


def test_trials_are_read_as_they_were_written(tmp_path: Path, trials: list[Trial]):
    """Trials are read as they were written, including the NaN of a failed one; an unfinished one is not read."""
    for trial in trials:
        (tmp_path / trial.name).mkdir()
        write_trial(tmp_path / trial.name, trial)
    (tmp_path / "unfinished").mkdir()
    found = read_trials(tmp_path)
    assert found[:3] == tuple(trials[:3])
    assert math.isnan(found[3].balanced_accuracy)
    assert found[3].error == "died, badly"
    assert read_trial(tmp_path / "unfinished") is None
    assert sorted(file.name for file in (tmp_path / "0").iterdir()) == ["result.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": "0"', b"\xff\xfe"])
def test_damaged_result_is_named(tmp_path: Path, trials: list[Trial], content: bytes):
    """An empty or truncated result is an error that names it and says what to do."""
    write_trial(tmp_path, trials[0])
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json is damaged \(.*; delete it, and run the same command again"):
        read_trial(tmp_path)


def test_csv_has_every_trial_and_ranks_the_good_ones(tmp_path: Path, trials: list[Trial]):
    """The CSV lists all trials, best first, and the failed one without a rank."""
    write_csv(tmp_path / "trials.csv", trials)
    with (tmp_path / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["rank"], row["name"]) for row in rows] == [("1", "2"), ("2", "1"), ("3", "0"), ("", "3")]
    assert rows[1]["filters"] == "5-5"
    assert rows[3]["error"] == "died, badly"


def test_rank_excludes_failed_trials(trials: list[Trial]):
    """Only trials with a result are ranked."""
    assert [trial.name for trial in rank(trials)] == ["2", "1", "0"]
