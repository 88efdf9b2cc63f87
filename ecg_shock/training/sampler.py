"""Choose the windows of the next batches.

Window i is drawn with probability p_i, and its loss has the weight w_i = 1/(N p_i). For any p > 0 that is fixed before
the draw, the weighted mean of the gradients is an unbiased estimate of the mean gradient. The variance of the estimate
is smallest if p_i is proportional to the norm of the window's gradient. The sampler therefore keeps a *score* of each
window: an estimate of the norm, which a forward pass can compute (`gradient_scores`). An old or wrong score increases
the variance, but causes no bias.

If the windows have very different weights in the objective, uniform draws waste most of a batch on windows that count
little. The *base* of a sampler is then the distribution in proportion to these weights, so that the product of the two
weights of a window is 1. Without weights, the base is uniform.

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
FROM_BASE = ("weighted", "presampled")  # samplers of `Sampler` that need no scores of all windows
BIASED = ("obs",)  # samplers without importance weights, which therefore do not minimise the mean loss
DEFAULT_FLOOR = 0.1  # limits the weights to 1 / DEFAULT_FLOOR
MIN_FLOOR = 1e-6  # smaller probabilities would be lost in the resolution of random numbers
# The papers give no values for the next two. Dropout makes scores noisy, so a new score is averaged with the old one.
# The score of a window that is not drawn becomes outdated, so the mean of its group gradually replaces it.
NEW_SCORE_WEIGHT = 0.5
SCORE_HALF_LIFE_EPOCHS = 5.0
DEFAULT_GATE = 1.2  # smallest gain for importance sampling; between the values of [3]
GAIN_HALF_LIFE_EPOCHS = 0.1  # of the moving average of the gain
# "obs" draws the window with the largest score this many times as often as the window with the smallest score. In [4],
# this factor decreases during the training; here it is constant.
SELECTION_PRESSURE = 100.0
# "presampled" scores this many candidates for each window that it draws, as in the experiments of [3].
CANDIDATES = 3


def gradient_scores(
    logits: np.ndarray, squared_norms: np.ndarray, shockable: np.ndarray, class_weights: np.ndarray
) -> np.ndarray:
    """Return the norm of each window's loss gradient with respect to the last layer.

    With pooled features h and probability q = sigmoid(v·h + b), the gradient of the weighted cross-entropy with respect
    to (v, b) is c (q − y) (h, 1). Its norm, c |q − y| √(1 + ‖h‖²), approximates the norm of the full gradient.

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
    with np.errstate(invalid="ignore"):  # features may overflow; samplers ignore NaN
        return error * np.sqrt(1.0 + squared_norms)


def sampling_distribution(
    name: str, scores: np.ndarray, groups: np.ndarray, floor: float, base: np.ndarray | None = None
) -> np.ndarray:
    """Return the probability with which each window is drawn.

    Parameters
    ----------
    name : {"uniform", "class", "ras", "obs"}
        - "uniform": the probability is 1/N.
        - "class": first a group is drawn, with probability proportional to its number of windows times the root mean
          square of its scores; then a window of the group is drawn uniformly. If windows are drawn uniformly inside
          groups, this is the optimum (Gopal 2016).
        - "ras": first a group is drawn, with probability proportional to its number of windows times its *mean* score;
          then a window of the group is drawn with probability proportional to its score.
        - "obs": the probability decreases exponentially with the rank of the score, by a factor of 100 from the largest
          to the smallest score (Loshchilov 2016). Equal scores have the same rank.

        Each distribution except "uniform" is mixed with the base.
    scores : numpy.ndarray
        Estimated norm of each window's gradient, shape (N,), not negative.
    groups : numpy.ndarray
        The group of each window, integers of shape (N,), such as its AHA class.
    floor : float
        Proportion λ of the base, in [0, 1]. It limits the weights 1/(N p), and the second moment of the gradient, to
        1/λ times those of the base, even if all scores are wrong.
    base : numpy.ndarray, optional
        Probabilities that sum to 1, shape (N,), above 0; uniform if not given.

    Returns
    -------
    numpy.ndarray
        Probabilities that sum to 1, shape (N,). They are those of the base if all scores are zero or any score is not
        finite.

    Notes
    -----
    Deviations of "ras" from RAS (Rojas-Domínguez 2023):

    - Here, the mixture with the base is the regularisation. We know the regularisation of RAS only from the abstract of
      the paper.
    - The probability of a group uses the mean score, not the root mean square. A window's probability is then
      proportional to its score, which gives the smallest variance. Groups only matter for the estimated scores of
      windows that a `Sampler` has not drawn for a long time.

    Examples
    --------
    >>> sampling_distribution("ras", np.array([0.0, 3.0]), np.array([0, 1]), floor=0.2)
    array([0.1, 0.9])
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler is {name!r}; allowed are {SAMPLERS}")
    if base is None or name == "uniform":
        base = np.full(scores.size, 1.0 / scores.size)
    if name == "uniform" or not np.isfinite(scores).all() or scores.max() == 0:
        return base
    relative = scores / scores.max()  # the sum of huge scores would overflow
    if name == "class":
        _, member, size = np.unique(groups, return_inverse=True, return_counts=True)
        relative = np.sqrt(np.bincount(member, weights=relative**2) / size)[member]
    elif name == "obs":
        _, level, size = np.unique(-relative, return_inverse=True, return_counts=True)
        rank = np.cumsum(size) - (size + 1) / 2  # mean rank of equal scores; the largest score comes first
        relative = SELECTION_PRESSURE ** (-rank[level] / scores.size)
    # For "ras", a group's size times its mean score is the sum of its scores, which cancels: p ∝ score remains.
    return (1.0 - floor) * relative / relative.sum() + floor * base


def gain(name: str, scores: np.ndarray, groups: np.ndarray, base: np.ndarray | None = None) -> float:
    """Return the gain τ of a sampler compared with draws from the base.

    τ² is the second moment of the gradient with draws from the base, divided by the second moment with this sampler.
    The sampler draws from `sampling_distribution` without a floor. For scores s and a uniform base, the gain is at
    least 1:

    - "ras": √(mean s²) / mean s, as in [1]_.
    - "class": √(mean s²) divided by the mean of the groups' root mean squares.
    - "uniform": 1.

    The gain is also 1 if all scores are zero or any score is not finite.

    Examples
    --------
    >>> gain("ras", np.array([0.0, 0.0, 0.0, 3.0]), np.array([0, 0, 1, 1]))
    2.0
    """
    p = sampling_distribution(name, scores, groups, floor=0.0)
    if name == "uniform" or not np.isfinite(scores).all() or not np.any(scores):
        return 1.0
    drawn = p > 0  # windows without a gradient add nothing
    relative = np.asarray(scores, dtype=np.float64)[drawn] / np.max(scores)
    second_moment = np.sum(relative**2 / p[drawn]) / len(scores) ** 2
    of_base = np.sum(relative**2) / len(scores)
    if base is not None:
        of_base = np.sum(relative**2 / base[drawn]) / len(scores) ** 2
    return max(1.0, float(np.sqrt(of_base / second_moment)))


class Sampler:
    """Draw windows for the next batches, and update their scores.

    "uniform" draws all N windows in random order, and then shuffles them for the next round. A batch may contain the
    end of one round and the start of the next. All weights are 1. "ras" and "class" draw with replacement from
    `sampling_distribution` if the moving average of the gain (see `gain`) is at least `gate`. Otherwise all windows
    have similar scores, and the draw is from the base: like that of "uniform", or with replacement if the windows have
    weights. "obs" always draws from `sampling_distribution`. "weighted" draws from the base.

    "presampled" [3]_ needs no stored scores. It draws candidates from the base (`draw_candidates`), three for each
    window, and chooses from them in proportion to their new scores (`choose`).

    The sampler stores the moving root mean square of each window's scores, because dropout makes the gradient random,
    and the best p is proportional to √E‖g‖². If a window is not drawn, its score is gradually replaced by the mean of
    its group: by half in five epochs, unless `half_life` says otherwise. The window's next score then has a larger
    weight. If the windows have weights, the mean is that of the scores relative to these, and old scores count less.

    Parameters
    ----------
    name : {"uniform", "weighted", "class", "ras", "presampled", "obs"}
        How to draw, as above and in `sampling_distribution`.
    groups : array_like
        The group of each window, integers of shape (N,), such as its AHA class.
    weights : array_like, optional
        The weight of each window in the objective, shape (N,), above 0, which the base is proportional to; equal if not
        given.
    floor : float
        Proportion of the base, from 1e-6 to 1; weights are at most 1/floor times those of the base.
    gate : float
        Smallest gain at which the scores are used; 1 to use them always.
    half_life : float
        Number of draws, divided by N, after which a score is half-way to the mean of its group.
    seed : int
        Seed of the random numbers.

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
        weights: np.ndarray | None = None,
        floor: float = DEFAULT_FLOOR,
        gate: float = DEFAULT_GATE,
        half_life: float = SCORE_HALF_LIFE_EPOCHS,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.floor = floor
        self.gate = gate
        self._half_life = half_life
        groups = np.asarray(groups)
        # Relative to 1, so that equal weights change nothing, not even by rounding.
        self._weights = np.ones(groups.shape) if weights is None else np.asarray(weights) / np.mean(weights)
        self._base = None if weights is None else self._weights / self._weights.sum()
        self._cumulative = np.cumsum(self._weights)
        _, self._groups = np.unique(groups, return_inverse=True)
        self._p = self._distribution(np.ones(groups.shape))
        self._rng = np.random.default_rng(seed)
        self._scores = np.zeros(self._groups.size)
        self._ages = np.full(self._groups.size, np.inf)  # epochs since the last score (number of draws / N)
        self.gain = 1.0  # moving average of τ; stays 1 for samplers without a gate
        self._round: np.ndarray = np.empty(0, dtype=np.int64)  # rest of the current shuffled round

    @property
    def learns(self) -> bool:
        """Whether this kind of sampler uses scores."""
        return self.name not in ("uniform", *FROM_BASE)

    @property
    def presamples(self) -> bool:
        """Whether this kind of sampler chooses from candidates with `choose`, in place of `draw`."""
        return self.name == "presampled"

    @property
    def is_open(self) -> bool:
        """Whether the next draw uses the stored scores."""
        return self.learns and (self.name in BIASED or self.gain >= self.gate)

    @property
    def probabilities(self) -> np.ndarray:
        """The probabilities of the next draw, shape (N,); of the next candidates, if there are any."""
        if self.is_open:
            return self._p.copy()
        uniform = np.full(self._p.size, 1.0 / self._p.size)
        return uniform if self._base is None or self.name == "uniform" else self._base.copy()

    def draw(self, shape: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Draw windows from the current distribution.

        Parameters
        ----------
        shape : int or tuple of int
            The batch size, or (steps, batch size).

        Returns
        -------
        indices : numpy.ndarray of int64
            The windows drawn.
        weights : numpy.ndarray of float64
            1/(N p) of each window; 1 for "obs". Dividing the sum of a batch's weighted losses by the batch size is
            unbiased; dividing it by the sum of the weights is not.
        """
        shape = shape if isinstance(shape, tuple) else (shape,)
        if not self.is_open and (self._base is None or self.name == "uniform"):
            return self._draw_round(shape), np.ones(shape)
        if not self.is_open:
            indices = self._draw_from_base(shape)
            return indices, 1.0 / self._weights[indices]
        indices = self._rng.choice(self._p.size, size=shape, p=self._p)
        if self.name in BIASED:
            return indices, np.ones(shape)
        return indices, (1.0 / self._p.size) / self._p[indices]

    def draw_candidates(self, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the candidates for a draw of this shape from the base; return them with shape (3 · size,)."""
        return self._draw_from_base((CANDIDATES * int(np.prod(shape)),))

    def choose(
        self, candidates: np.ndarray, scores: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose from candidates, with replacement, in proportion to their scores, and return what `draw` returns.

        The expectation over the candidates and the choice is unbiased for any scores.
        """
        weights = 1.0 / self._weights[candidates]  # of the draw of the candidates: 1/(N p)
        p = sampling_distribution("ras", scores * weights, np.zeros(scores.shape, dtype=int), self.floor)
        chosen = self._rng.choice(candidates.size, size=shape, p=p)
        return candidates[chosen], weights[chosen] / (candidates.size * p[chosen])

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Average the stored scores of drawn windows with new scores. A window may occur more than once in `indices`.

        The square of a stored score moves half-way to the mean square of the new scores, or further if the stored score
        is old. The age of all other scores increases. Scores that are not finite are ignored.
        """
        indices, scores = np.ravel(indices), np.ravel(scores)
        known = np.isfinite(scores)
        self._average_scores(indices[known], scores[known], indices.size)
        self._set_distribution(1.0 - 0.5 ** (indices.size / self._scores.size / GAIN_HALF_LIFE_EPOCHS))

    def rescore(self, scores: np.ndarray) -> None:
        """Average the stored scores of all windows with new scores, as `update` does, and set the gain from them."""
        known = np.flatnonzero(np.isfinite(scores))
        self._average_scores(known, scores[known], 0)
        self._set_distribution(1.0)

    def state(self) -> dict[str, np.ndarray]:
        """Return the state of the sampler as NumPy arrays, for `restore`."""
        return {
            "scores": self._scores.copy(),
            "ages": self._ages.copy(),
            "gain": np.array(self.gain),
            "round": self._round.copy(),
            "rng": np.array(json.dumps(self._rng.bit_generator.state)),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore the state of a sampler with the same name, groups and parameters, and continue its draws.

        Raise ValueError if the state has another number of windows.
        """
        if state["scores"].shape != self._scores.shape or state["ages"].shape != self._scores.shape:
            raise ValueError(
                f"the state has {state['scores'].size} windows, but this sampler has {self._scores.size}; restore the "
                "state of a sampler with the same windows"
            )
        self._scores, self._ages = state["scores"].copy(), state["ages"].copy()
        self._round = state["round"].copy()
        self._rng.bit_generator.state = json.loads(str(state["rng"]))
        self._set_distribution(0.0)
        self.gain = float(state["gain"])

    def _average_scores(self, indices: np.ndarray, scores: np.ndarray, draws: int) -> None:
        """Average the squares of the stored and the new scores, and age all other windows by `draws`."""
        size = self._scores.size
        counts = np.bincount(indices, minlength=size)
        visited = counts > 0
        largest = max(np.max(scores, initial=0.0), self._scores.max()) or 1.0  # its square may overflow
        new = np.bincount(indices, weights=(scores / largest) ** 2, minlength=size) / np.maximum(counts, 1)
        old = (self._scores / largest) ** 2
        new_weight = 1.0 - (1.0 - NEW_SCORE_WEIGHT) * self._score_weights()
        self._scores = np.where(visited, largest * np.sqrt(old + new_weight * (new - old)), self._scores)
        self._ages = np.where(visited, 0.0, self._ages + draws / size)

    def _score_weights(self) -> np.ndarray:
        """Return the weight of each window's own score: 1 for a new score, 0 if the window has no score."""
        return 0.5 ** (self._ages / self._half_life)

    def _estimated_scores(self) -> np.ndarray:
        """Return each window's estimated score: a weighted mean of its own score and its group's mean."""
        largest = self._scores.max() or 1.0  # the sum of huge scores would overflow
        own = self._scores / largest / self._weights  # scores of windows with equal weights
        own_weights = self._score_weights()
        # With weights, most windows are drawn rarely, and old scores would hide what the group has become.
        counted = np.ones(own.shape) if self._base is None else own_weights
        sizes = np.maximum(np.bincount(self._groups, weights=counted), np.finfo(float).tiny)
        group_mean = (np.bincount(self._groups, weights=counted * own) / sizes)[self._groups]
        return largest * self._weights * (group_mean + own_weights * (own - group_mean))

    def _set_distribution(self, gain_weight: float) -> None:
        """Compute p from the scores, and update the moving average of the gain, with weight `gain_weight`."""
        estimate = self._estimated_scores()
        self._p = self._distribution(estimate)
        if self.learns and self.name not in BIASED:
            self.gain += gain_weight * (gain(self.name, estimate, self._groups, self._base) - self.gain)

    def _distribution(self, scores: np.ndarray) -> np.ndarray:
        law = "uniform" if self.name in FROM_BASE else self.name
        return sampling_distribution(law, scores, self._groups, self.floor, self._base)

    def _draw_from_base(self, shape: tuple[int, ...]) -> np.ndarray:
        # As `rng.choice` draws, but without adding up all probabilities again.
        return np.searchsorted(self._cumulative, self._rng.random(shape) * self._cumulative[-1], side="right")

    def _draw_round(self, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        while self._round.size < count:
            self._round = np.concatenate([self._round, self._rng.permutation(self._groups.size)])
        indices, self._round = self._round[:count].reshape(shape), self._round[count:]
        return indices
