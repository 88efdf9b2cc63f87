"""Samplers draw from the right distributions, stay unbiased, learn from scores, and can be restored exactly."""

from __future__ import annotations

import io
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ecg_shock.training.sampler import (
    SAMPLERS,
    Sampler,
    gain,
    gradient_scores,
    sampling_distribution,
)

FLOOR = 0.15
UNBIASED = ("uniform", "class", "ras")
ADAPTIVE = ("class", "ras")
WINDOWS = 40  # at most, of a random case
MANY = settings(max_examples=200, deadline=None, derandomize=True)


def numbers():
    """Return scores of any size: ordinary ones, ties, zeros, and 600 orders of magnitude."""
    return st.one_of(
        st.floats(0, 1e300),
        st.floats(-300, 300).map(lambda exponent: 10.0**exponent),
        st.floats(0.1, 10.0),
        st.sampled_from([0.0, 0.0, 1.0, 1.0, 1.0, 1e-300, 1e300]),
    )


@st.composite
def cases(draw):
    """Return scores and groups: one window or many, one group or one per window, and arbitrary group codes."""
    n = draw(st.integers(1, WINDOWS))
    scores = draw(st.one_of(st.lists(numbers(), min_size=n, max_size=n), numbers().map(lambda s: [s] * n)))
    code = draw(st.sampled_from([st.just(7), st.integers(0, 3), st.sampled_from([-(2**40), -1, 5, 2**40])]))
    groups = draw(st.one_of(st.lists(code, min_size=n, max_size=n), st.permutations(range(n))))
    return np.array(scores, dtype=float), np.array(groups)


def by_hand(name, scores, groups, floor):
    """Return the distribution by the papers' formulas, with a loop over groups."""
    n = len(scores)
    uniform = np.full(n, 1 / n)
    if name == "uniform" or max(scores) == 0:
        return uniform
    s = scores / max(scores)
    p = np.empty(n)
    if name == "obs":
        p = np.exp(-math.log(100) / n * stats.rankdata(-s))
    else:
        for group in set(groups.tolist()):
            inside = groups == group
            count = inside.sum()
            if name == "class":
                p[inside] = count * math.sqrt(np.mean(s[inside] ** 2)) / count
            else:
                within = s[inside] / s[inside].sum() if s[inside].any() else 0.0
                p[inside] = count * np.mean(s[inside]) * within
    return (1 - floor) * p / p.sum() + floor * uniform


def second_moment(p, gradients):
    """Return E‖w g‖² of one weighted draw, by enumeration; a window that is never drawn has no gradient."""
    drawn = p > 0
    estimates = gradients[drawn] / (len(p) * p[drawn])[:, np.newaxis]
    return float(np.sum(p[drawn] * np.sum(estimates**2, axis=1)))


def variance(p, gradients):
    """Return the trace of the covariance of one weighted draw, by enumeration."""
    drawn = p > 0
    mean = gradients.mean(axis=0)
    estimates = gradients[drawn] / (len(p) * p[drawn])[:, np.newaxis]
    return float(np.sum(p[drawn] * np.sum((estimates - mean) ** 2, axis=1)))


def gradients_of(norms, seed):
    """Return gradients with these norms, scaled to at most 1, in random directions with a preference."""
    directions = np.random.default_rng(seed).normal(loc=0.5, size=(norms.size, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * (norms / norms.max() if norms.any() else norms)[:, np.newaxis]


def case(rng, groups=4):
    """Return gradients of 5 to 60 windows, their norms and groups; the norms differ strongly between groups."""
    n = int(rng.integers(5, 60))
    group = rng.integers(0, groups, n)
    gradients = rng.normal(loc=0.3, size=(n, 3)) * np.exp(2.0 * group)[:, np.newaxis] * rng.gamma(1.0, size=(n, 1))
    return gradients, np.linalg.norm(gradients, axis=1), group


@pytest.mark.parametrize("name", SAMPLERS)
@MANY
@given(case=cases(), floor=st.sampled_from([0.0, 1e-3, 0.1, 0.5, 1.0]))
def test_distributions_are_those_of_the_papers(name, case, floor):
    """Each distribution equals the papers' formula computed group by group, and sums to 1."""
    scores, groups = case
    p = sampling_distribution(name, scores, groups, floor)
    np.testing.assert_allclose(p, by_hand(name, scores, groups, floor), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
@MANY
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_distributions_do_not_depend_on_scale_order_or_codes(name, case, seed):
    """Scaled scores, another order of the windows and other group codes give the same p."""
    scores, groups = case
    scores = np.clip(scores, 0, 1e290) * (scores > 1e-290)
    p = sampling_distribution(name, scores, groups, FLOOR)
    np.testing.assert_array_equal(sampling_distribution(name, scores * 2.0**-30, groups, FLOOR), p)
    order = np.random.default_rng(seed).permutation(p.size)
    np.testing.assert_allclose(sampling_distribution(name, scores[order], groups[order], FLOOR), p[order], rtol=1e-9)
    np.testing.assert_allclose(sampling_distribution(name, scores, -3 * groups - 17, FLOOR), p, rtol=1e-9)


@pytest.mark.parametrize("name", UNBIASED)
@MANY
@given(case=cases(), stale=cases(), floor=st.floats(1e-6, 1.0), seed=st.integers(0, 2**32 - 1))
def test_weighted_draws_are_unbiased(name, case, stale, floor, seed):
    """The weighted expectation is the mean gradient to 1e-10, even with wrong scores."""
    norms, groups = case
    gradients = gradients_of(norms, seed)
    sampler = Sampler(name, groups, floor=floor, gate=1.0, seed=seed)
    sampler.rescore(np.resize(stale[0], norms.size))
    p = sampler.probabilities
    weights = 1 / (p.size * p)  # for windows that are not drawn
    indices, drawn_weights = sampler.draw((5, 100))
    weights[indices] = drawn_weights
    estimate = np.sum((p * weights)[:, np.newaxis] * gradients, axis=0)
    np.testing.assert_allclose(estimate, gradients.mean(axis=0), rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.sum(p * weights), 1.0, rtol=1e-10)


def weights_of(n, seed):
    """Return weights in an objective, such as those of patients with few and many windows."""
    return np.exp(np.random.default_rng(seed).normal(scale=1.5, size=n))


@pytest.mark.parametrize("name", [*UNBIASED, "weighted"])
@MANY
@given(case=cases(), stale=cases(), floor=st.floats(1e-3, 1.0), seed=st.integers(0, 2**32 - 1))
def test_draws_by_weight_keep_the_objective(name, case, stale, floor, seed):
    """The expectation of the twice weighted gradient is that of the objective, and the product of both is bounded.

    A draw counts at most 1/floor times as much as one in proportion to the windows' weights.
    """
    norms, groups = case
    weights = weights_of(norms.size, seed)
    gradients = gradients_of(norms, seed)
    sampler = Sampler(name, groups, weights=weights, floor=floor, gate=1.0, seed=seed)
    sampler.rescore(np.resize(stale[0], norms.size) * weights)
    p = sampler.probabilities
    importance = 1 / (p.size * p)
    indices, drawn = sampler.draw((5, 100))
    np.testing.assert_allclose(drawn, importance[indices], rtol=1e-9)
    product = importance * weights / weights.mean()
    estimate = np.sum((p * product)[:, np.newaxis] * gradients, axis=0)
    expected = np.sum(weights[:, np.newaxis] * gradients, axis=0) / weights.sum()
    np.testing.assert_allclose(estimate, expected, rtol=0, atol=1e-10)
    if name == "weighted":
        np.testing.assert_allclose(product, 1.0, rtol=1e-9)
    if name in ADAPTIVE:
        assert product.max() <= (1 + 1e-9) / floor
    observed = np.bincount(indices.ravel(), minlength=p.size)
    assert np.all(np.abs(observed - 500 * p) < 6 * np.sqrt(500 * p) + 6)


def test_equal_errors_are_drawn_by_weight():
    """If all windows with equal weights have equal gradients, nothing can be gained over drawing by weight."""
    weights, groups = weights_of(60, 1), np.arange(60) % 4
    sampler = Sampler("ras", groups, weights=weights, gate=1.0, seed=2)
    sampler.rescore(3.0 * weights)
    np.testing.assert_allclose(sampler.probabilities, weights / weights.sum(), rtol=1e-12)
    assert sampler.gain == pytest.approx(1.0)
    norms = np.random.default_rng(3).gamma(0.3, size=60) * weights
    base = weights / weights.sum()
    p = norms / norms.sum()
    expected = math.sqrt(second_moment(base, norms[:, np.newaxis]) / second_moment(p, norms[:, np.newaxis]))
    assert gain("ras", norms, groups, base) == pytest.approx(expected)
    # Old scores become those of the group, times the window's own weight.
    for _ in range(300):
        sampler.update(np.zeros(60, dtype=int), np.full(60, 3.0 * weights[0]))
    np.testing.assert_allclose(sampler.probabilities, weights / weights.sum(), rtol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_presampled_draws_are_unbiased(weighted, rng):
    """Over candidates and choice, the mean is the objective's gradient, for any scores; good ones lower its spread."""
    gradients, norms, groups = case(rng)
    weights = weights_of(norms.size, 4) if weighted else np.ones(norms.size)
    objective = np.sum(weights[:, np.newaxis] * gradients, axis=0) / weights.sum()
    spread = []
    for scores in (norms * weights, np.ones(norms.size), rng.gamma(0.3, size=norms.size)):
        sampler = Sampler("presampled", groups, weights=weights, floor=0.1, seed=7)
        means = []
        for _ in range(1500):
            candidates = sampler.draw_candidates((4, 8))
            assert candidates.shape == (96,)
            indices, importance = sampler.choose(candidates, scores[candidates], (4, 8))
            assert set(indices.ravel().tolist()) <= set(candidates.tolist())
            product = importance * (weights / weights.mean())[indices]
            means.append((product[..., np.newaxis] * gradients[indices]).mean(axis=(0, 1)))
        error = np.std(means, axis=0, ddof=1) / math.sqrt(len(means))
        assert np.all(np.abs(np.mean(means, axis=0) - objective) < 4 * error)
        spread.append(error.sum())
    assert spread[0] < spread[1]


def test_obs_is_biased(rng):
    """The mean gradient of the draws of "obs" is that of its ranks, not that of all windows; its weights are 1."""
    for seed in range(20):
        gradients, norms, groups = case(rng)
        sampler = Sampler("obs", groups, floor=FLOOR, seed=seed)
        sampler.rescore(norms)
        indices, weights = sampler.draw((400, 64))
        np.testing.assert_array_equal(weights, 1.0)
        drawn = (weights[..., np.newaxis] * gradients[indices]).mean(axis=1)
        error = np.std(drawn, axis=0, ddof=1) / 20
        expected = by_hand("obs", norms, groups, FLOOR) @ gradients
        assert np.all(np.abs(drawn.mean(axis=0) - expected) < 4 * error)
        assert np.max(np.abs(drawn.mean(axis=0) - gradients.mean(axis=0)) / error) > 8


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_follow_the_distribution(name, rng):
    """The frequencies of 20,000 draws pass a chi-square test against the distribution."""
    p_values = []
    for seed in range(20):
        _, norms, groups = case(rng)
        norms[rng.random(norms.size) < 0.2] = 0.0
        sampler = Sampler(name, groups, floor=0.3, gate=1.0, seed=seed)
        sampler.rescore(norms)
        p = by_hand(name, norms, groups, 0.3)
        np.testing.assert_allclose(sampler.probabilities, p, rtol=1e-9)
        indices, _ = sampler.draw((400, 50))
        expected = p * indices.size
        observed = np.bincount(indices.ravel(), minlength=p.size)
        if name == "uniform":
            assert np.ptp(observed) <= 1
        else:
            p_values.append(stats.chi2.sf(np.sum((observed - expected) ** 2 / expected), p.size - 1))
    # The smallest of twenty p-values is below this by chance once in 20,000 times.
    assert min(p_values, default=1.0) > 2.5e-6


@MANY
@given(case=cases(), floor=st.floats(1e-6, 1.0))
@pytest.mark.parametrize("name", SAMPLERS)
def test_floor_bounds_weights_and_probabilities(name, case, floor):
    """No weight exceeds 1/floor, and every group keeps its proportion of the floor, even if its scores are zero."""
    scores, groups = case
    p = sampling_distribution(name, scores, groups, floor)
    assert np.max(1 / (p.size * p)) <= (1 + 1e-12) / floor
    for group in np.unique(groups):
        assert p[groups == group].sum() >= (1 - 1e-12) * floor * np.mean(groups == group)
    np.testing.assert_allclose(sampling_distribution(name, scores, groups, 1.0), 1 / p.size, rtol=1e-12)


def test_a_group_without_gradient_is_still_drawn():
    """A group with zero scores is drawn as often as the floor says, with weights of 1/floor."""
    groups = np.repeat([0, 1], [30, 10])
    for name in ADAPTIVE:
        sampler = Sampler(name, groups, floor=0.2, seed=4)
        sampler.rescore(np.where(groups == 0, 1.0, 0.0))
        assert not sampler.is_open  # its gain is 1.15
        sampler = Sampler(name, groups, floor=0.2, gate=1.0, seed=4)
        sampler.rescore(np.where(groups == 0, 1.0, 0.0))
        indices, weights = sampler.draw((1000, 20))
        rare = groups[indices] == 1
        proportion = 0.2 * 10 / 40
        assert abs(rare.mean() - proportion) < 4 * math.sqrt(proportion * (1 - proportion) / rare.size)
        np.testing.assert_allclose(weights[rare], 5.0, rtol=1e-12)


@MANY
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_variances_are_ordered(case, seed):
    """The variance of "ras" is the known minimum, at most that of "class", which is at most that of "uniform"."""
    norms, groups = case
    gradients = gradients_of(norms, seed)
    uniform = np.full(norms.size, 1 / norms.size)
    best, classes = (sampling_distribution(name, norms, groups, 0.0) for name in ("ras", "class"))
    v = {k: variance(p, gradients) for k, p in {"best": best, "classes": classes, "uniform": uniform}.items()}
    assert v["best"] <= v["classes"] + 1e-12
    assert v["classes"] <= v["uniform"] + 1e-12
    mean_square = np.sum(gradients.mean(axis=0) ** 2)
    length = np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(v["best"], length.mean() ** 2 - mean_square, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(v["uniform"], np.mean(length**2) - mean_square, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ADAPTIVE)
@MANY
@given(case=cases(), wrong=cases(), floor=st.floats(1e-3, 1.0), seed=st.integers(0, 2**32 - 1))
def test_variance_is_bounded_by_the_floor(name, case, wrong, floor, seed):
    """With right scores the variance is below its bound and that of uniform; with others, below 1/floor times it."""
    norms, groups = case
    gradients = gradients_of(norms, seed)
    uniform = np.full(norms.size, 1 / norms.size)
    right = sampling_distribution(name, norms, groups, floor)
    bound = (1 - floor) * variance(sampling_distribution(name, norms, groups, 0.0), gradients)
    bound += floor * variance(uniform, gradients)
    assert variance(right, gradients) <= bound * (1 + 1e-9) + 1e-12
    assert variance(right, gradients) <= variance(uniform, gradients) * (1 + 1e-9) + 1e-12
    limit = second_moment(uniform, gradients) / floor
    with np.errstate(divide="ignore", over="ignore"):
        opposite = np.where(norms > 0, norms.max() / norms, 1e300) if norms.any() else norms
    for scores in (np.resize(wrong[0], norms.size), np.minimum(opposite, 1e300), norms[::-1]):
        p = sampling_distribution(name, scores, groups, floor)
        assert second_moment(p, gradients) <= limit * (1 + 1e-9)


def test_stale_scores_cost_variance(rng):
    """With the scores of other windows the variance is larger, and the mean is the same."""
    for _ in range(50):
        gradients, norms, groups = case(rng)
        stale = sampling_distribution("ras", rng.permutation(norms), groups, FLOOR)
        fresh = sampling_distribution("ras", norms, groups, FLOOR)
        assert variance(stale, gradients) > variance(fresh, gradients)
        for p in (stale, fresh):
            mean = p @ (gradients / (p.size * p)[:, np.newaxis])
            np.testing.assert_allclose(mean, gradients.mean(axis=0), rtol=1e-10, atol=1e-10 * norms.max())


def test_group_factor_is_the_mean_score_and_not_the_root_mean_square(rng):
    """Both levels with the mean score multiply to p; with the root mean square the variance is larger."""
    for _ in range(50):
        gradients, norms, groups = case(rng)
        mean, root = np.empty(norms.size), np.empty(norms.size)
        for group in np.unique(groups):
            inside = groups == group
            mean[inside] = inside.sum() * norms[inside].mean() * norms[inside] / norms[inside].sum()
            root[inside] = inside.sum() * np.sqrt(np.mean(norms[inside] ** 2)) * norms[inside] / norms[inside].sum()
        mean, root = mean / mean.sum(), root / root.sum()
        p = sampling_distribution("ras", norms, groups, 0.0)
        np.testing.assert_allclose(p, mean, rtol=1e-12)
        assert variance(p, gradients) < variance(root, gradients) or np.unique(groups).size == 1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("scores", [np.zeros(6), np.full(6, np.nan), np.array([1, 2, np.nan, 4, np.inf, 6.0])])
def test_useless_scores_give_uniform_sampling(name, scores):
    """If all scores are zero or any is not finite, p is uniform, without a gain and without a warning."""
    groups = np.array([0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(sampling_distribution(name, scores, groups, FLOOR), np.full(6, 1 / 6))
    assert gain(name, scores, groups) == 1.0


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1.0, 1e300])
def test_equal_scores_give_uniform_sampling(name, scale):
    """Equal scores give p = 1/N, weights of 1 and no gain, even if their squares overflow or underflow."""
    groups = np.arange(40) % 3
    p = sampling_distribution(name, np.full(40, scale), groups, FLOOR)
    np.testing.assert_allclose(p, 1 / 40, rtol=1e-12)
    np.testing.assert_allclose(gain(name, np.full(40, scale), groups), 1.0, rtol=1e-12)
    sampler = Sampler(name, groups, gate=1.0)
    sampler.rescore(np.full(40, scale))
    indices, weights = sampler.draw((5, 16))
    np.testing.assert_allclose(weights, 1.0, rtol=1e-12)
    sampler.update(indices, np.full(indices.shape, scale))
    np.testing.assert_allclose(sampler.probabilities, 1 / 40, rtol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_window(name):
    """A single window is always drawn, with weight 1, whatever its score."""
    np.testing.assert_allclose(sampling_distribution(name, np.array([7.0]), np.array([-3]), FLOOR), [1.0])
    sampler = Sampler(name, [5], gate=1.0)
    for score in (1e300, 0.0, np.nan):
        indices, weights = sampler.draw((3, 4))
        assert np.all(indices == 0)
        np.testing.assert_allclose(weights, 1.0, rtol=1e-12)
        sampler.update(indices, np.full((3, 4), score))


@MANY
@given(case=cases())
def test_one_group(case):
    """With a single group "class" is uniform, and "ras" still uses the scores."""
    scores, _ = case
    groups = np.full(scores.size, -9)
    np.testing.assert_allclose(sampling_distribution("class", scores, groups, 0.0), 1 / scores.size, rtol=1e-9)
    assert gain("class", scores, groups) == pytest.approx(1.0)
    if scores.any():
        expected = scores / scores.max() / math.fsum(scores / scores.max())
        np.testing.assert_allclose(sampling_distribution("ras", scores, groups, 0.0), expected, rtol=1e-9)


@pytest.mark.parametrize("name", UNBIASED)
@MANY
@given(case=cases())
def test_gain_is_the_root_of_the_ratio_of_second_moments(name, case):
    """The gain equals that computed by enumeration without a floor, and is never below 1."""
    scores, groups = case
    norms = gradients_of(scores, 0)
    expected = 1.0
    if scores.any():
        uniform = np.full(scores.size, 1 / scores.size)
        p = by_hand(name, scores, groups, 0.0)
        expected = math.sqrt(second_moment(uniform, norms) / second_moment(p, norms))
    assert gain(name, scores, groups) == pytest.approx(expected, rel=1e-9)
    assert gain(name, scores, groups) >= 1.0
    if name == "ras" and scores.any():
        relative = scores / scores.max()
        expected = math.sqrt(np.mean(relative**2)) / np.mean(relative)
        assert gain(name, scores, groups) == pytest.approx(expected, rel=1e-9)


def test_unknown_sampler_is_refused():
    """The error lists the known samplers."""
    with pytest.raises(ValueError, match="'RAS'; allowed are .*'uniform', 'class', 'ras', 'obs'"):
        Sampler("RAS", [0, 1])


def test_uniform_draws_every_window_once_a_round():
    """At any batch size N draws contain every window once, rounds differ, and all weights are 1."""
    sampler = Sampler("uniform", np.zeros(49, int), seed=3)
    batches = [sampler.draw(10) for _ in range(49)]
    rounds = np.concatenate([indices for indices, _ in batches]).reshape(10, 49)
    np.testing.assert_array_equal(np.sort(rounds, axis=1), np.tile(np.arange(49), (10, 1)))
    assert len({tuple(r) for r in rounds}) == 10
    assert all(np.all(weights == 1.0) for _, weights in batches)


def test_uniform_batch_larger_than_the_data():
    """A batch that is larger than the data contains all windows equally often, plus or minus one."""
    indices, _ = Sampler("uniform", np.zeros(7, int)).draw((2, 16))
    assert indices.shape == (2, 16)
    counts = np.bincount(indices.ravel(), minlength=7)
    assert counts.min() >= 4
    assert counts.max() <= 5


@pytest.mark.parametrize("name", ADAPTIVE)
def test_weights_are_those_of_the_distribution_that_drew(name):
    """Scores learned after a draw change the weights of the next draw only."""
    sampler = Sampler(name, [0, 0, 1, 1], floor=0.2, gate=1.0)
    sampler.rescore(np.array([1.0, 2.0, 3.0, 4.0]))
    before = sampler.probabilities
    indices, weights = sampler.draw((5, 20))
    sampler.update(indices, 3.0 - indices)
    np.testing.assert_allclose(weights, 1 / (4 * before[indices]), rtol=1e-12)
    assert not np.allclose(sampler.probabilities, before)


def test_batch_size_may_be_any_integer():
    """A NumPy integer is a batch size too."""
    indices, weights = Sampler("ras", [0, 1, 1]).draw(np.int64(4))
    assert indices.shape == weights.shape == (4,)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_closed_gate_is_uniform_sampling(name, rng):
    """With a small gain the draws and weights are exactly those of "uniform" with the same seed."""
    groups = rng.integers(0, 3, 101)
    closed, uniform = (Sampler(n, groups, seed=8) for n in (name, "uniform"))
    closed.rescore(rng.uniform(0.8, 1.2, 101))
    for _ in range(30):
        assert not closed.is_open
        assert 1.0 <= closed.gain < 1.02
        np.testing.assert_array_equal(closed.probabilities, np.full(101, 1 / 101))
        (indices, weights), (expected, ones) = closed.draw((2, 16)), uniform.draw((2, 16))
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(weights, ones)
        closed.update(indices, rng.uniform(0.8, 1.2, indices.shape))


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("gate", [1.05, 1.2, 1.6])
def test_gate_follows_the_moving_average_of_the_gain(name, gate, rng):
    """The gate opens as soon as the average reaches it, and closes as soon as the average falls below it."""
    groups = np.arange(60) % 2
    sampler = Sampler(name, groups, gate=gate, seed=1)
    scores, average, opened = np.ones(60), 1.0, []
    for step in range(120):
        new = np.where(groups == 1, 60.0, 0.1) if 20 <= step < 60 else np.full(60, 2.0)
        sampler.update(np.arange(60), new)  # all windows are drawn, so that no score is old
        scores = np.sqrt((scores**2 + new**2) / 2) if step else new  # the first update has no older scores
        if name == "class":
            root = np.sqrt([np.mean(scores[groups == g] ** 2) for g in groups])
            tau = math.sqrt(np.mean(scores**2)) / np.mean(root)
        else:
            tau = math.sqrt(np.mean(scores**2)) / np.mean(scores)
        average = tau + (average - tau) * 0.5**10  # one epoch is ten half-lives
        opened.append(average >= gate)
        assert sampler.is_open == opened[-1]
        assert sampler.gain == pytest.approx(average, rel=1e-9)
    assert {(a, b) for a, b in itertools.pairwise(opened) if a != b} >= (
        {(False, True), (True, False)} if gate < 1.4 else set()
    )
    assert any(opened) == (gate < 1.4)  # the largest gain of two groups of equal size is √2


def test_gain_is_averaged_over_draws_and_not_over_calls():
    """Sixty draws of known scores change the average equally in any number of calls."""
    groups = np.arange(1000) % 2
    scores = 1.0 + 8.0 * groups  # each is its group's mean, so that age does not matter
    tau = math.sqrt(41) / 5
    for calls in (1, 2, 3, 6, 60):
        sampler = Sampler("ras", groups)
        sampler.rescore(scores)
        sampler.restore(sampler.state() | {"gain": np.array(1.0)})
        for indices in np.split(np.arange(60), calls):
            sampler.update(indices, scores[indices])
        assert sampler.gain == pytest.approx(tau + (1 - tau) * 0.5 ** (60 / 100), rel=1e-12)


def test_gates_that_never_close_or_open(rng):
    """A gate of 1 is always open, "obs" has no gate, and "uniform" ignores scores."""
    scores = rng.gamma(0.1, size=50)
    for name in SAMPLERS:
        always, usual = Sampler(name, np.zeros(50, int), gate=1.0), Sampler(name, np.zeros(50, int))
        assert always.is_open == (name != "uniform")
        assert usual.is_open == (name == "obs")
        usual.rescore(scores)
        # With one group "class" is uniform and has no gain.
        assert usual.is_open == (name in ("ras", "obs"))
        assert usual.learns == (name != "uniform")
    assert Sampler("obs", [0, 1]).gain == 1.0


def test_rescoring_sets_the_gain():
    """A pass over all windows sets the gain without averaging; its scores are averaged with the old ones."""
    sampler = Sampler("ras", np.arange(8) % 2)
    scores = np.array([8.0, 0, 0, 0, 0, 0, 0, 0])
    sampler.rescore(scores)
    assert sampler.gain == pytest.approx(math.sqrt(8))
    assert sampler.is_open
    for _ in range(20):
        sampler.rescore(np.full(8, 0.3))
        scores = np.sqrt((scores**2 + 0.3**2) / 2)
        assert sampler.gain == pytest.approx(math.sqrt(np.mean(scores**2)) / np.mean(scores))
        np.testing.assert_allclose(sampler.state()["scores"], scores, rtol=1e-12)
    assert not sampler.is_open


def distribution(scores, floor):
    """Return the distribution of "ras" for these estimated scores."""
    return (1 - floor) * np.array(scores) / np.sum(scores) + floor / len(scores)


def test_update_averages_new_scores_and_ages_the_others():
    """The square of a drawn window's score moves half-way or more to its new ones; the others approach their mean.

    NaN counts as not drawn.
    """
    sampler = Sampler("ras", [0, 0, 0, 9, 9], floor=0.5, gate=1.0)
    sampler.rescore(np.array([2.0, 4.0, 9.0, 1.0, 3.0]))
    sampler.update(np.array([[0, 0], [4, 0]]), np.array([[10.0, 20.0], [np.nan, 6.0]]))
    first = 4 / 5  # epochs: four draws of five windows
    scores = [math.sqrt((2**2 + (10**2 + 20**2 + 6**2) / 3) / 2), 4.0, 9.0, 1.0, 3.0]
    mean = [np.mean(scores[:3])] * 3 + [2.0] * 2
    kept = np.where(np.arange(5) == 0, 1.0, 0.5 ** (first / 5))  # the half-life is five epochs
    believed = mean + kept * (np.array(scores) - mean)
    np.testing.assert_allclose(sampler.state()["scores"], scores, rtol=1e-12)
    np.testing.assert_allclose(sampler.state()["ages"], [0, first, first, first, first], rtol=1e-12)
    np.testing.assert_allclose(sampler.probabilities, distribution(believed, 0.5), rtol=1e-12)

    # A new score is averaged with the old one, which counts less than half because of its age.
    sampler.update(np.array([2]), np.array([1.0]))
    old = 0.5 * 0.5 ** (first / 5)
    scores[2] = math.sqrt(old * 9.0**2 + (1 - old) * 1.0**2)
    ages = np.array([1 / 5, first + 1 / 5, 0.0, first + 1 / 5, first + 1 / 5])
    mean = [np.mean(scores[:3])] * 3 + [2.0] * 2
    believed = mean + 0.5 ** (ages / 5) * (np.array(scores) - mean)
    np.testing.assert_allclose(sampler.state()["scores"], scores, rtol=1e-12)
    np.testing.assert_allclose(sampler.probabilities, distribution(believed, 0.5), rtol=1e-12)


def test_old_scores_become_the_mean():
    """After 500 epochs of draws of one window, all others have the mean of their group."""
    sampler = Sampler("ras", [-1, -1, -1, 7, 7, 7], floor=0.1, gate=1.0)
    sampler.rescore(np.array([3.0, 0.0, 9.0, 2.0, 28.0, 0.0]))
    for _ in range(500):
        sampler.update(np.zeros(6, int), np.full(6, 3.0))
    believed = np.array([3.0, 4.0, 4.0, 10.0, 10.0, 10.0])
    np.testing.assert_allclose(sampler.probabilities, distribution(believed, 0.1), rtol=1e-9)
    sampler.rescore(np.array([3.0, 0.0, 9.0, 2.0, 28.0, np.nan]))  # all are new except for the last
    believed = np.array([3.0, 0.0, 9.0, 2.0, 28.0, 10.0])
    np.testing.assert_allclose(sampler.probabilities, distribution(believed, 0.1), rtol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_distribution_stays_valid_for_any_scores(name, data):
    """For any scores in any order, finite or not, p stays a distribution over all windows."""
    _, groups = data.draw(cases())
    n = groups.size
    score = st.one_of(numbers(), st.sampled_from([np.nan, np.inf]))
    sampler = Sampler(name, groups, floor=0.1, gate=data.draw(st.sampled_from([1.0, 1.2])))
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            sampler.rescore(np.array(data.draw(st.lists(score, min_size=n, max_size=n))))
        else:
            indices = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=2 * n)), dtype=int)
            sampler.update(indices, np.array([data.draw(score) for _ in indices]))
        p = sampler.probabilities
        assert p.sum() == pytest.approx(1.0, rel=1e-12)
        assert p.min() >= (1 - 1e-12) * 0.1 / n
        assert math.isfinite(sampler.gain)
        assert sampler.gain >= 1.0 - 1e-12
        assert np.isfinite(sampler.state()["scores"]).all()
        indices, weights = sampler.draw((2, 4))
        assert indices.min() >= 0
        assert indices.max() < n
        assert np.all(weights > 0)
        assert weights.max() <= 10 * (1 + 1e-9)


def through_a_file(state):
    """Write the arrays to a file without pickles, and read them back."""
    assert all(isinstance(a, np.ndarray) and a.dtype != object for a in state.values())
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_restored_sampler_continues_with_the_same_draws(name, opened, rng):
    """A state saved inside a round and read from a file gives the same p, gate and draws, bit for bit.

    It includes scores, ages, the average gain and the random numbers, so that the gate opens in the same later step.
    """
    groups = rng.integers(-1, 3, 101)
    sampler = Sampler(name, groups, seed=5)
    sampler.rescore(rng.gamma(0.3, size=101) * np.exp(groups) if opened else np.ones(101))
    for _ in range(3):
        indices, _ = sampler.draw((2, 16))
        spread = 1.0 if opened else 0.05
        scores = rng.gamma(1 / spread**2, spread**2, size=indices.shape)
        sampler.update(indices, scores * np.exp(groups[indices]) if opened else scores)
    assert name == "obs" or sampler.is_open == (opened and name != "uniform")
    state = through_a_file(sampler.state())
    assert np.unique(state["ages"]).size > 1

    resumed = Sampler(name, groups, seed=99)
    resumed.restore(state)
    gates = []
    for step in range(40):
        np.testing.assert_array_equal(sampler.probabilities, resumed.probabilities)
        assert (sampler.gain, sampler.is_open) == (resumed.gain, resumed.is_open)
        (a, wa), (b, wb) = sampler.draw((2, 16)), resumed.draw((2, 16))
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(wa, wb)
        later = rng.gamma(0.1, size=a.shape) * np.exp(2 * groups[a]) * (step < 20)
        sampler.update(a, later)
        resumed.update(b, later)
        gates.append(sampler.is_open)
    assert not opened or name in ("uniform", "obs") or gates[0]
    assert opened or name in ("uniform", "obs") or any(gates)  # it opens later
    for key, array in sampler.state().items():
        np.testing.assert_array_equal(array, resumed.state()[key])


@pytest.mark.parametrize("name", ["weighted", "presampled", "ras"])
def test_restored_sampler_with_weights_continues(name, rng):
    """A state that was saved in between gives the same draws by weight."""
    weights = weights_of(50, 6)
    sampler, resumed = (Sampler(name, np.arange(50) % 3, weights=weights, gate=1.0, seed=seed) for seed in (5, 99))

    def draw(one):
        if one.presamples:
            candidates = one.draw_candidates((2, 16))
            return one.choose(candidates, weights[candidates] * (candidates % 7), (2, 16))
        indices, importance = one.draw((2, 16))
        if one.learns:
            one.update(indices, weights[indices] * (indices % 7))
        return indices, importance

    draw(sampler)
    resumed.restore(through_a_file(sampler.state()))
    for _ in range(5):
        for one, other in zip(draw(sampler), draw(resumed), strict=True):
            np.testing.assert_array_equal(one, other)


def test_state_is_a_copy():
    """A sampler does not change a state that it returned or was restored from."""
    sampler = Sampler("ras", [0, 0, 1])
    sampler.draw(2)
    state = sampler.state()
    before = {name: array.copy() for name, array in state.items()}
    other = Sampler("ras", [0, 0, 1])
    other.restore(state)
    for one in (sampler, other):
        one.draw(2)
        one.update(np.array([0]), np.array([9.0]))
        one.rescore(np.array([1.0, 2.0, 3.0]))
    for name, array in before.items():
        np.testing.assert_array_equal(state[name], array)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seed_determines_the_draws(name):
    """Equal seeds give equal draws, and other seeds other draws."""

    def draws(seed):
        sampler = Sampler(name, np.arange(50) % 2, gate=1.0, seed=seed)
        return sampler.draw((4, 25))[0].tolist()

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_state_of_other_windows_is_refused():
    """The state of another number of windows is an error that gives both numbers."""
    with pytest.raises(ValueError, match="has 3 windows, but this sampler has 2"):
        Sampler("ras", [0, 1]).restore(Sampler("ras", [0, 1, 1]).state())


def test_score_is_the_norm_of_the_last_layers_gradient(rng):
    """The score equals the norm of the gradient by finite differences to 1e-5."""
    features, weights, bias = rng.normal(size=(20, 4)), rng.normal(size=4), 0.3
    shockable, class_weights = rng.random(20) < 0.4, rng.uniform(0.5, 2.0, 20)

    def loss(parameters):
        q = 1 / (1 + np.exp(-(features @ parameters[:4] + parameters[4])))
        return -class_weights * np.where(shockable, np.log(q), np.log(1 - q))

    at, step = np.append(weights, bias), 1e-5
    slopes = [(loss(at + step * e) - loss(at - step * e)) / (2 * step) for e in np.eye(5)]
    arguments = (features @ weights + bias, np.sum(features**2, axis=1), shockable, class_weights)
    np.testing.assert_allclose(gradient_scores(*arguments), np.linalg.norm(slopes, axis=0), rtol=1e-5)


def test_scores_of_extreme_logits():
    """Saturated or infinite values give 0, c √(1 + ‖h‖²) or NaN without a warning."""
    logits = np.array([1e4, -1e4, np.inf, 1e4], np.float32)
    arguments = (logits, np.array([3, 3, 3, np.inf], np.float32), np.array([True] * 4), np.full(4, 2.0))
    np.testing.assert_array_equal(gradient_scores(*arguments), [0.0, 4.0, 0.0, np.nan])
    small = gradient_scores(np.array([40.0]), np.zeros(1), np.array([True]), np.ones(1))
    np.testing.assert_allclose(small, math.exp(-40), rtol=1e-12)  # 1 − q is 0 in this precision


@pytest.mark.parametrize("module", ["sampler", "draws"])
def test_samplers_need_numpy_only(module):
    """The module imports no other library than NumPy."""
    code = (
        f"import sys, json; import ecg_shock.training.{module}; "
        "print(json.dumps([m for m in ('tensorflow', 'keras', 'scipy', 'pydantic') if m in sys.modules]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == []
