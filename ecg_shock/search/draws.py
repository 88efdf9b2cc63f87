"""Draw the networks of a search with Keras Tuner."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from threadpoolctl import threadpool_limits

from ecg_shock.models.cnn import CnnSpec
from ecg_shock.search.study import Study

MAX_MISSES = 4000  # draws in a row without a new network

_logger = logging.getLogger(__name__)


def draw_networks(study: Study) -> Iterator[CnnSpec]:
    """Draw the networks of a study, all different; fewer than its trials if no more are found that fit its windows.

    The draws depend only on the space and the seed. Therefore, a search that is continued draws the same networks
    again, and needs no state on disk; more trials only add networks.
    """
    seed = study.search.seed + 1  # Keras Tuner replaces seed 0 by a random one
    oracle = keras_tuner.oracles.RandomSearchOracle(seed=seed, hyperparameters=_space(study), allow_new_entries=False)
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
    if len(drawn) < study.search.trials:
        _logger.warning(
            "the search ends after %d of %d trials, because [space] has no more networks; "
            "set fewer trials, or widen the space",
            len(drawn),
            study.search.trials,
        )


def propose_network(study: Study, known: Mapping[CnnSpec, float]) -> CnnSpec | None:
    """Propose a network by Bayesian optimisation.

    Parameters
    ----------
    study : Study
        Its space and seed.
    known : mapping of CnnSpec to float
        Networks that were drawn before, and their balanced accuracies; those with NaN are only not proposed again.

    Returns
    -------
    CnnSpec or None
        None if the proposal is one of `known`, or does not fit the windows.
    """
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("balanced_accuracy", "max"),
        num_initial_points=1,  # the first networks were drawn at random
        seed=study.search.seed + 1 + len(known),
        hyperparameters=_space(study),
        allow_new_entries=False,
    )
    for number, (spec, balanced_accuracy) in enumerate(known.items()):
        if math.isnan(balanced_accuracy):
            continue
        space = oracle.hyperparameters.copy()
        space.values = study.space.values_of(spec)
        trial = Trial(space, trial_id=str(number), status=TrialStatus.COMPLETED)
        trial.score = balanced_accuracy
        oracle.trials[trial.trial_id] = trial
    # Many small products of matrices: several threads only wait for each other while trainings use the processors.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn, that the fit of the Gaussian process has not converged
        values = oracle.populate_space("")["values"]
    try:
        spec = study.space.spec_from(values, input_samples=study.input_samples)
    except ValueError:
        return None
    return None if spec in known else spec


def _space(study: Study) -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    study.space.declare(space)
    return space
