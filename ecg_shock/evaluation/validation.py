"""Evaluate a model, or a file of predictions of any algorithm."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.confidence import ALPHA, RESAMPLES
from ecg_shock.evaluation.metrics import Coverage, DefaultLabels, Model, Validation, compare_labels, evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.files import sha256

if TYPE_CHECKING:
    from ecg_shock.data.corrections import CorrectedSeconds

_SHOWN_DIGITS = 12  # of a file's digest
_FAR_APART = 100.0  # times the length of a window: half-second steps in milliseconds are as far apart for 5-s windows
_MIN_GAPS = 10  # fewer windows may be so far apart by chance


def validate(
    predictions: Predictions | str | os.PathLike[str],
    *,
    windows: str | os.PathLike[str] | None = None,
    threshold: float | None = None,
    databases: Sequence[str] = (),
    corrections: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Validation:
    """Evaluate a model, or predictions of any algorithm, by the AHA goals.

    Parameters
    ----------
    predictions : Predictions or path-like
        One of these:

        - Predictions of any algorithm.
        - A CSV file of predictions; see `Predictions.read_csv`.
        - The folder of a model: a bundle, or a folder with ``fold-0/bundle``, ``fold-1/bundle`` … Each fold's model
          then predicts the test patients of its fold.
    windows : path-like, optional
        For predictions: the list of the windows that should be evaluated, as ``ecg-shock windows --csv`` writes it.
        Each prediction is matched with the list. Another class or patient than in the list is an error; if listed
        windows have no prediction, the verdict on their class is withheld.
    threshold : float, optional
        For a file without the column ``shock``: a shock is advised if the probability of *shockable* is at least this.
    databases : sequence of str
        For a model: databases that were not used to train or select it. All of their patients are tested, instead of
        its test patients.
    corrections : path-like, optional
        For a model: a file of corrections of labels; see `ecg_shock.data.corrections`. The results under the default
        labels, without corrections, are then in `Validation.default_labels`.
    data : path-like, optional
        For a model: folder of the recordings. By default, the folder in the environment variable ``ECG_SHOCK_DATA``, or
        the cache folder if it is not set.
    alpha : float
        Error probability of the confidence limits, one-sided.
    resamples, seed : int
        The number of resamples of the patient bootstrap, at least 2000, and its seed.

    Returns
    -------
    Validation
        The results, with one `Performance` for each window length.

    Raises
    ------
    ValueError
        If the file has lines that are not allowed; if predictions contradict the list of windows; if an argument cannot
        be given for this kind of `predictions`; or if the model was trained on or selected with a test patient.
    TypeError
        If `predictions` is neither predictions nor a path.
    OSError
        If the file or folder does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> n, names = 200, np.array([f"p{i}" for i in range(200)])
    >>> predictions = Predictions(
    ...     database=np.full(n, "mine"), record=names, lead=np.full(n, "II"), patient=names, start_s=np.zeros(n),
    ...     duration_s=np.full(n, 4.0), rhythm=np.full(n, "vf"), aha_class=np.full(n, "coarse_vf"),
    ...     probability=np.full(n, np.nan), shock=np.arange(n) > 0, fold=np.zeros(n, int),
    ... )
    >>> coarse_vf = validate(predictions).performances[0].aha[0]
    >>> coarse_vf.rate.observed, coarse_vf.verdict
    (0.995, 'meets')
    """
    source = ""
    coverage: Coverage | None = None
    if isinstance(predictions, Predictions):
        _refuse_options("Predictions", threshold=threshold, databases=databases, corrections=corrections, data=data)
        if windows is not None:
            predictions, coverage = _match_with_file(predictions, Path(windows))
    elif not isinstance(predictions, (str, os.PathLike)):
        raise TypeError(
            f"predictions is of type {type(predictions).__name__}; allowed are Predictions, the path of a CSV file, "
            "or the folder of a model"
        )
    elif Path(predictions).is_dir():
        _refuse_options("the folder of a model", threshold=threshold, windows=windows)
        from ecg_shock.evaluation.evaluation_set import EvaluationSet, describe_all, find_bundles

        bundles = find_bundles(Path(predictions))
        models = describe_all(bundles)
        folder, file = (None if path is None else Path(path) for path in (data, corrections))
        evaluation = EvaluationSet(bundles, tuple(databases), folder, file)
        return evaluate_by_labels(
            evaluation.predictions_by_labels(),
            models=models,
            corrected=evaluation.corrected(),
            alpha=alpha,
            resamples=resamples,
            seed=seed,
        )
    else:
        _refuse_options("a file of predictions", databases=databases, corrections=corrections, data=data)
        source = describe_file(Path(predictions), threshold)
        predictions, coverage = read_predictions(Path(predictions), windows, threshold)
    return evaluate(predictions, source=source, coverage=coverage, alpha=alpha, resamples=resamples, seed=seed)


def evaluate_by_labels(
    predictions: Mapping[LabelPolicy, Predictions],
    *,
    models: tuple[Model, ...] = (),
    corrected: tuple[CorrectedSeconds, ...] = (),
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Validation:
    """Evaluate the same advice under the label policy of the models, and under the default policy if it differs.

    Parameters
    ----------
    predictions : mapping of LabelPolicy to Predictions
        What `ecg_shock.evaluation.evaluation_set.EvaluationSet.predictions_by_labels` returns.
    models, alpha, resamples, seed
        See `ecg_shock.evaluation.metrics.evaluate`.
    corrected : tuple of CorrectedSeconds
        What `ecg_shock.evaluation.evaluation_set.EvaluationSet.corrected` returns.

    Returns
    -------
    Validation
        The results under the policy of the models, with those under the default policy in `default_labels`.
    """
    (labels, own), *others = predictions.items()
    validation = evaluate(own, models=models, alpha=alpha, resamples=resamples, seed=seed)
    if not others:
        return validation
    ((_, default),) = others
    performances = evaluate(default, alpha=alpha, resamples=resamples, seed=seed).performances
    found = DefaultLabels(labels, performances, compare_labels(own, default), corrected)
    return replace(validation, default_labels=found)


def read_predictions(
    path: Path, windows: str | os.PathLike[str] | None, threshold: float | None = None
) -> tuple[Predictions, Coverage | None]:
    """Read a file of predictions, and match it with the file that lists the windows, if there is one.

    Without a list, a ValueError is raised if the starts look like milliseconds or samples.
    """
    predictions = Predictions.read_csv(path, threshold=threshold)
    if windows is not None:
        return _match_with_file(predictions, Path(windows))
    table = predictions.to_frame().sort_values("start_s")
    gaps = table.groupby(["database", "record"], observed=True)["start_s"].diff() / table["duration_s"]
    gaps = gaps[gaps > 0]  # leads and durations of the same start have none
    if len(gaps) >= _MIN_GAPS and gaps.min() >= _FAR_APART:
        raise ValueError(
            f"{path}: in every record the windows begin {_FAR_APART:g} or more of their lengths apart, as if start_s "
            "were in milliseconds or samples. Give seconds. If the starts are right, give the list of windows "
            "(--windows)."
        )
    return predictions, None


def _match_with_file(predictions: Predictions, path: Path) -> tuple[Predictions, Coverage]:
    from ecg_shock.evaluation.window_list import match, read_window_list

    return match(predictions, read_window_list(path), f"{path.name}, SHA-256 {sha256(path)[:_SHOWN_DIGITS]}")


def describe_file(path: Path, threshold: float | None) -> str:
    """Return the name of a file, the beginning of its SHA-256, and how its shocks are advised, for the reports."""
    decision = "by its column shock" if threshold is None else f"at {threshold:g} or above"
    return f"{path.name}, SHA-256 {sha256(path)[:_SHOWN_DIGITS]}; shock advised {decision}"


def _refuse_options(kind: str, **options: object) -> None:
    given = [name for name, value in options.items() if value not in (None, ())]
    if given:
        raise ValueError(f"{', '.join(given)} cannot be given for {kind}; remove {'it' if len(given) == 1 else 'them'}")
