"""A validation as one page for a design review: verdicts first, then what they rest on, then every error as ECG.

The page is a single HTML file that loads nothing, neither from the network nor from beside it, and forbids it by its
Content-Security-Policy. Names come from files of others: all are escaped, and characters that could not be seen are
shown.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from ecg_shock.data.windows import LeftOut
from ecg_shock.evaluation.comparison import Comparison, Difference
from ecg_shock.evaluation.confidence import lower_limit
from ecg_shock.evaluation.metrics import (
    DOES_NOT_MEET,
    MEASURES,
    MEETS,
    REPORT_ONLY,
    TOO_FEW_WINDOWS,
    AhaRow,
    GroupRow,
    Performance,
    Rate,
    Validation,
)
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.roc import Roc, reliability, roc
from ecg_shock.evaluation.stress import StressPoint
from ecg_shock.files import write_text
from ecg_shock.report.charts import (
    PatientDot,
    Series,
    clock,
    goal_chart,
    line_chart,
    paper,
    paper_grid,
    patient_chart,
    share_axis,
    value_axis,
)
from ecg_shock.report.formats import patients_text
from ecg_shock.report.tables import (
    DISCLAIMER,
    HEADLINE_S,
    NETWORK_NOTE,
    RATE_HEADER,
    SYNTHETIC_NOTE,
    Table,
    counts_table,
    effective_table,
    groups_table,
    labels_table,
    level_of,
    models_table,
    pooled_table,
    printable,
    rounded_down,
    window_notes,
)
from ecg_shock.report.whole_records import whole_section
from ecg_shock.rhythms import AHA_LABELS, NONSHOCKABLE, SHOCKABLE

MOST_STRIPS = 500
MOST_WEAKNESSES = 3
FEW_PATIENTS = 10  # below which a row is called out: its limit by patient rests on next to nothing
CONCENTRATED = 0.25  # share of the errors of one group from which on a single patient is called out
MOST_LEFT_END = 0.9  # of an axis of shares: a narrower one makes little differences look large
LEAST_P = 1e-4  # smaller ones are not written out
ZOOM = 0.2  # the corner of the ROC in which an AED works

SYMBOLS = {MEETS: "✓", DOES_NOT_MEET: "✗", TOO_FEW_WINDOWS: "?", REPORT_ONLY: "○"}
CLASSES = {MEETS: "good", DOES_NOT_MEET: "bad", TOO_FEW_WINDOWS: "few", REPORT_ONLY: "only"}
MISSED, FALSE = "missed shock", "false shock"


@dataclass(frozen=True, eq=False)
class Strip:
    """Raw ECG around a window, as the gallery shows it.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_samples,), float, mV, not filtered; NaN where the recorder had no valid sample.
    fs : float
        Sampling rate in Hz.
    start_s : float
        Time of the first sample in seconds of the recording.
    probability_at_s, probability : numpy.ndarray or None
        Shape (n_times,): seconds of the recording, and the probability of *shockable* at them.

    Raises
    ------
    ValueError
        If a shape, the rate or the start is not allowed.
    """

    ecg: np.ndarray
    fs: float
    start_s: float
    probability_at_s: np.ndarray | None = None
    probability: np.ndarray | None = None

    def __post_init__(self) -> None:
        if np.ndim(self.ecg) != 1 or not np.size(self.ecg):
            raise ValueError(f"ecg has shape {np.shape(self.ecg)}; allowed is (n_samples,), one sample or more")
        if not (math.isfinite(self.fs) and self.fs > 0):
            raise ValueError(f"fs is {self.fs!r}; allowed is anything above 0 Hz")
        if not math.isfinite(self.start_s):
            raise ValueError(f"start_s is {self.start_s!r}; allowed is any time in seconds")
        times, values = self.probability_at_s, self.probability
        alike = times.shape == values.shape if times is not None and values is not None else times is values
        if not alike:
            raise ValueError("probability_at_s and probability must be given together, with one shape")


@dataclass(frozen=True, eq=False)
class ReportContent:
    """What the report is made of. An empty field leaves its section out, and the report says that it was not done.

    Parameters
    ----------
    validation : Validation
        What `ecg_shock.evaluation.metrics.judge` says of the predictions.
    predictions : Predictions
        The same predictions.
    baselines : mapping of str to Validation
        Other algorithms by their names, on the same windows.
    baselines_note : str
        How they were made.
    comparisons : mapping of str to Comparison
        By the same names: each other algorithm first and this one second, at the headline duration.
    stress : sequence of StressPoint
        In any order; points of one stress become one chart, if there are several.
    stress_note : str
        Which windows were disturbed, and how they were judged.
    strips : callable, optional
        Takes a row of `predictions` and returns the raw ECG around it, or None where there is none. For a mapping,
        its ``get``.
    left_out : sequence of LeftOut
        What is in no window, of the headline duration.
    provenance : mapping of str to str or to a mapping of str to str
        Data digests, versions, configuration, seeds, command.
    notes : sequence of str
        Sentences on what was left out, and why.

    Raises
    ------
    ValueError
        If the predictions are not those that were judged, a comparison is with no baseline or at another duration, or
        a stress has a value that is not finite.
    """

    validation: Validation
    predictions: Predictions
    baselines: Mapping[str, Validation] = field(default_factory=dict)
    baselines_note: str = ""
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    stress: Sequence[StressPoint] = ()
    stress_note: str = ""
    strips: Callable[[int], Strip | None] | None = None
    left_out: Sequence[LeftOut] = ()
    provenance: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        durations, windows = np.unique(self.predictions.duration_s, return_counts=True)
        found = dict(zip(durations.tolist(), windows.tolist(), strict=True))
        judged = {performance.duration_s: performance.windows for performance in self.validation.performances}
        if found != judged:
            raise ValueError(
                f"the predictions hold {found} windows by duration in s, and {judged} were judged; give the "
                "predictions that `judge` was given"
            )
        for performance in self.validation.performances:
            of_length = self.predictions.select(self.predictions.duration_s == performance.duration_s)
            wrong = {kind: int(mask.sum()) for kind, mask in _wrong(of_length).items()}
            if wrong != {MISSED: performance.fn, FALSE: performance.fp}:
                raise ValueError(
                    f"the predictions of {performance.duration_s:g} s hold {wrong}, and {performance.fn} and "
                    f"{performance.fp} were judged; give the predictions that `judge` was given"
                )
        duration_s = headline(self.validation).duration_s
        for name, comparison in self.comparisons.items():
            if name not in self.baselines or comparison.duration_s != duration_s:
                raise ValueError(
                    f"there is a comparison with {name!r} at {comparison.duration_s:g} s; allowed are the names of "
                    f"baselines, {', '.join(map(repr, self.baselines))}, and {duration_s:g} s"
                )
        for point in self.stress:
            if not math.isfinite(point.value):
                raise ValueError(f"{point.stress!r} has the value {point.value!r}; allowed is any finite number")


@dataclass(frozen=True)
class _Verdict:
    """One AHA row of the first screen."""

    label: str
    verdict: str
    symbol: str
    style: str
    patients: str
    windows: str
    observed: str
    limit: str
    patient_limit: str
    chart: Markup


@dataclass(frozen=True)
class _Error:
    """One entry of the gallery."""

    kind: str
    database: str
    record: str
    lead: str
    patient: str
    rhythm: str
    aha_class: str
    start_s: float
    when: str
    window: str
    probability: str
    rows: tuple[Markup, ...]


def shown_errors(validation: Validation, predictions: Predictions) -> list[int]:
    """Find the windows whose ECG the report shows: wrong advice at the headline duration, at most `MOST_STRIPS`.

    Parameters
    ----------
    validation : Validation
        What `judge` says of the predictions.
    predictions : Predictions
        The same predictions.

    Returns
    -------
    list of int
        Rows of `predictions`, worst first: by how far the probability is from right. Without probabilities they go
        by patient, record and time.
    """
    at_headline = predictions.duration_s == headline(validation).duration_s
    return np.flatnonzero(at_headline)[_errors(predictions.select(at_headline))[:MOST_STRIPS]].tolist()


def write_report(path: str | os.PathLike[str], content: ReportContent) -> None:
    """Write the report: one HTML file that needs no other.

    Parameters
    ----------
    path : path-like
        The file, replaced only once everything is written. Equal contents make equal files.
    content : ReportContent
        What to report.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = Path(path)
    page = _render(content)
    write_text(path, page)


def _render(content: ReportContent) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ecg_shock.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_source(environment, name) for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        style=Markup(style), script=Markup(script), digest=Markup(digest), **_view(content)
    )


def _source(environment: jinja2.Environment, name: str) -> str:
    if environment.loader is None:
        raise ValueError("the templates' environment has no loader")
    return environment.loader.get_source(environment, name)[0]


def _visible(value: object) -> object:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _view(content: ReportContent) -> dict[str, Any]:
    """Prepare everything that the template shows."""
    validation = content.validation
    performance = headline(validation)
    at_headline = content.predictions.duration_s == performance.duration_s
    predictions = content.predictions.select(at_headline)
    others = [other for other in validation.performances if other is not performance]
    errors = _errors(predictions)
    shown = errors[:MOST_STRIPS]
    rows = np.flatnonzero(at_headline)
    threshold = _threshold(validation)
    return {
        "title": _title(validation),
        "synthetic": SYNTHETIC_NOTE if validation.synthetic else "",
        "network_note": NETWORK_NOTE if validation.models else "",
        "disclaimer": DISCLAIMER,
        "judged": _judged(content, performance),
        "duration": f"{performance.duration_s:g} s",
        "level": level_of(validation),
        "summary": _summary(performance),
        "left_end": f"{100 * _left_end(performance):.0f}",
        "verdicts": _verdicts(performance),
        "other_verdicts": [
            (f"{other.duration_s:g} s", _verdicts(other), _summary(other), f"{100 * _left_end(other):.0f}")
            for other in others
        ],
        "weaknesses": _weaknesses(performance, predictions),
        "better": _better(content, performance),
        "not_done": _not_done(content, _no_curves(predictions)),
        "window_notes": list(window_notes(validation.performances)),
        "effective": effective_table(performance),
        "by_label": labels_table(performance) if performance.by_label else None,
        "curves": _curve_charts(predictions, performance, validation),
        "patients": _patients_chart(predictions),
        "patient_table": groups_table("patient", performance, performance.most_errors, ", most errors"),
        "durations": _durations_chart(validation),
        "pooled": pooled_table(validation.performances),
        "counts": counts_table(validation.performances),
        "by_database": _groups("Database", performance.by_database, validation.alpha),
        "by_rhythm": _groups("Rhythm", performance.by_rhythm, validation.alpha),
        "baselines": _baselines(content, performance) if content.baselines else (),
        "baselines_note": content.baselines_note,
        "comparison_note": _comparison_note(content.comparisons),
        "stress": _stress_charts(content.stress),
        "stress_table": _stress_table(content.stress),
        "stress_note": content.stress_note,
        "whole": whole_section(validation),
        "gallery": [_entry(predictions, row, content.strips, int(rows[row]), threshold) for row in shown]
        if content.strips
        else [],
        "grid": paper_grid(),
        "has_gallery": content.strips is not None,
        "has_probability": predictions.has_probability,
        "errors": len(errors),
        "missed": performance.fn,
        "false_shocks": performance.fp,
        "most_strips": MOST_STRIPS,
        "left_out": _left_out(content.left_out),
        "models": models_table(validation.models) if validation.models else None,
        "selections": list(dict.fromkeys(model.selection for model in validation.models if model.selection)),
        "provenance": {
            name: value if isinstance(value, Mapping) else {"": value} for name, value in content.provenance.items()
        },
        "evidence": _evidence(content, performance),
    }


def headline(validation: Validation) -> Performance:
    """Pick what the first screen is of: windows of `HEADLINE_S`, or else the longest."""
    by_duration = {performance.duration_s: performance for performance in validation.performances}
    return by_duration.get(HEADLINE_S, validation.performances[-1])


def _threshold(validation: Validation) -> float | None:
    thresholds = {model.threshold for model in validation.models}
    return thresholds.pop() if len(thresholds) == 1 else None


def _title(validation: Validation) -> str:
    names = list(dict.fromkeys(model.name for model in validation.models if model.name))
    if len(names) == 1:
        return f"Validation of {names[0]}"
    return f"Validation of {len(validation.models)} models" if validation.models else "Validation of an algorithm"


def _judged(content: ReportContent, performance: Performance) -> list[tuple[str, str]]:
    validation = content.validation
    models = validation.models
    rows = [
        ("Algorithm", ", ".join(f"{model.name} (fold {model.fold} of {model.split})" for model in models))
        if models
        else ("Algorithm", "not one of ours; its predictions were given")
    ]
    threshold = _threshold(validation)
    if threshold is not None:
        rows.append(("Threshold", f"shock advised from a probability of {threshold:g} on"))
    folds = np.unique(content.predictions.fold)
    return [
        *rows,
        ("Databases", ", ".join(np.unique(content.predictions.database).tolist())),
        ("Headline", f"{performance.windows} windows of {performance.duration_s:g} s, {performance.patients} patients"),
        ("Durations", ", ".join(f"{other.duration_s:g} s" for other in validation.performances)),
        ("Folds", ", ".join(str(fold) for fold in folds)),
        (
            "Limits",
            f"{level_of(validation)}; by window: Clopper-Pearson; by patient: "
            f"{validation.resamples} resamples of the patients, seed {validation.seed}",
        ),
    ]


def _summary(performance: Performance) -> str:
    verdicts = [row.verdict for row in performance.aha]
    counts = {verdict: verdicts.count(verdict) for verdict in (MEETS, DOES_NOT_MEET, TOO_FEW_WINDOWS)}
    return (
        f"Of {sum(counts.values())} classes with a goal, {counts[MEETS]} {_verb(counts[MEETS], 'meet')} it, "
        f"{counts[DOES_NOT_MEET]} {_verb(counts[DOES_NOT_MEET], 'do')} not, and {counts[TOO_FEW_WINDOWS]} "
        f"{_verb(counts[TOO_FEW_WINDOWS], 'have')} too few windows for a verdict."
    )


def _verb(count: int, verb: str) -> str:
    return {"meet": "meets", "do": "does", "have": "has", "carry": "carries"}[verb] if count == 1 else verb


def _left_end(performance: Performance) -> float:
    """Return where the pictures of verdicts begin: below every share that there are enough windows for."""
    shares = [row.goal.limit for row in performance.aha]
    for row in performance.aha:
        if row.verdict in (MEETS, DOES_NOT_MEET):
            shares += [row.rate.observed, row.rate.lower_limit, row.rate.patient_limit]
    return min(MOST_LEFT_END, math.floor(10 * min(share for share in shares if share is not None)) / 10)


def _verdicts(performance: Performance) -> list[_Verdict]:
    low = _left_end(performance)
    verdicts = []
    for row in performance.aha:
        goal, rate = row.goal, row.rate
        has_goal = goal.observed is not None and goal.limit is not None
        verdicts.append(
            _Verdict(
                label=f"{AHA_LABELS[row.aha_class]}: {row.measure}",
                verdict=row.verdict,
                symbol=SYMBOLS[row.verdict],
                style=CLASSES[row.verdict],
                patients=str(rate.patients),
                windows=f"{rate.count}/{rate.windows}\n(n ≥ {goal.min_windows})",
                observed=rounded_down(rate.observed) + (f"\n(> {100 * (goal.observed or 0):g})" if has_goal else ""),
                limit=rounded_down(rate.lower_limit) + (f"\n(≥ {100 * (goal.limit or 0):g})" if has_goal else ""),
                patient_limit=rounded_down(rate.patient_limit),
                chart=goal_chart(row, low) if has_goal and rate.windows else Markup(""),
            )
        )
    return verdicts


def _weaknesses(performance: Performance, predictions: Predictions) -> list[str]:
    """Say in words what is worst, the gravest first."""
    failed = sorted((row for row in performance.aha if row.verdict == DOES_NOT_MEET), key=_shortfall, reverse=True)
    found = [_failure(row) for row in failed]
    few = [row for row in performance.aha if row.verdict == TOO_FEW_WINDOWS]
    if few:
        counts = "; ".join(
            f"{_name(row)}: {row.rate.windows} of {row.goal.min_windows} windows, {patients_text(row.rate.patients)}"
            for row in few
        )
        found.append(f"Too few windows for a verdict. {counts}.")
    found += [
        f"{_name(row)} meets its goal only if windows of one patient count as independent: by patients the lower "
        f"limit is {rounded_down(_by_patients(row.rate))} %, and {100 * (row.goal.limit or 0):g} % is asked of the "
        f"limit by window ({patients_text(row.rate.patients)})."
        for row in performance.aha
        if row.verdict == MEETS and (_by_patients(row.rate) or 0.0) < (row.goal.limit or 0.0)
    ]
    concentrated = _concentrations(predictions)
    if len(found) >= MOST_WEAKNESSES and concentrated:
        found = [*found[: MOST_WEAKNESSES - 1], concentrated[0]]
    else:
        found += concentrated
    found += [
        f"{_name(row)} rests on {patients_text(row.rate.patients)}."
        for row in performance.aha
        if row.verdict == MEETS and row.rate.patients < FEW_PATIENTS
    ]
    return found[:MOST_WEAKNESSES]


def _better(content: ReportContent, performance: Performance) -> list[str]:
    """Say which other algorithms have the higher balanced accuracy."""
    mine = performance.balanced_accuracy.observed
    sentences = []
    for name, validation in content.baselines.items():
        at = {other.duration_s: other.balanced_accuracy.observed for other in validation.performances}
        its = at.get(performance.duration_s)
        if mine is None or its is None or its <= mine:
            continue
        shares = f"{rounded_down(its)} %, this algorithm {rounded_down(mine)} %"
        sentence = f"{name} has the higher balanced accuracy on the same windows: {shares}."
        for found in content.comparisons[name].differences if name in content.comparisons else ():
            if found.measure == "BAC" and found.lower_limit is not None and found.upper_limit is not None:
                limits = f"{_points(found.lower_limit)} to {_points(found.upper_limit)}"
                sentence += f" Limits by patient of this one less that one: {limits} points."
        sentences.append(sentence)
    return sentences


def _by_patients(rate: Rate) -> float | None:
    """Return the lower of the limits that take windows of a patient together."""
    return min((limit for limit in (rate.patient_limit, rate.cluster_limit) if limit is not None), default=None)


def _name(row: AhaRow) -> str:
    return AHA_LABELS[row.aha_class].split(" (")[0]


def _shortfall(row: AhaRow) -> float:
    """How far a class stays below the two lines of its goal, at the worse of them."""
    goal, rate = row.goal, row.rate
    return max(
        (goal.observed or 0.0) - (rate.observed or 0.0),
        (goal.limit or 0.0) - (rate.lower_limit or 0.0),
    )


def _failure(row: AhaRow) -> str:
    rate, goal = row.rate, row.goal
    right = "are advised a shock" if row.aha_class in SHOCKABLE else "are advised no shock"
    return (
        f"{_name(row)} does not meet its goal: {rate.count} of {rate.windows} windows of "
        f"{patients_text(rate.patients)} {right}. "
        f"Observed {rounded_down(rate.observed)} % where more than {100 * (goal.observed or 0):g} % is asked; "
        f"lower limit {rounded_down(rate.lower_limit)} % where {100 * (goal.limit or 0):g} % has to be reached."
    )


def _concentrations(predictions: Predictions) -> list[str]:
    """Name patients who carry much of the errors of one kind, the largest share first."""
    found = []
    for kind, wrong in _wrong(predictions).items():
        names, counts = np.unique(predictions.patient[wrong], return_counts=True)
        total = int(counts.sum())
        if total < 2 or counts.max() < 2 or counts.max() < CONCENTRATED * total:
            continue
        worst = int(np.argmax(counts))
        mine = wrong & (predictions.patient == names[worst])
        rhythms = ", ".join(_rhythm(name) for name in np.unique(predictions.rhythm[mine]))
        sentence = (
            f"{counts[worst]} of the {total} {kind}s are of one patient, {names[worst]} ({rhythms}); "
            f"all {total} are of {patients_text(len(names))}."
        )
        found.append((counts[worst] / total, sentence))
    return [sentence for _, sentence in sorted(found, key=lambda pair: -pair[0])]


def _rhythm(name: str) -> str:
    return str(name).replace("_", " ")


def _wrong(predictions: Predictions) -> dict[str, np.ndarray]:
    return {
        MISSED: np.isin(predictions.aha_class, SHOCKABLE) & ~predictions.shock,
        FALSE: np.isin(predictions.aha_class, NONSHOCKABLE) & predictions.shock,
    }


def _not_done(content: ReportContent, no_curves: str) -> list[str]:
    said = {
        "No other algorithm was judged on the same windows.": bool(content.baselines),
        "No stress test was done: nothing is known here of noise, artefacts and other recorders.": bool(content.stress),
        "Whole records were not scanned: nothing is known here of false alarms an hour and of delays.": (
            content.validation.whole_records is not None
        ),
        "The ECG of the errors is not shown: it was not given.": content.strips is not None,
        "What of the recordings is in no window, and why, was not given.": bool(content.left_out),
        "Where data, software and settings come from was not given.": bool(content.provenance),
    }
    return [
        *content.notes,
        *([f"There is no ROC curve and no reliability: {no_curves}."] if no_curves else []),
        *(sentence for sentence, done in said.items() if not done),
    ]


def _curve_charts(predictions: Predictions, performance: Performance, validation: Validation) -> dict[str, Any]:
    if _no_curves(predictions):
        return {}
    alpha, resamples, seed = validation.alpha, validation.resamples, validation.seed
    found = roc(predictions, alpha=alpha, resamples=resamples, seed=seed)
    bins = reliability(predictions, alpha=alpha, resamples=resamples, seed=seed)
    sensitivity, specificity = performance.sensitivity.observed, performance.specificity.observed
    advised = Series("as advised", [1 - (specificity or 0.0)], [sensitivity or 0.0], style="second", points=True)
    chance = Series("", [0, 1], [0, 1], style="reference")
    curve = _roc_series(found)
    windows = Series("windows", bins.probability, bins.share, bins.lower, bins.upper, style="first", points=True)
    false_alarms = "nonshockable windows advised a shock (1 - Sp)"
    return {
        "roc": line_chart(
            "ROC curve",
            share_axis(false_alarms),
            share_axis("shockable windows advised a shock (Se)"),
            [chance, curve, advised],
        ),
        "zoom": line_chart(
            f"ROC curve, the corner up to {100 * ZOOM:g} %",
            share_axis(false_alarms, 0.0, ZOOM),
            share_axis("shockable windows advised a shock (Se)", 1 - ZOOM, 1.0),
            [replace(curve, y=np.where(np.asarray(curve.y) < 1 - ZOOM, np.nan, curve.y)), advised],
        ),
        "reliability": line_chart(
            "Reliability",
            share_axis("probability of shockable"),
            share_axis("windows that are shockable"),
            [chance, windows],
        ),
        "area": f"{math.floor(1e4 * found.auc) / 1e4:.4f}",
        "area_limit": "" if math.isnan(found.auc_limit) else f"{math.floor(1e4 * found.auc_limit) / 1e4:.4f}",
        "resamples": validation.resamples,
        "level": f"{100 * (1 - validation.alpha):g} % two-sided",
        "bins": Table(
            f"Reliability by the probability, in {len(bins.windows)} bins",
            ("Mean probability", "Patients", "Windows", "Shockable", "Lower limit", "Upper limit"),
            tuple(
                (
                    f"{100 * bins.probability[i]:.1f}",
                    str(bins.patients[i]),
                    str(bins.windows[i]),
                    f"{100 * bins.share[i]:.1f}",
                    *("–" if math.isnan(edge) else f"{100 * edge:.1f}" for edge in (bins.lower[i], bins.upper[i])),
                )
                for i in np.flatnonzero(bins.windows)
            ),
        ),
    }


def _no_curves(predictions: Predictions) -> str:
    """Say why there is no ROC curve and no reliability, or nothing if there are."""
    if not predictions.has_probability:
        return "the algorithm gave its decisions, and no probabilities"
    if not all(np.isin(predictions.aha_class, group).any() for group in (SHOCKABLE, NONSHOCKABLE)):
        return "they take shockable and nonshockable windows"
    return ""


def _roc_series(found: Roc) -> Series:
    """Draw the curve and its band over the rates of both; at equal rates the highest sensitivity counts, but for 0."""
    highest = np.append(np.diff(found.false_positive_rate) > 0, True)
    rate = np.union1d(found.false_positive_rate, found.band_rate)
    sensitivity = np.interp(rate, found.false_positive_rate[highest], found.sensitivity[highest])
    edges = (np.interp(rate, found.band_rate, edge) for edge in (found.band_lower, found.band_upper))
    low, high = (np.append(np.nan, edge) for edge in edges)
    return Series("by probability", np.append(0.0, rate), np.append(0.0, sensitivity), low, high)


def _patients_chart(predictions: Predictions) -> Markup:
    rows = []
    for name, classes, right in (
        ("shockable", SHOCKABLE, predictions.shock),
        ("nonshockable", NONSHOCKABLE, ~predictions.shock),
    ):
        member = np.isin(predictions.aha_class, classes)
        names, patient = np.unique(predictions.patient[member], return_inverse=True)
        windows = np.bincount(patient, minlength=len(names))
        count = np.bincount(patient, right[member], minlength=len(names)).astype(int)
        dots = [PatientDot(str(p), int(w), int(c)) for p, w, c in zip(names, windows, count, strict=True)]
        rows.append((name, dots))
    return patient_chart("Patients by their share of right advice", rows)


def _durations_chart(validation: Validation) -> Markup | None:
    if len(validation.performances) < 2:
        return None
    durations = [performance.duration_s for performance in validation.performances]
    rates = {
        "Se": [performance.sensitivity for performance in validation.performances],
        "Sp": [performance.specificity for performance in validation.performances],
    }
    return _rates_chart("Se and Sp by the length of the window", "window, s", durations, [], rates)


def _rates_chart(
    title: str, label: str, values: Sequence[float], names: Sequence[str], rates: Mapping[str, Sequence[Rate]]
) -> Markup:
    series = []
    lowest = MOST_LEFT_END
    for (measure, row), style in zip(rates.items(), ("first", "second"), strict=True):
        observed, limits = (
            [math.nan if share is None else share for share in shares]
            for shares in ([rate.observed for rate in row], [rate.patient_limit for rate in row])
        )
        series.append(Series(measure, values, observed, limits, observed, style=style, points=True))
        lowest = min([lowest, *(share for share in (*observed, *limits) if math.isfinite(share))])
    low_end = math.floor(lowest * 10 + 1e-9) / 10
    x = value_axis(label, values, names or [f"{value:g}" for value in values])
    return line_chart(title, x, share_axis("windows with the right advice", low_end), series)


def _groups(of: str, groups: Sequence[GroupRow], alpha: float) -> Table:
    rows = tuple(
        (
            _rhythm(group.name) if of == "Rhythm" else group.name,
            MEASURES[group.group],
            str(group.patients),
            f"{group.count}/{group.windows}",
            rounded_down(group.count / group.windows),
            rounded_down(lower_limit(group.count, group.windows, alpha)) if group.group != "intermediate" else "–",
        )
        for group in groups
    )
    return Table(f"By {of.lower()}", (of, "Measure", *RATE_HEADER[:4]), rows)


def _baselines(content: ReportContent, performance: Performance) -> tuple[tuple[Table, ...], list[str]]:
    """Set algorithms side by side at the headline duration, and name those that judged other windows."""
    found: dict[str, Performance | None] = {"this algorithm": performance}
    for name, validation in content.baselines.items():
        at = {other.duration_s: other for other in validation.performances}
        found[name] = at.get(performance.duration_s)
    pooled, by_class, notes = [], [], []
    for name, other in found.items():
        if other is None:
            notes.append(f"{name} was not judged on windows of {performance.duration_s:g} s.")
            continue
        if [row.rate.windows for row in other.aha] != [row.rate.windows for row in performance.aha]:
            notes.append(f"{name} was judged on other windows: its classes have other numbers of them.")
        balanced = other.balanced_accuracy
        pooled.append(
            (
                name,
                *_shares(other.sensitivity),
                *_shares(other.specificity),
                f"{rounded_down(balanced.observed)}\n({rounded_down(balanced.patient_limit)})",
            )
        )
        by_class.append(
            (
                name,
                *(
                    f"{rounded_down(row.rate.observed)}\n{SYMBOLS[row.verdict]} {row.verdict}"
                    for row in other.aha
                    if row.goal.observed is not None
                ),
            )
        )
    goals = [_name(row) for row in performance.aha if row.goal.observed is not None]
    tables = [_differences(content.comparisons)] if content.comparisons else []
    header = ("Algorithm", "Se\n(by patient)", "Sp\n(by patient)", "BAC\n(by patient)")
    return (
        (
            Table("Observed, and lower limit by patient", header, tuple(pooled)),
            *tables,
            Table("Observed, and verdict by AHA class", ("Algorithm", *goals), tuple(by_class)),
        ),
        notes,
    )


def _differences(comparisons: Mapping[str, Comparison]) -> Table:
    """Lay out by how much this algorithm is better than each other one."""
    rows = []
    for name, comparison in comparisons.items():
        found = {difference.measure: difference for difference in comparison.differences}
        se, sp, accuracy = (found.get(measure) for measure in ("Se", "Sp", "BAC"))
        rows.append((name, _difference(se), _p_value(se), _difference(sp), _p_value(sp), _difference(accuracy)))
    header = (
        *("Algorithm", "Se, points\n(by patient)", "Se,\nMcNemar's p"),
        *("Sp, points\n(by patient)", "Sp,\nMcNemar's p", "BAC, points\n(by patient)"),
    )
    return Table("This algorithm less the other, with limits", header, tuple(rows))


def _comparison_note(comparisons: Mapping[str, Comparison]) -> str:
    """Say what the limits of the differences are, and what the p-values are not."""
    for comparison in comparisons.values():
        return (
            f"Differences are in points of per cent, above 0 where this algorithm is better, with "
            f"{100 * (1 - comparison.alpha):g} % two-sided limits from {comparison.resamples} resamples of the "
            "patients, each with what both algorithms said. McNemar's p takes windows as independent, and is too small "
            "where a patient has many."
        )
    return ""


def _difference(found: Difference | None) -> str:
    if found is None:
        return "–"
    text = _points(found.difference)
    if found.lower_limit is None or found.upper_limit is None:
        return text
    return f"{text}\n({_points(found.lower_limit)} to {_points(found.upper_limit)})"


def _points(difference: float) -> str:
    """Write a difference of shares in points of per cent, with its sign."""
    return f"{100 * difference:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def _p_value(found: Difference | None) -> str:
    if found is None or found.p_value is None:
        return "–"
    return "< 0.0001" if found.p_value < LEAST_P else f"{found.p_value:.4f}"


def _shares(rate: Rate) -> tuple[str]:
    return (f"{rounded_down(rate.observed)}\n({rounded_down(rate.patient_limit)})",)


def _stress_charts(stress: Sequence[StressPoint]) -> list[tuple[str, Markup]]:
    """Draw each stress of several degrees; a single one has its row in the table."""
    charts = []
    for name, points in _by_stress(stress).items():
        if len(points) < 2:
            continue
        rates = {"Se": [point.sensitivity for point in points], "Sp": [point.specificity for point in points]}
        values, levels = [point.value for point in points], [point.level for point in points]
        charts.append((name, _rates_chart(f"Se and Sp under {name}", name, values, levels, rates)))
    return charts


def _by_stress(stress: Sequence[StressPoint]) -> dict[str, list[StressPoint]]:
    grouped: dict[str, list[StressPoint]] = defaultdict(list)
    for point in stress:
        grouped[point.stress].append(point)
    return {name: sorted(points, key=lambda point: point.value) for name, points in grouped.items()}


def _stress_table(stress: Sequence[StressPoint]) -> Table:
    rows = tuple(
        (
            name,
            point.level,
            *(
                text
                for rate in (point.sensitivity, point.specificity)
                for text in (
                    f"{rate.count}/{rate.windows}",
                    rounded_down(rate.observed),
                    rounded_down(rate.patient_limit),
                )
            ),
            str(point.unusable),
        )
        for name, points in _by_stress(stress).items()
        for point in points
    )
    header = ("Stress", "Level", "Shockable", "Se", "Limit", "Nonshockable", "Sp", "Limit", "Unusable")
    return Table("Stress tests", header, rows)


def _errors(predictions: Predictions) -> list[int]:
    """Return the rows of wrong advice, worst first: by how far the probability is from right, if there is one."""
    wrong = _wrong(predictions)
    rows = np.flatnonzero(wrong[MISSED] | wrong[FALSE])
    keys = [predictions.start_s, predictions.record, predictions.database]
    if predictions.has_probability:
        keys.append(-np.where(wrong[MISSED], 1 - predictions.probability, predictions.probability))
    else:
        keys.append(predictions.patient)
    return rows[np.lexsort([key[rows] for key in keys])].tolist()


def _entry(
    predictions: Predictions,
    row: int,
    strips: Callable[[int], Strip | None],
    given_row: int,
    threshold: float | None,
) -> _Error:
    start_s, duration_s = float(predictions.start_s[row]), float(predictions.duration_s[row])
    strip = strips(given_row)
    trace = None
    if strip is not None and strip.probability_at_s is not None and strip.probability is not None:
        trace = np.asarray(strip.probability_at_s, dtype=float), np.asarray(strip.probability, dtype=float)
    return _Error(
        kind=FALSE if predictions.shock[row] else MISSED,
        database=str(predictions.database[row]),
        record=str(predictions.record[row]),
        lead=str(predictions.lead[row]),
        patient=str(predictions.patient[row]),
        rhythm=_rhythm(predictions.rhythm[row]),
        aha_class=AHA_LABELS[str(predictions.aha_class[row])].split(" (")[0],
        start_s=start_s,
        when=clock(start_s),
        window=f"{start_s:.2f} to {start_s + duration_s:.2f} s",
        probability=f"{predictions.probability[row]:.4f}" if predictions.has_probability else "",
        rows=()
        if strip is None
        else paper(
            np.asarray(strip.ecg, dtype=float),
            strip.fs,
            strip.start_s,
            (start_s, start_s + duration_s),
            trace,
            threshold,
        ),
    )


def _left_out(left_out: Sequence[LeftOut]) -> Table | None:
    if not left_out:
        return None
    databases = list(dict.fromkeys(entry.database for entry in left_out))
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for entry in left_out:
        seconds[entry.reason][entry.database] += entry.seconds
    by_size = sorted(seconds.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    rows = [
        (reason, *(f"{found.get(name, 0.0):.0f}" for name in databases), f"{sum(found.values()):.0f}")
        for reason, found in by_size
    ]
    totals = [sum(found.get(name, 0.0) for found in seconds.values()) for name in databases]
    rows.append(("all reasons", *(f"{total:.0f}" for total in totals), f"{sum(totals):.0f}"))
    return Table("Seconds in no window", ("Reason", *databases, "All"), tuple(rows))


def _evidence(content: ReportContent, performance: Performance) -> list[str]:
    counts = "; ".join(f"{_name(row)} {row.rate.patients}" for row in performance.aha)
    databases = ", ".join(np.unique(content.predictions.database).tolist())
    return [
        *([f"Some windows are {SYNTHETIC_NOTE}"] if content.validation.synthetic else []),
        f"Patients behind each class: {counts}. A class with a handful of patients says how the algorithm does on "
        "these patients, and little of others.",
        "Windows of one patient resemble each other. The limit by window, on which the AHA's verdict rests, takes them "
        "as independent and is too high. The limit by patient does not, and is itself too high where few patients have "
        "errors: there the limit by design effect is the one to trust.",
        f"The recordings are of {databases}. Unless the device itself recorded them, recorders, electrodes, annotators "
        "and the choice of patients are others than in the field.",
        "Windows with annotated noise, invalid samples, or near a change of rhythm are left out beforehand, and the "
        "public databases hold no chest compressions and no transport."
        if content.validation.models
        else "Which windows were left out beforehand, and whether chest compressions are in them, is for those to say "
        "who gave the predictions.",
        "The figures hold for the algorithm at its threshold as it was judged. Another threshold, filter or lead is "
        "another algorithm. That a threshold was chosen without the patients of this report cannot be seen from the "
        "predictions alone.",
        "Labels are those of the databases. A gallery of errors holds errors of annotators too.",
        f"Limits of shares are {level_of(content.validation)}, and each limit and band holds by itself; of many rows "
        "some fail or pass by chance.",
        "Goals as in Kerber et al., Circulation 95:1677-1682, 1997. " + DISCLAIMER,
    ]
