"""Apply a file of corrections to the databases of a run: check its records, and count the corrected seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from ecg_shock.data.corrections import CorrectedSeconds
from ecg_shock.data.datasets import DataConfig, load_corrections, name_of, patients_by_record
from ecg_shock.data.windows import LabelPolicy


def pin_corrections(data: DataConfig) -> DataConfig:
    """Add the digest of the file of corrections, so that it is an error if the file changes later.

    Raises
    ------
    ValueError
        If the file is not valid, or has corrections of other records than those of the databases.
    """
    corrections = load_corrections(data.labels)
    if corrections is None:
        return data
    corrections.check_records({name_of(name): patients_by_record(name) for name in (*data.databases, *data.extra)})
    return data.model_copy(update={"labels": replace(data.labels, corrections_sha256=corrections.sha256)})


def count_corrected(
    labels: LabelPolicy, databases: Iterable[str], patients: Collection[str] | None = None
) -> tuple[CorrectedSeconds, ...]:
    """Count the seconds that a label policy corrects in some databases, by patient and label.

    Parameters
    ----------
    labels : LabelPolicy
        The label policy.
    databases : iterable of str
        Names or manifest paths of the databases.
    patients : collection of str, optional
        The patients to count; all if not given.
    """
    corrections = load_corrections(labels)
    if corrections is None:
        return ()
    return corrections.seconds(
        {
            f"{name_of(name)}/{record}": patient
            for name in databases
            for record, patient in patients_by_record(name).items()
            if patients is None or patient in patients
        }
    )
