"""Compare ways of training in pairs: variants of a base setting, with the same folds and seeds.

A comparison is a TOML file:

``name``, ``folds``, ``seeds``, ``rule``
    The rule of decision is text. It is written before the comparison runs, and printed with its results.
``[decision]``
    The numbers of the rule, see `Decision`.
``[base.data]``, ``[base.network]``, ``[base.training]``
    The base setting, with the fields of `DataConfig`, `CnnSpec` and `TrainingConfig`.
``[[variants]]``
    ``name``, and the fields that differ, in ``[variants.data]`` and so on: from the base, or from the variant that
    ``after`` names.

Each training has a folder of its own with its result. A run that was interrupted continues where it stopped. Only
validation patients are evaluated.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError, model_validator

from ecg_shock.data.datasets import DataConfig, load_other_hospitals, load_validation, shockable
from ecg_shock.evaluation.confidence import RESAMPLES, resample_patients
from ecg_shock.files import explain, flatten, read_toml, with_values, write_text
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.preprocessing import FS
from ecg_shock.search.engine import IGNORE, Engine, OnProgress
from ecg_shock.search.tasks import Task
from ecg_shock.training.fold import MAX_FOLDS, FoldSource, TrainingFold, load_fold, proportions
from ecg_shock.training.steps import compile_inference
from ecg_shock.training.trainer import EpochLog, TrainingConfig, TrainingResult

logger = logging.getLogger(__name__)

BASE = "base"
RESULT_NAME, VALIDATION_NAME = "result.json", "validation.npz"
DURATIONS_S = (5.0, 2.0)  # of the validation windows


@dataclass(frozen=True)
class Settings:
    """What a training is made with; the fold and the seed come from the comparison."""

    data: DataConfig
    network: CnnSpec
    training: TrainingConfig


class Changes(BaseModel):
    """Fields of each section that are set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: dict[str, Any] = {}
    network: dict[str, Any] = {}
    training: dict[str, Any] = {}


class Variant(Changes):
    """A variant: its name, the variant that it changes (the base if not given), and the changes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    after: str = BASE


class Decision(BaseModel):
    """How each fold chooses one of the variants, on its own validation patients.

    The score of a training is the mean of its balanced accuracies over the window lengths of `DURATIONS_S`, and that of
    a variant is the mean over its seeds.

    Parameters
    ----------
    tolerance : float
        Among the variants whose score is at most this much below the highest, the first one of the file is chosen.
    min_other_hospitals : float
        Variants with a lower specificity on other hospitals are chosen only if no variant reaches this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(default=0.0, ge=0, lt=1)
    min_other_hospitals: float = Field(default=0.0, ge=0, le=1)


class TrainingComparison(BaseModel):
    """A comparison, as its file describes it.

    Parameters
    ----------
    name : str
        Name of the comparison and of its run folder.
    folds, seeds : tuple of int
        Every variant is trained on each of these folds with each of these seeds.
    rule : str
        The rule of decision, in words.
    decision : Decision
        Its numbers.
    other_hospitals : tuple of str
        Databases that measure the specificity of every variant on other hospitals: a fifth of their patients, who never
        train, as for `DataConfig.extra`.
    base : Changes
        The base setting.
    variants : tuple of Variant
        The variants, each after the one that it changes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    folds: tuple[NonNegativeInt, ...] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1)
    rule: str = Field(min_length=1)
    decision: Decision = Decision()
    other_hospitals: tuple[str, ...] = ()
    base: Changes
    variants: tuple[Variant, ...] = ()

    @model_validator(mode="after")
    def _has_valid_variants(self) -> TrainingComparison:
        known = [BASE]
        for variant in self.variants:
            if variant.name in known:
                raise ValueError(f"two variants have the name {variant.name!r}")
            if variant.after not in known:
                raise ValueError(
                    f"variant {variant.name!r} comes after {variant.after!r}, which is not before it; "
                    f"name one of {', '.join(known)}"
                )
            known.append(variant.name)
        for name in known:
            self.settings(name)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the settings that are compared, the base first."""
        return (BASE, *(variant.name for variant in self.variants))

    def settings(self, name: str) -> Settings:
        """Return the complete settings of the base or a variant."""
        sections = self.sections(name)

        def read(section: str, model: Any, **more: Any) -> Any:
            try:
                return TypeAdapter(model).validate_python({**sections[section], **more})
            except ValidationError as error:
                raise ValueError(f"[{section}] of {name!r}: {'; '.join(explain(error))}") from error

        data = read("data", DataConfig)
        network = read("network", CnnSpec, input_samples=round(data.window_s * FS))
        return Settings(data, network, read("training", TrainingConfig))

    def sections(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the fields that are set for the base or a variant, by section."""
        if name == BASE:
            return self.base.model_dump()
        variant = next(variant for variant in self.variants if variant.name == name)
        return _merge(self.sections(variant.after), variant.model_dump(include={"data", "network", "training"}))


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


def read_comparison(path: Path) -> TrainingComparison:
    """Read a comparison, and check every value.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not TOML, or a key or value is not allowed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no comparison {path}; give the path of a TOML file")
    content = read_toml(path)
    try:
        return TrainingComparison.model_validate(content)
    except ValidationError as error:
        errors = "\n".join(f"  {line}" for line in explain(error, TrainingComparison))
        raise ValueError(f"{path} cannot be used:\n{errors}") from error


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
    """
    with closing(engine.run(_tasks(comparison, folder, engine, data_folder), on_progress)) as ended:
        for task, failure in ended:
            result = _read_result(task.folder, task.arguments[1])
            if result is None:
                logger.warning("%s has no result: %s", task.name, failure)
            else:
                on_trial(result)


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


@dataclass(frozen=True)
class Summary:
    """The results of a variant, or of the base, so far.

    Parameters
    ----------
    name : str
        Its name.
    trainings : int
        Number of trainings with a result.
    balanced_accuracy, sensitivity, specificity : float
        Means over the trainings of those on validation windows of 5 s.
    short : float
        Mean balanced accuracy on validation windows of 2 s.
    other_hospitals : float or None
        Mean specificity on other hospitals.
    gain : float or None
        Difference in balanced accuracy to the variant that it comes after: windows of all folds pooled, mean over the
        seeds that both have. None for the base, or without such pairs.
    interval : tuple of float or None
        Interval of 90 % of the gain, by resampling patients.
    """

    name: str
    trainings: int
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    short: float
    other_hospitals: float | None
    gain: float | None
    interval: tuple[float, float] | None


def summarise(comparison: TrainingComparison, folder: Path) -> list[Summary]:
    """Summarise the results so far; settings without any result are absent."""
    results: dict[str, list[TrialResult]] = {}
    for result in read_results(comparison, folder):
        results.setdefault(result.name, []).append(result)
    before = {variant.name: variant.after for variant in comparison.variants}
    summaries = []
    for name, of_name in results.items():
        gain = interval = None
        if name in before:
            pairs = {(r.fold, r.seed) for r in of_name} & {(r.fold, r.seed) for r in results.get(before[name], ())}
            if pairs:
                gain, interval = _gain(folder, before[name], name, sorted(pairs))
        others = [result.other_hospitals for result in of_name if result.other_hospitals is not None]
        main, short = (f"{length:g}" for length in DURATIONS_S)
        summaries.append(
            Summary(
                name=name,
                trainings=len(of_name),
                balanced_accuracy=float(np.mean([result.balanced_accuracy[main] for result in of_name])),
                sensitivity=float(np.mean([result.sensitivity[main] for result in of_name])),
                specificity=float(np.mean([result.specificity[main] for result in of_name])),
                short=float(np.mean([result.balanced_accuracy[short] for result in of_name])),
                other_hospitals=float(np.mean(others)) if others else None,
                gain=gain,
                interval=interval,
            )
        )
    return summaries


def choose(comparison: TrainingComparison, folder: Path) -> dict[int, str]:
    """Choose a variant for each fold that has all its results; see `Decision`."""
    results = list(read_results(comparison, folder))
    chosen = {}
    for fold in comparison.folds:
        of_fold = [result for result in results if result.fold == fold]
        if len(of_fold) < len(comparison.names) * len(comparison.seeds):
            continue
        scores, reaches = {}, {}
        for name in comparison.names:
            of_name = [result for result in of_fold if result.name == name]
            scores[name] = np.mean([list(result.balanced_accuracy.values()) for result in of_name])
            specificity = np.mean([result.other_hospitals or 0.0 for result in of_name])
            reaches[name] = specificity >= comparison.decision.min_other_hospitals
        allowed = [name for name in comparison.names if reaches[name]] or list(comparison.names)
        best = max(scores[name] for name in allowed)
        chosen[fold] = next(name for name in allowed if scores[name] >= best - comparison.decision.tolerance)
    return chosen


def _gain(folder: Path, before: str, after: str, pairs: Sequence[tuple[int, int]]) -> tuple[float, tuple[float, float]]:
    """Return the gain in balanced accuracy, and its interval, over pairs of fold and seed."""
    patients: dict[str, np.ndarray] = {}  # windows and correct ones, of both classes, before and after
    for fold, seed in pairs:
        for side, name in enumerate((before, after)):
            with np.load(trial_folder(folder, name, fold, seed) / VALIDATION_NAME, allow_pickle=False) as stored:
                patient, truth, shock = (stored[key] for key in ("patient", "shockable", "shock"))
            for one in np.unique(patient):
                counts = patients.setdefault(str(one), np.zeros((2, 2, 2), dtype=np.int64))
                for group in (0, 1):
                    mask = (patient == one) & (truth == bool(group))
                    counts[side, group] += mask.sum(), (mask & (shock == truth)).sum()
    counts = np.stack(list(patients.values()))

    def gains(sums: np.ndarray) -> np.ndarray:
        accuracy = (sums[..., 1] / sums[..., 0]).mean(axis=-1)
        return accuracy[..., 1] - accuracy[..., 0]

    drawn = resample_patients(counts.reshape(len(counts), -1), RESAMPLES, np.random.default_rng(0))
    drawn = drawn.reshape(-1, 2, 2, 2)
    drawn = drawn[(drawn[..., 0] > 0).all(axis=(1, 2))]
    low, high = np.quantile(gains(drawn), (0.05, 0.95))
    return float(gains(counts.sum(axis=0))), (float(low), float(high))


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
    before, now = flatten(content["settings"]), flatten(_identity(settings))
    differences = [
        f"{key}: {before.get(key)!r} in the folder, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if differences:
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


def _merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with changes."""
    merged = dict(content)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = _merge(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged
