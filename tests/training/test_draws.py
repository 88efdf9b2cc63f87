"""The summary of an epoch's draws equals exact expectations and plain counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ecg_shock.training.draws import Draws, DrawSummary
from ecg_shock.training.sampler import Sampler


def squared_sums(gradients, indices, weights):
    """Return ‖Σ w g‖² of each batch."""
    return np.sum(np.sum(weights[..., np.newaxis] * gradients[indices], axis=1) ** 2, axis=1)


def summary(gradients, indices, weights, rhythm=None):
    """Summarise batches of windows with these gradients."""
    draws = Draws(np.full(len(gradients), "sinus") if rhythm is None else rhythm)
    norms = np.linalg.norm(gradients, axis=1)[indices]
    draws.add(indices, weights, norms, squared_sums(gradients, indices, weights))
    return draws.summary()


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("parts", [[1, 1, 1, 1], [1, 2, 1, 4], [5, 1, 1, 1]])
def test_estimates_average_to_the_true_values_over_all_batches(batch, parts, rng):
    """Over all possible batches the gain and the ratio of variances are those of the population, to 1e-9.

    A window with p = 4/8 occurs four times among eight equally likely ones, so that all batches are equally likely and
    their mean is an expectation.
    """
    p = np.array(parts) / sum(parts)
    for scale in (1e-4, 1.0, 1e3):
        gradients = scale * rng.normal(loc=0.5, size=(4, 3)) * np.array([[0.1], [1.0], [2.0], [10.0]])
        indices = np.array(list(itertools.product(np.repeat(np.arange(4), parts), repeat=batch)))
        found = summary(gradients, indices, (1 / (4 * p))[indices])

        mean = gradients.mean(axis=0)
        uniform = np.mean(np.sum((gradients - mean) ** 2, axis=1))
        weighted = sum(p[i] * np.sum((gradients[i] / (4 * p[i]) - mean) ** 2) for i in range(4))
        norms = np.linalg.norm(gradients, axis=1)
        assert found.effective_batch == pytest.approx(batch * uniform / weighted, rel=1e-9)
        assert found.gain == pytest.approx(math.sqrt(np.mean(norms**2)) / np.mean(norms), rel=1e-9)


@pytest.mark.parametrize("name", ["class", "ras"])
def test_effective_batch_of_a_samplers_draws(name, rng):
    """With inaccurate scores the effective batch and the gain agree with the true variances (|z| < 4)."""
    member = np.arange(200) % 4
    gradients = rng.normal(loc=0.2, size=(200, 5)) * np.array([0.1, 0.3, 1.0, 4.0])[member][:, np.newaxis]
    gradients *= rng.gamma(1.0, size=(200, 1))
    norms = np.linalg.norm(gradients, axis=1)
    sampler = Sampler(name, member, floor=0.2, gate=1.0, seed=3)
    sampler.rescore(norms * rng.uniform(0.3, 3.0, 200))
    p, mean = sampler.probabilities, gradients.mean(axis=0)
    weighted = np.sum(p * np.sum((gradients / (200 * p)[:, np.newaxis] - mean) ** 2, axis=1))
    expected = (
        16 * np.mean(np.sum((gradients - mean) ** 2, axis=1)) / weighted,
        math.sqrt(np.mean(norms**2)) / np.mean(norms),
    )

    found = [summary(gradients, *sampler.draw((1000, 16))) for _ in range(100)]
    for values, true in zip(([f.effective_batch for f in found], [f.gain for f in found]), expected, strict=True):
        z = (np.mean(values) - true) / (np.std(values, ddof=1) / 10)
        assert abs(z) < 4, (values, true)
    assert expected[0] > 16  # importance sampling is better than uniform


def test_proportions_and_weights_are_counted(rng):
    """Proportions, Kish's size and the largest weight equal a plain count, in one call of `add` or several."""
    rhythm = np.array(["normal_sinus", "coarse_vf", "asystole", "coarse_vf", "rapid_vt"])
    indices = rng.integers(0, 4, (7, 6))  # the last never comes
    weights = rng.gamma(0.5, size=(7, 6))
    gradients = rng.normal(size=(5, 2))
    found = summary(gradients, indices, weights, rhythm)

    names = [rhythm[i] for row in indices for i in row]
    assert found.drawn == {name: pytest.approx(names.count(name) / 42) for name in sorted(set(rhythm.tolist()))}
    assert found.drawn["rapid_vt"] == 0.0
    assert sum(found.drawn.values()) == pytest.approx(1.0)
    sizes = [sum(row) ** 2 / sum(w * w for w in row) for row in weights.tolist()]
    assert found.kish == pytest.approx(sum(sizes) / 7)
    assert found.largest_weight == max(max(row) for row in weights.tolist())

    in_parts = Draws(rhythm)
    norms, sums = np.linalg.norm(gradients, axis=1)[indices], squared_sums(gradients, indices, weights)
    for part in (slice(0, 1), slice(1, 5), slice(5, 7)):
        in_parts.add(indices[part], weights[part], norms[part], sums[part])
    again = in_parts.summary()
    assert again.drawn == found.drawn
    assert (again.kish, again.largest_weight) == pytest.approx((found.kish, found.largest_weight))
    assert (again.gain, again.effective_batch) == pytest.approx((found.gain, found.effective_batch))


def test_uniform_draws_have_their_own_batch_size(rng):
    """With weights of 1 Kish's size and the effective batch are the batch size."""
    gradients = rng.normal(size=(30, 4))
    found = summary(gradients, rng.integers(0, 30, (20, 8)), np.ones((20, 8)))
    assert (found.kish, found.largest_weight, found.effective_batch) == (8.0, 1.0, 8.0)
    assert found.gain > 1.0


def test_equal_norms_leave_nothing_to_gain(rng):
    """Gradients of equal norm have a gain of 1 (within 5 %), and weights reduce the effective batch."""
    angle = rng.uniform(0, 2 * np.pi, 50)
    gradients = 3.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    p = rng.gamma(2.0, size=50)
    p /= p.sum()
    indices = rng.choice(50, size=(2000, 8), p=p)
    found = summary(gradients, indices, 1 / (50 * p[indices]))
    assert found.gain == pytest.approx(1.0, abs=0.05)
    assert found.effective_batch < 8
    assert summary(gradients, rng.integers(0, 50, (9, 8)), np.ones((9, 8))).gain == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("gradients", [np.zeros((3, 2)), np.full((3, 2), 0.7)])
def test_gradients_without_variance(gradients):
    """If all gradients are zero or equal, the gain is 1 and the effective batch the batch size."""
    found = summary(gradients, np.array([[0, 1, 2, 0], [2, 2, 1, 0]]), np.ones((2, 4)))
    assert found == DrawSummary({"sinus": 1.0}, 4.0, 1.0, pytest.approx(1.0), pytest.approx(4.0))


@pytest.mark.parametrize("norm", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("squared_sum", [1.0, np.nan, np.inf])
def test_gradients_that_overflowed_have_no_estimate(norm, squared_sum):
    """Values that are not finite give None without a warning; proportions and weights are still counted."""
    draws = Draws(np.array(["a", "b"]))
    draws.add(np.array([[0, 0]]), np.ones((1, 2)), np.ones((1, 2)), np.array([2.0], np.float32))
    draws.add(np.array([[0, 1]]), np.ones((1, 2)), np.array([[1.0, norm]]), np.array([squared_sum], np.float32))
    assert draws.summary() == DrawSummary({"a": 0.75, "b": 0.25}, 2.0, 1.0, None, None)


def test_negative_estimates_of_a_variance_give_none():
    """If the estimate of either variance is negative, there is no effective batch; the rest is still counted."""
    for squared_sum, norms, weights in ((100.0, [1.0, 1.0], [1.0, 1.0]), (14.0, [1.0, 2.0], [2.0, 0.5])):
        draws = Draws(np.array(["a", "b"]))
        draws.add(np.array([[0, 1]]), np.array([weights]), np.array([norms]), np.array([squared_sum]))
        square = np.square(norms)
        mean = (squared_sum - np.sum(np.square(weights) * square)) / 2
        assert min(np.mean(np.array(weights) * square), np.mean(np.square(weights) * square)) < mean
        found = draws.summary()
        assert found.effective_batch is None
        assert found.gain >= 1.0
        assert found.largest_weight == max(weights)


def test_squared_sums_that_overflowed_have_no_estimate():
    """If a sum of gradients is not finite, there is no effective batch."""
    for squared_sum in (np.nan, np.inf):
        draws = Draws(np.array(["a", "b"]))
        draws.add(np.array([[0, 1]]), np.ones((1, 2)), np.ones((1, 2)), np.array([squared_sum], np.float32))
        assert draws.summary().effective_batch is None
