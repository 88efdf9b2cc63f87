"""Which windows the next batches are drawn from, in NumPy alone.

A window i is drawn with probability p_i, and its loss is weighted with w_i = 1/(N p_i), so that the weighted mean of
the gradients is an unbiased estimate of the mean gradient for any p > 0 that was fixed before the draw. Its variance
is least when p_i is proportional to the norm of the window's gradient; for that a *score* of each window is kept, which
the forward pass gives for nothing (`gradient_scores`). An old or wrong score costs variance and never biases.

References
----------
.. [1] Rojas-Domínguez, Valdez, Ornelas-Rodríguez, Carpio, "Improved training of deep convolutional networks via
   minimum-variance regularized adaptive sampling" (RAS), Soft Computing 27:13237, 2023, doi:10.1007/s00500-022-07131-7
.. [2] Gopal, "Adaptive Sampling for SGD by Exploiting Side Information", ICML 2016
.. [3] Katharopoulos, Fleuret, "Not All Samples Are Created Equal: Deep Learning with Importance Sampling",
   arXiv:1803.00942, 2018
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

SAMPLERS = ("uniform", "ras")
DEFAULT_FLOOR = 0.1  # weights stay below 1 / DEFAULT_FLOOR
# Ours, since the papers give none. Dropout makes a score noisy, so a new one is averaged with the old;
# a window that is not visited is known less and less, so its score drifts to its group's mean.
NEW_SCORE_SHARE = 0.5
HALF_LIFE_EPOCHS = 5.0


def gradient_scores(
    logits: np.ndarray, squared_norms: np.ndarray, shockable: np.ndarray, class_weights: np.ndarray
) -> np.ndarray:
    """Give the norm of each window's loss gradient with respect to the last layer.

    With pooled features h and probability q = sigmoid(v·h + b) the gradient of the weighted cross-entropy with respect
    to (v, b) is c (q − y) (h, 1); its norm c |q − y| √(1 + ‖h‖²) is exact and stands in for that of the whole gradient.

    Parameters
    ----------
    logits : numpy.ndarray
        The network's output before the sigmoid.
    squared_norms : numpy.ndarray
        ‖h‖² of the pooled features; same shape.
    shockable : numpy.ndarray of bool
        The label y; same shape.
    class_weights : numpy.ndarray
        The weight c of each window's class in the objective; same shape.

    Returns
    -------
    numpy.ndarray
        Scores, float64, same shape.

    References
    ----------
    .. [1] Katharopoulos, Fleuret, arXiv:1803.00942, 2018

    Examples
    --------
    >>> gradient_scores(np.zeros(1), np.array([3.0]), np.array([True]), np.ones(1))
    array([1.])
    """
    towards_label = np.where(shockable, logits, -logits).astype(np.float64)
    error = np.exp(-np.logaddexp(0.0, towards_label))  # |q − y| without overflow
    with np.errstate(invalid="ignore"):  # features that overflowed have a score of NaN, which samplers pass over
        return class_weights * error * np.sqrt(1.0 + squared_norms)


def sampling_distribution(name: str, scores: np.ndarray, groups: np.ndarray, floor: float) -> np.ndarray:
    """Give the probability of each window to be drawn.

    Parameters
    ----------
    name : {"uniform", "ras"}
        "uniform": 1/N. "ras": two levels, first a group with probability proportional to its number of windows times
        its *mean* score, then a window of the group proportional to its score; mixed with the uniform distribution.
    scores : numpy.ndarray
        Estimated norm of each window's gradient, shape (N,), not negative.
    groups : numpy.ndarray
        The group of each window, shape (N,), such as its AHA class.
    floor : float
        The share λ of the uniform distribution in [0, 1]. No weight 1/(N p) exceeds 1/λ, and the second moment of
        the gradient never exceeds 1/λ times that of uniform sampling, however wrong the scores.

    Returns
    -------
    numpy.ndarray
        Probabilities that sum to 1, shape (N,). Uniform where all scores are zero or where one is not finite.

    Raises
    ------
    ValueError
        If the name is unknown, the floor out of range, there is no window, a shape differs, or a score is negative.

    Notes
    -----
    Where this deviates from RAS [1]_, of which only the abstract says what its regularisation is:

    - the regularisation is the mixture with the uniform distribution;
    - the group's factor is the mean norm. Gopal's root-mean-square [2]_ is right only when windows are drawn uniformly
      inside a group; with the mean norm the two levels multiply to p ∝ score, which is the least-variance optimum.

    References
    ----------
    .. [1] Rojas-Domínguez et al., Soft Computing 27:13237, 2023, doi:10.1007/s00500-022-07131-7
    .. [2] Gopal, "Adaptive Sampling for SGD by Exploiting Side Information", ICML 2016

    Examples
    --------
    >>> sampling_distribution("ras", np.array([0.0, 3.0]), np.array([0, 1]), floor=0.2)
    array([0.1, 0.9])
    """
    scores = np.asarray(scores, dtype=np.float64)
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}; allowed are {SAMPLERS}")
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is {floor!r}; it must be from 0 (scores alone) to 1 (uniform)")
    if scores.ndim != 1 or scores.size == 0 or np.shape(groups) != scores.shape:
        raise ValueError(
            f"scores and groups have shapes {scores.shape} and {np.shape(groups)}; "
            "they must be one-dimensional, equally long and not empty"
        )
    if np.any(scores < 0):
        raise ValueError(f"a score is {scores.min()!r}; norms are not negative")

    uniform = np.full(scores.size, 1.0 / scores.size)
    if name == "uniform" or not np.isfinite(scores).all() or scores.max() == 0:
        return uniform
    # A group's mean score times its size is the sum of its scores and cancels: both levels together give p ∝ score.
    share = scores / scores.max()  # the sum of huge scores would overflow
    return (1.0 - floor) * share / share.sum() + floor * uniform


class Sampler:
    """Draw windows for the next batches, and learn from their scores.

    "uniform" goes through all windows in random order, shuffles again and goes on, so that each window comes once
    in N draws and a batch may hold the end of one round and the start of the next; its weights are 1. Every other
    sampler draws with replacement from `sampling_distribution`.

    Parameters
    ----------
    name : {"uniform", "ras"}
        How to draw.
    groups : array_like
        The group of each window, shape (N,), such as its AHA class.
    floor : float
        Share of the uniform distribution, above 0 and at most 1; weights are at most 1/floor.
    seed : int
        Seed of the sampler's own random numbers.

    Raises
    ------
    ValueError
        If the name is unknown, the floor out of range, or there is no window.

    Examples
    --------
    >>> sampler = Sampler("ras", groups=[0, 0, 1, 1], floor=0.2, seed=1)
    >>> indices, weights = sampler.draw((3, 2))  # three batches of two
    >>> sampler.update(indices, np.ones((3, 2)))
    """

    def __init__(self, name: str, groups: np.ndarray, *, floor: float = DEFAULT_FLOOR, seed: int = 0) -> None:
        if not 0 < floor <= 1:
            raise ValueError(f"floor is {floor!r}; it must be above 0, or windows are never drawn, and at most 1")
        self.name = name
        self.floor = floor
        _, self._groups = np.unique(np.asarray(groups), return_inverse=True)
        self._rng = np.random.default_rng(seed)
        self._scores = np.ones(self._groups.size)
        self._round: np.ndarray = np.empty(0, dtype=np.int64)  # what is left of the current shuffled round
        self._p = sampling_distribution(name, self._scores, self._groups, floor)

    @property
    def learns(self) -> bool:
        """Whether scores change what is drawn."""
        return self.name != "uniform"

    @property
    def probabilities(self) -> np.ndarray:
        """The distribution that the next draw uses, shape (N,)."""
        return self._p.copy()

    def draw(self, shape: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Draw windows, all from the distribution that stands now.

        Parameters
        ----------
        shape : int or tuple of int
            The batch size, or (steps, batch size).

        Returns
        -------
        indices : numpy.ndarray of int64
            The windows drawn, of the shape asked for.
        weights : numpy.ndarray of float64
            1/(N p) of each; a batch's loss is the sum of the weighted losses divided by the batch size, not by the
            sum of the weights, which would be biased.
        """
        if self.name == "uniform":
            count = int(np.prod(shape))
            while self._round.size < count:
                self._round = np.concatenate([self._round, self._rng.permutation(self._groups.size)])
            indices, self._round = self._round[:count].reshape(shape), self._round[count:]
        else:
            indices = self._rng.choice(self._groups.size, size=shape, p=self._p)
        return indices, (1.0 / self._groups.size) / self._p[indices]

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Learn the scores of windows that were visited.

        Each visited window's score moves half-way to the mean of its new scores; the scores of all others drift to
        the mean of their group, half-way in five epochs' worth of draws. Scores that are not finite are passed over.

        Parameters
        ----------
        indices : numpy.ndarray of int
            The windows, any shape; a window may come more than once.
        scores : numpy.ndarray
            Their new scores, same shape.
        """
        size = self._groups.size
        indices, scores = np.ravel(indices), np.ravel(scores)
        known = np.isfinite(scores)
        times = np.bincount(indices[known], minlength=size)
        new = np.bincount(indices[known], weights=scores[known], minlength=size) / np.maximum(times, 1)

        group_mean = (np.bincount(self._groups, weights=self._scores) / np.bincount(self._groups))[self._groups]
        kept = 0.5 ** (indices.size / size / HALF_LIFE_EPOCHS)
        drifted = group_mean + kept * (self._scores - group_mean)
        averaged = self._scores + NEW_SCORE_SHARE * (new - self._scores)
        self._replace_scores(np.where(times > 0, averaged, drifted))

    def rescore(self, scores: np.ndarray) -> None:
        """Replace the scores of all windows.

        Parameters
        ----------
        scores : numpy.ndarray
            Shape (N,).
        """
        self._replace_scores(np.array(scores, dtype=np.float64))

    def state(self) -> dict[str, np.ndarray]:
        """Return all that `restore` needs to go on with the same draws, as NumPy arrays."""
        return {
            "scores": self._scores.copy(),
            "round": self._round.copy(),
            "rng": np.array(json.dumps(self._rng.bit_generator.state)),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state that `state` returned.

        Parameters
        ----------
        state : mapping of str to numpy.ndarray
            The state of a sampler of the same name and the same windows.

        Raises
        ------
        ValueError
            If the state is of another number of windows.
        """
        self._replace_scores(state["scores"].copy())
        self._round = state["round"].copy()
        self._rng.bit_generator.state = json.loads(str(state["rng"]))

    def _replace_scores(self, scores: np.ndarray) -> None:
        self._p = sampling_distribution(self.name, scores, self._groups, self.floor)
        self._scores = scores
