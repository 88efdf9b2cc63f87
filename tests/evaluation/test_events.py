"""Events, false alarms and delays, recomputed from hand-made records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats

from ecg_shock import AlarmRule, Recording, Scan, ShockableEpisode
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.events import MIN_LENGTHS_S, RecordEvents, episode_events, event_figures
from ecg_shock.evaluation.reference import KINDS, Segment

FS = 250.0
LABELS = {"shockable": "vf", "intermediate": "vt", "nonshockable": "normal_sinus", "uncounted": "noise"}
SHORT = {"+": "shockable", "~": "intermediate", "-": "nonshockable", "?": "uncounted"}


def segments_of(text: str, second_s: float = 1.0) -> tuple[Segment, ...]:
    """Read a timeline that has one sign a second, such as ``"--++??"``; a bar parts segments of one kind."""
    found: list[Segment] = []
    at = 0.0
    new = True
    for sign in text:
        if sign == "|":
            new = True
            continue
        kind = SHORT[sign]
        if found and not new and found[-1].kind == kind:
            found[-1] = replace(found[-1], end_s=at + second_s)
        else:
            found.append(Segment(at, at + second_s, kind, LABELS[kind]))
        new = False
        at += second_s
    return tuple(found)


def scan_with(duration_s: float, episodes: list[tuple[float, float, float]], unusable: int = 0) -> Scan:
    """Make a scan that has these episodes: onset, end and alarm."""
    n = max(int(duration_s - 5) + 1, 1)
    reason = np.array(["flat"] * unusable + [""] * (n - unusable))
    return Scan(
        name="r", lead="II", fs=FS, duration_s=duration_s, window_s=5.0, step_s=1.0, threshold=0.5,
        alarm_rule=AlarmRule(), start_s=np.arange(float(n)), probability=np.zeros(n), reason=reason,
        shock=np.zeros(n, bool), alarm=np.zeros(n, bool),
        episodes=tuple(ShockableEpisode(*times, 0.9) for times in episodes),
    )  # fmt: skip


def checked(text: str, episodes: list[tuple[float, float, float]]) -> RecordEvents:
    """Check episodes against a timeline."""
    segments = segments_of(text)
    recording = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",), name="r", database="d", patient="d/p")
    return episode_events(scan_with(segments[-1].end_s, episodes), recording, segments)


@pytest.mark.parametrize(
    ("timeline", "episodes", "events"),
    [
        ("-" * 20, [], []),
        ("?" * 20, [(3, 8, 9)], []),
        # VF and rapid VT that follow each other are one; the alarm at 12 s comes 2 s after its onset.
        ("-" * 10 + "+" * 5 + "|" + "+" * 5, [(11, 20, 12)], [(10, 20, 2, True)]),
        # What parts them makes two.
        *(
            ("-" * 10 + "+" * 5 + sign + "+" * 4, [(11, 20, 12)], [(10, 15, 2, True), (16, 20, -4, known)])
            for sign, known in (("-", True), ("~", False), ("?", False))
        ),
        # An event that begins or ends with the record, and one that nothing precedes but noise.
        ("+" * 10 + "-" * 10, [(0, 10, 6)], [(0, 10, 6, False)]),
        ("-" * 10 + "+" * 10, [(12, 20, 17)], [(10, 20, 7, True)]),
        ("?" * 10 + "+" * 10, [(12, 20, 17)], [(10, 20, 7, False)]),
        # A tenth of a second is enough, to touch is not.
        ("-" * 10 + "+" * 10, [(2, 10.1, 7)], [(10, 20, -3, True)]),
        ("-" * 10 + "+" * 10, [(2, 10, 7)], [(10, 20, None, True)]),
        ("-" * 5 + "+" * 5 + "-" * 10, [(10, 15, 16)], [(5, 10, None, True)]),
        # The first of two episodes counts, and one episode can find two events.
        ("-" * 5 + "+" * 30, [(7, 12, 13), (20, 30, 26)], [(5, 35, 8, True)]),
        ("--++++--++++--", [(3, 12, 8)], [(2, 6, 6, True), (8, 12, 0, True)]),
        ("~" * 5 + "--++++", [], [(7, 11, None, True)]),
    ],
)
def test_events_of_hand_made_timelines(
    timeline: str,
    episodes: list[tuple[float, float, float]],
    events: list[tuple[float, float, float | None, bool]],
) -> None:
    """Start, end, delay, and whether the onset is known."""
    result = checked(timeline, episodes)
    said = [
        (e.start_s, e.end_s, None if e.delay_s is None else round(e.delay_s, 9), e.onset_known) for e in result.events
    ]
    assert said == events
    assert [e.detected for e in result.events] == [delay is not None for _, _, delay, _ in events]


@pytest.mark.parametrize(
    ("timeline", "episode", "true", "false", "other"),
    [
        ("-" * 30, (10, 20, 15), 0, 1, 0),
        ("-" * 30 + "+" * 10, (10, 20, 15), 0, 1, 0),
        # A shockable or an intermediate segment within 5 s of what the alarm rests on explains it.
        ("-" * 20 + "+" * 10, (10, 17, 15.1), 0, 0, 1),
        ("-" * 20 + "+" * 10, (10, 17, 15), 0, 1, 0),
        ("-" * 20 + "~" * 10, (10, 17, 15.1), 0, 0, 1),
        ("+" * 5 + "-" * 20, (9.9, 17, 15), 0, 0, 1),
        ("+" * 5 + "-" * 20, (10, 17, 15), 0, 1, 0),
        ("~" * 30, (10, 20, 15), 0, 0, 1),
        # Noise, unlabelled time, and what lies half and half.
        ("?" * 30, (10, 20, 15), 0, 0, 1),
        ("?" * 13 + "-" * 20, (10, 20, 15), 0, 0, 1),
        ("?" * 12 + "-" * 20, (10, 20, 15), 0, 1, 0),
        ("-" * 13 + "?" * 20, (10, 20, 15), 0, 1, 0),
        # True, though it rests on sinus rhythm in part; false when raised, though it runs into VF and finds it.
        ("-" * 12 + "+" * 20, (10, 20, 15), 1, 0, 0),
        ("-" * 30 + "+" * 10, (10, 35, 15), 1, 1, 0),
        ("?" * 30 + "+" * 10, (10, 35, 15), 1, 0, 0),
        # At the ends of the record.
        ("-" * 30, (0, 4, 5), 0, 1, 0),
        ("-" * 30, (25, 30, 30), 0, 1, 0),
    ],
)
def test_alarms_of_hand_made_timelines(
    timeline: str, episode: tuple[float, float, float], true: int, false: int, other: int
) -> None:
    """Every alarm is true, false or neither, except one that is false when raised and continues into VF."""
    result = checked(timeline, [episode])
    assert (result.true_alarms, len(result.false_alarms), result.other_alarms) == (true, false, other)
    if false:
        (alarm,) = result.false_alarms
        assert (alarm.onset_s, alarm.end_s, alarm.alarm_s) == episode
        assert alarm.runs_into_event == bool(true)


def test_false_alarm_says_what_is_annotated() -> None:
    """The rhythm of most of its time, and the beats from its onset to the alarm."""
    segments = (Segment(0, 12, "nonshockable", "paced"), Segment(12, 40, "nonshockable", "svt"))
    made = Recording(
        signal=np.zeros((1, 1)), fs=FS, leads=("II",), beats_s=np.arange(0.25, 40, 0.5), beat_codes=("N",) * 80
    )
    (alarm,) = episode_events(scan_with(40.0, [(10, 20, 15)]), made, segments).false_alarms
    assert (alarm.rhythm, alarm.beats_bpm, alarm.probability) == ("svt", 120.0, 0.9)
    (bare,) = checked("-" * 30, [(10, 20, 15)]).false_alarms
    assert bare.beats_bpm is None


@pytest.mark.parametrize(
    ("beats_s", "rhythm", "doubtful"),
    [
        (np.arange(0.2, 40, 0.8), "organised", False),  # 75 bpm
        (np.arange(0.2, 40, 0.41), "organised", False),  # 146 bpm
        (np.arange(0.2, 40, 0.39), "organised", True),  # 154 bpm
        (np.arange(0.2, 40, 0.39), "svt", False),  # the database names it
        (np.array([]), "organised", True),
        (np.array([1.0, 2.0, 30.0]), "organised", True),
        (np.array([8.0, 10.5, 13.5, 16.0]), "organised", False),  # no gap of more than 3 s
        (np.array([8.0, 10.5, 13.6, 16.0]), "organised", True),
    ],
)
def test_unnamed_rhythm_makes_false_alarms_doubtful(beats_s: np.ndarray, rhythm: str, doubtful: bool) -> None:
    """It is doubtful where beats are missing or as fast as VT, and still counted."""
    made = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",), beats_s=beats_s, beat_codes=("N",) * len(beats_s))
    segments = (Segment(0, 40, "nonshockable", rhythm),)
    (alarm,) = episode_events(scan_with(40.0, [(10, 20, 15)]), made, segments).false_alarms
    assert alarm.doubtful == doubtful
    slower = LabelPolicy(rapid_vt_bpm=70.0)
    (other,) = episode_events(scan_with(40.0, [(10, 20, 15)]), made, segments, policy=slower).false_alarms
    assert other.doubtful == (doubtful or (rhythm == "organised" and len(beats_s) > 10))


@pytest.mark.parametrize("onset_s", [0.0, 34.5])
def test_doubt_stays_within_the_record(onset_s: float) -> None:
    """Before its start and after its end no beats can be annotated."""
    beats_s = np.arange(2.5, 40, 1.0)
    made = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",), beats_s=beats_s, beat_codes=("N",) * len(beats_s))
    segments = (Segment(0, 40, "nonshockable", "organised"),)
    (alarm,) = episode_events(scan_with(40.0, [(onset_s, 40, onset_s + 5)]), made, segments).false_alarms
    assert not alarm.doubtful


def test_random_timelines_against_a_grid(rng: np.random.Generator) -> None:
    """Seconds, overlaps and alarms agree with arrays of half seconds."""
    seen = np.zeros(4, dtype=int)
    for _ in range(600):
        cells = 120
        edges = np.sort(rng.choice(np.arange(1, cells), 8, replace=False)).tolist()
        chosen = rng.choice(len(KINDS), 9)
        kind = np.repeat(chosen, np.diff([0, *edges, cells]))
        segments = segments_of("".join("+~-?"[k] for k in kind), 0.5)
        cuts = np.sort(rng.choice(np.arange(cells), 6, replace=False)).reshape(3, 2)
        spans = [(a, b, a + int(rng.integers(1, 14))) for a, b in cuts.tolist()]
        made = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",))
        result = episode_events(scan_with(60.0, [(a / 2, b / 2, c / 2) for a, b, c in spans]), made, segments)
        in_episode = np.zeros(cells, dtype=bool)
        for a, b, _ in spans:
            in_episode[a:b] = True
        assert result.found_s == np.sum(in_episode & (kind == 0)) / 2
        assert result.wrong_s == np.sum(in_episode & (kind == 2)) / 2
        seconds = (result.shockable_s, result.intermediate_s, result.nonshockable_s, result.uncounted_s)
        assert seconds == tuple(np.sum(kind == k) / 2 for k in range(4))
        bounds = np.flatnonzero(np.diff(np.concatenate([[0], kind == 0, [0]]))).reshape(-1, 2)
        assert [(e.start_s, e.end_s) for e in result.events] == [(a / 2, b / 2) for a, b in bounds]
        assert [e.detected for e in result.events] == [bool(in_episode[a:b].any()) for a, b in bounds]
        true = sum((kind[a:b] == 0).any() for a, b, _ in spans)
        false = [
            (a, b)
            for a, b, c in spans
            if not (kind[max(a - 10, 0) : c + 10] <= 1).any() and 2 * np.sum(kind[a:c] == 2) >= c - a
        ]
        assert result.true_alarms == true
        assert [(2 * f.onset_s, 2 * f.end_s) for f in result.false_alarms] == false
        both = sum(f.runs_into_event for f in result.false_alarms)
        assert result.true_alarms + len(result.false_alarms) - both + result.other_alarms == 3
        seen += (true, len(false), both, result.other_alarms)
    assert (seen > 10).all()


def test_figures_of_three_patients(record_events: Callable[..., RecordEvents]) -> None:
    """Counts, proportions, delays and alarms per hour agree with values by hand, and limits with SciPy."""
    figures = event_figures(
        [
            record_events("d/a", [(4, None), (6, 5.0), (10, 7.0), (30, -2.0)], false=2),
            record_events("d/a", [(12, None)], hours=0.5),
            record_events("d/b", [(20, 3.0)], false=1),
            record_events("d/c", []),
        ]
    )
    assert [(row.least_s, row.rate.count, row.rate.windows, row.rate.patients) for row in figures.by_length] == [
        (0.0, 4, 6, 2),
        (5.0, 4, 5, 2),
        (10.0, 3, 4, 2),
        (20.0, 2, 2, 2),
    ]
    assert tuple(row.least_s for row in figures.by_length) == MIN_LENGTHS_S
    assert figures.headline.lower_limit == pytest.approx(stats.beta.ppf(0.1, 3, 2))
    assert (figures.records, figures.patients, figures.hours, figures.nonshockable_hours) == (4, 3, 8.0, 3.5)
    assert (figures.true_alarms, figures.false_alarms, figures.untrue_alarms, figures.doubtful_alarms) == (6, 3, 2, 2)
    assert figures.positive_predictivity == 6 / 8
    assert (figures.duration_sensitivity, figures.duration_positive_predictivity) == (0.8, 0.8)
    assert figures.unusable == 0.05
    assert figures.false_per_hour == pytest.approx(3 / 3.5)
    assert stats.poisson.cdf(3, figures.false_per_hour_limit * 3.5) == pytest.approx(0.1)
    # Events of 10 s and more: after 7 and 3 s, and with the alarm on before. First alarms: of a and b after 7 and 3 s.
    assert (figures.delays, figures.early) == (2, 1)
    assert figures.delay_median_s == 5.0
    assert figures.delay_late_s == pytest.approx(3 + 0.9 * 4)
    assert (figures.alarmed, figures.never_alarmed) == (2, 1)
    assert figures.first_alarm_median_s == pytest.approx((7.0 + 3.0) / 2)


def test_limits_of_patients_are_those_of_drawn_patients(
    rng: np.random.Generator, record_events: Callable[..., RecordEvents]
) -> None:
    """The limit of false alarms per hour agrees with a loop; one patient, or no false alarm, gives none."""
    counts, hours = [0, 0, 9, 1, 0, 4, 0, 2], [1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 1.0, 0.25]
    made = [record_events(f"d/{i}", [], false, h) for i, (false, h) in enumerate(zip(counts, hours, strict=True))]
    rates = []
    for _ in range(20000):
        drawn = rng.integers(0, 8, 8)
        rates.append(sum(counts[i] for i in drawn) / sum(hours[i] for i in drawn))
    limit = event_figures(made, resamples=20000).false_per_hour_patient_limit
    assert limit == pytest.approx(np.quantile(rates, 0.9), rel=0.03)
    assert limit > event_figures(made).false_per_hour
    assert event_figures(made[2:3]).false_per_hour_patient_limit is None
    assert event_figures(made[:2]).false_per_hour_patient_limit is None
    with pytest.raises(ValueError, match="resamples is 10"):
        event_figures(made, resamples=10)


def test_no_events_and_no_hours() -> None:
    """Proportions of nothing are None, not 0 or an error."""
    for figures in (event_figures([]), event_figures([replace(checked("?" * 20, []), windows=0)])):
        shares = asdict(figures)
        assert {name for name, value in shares.items() if value is None} >= {
            *("positive_predictivity", "duration_sensitivity", "duration_positive_predictivity", "unusable"),
            *("false_per_hour", "false_per_hour_limit", "false_per_hour_patient_limit"),
            *("delay_median_s", "delay_late_s", "first_alarm_median_s", "first_alarm_late_s"),
        }
        assert figures.headline.observed is None
    quiet = event_figures([checked("-" * 3600, [])])
    assert quiet.false_per_hour == 0.0
    assert quiet.false_per_hour_limit == pytest.approx(np.log(10))
