"""Classical detectors of ventricular fibrillation, as baselines on the same windows and patients as a network.

Each detector is one number of a window; `ecg_shock.evaluation.baselines` learns a threshold for it from training
patients. From all of the papers this deviates in the same ways:

- Windows are filtered by `ecg_shock.preprocessing`, 1 to 30 Hz, and sampled at 125 Hz; no paper's own filter is used.
- Any length from 2 to 10 s is taken. Some features depend on it, so that a threshold holds for one length only.
- No detector of asystole or of QRS complexes comes first, as it does in some of the papers: one feature decides.
- Published thresholds are not used.

Every feature is blind to the amplitude and offset of a window: windows are centred on their mean and divided by their
largest absolute value beforehand. A flat window (all samples equal, whether 0 or not) becomes 0 and gets the value
that is farthest from fibrillation, named below; a window with NaN or infinite samples is refused. A window that is not
flat is classified by its shape, however small it is. Parameters and errors of all features are those of `tci`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import numpy as np

from ecg_shock.preprocessing import FS, MAX_WINDOW_S, MIN_WINDOW_S

Feature = Callable[[np.ndarray], np.ndarray]

SECOND = round(FS)  # samples
CHUNK = 128  # windows at a time: what is computed of them stays small

TCI_LEVEL = 0.2  # Thakor et al. 1990: of the largest value in each second

# Arafat et al. 2011
TCSC_SEGMENT_S = 3.0
TCSC_TAPER_S = 0.25
TCSC_LEVEL = 0.2

# Jekova and Krasteva 2004, at 250 Hz: y[i] = (14 y[i-1] - 7 y[i-2] + (x[i] - x[i-2]) / 2) / 8. These are its poles
# squared, which are those of the same resonance at 125 Hz, and again integers over a power of two.
COUNT_NUMERATOR = (15 / 128, 0.0, -15 / 128)  # for a gain of 1 at the centre
COUNT_DENOMINATOR = (1.0, -168 / 128, 98 / 128)
COUNT_FROM = 1e-6  # of the window's peak: the paper's integers end at 0, where ours go on as rounding errors

MAV_SEGMENT_S = 2.0  # Anas et al. 2010

# Barro et al. 1989, after Amann et al. 2005
SPECTRUM_FROM_HZ = 0.5
PEAK_TO_HZ = 9.0
SPECTRUM_FLOOR = 0.05  # of the peak: what is smaller counts as 0
SPECTRUM_TO_PEAKS = 20.0
A2_BAND_PEAKS = (0.7, 1.4)
ROUNDING_HZ = 1e-9  # what lies on a limit is inside

GRID = 40  # Amann et al. 2005 and 2007: boxes on each side
GRID_EVERY = 2  # samples: 62.5 Hz, where the papers have 50 Hz
PSR_DELAY_S = 0.5  # Amann et al. 2007

# Zhang et al. 1999
NEAR_ZERO = 0.1  # of the positive and of the negative peak
MOST_NEAR_ZERO = 0.4  # of the samples
AWAY_FROM_ZERO = 0.2  # of the peak

TEMPLATE = 2  # samples; Richman and Moorman 2000, as Li et al. 2014
TOLERANCE_SD = 0.2


def _by_window(feature: Feature) -> Feature:
    """Check the windows of a feature, bring them to one scale, and pass them on in chunks."""

    @wraps(feature)
    def of_windows(ecg: np.ndarray) -> np.ndarray:
        windows = _checked(ecg)
        chunks = [feature(_normalised(windows[first : first + CHUNK])) for first in range(0, len(windows), CHUNK)]
        return np.concatenate(chunks) if chunks else np.empty(0)

    return of_windows


def _checked(ecg: np.ndarray) -> np.ndarray:
    windows = np.asarray(ecg)
    if windows.dtype.kind not in "iuf":
        raise TypeError(f"ecg has dtype {windows.dtype}; give real numbers, in mV.")
    shortest, longest = round(MIN_WINDOW_S * FS), round(MAX_WINDOW_S * FS)
    if windows.ndim != 2 or not shortest <= windows.shape[1] <= longest:
        raise ValueError(
            f"ecg has shape {windows.shape}; allowed is (n_windows, n_samples) with {shortest} to {longest} samples, "
            f"which are {MIN_WINDOW_S:g} to {MAX_WINDOW_S:g} s at {FS:g} Hz."
        )
    bad = ~np.isfinite(windows).all(axis=1)
    if bad.any():
        raise ValueError(
            f"window {int(np.argmax(bad))} has NaN or infinite samples ({int(bad.sum())} of {len(windows)} windows "
            "have); leave such windows out."
        )
    return windows


def _normalised(windows: np.ndarray) -> np.ndarray:
    """Scale before the mean is taken too, so that no sum overflows."""
    return _scaled(_centred(_scaled(windows.astype(np.float64))))


def _scaled(rows: np.ndarray) -> np.ndarray:
    return _over(rows, np.abs(rows).max(axis=-1, keepdims=True))


def _over(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """Divide, with another value where the denominator is 0."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, otherwise), where=denominator != 0)


def _centred(rows: np.ndarray) -> np.ndarray:
    """Subtract each row's mean; what is constant becomes exactly 0, which rounding would not give."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    centred[np.ptp(rows, axis=-1) == 0] = 0.0
    return centred


def _seconds(ecg: np.ndarray) -> np.ndarray:
    """Cut rows into whole seconds, shape (n_windows, n_seconds, 125)."""
    count = ecg.shape[1] // SECOND
    return ecg[:, : count * SECOND].reshape(len(ecg), count, SECOND)


def _segments(ecg: np.ndarray, length_s: float) -> np.ndarray:
    """Cut rows into segments that start a second apart, or one if they are shorter: a view, not to be written to."""
    length = min(round(length_s * FS), ecg.shape[1])
    return np.lib.stride_tricks.sliding_window_view(ecg, length, axis=1)[:, ::SECOND]


@_by_window
def tci(ecg: np.ndarray) -> np.ndarray:
    """Measure the threshold crossing interval: the mean time between pulses over a fifth of the peak [1]_.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_windows, n_samples), mV, preprocessed, at 125 Hz; 2 to 10 s.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), ms: short in fibrillation. At most the window's length, which is also a flat window's.

    Raises
    ------
    TypeError
        If `ecg` does not hold real numbers.
    ValueError
        If the shape is not allowed, or a sample is NaN or infinite; the first such window is named.

    Notes
    -----
    Deviations from the paper:

    - The mean over all whole seconds is taken, the first and the last included, where the paper looks at three at a
      time. Where there is no pulse beyond the first or last second to measure to, the pause at that end counts as
      half an interval, its mean when beats are regular.
    - A second without a pulse counts as one interval of the window's length.
    - The end of a window that is no whole second is left out.

    References
    ----------
    .. [1] Thakor, Zhu and Pan, IEEE Trans. Biomed. Eng. 37:837-843, 1990, doi:10.1109/10.55683

    Examples
    --------
    >>> print(tci(np.sin(2 * np.pi * 5 * np.arange(625) / 125)[None]).round(-1))
    [200.]
    """
    seconds = _centred(_seconds(ecg))
    above = seconds > TCI_LEVEL * seconds.max(axis=2, keepdims=True)
    pulses = above[..., 0] + (above[..., 1:] & ~above[..., :-1]).sum(axis=2)
    # What lies between the edges of a second and its first and last pulse, and the same of the seconds around it
    first, last = np.argmax(above, axis=2), np.argmax(above[..., ::-1], axis=2)
    known = pulses > 0
    ahead, behind = _pauses(last, known), _pauses(first[:, ::-1], known[:, ::-1])[:, ::-1]
    intervals = np.where(known, pulses - 1 + _share_of_pause(first, ahead) + _share_of_pause(last, behind), 0.0)
    most_s = ecg.shape[1] / FS
    return (1000 / np.maximum(intervals, 1 / most_s)).mean(axis=1)


def _pauses(tail: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Measure the samples from the last pulse to each second's begin; NaN without any pulse before."""
    pauses = np.empty(tail.shape)
    pause: np.ndarray = np.full(len(tail), np.nan)
    for second in range(tail.shape[1]):
        pauses[:, second] = pause
        pause = np.where(known[:, second], tail[:, second], pause + SECOND)
    return pauses


def _share_of_pause(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Say how much of a pause across the edge of a second lies inside it."""
    return np.where(np.isnan(outside) & (inside > 0), 0.5, _over(inside, inside + np.nan_to_num(outside)))


@_by_window
def tcsc(ecg: np.ndarray) -> np.ndarray:
    """Measure the threshold crossing sample count: the share of samples over a fifth of the peak [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: large in fibrillation, 0 if flat.

    Notes
    -----
    Segments of 3 s, a second apart, have their ends tapered over 0.25 s; the mean over them is taken. Deviations:

    - A window that is shorter is one segment.
    - The paper gives the count in %.

    References
    ----------
    .. [1] Arafat, Chowdhury and Hasan, Signal Image Video Process. 5:1-10, 2011, doi:10.1007/s11760-009-0137-9
    """
    segments = _segments(ecg, TCSC_SEGMENT_S)
    taper = np.ones(segments.shape[2])
    slope = 0.5 - 0.5 * np.cos(np.pi * np.arange(round(TCSC_TAPER_S * FS)) / (TCSC_TAPER_S * FS))
    taper[: len(slope)], taper[-len(slope) :] = slope, slope[::-1]
    size = np.abs(segments * taper)
    return (size > TCSC_LEVEL * size.max(axis=2, keepdims=True)).mean(axis=(1, 2))


@_by_window
def leakage(ecg: np.ndarray) -> np.ndarray:
    """Measure the leakage of the VF filter: what remains when a window is added to itself half a period later [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: 0 for a sine, small in fibrillation, 1 if flat.

    Notes
    -----
    The mean period comes from the mean amplitude over the mean slope, as written out in [2]_. Deviations:

    - The whole window is one segment.
    - Half a period is at most half the window.

    References
    ----------
    .. [1] Kuo and Dillman, Computers in Cardiology, 347-349, 1978
    .. [2] Amann, Tratnig and Unterkofler, Biomed. Eng. Online 4:60, 2005, doi:10.1186/1475-925X-4-60
    """
    size = np.abs(ecg)
    slope = np.abs(np.diff(ecg, axis=1)).sum(axis=1)
    half_period = np.floor(_over(np.pi * size.sum(axis=1), slope) + 0.5)
    half_period = np.clip(half_period, 1, ecg.shape[1] // 2).astype(int)[:, np.newaxis]
    index = np.arange(ecg.shape[1])
    inside = index >= half_period
    earlier = np.take_along_axis(ecg, np.maximum(index - half_period, 0), axis=1)
    remains = np.abs(ecg + earlier, where=inside, out=np.zeros_like(ecg)).sum(axis=1)
    total = np.add(size, np.abs(earlier), where=inside, out=np.zeros_like(ecg)).sum(axis=1)
    return _over(remains, total, otherwise=1.0)


@_by_window
def count2(ecg: np.ndarray) -> np.ndarray:
    """Measure Count2: the share of samples that are over the mean after a narrow band-pass around 14.6 Hz [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the mean over the whole seconds, large in fibrillation, 0 if flat.

    Notes
    -----
    Deviations from the paper:

    - Its filter has integer coefficients for 250 Hz. The poles are squared here, which moves them to 125 Hz exactly:
      y[i] = (168 y[i-1] - 98 y[i-2] + 15 (x[i] - x[i-2])) / 128, with the same centre and decay.
    - Numbers are not rounded to integers; what is below a millionth of the window's peak is not counted.
    - The filter starts from rest at the window's first sample, and rings for some 0.2 s.
    - A share of samples is given, since a count depends on the rate.

    References
    ----------
    .. [1] Jekova and Krasteva, Physiol. Meas. 25:1167-1178, 2004, doi:10.1088/0967-3334/25/5/007
    """
    from scipy.signal import lfilter  # slow to import

    filtered = lfilter(COUNT_NUMERATOR, COUNT_DENOMINATOR, ecg - ecg[:, :1], axis=1)
    size = np.abs(_seconds(filtered))
    return ((size >= size.mean(axis=2, keepdims=True)) & (size > COUNT_FROM)).mean(axis=(1, 2))


@_by_window
def mav(ecg: np.ndarray) -> np.ndarray:
    """Measure the mean absolute value, as a share of the largest [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the mean over segments of 2 s, a second apart; large in fibrillation, 0 if flat.

    Notes
    -----
    Deviation from the paper: it is the first of a sequence of tests there, and the only one here.

    References
    ----------
    .. [1] Anas, Lee and Hasan, Biomed. Eng. Online 9:43, 2010, doi:10.1186/1475-925X-9-43
    """
    size = np.abs(_segments(ecg, MAV_SEGMENT_S))
    return _over(size.mean(axis=2), size.max(axis=2)).mean(axis=1)


@_by_window
def spectral_m(ecg: np.ndarray) -> np.ndarray:
    """Measure the normalised first moment of the spectrum: its mean frequency over that of its peak [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 20: near 1 in fibrillation, where little lies beyond the peak; 20 if flat.

    Notes
    -----
    As described in [2]_: a Hamming window; amplitudes are the sum of the real and the imaginary part, without signs;
    the peak lies between 0.5 and 9 Hz; what is below 5 % of it counts as 0; the spectrum ends at 20 times the peak's
    frequency. Deviation:

    - It also ends at 62.5 Hz, where the paper allows 100 Hz.

    References
    ----------
    .. [1] Barro et al., J. Biomed. Eng. 11:320-328, 1989, doi:10.1016/0141-5425(89)90067-8
    .. [2] Amann, Tratnig and Unterkofler, Biomed. Eng. Online 4:60, 2005, doi:10.1186/1475-925X-4-60
    """
    frequency, amplitude, peak = _spectrum(ecg)
    mean = _over((amplitude * frequency).sum(axis=1), amplitude.sum(axis=1))
    return np.where(mean > 0, mean / peak, SPECTRUM_TO_PEAKS)


@_by_window
def spectral_a2(ecg: np.ndarray) -> np.ndarray:
    """Measure the share of the spectrum that lies around its peak, from 0.7 to 1.4 times the peak's frequency.

    Notes and references are those of `spectral_m`.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: large in fibrillation, 0 if flat.
    """
    frequency, amplitude, peak = _spectrum(ecg)
    low, high = (factor * peak[:, np.newaxis] for factor in A2_BAND_PEAKS)
    around = (frequency >= low - ROUNDING_HZ) & (frequency <= high + ROUNDING_HZ)
    return _over((amplitude * around).sum(axis=1), amplitude.sum(axis=1))


def _spectrum(ecg: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frequencies in Hz, amplitudes of each window, and the frequency in Hz of each peak."""
    length = ecg.shape[1]
    transform = np.fft.rfft(ecg * np.hamming(length), axis=1)
    frequency = np.fft.rfftfreq(length, 1 / FS)
    band = frequency >= SPECTRUM_FROM_HZ - ROUNDING_HZ
    frequency, transform = frequency[band], transform[:, band]
    amplitude = np.abs(transform.real) + np.abs(transform.imag)
    candidates = amplitude[:, frequency <= PEAK_TO_HZ + ROUNDING_HZ]
    peak = frequency[np.argmax(candidates, axis=1)]
    counted = amplitude >= SPECTRUM_FLOOR * candidates.max(axis=1, keepdims=True)
    counted &= frequency <= SPECTRUM_TO_PEAKS * peak[:, np.newaxis] + ROUNDING_HZ
    return frequency, np.where(counted, amplitude, 0.0), peak


@_by_window
def psr(ecg: np.ndarray) -> np.ndarray:
    """Measure how much of the plane a window fills when drawn against itself half a second later [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the share of visited boxes in a grid of 40 by 40, which spans the window's range;
        large in fibrillation, 1/1600 if flat.

    Notes
    -----
    Deviations from the paper:

    - Every second sample is taken, 62.5 Hz, where the paper has 50 Hz; the delay is 31 of them, 0.496 s.
    - More boxes are visited the longer a window is; the paper's are 8 s.

    References
    ----------
    .. [1] Amann, Tratnig and Unterkofler, IEEE Trans. Biomed. Eng. 54:174-177, 2007, doi:10.1109/TBME.2006.880909
    """
    row = _boxes(ecg[:, ::GRID_EVERY])
    delay = round(PSR_DELAY_S * FS / GRID_EVERY)
    return _visited(row[:, delay:], row[:, :-delay])


@_by_window
def hilb(ecg: np.ndarray) -> np.ndarray:
    """Measure how much of the plane a window fills when drawn against its Hilbert transform [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), 0 to 1: the share of visited boxes in a grid of 40 by 40; large in fibrillation, 1/1600 if
        flat.

    Notes
    -----
    Deviations from the paper:

    - Every second sample is taken, 62.5 Hz, where the paper has 50 Hz.
    - Each side of the grid spans the range of its own signal.
    - More boxes are visited the longer a window is; the paper's are 8 s.

    References
    ----------
    .. [1] Amann, Tratnig and Unterkofler, Biomed. Eng. Online 4:60, 2005, doi:10.1186/1475-925X-4-60
    """
    from scipy.signal import hilbert  # slow to import

    transformed = hilbert(ecg, axis=1).imag
    return _visited(_boxes(ecg[:, ::GRID_EVERY]), _boxes(transformed[:, ::GRID_EVERY]))


def _boxes(signal: np.ndarray) -> np.ndarray:
    """Find the boxes that the samples lie in along one side of the grid, 0 to 39."""
    above_lowest = signal - signal.min(axis=1, keepdims=True)
    share = _over(above_lowest, above_lowest.max(axis=1, keepdims=True))
    return np.minimum((GRID * share).astype(int), GRID - 1)


def _visited(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    visited = np.zeros((len(row), GRID * GRID), dtype=bool)
    np.put_along_axis(visited, GRID * row + column, True, axis=1)
    return visited.mean(axis=1)


@_by_window
def complexity(ecg: np.ndarray) -> np.ndarray:
    """Measure the complexity of a window as a sequence of 0 and 1: the words it falls into [1]_, against chance [2]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,): near 1 for chance, larger in fibrillation than in sinus rhythm, and the least, 2 words, if
        flat.

    Notes
    -----
    A sample is 1 from a threshold on, which is 0, or, where 40 % of the samples lie within a tenth of the positive
    and the negative peak, a fifth of the peak on the emptier side. Deviation from the paper: none but those that all
    detectors share.

    References
    ----------
    .. [1] Lempel and Ziv, IEEE Trans. Inf. Theory 22:75-81, 1976, doi:10.1109/TIT.1976.1055501
    .. [2] Zhang et al., IEEE Trans. Biomed. Eng. 46:548-555, 1999, doi:10.1109/10.759055
    """
    length = ecg.shape[1]
    high, low = ecg.max(axis=1, keepdims=True), ecg.min(axis=1, keepdims=True)
    near_above = ((ecg > 0) & (ecg < NEAR_ZERO * high)).sum(axis=1, keepdims=True)
    near_below = ((ecg < 0) & (ecg > NEAR_ZERO * low)).sum(axis=1, keepdims=True)
    away = AWAY_FROM_ZERO * np.where(near_above < near_below, high, low)
    threshold = np.where(near_above + near_below < MOST_NEAR_ZERO * length, 0.0, away)
    words = [_count_words(row.tobytes()) for row in ecg >= threshold]
    return np.array(words) * np.log2(length) / length


def _count_words(text: bytes) -> int:
    """Count the words of the exhaustive history: each the shortest that has not occurred, overlaps allowed."""
    words, start = 0, 0
    while start < len(text):
        words += 1
        place, end = 0, start + 1
        while end <= len(text) and (place := text.find(text[start:end], place, end - 1)) >= 0:
            # Where it occurs, go along as far as both agree; the next sample makes a new word, or occurs later on.
            while end < len(text) and text[place + end - start] == text[end]:
                end += 1
            place, end = place + 1, end + 1
        start = end
    return words


@_by_window
def sample_entropy(ecg: np.ndarray) -> np.ndarray:
    """Measure sample entropy: how seldom what agrees for two samples agrees for the third as well [1]_.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,), natural logarithm: larger in fibrillation than in sinus rhythm [2]_, 0 if flat.

    Notes
    -----
    Two samples agree within 0.2 standard deviations. Where no pair agrees for three samples, one pair is counted, and
    where none agrees for two, the value is the largest that the length allows.

    References
    ----------
    .. [1] Richman and Moorman, Am. J. Physiol. Heart Circ. Physiol. 278:H2039-H2049, 2000,
       doi:10.1152/ajpheart.2000.278.6.H2039
    .. [2] Li, Rajagopalan and Clifford, IEEE Trans. Biomed. Eng. 61:1607-1613, 2014, doi:10.1109/TBME.2013.2275000
    """
    templates = ecg.shape[1] - TEMPLATE
    tolerance = TOLERANCE_SD * ecg.std(axis=1, keepdims=True)
    shorter, longer = np.zeros(len(ecg)), np.zeros(len(ecg))
    for lag in range(1, templates):
        distance = ecg[:, lag:] - ecg[:, :-lag]
        agree = np.abs(distance, out=distance) <= tolerance
        both = agree[:, :-2] & agree[:, 1:-1]
        shorter += np.count_nonzero(both, axis=1)
        longer += np.count_nonzero(both & agree[:, 2:], axis=1)
    pairs = templates * (templates - 1) / 2
    return np.log(np.where(shorter > 0, shorter, pairs) / np.maximum(longer, 1))


@dataclass(frozen=True)
class Detector:
    """A classical detector: one feature, which a threshold turns into advice.

    Parameters
    ----------
    name : str
        As the literature calls it.
    feature : callable
        Takes windows, shape (n_windows, n_samples), and gives shape (n_windows,).
    citation : str
        Where it was published.
    """

    name: str
    feature: Feature
    citation: str


DETECTORS = (
    Detector("TCI", tci, "Thakor et al. 1990, doi:10.1109/10.55683"),
    Detector("TCSC", tcsc, "Arafat et al. 2011, doi:10.1007/s11760-009-0137-9"),
    Detector("leakage", leakage, "Kuo and Dillman 1978; Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("count2", count2, "Jekova and Krasteva 2004, doi:10.1088/0967-3334/25/5/007"),
    Detector("MAV", mav, "Anas et al. 2010, doi:10.1186/1475-925X-9-43"),
    Detector("M", spectral_m, "Barro et al. 1989; Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("A2", spectral_a2, "Barro et al. 1989; Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("PSR", psr, "Amann et al. 2007, doi:10.1109/TBME.2006.880909"),
    Detector("HILB", hilb, "Amann et al. 2005, doi:10.1186/1475-925X-4-60"),
    Detector("complexity", complexity, "Zhang et al. 1999, doi:10.1109/10.759055"),
    Detector("SampEn", sample_entropy, "Richman and Moorman 2000; Li et al. 2014, doi:10.1109/TBME.2013.2275000"),
)
