"""Write the results of an evaluation as tables for the terminal, as Markdown, and as JSON.

Numbers in tables are rounded; numbers in JSON are not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from ecg_shock.evaluation.comparison import Comparison
from ecg_shock.evaluation.confidence import Proportion, lower_limit
from ecg_shock.evaluation.metrics import (
    MEASURES,
    WITHHELD,
    AhaRow,
    GroupRow,
    Model,
    Performance,
    Validation,
)
from ecg_shock.evaluation.whole_records import WholeRecords
from ecg_shock.report.formats import (
    NONE,
    Table,
    class_name,
    markdown_text,
    one_decimal,
    p_value_text,
    points,
    printable,
    rounded_down,
    rounded_up,
)
from ecg_shock.report.label_policies import (
    DEFAULT_LABELS,
    corrected_tables,
    labels_comparison_table,
    labels_note,
    set_apart_tables,
    set_apart_text,
)
from ecg_shock.report.whole_records import event_notes, event_tables
from ecg_shock.rhythms import AHA_LABELS

HEADLINE_S = 5.0  # the window length that is reported in full
DISCLAIMER = "Not a claim of conformity with any standard."
NETWORK_NOTE = (
    "Only the network was evaluated, on windows of continuously filtered recordings. The rule for unusable strips was "
    "not applied."
)
VERDICT_NOTE = (
    'A class "meets" its goal if it has enough windows that do not overlap, the observed proportion is above its goal, '
    "and the 90 % one-sided limit by window reaches its goal. Fine VF and other VT have no right advice, so only the "
    "proportion of windows with a shock advised is reported."
)
BAC_NOTE = (
    "BAC: balanced accuracy, the mean of Se and Sp. PPV, the positive predictive value, depends on the proportion of "
    "shockable windows in the test set."
)
CALIBRATION_NOTE = (
    "Brier score: the mean squared difference between probability and truth. ECE, the expected calibration error: the "
    "mean difference between probability and proportion of shockable windows in ten bins. Equal weights: all shockable "
    "windows together have the same weight as all nonshockable ones."
)
SYNTHETIC_NOTE = "synthetic: simulated signals, which say nothing about real ECG."
PROPORTION_HEADER = ("Patients", "Windows", "Observed", "Limit by\nwindow", "Limit by\npatient", "Patient\nmean")

Comparisons = Mapping[str, Sequence[Comparison]]  # by the name of another algorithm, one for each duration

_LABEL_LIMITS = {"rate_bpm": "≥ {:g} bpm", "amplitude_mv": "> {:g} mV"}
_SHOWN_DIGITS = 12  # of a digest or commit


def to_dict(
    validation: Validation, whole: WholeRecords | None = None, comparisons: Comparisons | None = None
) -> dict[str, Any]:
    """Convert the results of an evaluation to dictionaries, lists, numbers, strings and None.

    Parameters
    ----------
    validation : Validation
        The results on windows.
    whole : WholeRecords, optional
        The results of alarms on complete records of the same patients.
    comparisons : mapping of str to sequence of Comparison, optional
        By the name of another algorithm, which is the first of the two, at each duration.

    Returns
    -------
    dict
        With these keys:

        - ``synthetic``: True if some windows are synthetic.
        - ``note``: a disclaimer.
        - ``protocol``: how a model was evaluated; empty for a file of predictions.
        - ``source``: the file of predictions; empty for a model.
        - ``models``: a list with the fields of `Model`.
        - ``limits``: ``level``, ``alpha``, ``resamples`` and ``seed``.
        - ``coverage``: the fields of `ecg_shock.evaluation.metrics.Coverage`, or None without a list of windows.
        - ``performances``: a list with the fields of `Performance`, the shortest duration first.
        - ``default_labels``: the fields of `ecg_shock.evaluation.metrics.DefaultLabels`, or None if the model has the
          default label policy.
        - ``comparisons``: by name of another algorithm, a list with the fields of `ecg_shock.Comparison`.
        - ``whole_records``: the fields of `ecg_shock.evaluation.whole_records.WholeRecords`, or None.
    """
    return {
        "synthetic": validation.synthetic,
        "note": DISCLAIMER,
        "protocol": NETWORK_NOTE if validation.models else "",
        "source": validation.source,
        "models": [asdict(model) for model in validation.models],
        "limits": {
            "level": level_of(validation),
            "alpha": validation.alpha,
            "resamples": validation.resamples,
            "seed": validation.seed,
        },
        "coverage": asdict(validation.coverage) if validation.coverage else None,
        "performances": [asdict(performance) for performance in validation.performances],
        "default_labels": asdict(validation.default_labels) if validation.default_labels else None,
        "comparisons": {
            name: [asdict(comparison) for comparison in found] for name, found in (comparisons or {}).items()
        },
        "whole_records": asdict(whole) if whole else None,
    }


def to_card(validation: Validation) -> dict[str, str]:
    """Summarise an evaluation for the card of a model.

    Parameters
    ----------
    validation : Validation
        The results on windows.

    Returns
    -------
    dict of str to str
        A text for each duration, such as ``"5 s"``: Se, Sp and balanced accuracy in %, with windows, patients and lower
        limits by patient; and the AHA verdicts. The key ``"limits"`` gives the confidence level. For a model with
        other labels than the default ones, the keys ``"5 s, default labels"`` and ``"5 s, other class"`` give the
        results under the default label policy, and the advice for the windows whose class differs.
    """
    card = {"limits": level_of(validation)}
    card |= {f"{performance.duration_s:g} s": _card_text(performance) for performance in validation.performances}
    if validation.default_labels:
        for performance in validation.default_labels.performances:
            name = f"{performance.duration_s:g} s"
            card[f"{name}, default labels"] = _card_text(performance)
            card[f"{name}, other class"] = set_apart_text(validation.default_labels, performance.duration_s)
    return card


def _card_text(performance: Performance) -> str:
    rates = (("Se", performance.sensitivity), ("Sp", performance.specificity))
    parts = [
        f"{name} {rounded_down(rate.observed)} ({rate.count}/{rate.windows} windows, {rate.patients} patients, "
        f"limit by patient {rounded_down(rate.patient_limit)})"
        for name, rate in rates
    ]
    accuracy = performance.balanced_accuracy
    parts.append(f"BAC {rounded_down(accuracy.observed)} (limit by patient {rounded_down(accuracy.patient_limit)})")
    verdicts = [
        f"{row.aha_class} {row.rate.count}/{row.rate.windows} {row.verdict}"
        for row in performance.aha
        if row.rate.windows
    ]
    return "; ".join([*parts, *verdicts])


def to_json(validation: Validation, whole: WholeRecords | None = None, comparisons: Comparisons | None = None) -> str:
    """Convert the results of an evaluation to JSON, with the keys of `to_dict`."""
    return json.dumps(to_dict(validation, whole, comparisons), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(
    validation: Validation, whole: WholeRecords | None = None, comparisons: Comparisons | None = None
) -> str:
    """Convert the results of an evaluation to Markdown: all tables for all durations, with aligned columns."""
    parts = ["\n".join(f"- {markdown_text(note)}" for note in _notes(validation, whole, comparisons))]
    for table in _tables(validation, whole, comparisons, validation.performances):
        parts += [f"### {markdown_text(table.title)}", table.to_markdown()]
    return "\n\n".join(parts) + "\n"


def to_rich(validation: Validation, whole: WholeRecords | None = None, comparisons: Comparisons | None = None) -> Group:
    """Convert the results of an evaluation to tables for printing with rich.

    The AHA classes are shown for all durations; databases, rhythms and patients only for the duration of `headline`.
    """
    tables = _tables(validation, whole, comparisons, [headline(validation)])
    notes = Text("\n".join(_notes(validation, whole, comparisons)))
    return Group(*(Padding(table.to_rich(), (0, 0, 1, 0)) for table in tables), notes)


def headline(validation: Validation) -> Performance:
    """Return the results that are reported in full: for windows of `HEADLINE_S`, or else for the longest windows."""
    by_duration = {performance.duration_s: performance for performance in validation.performances}
    return by_duration.get(HEADLINE_S, validation.performances[-1])


def level_of(validation: Validation) -> str:
    """Return the confidence level of the limits as text, such as ``"90 % one-sided"``."""
    return f"{100 * (1 - validation.alpha):g} % one-sided"


def _notes(validation: Validation, whole: WholeRecords | None, comparisons: Comparisons | None) -> list[str]:
    notes = [
        f"Limits are {level_of(validation)}, α = {validation.alpha:g}. Limit by window: Clopper-Pearson, which treats "
        "windows as independent.",
        f"Limit by patient: from {validation.resamples} resamples of the patients, seed {validation.seed}; if there "
        "are no errors, Clopper-Pearson for the number of patients. It is too high if few patients have errors; then "
        "use the limit by design effect, which is Clopper-Pearson for the effective number of windows. Patient mean: "
        "the mean of the proportions of all patients.",
        VERDICT_NOTE,
        "Design effect: the variance of the proportion, divided by the variance for independent windows. Effective "
        "windows: the number of independent windows with the same variance.",
        BAC_NOTE,
        *([CALIBRATION_NOTE] if any(at.calibration for at in validation.performances) else []),
        "Proportions are in %, rounded to the algorithm's disadvantage.",
        DISCLAIMER,
    ]
    return [
        *([SYNTHETIC_NOTE] if validation.synthetic else []),
        *([coverage_note(validation)] if not validation.models else []),
        *withheld_notes(validation.performances),
        *([f"Evaluated: {printable(validation.source)}."] if validation.source else []),
        *_model_notes(validation.models),
        *(
            [labels_note(validation.default_labels, headline(validation).duration_s)]
            if validation.default_labels
            else []
        ),
        *notes,
        *window_notes(validation.performances),
        *(event_notes(whole) if whole else []),
        *([comparison_note(comparisons)] if comparisons else []),
    ]


def coverage_note(validation: Validation) -> str:
    """Say how many of the listed windows are evaluated, or that there is no list to check them."""
    covered = validation.coverage
    if covered is None:
        return (
            "No list of windows was given (--windows), so this report cannot know whether windows are missing, whether "
            "times and classes are correct, and whether the patients are test patients."
        )
    note = (
        f"{covered.evaluated} of {covered.listed} windows, {covered.unknown} unknown, classes as in the reference "
        f"({printable(covered.source)})."
    )
    return note + (" Unknown windows are not in the reference, and are not evaluated." if covered.unknown else "")


def withheld_notes(performances: Iterable[Performance]) -> Iterator[str]:
    """Yield a sentence on each duration with a verdict that is withheld: on which classes, and why."""
    for performance in performances:
        withheld = [row for row in performance.aha if row.verdict == WITHHELD]
        overlapping = [
            f"{class_name(row.aha_class)}: {row.overlapping} of its {row.rate.windows} windows begin before the "
            "previous one of the same record ends."
            for row in withheld
            if row.overlapping
        ]
        if overlapping:
            overlapping.append(
                "A verdict treats windows as independent: give windows that do not overlap, and one lead for each "
                "second."
            )
        missing = [
            f"{class_name(row.aha_class)}: {row.missing} of its {row.missing + row.rate.windows} listed windows have "
            "no prediction."
            for row in withheld
            if row.missing
        ]
        if withheld:
            yield f"Verdicts withheld, windows of {performance.duration_s:g} s. {' '.join(overlapping + missing)}"


def window_notes(performances: Iterable[Performance]) -> Iterator[str]:
    """Yield warnings about overlapping windows and missing measurements."""
    unmeasured = set()
    for performance in performances:
        undecided = [row for row in performance.aha if row.no_decision]
        if undecided:
            counts = ", ".join(f"{class_name(row.aha_class)} {row.no_decision}" for row in undecided)
            yield (
                f"No decision on {sum(row.no_decision for row in undecided)} of {performance.windows} windows of "
                f"{performance.duration_s:g} s ({counts}). They are counted as wrong: as missed shocks in "
                "shockable windows, and as false shocks in nonshockable windows."
            )
        if performance.overlapping:
            yield (
                f"{performance.overlapping} of {performance.windows} windows of {performance.duration_s:g} s begin "
                "before the previous window ends, so limits by window are too high."
            )
        there = {row.aha_class for row in performance.aha if row.rate.windows}
        shown = {label.measured for label in performance.by_label}
        unmeasured |= {"rate_bpm"} - shown if there & {"rapid_vt", "other_vt"} else set()
        unmeasured |= {"amplitude_mv"} - shown if there & {"coarse_vf", "fine_vf"} else set()
    for column, what in (
        ("rate_bpm", "Rapid VT with other limits of the VT rate"),
        ("amplitude_mv", "Coarse VF with other limits of the VF amplitude"),
    ):
        if column in unmeasured:
            yield f"{what} is not shown, because {column} is missing for some windows."


def _model_notes(models: Iterable[Model]) -> Iterator[str]:
    """Yield notes on the evaluated folds, and on how their models were selected."""
    models = list(models)
    for split in dict.fromkeys(model.split for model in models):
        folds = [str(model.fold) for model in models if model.split == split]
        what = "models of the folds" if len(folds) > 1 else "model of fold"
        yield f"Evaluated: the {what} {', '.join(folds)} of {printable(split)}."
    for model in models:
        if model.differences:
            yield f"Fold {model.fold} differs from fold {models[0].fold} in: {printable(model.differences)}."
    for selection in dict.fromkeys(model.selection for model in models if model.selection):
        yield f"Selection: {printable(selection)}"
    if models:
        yield NETWORK_NOTE


def _tables(
    validation: Validation,
    whole: WholeRecords | None,
    comparisons: Comparisons | None,
    detailed: Sequence[Performance],
) -> list[Table]:
    performances = validation.performances
    tables = [models_table(validation.models)] if validation.models else []
    if validation.default_labels:
        tables.append(labels_comparison_table(performances, validation.default_labels))
    tables += [pooled_table(performances), counts_table(performances)]
    tables += [_aha_table(performance) for performance in performances]
    tables += [calibration_table(performances)] if any(at.calibration for at in performances) else []
    for performance in detailed:
        if performance.by_fold:
            tables.append(folds_table(performance))
        tables.append(effective_table(performance))
        if performance.by_label:
            tables.append(labels_table(performance))
        tables.append(groups_table("database", performance, performance.by_database))
        tables.append(groups_table("rhythm", performance, performance.by_rhythm))
        tables.append(groups_table("patient", performance, performance.most_errors, ", most errors"))
    if validation.default_labels:
        shown = {performance.duration_s for performance in detailed}
        tables.append(pooled_table(validation.default_labels.performances, DEFAULT_LABELS))
        for performance in validation.default_labels.performances:
            if performance.duration_s in shown:
                tables.append(_aha_table(performance, DEFAULT_LABELS))
                tables += [folds_table(performance, DEFAULT_LABELS)] if performance.by_fold else []
                tables += set_apart_tables(validation.default_labels, performance.duration_s)
        tables += corrected_tables(validation.default_labels)
    if whole:
        tables += event_tables(whole)
    tables += [_comparison_table(name, found) for name, found in (comparisons or {}).items()]
    if not validation.synthetic:
        return tables
    return [replace(table, title=f"{table.title} (synthetic)") for table in tables]


def models_table(models: Iterable[Model]) -> Table:
    """Make a table of the evaluated models."""
    columns: dict[str, Callable[[Model], str]] = {
        "Model": lambda model: printable(model.name),
        "Folder": lambda model: printable(model.folder),
        "SHA-256": lambda model: model.sha256[:_SHOWN_DIGITS],
        # A suffix after the digits, which marks uncommitted changes, is kept.
        "Commit": lambda model: printable(
            re.sub(rf"^([0-9a-f]{{{_SHOWN_DIGITS}}})[0-9a-f]+", r"\1", model.commit) or NONE
        ),
        "Parameters": lambda model: str(model.parameters),
        "Threshold": lambda model: f"{model.threshold:g}",
    }
    return Table.from_rows("Models", models, columns)


def folds_table(performance: Performance, labels: str = "") -> Table:
    """Make a table of the results of each fold, and of all folds; `labels` begins its title."""
    total = performance.sensitivity, performance.specificity, performance.balanced_accuracy
    folds = [(str(row.fold), row.sensitivity, row.specificity, row.balanced_accuracy) for row in performance.by_fold]
    rows = tuple(
        (
            name,
            str(accuracy.patients),
            *(cell for rate in (se, sp) for cell in (f"{rate.count}/{rate.windows}", rounded_down(rate.observed))),
            rounded_down(accuracy.observed),
            rounded_down(accuracy.patient_limit),
        )
        for name, se, sp, accuracy in (*folds, ("all", *total))
    )
    header = ("Fold", "Patients", "Shockable", "Se", "Nonshockable", "Sp", "BAC", "BAC, limit\nby patient")
    return Table(f"{labels}By fold, windows of {performance.duration_s:g} s", header, rows)


def calibration_table(performances: Iterable[Performance]) -> Table:
    """Make a table of the Brier score and the expected calibration error by duration."""
    names = ("brier", "calibration_error", "equal_brier", "equal_calibration_error")
    rows = tuple(
        (
            f"{at.duration_s:g} s",
            str(at.tp + at.fn + at.tn + at.fp),
            *(_four_decimals(getattr(at.calibration, name)) for name in names),
        )
        for at in performances
        if at.calibration
    )
    header = ("Window", "Windows", "Brier\nscore", "ECE", "Brier score,\nequal weights", "ECE,\nequal weights")
    return Table("Calibration of the probabilities (0 is best)", header, rows)


def _four_decimals(error: float | None) -> str:
    return NONE if error is None else f"{math.ceil(1e4 * error) / 1e4:.4f}"


def pooled_table(performances: Iterable[Performance], labels: str = "") -> Table:
    """Make a table of sensitivity, specificity and balanced accuracy by duration; `labels` begins its title."""
    rows: list[tuple[str, ...]] = []
    for performance in performances:
        window = f"{performance.duration_s:g} s"
        for name, rate in (("Se", performance.sensitivity), ("Sp", performance.specificity)):
            rows.append((window, name, *_proportion_cells(rate), one_decimal(rate.design_effect)))
        balanced = performance.balanced_accuracy
        observed, limit = rounded_down(balanced.observed), rounded_down(balanced.patient_limit)
        rows.append((window, "BAC", str(balanced.patients), NONE, observed, NONE, limit, NONE, NONE))
    header = ("Window", "Measure", *PROPORTION_HEADER, "Design\neffect")
    return Table(f"{labels}All shockable and nonshockable windows", header, tuple(rows))


def counts_table(performances: Iterable[Performance]) -> Table:
    """Make a table of TP, FN, TN and FP, and of the proportions computed from them, by duration."""
    columns: dict[str, Callable[[Performance], str]] = {
        "Window": lambda at: f"{at.duration_s:g} s",
        "TP": lambda at: str(at.tp),
        "FN": lambda at: str(at.fn),
        "TN": lambda at: str(at.tn),
        "FP": lambda at: str(at.fp),
        "Se": lambda at: f"{rounded_down(at.sensitivity.observed)}\nof {at.tp + at.fn}",
        "Sp": lambda at: f"{rounded_down(at.specificity.observed)}\nof {at.tn + at.fp}",
        "PPV": lambda at: f"{rounded_down(at.ppv)}\nof {at.tp + at.fp}",
        "False-\npositive\nrate": lambda at: f"{rounded_up(at.false_positive_rate)}\nof {at.tn + at.fp}",
        "Its upper\nlimit by\nwindow": lambda at: rounded_up(at.false_positive_rate_upper_limit),
    }
    title = "Counts and proportions (TP: a shockable window with a shock advised)"
    return Table.from_rows(title, performances, columns)


def _aha_table(performance: Performance, labels: str = "") -> Table:
    title = f"{labels}AHA classes (and goals), windows of {performance.duration_s:g} s"
    return Table(title, ("Class", *PROPORTION_HEADER, "Verdict"), tuple(aha_cells(row) for row in performance.aha))


def aha_cells(row: AhaRow) -> tuple[str, ...]:
    """Return the table cells of a class: label, patients, windows, observed, limits, patient mean and verdict."""
    patients, windows, observed, limit, *rest = _proportion_cells(row.rate)
    windows += f"\n(n ≥ {row.goal.min_windows})"
    if row.goal.observed is not None and row.goal.limit is not None:
        observed += f"\n(> {100 * row.goal.observed:g})"
        limit += f"\n(≥ {100 * row.goal.limit:g})"
    return (_class_cell(row), patients, windows, observed, limit, *rest, row.verdict)


def effective_table(performance: Performance) -> Table:
    """Make a table of the effective number of windows and the limit by design effect of each class."""
    columns: dict[str, Callable[[AhaRow], str]] = {
        "Class": _class_cell,
        "Patients": lambda row: str(row.rate.patients),
        "Windows": lambda row: str(row.rate.windows),
        "Design\neffect": lambda row: one_decimal(row.rate.design_effect),
        "Effective\nwindows": lambda row: (
            NONE if row.rate.effective_windows is None else str(math.floor(row.rate.effective_windows))
        ),
        "Limit by\ndesign effect": lambda row: rounded_down(row.rate.cluster_limit),
    }
    title = f"Effective numbers of windows, windows of {performance.duration_s:g} s"
    return Table.from_rows(title, performance.aha, columns)


def labels_table(performance: Performance) -> Table:
    """Make a table of the results of rapid VT and coarse VF with other limits between the classes."""
    rows = tuple(
        (
            _class_cell(label.row),
            _LABEL_LIMITS[label.measured].format(label.limit),
            *_proportion_cells(label.row.rate)[:5],
            label.row.verdict,
        )
        for label in performance.by_label
    )
    title = f"Rapid VT and coarse VF with other limits between the classes, windows of {performance.duration_s:g} s"
    return Table(title, ("Class", "Limit", *PROPORTION_HEADER[:5], "Verdict"), rows)


def _comparison_table(name: str, comparisons: Iterable[Comparison]) -> Table:
    """Make a table of the paired differences from another algorithm, by duration."""
    header = (
        *("Window", "Measure", "Windows", "Other", "This", "Differ-\nence", "Limits by\npatient"),
        *("Only other\nright", "Only this\nright", "p"),
    )
    rows = tuple(
        (
            f"{comparison.duration_s:g} s",
            found.measure,
            str(found.windows),
            rounded_down(found.first),
            rounded_down(found.second),
            points(found.difference),
            NONE
            if found.lower_limit is None or found.upper_limit is None
            else f"{points(found.lower_limit)} to\n{points(found.upper_limit)}",
            str(found.only_first),
            str(found.only_second),
            p_value_text(found.p_value),
        )
        for comparison in comparisons
        for found in comparison.differences
    )
    return Table(f"This algorithm and {printable(name)}, on the same windows", header, rows)


def comparison_note(comparisons: Comparisons) -> str:
    """Say what the differences from other algorithms are, and how far their limits and p-values hold."""
    comparison = next(iter(comparisons.values()))[0]
    return (
        f"Differences are in percentage points, positive if this algorithm is better, with "
        f"{100 * (1 - comparison.alpha):g} % two-sided limits from {comparison.resamples} resamples of the patients. "
        "McNemar's p treats windows as independent, and is too small if one patient has many."
    )


def _class_cell(row: AhaRow) -> str:
    return f"{AHA_LABELS[row.aha_class]}: {row.measure}"


def groups_table(
    by: str, performance: Performance, groups: Iterable[GroupRow], which: str = "", alpha: float | None = None
) -> Table:
    """Make a table of results by database, rhythm or patient; if `alpha` is given, with limits by window."""
    rows = []
    for group in groups:
        limit = NONE
        if alpha is not None and group.group != "intermediate":
            limit = rounded_down(lower_limit(group.count, group.windows, alpha))
        rows.append(
            (
                group.name.replace("_", " ") if by == "rhythm" else printable(group.name),
                MEASURES[group.group],
                str(group.patients),
                f"{group.count}/{group.windows}",
                rounded_down(group.count / group.windows),
                *(() if alpha is None else (limit,)),
            )
        )
    header = (by.capitalize(), "Measure", *PROPORTION_HEADER[: 3 if alpha is None else 4])
    return Table(f"By {by}{which}, windows of {performance.duration_s:g} s", header, tuple(rows))


def _proportion_cells(rate: Proportion) -> tuple[str, ...]:
    values = (rate.observed, rate.lower_limit, rate.patient_limit, rate.macro_average)
    return (str(rate.patients), f"{rate.count}/{rate.windows}", *(rounded_down(value) for value in values))
