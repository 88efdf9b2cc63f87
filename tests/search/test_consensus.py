"""The consensus: the medians, the best trials they are taken from, and the choice."""

from __future__ import annotations

import itertools
import random

import pytest

from ecg_shock.models import CnnSpec
from ecg_shock.search.consensus import (
    ConsensusConfig,
    _best_trials,
    _round_to_grid,
    choose,
    find_candidates,
    group_by_setting,
)
from ecg_shock.search.trials import Trial

PUBLISHED_FILTERS, PUBLISHED_KERNELS = (20, 15, 15, 10, 5), (10, 10, 10, 10, 10)


def trial(name: str, bac: float, filters: tuple[int, ...] = (5,), kernels: tuple[int, ...] = (5,), **others) -> Trial:
    """Make a trial with defaults for most values."""
    others = {"loss": 0.1, "parameters": 100, "macs": 1, "learning_rate": 1e-3, "seed": 0, **others}
    return Trial(name=name, filters=filters, kernels=kernels, balanced_accuracy=bac, **others)


def test_median_of_known_tuples():
    """Three trials of two blocks give the middle value of each block."""
    trials = [
        trial("a", 0.99, (5, 50), (100, 20)),
        trial("b", 0.98, (20, 10), (5, 25)),
        trial("c", 0.97, (10, 15), (40, 90)),
    ]
    (found,) = find_candidates(trials, ConsensusConfig(top=3), step=5)
    assert (found.filters, found.kernels) == ((10, 15), (40, 25))
    assert [t.name for t in found.top] == ["a", "b", "c"]


def test_published_network_is_the_median_of_its_neighbours():
    """The median of networks around the published one is that network, with the published number of parameters."""
    shifts = (-5, 0, 5)
    trials = [
        trial(f"{s}", 0.99, tuple(max(5, f + s) for f in PUBLISHED_FILTERS), tuple(k + s for k in PUBLISHED_KERNELS))
        for s in shifts
    ]
    (found,) = find_candidates(trials, ConsensusConfig(), step=5)
    assert (found.filters, found.kernels) == (PUBLISHED_FILTERS, PUBLISHED_KERNELS)
    assert CnnSpec(filters=found.filters, kernels=found.kernels).parameter_count() == 7521


@pytest.mark.parametrize("seed", range(5))
def test_result_lies_inside_the_top_set_and_does_not_depend_on_the_order(seed: int):
    """Each value is on the grid and within the range of the best trials, in any order of the trials."""
    draw = random.Random(seed)
    trials = []
    for index in range(60):
        depth = draw.randint(1, 4)
        filters = tuple(draw.randrange(5, 55, 5) for _ in range(depth))
        kernels = tuple(draw.randrange(5, 105, 5) for _ in range(depth))
        # Few different values, so that ties are common.
        trials.append(trial(f"{index:02d}", draw.choice([0.9, 0.95]), filters, kernels, loss=draw.choice([0.1, 0.2])))
    config = ConsensusConfig(top=6)
    found = find_candidates(trials, config, step=5)
    assert find_candidates(draw.sample(trials, len(trials)), config, step=5) == found
    assert [len(candidate.filters) for candidate in found] == [1, 2, 3, 4]
    for candidate in found:
        assert len(candidate.top) <= 6
        for values, name in ((candidate.filters, "filters"), (candidate.kernels, "kernels")):
            for block, value in enumerate(values):
                among = [getattr(t, name)[block] for t in candidate.top]
                assert min(among) <= value <= max(among)
                assert value % 5 == 0


@pytest.mark.parametrize(("value", "rounded"), [(5, 5), (7.5, 5), (7.6, 10), (12.5, 10), (10, 10), (95, 95)])
def test_half_way_is_rounded_to_the_smaller_network(value: float, rounded: int):
    """The result is the nearest grid point, or the lower of two."""
    assert _round_to_grid(value, 5) == rounded == min(range(5, 105, 5), key=lambda g: (abs(g - value), g))


def test_ties_go_to_lower_loss_then_fewer_parameters():
    """With equal balanced accuracy the loss decides, and with equal loss the number of parameters."""
    trials = [
        trial("many", 0.9, loss=0.2, parameters=200),
        trial("few", 0.9, loss=0.2, parameters=100),
        trial("low", 0.9, loss=0.1, parameters=300),
    ]
    for order in itertools.permutations(trials):
        assert [t.name for t in _best_trials(order, ConsensusConfig(top=2))] == ["low", "few"]


def test_within_takes_all_close_to_the_best():
    """A trial counts that is exactly `within` below the best, and none below that."""
    trials = [trial("a", 0.995), trial("b", 0.994), trial("c", 0.9939), trial("d", 0.995)]
    assert {t.name for t in _best_trials(trials, ConsensusConfig(within=0.001))} == {"a", "b", "d"}


def test_failed_trials_do_not_count():
    """A failed trial does not count, and a depth with failed trials only has no candidate."""
    failed = Trial(
        name="f", filters=(50, 50), kernels=(5, 5), learning_rate=1e-3, seed=0, parameters=1, macs=1, error="died"
    )
    (found,) = find_candidates([trial("a", 0.9, (10,), (20,)), failed], ConsensusConfig(), step=5)
    assert found.filters == (10,)


def test_choice_is_by_mean_over_seeds():
    """The best mean wins over the best single run, and ties go to fewer parameters."""
    runs = [
        trial("lucky", 0.999, (5,), seed=0),
        trial("unlucky", 0.90, (5,), seed=1),
        trial("steady-0", 0.98, (10,), seed=0, parameters=300),
        trial("steady-1", 0.96, (10,), seed=1, parameters=300),
        trial("small-0", 0.97, (15,), seed=0, parameters=200),
        trial("small-1", 0.97, (15,), seed=1, parameters=200),
    ]
    for order in itertools.islice(itertools.permutations(runs), 0, None, 97):
        choice = choose(group_by_setting(order))
        assert (choice.filters, choice.failed) == ((15,), 0)
        assert choice.balanced_accuracy == pytest.approx(0.97)


def test_choice_avoids_settings_with_failed_runs():
    """A setting with a failed run loses against a complete one with a lower mean."""
    runs = [
        trial("fast-0", 0.99, learning_rate=1e-2),
        trial("fast-1", 0.0, learning_rate=1e-2, seed=1, error="diverged"),
        trial("slow-0", 0.9, learning_rate=1e-4),
        trial("slow-1", 0.9, learning_rate=1e-4, seed=1),
    ]
    assert choose(group_by_setting(runs)).learning_rate == 1e-4
    assert choose(group_by_setting(runs[:2])).learning_rate == 1e-2


def test_nothing_to_choose_from():
    """Without any successful run the error says where to look."""
    with pytest.raises(ValueError, match="every retrained network failed"):
        choose(group_by_setting([trial("f", 0.0, error="died")]))
