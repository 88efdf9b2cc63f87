"""Whole records: which episodes of shockable rhythm an alarm finds, how late, and how often it is false.

Nothing is chosen beforehand: every window of a record is judged, and what the record's annotations say is held against
the episodes of `ecg_shock.scan`.

Reference
    A stretch of one annotated rhythm is shockable, intermediate or nonshockable by the label policy, as windows are;
    but what a database does not say is measured once for the whole stretch, as the median over its windows. So coarse
    VF, and VT from 150 bpm on, are shockable; fine VF, other VT and VT without a rate are intermediate. Noise,
    unlabelled time, and what is labelled asystole but is larger, are not counted. Neighbouring shockable stretches are
    one *event*, which anything else ends, noise too. The time of cudb outside its VF is nonshockable, although VT
    stands there that is not labelled; see *doubtful* below.
Detected
    An event is detected if any episode of the scan overlaps with it, and an episode is true if it overlaps with any
    event, however short.
False alarm
    The alarm rests on the time from its episode's onset until it is raised. It is false if no shockable or intermediate
    stretch lies within `TOLERANCE_S` of that time, and at least half of it is annotated as nonshockable. What is
    neither true nor false is counted by itself. An alarm that is false when raised stays false if its episode runs on
    into an event, which it then detects. A false alarm is *doubtful*, and counts all the same, where the rhythm is not
    named and the annotated beats are missing or as fast as VT: windows are left out there.
Delay
    From the annotated onset of an event to the alarm of the first episode that overlaps with it. Onsets count that
    follow a nonshockable rhythm: the record's first stretch, and what follows noise or an intermediate rhythm, began at
    an unknown time. Missed events have no delay, nor have those with the alarm on before; both are counted.

Deviations from the statistics for VF of ANSI/AAMI EC57 and IEC 60601-2-47, which were not at hand and are followed from
memory; so this is no claim of conformity:

- Shockable rhythm is the reference, VT from a rate on included, and intermediate rhythm is in no count.
- No learning period is left out at the beginning of a record.
- Short events are not left out, but sensitivity is given by the least length of the events, see `LEAST_S`.
- False alarms are counted by the time when they are raised, and by hour of nonshockable time.
- Limits of confidence are added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.datasets import SYNTHETIC, SYNTHETIC_PATIENTS, SYNTHETIC_SEED, labelled_recordings
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.recordings import Recording
from ecg_shock.data.splits import load_split
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import MAX_BEAT_GAP_S, LabelPolicy, amplitude_mv, rate_bpm
from ecg_shock.evaluation.confidence import ALPHA, RESAMPLES, check_bootstrap, resample_patients
from ecg_shock.evaluation.metrics import Rate, rate_of
from ecg_shock.inference.advisor import Advisor
from ecg_shock.inference.scanning import Scan, ShockableEpisode, scan, with_rule
from ecg_shock.inference.streaming import AlarmRule
from ecg_shock.models.bundle import Bundle, data_config
from ecg_shock.preprocessing import FS, Preprocessing, preprocess
from ecg_shock.rhythms import NONSHOCKABLE, RHYTHMS, UNUSABLE

SHOCK, BETWEEN, NO_SHOCK, UNCOUNTED = "shockable", "intermediate", "nonshockable", "uncounted"
KINDS = (SHOCK, BETWEEN, NO_SHOCK, UNCOUNTED)

# The guard of cudb, the widest of our manifests: where the onset of VF was annotated is this uncertain.
TOLERANCE_S = 5.0
# Lengths from which on events are counted. An alarm at 5 of 8 windows of 5 s, a second apart, needs 9 s to rest on
# windows that are whole within the event, so that the headline is events of 10 s and more.
LEAST_S = (0.0, 5.0, 10.0, 20.0)
HEADLINE_LEAST_S = 10.0
RULES = (AlarmRule(1, 1), AlarmRule(2, 3), AlarmRule(3, 5), AlarmRule(5, 8), AlarmRule(8, 10))

MOST_FALSE = 0.5  # share of an alarm's time in nonshockable rhythm from which on it can be false
LEAST_MEASURED_S = 1.0  # of signal that rate and amplitude are measured in, be the stretch shorter
LATE = 0.9  # quantile of the delays that is given beside the median

_ROUNDING_S = 1e-6
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Stretch:
    """A stretch of one annotated rhythm, and what it calls for.

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
        Whether it follows a nonshockable rhythm at once.
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
        All windows, and those that could not be judged.
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
    rate : Rate
        Of events instead of windows.
    """

    least_s: float
    rate: Rate


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
        Share of the windows that could not be judged.
    by_length : tuple of LengthRow
        Sensitivity for events, for each of `LEAST_S`.
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
        Detected events of `HEADLINE_LEAST_S` and more with a known onset: those with the alarm after it, and those with
        the alarm on before.
    delay_median_s, delay_late_s : float or None
        Median and 90th percentile of the delays of the former in seconds.
    alarmed, never_alarmed : int
        Records with an event of `HEADLINE_LEAST_S` and more of which one was detected, and those of which none was.
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
    def headline(self) -> Rate:
        """Sensitivity for events of `HEADLINE_LEAST_S` and more."""
        return next(row.rate for row in self.by_length if row.least_s == HEADLINE_LEAST_S)


@dataclass(frozen=True)
class WholeRecords:
    """The figures of whole records, and how they were found.

    Parameters
    ----------
    part : {"test", "validation"}
        Whose records they are.
    alarm_rule : AlarmRule
        Of all figures but `by_rule`.
    window_s, step_s : float
        Length of the windows, and from one to the next, in seconds.
    figures : EventFigures
        Of all records.
    by_database, by_patient : tuple of EventFigures
        In order of appearance.
    by_rule : tuple of (AlarmRule, EventFigures)
        Of all records, for other rules.
    records : tuple of RecordEvents
        One by one.
    too_short : tuple of str
        Records that are shorter than a window, as ``"database/record"``; they are in no figure.
    alpha : float
        Error probability of all limits, one-sided.
    tolerance_s, headline_least_s : float
        `TOLERANCE_S` and `HEADLINE_LEAST_S`, for whoever reads the figures.
    """

    part: str
    alarm_rule: AlarmRule
    window_s: float
    step_s: float
    figures: EventFigures
    by_database: tuple[EventFigures, ...]
    by_patient: tuple[EventFigures, ...]
    by_rule: tuple[tuple[AlarmRule, EventFigures], ...]
    records: tuple[RecordEvents, ...]
    too_short: tuple[str, ...] = ()
    alpha: float = ALPHA
    tolerance_s: float = TOLERANCE_S
    headline_least_s: float = HEADLINE_LEAST_S

    @property
    def alarm_s(self) -> float:
        """Seconds that as many whole windows cover as the alarm rule asks for, if they follow each other."""
        return self.window_s + (self.alarm_rule.k - 1) * self.step_s


def reference_stretches(
    recording: Recording,
    window_s: float,
    step_s: float,
    *,
    preprocessing: Preprocessing | None = None,
    policy: LabelPolicy | None = None,
) -> tuple[Stretch, ...]:
    """Say of each annotated stretch of a recording what it calls for.

    Parameters
    ----------
    recording : Recording
        With its episodes; rate and amplitude are measured on the first lead.
    window_s, step_s : float
        Length of the windows to measure in, and from one to the next, in seconds. A stretch that is shorter than a
        window is measured as a whole, and one of less than a second in the second around its middle.
    preprocessing : Preprocessing, optional
        The filter; the defaults if not given.
    policy : LabelPolicy, optional
        The limits between classes; the defaults if not given.

    Returns
    -------
    tuple of Stretch
        They cover the recording in order, one for each rhythm; time without any label is ``"unlabelled"``.

    Raises
    ------
    ValueError
        If an episode has an unknown rhythm.

    Examples
    --------
    >>> from ecg_shock.data.recordings import Episode
    >>> ecg = np.sin(2 * np.pi * 5 * np.arange(5000) / 250)[:, None]
    >>> made = Recording(signal=ecg, fs=250.0, leads=("II",), episodes=(Episode(0.0, 12.0, "vf"),))
    >>> [stretch.kind for stretch in reference_stretches(made, 5.0, 1.0)]
    ['shockable', 'uncounted']
    """
    policy = policy or LabelPolicy()
    spans: list[tuple[float, float, str]] = []

    def add(start_s: float, end_s: float, rhythm: str) -> None:
        if end_s - start_s <= _ROUNDING_S:
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

    return tuple(Stretch(start_s, end_s, kind_of(start_s, end_s, rhythm), rhythm) for start_s, end_s, rhythm in spans)


def _windows(
    raw: np.ndarray, fs: float, filtered: np.ndarray, span_s: tuple[float, float], window_s: float, step_s: float
) -> np.ndarray:
    """Cut a stretch into windows to measure in, those without invalid samples if there are any."""
    first, last = (min(round(time_s * FS), len(filtered)) for time_s in span_s)
    least = min(round(LEAST_MEASURED_S * FS), len(filtered))
    samples = max(min(round(window_s * FS), last - first), least)
    if last - first < samples:
        first = min(max((first + last - samples) // 2, 0), len(filtered) - samples)
        last = first + samples
    starts = np.arange(first, last - samples + 1, max(round(step_s * FS), 1))
    invalid = np.concatenate([[0], np.cumsum(~np.isfinite(raw))])
    begin, end = (np.clip(np.round(at / FS * fs).astype(int), 0, len(raw)) for at in (starts, starts + samples))
    valid = invalid[end] == invalid[begin]
    chosen = starts[valid] if valid.any() else starts
    return filtered[chosen[:, None] + np.arange(samples)]


def episode_events(
    scanned: Scan,
    recording: Recording,
    stretches: Sequence[Stretch],
    *,
    tolerance_s: float = TOLERANCE_S,
    policy: LabelPolicy | None = None,
) -> RecordEvents:
    """Hold the episodes of a scan against what is annotated.

    Parameters
    ----------
    scanned : Scan
        Of the recording.
    recording : Recording
        Its database, name, patient and beats are used.
    stretches : sequence of Stretch
        Of the recording, see `reference_stretches`.
    tolerance_s : float
        How far from an alarm's time a shockable or intermediate stretch explains it, in seconds.
    policy : LabelPolicy, optional
        Its rate of rapid VT tells which false alarms are doubtful; the defaults if not given.

    Returns
    -------
    RecordEvents
    """
    policy = policy or LabelPolicy()
    events = tuple(_events(scanned, stretches))
    false_alarms, true_alarms, other_alarms = [], 0, 0
    for episode in scanned.episodes:
        meets = any(_overlap(episode.onset_s, episode.end_s, event.start_s, event.end_s) for event in events)
        true_alarms += meets
        rests_on = [(s, _overlap(episode.onset_s, episode.alarm_s, s.start_s, s.end_s)) for s in stretches]
        explained = any(
            _overlap(episode.onset_s - tolerance_s, episode.alarm_s + tolerance_s, s.start_s, s.end_s)
            for s in stretches
            if s.kind in (SHOCK, BETWEEN)
        )
        in_no_shock = sum(shared_s for s, shared_s in rests_on if s.kind == NO_SHOCK)
        if explained or in_no_shock < MOST_FALSE * (episode.alarm_s - episode.onset_s):
            other_alarms += not meets
            continue
        first, last = np.searchsorted(recording.beats_s, (episode.onset_s, episode.alarm_s))
        minutes = (episode.alarm_s - episode.onset_s) / 60
        by_rhythm: dict[str, float] = defaultdict(float)
        for stretch, shared_s in rests_on:
            by_rhythm[stretch.rhythm] += shared_s
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
    seconds = {kind: sum(s.end_s - s.start_s for s in stretches if s.kind == kind) for kind in KINDS}
    in_episodes = {
        kind: sum(
            _overlap(episode.onset_s, episode.end_s, s.start_s, s.end_s)
            for episode in scanned.episodes
            for s in stretches
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
    """Say whether beats around an alarm are missing or as fast as VT, by the rule that leaves out windows."""
    span = max(episode.onset_s - MAX_BEAT_GAP_S, 0.0), min(episode.alarm_s + MAX_BEAT_GAP_S, end_s)
    first, last = np.searchsorted(recording.beats_s, span)
    beats = recording.beats_s[first:last]
    if np.diff(np.concatenate([span[:1], beats, span[1:]])).max() > MAX_BEAT_GAP_S:
        return True
    return len(beats) > 1 and bool(60.0 / np.median(np.diff(beats)) >= policy.rapid_vt_bpm)


def _events(scanned: Scan, stretches: Sequence[Stretch]) -> Iterator[ReferenceEvent]:
    """Join neighbouring shockable stretches, and look for the first episode that overlaps with them."""
    index = 0
    while index < len(stretches):
        first = index
        while index < len(stretches) and stretches[index].kind == SHOCK:
            index += 1
        if first == index:
            index += 1
            continue
        parts = stretches[first:index]
        start_s, end_s = parts[0].start_s, parts[-1].end_s
        hit = next((e for e in scanned.episodes if _overlap(e.onset_s, e.end_s, start_s, end_s)), None)
        yield ReferenceEvent(
            start_s=start_s,
            end_s=end_s,
            rhythm=", ".join(dict.fromkeys(part.rhythm for part in parts)),
            detected=hit is not None,
            delay_s=hit.alarm_s - start_s if hit else None,
            onset_known=first > 0 and stretches[first - 1].kind == NO_SHOCK,
        )


def _overlap(start_s: float, end_s: float, other_start_s: float, other_end_s: float) -> float:
    """Return how many seconds two spans share; 0 where they only touch."""
    shared_s = min(end_s, other_end_s) - max(start_s, other_start_s)
    return shared_s if shared_s > _ROUNDING_S else 0.0


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
        Of one alarm rule; none is allowed.
    name : str
        What they have in common.
    alpha : float
        Error probability of the limits, one-sided.
    resamples, seed : int
        Of the patient bootstrap.

    Returns
    -------
    EventFigures

    Raises
    ------
    ValueError
        If the bootstrap's parameters are not allowed.
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
    for least_s in LEAST_S:
        events = [(r.patient, e) for r in records for e in r.events if e.length_s >= least_s - _ROUNDING_S]
        detected = by_patient((patient, event.detected) for patient, event in events).astype(int)
        total = by_patient((patient, 1) for patient, _ in events).astype(int)
        by_length.append(LengthRow(least_s, rate_of(detected, total, alpha, resamples, seed)))

    false = sum(len(r.false_alarms) for r in records)
    exposure_s = sum(r.nonshockable_s for r in records)
    untrue = sum(not alarm.runs_into_event for r in records for alarm in r.false_alarms)
    true = sum(r.true_alarms for r in records)
    found_s, wrong_s = sum(r.found_s for r in records), sum(r.wrong_s for r in records)
    counts = by_patient((r.patient, len(r.false_alarms)) for r in records)
    seconds = by_patient((r.patient, r.nonshockable_s) for r in records)

    long_events = [[e for e in r.events if e.length_s >= HEADLINE_LEAST_S - _ROUNDING_S] for r in records]
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


def poisson_upper_limit(count: int, alpha: float = ALPHA) -> float:
    """Compute the exact upper limit of the expected number of events of which some were counted.

    Parameters
    ----------
    count : int
        How many were counted, 0 or more.
    alpha : float
        Error probability, one-sided.

    Returns
    -------
    float
        The expected number at which as few or fewer have the probability `alpha` [1]_. By the hours in which they were
        counted it is the limit of their rate. Events are taken as independent, which those of one patient are not.

    Raises
    ------
    ValueError
        If `count` is below 0, or `alpha` outside 0 to 1.

    References
    ----------
    .. [1] Garwood, Biometrika 28:437-442, 1936, doi:10.1093/biomet/28.3-4.437

    Examples
    --------
    >>> round(poisson_upper_limit(0), 3)
    2.303
    """
    if count < 0 or not 0 < alpha < 1:
        raise ValueError(f"count is {count!r} and alpha {alpha!r}; allowed are 0 and more, and between 0 and 1")
    from scipy.stats import chi2  # slow to import

    return float(chi2.isf(alpha, 2 * (count + 1)) / 2)


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


def records_of(bundle: Bundle, databases: Sequence[str] = (), part: str = "test") -> tuple[tuple[str, str, str], ...]:
    """List the records that a bundle is judged on as a whole.

    Parameters
    ----------
    bundle : Bundle
        The model; its card names the split, the fold and the patients it has seen.
    databases : sequence of str
        Names or manifest paths that it has not seen; none for the patients of its own fold.
    part : {"test", "validation"}
        Which patients of its fold.

    Returns
    -------
    tuple of (str, str, str)
        Database as it was named, record and patient.

    Raises
    ------
    ValueError
        If the part is unknown, the databases have none, or a patient to be tested was trained on or selected with.
    """
    if part not in ("test", "validation") or (databases and part != "test"):
        raise ValueError(f'part is {part!r}; allowed are "test" and "validation", and of whole databases "test" alone')
    config = data_config(bundle)
    chosen = None if databases else getattr(load_split(config.split)[config.fold], part)
    found = [
        entry
        for name in databases or config.databases
        for entry in _patients(name)
        if chosen is None or entry[2] in chosen
    ]
    seen = bundle.card.patients.seen
    leaked = {patient for _, _, patient in found} & seen
    if leaked and part == "test":
        raise ValueError(f"patients {sorted(leaked)!r} are tested, but {bundle.folder} has seen them.")
    return tuple(found)


def _patients(name: str) -> list[tuple[str, str, str]]:
    if name == SYNTHETIC:
        made_up = synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED)
        return [(name, recording.name, recording.patient) for recording in made_up]
    manifest = load_manifest(name)
    return [(name, record, manifest.patient_of(record)) for record in manifest.records]


def whole_records(
    bundles: Sequence[Bundle],
    databases: Sequence[str] = (),
    folder: Path | None = None,
    *,
    part: str = "test",
    alpha: float = ALPHA,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_record: Callable[[], Any] | None = None,
) -> WholeRecords:
    """Let each bundle scan the whole records of its own patients, on the first lead, with its own window.

    Parameters
    ----------
    bundles : sequence of Bundle
        As `ecg_shock.evaluation.evaluation_set.find_bundles` gives them; the folds are pooled.
    databases : sequence of str
        Names or manifest paths that they have not seen, instead of their own test patients.
    folder : pathlib.Path, optional
        Where the databases lie.
    part : {"test", "validation"}
        Whose records. Alarm rules are to be chosen on the validation patients, never on those of the test.
    alpha, resamples, seed : float, int, int
        Of the limits.
    on_record : callable, optional
        Called without arguments after each record.

    Returns
    -------
    WholeRecords
        With the default alarm rule, and all of `RULES` on the same scans.

    Raises
    ------
    ValueError
        If a patient to be tested was trained on or selected with, a database differs from its manifest, or no record
        is left to scan.
    FileNotFoundError
        If a database is not there.
    """
    default = AlarmRule()
    by_rule: dict[AlarmRule, list[RecordEvents]] = {
        rule: [] for rule in sorted({*RULES, default}, key=lambda rule: (rule.n, rule.k))
    }
    too_short = []
    window_s = step_s = 0.0
    for bundle in bundles:
        config, advisor = data_config(bundle), Advisor(bundle)
        for recording in _labelled(records_of(bundle, databases, part), folder):
            if recording.duration_s < bundle.spec.input_samples / FS:
                too_short.append(f"{recording.database}/{recording.name}")
            else:
                scanned = scan(recording, model=advisor)
                window_s, step_s = scanned.window_s, scanned.step_s
                stretches = reference_stretches(
                    recording, window_s, step_s, preprocessing=config.preprocessing, policy=config.labels
                )
                for rule, records in by_rule.items():
                    records.append(episode_events(with_rule(scanned, rule), recording, stretches, policy=config.labels))
            if on_record:
                on_record()
    records = by_rule[default]
    if not records:
        raise ValueError("there is no record of a window and more; give databases that hold some.")

    def figures(found: Sequence[RecordEvents], name: str = "all") -> EventFigures:
        return event_figures(found, name, alpha=alpha, resamples=resamples, seed=seed)

    def grouped(attribute: str) -> tuple[EventFigures, ...]:
        names = dict.fromkeys(getattr(record, attribute) for record in records)
        return tuple(figures([r for r in records if getattr(r, attribute) == name], name) for name in names)

    return WholeRecords(
        part=part,
        alarm_rule=default,
        window_s=window_s,
        step_s=step_s,
        figures=figures(records),
        by_database=grouped("database"),
        by_patient=grouped("patient"),
        by_rule=tuple((rule, figures(found)) for rule, found in by_rule.items()),
        records=tuple(records),
        too_short=tuple(too_short),
        alpha=alpha,
    )


def _labelled(records: Sequence[tuple[str, str, str]], folder: Path | None) -> Iterator[Recording]:
    """Read records with their labels, database by database."""
    by_database: dict[str, set[str]] = defaultdict(set)
    for name, record, _ in records:
        by_database[name].add(record)
    for name, names in by_database.items():
        yield from labelled_recordings(name, folder, names)
