"""Patient splits: which patients are for training, for validation and for testing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecg_shock.data.manifests import resource_dir
from ecg_shock.files import read_toml

MIN_GROUPS = 3  # one for test, one for validation, the others for training


@dataclass(frozen=True)
class Fold:
    """Patients of the three subsets of a fold; no patient is in two.

    Parameters
    ----------
    train, validation, test : frozenset of str
        Names of patients, as ``"database/record"``. Weights are fitted on `train`. Epoch, hyperparameters and threshold
        are chosen on `validation`. Results are reported for `test`.
    """

    train: frozenset[str]
    validation: frozenset[str]
    test: frozenset[str]

    def __post_init__(self) -> None:
        for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
            shared = getattr(self, a) & getattr(self, b)
            if shared:
                raise ValueError(
                    f"patients {sorted(shared)!r} are in {a} and in {b}; each patient must be in one subset only."
                )


def load_split(name: str) -> tuple[Fold, ...]:
    """Read a split from `data_manifests/splits/`, or your own split from a file.

    Parameters
    ----------
    name : str
        Name of the split, such as ``"public-v1"``, or the path of your own file, ending in ``.toml``.

    Returns
    -------
    tuple of Fold
        The outer folds. Each patient is in the test subset of exactly one fold.

    Raises
    ------
    ValueError
        If there is no such split, its file is damaged, or a patient is listed twice.

    Examples
    --------
    >>> folds = load_split("public-v1")
    >>> len(folds), len(frozenset.union(*(fold.test for fold in folds)))
    (5, 104)
    """
    folder = resource_dir("data_manifests") / "splits"
    names = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in names and Path(name).suffix != ".toml":
        raise ValueError(
            f"unknown split {name!r}; known are {', '.join(names)}. To use your own split, give its path, ending in "
            ".toml"
        )
    path = folder / f"{name}.toml" if name in names else Path(name).expanduser()
    groups: Any = read_toml(path).get("folds")
    if not _are_groups(groups):
        raise ValueError(f"{path}: folds={groups!r} must be a list of {MIN_GROUPS} or more lists of patients.")
    everyone = [patient for group in groups for patient in group]
    repeated = sorted({patient for patient in everyone if everyone.count(patient) > 1})
    if repeated:
        raise ValueError(f"{path}: patients {repeated!r} are listed twice; list each patient in one fold only.")
    tests = [frozenset(group) for group in groups]
    validations = [*tests[1:], tests[0]]
    return tuple(
        Fold(train=frozenset(everyone) - test - validation, validation=validation, test=test)
        for test, validation in zip(tests, validations, strict=True)
    )


def _are_groups(groups: object) -> bool:
    if not isinstance(groups, list) or len(groups) < MIN_GROUPS:
        return False
    return all(isinstance(group, list) and group and all(isinstance(p, str) for p in group) for group in groups)
