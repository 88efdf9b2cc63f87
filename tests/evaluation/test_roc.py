"""ROC and reliability, pair by pair, bin by bin, and patient by patient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics

from ecg_shock.evaluation.confidence import bootstrap_limit
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.roc import BINS, calibration, reliability, roc
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE


def overlapping(predictions: Predictions, rng: np.random.Generator) -> Predictions:
    """Give the windows probabilities on a grid of 50, which overlap between the groups and hold ties."""
    shift = np.where(np.isin(predictions.aha_class, SHOCKABLE), 0.25, 0.0)
    probability = np.round((rng.random(len(predictions)) * 0.75 + shift) * 50) / 50
    return dataclasses.replace(predictions, probability=probability)


def clear_windows(predictions: Predictions) -> list[tuple[float, bool, str]]:
    """Give probability, group and patient of each window that is not intermediate."""
    return [
        (float(p), aha_class in SHOCKABLE, str(patient))
        for p, aha_class, patient in zip(
            predictions.probability, predictions.aha_class, predictions.patient, strict=True
        )
        if aha_class not in INTERMEDIATE
    ]


def area(windows: list[tuple[float, bool, str]]) -> float:
    """Compare every shockable with every nonshockable window."""
    high = [p for p, shockable, _ in windows if shockable]
    low = [p for p, shockable, _ in windows if not shockable]
    return sum((h > n) + 0.5 * (h == n) for h in high for n in low) / (len(high) * len(low))


def test_area_is_the_share_of_pairs_in_order(
    make_predictions: Callable[..., Predictions], rng: np.random.Generator
) -> None:
    """The area agrees with a count over all pairs of windows, and with the trapezoids under the curve."""
    predictions = overlapping(make_predictions(300), rng)
    found = roc(predictions)
    windows = clear_windows(predictions)
    assert found.auc == pytest.approx(area(windows), rel=1e-12)
    heights = (found.sensitivity[1:] + found.sensitivity[:-1]) / 2
    assert (heights * np.diff(found.false_positive_rate)).sum() == pytest.approx(found.auc, rel=1e-12)
    assert (found.windows, found.patients) == (len(windows), len({patient for *_, patient in windows}))


def test_points_of_the_curve(make_predictions: Callable[..., Predictions], rng: np.random.Generator) -> None:
    """Each point agrees with its threshold, window by window, and other thresholds lie on the line between points."""
    predictions = overlapping(make_predictions(300), rng)
    found = roc(predictions)
    windows = clear_windows(predictions)
    for threshold in np.unique(predictions.probability):
        sensitivity = np.mean([p >= threshold for p, shockable, _ in windows if shockable])
        rate = np.mean([p >= threshold for p, shockable, _ in windows if not shockable])
        here = np.flatnonzero(found.threshold == threshold)
        if here.size:
            assert found.sensitivity[here[0]] == pytest.approx(sensitivity)
            assert found.false_positive_rate[here[0]] == pytest.approx(rate)
        after = int((found.threshold > threshold).sum())
        (x0, x1), (y0, y1) = (v[after - 1 : after + 1] for v in (found.false_positive_rate, found.sensitivity))
        assert (sensitivity - y0) * (x1 - x0) == pytest.approx((rate - x0) * (y1 - y0), abs=1e-12)
        assert x0 - 1e-12 <= rate <= x1 + 1e-12
    assert (found.threshold[0], found.sensitivity[0], found.false_positive_rate[0]) == (math.inf, 0, 0)
    assert (found.sensitivity[-1], found.false_positive_rate[-1]) == (1, 1)
    assert (np.diff(found.threshold) < 0).all()


def test_area_by_scikit_learn(make_predictions: Callable[..., Predictions], rng: np.random.Generator) -> None:
    """scikit-learn gives the same area and the same curve."""
    predictions = overlapping(make_predictions(2000), rng)
    found = roc(predictions)
    probability, shockable, _ = zip(*clear_windows(predictions), strict=True)
    assert found.auc == pytest.approx(metrics.roc_auc_score(shockable, probability), rel=1e-12)
    rate, sensitivity, threshold = metrics.roc_curve(shockable, probability)
    theirs = dict(zip(threshold.tolist(), zip(rate.tolist(), sensitivity.tolist(), strict=True), strict=True))
    mine = zip(found.false_positive_rate.tolist(), found.sensitivity.tolist(), strict=True)
    common = [(point, theirs[t]) for t, point in zip(found.threshold.tolist(), mine, strict=True) if t in theirs]
    assert len(common) >= 20
    assert all(point == pytest.approx(other) for point, other in common)


def test_limit_of_the_area_is_that_of_drawing_patients(
    make_predictions: Callable[..., Predictions], rng: np.random.Generator
) -> None:
    """A loop that draws patients with all their windows and counts all pairs gives about the same limit."""
    predictions = overlapping(make_predictions(150), rng)
    by_patient: dict[str, list] = {}
    for window in clear_windows(predictions):
        by_patient.setdefault(window[2], []).append(window)
    patients = list(by_patient.values())
    areas = []
    for _ in range(600):
        drawn = [window for i in rng.integers(len(patients), size=len(patients)) for window in patients[i]]
        areas.append(area(drawn))
    found = roc(predictions)
    assert found.auc_limit == pytest.approx(np.quantile(areas, 0.1), abs=0.012)
    assert found.auc_limit < found.auc


def sensitivity_at(windows: list[tuple[float, bool, str]], rate: float) -> float:
    """Interpolate the sensitivity at a false-positive rate between all thresholds."""
    high = [p for p, shockable, _ in windows if shockable]
    low = [p for p, shockable, _ in windows if not shockable]
    points = [(0.0, 0.0)]
    for threshold in sorted({p for p, *_ in windows}, reverse=True):
        points.append((sum(p >= threshold for p in low) / len(low), sum(p >= threshold for p in high) / len(high)))
    before = max(point for point in points if point[0] <= rate)
    after = min((point for point in points if point[0] > rate), default=before)
    if after[0] == before[0]:
        return before[1]
    return before[1] + (rate - before[0]) / (after[0] - before[0]) * (after[1] - before[1])


def test_band_is_that_of_drawing_patients(
    make_predictions: Callable[..., Predictions], rng: np.random.Generator
) -> None:
    """A loop that draws patients with all their windows and reads off each curve gives about the same band."""
    predictions = overlapping(make_predictions(400), rng)
    by_patient: dict[str, list] = {}
    for window in clear_windows(predictions):
        by_patient.setdefault(window[2], []).append(window)
    patients = list(by_patient.values())
    found = roc(predictions)
    rates = [0.0, 0.1, 0.3, 0.6, 1.0]
    at = np.searchsorted(found.band_false_positive_rate, rates)
    np.testing.assert_array_equal(found.band_false_positive_rate[at], rates)
    drawn = []
    for _ in range(400):
        windows = [window for i in rng.integers(len(patients), size=len(patients)) for window in patients[i]]
        drawn.append([sensitivity_at(windows, rate) for rate in rates])
    np.testing.assert_allclose(found.band_lower[at], np.quantile(drawn, 0.05, axis=0), atol=0.05)
    np.testing.assert_allclose(found.band_upper[at], np.quantile(drawn, 0.95, axis=0), atol=0.05)
    itself = [sensitivity_at(clear_windows(predictions), rate) for rate in rates]
    assert (found.band_lower[at] <= itself).all()
    assert (found.band_upper[at] >= itself).all()


def test_bands_are_of_patients(make_predictions: Callable[..., Predictions], rng: np.random.Generator) -> None:
    """Repeated windows do not change the band."""
    once = overlapping(make_predictions(150), rng)
    times = [dataclasses.replace(once, start_s=once.start_s + 1000 * i) for i in range(5)]
    few, many = roc(once), roc(Predictions.concatenate(times))
    np.testing.assert_allclose(many.band_lower, few.band_lower)
    np.testing.assert_allclose(many.band_upper, few.band_upper)
    assert (few.band_lower < few.band_upper).any()


def test_area_ends(make_predictions: Callable[..., Predictions]) -> None:
    """Perfect order gives 1 without a limit, reverse order 0, and equal probabilities 0.5."""
    predictions = make_predictions(200)
    shockable = np.isin(predictions.aha_class, SHOCKABLE)
    perfect = roc(dataclasses.replace(predictions, probability=np.where(shockable, 0.7, 0.2)))
    assert perfect.auc == 1
    assert math.isnan(perfect.auc_limit)
    assert np.isnan([perfect.band_lower, perfect.band_upper]).all()
    assert roc(dataclasses.replace(predictions, probability=np.where(shockable, 0.2, 0.7))).auc == 0
    constant = roc(dataclasses.replace(predictions, probability=np.full(200, 0.4)))
    assert (constant.auc, constant.auc_limit) == (0.5, 0.5)
    assert constant.sensitivity.tolist() == constant.false_positive_rate.tolist() == [0, 1]


def test_one_patient_leaves_no_limit(make_predictions: Callable[..., Predictions], rng: np.random.Generator) -> None:
    """With one patient there is an area without limits."""
    predictions = overlapping(make_predictions(100), rng)
    alone = dataclasses.replace(predictions, patient=np.full(100, "p"), fold=np.zeros(100, int))
    assert 0.5 < roc(alone).auc < 1
    assert math.isnan(roc(alone).auc_limit)
    assert np.isnan([roc(alone).band_lower, roc(alone).band_upper]).all()


def test_bins_are_what_a_loop_counts(make_predictions: Callable[..., Predictions], rng: np.random.Generator) -> None:
    """Each bin agrees with a loop over windows; a probability on an edge belongs to the bin above."""
    predictions = overlapping(make_predictions(500), rng)
    found = reliability(predictions)
    expected: list[list[tuple[float, bool, str]]] = [[] for _ in range(BINS)]
    for window in clear_windows(predictions):
        expected[next(i for i in reversed(range(BINS)) if window[0] >= found.edges[i])].append(window)
    for i, windows in enumerate(expected):
        assert found.windows[i] == len(windows)
        assert found.patients[i] == len({patient for *_, patient in windows})
        assert found.shockable[i] == sum(shockable for _, shockable, _ in windows)
        assert found.share[i] == pytest.approx(np.mean([shockable for _, shockable, _ in windows]))
        assert found.probability[i] == pytest.approx(np.mean([p for p, *_ in windows]))
        patients = sorted({patient for *_, patient in windows})
        n = np.array([sum(its == patient for *_, its in windows) for patient in patients])
        k = np.array([sum(its == patient and shockable for _, shockable, its in windows) for patient in patients])
        assert found.lower[i] == pytest.approx(bootstrap_limit(k, n, alpha=0.05))
        assert found.upper[i] == pytest.approx(1 - bootstrap_limit(n - k, n, alpha=0.05))
    assert found.windows.sum() == len(clear_windows(predictions))


def test_probabilities_that_are_what_they_say(make_predictions: Callable[..., Predictions]) -> None:
    """Windows shockable as often as their probability says lie on the diagonal; empty bins are NaN."""
    rng = np.random.default_rng(5)
    n = 4000
    predictions = make_predictions(n)
    probability = rng.choice([0.05, 0.35, 0.65, 1.0], n)
    shockable = rng.random(n) < probability
    honest = dataclasses.replace(
        predictions,
        rhythm=np.where(shockable, "vf", "paced"),
        aha_class=np.where(shockable, "coarse_vf", "other_nonshockable"),
        probability=probability,
    )
    found = reliability(honest)
    full = found.windows > 0
    assert np.flatnonzero(full).tolist() == [0, 3, 6, 9]
    np.testing.assert_allclose(found.share[full], [0.05, 0.35, 0.65, 1.0], atol=0.04)
    assert (found.lower[full] <= found.share[full]).all()
    assert (found.share[full] <= found.upper[full]).all()
    for name in ("probability", "share", "lower", "upper"):
        assert np.isnan(getattr(found, name)[~full]).all()


def test_scores_are_what_a_loop_sums(make_predictions: Callable[..., Predictions], rng: np.random.Generator) -> None:
    """The Brier score is that of scikit-learn; the calibration error is the gap of each bin, by its weight."""
    predictions = overlapping(make_predictions(500), rng)
    found = calibration(predictions)
    windows = clear_windows(predictions)
    probability, truth = np.array([p for p, *_ in windows]), np.array([float(s) for _, s, _ in windows])
    once, equal = np.ones(len(truth)), np.where(truth == 1, (truth == 0).sum(), (truth == 1).sum()).astype(float)
    for weight, brier, error in (
        (once, found.brier, found.calibration_error),
        (equal, found.equal_brier, found.equal_calibration_error),
    ):
        assert brier == pytest.approx(metrics.brier_score_loss(truth, probability, sample_weight=weight))
        gaps = 0.0
        for low in np.arange(BINS) / BINS:
            inside = (probability >= low) & ((probability < low + 0.1 - 1e-9) | (low == 0.9))
            if inside.any():
                means = (np.average(of[inside], weights=weight[inside]) for of in (probability, truth))
                gaps += weight[inside].sum() * abs(next(means) - next(means))
        assert error == pytest.approx(gaps / weight.sum())
    assert found.equal_calibration_error != pytest.approx(found.calibration_error, abs=0.01)
    calm = calibration(predictions.select(~np.isin(predictions.aha_class, SHOCKABLE)))
    assert (calm.equal_brier, calm.equal_calibration_error) == (None, None)


@pytest.mark.parametrize("compute", [roc, reliability])
def test_what_has_no_curve(compute: Callable, make_predictions: Callable[..., Predictions]) -> None:
    """Decisions only, several durations, no clear windows and impossible bootstrap parameters are errors."""
    predictions = make_predictions(60)
    with pytest.raises(ValueError, match="no probabilities"):
        compute(dataclasses.replace(predictions, probability=np.full(60, np.nan)))
    with pytest.raises(ValueError, match=r"windows of \[3.0, 5.0\] s"):
        compute(Predictions.concatenate([predictions, make_predictions(60, 3.0)]))
    with pytest.raises(ValueError, match="no shockable or nonshockable window;"):
        compute(predictions.select(np.isin(predictions.aha_class, INTERMEDIATE)))
    with pytest.raises(ValueError, match="resamples is 10"):
        compute(predictions, resamples=10)
    with pytest.raises(ValueError, match="alpha is 1"):
        compute(predictions, alpha=1)


def test_a_curve_needs_both_groups(make_predictions: Callable[..., Predictions]) -> None:
    """A ROC curve with one group only is an error."""
    predictions = make_predictions(60)
    with pytest.raises(ValueError, match="give windows of both kinds"):
        roc(predictions.select(np.isin(predictions.aha_class, SHOCKABLE)))
