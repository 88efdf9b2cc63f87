"""Measure the response of a network to a pattern at all doses, and the interaction of two patterns.

Means are over patients: each patient's mean counts equally. Intervals are from resampled patients, two-sided, 90 %.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ecg_shock.evaluation.backgrounds import Background
from ecg_shock.evaluation.patterns import Pattern

ALPHA = 0.10
RESAMPLES = 2000
MIN_BEATS = 3  # annotated beats in a strip to which T waves are added

# Takes raw strips of shape (n_strips, n) in mV and their sampling rate in Hz; returns the logits, and which are usable.
Network = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Estimate:
    """A mean over patients, and its 90 % interval. The limits are None if they cannot be computed."""

    mean: float
    lower: float | None = None
    upper: float | None = None

    @property
    def complement(self) -> Estimate:
        """The estimate of 1 - p, if this is the estimate of a proportion p."""
        lower, upper = (None if limit is None else 1 - limit for limit in (self.upper, self.lower))
        return Estimate(1 - self.mean, lower, upper)


@dataclass(frozen=True)
class Response:
    """How the network responds to a pattern on one kind of background.

    Parameters
    ----------
    pattern, family, background, dose, unit : str
        The name of the pattern, the name of its family (see `Pattern.variant_of`), the kind of background, the
        quantity that the dose changes, and the unit of the dose.
    patients, strips : int
        The numbers of patients and strips.
    doses : tuple of float
        The doses; the first is 0 and stands for the background without the pattern.
    effect, logit, advised : tuple of Estimate
        For each dose: the change of the logit, the logit, and the proportion of strips with a shock advised. An
        unusable strip is advised no shock.
    unusable : tuple of float
        For each dose, the proportion of unusable strips.
    crossing : Estimate or None
        The lowest dose at which the mean logit crosses the threshold, interpolated; None if it does not. A limit is
        None if the resampled patients have no crossing.
    usual : int
        Index of the usual dose.
    right : tuple of bool or None
        For each dose: whether a shock is the right advice. None if neither advice is wrong.
    from_zero : bool
        Whether the strip without the pattern equals the strip with a dose of 0.
    """

    pattern: str
    family: str
    background: str
    dose: str
    unit: str
    patients: int
    strips: int
    doses: tuple[float, ...]
    effect: tuple[Estimate, ...]
    logit: tuple[Estimate, ...]
    advised: tuple[Estimate, ...]
    unusable: tuple[float, ...]
    crossing: Estimate | None
    usual: int
    right: tuple[bool | None, ...]
    from_zero: bool

    def wrong(self, index: int) -> Estimate | None:
        """Return the proportion of strips with wrong advice at a dose; None where neither advice is wrong."""
        right = self.right[index]
        return None if right is None else self.advised[index].complement if right else self.advised[index]

    @property
    def importance(self) -> Estimate:
        """The change of the logit at the usual dose."""
        return self.effect[self.usual]


@dataclass(frozen=True)
class Interaction:
    """The effect of two patterns together, minus the effects of each alone, at their usual doses."""

    first: str
    second: str
    background: str
    together: Estimate
    interaction: Estimate


def measure_response(
    network: Network, backgrounds: Sequence[Background], pattern: Pattern, threshold: float = 0.0, seed: int = 0
) -> Response | None:
    """Measure the effect of a pattern on strips of one kind, at all its doses.

    Parameters
    ----------
    network : callable
        See `Network`.
    backgrounds : sequence of Background
        Strips of one kind, in groups of one sampling rate.
    pattern : Pattern
        The pattern.
    threshold : float
        Logit from which a shock is advised.
    seed : int
        Seed of the pattern and of the patient bootstrap.

    Returns
    -------
    Response or None
        None if there are no strips, or none with annotated beats for a pattern that needs them.
    """
    groups = _usable_for(backgrounds, pattern)
    if not groups:
        return None
    doses = (0.0, *pattern.doses)
    logits, usable = np.empty((2, sum(len(b.strips) for b in groups), len(doses)))
    for column, dose in enumerate(doses):
        answers = [network(_changed(b, ((pattern, dose),) if dose else (), seed), b.fs) for b in groups]
        logits[:, column], usable[:, column] = (np.concatenate(part) for part in zip(*answers, strict=True))
    patient = np.concatenate([b.patient for b in groups])
    shock = (logits >= threshold) & (usable > 0)
    kind = groups[0].kind
    wrong_below, wrong_from = pattern.right.get(kind, (0.0, np.inf))
    first = 0 if pattern.from_zero else 1
    return Response(
        pattern=pattern.name,
        family=pattern.variant_of or pattern.name,
        background=kind,
        dose=pattern.dose,
        unit=pattern.unit,
        patients=len(set(patient.tolist())),
        strips=len(patient),
        doses=doses,
        effect=_estimate(logits - logits[:, :1], patient, seed),
        logit=_estimate(logits, patient, seed),
        advised=_proportion(shock, patient, seed),
        unusable=tuple((1 - usable.mean(axis=0)).tolist()),
        crossing=_crossing(doses[first:], logits[:, first:] - threshold, patient, seed),
        usual=doses.index(pattern.usual),
        right=tuple(False if dose < wrong_below else True if dose >= wrong_from else None for dose in doses),
        from_zero=pattern.from_zero,
    )


def measure_interaction(
    network: Network, backgrounds: Sequence[Background], first: Pattern, second: Pattern, seed: int = 0
) -> Interaction | None:
    """Measure how far the effect of two patterns together is from the sum of their effects, at their usual doses.

    The parameters are those of `measure_response`. The second pattern is applied to what the first has changed.
    """
    groups = _usable_for(_usable_for(backgrounds, first), second)
    if not groups:
        return None
    one, other = (first, first.usual), (second, second.usual)
    logits = np.stack(
        [
            np.concatenate([network(_changed(b, applied, seed), b.fs)[0] for b in groups])
            for applied in ((), (one,), (other,), (one, other))
        ]
    )
    none, alone, other_alone, both = logits
    patient = np.concatenate([b.patient for b in groups])
    values = np.stack([both - none, (both - other_alone) - (alone - none)], axis=1)
    together, interaction = _estimate(values, patient, seed)
    return Interaction(first.name, second.name, groups[0].kind, together, interaction)


def _usable_for(backgrounds: Sequence[Background], pattern: Pattern) -> list[Background]:
    """Return the strips with annotated beats, if the pattern needs them."""
    if not pattern.needs_beats:
        return [b for b in backgrounds if len(b.strips)]
    chosen = [b.select(np.array([len(beats) >= MIN_BEATS for beats in b.beats_s], dtype=bool)) for b in backgrounds]
    return [b for b in chosen if len(b.strips)]


def _changed(background: Background, applied: Sequence[tuple[Pattern, float]], seed: int) -> np.ndarray:
    """Return strips with patterns; each pattern draws the same random numbers, alone or after another one."""
    for pattern, dose in applied:
        place = f"{pattern.name}/{background.kind}/{background.fs:g}"
        rng = np.random.default_rng([seed, zlib.crc32(place.encode())])
        background = replace(background, strips=pattern.apply(background, dose, rng))
    return background.strips


def _by_patient(values: np.ndarray, patient: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean over patients of each column, and its resamples, shape (`RESAMPLES`, n_columns)."""
    names, index = np.unique(patient, return_inverse=True)
    means = np.zeros((len(names), values.shape[1]))
    np.add.at(means, index, values.astype(float))
    means /= np.bincount(index)[:, None]
    if len(names) == 1:
        return means[0], None
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    return means.mean(axis=0), drawn @ means / len(names)


def _estimate(values: np.ndarray, patient: np.ndarray, seed: int) -> tuple[Estimate, ...]:
    """Estimate the mean of each column, with its interval."""
    mean, resampled = _by_patient(values, patient, seed)
    if resampled is None:
        return tuple(map(Estimate, mean.tolist()))
    limits = np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2], axis=0)
    return tuple(map(Estimate, mean.tolist(), *limits.tolist()))


def _proportion(flags: np.ndarray, patient: np.ndarray, seed: int) -> tuple[Estimate, ...]:
    """Estimate the proportion of true flags in each column. If all flags of a column are equal, there are no limits."""
    return tuple(
        Estimate(found.mean) if column.all() or not column.any() else found
        for found, column in zip(_estimate(flags, patient, seed), flags.T, strict=True)
    )


def _crossing(doses: Sequence[float], above: np.ndarray, patient: np.ndarray, seed: int) -> Estimate | None:
    """Return the lowest dose at which the mean of `above`, shape (n_strips, n_doses), changes its sign."""
    mean, resampled = _by_patient(above, patient, seed)
    at = _first_zero(doses, mean[None])[0]
    if not np.isfinite(at):
        return None
    if resampled is None:
        return Estimate(float(at))
    limits = np.quantile(_first_zero(doses, resampled), [ALPHA / 2, 1 - ALPHA / 2], method="higher")
    lower, upper = (float(limit) if np.isfinite(limit) else None for limit in limits)
    return Estimate(float(at), lower, upper)


def _first_zero(doses: Sequence[float], curves: np.ndarray) -> np.ndarray:
    """Return the interpolated dose at which each row of `curves` first changes its sign; infinite if it never does."""
    x = np.asarray(doses)
    changes = (curves[:, 1:] >= 0) != (curves[:, :-1] >= 0)
    i = changes.argmax(axis=1)
    rows = np.arange(len(curves))
    low, high = curves[rows, i], curves[rows, i + 1]
    found = changes.any(axis=1)
    share = np.divide(low, low - high, out=np.zeros(len(curves)), where=found)
    return np.where(found, x[i] + share * (x[i + 1] - x[i]), np.inf)
