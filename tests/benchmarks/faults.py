"""Kill the workers and the driver of a search at random moments: `python tests/benchmarks/faults.py`.

A study of 60 small networks on synthetic recordings is searched twice with the same seed: undisturbed, and with 20
SIGKILLs of a random process, the command or one of its workers, at random moments. A command that has ended is started
again. Each search is to have 60 finished trials, none trained again after it has finished, and the same results. This
takes about 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tomli_w

from ecg_shock.search.trials import RESULT_FILE, Trial, rank, read_trials
from ecg_shock.training.trainer import HISTORY_NAME

WORKERS = 2
OF_THE_COMMAND = 0.3  # proportion of the kills; the others are of workers
POLL_S = 0.2
NOT_COMPARED = {"seconds"}
# What multiprocessing's processes have in their command line.
WORKER_MARK = b"spawn_main"


def write_study(folder: Path, trials: int) -> Path:
    """Write a study of small networks; retraining is as short as it can be."""
    study = {
        "name": "faults",
        "data": {"databases": ["synthetic"], "window_s": 2.0, "max_windows": 8},
        "space": {"blocks": [1, 3], "filters": [5, 10], "kernels": [5, 15]},
        "search": {"trials": trials, "seed": 7, "epochs": 8},
        "training": {"epochs": 1},
        "consensus": {"top": 1, "learning_rates": [1e-3], "seeds": 1},
    }
    file = folder / "faults.toml"
    file.write_text(tomli_w.dumps(study), encoding="utf-8")
    return file


class Search:
    """The command, started again whenever it has ended; `starts` counts."""

    def __init__(self, study: Path, out: Path) -> None:
        self._command = [
            *(sys.executable, "-m", "ecg_shock", "tune", str(study), "--out", str(out), "--workers", str(WORKERS))
        ]
        self._environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
        self._log = out.with_suffix(".log")
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start the command."""
        self.starts += 1
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def has_ended(self) -> bool:
        """Return whether the command has ended without an error; if it ended with one, start it again."""
        code = self.process.poll()
        if code not in (0, None):
            self.start()
        return code == 0

    def workers(self) -> list[int]:
        """Return the process ids of the workers, without a process that multiprocessing keeps for itself."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command_line = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if parent == self.process.pid and WORKER_MARK in command_line:
                found.append(int(folder.name))
        return found


def search(study: Path, out: Path, kills: int, between_s: tuple[float, float], rng: random.Random) -> None:
    """Search with so many kills, and print what came of it."""
    started = time.monotonic()
    running = Search(study, out)
    finished: dict[Path, tuple[int, int]] = {}
    again: set[Path] = set()
    killed = {"the command": 0, "a worker": 0}

    def choose() -> str:
        return "the command" if rng.random() < OF_THE_COMMAND else "a worker"

    next_kill, victim = time.monotonic() + rng.uniform(*between_s), choose()
    while not running.has_ended():
        for file in out.glob(f"search/*/{RESULT_FILE}"):
            history = file.with_name(HISTORY_NAME)
            state = (file.stat().st_mtime_ns, history.stat().st_mtime_ns if history.is_file() else 0)
            if finished.setdefault(file, state) != state:
                again.add(file)
        victims = [running.process.pid] if victim == "the command" else running.workers()
        if sum(killed.values()) < kills and time.monotonic() >= next_kill and victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(victims), signal.SIGKILL)
                killed[victim] += 1
            next_kill, victim = time.monotonic() + rng.uniform(*between_s), choose()
        time.sleep(POLL_S)
    trials = read_trials(out / "search")
    counts = ", ".join(f"{count} of {victim}" for victim, count in killed.items())
    print(
        f"{sum(killed.values())} kills ({counts}), {running.starts} starts, {time.monotonic() - started:.0f} s: "
        f"{sum(trial.error is None for trial in trials)} finished trials, "
        f"{sum(trial.error is not None for trial in trials)} failed, {len(again)} trained again",
        flush=True,
    )


def results(out: Path) -> list[Trial]:
    """Return the trials without what time they took."""
    return [trial.model_copy(update=dict.fromkeys(NOT_COMPARED, 0.0)) for trial in read_trials(out / "search")]


def main() -> None:
    """Print one line for each search, and whether both have the same results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60, help="networks of the study")
    parser.add_argument("--kills", type=int, default=20, help="kills in the second search")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the killed processes")
    parser.add_argument(
        "--between", type=float, nargs=2, default=(5.0, 30.0), metavar="S", help="least and most time between kills"
    )
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder), asked.trials)
        undisturbed, disturbed = Path(folder) / "undisturbed", Path(folder) / "disturbed"
        search(study, undisturbed, 0, asked.between, rng)
        search(study, disturbed, asked.kills, asked.between, rng)
        found = [results(out) for out in (undisturbed, disturbed)]
        best = [rank(trials)[0] for trials in found]
    same = sum(a == b for a, b in zip(*found, strict=True))
    print(
        f"the same best: {best[0] == best[1]} ({best[0].name}, balanced accuracy {best[0].balanced_accuracy:.4f}); "
        f"{same} of {asked.trials} trials have the same results"
    )


if __name__ == "__main__":
    main()
