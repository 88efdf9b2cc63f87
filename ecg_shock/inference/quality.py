"""Find strips that cannot be classified: flat, saturated, noisy or out of range, or with too many missing samples.

A network trained on ECG gives meaningless probabilities for such strips. Each limit below was set between two values:
the most extreme value of clear VF and VT in vfdb, cudb and mitdb (all leads, 2 to 10 s), and the values that the fault
produces. A test checks that all strips of clear VF and VT are usable.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ecg_shock.data.windows import amplitude_mv
from ecg_shock.preprocessing import FS, MAX_MV, hold_invalid

MAX_MISSING = 0.10  # proportion of samples that are NaN or infinite
MAX_RANGE_MV = 50.0  # the largest QRS complexes of the three databases reach 17 mV; a strip in µV reaches hundreds
MIN_RANGE_MV = 0.010  # an attached electrode has more noise; asystole in vfdb spans 0.2 mV
MAX_CONSTANT_S = 1.0  # clear VF repeats one value for at most 0.25 s
COARSE = 8  # samples of this time that are compared first

# A saturated amplifier stays near both ends (rails) of its range. The limits are proportions of samples within 5 % of
# the range from an end.
RAIL_WIDTH = 0.05
MAX_AT_RAILS = 0.55  # VF: at most 0.42; a clipped 1 Hz sine or steps between the rails: 0.6 and more
MIN_AT_EACH_RAIL = 0.10  # a flat line with one spike is near only one end
CLIP_RUN = 3  # this number of successive samples with exactly the highest or lowest value is a clipped peak
MAX_CLIPPED = 0.35  # proportion of samples in clipped peaks; VF: at most 0.21

# In a window of a stream, the filter may still ring from an earlier large artefact, which looks like VF. The limit is
# the range after the filter divided by the range before it; clear VF filtered strip by strip has at most 1.44.
MAX_GROWTH = 4.0

# Smallest noise, as the median peak-to-peak amplitude over the seconds of the filtered strip. Asystole, which is mainly
# noise, has at most 0.114 mV in vfdb.
NOISE_MIN_MV = 0.12
# Noise is steady, while an ECG pauses between QRS complexes. Steadiness is the energy of the slope in blocks of 0.2 s,
# median divided by mean: at least 0.57 in white noise.
NOISE_BLOCK_S = 0.2
NOISE_STEADINESS = 0.5
# Root-mean-square frequency (3 to 40 Hz) and flatness (geometric mean divided by arithmetic mean, 3 to 25 Hz) of the
# spectrum.
# White noise has 19 Hz and 0.57, muscle noise 26 Hz and 0.19, steady VF 6 Hz and 0.04. The VF that is most like noise
# (cudb cu29, 2 s) has 20.1 Hz and 0.43.
NOISE_BAND_HZ = (3.0, 40.0)
FLATNESS_BAND_HZ = (3.0, 25.0)
WHITE_RMS_HZ, WHITE_FLATNESS = 16.5, 0.44
MUSCLE_RMS_HZ = 21.0

# Mains hum after the filter, as a proportion of the power above 1 Hz: at most 0.002 in VF, and 0.999 in hum alone.
ECG_FROM_HZ, MAINS_FROM_HZ = 1.0, 45.0
MAX_MAINS = 0.5

SPECTRUM_FLOOR = 1e-12
ROUNDING = 1e-9  # rounding error of a sum of proportions

# Limits of the measures, in the order of `unusable_reasons`. A strip within all limits is usable; the others are
# checked one by one.
USABLE_LIMITS = np.array([[MAX_MV], [MAX_RANGE_MV], [-MIN_RANGE_MV], [0.0], [0.0], [0.0], [MAX_MAINS], [0.0]])


def unusable_reasons(strips: np.ndarray, fs: float, filtered: np.ndarray) -> np.ndarray:
    """Return, for each strip, why it cannot be classified, or an empty text.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), mV: the strips as recorded; NaN or infinite where invalid.
    fs : float
        Sampling rate of `strips` in Hz.
    filtered : numpy.ndarray
        Shape (n_strips, m), mV: the same strips after `ecg_shock.preprocessing.preprocess_strips`, at 125 Hz.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips,), str: the reasons; empty for a usable strip.

    Examples
    --------
    >>> flat = np.zeros((1, 1250))
    >>> str(unusable_reasons(flat, 250.0, flat[:, ::2])[0])
    'flat: the strip spans 0.000 mV, less than 0.010 mV'
    """
    with np.errstate(over="ignore", invalid="ignore"):  # infinite and huge samples
        low, high = strips.min(axis=1), strips.max(axis=1)
        span = high - low
        rms_hz, mains = _measure_rms_hz_and_mains(filtered)
        noisy = rms_hz > min(WHITE_RMS_HZ, MUSCLE_RMS_HZ)
        if noisy.any():
            noisy[noisy] = _is_noise(filtered[noisy], rms_hz[noisy])
        measures = np.array(
            [
                np.maximum(-low, high),  # NaN if a sample is NaN
                span,
                -span,
                _may_be_saturated(strips, low, high),
                _is_constant(strips, fs),
                filtered.max(axis=1) - filtered.min(axis=1) - MAX_GROWTH * span,
                mains,
                noisy,
            ]
        )
        reasons = [""] * len(strips)
        for i in np.flatnonzero(~(measures <= USABLE_LIMITS).all(axis=0)).tolist():
            reasons[i] = _find_fault(strips[i], fs, filtered[i], float(mains[i]))
            if not reasons[i] and noisy[i]:
                reasons[i] = f"noise: broadband, {rms_hz[i]:.1f} Hz root mean square"
    return np.array(reasons, dtype=str)


def _find_fault(strip: np.ndarray, fs: float, filtered: np.ndarray, mains: float) -> str:
    """Return the first reason why a strip cannot be classified, apart from broadband noise; empty if there is none."""
    finite = np.isfinite(strip)
    missing = float(1.0 - finite.mean())
    if missing > MAX_MISSING:
        return f"missing: {missing:.0%} of the samples are invalid, more than {MAX_MISSING:.0%}"
    low, high = float(strip[finite].min()), float(strip[finite].max())
    span, reach = high - low, max(-low, high)
    if span > MAX_RANGE_MV:
        return f"out of range: the strip spans {span:.0f} mV, more than {MAX_RANGE_MV:g} mV; check the units"
    if reach > MAX_MV:
        return f"out of range: the strip reaches {reach:.0f} mV, more than {MAX_MV:g} mV; check the units"
    if span < MIN_RANGE_MV:
        return f"flat: the strip spans {span:.3f} mV, less than {MIN_RANGE_MV:.3f} mV"
    held = hold_invalid(strip[None])[0]
    if _is_constant(held[None], fs)[0]:
        return f"flat: one value repeats for {MAX_CONSTANT_S:g} s or more"
    near_low = np.count_nonzero(held <= low + RAIL_WIDTH * span) / held.size
    near_high = np.count_nonzero(held >= high - RAIL_WIDTH * span) / held.size
    near_ends = near_low + near_high
    at_rails = near_ends > MAX_AT_RAILS and min(near_low, near_high) > MIN_AT_EACH_RAIL
    if at_rails or (near_ends > MAX_CLIPPED and _measure_clipped(held, low, high) > MAX_CLIPPED):
        return f"saturated: {near_ends:.0%} of the samples are at the ends of the range"
    if filtered.max() - filtered.min() > MAX_GROWTH * span:
        return "noise: the filter still rings from an earlier artefact"
    if mains > MAX_MAINS:
        return f"noise: {mains:.0%} of the power is mains hum"
    return ""


def _compute_proportion(flags: np.ndarray) -> np.ndarray:
    """Return the proportion of true flags in each row."""
    return np.bitwise_count(np.packbits(flags, axis=1)).sum(axis=1, dtype=np.intp) / flags.shape[1]


def _may_be_saturated(strips: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return True for rows that may be saturated, shape (n_strips,), bool; False is certain."""
    low, high = low[:, None], high[:, None]
    margin = RAIL_WIDTH * (high - low)
    near_ends = strips <= low + margin
    near_ends |= strips >= high - margin
    near = _compute_proportion(near_ends)
    found = near > MAX_CLIPPED - ROUNDING
    if found.any():
        some, low, high, margin, near = strips[found], low[found], high[found], margin[found], near[found]
        near_low = _compute_proportion(some <= low + margin)
        at_rails = (near > MAX_AT_RAILS - ROUNDING) & (
            np.minimum(near_low, near - near_low) > MIN_AT_EACH_RAIL - ROUNDING
        )
        found[found] = at_rails | (_compute_proportion((some == low) | (some == high)) > MAX_CLIPPED - ROUNDING)
    return found


def _is_constant(strips: np.ndarray, fs: float) -> np.ndarray:
    """Return True for rows that repeat one value for `MAX_CONSTANT_S` or more, shape (n_strips,), bool."""
    steps = round(MAX_CONSTANT_S * fs)
    # A quick check first: in such a row, at least COARSE samples of a coarser grid are equal.
    coarse = strips[:, :: max(steps // COARSE, 1)]
    found = (coarse[:, 1:] == coarse[:, :-1]).sum(axis=1) >= COARSE - 1
    if found.any():
        equal = strips[found, 1:] == strips[found, :-1]
        counts = np.cumsum(equal, axis=1, dtype=np.int32)
        counts = np.concatenate([np.zeros((len(counts), 1), dtype=np.int32), counts], axis=1)
        found[found] = (counts[:, steps:] - counts[:, :-steps] == steps).any(axis=1)
    return found


def _measure_clipped(strip: np.ndarray, low: float, high: float) -> float:
    """Return the proportion of samples in clipped peaks; see `CLIP_RUN`."""
    proportion = 0.0
    for extreme in (low, high):
        edges = np.flatnonzero(np.diff(strip == extreme, prepend=False, append=False))
        lengths = edges[1::2] - edges[::2]
        proportion += int(lengths[lengths >= CLIP_RUN].sum()) / len(strip)
    return proportion


def _measure_power(filtered: np.ndarray) -> np.ndarray:
    n = filtered.shape[-1]
    spectrum = np.fft.rfft((filtered - filtered.sum(axis=-1, keepdims=True) / n) * _hann(n), axis=-1)
    power = spectrum.real**2
    power += spectrum.imag**2
    power += SPECTRUM_FLOOR
    return power


def _measure_rms_hz_and_mains(filtered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the root-mean-square frequency in Hz and the proportion of mains hum, each of shape (n_strips,)."""
    power, n = _measure_power(filtered), filtered.shape[-1]
    band = _bins(n, *NOISE_BAND_HZ)
    in_band = power[..., band]
    rms_hz = np.sqrt((in_band * _squared_hz(n)[band]).sum(axis=-1) / in_band.sum(axis=-1))
    mains = power[..., _bins(n, MAINS_FROM_HZ, FS)].sum(axis=-1) / power[..., _bins(n, ECG_FROM_HZ, FS)].sum(axis=-1)
    return rms_hz, mains


def _is_noise(filtered: np.ndarray, rms_hz: np.ndarray) -> np.ndarray:
    """Return True for rows that are broadband noise, given their root-mean-square frequency in Hz."""
    like_noise = ((rms_hz > WHITE_RMS_HZ) & (_measure_flatness(filtered) > WHITE_FLATNESS)) | (rms_hz > MUSCLE_RMS_HZ)
    return like_noise & (_measure_steadiness(filtered) > NOISE_STEADINESS) & (amplitude_mv(filtered) > NOISE_MIN_MV)


def _measure_flatness(filtered: np.ndarray) -> np.ndarray:
    power = _measure_power(filtered)[..., _bins(filtered.shape[-1], *FLATNESS_BAND_HZ)]
    return np.exp(np.log(power).mean(axis=-1)) / power.mean(axis=-1)


@lru_cache(maxsize=16)
def _hann(n: int) -> np.ndarray:
    return np.hanning(n)


@lru_cache(maxsize=16)
def _squared_hz(n: int) -> np.ndarray:
    return np.fft.rfftfreq(n, 1 / FS) ** 2


@lru_cache(maxsize=64)
def _bins(n: int, low_hz: float, high_hz: float) -> slice:
    """Return the bins from `low_hz` to below `high_hz` in the spectrum of n samples at 125 Hz."""
    return slice(*np.searchsorted(np.fft.rfftfreq(n, 1 / FS), (low_hz, high_hz)).tolist())


def _measure_steadiness(filtered: np.ndarray) -> np.ndarray:
    """Return the steadiness, see `NOISE_STEADINESS`: 1 for a steady tone, near 0 for spikes."""
    squares = np.diff(filtered, axis=-1) ** 2
    block = round(NOISE_BLOCK_S * FS)
    count = squares.shape[-1] // block
    energy = squares[..., : count * block].reshape(*squares.shape[:-1], count, block).mean(axis=-1)
    return np.median(energy, axis=-1) / (energy.mean(axis=-1) + SPECTRUM_FLOOR)
