"""What probabilities are worth beyond one threshold: the ROC curve, and whether they are what they say.

Both take the clear classes: windows of an intermediate class call for no certain advice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecg_shock.evaluation.confidence import ALPHA, RESAMPLES, bootstrap_limit, check_bootstrap
from ecg_shock.evaluation.predictions import Predictions, codes
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE

BINS = 10
BAND_THRESHOLDS = 100  # quantiles of the probabilities of each group, at most: draws of patients look at no others
# Finer where a device works
BAND_RATES = np.unique(np.concatenate([np.linspace(0, 0.2, 41), np.linspace(0, 1, 51)]).round(3))


@dataclass(frozen=True, eq=False)
class Roc:
    """A receiver operating characteristic, and the area below it.

    Parameters
    ----------
    threshold : numpy.ndarray
        Shape (n_points,), falling from infinity: a shock is advised from this probability on. Thresholds between two
        points lie on the line between them.
    sensitivity, false_positive_rate : numpy.ndarray
        Shape (n_points,), rising from 0 to 1.
    auc : float
        The probability that a shockable window has a higher probability than a nonshockable one, ties counting half.
    auc_limit : float
        Its lower limit by patients, one-sided; NaN where a group is of one patient, and where the order is without
        any error, so that nothing varies.
    windows, patients : int
        What it rests on.
    band_rate, band_lower, band_upper : numpy.ndarray
        Shape (n_rates,): false-positive rates, rising from 0 to 1, and the limits by patients of the sensitivity at
        each of them by itself, two-sided, half of alpha on each side; NaN where `auc_limit` is.
    """

    threshold: np.ndarray
    sensitivity: np.ndarray
    false_positive_rate: np.ndarray
    auc: float
    auc_limit: float
    windows: int
    patients: int
    band_rate: np.ndarray
    band_lower: np.ndarray
    band_upper: np.ndarray


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often windows of about one probability are shockable: on the diagonal if it is what it says.

    Parameters
    ----------
    edges : numpy.ndarray
        Shape (n_bins + 1,), from 0 to 1. A bin holds its lower edge, and the last one its upper edge too.
    windows, patients, shockable : numpy.ndarray
        Shape (n_bins,), int: what is in each bin, and how many of the windows are shockable.
    probability, share : numpy.ndarray
        Shape (n_bins,), float: the mean probability, and the share that is shockable; NaN in an empty bin.
    lower, upper : numpy.ndarray
        Shape (n_bins,), float: two-sided limits of the share by patients; NaN in an empty bin, and in one of a single
        patient with windows of both kinds.
    """

    edges: np.ndarray
    windows: np.ndarray
    patients: np.ndarray
    shockable: np.ndarray
    probability: np.ndarray
    share: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def roc(predictions: Predictions, *, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0) -> Roc:
    """Compute the ROC curve with its band, and the area below it with its limit, both by patients.

    Parameters
    ----------
    predictions : Predictions
        Of one duration, with probabilities. Probabilities of several models are compared with each other as they are.
    alpha : float
        Error probability of the limit, one-sided, and of the band, two-sided.
    resamples, seed : int
        Of the patient bootstrap; the percentile method, as in `ecg_shock.evaluation.confidence.bootstrap_limit`.

    Raises
    ------
    ValueError
        If there are no probabilities, several durations, or no windows of one of both groups; or if the bootstrap's
        parameters are not allowed.

    Notes
    -----
    For each pair of patients the pairs of their windows in the right order are counted once. A draw of patients then
    weighs these counts, and no window is looked at again. So it is with the band, whose thresholds are quantiles of
    the probabilities of both groups, `BAND_THRESHOLDS` of each, with lines between them.

    References
    ----------
    .. [1] Hanley and McNeil, Radiology 143:29-36, 1982, doi:10.1148/radiology.143.1.7063747
    .. [2] Obuchowski, Biometrics 53:567-578, 1997, doi:10.2307/2533958
    """
    check_bootstrap(alpha, resamples)
    probability, shockable, patient, n_patients = _clear(predictions)
    if shockable.all() or not shockable.any():
        raise ValueError("a ROC curve needs shockable and nonshockable windows")
    from sklearn.metrics import roc_curve  # slow to import

    false_positive_rate, sensitivity, threshold = roc_curve(shockable, probability)
    right = _pairs_in_order(probability, shockable, patient, n_patients)
    positives = np.bincount(patient[shockable], minlength=n_patients)
    negatives = np.bincount(patient[~shockable], minlength=n_patients)
    pairs = int(positives.sum()) * int(negatives.sum())
    limit = float("nan")
    lower, upper = np.full((2, len(BAND_RATES)), np.nan)
    if right.sum() < pairs and min((positives > 0).sum(), (negatives > 0).sum()) > 1:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=resamples).astype(np.float64)
        drawn_pairs = (drawn @ positives) * (drawn @ negatives)
        complete = drawn_pairs > 0
        drawn_right = np.einsum("ij,ij->i", drawn @ right, drawn)
        limit = float(np.quantile(drawn_right[complete] / drawn_pairs[complete], alpha))
        advised = _advised(probability, shockable, patient, n_patients)
        curves = _drawn_sensitivities(*(drawn[complete] @ counts for counts in advised))
        lower, upper = np.quantile(curves, (alpha / 2, 1 - alpha / 2), axis=0)
    return Roc(
        threshold=threshold,
        sensitivity=sensitivity,
        false_positive_rate=false_positive_rate,
        auc=float(right.sum() / pairs),
        auc_limit=limit,
        windows=len(probability),
        patients=n_patients,
        band_rate=BAND_RATES,
        band_lower=lower,
        band_upper=upper,
    )


def reliability(
    predictions: Predictions, *, alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0
) -> Reliability:
    """Compare probabilities with how often windows are shockable, in `BINS` of one width.

    The share of shockable windows is that of the test set, which holds far more of them than what a device meets:
    the curve holds for as many shockable windows as the set has, and for no other.

    Parameters and errors are those of `roc`, but one group alone is enough.
    """
    check_bootstrap(alpha, resamples)
    probability, shockable, patient, n_patients = _clear(predictions)
    edges = np.arange(BINS + 1) / BINS  # not linspace, whose 0.3 is above 0.3
    number = np.minimum(np.searchsorted(edges, probability, side="right") - 1, BINS - 1)
    cell = number * n_patients + patient
    windows = np.bincount(cell, minlength=BINS * n_patients).reshape(BINS, n_patients)
    positives = np.bincount(cell[shockable], minlength=BINS * n_patients).reshape(BINS, n_patients)
    lower, upper = np.full((2, BINS), np.nan)
    for i in np.flatnonzero(windows.any(axis=1)):
        there = windows[i] > 0
        k, n = positives[i, there], windows[i, there]
        lower[i] = bootstrap_limit(k, n, alpha=alpha / 2, resamples=resamples, seed=seed)
        upper[i] = 1 - bootstrap_limit(n - k, n, alpha=alpha / 2, resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore"):  # an empty bin has neither
        share = positives.sum(axis=1) / windows.sum(axis=1)
        mean = np.bincount(number, weights=probability, minlength=BINS) / windows.sum(axis=1)
    return Reliability(
        edges=edges,
        windows=windows.sum(axis=1),
        patients=(windows > 0).sum(axis=1),
        shockable=positives.sum(axis=1),
        probability=mean,
        share=share,
        lower=lower,
        upper=upper,
    )


def _clear(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the probability, group and patient of each window of a clear class, and how many patients there are."""
    if not predictions.has_probability:
        raise ValueError("there are no probabilities: the algorithm gave its decisions only")
    durations = np.unique(predictions.duration_s).tolist()
    if len(durations) > 1:
        raise ValueError(f"there are windows of {durations} s; select those of one duration")
    clear = predictions.select(~np.isin(predictions.aha_class, INTERMEDIATE))
    if not len(clear):
        raise ValueError("there are no windows of a shockable or nonshockable class")
    patient = codes(clear.patient)
    return clear.probability, np.isin(clear.aha_class, SHOCKABLE), patient, int(patient.max()) + 1


def _advised(
    probability: np.ndarray, shockable: np.ndarray, patient: np.ndarray, n_patients: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count each patient's windows of both groups from each of the band's thresholds on, the highest threshold first.

    Shapes (n_patients, n_thresholds), float; the last threshold is the lowest probability of all.
    """
    shares = np.linspace(0, 1, BAND_THRESHOLDS)
    cuts = np.unique([np.quantile(probability[group], shares, method="lower") for group in (shockable, ~shockable)])
    cell = patient * len(cuts) + np.searchsorted(cuts, probability, side="right") - 1

    def from_each_on(group: np.ndarray) -> np.ndarray:
        counts = np.bincount(cell[group], minlength=n_patients * len(cuts)).reshape(n_patients, len(cuts))
        return counts[:, ::-1].cumsum(axis=1).astype(np.float64)

    return from_each_on(shockable), from_each_on(~shockable)


def _drawn_sensitivities(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Read the sensitivity at `BAND_RATES` off each curve, shape (n_draws, n_rates).

    Of several sensitivities at one rate the highest counts.
    """
    sensitivities = np.empty((len(positives), len(BAND_RATES)))
    for i, (tp, fp) in enumerate(zip(positives, negatives, strict=True)):
        rate, sensitivity = np.concatenate([[0.0], fp / fp[-1]]), np.concatenate([[0.0], tp / tp[-1]])
        highest = np.append(np.diff(rate) > 0, True)
        sensitivities[i] = np.interp(BAND_RATES, rate[highest], sensitivity[highest])
    return sensitivities


def _pairs_in_order(probability: np.ndarray, shockable: np.ndarray, patient: np.ndarray, n_patients: int) -> np.ndarray:
    """Count for each two patients the pairs of a shockable window of one and a lower nonshockable one of the other.

    Ties count half. Shape (n_patients, n_patients), float.
    """
    right = np.zeros((n_patients, n_patients))
    high, high_patient = probability[shockable], patient[shockable]
    low, low_patient = probability[~shockable], patient[~shockable]
    order = np.lexsort((low, low_patient))
    starts = np.searchsorted(low_patient[order], np.arange(n_patients + 1))
    for other in range(n_patients):
        its = low[order[starts[other] : starts[other + 1]]]
        if len(its):
            beaten = np.searchsorted(its, high, side="left") + np.searchsorted(its, high, side="right")
            right[:, other] = np.bincount(high_patient, weights=beaten / 2, minlength=n_patients)
    return right
