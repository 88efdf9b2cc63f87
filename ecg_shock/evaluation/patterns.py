"""Patterns for global importance analysis: what is added to a strip, or done to it, at a series of doses.

All patterns are in mV before the filter, at the sampling rate of the recording. Noise is recorded (nstdb), or modelled
as in `ecg_shock.data.noise`. Beats are sums of Gaussians; ventricular beats are drawn for each strip as those of
`ecg_shock.data.synthetic`. Shape, polarity, phase and place are drawn at random, and are equal at all doses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from ecg_shock.data.noise import compressions, draw_noise, mains, read_noise
from ecg_shock.data.synthetic import SQRT_RR, WAVE_AFTER_S, WAVE_BEFORE_S, draw_ectopic
from ecg_shock.data.windows import LabelPolicy, amplitude_mv
from ecg_shock.evaluation.backgrounds import COARSE_VF, QUIET, SINUS, Background, scale_to
from ecg_shock.preprocessing import preprocess_strips

VENTRICULAR, T_WAVES, FAST_T_WAVES = "ventricular 1 mV complexes", "giant T waves", "T waves at 120/min"
OSCILLATION, SCALED = "3–8 Hz oscillation", "scaled rhythm"
NEVER, ALWAYS = (math.inf, math.inf), (-math.inf, -math.inf)  # see `Pattern.right`

# Waves of a beat, as `ecg_shock.data.synthetic.draw_ectopic` describes them. With Q and S, a QRS complex lasts about
# 8.5 times the width of its R wave; a single R wave lasts about 5 times its width.
NARROW = np.array([[-0.1, 1.0, -0.25], [-0.022, 0.0, 0.022], [0.0095, 0.0095, 0.0095], [0.0, 0.0, 0.0]])  # 80 ms
WIDTHS_IN_R = 5.0
T_CENTRE_S, T_WIDTH_S = 0.3, 0.05  # for an RR interval of 1 s
NARROW_T, WIDE_T = 0.25, -0.4  # height of the T wave in mV
FAST_BPM = 120.0
SPIKE_WIDTH_S = 0.003
SPIKE_BPM = 70.0
OSCILLATION_HZ = (3.0, 8.0)
OSCILLATION_MV = 0.5
MAINS_HZ = 50.0


Apply = Callable[[Background, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Pattern:
    """A change of strips at a series of doses.

    Parameters
    ----------
    name : str
        The pattern, such as ``"chest compressions"``.
    dose, unit : str
        What the dose is, such as ``"amplitude"``, and its unit.
    doses : tuple of float
        The doses, in increasing order.
    usual : float
        The dose at which patterns are compared, one of `doses`.
    apply : callable
        Function of a background, a dose and a random generator, which returns the changed strips. It must draw the same
        random numbers at all doses.
    right : mapping of str to (float, float)
        For each kind of background: the dose below which advising a shock is wrong, and the dose from which advising
        no shock is wrong. For a kind that is not listed, no advice is right or wrong.
    needs_beats : bool
        Whether only strips with annotated beats are changed.
    variant_of : str
        Name of the pattern of which this one is a variant. Variants are not combined with others.
    from_zero : bool
        Whether the strip without the pattern is the same as with a dose of 0.
    """

    name: str
    dose: str
    unit: str
    doses: tuple[float, ...]
    usual: float
    apply: Apply
    right: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    needs_beats: bool = False
    variant_of: str = ""
    from_zero: bool = True


def standard_patterns(labels: LabelPolicy | None = None, folder: Path | None = None) -> tuple[Pattern, ...]:
    """Return the patterns that `ecg_shock.explain` tests.

    Parameters
    ----------
    labels : LabelPolicy, optional
        Gives the rate of rapid VT and the amplitude of coarse VF, from which a shock is right.
    folder : pathlib.Path, optional
        Folder of the databases. Without nstdb in it, baseline wander and electrode motion are omitted.
    """
    labels = labels or LabelPolicy()
    vt, vf = labels.rapid_vt_bpm, labels.coarse_vf_mv
    artefact = {SINUS: NEVER, QUIET: NEVER, COARSE_VF: ALWAYS}
    rates = (40.0, 60.0, 80.0, 100.0, 120.0, 140.0, 150.0, 160.0, 180.0, 200.0, 220.0, 240.0, 260.0)
    small = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
    heights = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
    slow = NEVER if vt > FAST_BPM else (0.0, math.inf)
    patterns = [
        Pattern("narrow 1 mV complexes", "rate", "/min", rates, 80.0, _narrow, {QUIET: NEVER}),
        Pattern(VENTRICULAR, "rate", "/min", rates, 80.0, _ventricular, {QUIET: (vt, vt)}),
        Pattern(
            f"1 mV complexes at {FAST_BPM:g}/min",
            "QRS duration",
            "ms",
            (60.0, 80.0, 100.0, 120.0, 140.0, 160.0, 180.0, 200.0, 240.0),
            160.0,
            _by_width,
            {QUIET: slow},
            variant_of=VENTRICULAR,
        ),
        Pattern("PVC", "height", "mV", (0.5, 1.0, 2.0, 3.0, 4.0), 2.0, _pvc, {SINUS: NEVER}),
        Pattern(T_WAVES, "height over that of the QRS", "x QRS", heights, 1.0, _t_waves, {SINUS: NEVER}, True),
        Pattern(
            FAST_T_WAVES,
            "height after 1 mV complexes",
            "mV",
            heights,
            1.0,
            _fast_t_waves,
            {QUIET: slow},
            variant_of=T_WAVES,
        ),
        Pattern(OSCILLATION, "amplitude", "mV", small, 0.3, _oscillation, {SINUS: NEVER, QUIET: (0.0, vf)}),
        Pattern(
            f"oscillation of {OSCILLATION_MV:g} mV",
            "frequency",
            "Hz",
            (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0),
            5.0,
            _by_frequency,
            variant_of=OSCILLATION,
        ),
        Pattern("pacing spikes", "height", "mV", (0.5, 1.0, 2.0, 5.0), 2.0, _spikes, artefact),
        Pattern("chest compressions", "amplitude", "mV", (0.25, 0.5, 1.0, 2.0, 4.0), 1.0, _compressions, artefact),
        Pattern(f"mains hum of {MAINS_HZ:g} Hz", "amplitude", "mV", (0.1, 0.5, 1.0, 2.0), 0.5, _hum, artefact),
    ]
    for record, name in (("bw", "baseline wander"), ("em", "electrode motion")):
        try:
            _read_noise_at(record, 250.0, folder)
        except FileNotFoundError:
            continue
        patterns.append(
            Pattern(name, "amplitude", "mV", (0.25, 0.5, 1.0, 2.0, 4.0), 1.0, _recorded(record, folder), artefact)
        )
    cut = {SINUS: NEVER, COARSE_VF: ALWAYS}
    patterns.append(Pattern("clipping", "range cut off", "%", (20.0, 40.0, 60.0), 40.0, _clip, cut))
    real = {SINUS: NEVER, COARSE_VF: (0.0, vf)}
    patterns.append(Pattern(SCALED, "amplitude", "mV", small, 0.2, _scale, real, variant_of=SCALED, from_zero=False))
    return tuple(patterns)


def add_beats(n: int, fs: float, at_s: np.ndarray, waves: np.ndarray, rr_s: float) -> np.ndarray:
    """Return the sum of beats, shape (n,), mV. Each begins at a whole sample.

    Parameters
    ----------
    n, fs : int, float
        Number of samples, and sampling rate in Hz.
    at_s : numpy.ndarray
        Shape (n_beats,): times of the R peaks in s.
    waves : numpy.ndarray
        Shape (4, n_waves): see `ecg_shock.data.synthetic.draw_ectopic`.
    rr_s : float
        RR interval in s.

    Examples
    --------
    >>> beat = add_beats(250, 250.0, np.array([0.4]), NARROW, 1.0)
    >>> print(beat.argmax() / 250, beat.max().round(1))
    0.4 1.0
    """
    peaks, centres, widths, powers = waves
    stretch = rr_s**powers
    before, after = round(WAVE_BEFORE_S * fs), round(WAVE_AFTER_S * fs)
    from_r_s = np.arange(-before, after)[:, None] / fs
    beat = (peaks * np.exp(-0.5 * ((from_r_s - centres * stretch) / (widths * stretch)) ** 2)).sum(axis=1)
    padded = np.zeros(n + 2 * len(beat))
    for first in np.round(at_s * fs).astype(int) - before + len(beat):
        if 0 <= first <= n + len(beat):
            padded[first : first + len(beat)] += beat
    return padded[len(beat) : len(beat) + n]


def _with_t(qrs: np.ndarray, t_mv: float) -> np.ndarray:
    return np.column_stack([qrs, (t_mv, T_CENTRE_S, T_WIDTH_S, SQRT_RR)])


Draw = Callable[[np.random.Generator], np.ndarray]


def _train(b: Background, rng: np.random.Generator, bpm: float, draw_waves: Draw, mv: float = 1.0) -> np.ndarray:
    """Add regular beats with a random phase and polarity to each strip."""
    n = b.strips.shape[1]
    beats = np.arange(-1, math.ceil(n / b.fs * bpm / 60) + 1)
    changed = b.strips.copy()
    for strip in changed:
        sign, phase = rng.choice([-mv, mv]), rng.random()
        strip += sign * add_beats(n, b.fs, (beats + phase) * 60 / bpm, draw_waves(rng), 60 / bpm)
    return changed


def _narrow(b: Background, bpm: float, rng: np.random.Generator) -> np.ndarray:
    return _train(b, rng, bpm, lambda rng: _with_t(NARROW, NARROW_T))


def _ventricular(b: Background, bpm: float, rng: np.random.Generator) -> np.ndarray:
    return _train(b, rng, bpm, draw_ectopic)


def _by_width(b: Background, ms: float, rng: np.random.Generator) -> np.ndarray:
    r_wave = np.array([[1.0], [0.0], [ms / 1000 / WIDTHS_IN_R], [0.0]])
    return _train(b, rng, FAST_BPM, lambda rng: _with_t(r_wave, WIDE_T))


def _fast_t_waves(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
    return _train(b, rng, FAST_BPM, lambda rng: _with_t(NARROW, mv))


def _spikes(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
    spike = np.array([[1.0], [0.0], [SPIKE_WIDTH_S], [0.0]])
    return _train(b, rng, SPIKE_BPM, lambda rng: spike, mv)


def _pvc(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
    """Add one ventricular beat, in the middle half of the strip."""
    n = b.strips.shape[1]
    changed = b.strips.copy()
    for strip in changed:
        at_s = np.array([rng.uniform(0.25, 0.75) * n / b.fs])
        strip += rng.choice([-mv, mv]) * add_beats(n, b.fs, at_s, draw_ectopic(rng), 1.0)
    return changed


def _t_waves(b: Background, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Add a T wave after each annotated beat; its height is a multiple of the strip's peak-to-peak amplitude."""
    height = ratio * amplitude_mv(preprocess_strips(b.strips, b.fs)) * rng.choice([-1.0, 1.0], len(b.strips))
    wave = np.array([[1.0], [T_CENTRE_S], [T_WIDTH_S], [SQRT_RR]])
    changed = b.strips.copy()
    for strip, beats_s, mv in zip(changed, b.beats_s, height, strict=True):
        strip += mv * add_beats(len(strip), b.fs, beats_s, wave, float(np.median(np.diff(beats_s))))
    return changed


def _oscillate(b: Background, hz: np.ndarray, mv: float, rng: np.random.Generator) -> np.ndarray:
    phase = rng.random((len(b.strips), 1))
    return b.strips + mv / 2 * np.sin(2 * np.pi * (hz * np.arange(b.strips.shape[1]) / b.fs + phase))


def _oscillation(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
    return _oscillate(b, rng.uniform(*OSCILLATION_HZ, (len(b.strips), 1)), mv, rng)


def _by_frequency(b: Background, hz: float, rng: np.random.Generator) -> np.ndarray:
    return _oscillate(b, np.full((len(b.strips), 1), hz), OSCILLATION_MV, rng)


def _compressions(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
    return b.strips + mv * compressions(len(b.strips), b.strips.shape[1], b.fs, rng)


def _hum(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
    if b.fs / 2 <= MAINS_HZ:
        return b.strips  # a recorder's anti-aliasing filter removes it
    return b.strips + mv * mains(len(b.strips), b.strips.shape[1], b.fs, MAINS_HZ, rng)


def _recorded(record: str, folder: Path | None) -> Apply:
    """Return a function that adds recorded noise, which spans the dose from peak to peak in each strip."""

    def add(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
        noise = draw_noise(_read_noise_at(record, b.fs, folder), len(b.strips), b.strips.shape[1], rng)
        noise = noise - np.median(noise, axis=1, keepdims=True)
        return b.strips + mv * noise / np.ptp(noise, axis=1, keepdims=True)

    return add


@lru_cache(maxsize=8)
def _read_noise_at(record: str, fs: float, folder: Path | None) -> np.ndarray:
    return read_noise(record, fs, folder)


def _clip(b: Background, percent: float, rng: np.random.Generator) -> np.ndarray:
    """Clip each strip symmetrically about its median, so that `percent` of its largest deflection is lost."""
    centre = np.median(b.strips, axis=1, keepdims=True)
    limit = (1 - percent / 100) * np.abs(b.strips - centre).max(axis=1, keepdims=True)
    return np.clip(b.strips, centre - limit, centre + limit)


def _scale(b: Background, mv: float, rng: np.random.Generator) -> np.ndarray:
    return scale_to(b.strips, b.fs, mv)
