"""Compute proportions of windows, and their confidence limits: by window, by patient, and by design effect.

Limits by window treat windows as independent. The other limits allow for windows of one patient resembling each other.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.10  # AHA 1997 states its limits as "90 % one-sided"
RESAMPLES = 2000


@dataclass(frozen=True)
class Proportion:
    """A proportion of windows with its confidence limits.

    Parameters
    ----------
    windows, patients : int
        The numbers of windows and of their patients.
    count : int
        The number of windows with the right advice. For an intermediate class (fine VF, other VT), which has no right
        advice, the number of windows with a shock advised.
    observed, macro_average : float or None
        ``count / windows``, and the mean over patients of each patient's proportion. None if there are no windows.
    lower_limit, patient_limit, cluster_limit, design_effect : float or None
        The results of the functions `lower_limit`, `bootstrap_limit`, `cluster_limit` and `design_effect`. None if
        there are no windows, or if the function returns NaN. Limits are one-sided. If few patients have errors,
        `patient_limit` is too high; then use `cluster_limit`.
    """

    windows: int
    patients: int
    count: int
    observed: float | None
    lower_limit: float | None
    patient_limit: float | None
    macro_average: float | None
    design_effect: float | None = None
    cluster_limit: float | None = None

    @property
    def effective_windows(self) -> float | None:
        """`windows` divided by the design effect, at most `windows`; None if there is no design effect."""
        # A design effect below 1 is due to chance if there are few patients.
        return None if self.design_effect is None else self.windows / max(self.design_effect, 1.0)


@dataclass(frozen=True)
class BalancedAccuracy:
    """The mean of sensitivity and specificity.

    Parameters
    ----------
    patients : int
        The number of patients with shockable or nonshockable windows.
    observed, patient_limit : float or None
        The mean of the observed sensitivity and specificity, and its lower limit by patient. Each patient is resampled
        with all of its windows. None if there are no shockable or no nonshockable windows.
    """

    patients: int
    observed: float | None
    patient_limit: float | None


def lower_limit(k: int, n: int, alpha: float = ALPHA) -> float:
    """Compute the one-sided lower Clopper-Pearson limit of a proportion.

    Parameters
    ----------
    k, n : int
        The number of correct windows, and of all windows.
    alpha : float
        Error probability, between 0 and 1. For the lower end of a two-sided 95 % interval, give 0.025.

    Returns
    -------
    float
        The limit, from 0 to 1: 0 if `k` is 0, and ``alpha ** (1 / n)`` if `k` is `n`.

    Raises
    ------
    ValueError
        If there are no windows, `k` is outside 0 to `n`, or `alpha` is outside 0 to 1.
    TypeError
        If `k` or `n` is not an integer.

    References
    ----------
    .. [1] Clopper and Pearson, Biometrika 26:404-413, 1934, doi:10.1093/biomet/26.4.404

    Examples
    --------
    >>> round(100 * lower_limit(521, 535, alpha=0.025), 2)
    95.65
    """
    k, n = _check_counts(k, n)
    _check_alpha(alpha)
    if k == 0:
        return 0.0
    from scipy.stats import beta  # slow to import

    return float(beta.ppf(alpha, k, n - k + 1))


def upper_limit(k: int, n: int, alpha: float = ALPHA) -> float:
    """Compute the one-sided upper Clopper-Pearson limit of a proportion.

    It has the same parameters as `lower_limit`, and raises the same errors.
    """
    k, n = _check_counts(k, n)
    return 1.0 - lower_limit(n - k, n, alpha)


def _check_counts(k: int, n: int) -> tuple[int, int]:
    k, n = operator.index(k), operator.index(n)
    if n < 1:
        raise ValueError(f"n is {n!r}; allowed are 1 or more")
    if not 0 <= k <= n:
        raise ValueError(f"k is {k!r} and n is {n!r}; allowed for k are 0 to n")
    return k, n


def bootstrap_limit(
    correct: np.ndarray,
    windows: np.ndarray,
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Compute the one-sided lower limit of a proportion by resampling patients.

    Windows of one patient resemble each other, so `lower_limit`, which treats them as independent, is too high. This
    function resamples patients with replacement; each patient keeps all of its windows. The limit is the `alpha`
    quantile of the resampled proportions, which is the percentile method [1]_.

    Parameters
    ----------
    correct, windows : numpy.ndarray
        Shape (n_patients,), int: the numbers of correct windows and of all windows of each patient. With shape
        (n_patients, n_proportions), the result is the limit of the mean of the proportions, such as balanced accuracy,
        the mean of two. A patient may lack windows for some of the proportions.
    alpha : float
        Error probability, between 0 and 1.
    resamples, seed : int
        The number of resamples, at least 2000, and their seed. The order of the patients does not matter.

    Returns
    -------
    float
        The limit, from 0 to 1; NaN for a single patient with some wrong windows.

    Raises
    ------
    ValueError
        If the shapes differ, a proportion has no windows, a count is negative or above the number of windows, or
        `alpha` or `resamples` is out of range.

    Notes
    -----
    Deviations from the plain percentile bootstrap:

    - If all windows are correct, every resampled proportion would be 100 %, even with three patients. Therefore, the
      resampled proportions are replaced by the quantiles of the distribution Beta(n_patients, 1) in random order. The
      limit is then the Clopper-Pearson limit of n_patients windows that are all correct. This limit can be lower than
      the limit of a proportion with a few errors.
    - Resamples without a window for one of the proportions are excluded.

    If few patients have errors, the limit of the percentile method is too high. For 100 patients with one window each,
    one of them wrong, it is 98 %; the Clopper-Pearson limit is 96 %. `cluster_limit` does not have this fault.

    References
    ----------
    .. [1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, doi:10.1201/9780429246593
    """
    check_bootstrap(alpha, resamples)
    correct, windows = _check_counts_by_patient(correct, windows)
    n_patients = (windows > 0).sum(axis=0)
    all_correct = correct.sum(axis=0) == windows.sum(axis=0)
    if ((n_patients == 1) & ~all_correct).any():
        return float("nan")

    rng = np.random.default_rng(seed)
    sum_correct, sum_windows = np.hsplit(resample_patients(np.hstack([correct, windows]), resamples, rng), 2)
    complete = (sum_windows > 0).all(axis=1)
    proportions = sum_correct[complete] / sum_windows[complete]
    for i in np.flatnonzero(all_correct):
        probabilities = (np.arange(len(proportions)) + 0.5) / len(proportions)
        proportions[:, i] = rng.permutation(probabilities) ** (1 / n_patients[i])
    return float(np.quantile(proportions.mean(axis=1), alpha))


def resample_patients(counts: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Resample patients with replacement, and return the sums of their counts.

    `counts` has the shape (n_patients, n_counts), int; the result has the shape (resamples, n_counts). Each resample
    has n_patients patients. Patients with equal counts are drawn as a group from one multinomial distribution. This is
    faster, and makes the result independent of the order of the patients.
    """
    distinct, patients = np.unique(counts, axis=0, return_counts=True)
    return rng.multinomial(len(counts), patients / len(counts), size=resamples) @ distinct


def check_bootstrap(alpha: float, resamples: int) -> None:
    """Raise a ValueError unless `alpha` is between 0 and 1 and `resamples` is at least `RESAMPLES`."""
    if resamples < RESAMPLES:
        raise ValueError(f"resamples is {resamples!r}; allowed are {RESAMPLES} or more")
    _check_alpha(alpha)


def _check_counts_by_patient(correct: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check both counts, and return them as integers of shape (n_patients, n_proportions)."""
    correct, windows = np.asarray(correct, dtype=np.int64), np.asarray(windows, dtype=np.int64)
    if correct.shape != windows.shape or correct.ndim not in (1, 2):
        raise ValueError(
            f"correct has shape {correct.shape} and windows {windows.shape}; "
            "allowed is (n_patients,) or (n_patients, n_proportions) for both"
        )
    if (correct < 0).any() or (correct > windows).any():
        raise ValueError(
            "correct has a count below 0, or above the count in windows; allowed are 0 to the count in windows"
        )
    if (windows.sum(axis=0) == 0).any():
        raise ValueError("a proportion has no windows; give each proportion at least one window")
    return (correct, windows) if correct.ndim == 2 else (correct[:, np.newaxis], windows[:, np.newaxis])


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha!r}; allowed are numbers between 0 and 1, such as {ALPHA}")


def design_effect(correct: np.ndarray, windows: np.ndarray) -> float:
    """Compute the ratio of a proportion's variance to the variance that independent windows would give.

    The number of windows divided by the design effect is the effective number of windows: the number of independent
    windows with the same variance [1]_. The design effect is about 1 if every patient has one window, and about the
    number of windows per patient if all windows of a patient are alike.

    Parameters
    ----------
    correct, windows : numpy.ndarray
        Shape (n_patients,), int: as for `bootstrap_limit`. Patients without windows are ignored.

    Returns
    -------
    float
        The ratio, which can be below 1. NaN if there is only one patient, or if all or none of the windows are
        correct.

    Notes
    -----
    Let m be the number of patients, n and c the numbers of windows and of correct windows of each patient, and
    p = sum(c) / sum(n).

    - The variance of p is estimated as m / (m - 1) sum((c - p n)^2) / sum(n)^2 [2]_. This linear approximation is
      somewhat too small with few patients.
    - The variance for independent windows is the binomial p (1 - p) / sum(n).

    References
    ----------
    .. [1] Kish, Survey Sampling, 1965, section 8.2
    .. [2] Rao and Scott, Biometrics 48:577-585, 1992, doi:10.2307/2532311
    """
    correct, windows = (counts[:, 0] for counts in _check_counts_by_patient(correct, windows))
    total, n_correct, patients = int(windows.sum()), int(correct.sum()), int((windows > 0).sum())
    if patients == 1 or n_correct in (0, total):
        return float("nan")
    p = n_correct / total
    between = patients / (patients - 1) * float(((correct - p * windows) ** 2).sum()) / total**2
    return between / (p * (1 - p) / total)


def cluster_limit(correct: np.ndarray, windows: np.ndarray, *, alpha: float = ALPHA) -> float:
    """Compute the one-sided lower limit of a proportion from its effective number of windows.

    This is the Clopper-Pearson limit for the effective number of windows (see `design_effect`). That number is reduced
    further if there are few patients, whose variance is uncertain [1]_. If every patient has one window, the result is
    about `lower_limit`. It is not too high if few patients have errors, as `bootstrap_limit` is.

    Parameters
    ----------
    correct, windows, alpha
        As for `bootstrap_limit`, for one proportion.

    Returns
    -------
    float
        The limit, from 0 to 1, at most `lower_limit` of the same windows. It is ``alpha ** (1 / n_patients)`` if all
        windows are correct, and NaN for a single patient with some wrong windows.

    Notes
    -----
    Deviations from [1]_: the limit is one-sided, and the effective number is at most the number of windows.

    References
    ----------
    .. [1] Korn and Graubard, Survey Methodology 24:193-201, 1998
    """
    _check_alpha(alpha)
    effect = design_effect(correct, windows)  # raises if the counts are impossible
    total, n_correct, patients = int(windows.sum()), int(correct.sum()), int((windows > 0).sum())
    if n_correct in (0, total):
        return float(alpha ** (1 / patients)) if n_correct else 0.0
    if patients == 1:
        return float("nan")
    from scipy.stats import beta, norm, t  # slow to import

    correction = (norm.isf(alpha) / t.isf(alpha, patients - 1)) ** 2 if alpha != 0.5 else 1.0  # not 0 / 0
    effective = min(total / effect * correction, float(total)) if effect > 0 else float(total)
    p = n_correct / total
    return float(beta.ppf(alpha, p * effective, (1 - p) * effective + 1))


def compute_proportion(
    patient: np.ndarray, counted: np.ndarray, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0
) -> Proportion:
    """Compute a proportion of windows and its limits.

    Parameters
    ----------
    patient : numpy.ndarray
        Shape (n_windows,), int: an index of each window's patient, from 0.
    counted : numpy.ndarray
        Shape (n_windows,), bool: True for the windows in the numerator, such as those with the right advice.
    alpha, resamples, seed : float, int, int
        As for `bootstrap_limit`.
    """
    if not len(counted):
        return Proportion(0, 0, 0, None, None, None, None)
    windows = np.bincount(patient)
    correct = np.bincount(patient[counted], minlength=len(windows))[windows > 0]
    windows = windows[windows > 0]
    count = int(correct.sum())
    return Proportion(
        windows=len(counted),
        patients=len(windows),
        count=count,
        observed=count / len(counted),
        lower_limit=lower_limit(count, len(counted), alpha),
        patient_limit=_none_if_nan(bootstrap_limit(correct, windows, alpha=alpha, resamples=resamples, seed=seed)),
        macro_average=float(np.mean(correct / windows)),
        design_effect=_none_if_nan(design_effect(correct, windows)),
        cluster_limit=_none_if_nan(cluster_limit(correct, windows, alpha=alpha)),
    )


def compute_balanced_accuracy(
    patient: np.ndarray, counted: np.ndarray, groups: Sequence[np.ndarray], alpha: float, resamples: int, seed: int
) -> BalancedAccuracy:
    """Compute the mean of the proportions of two groups, and its limit.

    Parameters
    ----------
    patient, counted, alpha, resamples, seed
        As for `compute_proportion`.
    groups : sequence of numpy.ndarray
        Two masks of shape (n_windows,), bool: the shockable and the nonshockable windows.
    """
    correct, windows = (
        np.stack([np.bincount(patient[group & mask], minlength=patient.max() + 1) for group in groups], axis=1)
        for mask in (counted, np.ones_like(counted))
    )
    correct, windows = (counts[windows.any(axis=1)] for counts in (correct, windows))
    if not windows.any(axis=0).all():
        return BalancedAccuracy(len(windows), None, None)
    limit = bootstrap_limit(correct, windows, alpha=alpha, resamples=resamples, seed=seed)
    return BalancedAccuracy(
        len(windows), float(np.mean(correct.sum(axis=0) / windows.sum(axis=0))), _none_if_nan(limit)
    )


def _none_if_nan(limit: float) -> float | None:
    return None if np.isnan(limit) else limit


def poisson_upper_limit(count: int, alpha: float = ALPHA) -> float:
    """Compute the exact one-sided upper limit of the mean of a Poisson distribution, from one observed count.

    The limit is the mean at which `count` or fewer events have the probability `alpha` [1]_. Divide it by the hours of
    observation for a limit of events per hour. The limit treats events as independent; events of one patient are not.

    Parameters
    ----------
    count : int
        The number of observed events.
    alpha : float
        Error probability, between 0 and 1.

    Raises
    ------
    ValueError
        If `count` is negative or `alpha` is out of range.

    References
    ----------
    .. [1] Garwood, Biometrika 28:437-442, 1936, doi:10.1093/biomet/28.3-4.437
    """
    if count < 0 or not 0 < alpha < 1:
        raise ValueError(
            f"count is {count!r} and alpha is {alpha!r}; allowed for count are 0 or more, for alpha 0 to 1"
        )
    from scipy.stats import chi2  # slow to import

    return float(chi2.isf(alpha, 2 * (count + 1)) / 2)
