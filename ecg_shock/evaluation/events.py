"""What an alarm does on whole records: which events of shockable rhythm it finds, how late, and how often it is false.

Nothing is selected beforehand: every window of a record is predicted, and the episodes of `ecg_shock.scan` are checked
against the record's annotations, see `ecg_shock.evaluation.reference`.

Detected
    An event is detected if any episode of the scan overlaps with it, and an episode is true if it overlaps with any
    event, however short.
False alarm
    The alarm rests on the time from its episode's onset until it is raised. It is false if no shockable or intermediate
    segment lies within `TOLERANCE_S` of that time, and at least half of it is annotated as nonshockable. What is
    neither true nor false is counted by itself. An alarm that is false when raised stays false if its episode runs on
    into an event, which it then detects. A false alarm is *doubtful*, and counts all the same, where the rhythm is not
    named and the annotated beats are missing or as fast as VT: windows are excluded there.
Delay
    From the annotated onset of an event to the alarm of the first episode that overlaps with it. Onsets count that
    follow a nonshockable rhythm. Missed events have no delay, nor have those with the alarm on before; both are
    counted.

Deviations from the statistics for VF of ANSI/AAMI EC57 and IEC 60601-2-47, which were not at hand and are followed from
memory; so this is no claim of conformity:

- Shockable rhythm is the reference, VT from a rate on included, and intermediate rhythm is in no count.
- No learning period is excluded at the beginning of a record.
- Short events are not excluded, but sensitivity is given by the least length of the events, see `MIN_LENGTHS_S`.
- False alarms are counted by the time when they are raised, and by hour of nonshockable time.
- Limits of confidence are added.
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
    poisson_upper_limit,
    proportion_of,
    resample_patients,
)
from ecg_shock.evaluation.reference import (
    BETWEEN,
    KINDS,
    NO_SHOCK,
    ROUNDING_S,
    SHOCK,
    UNCOUNTED,
    ReferenceEvent,
    Segment,
    overlap_s,
    reference_events,
)
from ecg_shock.inference.scanning import Scan, ShockableEpisode

# How far from an alarm's time a shockable or intermediate segment explains it. It is the guard of cudb, the widest of
# our manifests: where the onset of VF was annotated is this uncertain.
TOLERANCE_S = 5.0
# Lengths from which on events are counted. An alarm at 5 of 8 windows of 5 s, a second apart, needs 9 s to rest on
# windows that are whole within the event, so that the headline is events of 10 s and more.
MIN_LENGTHS_S = (0.0, 5.0, 10.0, 20.0)
HEADLINE_MIN_S = 10.0

MIN_NONSHOCKABLE = 0.5  # share of an alarm's time in nonshockable rhythm from which on it can be false
LATE = 0.9  # quantile of the delays that is given beside the median

_HOUR_S = 3600.0


@dataclass(frozen=True)
class FalseAlarm:
    """An alarm that nothing in the annotations explains.

    Parameters
    ----------
    onset_s, end_s, alarm_s : float
        Of the scan's episode, in seconds from the start of the recording.
    probability : float
        Its mean probability of *shockable*.
    rhythm : str
        What is annotated over most of the time from the onset to the alarm.
    beats_bpm : float or None
        Annotated beats a minute between the onset and the alarm; None where the record has no annotated beats.
    doubtful : bool
        The rhythm is not named, and the annotated beats around the alarm are missing or as fast as VT.
    runs_into_event : bool
        Whether its episode goes on into a shockable event.
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
    """What an alarm rule makes of one record.

    Parameters
    ----------
    database, record, patient : str
        Which one.
    duration_s : float
        Length in seconds.
    windows, unusable : int
        All windows, and those that could not be predicted.
    shockable_s, intermediate_s, nonshockable_s, uncounted_s : float
        How much of the record is annotated as what, in seconds.
    found_s, wrong_s : float
        Seconds of shockable and of nonshockable time that lie in episodes of the scan.
    true_alarms : int
        Episodes that overlap with an event.
    other_alarms : int
        Episodes that are neither true nor false alarms.
    events : tuple of ReferenceEvent
        In order of time, of any length.
    false_alarms : tuple of FalseAlarm
        In order of time.
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
    """How many events of some length and more were detected.

    Parameters
    ----------
    least_s : float
        Length in seconds.
    rate : Proportion
        Of events instead of windows.
    """

    least_s: float
    rate: Proportion


@dataclass(frozen=True)
class EventFigures:
    """The figures of several records, pooled. Shares are None where there is nothing that they could be of.

    Parameters
    ----------
    name : str
        A database, a patient, or ``"all"``.
    records, patients : int
        How many.
    hours, shockable_hours, intermediate_hours, nonshockable_hours, uncounted_hours : float
        Of signal, and of each kind of annotation.
    unusable : float or None
        Proportion of the windows that could not be predicted.
    by_length : tuple of LengthRow
        Sensitivity for events, for each of `MIN_LENGTHS_S`.
    true_alarms, false_alarms, untrue_alarms, doubtful_alarms, other_alarms : int
        Episodes that overlap with an event; alarms that are false when raised, those of them whose episode does not
        run into an event, and those that are doubtful; and episodes that are neither true nor false.
    positive_predictivity : float or None
        Share of true episodes among those that are true or untrue.
    duration_sensitivity : float or None
        Share of the shockable time that lies in episodes.
    duration_positive_predictivity : float or None
        Share of the episodes' time that is shockable, of what is shockable or nonshockable.
    false_per_hour, false_per_hour_limit, false_per_hour_patient_limit : float or None
        False alarms by hour of nonshockable time, its exact upper Poisson limit, and the upper limit from resampling
        patients, which is None too where a single patient or no false alarm leaves nothing to resample.
    delays, early : int
        Detected events of `HEADLINE_MIN_S` and more with a known onset: those with the alarm after it, and those with
        the alarm on before.
    delay_median_s, delay_late_s : float or None
        Median and 90th percentile of the delays of the former in seconds.
    alarmed, never_alarmed : int
        Records with an event of `HEADLINE_MIN_S` and more of which one was detected, and those of which none was.
    first_alarm_median_s, first_alarm_late_s : float or None
        Median and 90th percentile of the time from the start of a record's first such event, be its onset known or
        not, to the first alarm for any such event, over the records with an alarm; 0 for one that was on before.
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
        """Sensitivity for events of `HEADLINE_MIN_S` and more."""
        return next(row.rate for row in self.by_length if row.least_s == HEADLINE_MIN_S)


def episode_events(
    scanned: Scan, recording: Recording, segments: Sequence[Segment], *, policy: LabelPolicy | None = None
) -> RecordEvents:
    """Check the episodes of a scan against what is annotated.

    Parameters
    ----------
    scanned : Scan
        Of the recording.
    recording : Recording
        Its database, name, patient and beats are used.
    segments : sequence of Segment
        Of the recording, see `reference_segments`.
    policy : LabelPolicy, optional
        Its rate of rapid VT tells which false alarms are doubtful; the defaults if not given.
    """
    policy = policy or LabelPolicy()
    events = tuple(reference_events(segments, scanned.episodes))
    false_alarms, true_alarms, other_alarms = [], 0, 0
    for episode in scanned.episodes:
        meets = any(overlap_s(episode.onset_s, episode.end_s, event.start_s, event.end_s) for event in events)
        true_alarms += meets
        rests_on = [(s, overlap_s(episode.onset_s, episode.alarm_s, s.start_s, s.end_s)) for s in segments]
        explained = any(
            overlap_s(episode.onset_s - TOLERANCE_S, episode.alarm_s + TOLERANCE_S, s.start_s, s.end_s)
            for s in segments
            if s.kind in (SHOCK, BETWEEN)
        )
        in_no_shock = sum(shared_s for s, shared_s in rests_on if s.kind == NO_SHOCK)
        if explained or in_no_shock < MIN_NONSHOCKABLE * (episode.alarm_s - episode.onset_s):
            other_alarms += not meets
            continue
        first, last = np.searchsorted(recording.beats_s, (episode.onset_s, episode.alarm_s))
        minutes = (episode.alarm_s - episode.onset_s) / 60
        by_rhythm: dict[str, float] = defaultdict(float)
        for segment, shared_s in rests_on:
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
                runs_into_event=meets,
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
        for kind in (SHOCK, NO_SHOCK)
    }
    return RecordEvents(
        database=recording.database,
        record=recording.name,
        patient=recording.patient,
        duration_s=scanned.duration_s,
        windows=len(scanned.start_s),
        unusable=int((~scanned.usable).sum()),
        shockable_s=float(seconds[SHOCK]),
        intermediate_s=float(seconds[BETWEEN]),
        nonshockable_s=float(seconds[NO_SHOCK]),
        uncounted_s=float(seconds[UNCOUNTED]),
        found_s=float(in_episodes[SHOCK]),
        wrong_s=float(in_episodes[NO_SHOCK]),
        true_alarms=true_alarms,
        other_alarms=other_alarms,
        events=events,
        false_alarms=tuple(false_alarms),
    )


def _beats_are_doubtful(recording: Recording, end_s: float, episode: ShockableEpisode, policy: LabelPolicy) -> bool:
    """Say whether beats around an alarm are missing or as fast as VT, by the rule that excludes windows."""
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
    """Pool records into figures.

    Parameters
    ----------
    records : sequence of RecordEvents
        Of one alarm rule; it may be empty.
    name : str
        What they have in common.
    alpha, resamples, seed : float, int, int
        Error probability of the limits, one-sided, and what the patient bootstrap is done with.
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
        by_length.append(LengthRow(least_s, proportion_of(patient, detected, alpha, resamples, seed)))

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
        unusable=_share(sum(r.unusable for r in records), sum(r.windows for r in records)),
        by_length=tuple(by_length),
        true_alarms=true,
        false_alarms=false,
        untrue_alarms=untrue,
        doubtful_alarms=sum(alarm.doubtful for r in records for alarm in r.false_alarms),
        other_alarms=sum(r.other_alarms for r in records),
        positive_predictivity=_share(true, true + untrue),
        duration_sensitivity=_share(found_s, sum(r.shockable_s for r in records)),
        duration_positive_predictivity=_share(found_s, found_s + wrong_s),
        false_per_hour=_share(false * _HOUR_S, exposure_s),
        false_per_hour_limit=_share(poisson_upper_limit(false, alpha) * _HOUR_S, exposure_s),
        false_per_hour_patient_limit=_rate_limit_by_patient(counts, seconds, alpha, resamples, seed),
        delays=len(delays),
        early=len(known) - len(delays),
        delay_median_s=_quantile(delays, 0.5),
        delay_late_s=_quantile(delays, LATE),
        alarmed=len(first_alarms),
        never_alarmed=sum(bool(found) for found in long_events) - len(first_alarms),
        first_alarm_median_s=_quantile(first_alarms, 0.5),
        first_alarm_late_s=_quantile(first_alarms, LATE),
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _quantile(delays_s: Sequence[float], share: float) -> float | None:
    return float(np.quantile(delays_s, share)) if len(delays_s) else None


def _rate_limit_by_patient(
    counts: np.ndarray, seconds: np.ndarray, alpha: float, resamples: int, seed: int
) -> float | None:
    """Return the upper limit of events an hour from resampled patients."""
    there = seconds > 0
    if there.sum() < 2 or not counts[there].any():
        return None
    # The draws count whole numbers: milliseconds lose nothing.
    both = np.stack([counts[there], np.round(1000 * seconds[there])], axis=1).astype(np.int64)
    events, exposure_ms = resample_patients(both, resamples, np.random.default_rng(seed)).T
    return float(np.quantile(events / exposure_ms, 1 - alpha)) * 1000 * _HOUR_S
