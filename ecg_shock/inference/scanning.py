"""Classify the windows of a recording, and find its episodes of shockable rhythm."""

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
        Time of the alarm, the end of the window that raised it, in seconds from the start of the recording.
    probability : float
        Mean probability of *shockable* of the windows in the episode that advise a shock.
    """

    onset_s: float
    end_s: float
    alarm_s: float
    probability: float


@dataclass(frozen=True, eq=False)
class Scan:
    """The result of a scan: the windows of a recording, and its episodes of shockable rhythm.

    Parameters
    ----------
    name, lead : str
        Name of the record and of the lead.
    fs, duration_s : float
        Sampling rate in Hz, and length in seconds.
    window_s, step_s : float
        Length of the windows, and step from one window to the next, in seconds.
    threshold : float
        A window advises a shock if its probability is at least this.
    alarm_rule : AlarmRule
        The rule of the alarm.
    start_s : numpy.ndarray
        Shape (n_windows,): start of each window in seconds from the start of the recording.
    probability : numpy.ndarray
        Shape (n_windows,): probability of *shockable*; NaN for an unusable window.
    reason : numpy.ndarray
        Shape (n_windows,), str: the reason why a window is unusable; empty for a usable window.
    shock, alarm : numpy.ndarray
        Shape (n_windows,), bool: True if the window advises a shock, and True if the alarm is on after the window.
    episodes : tuple of ShockableEpisode
        The episodes in order of time, without overlap.
    source : str
        Absolute path of the scanned file, or of the header of the WFDB record; empty for a recording in memory.
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
        """True for each window that could be classified, shape (n_windows,), bool."""
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
    """Find the episodes of shockable rhythm in a recording of any length.

    Parameters
    ----------
    recording : str, pathlib.Path, Recording, Lead or array_like
        A path as for `ecg_shock.read_record`, a recording, or the samples of one lead, shape (n,), NaN where invalid.
        WFDB, EDF and BDF files are read piece by piece.
    fs : float, optional
        Sampling rate in Hz, 100 to 2000. Required for an array, and for files that do not state it.
    units : {"mV", "uV", "µV", "V"}, optional
        As for `ecg_shock.read_record`. For an array, the default is mV.
    lead : str, optional
        Name of the lead. By default the first lead with the name of an ECG lead, or the only lead.
    step_s : float
        From one window to the next in seconds, 0.1 to 10; rounded to whole samples at 125 Hz.
    window_s : float, optional
        Length of a window in seconds, 2 to 10; the model's own if not given.
    alarm : AlarmRule, optional
        The rule of the alarm. By default at least 5 of the last 8 windows.
    model : str, pathlib.Path or Advisor, optional
        As for `ecg_shock.predict`.
    on_progress : callable, optional
        Called after each piece of the recording, with the time in seconds up to which it was classified.

    Returns
    -------
    Scan
        The windows and episodes of the recording.

    Raises
    ------
    OSError, TypeError, ValueError
        If the file cannot be read, an argument is not allowed, or the recording is shorter than a window.

    Notes
    -----
    - The recording is filtered before it is cut into windows, as in training, in `ecg-shock validate` and in `Stream`.
    - Each alarm gives an episode. Its first and last window are the first and last of the windows that advised a shock
      and were counted for the alarm.
    - The onset is half a step before the middle of the first window, and the end is half a step after the middle of the
      last window, because the advice changes when about half of a window has another rhythm. If it is the first or last
      window of the recording, the episode extends to the start or end of the recording.

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
            f"{source.name or 'the recording'} is {source.duration_s:.6g} s long; give "
            f"{windows.window_s:g} s or more, the length of a window."
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
    """Yield raw and filtered windows batch by batch, with the time in seconds up to which the recording was read."""
    done = 0
    for piece in source.pieces():
        for part in windows.split(piece.astype(np.float64)):
            done += len(part)
            yield *windows.push(part), done / source.fs


def _read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield `items`; another thread computes the next item meanwhile."""
    with ThreadPoolExecutor(1) as other:
        following = other.submit(next, items, None)
        while (item := following.result()) is not None:
            following = other.submit(next, items, None)
            yield item


def with_rule(scan: Scan, rule: AlarmRule) -> Scan:
    """Apply another alarm rule to a scan, without classifying its windows again.

    Parameters
    ----------
    scan : Scan
        The scan; it is not changed.
    rule : AlarmRule
        The alarm rule.

    Returns
    -------
    Scan
        The same result as `ecg_shock.scan` with this rule.
    """
    on = rule.on(scan.shock)
    episodes = _build_episodes(scan.start_s, scan.probability, scan.shock, on, rule, scan, scan.duration_s)
    return replace(scan, alarm_rule=rule, alarm=on, episodes=episodes)


def _open_lead(recording: Any, fs: float | None, units: str | None, lead: str | None) -> Lead:
    if isinstance(recording, Lead):
        if (fs, units, lead) != (None, None, None):
            raise ValueError("a Lead has its own fs, units and lead; remove fs, units and lead.")
        return recording
    if isinstance(recording, (str, Path)):
        return open_lead(recording, fs=fs, units=units, lead=lead)
    if not isinstance(recording, Recording):
        samples = real_numbers(recording)
        if samples.ndim != 1 or not len(samples):
            raise ValueError(f"the recording has shape {samples.shape}; give one lead of shape (n,), or a Recording.")
        if never_falls(samples[None])[0]:
            raise ValueError("the recording never falls, so it is a time or a counter, not an ECG; give an ECG.")
        if fs is None:
            raise ValueError("fs is missing; give the sampling rate of the array in Hz.")
        units = "mV" if units is None else units
        if units not in MV_PER_UNIT:
            raise ValueError(f"units is {units!r}; allowed are {', '.join(MV_PER_UNIT)}.")
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
            signal = (samples * MV_PER_UNIT[units])[:, None]
        return open_lead(Recording(signal=signal, fs=fs, leads=("1",)), lead=lead)
    if units not in (None, "mV"):
        raise ValueError(f"units is {units!r}, but a Recording is always in mV; remove units.")
    if fs is not None and fs != recording.fs:
        raise ValueError(f"fs is {fs!r}, but the recording has {recording.fs!r} Hz; remove fs.")
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
    """Return the episodes of a scan: one for each alarm, joined if they overlap or touch."""
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
