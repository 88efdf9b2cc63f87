"""Speed-ups and differences at equal cost, recomputed by hand on curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_shock.search.compare_curves import (
    Curve,
    compare_at_equal_cost,
    cost_to_reach,
    estimate,
    make_bands,
    measure_speed_ups,
)

EPOCHS = 20


def curve(accuracy: np.ndarray, batch: float = 100.0, second: float = 1.0) -> Curve:
    """Return a curve whose epochs have equal costs."""
    epochs = np.arange(1, len(accuracy) + 1)
    return Curve(batch * epochs, second * epochs, accuracy, 1 - accuracy)


def ramp(slope: float, **costs: float) -> Curve:
    """Return a straight curve from 90 %."""
    return curve(0.9 + slope * np.arange(1, EPOCHS + 1), **costs)


def pairs(made: Curve, seeds: int = 4, folds: int = 2) -> dict[tuple[int, int], Curve]:
    """Return the same curve for each fold and seed."""
    return {(fold, seed): made for fold in range(folds) for seed in range(seeds)}


def test_a_level_is_reached_by_the_first_epoch_that_has_it() -> None:
    """Nothing is smoothed or interpolated; a level that is lost again was reached."""
    made = curve(np.array([0.5, 0.93, 0.91, 0.95]))
    assert cost_to_reach(0.92, made, "evaluations") == 200
    assert cost_to_reach(0.93, made, "seconds") == 2
    assert cost_to_reach(0.94, made, "evaluations") == 400
    assert cost_to_reach(0.96, made, "evaluations") == np.inf


def test_twice_the_slope_is_twice_the_speed() -> None:
    """The ratio counts evaluations, and seconds by their own price."""
    curves = {"base": pairs(ramp(0.002)), "steep": pairs(ramp(0.004, second=3.0))}
    evaluations, seconds = measure_speed_ups(curves, [0.9159])
    assert (evaluations.reached, evaluations.base_reached, evaluations.pairs) == (8, 8, 8)
    assert evaluations.ratio is not None
    assert evaluations.ratio.value == 8 / 4
    assert evaluations.ratio.interval == (2.0, 2.0)
    assert seconds.ratio is not None
    assert seconds.ratio.value == pytest.approx(8 / 12)


def test_never_reaching_counts_against_the_variant_and_not_for_it() -> None:
    """A variant that never gets there has a ratio of 0; a base, one to its end; if neither does, there is none."""
    slow, fast = pairs(ramp(0.0005)), pairs(ramp(0.004))

    def ratio(base: dict[tuple[int, int], Curve], variant: dict[tuple[int, int], Curve]) -> float | None:
        found = measure_speed_ups({"base": base, "variant": variant}, [0.93])[0].ratio
        return found.value if found else None

    assert ratio(fast, slow) == 0
    assert ratio(slow, fast) == EPOCHS / 8
    assert ratio(slow, slow) is None
    # One pair of four without a level: the median is of 0 or 1 and of the others.
    assert (
        ratio({(0, 0): ramp(0.0005), **{(0, s): ramp(0.004) for s in (1, 2)}}, {(0, s): ramp(0.004) for s in range(3)})
        == 1
    )


def test_equal_cost_ends_with_the_shorter_training_of_each_pair() -> None:
    """The last and the best epoch are those within the cost of the training that ends first."""
    base = curve(np.array([0.6, 0.9, 0.8]), batch=100, second=1)
    variant = curve(np.array([0.7, 0.85, 0.95, 0.99]), batch=150, second=0.5)
    evaluations, seconds = compare_at_equal_cost({"base": {(0, 5): base}, "v": {(0, 5): variant, (1, 5): variant}})
    assert (evaluations.cost, evaluations.budget, evaluations.pairs) == ("evaluations", 300, 1)
    assert evaluations.last.value == pytest.approx(0.85 - 0.8)
    assert evaluations.best.value == pytest.approx(0.85 - 0.9)
    assert evaluations.last.interval is None
    assert (seconds.cost, seconds.budget) == ("seconds", 2)
    assert seconds.last.value == pytest.approx(0.99 - 0.9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_intervals_hold_seeds_together(values: list[float]) -> None:
    """Folds of a seed are drawn together, so equal folds add no certainty; the interval is within the values."""
    once = estimate({(0, seed): value for seed, value in enumerate(values)}, "mean")
    doubled = estimate({(fold, seed): value for seed, value in enumerate(values) for fold in (0, 1)}, "mean")
    assert once.value == pytest.approx(np.mean(values), abs=1e-12)
    assert once.interval is not None
    assert doubled.interval is not None
    np.testing.assert_allclose(doubled.interval, once.interval, atol=1e-12)
    assert min(values) - 1e-12 <= once.interval[0] <= once.interval[1] <= max(values) + 1e-12


def test_a_missing_training_is_left_out_of_its_seed() -> None:
    """A seed of which one fold is missing keeps its other fold, in the value and in the interval."""
    values = {(0, 1): 0.0, (1, 1): 0.0, (0, 2): 1.0}
    found = estimate(values, "mean")
    assert found.value == pytest.approx(1 / 3)
    assert found.interval == (0.0, 1.0)
    assert estimate(values, "median").value == 0.0


def test_bands_are_quartiles_of_the_epochs_that_all_seeds_have() -> None:
    """Each fold has its band, and patience may end a curve earlier."""
    of_seeds = {(0, seed): curve(np.full(EPOCHS - seed, seed / 10)) for seed in range(5)} | {(1, 0): ramp(0.001)}
    first, second = make_bands({"base": of_seeds})
    assert (first.fold, first.seeds, len(first.median)) == (0, 5, EPOCHS - 4)
    np.testing.assert_allclose([first.low[0], first.median[0], first.high[0]], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(second.median, ramp(0.001).balanced_accuracy)
