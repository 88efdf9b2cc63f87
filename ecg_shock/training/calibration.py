"""Calibrate a network's probabilities on validation patients, and build the calibration into its last layer.

A network is too confident about patients on whom it was not trained. Temperature scaling [1]_ multiplies the logit by a
factor. This does not change the decision at a probability of 0.5. To multiply the logit, `calibrate` multiplies the
weights of the last layer by the factor. Bundles and exports therefore need no extra parameter.

Notes
-----
An offset of the logit, as in logistic calibration, would change decisions. An offset that is fitted on half of the
validation patients of a fold lowers the balanced accuracy on the other half (`tuning/results/headline/offset.py`).

References
----------
.. [1] Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML, 1321-1330, 2017
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

MIN_SCALE = 1e-3  # a smaller factor means that the logits do not separate the classes


def fit_calibration(
    logits: np.ndarray, shockable: np.ndarray, patient: np.ndarray, aha_class: np.ndarray, patient_windows: int = 60
) -> float:
    """Fit the factor of the logits by logistic regression.

    Shockable and nonshockable windows have the same total weight, as in balanced accuracy. A calibrated probability is
    therefore right if shockable and nonshockable windows are equally frequent. Together, the windows of one patient and
    AHA class have at most the weight of `patient_windows` windows.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (n_windows,).
    shockable : numpy.ndarray
        Shape (n_windows,), bool, with both values.
    patient, aha_class : numpy.ndarray
        Shape (n_windows,), strings.
    patient_windows : int
        Largest weight of a patient in an AHA class, in windows.

    Returns
    -------
    float
        The factor, at least 0.001.

    Raises
    ------
    ValueError
        If there are only shockable or only nonshockable windows, or if the logits do not separate them.
    """
    from sklearn.linear_model import LogisticRegression

    if shockable.all() or not shockable.any():
        raise ValueError("calibration needs shockable and nonshockable windows; give both.")
    names = np.char.add(np.char.add(patient, "\t"), aha_class)
    _, group, size = np.unique(names, return_inverse=True, return_counts=True)
    weight = (np.minimum(size, patient_windows) / size)[group]
    for of_class in (shockable, ~shockable):
        weight[of_class] *= len(weight) / 2 / weight[of_class].sum()
    regression = LogisticRegression(C=np.inf, fit_intercept=False)
    scale = float(regression.fit(logits.reshape(-1, 1), shockable, sample_weight=weight).coef_[0, 0])
    if scale < MIN_SCALE:
        raise ValueError(
            "the network does not tell shockable from nonshockable validation windows, so it cannot be calibrated (the "
            f"fitted scale is {scale:.3g}, but must be at least {MIN_SCALE:g}); train it longer, or with "
            "calibrated=False."
        )
    return scale


def calibrate(model: keras.Model, scale: float) -> None:
    """Change the weights of a network's last layer so that its logits are multiplied by `scale`."""
    dense = model.get_layer("shockable")
    for weights in (dense.kernel, dense.bias):
        weights.assign(scale * weights)
