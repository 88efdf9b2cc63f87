"""Write the first part of the HTML report: verdicts, weakest points, what was evaluated, and limits of the evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ecg_shock.evaluation.comparison import Comparison
from ecg_shock.evaluation.confidence import Proportion
from ecg_shock.evaluation.metrics import (
    DOES_NOT_MEET,
    MEETS,
    REPORT_ONLY,
    TOO_FEW_WINDOWS,
    WITHHELD,
    AhaRow,
    Performance,
    Validation,
)
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.report.figures import MAX_LEFT_END, goal_figure
from ecg_shock.report.formats import class_name, patients_text, points, rounded_down
from ecg_shock.report.gallery import wrong_advice
from ecg_shock.report.tables import DISCLAIMER, SYNTHETIC_NOTE, aha_cells, level_of
from ecg_shock.rhythms import SHOCKABLE

MAX_WEAKNESSES = 3
FEW_PATIENTS = 10  # a class with fewer patients is a weak point
CONCENTRATED = 0.25  # a patient with at least this proportion of the missed or false shocks is a weak point

SYMBOLS = {MEETS: "✓", DOES_NOT_MEET: "✗", TOO_FEW_WINDOWS: "?", WITHHELD: "!", REPORT_ONLY: "○"}
CLASSES = {MEETS: "good", DOES_NOT_MEET: "bad", TOO_FEW_WINDOWS: "few", WITHHELD: "few", REPORT_ONLY: "only"}


def title(validation: Validation) -> str:
    """Return the title of the report."""
    names = list(dict.fromkeys(model.name for model in validation.models if model.name))
    if len(names) == 1:
        return f"Validation of {names[0]}"
    return f"Validation of {len(validation.models)} models" if validation.models else "Validation of an algorithm"


def describe_evaluated(
    validation: Validation, predictions: Predictions, performance: Performance, threshold: float | None
) -> dict[str, str]:
    """Return the algorithm, the data and the settings, as texts by heading."""
    models = ", ".join(f"{model.name} (fold {model.fold} of {model.split})" for model in validation.models)
    described = {"Algorithm": models or "another algorithm, by its predictions"}
    if threshold is not None:
        described["Threshold"] = f"shock advised at a probability of {threshold:g} or above"
    return {
        **described,
        "Databases": ", ".join(np.unique(predictions.database).tolist()),
        "Headline": (
            f"{performance.windows} windows of {performance.duration_s:g} s, {patients_text(performance.patients)}"
        ),
        "Durations": ", ".join(f"{other.duration_s:g} s" for other in validation.performances),
        "Folds": ", ".join(str(fold) for fold in np.unique(predictions.fold)),
        "Limits": (
            f"{level_of(validation)}; by window: Clopper-Pearson; by patient: {validation.resamples} resamples of the "
            f"patients, seed {validation.seed}"
        ),
    }


def summarise_verdicts(performance: Performance, labels: str = "") -> dict[str, Any]:
    """Return a summary of the verdicts for one duration, and the row and chart of each class, for the HTML template.

    `labels` begins the titles of the table and the charts.
    """
    low = _left_end(performance)
    found = [row.verdict for row in performance.aha]
    meet, fail, few, withheld = (found.count(name) for name in (MEETS, DOES_NOT_MEET, TOO_FEW_WINDOWS, WITHHELD))
    duration = f"{performance.duration_s:g} s"
    rows = [
        {
            "cells": aha_cells(row),
            "symbol": SYMBOLS[row.verdict],
            "style": CLASSES[row.verdict],
            "chart": goal_figure(
                f"{labels}{class_name(row.aha_class)}, windows of {duration}: observed and limits from "
                f"{100 * low:.0f} to 100 %",
                row,
                low,
            )
            if row.goal.observed is not None and row.rate.windows
            else "",
        }
        for row in performance.aha
    ]
    summary = (
        f"Of {meet + fail + few + withheld} classes with a goal, {meet} {'meets' if meet == 1 else 'meet'} it, "
        f"{fail} {'does' if fail == 1 else 'do'} not meet it, and {few} {'has' if few == 1 else 'have'} too few "
        "windows for a verdict."
    )
    if withheld:
        summary += (
            f" The {'verdict on 1 class is' if withheld == 1 else f'verdicts on {withheld} classes are'} withheld."
        )
    caption = f"{labels}AHA classes, windows of {duration}"
    return {"duration": duration, "caption": caption, "summary": summary, "rows": rows, "left_end": f"{100 * low:.0f}"}


def _left_end(performance: Performance) -> float:
    """Return the left end of the axis of the charts, below all proportions and limits of classes with a verdict."""
    found = [row.goal.limit for row in performance.aha]
    for row in performance.aha:
        if row.verdict in (MEETS, DOES_NOT_MEET):
            found += [row.rate.observed, row.rate.lower_limit, row.rate.patient_limit]
    return min(MAX_LEFT_END, math.floor(10 * min(value for value in found if value is not None)) / 10)


def find_weaknesses(performance: Performance, predictions: Predictions) -> list[str]:
    """Return at most `MAX_WEAKNESSES` sentences on the weakest points, the most serious first."""
    failed = sorted((row for row in performance.aha if row.verdict == DOES_NOT_MEET), key=_shortfall, reverse=True)
    found = [_failure(row) for row in failed]
    few = [row for row in performance.aha if row.verdict == TOO_FEW_WINDOWS]
    if few:
        counts = "; ".join(
            f"{class_name(row.aha_class)}: {row.rate.windows} of {row.goal.min_windows} windows, "
            f"{patients_text(row.rate.patients)}"
            for row in few
        )
        found.append(f"Too few windows for a verdict. {counts}.")
    found += [
        f"{class_name(row.aha_class)} meets its goal only if windows of one patient are treated as independent: the "
        f"goal of the lower limit is {100 * (row.goal.limit or 0):g} %, but the limit by patient or by design effect "
        f"is {rounded_down(_limit_by_patient(row.rate))} % ({patients_text(row.rate.patients)})."
        for row in performance.aha
        if row.verdict == MEETS and (_limit_by_patient(row.rate) or 0.0) < (row.goal.limit or 0.0)
    ]
    concentrated = _concentrations(predictions)
    if len(found) >= MAX_WEAKNESSES and concentrated:
        found = [*found[: MAX_WEAKNESSES - 1], concentrated[0]]
    else:
        found += concentrated
    found += [
        f"{class_name(row.aha_class)} was tested on {patients_text(row.rate.patients)} only."
        for row in performance.aha
        if row.verdict == MEETS and row.rate.patients < FEW_PATIENTS
    ]
    return found[:MAX_WEAKNESSES]


def describe_better_algorithms(
    performance: Performance, baselines: Mapping[str, Validation], comparisons: Mapping[str, Comparison]
) -> list[str]:
    """Return a sentence on each other algorithm with a higher balanced accuracy."""
    mine = performance.balanced_accuracy.observed
    sentences = []
    for name, validation in baselines.items():
        at = {other.duration_s: other.balanced_accuracy.observed for other in validation.performances}
        its = at.get(performance.duration_s)
        if mine is None or its is None or its <= mine:
            continue
        proportions = f"{rounded_down(its)} %, this algorithm {rounded_down(mine)} %"
        sentence = f"{name} has the higher balanced accuracy on the same windows: {proportions}."
        for found in comparisons[name].differences if name in comparisons else ():
            if found.measure == "BAC" and found.lower_limit is not None and found.upper_limit is not None:
                limits = f"{points(found.lower_limit)} to {points(found.upper_limit)}"
                sentence += f" Limits by patient of the difference, this algorithm minus {name}: {limits} points."
        sentences.append(sentence)
    return sentences


def describe_evidence(validation: Validation, predictions: Predictions, performance: Performance) -> list[str]:
    """Return sentences on the limits of the evidence."""
    counts = "; ".join(f"{class_name(row.aha_class)} {row.rate.patients}" for row in performance.aha)
    databases = ", ".join(np.unique(predictions.database).tolist())
    return [
        *([f"Some windows are {SYNTHETIC_NOTE}"] if validation.synthetic else []),
        f"Number of patients in each class: {counts}. Results on few patients say little about other patients.",
        "Windows of one patient resemble each other. The limit by window, which the AHA verdict uses, treats them as "
        "independent, and is therefore too high. The limit by patient allows for this, but is too high if few patients "
        "have errors; then use the limit by design effect.",
        f"The recordings are from {databases}. If they were not made with the device itself, their recorders, "
        "electrodes and patients differ from those in use.",
        "Windows with annotated noise, with invalid samples, or near a change of rhythm were excluded. The public "
        "databases contain no chest compressions or transport."
        if validation.models
        else "The predictions do not show which windows were excluded, or whether there were chest compressions. Ask "
        "the people who made the predictions.",
        "The results are valid only for the algorithm with this threshold, filter and lead. If you change one of them, "
        "evaluate it again. The predictions do not show whether the threshold was chosen without the patients of this "
        "report.",
        "The labels are from the databases. Some of the errors may be errors of the annotators.",
        f"Limits of proportions are {level_of(validation)}. Each limit is valid for one row. Among many rows, some "
        "pass or fail by chance.",
        "The goals are those of Kerber et al., Circulation 95:1677-1682, 1997. " + DISCLAIMER,
    ]


def _limit_by_patient(rate: Proportion) -> float | None:
    """Return the lower of the limits by patient and by design effect."""
    return min((limit for limit in (rate.patient_limit, rate.cluster_limit) if limit is not None), default=None)


def _shortfall(row: AhaRow) -> float:
    """Return the larger of two differences: from observed proportion to its goal, and from limit to its goal."""
    goal, rate = row.goal, row.rate
    return max((goal.observed or 0.0) - (rate.observed or 0.0), (goal.limit or 0.0) - (rate.lower_limit or 0.0))


def _failure(row: AhaRow) -> str:
    rate, goal = row.rate, row.goal
    return (
        f"{class_name(row.aha_class)} does not meet its goal: {rate.count} of {rate.windows} windows of "
        f"{patients_text(rate.patients)} are advised {'a' if row.aha_class in SHOCKABLE else 'no'} shock. "
        f"Observed {rounded_down(rate.observed)} % (goal: above {100 * (goal.observed or 0):g} %); "
        f"lower limit {rounded_down(rate.lower_limit)} % (goal: at least {100 * (goal.limit or 0):g} %)."
    )


def _concentrations(predictions: Predictions) -> list[str]:
    """Return a sentence on each patient with a large proportion of one kind of errors, the largest first."""
    found = []
    for kind, wrong in wrong_advice(predictions).items():
        names, counts = np.unique(predictions.patient[wrong], return_counts=True)
        total = int(counts.sum())
        if total < 2 or counts.max() < 2 or counts.max() < CONCENTRATED * total:
            continue
        worst = int(np.argmax(counts))
        mine = wrong & (predictions.patient == names[worst])
        rhythms = ", ".join(str(name).replace("_", " ") for name in np.unique(predictions.rhythm[mine]))
        sentence = (
            f"{counts[worst]} of the {total} {kind}s are from one patient, {names[worst]} ({rhythms}); "
            f"all {total} are from {patients_text(len(names))}."
        )
        found.append((counts[worst] / total, sentence))
    return [sentence for _, sentence in sorted(found, key=lambda pair: -pair[0])]
