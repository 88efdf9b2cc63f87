"""A validation as one page for a design review: verdicts first, then what they rest on, then every error as ECG.

The page is a single HTML file that loads nothing, neither from the network nor from beside it, and forbids it by its
Content-Security-Policy. Names come from files of others: all are escaped, and characters that could not be seen are
shown.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from ecg_shock.data.windows import Excluded
from ecg_shock.evaluation.comparison import Comparison
from ecg_shock.evaluation.metrics import Validation
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.stress import StressPoint
from ecg_shock.evaluation.whole_records import WholeRecords
from ecg_shock.files import write_text
from ecg_shock.report.figures import patients_figure
from ecg_shock.report.first_screen import better, evaluated, evidence, title, verdict, weaknesses
from ecg_shock.report.formats import printable
from ecg_shock.report.gallery import Strip, entry, paper_grid, worst_first
from ecg_shock.report.sections import (
    baseline_section,
    curves_section,
    durations_figure,
    excluded_table,
    no_curves,
    stress_section,
)
from ecg_shock.report.tables import (
    DISCLAIMER,
    NETWORK_NOTE,
    SYNTHETIC_NOTE,
    counts_table,
    effective_table,
    groups_table,
    headline,
    labels_table,
    level_of,
    models_table,
    pooled_table,
    window_notes,
)
from ecg_shock.report.whole_records import whole_section

MAX_STRIPS = 500


@dataclass(frozen=True, eq=False)
class ReportContent:
    """What the report is made of. A section whose field is empty is missing, and the report says that it was not done.

    Parameters
    ----------
    validation, predictions : Validation, Predictions
        What `ecg_shock.evaluation.metrics.evaluate` says, and of what.
    baselines, baselines_note : mapping of str to Validation, str
        Other algorithms by their names, on the same windows, and how they were made.
    comparisons : mapping of str to Comparison
        By the same names: each other algorithm first and this one second, at the headline duration.
    stress, stress_note : sequence of StressPoint, str
        In any order; which windows were disturbed, and how they were evaluated.
    whole_records : WholeRecords, optional
        What an alarm does on the whole records of the same patients.
    strips : callable, optional
        Takes a row of `predictions` and returns the raw ECG around it, or None where there is none.
    excluded : sequence of Excluded
        What is in no window, of the headline duration.
    provenance : mapping of str to str or to a mapping of str to str
        Data digests, versions, configuration, seeds, command.
    notes : sequence of str
        Sentences on what was excluded, and why.
    """

    validation: Validation
    predictions: Predictions
    baselines: Mapping[str, Validation] = field(default_factory=dict)
    baselines_note: str = ""
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    stress: Sequence[StressPoint] = ()
    stress_note: str = ""
    whole_records: WholeRecords | None = None
    strips: Callable[[int], Strip | None] | None = None
    excluded: Sequence[Excluded] = ()
    provenance: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def shown_errors(validation: Validation, predictions: Predictions) -> list[int]:
    """Find the windows whose ECG the report shows: wrong advice at the headline duration, at most `MAX_STRIPS`.

    They are rows of `predictions`, worst first as in `worst_first`.
    """
    at_headline = predictions.duration_s == headline(validation).duration_s
    return np.flatnonzero(at_headline)[worst_first(predictions.select(at_headline))[:MAX_STRIPS]].tolist()


def write_report(path: str | os.PathLike[str], content: ReportContent) -> None:
    """Write the report: one HTML file that needs no other.

    Parameters
    ----------
    path : path-like
        The file, replaced only once everything is written. Equal contents make equal files.
    content : ReportContent
        What to report.
    """
    write_text(Path(path), _render(content))


def _render(content: ReportContent) -> str:
    loader = jinja2.PackageLoader("ecg_shock.report")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (loader.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        style=Markup(style), script=Markup(script), digest=Markup(digest), **_view(content)
    )


def _view(content: ReportContent) -> dict[str, Any]:
    """Prepare everything that the template shows."""
    validation = content.validation
    performance = headline(validation)
    at_headline = content.predictions.duration_s == performance.duration_s
    predictions = content.predictions.select(at_headline)
    thresholds = {model.threshold for model in validation.models}
    threshold = thresholds.pop() if len(thresholds) == 1 else None
    errors = worst_first(predictions)
    given = np.flatnonzero(at_headline)
    alpha = validation.alpha
    return {
        "title": title(validation),
        "synthetic": SYNTHETIC_NOTE if validation.synthetic else "",
        "network_note": NETWORK_NOTE if validation.models else "",
        "disclaimer": DISCLAIMER,
        "level": level_of(validation),
        "performance": performance,
        "verdict": verdict(performance),
        "other_verdicts": [verdict(other) for other in validation.performances if other is not performance],
        "weaknesses": weaknesses(performance, predictions),
        "better": better(performance, content.baselines, content.comparisons),
        "window_notes": list(window_notes(validation.performances)),
        "evaluated": evaluated(validation, content.predictions, performance, threshold),
        "not_done": _not_done(content, no_curves(predictions)),
        "curves": curves_section(predictions, performance, validation),
        "durations": durations_figure(validation.performances) if len(validation.performances) > 1 else "",
        "pooled": [pooled_table(validation.performances), counts_table(validation.performances)],
        "effective": effective_table(performance),
        "groups": [
            *([labels_table(performance)] if performance.by_label else []),
            groups_table("database", performance, performance.by_database, alpha=alpha),
            groups_table("rhythm", performance, performance.by_rhythm, alpha=alpha),
        ],
        "patients": patients_figure(predictions),
        "patient_table": groups_table("patient", performance, performance.most_errors, ", most errors"),
        "baselines": baseline_section(performance, content.baselines, content.comparisons) if content.baselines else {},
        "baselines_note": content.baselines_note,
        "stress": stress_section(content.stress) if content.stress else {},
        "stress_note": content.stress_note,
        "whole": whole_section(content.whole_records),
        "has_gallery": content.strips is not None,
        "gallery": [entry(predictions, row, content.strips(int(given[row])), threshold) for row in errors[:MAX_STRIPS]]
        if content.strips
        else [],
        "grid": paper_grid(),
        "has_probability": predictions.has_probability,
        "errors": len(errors),
        "max_strips": MAX_STRIPS,
        "excluded": excluded_table(content.excluded) if content.excluded else None,
        "models": models_table(validation.models) if validation.models else None,
        "selections": list(dict.fromkeys(model.selection for model in validation.models if model.selection)),
        "provenance": {
            name: value if isinstance(value, Mapping) else {"": value} for name, value in content.provenance.items()
        },
        "evidence": evidence(validation, content.predictions, performance),
    }


def _not_done(content: ReportContent, curves_missing: str) -> list[str]:
    said = {
        "No other algorithm was evaluated on the same windows.": bool(content.baselines),
        "No stress test was done: nothing is known here of noise, artefacts and other recorders.": bool(content.stress),
        "Whole records were not scanned: nothing is known here of false alarms an hour and of delays.": (
            content.whole_records is not None
        ),
        "The ECG of the errors is not shown: it was not given.": content.strips is not None,
        "What of the recordings is in no window, and why, was not given.": bool(content.excluded),
        "Where data, software and settings come from was not given.": bool(content.provenance),
    }
    return [
        *content.notes,
        *([f"There is no ROC curve and no reliability: {curves_missing}."] if curves_missing else []),
        *(sentence for sentence, done in said.items() if not done),
    ]
