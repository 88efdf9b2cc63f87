"""Summarise which windows an epoch drew, and estimate how the sampling changed the variance of the gradient.

The estimates use only values that the training computes in any case. They are unbiased for independent weighted draws;
[1]_ uses them in batches. For B windows drawn, with g the gradient of a window's loss and w its importance weight,

- m₂ = (‖Σ w g‖² − Σ ‖w g‖²) / (B (B − 1)) estimates the squared norm of the mean gradient,
- Σ w ‖g‖² / B − m₂ estimates the variance of one uniform draw, and
- Σ w² ‖g‖² / B − m₂ estimates the variance of one weighted draw.

References
----------
.. [1] Katharopoulos, Fleuret, "Not All Samples Are Created Equal: Deep Learning with Importance Sampling",
   arXiv:1803.00942, 2018
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROUNDING = 1e-9  # a variance below this proportion of the second moment is a rounding error


@dataclass(frozen=True)
class DrawSummary:
    """A summary of the windows that an epoch drew, and of the variance of the gradient.

    Below, w is the importance weight of a window, and ‖g‖ is the norm of its gradient.

    Parameters
    ----------
    drawn : dict of str to float
        Proportion of each rhythm among the windows drawn.
    kish : float
        Kish's effective batch size, (Σw)²/Σw², averaged over the batches.
    largest_weight : float
        Largest importance weight.
    gain : float or None
        τ = √(mean ‖g‖²) / mean ‖g‖ over all windows; importance sampling can reduce the second moment of the gradient
        by τ² at most. None if a value is not finite.
    effective_batch : float or None
        Batch size that uniform sampling would need for the same variance of the mean gradient. None if a value is not
        finite, or if the estimate of a variance happens to be negative.
    """

    drawn: dict[str, float]
    kish: float
    largest_weight: float
    gain: float | None
    effective_batch: float | None


class Draws:
    """Collect the draws of an epoch. `rhythm` has the rhythm of every window that can be drawn, shape (N,)."""

    def __init__(self, rhythm: np.ndarray) -> None:
        self._names, self._codes = np.unique(rhythm, return_inverse=True)
        self._counts = np.zeros(self._names.size)
        self._kish: list[np.ndarray] = []
        self._largest = 0.0
        self._batch = 0
        self._uniform_variance = self._variance = 0.0
        self._first_moment = self._second_moment = 0.0

    def add(self, indices: np.ndarray, weights: np.ndarray, norms: np.ndarray, squared_sums: np.ndarray) -> None:
        """Add batches of at least two windows each.

        `indices`, `weights` (w) and `norms` (‖g‖, without w) have shape (steps, batch); `squared_sums`, ‖Σ w g‖² of
        each batch, has shape (steps,).
        """
        batch = indices.shape[1]
        self._batch = batch
        self._counts += np.bincount(self._codes[indices].ravel(), minlength=self._counts.size)
        self._kish.append(weights.sum(axis=1) ** 2 / np.sum(weights**2, axis=1))
        self._largest = max(self._largest, float(weights.max()))
        with np.errstate(invalid="ignore", over="ignore"):  # features may overflow; `summary` returns None then
            squares = np.square(norms, dtype=np.float64)
            drawn_squares = np.sum(weights**2 * squares, axis=1)
            mean_squared = (squared_sums.astype(np.float64) - drawn_squares) / (batch * (batch - 1))
            self._uniform_variance += float(np.sum(np.mean(weights * squares, axis=1) - mean_squared))
            self._variance += float(np.sum(drawn_squares / batch - mean_squared))
            self._first_moment += float(np.sum(np.mean(weights * norms, axis=1)))
            self._second_moment += float(np.sum(np.mean(weights * squares, axis=1)))

    def summary(self) -> DrawSummary:
        """Return the summary of all batches that were added; there must be at least one."""
        kish = np.concatenate(self._kish)
        moments = (self._first_moment, self._second_moment, self._uniform_variance, self._variance)
        finite = bool(np.isfinite(moments).all())
        gain = ratio = 1.0  # if all gradients are equal or zero
        if finite and self._first_moment:
            gain = max(1.0, float(np.sqrt(self._second_moment * kish.size) / self._first_moment))
        rounding = ROUNDING * self._second_moment
        if finite and max(abs(self._uniform_variance), abs(self._variance)) > rounding:
            ratio = self._uniform_variance / self._variance if self._variance > rounding else np.nan
        known = finite and ratio > 0  # an unbiased estimate of a variance can be negative
        proportions = self._counts / self._counts.sum()
        return DrawSummary(
            drawn=dict(zip(self._names.tolist(), proportions.tolist(), strict=True)),
            kish=float(kish.mean()),
            largest_weight=self._largest,
            gain=gain if finite else None,
            effective_batch=float(self._batch * ratio) if known else None,
        )
