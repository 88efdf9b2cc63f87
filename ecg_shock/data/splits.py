"""Patient splits: which patients are for training, for validation and for testing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.manifests import resource_dir
from ecg_shock.data.windows import WindowSet
from ecg_shock.files import read_toml
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

MIN_GROUPS = 3  # one for test, one for validation, the others for training


@dataclass(frozen=True)
class Fold:
    """The patients of a fold's three subsets. Each patient is in one subset only.

    Parameters
    ----------
    train, validation, test : frozenset of str
        Names of patients, as ``"database/record"``. Weights are fitted on `train`. Epoch, hyperparameters and threshold
        are chosen on `validation`. Results are reported for `test`.

    Raises
    ------
    ValueError
        If a patient is in two subsets.
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
        The outer folds. Each patient is in the test subset of exactly one fold. If the file has only one group of
        patients, there is one fold: all its patients are training patients.

    Raises
    ------
    OSError
        If your own file cannot be read.
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
        raise ValueError(
            f"{path}: folds={groups!r} is not allowed; write one list of patients, or {MIN_GROUPS} or more lists of "
            "patients."
        )
    everyone = [patient for group in groups for patient in group]
    repeated = sorted({patient for patient in everyone if everyone.count(patient) > 1})
    if repeated:
        raise ValueError(f"{path}: patients {repeated!r} are listed twice; list each patient in one fold only.")
    if len(groups) == 1:
        return (Fold(train=frozenset(everyone), validation=frozenset(), test=frozenset()),)
    tests = [frozenset(group) for group in groups]
    validations = [*tests[1:], tests[0]]
    return tuple(
        Fold(train=frozenset(everyone) - test - validation, validation=validation, test=test)
        for test, validation in zip(tests, validations, strict=True)
    )


def count_patients(windows: WindowSet, patients: Collection[str]) -> dict[str, np.ndarray]:
    """Count the windows of each patient in each of the five shockable and nonshockable AHA classes, shape (5,)."""
    classes = SHOCKABLE + NONSHOCKABLE
    return {
        patient: np.array([np.sum(windows.aha_class[windows.patient == patient] == name) for name in classes])
        for patient in patients
    }


def propose_groups(windows_by_class: Mapping[str, np.ndarray], n_groups: int, seed: int) -> list[list[str]]:
    """Divide patients into groups that have similar numbers of patients and of windows of each class.

    The patients with the rarest classes are assigned first. Each patient is assigned to the group that makes the groups
    most similar.

    Parameters
    ----------
    windows_by_class : mapping of str to numpy.ndarray
        For each patient, the number of windows of each class, shape (n_classes,).
    n_groups : int
        Number of groups.
    seed : int
        Seed for the choice between equally good groups.

    Returns
    -------
    list of list of str
        Names of the patients of each group, sorted.

    Raises
    ------
    ValueError
        If there are fewer patients than groups.
    """
    if len(windows_by_class) < n_groups:
        raise ValueError(
            f"there are {len(windows_by_class)} patients for {n_groups} groups; ask for fewer folds, at least "
            f"{MIN_GROUPS}, or add patients"
        )
    rng = np.random.default_rng(seed)
    patients = sorted(windows_by_class)
    rng.shuffle(patients)
    counts = np.array([windows_by_class[p] for p in patients], dtype=float)
    present = counts > 0
    # The patients of a class count more than its windows: many windows of one patient say little about other patients.
    features = np.hstack([present / np.maximum(present.sum(0), 1), 0.5 * counts / np.maximum(counts.sum(0), 1)])
    features = np.hstack([features, np.full((len(patients), 1), 1 / len(patients))])
    rarity = (present / np.maximum(present.sum(0), 1)).max(axis=1)
    sums = np.zeros((n_groups, features.shape[1]))
    groups: list[list[str]] = [[] for _ in range(n_groups)]
    for i in np.argsort(-rarity, kind="stable"):
        after = sums + features[i]
        cost = ((after - 1 / n_groups) ** 2 - (sums - 1 / n_groups) ** 2).sum(axis=1)
        best = int(np.argmin(cost))
        sums[best] += features[i]
        groups[best].append(patients[i])
    return [sorted(group) for group in groups]


def split_to_toml(groups: Sequence[Sequence[str]], command: str) -> str:
    """Return the text of a split's file, which names the command that made it."""
    import tomli_w

    return (
        f"# Written by `{command}`.\n"
        "# The patients of each group test one fold, those of the next group validate it, and all others train it.\n"
        "# Keep this file: results compare only on the same split.\n"
        + tomli_w.dumps({"folds": [list(group) for group in groups]})
    )


def _are_groups(groups: object) -> bool:
    if not isinstance(groups, list) or not (len(groups) == 1 or len(groups) >= MIN_GROUPS):
        return False
    return all(isinstance(group, list) and group and all(isinstance(p, str) for p in group) for group in groups)
