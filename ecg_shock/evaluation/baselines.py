"""Fit simple classifiers on the network's training patients, to compare the network with them.

For each feature of `ecg_shock.evaluation.detectors`, one classifier compares the feature with a threshold. Another
classifier is a support vector machine on two features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecg_shock.data.windows import WindowSet
from ecg_shock.evaluation.detectors import DETECTORS
from ecg_shock.evaluation.predictions import Predictions, combine_predictions
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE

SVM_NAME = "leakage + count2, SVM"
SVM_FEATURES = ("leakage", "count2")
SVM_CITATION = "Li et al. 2014, doi:10.1109/TBME.2013.2275000"


@dataclass(frozen=True)
class Threshold:
    """A threshold on a feature.

    Parameters
    ----------
    value : float
        The threshold, in the unit of the feature. If it is infinite, all windows get the same advice.
    shock_above : bool
        True: a shock is advised at `value` or above. False: a shock is advised below `value`.
    """

    value: float
    shock_above: bool

    def shocks(self, feature: np.ndarray) -> np.ndarray:
        """Return True for each window with a shock advised, shape (n_windows,), bool. NaN gives False."""
        return feature >= self.value if self.shock_above else feature < self.value


def fit_threshold(feature: np.ndarray, shockable: np.ndarray) -> Threshold:
    """Find the threshold with the highest balanced accuracy.

    Parameters
    ----------
    feature : numpy.ndarray
        Shape (n_windows,): the feature of each training window. A window with NaN is advised no shock.
    shockable : numpy.ndarray
        Shape (n_windows,), bool: True for a shockable window.

    Returns
    -------
    Threshold
        Its value is halfway between two adjacent values of the feature. Of equally good thresholds, one that advises
        a shock above its value is preferred, then the lowest.

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
            f"feature has shape {feature.shape} and shockable {shockable.shape}; allowed is (n_windows,) for both."
        )
    if np.isinf(feature).any():
        raise ValueError(
            f"feature[{int(np.argmax(np.isinf(feature)))}] is infinite; allowed are finite numbers and NaN."
        )
    n_shockable = int(shockable.sum())
    n_nonshockable = len(shockable) - n_shockable
    if not n_shockable or not n_nonshockable:
        raise ValueError(
            f"there are {n_shockable} shockable and {n_nonshockable} nonshockable windows; give at least one of each."
        )
    known = ~np.isnan(feature)
    order = np.argsort(feature[known], kind="stable")
    values, is_shockable = feature[known][order], shockable[known][order]
    below_shockable = np.concatenate([[0], np.cumsum(is_shockable)])
    below_nonshockable = np.concatenate([[0], np.cumsum(~is_shockable)])
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    possible = np.flatnonzero(edges[:-1] < edges[1:])  # numbers of values below a threshold
    # Sensitivity minus the false-positive rate, times a common denominator: integers compare without rounding
    gain = below_shockable * n_nonshockable - below_nonshockable * n_shockable
    gain_below, gain_above = gain[possible], gain[-1] - gain[possible]
    best_above, best_below = int(np.argmax(gain_above)), int(np.argmax(gain_below))
    shock_above = bool(gain_above[best_above] >= gain_below[best_below])
    index = possible[best_above if shock_above else best_below]
    return Threshold(_midpoint(edges[index], edges[index + 1]), shock_above)


def _midpoint(low: float, high: float) -> float:
    """Return the midpoint of `low` and `high`; if one of them is infinite, return that one."""
    if np.isinf(low) or np.isinf(high):
        return float(low if np.isinf(low) else high)
    middle = low / 2 + high / 2
    return float(middle if low < middle <= high else high)


def baseline_predictions(train: WindowSet, test: WindowSet, fold: int) -> dict[str, Predictions]:
    """Fit every simple classifier on the training windows, and predict the test windows.

    Parameters
    ----------
    train : WindowSet
        Training windows. Windows of an intermediate class (fine VF, other VT) are not used.
    test : WindowSet
        Windows of other patients, of the same length and of any class.
    fold : int
        The fold of the test patients.

    Returns
    -------
    dict of str to Predictions
        The predictions by name of the classifier: the names of `DETECTORS`, and `SVM_NAME` for the support vector
        machine on leakage and count2 [1]_. Their ``probability`` is a score and **not calibrated**:

        - For a detector: the proportion of training windows whose feature is less typical of a shockable rhythm. The
          threshold is therefore not 0.5.
        - For the support vector machine: the logistic function of the distance from its boundary.

    Raises
    ------
    ValueError
        If a patient is in both sets, the lengths differ, `test` is empty, `train` lacks shockable or nonshockable
        windows, or a sample is NaN or infinite.

    Notes
    -----
    Deviations from [1]_:

    - The kernel's width and the penalty are the defaults of scikit-learn; the paper optimises them.
    - The classes have equal weight.

    References
    ----------
    .. [1] Li, Rajagopalan and Clifford, IEEE Trans. Biomed. Eng. 61:1607-1613, 2014, doi:10.1109/TBME.2013.2275000
    """
    from sklearn.pipeline import make_pipeline  # slow to import
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    shared = set(train.patient.tolist()) & set(test.patient.tolist())
    if shared:
        raise ValueError(f"patients {sorted(shared)!r} are in train and in test; give test windows of other patients.")
    if train.window_s != test.window_s:
        raise ValueError(
            f"train has windows of {train.window_s:g} s, and test has windows of {test.window_s:g} s; give "
            "windows of the same length, because the features depend on the length."
        )
    train = train.select(~np.isin(train.aha_class, INTERMEDIATE))
    if not len(train) or not len(test):
        raise ValueError(
            f"train has {len(train)} shockable or nonshockable windows, and test has {len(test)} windows; give "
            "one or more in each."
        )
    shockable = np.isin(train.aha_class, SHOCKABLE)
    train_features = {detector.name: detector.feature(train.ecg) for detector in DETECTORS}
    test_features = {detector.name: detector.feature(test.ecg) for detector in DETECTORS}
    results = {}
    for name, feature in test_features.items():
        threshold = fit_threshold(train_features[name], shockable)
        probability = _proportion_less_shockable(feature, train_features[name], threshold.shock_above)
        results[name] = combine_predictions(test, fold, probability, threshold.shocks(feature))
    svm = make_pipeline(StandardScaler(), SVC(class_weight="balanced"))
    svm.fit(np.column_stack([train_features[name] for name in SVM_FEATURES]), shockable)
    distance = svm.decision_function(np.column_stack([test_features[name] for name in SVM_FEATURES]))
    results[SVM_NAME] = combine_predictions(test, fold, (1 + np.tanh(distance / 2)) / 2, distance > 0)
    return results


def _proportion_less_shockable(feature: np.ndarray, training: np.ndarray, shock_above: bool) -> np.ndarray:
    sign = 1.0 if shock_above else -1.0
    return np.searchsorted(np.sort(sign * training), sign * feature) / len(training)
