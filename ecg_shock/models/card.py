"""What a model was trained, selected and tested on: the card of a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ecg_shock.data.datasets import DataConfig, ExtraPatients
from ecg_shock.files import explain

TABLES = ("data", "training", "patients")  # without them a model can be neither evaluated nor trained again


@dataclass(frozen=True)
class ExtraDatabase:
    """The patients of a database of `DataConfig.extra`, too many to be named.

    Parameters
    ----------
    version : str
        Version of the database.
    train, check : int
        How many trained the model, and how many checked its specificity on other hospitals.
    sha256 : str
        SHA-256 of the names of those who trained, sorted, a line each.
    """

    version: str
    train: int
    check: int
    sha256: str

    @classmethod
    def of(cls, patients: ExtraPatients) -> ExtraDatabase:
        """Count the patients of such a database."""
        names = "".join(f"{name}\n" for name in sorted(patients.train))
        return cls(
            patients.version, len(patients.train), len(patients.check), hashlib.sha256(names.encode()).hexdigest()
        )


@dataclass(frozen=True)
class Patients:
    """The patients that a model knows, by what they were used for; synthetic ones only if there are no others.

    Parameters
    ----------
    train, validation, test : tuple of str
        Their names, sorted; of `DataConfig.extra` only those that have the name of another database's patient.
    extra : dict of str to ExtraDatabase
        Those of `DataConfig.extra`, by the name of the database.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    extra: dict[str, ExtraDatabase] = field(default_factory=dict)

    def seen(self, patients: Iterable[str]) -> frozenset[str]:
        """Return those of `patients` that the model was trained or selected on: it cannot be tested on them.

        All patients of an extra database count as seen, those who only checked it too.
        """
        known = frozenset(self.train) | frozenset(self.validation)
        return frozenset(name for name in patients if name in known or name.partition("/")[0] in self.extra)


@dataclass(frozen=True)
class ValidationScore:
    """How the epoch that was chosen did on the validation windows.

    Parameters
    ----------
    epoch : int
        From 1.
    balanced_accuracy, sensitivity, specificity : float
        Proportions, at the bundle's threshold.
    windows, patients : int
        How many there were.
    """

    epoch: int
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    windows: int
    patients: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model was trained, selected and tested on, in the order in which people read it.

    Parameters
    ----------
    name : str
        Name of the model.
    synthetic : bool
        Whether all its recordings are synthetic, so that its results say nothing about patients.
    protocol, selection : str
        How weights and epoch, and how network and settings were chosen.
    commit : str
        The code that trained it.
    synthetic_windows : int
        Synthetic windows among those that it was trained on.
    data : DataConfig
        Databases, split, fold, windows and filter.
    training : dict of str
        Training settings as they are written; `ecg_shock.training.trainer.TrainingConfig` reads them.
    validation : ValidationScore or None
        Result on the validation patients.
    patients : Patients
        Who was trained, selected and is to be tested on.
    versions : dict of str to str
        Versions of Python and of the packages that trained it.
    test : dict of str to str or None
        Results on the test patients, a line for each duration, once they are recorded.
    """

    name: str = ""
    synthetic: bool = False
    protocol: str = ""
    selection: str = ""
    commit: str = ""
    synthetic_windows: int = 0
    data: DataConfig
    training: dict[str, Any]
    validation: ValidationScore | None = None
    patients: Patients
    versions: dict[str, str] = field(default_factory=dict)
    test: dict[str, str] | None = None

    def to_toml(self) -> dict[str, Any]:
        """Return the card as it stands in `bundle.toml`."""
        content = asdict(self)
        content["data"] = self.data.model_dump(mode="json", exclude_none=True)
        patients = content["patients"]
        content["patients"] = {use: list(patients[use]) for use in ("train", "validation", "test")}
        if patients["extra"]:
            content["patients"]["extra"] = patients["extra"]
        return {key: value for key, value in content.items() if value is not None}


def read_card(content: Mapping[str, Any], path: Path) -> Card:
    """Read the table [card] of `path`, a bundle's TOML file; entries that it does not know are ignored.

    Raises
    ------
    ValueError
        If it does not say what the model has seen, or an entry cannot be read; the message names it.
    """
    missing = [f"[card.{table}]" for table in TABLES if table not in content]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; it does not say what the model has seen. "
            "Give a bundle that `tune` or `train` wrote."
        )
    try:
        return TypeAdapter(Card).validate_python(dict(content))
    except ValidationError as error:
        faults = "; ".join(f"card.{line}" for line in explain(error))
        raise ValueError(f"{path}: {faults}. Correct it, or give a bundle that `tune` or `train` wrote.") from error
