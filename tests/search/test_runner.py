"""Searches whose processes are killed lose only the current epoch and leave no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from ecg_shock.data.datasets import Subsets
from ecg_shock.data.windows import WindowSet, concatenate
from ecg_shock.search import runner as run
from ecg_shock.search.runner import RUN_FILE, record_start
from ecg_shock.search.study import Study, save_study
from ecg_shock.search.supervisor import RECYCLE, WorkerError
from ecg_shock.search.trials import Trial, read_trials

EPOCHS, TRIALS = 2, 3
END_TIMEOUT_S = 60

STUDY = {
    "name": "tiny",
    "data": {"databases": ("synthetic",), "split": "synthetic-v1", "window_s": 2.0, "max_windows": 2},
    "space": {"blocks": (1, 2), "filters": (5, 5), "kernels": (5, 10)},
    "search": {"trials": TRIALS, "seed": 4, "trials_per_process": 2, "epochs": EPOCHS},
    "training": {"epochs": 1, "sampler": "uniform"},
    "consensus": {"learning_rates": (1e-3,), "seeds": 1},
}


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    """Start a worker like its supervisor, and return it after its first epoch."""
    command = [sys.executable, "-m", "ecg_shock.search.worker", str(folder), "search", "--data", str(folder)]
    with (folder / "worker.log").open("ab") as log:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    for line in worker.stdout:
        if json.loads(line)["kind"] == "epoch":
            return worker
    raise AssertionError((folder / "worker.log").read_text())


@pytest.mark.slow
def test_a_search_survives_kills_on_both_sides(tmp_path: Path):
    """If its supervisor or the worker is killed, each epoch of each trial is still trained exactly once."""
    study = Study.model_validate(STUDY)
    save_study(study, tmp_path)

    # If the supervisor is killed, the worker reads the end of standard input.
    orphan = start_worker(tmp_path)
    orphan.stdin.close()
    orphan.wait(END_TIMEOUT_S)
    assert orphan.returncode not in (0, RECYCLE)
    orphan.stdout.close()
    assert read_trials(tmp_path / "search") == ()

    heard: list[tuple] = []
    killed: list[int] = []

    def kill_once(message: dict) -> None:
        heard.append((message["kind"], message["trial"], message.get("epoch")))
        if message["kind"] == "begin":
            pids.append(message["pid"])
        if message["kind"] == "epoch" and message["trial"] == "trial_1" and not killed:
            killed.append(pids[-1])
            os.kill(pids[-1], signal.SIGKILL)

    pids: list[int] = []
    trials = run.search(study, tmp_path, data_dir=tmp_path, on_message=kill_once)

    assert [trial.name for trial in trials] == ["0000", "0001", "0002"]
    assert all(trial.error is None and 0 <= trial.balanced_accuracy <= 1 for trial in trials)
    # The orphan trained the first epoch of trial 0, and the killed process that of trial 1; both are resumed.
    epochs = [(trial, epoch) for kind, trial, epoch in heard if kind == "epoch"]
    assert epochs == [("trial_0", 2), ("trial_1", 1), ("trial_1", 2), ("trial_2", 1), ("trial_2", 2)]
    assert [trial for kind, trial, _ in heard if kind == "end"] == ["trial_0", "trial_1", "trial_2"]
    # The first process was killed in trial 1; the second ends trials 1 and 2, its number of trials.
    assert len(set(pids)) == 2
    for pid in set(pids):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    assert run.search(study, tmp_path, data_dir=tmp_path, on_message=pytest.fail) == trials


@pytest.mark.slow
def test_tune_goes_on_after_a_kill_and_ends_with_a_bundle(tmp_path: Path):
    """If killed in its search and run again, the command ends all trainings and writes the bundle."""
    study, out = tmp_path / "tiny.toml", tmp_path / "out"
    study.write_text(tomli_w.dumps(STUDY))
    command = [sys.executable, "-m", "ecg_shock.tune", str(study), "--out", str(out), "--trials", "2"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as killed:
        for line in killed.stdout:
            if line.startswith("search 1/2"):
                killed.kill()
    assert killed.returncode == -signal.SIGKILL

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "search 1/2" not in done.stdout
    assert "search 2/2" in done.stdout
    assert "synthetic" in done.stdout
    assert "chosen" in done.stdout
    assert (out / "bundle").is_dir()
    for name in ("trials.csv", "trials.png", "retrained.csv", "choice.json"):
        assert (out / name).stat().st_size > 0
    record = json.loads((out / RUN_FILE).read_text())
    assert record["synthetic"] is True
    assert len(record["starts"]) == 2
    patients = [set(record["parts"][subset]["patients"]) for subset in ("train", "validation", "test")]
    assert all(patients)
    assert len(set.union(*patients)) == sum(len(subset) for subset in patients)


def test_failures_in_a_row_end_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten failures in a row are an error that says why; a success between them resets the count."""

    def says(outcomes: str):
        def supervise(command: list[str], log: Path, *, on_message, on_give_up) -> None:
            for index, outcome in enumerate(outcomes):
                error = "disk full" if outcome == "x" else None
                on_message({"kind": "end", "trial": str(index), "error": error})

        return supervise

    study = Study.model_validate(STUDY)
    monkeypatch.setattr(run, "supervise", says("xxxxxxxxx.xxxxxxxxx"))
    run.search(study, tmp_path, data_dir=tmp_path, on_message=lambda message: None)
    monkeypatch.setattr(run, "supervise", says("x" * 10))
    with pytest.raises(WorkerError, match="10 trainings in a row failed.*disk full"):
        run.search(study, tmp_path, data_dir=tmp_path, on_message=lambda message: None)


def test_a_broken_disk_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """If the worker cannot read or write a file, the search ends with an error and records no failed trial."""

    def supervise(command: list[str], log: Path, *, on_message, on_give_up) -> None:
        on_message({"kind": "broken", "trial": "", "error": "[Errno 28] No space left on device"})

    monkeypatch.setattr(run, "supervise", supervise)
    with pytest.raises(OSError, match="No space left on device; fix the cause"):
        run.search(Study.model_validate(STUDY), tmp_path, data_dir=tmp_path, on_message=lambda message: None)
    assert read_trials(tmp_path / "search") == ()


def test_a_trial_that_kills_its_process_becomes_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A trial that the supervisor gives up is recorded with its network and the reason."""
    begun = Trial(name="0001", filters=(5,), kernels=(10,), learning_rate=1e-3, seed=0, parameters=61, macs=1)
    place = tmp_path / "search" / "trial_1"
    place.mkdir(parents=True)
    (place / "begun.json").write_text(begun.model_dump_json())

    def supervise(command: list[str], log: Path, *, on_message, on_give_up) -> None:
        on_give_up("trial_1", "died three times")

    monkeypatch.setattr(run, "supervise", supervise)
    heard: list[dict] = []
    (trial,) = run.search(Study.model_validate(STUDY), tmp_path, data_dir=tmp_path, on_message=heard.append)
    assert (trial.filters, trial.error) == ((5,), "died three times")
    assert heard[0]["error"] == "died three times"


def test_retraining_covers_every_setting_before_the_next_seed():
    """Each candidate has a job and a folder for every learning rate and seed, sorted by seed."""
    study = Study.model_validate({**STUDY, "consensus": {"learning_rates": (1e-4, 1e-3), "seeds": 2}})
    trial = Trial(
        name="0", filters=(5,), kernels=(10,), learning_rate=1e-3, seed=0, parameters=61, macs=1, balanced_accuracy=0.9
    )
    chosen = run.find_candidates([trial], study.consensus, step=5)
    jobs = run.retraining_jobs(study, chosen)
    assert [(job.config.seed, job.config.learning_rate) for job in jobs] == [(0, 1e-4), (0, 1e-3), (1, 1e-4), (1, 1e-3)]
    assert len({job.name for job in jobs}) == 4
    assert {(job.spec.filters, job.spec.input_samples, job.config.epochs) for job in jobs} == {((5,), 250, 1)}


def make_subset(database: str, *patients: str, level: float = 0.0) -> WindowSet:
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


def subsets_with(train: WindowSet) -> Subsets:
    """Complete a train subset."""
    return Subsets(train, make_subset("vfdb", "vfdb/8"), make_subset("vfdb", "vfdb/9"))


def test_every_start_is_recorded(tmp_path: Path):
    """A continued run adds its start, and other windows are an error."""
    for starts in (1, 2):
        record_start(make_study("vfdb"), subsets_with(make_subset("vfdb", "vfdb/1")), tmp_path)
        assert len(json.loads((tmp_path / RUN_FILE).read_text())["starts"]) == starts
    with pytest.raises(ValueError, match="begun with other windows"):
        record_start(make_study("vfdb"), subsets_with(make_subset("vfdb", "vfdb/1", level=1.0)), tmp_path)


def test_synthetic_patients_are_counted_separately(tmp_path: Path):
    """Synthetic windows are counted separately from those of patients, unless the study is synthetic."""
    synthetic = make_subset("synthetic", "synthetic/1", "synthetic/2", "synthetic/2")
    mixed = subsets_with(concatenate([make_subset("vfdb", "vfdb/1", "vfdb/2"), synthetic]))
    record_start(make_study("vfdb"), mixed, tmp_path)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert record["synthetic"] is False
    assert record["parts"]["train"] == {
        "patients": ["vfdb/1", "vfdb/2"],
        "windows": {"asystole": 2},
        "supplement": {"synthetic_patients": 2, "windows": {"asystole": 3}},
    }
    assert "supplement" not in record["parts"]["validation"]

    (tmp_path / RUN_FILE).unlink()
    record_start(make_study("synthetic"), subsets_with(synthetic), tmp_path)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert record["parts"]["train"] == {"patients": ["synthetic/1", "synthetic/2"], "windows": {"asystole": 3}}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"data_digest": "0"', b"\xff\xfe"])
def test_damaged_record_is_named(tmp_path: Path, content: bytes):
    """A damaged run.json is not overwritten; the error names it and says what to do."""
    file = tmp_path / RUN_FILE
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged .*choose another folder with --out"):
        record_start(make_study("vfdb"), subsets_with(make_subset("vfdb", "vfdb/1")), tmp_path)
    assert file.read_bytes() == content
