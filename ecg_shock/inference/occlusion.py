"""Explain the advice for one strip: remove each second and each frequency band, and see how the logit changes.

What replaces a part has an effect of its own. A straight line is a pause without beats, which makes a shock less
likely. Noise without beats is like fibrillation, which makes a shock more likely. Therefore each part is replaced in
both ways:

- *removed*: a second becomes the straight line between its neighbours; a band is cut out.
- *randomised*: a second or a band gets random phases. Its power spectrum stays, but its beats and waves are lost. This
  is repeated `DRAWS` times, and the logits are averaged.

The *effect* of a part is the change of the logit that neither of the two replacements explains: the smaller of the two
changes if they have the same sign, and otherwise 0. It is positive if the part is a reason for a shock. Every changed
strip takes the same way as in `predict`: preprocessing, then the network. The rule for unusable strips is not applied.

Effects of several parts do not add up: if all seconds are alike, as in ventricular fibrillation, none of them alone
carries much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ecg_shock.data.noise import line_between_ends, randomise_phases
from ecg_shock.preprocessing import hold_invalid

if TYPE_CHECKING:
    from ecg_shock.inference.advisor import Advisor

BANDS_HZ = ((0.0, 3.0), (3.0, 8.0), (8.0, 15.0), (15.0, math.inf))  # slow waves, fibrillation, mixed, steep QRS
DRAWS = 16
FADE_S = 0.05  # over which the strip passes into its replacement, so that there is no step
MIN_SECOND_S = 0.5  # a shorter rest at the end of the strip belongs to the last second


@dataclass(frozen=True)
class Part:
    """A second or a frequency band of a strip, and its effect on the logit.

    Parameters
    ----------
    kind : {"second", "band"}
        What the part is.
    low, high : float
        Its limits, in seconds from the start of the strip or in Hz; the highest band has no upper limit.
    removed, randomised : float
        The logit of the strip minus the logit without the part, for the two replacements that
        `ecg_shock.inference.occlusion` describes.
    """

    kind: Literal["second", "band"]
    low: float
    high: float
    removed: float
    randomised: float

    @property
    def effect(self) -> float:
        """The smaller of both changes if they have the same sign, else 0; positive for a shock."""
        return shared_effect(self.removed, self.randomised)

    @property
    def name(self) -> str:
        """The limits with their unit, such as ``"0–1 s"``."""
        unit = "s" if self.kind == "second" else "Hz"
        return f"over {self.low:g} {unit}" if math.isinf(self.high) else f"{self.low:g}–{self.high:g} {unit}"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Which seconds and bands of a strip carry the advice.

    Parameters
    ----------
    strip, fs : numpy.ndarray, float
        The strip, shape (n,), mV, with invalid samples replaced by the last valid one; and its sampling rate in Hz.
    logit, threshold_logit : float
        The logit of the strip, and that from which a shock is advised.
    parts : tuple of Part
        The seconds, and then the bands.
    all_removed, all_randomised : float
        The logits of the replacements alone: a straight line instead of the whole strip, and the whole strip with
        random phases. An effect of a part that only leads from `logit` towards one of them can be due to the
        replacement.
    seed : int
        Seed of the random phases.
    """

    strip: np.ndarray
    fs: float
    logit: float
    threshold_logit: float
    parts: tuple[Part, ...]
    all_removed: float
    all_randomised: float
    seed: int = 0

    @property
    def seconds(self) -> tuple[Part, ...]:
        """The seconds, in their order."""
        return tuple(part for part in self.parts if part.kind == "second")

    @property
    def bands(self) -> tuple[Part, ...]:
        """The bands, the lowest first."""
        return tuple(part for part in self.parts if part.kind == "band")

    def without(self, part: Part, replacement: Literal["removed", "randomised"] = "removed") -> np.ndarray:
        """Return the strip without a part, to check the stated effect with `predict_many`.

        Parameters
        ----------
        part : Part
            One of `parts`.
        replacement : {"removed", "randomised"}
            How the part is replaced.

        Returns
        -------
        numpy.ndarray
            Shape (1, n), or (`DRAWS`, n) for ``"randomised"``; mV.

        Raises
        ------
        ValueError
            If the replacement is unknown.
        """
        if replacement not in ("removed", "randomised"):
            raise ValueError(f"replacement is {replacement!r}; allowed are 'removed' and 'randomised'.")
        return _replace(self.strip, self.fs, (part.kind, part.low, part.high), replacement == "randomised", self.seed)


def shared_effect(removed: float, randomised: float) -> float:
    """Return the smaller of two changes if they have the same sign, else 0.

    Examples
    --------
    >>> shared_effect(2.0, 0.5), shared_effect(-2.0, -3.0), shared_effect(2.0, -1.0)
    (0.5, -2.0, 0.0)
    """
    return math.copysign(min(abs(removed), abs(randomised)), removed) if removed * randomised > 0 else 0.0


def explain_strip(advisor: Advisor, strip: np.ndarray, fs: float, *, seed: int = 0) -> Explanation:
    """Measure the effect of each second and each band of a strip on the logit.

    Parameters
    ----------
    advisor : Advisor
        The model.
    strip : numpy.ndarray
        Shape (n,), mV: 2 to 10 s as recorded, NaN where invalid.
    fs : float
        Sampling rate in Hz.
    seed : int
        Seed of the random phases.

    Returns
    -------
    Explanation
        The effects. They do not depend on how the strip is usually judged: a strip may be explained even if it is
        unusable.
    """
    strip = hold_invalid(np.asarray(strip, dtype=np.float64)[None])[0]
    limits = [
        *(("second", low, high) for low, high in _seconds(len(strip) / fs)),
        *(("band", low, high) for low, high in BANDS_HZ if low < fs / 2),
    ]
    rng = np.random.default_rng(seed)
    whole = np.repeat(strip[None], DRAWS, axis=0)
    strips = [strip[None], line_between_ends(strip[None]), randomise_phases(whole, rng)]
    for part in limits:
        strips += [_replace(strip, fs, part, False, seed), _replace(strip, fs, part, True, seed)]
    ends = np.cumsum([len(one) for one in strips])[:-1]
    logits = [float(found.mean()) for found in np.split(advisor.logits(np.concatenate(strips), fs), ends)]
    logit, all_removed, all_randomised, *others = logits
    threshold = advisor.bundle.threshold
    return Explanation(
        strip=strip,
        fs=fs,
        logit=logit,
        threshold_logit=math.log(threshold / (1 - threshold)),
        parts=tuple(
            Part(kind, low, high, logit - removed, logit - randomised)  # type: ignore[arg-type]
            for (kind, low, high), removed, randomised in zip(limits, others[::2], others[1::2], strict=True)
        ),
        all_removed=all_removed,
        all_randomised=all_randomised,
        seed=seed,
    )


def _seconds(length_s: float) -> list[tuple[float, float]]:
    """Return the limits of the seconds of a strip; the last one may be longer or shorter than 1 s."""
    edges = [float(edge) for edge in range(math.floor(length_s - MIN_SECOND_S) + 1)]
    return list(zip(edges, [*edges[1:], round(length_s, 3)], strict=True))


def _replace(strip: np.ndarray, fs: float, part: tuple[str, float, float], randomised: bool, seed: int) -> np.ndarray:
    """Return the strip without a part, shape (1, n), or (`DRAWS`, n) if it is randomised."""
    kind, low, high = part
    rng = np.random.default_rng([seed, kind == "band", round(low)])
    if kind == "band":
        hz = np.fft.rfftfreq(len(strip), 1 / fs)
        inside = (hz >= low) & (hz < high)
        if randomised:
            return randomise_phases(np.repeat(strip[None], DRAWS, axis=0), rng, inside)
        line = line_between_ends(strip[None])
        return np.fft.irfft(np.where(inside, 0.0, np.fft.rfft(strip - line)), len(strip)) + line
    # Around the second, the strip passes into its replacement.
    fade = round(FADE_S * fs)
    first, last = max(round(low * fs) - fade, 0), min(round(high * fs) + fade, len(strip))
    at = np.arange(first, last)
    rises = np.ones(len(at)) if first == 0 else np.minimum((at - first + 0.5) / fade, 1.0)
    falls = np.ones(len(at)) if last == len(strip) else np.minimum((last - at - 0.5) / fade, 1.0)
    weight = np.minimum(rises, falls)
    inside_strip = strip[first:last]
    if randomised:
        fill = randomise_phases(np.repeat(inside_strip[None], DRAWS, axis=0), rng)
    else:
        before, after = np.median(inside_strip[: 2 * fade]), np.median(inside_strip[-2 * fade :])
        before, after = (after if first == 0 else before), (before if last == len(strip) else after)
        fill = np.linspace(before, after, len(at))[None]
    replaced = np.repeat(strip[None], len(fill), axis=0)
    replaced[:, first:last] = (1 - weight) * inside_strip + weight * fill
    return replaced
