"""Two algorithms on the same windows: which is better, and how sure is that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ecg_shock.evaluation.confidence import ALPHA, RESAMPLES, check_bootstrap, resample_patients
from ecg_shock.evaluation.predictions import Predictions, codes
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE


@dataclass(frozen=True)
class Difference:
    """By how much the second algorithm is better than the first.

    Parameters
    ----------
    measure : {"Se", "Sp", "BAC"}
        Sensitivity, specificity, or their mean.
    windows, patients : int
        What it rests on.
    first, second, difference : float
        The proportion of each, and ``second - first``.
    lower_limit, upper_limit : float or None
        Two-sided, from resampling patients with what both algorithms said of them; None for a single patient, and
        where all patients gain the same, so that nothing varies.
    only_first, only_second : int
        Windows that only the first, or only the second, gets right.
    p_value : float or None
        See `mcnemar`; None for BAC, which is no proportion of windows.
    """

    measure: str
    windows: int
    patients: int
    first: float
    second: float
    difference: float
    lower_limit: float | None
    upper_limit: float | None
    only_first: int
    only_second: int
    p_value: float | None


@dataclass(frozen=True)
class Comparison:
    """Two algorithms on the same windows of one duration.

    Parameters
    ----------
    duration_s : float
        Length of every window in seconds.
    differences : tuple of Difference
        Se, Sp and BAC, as far as there are windows for them.
    alpha, resamples, seed : float, int, int
        Error probability of the limits, two-sided, and what the patient bootstrap was done with.
    """

    duration_s: float
    differences: tuple[Difference, ...]
    alpha: float
    resamples: int
    seed: int


def mcnemar(only_first: int, only_second: int) -> float:
    """Test whether two algorithms get equally many windows right, by the windows that only one of them does.

    The p-value is the exact binomial, two-sided one [1]_: 1 where there are no such windows. It takes windows as
    independent. Those of one patient are not, so that it is too small where a patient has many: the limits by patient
    of `compare` are what to trust.

    References
    ----------
    .. [1] McNemar, Psychometrika 12:153-157, 1947, doi:10.1007/BF02295996
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"the counts are {only_first!r} and {only_second!r}; allowed are 0 and more")
    from scipy.stats import binom  # slow to import

    return min(1.0, 2 * float(binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)))


def compare(
    first: Predictions,
    second: Predictions,
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare two algorithms on the same windows, each duration by itself.

    Parameters
    ----------
    first, second : Predictions
        Of the same windows, in any order. Windows of an intermediate class play no part.
    alpha, resamples, seed : float, int, int
        See `Comparison`; the limits are those of the percentile method.

    Returns
    -------
    tuple of Comparison
        The shortest duration first.

    Raises
    ------
    ValueError
        If there are no windows, if the windows, their patients or their classes are not the same, or if the
        bootstrap's parameters are not allowed.

    Notes
    -----
    Each draw takes whole patients, with the windows of both groups and what both algorithms said. Draws without a
    window of a group are excluded. Where the algorithms differ in no patient the limits are exactly 0.
    """
    check_bootstrap(alpha, resamples)
    other_shock = _shock_of(second, first)
    if not len(first):
        raise ValueError("there are no predictions; give at least one window")
    comparisons = []
    for duration in np.unique(first.duration_s):
        mask = first.duration_s == duration
        counts = _counts(first.select(mask), other_shock[mask])
        differences = tuple(_difference(measure, found, alpha, resamples, seed) for measure, found in counts.items())
        comparisons.append(Comparison(float(duration), differences, alpha, resamples, seed))
    return tuple(comparisons)


def _shock_of(second: Predictions, first: Predictions) -> np.ndarray:
    """Return the decisions of the second in the order of the first's windows, which must be the same windows."""
    rows = {key: row for row, key in enumerate(_keys(second))}
    order = [rows.pop(key, None) for key in _keys(first)]
    missing = [row for row, found in enumerate(order) if found is None]
    for name, count, windows, row in (
        ("second", len(missing), first, missing[0] if missing else 0),
        ("first", len(rows), second, next(iter(rows.values()), 0)),
    ):
        if count:
            raise ValueError(f"{count} windows are missing in the {name} predictions, such as {_name(windows, row)}")
    index = np.array(order, dtype=np.int64)
    for column in ("patient", "aha_class"):
        mine, its = getattr(first, column), getattr(second, column)[index]
        for row in np.flatnonzero(mine != its)[:1]:
            raise ValueError(
                f"{_name(first, row)} has the {column} {str(mine[row])!r} in the first predictions and "
                f"{str(its[row])!r} in the second: only the same windows, labelled alike, can be compared"
            )
    return second.shock[index]


def _keys(predictions: Predictions) -> Iterator[tuple]:
    names = ("database", "record", "lead", "start_s", "duration_s")
    return zip(*(getattr(predictions, name).tolist() for name in names), strict=True)


def _name(predictions: Predictions, row: int) -> str:
    return (
        f"database {str(predictions.database[row])!r}, record {str(predictions.record[row])!r}, "
        f"lead {str(predictions.lead[row])!r}, {predictions.start_s[row]:g} s, {predictions.duration_s[row]:g} s"
    )


def _counts(windows: Predictions, other_shock: np.ndarray) -> dict[str, np.ndarray]:
    """Count each patient's windows, shape (n_patients, n_groups, 5).

    All of a group, those that the first, the second, only the first and only the second gets right.
    """
    patient = codes(windows.patient)
    counts = {}
    for measure, classes, right in (("Se", SHOCKABLE, True), ("Sp", NONSHOCKABLE, False)):
        group = np.isin(windows.aha_class, classes)
        first, second = group & (windows.shock == right), group & (other_shock == right)
        columns = (group, first, second, first & ~second, second & ~first)
        if group.any():
            found = [np.bincount(patient[column], minlength=patient.max() + 1) for column in columns]
            counts[measure] = np.stack(found, axis=1)[:, np.newaxis]
    if len(counts) == 2:
        counts["BAC"] = np.concatenate([counts["Se"], counts["Sp"]], axis=1)
    return counts


def _difference(measure: str, counts: np.ndarray, alpha: float, resamples: int, seed: int) -> Difference:
    counts = counts[counts[:, :, 0].any(axis=1)]
    windows, first, second, only_first, only_second = counts.sum(axis=0).T
    lower = upper = None
    if len(counts) > 1:
        drawn = resample_patients(counts.reshape(len(counts), -1), resamples, np.random.default_rng(seed))
        drawn = drawn.reshape(resamples, *counts.shape[1:])
        drawn = drawn[(drawn[:, :, 0] > 0).all(axis=1)]
        gain = ((drawn[:, :, 4] - drawn[:, :, 3]) / drawn[:, :, 0]).mean(axis=1)
        # Where every patient gains the same, and not nothing, the draws know no spread.
        if len(gain) and (np.ptp(gain) > 0 or not gain.any()):
            lower, upper = (float(limit) for limit in np.quantile(gain, (alpha / 2, 1 - alpha / 2)))
    lost, won = int(only_first.sum()), int(only_second.sum())
    return Difference(
        measure=measure,
        windows=int(windows.sum()),
        patients=len(counts),
        first=float((first / windows).mean()),
        second=float((second / windows).mean()),
        difference=float(((only_second - only_first) / windows).mean()),
        lower_limit=lower,
        upper_limit=upper,
        only_first=lost,
        only_second=won,
        p_value=mcnemar(lost, won) if len(windows) == 1 else None,
    )
