"""Tests of what tuning/results/sampling/race.py makes of the curves: the claims of the race hang on it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[1] / "tuning" / "results" / "sampling" / "race.py"
EPOCHS = 20


@pytest.fixture(scope="module")
def race():
    """Load the script as a module."""
    spec = importlib.util.spec_from_file_location("sampling_race", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def ramp(slope, seeds=4):
    """Return straight curves from 90 %, shape (seeds, epochs)."""
    return np.tile(90.0 + slope * np.arange(1, EPOCHS + 1), (seeds, 1))


def spent(scale=1.0, seeds=4):
    """Return what each epoch has cost so far, shape (seeds, epochs)."""
    return np.tile(scale * np.arange(1.0, EPOCHS + 1), (seeds, 1))


def test_first_reaching_is_the_first_crossing(race):
    """A level is reached on the straight line between two epochs, at the first crossing of several, or never."""
    curve = np.array([np.nan, np.nan, 92.0, 94.0, 91.0, 95.0])
    cost = 10.0 * np.arange(1, 7)
    assert race.first_reaching(curve, cost, 91.0) == 30.0  # nothing is known before the first mean
    assert race.first_reaching(curve, cost, 93.5) == pytest.approx(30 + 10 * 0.75)
    assert race.first_reaching(curve, cost, 94.5) == pytest.approx(50 + 10 * 3.5 / 4)
    assert race.first_reaching(curve, cost, 95.5) == np.inf


def test_twice_the_slope_is_twice_the_speed(race):
    """A straight curve of twice the slope reaches a level in half the epochs, one epoch's lag of the mean apart."""
    level = 93.0
    ups = race.speed_ups(ramp(0.2), ramp(0.4), spent(), spent(), level)
    np.testing.assert_allclose(ups, (3 / 0.2 + 1) / (3 / 0.4 + 1))
    dearer = race.speed_ups(ramp(0.2), ramp(0.4), spent(), spent(2.0), level)
    np.testing.assert_allclose(dearer, ups / 2)


def test_never_reaching_counts_against_the_sampler_and_not_for_it(race):
    """A sampler that never gets there has a speed-up of 0, uniform is taken to do so at its end, and both are equal."""
    np.testing.assert_array_equal(race.speed_ups(ramp(0.4), ramp(0.01), spent(), spent(), 93.0), 0.0)
    ups = race.speed_ups(ramp(0.01), ramp(0.4), spent(), spent(), 93.0)
    np.testing.assert_allclose(ups, EPOCHS / (3 / 0.4 + 1))
    np.testing.assert_array_equal(race.speed_ups(ramp(0.01), ramp(0.02), spent(), spent(), 93.0), 1.0)


def test_interval_holds_the_median_and_narrows_with_agreement(race, rng):
    """The interval contains the median, is a point where all seeds agree, and is repeated exactly."""
    values = rng.gamma(4.0, 0.5, 10)
    median, low, high = race.interval(values)
    assert low <= median == np.median(values) <= high
    assert values.min() <= low < high <= values.max()
    assert race.interval(values) == [median, low, high]
    np.testing.assert_allclose(race.interval(np.full(10, 1.7)), 1.7)


def write(folder, race, run, curve, seconds):
    """Write a run's file with a curve in percent."""
    history = [{"balanced_accuracy": b / 100, "loss": 1 - b / 100, "seconds": seconds} for b in curve]
    (folder / f"{run.name}.json").write_text(json.dumps({"windows": 100, "history": history}))


def test_comparison_counts_evaluations_in_whole_batches(race, tmp_path):
    """Evaluations are ⌈N / batch⌉ whole batches an epoch, the level is uniform's last epochs, and time is separate."""
    small, large = min(race.BATCHES), max(race.BATCHES)
    uniform = race.race_runs("prior", "uniform", (small, 1e-3))
    other = race.race_runs("prior", "ras", (large, 1e-3))
    for run in uniform:
        write(tmp_path, race, run, ramp(0.2)[0], 1.0)
    for run in other:
        write(tmp_path, race, run, ramp(0.4)[0], 3.0)
    line = race.compare(tmp_path, other, uniform)
    last = race.EPOCHS
    final = ramp(0.2)[0, -race.FINAL :].mean()
    steps = (final - 90) / 0.2 + 1, (final - 90) / 0.4 + 1
    epoch = -(-100 // small) * small, -(-100 // large) * large
    level = line["speed_up"][0]
    assert level["level"] == pytest.approx(final)
    assert level["evaluations"][0] == pytest.approx(steps[0] * epoch[0] / (steps[1] * epoch[1]))
    assert level["wall_clock"][0] == pytest.approx(steps[0] / (3 * steps[1]))
    assert line["final_minus_uniform"][0] == pytest.approx(0.2 * (last - 2))
    assert line["best_epoch_minus_uniform"][0] == pytest.approx(0.2 * last)
    assert line["epoch_s"] == pytest.approx(3.0)


@pytest.mark.parametrize("variant", ["floor from 0.5 to 0.02", "within the class alone", "uniform for five epochs"])
def test_other_laws_are_unbiased(race, rng, variant):
    """The laws that the package does not offer weight by the p that drew, whatever they have learned."""
    groups = np.arange(60) % 3
    sampler = race.LAWS[variant](name="ras", groups=groups, floor=0.5, gate=1.0, seed=4)
    for _ in range(8):
        indices, weights = sampler.draw((6, 10))
        sampler.update(indices, rng.gamma(1.0, size=indices.shape) * np.exp(groups[indices]))
    p = sampler.probabilities
    np.testing.assert_allclose(p.sum(), 1.0)
    indices, weights = sampler.draw((6, 10))
    np.testing.assert_allclose(weights, 1 / (60 * p[indices]))
    assert weights.std() > 0.1
    if variant == "within the class alone":
        np.testing.assert_allclose(np.bincount(groups, weights=p), 1 / 3)
    if variant == "floor from 0.5 to 0.02":
        assert sampler.floor == pytest.approx(0.5 * 0.5**4)
