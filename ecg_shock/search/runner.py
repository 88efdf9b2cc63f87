"""Run a study: draw and train networks, agree on one for each depth, train those again, choose.

A run folder holds `study.toml` (all values resolved), `run.json` (versions, patients, digest of the windows), `search/`
and `retrain/` with one folder for each network that was trained, `worker.log`, and the results made from them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ecg_shock.files import write_text
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.search.consensus import Candidate, Setting, candidates
from ecg_shock.search.study import Study
from ecg_shock.search.supervisor import WorkerError, supervise
from ecg_shock.search.trials import Trial, dashed, read_trial, read_trials, write_trial
from ecg_shock.training.trainer import TrainingConfig

Phase = Literal["search", "retrain"]
LOG_FILE = "worker.log"
CHOICE_FILE = "choice.json"
MAX_CONSECUTIVE_FAILURES = 10

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A candidate that is to be trained again.

    Parameters
    ----------
    name : str
        Name of its folder: it tells all jobs apart, so that a longer search reuses what it can.
    spec : CnnSpec
        The network.
    config : TrainingConfig
        How it is trained.
    """

    name: str
    spec: CnnSpec
    config: TrainingConfig


def retraining_jobs(study: Study, chosen: tuple[Candidate, ...]) -> tuple[Job, ...]:
    """List the networks that a study trains again, seed by seed, so that a stopped run has touched every setting.

    Parameters
    ----------
    study : Study
        Says with which learning rates and how many seeds.
    chosen : tuple of Candidate
        One network for each depth.

    Returns
    -------
    tuple of Job
    """
    return tuple(
        Job(
            f"F{dashed(candidate.filters)}_K{dashed(candidate.kernels)}_lr{rate:g}_seed{seed}",
            study.spec(candidate.filters, candidate.kernels),
            study.training_with(learning_rate=rate, seed=seed),
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
    trials = read_trials(folder / "search")
    if len(trials) < study.search.trials:
        _work("search", study, folder, data_dir, on_message)
        trials = read_trials(folder / "search")
    return trials


def retrain(
    study: Study,
    chosen: tuple[Candidate, ...],
    folder: Path,
    *,
    data_dir: Path,
    on_message: Callable[[dict[str, Any]], None],
) -> tuple[Trial, ...]:
    """Train each candidate again with every learning rate and seed, or those that are missing.

    Parameters
    ----------
    study : Study
        What `folder` was made for.
    chosen : tuple of Candidate
        One network for each depth, from the trials in `folder`.
    folder : Path
        The run folder.
    data_dir : Path
        Folder of the recordings.
    on_message : callable
        Called with each message of the working process, see `ecg_shock.search.worker`.

    Returns
    -------
    tuple of Trial
        All retrained networks, failed ones included.

    Raises
    ------
    WorkerError
        If the process cannot work, or too many trainings fail in a row.
    KeyboardInterrupt
        After Ctrl-C; the same call goes on.
    """
    folders = [folder / "retrain" / job.name for job in retraining_jobs(study, chosen)]
    if any(read_trial(job) is None for job in folders):
        _work("retrain", study, folder, data_dir, on_message)
    found = (read_trial(job) for job in folders)
    return tuple(trial for trial in found if trial is not None)


def study_candidates(study: Study, folder: Path) -> tuple[Candidate, ...]:
    """Find the candidates of the trials that a run folder holds.

    Parameters
    ----------
    study : Study
        Says how.
    folder : Path
        The run folder.

    Returns
    -------
    tuple of Candidate
        One for each depth, by depth.
    """
    return candidates(read_trials(folder / "search"), study.consensus, step=study.space.step)


def write_choice(
    folder: Path, study: Study, chosen: tuple[Candidate, ...], compared: tuple[Setting, ...], choice: Setting
) -> None:
    """Write what was compared and chosen, and why, as `choice.json`.

    Parameters
    ----------
    folder : Path
        The run folder.
    study : Study
        What was run.
    chosen : tuple of Candidate
        The candidates.
    compared : tuple of Setting
        The candidates retrained.
    choice : Setting
        The one that was chosen.
    """

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
            raise WorkerError(
                f"{message['error']}; mend the cause and run the same command again: it goes on from here"
            )
        if message["kind"] == "end":
            failures = failures + 1 if message["error"] else 0
        if failures == MAX_CONSECUTIVE_FAILURES:
            raise WorkerError(
                f"{failures} trainings in a row failed, the last one with {message['error']!r}; see error.txt in "
                f"{folder / phase}. Mend the cause and run the same command again: it goes on after them."
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
