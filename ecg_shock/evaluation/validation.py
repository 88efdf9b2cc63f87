"""`validate`: from an algorithm, be it ours or a file of what any other one said, to the figures it is evaluated by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ecg_shock.evaluation.confidence import ALPHA, RESAMPLES
from ecg_shock.evaluation.metrics import Model, Validation, evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.files import sha256

_SHOWN_DIGITS = 12  # of a file's digest


def validate(
    predictions: Predictions | str | os.PathLike[str],
    *,
    threshold: float | None = None,
    databases: Sequence[str] = (),
    data: str | os.PathLike[str] | None = None,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Validation:
    """Evaluate an algorithm by the AHA goals.

    Parameters
    ----------
    predictions : Predictions or path-like
        What any algorithm said of labelled windows, or a CSV file of that, see `Predictions.read_csv`; or the folder
        of a model (a bundle, or ``fold-0/bundle``, ``fold-1/bundle`` …), which then predicts the test patients of
        its own split.
    threshold : float, optional
        Probability of *shockable* from which on a shock is advised, for a file that has no column ``shock``.
    databases : sequence of str
        For a model: databases that it has not seen, all of whose patients are tested instead of its test patients.
    data : path-like, optional
        For a model: folder of the recordings; ``ECG_SHOCK_DATA``, else the cache folder, if not given.
    alpha : float
        Error probability of the limits, one-sided.
    resamples, seed : int
        Of the patient bootstrap.

    Returns
    -------
    Validation
        One `Performance` for each window length. `ecg_shock.report.tables` lays it out.

    Raises
    ------
    ValueError
        Naming the lines of a file that are not allowed; if an option belongs to another kind of predictions; or if
        the model has seen a patient.
    OSError
        If there is no such file or folder.

    Examples
    --------
    >>> import numpy as np
    >>> n, names = 200, np.array([f"p{i}" for i in range(200)])
    >>> said = Predictions(
    ...     database=np.full(n, "mine"), record=names, lead=np.full(n, "II"), patient=names, start_s=np.zeros(n),
    ...     duration_s=np.full(n, 4.0), rhythm=np.full(n, "vf"), aha_class=np.full(n, "coarse_vf"),
    ...     probability=np.full(n, np.nan), shock=np.arange(n) > 0, fold=np.zeros(n, int),
    ... )
    >>> coarse_vf = validate(said).performances[0].aha[0]
    >>> coarse_vf.rate.observed, coarse_vf.verdict
    (0.995, 'meets')
    """
    models: tuple[Model, ...] = ()
    source = ""
    if isinstance(predictions, Predictions):
        _refuse("predictions", threshold=threshold, databases=databases, data=data)
    elif not isinstance(predictions, (str, os.PathLike)):
        raise TypeError(
            f"predictions is of type {type(predictions).__name__}; allowed are Predictions, the path of a CSV file, "
            "and the folder of a model"
        )
    elif Path(predictions).is_dir():
        _refuse("a model, which has its own", threshold=threshold)
        from ecg_shock.evaluation.evaluation_set import EvaluationSet, describe, find_bundles

        bundles = find_bundles(Path(predictions))
        models = tuple(describe(bundle) for bundle in bundles)
        predictions = EvaluationSet(bundles, tuple(databases), None if data is None else Path(data)).predictions()
    else:
        _refuse("a file of predictions", databases=databases, data=data)
        source = describe_file(Path(predictions), threshold)
        predictions = Predictions.read_csv(predictions, threshold=threshold)
    return evaluate(predictions, models=models, source=source, alpha=alpha, resamples=resamples, seed=seed)


def describe_file(path: Path, threshold: float | None) -> str:
    """Say which file the predictions are from, and who decided to shock.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    threshold : float or None
        What was given with it.

    Returns
    -------
    str
        Its name, without the folder, the beginning of its SHA-256, and the threshold.
    """
    decision = "as its column shock says" if threshold is None else f"from a probability of {threshold:g} on"
    return f"{path.name}, SHA-256 {sha256(path)[:_SHOWN_DIGITS]}; shock advised {decision}"


def _refuse(kind: str, **options: object) -> None:
    given = [name for name, value in options.items() if value not in (None, ())]
    if given:
        raise ValueError(f"{', '.join(given)} cannot be given for {kind}; leave it out")
