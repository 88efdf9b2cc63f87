"""Whole records in the report: which rule was chosen, names as text, and rounding against the algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ecg_shock.evaluation.events import RecordEvents, event_figures
from ecg_shock.evaluation.metrics import evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.whole_records import DEFAULT_RULE, RULES, RuleChoice, WholeRecords
from ecg_shock.report.html import ReportContent, write_report
from ecg_shock.report.tables import event_notes, event_tables, to_json, to_markdown

HOSTILE = "<img src=x onerror=alert(1)>|`"


@pytest.fixture
def whole(record_events: Callable[..., RecordEvents]) -> WholeRecords:
    """Make two folds: one chose 8 of 10 on 20 patients, the other had nothing to choose on."""
    bad = replace(record_events(HOSTILE, [(12, None), (20, 4.0)], false=3), database=HOSTILE, record=HOSTILE)
    figures = event_figures([bad], HOSTILE)
    by_rule = tuple((rule, event_figures([record_events("d/a", [(12, 1.0)], rule.n)])) for rule in RULES)
    return WholeRecords(
        choices=(
            RuleChoice(0, RULES[-1], True, 20, 21, by_rule),
            RuleChoice(1, DEFAULT_RULE, False, 0, 0, ()),
        ),
        fixed_rule=DEFAULT_RULE,
        window_s=5.0,
        step_s=1.0,
        figures=figures,
        by_database=(figures,),
        by_patient=(figures,),
        by_rule=by_rule,
        records=(bad,),
        too_short=(HOSTILE,),
    )


def test_report_shows_and_escapes(
    tmp_path: Path, whole: WholeRecords, make_predictions: Callable[..., Predictions]
) -> None:
    """Names from files are text in the page and in Markdown, and without whole records the page says so."""
    predictions = make_predictions(300)
    validation = evaluate(predictions)
    write_report(tmp_path / "report.html", ReportContent(validation, predictions, whole_records=whole))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;|`" in page
    assert 'id="whole"' in page
    assert "detects 1 of 2 events of 10 s or longer (1 patient)" in page
    assert "There are 3 false alarms in 1.00 h of nonshockable rhythm: 3.00 per hour" in page
    assert "for all folds, 1 of 1 events are detected, with 8 false alarms" in page
    assert "Whole records were not scanned" not in page
    markdown = to_markdown(validation, whole)
    assert "\\<img src=x onerror=alert(1)>\\|\\`" in markdown
    assert HOSTILE not in markdown
    assert '"false_alarms": 3' in to_json(validation, whole)
    write_report(tmp_path / "bare.html", ReportContent(validation, predictions))
    assert "Whole records were not scanned" in (tmp_path / "bare.html").read_text(encoding="utf-8")


def test_choice_is_told(whole: WholeRecords) -> None:
    """Each fold's rule, why and on how many patients; the default is marked, and where it was chosen is said."""
    notes = " ".join(event_notes(whole))
    assert "Fold 0: 8 of 10, on 20 patients." in notes
    assert "Fold 1: 5 of 8, the default, because the validation patients were not found" in notes
    assert "The candidates are 1 of 1, 2 of 3, 3 of 5, 5 of 8, 8 of 10. Among the rules" in notes
    assert "validation patients of fold 0 of public-v1. They are the test patients of fold 1" in notes
    assert "an alarm needs at least 9 s at 5 of 8, 12 s at 8 of 10." in notes
    assert "The limits of the rule for unusable strips were set so that" in notes
    *tested, rules, choices = event_tables(whole)
    assert all("each fold's own rule" in table.title for table in tested)
    assert all(table.rows[-1][0] == "all, fixed 5 of 8" for table in tested)
    assert [row[0] for row in rules.rows] == ["1 of 1", "2 of 3", "3 of 5", "5 of 8 (fixed)", "8 of 10"]
    assert [row[:2] for row in choices.rows[3:]] == [("0", "5 of 8"), ("0", "8 of 10 (chosen)")]
    none = replace(whole, choices=(replace(whole.choices[1], patients=3, records=3),))
    assert "because the validation patients have no such event" in " ".join(event_notes(none))
    assert len(event_tables(none)) == 5
    assert all("at 5 of 8 windows" in table.title for table in event_tables(none)[:4])


def test_tables_round_against_the_algorithm(whole: WholeRecords, record_events: Callable[..., RecordEvents]) -> None:
    """False alarms an hour are rounded up, proportions down, and rows without any event are excluded."""
    figures = event_figures([record_events("d/a", [(4, 1.0)] * 2 + [(4, None)], false=1, hours=3.0)])
    events, false, *_ = event_tables(
        replace(whole, figures=figures, by_database=(), by_rule=((DEFAULT_RULE, figures),))
    )
    assert [row[1:5] for row in events.rows] == [("any", "1", "2/3", "66.6")] * 2
    assert false.rows[0][4] == "0.34"
