"""Advise a shock, or no shock, while an ECG arrives; and the windows and alarm rule of streams and scans."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.recordings import MV_PER_UNIT, is_finite
from ecg_shock.inference.advisor import Advice, Advisor, choose_advisor, real_numbers
from ecg_shock.models.bundle import Bundle
from ecg_shock.preprocessing import FS, GAP_S, MAX_MV, MAX_WINDOW_S, MIN_WINDOW_S, Preprocessor, rate_ratio

logger = logging.getLogger(__name__)

DEFAULT_STEP_S = 1.0
BATCH = 4_500_000  # samples of windows that are classified at a time

# A smaller difference between the time of a packet and the number of samples is jitter, and is not corrected.
CLOCK_TOLERANCE_S = 0.1
MAX_AHEAD_S = 3600.0  # a larger jump forward is refused
# After a jump back by more than MAX_BEHIND_S, or if packets seem late for more than MAX_LATE_S in a row, the clock was
# set back. Otherwise, a packet that seems late was delayed or repeated.
MAX_BEHIND_S, MAX_LATE_S = 60.0, 2.0
SUMMER_TIME_S = 3600.0  # after a jump by exactly this time, the clock was changed
MAX_SURPLUS, MAX_SURPLUS_S = 0.05, 1.0  # dropped samples (proportion, seconds); if there are more, fs is wrong


@dataclass(frozen=True)
class AlarmRule:
    """The rule of an alarm: at least `k` of the last `n` windows advise a shock.

    Parameters
    ----------
    k, n : int
        Numbers of windows, 1 <= k <= n. An unusable window is one of the `n` windows, and advises no shock.

    Raises
    ------
    TypeError
        If `k` or `n` is not an integer.
    ValueError
        If `k` or `n` is out of range.

    Examples
    --------
    >>> AlarmRule(2, 3).on(np.array([False, True, False, True, False, False])).tolist()
    [False, False, False, True, False, False]
    """

    # Chosen on the 22 validation patients of fold 0 of public-v1, with an earlier model: a median delay of 6.9 s
    # (90 % within 8.5 s) and 27 false alarms in 7.5 h, instead of 41 (3 of 5) or 92 (1 of 1).
    k: int = 5
    n: int = 8

    def __post_init__(self) -> None:
        for name in ("k", "n"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} of the alarm rule is {value!r}; allowed are integers.")
        if not 1 <= self.k <= self.n:
            raise ValueError(f"the alarm rule is {self.k} of {self.n} windows; choose k of n with 1 <= k <= n.")

    def on(self, shock: np.ndarray) -> np.ndarray:
        """Return True for each window after which the alarm is on.

        Parameters
        ----------
        shock : numpy.ndarray
            Shape (n_windows,), bool, in order of time: True if a window advises a shock.

        Returns
        -------
        numpy.ndarray
            Shape (n_windows,), bool.
        """
        counts = np.concatenate([[0], np.cumsum(shock)])
        before = np.maximum(np.arange(1, len(counts)) - self.n, 0)
        return counts[1:] - counts[before] >= self.k


@dataclass(frozen=True)
class StreamAdvice:
    """The advice for one window of a stream.

    Parameters
    ----------
    start_s, end_s : float
        Start and end of the window in seconds from the first sample of the stream. This time includes samples that were
        filled in, and excludes samples that were dropped, according to `at_s` of `Stream.push`.
    advice : Advice
        The advice for this window.
    alarm : bool
        True if the alarm is on after this window.
    """

    start_s: float
    end_s: float
    advice: Advice
    alarm: bool


class Windows:
    """Cut a signal that arrives in pieces into overlapping windows, raw and preprocessed.

    Parameters
    ----------
    bundle : Bundle
        The model; its preprocessing is applied.
    fs : float
        Sampling rate in Hz, 100 to 2000.
    step_s : float
        From one window to the next in seconds, 0.1 to 10; rounded to whole samples at 125 Hz.
    window_s : float, optional
        Length of a window in seconds, 2 to 10; the model's own if not given.

    Raises
    ------
    TypeError, ValueError
        If a value is not a number or out of range.

    Notes
    -----
    Window k begins with sample ``k * step`` of the preprocessed signal at 125 Hz, and with the nearest raw sample. It
    is returned when both the preprocessed and the raw window are complete. The windows do not depend on how the
    signal is divided into pieces.
    """

    def __init__(self, bundle: Bundle, fs: float, step_s: float, window_s: float | None) -> None:
        self._up, self._down = rate_ratio(fs)
        if window_s is None:
            window_s = bundle.spec.input_samples / FS
        _check_seconds("window_s", window_s, MIN_WINDOW_S, MAX_WINDOW_S)
        _check_seconds("step_s", step_s, 0.1, MAX_WINDOW_S)
        self.samples, self.step = round(window_s * FS), round(step_s * FS)
        self.window_s, self.step_s = self.samples / FS, self.step / FS
        self._raw_samples = round(self.samples * self._down / self._up)
        self._preprocessor = Preprocessor(bundle.preprocessing, fs)
        self._raw: np.ndarray = np.empty(0)
        self._filtered: np.ndarray = np.empty(0)
        self._raw_first = self._filtered_first = 0  # index in the stream of the first buffered sample
        self.returned = 0

    def split(self, mv: np.ndarray) -> Iterator[np.ndarray]:
        """Divide samples into pieces, so that each completes only a limited number of windows."""
        windows = max(1, BATCH // self._raw_samples)
        length = max(1, round(windows * self.step_s * self._down / self._up * FS))
        for first in range(0, len(mv), length):
            yield mv[first : first + length]

    def push(self, mv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add samples, and return the windows that they complete.

        Parameters
        ----------
        mv : numpy.ndarray
            Shape (n,): the next samples in mV, NaN where invalid.

        Returns
        -------
        raw, filtered : numpy.ndarray
            The windows as recorded, shape (n_windows, n_raw_samples), and filtered at 125 Hz, shape (n_windows,
            n_samples); in mV.
        """
        self._raw = np.concatenate([self._raw, mv])
        with np.errstate(invalid="ignore"):
            self._filtered = np.concatenate([self._filtered, self._preprocessor.process(mv)])
        ready = (self._filtered_first + len(self._filtered) - self.samples) // self.step + 1
        while ready > 0 and self._raw_start(ready - 1) + self._raw_samples > self._raw_first + len(self._raw):
            ready -= 1
        windows = np.arange(self.returned, max(ready, self.returned))
        self.returned += len(windows)
        if not len(windows):
            return np.empty((0, self._raw_samples)), np.empty((0, self.samples))
        every = np.lib.stride_tricks.sliding_window_view
        raw = every(self._raw, self._raw_samples)[_as_slice(self._raw_start(windows) - self._raw_first)]
        filtered = every(self._filtered, self.samples)[_as_slice(windows * self.step - self._filtered_first)]
        # Drop samples that the next window does not need.
        keep = min(self.returned * self.step - self._filtered_first, len(self._filtered))
        self._filtered, self._filtered_first = self._filtered[keep:], self._filtered_first + keep
        keep = min(self._raw_start(self.returned) - self._raw_first, len(self._raw))
        self._raw, self._raw_first = self._raw[keep:], self._raw_first + keep
        return raw, filtered

    def _raw_start(self, window: Any) -> Any:
        """Return the index of the raw sample that is nearest to the first sample of a window."""
        return (2 * window * self.step * self._down + self._up) // (2 * self._up)


def _as_slice(starts: np.ndarray) -> np.ndarray | slice:
    """Return evenly spaced starts as a slice, which avoids a copy of the windows."""
    steps = np.diff(starts)
    if len(steps) and (steps == steps[0]).all():
        return slice(int(starts[0]), int(starts[-1]) + 1, int(steps[0]))
    return starts


class Stream:
    """Advise a shock, or no shock, while an ECG arrives.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, 100 to 2000.
    units : {"mV", "uV", "µV", "V"}
        Unit of the samples.
    step_s : float
        From one window to the next in seconds, 0.1 to 10; rounded to whole samples at 125 Hz.
    window_s : float, optional
        Length of a window in seconds, 2 to 10; the model's own if not given.
    alarm : AlarmRule
        The rule of the alarm. By default at least 5 of the last 8 windows.
    model : str, pathlib.Path or Advisor, optional
        As for `ecg_shock.predict`.

    Raises
    ------
    TypeError, ValueError
        If a value is not allowed.

    Notes
    -----
    - The advice is the same as that of `ecg_shock.scan`, and does not depend on how the samples are divided.
    - Invalid samples (NaN, infinite) are replaced by the last valid sample. A window with more than 10 % of invalid
      samples is unusable.
    - One second or more without a valid sample is *lead off*. When valid samples return, the change of the offset is
      removed, so that the filter does not ring.
    - Memory does not grow with the length of the stream.
    - Use a stream in one thread only. Several streams may share one `Advisor`.

    Examples
    --------
    >>> stream = Stream(fs=250.0)
    >>> ecg = np.sin(np.arange(1500) / 10)
    >>> [step.end_s for step in stream.push(ecg[:1300])], [step.end_s for step in stream.push(ecg[1300:])]
    ([5.0], [6.0])
    """

    def __init__(
        self,
        fs: float,
        *,
        units: str = "mV",
        step_s: float = DEFAULT_STEP_S,
        window_s: float | None = None,
        alarm: AlarmRule | None = None,
        model: str | Path | Advisor | None = None,
    ) -> None:
        if units not in MV_PER_UNIT:
            raise ValueError(f"units is {units!r}; allowed are {', '.join(MV_PER_UNIT)}.")
        self._advisor = choose_advisor(model)
        self._windows = Windows(self._advisor.bundle, fs, step_s, window_s)
        self.fs = float(fs)
        self.alarm_rule = choose_rule(alarm)
        self._scale = MV_PER_UNIT[units]
        self._shocks: deque[bool] = deque(maxlen=self.alarm_rule.n)
        self._received = 0
        self._missing = 0  # invalid samples in a row at the end
        self._clock_start_s: float | None = None  # time by the clock at the first sample
        self._change_s = 0.0  # last change of that time
        self._late_s = 0.0  # length of the last packets in a row that seem late
        self._surplus = 0  # samples that were dropped from the start of packets

    @property
    def state(self) -> str:
        """The state of the stream: ``"filling"`` (no window yet), ``"running"`` or ``"lead off"``.

        The state is ``"lead off"`` after one second without a valid sample, until the next valid sample.
        """
        if self._missing >= math.ceil(GAP_S * self.fs):
            return "lead off"
        return "running" if self._windows.returned else "filling"

    @property
    def received_s(self) -> float:
        """The length of the received signal in seconds, including samples that were filled in according to `at_s`."""
        return self._received / self.fs

    def push(self, samples: Any, at_s: float | None = None) -> list[StreamAdvice]:
        """Add samples, and return the advice for each window that they complete.

        Parameters
        ----------
        samples : array_like
            Shape (n,): the next samples, any number; NaN where invalid.
        at_s : float, optional
            Time of the first of these samples by the clock of the device (not the time of arrival), in seconds from any
            start. It is compared with the number of samples, so that a stream keeps time if packets are lost:

            - Later than expected by more than 0.1 s: samples were lost, and invalid samples are filled in.
            - Earlier than expected by more than 0.1 s: surplus samples are dropped.
            - A jump by one hour (summer time), a jump back by more than 60 s, or times that are too early for more than
              2 s of samples: the clock was changed. The samples follow the previous samples, and a warning is logged.

        Returns
        -------
        list of StreamAdvice
            The advice for each window that these samples complete; often empty.

        Raises
        ------
        TypeError
            If the samples are not an array of real numbers, or the time is not a number.
        ValueError
            If the shape is not (n,), the time is not finite or more than an hour too late, or the times contradict
            `fs`. The samples are then not added.
        """
        mv = real_numbers(samples)
        if mv.ndim != 1:
            raise ValueError(f"samples has shape {mv.shape}; allowed is (n,), one lead.")
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
            mv *= self._scale
        if at_s is not None:
            mv = self._align_to_clock(mv, at_s)
        return [advice for piece in self._windows.split(mv) for advice in self._process(piece)]

    def _align_to_clock(self, mv: np.ndarray, at_s: float) -> np.ndarray:
        """Fill in samples that were lost before these, or drop surplus samples."""
        if isinstance(at_s, bool) or not isinstance(at_s, (int, float, np.integer, np.floating)):
            raise TypeError(f"at_s is {at_s!r}; give a number of seconds.")
        if not is_finite(at_s):
            raise ValueError(f"at_s is {at_s!r}; give a finite number of seconds, or remove at_s.")
        if self._clock_start_s is None:
            self._clock_start_s = float(at_s) - self.received_s
        ahead_s = float(at_s) - self._clock_start_s - self.received_s
        late_s, self._late_s = self._late_s, 0.0
        if abs(abs(ahead_s) - SUMMER_TIME_S) <= 2 * CLOCK_TOLERANCE_S:
            ahead_s = self._change_clock(math.copysign(SUMMER_TIME_S, ahead_s), ahead_s)
        elif ahead_s > MAX_AHEAD_S and abs(ahead_s + self._change_s) <= MAX_BEHIND_S:  # only the last time was wrong
            ahead_s = self._change_clock(-self._change_s, ahead_s)
        elif ahead_s > MAX_AHEAD_S:
            raise ValueError(
                f"at_s is {at_s!r}, {ahead_s:.0f} s after the end of the previous samples; allowed are up to "
                f"{MAX_AHEAD_S:g} s. Start a new Stream."
            )
        elif ahead_s < -MAX_BEHIND_S:
            ahead_s = self._change_clock(ahead_s, ahead_s)
        samples = round(ahead_s * self.fs)
        if samples < 0 and len(mv) <= -samples:
            self._late_s = late_s + len(mv) / self.fs
            if self._late_s > MAX_LATE_S:
                self._late_s = 0.0
                ahead_s = self._change_clock(ahead_s - late_s, ahead_s)
                samples = round(ahead_s * self.fs)
        if abs(ahead_s) <= CLOCK_TOLERANCE_S:
            return mv
        if -len(mv) < samples < 0:
            self._surplus -= samples
            if self._surplus > MAX_SURPLUS * self._received + MAX_SURPLUS_S * self.fs:
                raise ValueError(
                    f"{self._surplus} more samples came than fit between the times at_s at fs={self.fs:g} Hz. "
                    "Start a new Stream with the correct sampling rate."
                )
        return np.concatenate([np.full(samples, np.nan), mv]) if samples > 0 else mv[-samples:]

    def _change_clock(self, change_s: float, ahead_s: float) -> float:
        """Correct for a clock that was set forward by `change_s`, and return the remaining difference in seconds."""
        self._clock_start_s = (self._clock_start_s or 0.0) + change_s
        self._change_s = change_s
        logger.warning(
            "after %.1f s of the stream, the clock was set %s by %.1f s; the stream continues without a gap",
            self.received_s,
            "forward" if change_s > 0 else "back",
            abs(change_s),
        )
        return ahead_s - change_s

    def _process(self, mv: np.ndarray) -> Iterator[StreamAdvice]:
        valid = np.flatnonzero(np.abs(mv) <= MAX_MV)
        self._missing = len(mv) - 1 - int(valid[-1]) if len(valid) else self._missing + len(mv)
        self._received += len(mv)
        first = self._windows.returned
        raw, filtered = self._windows.push(mv)
        if not len(raw):
            return
        threshold = self._advisor.bundle.threshold
        probabilities, reasons = self._advisor.classify(raw, self.fs, filtered)
        for k, (probability, reason) in enumerate(zip(probabilities.tolist(), reasons.tolist(), strict=True), first):
            advice = Advice(probability >= threshold, probability, threshold, not reason, reason)
            self._shocks.append(advice.shock)
            start_s = k * self._windows.step_s
            alarm = sum(self._shocks) >= self.alarm_rule.k
            yield StreamAdvice(start_s, start_s + self._windows.window_s, advice, alarm)


def choose_rule(alarm: AlarmRule | None) -> AlarmRule:
    """Return the given alarm rule, or the default."""
    if alarm is None:
        return AlarmRule()
    if not isinstance(alarm, AlarmRule):
        raise TypeError(f"alarm is {alarm!r}; give an alarm rule, such as AlarmRule(3, 5).")
    return alarm


def _check_seconds(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {value!r}; give a number of seconds.")
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name} is {value!r}; allowed are {low:g} to {high:g} s.")
