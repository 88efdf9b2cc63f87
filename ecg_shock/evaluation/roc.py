"""Compute the ROC curve, and the reliability and calibration of predicted probabilities.

Windows of the intermediate classes (fine VF, other VT) are excluded, because they have no right advice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecg_shock.evaluation.confidence import ALPHA, RESAMPLES, bootstrap_limit, check_bootstrap
from ecg_shock.evaluation.predictions import Predictions, encode_names
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE

BINS = 10
EDGES = np.arange(BINS + 1) / BINS  # linspace would give 0.30000000000000004
BAND_THRESHOLDS = 100  # thresholds of the resampled curves: quantiles of the probabilities of each group
# Finer below 20 %, where AEDs work
BAND_FALSE_POSITIVE_RATES = np.unique(np.concatenate([np.linspace(0, 0.2, 41), np.linspace(0, 1, 51)]).round(3))


@dataclass(frozen=True, eq=False)
class Roc:
    """A receiver operating characteristic (ROC) curve, and the area under it.

    Parameters
    ----------
    threshold : numpy.ndarray
        Shape (n_points,), decreasing from infinity. A shock is advised at this probability or above.
    sensitivity, false_positive_rate : numpy.ndarray
        Shape (n_points,), increasing from 0 to 1.
    auc : float
        Area under the curve, 0 to 1. It is the proportion of pairs of a shockable and a nonshockable window in which
        the shockable window has the higher probability; ties count half.
    auc_limit : float
        One-sided lower limit of `auc` by patient. NaN if all shockable or all nonshockable windows are of one patient,
        or if the probabilities separate the groups completely.
    windows, patients : int
        The numbers of windows and patients.
    band_false_positive_rate : numpy.ndarray
        Shape (n_band,), increasing from 0 to 1.
    band_lower, band_upper : numpy.ndarray
        Shape (n_band,): two-sided limits by patient of the sensitivity at each false-positive rate, with alpha / 2 on
        each side. NaN if `auc_limit` is NaN.
    """

    threshold: np.ndarray
    sensitivity: np.ndarray
    false_positive_rate: np.ndarray
    auc: float
    auc_limit: float
    windows: int
    patients: int
    band_false_positive_rate: np.ndarray
    band_lower: np.ndarray
    band_upper: np.ndarray


@dataclass(frozen=True, eq=False)
class Reliability:
    """The observed proportion of shockable windows in bins of the predicted probability.

    With perfect calibration, the proportion in a bin equals the mean probability in the bin.

    Parameters
    ----------
    edges : numpy.ndarray
        Shape (n_bins + 1,), from 0 to 1. A bin includes its lower edge; the last bin also includes its upper edge.
    windows, patients, shockable : numpy.ndarray
        Shape (n_bins,), int: the numbers of windows, patients and shockable windows in each bin.
    probability, share : numpy.ndarray
        Shape (n_bins,), float: the mean probability, and the proportion of shockable windows; NaN in an empty bin.
    lower, upper : numpy.ndarray
        Shape (n_bins,), float: two-sided limits of `share` by patient. NaN in an empty bin, and in a bin that holds
        shockable and nonshockable windows of a single patient.
    """

    edges: np.ndarray
    windows: np.ndarray
    patients: np.ndarray
    shockable: np.ndarray
    probability: np.ndarray
    share: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """How well the probabilities agree with the labels. All scores are from 0 (best) to 1.

    By default, a model is trained and calibrated as if shockable and nonshockable windows were equally frequent. In a
    test set with few shockable windows, judge such a model by the scores with equal weights.

    Parameters
    ----------
    brier, calibration_error : float
        The Brier score [1]_ is the mean squared difference between the probability and the label (1 for shockable, 0
        for nonshockable). The expected calibration error [2]_ compares the mean probability with the proportion of
        shockable windows in each bin of `reliability`; it is the mean difference, weighted by the number of windows.
    equal_brier, equal_calibration_error : float or None
        Both scores, computed with equal weights: all shockable windows together count as much as all nonshockable
        windows. None if there are no shockable or no nonshockable windows.

    References
    ----------
    .. [1] Brier, Monthly Weather Review 78:1-3, 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2
    .. [2] Naeini, Cooper and Hauskrecht, Proceedings of the AAAI Conference on Artificial Intelligence, 2901-2907, 2015
    """

    brier: float
    calibration_error: float
    equal_brier: float | None
    equal_calibration_error: float | None


def roc(predictions: Predictions, *, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0) -> Roc:
    """Compute the ROC curve and the area under it, with limits by patient.

    Parameters
    ----------
    predictions : Predictions
        Predictions of one duration, with probabilities. Probabilities of several models are pooled.
    alpha : float
        Error probability: one-sided for the limit of the area, two-sided for the band.
    resamples, seed : int
        The number of resamples of the patient bootstrap (percentile method), at least 2000, and its seed.

    Raises
    ------
    ValueError
        If there are no probabilities, several durations, or no shockable or no nonshockable windows; or if `alpha` or
        `resamples` is not allowed.

    Notes
    -----
    The band is computed at up to `BAND_THRESHOLDS` quantiles of the probabilities of each group, with linear
    interpolation between them.

    References
    ----------
    .. [1] Hanley and McNeil, Radiology 143:29-36, 1982, doi:10.1148/radiology.143.1.7063747
    .. [2] Obuchowski, Biometrics 53:567-578, 1997, doi:10.2307/2533958
    """
    check_bootstrap(alpha, resamples)
    probability, shockable, patient, n_patients = _select_clear(predictions)
    if shockable.all() or not shockable.any():
        raise ValueError("all windows are shockable, or all are nonshockable; give windows of both kinds")
    from sklearn.metrics import roc_curve  # slow to import

    false_positive_rate, sensitivity, threshold = roc_curve(shockable, probability)
    ordered = _count_ordered_pairs(probability, shockable, patient, n_patients)
    positives = np.bincount(patient[shockable], minlength=n_patients)
    negatives = np.bincount(patient[~shockable], minlength=n_patients)
    pairs = int(positives.sum()) * int(negatives.sum())
    limit = float("nan")
    lower, upper = np.full((2, len(BAND_FALSE_POSITIVE_RATES)), np.nan)
    if ordered.sum() < pairs and min((positives > 0).sum(), (negatives > 0).sum()) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=resamples).astype(np.float64)
        drawn_pairs = (drawn @ positives) * (drawn @ negatives)
        complete = drawn_pairs > 0
        drawn_ordered = np.einsum("ij,ij->i", drawn @ ordered, drawn)
        limit = float(np.quantile(drawn_ordered[complete] / drawn_pairs[complete], alpha))
        advised = _count_advised(probability, shockable, patient, n_patients)
        curves = _interpolate_sensitivities(*(drawn[complete] @ counts for counts in advised))
        lower, upper = np.quantile(curves, (alpha / 2, 1 - alpha / 2), axis=0)
    return Roc(
        threshold=threshold,
        sensitivity=sensitivity,
        false_positive_rate=false_positive_rate,
        auc=float(ordered.sum() / pairs),
        auc_limit=limit,
        windows=len(probability),
        patients=n_patients,
        band_false_positive_rate=BAND_FALSE_POSITIVE_RATES,
        band_lower=lower,
        band_upper=upper,
    )


def reliability(
    predictions: Predictions, *, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0
) -> Reliability:
    """Compare probabilities with the observed proportion of shockable windows, in `BINS` bins of equal width.

    The result depends on the proportion of shockable windows, which is far larger in the test set than in use.
    Parameters and errors are those of `roc`, except that the windows may all be of one group.
    """
    check_bootstrap(alpha, resamples)
    probability, shockable, patient, n_patients = _select_clear(predictions)
    number = _bin_of(probability)
    cell = number * n_patients + patient
    windows = np.bincount(cell, minlength=BINS * n_patients).reshape(BINS, n_patients)
    positives = np.bincount(cell[shockable], minlength=BINS * n_patients).reshape(BINS, n_patients)
    lower, upper = np.full((2, BINS), np.nan)
    for i in np.flatnonzero(windows.any(axis=1)):
        present = windows[i] > 0
        k, n = positives[i, present], windows[i, present]
        lower[i] = bootstrap_limit(k, n, alpha=alpha / 2, resamples=resamples, seed=seed)
        upper[i] = 1 - bootstrap_limit(n - k, n, alpha=alpha / 2, resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        share = positives.sum(axis=1) / windows.sum(axis=1)
        mean = np.bincount(number, weights=probability, minlength=BINS) / windows.sum(axis=1)
    return Reliability(
        edges=EDGES,
        windows=windows.sum(axis=1),
        patients=(windows > 0).sum(axis=1),
        shockable=positives.sum(axis=1),
        probability=mean,
        share=share,
        lower=lower,
        upper=upper,
    )


def calibration(predictions: Predictions) -> Calibration:
    """Compute the Brier score and the expected calibration error.

    Errors are those of `roc`, except that the windows may all be of one group.
    """
    probability, shockable, _, _ = _select_clear(predictions)
    number = _bin_of(probability)

    def scores(weight: np.ndarray) -> tuple[float, float]:
        brier = np.average((probability - shockable) ** 2, weights=weight)
        gaps = np.bincount(number, weights=weight * (probability - shockable))
        return float(brier), float(np.abs(gaps).sum() / weight.sum())

    equal: tuple[float | None, float | None] = None, None
    if shockable.any() and not shockable.all():
        equal = scores(np.where(shockable, 1 / shockable.sum(), 1 / (~shockable).sum()))
    return Calibration(*scores(np.ones(len(probability))), *equal)


def _bin_of(probability: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(EDGES, probability, side="right") - 1, BINS - 1)


def _select_clear(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return probability, group and patient index of each counted window, and the number of patients."""
    if not predictions.has_probability:
        raise ValueError("the predictions have no probabilities; give predictions with a probability for each window")
    durations = np.unique(predictions.duration_s).tolist()
    if len(durations) > 1:
        raise ValueError(f"there are windows of {durations} s; give windows of one duration")
    clear = predictions.select(~np.isin(predictions.aha_class, INTERMEDIATE))
    if not len(clear):
        raise ValueError("there is no shockable or nonshockable window; give one or more windows of these classes")
    patient = encode_names(clear.patient)
    return clear.probability, np.isin(clear.aha_class, SHOCKABLE), patient, int(patient.max()) + 1


def _count_advised(
    probability: np.ndarray, shockable: np.ndarray, patient: np.ndarray, n_patients: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count each patient's shockable and nonshockable windows at or above each of the band's thresholds.

    Both results have the shape (n_patients, n_thresholds), float. The thresholds decrease to the lowest probability.
    """
    levels = np.linspace(0, 1, BAND_THRESHOLDS)
    cuts = np.unique([np.quantile(probability[group], levels, method="lower") for group in (shockable, ~shockable)])
    cell = patient * len(cuts) + np.searchsorted(cuts, probability, side="right") - 1

    def count_advised(group: np.ndarray) -> np.ndarray:
        counts = np.bincount(cell[group], minlength=n_patients * len(cuts)).reshape(n_patients, len(cuts))
        return counts[:, ::-1].cumsum(axis=1).astype(np.float64)

    return count_advised(shockable), count_advised(~shockable)


def _interpolate_sensitivities(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Interpolate each resampled curve at `BAND_FALSE_POSITIVE_RATES`, shape (n_draws, n_band).

    Where a curve is vertical, its highest sensitivity is used.
    """
    sensitivities = np.empty((len(positives), len(BAND_FALSE_POSITIVE_RATES)))
    for i, (tp, fp) in enumerate(zip(positives, negatives, strict=True)):
        fpr, sensitivity = np.concatenate([[0.0], fp / fp[-1]]), np.concatenate([[0.0], tp / tp[-1]])
        highest = np.append(np.diff(fpr) > 0, True)
        sensitivities[i] = np.interp(BAND_FALSE_POSITIVE_RATES, fpr[highest], sensitivity[highest])
    return sensitivities


def _count_ordered_pairs(
    probability: np.ndarray, shockable: np.ndarray, patient: np.ndarray, n_patients: int
) -> np.ndarray:
    """Count pairs of windows in which the shockable window has the higher probability; ties count half.

    The result has the shape (n_patients, n_patients), float. Its first axis is the patient of the shockable window, its
    second axis the patient of the nonshockable window.
    """
    ordered = np.zeros((n_patients, n_patients))
    high, high_patient = probability[shockable], patient[shockable]
    low, low_patient = probability[~shockable], patient[~shockable]
    order = np.lexsort((low, low_patient))
    starts = np.searchsorted(low_patient[order], np.arange(n_patients + 1))
    for other in range(n_patients):
        sorted_low = low[order[starts[other] : starts[other + 1]]]
        if len(sorted_low):
            lower = np.searchsorted(sorted_low, high, side="left") + np.searchsorted(sorted_low, high, side="right")
            ordered[:, other] = np.bincount(high_patient, weights=lower / 2, minlength=n_patients)
    return ordered
