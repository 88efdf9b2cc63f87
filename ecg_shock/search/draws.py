"""Draw the networks of a search with Keras Tuner."""

from __future__ import annotations

from collections.abc import Iterator

import keras_tuner

from ecg_shock.models.cnn import CnnSpec
from ecg_shock.search.study import Study

MAX_MISSES = 4000  # draws in a row without a new network


def draw_networks(study: Study) -> Iterator[CnnSpec]:
    """Draw the networks of a study, all different; fewer than its trials if no more are found that fit its windows.

    The draws depend only on the space and the seed. Therefore, a search that is continued draws the same networks
    again, and needs no state on disk; more trials only add networks.
    """
    space = keras_tuner.HyperParameters()
    study.space.declare(space)
    seed = study.search.seed + 1  # Keras Tuner replaces seed 0 by a random one
    oracle = keras_tuner.oracles.RandomSearchOracle(seed=seed, hyperparameters=space, allow_new_entries=False)
    drawn: set[CnnSpec] = set()
    misses = 0
    while len(drawn) < study.search.trials and misses < MAX_MISSES:
        misses += 1
        values = oracle.populate_space("")["values"]
        try:
            spec = study.space.spec_from(values, input_samples=study.input_samples)
        except ValueError:
            continue
        if spec not in drawn:
            misses = 0
            drawn.add(spec)
            yield spec
