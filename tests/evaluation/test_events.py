"""Events, false alarms and delays are what a second look at hand-made records says."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import wfdb
from scipy import stats

from ecg_shock import Advisor, AlarmRule, Episode, Recording, Scan, ShockableEpisode, scan
from ecg_shock.data.datasets import DataConfig
from ecg_shock.data.manifests import resource_dir
from ecg_shock.data.splits import load_split
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.events import (
    KINDS,
    LEAST_S,
    RULES,
    TOLERANCE_S,
    FalseAlarm,
    RecordEvents,
    ReferenceEvent,
    Stretch,
    WholeRecords,
    episode_events,
    event_figures,
    poisson_upper_limit,
    records_of,
    reference_stretches,
    whole_records,
)
from ecg_shock.evaluation.metrics import judge
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.inference.scanning import with_rule
from ecg_shock.models.bundle import TOML_NAME, Bundle, load_bundle
from ecg_shock.report.html import ReportContent, write_report
from ecg_shock.report.tables import to_json, to_markdown
from ecg_shock.report.whole_records import event_tables
from ecg_shock.rhythms import RHYTHMS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FS = 250.0
HOSTILE = "<img src=x onerror=alert(1)>|`"
LABELS = {"shockable": "vf", "intermediate": "vt", "nonshockable": "normal_sinus", "uncounted": "noise"}
SHORT = {"+": "shockable", "~": "intermediate", "-": "nonshockable", "?": "uncounted"}


def wave(seconds: float, hz: float, mv: float) -> np.ndarray:
    """Make a sine of a rate and a peak-to-peak amplitude."""
    return mv / 2 * np.sin(2 * np.pi * hz * np.arange(round(seconds * FS)) / FS)


def labelled(*parts: tuple[str, np.ndarray]) -> Recording:
    """Put signals with their rhythms one after the other; those called ``""`` get no label."""
    episodes, at = [], 0.0
    for rhythm, signal in parts:
        until = at + len(signal) / FS
        if rhythm:
            episodes.append(Episode(at, until, rhythm))
        at = until
    signal = np.concatenate([signal for _, signal in parts])[:, None]
    return Recording(signal=signal, fs=FS, leads=("II",), episodes=tuple(episodes))


def kinds(recording: Recording, **options: LabelPolicy) -> list[str]:
    """Return what each stretch calls for."""
    return [stretch.kind for stretch in reference_stretches(recording, 5.0, 1.0, **options)]


def stretches_of(text: str, second_s: float = 1.0) -> tuple[Stretch, ...]:
    """Read a timeline that has one sign a second, such as ``"--++??"``; a bar parts stretches of one kind."""
    found: list[Stretch] = []
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
            found.append(Stretch(at, at + second_s, kind, LABELS[kind]))
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


def held(text: str, episodes: list[tuple[float, float, float]], **options: float) -> RecordEvents:
    """Hold episodes against a timeline."""
    stretches = stretches_of(text)
    recording = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",), name="r", database="d", patient="d/p")
    return episode_events(scan_with(stretches[-1].end_s, episodes), recording, stretches, **options)


def bundle_of(folder: Path, data: DataConfig) -> Bundle:
    """Let the model that comes with the package say that it was trained on other data."""
    shutil.copytree(DEFAULT_BUNDLE, folder)
    content = tomllib.loads((folder / TOML_NAME).read_text(encoding="utf-8"))
    fold = load_split(data.split)[data.fold]
    content["card"]["data"] = data.model_dump(mode="json", exclude_none=True)
    content["card"]["patients"] = {job: sorted(getattr(fold, job)) for job in ("train", "validation", "test")}
    (folder / TOML_NAME).write_text(tomli_w.dumps(content), encoding="utf-8")
    return load_bundle(folder)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> WholeRecords:
    """Scan the synthetic test patients."""
    return whole_records([bundle_of(tmp_path_factory.mktemp("m") / "bundle", DataConfig(databases=("synthetic",)))])


@pytest.mark.parametrize(
    ("rhythm", "signal", "kind"),
    [
        ("vf", wave(20, 5, 1.0), "shockable"),
        ("vf", wave(20, 5, 0.1), "intermediate"),
        ("vt", wave(20, 3, 1.0), "shockable"),  # 180 bpm
        ("vt", wave(20, 2, 1.0), "intermediate"),  # 120 bpm
        ("vt", np.zeros(5000), "intermediate"),  # without any rate
        ("asystole", wave(20, 5, 0.02), "nonshockable"),
        ("asystole", wave(20, 5, 1.0), "uncounted"),
        ("noise", wave(20, 5, 1.0), "uncounted"),
        ("unlabelled", wave(20, 5, 1.0), "uncounted"),
        ("", wave(20, 5, 1.0), "uncounted"),
        ("organised", wave(20, 5, 1.0), "nonshockable"),
        *((rhythm, wave(20, 5, 1.0), "nonshockable") for rhythm in RHYTHMS if rhythm not in ("vf", "vt", "asystole")),
    ],
)
def test_stretches_are_judged_as_windows_are(rhythm: str, signal: np.ndarray, kind: str) -> None:
    """By rhythm, amplitude and rate, between two stretches of sinus rhythm."""
    sinus = ("normal_sinus", wave(10, 1.2, 1.0))
    result = kinds(labelled(sinus, (rhythm, signal), sinus))
    assert result == ([kind] if rhythm == "normal_sinus" else ["nonshockable", kind, "nonshockable"])


@pytest.mark.parametrize("seconds", [0.4, 1.5, 4.9, 5.0, 5.1, 30.0])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_short_stretches_are_measured_too(seconds: float, place: str) -> None:
    """Fast VT and coarse VF of any length, also at the ends of the record, among calm of the same kind."""
    calm = ("paced", wave(10, 5, 1.0))
    for rhythm in ("vf", "vt"):
        parts = {"first": [1, 0], "middle": [0, 1, 0], "last": [0, 1]}[place]
        made = labelled(*(((rhythm, wave(seconds, 5, 1.0)), calm)[part == 0] for part in parts))
        assert kinds(made) == [("nonshockable", "shockable")[part] for part in parts]


def test_median_of_the_windows_decides() -> None:
    """VF that is coarse for most of its time is coarse as a whole, and the policy's own limits count."""
    mostly = [labelled(("vf", np.concatenate([wave(a, 5, 1.0), wave(b, 5, 0.1)]))) for a, b in ((40, 20), (20, 40))]
    assert [kinds(made) for made in mostly] == [["shockable"], ["intermediate"]]
    assert kinds(mostly[1], policy=LabelPolicy(coarse_vf_mv=0.06, asystole_mv=0.05)) == ["shockable"]
    slow = labelled(("vt", wave(20, 2, 1.0)))
    assert kinds(slow, policy=LabelPolicy(rapid_vt_bpm=110.0)) == ["shockable"]


def test_invalid_samples_do_not_make_vf_fine() -> None:
    """Windows with missing samples are not measured in, unless there are no others."""
    signal = wave(20, 5, 1.0)
    signal[: 12 * 250] = np.nan
    assert kinds(labelled(("vf", signal))) == ["shockable"]
    signal[:] = np.nan
    signal[0] = 0.0
    assert kinds(labelled(("vf", signal))) == ["intermediate"]


def test_stretches_cover_the_record() -> None:
    """Gaps are unlabelled, other codes of one rhythm make no new stretch, and nothing labelled is all unlabelled."""
    episodes = (Episode(2.0, 5.0, "paced", "a"), Episode(5.0, 7.0, "paced", "b"), Episode(9.0, 12.0, "organised"))
    made = Recording(signal=np.zeros((5000, 1)), fs=FS, leads=("II",), episodes=episodes)
    spans = [(s.start_s, s.end_s, s.rhythm) for s in reference_stretches(made, 5.0, 1.0)]
    assert spans == [
        (0.0, 2.0, "unlabelled"),
        (2.0, 7.0, "paced"),
        (7.0, 9.0, "unlabelled"),
        (9.0, 12.0, "organised"),
        (12.0, 20.0, "unlabelled"),
    ]
    assert [asdict(s) for s in reference_stretches(replace(made, episodes=()), 5.0, 1.0)] == [
        {"start_s": 0.0, "end_s": 20.0, "kind": "uncounted", "rhythm": "unlabelled"}
    ]
    with pytest.raises(ValueError, match="unknown rhythm 'waltz'"):
        reference_stretches(replace(made, episodes=(Episode(0.0, 1.0, "waltz"),)), 5.0, 1.0)


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
    result = held(timeline, episodes)
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
        # A shockable or an intermediate stretch within 5 s of what the alarm rests on explains it.
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
    """Every alarm is true, false or neither, but for one that is false when raised and runs into VF."""
    result = held(timeline, [episode])
    assert (result.true_alarms, len(result.false_alarms), result.other_alarms) == (true, false, other)
    if false:
        (alarm,) = result.false_alarms
        assert (alarm.onset_s, alarm.end_s, alarm.alarm_s) == episode
        assert alarm.runs_into_event == bool(true)


def test_tolerance_is_an_option() -> None:
    """Without any, 1 s from VF is false; with 10 s it is not."""
    timeline, episodes = "-" * 16 + "+" * 10, [(10.0, 15.0, 15.0)]
    counts = [len(held(timeline, episodes, tolerance_s=t).false_alarms) for t in (0.0, 1.0, 1.1, TOLERANCE_S, 10.0)]
    assert counts == [1, 1, 0, 0, 0]


def test_false_alarm_says_what_is_annotated() -> None:
    """The rhythm of most of its time, and the beats from its onset to the alarm."""
    stretches = (Stretch(0, 12, "nonshockable", "paced"), Stretch(12, 40, "nonshockable", "svt"))
    made = Recording(
        signal=np.zeros((1, 1)), fs=FS, leads=("II",), beats_s=np.arange(0.25, 40, 0.5), beat_codes=("N",) * 80
    )
    (alarm,) = episode_events(scan_with(40.0, [(10, 20, 15)]), made, stretches).false_alarms
    assert (alarm.rhythm, alarm.beats_bpm, alarm.probability) == ("svt", 120.0, 0.9)
    (bare,) = held("-" * 30, [(10, 20, 15)]).false_alarms
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
    """Where beats are missing or as fast as VT; it counts all the same."""
    made = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",), beats_s=beats_s, beat_codes=("N",) * len(beats_s))
    stretches = (Stretch(0, 40, "nonshockable", rhythm),)
    (alarm,) = episode_events(scan_with(40.0, [(10, 20, 15)]), made, stretches).false_alarms
    assert alarm.doubtful == doubtful
    slower = LabelPolicy(rapid_vt_bpm=70.0)
    (other,) = episode_events(scan_with(40.0, [(10, 20, 15)]), made, stretches, policy=slower).false_alarms
    assert other.doubtful == (doubtful or (rhythm == "organised" and len(beats_s) > 10))


@pytest.mark.parametrize("onset_s", [0.0, 34.5])
def test_doubt_stays_within_the_record(onset_s: float) -> None:
    """Before its start and after its end no beats can be annotated."""
    beats_s = np.arange(2.5, 40, 1.0)
    made = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",), beats_s=beats_s, beat_codes=("N",) * len(beats_s))
    stretches = (Stretch(0, 40, "nonshockable", "organised"),)
    (alarm,) = episode_events(scan_with(40.0, [(onset_s, 40, onset_s + 5)]), made, stretches).false_alarms
    assert not alarm.doubtful


def test_random_timelines_against_a_grid(rng: np.random.Generator) -> None:
    """Seconds, overlaps and alarms are those of arrays with one cell for every half second."""
    checked = np.zeros(4, dtype=int)
    for _ in range(600):
        cells = 120
        edges = np.sort(rng.choice(np.arange(1, cells), 8, replace=False)).tolist()
        chosen = rng.choice(len(KINDS), 9)
        kind = np.repeat(chosen, np.diff([0, *edges, cells]))
        stretches = stretches_of("".join("+~-?"[k] for k in kind), 0.5)
        cuts = np.sort(rng.choice(np.arange(cells), 6, replace=False)).reshape(3, 2)
        spans = [(a, b, a + int(rng.integers(1, 14))) for a, b in cuts.tolist()]
        made = Recording(signal=np.zeros((1, 1)), fs=FS, leads=("II",))
        result = episode_events(scan_with(60.0, [(a / 2, b / 2, c / 2) for a, b, c in spans]), made, stretches)
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
        checked += (true, len(false), both, result.other_alarms)
    assert (checked > 10).all()


def record(patient: str, lengths: list[tuple[float, float | None]], false: int = 0, hours: float = 1.0) -> RecordEvents:
    """Make the counts of a record: events by length and delay, false alarms, and hours of nonshockable time."""
    events = tuple(
        ReferenceEvent(100.0 * i, 100.0 * i + length, "vf", delay is not None, delay, True)
        for i, (length, delay) in enumerate(lengths, 1)
    )
    return RecordEvents(
        database=patient.split("/")[0], record=patient, patient=patient, duration_s=7200.0, windows=100, unusable=5,
        shockable_s=100.0, intermediate_s=0.0, nonshockable_s=3600.0 * hours, uncounted_s=0.0, found_s=80.0,
        wrong_s=20.0, true_alarms=len(lengths), other_alarms=0, events=events,
        false_alarms=tuple(FalseAlarm(0.0, 5.0, 5.0, 0.9, "paced", None, i == 0, i == 1) for i in range(false)),
    )  # fmt: skip


def test_figures_of_three_patients() -> None:
    """Counts by length, shares, delays and rates by hand; limits by scipy."""
    figures = event_figures(
        [
            record("d/a", [(4, None), (6, 5.0), (10, 7.0), (30, -2.0)], false=2),
            record("d/a", [(12, None)], hours=0.5),
            record("d/b", [(20, 3.0)], false=1),
            record("d/c", []),
        ]
    )
    assert [(row.least_s, row.rate.count, row.rate.windows, row.rate.patients) for row in figures.by_length] == [
        (0.0, 4, 6, 2),
        (5.0, 4, 5, 2),
        (10.0, 3, 4, 2),
        (20.0, 2, 2, 2),
    ]
    assert tuple(row.least_s for row in figures.by_length) == LEAST_S
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


def test_limits_of_patients_are_those_of_drawn_patients(rng: np.random.Generator) -> None:
    """False alarms an hour by a bootstrap with a loop; one patient, or no false alarm, has no such limit."""
    counts, hours = [0, 0, 9, 1, 0, 4, 0, 2], [1.0, 2.0, 0.5, 1.0, 3.0, 1.0, 1.0, 0.25]
    made = [record(f"d/{i}", [], false, h) for i, (false, h) in enumerate(zip(counts, hours, strict=True))]
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


@pytest.mark.parametrize("count", [0, 1, 7, 300])
@pytest.mark.parametrize("alpha", [0.025, 0.1])
def test_poisson_limit_leaves_alpha_below(count: int, alpha: float) -> None:
    """At the limit as few are as likely as alpha; of none it is the logarithm of 1 / alpha."""
    assert stats.poisson.cdf(count, poisson_upper_limit(count, alpha)) == pytest.approx(alpha)
    if not count:
        assert poisson_upper_limit(0, alpha) == pytest.approx(-np.log(alpha))


@pytest.mark.parametrize(("count", "alpha"), [(-1, 0.1), (0, 0.0), (0, 1.0), (3, float("nan"))])
def test_poisson_limit_refuses(count: int, alpha: float) -> None:
    """What is no count, and what is no probability."""
    with pytest.raises(ValueError, match="allowed are 0 and more"):
        poisson_upper_limit(count, alpha)


def test_no_events_and_no_hours() -> None:
    """Shares of nothing are None, and not 0 or an error."""
    for figures in (event_figures([]), event_figures([replace(held("?" * 20, []), windows=0)])):
        shares = asdict(figures)
        assert {name for name, value in shares.items() if value is None} >= {
            *("positive_predictivity", "duration_sensitivity", "duration_positive_predictivity", "unusable"),
            *("false_per_hour", "false_per_hour_limit", "false_per_hour_patient_limit"),
            *("delay_median_s", "delay_late_s", "first_alarm_median_s", "first_alarm_late_s"),
        }
        assert figures.headline.observed is None
    quiet = event_figures([held("-" * 3600, [])])
    assert quiet.false_per_hour == 0.0
    assert quiet.false_per_hour_limit == pytest.approx(np.log(10))


@pytest.mark.parametrize("rule", [AlarmRule(1, 1), AlarmRule(2, 3), AlarmRule(8, 10)])
def test_other_rule_is_another_scan(rule: AlarmRule) -> None:
    """All that a scan with the rule gives, and the first scan is as it was."""
    advisor = Advisor()
    recording = next(synthetic_recordings(1))
    first = scan(recording, model=advisor)
    before = first.episodes
    other, expected = with_rule(first, rule), scan(recording, model=advisor, alarm=rule)
    assert other.episodes == expected.episodes
    assert other.alarm.tolist() == expected.alarm.tolist()
    assert other.alarm_rule == rule
    np.testing.assert_array_equal(other.probability, expected.probability)
    assert first.episodes == before
    assert first.alarm_rule == AlarmRule()


def test_whole_records_of_the_test_patients(found: WholeRecords) -> None:
    """Each record by itself, scanned again, and the sums of all; every rule is that of its own scans."""
    tested = load_split("synthetic-v1")[0].test
    recordings = {r.name: r for r in synthetic_recordings() if r.patient in tested}
    assert [r.record for r in found.records] == list(recordings)
    assert {r.patient for r in found.records} == tested
    advisor = Advisor()
    counted: dict[AlarmRule, list[RecordEvents]] = {rule: [] for rule in {*RULES, AlarmRule()}}
    for made in recordings.values():
        stretches = reference_stretches(made, 5.0, 1.0)
        for rule, records in counted.items():
            records.append(episode_events(scan(made, model=advisor, alarm=rule), made, stretches))
    assert found.records == tuple(counted[AlarmRule()])
    assert dict(found.by_rule) == {rule: event_figures(records) for rule, records in counted.items()}
    assert found.figures == dict(found.by_rule)[AlarmRule()]
    assert sum(f.false_alarms for f in found.by_patient) == found.figures.false_alarms
    assert [f.name for f in found.by_database] == ["synthetic"]
    assert found.figures.headline.windows > 10
    labels = {
        (r.name, e.start_s) for r in recordings.values() for e in r.episodes if e.code in ("coarse_vf", "rapid_vt")
    }
    starts = {(r.record, e.start_s) for r in found.records for e in r.events}
    assert labels & starts


def test_patients_have_their_job(tmp_path: Path) -> None:
    """Validation patients are those of the fold, test patients that were seen are refused, and so is another part."""
    bundle = bundle_of(tmp_path / "bundle", DataConfig(databases=("synthetic",)))
    fold = load_split("synthetic-v1")[0]
    for part in ("validation", "test"):
        assert {patient for _, _, patient in records_of(bundle, part=part)} == getattr(fold, part)
    with pytest.raises(ValueError, match='allowed are "test" and "validation"'):
        records_of(bundle, part="train")
    with pytest.raises(ValueError, match='of whole databases "test" alone'):
        records_of(bundle, ["synthetic"], part="validation")
    with pytest.raises(ValueError, match="has seen them"):
        records_of(bundle, ["synthetic"])
    bundle.card["patients"]["train"].append(sorted(fold.test)[0])
    with pytest.raises(ValueError, match="are tested, but"):
        whole_records([bundle])


def test_missing_database_is_said(tmp_path: Path) -> None:
    """The name of the folder, and what to run."""
    with pytest.raises(FileNotFoundError, match="ecg-shock fetch vfdb"):
        whole_records([load_bundle(DEFAULT_BUNDLE)], folder=tmp_path)


def test_report_shows_and_escapes(tmp_path: Path, found: WholeRecords, make_predictions) -> None:
    """Names from files are text in the page and in Markdown, and without whole records the page says so."""
    predictions = make_predictions(300)
    bad = replace(record(HOSTILE, [(12, None), (20, 4.0)], false=3), database=HOSTILE, record=HOSTILE)
    figures = event_figures([bad], HOSTILE)
    whole = replace(
        found, figures=figures, by_database=(figures,), by_patient=(figures,), records=(bad,), too_short=(HOSTILE,)
    )
    validation = replace(judge(predictions), whole_records=whole)
    write_report(tmp_path / "report.html", ReportContent(validation, predictions))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;|`" in page
    assert 'id="whole"' in page
    assert "detects 1 of 2 events of 10 s and more (1 patient)" in page
    assert "It is false 3 times in 1.00 h of nonshockable rhythm: 3.00 an hour" in page
    assert "Whole records were not scanned" not in page
    markdown = to_markdown(validation)
    assert "\\<img src=x onerror=alert(1)>\\|\\`" in markdown
    assert HOSTILE not in markdown
    assert '"false_alarms": 3' in to_json(validation)
    write_report(tmp_path / "bare.html", ReportContent(judge(predictions), predictions))
    assert "Whole records were not scanned" in (tmp_path / "bare.html").read_text(encoding="utf-8")


def test_tables_round_against_the_algorithm(found: WholeRecords) -> None:
    """False alarms an hour are rounded up, shares down, and rows without any event are left out."""
    figures = event_figures([record("d/a", [(4, 1.0)] * 2 + [(4, None)], false=1, hours=3.0)])
    whole = replace(found, figures=figures, by_database=(), by_rule=())
    events, false, *_ = event_tables(whole)
    assert [row[1:5] for row in events.rows] == [("any", "1", "2/3", "66.6")]
    assert false.rows[0][4] == "0.34"


@pytest.mark.recordings
def test_two_real_records(tmp_path: Path, recordings_dir: Path) -> None:
    """Events of two records of cudb are their brackets as wfdb reads them, and their time is that of the files."""
    records = ("cu03", "cu30")
    content = tomllib.loads((resource_dir("data_manifests") / "cudb.toml").read_text(encoding="utf-8"))
    content["files"] = {name: entry for name, entry in content["files"].items() if name.split(".")[0] in records}
    content["patients"] = {}
    manifest = tmp_path / "two.toml"
    manifest.write_text(tomli_w.dumps(content), encoding="utf-8")
    seen: list[None] = []
    whole = whole_records(
        [load_bundle(DEFAULT_BUNDLE)], [str(manifest)], recordings_dir, on_record=lambda: seen.append(None)
    )
    assert len(seen) == 2
    assert [r.record for r in whole.records] == list(records)
    for said in whole.records:
        path = recordings_dir / "cudb" / said.record
        marks = wfdb.rdann(str(path), "atr")
        end_s = wfdb.rdheader(str(path)).sig_len / 250
        times = marks.sample / 250
        opened = [t for t, symbol in zip(times, marks.symbol, strict=True) if symbol == "["]
        closed = [t for t, symbol in zip(times, marks.symbol, strict=True) if symbol == "]"]
        closed += [end_s] * (len(opened) - len(closed))
        total = said.shockable_s + said.intermediate_s + said.nonshockable_s + said.uncounted_s
        assert total == pytest.approx(end_s)
        assert said.duration_s == pytest.approx(end_s)
        assert said.events  # in cu03 the text stands one sample before its bracket
        for event in said.events:
            assert any(
                a - 0.01 <= event.start_s and event.end_s <= b + 0.01 for a, b in zip(opened, closed, strict=True)
            )
        bracketed = sum(b - a for a, b in zip(opened, closed, strict=True))
        assert said.shockable_s + said.intermediate_s <= bracketed + 0.01
        scanned = scan(path)
        assert said.windows == len(scanned.start_s)
        assert said.true_alarms + len(said.false_alarms) + said.other_alarms >= len(scanned.episodes)
