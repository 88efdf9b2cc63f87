"""Labelled windows for training: either the same windows in all epochs, or new windows in each epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ecg_shock.models.cnn import CnnSpec


@dataclass(frozen=True, eq=False)
class Views:
    """Windows of a signal that may overlap; the signal is not copied. An index array gives windows, shape (n, samples).

    Parameters
    ----------
    signal : numpy.ndarray of float32
        Shape (n_samples,), mV at 125 Hz, preprocessed.
    start : numpy.ndarray of int64
        First sample of each window, shape (N,).
    samples : int
        Length of the windows.
    """

    signal: np.ndarray
    start: np.ndarray
    samples: int

    @classmethod
    def of(cls, ecg: np.ndarray | Views) -> Views:
        """Return windows of shape (N, samples) as views, or views as they are."""
        if isinstance(ecg, Views):
            return ecg
        return cls(ecg.reshape(-1), np.arange(len(ecg), dtype=np.int64) * ecg.shape[1], ecg.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of windows and samples."""
        return len(self.start), self.samples

    @property
    def ndim(self) -> int:
        """Number of dimensions, as of an array of windows."""
        return 2

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(self.signal, self.samples)[self.start[index]]


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled windows.

    Parameters
    ----------
    ecg : numpy.ndarray of float32, or Views
        Windows in mV at 125 Hz, shape (N, n).
    shockable : numpy.ndarray of bool
        Labels, shape (N,).
    rhythm : numpy.ndarray of str
        Rhythm of each window, such as its AHA class, shape (N,). The history has the proportion of each rhythm.
    groups : numpy.ndarray of int, optional
        Group of each window for the sampler, shape (N,); by default, all windows of a rhythm are one group.
    weights : numpy.ndarray of float, optional
        Factor for each window's loss, in addition to the class weight, shape (N,), above 0; 1 by default.
    targets : numpy.ndarray of float, optional
        The probability of *shockable* that the network learns for each window, shape (N,), 0 to 1; by default, 1 for a
        shockable window and 0 for a nonshockable window.
    per_epoch : int, optional
        The smallest number of windows that are drawn in an epoch; N by default.

    Raises
    ------
    ValueError
        If an array has a wrong shape, type or range, or if a sample is not finite.
    """

    ecg: np.ndarray | Views
    shockable: np.ndarray
    rhythm: np.ndarray
    groups: np.ndarray = None  # type: ignore[assignment]  # never None after __post_init__
    weights: np.ndarray = None  # type: ignore[assignment]  # never None after __post_init__
    targets: np.ndarray = None  # type: ignore[assignment]  # never None after __post_init__
    per_epoch: int = 0  # never 0 after __post_init__

    def __post_init__(self) -> None:
        if not isinstance(self.ecg, Views):
            object.__setattr__(self, "ecg", np.ascontiguousarray(self.ecg, dtype=np.float32))
        object.__setattr__(self, "shockable", np.asarray(self.shockable))
        object.__setattr__(self, "rhythm", np.asarray(self.rhythm, dtype=np.str_))
        groups = np.unique(self.rhythm, return_inverse=True)[1] if self.groups is None else self.groups
        object.__setattr__(self, "groups", np.asarray(groups))
        targets = self.shockable if self.targets is None else self.targets
        object.__setattr__(self, "targets", np.asarray(targets, dtype=np.float32))
        n = len(self.ecg)
        object.__setattr__(self, "per_epoch", self.per_epoch or n)
        weights = np.ones(n) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        object.__setattr__(self, "weights", weights)
        if weights.shape != (n,) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError(f"weights have shape {weights.shape}; give {n} finite weights above 0")
        labels = (self.shockable.shape, self.rhythm.shape, self.groups.shape)
        if self.ecg.ndim != 2 or n == 0 or labels != ((n,),) * 3:
            raise ValueError(
                f"ecg, shockable, rhythm and groups have shapes {self.ecg.shape}, {labels[0]}, {labels[1]} and "
                f"{labels[2]}; ecg must be (N, samples) with at least one window, and the others (N,)"
            )
        if self.targets.shape != (n,) or not ((self.targets >= 0) & (self.targets <= 1)).all():
            raise ValueError(f"targets have shape {self.targets.shape}; give {n} probabilities from 0 to 1")
        if self.shockable.dtype != np.bool_:
            raise ValueError(f"shockable has type {self.shockable.dtype}; it must be bool")
        if not np.issubdtype(self.groups.dtype, np.integer):
            raise ValueError(f"groups has type {self.groups.dtype}; it must be integer")
        if isinstance(self.ecg, Views) and np.isfinite(self.ecg.signal).all():
            return
        bad = np.flatnonzero(~np.isfinite(self.ecg[:]).all(axis=1))
        if bad.size:
            raise ValueError(f"{bad.size} windows have samples that are not finite, first {bad[0]}; exclude them")


class ExampleSource(Protocol):
    """Training windows that are drawn anew for each epoch."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the source, as JSON types."""

    def draw(self, epoch: int) -> Examples:
        """Return the windows of an epoch; epochs are counted from 1.

        A repeated call for an epoch returns the same windows. All epochs have the same number of windows.
        """


class FixedExamples:
    """The same windows in every epoch."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def describe(self) -> dict[str, Any]:
        """Return the number of windows, the number of shockable windows, and a digest."""
        return describe_examples(self._examples)

    def draw(self, epoch: int) -> Examples:
        """Return all windows."""
        return self._examples


def check_subset(name: str, subset: Examples, spec: CnnSpec) -> None:
    """Raise ValueError if a subset has only one class, or if its windows do not fit the network's input."""
    if subset.ecg.shape[1] != spec.input_samples:
        raise ValueError(
            f"the {name} windows have {subset.ecg.shape[1]} samples, but the network takes {spec.input_samples}; "
            "set input_samples to the length of the windows"
        )
    if subset.shockable.all() or not subset.shockable.any():
        missing = "nonshockable" if subset.shockable.all() else "shockable"
        raise ValueError(
            f"the {name} subset has {len(subset.shockable)} windows, but none is {missing}; "
            "choose another split or more databases, so that it has both classes"
        )


def describe_examples(examples: Examples) -> dict[str, Any]:
    """Return the number of windows, the number of shockable windows, and a digest of all arrays that training reads."""
    return {
        "windows": len(examples.ecg),
        "shockable": int(examples.shockable.sum()),
        "sha256": digest(
            *((examples.ecg.signal, examples.ecg.start) if isinstance(examples.ecg, Views) else (examples.ecg,)),
            *(examples.shockable, examples.groups.astype(np.int64), examples.rhythm),
            *([examples.weights] if (examples.weights != 1).any() else []),
            *([examples.targets] if (examples.targets != examples.shockable).any() else []),
        ),
    }


def digest(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of arrays of numbers or names, in this order."""
    sha = hashlib.sha256()
    for array in arrays:
        names = array.dtype.kind == "U"
        sha.update("\n".join(array.tolist()).encode() if names else np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
