"""The worker searches with the real Keras Tuner; the training is faked, so that no network is built."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.datasets import Subsets
from ecg_shock.data.windows import WindowSet
from ecg_shock.search import worker
from ecg_shock.search.study import Study
from ecg_shock.search.trials import read_trials
from ecg_shock.training import fold
from ecg_shock.training.trainer import EpochLog, TrainingResult

# Keras Tuner calls the deprecated threading.currentThread.
pytestmark = pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning")


class Listener:
    """Replace the supervisor, and keep the messages."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def send(self, kind: str, trial: str, **more: object) -> None:
        """Keep a message."""
        self.heard.append((kind, trial))

    def stop_if_asked(self) -> None:
        """Never request a stop."""


def make_study(trials: int, *, space: dict | None = None, per_process: int = 100, seed: int = 0) -> Study:
    """Make a study of synthetic windows."""
    return Study.model_validate(
        {
            "name": "small",
            "data": {"databases": ("synthetic",), "split": "synthetic-v1"},
            "space": space or {"blocks": (1, 3), "filters": (5, 20), "kernels": (5, 20)},
            "search": {"trials": trials, "seed": seed, "trials_per_process": per_process},
            "training": {"epochs": 2},
        }
    )


def make_subset(patient: str) -> WindowSet:
    """Make two windows of one patient, one with each label."""
    names = {name: np.full(2, name) for name in ("database", "record", "lead", "rhythm")}
    return WindowSet(
        ecg=np.zeros((2, 625), dtype=np.float32),
        patient=np.full(2, patient),
        aha_class=np.array(["coarse_vf", "asystole"]),
        start_s=np.arange(2.0),
        window_s=5.0,
        **names,
    )


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Search in `tmp_path` with a fake training, and return the messages to the supervisor."""
    subsets = Subsets(make_subset("a"), make_subset("b"), make_subset("c"))
    monkeypatch.setattr(fold, "load_subsets", lambda data, folder: subsets)

    def _search(
        study: Study, fails=lambda spec: False, interrupt_at: int | None = None, interruption: type = KeyboardInterrupt
    ) -> list[tuple[str, str]]:
        trained = 0

        def train(spec, training, validation, config, folder, *, start, on_epoch):
            nonlocal trained
            trained += 1
            if trained == interrupt_at:
                raise interruption
            if fails(spec):
                raise ValueError("the loss is nan\nin epoch 1")
            sampling = {"drawn": {"asystole": 1.0}, "kish": 64.0, "largest_weight": 1.0, "gain": 1.0}
            log = EpochLog(1, 0.5, 0.4, 0.8, 1.0, 0.9, **sampling, effective_batch=64.0, seconds=1.5)
            on_epoch(log)
            return TrainingResult(folder, spec, config, (log,))

        monkeypatch.setattr(fold, "train", train)
        listener = Listener()
        worker.search(study, tmp_path, worker.Trainer(study, tmp_path, listener), listener)
        return listener.heard

    return _search


def drawn(folder: Path) -> list[tuple]:
    """Return the networks of all trials, in order."""
    return [(trial.filters, trial.kernels) for trial in read_trials(folder / "search")]


def test_search_trains_each_network_once(search, tmp_path: Path):
    """The requested number of different networks of the space is trained, without tensorboard."""
    heard = search(make_study(12))
    assert [kind for kind, _ in heard] == ["begin", "epoch", "end"] * 12
    networks = drawn(tmp_path)
    assert len(set(networks)) == 12
    assert {len(filters) for filters, _ in networks} == {1, 2, 3}
    assert {value for network in networks for blocks in network for value in blocks} == {5, 10, 15, 20}
    assert "tensorboard" not in sys.modules


@pytest.mark.parametrize("seed", [0, 3])
def test_draws_repeat_with_the_seed(search, tmp_path: Path, seed: int):
    """An interrupted and then lengthened search draws the same networks as an uninterrupted one, also with seed 0."""
    with pytest.raises(KeyboardInterrupt):
        search(make_study(4, seed=seed), interrupt_at=3)
    assert len(drawn(tmp_path)) == 2
    search(make_study(4, seed=seed))
    search(make_study(6, seed=seed))
    interrupted = drawn(tmp_path)
    assert len(interrupted) == 6
    (tmp_path / "search").rename(tmp_path / "first")
    search(make_study(6, seed=seed))
    assert drawn(tmp_path) == interrupted


@pytest.mark.parametrize("failure", [OSError, MemoryError])
def test_a_failing_machine_does_not_fail_the_trial(search, tmp_path: Path, failure: type[Exception]):
    """After a full disk or a lack of memory the same search trains the trial later."""
    with pytest.raises(failure):
        search(make_study(3), interrupt_at=2, interruption=failure)
    assert len(read_trials(tmp_path / "search")) == 1
    search(make_study(3))
    assert [trial.error for trial in read_trials(tmp_path / "search")] == [None] * 3


def test_failed_trials_are_recorded_and_the_search_goes_on(search, tmp_path: Path):
    """Failed trials are recorded with a traceback and not repeated, even more in a row than Keras Tuner allows."""
    search(make_study(8), fails=lambda spec: True)
    trials = read_trials(tmp_path / "search")
    assert [trial.error for trial in trials] == ["ValueError: the loss is nan in epoch 1"] * 8
    assert "Traceback" in (tmp_path / "search" / "trial_0" / "error.txt").read_text()
    heard = search(make_study(10))
    assert [trial for kind, trial in heard if kind == "begin"] == ["trial_08", "trial_09"]
    assert [trial.error is None for trial in read_trials(tmp_path / "search")] == [False] * 8 + [True] * 2


def test_a_small_space_is_searched_to_its_last_network(search, tmp_path: Path):
    """The search finds all networks of the space, even if nearly every draw is a known network."""
    space = {"blocks": (1, 2), "filters": (5, 10), "kernels": (5, 10)}
    heard = search(make_study(20, space=space))
    assert len(set(drawn(tmp_path))) == 20
    assert "exhausted" not in dict(heard)


def test_networks_that_do_not_fit_the_window_are_not_drawn(search, tmp_path: Path):
    """With 'valid' padding only networks that fit are trained; when none is left, the supervisor is told."""
    space = {"blocks": (6, 6), "filters": (5, 5), "kernels": (5, 10), "padding": "valid"}
    heard = search(make_study(64, space=space))
    possible = drawn(tmp_path)
    assert heard[-1][0] == "exhausted"
    assert 0 < len(possible) < 64
    assert len(set(possible)) == len(possible)


def test_a_crash_between_two_writes_loses_no_trial(search, tmp_path: Path):
    """A trial that the oracle's state does not list is drawn again, and an empty tuner file does not matter."""
    search(make_study(3))
    expected = drawn(tmp_path)
    oracle_file = tmp_path / "search" / "oracle.json"
    before = json.loads(oracle_file.read_text())
    search(make_study(4))
    expected = drawn(tmp_path)
    # The state after a crash right after writing the fourth trial's trial.json.
    oracle_file.write_text(json.dumps(before))
    (tmp_path / "search" / "trial_3" / "result.json").unlink()
    (tmp_path / "search" / "tuner0.json").write_text("")
    search(make_study(4))
    assert drawn(tmp_path) == expected
    assert json.loads(oracle_file.read_text())["end_order"] == ["0", "1", "2", "3"]


def test_a_deleted_result_is_trained_again(search, tmp_path: Path):
    """In a search that has ended, only the trial whose result was deleted is trained again."""
    search(make_study(3))
    expected = read_trials(tmp_path / "search")
    (tmp_path / "search" / "trial_1" / "result.json").unlink()
    assert [trial for kind, trial in search(make_study(3)) if kind == "begin"] == ["trial_1"]
    assert read_trials(tmp_path / "search") == expected


def test_a_process_stops_after_its_number_of_trials(search, tmp_path: Path):
    """After its number of trials the process ends with Recycled, unless no trial is left."""
    with pytest.raises(worker.Recycled):
        search(make_study(5, per_process=2))
    assert len(drawn(tmp_path)) == 2
    with pytest.raises(worker.Recycled):
        search(make_study(5, per_process=2))
    search(make_study(5, per_process=1))
    assert len(drawn(tmp_path)) == 5
