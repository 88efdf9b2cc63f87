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
.. [4] Loshchilov, Hutter, "Online Batch Selection for Faster Training of Neural Networks", arXiv:1511.06343, 2015
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

SAMPLERS = ("uniform", "class", "ras", "obs")
BIASED = ("obs",)  # its batches minimise another objective than the mean loss, and no weight corrects that
DEFAULT_FLOOR = 0.1  # weights stay below 1 / DEFAULT_FLOOR
MIN_FLOOR = 1e-6  # rarer windows fall between the random numbers of a draw
# Ours, since the papers give none. Dropout makes a score noisy, so a new one is averaged with the old;
# a window that is not visited is known less and less, so its score is trusted less than its group's mean.
NEW_SCORE_SHARE = 0.5
HALF_LIFE_EPOCHS = 5.0
GATE = 1.2  # gain below which importance sampling is not worth its noise; between those of [3]
GAIN_HALF_LIFE_EPOCHS = 0.1  # of the moving average of the gain
# How many times likelier "obs" draws the window of the largest score than that of the smallest; from [4], where it
# falls during the training. Ours stays.
PRESSURE = 100.0


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

    Examples
    --------
    >>> gradient_scores(np.zeros(1), np.array([3.0]), np.array([True]), np.ones(1))
    array([1.])
    """
    towards_label = np.where(shockable, logits, -logits).astype(np.float64)
    error = class_weights * np.exp(-np.logaddexp(0.0, towards_label))  # c |q − y| without overflow
    with np.errstate(invalid="ignore"):  # features that overflowed have a score of NaN, which samplers ignore
        return error * np.sqrt(1.0 + squared_norms)


def sampling_distribution(name: str, scores: np.ndarray, groups: np.ndarray, floor: float) -> np.ndarray:
    """Give the probability of each window to be drawn.

    Parameters
    ----------
    name : {"uniform", "class", "ras", "obs"}
        - "uniform": 1/N.
        - "class": a group with probability proportional to its number of windows times the root-mean-square of its
          scores, which is the optimum for windows drawn uniformly inside a group (Gopal 2016).
        - "ras": two levels, first a group with probability proportional to its number of windows times its *mean*
          score, then a window of the group proportional to its score.
        - "obs": falls exponentially with the rank of the score, by a factor of 100 from the largest to the smallest
          (Loshchilov 2016). Equal scores share a rank.

        All of them mixed with the uniform distribution.
    scores : numpy.ndarray
        Estimated norm of each window's gradient, shape (N,), not negative.
    groups : numpy.ndarray
        The group of each window, integers of shape (N,), such as its AHA class.
    floor : float
        The share λ of the uniform distribution in [0, 1]. No weight 1/(N p) exceeds 1/λ, and the second moment of
        the gradient never exceeds 1/λ times that of uniform sampling, however wrong the scores.

    Returns
    -------
    numpy.ndarray
        Probabilities that sum to 1, shape (N,). Uniform where all scores are zero or where one is not finite.

    Notes
    -----
    Where this deviates from RAS (Rojas-Domínguez 2023), of which only the abstract says what its regularisation is:

    - the regularisation is the mixture with the uniform distribution;
    - the group's factor is the mean norm. Gopal's root-mean-square is right only when windows are drawn uniformly
      inside a group; with the mean norm the two levels multiply to p ∝ score, which is the least-variance optimum.
      Groups then matter only for what a `Sampler` believes of windows that it has not visited for long.

    Examples
    --------
    >>> sampling_distribution("ras", np.array([0.0, 3.0]), np.array([0, 1]), floor=0.2)
    array([0.1, 0.9])
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}; allowed are {SAMPLERS}")
    uniform = np.full(scores.size, 1.0 / scores.size)
    if name == "uniform" or not np.isfinite(scores).all() or scores.max() == 0:
        return uniform
    share = scores / scores.max()  # the sum of huge scores would overflow
    if name == "class":
        _, member, size = np.unique(groups, return_inverse=True, return_counts=True)
        share = np.sqrt(np.bincount(member, weights=share**2) / size)[member]
    elif name == "obs":
        _, level, size = np.unique(-share, return_inverse=True, return_counts=True)
        rank = np.cumsum(size) - (size + 1) / 2  # the mean rank of equal scores, the largest first
        share = PRESSURE ** (-rank[level] / scores.size)
    # A group's mean score times its size is the sum of its scores and cancels: both levels of "ras" give p ∝ score.
    return (1.0 - floor) * share / share.sum() + floor * uniform


def gain(name: str, scores: np.ndarray, groups: np.ndarray) -> float:
    """Give how much importance sampling can gain: the root of the second moments' ratio, uniform to the given.

    It is drawn as `sampling_distribution` says, without a floor. The gain τ ≥ 1 is √(mean s²) / mean s for "ras", as in
    [1]_; √(mean s²) over the mean of the groups' root-mean-squares for "class"; 1 for "uniform", and where all scores
    are zero or one is not finite.

    Examples
    --------
    >>> gain("ras", np.array([0.0, 0.0, 0.0, 3.0]), np.array([0, 0, 1, 1]))
    2.0
    """
    p = sampling_distribution(name, scores, groups, floor=0.0)
    if name == "uniform" or not np.isfinite(scores).all() or not np.any(scores):
        return 1.0
    drawn = p > 0  # a window of no gradient adds nothing, however seldom it is drawn
    share = np.asarray(scores, dtype=np.float64)[drawn] / np.max(scores)
    second_moment = np.sum(share**2 / p[drawn]) / len(scores) ** 2
    return max(1.0, float(np.sqrt(np.sum(share**2) / len(scores) / second_moment)))


class Sampler:
    """Draw windows for the next batches, and learn from their scores.

    "uniform" goes through all windows in random order, shuffles again and goes on, so that each window comes once
    in N draws and a batch may hold the end of one round and the start of the next; its weights are 1. Every other
    sampler draws with replacement from `sampling_distribution`. The *gate* keeps it to what "uniform" does while the
    moving average of the gain (`gain`) is under 1.2: as long as all windows are alike there is nothing to choose.
    "obs" has no gate, since it has no gain.

    What is known of a window is the moving root-mean-square of its scores: dropout makes its gradient a random one,
    and the best p is proportional to √E‖g‖². The longer ago its last score, the more the mean of its group counts
    instead, half after five epochs' worth of draws, and the more the next score counts.

    Parameters
    ----------
    name : {"uniform", "class", "ras", "obs"}
        How to draw.
    groups : array_like
        The group of each window, integers of shape (N,), such as its AHA class.
    floor : float
        Share of the uniform distribution, from 1e-6 to 1; weights are at most 1/floor.
    gate : float
        Gain from which on scores count; 1 is always.
    seed : int
        Seed of the sampler's own random numbers.

    Examples
    --------
    >>> sampler = Sampler("ras", groups=[0, 0, 1, 1], floor=0.2, seed=1)
    >>> indices, weights = sampler.draw((3, 2))  # three batches of two
    >>> sampler.update(indices, np.ones((3, 2)))
    """

    def __init__(
        self,
        name: str,
        groups: np.ndarray,
        *,
        floor: float = DEFAULT_FLOOR,
        gate: float = GATE,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.floor = floor
        self.gate = gate
        groups = np.asarray(groups)
        self._p = sampling_distribution(name, np.ones(groups.shape), groups, floor)
        _, self._groups = np.unique(groups, return_inverse=True)
        self._sizes = np.bincount(self._groups)
        self._rng = np.random.default_rng(seed)
        self._scores = np.zeros(self._groups.size)
        self._ages = np.full(self._groups.size, np.inf)  # epochs' worth of draws since the score was learned
        self.gain = 1.0  # moving average of the τ that the scores promise; stays 1 for samplers without a gate
        self._round: np.ndarray = np.empty(0, dtype=np.int64)  # what is left of the current shuffled round

    @property
    def learns(self) -> bool:
        """Whether scores change what is drawn."""
        return self.name != "uniform"

    @property
    def is_open(self) -> bool:
        """Whether scores decide what is drawn now."""
        return self.learns and (self.name in BIASED or self.gain >= self.gate)

    @property
    def probabilities(self) -> np.ndarray:
        """The distribution that the next draw uses, shape (N,)."""
        return self._p.copy() if self.is_open else np.full(self._p.size, 1.0 / self._p.size)

    def draw(self, shape: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Draw windows, all from the distribution that stands now.

        Parameters
        ----------
        shape : int or tuple of int
            The batch size, or (steps, batch size).

        Returns
        -------
        indices : numpy.ndarray of int64
            The windows drawn.
        weights : numpy.ndarray of float64
            1/(N p) of each; a batch's loss is the sum of the weighted losses divided by the batch size, not by the
            sum of the weights, which would be biased. For "obs", 1.
        """
        shape = shape if isinstance(shape, tuple) else (shape,)
        if not self.is_open:
            return self._draw_round(shape), np.ones(shape)
        indices = self._rng.choice(self._p.size, size=shape, p=self._p)
        if self.name in BIASED:
            return indices, np.ones(shape)
        return indices, (1.0 / self._p.size) / self._p[indices]

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Learn the scores of windows that were visited; one may come more than once.

        The square of each visited window's score moves half-way to the mean square of its new scores, or further the
        older it is; all others grow older by these draws. Scores that are not finite are ignored.
        """
        indices, scores = np.ravel(indices), np.ravel(scores)
        known = np.isfinite(scores)
        self._average(indices[known], scores[known], indices.size)
        self._learn(1.0 - 0.5 ** (indices.size / self._scores.size / GAIN_HALF_LIFE_EPOCHS))

    def rescore(self, scores: np.ndarray) -> None:
        """Learn a score of every window, as `update` does, and set the gain to what is then known."""
        known = np.flatnonzero(np.isfinite(scores))
        self._average(known, scores[known], 0)
        self._learn(1.0)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that `restore` needs to go on with the same draws, as NumPy arrays."""
        return {
            "scores": self._scores.copy(),
            "ages": self._ages.copy(),
            "gain": np.array(self.gain),
            "round": self._round.copy(),
            "rng": np.array(json.dumps(self._rng.bit_generator.state)),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state that `state` of a sampler of the same name and windows returned."""
        if state["scores"].shape != self._scores.shape or state["ages"].shape != self._scores.shape:
            raise ValueError(f"the state is of {state['scores'].size} windows; this sampler has {self._scores.size}")
        self._scores, self._ages = state["scores"].copy(), state["ages"].copy()
        self._round = state["round"].copy()
        self._rng.bit_generator.state = json.loads(str(state["rng"]))
        self._learn(0.0)
        self.gain = float(state["gain"])

    def _average(self, indices: np.ndarray, scores: np.ndarray, draws: int) -> None:
        """Average the squares of finite scores with what is known, and let all other windows grow older."""
        size = self._scores.size
        times = np.bincount(indices, minlength=size)
        visited = times > 0
        largest = max(np.max(scores, initial=0.0), self._scores.max()) or 1.0  # its square may overflow
        new = np.bincount(indices, weights=(scores / largest) ** 2, minlength=size) / np.maximum(times, 1)
        old = (self._scores / largest) ** 2
        share = 1.0 - (1.0 - NEW_SCORE_SHARE) * self._trust()
        self._scores = np.where(visited, largest * np.sqrt(old + share * (new - old)), self._scores)
        self._ages = np.where(visited, 0.0, self._ages + draws / size)

    def _trust(self) -> np.ndarray:
        """Return how far each window's own score counts, from 1 for a new one to 0 for one that was never learned."""
        return 0.5 ** (self._ages / HALF_LIFE_EPOCHS)

    def _estimate(self) -> np.ndarray:
        """Return what each window's score is now believed to be: its own, and its group's mean the older it is."""
        largest = self._scores.max() or 1.0  # the sum of huge scores would overflow
        own = self._scores / largest
        group_mean = (np.bincount(self._groups, weights=own) / self._sizes)[self._groups]
        return largest * (group_mean + self._trust() * (own - group_mean))

    def _learn(self, share: float) -> None:
        """Make the distribution of the scores, and move the gain by that share to theirs."""
        estimate = self._estimate()
        self._p = sampling_distribution(self.name, estimate, self._groups, self.floor)
        if self.learns and self.name not in BIASED:
            self.gain += share * (gain(self.name, estimate, self._groups) - self.gain)

    def _draw_round(self, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        while self._round.size < count:
            self._round = np.concatenate([self._round, self._rng.permutation(self._groups.size)])
        indices, self._round = self._round[:count].reshape(shape), self._round[count:]
        return indices
