"""Sliding windows over a recording, and the episodes of shockable rhythm that they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ecg_shock.data.columns import never_falls
from ecg_shock.data.lead import Lead, open_lead
from ecg_shock.data.recordings import MV_PER_UNIT, Recording
from ecg_shock.inference.advisor import Advisor, choose_advisor, real_numbers
from ecg_shock.inference.streaming import DEFAULT_STEP_S, AlarmRule, Windows, choose_rule

Item = TypeVar("Item")


@dataclass(frozen=True)
class ShockableEpisode:
    """A segment of shockable rhythm in a recording.

    Parameters
    ----------
    onset_s, end_s : float
        Seconds from the start of the recording.
    alarm_s : float
        When the alarm was raised: the end of the window after which it was on.
    probability : float
        Mean probability of *shockable* over the windows that advise a shock.
    """

    onset_s: float
    end_s: float
    alarm_s: float
    probability: float


@dataclass(frozen=True, eq=False)
class Scan:
    """Windows and episodes of a recording, as a model classifies them.

    Parameters
    ----------
    name, lead : str
        Name of the record and of the lead.
    fs, duration_s : float
        Sampling rate in Hz, and length in seconds.
    window_s, step_s : float
        Length of the windows, and from one to the next, in seconds.
    threshold : float
        A window advises a shock at this probability and above.
    alarm_rule : AlarmRule
        When windows add up to an alarm.
    start_s : numpy.ndarray
        Shape (n_windows,), start of each window in seconds.
    probability : numpy.ndarray
        Shape (n_windows,), of *shockable*; NaN for an unusable window.
    reason : numpy.ndarray
        Shape (n_windows,), strings: why a window is unusable; empty for a usable one.
    shock, alarm : numpy.ndarray
        Shape (n_windows,), whether each window advises a shock, and whether there is an alarm after it.
    episodes : tuple of ShockableEpisode
        In order of time, without overlap.
    source : str
        Absolute path of the file that was scanned, or of the record's header; empty for a recording in memory.
    """

    name: str
    lead: str
    fs: float
    duration_s: float
    window_s: float
    step_s: float
    threshold: float
    alarm_rule: AlarmRule
    start_s: np.ndarray
    probability: np.ndarray
    reason: np.ndarray
    shock: np.ndarray
    alarm: np.ndarray
    episodes: tuple[ShockableEpisode, ...]
    source: str = ""

    @property
    def usable(self) -> np.ndarray:
        """Whether each window could be classified, shape (n_windows,)."""
        return self.reason == ""


def scan(
    recording: Any,
    fs: float | None = None,
    *,
    units: str | None = None,
    lead: str | None = None,
    step_s: float = DEFAULT_STEP_S,
    window_s: float | None = None,
    alarm: AlarmRule | None = None,
    model: str | Path | Advisor | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Scan:
    """Slide windows over a recording of any length, and find its episodes of shockable rhythm.

    Parameters
    ----------
    recording : str, pathlib.Path, Recording, Lead or array_like
        A path as for `ecg_shock.read_record` (WFDB, EDF and BDF recordings are read piece by piece), a recording,
        or the samples of one lead, shape (n,), NaN where invalid.
    fs : float, optional
        Sampling rate in Hz, 100 to 2000. Needed for an array and for files that do not give it.
    units : {"mV", "uV", "µV", "V"}, optional
        As for `read_record`; mV for an array if not given.
    lead : str, optional
        Name of the lead; if not given, the first that is an ECG by its name, or the only one.
    step_s : float
        From one window to the next in seconds, 0.1 to 10; rounded to whole samples at 125 Hz.
    window_s : float, optional
        Length of a window in seconds, 2 to 10; the model's own if not given.
    alarm : AlarmRule, optional
        When windows add up to an alarm: at least 5 of the last 8 by default.
    model : str, pathlib.Path or Advisor, optional
        As for `ecg_shock.predict`.
    on_progress : callable, optional
        Called with the seconds of the recording that are done.

    Returns
    -------
    Scan
        Windows and episodes.

    Raises
    ------
    OSError, TypeError, ValueError
        If there is nothing to read, a value is not allowed, or the recording is shorter than a window.

    Notes
    -----
    - The recording is filtered as a whole, as in training and validation, so that the advice on a window is what
      `ecg-shock validate` evaluates, and what a `Stream` gives.
    - An episode lasts from the first to the last window that advises a shock, of those which the alarm counted. The
      advice on a window changes when about half of it is another rhythm. So the onset is half a step before the middle
      of the first window, and the end is half a step after the middle of the last one; for the first and last window of
      the recording they are its ends.

    Examples
    --------
    >>> result = scan(np.sin(2 * np.pi * 5 * np.arange(5000) / 250), fs=250.0)
    >>> len(result.start_s), result.usable.all()
    (16, np.True_)
    """
    rule = choose_rule(alarm)
    source = _open_lead(recording, fs, units, lead)
    advisor = choose_advisor(model)
    windows = Windows(advisor.bundle, source.fs, step_s, window_s)
    probabilities, reasons = [], []
    for raw, filtered, done_s in _read_ahead(_yield_windows(source, windows)):
        probability, reason = advisor.classify(raw, source.fs, filtered)
        probabilities.append(probability)
        reasons.append(reason)
        if on_progress:
            on_progress(done_s)
    if not windows.returned:
        raise ValueError(
            f"{source.name or 'the recording'} is {source.duration_s:.6g} s long, shorter than a window of "
            f"{windows.window_s:g} s; there is nothing to classify."
        )
    probability = np.concatenate(probabilities)
    shock = probability >= advisor.bundle.threshold
    on = rule.on(shock)
    start_s = np.arange(windows.returned) * windows.step_s
    return Scan(
        name=source.name,
        lead=source.lead,
        fs=source.fs,
        duration_s=source.duration_s,
        window_s=windows.window_s,
        step_s=windows.step_s,
        threshold=advisor.bundle.threshold,
        alarm_rule=rule,
        start_s=start_s,
        probability=probability,
        reason=np.concatenate(reasons),
        shock=shock,
        alarm=on,
        episodes=_build_episodes(start_s, probability, shock, on, rule, windows, source.duration_s),
        source=source.source,
    )


def _yield_windows(source: Lead, windows: Windows) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Yield raw and filtered windows batch by batch, each with the seconds of the recording that are done."""
    done = 0
    for piece in source.pieces():
        for part in windows.split(piece.astype(np.float64)):
            done += len(part)
            yield *windows.push(part), done / source.fs


def _read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield `items`, computing the next one in another thread: so windows are read while others are classified."""
    with ThreadPoolExecutor(1) as other:
        following = other.submit(next, items, None)
        while (item := following.result()) is not None:
            following = other.submit(next, items, None)
            yield item


def with_rule(scan: Scan, rule: AlarmRule) -> Scan:
    """Apply another alarm rule to the windows of a scan.

    Parameters
    ----------
    scan : Scan
        A scan, which does not change.
    rule : AlarmRule
        The other rule.

    Returns
    -------
    Scan
        The result of `ecg_shock.scan` with this rule; no window is classified again.
    """
    on = rule.on(scan.shock)
    episodes = _build_episodes(scan.start_s, scan.probability, scan.shock, on, rule, scan, scan.duration_s)
    return replace(scan, alarm_rule=rule, alarm=on, episodes=episodes)


def _open_lead(recording: Any, fs: float | None, units: str | None, lead: str | None) -> Lead:
    if isinstance(recording, Lead):
        if (fs, units, lead) != (None, None, None):
            raise ValueError("a Lead has its own sampling rate, unit and name; leave fs, units and lead out.")
        return recording
    if isinstance(recording, (str, Path)):
        return open_lead(recording, fs=fs, units=units, lead=lead)
    if not isinstance(recording, Recording):
        samples = real_numbers(recording)
        if samples.ndim != 1 or not len(samples):
            raise ValueError(f"the recording has shape {samples.shape}; give one lead, (n,), or a Recording.")
        if never_falls(samples[None])[0]:
            raise ValueError("the recording never falls, as time does but an ECG does not; give the samples of a lead.")
        if fs is None:
            raise ValueError("fs is missing; give the sampling rate of the array in Hz.")
        units = "mV" if units is None else units
        if units not in MV_PER_UNIT:
            raise ValueError(f"units={units!r} is not known; allowed are {', '.join(MV_PER_UNIT)}.")
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
            signal = (samples * MV_PER_UNIT[units])[:, None]
        return open_lead(Recording(signal=signal, fs=fs, leads=("1",)), lead=lead)
    if units not in (None, "mV"):
        raise ValueError(f"units={units!r}, but a recording is in mV; leave units out.")
    if fs is not None and fs != recording.fs:
        raise ValueError(f"fs={fs!r}, but the recording has {recording.fs!r} Hz; leave fs out.")
    return open_lead(recording, lead=lead)


def _build_episodes(
    start_s: np.ndarray,
    probability: np.ndarray,
    shock: np.ndarray,
    alarm: np.ndarray,
    rule: AlarmRule,
    windows: Windows | Scan,
    duration_s: float,
) -> tuple[ShockableEpisode, ...]:
    """Return the episodes: the windows that each alarm counted, joined where they touch."""
    shocks = np.flatnonzero(shock)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], alarm, [False]])))
    segments: list[list[int]] = []
    for raised, over in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        first = int(shocks[np.searchsorted(shocks, raised - rule.n + 1)])
        last = int(shocks[np.searchsorted(shocks, over) - 1])
        if segments and first <= segments[-1][1] + 1:  # overlaps or touches the previous one
            segments[-1][1] = last
        else:
            segments.append([first, last, raised])
    episodes = []
    for first, last, raised in segments:
        counted = probability[first : last + 1]
        middle_s = start_s + windows.window_s / 2
        episodes.append(
            ShockableEpisode(
                onset_s=0.0 if first == 0 else float(middle_s[first] - windows.step_s / 2),
                end_s=duration_s if last == len(start_s) - 1 else float(middle_s[last] + windows.step_s / 2),
                alarm_s=float(start_s[raised] + windows.window_s),
                probability=float(counted[shock[first : last + 1]].mean()),
            )
        )
    return tuple(episodes)
