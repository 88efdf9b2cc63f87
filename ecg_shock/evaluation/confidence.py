"""Proportions and their limits: by windows, as if each were independent, and by patients, who are."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.10  # AHA 1997 states its limits as "90 % one-sided"
RESAMPLES = 2000


@dataclass(frozen=True)
class Proportion:
    """A proportion of windows, and how sure it is.

    Parameters
    ----------
    windows, patients : int
        What it rests on.
    count : int
        The windows with the right advice: shock for shockable, no shock for nonshockable ones. Of an intermediate
        class, which has no right advice, the windows advised shock.
    observed, macro_average : float or None
        ``count / windows``, and the mean over patients of each patient's proportion; None where there are no windows.
    lower_limit, patient_limit, cluster_limit, design_effect : float or None
        See the functions `lower_limit`, `bootstrap_limit`, `cluster_limit` (what to trust where few patients have
        errors) and `design_effect`. Limits are one-sided. None where there are no windows, or the function gives NaN.
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
        """As many independent windows would tell as much, at most those that there are; None without design effect."""
        # With few patients a design effect below 1 is chance: it makes no windows out of nothing.
        return None if self.design_effect is None else self.windows / max(self.design_effect, 1.0)


@dataclass(frozen=True)
class BalancedAccuracy:
    """The mean of sensitivity and specificity.

    Parameters
    ----------
    patients : int
        All with shockable or nonshockable windows.
    observed, patient_limit : float or None
        As in `Proportion`; windows of both groups are resampled together, patient by patient. None where there are no
        shockable or no nonshockable windows.
    """

    patients: int
    observed: float | None
    patient_limit: float | None


def lower_limit(k: int, n: int, alpha: float = ALPHA) -> float:
    """Compute the one-sided lower Clopper-Pearson limit of a proportion.

    Parameters
    ----------
    k, n : int
        `k` windows of `n` are correct.
    alpha : float
        Error probability, between 0 and 1; half of it gives one end of the usual two-sided interval.

    Returns
    -------
    float
        The limit, from 0 to 1: 0 where `k` is 0, and ``alpha ** (1 / n)`` where `k` is `n`.

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
    k, n = _checked(k, n)
    _check_alpha(alpha)
    if k == 0:
        return 0.0
    from scipy.stats import beta  # slow to import

    return float(beta.ppf(alpha, k, n - k + 1))


def upper_limit(k: int, n: int, alpha: float = ALPHA) -> float:
    """Compute the one-sided upper Clopper-Pearson limit of a proportion: `lower_limit` from the other side."""
    k, n = _checked(k, n)
    return 1.0 - lower_limit(n - k, n, alpha)


def _checked(k: int, n: int) -> tuple[int, int]:
    k, n = operator.index(k), operator.index(n)
    if n < 1:
        raise ValueError(f"n is {n!r}; a limit needs at least one window")
    if not 0 <= k <= n:
        raise ValueError(f"k is {k!r}; allowed are 0 to n = {n!r}")
    return k, n


def bootstrap_limit(
    correct: np.ndarray,
    windows: np.ndarray,
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Compute the lower limit of a proportion by resampling patients.

    Windows of one patient resemble each other, so that `lower_limit`, which takes them as independent, is too high.
    Here whole patients are drawn with replacement, and the limit is the `alpha` quantile of the proportion: the
    percentile method [1]_ on clusters.

    Parameters
    ----------
    correct, windows : numpy.ndarray
        Shape (n_patients,), int: how many windows of each patient are correct, and how many there are. With
        shape (n_patients, n_proportions) the limit is that of the mean of the proportions: balanced accuracy is the
        mean of two, and a patient may have windows of both or of one.
    alpha : float
        Error probability, one-sided.
    resamples, seed : int
        How often the patients are drawn, at least 2000, and the seed of the draws. The order of the patients does not
        matter.

    Returns
    -------
    float
        The limit, from 0 to 1; NaN where a single patient with some windows wrong leaves nothing to resample.

    Raises
    ------
    ValueError
        If the shapes differ, a proportion has no windows, a count is impossible, or there are too few resamples.

    Notes
    -----
    Deviations from the plain percentile bootstrap:

    - A proportion without a single wrong window would have no spread and a limit of 100 %, be it of three patients.
      Its resamples are the quantiles of Beta(patients, 1) in random order, so that its limit is Clopper-Pearson's
      for as many correct windows as there are patients. That allows for patients in whom everything fails, and
      can be below the limit of a proportion with a few wrong windows.
    - Draws that hold no window of one of the proportions are excluded.

    Where few patients have errors the percentile method is too high, as much above the right limit as binomial limits
    are below it for so few: of 100 patients with one window each, one of them wrong, it gives 98 % and Clopper-Pearson
    96 %. `cluster_limit` is not, and is to be read beside it.

    References
    ----------
    .. [1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, doi:10.1201/9780429246593
    """
    check_bootstrap(alpha, resamples)
    correct, windows = _checked_by_patient(correct, windows)
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
    """Draw patients with replacement, as many as there are, and add up what they count.

    From shape (n_patients, n_counts), int, to (resamples, n_counts). Patients with the same counts are drawn together
    by a multinomial: the same distribution in less time, whatever the order of the patients.
    """
    kinds, alike = np.unique(counts, axis=0, return_counts=True)
    return rng.multinomial(len(counts), alike / len(counts), size=resamples) @ kinds


def check_bootstrap(alpha: float, resamples: int) -> None:
    """Refuse an error probability or a number of resamples that a bootstrap cannot work with."""
    if resamples < RESAMPLES:
        raise ValueError(f"resamples is {resamples!r}; allowed are {RESAMPLES} and more")
    _check_alpha(alpha)


def _checked_by_patient(correct: np.ndarray, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both counts as integers of shape (n_patients, n_proportions), or refuse what cannot be counts."""
    correct, windows = np.asarray(correct, dtype=np.int64), np.asarray(windows, dtype=np.int64)
    if correct.shape != windows.shape or correct.ndim not in (1, 2):
        raise ValueError(
            f"correct has shape {correct.shape} and windows {windows.shape}; "
            "allowed is the same shape twice, (n_patients,) or (n_patients, n_proportions)"
        )
    if (correct < 0).any() or (correct > windows).any():
        raise ValueError("every patient's correct windows must lie between 0 and the patient's windows")
    if (windows.sum(axis=0) == 0).any():
        raise ValueError("a proportion without windows has no limit and no design effect; exclude it")
    return (correct, windows) if correct.ndim == 2 else (correct[:, np.newaxis], windows[:, np.newaxis])


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha!r}; allowed is anything between 0 and 1, such as {ALPHA}")


def design_effect(correct: np.ndarray, windows: np.ndarray) -> float:
    """Compute how many times the variance of a proportion is what independent windows would give.

    The number of windows divided by it is the effective number of windows: as many independent ones would tell as
    much [1]_. Where every patient has one window it is about 1; where windows of a patient are all alike it is about
    the number of windows a patient.

    Parameters
    ----------
    correct, windows : numpy.ndarray
        Shape (n_patients,), int, as for `bootstrap_limit`. Patients without windows do not matter.

    Returns
    -------
    float
        It can be below 1, by chance or where every patient has the same proportion. NaN for a single patient, and where
        all windows are correct or none is: then there is no variance to compare.

    Notes
    -----
    With m patients, c of whose n windows are correct, and p = sum(c) / sum(n), the variance of p between patients is
    m / (m - 1) sum((c - p n)^2) / sum(n)^2 [2]_ (linearised; with few patients it is somewhat too small), and the
    binomial one p (1 - p) / sum(n).

    References
    ----------
    .. [1] Kish, Survey Sampling, 1965, section 8.2
    .. [2] Rao and Scott, Biometrics 48:577-585, 1992, doi:10.2307/2532311
    """
    correct, windows = (counts[:, 0] for counts in _checked_by_patient(correct, windows))
    total, right, patients = int(windows.sum()), int(correct.sum()), int((windows > 0).sum())
    if patients == 1 or right in (0, total):
        return float("nan")
    p = right / total
    between = patients / (patients - 1) * float(((correct - p * windows) ** 2).sum()) / total**2
    return between / (p * (1 - p) / total)


def cluster_limit(correct: np.ndarray, windows: np.ndarray, *, alpha: float = ALPHA) -> float:
    """Compute the lower limit of a proportion whose windows come in patients, by their effective number.

    Clopper-Pearson with as many windows as independent ones would tell as much, fewer the less sure the variance
    between so few patients is [1]_. Where every window is a patient it is about `lower_limit`, also with few errors,
    where `bootstrap_limit` is too high.

    Parameters
    ----------
    correct, windows, alpha
        As for `bootstrap_limit`, of one proportion.

    Returns
    -------
    float
        The limit, from 0 to 1, and never above `lower_limit` of the windows. Where all are correct it is that of as
        many windows as patients; NaN for a single patient with some windows wrong.

    Notes
    -----
    Deviations from [1]_: it is one-sided, and the effective number is at most the number of windows.

    References
    ----------
    .. [1] Korn and Graubard, Survey Methodology 24:193-201, 1998
    """
    _check_alpha(alpha)
    effect = design_effect(correct, windows)  # refuses impossible counts
    total, right, patients = int(windows.sum()), int(correct.sum()), int((windows > 0).sum())
    if right in (0, total):
        return float(alpha ** (1 / patients)) if right else 0.0
    if patients == 1:
        return float("nan")
    from scipy.stats import beta, norm, t  # slow to import

    sureness = (norm.isf(alpha) / t.isf(alpha, patients - 1)) ** 2 if alpha != 0.5 else 1.0  # at the middle 0 / 0
    effective = min(total / effect * sureness, float(total)) if effect > 0 else float(total)
    p = right / total
    return float(beta.ppf(alpha, p * effective, (1 - p) * effective + 1))


def proportion_of(
    patient: np.ndarray, right: np.ndarray, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0
) -> Proportion:
    """Compute a proportion of windows and its limits.

    Parameters
    ----------
    patient : numpy.ndarray
        Shape (n_windows,), int: a number from 0 on for each patient.
    right : numpy.ndarray
        Shape (n_windows,), bool: the windows that count.
    alpha, resamples, seed : float, int, int
        As for `bootstrap_limit`.
    """
    if not len(right):
        return Proportion(0, 0, 0, None, None, None, None)
    windows = np.bincount(patient)
    correct = np.bincount(patient[right], minlength=len(windows))[windows > 0]
    windows = windows[windows > 0]
    count = int(correct.sum())
    return Proportion(
        windows=len(right),
        patients=len(windows),
        count=count,
        observed=count / len(right),
        lower_limit=lower_limit(count, len(right), alpha),
        patient_limit=_or_none(bootstrap_limit(correct, windows, alpha=alpha, resamples=resamples, seed=seed)),
        macro_average=float(np.mean(correct / windows)),
        design_effect=_or_none(design_effect(correct, windows)),
        cluster_limit=_or_none(cluster_limit(correct, windows, alpha=alpha)),
    )


def balanced_accuracy_of(
    patient: np.ndarray, right: np.ndarray, groups: Sequence[np.ndarray], alpha: float, resamples: int, seed: int
) -> BalancedAccuracy:
    """Compute the mean of the proportions of two groups, and its limit.

    Parameters
    ----------
    patient, right, alpha, resamples, seed
        As for `proportion_of`.
    groups : sequence of numpy.ndarray
        Two of shape (n_windows,), bool: which windows are shockable, and which are nonshockable.
    """
    correct, windows = (
        np.stack([np.bincount(patient[group & counted], minlength=patient.max() + 1) for group in groups], axis=1)
        for counted in (right, np.ones_like(right))
    )
    correct, windows = (counts[windows.any(axis=1)] for counts in (correct, windows))
    if not windows.any(axis=0).all():
        return BalancedAccuracy(len(windows), None, None)
    limit = bootstrap_limit(correct, windows, alpha=alpha, resamples=resamples, seed=seed)
    return BalancedAccuracy(len(windows), float(np.mean(correct.sum(axis=0) / windows.sum(axis=0))), _or_none(limit))


def _or_none(limit: float) -> float | None:
    return None if np.isnan(limit) else limit


def poisson_upper_limit(count: int, alpha: float = ALPHA) -> float:
    """Compute the exact upper limit of the expected number of events of which `count` were counted.

    It is the expected number at which as few or fewer have the probability `alpha` [1]_. Divided by the hours in which
    they were counted it is the limit of their rate. Events are taken as independent, which those of one patient are
    not.

    References
    ----------
    .. [1] Garwood, Biometrika 28:437-442, 1936, doi:10.1093/biomet/28.3-4.437
    """
    if count < 0 or not 0 < alpha < 1:
        raise ValueError(f"count is {count!r} and alpha {alpha!r}; allowed are 0 and more, and between 0 and 1")
    from scipy.stats import chi2  # slow to import

    return float(chi2.isf(alpha, 2 * (count + 1)) / 2)
