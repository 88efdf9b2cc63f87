"""Find the annotated events of shockable rhythm, which alarms are checked against.

A recording is divided into segments of one annotated rhythm. Each segment is classified by the same rules as windows.
Its rate and amplitude, which the databases do not give, are the medians over windows of the segment:

- Coarse VF, and VT of 150 bpm or more, are shockable.
- Fine VF, slower VT and VT without a measurable rate are intermediate.
- Noise, unlabelled time, and annotated asystole whose amplitude is too large, are not counted.

Adjacent shockable segments form one *event*; any other segment, such as noise, ends the event. In cudb, all time
outside VF counts as nonshockable, although it contains unlabelled VT. `ecg_shock.evaluation.events` marks false alarms
in such time as doubtful.
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
from ecg_shock.rhythms import NONSHOCKABLE, RHYTHMS, SHOCKABLE, UNUSABLE

SHOCKABLE_TIME, INTERMEDIATE_TIME, NONSHOCKABLE_TIME, UNCOUNTED_TIME = (
    "shockable",
    "intermediate",
    "nonshockable",
    "uncounted",
)
KINDS = (SHOCKABLE_TIME, INTERMEDIATE_TIME, NONSHOCKABLE_TIME, UNCOUNTED_TIME)
CLASSES_OF = {SHOCKABLE_TIME: SHOCKABLE, NONSHOCKABLE_TIME: NONSHOCKABLE}

MIN_MEASURED_S = 1.0  # shortest signal for measuring rate and amplitude
ROUNDING_S = 1e-6


@dataclass(frozen=True)
class Segment:
    """A segment of one annotated rhythm.

    Parameters
    ----------
    start_s, end_s : float
        Seconds from the start of the recording.
    kind : {"shockable", "intermediate", "nonshockable", "uncounted"}
        The class of the segment.
    rhythm : str
        The annotated rhythm.
    """

    start_s: float
    end_s: float
    kind: str
    rhythm: str


@dataclass(frozen=True)
class ReferenceEvent:
    """An annotated event of shockable rhythm, and whether it was detected.

    Parameters
    ----------
    start_s, end_s : float
        Seconds from the start of the recording.
    rhythm : str
        The annotated rhythms in the event, separated by commas, in order of time.
    detected : bool
        True if an episode of the scan overlaps with the event.
    delay_s : float or None
        Seconds from the start of the event to the alarm; negative if the alarm was already on, None if the event was
        missed.
    onset_known : bool
        True if the event directly follows a nonshockable rhythm. At the start of the record, and after noise or an
        intermediate rhythm, the onset is unknown.
    """

    start_s: float
    end_s: float
    rhythm: str
    detected: bool
    delay_s: float | None
    onset_known: bool

    @property
    def length_s(self) -> float:
        """Length of the event in seconds."""
        return self.end_s - self.start_s


def reference_segments(
    recording: Recording,
    window_s: float,
    step_s: float,
    *,
    preprocessing: Preprocessing | None = None,
    policy: LabelPolicy | None = None,
) -> tuple[Segment, ...]:
    """Divide a recording into segments of one annotated rhythm, and classify each.

    Parameters
    ----------
    recording : Recording
        The recording; rate and amplitude are measured on its first lead.
    window_s, step_s : float
        Length of the windows that are measured, and the step between their starts, in seconds. A segment shorter than
        `window_s` is measured as one window; below 1 s, the 1 s of signal around its middle is measured.
    preprocessing : Preprocessing, optional
        The filter. By default ``Preprocessing()``.
    policy : LabelPolicy, optional
        The limits between classes. By default ``LabelPolicy()``.

    Returns
    -------
    tuple of Segment
        The segments in order of time, without gaps. Time without a label has the rhythm ``"unlabelled"``.

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
    measured = {"vf", "vt", "asystole"} & {rhythm for _, _, rhythm, aha_class in spans if not aha_class}
    raw = recording.signal[:, 0]
    filtered = preprocess(raw, recording.fs, preprocessing) if measured else np.empty(0)

    def kind_of(start_s: float, end_s: float, rhythm: str, aha_class: str) -> str:
        if aha_class:  # of a human reader
            return next((kind for kind, classes in CLASSES_OF.items() if aha_class in classes), INTERMEDIATE_TIME)
        if rhythm in UNUSABLE:
            return UNCOUNTED_TIME
        if rhythm not in measured:
            return NONSHOCKABLE_TIME if RHYTHMS[rhythm] in NONSHOCKABLE else UNCOUNTED_TIME
        windows = _windows(raw, recording.fs, filtered, (start_s, end_s), window_s, step_s)
        if rhythm == "vf":
            return SHOCKABLE_TIME if np.median(amplitude_mv(windows)) > policy.coarse_vf_mv else INTERMEDIATE_TIME
        if rhythm == "asystole":
            return NONSHOCKABLE_TIME if np.median(amplitude_mv(windows)) < policy.asystole_mv else UNCOUNTED_TIME
        rates = np.array([rate_bpm(window) for window in windows])
        rates = rates[np.isfinite(rates)]
        return SHOCKABLE_TIME if len(rates) and np.median(rates) >= policy.rapid_vt_bpm else INTERMEDIATE_TIME

    return tuple(Segment(span[0], span[1], kind_of(*span), span[2]) for span in spans)


def reference_events(segments: Sequence[Segment], episodes: Sequence[ShockableEpisode]) -> Iterator[ReferenceEvent]:
    """Join adjacent shockable segments into events, and find the first episode that overlaps with each event.

    Segments and episodes must be in order of time; so are the events.
    """
    previous_kind = ""
    for kind, adjacent in groupby(segments, key=lambda segment: segment.kind):
        joined = list(adjacent)
        if kind == SHOCKABLE_TIME:
            start_s, end_s = joined[0].start_s, joined[-1].end_s
            hit = next((e for e in episodes if overlap_s(e.onset_s, e.end_s, start_s, end_s)), None)
            yield ReferenceEvent(
                start_s=start_s,
                end_s=end_s,
                rhythm=", ".join(dict.fromkeys(segment.rhythm for segment in joined)),
                detected=hit is not None,
                delay_s=hit.alarm_s - start_s if hit else None,
                onset_known=previous_kind == NONSHOCKABLE_TIME,
            )
        previous_kind = kind


def overlap_s(start_s: float, end_s: float, other_start_s: float, other_end_s: float) -> float:
    """Return the overlap of two intervals of time in seconds; 0 if they only touch."""
    shared_s = min(end_s, other_end_s) - max(start_s, other_start_s)
    return shared_s if shared_s > ROUNDING_S else 0.0


def _annotated_spans(recording: Recording) -> list[tuple[float, float, str, str]]:
    """List start, end, rhythm and the reader's class of the episodes and of the gaps between them; join equal ones."""
    spans: list[tuple[float, float, str, str]] = []

    def add(start_s: float, end_s: float, rhythm: str, aha_class: str = "") -> None:
        if end_s - start_s <= ROUNDING_S:
            return
        if spans and spans[-1][2:] == (rhythm, aha_class):
            start_s = spans.pop()[0]
        spans.append((start_s, end_s, rhythm, aha_class))

    labelled_s = 0.0
    for episode in recording.episodes:
        if episode.rhythm not in RHYTHMS and episode.rhythm not in UNUSABLE:
            raise ValueError(f"an episode has the rhythm {episode.rhythm!r}; allowed are {[*RHYTHMS, *UNUSABLE]}.")
        add(labelled_s, episode.start_s, "unlabelled")
        add(episode.start_s, episode.end_s, episode.rhythm, episode.aha_class)
        labelled_s = episode.end_s
    add(labelled_s, recording.duration_s, "unlabelled")
    return spans


def _windows(
    raw: np.ndarray, fs: float, filtered: np.ndarray, span_s: tuple[float, float], window_s: float, step_s: float
) -> np.ndarray:
    """Cut a segment into windows to measure; skip windows with invalid samples, unless all have invalid samples."""
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
