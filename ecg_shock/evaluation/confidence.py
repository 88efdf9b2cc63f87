"""Confidence limits: of windows, as if each were independent, and of patients, which are what is independent."""

from __future__ import annotations

import operator

import numpy as np

ALPHA = 0.10  # AHA 1997 states its limits as "90 % one-sided"
RESAMPLES = 2000


def lower_limit(k: int, n: int, alpha: float = ALPHA, sided: str = "one") -> float:
    """Compute the lower Clopper-Pearson limit of a proportion.

    Parameters
    ----------
    k, n : int
        `k` windows of `n` are correct.
    alpha : float
        Error probability, between 0 and 1, of the whole interval.
    sided : {"one", "two"}
        ``"two"`` puts half of `alpha` on each side, and gives one end of the usual two-sided interval.

    Returns
    -------
    float
        The limit, from 0 to 1: 0 where `k` is 0, and ``alpha ** (1 / n)`` where `k` is `n`.

    Raises
    ------
    ValueError
        If there are no windows, `k` is outside 0 to `n`, `alpha` is outside 0 to 1, or `sided` is unknown.
    TypeError
        If `k` or `n` is no integer.

    References
    ----------
    .. [1] Clopper and Pearson, Biometrika 26:404-413, 1934, doi:10.1093/biomet/26.4.404

    Examples
    --------
    >>> round(100 * lower_limit(521, 535, alpha=0.025), 2)
    95.65
    """
    k, n, tail = _checked(k, n, alpha, sided)
    if k == 0:
        return 0.0
    from scipy.stats import beta  # slow to import, and not needed by what only imports the package

    return float(beta.ppf(tail, k, n - k + 1))


def upper_limit(k: int, n: int, alpha: float = ALPHA, sided: str = "one") -> float:
    """Compute the upper Clopper-Pearson limit of a proportion.

    Parameters, errors and reference are those of `lower_limit`.

    Returns
    -------
    float
        The limit, from 0 to 1: 1 where `k` is `n`.

    Examples
    --------
    >>> round(upper_limit(0, 30, alpha=0.05), 3)
    0.095
    """
    k, n, _ = _checked(k, n, alpha, sided)
    return 1.0 - lower_limit(n - k, n, alpha, sided)


def _checked(k: int, n: int, alpha: float, sided: str) -> tuple[int, int, float]:
    k, n = operator.index(k), operator.index(n)
    if n < 1:
        raise ValueError(f"n is {n!r}; a limit needs at least one window")
    if not 0 <= k <= n:
        raise ValueError(f"k is {k!r}; allowed are 0 to n = {n!r}")
    _check_alpha(alpha)
    if sided not in ("one", "two"):
        raise ValueError(f'sided is {sided!r}; allowed are "one" and "two"')
    return k, n, alpha if sided == "one" else alpha / 2


def bootstrap_limit(
    correct: np.ndarray,
    windows: np.ndarray,
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Compute the lower limit of a proportion by resampling patients.

    Windows of one patient resemble each other, so that `lower_limit`, which takes them as independent, is too
    high. Here whole patients are drawn with replacement, as many as there are, and the limit is the `alpha`
    quantile of the proportion (the percentile method [1]_ on clusters).

    Parameters
    ----------
    correct, windows : numpy.ndarray
        Shape (n_patients,), int: how many windows of each patient are correct, and how many there are. With
        shape (n_patients, n_rates) the limit is that of the mean of the rates: balanced accuracy is the mean of
        two, and a patient may have windows of both or of one.
    alpha : float
        Error probability, one-sided.
    resamples : int
        How often the patients are drawn, at least 2000.
    seed : int
        Seed of the draws. The order of the patients does not matter.

    Returns
    -------
    float
        The limit, from 0 to 1; NaN where a single patient with some windows wrong leaves nothing to resample.

    Raises
    ------
    ValueError
        If the shapes differ, a rate has no windows, a count is impossible, or there are too few resamples.

    Notes
    -----
    Deviations from the plain percentile bootstrap:

    - A rate without a single wrong window would have no spread and a limit of 100 %, be it of three patients.
      Its resamples are the quantiles of Beta(patients, 1) in random order, so that its limit is Clopper-Pearson's
      for as many correct windows as there are patients. That allows for patients in whom everything fails, and
      can be below the limit of a rate with a few wrong windows.
    - Draws that hold no window of one of the rates are left out.

    Where few patients have errors the percentile method is too high, as much above the right limit as binomial limits
    are below it for so few: of 100 patients with one window each, one of them wrong, it gives 98 % and Clopper-Pearson
    96 %. `cluster_limit` is not, and is to be read beside it.

    References
    ----------
    .. [1] Efron and Tibshirani, An Introduction to the Bootstrap, 1993, doi:10.1201/9780429246593

    Examples
    --------
    >>> import numpy as np
    >>> limit = bootstrap_limit(np.array([9, 10, 3, 10]), np.array([10, 10, 10, 10]))
    >>> limit < lower_limit(32, 40)
    True
    """
    correct, windows = np.asarray(correct, dtype=np.int64), np.asarray(windows, dtype=np.int64)
    if correct.shape != windows.shape or correct.ndim not in (1, 2):
        raise ValueError(
            f"correct has shape {correct.shape} and windows {windows.shape}; "
            "allowed is the same shape twice, (n_patients,) or (n_patients, n_rates)"
        )
    if correct.ndim == 1:
        correct, windows = correct[:, np.newaxis], windows[:, np.newaxis]
    if (correct < 0).any() or (correct > windows).any():
        raise ValueError("every patient's correct windows must lie between 0 and the patient's windows")
    if (windows.sum(axis=0) == 0).any():
        raise ValueError("a rate without windows has no limit; leave it out")
    check_bootstrap(alpha, resamples)

    n_patients = (windows > 0).sum(axis=0)
    all_correct = correct.sum(axis=0) == windows.sum(axis=0)
    if ((n_patients == 1) & ~all_correct).any():
        return float("nan")

    rng = np.random.default_rng(seed)
    sum_correct, sum_windows = np.hsplit(resample_patients(np.hstack([correct, windows]), resamples, rng), 2)
    complete = (sum_windows > 0).all(axis=1)
    rates = sum_correct[complete] / sum_windows[complete]
    for rate in np.flatnonzero(all_correct):
        probabilities = (np.arange(len(rates)) + 0.5) / len(rates)
        rates[:, rate] = rng.permutation(probabilities) ** (1 / n_patients[rate])
    return float(np.quantile(rates.mean(axis=1), alpha))


def resample_patients(counts: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw patients with replacement, as many as there are, and add up what they count.

    Parameters
    ----------
    counts : numpy.ndarray
        Shape (n_patients, n_counts), int: any counts of each patient.
    resamples : int
        How often the patients are drawn.
    rng : numpy.random.Generator
        Makes the draws.

    Returns
    -------
    numpy.ndarray
        Shape (resamples, n_counts), int: the sums of each draw. Their order does not depend on the patients' order.

    Notes
    -----
    Patients with the same counts are drawn together by a multinomial: the same distribution, in less time.
    """
    kinds, alike = np.unique(counts, axis=0, return_counts=True)
    return rng.multinomial(len(counts), alike / len(counts), size=resamples) @ kinds


def check_bootstrap(alpha: float, resamples: int) -> None:
    """Refuse an error probability or a number of resamples that a bootstrap cannot work with.

    Parameters
    ----------
    alpha : float
        Allowed is anything between 0 and 1.
    resamples : int
        Allowed are `RESAMPLES` and more.

    Raises
    ------
    ValueError
        Naming what came and what is allowed.
    """
    if resamples < RESAMPLES:
        raise ValueError(f"resamples is {resamples!r}; allowed are {RESAMPLES} and more")
    _check_alpha(alpha)


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
        Shape (n_patients,), int: how many windows of each patient are correct, and how many there are. Patients
        without windows do not matter.

    Returns
    -------
    float
        The variance between patients, of the ratio estimator (see Notes), by the binomial variance. It can be below
        1, by chance or where every patient has the same share. NaN for a single patient, and where all windows are
        correct or none is: then there is no variance to compare.

    Raises
    ------
    ValueError
        If the shapes differ, there are no windows, or a count is impossible.

    Notes
    -----
    With m patients, c of whose n windows are correct, and p = sum(c) / sum(n), the variance of p between patients is
    m / (m - 1) sum((c - p n)^2) / sum(n)^2 (linearised; with few patients it is somewhat too small), and the
    binomial one p (1 - p) / sum(n).

    References
    ----------
    .. [1] Kish, Survey Sampling, 1965, section 8.2
    .. [2] Rao and Scott, Biometrics 48:577-585, 1992, doi:10.2307/2532311

    Examples
    --------
    >>> import numpy as np
    >>> round(design_effect(np.array([10, 10, 0, 10]), np.array([10, 10, 10, 10])), 1)
    13.3
    """
    correct, windows = np.asarray(correct, dtype=np.int64), np.asarray(windows, dtype=np.int64)
    if correct.shape != windows.shape or correct.ndim != 1:
        raise ValueError(
            f"correct has shape {correct.shape} and windows {windows.shape}; allowed is (n_patients,) twice"
        )
    if (correct < 0).any() or (correct > windows).any():
        raise ValueError("every patient's correct windows must lie between 0 and the patient's windows")
    total, right, patients = int(windows.sum()), int(correct.sum()), int((windows > 0).sum())
    if total == 0:
        raise ValueError("a rate without windows has no design effect; leave it out")
    if patients == 1 or right in (0, total):
        return float("nan")
    share = right / total
    between = patients / (patients - 1) * float(((correct - share * windows) ** 2).sum()) / total**2
    return between / (share * (1 - share) / total)


def cluster_limit(correct: np.ndarray, windows: np.ndarray, *, alpha: float = ALPHA) -> float:
    """Compute the lower limit of a proportion whose windows come in patients, by their effective number.

    Clopper-Pearson with as many windows as independent ones would tell as much, fewer the less sure the variance
    between so few patients is [1]_. Where every window is a patient it is about `lower_limit`, also with few errors,
    where `bootstrap_limit` is too high.

    Parameters
    ----------
    correct, windows : numpy.ndarray
        Shape (n_patients,), int: how many windows of each patient are correct, and how many there are.
    alpha : float
        Error probability, one-sided.

    Returns
    -------
    float
        The limit, from 0 to 1, and never above `lower_limit` of the windows. Where all are correct it is that of as
        many windows as patients; NaN for a single patient with some windows wrong.

    Raises
    ------
    ValueError
        As for `design_effect`, or if `alpha` is outside 0 to 1.

    Notes
    -----
    Deviations from [1]_: it is one-sided, and the effective number is at most the number of windows.

    References
    ----------
    .. [1] Korn and Graubard, Survey Methodology 24:193-201, 1998

    Examples
    --------
    >>> import numpy as np
    >>> print(round(cluster_limit((np.arange(100) < 99).astype(int), np.ones(100, int)), 3))
    0.961
    """
    _check_alpha(alpha)
    correct, windows = np.asarray(correct, dtype=np.int64), np.asarray(windows, dtype=np.int64)
    effect = design_effect(correct, windows)  # refuses what are no counts
    total, right, patients = int(windows.sum()), int(correct.sum()), int((windows > 0).sum())
    if right in (0, total):
        return float(alpha ** (1 / patients)) if right else 0.0
    if patients == 1:
        return float("nan")
    from scipy.stats import beta, norm, t  # slow to import

    sureness = (norm.isf(alpha) / t.isf(alpha, patients - 1)) ** 2 if alpha != 0.5 else 1.0  # at the middle 0 / 0
    effective = min(total / effect * sureness, float(total)) if effect > 0 else float(total)
    share = right / total
    return float(beta.ppf(alpha, share * effective, (1 - share) * effective + 1))


def poisson_upper_limit(count: int, alpha: float = ALPHA) -> float:
    """Compute the exact upper limit of the expected number of events of which some were counted.

    Parameters
    ----------
    count : int
        How many were counted, 0 or more.
    alpha : float
        Error probability, one-sided.

    Returns
    -------
    float
        The expected number at which as few or fewer have the probability `alpha` [1]_. By the hours in which they were
        counted it is the limit of their rate. Events are taken as independent, which those of one patient are not.

    Raises
    ------
    ValueError
        If `count` is below 0, or `alpha` outside 0 to 1.

    References
    ----------
    .. [1] Garwood, Biometrika 28:437-442, 1936, doi:10.1093/biomet/28.3-4.437

    Examples
    --------
    >>> round(poisson_upper_limit(0), 3)
    2.303
    """
    if count < 0 or not 0 < alpha < 1:
        raise ValueError(f"count is {count!r} and alpha {alpha!r}; allowed are 0 and more, and between 0 and 1")
    from scipy.stats import chi2  # slow to import

    return float(chi2.isf(alpha, 2 * (count + 1)) / 2)
