"""The card of a bundle: what its model was trained, selected and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ecg_shock.data.datasets import DataConfig, ExtraPatients
from ecg_shock.files import explain, path_beside, path_for

REQUIRED_TABLES = ("data", "training", "patients")  # needed to evaluate a model, or to train it again


@dataclass(frozen=True)
class ExtraDatabase:
    """How many patients a database of `DataConfig.extra` adds, and a digest of their names.

    Parameters
    ----------
    version : str
        Version of the database.
    train, check : int
        Number of patients in the training subset, and number of patients used to measure the specificity.
    sha256 : str
        SHA-256 of the sorted names of the patients in the training subset, one per line.
    """

    version: str
    train: int
    check: int
    sha256: str

    @classmethod
    def of(cls, patients: ExtraPatients) -> ExtraDatabase:
        """Count these patients, and compute the digest of the names of the training patients."""
        names = "".join(f"{name}\n" for name in sorted(patients.train))
        return cls(
            patients.version, len(patients.train), len(patients.check), hashlib.sha256(names.encode()).hexdigest()
        )


@dataclass(frozen=True)
class Patients:
    """The patients of each subset. Synthetic patients are listed only if a subset has no other patients.

    Parameters
    ----------
    train, validation, test : tuple of str
        Sorted names of the patients. A patient of `DataConfig.extra` is not listed, unless the name of the patient
        begins with the name of another database.
    extra : dict of str to ExtraDatabase
        The patients of `DataConfig.extra`, by database name.
    files : tuple of str
        Digests of the signal files of all patients except the test patients, and of the signal files that an earlier
        model has seen; see `ecg_shock.data.same_files.signal_digests`.
    earlier : tuple of str
        If the training started from the weights of another model: the patients on whom that model was trained or
        selected.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    extra: dict[str, ExtraDatabase] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()

    def seen(self, patients: Iterable[str]) -> frozenset[str]:
        """Return the patients, among `patients`, on whom the model was trained or selected.

        All patients of the extra databases are included. The model must not be tested on the returned patients.
        """
        known = frozenset(self.train) | frozenset(self.validation) | frozenset(self.earlier)
        return frozenset(name for name in patients if name in known or name.partition("/")[0] in self.extra)


@dataclass(frozen=True)
class ValidationScore:
    """The result of the chosen epoch on the validation windows.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    balanced_accuracy, sensitivity, specificity : float
        Proportions, at the bundle's threshold.
    windows, patients : int
        Number of validation windows and patients.
    """

    epoch: int
    balanced_accuracy: float
    sensitivity: float
    specificity: float
    windows: int
    patients: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model was trained, selected and tested on. The fields have the order of `CARD.md`.

    Parameters
    ----------
    name : str
        Name of the model.
    synthetic : bool
        Whether all recordings are synthetic, so that the results say nothing about patients.
    protocol : str
        How the weights and the epoch were chosen.
    selection : str
        How the network and its settings were chosen.
    commit : str
        Git commit of the code that trained the model.
    synthetic_windows : int
        Number of synthetic windows in the training subset.
    synthetic_nonshockable : dict of str to int
        Number of windows of artefact that augmentation drew for the training.
    corrected_s : dict of str to float
        The seconds of the training and validation patients whose labels were corrected, by patient and label, such as
        ``"vfdb/424: asystole to coarse_vf"``. The file of corrections and its digest are in `data`.
    calibration : float or None
        Factor of the logit, if the probabilities are calibrated on validation patients. The weights of the last layer
        already include the factor.
    data : DataConfig
        Databases, split, fold, windows and preprocessing.
    training : dict of str
        Training settings, the fields of `ecg_shock.training.trainer.TrainingConfig`.
    validation : ValidationScore or None
        Result on the validation patients; None if there are no validation patients.
    patients : Patients
        The patients of the three subsets.
    expected : dict of str to str or None
        For a model that was trained on all patients: the expected results, one line per window length. They are the
        results of models that were trained in the same way, and tested on patients that were not used to train them.
    versions : dict of str to str
        Versions of Python and of the packages that trained the model.
    test : dict of str to str or None
        Results on the test patients, one line per window length; None if the model has not been tested.
    """

    name: str = ""
    synthetic: bool = False
    protocol: str = ""
    selection: str = ""
    commit: str = ""
    synthetic_windows: int = 0
    synthetic_nonshockable: dict[str, int] = field(default_factory=dict)
    corrected_s: dict[str, float] = field(default_factory=dict)
    calibration: float | None = None
    data: DataConfig
    training: dict[str, Any]
    validation: ValidationScore | None = None
    patients: Patients
    expected: dict[str, str] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    test: dict[str, str] | None = None

    def to_toml(self, path: Path) -> dict[str, Any]:
        """Return the table [card] of `path`, the bundle's TOML file."""
        content = asdict(self)
        data = self.data.with_paths(lambda name: path_for(name, path))
        content["data"] = data.model_dump(mode="json", exclude_none=True)
        patients = content["patients"]
        content["patients"] = {use: list(patients[use]) for use in ("train", "validation", "test")}
        if patients["extra"]:
            content["patients"]["extra"] = patients["extra"]
        content["patients"] |= {key: list(patients[key]) for key in ("earlier", "files") if patients[key]}
        return {key: value for key, value in content.items() if value is not None}


def read_card(content: Mapping[str, Any], path: Path) -> Card:
    """Read the table [card] of `path`, a bundle's TOML file. Unknown entries are ignored.

    Paths of manifests and of the split are relative to the bundle's folder.

    Raises
    ------
    ValueError
        If a required table is missing, or an entry is not valid.
    """
    missing = [f"[card.{table}]" for table in REQUIRED_TABLES if table not in content]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}, so it does not say what the model was trained on. "
            "Give a bundle that `tune` or `train` wrote."
        )
    try:
        card = TypeAdapter(Card).validate_python(dict(content))
        return replace(card, data=card.data.with_paths(lambda name: path_beside(name, path)))
    except ValidationError as error:
        errors = "; ".join(f"card.{line}" for line in explain(error))
        raise ValueError(f"{path}: {errors}. Correct it, or give a bundle that `tune` or `train` wrote.") from error
