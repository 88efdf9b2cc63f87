"""The results of a comparison so far: means, differences with limits over patients, and the choice of each fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecg_shock.evaluation.confidence import RESAMPLES, resample_patients
from ecg_shock.search.compare import BASE, DURATIONS_S, TrainingComparison
from ecg_shock.search.compare_trainings import (
    VALIDATION_NAME,
    TrialResult,
    read_epochs,
    read_results,
    trial_folder,
)

INTERVAL = (0.05, 0.95)


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
    all_epochs : float
        The mean of the balanced accuracy over all epochs of all trainings, which rewards speed and level.
    short : float
        Mean balanced accuracy on validation windows of 2 s.
    other_hospitals : float or None
        Mean specificity on other hospitals.
    gain : float or None
        Difference in balanced accuracy to the variant that it comes after: windows of all folds pooled, mean over the
        seeds that both have. None for the base, or without such pairs.
    interval : tuple of float or None
        Interval of 90 % of the gain, by resampling patients.
    gain_over_base, interval_over_base
        The same, compared with the base.
    parameters, macs : int
        Number of trainable parameters, and of multiply-adds for one window.
    evaluations, seconds : float
        Mean number of windows that a training presents, and its mean duration in seconds.
    """

    name: str
    trainings: int
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    all_epochs: float
    short: float
    other_hospitals: float | None
    gain: float | None
    interval: tuple[float, float] | None
    gain_over_base: float | None
    interval_over_base: tuple[float, float] | None
    parameters: int
    macs: int
    evaluations: float
    seconds: float


def summarise(comparison: TrainingComparison, folder: Path) -> list[Summary]:
    """Summarise the results so far; settings without any result are absent."""
    results: dict[str, list[TrialResult]] = {}
    for result in read_results(comparison, folder):
        results.setdefault(result.name, []).append(result)
    before = {variant.name: variant.after for variant in comparison.variants}
    summaries = []
    for name, of_name in results.items():
        gains: list[tuple[float, tuple[float, float]] | tuple[None, None]] = []
        for other in (before.get(name), BASE):
            pairs = {(r.fold, r.seed) for r in of_name} & {(r.fold, r.seed) for r in results.get(other or "", ())}
            gains.append(
                _gain(folder, other, name, sorted(pairs)) if other and name != BASE and pairs else (None, None)
            )
        others = [result.other_hospitals for result in of_name if result.other_hospitals is not None]
        main, short = (f"{length:g}" for length in DURATIONS_S)
        network = comparison.settings(name).network
        summaries.append(
            Summary(
                name=name,
                trainings=len(of_name),
                balanced_accuracy=float(np.mean([result.balanced_accuracy[main] for result in of_name])),
                sensitivity=float(np.mean([result.sensitivity[main] for result in of_name])),
                specificity=float(np.mean([result.specificity[main] for result in of_name])),
                all_epochs=_mean_of_epochs(folder, of_name),
                short=float(np.mean([result.balanced_accuracy[short] for result in of_name])),
                other_hospitals=float(np.mean(others)) if others else None,
                gain=gains[0][0],
                interval=gains[0][1],
                gain_over_base=gains[1][0],
                interval_over_base=gains[1][1],
                parameters=network.parameter_count(),
                macs=network.macs(),
                evaluations=float(np.mean([result.presentations for result in of_name])),
                seconds=float(np.mean([result.seconds for result in of_name])),
            )
        )
    return summaries


def _mean_of_epochs(folder: Path, results: Sequence[TrialResult]) -> float:
    epochs = (read_epochs(trial_folder(folder, result.name, result.fold, result.seed)) for result in results)
    return float(np.mean([np.mean([epoch["balanced_accuracy"] for epoch in history]) for history in epochs]))


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
    """Return the gain in balanced accuracy, and its interval over patients, of pairs of fold and seed."""
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
    low, high = np.quantile(gains(drawn), INTERVAL)
    return float(gains(counts.sum(axis=0))), (float(low), float(high))
