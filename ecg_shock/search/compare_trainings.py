"""Train the pairs of a comparison, and evaluate each training on the validation patients.

Each training has a folder of its own with its result.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from ecg_shock.data.datasets import DataConfig, load_other_hospitals, load_validation, shockable
from ecg_shock.files import flatten, with_values, write_text
from ecg_shock.search.compare import DURATIONS_S, Settings, TrainingComparison
from ecg_shock.search.engine import IGNORE, Engine, OnProgress
from ecg_shock.search.tasks import Task
from ecg_shock.training.fold import MAX_FOLDS, FoldSource, TrainingFold, load_fold, proportions
from ecg_shock.training.steps import compile_inference
from ecg_shock.training.trainer import HISTORY_NAME, EpochLog, TrainingResult

logger = logging.getLogger(__name__)

RULE_NAME, RESULT_NAME, VALIDATION_NAME = "rule.json", "result.json", "validation.npz"


@dataclass(frozen=True)
class TrialResult:
    """The result of one training on the validation patients.

    Parameters
    ----------
    name : str
        The variant, or ``"base"``.
    fold, seed : int
        Fold and seed.
    epoch : int
        The chosen epoch.
    balanced_accuracy : dict of str to float
        At the probability 0.5, by window length in seconds.
    sensitivity, specificity : dict of str to float
        The same.
    auc : float
        Area under the ROC curve, windows of 5 s.
    other_hospitals : float or None
        Specificity on other hospitals, 5 s.
    parameters : int
        Size of the network.
    presentations : int
        Number of windows that the whole training presented.
    seconds : float
        Duration of its epochs, in seconds.
    """

    name: str
    fold: int
    seed: int
    epoch: int
    balanced_accuracy: dict[str, float]
    sensitivity: dict[str, float]
    specificity: dict[str, float]
    auc: float
    other_hospitals: float | None
    parameters: int
    presentations: int
    seconds: float


def run_comparison(
    comparison: TrainingComparison,
    folder: Path,
    engine: Engine,
    data_folder: Path | None = None,
    *,
    on_progress: OnProgress = IGNORE,
    on_trial: Callable[[TrialResult], None] = lambda result: None,
) -> None:
    """Train what is not trained yet, seed by seed and fold by fold.

    A training whose process dies repeatedly is skipped, with a warning.

    Parameters
    ----------
    comparison : TrainingComparison
        The comparison.
    folder : pathlib.Path
        Folder of the run.
    engine : Engine
        The worker processes.
    data_folder : pathlib.Path, optional
        Folder that holds the databases.
    on_progress : callable
        See `Engine.run`.
    on_trial : callable
        Called with each new result.

    Raises
    ------
    ValueError
        If the run began with another rule, other levels or another setting of a training.
    """
    _record_rule(comparison, folder)
    with closing(engine.run(_tasks(comparison, folder, engine, data_folder), on_progress)) as ended:
        for task, failure in ended:
            result = _read_result(task.folder, task.arguments[1])
            if result is None:
                logger.warning("%s has no result: %s", task.name, failure)
            else:
                on_trial(result)


def _record_rule(comparison: TrainingComparison, folder: Path) -> None:
    """Write the rule of decision to the folder, or raise ValueError if another one is there."""
    path = folder / RULE_NAME
    now = json.loads(comparison.model_dump_json(include={"rule", "decision", "levels"}))
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(now, indent=1))
        return
    if differences := _differences(json.loads(path.read_text(encoding="utf-8")), now):
        raise ValueError(
            f"the comparison in {folder} began with another rule; a rule that is changed after a look at the results "
            "decides nothing. Undo the differences, or use another folder:\n  " + "\n  ".join(differences)
        )


def _differences(stored: dict[str, Any], current: dict[str, Any]) -> list[str]:
    before, now = flatten(stored), flatten(current)
    return [
        f"{key}: {before.get(key)!r} in the folder, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _tasks(comparison: TrainingComparison, folder: Path, engine: Engine, data_folder: Path | None) -> Iterator[Task]:
    @functools.cache
    def source(data: DataConfig) -> FoldSource:
        if engine.remote:
            return FoldSource(data, None, TrainingFold.load(data, data_folder).digest)
        return FoldSource(data, data_folder, None)

    for seed, fold, name in product(comparison.seeds, comparison.folds, comparison.names):
        trial, settings = trial_folder(folder, name, fold, seed), comparison.settings(name)
        if _read_result(trial, settings) is None:
            data = with_values(settings.data, fold=fold)
            arguments = (name, settings, seed, source(data), comparison.other_hospitals)
            yield Task(title(name, fold, seed), trial, settings.training.epochs, train_variant, arguments)


def train_variant(
    name: str,
    settings: Settings,
    seed: int,
    source: FoldSource,
    other_hospitals: tuple[str, ...],
    *,
    folder: Path,
    on_epoch: Callable[[EpochLog], None],
) -> None:
    """Train one variant in a worker process, and write its result to its folder, unless it is there."""
    if _read_result(folder, settings) is None:
        _run_trial(name, settings, seed, load_fold(source), _checks(source, other_hospitals), folder, on_epoch)


def title(name: str, fold: int, seed: int) -> str:
    """Return the name of one training."""
    return f"{name}, fold {fold}, seed {seed}"


def trial_folder(folder: Path, name: str, fold: int, seed: int) -> Path:
    """Return the folder of one training."""
    return folder / name / f"fold-{fold}-seed-{seed}"


def read_results(comparison: TrainingComparison, folder: Path) -> Iterator[TrialResult]:
    """Yield the results so far, in the order of names, folds and seeds."""
    for name in comparison.names:
        settings = comparison.settings(name)
        for fold in comparison.folds:
            for seed in comparison.seeds:
                result = _read_result(trial_folder(folder, name, fold, seed), settings)
                if result is not None:
                    yield result


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """Read the epochs of the training in a folder, with the fields of `EpochLog`."""
    return json.loads((folder / HISTORY_NAME).read_text(encoding="utf-8"))["epochs"]


class ValidationWindows:
    """The windows that the trainings of one fold are evaluated on."""

    def __init__(self, source: FoldSource | TrainingFold, other_hospitals: tuple[str, ...]) -> None:
        self.validation = {
            f"{window_s:g}": load_validation(with_values(source.data, window_s=window_s), source.folder)
            for window_s in DURATIONS_S
        }
        self.other_hospitals = None
        if other_hospitals:
            self.other_hospitals = load_other_hospitals(with_values(source.data, extra=other_hospitals), source.folder)


_checks = functools.lru_cache(maxsize=MAX_FOLDS)(ValidationWindows)


def _run_trial(
    name: str,
    settings: Settings,
    seed: int,
    fold: TrainingFold,
    checks: ValidationWindows,
    folder: Path,
    on_epoch: Callable[[EpochLog], None],
) -> None:
    """Train, evaluate on the validation patients, and write the result."""
    training = with_values(settings.training, seed=seed)
    trained = fold.train(settings.network, training, folder, on_epoch=on_epoch)
    result = evaluate_training(name, fold, checks, trained)
    write_text(folder / RESULT_NAME, json.dumps({"settings": _identity(settings), "result": asdict(result)}, indent=1))


def evaluate_training(name: str, fold: TrainingFold, checks: ValidationWindows, trained: TrainingResult) -> TrialResult:
    """Evaluate a training on the validation patients, and write its advice to `VALIDATION_NAME`."""
    from sklearn.metrics import roc_auc_score

    model = trained.load_model()
    infer = compile_inference(model)
    logits = {length: infer(windows.ecg)[0] for length, windows in checks.validation.items()}
    main = f"{fold.data.window_s:g}"
    windows = checks.validation[main]
    sensitivity, specificity = {}, {}
    for length, of_length in checks.validation.items():
        shock = logits[length] >= 0
        sensitivity[length], specificity[length] = proportions(shock, shockable(of_length))
    other = None
    if checks.other_hospitals is not None:
        other = float((infer(checks.other_hospitals.ecg)[0] < 0).mean())
    np.savez(
        trained.folder / VALIDATION_NAME,
        allow_pickle=False,
        patient=windows.patient,
        shockable=shockable(windows),
        shock=logits[main] >= 0,
    )
    return TrialResult(
        name=name,
        fold=fold.data.fold,
        seed=trained.config.seed,
        epoch=trained.best.epoch,
        balanced_accuracy={length: (sensitivity[length] + specificity[length]) / 2 for length in logits},
        sensitivity=sensitivity,
        specificity=specificity,
        auc=float(roc_auc_score(shockable(windows), logits[main])),
        other_hospitals=other,
        parameters=trained.spec.parameter_count(),
        presentations=fold.presentations(trained.config),
        seconds=sum(log.seconds for log in trained.history),
    )


def _read_result(folder: Path, settings: Settings) -> TrialResult | None:
    """Read a result; raise ValueError if it is of other settings."""
    path = folder / RESULT_NAME
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if differences := _differences(content["settings"], _identity(settings)):
        raise ValueError(
            f"{folder} holds a training with other settings; use another folder, or undo the differences:\n  "
            + "\n  ".join(differences)
        )
    return TypeAdapter(TrialResult).validate_python(content["result"])


def _identity(settings: Settings) -> dict[str, Any]:
    content = {
        "data": settings.data.model_dump(mode="json"),
        "network": settings.network.to_dict(),
        "training": settings.training.model_dump(mode="json"),
    }
    return json.loads(json.dumps(content))
