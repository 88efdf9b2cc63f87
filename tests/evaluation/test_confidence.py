"""Confidence limits, compared with published values, the binomial distribution, and each other."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ecg_shock.evaluation.confidence import (
    bootstrap_limit,
    cluster_limit,
    design_effect,
    lower_limit,
    poisson_upper_limit,
    upper_limit,
)

# Limits that manufacturers print, all of them titled "90 % one-sided": the first set is what 95 % two-sided gives
# (alpha = .025 on one side), the second what 95 % one-sided gives. None reproduces with alpha = .10.
PUBLISHED = [
    (0.025, 521, 535, "95.65"),
    (0.025, 76, 83, "83.39"),
    (0.025, 2202, 2205, "99.60"),
    (0.025, 770, 770, "99.52"),
    (0.025, 60, 64, "84.76"),
    (0.025, 22, 24, "73.00"),
    (0.05, 536, 536, "99.44"),
    (0.05, 80, 80, "96.32"),
    (0.05, 2210, 2210, "99.9"),
    (0.05, 42, 42, "93.1"),
    (0.05, 79, 79, "96.3"),
    (0.05, 208, 208, "98.6"),
    (0.05, 346, 348, "98.20"),
    (0.05, 29, 29, "90.2"),
    (0.05, 37, 44, "72.2"),
]


@pytest.mark.parametrize(("alpha", "k", "n", "printed"), PUBLISHED)
def test_published_limits(alpha: float, k: int, n: int, printed: str) -> None:
    """The limits agree with published ones to all printed digits."""
    decimals = len(printed.split(".")[1])
    assert f"{100 * lower_limit(k, n, alpha):.{decimals}f}" == printed


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 9), (5, 9), (8, 9), (40, 50), (199, 200)])
@pytest.mark.parametrize("alpha", [0.025, 0.1, 0.5])
def test_limits_invert_the_binomial_distribution(k: int, n: int, alpha: float) -> None:
    """At the lower limit, k or more of n has probability alpha; at the upper limit of n - k, n - k or fewer has."""
    p = lower_limit(k, n, alpha)
    assert sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)) == pytest.approx(alpha)
    q = upper_limit(n - k, n, alpha)
    assert sum(math.comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(n - k + 1)) == pytest.approx(alpha)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_limits_at_the_ends(n: int) -> None:
    """0 of n gives 0, n of n the closed form, and the upper limit mirrors both."""
    assert lower_limit(0, n) == 0
    assert lower_limit(n, n) == pytest.approx(0.1 ** (1 / n), rel=1e-12)
    assert upper_limit(n, n) == 1
    assert upper_limit(0, n) == pytest.approx(1 - 0.1 ** (1 / n), rel=1e-9)


@pytest.mark.parametrize("limit", [lower_limit, upper_limit])
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 0), "n is 0; allowed are 1 or more"),
        ((3, 2), "k is 3 and n is 2; allowed for k are 0 to n"),
        ((-1, 2), "k is -1"),
        ((1, 2, 0.0), "alpha is 0.0"),
        ((1, 2, 90), "alpha is 90"),
    ],
)
def test_impossible_arguments(limit: Callable[..., float], arguments: tuple, match: str) -> None:
    """Impossible counts and error probabilities are named."""
    with pytest.raises(ValueError, match=match):
        limit(*arguments)


def test_a_share_is_not_a_count() -> None:
    """A proportion instead of the count is refused, not rounded."""
    with pytest.raises(TypeError):
        lower_limit(0.97, 535)  # type: ignore[arg-type]


def test_import_is_light() -> None:
    """Importing the limits loads no SciPy."""
    code = "import sys, ecg_shock.evaluation.confidence; sys.exit('scipy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("k", [300, 380, 397, 400])
def test_one_window_a_patient_is_about_clopper_pearson(k: int) -> None:
    """With one window per patient, resampled patients and the binomial distribution agree."""
    correct = (np.arange(400) < k).astype(int)
    assert bootstrap_limit(correct, np.ones(400, int)) == pytest.approx(lower_limit(k, 400), abs=0.006)


@pytest.mark.parametrize("all_correct", [False, True])
def test_duplicated_windows_do_not_move_the_patient_limit(all_correct: bool, rng: np.random.Generator) -> None:
    """Repeated windows do not change the patient limit, while the binomial one wrongly rises."""
    windows = rng.integers(1, 30, size=40)
    correct = windows if all_correct else rng.binomial(windows, rng.beta(9, 1, size=40))
    for m in (2, 17):
        assert bootstrap_limit(m * correct, m * windows) == bootstrap_limit(correct, windows)
        assert lower_limit(m * correct.sum(), m * windows.sum()) > lower_limit(correct.sum(), windows.sum())


def test_bootstrap_equals_drawing_patients_one_by_one(rng: np.random.Generator) -> None:
    """A loop that draws patients with replacement gives the same limit, for one proportion and for the mean of two."""
    windows = rng.integers(0, 12, size=(30, 2))
    correct = rng.binomial(windows, rng.beta(8, 2, size=(30, 2)))
    one, both = [], []
    for _ in range(4000):
        drawn = rng.integers(30, size=30)
        rates = correct[drawn].sum(axis=0) / windows[drawn].sum(axis=0)
        one.append(rates[0])
        both.append(rates.mean())
    assert bootstrap_limit(correct[:, 0], windows[:, 0]) == pytest.approx(np.quantile(one, 0.1), abs=0.01)
    assert bootstrap_limit(correct, windows) == pytest.approx(np.quantile(both, 0.1), abs=0.01)


def test_bootstrap_depends_on_the_seed_and_not_on_the_order(rng: np.random.Generator) -> None:
    """The same seed gives the same limit for any order of the patients; another seed changes it a little."""
    windows = rng.integers(1, 20, size=25)
    correct = rng.binomial(windows, 0.9)
    limit = bootstrap_limit(correct, windows, seed=3)
    shuffled = rng.permutation(25)
    assert bootstrap_limit(correct[shuffled], windows[shuffled], seed=3) == limit
    assert 0 < abs(bootstrap_limit(correct, windows, seed=4) - limit) < 0.02


def test_bootstrap_of_clustered_errors_is_below_the_binomial_limit() -> None:
    """Twenty errors in one patient give a much lower limit than twenty errors in twenty patients."""
    windows = np.full(40, 20)
    one_bad_patient = np.where(np.arange(40) == 0, 0, 20)
    spread = np.where(np.arange(40) < 20, 19, 20)
    assert one_bad_patient.sum() == spread.sum()
    assert bootstrap_limit(one_bad_patient, windows) < lower_limit(780, 800) < bootstrap_limit(spread, windows)


def test_bootstrap_ends() -> None:
    """All wrong gives 0, all correct gives less than 100 %, and one patient with an error gives no limit."""
    ten = np.full(3, 10)
    assert bootstrap_limit(0 * ten, ten) == 0
    assert bootstrap_limit(ten, ten) == pytest.approx(lower_limit(3, 3), abs=0.001)
    assert bootstrap_limit(np.array([10]), np.array([10])) == pytest.approx(0.1, abs=0.001)
    assert math.isnan(bootstrap_limit(np.array([9]), np.array([10])))


@pytest.mark.parametrize(
    ("correct", "windows", "options", "match"),
    [
        ([1, 2], [3], {}, "shape"),
        ([[[1]]], [[[1]]], {}, "shape"),
        ([4], [3], {}, "correct has a count below 0, or above"),
        ([-1], [3], {}, "correct has a count below 0, or above"),
        ([], [], {}, "has no windows"),
        ([[1, 0]], [[1, 0]], {}, "has no windows"),
        ([1], [1], {"resamples": 100}, "resamples is 100"),
        ([1], [1], {"alpha": 1.0}, "alpha is 1.0"),
    ],
)
def test_bootstrap_refuses(correct: list, windows: list, options: dict, match: str) -> None:
    """Impossible counts and too few resamples are errors that name them."""
    with pytest.raises(ValueError, match=match):
        bootstrap_limit(np.array(correct), np.array(windows), **options)


def test_design_effect_is_the_variance_of_resampled_patients_by_the_binomial_one(rng: np.random.Generator) -> None:
    """A loop that resamples patients gives about the same variance, in units of p (1 - p) / n."""
    windows = rng.integers(1, 30, size=80)
    correct = rng.binomial(windows, rng.beta(4, 1, size=80))
    shares = []
    for _ in range(4000):
        drawn = rng.integers(80, size=80)
        shares.append(correct[drawn].sum() / windows[drawn].sum())
    share = correct.sum() / windows.sum()
    binomial = share * (1 - share) / windows.sum()
    assert design_effect(correct, windows) == pytest.approx(np.var(shares) / binomial, rel=0.1)
    assert design_effect(correct, windows) > 1.5


def test_design_effect_of_independent_windows_is_about_one() -> None:
    """With one window per patient it is n / (n - 1), for any proportion."""
    for k in (1, 250, 499):
        assert design_effect((np.arange(500) < k).astype(int), np.ones(500, int)) == pytest.approx(500 / 499)


def test_design_effect_of_equal_clusters_is_the_textbook_one(rng: np.random.Generator) -> None:
    """With w windows each it is 1 + (w - 1) times their intraclass correlation, counted pair by pair of windows."""
    m, w = 50, 8
    outcome = rng.random((m, w)) < rng.beta(3, 1, size=(m, 1))
    share = outcome.mean()
    pairs = [
        (float(one) - share) * (float(other) - share)
        for patient in outcome
        for i, one in enumerate(patient)
        for j, other in enumerate(patient)
        if i != j
    ]
    correlation = np.mean(pairs) / (share * (1 - share))
    expected = (1 + (w - 1) * correlation) * m / (m - 1)
    assert design_effect(outcome.sum(axis=1), np.full(m, w)) == pytest.approx(expected)


def test_duplicated_windows_are_worth_no_more(rng: np.random.Generator) -> None:
    """Windows repeated m times have m times the design effect, and the same effective number."""
    windows = rng.integers(0, 30, size=40)
    correct = rng.binomial(windows, 0.8)
    for m in (2, 17):
        assert design_effect(m * correct, m * windows) == pytest.approx(m * design_effect(correct, windows))


def test_design_effect_ends() -> None:
    """Without variance there is no design effect, and impossible counts are errors."""
    ten = np.full(3, 10)
    assert math.isnan(design_effect(ten, ten))
    assert math.isnan(design_effect(0 * ten, ten))
    assert math.isnan(design_effect(np.array([4, 0]), np.array([10, 0])))
    assert design_effect(np.array([5, 5]), np.array([10, 10])) == 0
    for correct, windows, match in (
        ([1, 2], [3], "shape"),
        ([4], [3], "below 0, or above"),
        ([-1], [3], "below 0, or above"),
        ([], [], "has no windows"),
        ([0], [0], "has no windows"),
    ):
        with pytest.raises(ValueError, match=match):
            design_effect(np.array(correct), np.array(windows))


@pytest.mark.parametrize(("k", "n"), [(19, 20), (28, 30), (99, 100), (199, 200), (380, 400), (15, 30)])
def test_cluster_limit_of_one_window_a_patient_is_about_clopper_pearson(k: int, n: int) -> None:
    """With one window per patient it is about the binomial limit, also with one error; few patients lower it."""
    correct, ones = (np.arange(n) < k).astype(int), np.ones(n, int)
    limit = cluster_limit(correct, ones)
    assert lower_limit(k, n) - 0.3 / n <= limit <= lower_limit(k, n) + 1e-3
    if n - k <= 2:
        assert bootstrap_limit(correct, ones) > lower_limit(k, n) + 0.005


def test_cluster_limit_follows_the_patients_and_not_their_windows(rng: np.random.Generator) -> None:
    """Repeated windows and the order of the patients do not change it; it is never above the binomial limit."""
    windows = rng.integers(1, 30, size=40)
    correct = rng.binomial(windows, rng.beta(9, 1, size=40))
    limit = cluster_limit(correct, windows)
    assert limit < lower_limit(correct.sum(), windows.sum())
    for m in (2, 17):
        assert cluster_limit(m * correct, m * windows) == pytest.approx(limit, rel=1e-9)
    order = rng.permutation(40)
    assert cluster_limit(correct[order], windows[order]) == pytest.approx(limit, rel=1e-12)
    assert cluster_limit(np.append(correct, 0), np.append(windows, 0)) == pytest.approx(limit, rel=1e-12)
    alike = np.full(10, 10)  # every patient 9 of 10: no variance between them
    assert cluster_limit(alike - 1, alike) == pytest.approx(lower_limit(90, 100))


def test_cluster_limit_without_an_error_or_a_patient() -> None:
    """All correct gives the limit for the number of patients, none correct 0, one patient with an error none."""
    assert cluster_limit(np.array([5, 70, 3]), np.array([5, 70, 3])) == pytest.approx(0.1 ** (1 / 3))
    assert cluster_limit(np.array([0, 0]), np.array([5, 70])) == 0.0
    assert np.isnan(cluster_limit(np.array([4]), np.array([5])))
    with pytest.raises(ValueError, match="alpha is 2"):
        cluster_limit(np.array([4]), np.array([5]), alpha=2)


@pytest.mark.parametrize("spread", [3.0, 30.0])
def test_cluster_limit_holds_as_often_as_it_says(spread: float, rng: np.random.Generator) -> None:
    """In 800 samples of 50 patients with clustered errors, the true proportion is above the limit in 86 to 94 %."""
    share = 0.97
    below = []
    for _ in range(800):
        windows = rng.integers(5, 40, size=50)
        correct = rng.binomial(windows, rng.beta(share * spread, (1 - share) * spread, size=50))
        below.append(cluster_limit(correct, windows) <= share)
    assert 0.86 <= np.mean(below) <= 0.94


@pytest.mark.parametrize("count", [0, 1, 7, 300])
@pytest.mark.parametrize("alpha", [0.025, 0.1])
def test_poisson_limit_leaves_alpha_below(count: int, alpha: float) -> None:
    """At the limit, the count or fewer has probability alpha; for 0 it is log(1 / alpha)."""
    assert stats.poisson.cdf(count, poisson_upper_limit(count, alpha)) == pytest.approx(alpha)
    if not count:
        assert poisson_upper_limit(0, alpha) == pytest.approx(-np.log(alpha))


@pytest.mark.parametrize(("count", "alpha"), [(-1, 0.1), (0, 0.0), (0, 1.0), (3, float("nan"))])
def test_poisson_limit_refuses(count: int, alpha: float) -> None:
    """A negative count and an impossible alpha are refused."""
    with pytest.raises(ValueError, match="allowed for count are 0 or more"):
        poisson_upper_limit(count, alpha)
