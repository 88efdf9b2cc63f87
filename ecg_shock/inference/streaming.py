"""Advice while the ECG comes in, and the windows and alarms that a stream and a scan have in common."""

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
BATCH = 4_500_000  # samples of the windows that are classified at once, an hour of 5-s windows at 250 Hz a second apart

# How far the times given with the samples may be from their count before the stream is set right: times of packets
# jitter by some hundredths of a second.
CLOCK_TOLERANCE_S = 0.1
MAX_AHEAD_S = 3600.0  # times that leap further ahead are no gap
MAX_BEHIND_S = 60.0  # times that leap further back are no packet that comes late or twice: the clock was put back,
MAX_LATE_S = 2.0  # as it was if so many seconds of packets in a row seem to come late
SUMMER_TIME_S = 3600.0  # a leap of exactly this is no gap of an hour
MAX_SURPLUS, MAX_SURPLUS_S = 0.05, 1.0  # more samples than the clock has time for are of another rate than fs


@dataclass(frozen=True)
class AlarmRule:
    """When windows add up to an alarm: at least `k` of the last `n` advise a shock.

    Parameters
    ----------
    k, n : int
        1 <= k <= n. An unusable window is one of the `n`, and advises no shock.

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If they are out of range.

    Examples
    --------
    >>> AlarmRule(2, 3).on(np.array([False, True, False, True, False, False])).tolist()
    [False, False, False, True, False, False]
    """

    # Chosen once, on the 22 validation patients of fold 0 of public-v1, who are the test patients of fold 1: the alarms
    # of the model in the package came 6.9 s after the onset (90 % within 8.5 s), inside the 10 s that monitors have,
    # with 27 false ones instead of 41 (3 of 5) or 92 (1 of 1) in 7.5 h. `ecg-shock validate` chooses it fold by fold.
    k: int = 5
    n: int = 8

    def __post_init__(self) -> None:
        for name in ("k", "n"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}={value!r} of the alarm is not an integer.")
        if not 1 <= self.k <= self.n:
            raise ValueError(f"an alarm at {self.k} of {self.n} windows is not possible; 1 <= k <= n is needed.")

    def on(self, shock: np.ndarray) -> np.ndarray:
        """Say for each window whether there is an alarm once it is classified.

        Parameters
        ----------
        shock : numpy.ndarray
            Shape (n_windows,), whether each window advises a shock, in order of time.

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
    """What is advised for one window of a stream.

    Parameters
    ----------
    start_s, end_s : float
        Where the window lies, in seconds from the first sample of the stream, with what the clock filled in and without
        what it dropped, if the stream was given times.
    advice : Advice
        For this window alone; `usable` is False where it is mostly missing, flat, saturated, noise or out of range.
    alarm : bool
        Whether this window and those before it add up to an alarm.
    """

    start_s: float
    end_s: float
    advice: Advice
    alarm: bool


class Windows:
    """Overlapping windows of a signal that comes in pieces, raw and preprocessed.

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
        If a value is no number or out of range.

    Notes
    -----
    Window k begins with sample ``k * step`` at 125 Hz of the preprocessed signal, and with the nearest raw sample. It
    is there once both are whole. Where the signal is cut into pieces does not matter.
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
        self._raw_first = self._filtered_first = 0  # of the stream, in the buffers
        self.returned = 0

    def split(self, mv: np.ndarray) -> Iterator[np.ndarray]:
        """Cut samples into pieces that complete so many windows each that memory stays bounded."""
        windows = max(1, BATCH // self._raw_samples)
        length = max(1, round(windows * self.step_s * self._down / self._up * FS))
        for first in range(0, len(mv), length):
            yield mv[first : first + length]

    def push(self, mv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the next samples, and return the windows that are whole now.

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
        raw = every(self._raw, self._raw_samples)[_evenly(self._raw_start(windows) - self._raw_first)]
        filtered = every(self._filtered, self.samples)[_evenly(windows * self.step - self._filtered_first)]
        # What the next window does not need goes; both buffers hold less than a window and a step then.
        keep = min(self.returned * self.step - self._filtered_first, len(self._filtered))
        self._filtered, self._filtered_first = self._filtered[keep:], self._filtered_first + keep
        keep = min(self._raw_start(self.returned) - self._raw_first, len(self._raw))
        self._raw, self._raw_first = self._raw[keep:], self._raw_first + keep
        return raw, filtered

    def _raw_start(self, window: Any) -> Any:
        """Return the raw sample that is nearest to a window's first one."""
        return (2 * window * self.step * self._down + self._up) // (2 * self._up)


def _evenly(starts: np.ndarray) -> np.ndarray | slice:
    """Return a slice for starts that are evenly spaced, so that nothing is copied."""
    steps = np.diff(starts)
    if len(steps) and (steps == steps[0]).all():
        return slice(int(starts[0]), int(starts[-1]) + 1, int(steps[0]))
    return starts


class Stream:
    """Advice on an ECG that comes in, one window after the other.

    Parameters
    ----------
    fs : float
        Sampling rate in Hz, 100 to 2000.
    units : {"mV", "uV", "µV", "V"}
        Units of the samples.
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
    - The advice is that of `ecg_shock.scan`, whatever the pieces.
    - Invalid samples (NaN, infinite) hold the last valid one; a window with more than 10 % of them is unusable. A
      second and more without a valid sample is *lead off*: the electrode's offset is taken anew when it is back, and
      the windows after it are usable again as soon as they are whole enough.
    - Memory is bounded by one window, one step and the resampler, which keeps more the less round the rate is, and by
      one batch of windows while a longer piece is taken.
    - A stream is for one thread; several may share one `Advisor`.

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
        self._missing = 0  # invalid samples in a row until now
        self._clock_start_s: float | None = None  # what the clock said at the first sample
        self._change_s = 0.0  # by how much that was changed last
        self._late_s = 0.0  # length of the packets in a row that seem to come late
        self._surplus = 0  # samples that were dropped of others

    @property
    def state(self) -> str:
        """What the stream is doing: ``"filling"`` (no window yet), ``"running"`` or ``"lead off"``.

        It is *lead off* from one second without a valid sample on until the next valid one.
        """
        if self._missing >= math.ceil(GAP_S * self.fs):
            return "lead off"
        return "running" if self._windows.returned else "filling"

    @property
    def received_s(self) -> float:
        """Seconds of signal that came in, with those that were filled in by the clock."""
        return self._received / self.fs

    def push(self, samples: Any, at_s: float | None = None) -> list[StreamAdvice]:
        """Take the next samples.

        Parameters
        ----------
        samples : array_like
            Shape (n,), any n, NaN where invalid.
        at_s : float, optional
            What the clock of the device (not the time of arrival) said at the first of these samples, in seconds from
            any start. Where it runs ahead of the samples by more than 0.1 s, samples were lost, and invalid ones take
            their place; where it stays behind by more, the surplus samples are dropped. So a stream keeps time over
            lost packets and over a sampling rate that is a little off. Where it leaps by exactly one hour, as with
            summer time, or goes back, by over a minute or for over 2 s of samples, the clock was changed: the samples
            follow those before (invalid ones take the place of those 2 s), and a warning is logged.

        Returns
        -------
        list of StreamAdvice
            One for each window that these samples complete; often none.

        Raises
        ------
        TypeError
            If the samples are no array of real numbers, or the time is no number.
        ValueError
            If their shape is not (n,), the time is not finite or over an hour ahead, or the times do not fit `fs`.
            Nothing is taken then.
        """
        mv = real_numbers(samples)
        if mv.ndim != 1:
            raise ValueError(f"samples have shape {mv.shape}; give one lead, (n,).")
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that are no ECG at all are out of range
            mv *= self._scale
        if at_s is not None:
            mv = self._by_the_clock(mv, at_s)
        return [advice for piece in self._windows.split(mv) for advice in self._take(piece)]

    def _by_the_clock(self, mv: np.ndarray, at_s: float) -> np.ndarray:
        """Fill in what was lost before these samples, or leave out what is too much."""
        if isinstance(at_s, bool) or not isinstance(at_s, (int, float, np.integer, np.floating)):
            raise TypeError(f"at_s={at_s!r} is not a number; give seconds.")
        if not is_finite(at_s):
            raise ValueError(f"at_s={at_s!r} is no time; give finite seconds, or leave it out.")
        if self._clock_start_s is None:
            self._clock_start_s = float(at_s) - self.received_s
        ahead_s = float(at_s) - self._clock_start_s - self.received_s
        late_s, self._late_s = self._late_s, 0.0
        if abs(abs(ahead_s) - SUMMER_TIME_S) <= 2 * CLOCK_TOLERANCE_S:
            ahead_s = self._change_clock(math.copysign(SUMMER_TIME_S, ahead_s), ahead_s)
        elif ahead_s > MAX_AHEAD_S and abs(ahead_s + self._change_s) <= MAX_BEHIND_S:  # a single time was wrong
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
            if self._late_s > MAX_LATE_S:  # what was dropped until now is missing
                self._late_s = 0.0
                ahead_s = self._change_clock(ahead_s - late_s, ahead_s)
                samples = round(ahead_s * self.fs)
        if abs(ahead_s) <= CLOCK_TOLERANCE_S:
            return mv
        if -len(mv) < samples < 0:
            self._surplus -= samples
            if self._surplus > MAX_SURPLUS * self._received + MAX_SURPLUS_S * self.fs:
                raise ValueError(
                    f"more samples come than the times at_s have room for at fs={self.fs:g} Hz, {self._surplus} of "
                    f"{self._received + self._surplus} until now. Begin a new Stream with the true rate."
                )
        return np.concatenate([np.full(samples, np.nan), mv]) if samples > 0 else mv[-samples:]

    def _change_clock(self, change_s: float, ahead_s: float) -> float:
        """Go on by a clock that was put forward by `change_s`, and return how far it runs ahead of the samples then."""
        self._clock_start_s = (self._clock_start_s or 0.0) + change_s
        self._change_s = change_s
        logger.warning(
            "after %.1f s of the stream the clock was put %s by %.1f s; the samples are taken to follow those before",
            self.received_s,
            "forward" if change_s > 0 else "back",
            abs(change_s),
        )
        return ahead_s - change_s

    def _take(self, mv: np.ndarray) -> Iterator[StreamAdvice]:
        valid = np.flatnonzero(np.abs(mv) <= MAX_MV)
        self._missing = len(mv) - 1 - int(valid[-1]) if len(valid) else self._missing + len(mv)
        self._received += len(mv)
        first = self._windows.returned
        raw, filtered = self._windows.push(mv)
        if not len(raw):
            return
        threshold = self._advisor.bundle.threshold
        probabilities, reasons = self._advisor.judge(raw, self.fs, filtered)
        for k, (probability, reason) in enumerate(zip(probabilities.tolist(), reasons.tolist(), strict=True), first):
            advice = Advice(probability >= threshold, probability, threshold, not reason, reason)
            self._shocks.append(advice.shock)
            start_s = k * self._windows.step_s
            alarm = sum(self._shocks) >= self.alarm_rule.k
            yield StreamAdvice(start_s, start_s + self._windows.window_s, advice, alarm)


def choose_rule(alarm: AlarmRule | None) -> AlarmRule:
    """Return the alarm rule that a caller asked for, or the usual one."""
    if alarm is None:
        return AlarmRule()
    if not isinstance(alarm, AlarmRule):
        raise TypeError(f"alarm={alarm!r} is no alarm rule; give one such as AlarmRule(3, 5).")
    return alarm


def _check_seconds(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}={value!r} is not a number; give seconds.")
    if not low <= value <= high:  # also refuses NaN
        raise ValueError(f"{name}={value!r} is out of range; allowed are {low:g} to {high:g} s.")
