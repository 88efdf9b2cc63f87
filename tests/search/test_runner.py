"""A search draws and trains each network once, goes on after kills and errors, and records every start."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from ecg_shock.data.datasets import Subsets
from ecg_shock.data.windows import WindowSet, concatenate
from ecg_shock.search import runner as run
from ecg_shock.search.runner import RUN_FILE, record_start
from ecg_shock.search.study import Study
from ecg_shock.search.tasks import Task, WorkerError
from ecg_shock.search.trials import Trial, read_trials
from ecg_shock.training.fold import FoldSource, TrainingFold
from ecg_shock.training.trainer import CHECKPOINT_NAME, EpochLog, TrainingConfig, TrainingResult

# Keras Tuner calls the deprecated threading.currentThread.
pytestmark = pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning")

TINY = {
    "name": "tiny",
    "data": {"databases": ("synthetic",), "split": "synthetic-v1", "window_s": 2.0, "max_windows": 2},
    "space": {"blocks": (1, 2), "filters": (5, 5), "kernels": (5, 10)},
    "search": {"trials": 3, "seed": 4, "trials_per_process": 2, "epochs": 2},
    "training": {"epochs": 1, "sampler": "uniform"},
    "consensus": {"learning_rates": (1e-3,), "seeds": 1},
}
SMALL_SPACE = {"blocks": (1, 3), "filters": (5, 20), "kernels": (5, 20)}


def make_small(trials: int, space: dict[str, Any] = SMALL_SPACE, seed: int = 0) -> Study:
    """Make a study whose trainings are replaced."""
    content = {"space": space, "search": {"trials": trials, "seed": seed}, "data": {"databases": ("synthetic",)}}
    return Study.model_validate({"name": "small", **content})


class ReplacedFold:
    """A fold whose trainings fail, or raise an error at training number `interrupt_at`."""

    def __init__(self, fails: bool = False, interrupt_at: int | None = None, error: Any = None) -> None:
        self.fails, self.interrupt_at, self.error = fails, interrupt_at, error
        self.trained = 0

    def train(
        self, spec: Any, config: TrainingConfig, folder: Path, *, on_epoch: Callable[[EpochLog], None]
    ) -> TrainingResult:
        """Do as `TrainingFold.train`."""
        self.trained += 1
        if self.trained == self.interrupt_at:
            raise self.error
        if self.fails:
            raise ValueError("the loss is nan\nin epoch 1")
        sampling = {"drawn": {"asystole": 1.0}, "kish": 64.0, "largest_weight": 1.0, "gain": 1.0}
        log = EpochLog(1, 0.5, 0.4, 0.8, 1.0, 0.9, **sampling, effective_batch=64.0, seconds=1.5)
        (folder / CHECKPOINT_NAME).write_bytes(b"weights")
        on_epoch(log)
        return TrainingResult(folder, spec, config, (log,))


@pytest.fixture
def search(inline_engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Search in `tmp_path` with replaced trainings, and return the names of the trials that were begun."""

    def _search(study: Study, **behaviour: Any) -> list[str]:
        fold = ReplacedFold(**behaviour)
        monkeypatch.setattr(run, "load_fold", lambda source: fold)
        inline_engine.begun.clear()
        waiting = run.trial_tasks(study, tmp_path, FoldSource(study.data, None, None))
        for trial in run.train_networks(inline_engine, waiting, lambda task, epoch, balanced_accuracy: None):
            assert trial.name in {known.name for known in read_trials(tmp_path / "search")}
        return inline_engine.begun

    return _search


def drawn(folder: Path) -> list[tuple]:
    """Return the networks of all trials, in order."""
    return [(trial.filters, trial.kernels) for trial in read_trials(folder / "search")]


def test_search_trains_each_network_once(search: Callable, tmp_path: Path) -> None:
    """As many different networks as requested are trained, the most expensive first; their weights are not kept."""
    begun = search(make_small(12))
    macs = {trial.name: trial.macs for trial in read_trials(tmp_path / "search")}
    assert sorted(begun) == list(macs) == [f"{number:04d}" for number in range(12)]
    assert [macs[name] for name in begun] == sorted(macs.values(), reverse=True)
    networks = drawn(tmp_path)
    assert len(set(networks)) == 12
    assert {len(filters) for filters, _ in networks} == {1, 2, 3}
    assert {value for network in networks for blocks in network for value in blocks} == {5, 10, 15, 20}
    assert {file.name for file in (tmp_path / "search" / "trial_0003").iterdir()} == {"result.json"}
    assert search(make_small(12)) == []


@pytest.mark.parametrize("seed", [0, 3])
def test_draws_repeat_with_the_seed(search: Callable, tmp_path: Path, seed: int) -> None:
    """An interrupted and then lengthened search draws the same networks as an uninterrupted one, also with seed 0."""
    with pytest.raises(KeyboardInterrupt):
        search(make_small(4, seed=seed), interrupt_at=3, error=KeyboardInterrupt)
    first = {trial.name for trial in read_trials(tmp_path / "search")}
    assert len(first) == 2
    assert set(search(make_small(4, seed=seed))) == {"0000", "0001", "0002", "0003"} - first
    search(make_small(6, seed=seed))
    interrupted = drawn(tmp_path)
    assert len(interrupted) == 6
    (tmp_path / "search").rename(tmp_path / "first")
    search(make_small(6, seed=seed))
    assert drawn(tmp_path) == interrupted


@pytest.mark.parametrize("error", [OSError, MemoryError])
def test_a_failing_machine_does_not_fail_the_trial(search: Callable, tmp_path: Path, error: type[Exception]) -> None:
    """After a full disk or a lack of memory the same search trains the trial later."""
    with pytest.raises(error):
        search(make_small(3), interrupt_at=2, error=error)
    assert len(read_trials(tmp_path / "search")) == 1
    search(make_small(3))
    assert [trial.error for trial in read_trials(tmp_path / "search")] == [None] * 3


def test_failed_trials_are_recorded_and_the_search_goes_on(search: Callable, tmp_path: Path) -> None:
    """Failed trials are recorded with a traceback and not repeated, but ten in a row end the search."""
    search(make_small(8), fails=True)
    trials = read_trials(tmp_path / "search")
    assert [trial.error for trial in trials] == ["ValueError: the loss is nan in epoch 1"] * 8
    assert "Traceback" in (tmp_path / "search" / "trial_0000" / "error.txt").read_text()
    assert sorted(search(make_small(10))) == ["0008", "0009"]
    assert [trial.error is None for trial in read_trials(tmp_path / "search")] == [False] * 8 + [True] * 2
    with pytest.raises(
        WorkerError, match="10 trainings in a row failed, .*the loss is nan.*run the same command again"
    ):
        search(make_small(25), fails=True)
    assert len(read_trials(tmp_path / "search")) == 20


def test_a_trial_that_kills_its_process_becomes_a_failed_one(tmp_path: Path) -> None:
    """A trial that the engine gives up is recorded with its network and the reason."""

    class GivingUp:
        def run(self, waiting: Iterator[Task], on_progress: object) -> Iterator[tuple[Task, str]]:
            for task in waiting:
                task.folder.mkdir(parents=True)
                yield task, "the process died 3 times in this training"

    waiting = run.trial_tasks(make_small(1), tmp_path, FoldSource(make_small(1).data, None, None))
    (trial,) = run.train_networks(GivingUp(), waiting, lambda task, epoch, balanced_accuracy: None)
    assert (trial.name, trial.error) == ("0000", "the process died 3 times in this training")
    assert repr(read_trials(tmp_path / "search")) == repr((trial,))  # NaN is not equal to NaN
    assert trial.parameters > 0


def test_a_small_space_is_searched_to_its_last_network(
    search: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The search finds all networks of the space, even if nearly every draw is a known network."""
    search(make_small(20, {"blocks": (1, 2), "filters": (5, 10), "kernels": (5, 10)}))
    assert len(set(drawn(tmp_path))) == 20
    assert not caplog.records


def test_networks_that_do_not_fit_the_window_are_not_drawn(
    search: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With 'valid' padding only networks that fit are trained, and a warning counts them."""
    search(make_small(64, {"blocks": (6, 6), "filters": (5, 5), "kernels": (5, 10), "padding": "valid"}))
    possible = drawn(tmp_path)
    assert 0 < len(possible) < 64
    assert len(set(possible)) == len(possible)
    assert f"ends after {len(possible)} of 64 trials" in caplog.text


def test_a_deleted_result_is_trained_again(search: Callable, tmp_path: Path) -> None:
    """In a search that has ended, only the trial whose result was deleted is trained again."""
    search(make_small(3))
    expected = read_trials(tmp_path / "search")
    assert [trial.error for trial in expected] == [None] * 3
    (tmp_path / "search" / "trial_0001" / "result.json").unlink()
    assert search(make_small(3)) == ["0001"]
    assert read_trials(tmp_path / "search") == expected


@pytest.mark.slow
def test_tune_goes_on_after_a_kill_and_ends_with_a_bundle(tmp_path: Path, inline_engine: Any) -> None:
    """If killed in its search and run again, the command trains the same as one process that is not disturbed."""
    study, out = tmp_path / "tiny.toml", tmp_path / "out"
    study.write_text(tomli_w.dumps(TINY))
    command = [sys.executable, "-m", "ecg_shock.tune", str(study), "--out", str(out), "--workers"]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}

    with subprocess.Popen(
        [*command, "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as killed:
        for line in killed.stdout:
            if line.startswith("search 1/3"):
                killed.kill()
    assert killed.returncode == -signal.SIGKILL

    done = subprocess.run([*command, "1"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "search 1/3" not in done.stdout
    assert "search 3/3" in done.stdout
    assert "synthetic" in done.stdout
    assert "chosen" in done.stdout
    assert (out / "bundle").is_dir()
    for name in ("trials.csv", "trials.png", "consensus.png", "retrained.csv", "choice.json"):
        assert (out / name).stat().st_size > 0
    record = json.loads((out / RUN_FILE).read_text())
    assert record["synthetic"] is True
    assert len(record["starts"]) == 2
    patients = [set(record["parts"][subset]["patients"]) for subset in ("train", "validation", "test")]
    assert all(patients)
    assert len(set.union(*patients)) == sum(len(subset) for subset in patients)

    undisturbed = Study.model_validate(TINY)
    waiting = run.trial_tasks(undisturbed, tmp_path, FoldSource(undisturbed.data, None, record["data_digest"]))
    trained = run.train_networks(inline_engine, waiting, lambda task, epoch, balanced_accuracy: None)
    expected = sorted(trained, key=lambda trial: trial.name)  # the most expensive network is trained first
    assert len(expected) == 3
    for trial, found in zip(expected, read_trials(out / "search"), strict=True):
        assert found.model_copy(update={"seconds": 0.0, "loss": 0.0}) == trial.model_copy(
            update={"seconds": 0.0, "loss": 0.0}
        )
        assert found.loss == pytest.approx(trial.loss, rel=1e-4)  # this process may have other threads
    with (out / "trials.csv").open(newline="") as stream:
        assert {row["name"] for row in csv.DictReader(stream)} == {"0000", "0001", "0002"}


def test_retraining_covers_every_setting_before_the_next_seed():
    """Each candidate has a job and a folder for every learning rate and seed, sorted by seed."""
    study = Study.model_validate({**TINY, "consensus": {"learning_rates": (1e-4, 1e-3), "seeds": 2}})
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


def record_start_of(database: str, subsets: Subsets, folder: Path) -> None:
    """Record the start of a study of one database."""
    study = make_study(database)
    record_start(study, TrainingFold(study.data, subsets), folder)


def test_every_start_is_recorded(tmp_path: Path):
    """A continued run adds its start, and other windows are an error."""
    for starts in (1, 2):
        record_start_of("vfdb", subsets_with(make_subset("vfdb", "vfdb/1")), tmp_path)
        assert len(json.loads((tmp_path / RUN_FILE).read_text())["starts"]) == starts
    with pytest.raises(ValueError, match="begun with other windows"):
        record_start_of("vfdb", subsets_with(make_subset("vfdb", "vfdb/1", level=1.0)), tmp_path)


def test_synthetic_patients_are_counted_separately(tmp_path: Path):
    """Synthetic windows are counted separately from those of patients, unless the study is synthetic."""
    synthetic = make_subset("synthetic", "synthetic/1", "synthetic/2", "synthetic/2")
    mixed = subsets_with(concatenate([make_subset("vfdb", "vfdb/1", "vfdb/2"), synthetic]))
    record_start_of("vfdb", mixed, tmp_path)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert record["synthetic"] is False
    assert record["parts"]["train"] == {
        "patients": ["vfdb/1", "vfdb/2"],
        "windows": {"asystole": 2},
        "supplement": {"synthetic_patients": 2, "windows": {"asystole": 3}},
    }
    assert "supplement" not in record["parts"]["validation"]

    (tmp_path / RUN_FILE).unlink()
    record_start_of("synthetic", subsets_with(synthetic), tmp_path)
    record = json.loads((tmp_path / RUN_FILE).read_text())
    assert record["parts"]["train"] == {"patients": ["synthetic/1", "synthetic/2"], "windows": {"asystole": 3}}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"data_digest": "0"', b"\xff\xfe"])
def test_damaged_record_is_named(tmp_path: Path, content: bytes):
    """A damaged run.json is not overwritten; the error names it and says what to do."""
    file = tmp_path / RUN_FILE
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged .*choose another folder with --out"):
        record_start_of("vfdb", subsets_with(make_subset("vfdb", "vfdb/1")), tmp_path)
    assert file.read_bytes() == content
