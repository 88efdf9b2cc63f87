"""Classical detectors fitted on training patients, as baselines on the same windows and patients as a network.

A threshold for each feature of `ecg_shock.evaluation.detectors`, and two of the features in a support vector machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.detectors import DETECTORS
from ecg_shock.evaluation.predictions import Predictions, predictions_of
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE

SVM_NAME = "leakage + count2, SVM"
SVM_FEATURES = ("leakage", "count2")
SVM_CITATION = "Li et al. 2014, doi:10.1109/TBME.2013.2275000"


@dataclass(frozen=True)
class Threshold:
    """Where a feature separates shockable from nonshockable windows: a shock is advised from `value` on, or below it.

    It may be infinite, where one advice for all is best.
    """

    value: float
    shock_above: bool

    def shocks(self, feature: np.ndarray) -> np.ndarray:
        """Say which windows are advised a shock, shape (n_windows,), bool; NaN never is."""
        return feature >= self.value if self.shock_above else feature < self.value


def fit_threshold(feature: np.ndarray, shockable: np.ndarray) -> Threshold:
    """Find the threshold with the largest balanced accuracy, exactly.

    Parameters
    ----------
    feature : numpy.ndarray
        Shape (n_windows,), of training patients. NaN is allowed, and counts as advised no shock on either side of
        any threshold: right for a nonshockable window, wrong for a shockable one.
    shockable : numpy.ndarray
        Shape (n_windows,), bool.

    Returns
    -------
    Threshold
        Halfway between two neighbouring values. Of equally good ones a shock above goes before a shock below, and
        then the lower value before the higher.

    Raises
    ------
    TypeError
        If `shockable` is not boolean.
    ValueError
        If the shapes differ, a value is infinite, or there are no shockable or no nonshockable windows.
    """
    feature, shockable = np.asarray(feature, dtype=np.float64), np.asarray(shockable)
    if shockable.dtype != np.bool_:
        raise TypeError(f"shockable has dtype {shockable.dtype}; allowed is bool.")
    if feature.ndim != 1 or feature.shape != shockable.shape:
        raise ValueError(
            f"feature has shape {feature.shape} and shockable {shockable.shape}; allowed is (n_windows,) twice."
        )
    if np.isinf(feature).any():
        raise ValueError(f"feature {int(np.argmax(np.isinf(feature)))} is infinite; allowed are numbers and NaN.")
    n_shockable = int(shockable.sum())
    n_nonshockable = len(shockable) - n_shockable
    if not n_shockable or not n_nonshockable:
        raise ValueError(
            f"there are {n_shockable} shockable and {n_nonshockable} nonshockable windows; a threshold needs both."
        )
    known = ~np.isnan(feature)
    order = np.argsort(feature[known], kind="stable")
    values, is_shockable = feature[known][order], shockable[known][order]
    below_shockable = np.concatenate([[0], np.cumsum(is_shockable)])
    below_nonshockable = np.concatenate([[0], np.cumsum(~is_shockable)])
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    possible = np.flatnonzero(edges[:-1] < edges[1:])  # so many of the values lie below the threshold
    # Sensitivity less the proportion of false shocks, over a common denominator: integers, so that equal is equal
    gain = below_shockable * n_nonshockable - below_nonshockable * n_shockable
    gain_below, gain_above = gain[possible], gain[-1] - gain[possible]
    best_above, best_below = int(np.argmax(gain_above)), int(np.argmax(gain_below))
    shock_above = bool(gain_above[best_above] >= gain_below[best_below])
    index = possible[best_above if shock_above else best_below]
    return Threshold(_between(edges[index], edges[index + 1]), shock_above)


def _between(low: float, high: float) -> float:
    """Return what is more than `low` and at most `high`, halfway if numbers allow."""
    if np.isinf(low) or np.isinf(high):
        return float(low if np.isinf(low) else high)
    middle = low / 2 + high / 2
    return float(middle if low < middle <= high else high)


def baseline_predictions(train: WindowSet, test: WindowSet, fold: int) -> dict[str, Predictions]:
    """Fit every detector on some patients and let it predict others.

    Parameters
    ----------
    train : WindowSet
        Windows to fit on, shockable and nonshockable; those of an intermediate class are excluded.
    test : WindowSet
        Windows of other patients, of the same length and of any class.
    fold : int
        The fold of the test patients.

    Returns
    -------
    dict of str to Predictions
        By the names of `DETECTORS`, and `SVM_NAME`: leakage and count2 in a support vector machine [1]_. What is
        evaluated is ``shock``. ``probability`` rises with how shockable a window looks, and is **not calibrated**: for
        a detector it is the proportion of training windows that look less shockable, so that its threshold lies
        anywhere, and for the machine the logistic function of the distance from its boundary, which is 0.5.

    Raises
    ------
    ValueError
        If a patient is in both, the lengths differ, one has no windows, `train` lacks shockable or nonshockable
        windows, or a sample is NaN or infinite.

    Notes
    -----
    Deviations from [1]_:

    - The kernel's width and the penalty are those that scikit-learn sets, where the paper searches them.
    - Classes are weighted to balance.

    References
    ----------
    .. [1] Li, Rajagopalan and Clifford, IEEE Trans. Biomed. Eng. 61:1607-1613, 2014, doi:10.1109/TBME.2013.2275000
    """
    from sklearn.pipeline import make_pipeline  # slow to import
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    shared = set(train.patient.tolist()) & set(test.patient.tolist())
    if shared:
        raise ValueError(f"patients {sorted(shared)!r} are in train and in test; give windows of other patients.")
    if train.window_s != test.window_s:
        raise ValueError(
            f"train has windows of {train.window_s:g} s and test of {test.window_s:g} s; features depend on the length."
        )
    train = train.select(~np.isin(train.aha_class, INTERMEDIATE))
    if not len(train) or not len(test):
        raise ValueError(f"train has {len(train)} clear windows and test {len(test)}; both need some.")
    labels = np.isin(train.aha_class, SHOCKABLE)
    fitted = {detector.name: detector.feature(train.ecg) for detector in DETECTORS}
    found = {detector.name: detector.feature(test.ecg) for detector in DETECTORS}
    results = {}
    for name, feature in found.items():
        threshold = fit_threshold(fitted[name], labels)
        probability = _share_less_shockable(feature, fitted[name], threshold.shock_above)
        results[name] = predictions_of(test, fold, probability, threshold.shocks(feature))
    machine = make_pipeline(StandardScaler(), SVC(class_weight="balanced"))
    machine.fit(np.column_stack([fitted[name] for name in SVM_FEATURES]), labels)
    distance = machine.decision_function(np.column_stack([found[name] for name in SVM_FEATURES]))
    results[SVM_NAME] = predictions_of(test, fold, (1 + np.tanh(distance / 2)) / 2, distance > 0)
    return results


def _share_less_shockable(feature: np.ndarray, training: np.ndarray, shock_above: bool) -> np.ndarray:
    sign = 1.0 if shock_above else -1.0
    return np.searchsorted(np.sort(sign * training), sign * feature) / len(training)
