"""Compare the results under a model's own label policy with those under the default policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ecg_shock.data.corrections import CorrectedSeconds
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.metrics import EXCLUDED, DefaultLabels, Performance, SetApart
from ecg_shock.report.formats import Table, class_name, patients_text, printable, rounded_down

MAIN_DURATIONS_S = (2.0, 5.0)  # those of the publication of the network
DEFAULT_LABELS = "Default labels: "  # begins the titles of tables
SHOWN_CHARACTERS = 64  # of a path or a digest
CORRECTIONS_NOTE = (
    "A human reader corrected some labels. If a model chose what the reader saw, or if the reader saw its opinion, the "
    "corrected results are too good for this model: its own errors were read again, and its agreement was not."
)


def labels_note(found: DefaultLabels, duration_s: float) -> str:
    """Say which labels the model has, and what advice it gives to windows of other class than by default."""
    policy = ", ".join(
        f"{item.name} {_value(getattr(found.policy, item.name))} (default {_value(item.default)})"
        for item in fields(LabelPolicy)
        if getattr(found.policy, item.name) != item.default
    )
    corrections = f" {CORRECTIONS_NOTE}" if found.policy.corrections else ""
    return (
        f"The model is evaluated under its own labels: {policy}. Results are for these labels, unless they are marked "
        f"as those for the default labels.{corrections} Windows of {duration_s:g} s of another class than by default: "
        f"{set_apart_text(found, duration_s)}."
    )


def _value(value: Any) -> str:
    if isinstance(value, (int, float)):
        return f"{value:g}"
    return "none" if value is None else printable(value[:SHOWN_CHARACTERS])


def corrected_tables(found: DefaultLabels) -> list[Table]:
    """Make the table of the corrected seconds; none if the model has no corrections."""
    return [corrected_table(found.corrected)] if found.policy.corrections else []


def corrected_table(corrected: Sequence[CorrectedSeconds]) -> Table:
    """Make a table of the corrected seconds by patient and label."""
    rows = [
        (printable(row.patient), row.old.replace("_", " "), row.new.replace("_", " "), f"{row.seconds:.1f}")
        for row in corrected
    ]
    patients = patients_text(len({row.patient for row in corrected}))
    rows.append((f"all: {patients}", "", "", f"{sum(row.seconds for row in corrected):.1f}"))
    header = ("Patient", "Label of the\ndatabase", "Label of the\nreader", "Seconds")
    return Table("Seconds corrected by a reader", header, tuple(rows))


def set_apart_text(found: DefaultLabels, duration_s: float) -> str:
    """Count the windows of one duration whose class differs, and those with a shock advised, by both classes."""
    counts = []
    for (default, own), rows in _group(found, duration_s, "default_class", "aha_class").items():
        windows, shocks, _ = _shock_cells(rows)
        counts.append(
            f"{_label(default)} → {_label(own)}: {windows} {'window' if windows == '1' else 'windows'} of "
            f"{patients_text(_patients(rows))}, {shocks} advised a shock"
        )
    return "; ".join(counts) or "none"


def labels_comparison_table(performances: Sequence[Performance], found: DefaultLabels) -> Table:
    """Make a table of the results under both policies, at `MAIN_DURATIONS_S`."""
    default = {performance.duration_s: performance for performance in found.performances}
    rows = [
        (f"{own.duration_s:g} s", measure, *mine, *others)
        for own in performances
        if own.duration_s in MAIN_DURATIONS_S and own.duration_s in default
        for (measure, mine), others in zip(_cells(own).items(), _cells(default[own.duration_s]).values(), strict=True)
    ]
    names = [f"{labels}\n{name}" for labels in ("Own:", "Default:") for name in ("patients", "observed", "limit")]
    title = "The model's own labels and the default labels (limits by patient)"
    return Table(title, ("Window", "Measure", *names), tuple(rows))


def set_apart_tables(found: DefaultLabels, duration_s: float) -> list[Table]:
    """Make tables of the windows whose class differs, by class and database, and by patient; none if there are none."""
    groups = _group(found, duration_s, "default_class", "aha_class", "database")
    rows = tuple(
        (_label(default), _label(own), printable(database), str(_patients(rows)), *_shock_cells(rows))
        for (default, own, database), rows in groups.items()
    )
    by_patient = tuple(
        (printable(row.patient), _label(row.default_class), _label(row.aha_class), *_shock_cells([row]))
        for row in sorted(found.set_apart, key=lambda row: row.patient)
        if row.duration_s == duration_s
    )
    if not rows:
        return []
    title = f"Windows of {duration_s:g} s of another class than by default"
    counts = ("Windows", "Shock\nadvised", "%")
    return [
        Table(title, ("Default class", "Own class", "Database", "Patients", *counts), rows),
        Table(f"{title}, by patient", ("Patient", "Default class", "Own class", *counts), by_patient),
    ]


def _cells(performance: Performance) -> dict[str, tuple[str, str, str]]:
    """Return the patients, observed proportion and limit of each measure."""
    accuracy = performance.balanced_accuracy
    rates = {"Se": performance.sensitivity, "Sp": performance.specificity}
    return {
        "BAC": (str(accuracy.patients), rounded_down(accuracy.observed), rounded_down(accuracy.patient_limit)),
        **{
            name: (str(rate.patients), rounded_down(rate.observed), rounded_down(rate.patient_limit))
            for name, rate in rates.items()
        },
    }


def _group(found: DefaultLabels, duration_s: float, *by: str) -> dict[tuple[str, ...], list[SetApart]]:
    """Group the entries of one duration by some of their fields."""
    groups: dict[tuple[str, ...], list[SetApart]] = {}
    for row in found.set_apart:
        if row.duration_s == duration_s:
            groups.setdefault(tuple(getattr(row, name) for name in by), []).append(row)
    return groups


def _label(name: str) -> str:
    return name if name == EXCLUDED else class_name(name)


def _shock_cells(rows: Sequence[SetApart]) -> tuple[str, str, str]:
    windows, shocks = sum(row.windows for row in rows), sum(row.shocks for row in rows)
    return str(windows), str(shocks), rounded_down(shocks / windows)


def _patients(rows: Sequence[SetApart]) -> int:
    return len({row.patient for row in rows})
