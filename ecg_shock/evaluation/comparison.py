"""Compare two algorithms on the same windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecg_shock.evaluation.confidence import ALPHA, RESAMPLES, check_bootstrap, resample_patients
from ecg_shock.evaluation.predictions import Predictions, describe_window, encode_names
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

if TYPE_CHECKING:
    import pandas as pd

WINDOW_KEY = ["database", "record", "lead", "start_s", "duration_s"]


@dataclass(frozen=True)
class Difference:
    """The difference between two algorithms in one measure.

    Parameters
    ----------
    measure : {"Se", "Sp", "BAC"}
        Sensitivity, specificity, or their mean.
    windows, patients : int
        The numbers of windows and patients.
    first, second, difference : float
        The proportion of each algorithm, and ``second - first``.
    lower_limit, upper_limit : float or None
        Two-sided confidence limits of `difference`, from resampled patients. None if there is only one patient, or if
        all patients have the same difference and it is not 0.
    only_first, only_second : int
        The numbers of windows that only the first or only the second algorithm gets right.
    p_value : float or None
        The p-value of `mcnemar`; None for BAC, which is not a proportion of windows.
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
    """The results of two algorithms on the same windows of one duration.

    Parameters
    ----------
    duration_s : float
        Length of every window in seconds.
    differences : tuple of Difference
        The differences in Se, Sp and BAC. A measure without windows is omitted.
    alpha, resamples, seed : float, int, int
        Error probability of the limits, two-sided; the number of resamples of the patient bootstrap, and its seed.
    """

    duration_s: float
    differences: tuple[Difference, ...]
    alpha: float
    resamples: int
    seed: int


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test [1]_.

    The test treats windows as independent. If one patient has many windows, the p-value is too small; then use the
    limits by patient of `compare_predictions`.

    Parameters
    ----------
    only_first, only_second : int
        The numbers of windows that only the first and only the second algorithm gets right.

    Returns
    -------
    float
        The p-value, 0 to 1; it is 1 if both counts are 0.

    Raises
    ------
    ValueError
        If a count is negative.

    References
    ----------
    .. [1] McNemar, Psychometrika 12:153-157, 1947, doi:10.1007/BF02295996
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"only_first is {only_first!r} and only_second is {only_second!r}; allowed are 0 or more")
    from scipy.stats import binom  # slow to import

    return min(1.0, 2 * float(binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)))


def compare_predictions(
    first: Predictions,
    second: Predictions,
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare two algorithms on the same windows by paired tests, separately for each duration.

    Parameters
    ----------
    first, second : Predictions
        The predictions of both algorithms for the same windows, in any order. Windows of an intermediate class (fine
        VF, other VT) are not counted.
    alpha, resamples, seed : float, int, int
        See `Comparison`. The limits are computed with the percentile method.

    Returns
    -------
    tuple of Comparison
        One for each duration, the shortest first.

    Raises
    ------
    ValueError
        If there are no windows; if the windows, their patients or their classes differ; or if `alpha` or `resamples`
        is not allowed.

    Notes
    -----
    Whole patients are resampled: with their shockable and nonshockable windows, and with the advice of both algorithms.
    A resample without shockable or without nonshockable windows is excluded. If the algorithms never differ, both
    limits are 0.

    Examples
    --------
    >>> from dataclasses import replace
    >>> n, names = 20, np.array([f"p{i}" for i in range(20)])
    >>> first = Predictions(
    ...     database=np.full(n, "mine"), record=names, lead=np.full(n, "II"), patient=names, start_s=np.zeros(n),
    ...     duration_s=np.full(n, 4.0), rhythm=np.full(n, "vf"), aha_class=np.full(n, "coarse_vf"),
    ...     probability=np.full(n, np.nan), shock=np.arange(n) > 7, fold=np.zeros(n, int),
    ... )
    >>> (comparison,) = compare_predictions(first, replace(first, shock=np.arange(n) > 0))
    >>> (se,) = comparison.differences
    >>> se.measure, se.only_first, se.only_second, round(se.difference, 2), round(se.p_value, 3)
    ('Se', 0, 7, 0.35, 0.016)
    """
    check_bootstrap(alpha, resamples)
    merged = _merge(first, second)
    if not len(merged):
        raise ValueError("there are no predictions; give the predictions of one or more windows")
    comparisons = []
    for duration, windows in merged.groupby("duration_s"):
        counts = _count_by_patient(windows)
        differences = tuple(_difference(measure, found, alpha, resamples, seed) for measure, found in counts.items())
        comparisons.append(Comparison(float(duration), differences, alpha, resamples, seed))
    return tuple(comparisons)


def _merge(first: Predictions, second: Predictions) -> pd.DataFrame:
    """Join both predictions, one row per window; raise a ValueError if their windows or labels differ."""
    texts = dict.fromkeys(("database", "record", "lead", "patient", "aha_class"), object)
    frames = [
        predictions.to_frame()[[*WINDOW_KEY, "patient", "aha_class", "shock"]].astype(texts)
        for predictions in (first, second)
    ]
    merged = frames[0].merge(frames[1], "outer", WINDOW_KEY, suffixes=("", "_second"), indicator="found_in")
    for name, found_in in (("second", "left_only"), ("first", "right_only")):
        missing = merged[merged["found_in"] == found_in]
        if len(missing):
            example = describe_window(missing.iloc[0])
            raise ValueError(
                f"the {name} predictions lack {len(missing)} windows of the other predictions, such as {example}; give "
                "both for the same windows"
            )
    for column in ("patient", "aha_class"):
        different = merged[merged[column] != merged[f"{column}_second"]]
        if len(different):
            window = different.iloc[0]
            raise ValueError(
                f"{describe_window(window)} has the {column} {window[column]!r} in the first predictions and "
                f"{window[column + '_second']!r} in the second; give the same windows with the same labels"
            )
    return merged


def _count_by_patient(windows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return an array of counts for each measure, shape (n_patients, n_groups, 5).

    The five counts are all windows of the group, and the windows that the first, the second, only the first and only
    the second algorithm gets right.
    """
    patient = encode_names(windows["patient"].to_numpy(str))
    counts = {}
    for measure, classes, right in (("Se", SHOCKABLE, True), ("Sp", NONSHOCKABLE, False)):
        group = windows["aha_class"].isin(classes).to_numpy()
        first, second = (group & (windows[name] == right).to_numpy() for name in ("shock", "shock_second"))
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
        # Resamples do not vary if all patients have the same difference. Limits then make sense only if it is 0.
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
