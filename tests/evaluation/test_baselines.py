"""Baselines: thresholds against brute force, and detectors fitted on other patients than they predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.svm import SVC

from ecg_shock.data.datasets import DataConfig, load_subsets
from ecg_shock.data.windows import WindowSet, concatenate
from ecg_shock.evaluation import baselines, detectors
from ecg_shock.evaluation.baselines import SVM_NAME, Threshold, baseline_predictions, fit_threshold
from ecg_shock.evaluation.detectors import DETECTORS
from ecg_shock.preprocessing import FS
from ecg_shock.rhythms import AHA_CLASSES, INTERMEDIATE, SHOCKABLE


def accuracy(shock: np.ndarray, shockable: np.ndarray) -> float:
    """Return the balanced accuracy."""
    return (shock[shockable].mean() + 1 - shock[~shockable].mean()) / 2


values = st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")), st.floats(-1e308, 1e308))


@example(cases=[(1.0, True), (np.nextafter(1.0, 2), False)])
@example(cases=[(-1.7e308, True), (1.7e308, False)])
@example(cases=[(0.0, False), (5e-324, True)])
@example(cases=[(float("nan"), True), (float("nan"), False)])
@settings(max_examples=200)
@given(cases=st.lists(st.tuples(values, st.booleans()), min_size=2, max_size=12))
def test_no_threshold_is_better(cases: list[tuple[float, bool]]) -> None:
    """No threshold on either side has a higher balanced accuracy, and the order of the windows does not matter."""
    feature, shockable = np.array([v for v, _ in cases]), np.array([s for _, s in cases])
    if shockable.all() or not shockable.any():
        with pytest.raises(ValueError, match="give at least one of each"):
            fit_threshold(feature, shockable)
        return
    threshold = fit_threshold(feature, shockable)
    best = max(
        accuracy(feature >= value if above else feature < value, shockable)
        for value in [-np.inf, *feature[np.isfinite(feature)], np.inf]
        for above in (True, False)
    )
    assert accuracy(threshold.shocks(feature), shockable) == pytest.approx(best, abs=1e-12)
    assert not threshold.shocks(np.array([np.nan]))[0]
    assert fit_threshold(feature[::-1], shockable[::-1]) == threshold


def test_ties_between_thresholds() -> None:
    """Of equally good thresholds, a shock above and then the lower value is preferred."""
    shockable = np.array([True, False, True, False])
    assert fit_threshold(np.array([2.0, 1.0, 4.0, 3.0]), shockable) == Threshold(1.5, True)
    assert fit_threshold(np.array([1.0, 2.0, 3.0, 4.0]), shockable) == Threshold(1.5, False)
    assert fit_threshold(np.zeros(4), shockable) == Threshold(-np.inf, True)


@pytest.mark.parametrize(
    ("feature", "shockable", "error", "match"),
    [
        ([1.0, 2.0], [1, 0], TypeError, "dtype int64; allowed is bool"),
        ([1.0], [True, False], ValueError, r"shape \(1,\) and shockable \(2,\)"),
        ([[1.0, 2.0]], [[True, False]], ValueError, "allowed is"),
        ([1.0, np.inf], [True, False], ValueError, r"feature\[1\] is infinite"),
        ([1.0, 2.0], [False, False], ValueError, "0 shockable and 2 nonshockable"),
        ([], np.zeros(0, dtype=bool), ValueError, "0 shockable and 0 nonshockable"),
    ],
)
def test_what_no_threshold_can_be_fitted_to(feature: list, shockable: list, error: type[Exception], match: str) -> None:
    """The error names what is missing or wrong."""
    with pytest.raises(error, match=match):
        fit_threshold(np.array(feature), np.array(shockable))


RHYTHM_OF = {
    **{"coarse_vf": "vf", "fine_vf": "vf", "rapid_vt": "vt", "other_vt": "vt"},
    **{"normal_sinus": "normal_sinus", "other_nonshockable": "paced", "asystole": "asystole"},
}


def synthetic(
    patients: str, classes: tuple[str, ...], rng: np.random.Generator, window_s: float = 4.0, noise: float = 0.05
) -> WindowSet:
    """Make windows with a noisy 4-Hz wave for shockable and intermediate classes, and noisy beats for the others."""
    samples = round(window_s * FS)
    n = len(patients) * len(classes)
    aha_class = np.array(classes * len(patients))
    time = np.arange(samples) / FS + rng.random((n, 1))
    beats = np.exp(-((((time % 0.8) - 0.4) / 0.02) ** 2))
    waves = np.sin(2 * np.pi * 4 * time)
    wave = np.isin(aha_class, SHOCKABLE + INTERMEDIATE)[:, np.newaxis]
    names = {name: np.repeat([f"{name}/{p}" for p in patients], len(classes)) for name in ("record", "patient")}
    return WindowSet(
        ecg=(np.where(wave, waves, beats) + noise * rng.normal(size=(n, samples))).astype(np.float32),
        database=np.full(n, "vfdb"),
        lead=np.full(n, "ECG"),
        rhythm=np.array([RHYTHM_OF[name] for name in aha_class.tolist()]),
        aha_class=aha_class,
        start_s=np.arange(n) * window_s,
        window_s=window_s,
        **names,
    )


CLEAR = ("coarse_vf", "normal_sinus", "rapid_vt", "other_nonshockable")


def test_baselines_classify_every_test_window(rng: np.random.Generator) -> None:
    """Each detector and the SVM give one row per window, in order and with its label; waves are advised a shock."""
    train, test = synthetic("abcdef", CLEAR, rng), synthetic("xyz", AHA_CLASSES, rng)
    results = baseline_predictions(train, test, fold=3)
    assert list(results) == [*(detector.name for detector in DETECTORS), SVM_NAME]
    wave = np.isin(test.aha_class, SHOCKABLE + INTERMEDIATE)
    for name, predictions in results.items():
        for column in ("database", "record", "lead", "patient", "start_s", "rhythm", "aha_class"):
            np.testing.assert_array_equal(getattr(predictions, column), getattr(test, column))
        assert set(predictions.fold) == {3}
        assert set(predictions.duration_s) == {4.0}
        assert accuracy(predictions.shock, wave) > 0.8, name
        # A shock is advised from some probability on.
        assert predictions.probability[predictions.shock].min() >= predictions.probability[~predictions.shock].max()
    machine = results[SVM_NAME]
    np.testing.assert_array_equal(machine.shock, machine.probability > 0.5)


def test_baselines_are_fitted_on_clear_training_windows_alone(rng: np.random.Generator) -> None:
    """Neither intermediate training windows nor the labels of the test windows change anything."""
    train, test = synthetic("abcdef", CLEAR, rng), synthetic("xyz", CLEAR, rng)
    expected = baseline_predictions(train, test, 0)
    intermediate = synthetic("gh", INTERMEDIATE, rng)
    sinus = np.full(len(test), "normal_sinus")
    relabelled = replace(test, aha_class=sinus, rhythm=sinus)
    for other_train, other_test in ((concatenate([train, intermediate]), test), (train, relabelled)):
        for name, predictions in baseline_predictions(other_train, other_test, 0).items():
            np.testing.assert_array_equal(predictions.probability, expected[name].probability)
            np.testing.assert_array_equal(predictions.shock, expected[name].shock)


def test_machine_is_a_balanced_support_vector_machine(rng: np.random.Generator) -> None:
    """A support vector machine with manual scaling and class weights has the same boundary for unequal classes."""
    train = synthetic("abcdefghij", ("coarse_vf", *["normal_sinus"] * 9), rng, noise=1.5)
    test = synthetic("klmnopqrstuvwxyz", CLEAR, rng, noise=1.5)
    fitted, test_features = (
        np.stack([detectors.leakage(subset.ecg), detectors.count2(subset.ecg)], axis=1) for subset in (train, test)
    )
    mean, sd = fitted.mean(axis=0), fitted.std(axis=0)
    shockable = train.aha_class == "coarse_vf"
    weight = {True: 1 / shockable.mean() / 2, False: 1 / (1 - shockable.mean()) / 2}
    machine = SVC(C=1.0, kernel="rbf", gamma=0.5, class_weight=weight).fit((fitted - mean) / sd, shockable)
    distance = machine.decision_function((test_features - mean) / sd)
    predictions = baseline_predictions(train, test, 0)[SVM_NAME]
    np.testing.assert_allclose(predictions.probability, 1 / (1 + np.exp(-distance)), rtol=1e-6)
    np.testing.assert_array_equal(predictions.shock, distance > 0)
    assert np.any((np.abs(distance) < 0.5) & (distance > 0))  # the boundary is near


def test_share_of_training_windows_by_hand() -> None:
    """The probability of a detector counts the training windows that look less shockable, on either side."""
    training, feature = np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.0, 2.0, 2.5, 9.0])
    above = baselines._proportion_less_shockable(feature, training, shock_above=True)
    below = baselines._proportion_less_shockable(feature, training, shock_above=False)
    np.testing.assert_array_equal(above, [0, 0.25, 0.75, 1])
    np.testing.assert_array_equal(below, [1, 0.25, 0.25, 0])


def test_baselines_refuse_what_would_be_dishonest(rng: np.random.Generator) -> None:
    """Shared patients, other lengths, a single class, no windows and missing samples are errors."""
    train, test = synthetic("abc", CLEAR, rng), synthetic("xyz", CLEAR, rng)
    with pytest.raises(ValueError, match=r"patients \['patient/c'\] are in train and in test"):
        baseline_predictions(train, synthetic("cd", CLEAR, rng), 0)
    with pytest.raises(ValueError, match=r"train has windows of 4 s, and test has windows of 5 s"):
        baseline_predictions(train, synthetic("xyz", CLEAR, rng, 5.0), 0)
    with pytest.raises(ValueError, match=r"0 shockable and 3 nonshockable"):
        baseline_predictions(synthetic("abc", ("asystole",), rng), test, 0)
    with pytest.raises(ValueError, match="train has 0 shockable or nonshockable windows"):
        baseline_predictions(synthetic("abc", ("fine_vf",), rng), test, 0)
    with pytest.raises(ValueError, match="test has 0 windows; give one or more in each"):
        baseline_predictions(train, test.select(np.zeros(len(test), dtype=bool)), 0)
    test.ecg[5, 7] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite samples, the first is window 5"):
        baseline_predictions(train, test, 0)


@pytest.mark.recordings
def test_detectors_on_validation_patients(recordings_dir: Path) -> None:
    """On every tenth window of unseen patients, the better detectors are as good as published."""
    subsets = load_subsets(DataConfig(), recordings_dir)
    train, validation = (subset.select(np.arange(0, len(subset), 10)) for subset in (subsets.train, subsets.validation))
    shockable = np.isin(validation.aha_class, SHOCKABLE)
    found = {
        name: accuracy(predictions.shock, shockable)
        for name, predictions in baseline_predictions(train, validation, 0).items()
    }
    print({name: round(100 * share, 1) for name, share in found.items()})
    assert shockable.sum() > 30
    assert min(found[name] for name in ("count2", "PSR", "HILB", "SampEn", SVM_NAME)) > 0.85
    assert min(found.values()) > 0.7
