"""The first screen of the page: the verdicts, what is weakest, what was evaluated, and how far the evidence reaches."""

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
FEW_PATIENTS = 10  # below which a row is called out: its limit by patient rests on next to nothing
CONCENTRATED = 0.25  # proportion of the errors of one group from which on a single patient is called out

SYMBOLS = {MEETS: "✓", DOES_NOT_MEET: "✗", TOO_FEW_WINDOWS: "?", REPORT_ONLY: "○"}
CLASSES = {MEETS: "good", DOES_NOT_MEET: "bad", TOO_FEW_WINDOWS: "few", REPORT_ONLY: "only"}


def title(validation: Validation) -> str:
    """Name the report."""
    names = list(dict.fromkeys(model.name for model in validation.models if model.name))
    if len(names) == 1:
        return f"Validation of {names[0]}"
    return f"Validation of {len(validation.models)} models" if validation.models else "Validation of an algorithm"


def evaluated(
    validation: Validation, predictions: Predictions, performance: Performance, threshold: float | None
) -> dict[str, str]:
    """Say what was evaluated, on what, and how."""
    models = ", ".join(f"{model.name} (fold {model.fold} of {model.split})" for model in validation.models)
    found = {"Algorithm": models or "not one of ours; its predictions were given"}
    if threshold is not None:
        found["Threshold"] = f"shock advised from a probability of {threshold:g} on"
    return {
        **found,
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


def verdict(performance: Performance) -> dict[str, Any]:
    """Prepare the verdicts at one duration: a sentence, and each class with its picture."""
    low = _left_end(performance)
    found = [row.verdict for row in performance.aha]
    meet, fail, few = (found.count(verdict) for verdict in (MEETS, DOES_NOT_MEET, TOO_FEW_WINDOWS))
    duration = f"{performance.duration_s:g} s"
    rows = [
        {
            "cells": aha_cells(row),
            "symbol": SYMBOLS[row.verdict],
            "style": CLASSES[row.verdict],
            "chart": goal_figure(
                f"{class_name(row.aha_class)}, windows of {duration}: observed and limits from {100 * low:.0f} to "
                "100 %",
                row,
                low,
            )
            if row.goal.observed is not None and row.rate.windows
            else "",
        }
        for row in performance.aha
    ]
    summary = (
        f"Of {meet + fail + few} classes with a goal, {meet} {'meets' if meet == 1 else 'meet'} it, "
        f"{fail} {'does' if fail == 1 else 'do'} not, and {few} {'has' if few == 1 else 'have'} too few windows for a "
        "verdict."
    )
    return {"duration": duration, "summary": summary, "rows": rows, "left_end": f"{100 * low:.0f}"}


def _left_end(performance: Performance) -> float:
    """Return where the pictures of verdicts begin: below every proportion that there are enough windows for."""
    found = [row.goal.limit for row in performance.aha]
    for row in performance.aha:
        if row.verdict in (MEETS, DOES_NOT_MEET):
            found += [row.rate.observed, row.rate.lower_limit, row.rate.patient_limit]
    return min(MAX_LEFT_END, math.floor(10 * min(value for value in found if value is not None)) / 10)


def weaknesses(performance: Performance, predictions: Predictions) -> list[str]:
    """Say in words what is worst, the gravest first."""
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
        f"{class_name(row.aha_class)} meets its goal only if windows of one patient count as independent: by patients "
        f"the lower limit is {rounded_down(_by_patients(row.rate))} %, and {100 * (row.goal.limit or 0):g} % is asked "
        f"of the limit by window ({patients_text(row.rate.patients)})."
        for row in performance.aha
        if row.verdict == MEETS and (_by_patients(row.rate) or 0.0) < (row.goal.limit or 0.0)
    ]
    concentrated = _concentrations(predictions)
    if len(found) >= MAX_WEAKNESSES and concentrated:
        found = [*found[: MAX_WEAKNESSES - 1], concentrated[0]]
    else:
        found += concentrated
    found += [
        f"{class_name(row.aha_class)} rests on {patients_text(row.rate.patients)}."
        for row in performance.aha
        if row.verdict == MEETS and row.rate.patients < FEW_PATIENTS
    ]
    return found[:MAX_WEAKNESSES]


def better(
    performance: Performance, baselines: Mapping[str, Validation], comparisons: Mapping[str, Comparison]
) -> list[str]:
    """Say which other algorithms have the higher balanced accuracy."""
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
                sentence += f" Limits by patient of this one less that one: {limits} points."
        sentences.append(sentence)
    return sentences


def evidence(validation: Validation, predictions: Predictions, performance: Performance) -> list[str]:
    """Say how far the evidence reaches."""
    counts = "; ".join(f"{class_name(row.aha_class)} {row.rate.patients}" for row in performance.aha)
    databases = ", ".join(np.unique(predictions.database).tolist())
    return [
        *([f"Some windows are {SYNTHETIC_NOTE}"] if validation.synthetic else []),
        f"Patients behind each class: {counts}. A class with a handful of patients says how the algorithm does on "
        "these patients, and little of others.",
        "Windows of one patient resemble each other. The limit by window, on which the AHA's verdict rests, takes them "
        "as independent and is too high. The limit by patient does not, and is itself too high where few patients have "
        "errors: there the limit by design effect is the one to trust.",
        f"The recordings are of {databases}. Unless the device itself recorded them, recorders, electrodes, annotators "
        "and the choice of patients are others than in the field.",
        "Windows with annotated noise, invalid samples, or near a change of rhythm are excluded beforehand, and the "
        "public databases hold no chest compressions and no transport."
        if validation.models
        else "Which windows were excluded beforehand, and whether chest compressions are in them, is for those to say "
        "who gave the predictions.",
        "The figures hold for the algorithm at its threshold as it was evaluated. Another threshold, filter or lead is "
        "another algorithm. That a threshold was chosen without the patients of this report cannot be seen from the "
        "predictions alone.",
        "Labels are those of the databases. A gallery of errors holds errors of annotators too.",
        f"Limits of proportions are {level_of(validation)}, and each limit and band holds by itself; of many rows "
        "some fail or pass by chance.",
        "Goals as in Kerber et al., Circulation 95:1677-1682, 1997. " + DISCLAIMER,
    ]


def _by_patients(rate: Proportion) -> float | None:
    """Return the lower of the limits that take windows of a patient together."""
    return min((limit for limit in (rate.patient_limit, rate.cluster_limit) if limit is not None), default=None)


def _shortfall(row: AhaRow) -> float:
    """Return how far a class stays below the two lines of its goal, at the worse of them."""
    goal, rate = row.goal, row.rate
    return max((goal.observed or 0.0) - (rate.observed or 0.0), (goal.limit or 0.0) - (rate.lower_limit or 0.0))


def _failure(row: AhaRow) -> str:
    rate, goal = row.rate, row.goal
    return (
        f"{class_name(row.aha_class)} does not meet its goal: {rate.count} of {rate.windows} windows of "
        f"{patients_text(rate.patients)} are advised {'a' if row.aha_class in SHOCKABLE else 'no'} shock. "
        f"Observed {rounded_down(rate.observed)} % where more than {100 * (goal.observed or 0):g} % is asked; "
        f"lower limit {rounded_down(rate.lower_limit)} % where {100 * (goal.limit or 0):g} % has to be reached."
    )


def _concentrations(predictions: Predictions) -> list[str]:
    """Name patients who carry much of the errors of one kind, the largest share first."""
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
            f"{counts[worst]} of the {total} {kind}s are of one patient, {names[worst]} ({rhythms}); "
            f"all {total} are of {patients_text(len(names))}."
        )
        found.append((counts[worst] / total, sentence))
    return [sentence for _, sentence in sorted(found, key=lambda pair: -pair[0])]
