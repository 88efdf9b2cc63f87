"""The tables are aligned, marked and complete, and escape names."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from ecg_shock.evaluation.metrics import Model, Validation, evaluate
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.report.tables import DISCLAIMER, NETWORK_NOTE, to_dict, to_json, to_markdown, to_rich

HOSTILE = "[red]a|b[/red]`<script>x</script>`\\\x1b[2J_名_&lt;\n\u202e"


def terminal(validation: Validation, width: int) -> str:
    """Print a validation on a terminal with colours."""
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=True, color_system="truecolor").print(to_rich(validation))
    return file.getvalue()


def markdown_cells(text: str) -> list[list[str]]:
    """Read the rows of all tables as a Markdown parser sees them."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 3:
            kinds = {child.type for child in token.children or []}
            assert kinds <= {"text", "text_special"}, token.content
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


def measured(predictions: Predictions) -> Predictions:
    """Add rates and amplitudes that spread over all limits between the classes."""
    n = len(predictions)
    return dataclasses.replace(
        predictions,
        rate_bpm=np.where(predictions.rhythm == "vt", np.linspace(100, 300, n), np.nan),
        amplitude_mv=np.where(predictions.rhythm == "vf", np.linspace(0.01, 0.6, n), np.nan),
    )


@pytest.fixture
def validation(make_predictions: Callable[..., Predictions]) -> Validation:
    """Evaluate random predictions at two durations."""
    return evaluate(Predictions.concatenate([make_predictions(400, duration) for duration in (3.0, 5.0)]))


def test_json_holds_everything_under_stable_keys(validation: Validation) -> None:
    """JSON comes back as the dictionary, without NaN, under the keys that readers rely on."""
    document = json.loads(to_json(validation), parse_constant=pytest.fail)
    assert document == json.loads(json.dumps(to_dict(validation)))
    keys = [
        "synthetic",
        "note",
        "protocol",
        "source",
        "models",
        "limits",
        "coverage",
        "performances",
        "default_labels",
        "comparisons",
        "whole_records",
    ]
    assert list(document) == keys
    assert (document["protocol"], document["source"], document["models"]) == ("", "", [])
    assert document["limits"] == {"level": "90 % one-sided", "alpha": 0.1, "resamples": 2000, "seed": 0}
    assert document["note"] == DISCLAIMER
    first = document["performances"][0]
    assert set(first) == {
        *("duration_s", "windows", "patients", "aha", "sensitivity", "specificity", "balanced_accuracy"),
        *("tp", "fn", "tn", "fp", "ppv", "false_positive_rate", "false_positive_rate_upper_limit"),
        *("by_database", "by_rhythm", "most_errors", "by_label", "overlapping"),
        *("by_fold", "calibration"),
    }
    assert set(first["aha"][0]) == {
        "aha_class",
        "measure",
        "goal",
        "rate",
        "verdict",
        "overlapping",
        "missing",
        "no_decision",
    }
    assert set(first["sensitivity"]) == {
        *(
            "windows",
            "patients",
            "count",
            "observed",
            "lower_limit",
            "patient_limit",
            "macro_average",
            "design_effect",
            "cluster_limit",
        ),
    }


def test_markdown_says_what_json_says(validation: Validation) -> None:
    """Patients, counts, verdicts and shares of every AHA row stand in the Markdown, read by a parser."""
    rows = markdown_cells(to_markdown(validation))
    for performance in to_dict(validation)["performances"]:
        for aha in performance["aha"]:
            rate = aha["rate"]
            (found,) = (
                row
                for row in rows
                if len(row) == 8
                and row[-1] == aha["verdict"]
                and row[0].endswith(f": {aha['measure']}")
                and row[2] == f"{rate['count']}/{rate['windows']} (n ≥ {aha['goal']['min_windows']})"
            )
            assert found[1] == str(rate["patients"])
            printed = float(found[3].split()[0])
            assert printed <= 100 * rate["observed"] + 1e-6 < printed + 0.1 + 1e-5


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_columns_are_aligned(validation: Validation, width: int) -> None:
    """At 80 and 120 columns nothing is cut or too wide, and the last digits of each column stand in one line."""
    lines = terminal(validation, width).replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n")
    assert max(cell_len(line) for line in lines) <= width
    assert "…" not in "".join(lines).replace("PVC …", "").replace("…): Sp", "")
    for start in (i for i, line in enumerate(lines) if "AHA classes" in line):
        header = next(line for line in lines[start:] if "Patients" in line)
        end = header.index("Patients") + len("Patients")
        body = lines[start : lines.index(" " * width, start)]
        first_lines = [line for line in body if "/" in line]
        assert len(first_lines) == 7
        assert all(line[end - 1].isdigit() and line[end] == " " for line in first_lines)


def test_narrow_terminal_cuts_no_number(validation: Validation) -> None:
    """At 60 columns the headings fold, while every count, window and measure stays whole on its line."""
    lines = terminal(validation, 60).replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n")
    assert max(cell_len(line) for line in lines) <= 60
    for performance in validation.performances:
        for measure, rate in (("Se", performance.sensitivity), ("Sp", performance.specificity)):
            start = [f"{performance.duration_s:g}", "s", measure, f"{rate.patients}", f"{rate.count}/{rate.windows}"]
            assert any(line.split()[:5] == start for line in lines)


def test_markdown_columns_are_aligned(validation: Validation) -> None:
    """As plain text, the bars of each Markdown table stand below each other."""
    tables = [part for part in to_markdown(validation).split("\n\n") if part.startswith("|")]
    assert len(tables) == 15
    for table in tables:
        bars = {tuple(i for i, c in enumerate(line) if c == "|") for line in table.strip().split("\n")}
        assert len(bars) == 1


def test_every_output_says_how_sure_and_for_whom(validation: Validation) -> None:
    """The level, alpha, the patients and the disclaimer are printed everywhere."""
    for text in (terminal(validation, 200), to_markdown(validation)):
        assert "90 % one-sided, α = 0.1" in text
        assert DISCLAIMER in text
        assert text.count("Patients") >= 4
        assert "synthetic" not in text


def test_every_output_of_synthetic_windows_says_so(make_predictions: Callable[..., Predictions]) -> None:
    """Each table's title is marked, and so are the notes and the JSON."""
    synthetic = evaluate(make_predictions(100, databases=("synthetic",)))
    assert to_dict(synthetic)["synthetic"] is True
    headings = [line for line in to_markdown(synthetic).split("\n") if line.startswith("#")]
    assert len(headings) == 9
    assert all(heading.endswith("(synthetic)") for heading in headings)
    assert to_markdown(synthetic).startswith("- synthetic: simulated signals")
    assert terminal(synthetic, 120).count("(synthetic)") == 9


def test_hostile_names_stay_text(make_predictions: Callable[..., Predictions]) -> None:
    """Markup, pipes, tags, escapes and control characters in a database's name come out as they would be typed."""
    shown = HOSTILE.replace("\x1b", "\\u001b").replace("\n", "\\u000a").replace("\u202e", "\\u202e")
    hostile = evaluate(make_predictions(100, databases=(HOSTILE, "vfdb")))
    rows = markdown_cells(to_markdown(hostile))
    assert sum(row[0] == shown for row in rows) == 3
    assert {len(row) for row in rows} == {5, 6, 8, 9, 10}
    printed = terminal(hostile, 200)
    # The database has three rows, and its name begins that of its patients.
    named = sum(HOSTILE in row.name for row in hostile.performances[0].most_errors)
    assert printed.count(shown) == 3 + named
    assert "\x1b[2J" not in printed
    assert "\x1b[31m" not in printed
    names = {row["name"] for row in json.loads(to_json(hostile))["performances"][0]["by_database"]}
    assert names == {HOSTILE, "vfdb"}


def test_models_are_named_everywhere(make_predictions: Callable[..., Predictions]) -> None:
    """Each model has its row, each way of selection its sentence once, and names stay text."""
    digest, commit = "0123456789abcdef" * 4, "89abcdef" * 5
    models = tuple(
        Model(f"fold {k}", f"fold-{k}/bundle", "public-v1", k, digest, f"{commit}-dirty", 4321, 0.5, "Chosen <b>so</b>")
        for k in (0, 1)
    )
    found = evaluate(make_predictions(100), models=models)
    document = json.loads(to_json(found))
    assert [model["fold"] for model in document["models"]] == [0, 1]
    assert set(document["models"][0]) == {
        *("name", "folder", "split", "fold", "sha256", "commit", "parameters", "threshold", "selection", "differences"),
    }
    assert document["models"][0]["sha256"] == digest
    assert document["protocol"] == NETWORK_NOTE
    markdown = to_markdown(found)
    row = ["fold 1", "fold-1/bundle", digest[:12], f"{commit[:12]}-dirty", "4321", "0.5"]
    assert row in markdown_cells(markdown)
    for text in (MarkdownIt("commonmark").render(markdown), terminal(found, 200)):
        assert "folds 0, 1 of public-v1" in text
        assert text.count("Selection: Chosen ") == 1
        assert "<b>" not in text or text == terminal(found, 200)
        assert NETWORK_NOTE in text
    narrow = terminal(found, 60)
    assert max(cell_len(line) for line in narrow.replace("\x1b[1m", "").replace("\x1b[0m", "").split("\n")) <= 60
    assert digest[:12] in narrow


def test_terminal_details_the_headline_duration(make_predictions: Callable[..., Predictions]) -> None:
    """Databases and rhythms are shown at 5 s, or else at the longest; the AHA classes at all durations."""
    durations = (3.0, 5.0, 8.0)
    parts = [make_predictions(50, duration) for duration in durations]
    with_headline = terminal(evaluate(Predictions.concatenate(parts)), 120)
    assert "By database, windows of 5 s" in with_headline
    assert with_headline.count("By database") == 1
    assert all(f"AHA classes (and goals), windows of {d:g} s" in with_headline for d in durations)
    assert "By rhythm, windows of 8 s" in terminal(evaluate(Predictions.concatenate(parts[::2])), 120)


def test_shares_are_rounded_against_the_algorithm() -> None:
    """One error in 2205 windows is never printed as none, and exact tenths are not pushed down."""
    n = 2205
    shock = np.arange(n) == 0
    names = np.array([f"p{i % 50}" for i in range(n)])
    predictions = Predictions(
        *(np.full(n, "mitdb"), names, np.full(n, "ECG"), names, np.arange(n) * 5.0, np.full(n, 5.0)),
        *(np.full(n, "paced"), np.full(n, "other_nonshockable"), shock * 1.0, shock, np.zeros(n, int)),
    )
    rows = markdown_cells(to_markdown(evaluate(predictions)))
    pooled = next(row for row in rows if row[1] == "Sp")
    assert pooled[:5] == ["5 s", "Sp", "50", "2204/2205", "99.9"]
    counts = next(row for row in rows if row[:5] == ["5 s", "0", "0", "2204", "1"])
    assert counts[5:] == ["– of 0", "99.9 of 2205", "0.0 of 1", "0.1 of 2205", "0.2"]
    exact = predictions.select(np.arange(n) < 1000)
    rows = markdown_cells(to_markdown(evaluate(exact)))
    assert next(row[4] for row in rows if row[1] == "Sp") == "99.9"


@pytest.mark.parametrize("width", [60, 80])
def test_classes_at_other_limits_are_shown(make_predictions: Callable[..., Predictions], width: int) -> None:
    """Every limit has its row with the figures of the JSON, in Markdown and within the terminal's width."""
    found = evaluate(measured(make_predictions(900)))
    rows = markdown_cells(to_markdown(found))
    (performance,) = to_dict(found)["performances"]
    assert len(performance["by_label"]) == 10
    text = terminal(found, width).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert max(cell_len(line) for line in text.split("\n")) <= width
    for label in performance["by_label"]:
        rate = label["row"]["rate"]
        limit = f"≥ {label['limit']:g} bpm" if label["measured"] == "rate_bpm" else f"> {label['limit']:g} mV"
        (row,) = (row for row in rows if row[1] == limit)
        assert row[2:4] == [str(rate["patients"]), f"{rate['count']}/{rate['windows']}"]
        assert row[-1] == label["row"]["verdict"]
        assert any(limit in line and row[3] in line for line in text.split("\n"))
    assert "excluded" not in to_markdown(found)


def test_what_was_not_measured_is_said(make_predictions: Callable[..., Predictions]) -> None:
    """Without rates or amplitudes the rows are missing, with a note; without VT and VF there is no note."""
    predictions = make_predictions(300)
    for text in (to_markdown(evaluate(predictions)), terminal(evaluate(predictions), 200)):
        text = text.replace("\\_", "_")
        assert "Rapid VT with other limits of the VT rate is not shown, because rate_bpm is missing" in text
        assert "Coarse VF with other limits of the VF amplitude is not shown, because amplitude_mv is missing" in text
        assert "with other limits between" not in text
    calm = predictions.select(~np.isin(predictions.rhythm, ["vt", "vf"]))
    assert "excluded" not in to_markdown(evaluate(calm))


def test_design_effect_is_printed(make_predictions: Callable[..., Predictions]) -> None:
    """Design effects and effective windows are those of the JSON."""
    found = evaluate(make_predictions(2000))
    rows = markdown_cells(to_markdown(found))
    (performance,) = found.performances
    for row in performance.aha:
        (cells,) = (
            cells
            for cells in rows
            if len(cells) == 6
            and cells[0].endswith(f": {row.measure}")
            and cells[1:3] == [str(row.rate.patients), str(row.rate.windows)]
        )
        assert row.rate.design_effect is not None
        assert cells[3] == f"{row.rate.design_effect:.1f}"
        assert int(cells[4]) == min(row.rate.windows, int(row.rate.windows / row.rate.design_effect))
        assert row.rate.cluster_limit is not None
        assert float(cells[5]) == math.floor(1000 * row.rate.cluster_limit) / 10
    for measure, rate in (("Se", performance.sensitivity), ("Sp", performance.specificity)):
        (cells,) = (cells for cells in rows if cells[:2] == ["5 s", measure])
        assert cells[-1] == f"{rate.design_effect:.1f}"


def test_source_and_overlaps_are_told(make_predictions: Callable[..., Predictions]) -> None:
    """Where the predictions came from stands first, as text, and windows that overlap are counted."""
    predictions = make_predictions(50)
    closer = dataclasses.replace(predictions, start_s=predictions.start_s * 0.01)
    found = evaluate(closer, source=f"{HOSTILE}.csv")
    shown = HOSTILE.replace("\x1b", "\\u001b").replace("\n", "\\u000a").replace("\u202e", "\\u202e")
    assert f"Evaluated: {shown}.csv." in terminal(found, 400)
    assert "<script>" not in MarkdownIt("commonmark").render(to_markdown(found))
    assert f"{found.performances[0].overlapping} of 50 windows of 5 s begin before" in to_markdown(found)
    assert found.performances[0].overlapping > 10
    assert "before the previous window ends" not in to_markdown(evaluate(predictions))


def test_terminal_of_a_million_windows_is_80_wide(make_predictions: Callable[..., Predictions]) -> None:
    """Counts of seven digits still fit 80 columns."""
    found = evaluate(measured(make_predictions(400)))
    (performance,) = found.performances
    many = dataclasses.replace(performance.specificity, windows=1_234_567, count=1_200_000, patients=12_345)
    wide = dataclasses.replace(performance, specificity=many, sensitivity=many, tp=10**6, fn=10**6, tn=10**6, fp=10**6)
    text = terminal(dataclasses.replace(found, performances=(wide,)), 80).replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert max(cell_len(line) for line in text.split("\n")) <= 80
    assert "1200000/1234567" in text
    assert text.count("1000000") >= 4
