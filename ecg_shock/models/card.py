"""What a model was trained, selected and tested on: the card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ecg_shock.data.datasets import DataConfig
from ecg_shock.files import explain

TABLES = ("data", "training", "patients")  # without them a model can be neither evaluated nor trained again


@dataclass(frozen=True)
class Patients:
    """The patients that a model knows, by what they were used for; synthetic ones only if there are no others.

    Parameters
    ----------
    train, validation, test : tuple of str
        Their names, sorted.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def seen(self) -> frozenset[str]:
        """The patients that the model was trained or selected on: it cannot be tested on them."""
        return frozenset(self.train) | frozenset(self.validation)


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


@dataclass(frozen=True)
class Card:
    """What a model was trained, selected and tested on.

    Parameters
    ----------
    data : DataConfig
        Databases, split, fold, windows and filter.
    training : dict of str
        Training settings as they are written; `ecg_shock.training.trainer.TrainingConfig` reads them.
    patients : Patients
        Who was trained, selected and is to be tested on.
    name : str
        Name of the model.
    synthetic : bool
        Whether all its recordings are synthetic, so that its results say nothing about patients.
    protocol, selection : str
        How weights and epoch, and how network and settings were chosen.
    commit : str
        The code that trained it.
    validation : ValidationScore or None
        Result on the validation patients.
    synthetic_windows : int
        Synthetic windows among those that it was trained on.
    versions : dict of str to str
        Versions of Python and of the packages that trained it.
    test : dict of str to str or None
        Results on the test patients, a line for each duration, once they are recorded.
    """

    data: DataConfig
    training: dict[str, Any]
    patients: Patients
    name: str = ""
    synthetic: bool = False
    protocol: str = ""
    selection: str = ""
    commit: str = ""
    validation: ValidationScore | None = None
    synthetic_windows: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    test: dict[str, str] | None = None

    def to_toml(self) -> dict[str, Any]:
        """Return the card as it stands in `bundle.toml`, in the order in which people read it.

        Returns
        -------
        dict of str
            What TOML can hold.
        """
        content = {
            "name": self.name,
            "synthetic": self.synthetic,
            "protocol": self.protocol,
            "selection": self.selection,
            "commit": self.commit,
            "synthetic_windows": self.synthetic_windows,
            "data": self.data.model_dump(mode="json", exclude_none=True),
            "training": self.training,
            "validation": None if self.validation is None else asdict(self.validation),
            "patients": {use: list(names) for use, names in asdict(self.patients).items()},
            "versions": self.versions,
            "test": self.test,
        }
        return {key: value for key, value in content.items() if value is not None}


def read_card(content: Mapping[str, Any], path: Path) -> Card:
    """Read the card of a bundle; entries that it does not know are ignored.

    Parameters
    ----------
    content : mapping of str
        The table [card] of `bundle.toml`.
    path : pathlib.Path
        That file, for messages.

    Returns
    -------
    Card

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
