"""Calibration finds the factor of the logits that made the labels, and the network's last layer can take it."""

from __future__ import annotations

import numpy as np
import pytest

from ecg_shock.models import CnnSpec, build_model
from ecg_shock.training.calibration import calibrate, fit_calibration


def test_it_finds_the_scale(rng: np.random.Generator) -> None:
    """Labels that were drawn with the probability of 0.5 z give the factor 0.5."""
    n = 200_000
    z = rng.normal(0, 3, n)
    shockable = rng.random(n) < 1 / (1 + np.exp(-0.5 * z))
    names = np.where(shockable, "coarse_vf", "normal_sinus")
    assert fit_calibration(z, shockable, np.arange(n).astype(str), names) == pytest.approx(0.5, rel=0.03)


def test_a_patient_counts_up_to_a_limit() -> None:
    """1000 windows of one patient weigh as much as 60."""
    z = np.concatenate([np.full(1000, 2.0), np.linspace(-3, 3, 100), np.linspace(-1, 5, 100)])
    shockable = np.concatenate([np.zeros(1100, bool), np.ones(100, bool)])
    aha_class = np.where(shockable, "coarse_vf", "normal_sinus")
    patient = np.concatenate([np.full(1000, "one"), np.arange(200).astype(str)])
    short = np.r_[0:60, 1000:1200]
    many = fit_calibration(z, shockable, patient, aha_class)
    few = fit_calibration(z[short], shockable[short], patient[short], aha_class[short])
    assert many == pytest.approx(few, rel=1e-3)


def test_the_last_layer_takes_it(rng: np.random.Generator) -> None:
    """The logits of the calibrated network are multiplied, and no decision changes."""
    model = build_model(CnnSpec((4,), (10,), input_samples=250), seed=1)
    ecg = rng.normal(size=(20, 250, 1)).astype(np.float32)

    def logits() -> np.ndarray:
        probability = model.predict(ecg, verbose=0)[:, 0].astype(float)
        return np.log(probability / (1 - probability))

    before = logits()
    calibrate(model, 0.7)
    np.testing.assert_allclose(logits(), 0.7 * before, atol=1e-4)


def test_what_cannot_be_calibrated_is_refused(rng: np.random.Generator) -> None:
    """One class only, and logits the wrong way round."""
    z, names = np.array([-1.0, -2.0, 1.0, 2.0]), np.array(["a", "b", "c", "d"])
    with pytest.raises(ValueError, match="shockable and nonshockable"):
        fit_calibration(z, np.ones(4, bool), names, names)
    with pytest.raises(ValueError, match="scale"):
        fit_calibration(z, np.array([True, False, False, False]), names, names)
