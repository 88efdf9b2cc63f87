"""A validation as tables: for the terminal, as Markdown, and as JSON.

Shares are printed in per cent and rounded against the algorithm, so that 2204 of 2205 is 99.9 and never 100.0. The
JSON holds every digit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from ecg_shock.evaluation.metrics import (
    MEASURES,
    AhaRow,
    GroupRow,
    LabelRow,
    Model,
    Performance,
    Rate,
    Validation,
)
from ecg_shock.rhythms import AHA_LABELS

if TYPE_CHECKING:
    from ecg_shock.evaluation.events import EventFigures
    from ecg_shock.evaluation.whole_records import RuleChoice, WholeRecords
    from ecg_shock.inference.streaming import AlarmRule

HEADLINE_S = 5.0  # the duration whose databases and rhythms the terminal shows
DISCLAIMER = "Not a claim of conformity with any standard."
NETWORK_NOTE = (
    "The network alone, on windows filtered as by a device that has been listening; the rule for unusable strips "
    "plays no part."
)
QUALITY_NOTE = (
    "The limits of the rule for unusable strips were set on clear VF and VT of all patients of vfdb, cudb and mitdb, "
    "test patients included: that it refuses none of theirs was chosen, not found."
)
SYNTHETIC_NOTE = "synthetic: made-up signals, which say nothing of real ECG."
_NONE = "–"
RATE_HEADER = ("Patients", "Windows", "Observed", "Limit by\nwindow", "Limit by\npatient", "Patient\nmean")
# A share is a ratio of counts: the tolerance only undoes the rounding of 1000 * 0.57 to 569.9999999999999.
_TOLERANCE = 1e-9

_TEXT_COLUMNS = (
    *("Class", "Database", "Rhythm", "Patient", "Window", "Measure", "Verdict", "Record", "Alarm"),
    *("Model", "Folder", "SHA-256", "Commit", "Limit", "Fold"),
)
_LABEL_LIMITS = {"rate_bpm": "≥ {:g} bpm", "amplitude_mv": "> {:g} mV"}
# Others are folded where the terminal is narrow, and none is ever cut.
_WHOLE_COLUMNS = ("Window", "Windows", "Measure", "Limit", "SHA-256")
_SHOWN_DIGITS = 12  # of a digest or commit; the JSON holds them whole


@dataclass(frozen=True)
class Table:
    """Plain cells: what every form of output starts from. A cell may have two lines, to keep columns narrow."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def is_left(self, column: int) -> bool:
        """Say whether a column holds text, which begins at its left."""
        return self.header[column] in _TEXT_COLUMNS


def to_dict(validation: Validation, whole: WholeRecords | None = None) -> dict[str, Any]:
    """Give a validation as dictionaries, lists, numbers, strings and None.

    Parameters
    ----------
    validation : Validation
        What `ecg_shock.evaluation.metrics.judge` returns.
    whole : WholeRecords, optional
        What an alarm does on the whole records of the same patients; None if they were not scanned.

    Returns
    -------
    dict
        ``synthetic``, ``note``, ``protocol`` (empty where the models are not ours), ``source`` (empty where they
        are), ``models``, a list with the fields of `Model`, ``limits`` (``level``, ``alpha``, ``resamples``,
        ``seed``), ``performances``, a list with the fields of `Performance`, the shortest duration first, and
        ``whole_records``, the fields of `ecg_shock.evaluation.whole_records.WholeRecords`, or None.
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
        "performances": [asdict(performance) for performance in validation.performances],
        "whole_records": asdict(whole) if whole else None,
    }


def to_card(validation: Validation) -> dict[str, str]:
    """Give the pooled figures as lines for a model's card.

    Parameters
    ----------
    validation : Validation
        What `judge` found.

    Returns
    -------
    dict of str to str
        By duration: Se, Sp and balanced accuracy in %, with windows, patients and lower limits by patients; and each
        AHA verdict at the durations.
    """
    card = {"limits": level_of(validation)}
    for performance in validation.performances:
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
        card[f"{performance.duration_s:g} s"] = "; ".join([*parts, *verdicts])
    return card


def to_json(validation: Validation, whole: WholeRecords | None = None) -> str:
    """Give a validation as JSON, with the keys of `to_dict`.

    Parameters
    ----------
    validation : Validation
        What `ecg_shock.evaluation.metrics.judge` returns.
    whole : WholeRecords, optional
        As for `to_dict`.
    """
    return json.dumps(to_dict(validation, whole), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(validation: Validation, whole: WholeRecords | None = None) -> str:
    """Give a validation as Markdown: all tables at every duration, with columns that line up as text too.

    Parameters
    ----------
    validation : Validation
        What `ecg_shock.evaluation.metrics.judge` returns.
    whole : WholeRecords, optional
        As for `to_dict`.
    """
    parts = ["\n".join(f"- {_markdown_text(note)}" for note in _notes(validation, whole))]
    for table in _tables(validation, whole, [p.duration_s for p in validation.performances]):
        parts += [f"### {_markdown_text(table.title)}", _markdown_table(table)]
    return "\n\n".join(parts) + "\n"


def to_rich(validation: Validation, whole: WholeRecords | None = None) -> Group:
    """Give a validation for a rich console.

    All durations are summed up and set against the AHA goals; databases and rhythms are shown at one duration,
    `HEADLINE_S` or else the longest.

    Parameters
    ----------
    validation : Validation
        What `ecg_shock.evaluation.metrics.judge` returns.
    whole : WholeRecords, optional
        As for `to_dict`.
    """
    durations = [performance.duration_s for performance in validation.performances]
    headline = HEADLINE_S if HEADLINE_S in durations else durations[-1]
    notes = Text("\n".join(_notes(validation, whole)))
    return Group(to_rich_tables(_tables(validation, whole, [headline])), notes)


def to_rich_tables(tables: Iterable[Table]) -> Group:
    """Give tables for a rich console, one below the other."""
    return Group(*(Padding(_rich_table(table), (0, 0, 1, 0)) for table in tables))


def level_of(validation: Validation) -> str:
    """Say how sure the limits of a validation are."""
    return f"{100 * (1 - validation.alpha):g} % one-sided"


def _notes(validation: Validation, whole: WholeRecords | None) -> list[str]:
    notes = [
        f"Limits: {level_of(validation)}, α = {validation.alpha:g}. By window: Clopper-Pearson, windows taken as "
        "independent.",
        f"By patient: patients resampled {validation.resamples} times, seed {validation.seed}; without an error, "
        "Clopper-Pearson of the number of patients. It is too high where few patients have errors: trust the limit by "
        "design effect then, Clopper-Pearson of as many independent windows as tell as much. Patient mean: each "
        "patient counts once.",
        "A verdict takes the observed share above its goal, the 90 % one-sided limit by window at its own, and enough "
        "windows that do not overlap.",
        "Fine VF and other VT have no right advice: the share advised shock is reported and not counted.",
        "Design effect: how many times the variance is that of independent windows. Windows by design effect are as "
        "many independent ones as would tell as much, at most those that there are.",
        "BAC: balanced accuracy, the mean of Se and Sp. PPV depends on how many of the windows are shockable.",
        "Shares in %, rounded against the algorithm.",
        DISCLAIMER,
    ]
    return [
        *([SYNTHETIC_NOTE] if validation.synthetic else []),
        *([f"Judged: {printable(validation.source)}."] if validation.source else []),
        *_model_notes(validation.models),
        *notes,
        *window_notes(validation.performances),
        *(event_notes(whole) if whole else []),
    ]


def window_notes(performances: Iterable[Performance]) -> Iterator[str]:
    """Say what is amiss with the windows, and what could not be shown of them."""
    unmeasured = set()
    for performance in performances:
        if performance.overlapping:
            yield (
                f"{performance.overlapping} of {performance.windows} windows of {performance.duration_s:g} s begin "
                "before the one before them has ended: limits by window are too high."
            )
        there = {row.aha_class for row in performance.aha if row.rate.windows}
        shown = {label.measured for label in performance.by_label}
        unmeasured |= {"rate_bpm"} - shown if there & {"rapid_vt", "other_vt"} else set()
        unmeasured |= {"amplitude_mv"} - shown if there & {"coarse_vf", "fine_vf"} else set()
    for column, what in (
        ("rate_bpm", "Rapid VT from other rates on"),
        ("amplitude_mv", "Coarse VF above other limits"),
    ):
        if column in unmeasured:
            yield f"{what} is left out: it takes the {column} of every such window."


def _model_notes(models: Iterable[Model]) -> Iterator[str]:
    """Say which folds were judged, how they were chosen, and what the figures are of."""
    models = list(models)
    for split in dict.fromkeys(model.split for model in models):
        folds = [str(model.fold) for model in models if model.split == split]
        what = "models of the folds" if len(folds) > 1 else "model of fold"
        yield f"Judged: the {what} {', '.join(folds)} of {printable(split)}."
    for selection in dict.fromkeys(model.selection for model in models if model.selection):
        yield f"Selection: {printable(selection)}"
    if models:
        yield NETWORK_NOTE


def _tables(validation: Validation, whole: WholeRecords | None, detailed_s: Iterable[float]) -> list[Table]:
    performances = validation.performances
    tables = [models_table(validation.models)] if validation.models else []
    tables += [pooled_table(performances), counts_table(performances)]
    tables += [_aha_table(performance) for performance in performances]
    for performance in performances:
        if performance.duration_s in detailed_s:
            tables.append(effective_table(performance))
            if performance.by_label:
                tables.append(labels_table(performance))
            tables.append(groups_table("database", performance, performance.by_database))
            tables.append(groups_table("rhythm", performance, performance.by_rhythm))
            tables.append(groups_table("patient", performance, performance.most_errors, ", most errors"))
    if whole:
        tables += event_tables(whole)
    if not validation.synthetic:
        return tables
    return [replace(table, title=f"{table.title} (synthetic)") for table in tables]


def models_table(models: Iterable[Model]) -> Table:
    """List what was judged."""
    header = ("Model", "Folder", "SHA-256", "Commit", "Parameters", "Threshold")
    rows = tuple(
        (
            printable(model.name),
            printable(model.folder),
            model.sha256[:_SHOWN_DIGITS],
            printable(_short_commit(model.commit)),
            str(model.parameters),
            f"{model.threshold:g}",
        )
        for model in models
    )
    return Table("Models", header, rows)


def _short_commit(commit: str) -> str:
    return re.sub(rf"^([0-9a-f]{{{_SHOWN_DIGITS}}})[0-9a-f]+", r"\1", commit) or _NONE


def pooled_table(performances: Iterable[Performance]) -> Table:
    """Lay out sensitivity, specificity and balanced accuracy at each duration."""
    rows: list[tuple[str, ...]] = []
    for performance in performances:
        window = f"{performance.duration_s:g} s"
        balanced = performance.balanced_accuracy
        rows += [
            (window, "Se", *_rate_cells(performance.sensitivity), _one(performance.sensitivity.design_effect)),
            (window, "Sp", *_rate_cells(performance.specificity), _one(performance.specificity.design_effect)),
            (
                window,
                "BAC",
                str(balanced.patients),
                _NONE,
                rounded_down(balanced.observed),
                _NONE,
                rounded_down(balanced.patient_limit),
                _NONE,
                _NONE,
            ),
        ]
    header = ("Window", "Measure", *RATE_HEADER, "Design\neffect")
    return Table("All shockable and nonshockable windows", header, tuple(rows))


def counts_table(performances: Iterable[Performance]) -> Table:
    """Lay out TP, FN, TN and FP at each duration, and the shares that they make."""
    header = (
        *("Window", "TP", "FN", "TN", "FP", "Se", "Sp", "PPV"),
        *("False-\npositive\nrate", "Its upper\nlimit by\nwindow"),
    )
    rows = tuple(_counts_cells(performance) for performance in performances)
    return Table("Counts, and shares of how many: shock advised to shockable windows is TP", header, rows)


def _counts_cells(performance: Performance) -> tuple[str, ...]:
    tp, fn, tn, fp = performance.tp, performance.fn, performance.tn, performance.fp
    shares = (
        (rounded_down(performance.sensitivity.observed), tp + fn),
        (rounded_down(performance.specificity.observed), tn + fp),
        (rounded_down(performance.ppv), tp + fp),
        (rounded_up(performance.false_positive_rate), tn + fp),
    )
    return (
        f"{performance.duration_s:g} s",
        *(str(count) for count in (tp, fn, tn, fp)),
        *(f"{share}\nof {n}" for share, n in shares),
        rounded_up(performance.false_positive_rate_upper_limit),
    )


def _aha_table(performance: Performance) -> Table:
    rows = tuple(_aha_cells(row) for row in performance.aha)
    return Table(
        f"AHA classes (and goals), windows of {performance.duration_s:g} s",
        ("Class", *RATE_HEADER, "Verdict"),
        rows,
    )


def _aha_cells(row: AhaRow) -> tuple[str, ...]:
    patients, windows, observed, limit, *rest = _rate_cells(row.rate)
    windows += f"\n(n ≥ {row.goal.min_windows})"
    if row.goal.observed is not None and row.goal.limit is not None:
        observed += f"\n(> {100 * row.goal.observed:g})"
        limit += f"\n(≥ {100 * row.goal.limit:g})"
    label = f"{AHA_LABELS[row.aha_class]}: {row.measure}"
    return (label, patients, windows, observed, limit, *rest, row.verdict)


def effective_table(performance: Performance) -> Table:
    """Lay out how many independent windows each class is worth, and the limit by that number."""
    rows = tuple(
        (
            f"{AHA_LABELS[row.aha_class]}: {row.measure}",
            str(row.rate.patients),
            str(row.rate.windows),
            _one(row.rate.design_effect),
            _NONE if row.rate.effective_windows is None else str(math.floor(row.rate.effective_windows)),
            rounded_down(row.rate.cluster_limit),
        )
        for row in performance.aha
    )
    header = ("Class", "Patients", "Windows", "Design\neffect", "Windows by\ndesign effect", "Limit by\ndesign effect")
    return Table(f"How many independent windows they are worth, windows of {performance.duration_s:g} s", header, rows)


def labels_table(performance: Performance) -> Table:
    """Lay out rapid VT and coarse VF as they would be judged with other limits between the classes."""
    rows = tuple(_labels_cells(label) for label in performance.by_label)
    return Table(
        f"Rapid VT and coarse VF with other limits between the classes, windows of {performance.duration_s:g} s",
        ("Class", "Limit", *RATE_HEADER[:5], "Verdict"),
        rows,
    )


def _labels_cells(label: LabelRow) -> tuple[str, ...]:
    row = label.row
    limit = _LABEL_LIMITS[label.measured].format(label.limit)
    return (f"{AHA_LABELS[row.aha_class]}: {row.measure}", limit, *_rate_cells(row.rate)[:5], row.verdict)


def groups_table(of: str, performance: Performance, groups: Iterable[GroupRow], which: str = "") -> Table:
    """Lay out the windows of databases, rhythms or patients."""
    rows = tuple(
        (
            group.name.replace("_", " ") if of == "rhythm" else printable(group.name),
            MEASURES[group.group],
            str(group.patients),
            f"{group.count}/{group.windows}",
            rounded_down(group.count / group.windows),
        )
        for group in groups
    )
    header = (of.capitalize(), "Measure", *RATE_HEADER[:3])
    return Table(f"By {of}{which}, windows of {performance.duration_s:g} s", header, rows)


def event_tables(whole: WholeRecords) -> list[Table]:
    """Lay out what an alarm does on whole records: detected events, false alarms, delays, other rules, and the choice.

    Parameters
    ----------
    whole : WholeRecords
        What `ecg_shock.evaluation.whole_records.RecordScans` found.
    """
    fixed = replace(whole.fixed, name=f"all, fixed {_rule(whole.fixed_rule)}")
    groups = (whole.figures, *whole.by_database, fixed)
    alarm = f"alarm {alarm_words(whole)}"
    least = [f"{row.least_s:g} s" for row in whole.figures.by_length]
    detected = tuple(
        (
            printable(group.name),
            _length(row.least_s),
            str(row.rate.patients),
            f"{row.rate.count}/{row.rate.windows}",
            *(rounded_down(share) for share in (row.rate.observed, row.rate.lower_limit)),
            *(rounded_down(share) for share in (row.rate.patient_limit, row.rate.cluster_limit)),
        )
        for group in groups
        for row in group.by_length
        if row.rate.windows or not row.least_s
    )
    false = tuple((printable(group.name), str(group.patients), *_false_cells(group)) for group in groups)
    late = tuple((printable(group.name), *_delay_cells(group)) for group in groups)
    time = tuple(
        (
            printable(group.name),
            f"{group.records}",
            f"{group.hours:.2f}",
            f"{group.shockable_hours:.2f}\n{group.intermediate_hours:.2f}",
            f"{group.nonshockable_hours:.2f}\n{group.uncounted_hours:.2f}",
            rounded_up(group.unusable),
            *(rounded_down(share) for share in (group.duration_sensitivity, group.duration_positive_predictivity)),
            f"{rounded_down(group.positive_predictivity)}\nof {group.true_alarms + group.untrue_alarms}",
        )
        for group in groups
    )
    rules = tuple(
        (_rule(rule) + (" (fixed)" if rule == whole.fixed_rule else ""), *_rule_cells(figures))
        for rule, figures in whole.by_rule
    )
    choices = tuple(
        (str(choice.fold), _rule(rule) + (" (chosen)" if rule == choice.rule else ""), *_rule_cells(figures))
        for choice in whole.choices
        if choice.decided
        for rule, figures in choice.by_rule
    )
    rule_header = (
        *("Alarm", *(f"Events\n≥ {text}" if text != "0 s" else "All\nevents" for text in least)),
        *("False\nalarms", "Delay,\nmedian\n(90 %)", "First\nalarm\n(90 %)"),
    )
    return [
        Table(
            f"Whole records: events of shockable rhythm, {alarm}",
            (
                *("Database", "Events\nfrom", "Patients", "Detected", "Observed", "Limit by\nevent"),
                *("Limit by\npatient", "Limit by\ndesign effect"),
            ),
            detected,
        ),
        Table(
            f"Whole records: false alarms in nonshockable time, {alarm}",
            (
                *("Database", "Patients", "Hours", "False\nalarms", "An\nhour", "Upper\nlimit"),
                *("Upper limit\nby patient", "Of them\ndoubtful"),
            ),
            false,
        ),
        Table(
            f"Whole records: seconds until the alarm, {alarm_words(whole)}",
            (
                *("Database", "Alarm\nafter\nonset", "Alarm on\nbefore", "Delay,\nmedian", "Delay,\n90 % up to"),
                *("Records with\nan alarm", "Without\nany", "First alarm,\nmedian", "First alarm,\n90 % up to"),
            ),
            late,
        ),
        Table(
            f"Whole records: time, {alarm}",
            (
                *("Database", "Records", "Hours", "Shockable\nintermediate", "Nonshockable\nuncounted"),
                *("Unusable", "Se by\ntime", "PPV by\ntime", "PPV by\nepisode"),
            ),
            time,
        ),
        Table("Whole records: other alarm rules on the same windows", rule_header, rules),
        *(
            [Table("Whole records: alarm rules on the validation patients", ("Fold", *rule_header), choices)]
            if choices
            else []
        ),
    ]


def event_lists(whole: WholeRecords) -> list[Table]:
    """Lay out the patients with events or false alarms, and list missed events and false alarms one by one.

    Parameters
    ----------
    whole : WholeRecords
        What `ecg_shock.evaluation.whole_records.RecordScans` found.

    Returns
    -------
    list of Table
        Those that have a row.
    """
    patients = tuple(
        (
            printable(group.name),
            f"{group.headline.count}/{group.headline.windows}",
            f"{group.by_length[0].rate.count}/{group.by_length[0].rate.windows}",
            f"{group.nonshockable_hours:.2f}",
            str(group.false_alarms),
            hundredths_up(group.false_per_hour),
        )
        for group in whole.by_patient
        if group.by_length[0].rate.windows or group.false_alarms
    )
    missed = tuple(
        (
            *(printable(name) for name in (record.database, record.record, event.rhythm)),
            *(_one(seconds) for seconds in (event.start_s, event.end_s, event.length_s)),
        )
        for record in whole.records
        for event in record.events
        if not event.detected
    )
    false = tuple(
        (
            *(printable(name) for name in (record.database, record.record, alarm.rhythm.replace("_", " "))),
            *(_one(seconds) for seconds in (alarm.onset_s, alarm.alarm_s, alarm.end_s)),
            _NONE if alarm.beats_bpm is None else f"{alarm.beats_bpm:.0f}",
            "yes" if alarm.doubtful else "no",
            f"{alarm.probability:.2f}",
        )
        for record in whole.records
        for alarm in record.false_alarms
    )
    least = f"{whole.headline_least_s:g} s"
    tables = [
        Table(
            "Patients with events or false alarms",
            ("Patient", f"Detected,\n≥ {least}", "Detected,\nany", "Nonshockable\nhours", "False\nalarms", "An\nhour"),
            patients,
        ),
        Table("Missed events", ("Database", "Record", "Rhythm", "Start, s", "End, s", "Length, s"), missed),
        Table(
            "False alarms",
            (
                *("Database", "Record", "Rhythm", "Onset, s", "Alarm, s", "End, s"),
                *("Annotated\nbeats a minute", "Doubtful", "Mean\nprobability"),
            ),
            false,
        ),
    ]
    return [table for table in tables if table.rows]


def event_notes(whole: WholeRecords) -> list[str]:
    """Say what is counted on whole records.

    Parameters
    ----------
    whole : WholeRecords
        What `ecg_shock.evaluation.whole_records.RecordScans` found.
    """
    rules = ", ".join(_rule(rule) for rule, _ in whole.by_rule)
    shown = sorted({whole.fixed_rule, *(choice.rule for choice in whole.choices)}, key=lambda rule: rule.n)
    needed = ", ".join(f"{whole.alarm_s(rule):g} s at {_rule(rule)}" for rule in shown)
    notes = [
        f"Whole records: every window of {whole.window_s:g} s, {whole.step_s:g} s apart, of every record of the same "
        f"{whole.part} patients, on the first lead, with the rule for unusable strips. Nothing is left out beforehand.",
        "An event is a segment of annotated coarse VF and rapid VT; amplitude and rate are measured over each "
        "annotated rhythm as a whole. It is detected if an episode of alarm overlaps with it. Short events can hardly "
        f"be: an alarm needs whole windows over {needed}.",
        "An alarm is false if at least half of what it rests on is annotated as nonshockable, and no shockable or "
        f"intermediate rhythm lies within {whole.tolerance_s:g} s. Fine VF, other VT, noise and time without a label "
        "make neither events nor false alarms. All of cudb outside its VF is taken as nonshockable, although VT stands "
        "there that is not labelled: a false alarm is doubtful, and counts all the same, where the rhythm is not named "
        "and the annotated beats are missing or as fast as VT.",
        "The delay counts from the annotated onset of events that follow a nonshockable rhythm, where the alarm came "
        "after it. The first alarm counts from the first event of the record, 0 s for one that was on before. Both "
        f"are of events of {whole.headline_least_s:g} s and more, and missed ones have none. The upper limit of false "
        "alarms an hour is Poisson's, as if they were independent; by patient it is from resampled patients.",
        "The alarm rule of each fold is chosen on the validation patients of its own model, and its test patients are "
        f"evaluated with it: the fewest false alarms an hour among {rules}, of the rules that detect events of "
        f"{whole.headline_least_s:g} s and more within one point of the best; the first of equals. "
        f"{' '.join(map(_chosen, whole.choices))} From the table of other rules on the test patients none is to be "
        "chosen.",
        f"Beside it stands the default rule, {_rule(whole.fixed_rule)}, fixed for all folds, which scans and streams "
        "have unless told otherwise. It was chosen once, with the shipped model on the validation patients of fold 0 "
        "of public-v1, who are the test patients of fold 1: on theirs its figures are too good.",
        QUALITY_NOTE,
    ]
    if whole.too_short:
        notes.append(f"Shorter than a window, and in no figure: {printable(', '.join(whole.too_short))}.")
    return notes


def _rule(rule: AlarmRule) -> str:
    return f"{rule.k} of {rule.n}"


def _rule_cells(figures: EventFigures) -> tuple[str, ...]:
    return (
        *(f"{row.rate.count}/{row.rate.windows}" for row in figures.by_length),
        f"{figures.false_alarms}\n({hundredths_up(figures.false_per_hour)}/h)",
        f"{_one(figures.delay_median_s)}\n({_one(figures.delay_late_s)})",
        f"{_one(figures.first_alarm_median_s)}\n({_one(figures.first_alarm_late_s)})",
    )


def alarm_words(whole: WholeRecords) -> str:
    """Say at which rule the alarm is raised: one for all folds, or each fold's own."""
    rules = {choice.rule for choice in whole.choices}
    return f"at {_rule(rules.pop())} windows" if len(rules) == 1 else "at each fold's own rule"


def _chosen(choice: RuleChoice) -> str:
    if choice.decided:
        return f"Fold {choice.fold}: {_rule(choice.rule)}, on {choice.patients} patients."
    why = "they have no such event" if choice.records else "their recordings were not there"
    return f"Fold {choice.fold}: {_rule(choice.rule)}, the default, not chosen on its validation patients, for {why}."


def _length(least_s: float) -> str:
    return f"{least_s:g} s" if least_s else "any"


def _false_cells(figures: EventFigures) -> tuple[str, ...]:
    rates = (figures.false_per_hour, figures.false_per_hour_limit, figures.false_per_hour_patient_limit)
    return (
        f"{figures.nonshockable_hours:.2f}",
        str(figures.false_alarms),
        *(hundredths_up(rate) for rate in rates),
        str(figures.doubtful_alarms),
    )


def _delay_cells(figures: EventFigures) -> tuple[str, ...]:
    return (
        str(figures.delays),
        str(figures.early),
        *(_one(seconds) for seconds in (figures.delay_median_s, figures.delay_late_s)),
        str(figures.alarmed),
        str(figures.never_alarmed),
        *(_one(seconds) for seconds in (figures.first_alarm_median_s, figures.first_alarm_late_s)),
    )


def _rate_cells(rate: Rate) -> tuple[str, ...]:
    shares = (rate.observed, rate.lower_limit, rate.patient_limit, rate.macro_average)
    return (str(rate.patients), f"{rate.count}/{rate.windows}", *(rounded_down(share) for share in shares))


def rounded_down(share: float | None) -> str:
    """Write a share that should be high, in per cent."""
    return _NONE if share is None else f"{math.floor(1000 * share + _TOLERANCE) / 10:.1f}"


def rounded_up(share: float | None) -> str:
    """Write a share that should be low, in per cent."""
    return _NONE if share is None else f"{math.ceil(1000 * share - _TOLERANCE) / 10:.1f}"


def hundredths_up(rate: float | None) -> str:
    """Write a rate that should be low, such as alarms an hour."""
    return _NONE if rate is None else f"{math.ceil(100 * rate - _TOLERANCE) / 100:.2f}"


def _one(number: float | None) -> str:
    return _NONE if number is None else f"{number:.1f}"


def printable(text: str) -> str:
    """Show characters that would not be seen, or would move what stands beside them."""
    # A control character in a name could move the cursor or turn the direction of the text.
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<|~&!])", r"\\\1", text.replace("\n", " "))


def _markdown_table(table: Table) -> str:
    rows = [[_markdown_text(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - cell_len(cell))
            cells.append(cell + space if table.is_left(index) else space + cell)
        lines.append(f"| {' | '.join(cells)} |")
    rule = ["-" * width if table.is_left(i) else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def _rich_table(table: Table) -> RichTable:
    # Text objects are printed as they are, where strings would be read as markup.
    rich_table = RichTable(title=Text(table.title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for index, name in enumerate(table.header):
        left = table.is_left(index)
        rich_table.add_column(
            Text(name), justify="left" if left else "right", no_wrap=name in _WHOLE_COLUMNS, overflow="fold"
        )
    for row in table.rows:
        rich_table.add_row(*(Text(cell) for cell in row))
    return rich_table
