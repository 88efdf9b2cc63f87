"""The alarm rule is chosen on validation patients, and the test patients are scanned with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import wfdb

from ecg_shock import Advisor, AlarmRule, scan
from ecg_shock.data.manifests import resource_dir
from ecg_shock.data.recordings import Recording
from ecg_shock.data.splits import load_split
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.evaluation.evaluation_set import EvaluationSet
from ecg_shock.evaluation.events import RecordEvents, episode_events, event_figures
from ecg_shock.evaluation.reference import reference_segments
from ecg_shock.evaluation.whole_records import DEFAULT_RULE, RULES, RecordScans, WholeRecords, choose_rule
from ecg_shock.inference.scanning import with_rule
from ecg_shock.models.bundle import Bundle

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def whole_records(evaluation: EvaluationSet) -> WholeRecords:
    """Scan every record that belongs to an evaluation set."""
    scans = RecordScans(evaluation)
    for recording in evaluation.recordings(scans.records):
        scans.add(recording)
    return scans.figures()


def scanned_again(subset: frozenset[str]) -> dict[AlarmRule, list[RecordEvents]]:
    """Scan the synthetic patients rule by rule."""
    advisor = Advisor()
    counted: dict[AlarmRule, list[RecordEvents]] = {rule: [] for rule in RULES}
    for recording in synthetic_recordings():
        if recording.patient in subset:
            segments = reference_segments(recording, 5.0, 1.0)
            for rule, records in counted.items():
                records.append(episode_events(scan(recording, model=advisor, alarm=rule), recording, segments))
    return counted


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        # Detected of 200 events of 10 s and more, and false alarms, for each of RULES.
        ([(200, 9), (200, 7), (200, 5), (200, 3), (200, 1)], 4),
        ([(200, 9), (199, 7), (198, 5), (197, 3), (190, 1)], 2),  # two of 200 are one point, three are more
        ([(197, 9), (199, 7), (198, 5), (197, 3), (196, 1)], 3),  # of the best, whichever rule that is
        ([(200, 9), (200, 4), (200, 4), (200, 4), (190, 1)], 1),  # of equals the first
        ([(200, 0), (200, 0), (200, 0), (200, 0), (200, 0)], 0),
        ([(0, 3), (0, 2), (0, 2), (0, 1), (0, 1)], 3),  # nothing is detected by any
    ],
)
def test_rule_is_chosen_by_the_criterion(
    found: list[tuple[int, int]], expected: int, record_events: Callable[..., RecordEvents]
) -> None:
    """The rule with the fewest false alarms that loses at most one point is chosen; events below 10 s do not count."""
    by_rule = []
    for rule, (detected, false) in zip(RULES, found, strict=True):
        events = [(12.0, 3.0)] * detected + [(12.0, None)] * (200 - detected) + [(9.0, 3.0 if rule.k > 3 else None)]
        by_rule.append((rule, event_figures([record_events("d/a", events, false)])))
    assert choose_rule(by_rule) == RULES[expected]


def test_few_events_must_all_be_found(record_events: Callable[..., RecordEvents]) -> None:
    """One of 20 events is five points: a rule that loses it is not chosen."""
    by_rule = [
        (RULES[0], event_figures([record_events("d/a", [(12, 1.0)] * 20, 50)])),
        (RULES[1], event_figures([record_events("d/a", [(12, 1.0)] * 19 + [(12, None)], 0)])),
    ]
    assert choose_rule(by_rule) == RULES[0]


def test_without_events_nothing_is_chosen(record_events: Callable[..., RecordEvents]) -> None:
    """No rule is chosen without long events or records."""
    figures = event_figures([record_events("d/a", [(9, 1.0)], 2)])
    assert choose_rule([(rule, figures) for rule in RULES]) is None
    assert choose_rule([]) is None


@pytest.mark.parametrize("rule", [AlarmRule(1, 1), AlarmRule(2, 3), AlarmRule(8, 10)])
def test_other_rule_is_another_scan(rule: AlarmRule) -> None:
    """The result is that of a scan with the rule, and the first scan is unchanged."""
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


def test_whole_records_of_two_folds(synthetic_bundle: Callable[..., Bundle]) -> None:
    """The rule of each fold comes from its validation patients, and with it alone its test patients are evaluated."""
    split = load_split("synthetic-v1")
    found = whole_records(EvaluationSet((synthetic_bundle(0), synthetic_bundle(1))))
    expected: list[RecordEvents] = []
    fixed: dict[AlarmRule, list[RecordEvents]] = {rule: [] for rule in RULES}
    for fold, choice in enumerate(found.choices):
        validation, tested = scanned_again(split[fold].validation), scanned_again(split[fold].test)
        assert (choice.fold, choice.patients, choice.decided) == (fold, len(split[fold].validation), True)
        assert dict(choice.by_rule) == {rule: event_figures(records) for rule, records in validation.items()}
        assert choice.rule == choose_rule(choice.by_rule)
        expected += tested[choice.rule]
        for rule, records in tested.items():
            fixed[rule] += records
    assert found.records == tuple(expected)
    assert found.figures == event_figures(expected)
    assert dict(found.by_rule) == {rule: event_figures(records) for rule, records in fixed.items()}
    assert found.fixed == event_figures(fixed[DEFAULT_RULE])
    assert sum(f.false_alarms for f in found.by_patient) == found.figures.false_alarms
    assert [f.name for f in found.by_database] == ["synthetic"]
    assert found.figures.headline.windows > 10
    labels = {
        (r.name, e.start_s) for r in synthetic_recordings() for e in r.episodes if e.code in ("coarse_vf", "rapid_vt")
    }
    assert labels & {(r.record, e.start_s) for r in found.records for e in r.events}


def test_default_rule_where_nothing_can_be_chosen(
    synthetic_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the recordings of the validation patients the rule is the default, and the choice says so."""
    monkeypatch.setattr(EvaluationSet, "has_validation", lambda self: False)
    scans = RecordScans(EvaluationSet((synthetic_bundle(),)))
    tested = load_split("synthetic-v1")[0].test
    assert {record.patient for record in scans.records} == tested
    for recording in synthetic_recordings():
        if recording.patient in sorted(tested)[:2]:
            scans.add(recording)
    found = scans.figures()
    assert found.figures == found.fixed
    (choice,) = found.choices
    assert (choice.rule, choice.decided, choice.patients, choice.by_rule) == (DEFAULT_RULE, False, 0, ())


def test_short_records_are_named(synthetic_bundle: Callable[..., Bundle]) -> None:
    """Records shorter than a window are excluded; without others, it is an error."""
    scans = RecordScans(EvaluationSet((synthetic_bundle(),)))
    record = scans.records[0]
    whole = Recording(
        signal=np.zeros((5000, 1)), fs=250.0, leads=("II",), name="long", database="db", patient=record.patient
    )
    scans.add(replace(whole, signal=whole.signal[:1200], name="short"))
    with pytest.raises(ValueError, match="all records are shorter than a window"):
        scans.figures()
    scans.add(whole)
    found = scans.figures()
    assert found.too_short == ("db/short",)
    assert [one.record for one in found.records] == ["long"]


@pytest.mark.recordings
def test_two_real_records(
    fold_bundle: Bundle, tmp_path: Path, recordings_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events of two records of cudb are their brackets as wfdb reads them, and their time is that of the files."""
    records = ("cu03", "cu30")
    content = tomllib.loads((resource_dir("data_manifests") / "cudb.toml").read_text(encoding="utf-8"))
    content["files"] = {name: entry for name, entry in content["files"].items() if name.split(".")[0] in records}
    content["patients"] = {}
    manifest = tmp_path / "two.toml"
    manifest.write_text(tomli_w.dumps(content), encoding="utf-8")
    monkeypatch.setattr(EvaluationSet, "has_validation", lambda self: False)  # 22 records more
    whole = whole_records(EvaluationSet((fold_bundle,), (str(manifest),), recordings_dir))
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
