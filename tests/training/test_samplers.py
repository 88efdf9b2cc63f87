"""Tests of ecg_shock.training.samplers."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from ecg_shock.training.samplers import SAMPLERS, Sampler, gradient_scores, sampling_distribution

FLOOR = 0.15


def variance(p, gradients):
    """Trace of the covariance of one weighted draw, by enumerating every window (specification S2)."""
    mean = gradients.mean(axis=0)
    estimates = gradients / (len(p) * p)[:, np.newaxis]
    return float(np.sum(p * np.sum((estimates - mean) ** 2, axis=1)))


def case(rng):
    """Gradients of 5 to 60 windows in 4 groups of very different size of gradient, with their norms."""
    n = int(rng.integers(5, 60))
    groups = rng.integers(0, 4, n)
    gradients = rng.normal(size=(n, 3)) * np.exp(2.0 * groups)[:, np.newaxis] * rng.gamma(1.0, size=(n, 1))
    return gradients, np.linalg.norm(gradients, axis=1), groups


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stale", [False, True])
def test_weighted_draws_are_unbiased(name, stale, rng):
    """The expectation of the weighted gradient is the mean gradient to 1e-10, also with scores that are wrong."""
    for _ in range(50):
        gradients, norms, groups = case(rng)
        scores = rng.permutation(norms) if stale else norms
        p = sampling_distribution(name, scores, groups, FLOOR)
        weights = 1 / (len(p) * p)
        estimate = np.sum((p * weights)[:, np.newaxis] * gradients, axis=0)
        np.testing.assert_allclose(estimate, gradients.mean(axis=0), rtol=1e-10, atol=1e-10 * norms.max())
        np.testing.assert_allclose([p.sum(), np.sum(p * weights)], 1.0, rtol=1e-12)


def test_floor_bounds_weights_and_probabilities(rng):
    """No weight exceeds 1/floor, also with one enormous score; a group of zero gradient keeps its floor's share."""
    for floor in (0.05, 0.2, 1.0):
        _, norms, groups = case(rng)
        norms[groups == groups[0]] = 0.0
        norms[-1] = 1e9
        p = sampling_distribution("ras", norms, groups, floor)
        zero = (groups == groups[0]) & (norms == 0)
        assert np.max(1 / (p.size * p)) <= (1 + 1e-12) / floor
        assert p[zero].sum() >= (1 - 1e-12) * floor * zero.mean()
    np.testing.assert_allclose(p, 1 / p.size, rtol=1e-12)  # a floor of 1 is uniform


def test_variances_stand_in_their_order(rng):
    """Optimum ≤ classes alone (Gopal) ≤ uniform; the mixture is within its bound; wrong scores within 1/floor."""
    for _ in range(50):
        gradients, norms, groups = case(rng)
        n = norms.size
        ideal = sampling_distribution("ras", norms, groups, 0.0)
        mixed = sampling_distribution("ras", norms, groups, FLOOR)
        wrong = sampling_distribution("ras", 1 / norms, groups, FLOOR)
        uniform = np.full(n, 1 / n)
        rms = np.sqrt(
            np.bincount(groups, weights=norms**2, minlength=4) / np.maximum(np.bincount(groups, minlength=4), 1)
        )
        classes = rms[groups] / rms[groups].sum()

        v = {
            k: variance(p, gradients)
            for k, p in {"ideal": ideal, "mixed": mixed, "classes": classes, "uniform": uniform, "wrong": wrong}.items()
        }
        slack = 1e-9 * v["uniform"]
        mean_square = float(np.sum(gradients.mean(axis=0) ** 2))
        assert v["ideal"] <= v["classes"] + slack
        assert v["classes"] <= v["uniform"] + slack
        assert v["mixed"] <= (1 - FLOOR) * v["ideal"] + FLOOR * v["uniform"] + slack
        assert v["wrong"] + mean_square <= (v["uniform"] + mean_square) / FLOOR + slack
        np.testing.assert_allclose(v["ideal"], norms.mean() ** 2 - mean_square, rtol=1e-9, atol=slack)


def test_group_factor_is_the_mean_score_and_not_the_root_mean_square(rng):
    """Two levels put together one by one with the mean give p; with the root-mean-square, more variance."""
    gradients, norms, groups = case(rng)
    mean, root = np.empty(norms.size), np.empty(norms.size)
    for group in np.unique(groups):
        inside = groups == group
        mean[inside] = inside.sum() * norms[inside].mean() * norms[inside] / norms[inside].sum()
        root[inside] = inside.sum() * np.sqrt(np.mean(norms[inside] ** 2)) * norms[inside] / norms[inside].sum()
    mean, root = mean / mean.sum(), root / root.sum()
    p = sampling_distribution("ras", norms, groups, 0.0)
    np.testing.assert_allclose(p, mean, rtol=1e-12)
    assert variance(p, gradients) < variance(root, gradients)


@pytest.mark.parametrize("scores", [np.zeros(6), np.full(6, np.nan), np.array([1, 2, np.nan, 4, np.inf, 6.0])])
def test_useless_scores_give_uniform_sampling(scores):
    """Scores that are all zero, or not all finite, give the uniform distribution without a warning."""
    p = sampling_distribution("ras", scores, np.array([0, 0, 0, 1, 1, 1]), FLOOR)
    np.testing.assert_array_equal(p, np.full(6, 1 / 6))


@pytest.mark.parametrize("scale", [1e-320, 1e-3, 1.0, 1e308])
def test_equal_scores_give_uniform_sampling_at_any_scale(scale):
    """Equal scores mean p = 1/N, also where their sum would overflow or they can hardly be represented."""
    p = sampling_distribution("ras", np.full(40, scale), np.arange(40) % 3, FLOOR)
    np.testing.assert_allclose(p, 1 / 40, rtol=1e-12)


def test_one_window_and_one_group():
    """A single window is always drawn with weight 1; in a single group the scores still decide."""
    np.testing.assert_allclose(sampling_distribution("ras", np.array([7.0]), np.array([0]), FLOOR), [1.0])
    indices, weights = Sampler("ras", [5]).draw((3, 4))
    assert np.all(indices == 0)
    np.testing.assert_allclose(weights, 1.0)
    p = sampling_distribution("ras", np.array([1.0, 3.0]), np.array([2, 2]), 0.0)
    np.testing.assert_allclose(p, [0.25, 0.75])


@pytest.mark.parametrize(
    ("name", "scores", "groups", "floor", "message"),
    [
        ("RAS", [1.0], [0], 0.1, "'uniform', 'ras'"),
        ("ras", [1.0], [0], 1.5, "from 0"),
        ("ras", [], [], 0.1, "not empty"),
        ("ras", [1.0, 2.0], [0], 0.1, "equally long"),
        ("ras", [1.0, -2.0], [0, 0], 0.1, "negative"),
    ],
)
def test_wrong_distributions_are_refused(name, scores, groups, floor, message):
    """What cannot be a distribution is refused with what is allowed."""
    with pytest.raises(ValueError, match=message):
        sampling_distribution(name, np.array(scores), np.array(groups), floor)


@pytest.mark.parametrize("floor", [0.0, -0.1, 1.1, float("nan")])
def test_sampler_needs_a_floor(floor):
    """A sampler without a floor could never visit a window of score zero again, and is refused."""
    with pytest.raises(ValueError, match="floor"):
        Sampler("ras", [0, 1], floor=floor)


def test_uniform_draws_every_window_once_a_round():
    """Whatever the batch size, N draws hold every window once, rounds differ, and weights are exactly 1."""
    sampler = Sampler("uniform", np.zeros(49, int), seed=3)
    batches = [sampler.draw(10) for _ in range(49)]
    rounds = np.concatenate([indices for indices, _ in batches]).reshape(10, 49)
    np.testing.assert_array_equal(np.sort(rounds, axis=1), np.tile(np.arange(49), (10, 1)))
    assert len({tuple(r) for r in rounds}) == 10
    assert all(np.all(weights == 1.0) for _, weights in batches)


def test_uniform_batch_larger_than_the_data():
    """A batch of more windows than there are holds every window, as evenly as can be."""
    indices, _ = Sampler("uniform", np.zeros(7, int)).draw((2, 16))
    assert indices.shape == (2, 16)
    counts = np.bincount(indices.ravel(), minlength=7)
    assert counts.min() >= 4
    assert counts.max() <= 5


def test_ras_draws_follow_the_distribution():
    """Frequencies of 200,000 draws agree with p within four standard errors, and each weight is 1/(N p)."""
    sampler = Sampler("ras", [0, 0, 1, 1], floor=0.2, seed=11)
    sampler.rescore(np.array([0.0, 1.0, 2.0, 7.0]))
    p = 0.8 * np.array([0.0, 0.1, 0.2, 0.7]) + 0.05
    indices, weights = sampler.draw((2000, 100))
    frequency = np.bincount(indices.ravel()) / indices.size
    assert np.all(np.abs(frequency - p) < 4 * np.sqrt(p * (1 - p) / indices.size))
    np.testing.assert_allclose(weights, 1 / (4 * p[indices]), rtol=1e-12)


def test_weights_are_those_of_the_distribution_that_drew():
    """Scores learned after a draw change the next draw's weights and not those already handed out."""
    sampler = Sampler("ras", [0, 0, 0, 0], floor=0.2)
    before = sampler.probabilities
    indices, weights = sampler.draw((5, 20))
    sampler.update(indices, indices.astype(float))
    np.testing.assert_allclose(weights, 1 / (4 * before[indices]), rtol=1e-12)
    assert not np.allclose(sampler.probabilities, before)


def test_update_averages_visited_scores_and_lets_others_drift():
    """A visited score moves half-way to the mean of its new ones; others move to their group's mean; NaN is ignored."""
    sampler = Sampler("ras", [0, 0, 0, 9, 9], floor=0.5)
    sampler.rescore(np.array([2.0, 4.0, 9.0, 1.0, 3.0]))
    sampler.update(np.array([[0, 0], [4, 0]]), np.array([[10.0, 20.0], [np.nan, 6.0]]))
    kept = 0.5 ** (4 / 5 / 5)  # 4 draws of 5 windows are 4/5 of an epoch, and the half-life is 5 epochs
    expected = [2 + 0.5 * (12 - 2), 5 + kept * (4 - 5), 5 + kept * (9 - 5), 2 + kept * (1 - 2), 2 + kept * (3 - 2)]
    np.testing.assert_allclose(sampler.state()["scores"], expected, rtol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_restored_sampler_goes_on_with_the_same_draws(name, rng):
    """A state taken in mid-round and carried to another process through a file gives the same p and the same draws."""
    groups = rng.integers(0, 3, 101)
    sampler = Sampler(name, groups, seed=5)
    for _ in range(3):
        indices, _ = sampler.draw((2, 16))
        sampler.update(indices, rng.gamma(1.0, size=indices.shape))
    state = sampler.state()
    assert all(isinstance(a, np.ndarray) and a.dtype != object for a in state.values())

    resumed = Sampler(name, groups, seed=99)
    resumed.restore(state)
    later = rng.gamma(1.0, size=(2, 16))
    for _ in range(10):
        np.testing.assert_array_equal(sampler.probabilities, resumed.probabilities)
        (a, wa), (b, wb) = sampler.draw((2, 16)), resumed.draw((2, 16))
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(wa, wb)
        sampler.update(a, later)
        resumed.update(b, later)


@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_are_set_by_the_seed(name):
    """One seed gives one series of draws, another seed another."""

    def draws(seed):
        return Sampler(name, np.zeros(50, int), seed=seed).draw((4, 25))[0].tolist()

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_state_of_other_windows_is_refused():
    """The state of another number of windows is refused, not stretched."""
    with pytest.raises(ValueError, match="equally long"):
        Sampler("ras", [0, 1]).restore(Sampler("ras", [0, 1, 1]).state())


def test_score_is_the_norm_of_the_last_layers_gradient(rng):
    """The score equals the norm of the weighted cross-entropy's derivative by finite differences, to 1e-5."""
    features, weights, bias = rng.normal(size=(20, 4)), rng.normal(size=4), 0.3
    shockable, class_weights = rng.random(20) < 0.4, rng.uniform(0.5, 2.0, 20)

    def loss(parameters):
        q = 1 / (1 + np.exp(-(features @ parameters[:4] + parameters[4])))
        return -class_weights * np.where(shockable, np.log(q), np.log(1 - q))

    at, step = np.append(weights, bias), 1e-5
    slopes = [(loss(at + step * e) - loss(at - step * e)) / (2 * step) for e in np.eye(5)]
    scores = gradient_scores(features @ weights + bias, np.sum(features**2, axis=1), shockable, class_weights)
    np.testing.assert_allclose(scores, np.linalg.norm(slopes, axis=0), rtol=1e-5)


def test_scores_of_extreme_logits():
    """Logits that saturate or overflow give 0, c √(1 + ‖h‖²) or NaN, and no warning."""
    logits = np.array([1e4, -1e4, np.inf, 1e4], np.float32)
    scores = gradient_scores(logits, np.array([3, 3, 3, np.inf], np.float32), np.array([True] * 4), np.full(4, 2.0))
    np.testing.assert_array_equal(scores, [0.0, 4.0, 0.0, np.nan])


def test_samplers_need_numpy_alone():
    """The module works where only NumPy can be imported."""
    code = (
        "import sys, json; import ecg_shock.training.samplers; "
        "print(json.dumps([m for m in ('tensorflow', 'keras', 'scipy', 'pydantic') if m in sys.modules]))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == []
