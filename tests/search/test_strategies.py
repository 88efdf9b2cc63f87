"""Each strategy draws what its rule says, and an interrupted search continues exactly as an uninterrupted one."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecg_shock.models.cnn import CnnSpec
from ecg_shock.search import runner as run
from ecg_shock.search.stopping import StoppingConfig, is_hopeless, medians_of
from ecg_shock.search.strategies import brackets, count_trainings
from ecg_shock.search.study import Study
from ecg_shock.search.trials import Trial, read_trials, write_csv
from ecg_shock.training.fold import FoldSource
from ecg_shock.training.trainer import CHECKPOINT_NAME, EpochLog, TrainingConfig, TrainingResult

EPOCHS = 9
SPACE = {"blocks": (1, 2), "filters": (5, 50), "kernels": (5, 50)}
ONE_BLOCK = {**SPACE, "blocks": (1, 1)}
HISTORIES = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=8)


def make_study(trials: int, strategy: str = "random", **settings: Any) -> Study:
    """Make a study whose trainings are replaced."""
    search = {"trials": trials, "strategy": strategy, "epochs": EPOCHS}
    content = {"name": "small", "space": SPACE, "search": search, "data": {"databases": ("synthetic",)}}
    return Study.model_validate({**content, **settings})


def quality(spec: CnnSpec) -> float:
    """Return the final balanced accuracy of a replaced training; it depends on the first block only."""
    return 0.9 - abs(spec.filters[0] - 35) / 100 - abs(spec.kernels[0] - 20) / 200


class ReplacedFold:
    """A fold whose trainings approach `quality`, continue what is in the folder, and can be interrupted."""

    def __init__(self) -> None:
        self.epochs = 0
        self.interrupt_at = math.inf
        self.fails: set[str] = set()

    def read(self, folder: Path) -> TrainingResult:
        """Do as `read_result`."""
        spec, done = (folder / CHECKPOINT_NAME).read_text().split(" epochs ")
        return self._result(folder, eval(spec, {"CnnSpec": CnnSpec}), int(done))

    def train(
        self, spec: CnnSpec, config: TrainingConfig, folder: Path, *, on_epoch: Callable[[EpochLog], None]
    ) -> TrainingResult:
        """Do as `TrainingFold.train`."""
        if folder.name in self.fails:
            raise ValueError("the loss is nan")
        saved = folder / CHECKPOINT_NAME
        begun = len(self.read(folder).history) if saved.is_file() else 0
        for epoch in range(begun + 1, config.epochs + 1):
            self.epochs += 1
            saved.write_text(f"{spec!r} epochs {epoch}")
            if self.epochs == self.interrupt_at:
                raise KeyboardInterrupt
            on_epoch(self.read(folder).history[-1])
        return self._result(folder, spec, config.epochs)

    @staticmethod
    def _result(folder: Path, spec: CnnSpec, epochs: int) -> TrainingResult:
        values = [quality(spec) * (1 - 0.5**epoch) for epoch in range(1, epochs + 1)]
        logs = [
            EpochLog(epoch, 0.5, 0.4, value, value, value, {}, 64.0, 1.0, 1.0, 64.0, seconds=1.5)
            for epoch, value in enumerate(values, start=1)
        ]
        return TrainingResult(folder, spec, SimpleNamespace(), tuple(logs))


@pytest.fixture
def fold(monkeypatch: pytest.MonkeyPatch) -> ReplacedFold:
    """Replace the trainings."""
    fold = ReplacedFold()
    monkeypatch.setattr(run, "load_fold", lambda source: fold)
    monkeypatch.setattr(run, "read_result", fold.read)
    return fold


@pytest.fixture
def search(inline_engine: Any, fold: ReplacedFold) -> Callable[[Study, Path], tuple[Trial, ...]]:
    """Search in a folder, and return the trials."""

    def _search(study: Study, folder: Path) -> tuple[Trial, ...]:
        tasks = run.trial_tasks(study, folder, FoldSource(study.data, None, None))
        for _ in run.train_networks(inline_engine, tasks, lambda task, epoch, balanced_accuracy: None):
            pass
        return read_trials(folder / "search")

    return _search


@pytest.mark.parametrize(
    "study",
    [
        make_study(14, "hyperband"),
        make_study(12, "bayesian", space=ONE_BLOCK),
        make_study(14, stopping={"warm_up": 2, "min_trials": 4}),
    ],
    ids=["hyperband", "bayesian", "stopping"],
)
def test_an_interrupted_search_continues_exactly(
    study: Study, search: Callable, fold: ReplacedFold, tmp_path: Path
) -> None:
    """However often a search is interrupted, it ends with the same trials, and trains no epoch twice."""
    expected = search(study, tmp_path / "undisturbed")
    trained = fold.epochs
    assert len(expected) == study.search.trials
    for _ in range(30):
        fold.interrupt_at = fold.epochs + 5
        try:
            found = search(study, tmp_path / "disturbed")
            break
        except KeyboardInterrupt:
            pass
    assert [trial.model_copy(update={"seconds": 0.0}) for trial in found] == [
        trial.model_copy(update={"seconds": 0.0}) for trial in expected
    ]
    assert fold.epochs == 2 * trained
    assert search(study, tmp_path / "disturbed") == found
    assert fold.epochs == 2 * trained


def test_hyperband_trains_the_best_third_further(search: Callable, fold: ReplacedFold, tmp_path: Path) -> None:
    """In each bracket, the best third of each rung is trained further, from its weights; all weights go in the end."""
    study = make_study(20, "hyperband")
    trials = search(study, tmp_path)
    plan = [(0, 9, (1, 3, 9)), (9, 5, (3, 9)), (14, 3, (9,)), (17, 3, (1, 3, 9))]
    assert list(brackets(20, EPOCHS)) == plan
    expected: dict[str, int] = {}
    for first, size, rungs in plan:
        members = list(trials[first : first + size])
        for rung in rungs:
            expected |= {trial.name: rung for trial in members}
            members = sorted(members, key=lambda trial: -trial.balanced_accuracy / (1 - 0.5**trial.epochs))
            members = members[: max(1, len(members) // 3)]
    assert {trial.name: trial.epochs for trial in trials} == expected
    assert {trial.name: len(trial.history) for trial in trials} == expected
    assert fold.epochs == sum(expected.values())
    assert not list(tmp_path.glob(f"search/*/{CHECKPOINT_NAME}"))
    assert count_trainings(study, ()) == (9 + 3 + 1 + 5 + 1 + 3 + 3 + 1 + 1, 0)
    assert count_trainings(study, trials) == (27, 27)


def test_hyperband_goes_on_without_failed_trials(search: Callable, fold: ReplacedFold, tmp_path: Path) -> None:
    """A failed network is not trained further; if all of a bracket fail, the others go on."""
    fold.fails = {f"trial_{number:04d}" for number in range(9)}
    trials = search(make_study(14, "hyperband"), tmp_path)
    assert [trial.error is not None for trial in trials] == [True] * 9 + [False] * 5
    assert sorted(trial.epochs for trial in trials[9:]) == [3, 3, 3, 3, 9]


def test_hyperband_waits_for_all_results_of_a_rung(tmp_path: Path) -> None:
    """While a rung waits for results, the next brackets begin; when nothing can begin, there is nothing to take."""
    tasks = run.trial_tasks(make_study(17, "hyperband"), tmp_path, FoldSource(make_study(1).data, None, None))
    begun = [next(tasks) for _ in range(18)]
    assert [(task.name, task.epochs) for task in begun[:17]] == [
        (f"{number:04d}", 1 if number < 9 else 3 if number < 14 else 9) for number in range(17)
    ]
    assert begun[17] is None


def test_bayesian_optimisation_begins_at_random_and_improves(search: Callable, tmp_path: Path) -> None:
    """The first three networks of each dimension are those of random search; the proposals after them are better."""
    study = make_study(15, "bayesian", space=ONE_BLOCK)
    trials = search(study, tmp_path / "bayesian")
    random = search(make_study(15, space=ONE_BLOCK), tmp_path / "random")
    networks = [(trial.filters, trial.kernels) for trial in trials]
    assert study.space.random_trials == 9
    assert networks[:9] == [(trial.filters, trial.kernels) for trial in random[:9]]
    assert len(set(networks)) == 15
    found = [quality(CnnSpec(*network)) for network in networks]
    assert np.median(found[9:]) > np.quantile(found[:9], 0.75)


def test_hopeless_trials_are_stopped_and_marked(search: Callable, fold: ReplacedFold, tmp_path: Path) -> None:
    """A trial that is below the median of the earlier ones ends after the warm-up, and is not a failed one."""
    fold.fails = {"trial_0001"}
    trials = search(make_study(20, stopping={"warm_up": 2, "min_trials": 4}), tmp_path)
    for number, trial in enumerate(trials):
        others = [other for other in trials[:number] if other.error is None]
        if trial.error or len(others) < 4:
            assert (trial.stopped, trial.medians) == (False, ())
            continue
        bests = np.array(
            [np.resize(np.append(other.history, [other.history[-1]] * EPOCHS), EPOCHS) for other in others]
        )
        medians = np.median(bests, axis=0)
        assert trial.medians == pytest.approx(np.where(np.arange(EPOCHS) < 1, 0, medians))
        below = (
            np.array([quality(CnnSpec(trial.filters, trial.kernels)) * (1 - 0.5**e) for e in range(1, 10)]) < medians
        )
        ends = [epoch for epoch in range(2, EPOCHS + 1) if below[epoch - 1]]
        assert trial.stopped == bool(ends)
        assert len(trial.history) == (ends[0] if ends else EPOCHS)
    assert 0 < sum(trial.stopped for trial in trials) < 19
    write_csv(tmp_path / "trials.csv", trials)
    with (tmp_path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["stopped"] == "True" for row in rows) == sum(trial.stopped for trial in trials)
    assert [row["name"] for row in rows if row["error"]] == ["0001"]


@given(histories=HISTORIES, warm_up=st.integers(1, 3), epochs=st.integers(1, 6))
def test_medians_are_those_of_the_best_so_far(histories: list[list[float]], warm_up: int, epochs: int) -> None:
    """Each trial counts with its best value up to an epoch; a trial exactly at the medians is not stopped."""
    medians = medians_of(histories, StoppingConfig(warm_up=warm_up, min_trials=1), epochs)
    for epoch in range(1, epochs + 1):
        bests = [max(history[:epoch]) for history in histories]
        assert medians[epoch - 1] == (float(np.median(bests)) if epoch >= warm_up else 0.0)
    assert not is_hopeless(medians, medians)
    assert not is_hopeless([], medians)
    assert medians_of(histories, StoppingConfig(min_trials=len(histories) + 1), epochs) == ()
