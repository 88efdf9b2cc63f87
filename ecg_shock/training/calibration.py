"""Calibrate a network's probabilities on validation patients, and build the calibration into its last layer.

For patients on whom it was not trained, the probabilities of a network are usually too close to 0 and 1. Logistic
calibration [1]_ changes the logit z of the network to a z + b. This is the same as another weight and bias of the last
layer, so bundles and exports need nothing new.

References
----------
.. [1] Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers, 61-74, 1999
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

MIN_SCALE = 1e-3  # a network whose logits say nothing has no calibration


@dataclass(frozen=True)
class Calibration:
    """Logistic calibration: the calibrated logit is `scale` times the logit plus `offset`."""

    scale: float = 1.0
    offset: float = 0.0

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated logits of the same shape."""
        return self.scale * logits + self.offset


def fit_calibration(
    logits: np.ndarray, shockable: np.ndarray, patient: np.ndarray, aha_class: np.ndarray, patient_windows: int = 60
) -> Calibration:
    """Fit a calibration by logistic regression.

    Shockable and nonshockable windows have the same total weight, as in balanced accuracy. So a calibrated probability
    is right if both are equally frequent. Together, the windows of one patient and AHA class have at most the weight of
    `patient_windows` windows.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (n_windows,).
    shockable : numpy.ndarray
        Shape (n_windows,), bool, with both values.
    patient, aha_class : numpy.ndarray
        Shape (n_windows,), strings.
    patient_windows : int
        Largest weight of a patient in a class.

    Raises
    ------
    ValueError
        If there is only one class, or if higher logits are not more often shockable.
    """
    from sklearn.linear_model import LogisticRegression

    if shockable.all() or not shockable.any():
        raise ValueError("calibration needs shockable and nonshockable windows; give both.")
    names = np.char.add(np.char.add(patient, "\t"), aha_class)
    _, group, size = np.unique(names, return_inverse=True, return_counts=True)
    weight = (np.minimum(size, patient_windows) / size)[group]
    for of_class in (shockable, ~shockable):
        weight[of_class] *= len(weight) / 2 / weight[of_class].sum()
    fitted = LogisticRegression(C=np.inf).fit(logits.reshape(-1, 1), shockable, sample_weight=weight)
    scale, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    if scale < MIN_SCALE:
        raise ValueError(
            "the network does not tell shockable from nonshockable validation windows, so it cannot be calibrated (the "
            f"fitted scale is {scale:.3g}, but must be at least {MIN_SCALE:g}); train it longer, or without calibrated."
        )
    return Calibration(scale, offset)


def calibrate(model: keras.Model, calibration: Calibration) -> None:
    """Change the weights of a network's last layer so that its probabilities are calibrated."""
    dense = model.get_layer("shockable")
    dense.kernel.assign(calibration.scale * dense.kernel)
    dense.bias.assign(calibration.scale * dense.bias + calibration.offset)
