"""Trainings in worker processes survive kills, stop after an epoch, and leave no process behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ecg_shock.search.engine import Engine
from ecg_shock.search.tasks import Task, WorkerError

END_TIMEOUT_S = 60
DRIVER = """
import sys
from pathlib import Path
import toy
from ecg_shock.search import workers
from ecg_shock.search.engine import Engine
from ecg_shock.search.tasks import Task

def show(task, epoch, balanced_accuracy):
    print(task.name, epoch, flush=True)

if __name__ == "__main__":
    workers.import_keras = toy.load
    folder = Path(sys.argv[1])
    tasks = (Task(name, folder / name, 3, toy.train, (3, False, None, 0.2)) for name in "ab")
    with Engine(folder / "worker.log", workers=2) as engine:
        for task, failure in engine.run(tasks, show):
            print(task.name, "ended", flush=True)
"""


@pytest.fixture(scope="module")
def engine(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Start two worker processes for all tests, each replaced after two trainings."""
    log = tmp_path_factory.mktemp("engine") / "worker.log"
    with Engine(log, workers=2, trainings_per_process=2) as engine:
        yield engine


@pytest.fixture
def task(toy: ModuleType, tmp_path: Path) -> Callable[..., Task]:
    """Make a training in the folder of the test."""

    def make(name: str, *arguments: Any) -> Task:
        return Task(name, tmp_path / name, 3, toy.train, arguments or (3,))

    return make


def epochs_of(task: Task) -> list[int]:
    """Return the epochs that were trained, in order."""
    return [int(line) for line in (task.folder / "epochs.txt").read_text().splitlines()]


def pid_of(task: Task) -> int:
    """Return the last process of a training."""
    return int((task.folder / "pid").read_text())


def test_trainings_survive_kills(engine: Engine, task: Callable[..., Task]) -> None:
    """After each kill a training resumes, and one that kills its process is given up; no epoch is trained twice."""
    good = [task(str(number)) for number in range(6)]
    killed, poison = task("killed", 5, False, None, 0.1), task("poison", 3, True)
    pids: set[int] = set()

    def kill(running: Task, epoch: int, balanced_accuracy: float | None) -> None:
        assert balanced_accuracy == (epoch / 10 if epoch else None)
        if epoch:
            pids.add(pid_of(running))
        if epoch and running is killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid_of(killed), signal.SIGKILL)

    tasks = [good[0], killed, poison, *good[1:]]
    outcomes = dict(engine.run(iter(tasks), kill))
    assert outcomes == dict.fromkeys(tasks) | {poison: "the process died 3 times in this training"}
    assert all(epochs_of(ended) == [1, 2, 3] for ended in good)
    assert epochs_of(killed) == [1, 2, 3, 4, 5]
    assert not (poison.folder / "epochs.txt").exists()
    # Eight trainings in processes that end two each, although some of them were killed before.
    assert len(pids) >= 4
    assert list(engine.run(iter(()))) == []


def test_a_process_that_is_killed_before_a_training_is_no_death_of_it(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training is not given up if processes die while TensorFlow is imported in them, however often."""
    loading = tmp_path / "loading"
    loading.mkdir()
    task = Task("innocent", tmp_path / "innocent", 3, toy.train, (3, False, None, 0.5))
    kills = 3

    def kill(running: Task, epoch: int, balanced_accuracy: float | None) -> None:
        if epoch == 1:  # kill this process, and then each one that is started, while it loads
            monkeypatch.setenv(toy.LOADING, str(loading))
            os.kill(pid_of(task), signal.SIGKILL)
            killer.start()

    def kill_loading() -> None:
        killed: set[str] = set()
        while len(killed) < kills:
            for file in loading.iterdir():
                if file.name not in killed:
                    time.sleep(0.5)
                    os.kill(int(file.name), signal.SIGKILL)
                    killed.add(file.name)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_loading)
    with Engine(tmp_path / "worker.log") as engine:
        assert list(engine.run(iter([task]), kill)) == [(task, None)]
    killer.join()
    assert epochs_of(task) == [1, 2, 3]
    assert len(list(loading.iterdir())) == kills + 1


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(28, "No space left on device"), WorkerError, r"bad: \[Errno 28\] No space left on device; fix the"),
        (MemoryError(), WorkerError, "bad: MemoryError; fix the cause and run the same command again"),
        (ValueError("the loss is nan"), ValueError, "^the loss is nan$"),
    ],
)
def test_errors_end_the_run_with_their_cause(
    engine: Engine, task: Callable[..., Task], error: Exception, raised: type[Exception], message: str
) -> None:
    """The first error of a training is raised, and the same engine trains the rest later."""
    with pytest.raises(raised, match=message):
        list(engine.run(iter([task("good"), task("bad", 3, False, error)])))
    assert dict(engine.run(iter([task("good")]))) == {task("good"): None}
    assert epochs_of(task("good")) == [1, 2, 3]


def test_the_next_training_is_drawn_after_the_results(engine: Engine, task: Callable[..., Task]) -> None:
    """Each training is taken when a worker is free, after the results so far have been yielded; None means to wait."""
    ended: list[Task] = []
    drawn: list[tuple[int, int]] = []

    def draw() -> Iterator[Task | None]:
        for number in range(5):
            while number == 3 and len(ended) < 3:
                yield None
            drawn.append((number, len(ended)))
            yield task(str(number))

    for done, _ in engine.run(draw()):
        ended.append(done)
    assert [number for number, _ in drawn] == [0, 1, 2, 3, 4]
    assert all(number - known < 2 for number, known in drawn)
    assert drawn[3] == (3, 3)


def test_ctrl_c_stops_after_the_epoch(engine: Engine, task: Callable[..., Task]) -> None:
    """Ctrl-C ends the epochs that are running and starts no training; the same call continues."""
    tasks = [task(name, 1000, False, None, 0.05) for name in "abc"]
    begun: set[str] = set()

    def interrupt(running: Task, epoch: int, balanced_accuracy: float | None) -> None:
        if epoch and running.name not in begun:
            begun.add(running.name)
            if len(begun) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        list(engine.run(iter(tasks), interrupt))
    assert signal.getsignal(signal.SIGINT) is before
    assert [len(epochs_of(stopped)) < 1000 for stopped in tasks[:2]] == [True, True]
    assert not tasks[2].folder.exists()
    heard: list[int] = []
    following = len(epochs_of(tasks[0])) + 1
    list(engine.run(iter([task("a", following)]), lambda running, epoch, balanced_accuracy: heard.append(epoch)))
    assert heard == [0, following]


def test_second_ctrl_c_stops_at_once(toy: ModuleType, tmp_path: Path) -> None:
    """The second Ctrl-C kills the trainings."""
    slow = Task("slow", tmp_path / "slow", 2, toy.train, (2, False, None, 1000.0))

    def interrupt(running: Task, epoch: int, balanced_accuracy: float | None) -> None:
        while not (slow.folder / "pid").is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), Engine(tmp_path / "worker.log") as engine:
        list(engine.run(iter([slow]), interrupt))
    with pytest.raises(ProcessLookupError):
        os.kill(pid_of(slow), 0)


def test_a_killed_run_leaves_no_process_and_continues(toy: ModuleType, tmp_path: Path) -> None:
    """If the process that started the workers is killed, they end; the next run trains the epochs that are missing."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as killed:
        for line in killed.stdout:
            if line == "a 1\n":
                killed.kill()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=END_TIMEOUT_S, check=True)
    heard = done.stdout.splitlines()
    for name in "ab":
        assert (tmp_path / name / "epochs.txt").read_text() == "1\n2\n3\n"
        assert f"{name} ended" in heard
    assert "a 1" not in heard
    for file in tmp_path.glob("*/pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def test_workers_that_cannot_start_are_an_error(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no process can be started again, the run ends."""
    monkeypatch.setattr("ecg_shock.search.engine.START_TIMEOUT_S", 3)
    task = Task("a", tmp_path / "a", 3, toy.train, (3, False, None, 0.3))

    def spoil(running: Task, epoch: int, balanced_accuracy: float | None) -> None:
        if epoch == 1:
            multiprocessing.set_executable("/bin/false")
            os.kill(pid_of(task), signal.SIGKILL)

    try:
        with pytest.raises(WorkerError, match="no worker process can be started"), Engine(tmp_path / "log") as engine:
            list(engine.run(iter([task]), spoil))
    finally:
        multiprocessing.set_executable(sys.executable)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [("tcp://127.0.0.1:8786", "'tcp://127.0.0.1:8786' is not encrypted"), ("tls://127.0.0.1:1", "no certificates for")],
)
def test_a_scheduler_needs_encryption_and_certificates(tmp_path: Path, scheduler: str, message: str) -> None:
    """Nothing is sent to a scheduler without TLS, and missing certificates are named."""
    with pytest.raises(ValueError, match=message):
        Engine(tmp_path / "worker.log", scheduler=scheduler)
