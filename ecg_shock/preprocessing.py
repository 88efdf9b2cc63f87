"""Preprocess ECG samples for the network: resample them to 125 Hz, and filter them with a band-pass.

Every step is causal: a device that filters sample by sample and a training run that filters a whole recording get the
same signal. The steps, in order:

1. An invalid sample (NaN, infinite or beyond 10 V) is replaced by the last valid sample. The value of the first valid
   sample is subtracted from all samples, so that the filters start in their steady state (the band-pass has no gain
   at 0 Hz). After a gap of 1 s or more without a valid sample, the subtracted value is changed, so that the signal
   continues from its last value. Otherwise a step in the signal, for example when an electrode is reattached, would
   ring in the high-pass for two seconds.
2. A linear-phase low-pass resamples the signal to 125 Hz, from any sampling rate between 100 and 2000 Hz. The impulse
   response of the low-pass is the same function of time at every sampling rate. The delay is 40 ms.
3. A Butterworth band-pass filters at 125 Hz, with the same coefficients on every device. A mains notch is optional.
4. Optionally, the result is rounded to the 2.5 µV grid of Krasteva et al. 2020 (doi:10.3390/s20102875).

NumPy computes both filters as convolutions in double precision, the band-pass by FFT. `scipy.signal` is not used,
because its import is slow.

The amplitude is not normalised, because asystole and fine ventricular fibrillation differ in amplitude.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

FS = 125.0  # Hz, the network's sampling rate
FS_RANGE_HZ = (100.0, 2000.0)
MIN_WINDOW_S, MAX_WINDOW_S = 2.0, 10.0  # lengths that can be classified
LENGTH_TOLERANCE_SAMPLES = 0.5  # 720 samples at 360.1 Hz last 1.99944 s, which counts as 2 s
GRID_MV = 0.0025  # Krasteva et al. 2020: 2.5 µV per least significant bit

# The resampler's low-pass is flat up to 38 Hz, attenuates by 60 dB above 82 Hz, and is 80 ms long. Frequencies between
# 38 and 82 Hz alias to 43 Hz and above, where the band-pass removes them.
RESAMPLER_DELAY_SAMPLES = 5  # at 125 Hz: half the length of the low-pass
RESAMPLER_CUTOFF_HZ = 60.0
MAX_HIGH_HZ = 40.0  # where the resampler's pass band ends
RESAMPLER_KAISER_BETA = 5.65  # 60 dB stop band
MAX_UP = 12_500  # the ratio 125 / fs is exact for an fs with two decimals, such as 249.97 Hz, else within 4e-5
NOTCH_Q = 30.0  # 1.7 Hz wide at 50 Hz
REAL_POLE_TOLERANCE = 1e-12  # a smaller imaginary part is a rounding error
FFT_SIZE_STEP = 128  # FFTs are fast at multiples of a power of two
CHUNK_SAMPLES = 2**15  # samples of a stream that are filtered at a time, to save memory
NEGLIGIBLE_RESPONSE = 1e-18  # relative to the start of the impulse response; below double precision

# A sample above 10 V is a fault and counts as invalid. Otherwise the high-pass would ring for seconds, which looks like
# VF. The C code has the same limit.
MAX_MV = 1e4
GAP_S = 1.0  # length of a gap of invalid samples after which the electrode's offset is measured again
WARM_UP_S = 2.0  # mirrored lead-in of a strip; the step response of the 1 Hz high-pass is below 1 % after this time


@dataclass(frozen=True)
class Preprocessing:
    """Parameters of the preprocessing, stored with every model.

    Parameters
    ----------
    low_hz, high_hz : float
        Corner frequencies (-3 dB) of the band-pass in Hz.
    order : int
        Order of the Butterworth low-pass prototype; the band-pass has twice as many poles.
    mains_hz : float or None
        Frequency of the mains notch in Hz, 50 or 60; None for no notch.
    grid : bool
        Whether to round the result to steps of 2.5 µV.

    Raises
    ------
    TypeError
        If `grid` is not a bool.
    ValueError
        If another parameter is out of range.

    Examples
    --------
    >>> Preprocessing(mains_hz=50.0).high_hz
    30.0
    """

    __pydantic_config__ = {"extra": "forbid"}

    low_hz: float = 1.0
    high_hz: float = 30.0
    order: int = 2
    mains_hz: float | None = None
    grid: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.low_hz < self.high_hz <= MAX_HIGH_HZ:
            raise ValueError(
                f"low_hz={self.low_hz!r} and high_hz={self.high_hz!r} are not a pass band; "
                f"choose 0 < low_hz < high_hz <= {MAX_HIGH_HZ:g} Hz."
            )
        if self.order not in (1, 2, 3, 4):
            raise ValueError(f"order={self.order!r} is not allowed; choose 1, 2, 3 or 4.")
        if self.mains_hz not in (None, 50.0, 60.0):
            raise ValueError(f"mains_hz={self.mains_hz!r} is not allowed; choose 50, 60 or None.")
        if not isinstance(self.grid, bool):
            raise TypeError(f"grid={self.grid!r} is not allowed; choose True or False.")

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters for a TOML file. A parameter that is None is omitted."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def sos(self) -> np.ndarray:
        """Second-order sections at 125 Hz, shape (n_sections, 6)."""
        return _design_sections(self)


class Preprocessor:
    """Preprocess a stream in pieces of any length.

    Except for rounding, the result does not depend on the lengths of the pieces.

    Parameters
    ----------
    preprocessing : Preprocessing
        The parameters.
    fs : float
        Sampling rate of the stream in Hz, 100 to 2000.

    Raises
    ------
    TypeError
        If `fs` is not a number.
    ValueError
        If `fs` is out of range.

    Examples
    --------
    >>> stream = Preprocessor(Preprocessing(), fs=250.0)
    >>> whole = np.sin(np.arange(1000) / 10)
    >>> pieces = [stream.process(piece) for piece in (whole[:123], whole[123:])]
    >>> np.allclose(np.concatenate(pieces), preprocess(whole, 250.0), rtol=0, atol=1e-12)
    True
    """

    def __init__(self, preprocessing: Preprocessing, fs: float) -> None:
        self.preprocessing = preprocessing
        self._up, self._down = rate_ratio(fs)
        self._gap_samples = math.ceil(GAP_S * fs)
        self._invalid_run = self._gap_samples  # consecutive invalid samples so far; a stream starts as after a gap
        self._offset = 0.0
        self._last_valid = 0.0  # last valid sample minus the offset
        self._received = self._returned = 0
        # The past samples that the filters need; all are zero at the start.
        self._past = np.zeros(_phase_weights(self._up, self._down).shape[1] - 1)
        self._past_resampled = np.zeros(_response_length(preprocessing))

    def process(self, signal: np.ndarray) -> np.ndarray:
        """Preprocess the next samples of the stream, and return the new samples at 125 Hz.

        Parameters
        ----------
        signal : numpy.ndarray
            Shape (n,), in mV, NaN where invalid.

        Returns
        -------
        numpy.ndarray
            Shape (m,), float64, in mV; m is n · 125 / fs, plus or minus one sample.
        """
        chunks = _chunks(np.asarray(signal, dtype=np.float64))
        filtered = np.concatenate([np.empty(0), *(self._band_pass(self._resample(self._hold(c))) for c in chunks)])
        return _to_grid(filtered) if self.preprocessing.grid else filtered

    def resample(self, signal: np.ndarray) -> np.ndarray:
        """Resample the next samples of the stream to 125 Hz, without the band-pass; return float64 in mV.

        Do not call both `resample` and `process` for the same stream.
        """
        return np.concatenate([np.empty(0), *(self._resample(self._hold(chunk)) for chunk in _chunks(signal))])

    def _resample(self, held: np.ndarray) -> np.ndarray:
        samples = np.concatenate([self._past, held])
        self._past = samples[len(held) :]
        first, before = self._returned, self._received
        self._received += len(held)
        self._returned = -(-self._received * self._up // self._down)  # the outputs before the next sample's time
        resampled = np.empty(self._returned - first)
        _convolve(samples, *_newest_and_weights(self._up, self._down, first, self._returned, before), resampled)
        return resampled

    def _band_pass(self, resampled: np.ndarray) -> np.ndarray:
        past = len(self._past_resampled)
        samples = np.concatenate([self._past_resampled, resampled])
        self._past_resampled = samples[len(resampled) :]
        size = math.ceil(len(samples) / FFT_SIZE_STEP) * FFT_SIZE_STEP
        # The convolution is cyclic: only past samples wrap around.
        spectrum = np.fft.rfft(samples, size) * _frequency_response(self.preprocessing, past + 1, size)
        return np.fft.irfft(spectrum, size)[past : len(samples)]

    def _hold(self, signal: np.ndarray) -> np.ndarray:
        """Return `signal` minus the offset, with invalid samples replaced by the last valid one.

        After a gap, change the offset so that the result continues from the last valid sample.
        """
        n = len(signal)
        valid = is_valid(signal)
        if self._invalid_run < self._gap_samples and valid.all():  # faster, for the usual case
            relative = signal - self._offset
            self._last_valid, self._invalid_run = relative[-1], 0
            return relative
        last_valid = np.maximum.accumulate(np.where(valid, np.arange(n), -1 - self._invalid_run))
        before = np.concatenate([[-1 - self._invalid_run], last_valid[:-1]])
        relative = signal - self._offset
        returns = np.flatnonzero(valid & (np.arange(n) - before > self._gap_samples))
        for i, end in zip(returns, np.append(returns, n)[1:], strict=True):
            self._offset = signal[i] - (relative[before[i]] if before[i] >= 0 else self._last_valid)
            relative[i:end] = signal[i:end] - self._offset
        held = np.where(last_valid >= 0, relative[np.maximum(last_valid, 0)], self._last_valid)
        self._last_valid = held[-1]
        self._invalid_run = n - 1 - int(last_valid[-1])
        return held


def preprocess(signal: np.ndarray, fs: float, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Preprocess a complete recording.

    Parameters
    ----------
    signal : numpy.ndarray
        One lead, shape (n,), in mV, NaN where invalid.
    fs : float
        Sampling rate in Hz, 100 to 2000.
    preprocessing : Preprocessing, optional
        The parameters; the defaults if not given.

    Returns
    -------
    numpy.ndarray
        Shape (ceil(n · 125 / fs),), float64, in mV at 125 Hz. The resampling delays the signal by 40 ms, and the
        band-pass delays it by about 15 ms at 5 Hz.

    Examples
    --------
    >>> len(preprocess(np.zeros(3600), fs=360.0))
    1250
    """
    return Preprocessor(preprocessing or Preprocessing(), fs).process(signal)


def resample_recording(signal: np.ndarray, fs: float) -> np.ndarray:
    """Resample a recording to 125 Hz, as `preprocess` does before the band-pass.

    Parameters
    ----------
    signal : numpy.ndarray
        One lead, shape (n,), in mV, NaN where invalid.
    fs : float
        Sampling rate in Hz, 100 to 2000.

    Returns
    -------
    numpy.ndarray
        Shape (ceil(n · 125 / fs),), float64, in mV relative to the first valid sample, delayed by 40 ms. An invalid
        sample has the value of the last valid sample before it.

    Examples
    --------
    >>> len(resample_recording(np.zeros(3600), fs=360.0))
    1250
    """
    return Preprocessor(Preprocessing(), fs).resample(np.asarray(signal, dtype=np.float64))


def preprocess_strips(strips: np.ndarray, fs: float, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Preprocess strips of a few seconds without any earlier samples.

    The first two seconds of each strip are mirrored in time and put in front of it, so that the filters settle before
    the strip begins.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), in mV, NaN where invalid. They must last 2 s or more, to the nearest sample.
    fs : float
        Sampling rate in Hz, 100 to 2000.
    preprocessing : Preprocessing, optional
        The parameters; the defaults if not given.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips, round(n · 125 / fs)), float64, in mV at 125 Hz.

    Raises
    ------
    TypeError
        If `fs` is not a number.
    ValueError
        If `fs` is out of range, or the strips are shorter than 2 s.

    Examples
    --------
    >>> preprocess_strips(np.zeros((3, 1250)), fs=250.0).shape
    (3, 625)
    """
    preprocessing = preprocessing or Preprocessing()
    rate_ratio(fs)  # checks fs
    n = strips.shape[1]
    if n < WARM_UP_S * fs - LENGTH_TOLERANCE_SAMPLES:
        raise ValueError(
            f"strips of {n} samples at {fs:g} Hz last {n / fs:.6g} s; at least {WARM_UP_S:g} s are needed."
        )
    lead_in, first, wanted, newest, weights, response = _strip_filter(preprocessing, float(fs), n)
    held = hold_invalid(np.asarray(strips, dtype=np.float64))
    taps = weights.shape[1]
    padded = np.zeros((len(strips), taps + lead_in + n))  # the filter starts from rest
    lead_in_and_strip = padded[:, taps - 1 : -1]
    lead_in_and_strip[:, :lead_in] = held[:, lead_in - 1 :: -1]
    lead_in_and_strip[:, lead_in:] = held
    lead_in_and_strip -= held[:, lead_in - 1 : lead_in]
    resampled = np.empty((len(strips), wanted))
    for row, result in zip(padded, resampled, strict=True):
        _convolve(row, newest, weights, result)
    size = 2 * (len(response) - 1)
    spectrum = np.fft.rfft(resampled, size, axis=1)
    spectrum *= response
    filtered = np.fft.irfft(spectrum, size, axis=1)[:, first:wanted]
    return _to_grid(filtered) if preprocessing.grid else filtered


def is_valid(signal: np.ndarray) -> np.ndarray:
    """Return which samples are valid: finite and within ±10 V.

    Parameters
    ----------
    signal : numpy.ndarray
        Any shape, in mV.

    Returns
    -------
    numpy.ndarray
        The same shape, bool.

    Examples
    --------
    >>> is_valid(np.array([0.5, np.nan, -np.inf, 2e4]))
    array([ True, False, False, False])
    """
    return np.asarray(np.abs(signal) <= MAX_MV)  # False for NaN


def is_allowed_length(samples: int, fs: float) -> bool:
    """Return whether a strip lasts 2 to 10 s, to the nearest sample.

    Parameters
    ----------
    samples : int
        Number of samples in the strip.
    fs : float
        Sampling rate in Hz.

    Examples
    --------
    >>> is_allowed_length(720, 360.1), is_allowed_length(719, 360.1)
    (True, False)
    """
    shortest, longest = MIN_WINDOW_S * fs - LENGTH_TOLERANCE_SAMPLES, MAX_WINDOW_S * fs + LENGTH_TOLERANCE_SAMPLES
    return shortest <= samples <= longest


def hold_invalid(strips: np.ndarray) -> np.ndarray:
    """Replace each invalid sample with the last valid sample before it.

    At the start of a strip, invalid samples are replaced with the first valid sample.

    Parameters
    ----------
    strips : numpy.ndarray
        Shape (n_strips, n), in mV. `is_valid` defines which samples are valid.

    Returns
    -------
    numpy.ndarray
        Shape (n_strips, n), in mV. Strips without any valid sample are 0.

    Examples
    --------
    >>> hold_invalid(np.array([[np.nan, 1.0, 2e4, 2.0]]))
    array([[1., 1., 1., 2.]])
    """
    valid = is_valid(strips)
    if valid.all():
        return strips
    first = np.argmax(valid, axis=1)[:, None]
    last_valid = np.maximum.accumulate(np.where(valid, np.arange(strips.shape[1]), first), axis=1)
    held = np.take_along_axis(strips, last_valid, axis=1)
    return np.where(valid.any(axis=1, keepdims=True), held, 0.0)


def rate_ratio(fs: float) -> tuple[int, int]:
    """Return the ratio 125 / fs as two integers.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, 100 to 2000.

    Returns
    -------
    up, down : int
        Integers for which up / down = 125 / fs.

    Raises
    ------
    TypeError
        If `fs` is not a number.
    ValueError
        If `fs` is out of range.

    Examples
    --------
    >>> rate_ratio(360)
    (25, 72)
    """
    if isinstance(fs, bool) or not isinstance(fs, (int, float, np.integer, np.floating)):
        raise TypeError(f"fs={fs!r} is not a number; give the sampling rate in Hz.")
    low, high = FS_RANGE_HZ
    if not low <= fs <= high:  # also refuses NaN
        raise ValueError(
            f"fs={fs!r} Hz is out of range; allowed are {low:g} to {high:g} Hz. Resample the signal first."
        )
    return _ratio(float(fs))


@lru_cache(maxsize=64)
def _ratio(fs: float) -> tuple[int, int]:
    down_over_up = Fraction(fs / FS).limit_denominator(MAX_UP)
    return down_over_up.denominator, down_over_up.numerator


def _chunks(signal: np.ndarray) -> list[np.ndarray]:
    return [signal[first : first + CHUNK_SAMPLES] for first in range(0, len(signal), CHUNK_SAMPLES)]


def _to_grid(signal: np.ndarray) -> np.ndarray:
    return np.round(signal / GRID_MV) * GRID_MV


@lru_cache(maxsize=16)
def resampler_taps(up: int, down: int) -> np.ndarray:
    """Return the coefficients of the resampler's low-pass, at a sampling rate of fs · up = 125 · down Hz.

    Parameters
    ----------
    up, down : int
        As `rate_ratio` returns them.

    Returns
    -------
    numpy.ndarray
        Shape (10 · down + 1,).
    """
    half = RESAMPLER_DELAY_SAMPLES * down
    cycles = np.arange(-half, half + 1) * (RESAMPLER_CUTOFF_HZ / (FS * down))
    taps = np.sinc(2 * cycles) * np.kaiser(2 * half + 1, RESAMPLER_KAISER_BETA)
    # Each output uses every up-th tap. These taps must sum to 1, so that the images of a constant offset vanish. With
    # only 60 dB of attenuation, they would remain in the pass band: at 3 Hz for fs = 128 Hz.
    phase = np.arange(len(taps)) % up
    return taps / np.bincount(phase, taps)[phase]


@lru_cache(maxsize=8)
def _strip_filter(
    preprocessing: Preprocessing, fs: float, n: int
) -> tuple[int, int, int, slice | np.ndarray, np.ndarray, np.ndarray]:
    """Return constants that `preprocess_strips` needs for strips of n samples.

    In this order: the length of the lead-in in samples; the index of the strip's first sample at 125 Hz; the number of
    samples at 125 Hz, including the lead-in; for each of these samples, the index of the newest input and the weights
    of the inputs; and the frequency response of the band-pass.
    """
    up, down = _ratio(fs)
    lead_in = min(round(WARM_UP_S * fs), n)
    first = round(lead_in * up / down)
    wanted = first + round(n * up / down)
    newest, weights = _newest_and_weights(up, down, 0, wanted, 0)
    # The convolution is cyclic: the samples that wrap around end before `first`.
    size = math.ceil((2 * wanted - first) / FFT_SIZE_STEP) * FFT_SIZE_STEP
    return lead_in, first, wanted, newest, weights, _frequency_response(preprocessing, wanted, size)


@lru_cache(maxsize=16)
def _phase_weights(up: int, down: int) -> np.ndarray:
    """Return the resampler's weights of the input samples, oldest first, with a row for each of the `up` phases."""
    taps = resampler_taps(up, down)
    return np.ascontiguousarray(np.concatenate([taps, np.zeros(-len(taps) % up)]).reshape(-1, up).T[:, ::-1])


def _newest_and_weights(
    up: int, down: int, first: int, last: int, before: int
) -> tuple[slice | np.ndarray, np.ndarray]:
    """Return the index of the newest input, and the weights of the inputs, for each output from `first` to `last`.

    `last` is exclusive. Index 0 is the input after the first `before` inputs.
    """
    weights = _phase_weights(up, down)
    if up == 1:  # a slice and one row of weights avoid copies
        return slice(first * down - before, last * down - before, down), weights
    time = np.arange(first, last) * down  # in 1 / (125 · down) s
    return time // up - before, weights[time % up]


def _convolve(samples: np.ndarray, newest: slice | np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Write to `out`, for each index in `newest`, the weighted sum of the inputs up to this index.

    If a row of `weights` has n values, `samples` begins with n - 1 past inputs, and index 0 is the input after them.
    """
    taps = weights.shape[1]
    # The same as np.lib.stride_tricks.sliding_window_view, but ten times faster.
    patches = np.ndarray((len(samples) - taps + 1, taps), samples.dtype, samples, strides=samples.strides * 2)
    np.einsum("ij,ij->i", patches[newest], weights, out=out)


def _response_length(preprocessing: Preprocessing) -> int:
    """Return the number of samples after which the impulse response of the band-pass is negligible."""
    poles = np.concatenate([np.roots(section[3:]) for section in preprocessing.sos])
    return math.ceil(math.log(NEGLIGIBLE_RESPONSE) / math.log(np.abs(poles).max()))


@lru_cache(maxsize=16)
def _frequency_response(preprocessing: Preprocessing, n: int, size: int) -> np.ndarray:
    """Return the discrete Fourier transform of length `size` of the first n samples of the impulse response."""
    return np.fft.rfft(_impulse_response(preprocessing, n), size)


@lru_cache(maxsize=16)
def _impulse_response(preprocessing: Preprocessing, n: int) -> np.ndarray:
    response = [1.0] + [0.0] * (n - 1)
    for b0, b1, b2, _, a1, a2 in preprocessing.sos.tolist():
        state_1 = state_2 = 0.0
        for i, x in enumerate(response):
            y = response[i] = b0 * x + state_1
            state_1 = b1 * x - a1 * y + state_2
            state_2 = b2 * x - a2 * y
    return np.array(response)


@lru_cache(maxsize=16)
def _design_sections(preprocessing: Preprocessing) -> np.ndarray:
    """Return the second-order sections of the Butterworth band-pass and, if there is one, of the mains notch."""
    order = preprocessing.order
    low, high = np.tan(np.pi * np.array([preprocessing.low_hz, preprocessing.high_hz]) / FS)
    prototype = -np.exp(1j * np.pi * np.arange(1 - order, order, 2) / (2 * order))
    centre = prototype * (high - low) / 2
    offset = np.sqrt(centre**2 - low * high)
    s = np.concatenate([centre + offset, centre - offset])
    gain = np.prod((high - low) / (1 - s[:order]) / (1 - s[order:])).real
    poles = (1 + s) / (1 - s)
    real = np.abs(poles.imag) < REAL_POLE_TOLERANCE
    pairs = [(pole, pole.conj()) for pole in poles[~real & (poles.imag > 0)]]
    if real.any():
        pairs.append(tuple(sorted(poles[real].real, key=_distance_to_unit_circle)))
    # As in scipy.signal, the pair of poles nearest to the unit circle comes last and takes the zeros nearest to it, so
    # that no section has a high gain.
    zeros = np.repeat([1.0, -1.0], order)
    sections: list[list[float]] = []
    for pole, other in sorted(pairs, key=lambda pair: _distance_to_unit_circle(pair[0])):
        nearest = np.argsort(np.abs(zeros - pole), kind="stable")[:2]
        numerator = [1.0, -zeros[nearest].sum(), zeros[nearest].prod()]
        sections.insert(0, [*numerator, 1.0, -(pole + other).real, (pole * other).real])
        zeros = np.delete(zeros, nearest)
    sections[0][:3] = [gain * b for b in sections[0][:3]]
    if preprocessing.mains_hz is not None:
        hz = preprocessing.mains_hz
        b0 = 1 / (1 + math.tan(math.pi * hz / FS / NOTCH_Q))
        b1 = -2 * b0 * math.cos(2 * math.pi * hz / FS)
        sections.append([b0, b1, b0, 1.0, b1, 2 * b0 - 1])
    return np.array(sections)


def _distance_to_unit_circle(pole: complex) -> float:
    return abs(1 - abs(pole))
