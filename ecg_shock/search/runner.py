"""Run a study: draw and train networks, agree on one for each depth, train those again, choose.

A run folder holds `study.toml` (all values resolved), `run.json` (versions, patients, digest of the windows), `search/`
and `retrain/` with one folder for each network that was trained, `worker.log`, and the results made from them.
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
from ecg_shock.search.consensus import Candidate, Setting, candidates
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
    """A candidate to train again. The name of its folder tells all jobs apart: a longer search reuses what it can."""

    name: str
    spec: CnnSpec
    config: TrainingConfig


def keep_run(study: Study, subsets: Subsets, folder: Path) -> None:
    """Write `run.json`, what must be known to repeat a run, or add this start to the one found.

    Of the test patients only the names and the counts are written.

    Raises
    ------
    ValueError
        If the folder's run was begun with other windows, or its `run.json` is damaged.
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
                f"{found[:12]}…. The recordings, manifests, label policy or preprocessing have changed since; "
                "go back to those, or choose another folder with --out."
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
    """Say which windows, shape (n_windows,), are synthetic ones that `data.supplement` added to those of patients.

    None are if the whole study is synthetic.
    """
    return (subset.database == SYNTHETIC) & (not study.synthetic)


def retraining_jobs(study: Study, chosen: tuple[Candidate, ...]) -> tuple[Job, ...]:
    """List the networks that a study trains again, seed by seed, so that a stopped run has touched every setting."""
    return tuple(
        Job(
            f"F{dashed(candidate.filters)}_K{dashed(candidate.kernels)}_lr{rate:g}_seed{seed}",
            study.spec(candidate.filters, candidate.kernels),
            with_values(study.training, learning_rate=rate, seed=seed),
        )
        for seed in range(study.training.seed, study.training.seed + study.consensus.seeds)
        for candidate in chosen
        for rate in study.consensus.learning_rates
    )


def search(
    study: Study, folder: Path, *, data_dir: Path, on_message: Callable[[dict[str, Any]], None]
) -> tuple[Trial, ...]:
    """Draw and train the networks of a study, or those that are missing.

    Parameters
    ----------
    study : Study
        What `folder` was made for.
    folder : Path
        The run folder.
    data_dir : Path
        Folder of the recordings.
    on_message : callable
        Called with each message of the working process, see `ecg_shock.search.worker`.

    Returns
    -------
    tuple of Trial
        All trials, failed ones included.

    Raises
    ------
    WorkerError
        If the process cannot work, or too many trials fail in a row.
    KeyboardInterrupt
        After Ctrl-C; the same call goes on.
    """
    if len(read_trials(folder / "search")) < study.search.trials:
        _work("search", study, folder, data_dir, on_message)
    return read_trials(folder / "search")


def retrain(
    study: Study,
    chosen: tuple[Candidate, ...],
    folder: Path,
    *,
    data_dir: Path,
    on_message: Callable[[dict[str, Any]], None],
) -> tuple[Trial, ...]:
    """Train each candidate again with every learning rate and seed, or those that are missing, as `search` does."""
    if len(retrained(study, chosen, folder)) < len(retraining_jobs(study, chosen)):
        _work("retrain", study, folder, data_dir, on_message)
    return retrained(study, chosen, folder)


def retrained(study: Study, chosen: tuple[Candidate, ...], folder: Path) -> tuple[Trial, ...]:
    """Read the candidates that have been trained again, failed ones included, in the order of `retraining_jobs`."""
    found = (read_trial(folder / "retrain" / job.name) for job in retraining_jobs(study, chosen))
    return tuple(trial for trial in found if trial is not None)


def study_candidates(study: Study, folder: Path) -> tuple[Candidate, ...]:
    """Find the candidates, one for each depth, of the trials that a run folder holds."""
    return candidates(read_trials(folder / "search"), study.consensus, step=study.space.step)


def write_choice(
    folder: Path, study: Study, chosen: tuple[Candidate, ...], compared: tuple[Setting, ...], choice: Setting
) -> None:
    """Write what was compared and chosen, and why, as `choice.json`."""

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


def _work(
    phase: Phase, study: Study, folder: Path, data_dir: Path, on_message: Callable[[dict[str, Any]], None]
) -> None:
    failures = 0

    def follow(message: dict[str, Any]) -> None:
        nonlocal failures
        on_message(message)
        if message["kind"] == "exhausted":
            _logger.warning(
                "the search ends after %d of %d trials: no new network could be drawn from [space]; "
                "ask for fewer trials, or widen the space",
                message["drawn"],
                study.search.trials,
            )
        if message["kind"] == "broken":
            raise WorkerError(f"{message['error']}; fix the cause and run the same command again: it goes on from here")
        if message["kind"] == "end":
            failures = failures + 1 if message["error"] else 0
        if failures == MAX_CONSECUTIVE_FAILURES:
            raise WorkerError(
                f"{failures} trainings in a row failed, the last one with {message['error']!r}; see error.txt in "
                f"{folder / phase}. Fix the cause and run the same command again: it goes on after them."
            )

    def give_up(name: str, reason: str) -> None:
        place = folder / phase / name
        started = Trial.model_validate_json((place / "begun.json").read_text(encoding="utf-8"))
        write_trial(place, started.model_copy(update={"error": reason}))
        follow({"kind": "end", "trial": name, "error": reason})

    supervise(
        [sys.executable, "-m", "ecg_shock.search.worker", str(folder), phase, "--data", str(data_dir)],
        folder / LOG_FILE,
        on_message=follow,
        on_poison=give_up,
    )
