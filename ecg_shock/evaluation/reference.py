"""What the annotations of a whole record call for: the reference that alarms are checked against.

A segment of one annotated rhythm is shockable, intermediate or nonshockable by the label policy, as windows are; but
what a database does not say is measured once for the whole segment, as the median over its windows. So coarse VF, and
VT from 150 bpm on, are shockable; fine VF, other VT and VT without a rate are intermediate. Noise, unlabelled time, and
what is labelled asystole but is larger, are not counted. Neighbouring shockable segments are one *event*, which
anything else ends, noise too. The time of cudb outside its VF is nonshockable, although VT stands there that is not
labelled; `ecg_shock.evaluation.events` marks false alarms there as doubtful.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ecg_shock.data.recordings import Recording
from ecg_shock.data.windows import LabelPolicy, amplitude_mv, rate_bpm
from ecg_shock.inference.scanning import ShockableEpisode
from ecg_shock.preprocessing import FS, Preprocessing, preprocess
from ecg_shock.rhythms import NONSHOCKABLE, RHYTHMS, UNUSABLE

SHOCK, BETWEEN, NO_SHOCK, UNCOUNTED = "shockable", "intermediate", "nonshockable", "uncounted"
KINDS = (SHOCK, BETWEEN, NO_SHOCK, UNCOUNTED)

MIN_MEASURED_S = 1.0  # of signal that rate and amplitude are measured in, even if the segment is shorter
ROUNDING_S = 1e-6


@dataclass(frozen=True)
class Segment:
    """A segment of one annotated rhythm, and what it calls for.

    Parameters
    ----------
    start_s, end_s : float
        Seconds from the start of the recording.
    kind : {"shockable", "intermediate", "nonshockable", "uncounted"}
        By the label policy, measured where the database does not say.
    rhythm : str
        As annotated.
    """

    start_s: float
    end_s: float
    kind: str
    rhythm: str


@dataclass(frozen=True)
class ReferenceEvent:
    """An annotated episode of shockable rhythm, and whether it was found.

    Parameters
    ----------
    start_s, end_s : float
        Seconds from the start of the recording.
    rhythm : str
        The rhythms that it is made of, in order of their first appearance.
    detected : bool
        Whether an episode of the scan overlaps with it.
    delay_s : float or None
        From its start to the alarm, below 0 if that was on before; None if it was missed.
    onset_known : bool
        Whether it follows a nonshockable rhythm at once. The record's first segment, and what follows noise or an
        intermediate rhythm, began at an unknown time.
    """

    start_s: float
    end_s: float
    rhythm: str
    detected: bool
    delay_s: float | None
    onset_known: bool

    @property
    def length_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def reference_segments(
    recording: Recording,
    window_s: float,
    step_s: float,
    *,
    preprocessing: Preprocessing | None = None,
    policy: LabelPolicy | None = None,
) -> tuple[Segment, ...]:
    """Say of each annotated segment of a recording what it calls for.

    Parameters
    ----------
    recording : Recording
        With its episodes; rate and amplitude are measured on the first lead.
    window_s, step_s : float
        Length of the windows to measure in, and from one to the next, in seconds. A segment that is shorter than a
        window is measured as a whole, and one of less than a second in the second around its middle.
    preprocessing : Preprocessing, optional
        The filter; the defaults if not given.
    policy : LabelPolicy, optional
        The limits between classes; the defaults if not given.

    Returns
    -------
    tuple of Segment
        They cover the recording in order, one for each rhythm; time without any label is ``"unlabelled"``.

    Raises
    ------
    ValueError
        If an episode has an unknown rhythm.

    Examples
    --------
    >>> from ecg_shock.data.recordings import Episode
    >>> ecg = np.sin(2 * np.pi * 5 * np.arange(5000) / 250)[:, None]
    >>> vf = Recording(signal=ecg, fs=250.0, leads=("II",), episodes=(Episode(0.0, 12.0, "vf"),))
    >>> [segment.kind for segment in reference_segments(vf, 5.0, 1.0)]
    ['shockable', 'uncounted']
    """
    policy = policy or LabelPolicy()
    spans = _annotated_spans(recording)
    measured = {"vf", "vt", "asystole"} & {rhythm for _, _, rhythm in spans}
    raw = recording.signal[:, 0]
    filtered = preprocess(raw, recording.fs, preprocessing) if measured else np.empty(0)

    def kind_of(start_s: float, end_s: float, rhythm: str) -> str:
        if rhythm in UNUSABLE:
            return UNCOUNTED
        if rhythm not in measured:
            return NO_SHOCK if RHYTHMS[rhythm] in NONSHOCKABLE else UNCOUNTED
        windows = _windows(raw, recording.fs, filtered, (start_s, end_s), window_s, step_s)
        if rhythm == "vf":
            return SHOCK if np.median(amplitude_mv(windows)) > policy.coarse_vf_mv else BETWEEN
        if rhythm == "asystole":
            return NO_SHOCK if np.median(amplitude_mv(windows)) < policy.asystole_mv else UNCOUNTED
        rates = np.array([rate_bpm(window) for window in windows])
        rates = rates[np.isfinite(rates)]
        return SHOCK if len(rates) and np.median(rates) >= policy.rapid_vt_bpm else BETWEEN

    return tuple(Segment(start_s, end_s, kind_of(start_s, end_s, rhythm), rhythm) for start_s, end_s, rhythm in spans)


def reference_events(segments: Sequence[Segment], episodes: Sequence[ShockableEpisode]) -> Iterator[ReferenceEvent]:
    """Join neighbouring shockable segments into events, and look for the first episode that overlaps with each.

    Segments, episodes and events are in order of time; events are of any length.
    """
    before = ""
    for kind, neighbours in groupby(segments, key=lambda segment: segment.kind):
        joined = list(neighbours)
        if kind == SHOCK:
            start_s, end_s = joined[0].start_s, joined[-1].end_s
            hit = next((e for e in episodes if overlap_s(e.onset_s, e.end_s, start_s, end_s)), None)
            yield ReferenceEvent(
                start_s=start_s,
                end_s=end_s,
                rhythm=", ".join(dict.fromkeys(segment.rhythm for segment in joined)),
                detected=hit is not None,
                delay_s=hit.alarm_s - start_s if hit else None,
                onset_known=before == NO_SHOCK,
            )
        before = kind


def overlap_s(start_s: float, end_s: float, other_start_s: float, other_end_s: float) -> float:
    """Return how many seconds two spans of time share; 0 where they only touch."""
    shared_s = min(end_s, other_end_s) - max(start_s, other_start_s)
    return shared_s if shared_s > ROUNDING_S else 0.0


def _annotated_spans(recording: Recording) -> list[tuple[float, float, str]]:
    """List start, end and rhythm of what is annotated, with the gaps between; other codes of one rhythm are joined."""
    spans: list[tuple[float, float, str]] = []

    def add(start_s: float, end_s: float, rhythm: str) -> None:
        if end_s - start_s <= ROUNDING_S:
            return
        if spans and spans[-1][2] == rhythm:
            start_s = spans.pop()[0]
        spans.append((start_s, end_s, rhythm))

    labelled_s = 0.0
    for episode in recording.episodes:
        if episode.rhythm not in RHYTHMS and episode.rhythm not in UNUSABLE:
            raise ValueError(f"episode of unknown rhythm {episode.rhythm!r}; known are {sorted(RHYTHMS)}.")
        add(labelled_s, episode.start_s, "unlabelled")
        add(episode.start_s, episode.end_s, episode.rhythm)
        labelled_s = episode.end_s
    add(labelled_s, recording.duration_s, "unlabelled")
    return spans


def _windows(
    raw: np.ndarray, fs: float, filtered: np.ndarray, span_s: tuple[float, float], window_s: float, step_s: float
) -> np.ndarray:
    """Cut a segment into windows to measure in, those without invalid samples if there are any."""
    first, last = (min(round(time_s * FS), len(filtered)) for time_s in span_s)
    shortest = min(round(MIN_MEASURED_S * FS), len(filtered))
    samples = max(min(round(window_s * FS), last - first), shortest)
    if last - first < samples:
        first = min(max((first + last - samples) // 2, 0), len(filtered) - samples)
        last = first + samples
    starts = np.arange(first, last - samples + 1, max(round(step_s * FS), 1))
    invalid = np.concatenate([[0], np.cumsum(~np.isfinite(raw))])
    begin, end = (np.clip(np.round(at / FS * fs).astype(int), 0, len(raw)) for at in (starts, starts + samples))
    valid = invalid[end] == invalid[begin]
    chosen = starts[valid] if valid.any() else starts
    return filtered[chosen[:, None] + np.arange(samples)]
