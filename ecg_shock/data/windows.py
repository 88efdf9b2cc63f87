"""Cut labelled recordings into labelled windows.

A window has one rhythm over its whole length. It is at least `guard_s` away from any change of rhythm: `guard_s`, in
the manifest of the database, is the uncertainty of the labels. A window has no annotated noise and no invalid samples.

Databases do not give the amplitude of ventricular fibrillation and asystole, or the heart rate of ventricular
tachycardia. Both are measured in the window. The seconds that are in no window are counted, by reason.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.preprocessing import FS, MAX_WINDOW_S, MIN_WINDOW_S, Preprocessing, preprocess
from ecg_shock.rhythms import RHYTHMS, UNUSABLE

ROUNDING = 1e-6  # tolerance for rounding errors, in samples or seconds

SETTLING_S = 1.0  # an invalid sample disturbs the 1 Hz high-pass for about this long after it
MAX_BEAT_GAP_S = 3.0  # longest time between annotated beats in a window of organised rhythm

VT_RATE_RANGE_BPM = (40.0, 400.0)
SLOW_VF_CONTEXT_S = 5.0  # minimum length of the signal on which the rule of slow VF is measured
MIN_PERIODICITY = 0.25  # autocorrelation below which no heart rate is measured
# The heart rate is measured from the shortest period with an autocorrelation peak of at least this proportion of the
# highest peak. A lower value would count T waves and notches as beats. In 99.3 % of the 8555 regular 5-s windows of
# mitdb, the heart rate is within 10 % of that of annotated beats.
PERIOD_PREFERENCE = 0.75

VENTRICULAR_BEATS = frozenset("VEFr")
ATRIAL_BEATS = frozenset("AaJSejn")


@dataclass(frozen=True)
class LabelPolicy:
    """Limits of heart rate and amplitude between AHA classes.

    Parameters
    ----------
    rapid_vt_bpm : float
        Heart rate in beats per minute from which ventricular tachycardia is *rapid VT*; below it is *other VT*.
    coarse_vf_mv : float
        Peak-to-peak amplitude in mV above which ventricular fibrillation is *coarse*; otherwise it is *fine*.
    asystole_mv : float
        Asystole must have a peak-to-peak amplitude below this, in mV.
    slow_vf_bpm : float
        A window of ventricular fibrillation that is periodic and slower than this rate, in waves per minute, is *slow
        VF*, an intermediate class. 0 turns the rule off. Late VF is slow too, but irregular, so it stays coarse. Two or
        three waves of VF are often similar by chance. If a window is shorter than 5 s, the rule therefore measures 5 s
        of the episode around the window.
    slow_vf_periodicity : float
        Autocorrelation at the period from which a window counts as periodic for `slow_vf_bpm`, 0.25 to 1.
    vt_amplitude_ratio : float
        A window of ventricular tachycardia is excluded if the peak-to-peak amplitudes of its two halves differ by more
        than this factor, because the tachycardia may end inside the window. 0 turns the rule off.
    corrections : str, optional
        Path of a file with a human reader's corrections of labels; see `ecg_shock.data.corrections`. A corrected
        segment has the reader's class, whatever its amplitude and rate.
    corrections_sha256 : str, optional
        SHA-256 that this file must have. The card of a model states it.

    Raises
    ------
    ValueError
        If a limit is out of range.

    Notes
    -----
    The peak-to-peak amplitude is the median over the seconds of a window, see `amplitude_mv`. A window that is labelled
    asystole is excluded if its amplitude is `asystole_mv` or more, because vfdb labels VF in the records 424 and 607 as
    asystole.
    """

    __pydantic_config__ = {"extra": "forbid"}

    rapid_vt_bpm: float = 150.0
    coarse_vf_mv: float = 0.2  # Kerber et al. 1997
    asystole_mv: float = 0.1  # Krasteva et al., Sensors 23:4500, 2023
    slow_vf_bpm: float = 0.0
    slow_vf_periodicity: float = 0.6
    vt_amplitude_ratio: float = 0.0
    corrections: str | None = None
    corrections_sha256: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.asystole_mv <= self.coarse_vf_mv:
            raise ValueError(
                f"asystole_mv={self.asystole_mv!r} and coarse_vf_mv={self.coarse_vf_mv!r}: "
                "choose 0 < asystole_mv <= coarse_vf_mv."
            )
        low, high = VT_RATE_RANGE_BPM
        if not low <= self.rapid_vt_bpm <= high:
            raise ValueError(f"rapid_vt_bpm={self.rapid_vt_bpm!r} is out of range; allowed are {low:g} to {high:g}.")
        if self.slow_vf_bpm != 0 and not low <= self.slow_vf_bpm <= high:
            raise ValueError(
                f"slow_vf_bpm={self.slow_vf_bpm!r} is out of range; allowed are {low:g} to {high:g}, or 0."
            )
        if not MIN_PERIODICITY <= self.slow_vf_periodicity <= 1:
            raise ValueError(
                f"slow_vf_periodicity={self.slow_vf_periodicity!r} is out of range; "
                f"allowed are {MIN_PERIODICITY:g} to 1."
            )
        if self.vt_amplitude_ratio != 0 and not 1 < self.vt_amplitude_ratio < math.inf:
            raise ValueError(f"vt_amplitude_ratio={self.vt_amplitude_ratio!r} is not allowed; give more than 1, or 0.")
        if self.corrections == "" or (self.corrections_sha256 and not self.corrections):
            raise ValueError("corrections is empty; give the path of a file of corrections, or remove the key.")


@dataclass(frozen=True)
class Excluded:
    """The seconds of a recording that are in no window for one reason."""

    database: str
    record: str
    reason: str
    seconds: float


@dataclass(frozen=True, eq=False)
class WindowSet:
    """Windows of one length with their labels.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_windows, n_samples), float32, mV, preprocessed, at 125 Hz.
    database, record, lead, patient, rhythm, aha_class : numpy.ndarray
        Shape (n_windows,), strings.
    start_s : numpy.ndarray
        Shape (n_windows,), seconds from the start of the recording.
    window_s : float
        Length of every window in seconds.
    excluded : tuple of Excluded
        The seconds of these recordings that are in no window of the first lead.
    """

    ecg: np.ndarray
    database: np.ndarray
    record: np.ndarray
    lead: np.ndarray
    patient: np.ndarray
    rhythm: np.ndarray
    aha_class: np.ndarray
    start_s: np.ndarray
    window_s: float
    excluded: tuple[Excluded, ...] = ()

    def __len__(self) -> int:
        return len(self.ecg)

    def select(self, mask: np.ndarray) -> WindowSet:
        """Return the windows that a mask or an index array selects, without `excluded`."""
        return WindowSet(**{name: getattr(self, name)[mask] for name in ARRAY_FIELDS}, window_s=self.window_s)


ARRAY_FIELDS = tuple(f.name for f in fields(WindowSet) if f.name not in ("window_s", "excluded"))


def concatenate(sets: Iterable[WindowSet]) -> WindowSet:
    """Join window sets; raise ValueError if `sets` is empty, or if the windows differ in length."""
    sets = list(sets)
    lengths = sorted({s.window_s for s in sets})
    if len(lengths) != 1:
        raise ValueError(
            f"the sets have windows of {lengths!r} s; give one or more sets, with windows of the same length."
        )
    arrays = {name: np.concatenate([getattr(s, name) for s in sets]) for name in ARRAY_FIELDS}
    return WindowSet(**arrays, window_s=lengths[0], excluded=tuple(entry for s in sets for entry in s.excluded))


def cut_windows(
    recording: Recording,
    window_s: float,
    *,
    guard_s: float = 0.0,
    leads: str = "first",
    preprocessing: Preprocessing | None = None,
    policy: LabelPolicy | None = None,
    step_s: float | None = None,
) -> WindowSet:
    """Cut a labelled recording into windows, by default into windows that do not overlap.

    Parameters
    ----------
    recording : Recording
        A recording with its episodes.
    window_s : float
        Length of a window in seconds, 2 to 10.
    guard_s : float
        Smallest distance of a window from any change of rhythm, in seconds.
    leads : {"first", "all"}
        Which leads to cut.
    preprocessing : Preprocessing, optional
        Parameters of the preprocessing; the defaults if not given.
    policy : LabelPolicy, optional
        The limits between classes; the defaults if not given.
    step_s : float, optional
        Time from the start of a window to the start of the next window in the same episode, in seconds; `window_s` if
        not given. If `step_s` is shorter than `window_s`, windows overlap, and nothing is counted as excluded.

    Returns
    -------
    WindowSet
        The windows, ordered by lead, then by time.

    Raises
    ------
    ValueError
        If `window_s`, `leads` or `step_s` is not allowed, or an episode has an unknown rhythm.
    """
    if not MIN_WINDOW_S <= window_s <= MAX_WINDOW_S:
        raise ValueError(f"window_s={window_s!r} is out of range; allowed are {MIN_WINDOW_S:g} to {MAX_WINDOW_S:g} s.")
    if leads not in ("first", "all"):
        raise ValueError(f"leads={leads!r} is not allowed; choose 'first' or 'all'.")
    if step_s is not None and not 1 / FS <= step_s <= window_s:
        raise ValueError(f"step_s={step_s!r} is out of range; allowed are {1 / FS:g} s to the length of a window.")
    policy = policy or LabelPolicy()
    columns = range(len(recording.leads)) if leads == "all" else range(1)
    step_s = step_s or window_s
    return concatenate(_cut_lead(recording, c, window_s, step_s, guard_s, preprocessing, policy) for c in columns)


def _cut_lead(
    recording: Recording,
    column: int,
    window_s: float,
    step_s: float,
    guard_s: float,
    preprocessing: Preprocessing | None,
    policy: LabelPolicy,
) -> WindowSet:
    raw = recording.signal[:, column]
    filtered = preprocess(raw, recording.fs, preprocessing)
    invalid_before = np.concatenate([[0], np.cumsum(~np.isfinite(raw))])
    samples = round(window_s * FS)

    def holds_invalid(start_s: float) -> bool:
        first = max(0, int((start_s - SETTLING_S) * recording.fs))
        last = min(len(raw), int(np.ceil((start_s + window_s) * recording.fs)))
        return bool(invalid_before[last] > invalid_before[first])

    excluded: dict[str, float] = defaultdict(float)
    windows, starts, rhythms, classes = [], [], [], []
    for episode in _join_by_rhythm(recording.episodes):
        length = episode.end_s - episode.start_s
        if episode.rhythm in UNUSABLE:
            excluded[f"labelled {episode.rhythm}" if episode.rhythm == "noise" else "no label"] += length
            continue
        if episode.rhythm not in RHYTHMS:
            raise ValueError(f"episode of unknown rhythm {episode.rhythm!r}; known are {sorted(RHYTHMS)}.")
        count = 0
        duration_s = min(recording.duration_s, len(filtered) / FS)
        for start_s in _window_starts(episode, duration_s, window_s, step_s, guard_s):
            count += 1
            first = round(start_s * FS)
            window = filtered[first : first + samples]
            if holds_invalid(start_s):
                excluded["invalid samples"] += window_s
                continue
            rhythm, aha_class, reason = _label_at(recording, episode, filtered, start_s, window_s, policy)
            if reason:
                excluded[reason] += window_s
                continue
            windows.append(window)
            starts.append(start_s)
            rhythms.append(rhythm)
            classes.append(aha_class)
        excluded["within the guard, or shorter than a window"] += length - count * window_s
    excluded["no label"] += recording.duration_s - sum(e.end_s - e.start_s for e in recording.episodes)
    n = len(windows)
    return WindowSet(
        ecg=np.asarray(windows, dtype=np.float32).reshape(n, samples),
        database=np.full(n, recording.database),
        record=np.full(n, recording.name),
        lead=np.full(n, recording.leads[column]),
        patient=np.full(n, recording.patient),
        rhythm=np.asarray(rhythms, dtype=str),
        aha_class=np.asarray(classes, dtype=str),
        start_s=np.asarray(starts, dtype=np.float64),
        window_s=float(window_s),
        excluded=tuple(
            Excluded(recording.database, recording.name, reason, seconds)
            for reason, seconds in excluded.items()
            if column == 0 and seconds > ROUNDING and step_s == window_s
        ),
    )


@dataclass(frozen=True)
class WindowLabel:
    """The label of a window at a given place of a recording.

    Parameters
    ----------
    episode : Episode
        The episode around the window. Neighbouring episodes of the same rhythm are joined.
    rhythm : str
        The rhythm of the window.
    aha_class, reason : str
        The AHA class of the window and an empty text, or an empty text and the reason why the window has no class.
    """

    episode: Episode
    rhythm: str
    aha_class: str
    reason: str


def label_windows(
    recording: Recording,
    start_s: Iterable[float],
    window_s: float,
    *,
    guard_s: float = 0.0,
    preprocessing: Preprocessing | None = None,
    policy: LabelPolicy | None = None,
) -> list[WindowLabel | None]:
    """Label windows of the first lead that begin at given times.

    Parameters
    ----------
    recording : Recording
        A recording with its episodes.
    start_s : iterable of float
        Start of each window in seconds, at a whole sample at 125 Hz.
    window_s, guard_s, preprocessing, policy
        As for `cut_windows`.

    Returns
    -------
    list of (WindowLabel or None)
        The label of each window. None if the window is not within one episode, with the guard on both sides.
    """
    filtered = preprocess(recording.signal[:, 0], recording.fs, preprocessing)
    policy = policy or LabelPolicy()
    episodes = _join_by_rhythm(recording.episodes)
    found: list[WindowLabel | None] = []
    for start in start_s:
        spans = ((episode, _span(episode, recording.duration_s, guard_s)) for episode in episodes)
        around = [
            episode
            for episode, (first_s, last_s) in spans
            if first_s - ROUNDING <= start and start + window_s <= last_s + ROUNDING
        ]
        if not around:
            found.append(None)
        elif around[0].rhythm in UNUSABLE:
            found.append(WindowLabel(around[0], around[0].rhythm, "", f"labelled {around[0].rhythm}"))
        else:
            found.append(WindowLabel(around[0], *_label_at(recording, around[0], filtered, start, window_s, policy)))
    return found


def _label_at(
    recording: Recording, episode: Episode, filtered: np.ndarray, start_s: float, window_s: float, policy: LabelPolicy
) -> tuple[str, str, str]:
    """Return (rhythm, AHA class, "") of a window of an episode, or (rhythm, "", the reason to exclude it)."""
    if episode.aha_class:
        return episode.rhythm, episode.aha_class, ""
    first = round(start_s * FS)
    window = filtered[first : first + round(window_s * FS)]
    rhythm = _refine_rhythm(recording, episode.rhythm, start_s, start_s + window_s)
    around = _signal_around(filtered, episode, start_s, window_s)
    return rhythm, *_label_window(window, around, rhythm, recording, start_s, policy)


def _join_by_rhythm(episodes: Iterable[Episode]) -> list[Episode]:
    """Join neighbouring episodes of the same rhythm, even if their codes differ."""
    joined: list[Episode] = []
    for episode in episodes:
        last = joined[-1] if joined else None
        if last and (last.rhythm, last.aha_class, last.end_s) == (episode.rhythm, episode.aha_class, episode.start_s):
            joined[-1] = replace(last, end_s=episode.end_s)
        else:
            joined.append(episode)
    return joined


def _window_starts(
    episode: Episode, duration_s: float, window_s: float, step_s: float, guard_s: float
) -> Iterator[float]:
    """Yield the starts of an episode's windows in s, at whole samples at 125 Hz."""
    first_s, last_s = _span(episode, duration_s, guard_s)
    first_sample, step = math.ceil(first_s * FS - ROUNDING), math.ceil(step_s * FS - ROUNDING)
    for sample in range(first_sample, math.floor((last_s - window_s) * FS + ROUNDING) + 1, step):
        yield sample / FS


def _span(episode: Episode, duration_s: float, guard_s: float) -> tuple[float, float]:
    """Return the times in s between which windows of an episode can be cut.

    There is no guard at the ends of a recording, where the rhythm does not change, and none in a corrected segment,
    because its reader labelled exactly these seconds.
    """
    guard_s = 0.0 if episode.aha_class else guard_s
    first_s = episode.start_s + (guard_s if episode.start_s > 0 else 0.0)
    return first_s, min(episode.end_s - (guard_s if episode.end_s < duration_s else 0.0), duration_s)


def _signal_around(filtered: np.ndarray, episode: Episode, start_s: float, window_s: float) -> np.ndarray:
    """Return a window with the signal around it: `SLOW_VF_CONTEXT_S`, but no longer than the episode."""
    length_s = max(window_s, SLOW_VF_CONTEXT_S)
    first_s = max(episode.start_s, min(start_s + (window_s - length_s) / 2, episode.end_s - length_s))
    last_s = min(episode.end_s, first_s + length_s)
    return filtered[round(first_s * FS) : round(last_s * FS)]


def _refine_rhythm(recording: Recording, rhythm: str, start_s: float, end_s: float) -> str:
    """Return the rhythm of a window; sinus rhythm with annotated ectopic beats becomes ventricular or atrial ectopy."""
    if rhythm != "normal_sinus" or not len(recording.beats_s):
        return rhythm
    first, last = np.searchsorted(recording.beats_s, (start_s, end_s))
    codes = set(recording.beat_codes[first:last])
    if codes & VENTRICULAR_BEATS:
        return "ventricular_ectopy"
    if codes & ATRIAL_BEATS:
        return "atrial_ectopy"
    return rhythm


def _label_window(
    window: np.ndarray, around: np.ndarray, rhythm: str, recording: Recording, start_s: float, policy: LabelPolicy
) -> tuple[str, str]:
    """Return the AHA class of a window and an empty reason, or an empty class and the reason to exclude the window.

    `around` is the window with the signal around it.
    """
    if rhythm == "vf":
        if amplitude_mv(window) <= policy.coarse_vf_mv:
            return "fine_vf", ""
        return ("slow_vf" if _is_slow_vf(around, policy) else "coarse_vf"), ""
    if rhythm == "vt":
        bpm = rate_bpm(window)
        if np.isnan(bpm):
            return "", "VT without a measurable heart rate"
        if policy.vt_amplitude_ratio and _amplitude_ratio(window) > policy.vt_amplitude_ratio:
            return "", "VT whose amplitude changes"
        return ("rapid_vt" if bpm >= policy.rapid_vt_bpm else "other_vt"), ""
    if rhythm == "asystole":
        small = amplitude_mv(window) < policy.asystole_mv
        return ("asystole", "") if small else ("", f"labelled asystole, but over {policy.asystole_mv:g} mV")
    if rhythm == "organised":
        if not len(recording.beats_s):
            return _label_by_rate(window, policy)
        return _label_by_beats(recording, start_s, start_s + len(window) / FS, policy)
    return RHYTHMS[rhythm], ""


def _is_slow_vf(around: np.ndarray, policy: LabelPolicy) -> bool:
    if not policy.slow_vf_bpm:
        return False
    bpm, periodicity = rate_and_periodicity(around)
    return bpm < policy.slow_vf_bpm and periodicity >= policy.slow_vf_periodicity  # False if nothing was measured


def _amplitude_ratio(window: np.ndarray) -> float:
    """Return the amplitudes of the two halves of a window as a ratio, larger over smaller."""
    halves = amplitude_mv(window[: len(window) // 2 * 2].reshape(2, -1))
    return float(halves.max() / max(halves.min(), np.finfo(float).tiny))


def _label_by_beats(recording: Recording, start_s: float, end_s: float, policy: LabelPolicy) -> tuple[str, str]:
    """Label a window of unnamed rhythm from its annotated beats; see `_label_window` for the result."""
    # Beats just outside the window show whether the rhythm at its edges is the same.
    first, last = np.searchsorted(recording.beats_s, (start_s - MAX_BEAT_GAP_S, end_s + MAX_BEAT_GAP_S))
    beats = recording.beats_s[first:last]
    edges = np.concatenate([[start_s - MAX_BEAT_GAP_S], beats, [end_s + MAX_BEAT_GAP_S]])
    if np.diff(edges).max() > MAX_BEAT_GAP_S:
        return "", "rhythm not named, and no beats annotated"
    if 60.0 / np.median(np.diff(beats)) >= policy.rapid_vt_bpm:
        return "", "rhythm not named, and fast enough for VT"
    return RHYTHMS["organised"], ""


def _label_by_rate(window: np.ndarray, policy: LabelPolicy) -> tuple[str, str]:
    """Label a window of unnamed rhythm, without annotated beats, from its heart rate; see `_label_window`."""
    bpm = rate_bpm(window)
    if np.isnan(bpm):
        return "", "rhythm not named, and no measurable heart rate"
    if bpm >= policy.rapid_vt_bpm:
        return "", "rhythm not named, and fast enough for VT"
    return RHYTHMS["organised"], ""


def amplitude_mv(ecg: np.ndarray) -> np.ndarray:
    """Return the peak-to-peak amplitude of each window: the median over its complete seconds.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_samples,) or (n_windows, n_samples), mV, preprocessed, at 125 Hz; at least 1 s.

    Returns
    -------
    numpy.ndarray
        In mV, shape () or (n_windows,).

    Examples
    --------
    >>> print(amplitude_mv(np.sin(2 * np.pi * 5 * np.arange(625) / 125)).round(1))
    2.0
    """
    second = round(FS)
    seconds = ecg.shape[-1] // second
    blocks = ecg[..., : seconds * second].reshape(*ecg.shape[:-1], seconds, second)
    return np.median(np.ptp(blocks, axis=-1), axis=-1)


def rate_bpm(window: np.ndarray) -> float:
    """Return the heart rate of a fast regular rhythm, measured by autocorrelation.

    Parameters
    ----------
    window : numpy.ndarray
        Shape (n_samples,), mV, preprocessed, at 125 Hz.

    Returns
    -------
    float
        Beats per minute, 40 to 400; NaN if the window is not periodic. If every second beat differs in shape, half the
        heart rate may be returned.

    Examples
    --------
    >>> round(rate_bpm(np.sin(2 * np.pi * 3 * np.arange(625) / 125)))
    180
    """
    return rate_and_periodicity(window)[0]


def rate_and_periodicity(window: np.ndarray) -> tuple[float, float]:
    """Measure the heart rate of a window, and how periodic the window is.

    Parameters
    ----------
    window : numpy.ndarray
        Shape (n_samples,), mV, preprocessed, at 125 Hz.

    Returns
    -------
    bpm : float
        The heart rate, as `rate_bpm` returns it.
    periodicity : float
        The autocorrelation at the period, 0.25 to 1; NaN if the window has no period.

    Examples
    --------
    >>> bpm, periodicity = rate_and_periodicity(np.sin(2 * np.pi * 3 * np.arange(625) / 125))
    >>> round(bpm), round(periodicity, 2)
    (180, 1.0)
    """
    centred = window - window.mean()
    n = len(centred)
    power = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    correlation = np.fft.irfft(power)[:n] / np.arange(n, 0, -1)
    if correlation[0] <= 0:
        return math.nan, math.nan
    correlation /= correlation[0]
    slowest, fastest = VT_RATE_RANGE_BPM
    shortest = int(60 * FS / fastest)
    longest = min(int(60 * FS / slowest), n - 2)
    lags = np.arange(shortest, longest + 1)
    at, before, after = correlation[lags], correlation[lags - 1], correlation[lags + 1]
    peaks = lags[(at >= before) & (at > after) & (at >= MIN_PERIODICITY)]
    if not len(peaks):
        return math.nan, math.nan
    lag = peaks[correlation[peaks] >= PERIOD_PREFERENCE * correlation[peaks].max()][0]
    left, centre, right = correlation[lag - 1 : lag + 2]
    # Interpolated by a parabola through the peak and its neighbours: one sample is 8 ms, or 10 bpm at 270 bpm.
    bpm = 60 * FS / (lag + (right - left) / (2 * (2 * centre - left - right)))
    return float(bpm), float(centre)
