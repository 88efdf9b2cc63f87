"""Write the report as one HTML page: first the verdicts, then details, then the ECG of each error.

The page is a single file, and its Content-Security-Policy forbids loading others. Names from users' files are escaped,
and their control characters are shown as codes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.windows import Excluded
from ecg_shock.evaluation.comparison import Comparison
from ecg_shock.evaluation.importance import Importance
from ecg_shock.evaluation.metrics import Validation
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.stress import StressPoint
from ecg_shock.evaluation.whole_records import WholeRecords
from ecg_shock.files import write_text
from ecg_shock.report.figures import patients_figure
from ecg_shock.report.first_screen import (
    describe_better_algorithms,
    describe_evaluated,
    describe_evidence,
    find_weaknesses,
    summarise_verdicts,
    title,
)
from ecg_shock.report.gallery import Strip, gallery_entry, paper_grid, worst_first
from ecg_shock.report.importance import importance_section
from ecg_shock.report.pages import render_page
from ecg_shock.report.sections import (
    baseline_section,
    curves_section,
    durations_figure,
    excluded_table,
    labels_section,
    no_curves,
    stress_section,
)
from ecg_shock.report.tables import (
    BAC_NOTE,
    CALIBRATION_NOTE,
    DISCLAIMER,
    NETWORK_NOTE,
    SYNTHETIC_NOTE,
    VERDICT_NOTE,
    Comparisons,
    calibration_table,
    counts_table,
    coverage_note,
    effective_table,
    folds_table,
    groups_table,
    headline,
    labels_table,
    level_of,
    models_table,
    pooled_table,
    window_notes,
    withheld_notes,
)
from ecg_shock.report.whole_records import whole_section

MAX_STRIPS = 500


@dataclass(frozen=True, eq=False)
class ReportContent:
    """The content of the report.

    If a field is empty, the report omits the section and says so.

    Parameters
    ----------
    validation, predictions : Validation, Predictions
        The results, and the predictions that they were computed from.
    baselines, baselines_note : mapping of str to Validation, str
        Results of other algorithms on the same windows, by name of the algorithm; and a text on how they were fitted.
    comparisons : mapping of str to Comparison
        Comparisons with other algorithms at the headline duration, by name of the other algorithm. The other algorithm
        is the first, the evaluated algorithm the second in `Comparison`.
    against : mapping of str to sequence of Comparison
        The same for all durations, for the terminal, Markdown and JSON; empty for our models.
    stress, stress_note : sequence of StressPoint, str
        Results of the stress tests in any order; and a text on the windows that were disturbed.
    whole_records : WholeRecords, optional
        Results of alarms on complete records of the same patients.
    importance : Importance, optional
        What the model responds to; if there are several models, the first one.
    strips : callable, optional
        Function that takes a row of `predictions`, and returns the raw ECG around the window, or None.
    excluded : sequence of Excluded
        Excluded segments of the test recordings, at the headline duration.
    provenance : mapping of str to str or to a mapping of str to str
        Digests of the data, versions, configuration, seeds and command, by heading.
    notes : sequence of str
        Sentences on parts of the evaluation that were not done, with the reason.
    """

    validation: Validation
    predictions: Predictions
    baselines: Mapping[str, Validation] = field(default_factory=dict)
    baselines_note: str = ""
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    against: Comparisons = field(default_factory=dict)
    stress: Sequence[StressPoint] = ()
    stress_note: str = ""
    whole_records: WholeRecords | None = None
    importance: Importance | None = None
    strips: Callable[[int], Strip | None] | None = None
    excluded: Sequence[Excluded] = ()
    provenance: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def shown_errors(validation: Validation, predictions: Predictions) -> list[int]:
    """Return the rows of `predictions` whose ECG the report shows.

    They are the rows with wrong advice at the headline duration, in the order of `worst_first`, at most `MAX_STRIPS`.
    """
    at_headline = predictions.duration_s == headline(validation).duration_s
    return np.flatnonzero(at_headline)[worst_first(predictions.select(at_headline))[:MAX_STRIPS]].tolist()


def write_report(path: str | os.PathLike[str], content: ReportContent) -> None:
    """Write the report as a single HTML file.

    Parameters
    ----------
    path : path-like
        The file. An existing file is replaced. Equal content gives equal files.
    content : ReportContent
        The content of the report.
    """
    write_text(Path(path), render_page("report", _view(content)))


def _view(content: ReportContent) -> dict[str, Any]:
    """Return the values that the HTML template needs."""
    validation = content.validation
    performance = headline(validation)
    at_headline = content.predictions.duration_s == performance.duration_s
    predictions = content.predictions.select(at_headline)
    thresholds = {model.threshold for model in validation.models}
    threshold = thresholds.pop() if len(thresholds) == 1 else None
    errors = worst_first(predictions)
    row_numbers = np.flatnonzero(at_headline)
    alpha = validation.alpha
    return {
        "title": title(validation),
        "synthetic": SYNTHETIC_NOTE if validation.synthetic else "",
        "network_note": NETWORK_NOTE if validation.models else "",
        "disclaimer": DISCLAIMER,
        "verdict_note": VERDICT_NOTE,
        "bac_note": BAC_NOTE,
        "level": level_of(validation),
        "performance": performance,
        "verdict": summarise_verdicts(performance),
        "other_verdicts": [summarise_verdicts(other) for other in validation.performances if other is not performance],
        "coverage": "" if validation.models else coverage_note(validation),
        "covered": validation.coverage and validation.coverage.evaluated == validation.coverage.listed,
        "warnings": list(withheld_notes(validation.performances)),
        "weaknesses": find_weaknesses(performance, predictions),
        "better": describe_better_algorithms(performance, content.baselines, content.comparisons),
        "window_notes": list(window_notes(validation.performances)),
        "evaluated": describe_evaluated(validation, content.predictions, performance, threshold),
        "not_done": _not_done(content, no_curves(predictions)),
        "curves": curves_section(predictions, performance, validation),
        "durations": durations_figure(validation.performances) if len(validation.performances) > 1 else "",
        "pooled": [pooled_table(validation.performances), counts_table(validation.performances)],
        "labels": labels_section(validation),
        "calibration": calibration_table(validation.performances) if performance.calibration else None,
        "calibration_note": CALIBRATION_NOTE,
        "effective": effective_table(performance),
        "groups": [
            *([folds_table(performance)] if performance.by_fold else []),
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
        "responses": importance_section(content.importance) if content.importance else {},
        "has_gallery": content.strips is not None,
        "gallery": [
            gallery_entry(predictions, row, content.strips(int(row_numbers[row])), threshold)
            for row in errors[:MAX_STRIPS]
        ]
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
        "evidence": describe_evidence(validation, content.predictions, performance),
    }


def _not_done(content: ReportContent, curves_missing: str) -> list[str]:
    done = {
        "No other algorithm was evaluated on the same windows.": bool(content.baselines),
        "No stress test was done, so the effect of noise, artefacts and other recorders is unknown.": bool(
            content.stress
        ),
        "Whole records were not scanned, so false alarms per hour and delays are unknown.": (
            content.whole_records is not None
        ),
        "The ECG of the errors is not shown.": content.strips is not None,
        "Excluded segments of the recordings are not listed.": bool(content.excluded),
        "The origin of data, software and settings is not given.": bool(content.provenance),
    }
    return [
        *content.notes,
        *([f"There are no ROC and reliability curves: {curves_missing}."] if curves_missing else []),
        *(sentence for sentence, is_done in done.items() if not is_done),
    ]
