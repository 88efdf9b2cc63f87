"""Advice on an ECG as it arrives, and the windows and alarms that streams and scans share."""

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
BATCH = 4_500_000  # samples of the windows to classify at once: an hour of 5-s windows at 250 Hz, one per second

# Difference between the times of packets and the count of samples that is not corrected: times jitter by some
# hundredths of a second.
CLOCK_TOLERANCE_S = 0.1
MAX_AHEAD_S = 3600.0  # a larger jump ahead is not a gap
# After a larger jump back, the clock was put back. After a smaller one, a packet is late or repeated, unless packets
# seem late for more than MAX_LATE_S in a row: then the clock was put back too.
MAX_BEHIND_S, MAX_LATE_S = 60.0, 2.0
SUMMER_TIME_S = 3600.0  # a jump of exactly this is not a gap of an hour
MAX_SURPLUS, MAX_SURPLUS_S = 0.05, 1.0  # if more samples are dropped (proportion, seconds), fs is wrong


@dataclass(frozen=True)
class AlarmRule:
    """When windows add up to an alarm: at least `k` of the last `n` advise a shock.

    Parameters
    ----------
    k, n : int
        1 <= k <= n. An unusable window counts as one of the `n`, and advises no shock.

    Raises
    ------
    TypeError
        If they are not integers.
    ValueError
        If they are out of range.

    Examples
    --------
    >>> AlarmRule(2, 3).on(np.array([False, True, False, True, False, False])).tolist()
    [False, False, False, True, False, False]
    """

    # Chosen once, on the 22 validation patients of fold 0 of public-v1, who are the test patients of fold 1. Alarms of
    # the packaged model came 6.9 s after the onset (90 % within 8.5 s), within the 10 s allowed for monitors, with 27
    # false alarms in 7.5 h instead of 41 (3 of 5) or 92 (1 of 1). `ecg-shock validate` chooses the rule fold by fold.
    k: int = 5
    n: int = 8

    def __post_init__(self) -> None:
        for name in ("k", "n"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}={value!r} of the alarm is not an integer.")
        if not 1 <= self.k <= self.n:
            raise ValueError(f"the alarm rule {self.k} of {self.n} windows is not possible; give 1 <= k <= n.")

    def on(self, shock: np.ndarray) -> np.ndarray:
        """Return for each window whether there is an alarm after it.

        Parameters
        ----------
        shock : numpy.ndarray
            Shape (n_windows,), booleans in order of time: whether a window advises a shock.

        Returns
        -------
        numpy.ndarray
            Shape (n_windows,), booleans.
        """
        counts = np.concatenate([[0], np.cumsum(shock)])
        before = np.maximum(np.arange(1, len(counts)) - self.n, 0)
        return counts[1:] - counts[before] >= self.k


@dataclass(frozen=True)
class StreamAdvice:
    """Advice on one window of a stream.

    Parameters
    ----------
    start_s, end_s : float
        Start and end of the window in seconds from the first sample of the stream. If the stream gets times, samples
        that were filled in count, and samples that were dropped do not.
    advice : Advice
        Advice on this window alone; `usable` is False if it is mostly missing, flat, saturated, noise or out of range.
    alarm : bool
        Whether there is an alarm after this window.
    """

    start_s: float
    end_s: float
    advice: Advice
    alarm: bool


class Windows:
    """Overlapping windows, raw and preprocessed, of a signal that arrives in pieces.

    Parameters
    ----------
    bundle : Bundle
        The model, whose preprocessing is used.
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
    Window k begins with sample ``k * step`` at 125 Hz of the preprocessed signal, and with the nearest raw sample. It
    is returned once both are complete. How the signal is cut into pieces makes no difference.
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
        """Cut samples into pieces that complete few enough windows to keep memory bounded."""
        windows = max(1, BATCH // self._raw_samples)
        length = max(1, round(windows * self.step_s * self._down / self._up * FS))
        for first in range(0, len(mv), length):
            yield mv[first : first + length]

    def push(self, mv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the next samples, and return the windows that they complete.

        Parameters
        ----------
        mv : numpy.ndarray
            Shape (n,), mV, NaN where invalid.

        Returns
        -------
        raw, filtered : numpy.ndarray
            Shapes (n_windows, n_raw_samples) and (n_windows, n_samples), mV.
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
        # Drop what the next window does not need; each buffer then holds less than a window and a step.
        keep = min(self.returned * self.step - self._filtered_first, len(self._filtered))
        self._filtered, self._filtered_first = self._filtered[keep:], self._filtered_first + keep
        keep = min(self._raw_start(self.returned) - self._raw_first, len(self._raw))
        self._raw, self._raw_first = self._raw[keep:], self._raw_first + keep
        return raw, filtered

    def _raw_start(self, window: Any) -> Any:
        """Return the raw sample that is nearest to a window's first one."""
        return (2 * window * self.step * self._down + self._up) // (2 * self._up)


def _as_slice(starts: np.ndarray) -> np.ndarray | slice:
    """Return evenly spaced starts as a slice, so that nothing is copied."""
    steps = np.diff(starts)
    if len(steps) and (steps == steps[0]).all():
        return slice(int(starts[0]), int(starts[-1]) + 1, int(steps[0]))
    return starts


class Stream:
    """Advice on an ECG as it arrives, one window after the other.

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
        When windows add up to an alarm.
    model : str, pathlib.Path or Advisor, optional
        As for `ecg_shock.predict`.

    Raises
    ------
    TypeError, ValueError
        If a value is not allowed.

    Notes
    -----
    - The advice is that of `ecg_shock.scan`, however the samples are cut into pieces.
    - Invalid samples (NaN, infinite) hold the last valid one; a window with more than 10 % of them is unusable. One
      second or more without a valid sample is *lead off*: the filter then starts with the new offset of the electrode,
      and later windows are usable as soon as enough of their samples are valid.
    - Memory is bounded by one window, one step and the resampler, which keeps more samples if `fs` and 125 Hz have a
      small common divisor, and by one batch of windows during a longer piece.
    - Use a stream in one thread only; several streams may share one `Advisor`.

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
            raise ValueError(f"units={units!r} is not known; allowed are {', '.join(MV_PER_UNIT)}.")
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
        """What the stream is doing: ``"filling"`` (no window yet), ``"running"`` or ``"lead off"``.

        It is *lead off* after one second without a valid sample, until the next valid one.
        """
        if self._missing >= math.ceil(GAP_S * self.fs):
            return "lead off"
        return "running" if self._windows.returned else "filling"

    @property
    def received_s(self) -> float:
        """Seconds of signal received, including those filled in by the clock."""
        return self._received / self.fs

    def push(self, samples: Any, at_s: float | None = None) -> list[StreamAdvice]:
        """Take the next samples.

        Parameters
        ----------
        samples : array_like
            Shape (n,), any n, NaN where invalid.
        at_s : float, optional
            Time of the first of these samples by the clock of the device (not the time of arrival), in seconds from any
            start. If it is ahead of the samples by more than 0.1 s, samples were lost, and invalid ones are filled in.
            If it is behind by more, surplus samples are dropped. So a stream keeps time in spite of lost packets and a
            sampling rate that is slightly wrong. If the clock jumps by exactly one hour, as with summer time, or goes
            back, by over a minute or for over 2 s of samples, it was changed: the samples follow the previous ones
            (invalid ones are filled in for those 2 s), and a warning is logged.

        Returns
        -------
        list of StreamAdvice
            One for each window that these samples complete; often none.

        Raises
        ------
        TypeError
            If the samples are not an array of real numbers, or the time is not a number.
        ValueError
            If their shape is not (n,), the time is not finite or over an hour ahead, or the times do not fit `fs`.
            No samples are taken then.
        """
        mv = real_numbers(samples)
        if mv.ndim != 1:
            raise ValueError(f"samples have shape {mv.shape}; give one lead, (n,).")
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
            mv *= self._scale
        if at_s is not None:
            mv = self._align_to_clock(mv, at_s)
        return [advice for piece in self._windows.split(mv) for advice in self._process(piece)]

    def _align_to_clock(self, mv: np.ndarray, at_s: float) -> np.ndarray:
        """Fill in samples that were lost before these, or drop surplus samples."""
        if isinstance(at_s, bool) or not isinstance(at_s, (int, float, np.integer, np.floating)):
            raise TypeError(f"at_s={at_s!r} is not a number; give seconds.")
        if not is_finite(at_s):
            raise ValueError(f"at_s={at_s!r} is not finite; give finite seconds, or leave it out.")
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
                f"at_s={at_s!r} is {ahead_s:.0f} s ahead of the samples; allowed are {MAX_AHEAD_S:g} s. Begin a new "
                "Stream."
            )
        elif ahead_s < -MAX_BEHIND_S:
            ahead_s = self._change_clock(ahead_s, ahead_s)
        samples = round(ahead_s * self.fs)
        if samples < 0 and len(mv) <= -samples:
            self._late_s = late_s + len(mv) / self.fs
            if self._late_s > MAX_LATE_S:  # the packets dropped so far are missing
                self._late_s = 0.0
                ahead_s = self._change_clock(ahead_s - late_s, ahead_s)
                samples = round(ahead_s * self.fs)
        if abs(ahead_s) <= CLOCK_TOLERANCE_S:
            return mv
        if -len(mv) < samples < 0:
            self._surplus -= samples
            if self._surplus > MAX_SURPLUS * self._received + MAX_SURPLUS_S * self.fs:
                raise ValueError(
                    f"more samples arrive than fit between the times at_s at fs={self.fs:g} Hz, {self._surplus} of "
                    f"{self._received + self._surplus} until now. Begin a new Stream with the true sampling rate."
                )
        return np.concatenate([np.full(samples, np.nan), mv]) if samples > 0 else mv[-samples:]

    def _change_clock(self, change_s: float, ahead_s: float) -> float:
        """Follow a clock that was put forward by `change_s`, and return how far it is then ahead of the samples."""
        self._clock_start_s = (self._clock_start_s or 0.0) + change_s
        self._change_s = change_s
        logger.warning(
            "after %.1f s of the stream the clock was put %s by %.1f s; samples are taken to follow the previous ones",
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
    """Return the alarm rule that a caller asked for, or the default."""
    if alarm is None:
        return AlarmRule()
    if not isinstance(alarm, AlarmRule):
        raise TypeError(f"alarm={alarm!r} is not an alarm rule; give one such as AlarmRule(3, 5).")
    return alarm


def _check_seconds(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}={value!r} is not a number; give seconds.")
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name}={value!r} is out of range; allowed are {low:g} to {high:g} s.")
