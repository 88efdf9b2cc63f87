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
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, Subsets, of_extra
from ecg_shock.data.windows import WindowSet
from ecg_shock.files import commit, versions, with_values, write_text
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.search.consensus import Candidate, Setting, find_candidates
from ecg_shock.search.study import Study
from ecg_shock.search.supervisor import WorkerError, supervise
from ecg_shock.search.trials import Trial, dashed, read_trial, read_trials, write_trial
from ecg_shock.training.trainer import TrainingConfig, digest

Phase = Literal["search", "retrain"]
LOG_FILE = "worker.log"
RUN_FILE = "run.json"
CHOICE_FILE = "choice.json"
MAX_CONSECUTIVE_FAILURES = 10

_logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """A network to retrain. `name` is its folder, the same for the same job, so that its result can be reused."""

    name: str
    spec: CnnSpec
    config: TrainingConfig


def record_start(study: Study, subsets: Subsets, folder: Path) -> None:
    """Write `run.json` with the seeds, patients, versions and data digest of a run.

    If it exists, add this start to it. From the test subset, only the names of the patients and the numbers of windows
    are written.

    Raises
    ------
    ValueError
        If the run was begun with other windows, or its `run.json` is damaged.
    """
    file = folder / RUN_FILE
    used = (subsets.train, subsets.validation)
    found = digest(*(array for subset in used for array in (subset.ecg, subset.aha_class, subset.patient)))
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


def search(
    study: Study, folder: Path, *, data_dir: Path, on_message: Callable[[dict[str, Any]], None]
) -> tuple[Trial, ...]:
    """Draw and train the networks of a study. Trials that are already in the run folder are kept.

    Parameters
    ----------
    study : Study
        The study of the run folder.
    folder : Path
        The run folder.
    data_dir : Path
        Folder of the recordings.
    on_message : callable
        Called with each message of the worker process, see `ecg_shock.search.worker`.

    Returns
    -------
    tuple of Trial
        All trials, including failed ones.

    Raises
    ------
    WorkerError
        If the worker process fails, or too many trials fail in a row.
    KeyboardInterrupt
        After Ctrl-C. Another call resumes the search.
    """
    if len(read_trials(folder / "search")) < study.search.trials:
        _run_worker("search", study, folder, data_dir, on_message)
    return read_trials(folder / "search")


def retrain(
    study: Study,
    chosen: tuple[Candidate, ...],
    folder: Path,
    *,
    data_dir: Path,
    on_message: Callable[[dict[str, Any]], None],
) -> tuple[Trial, ...]:
    """Retrain each candidate with every learning rate and seed, unless the run folder has the result; see `search`."""
    if len(read_retrained(study, chosen, folder)) < len(retraining_jobs(study, chosen)):
        _run_worker("retrain", study, folder, data_dir, on_message)
    return read_retrained(study, chosen, folder)


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


def _run_worker(
    phase: Phase, study: Study, folder: Path, data_dir: Path, on_message: Callable[[dict[str, Any]], None]
) -> None:
    failures = 0

    def handle(message: dict[str, Any]) -> None:
        nonlocal failures
        on_message(message)
        if message["kind"] == "exhausted":
            _logger.warning(
                "the search ends after %d of %d trials, because [space] has no more networks; "
                "set fewer trials, or widen the space",
                message["drawn"],
                study.search.trials,
            )
        if message["kind"] == "broken":
            raise WorkerError(f"{message['error']}; fix the cause and run the same command again to continue")
        if message["kind"] == "end":
            failures = failures + 1 if message["error"] else 0
        if failures == MAX_CONSECUTIVE_FAILURES:
            raise WorkerError(
                f"{failures} trainings in a row failed, the last one with {message['error']!r}; see error.txt in the "
                f"folders of {folder / phase}. Fix the cause and run the same command again to continue."
            )

    def give_up(name: str, reason: str) -> None:
        trial_folder = folder / phase / name
        begun = Trial.model_validate_json((trial_folder / "begun.json").read_text(encoding="utf-8"))
        write_trial(trial_folder, begun.model_copy(update={"error": reason}))
        handle({"kind": "end", "trial": name, "error": reason})

    supervise(
        [sys.executable, "-m", "ecg_shock.search.worker", str(folder), phase, "--data", str(data_dir)],
        folder / LOG_FILE,
        on_message=handle,
        on_give_up=give_up,
    )
