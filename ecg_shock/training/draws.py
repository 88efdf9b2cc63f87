"""What an epoch's draws say about its sampling, in NumPy alone: nothing is computed that training does not need anyway.

The estimates are unbiased for weighted draws that are independent, see [1]_ for their use in batches. With B windows
drawn, g a window's gradient of the objective and w its importance weight,

- m₂ = (‖Σ w g‖² − Σ ‖w g‖²) / (B (B − 1)) estimates the squared norm of the mean gradient,
- Σ w ‖g‖² / B − m₂ the variance that one uniform draw has, and
- Σ w² ‖g‖² / B − m₂ the variance that one draw had.

References
----------
.. [1] Katharopoulos, Fleuret, "Not All Samples Are Created Equal: Deep Learning with Importance Sampling",
   arXiv:1803.00942, 2018
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9  # of the second moment: a variance below that is none


@dataclass(frozen=True)
class DrawSummary:
    """What was drawn in an epoch, and what that did to the variance of the gradient.

    Parameters
    ----------
    drawn : dict of str to float
        Share of each rhythm among the windows drawn.
    kish : float
        Kish's effective size of a batch, (Σw)²/Σw², mean over the batches: what the spread of the weights leaves.
    largest_weight : float
        Largest importance weight.
    gain : float or None
        τ = √(mean ‖g‖²) / mean ‖g‖ over all windows: the root of what importance sampling could gain at most.
    effective_batch : float or None
        The batch that uniform sampling would need for the same variance of the mean gradient. None, like `gain`,
        where a number is not finite, and where chance made an estimate of a variance negative.
    """

    drawn: dict[str, float]
    kish: float
    largest_weight: float
    gain: float | None
    effective_batch: float | None


class Draws:
    """Add up the draws of an epoch, some batches at a time, of windows of which the rhythm of each is given."""

    def __init__(self, rhythm: np.ndarray) -> None:
        self._names, self._codes = np.unique(rhythm, return_inverse=True)
        self._counts = np.zeros(self._names.size)
        self._kish: list[np.ndarray] = []
        self._largest = 0.0
        self._batch = 0
        self._uniform_variance = self._variance = 0.0
        self._first_moment = self._second_moment = 0.0

    def add(self, indices: np.ndarray, weights: np.ndarray, norms: np.ndarray, squared_sums: np.ndarray) -> None:
        """Add some batches of at least two windows.

        `indices`, `weights` w and `norms` ‖g‖, with the class weight and without w, have shape (steps, batch);
        `squared_sums`, ‖Σ w g‖² of each batch, shape (steps,).
        """
        batch = indices.shape[1]
        self._batch = batch
        self._counts += np.bincount(self._codes[indices].ravel(), minlength=self._counts.size)
        self._kish.append(weights.sum(axis=1) ** 2 / np.sum(weights**2, axis=1))
        self._largest = max(self._largest, float(weights.max()))
        with np.errstate(invalid="ignore", over="ignore"):  # of features that overflowed; the summary says None
            squares = np.square(norms, dtype=np.float64)
            drawn_squares = np.sum(weights**2 * squares, axis=1)
            mean_squared = (squared_sums.astype(np.float64) - drawn_squares) / (batch * (batch - 1))
            self._uniform_variance += float(np.sum(np.mean(weights * squares, axis=1) - mean_squared))
            self._variance += float(np.sum(drawn_squares / batch - mean_squared))
            self._first_moment += float(np.sum(np.mean(weights * norms, axis=1)))
            self._second_moment += float(np.sum(np.mean(weights * squares, axis=1)))

    def summary(self) -> DrawSummary:
        """Sum up all batches so far, of which there must be one."""
        kish = np.concatenate(self._kish)
        moments = (self._first_moment, self._second_moment, self._uniform_variance, self._variance)
        finite = bool(np.isfinite(moments).all())
        gain = ratio = 1.0  # equal norms everywhere, or none left, leave nothing to gain
        if finite and self._first_moment:
            gain = max(1.0, float(np.sqrt(self._second_moment * kish.size) / self._first_moment))
        rounding = ROUNDING * self._second_moment
        if finite and max(abs(self._uniform_variance), abs(self._variance)) > rounding:
            ratio = self._uniform_variance / self._variance if self._variance > rounding else np.nan
        known = finite and ratio > 0  # chance may make an unbiased estimate of a variance negative
        shares = self._counts / self._counts.sum()
        return DrawSummary(
            drawn=dict(zip(self._names.tolist(), shares.tolist(), strict=True)),
            kish=float(kish.mean()),
            largest_weight=self._largest,
            gain=gain if finite else None,
            effective_batch=float(self._batch * ratio) if known else None,
        )
