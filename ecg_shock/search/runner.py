"""Run a study: draw and train networks, retrain the median network of each depth, and write the choice.

A run folder contains `study.toml` (including default values), `run.json` (versions, patients, digest of the windows),
`search/` and `retrain/` with a folder for each trained network, `worker.log`, and the results.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import platform
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, of_extra
from ecg_shock.data.windows import WindowSet
from ecg_shock.files import commit, versions, with_values, write_text
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.search.consensus import Candidate, Setting, find_candidates
from ecg_shock.search.engine import Engine, OnProgress
from ecg_shock.search.stopping import is_hopeless
from ecg_shock.search.strategies import draw_trials
from ecg_shock.search.study import Study
from ecg_shock.search.tasks import Task, WorkerError
from ecg_shock.search.trials import RESULT_FILE, Trial, dashed, read_trial, read_trials, write_trial
from ecg_shock.training.fold import FoldSource, TrainingFold, load_fold
from ecg_shock.training.trainer import CHECKPOINT_NAME, EpochLog, TrainingConfig, read_result

RUN_FILE = "run.json"
CHOICE_FILE = "choice.json"
MAX_CONSECUTIVE_FAILURES = 10
MAX_ERROR_LENGTH = 300

_logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A network to train. `name` is the same for the same job, so that its result can be reused."""

    name: str
    spec: CnnSpec
    config: TrainingConfig
    medians: tuple[float, ...] = ()  # of other trials, see `medians_of`

    @property
    def untrained(self) -> Trial:
        """The trial without results."""
        return Trial(
            name=self.name,
            filters=tuple(self.spec.filters),
            kernels=tuple(self.spec.kernels),
            learning_rate=self.config.learning_rate,
            seed=self.config.seed,
            parameters=self.spec.parameter_count(),
            macs=self.spec.macs(),
            epochs=self.config.epochs,
            medians=self.medians,
        )

    def task(self, folder: Path, source: FoldSource, *, keep_weights: bool) -> Task:
        """Return the task that trains the network in `folder`."""
        return Task(self.name, folder, self.config.epochs, train_network, (self, source, keep_weights))


def record_start(study: Study, fold: TrainingFold, folder: Path) -> None:
    """Write `run.json` with the seeds, patients, versions and data digest of a run.

    If it exists, add this start to it. From the test subset, only the names of the patients and the numbers of windows
    are written.

    Raises
    ------
    ValueError
        If the run was begun with other windows, or its `run.json` is damaged.
    """
    file = folder / RUN_FILE
    found, subsets = fold.digest, fold.subsets
    starts: list[Any] = []
    if file.is_file():
        try:
            run = json.loads(file.read_text(encoding="utf-8"))
            begun_with, starts = str(run["data_digest"]), list(run["starts"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{file} is damaged ({type(error).__name__}: {error}); "
                "restore it from a copy, or choose another folder with --out"
            ) from error
        if begun_with != found:
            raise ValueError(
                f"{folder} was begun with other windows: their digest was {begun_with[:12]}…, now it is "
                f"{found[:12]}…. The recordings, manifests, labels or preprocessing have changed since; "
                "restore them, or choose another folder with --out."
            )
    start = {
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
    }
    run = {
        "study": study.name,
        "synthetic": study.synthetic,
        "seeds": {
            "search": study.search.seed,
            "trials": study.training.seed,
            "consensus": [study.training.seed + index for index in range(study.consensus.seeds)],
        },
        "data_digest": found,
        "parts": {name: _summary(getattr(subsets, name), study) for name in ("train", "validation", "test")},
        "starts": [*starts, start],
    }
    write_text(file, json.dumps(run, indent=2))


def supplemented(subset: WindowSet, study: Study) -> np.ndarray:
    """Return which windows were added by `data.supplement`, as booleans of shape (n_windows,).

    In a synthetic study, all are False.
    """
    return (subset.database == SYNTHETIC) & (not study.synthetic)


def trial_tasks(study: Study, folder: Path, source: FoldSource) -> Iterator[Task | None]:
    """Draw the networks of a study, and yield the trainings that have no result yet; None as in `Engine.run`."""
    folder, hyperband = folder / "search", study.search.strategy == "hyperband"
    if len(read_trials(folder)) >= study.search.trials and not hyperband:
        return
    for draw in draw_trials(study, folder):
        if draw is None:
            yield None
            continue
        job = Job(draw.name, draw.spec, with_values(study.trial_training, epochs=draw.epochs), draw.medians)
        yield job.task(folder / f"trial_{job.name}", source, keep_weights=hyperband)


def retraining_tasks(study: Study, chosen: tuple[Candidate, ...], folder: Path, source: FoldSource) -> Iterator[Task]:
    """Yield the retrainings that have no result in the run folder yet."""
    for job in retraining_jobs(study, chosen):
        if read_trial(folder / "retrain" / job.name) is None:
            yield job.task(folder / "retrain" / job.name, source, keep_weights=True)


def retraining_jobs(study: Study, chosen: tuple[Candidate, ...]) -> tuple[Job, ...]:
    """Return the networks to retrain, ordered by seed, so that an interrupted run has results for every setting."""
    return tuple(
        Job(
            f"F{dashed(candidate.filters)}_K{dashed(candidate.kernels)}_lr{learning_rate:g}_seed{seed}",
            study.spec(candidate.filters, candidate.kernels),
            with_values(study.training, learning_rate=learning_rate, seed=seed),
        )
        for seed in range(study.training.seed, study.training.seed + study.consensus.seeds)
        for candidate in chosen
        for learning_rate in study.consensus.learning_rates
    )


def train_networks(engine: Engine, tasks: Iterable[Task | None], on_progress: OnProgress) -> Iterator[Trial]:
    """Run the tasks of a study, and yield each trial that has ended, whether it failed or not; see `Engine.run`.

    Raises
    ------
    WorkerError
        If a worker or its machine fails, or if `MAX_CONSECUTIVE_FAILURES` trials fail in a row.
    KeyboardInterrupt
        After Ctrl-C.
    """
    failures = 0
    with closing(engine.run(tasks, on_progress)) as ended:
        for task, failure in ended:
            if failure is not None:
                write_trial(task.folder, task.arguments[0].untrained.model_copy(update={"error": failure}))
            trial = read_trial(task.folder)
            if trial is None:
                raise WorkerError(f"the worker has not written {task.folder / RESULT_FILE}; run the same command again")
            yield trial
            failures = failures + 1 if trial.error else 0
            if failures == MAX_CONSECUTIVE_FAILURES:
                raise WorkerError(
                    f"{failures} trainings in a row failed, the last one with {trial.error!r}; see error.txt in the "
                    f"folders of {task.folder.parent}. Fix the cause and run the same command again to continue."
                )


def train_network(
    job: Job, source: FoldSource, keep_weights: bool, *, folder: Path, on_epoch: Callable[[EpochLog], None]
) -> None:
    """Train a network in a worker process, and write the trial to its folder, unless it is there; see `Task`.

    If the training fails, the trial says why. Errors of files and memory are those of the machine, and are raised.
    """
    earlier = read_trial(folder)
    if earlier is not None and earlier.covers(job.config.epochs):
        return
    fold = load_fold(source)
    history: list[float] = []

    def check(log: EpochLog) -> None:
        on_epoch(log)
        history.append(log.balanced_accuracy)
        if is_hopeless(history, job.medians):
            raise _Hopeless

    try:
        if job.medians and (folder / CHECKPOINT_NAME).is_file():
            history.extend(log.balanced_accuracy for log in read_result(folder).history)
        stopped = is_hopeless(history, job.medians)
        try:
            result = read_result(folder) if stopped else fold.train(job.spec, job.config, folder, on_epoch=check)
        except _Hopeless:
            result, stopped = read_result(folder), True
        outcome: dict[str, Any] = {
            "balanced_accuracy": result.best.balanced_accuracy,
            "sensitivity": result.best.sensitivity,
            "specificity": result.best.specificity,
            "loss": result.best.validation_loss,
            "best_epoch": result.best.epoch,
            "seconds": round(sum(log.seconds for log in result.history), 2),
            "stopped": stopped,
            "history": tuple(log.balanced_accuracy for log in result.history),
        }
    except (OSError, MemoryError):
        raise
    except Exception as error:
        write_text(folder / "error.txt", traceback.format_exc())
        outcome = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:MAX_ERROR_LENGTH]}
    write_trial(folder, job.untrained.model_copy(update=outcome))
    if not keep_weights and "error" not in outcome:
        (folder / CHECKPOINT_NAME).unlink(missing_ok=True)


class _Hopeless(Exception):
    """Raised in a training to stop it by the median rule."""


def read_retrained(study: Study, chosen: tuple[Candidate, ...], folder: Path) -> tuple[Trial, ...]:
    """Read the available results of retraining, including failed ones, in the order of `retraining_jobs`."""
    found = (read_trial(folder / "retrain" / job.name) for job in retraining_jobs(study, chosen))
    return tuple(trial for trial in found if trial is not None)


def study_candidates(study: Study, folder: Path) -> tuple[Candidate, ...]:
    """Return the candidates, one for each depth, from the trials in a run folder."""
    return find_candidates(read_trials(folder / "search"), study.consensus, step=study.space.step)


def write_choice(
    folder: Path, study: Study, chosen: tuple[Candidate, ...], compared: tuple[Setting, ...], choice: Setting
) -> None:
    """Write `choice.json` with the candidates, the settings that were compared, and the chosen setting."""

    def row(setting: Setting) -> dict[str, Any]:
        return {
            "filters": setting.filters,
            "kernels": setting.kernels,
            "learning_rate": setting.learning_rate,
            "parameters": setting.parameters,
            "mean_balanced_accuracy": setting.balanced_accuracy,
            "runs": [run.name for run in setting.runs],
            "failed": setting.failed,
        }

    content = {
        "study": study.name,
        "synthetic": study.synthetic,
        "part": "validation",
        "candidates": [
            {"filters": c.filters, "kernels": c.kernels, "median_of": [trial.name for trial in c.top]} for c in chosen
        ],
        "compared": [row(setting) for setting in compared],
        "choice": row(choice),
    }
    write_text(folder / CHOICE_FILE, json.dumps(content, indent=2))


def _summary(subset: WindowSet, study: Study) -> dict[str, Any]:
    def count(classes: np.ndarray) -> dict[str, int]:
        return dict(sorted(Counter(classes.tolist()).items()))

    added, extra = supplemented(subset, study), of_extra(subset, study.data)
    own = ~(added | extra)
    summary: dict[str, Any] = {
        "patients": sorted(set(subset.patient[own].tolist())),
        "windows": count(subset.aha_class[own]),
    }
    if extra.any():
        summary["extra"] = {
            "patients": len(set(subset.patient[extra].tolist())),
            "windows": count(subset.aha_class[extra]),
        }
    if added.any():
        summary["supplement"] = {
            "synthetic_patients": len(set(subset.patient[added].tolist())),
            "windows": count(subset.aha_class[added]),
        }
    return summary
