"""Evaluate alarms on complete records: detected events of shockable rhythm, delays and false alarms.

The episodes that `ecg_shock.scan` finds are checked against the annotated events of shockable rhythm (see
`ecg_shock.evaluation.reference`).

Detected event
    An event that overlaps with an episode of the scan. An episode is true if it overlaps with an event of any length.
False alarm
    Consider the time from an episode's onset until its alarm. The alarm is false if at least half of this time is
    annotated as nonshockable, and there is no shockable or intermediate segment within `TOLERANCE_S` of it.

    - If the episode of a false alarm continues into an event, the alarm is still false, and the event is detected.
    - Episodes that are neither true nor false are counted separately.
    - A false alarm is *doubtful* if the database does not name the rhythm there, and the annotated beats are missing or
      as fast as VT. Doubtful false alarms are counted.
Delay
    The time from the annotated onset of an event to the alarm of the first episode that overlaps with the event. Only
    events that follow a nonshockable rhythm have a known onset. Missed events, and events that begin while the alarm is
    on, have no delay and are counted separately.

These definitions follow the statistics for VF of ANSI/AAMI EC57 and IEC 60601-2-47, as far as they are known without
access to the standards. They are not a claim of conformity. Deviations:

- Events are shockable rhythm, which includes rapid VT. Intermediate rhythm is not counted.
- No learning period is excluded at the beginning of a record.
- Short events are not excluded. Sensitivity is given for events of each minimum length in `MIN_LENGTHS_S`.
- False alarms are counted per hour of nonshockable time.
- Confidence limits are added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ecg_shock.data.recordings import Recording
from ecg_shock.data.windows import MAX_BEAT_GAP_S, LabelPolicy
from ecg_shock.evaluation.confidence import (
    ALPHA,
    RESAMPLES,
    Proportion,
    check_bootstrap,
    compute_proportion,
    poisson_upper_limit,
    resample_patients,
)
from ecg_shock.evaluation.reference import (
    INTERMEDIATE_TIME,
    KINDS,
    NONSHOCKABLE_TIME,
    ROUNDING_S,
    SHOCKABLE_TIME,
    UNCOUNTED_TIME,
    ReferenceEvent,
    Segment,
    overlap_s,
    reference_events,
)
from ecg_shock.inference.scanning import Scan, ShockableEpisode

# An alarm is not false if a shockable or intermediate segment is within this time: the annotated onset of VF is as
# uncertain as that.
TOLERANCE_S = 5.0
# Minimum lengths of the counted events. An alarm at 5 of 8 needs five windows of 5 s in steps of 1 s, which cover 9 s.
# The headline is therefore for events of 10 s or longer.
MIN_LENGTHS_S = (0.0, 5.0, 10.0, 20.0)
HEADLINE_MIN_S = 10.0

MIN_NONSHOCKABLE = 0.5  # proportion of the time before a false alarm that is annotated as nonshockable
LATE_QUANTILE = 0.9  # of the delays, reported with the median

_HOUR_S = 3600.0


@dataclass(frozen=True)
class FalseAlarm:
    """A false alarm, as defined at the top of this module.

    Parameters
    ----------
    onset_s, end_s, alarm_s : float
        Onset, end and alarm of its episode, in seconds from the start of the recording.
    probability : float
        The episode's mean probability of *shockable*.
    rhythm : str
        The annotated rhythm during most of the time from the onset to the alarm.
    beats_bpm : float or None
        Annotated beats per minute from the onset to the alarm; None if the record has no annotated beats.
    doubtful : bool
        True if the database does not name the rhythm, and the annotated beats around the alarm are missing or as fast
        as VT.
    runs_into_event : bool
        True if its episode continues into an event.
    """

    onset_s: float
    end_s: float
    alarm_s: float
    probability: float
    rhythm: str
    beats_bpm: float | None
    doubtful: bool
    runs_into_event: bool


@dataclass(frozen=True)
class RecordEvents:
    """The result of an alarm rule on one record.

    Parameters
    ----------
    database, record, patient : str
        Names of the record and its patient.
    duration_s : float
        Length of the record in seconds.
    windows, unusable : int
        The numbers of windows and of unusable windows.
    shockable_s, intermediate_s, nonshockable_s, uncounted_s : float
        Seconds that are annotated as each kind.
    found_s, wrong_s : float
        Seconds of shockable and of nonshockable time that are inside episodes of the scan.
    true_alarms : int
        The number of episodes that overlap with an event.
    other_alarms : int
        The number of episodes that are neither true nor false alarms.
    events : tuple of ReferenceEvent
        All events, of any length, in order of time.
    false_alarms : tuple of FalseAlarm
        All false alarms, in order of time.
    """

    database: str
    record: str
    patient: str
    duration_s: float
    windows: int
    unusable: int
    shockable_s: float
    intermediate_s: float
    nonshockable_s: float
    uncounted_s: float
    found_s: float
    wrong_s: float
    true_alarms: int
    other_alarms: int
    events: tuple[ReferenceEvent, ...]
    false_alarms: tuple[FalseAlarm, ...]


@dataclass(frozen=True)
class LengthRow:
    """The proportion of detected events among those of a minimum length.

    Parameters
    ----------
    least_s : float
        Minimum length in seconds.
    rate : Proportion
        The proportion. Its `windows` is the number of events.
    """

    least_s: float
    rate: Proportion


@dataclass(frozen=True)
class EventFigures:
    """The pooled results of several records.

    A proportion or limit is None if its denominator is 0.

    Parameters
    ----------
    name : str
        A database, a patient, or ``"all"``.
    records, patients : int
        The numbers of records and patients.
    hours, shockable_hours, intermediate_hours, nonshockable_hours, uncounted_hours : float
        Hours of signal, and the hours that are annotated as each kind.
    unusable : float or None
        The proportion of unusable windows.
    by_length : tuple of LengthRow
        Sensitivity for events of each minimum length in `MIN_LENGTHS_S`.
    true_alarms, false_alarms, untrue_alarms, doubtful_alarms, other_alarms : int
        The numbers of episodes that overlap with an event; of all false alarms; of false alarms whose episode does not
        continue into an event; of doubtful false alarms; and of episodes that are neither true nor false.
    positive_predictivity : float or None
        ``true_alarms / (true_alarms + untrue_alarms)``.
    duration_sensitivity : float or None
        The proportion of shockable time that is inside episodes.
    duration_positive_predictivity : float or None
        Of the shockable and nonshockable time that is inside episodes, the proportion that is shockable.
    false_per_hour, false_per_hour_limit, false_per_hour_patient_limit : float or None
        False alarms per hour of nonshockable time, its exact upper Poisson limit, and its upper limit from resampled
        patients. The last is also None for a single patient, or if there are no false alarms.
    delays, early : int
        Of the detected events of `HEADLINE_MIN_S` or more with a known onset: the numbers of events with the alarm
        after the onset, and of events that begin while the alarm is on.
    delay_median_s, delay_late_s : float or None
        Median and 90th percentile of the delays in seconds, of events with the alarm after the onset.
    alarmed, never_alarmed : int
        Of the records with an event of `HEADLINE_MIN_S` or more: the numbers of records in which such an event is
        detected, and in which none is detected.
    first_alarm_median_s, first_alarm_late_s : float or None
        Median and 90th percentile of a time in seconds, over the `alarmed` records: from the start of the first event
        of `HEADLINE_MIN_S` or more, with known or unknown onset, to the first alarm for any such event. The time is 0
        if the alarm was already on.
    """

    name: str
    records: int
    patients: int
    hours: float
    shockable_hours: float
    intermediate_hours: float
    nonshockable_hours: float
    uncounted_hours: float
    unusable: float | None
    by_length: tuple[LengthRow, ...]
    true_alarms: int
    false_alarms: int
    untrue_alarms: int
    doubtful_alarms: int
    other_alarms: int
    positive_predictivity: float | None
    duration_sensitivity: float | None
    duration_positive_predictivity: float | None
    false_per_hour: float | None
    false_per_hour_limit: float | None
    false_per_hour_patient_limit: float | None
    delays: int
    early: int
    delay_median_s: float | None
    delay_late_s: float | None
    alarmed: int
    never_alarmed: int
    first_alarm_median_s: float | None
    first_alarm_late_s: float | None

    @property
    def headline(self) -> Proportion:
        """Sensitivity for events of `HEADLINE_MIN_S` or more."""
        return next(row.rate for row in self.by_length if row.least_s == HEADLINE_MIN_S)


def episode_events(
    scanned: Scan, recording: Recording, segments: Sequence[Segment], *, policy: LabelPolicy | None = None
) -> RecordEvents:
    """Check the episodes of a scan against the annotations.

    Parameters
    ----------
    scanned : Scan
        The scan of the recording.
    recording : Recording
        The recording; its database, name, patient and beats are used.
    segments : sequence of Segment
        The annotated segments of the recording; see `reference_segments`.
    policy : LabelPolicy, optional
        Its rate of rapid VT decides which false alarms are doubtful. By default ``LabelPolicy()``.
    """
    policy = policy or LabelPolicy()
    events = tuple(reference_events(segments, scanned.episodes))
    false_alarms, true_alarms, other_alarms = [], 0, 0
    for episode in scanned.episodes:
        is_true = any(overlap_s(episode.onset_s, episode.end_s, event.start_s, event.end_s) for event in events)
        true_alarms += is_true
        until_alarm = [(s, overlap_s(episode.onset_s, episode.alarm_s, s.start_s, s.end_s)) for s in segments]
        explained = any(
            overlap_s(episode.onset_s - TOLERANCE_S, episode.alarm_s + TOLERANCE_S, s.start_s, s.end_s)
            for s in segments
            if s.kind in (SHOCKABLE_TIME, INTERMEDIATE_TIME)
        )
        nonshockable_s = sum(shared_s for s, shared_s in until_alarm if s.kind == NONSHOCKABLE_TIME)
        if explained or nonshockable_s < MIN_NONSHOCKABLE * (episode.alarm_s - episode.onset_s):
            other_alarms += not is_true
            continue
        first, last = np.searchsorted(recording.beats_s, (episode.onset_s, episode.alarm_s))
        minutes = (episode.alarm_s - episode.onset_s) / 60
        by_rhythm: dict[str, float] = defaultdict(float)
        for segment, shared_s in until_alarm:
            by_rhythm[segment.rhythm] += shared_s
        rhythm = max(by_rhythm, key=lambda name: by_rhythm[name])
        false_alarms.append(
            FalseAlarm(
                onset_s=episode.onset_s,
                end_s=episode.end_s,
                alarm_s=episode.alarm_s,
                probability=episode.probability,
                rhythm=rhythm,
                beats_bpm=float(last - first) / minutes if len(recording.beats_s) else None,
                doubtful=rhythm == "organised" and _beats_are_doubtful(recording, scanned.duration_s, episode, policy),
                runs_into_event=is_true,
            )
        )
    seconds = {kind: sum(s.end_s - s.start_s for s in segments if s.kind == kind) for kind in KINDS}
    in_episodes = {
        kind: sum(
            overlap_s(episode.onset_s, episode.end_s, s.start_s, s.end_s)
            for episode in scanned.episodes
            for s in segments
            if s.kind == kind
        )
        for kind in (SHOCKABLE_TIME, NONSHOCKABLE_TIME)
    }
    return RecordEvents(
        database=recording.database,
        record=recording.name,
        patient=recording.patient,
        duration_s=scanned.duration_s,
        windows=len(scanned.start_s),
        unusable=int((~scanned.usable).sum()),
        shockable_s=float(seconds[SHOCKABLE_TIME]),
        intermediate_s=float(seconds[INTERMEDIATE_TIME]),
        nonshockable_s=float(seconds[NONSHOCKABLE_TIME]),
        uncounted_s=float(seconds[UNCOUNTED_TIME]),
        found_s=float(in_episodes[SHOCKABLE_TIME]),
        wrong_s=float(in_episodes[NONSHOCKABLE_TIME]),
        true_alarms=true_alarms,
        other_alarms=other_alarms,
        events=events,
        false_alarms=tuple(false_alarms),
    )


def _beats_are_doubtful(recording: Recording, end_s: float, episode: ShockableEpisode, policy: LabelPolicy) -> bool:
    """Return True if beats around an alarm are missing or as fast as VT, by the rule that also excludes windows."""
    span = max(episode.onset_s - MAX_BEAT_GAP_S, 0.0), min(episode.alarm_s + MAX_BEAT_GAP_S, end_s)
    first, last = np.searchsorted(recording.beats_s, span)
    beats = recording.beats_s[first:last]
    if np.diff(np.concatenate([span[:1], beats, span[1:]])).max() > MAX_BEAT_GAP_S:
        return True
    return len(beats) > 1 and bool(60.0 / np.median(np.diff(beats)) >= policy.rapid_vt_bpm)


def event_figures(
    records: Sequence[RecordEvents],
    name: str = "all",
    *,
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> EventFigures:
    """Pool the results of records.

    Parameters
    ----------
    records : sequence of RecordEvents
        The results of one alarm rule; may be empty.
    name : str
        Name of the group of records, such as their database.
    alpha, resamples, seed : float, int, int
        Error probability of the limits, one-sided; the number of resamples of the patient bootstrap, and its seed.
    """
    check_bootstrap(alpha, resamples)
    patients = list(dict.fromkeys(record.patient for record in records))
    number = {patient: i for i, patient in enumerate(patients)}

    def by_patient(values: Iterable[tuple[str, float]]) -> np.ndarray:
        sums = np.zeros(len(patients))
        for patient, value in values:
            sums[number[patient]] += value
        return sums

    by_length = []
    for least_s in MIN_LENGTHS_S:
        events = [(r.patient, e) for r in records for e in r.events if e.length_s >= least_s - ROUNDING_S]
        patient = np.array([number[name] for name, _ in events], dtype=int)
        detected = np.array([event.detected for _, event in events], dtype=bool)
        by_length.append(LengthRow(least_s, compute_proportion(patient, detected, alpha, resamples, seed)))

    false = sum(len(r.false_alarms) for r in records)
    exposure_s = sum(r.nonshockable_s for r in records)
    untrue = sum(not alarm.runs_into_event for r in records for alarm in r.false_alarms)
    true = sum(r.true_alarms for r in records)
    found_s, wrong_s = sum(r.found_s for r in records), sum(r.wrong_s for r in records)
    counts = by_patient((r.patient, len(r.false_alarms)) for r in records)
    seconds = by_patient((r.patient, r.nonshockable_s) for r in records)

    long_events = [[e for e in r.events if e.length_s >= HEADLINE_MIN_S - ROUNDING_S] for r in records]
    known = [e.delay_s for found in long_events for e in found if e.onset_known and e.delay_s is not None]
    delays = [delay_s for delay_s in known if delay_s > 0]
    first_alarms = []
    for found in long_events:
        alarms = [e.start_s + e.delay_s for e in found if e.delay_s is not None]
        if alarms:
            first_alarms.append(max(min(alarms) - found[0].start_s, 0.0))
    return EventFigures(
        name=name,
        records=len(records),
        patients=len(patients),
        hours=sum(r.duration_s for r in records) / _HOUR_S,
        shockable_hours=sum(r.shockable_s for r in records) / _HOUR_S,
        intermediate_hours=sum(r.intermediate_s for r in records) / _HOUR_S,
        nonshockable_hours=exposure_s / _HOUR_S,
        uncounted_hours=sum(r.uncounted_s for r in records) / _HOUR_S,
        unusable=_ratio(sum(r.unusable for r in records), sum(r.windows for r in records)),
        by_length=tuple(by_length),
        true_alarms=true,
        false_alarms=false,
        untrue_alarms=untrue,
        doubtful_alarms=sum(alarm.doubtful for r in records for alarm in r.false_alarms),
        other_alarms=sum(r.other_alarms for r in records),
        positive_predictivity=_ratio(true, true + untrue),
        duration_sensitivity=_ratio(found_s, sum(r.shockable_s for r in records)),
        duration_positive_predictivity=_ratio(found_s, found_s + wrong_s),
        false_per_hour=_ratio(false * _HOUR_S, exposure_s),
        false_per_hour_limit=_ratio(poisson_upper_limit(false, alpha) * _HOUR_S, exposure_s),
        false_per_hour_patient_limit=_hourly_limit_by_patient(counts, seconds, alpha, resamples, seed),
        delays=len(delays),
        early=len(known) - len(delays),
        delay_median_s=_quantile(delays, 0.5),
        delay_late_s=_quantile(delays, LATE_QUANTILE),
        alarmed=len(first_alarms),
        never_alarmed=sum(bool(found) for found in long_events) - len(first_alarms),
        first_alarm_median_s=_quantile(first_alarms, 0.5),
        first_alarm_late_s=_quantile(first_alarms, LATE_QUANTILE),
    )


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator > 0 else None


def _quantile(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def _hourly_limit_by_patient(
    counts: np.ndarray, seconds: np.ndarray, alpha: float, resamples: int, seed: int
) -> float | None:
    """Compute the upper limit of events per hour from resampled patients."""
    observed = seconds > 0
    if observed.sum() < 2 or not counts[observed].any():
        return None
    # `resample_patients` takes integers, so the time is in milliseconds.
    both = np.stack([counts[observed], np.round(1000 * seconds[observed])], axis=1).astype(np.int64)
    events, exposure_ms = resample_patients(both, resamples, np.random.default_rng(seed)).T
    return float(np.quantile(events / exposure_ms, 1 - alpha)) * 1000 * _HOUR_S
