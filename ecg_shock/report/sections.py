"""Write the sections that only the HTML report has: curves, other algorithms, stress tests, excluded segments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
from markupsafe import Markup

from ecg_shock.data.windows import Excluded
from ecg_shock.evaluation.comparison import Comparison, Difference
from ecg_shock.evaluation.metrics import Performance, Validation
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.roc import reliability, roc
from ecg_shock.evaluation.stress import StressPoint
from ecg_shock.report.figures import reliability_figure, roc_figure, se_sp_figure
from ecg_shock.report.first_screen import SYMBOLS, summarise_verdicts
from ecg_shock.report.formats import NONE, Table, class_name, p_value_text, points, rounded_down
from ecg_shock.report.label_policies import (
    DEFAULT_LABELS,
    corrected_tables,
    labels_comparison_table,
    labels_note,
    set_apart_tables,
)
from ecg_shock.report.tables import comparison_note, folds_table, headline, pooled_table
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE


def curves_section(predictions: Predictions, performance: Performance, validation: Validation) -> dict[str, Any]:
    """Draw the ROC and reliability curves of one duration; return an empty dictionary if there are none."""
    if no_curves(predictions):
        return {}
    alpha, resamples, seed = validation.alpha, validation.resamples, validation.seed
    found = roc(predictions, alpha=alpha, resamples=resamples, seed=seed)
    bins = reliability(predictions, alpha=alpha, resamples=resamples, seed=seed)
    advised = 1 - (performance.specificity.observed or 0.0), performance.sensitivity.observed or 0.0
    return {
        "roc": roc_figure(found, *advised),
        "zoom": roc_figure(found, *advised, zoomed=True),
        "reliability": reliability_figure(bins),
        "area": f"{math.floor(1e4 * found.auc) / 1e4:.4f}",
        "area_limit": "" if math.isnan(found.auc_limit) else f"{math.floor(1e4 * found.auc_limit) / 1e4:.4f}",
        "resamples": resamples,
        "level": f"{100 * (1 - alpha):g} % two-sided",
        "bins": Table(
            f"Reliability in {len(bins.windows)} bins of the probability",
            ("Mean probability", "Patients", "Windows", "Shockable", "Lower limit", "Upper limit"),
            tuple(
                (
                    f"{100 * bins.probability[i]:.1f}",
                    str(bins.patients[i]),
                    str(bins.windows[i]),
                    f"{100 * bins.share[i]:.1f}",
                    *(NONE if math.isnan(edge) else f"{100 * edge:.1f}" for edge in (bins.lower[i], bins.upper[i])),
                )
                for i in np.flatnonzero(bins.windows)
            ),
        ),
    }


def no_curves(predictions: Predictions) -> str:
    """Return the reason why there are no ROC and reliability curves, or an empty text if there are."""
    if not predictions.has_probability:
        return "the predictions have no probabilities"
    if not all(np.isin(predictions.aha_class, group).any() for group in (SHOCKABLE, NONSHOCKABLE)):
        return "they need shockable and nonshockable windows"
    return ""


def labels_section(validation: Validation) -> dict[str, Any]:
    """Show the results under the default labels beside the model's own; empty if the model has the default labels."""
    found = validation.default_labels
    if found is None:
        return {}
    at = headline(validation).duration_s
    (at_headline,) = (other for other in found.performances if other.duration_s == at)
    others = [other for other in found.performances if other is not at_headline]
    return {
        "note": labels_note(found, at),
        "comparison": labels_comparison_table(validation.performances, found),
        "verdict": summarise_verdicts(at_headline, DEFAULT_LABELS),
        "other_verdicts": [summarise_verdicts(other, DEFAULT_LABELS) for other in others],
        "tables": [
            pooled_table(found.performances, DEFAULT_LABELS),
            *([folds_table(at_headline, DEFAULT_LABELS)] if at_headline.by_fold else []),
            *set_apart_tables(found, at),
            *corrected_tables(found),
        ],
    }


def durations_figure(performances: Sequence[Performance]) -> Markup:
    """Draw sensitivity and specificity against window length."""
    durations = [performance.duration_s for performance in performances]
    names = [f"{duration_s:g}" for duration_s in durations]
    return se_sp_figure("Se and Sp by window length", "window, s", durations, names, performances)


def baseline_section(
    performance: Performance, baselines: Mapping[str, Validation], comparisons: Mapping[str, Comparison]
) -> dict[str, Any]:
    """Compare algorithms at the headline duration, and warn about those that were evaluated on other windows."""
    performances: dict[str, Performance | None] = {"this algorithm": performance}
    for name, validation in baselines.items():
        at = {other.duration_s: other for other in validation.performances}
        performances[name] = at.get(performance.duration_s)
    pooled, by_class, notes = [], [], []
    for name, other in performances.items():
        if other is None:
            notes.append(f"{name} was not evaluated on windows of {performance.duration_s:g} s.")
            continue
        if [row.rate.windows for row in other.aha] != [row.rate.windows for row in performance.aha]:
            notes.append(f"{name} was evaluated on other windows: the numbers of windows by class differ.")
        limited = (other.sensitivity, other.specificity, other.balanced_accuracy)
        pooled.append((name, *(f"{rounded_down(of.observed)}\n({rounded_down(of.patient_limit)})" for of in limited)))
        with_goal = (row for row in other.aha if row.goal.observed is not None)
        by_class.append(
            (name, *(f"{rounded_down(row.rate.observed)}\n{SYMBOLS[row.verdict]} {row.verdict}" for row in with_goal))
        )
    goals = [class_name(row.aha_class) for row in performance.aha if row.goal.observed is not None]
    header = ("Algorithm", "Se\n(by patient)", "Sp\n(by patient)", "BAC\n(by patient)")
    tables = [
        Table("Observed, and lower limit by patient", header, tuple(pooled)),
        *([_differences(comparisons)] if comparisons else []),
        Table("Observed, and verdict by AHA class", ("Algorithm", *goals), tuple(by_class)),
    ]
    note = comparison_note({name: [comparison] for name, comparison in comparisons.items()}) if comparisons else ""
    return {"tables": tables, "warnings": notes, "note": note}


def stress_section(stress: Sequence[StressPoint]) -> dict[str, Any]:
    """Make a chart of each disturbance that has several levels, and a table of all results."""
    by_stress = {
        name: sorted((point for point in stress if point.stress == name), key=lambda point: point.value)
        for name in dict.fromkeys(point.stress for point in stress)
    }
    figures, rows = [], []
    for name, found in by_stress.items():
        values, levels = [point.value for point in found], [point.level for point in found]
        if len(found) > 1:
            figures.append((name, se_sp_figure(f"Se and Sp under {name}", name, values, levels, found)))
        for point in found:
            cells = (
                (f"{rate.count}/{rate.windows}", rounded_down(rate.observed), rounded_down(rate.patient_limit))
                for rate in (point.sensitivity, point.specificity)
            )
            rows.append((name, point.level, *chain(*cells), str(point.unusable)))
    header = ("Stress", "Level", "Shockable", "Se", "Limit", "Nonshockable", "Sp", "Limit", "Unusable")
    return {"figures": figures, "table": Table("Stress tests", header, tuple(rows))}


def excluded_table(excluded: Sequence[Excluded]) -> Table:
    """Make a table of the excluded seconds of each database by reason, the most frequent reason first."""
    import pandas as pd

    found = pd.DataFrame([asdict(entry) for entry in excluded])
    seconds = found.pivot_table("seconds", "reason", "database", "sum", fill_value=0.0)[found["database"].unique()]
    total = seconds.sum(axis="columns")
    seconds = seconds.assign(All=total).loc[total.sort_values(ascending=False, kind="stable").index]
    seconds.loc["all reasons"] = seconds.sum()
    rows = tuple((reason, *(f"{value:.0f}" for value in values)) for reason, *values in seconds.itertuples())
    return Table("Excluded seconds", ("Reason", *seconds.columns), rows)


def _differences(comparisons: Mapping[str, Comparison]) -> Table:
    """Make a table of the differences between this algorithm and each other algorithm."""
    rows = []
    for name, comparison in comparisons.items():
        found = {difference.measure: difference for difference in comparison.differences}
        se, sp, accuracy = (found.get(measure) for measure in ("Se", "Sp", "BAC"))
        rows.append((name, _difference(se), _p_value(se), _difference(sp), _p_value(sp), _difference(accuracy)))
    header = (
        *("Algorithm", "Se, points\n(by patient)", "Se,\nMcNemar's p"),
        *("Sp, points\n(by patient)", "Sp,\nMcNemar's p", "BAC, points\n(by patient)"),
    )
    return Table("This algorithm minus the other, with limits", header, tuple(rows))


def _difference(found: Difference | None) -> str:
    if found is None:
        return NONE
    text = points(found.difference)
    if found.lower_limit is None or found.upper_limit is None:
        return text
    return f"{text}\n({points(found.lower_limit)} to {points(found.upper_limit)})"


def _p_value(found: Difference | None) -> str:
    return p_value_text(found.p_value if found else None)
